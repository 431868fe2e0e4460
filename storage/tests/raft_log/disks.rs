//! Both disks keep the same contract; the one in memory also keeps the other side of it.

use holdfast_storage::disk::{Disk, DiskFile, MemDisk, RealDisk};
use std::io::ErrorKind;

fn keeps_the_contract<D: Disk>(disk: &D) {
    assert_eq!(disk.list().expect("list"), Vec::<String>::new());
    assert_eq!(
        disk.open("a").expect_err("missing").kind(),
        ErrorKind::NotFound
    );
    assert!(!disk.exists("a").expect("exists"));
    let file = disk.create("a").expect("create");
    assert_eq!(
        disk.create("a").expect_err("taken").kind(),
        ErrorKind::AlreadyExists
    );
    assert!(file.is_empty().expect("length"));
    file.write_zeros(0, 600_000).expect("zeros");
    file.write_at(b"abc", 599_999).expect("write");
    assert_eq!(
        (file.len().expect("length"), disk.len("a").expect("length")),
        (600_002, 600_002)
    );
    let mut read = [9; 4];
    file.read_at(&mut read, 599_998).expect("read");
    assert_eq!(&read, b"\0abc");
    assert_eq!(
        file.read_at(&mut read, 599_999).expect_err("end").kind(),
        ErrorKind::UnexpectedEof
    );
    file.set_len(2).expect("cut");
    file.sync_data().expect("sync");
    disk.create("b").expect("create");
    disk.rename("a", "b").expect("rename over another");
    disk.sync_dir().expect("sync");
    assert_eq!(disk.list().expect("list"), ["b"]);
    assert_eq!(disk.open("b").expect("open").len().expect("length"), 2);
    disk.remove("b").expect("remove");
    assert_eq!(
        disk.remove("b").expect_err("gone").kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        disk.rename("b", "c").expect_err("gone").kind(),
        ErrorKind::NotFound
    );
    assert_eq!(file.len().expect("an open file outlives its name"), 2);
}

#[test]
fn memory_keeps_the_contract() {
    keeps_the_contract(&MemDisk::new());
}

#[test]
fn a_directory_keeps_the_contract() {
    let directory = tempfile::tempdir().expect("directory");
    keeps_the_contract(&RealDisk::open(directory.path()).expect("open"));
    let file = directory.path().join("file");
    std::fs::write(&file, "").expect("write");
    assert_eq!(
        RealDisk::open(&file).expect_err("a file").kind(),
        ErrorKind::NotADirectory
    );
}

#[test]
fn a_crash_keeps_what_was_synced_and_may_drop_the_rest() {
    let disk = MemDisk::new();
    let file = disk.create("kept").expect("create");
    file.write_at(b"synced", 0).expect("write");
    file.sync_data().expect("sync");
    disk.sync_dir().expect("sync");
    disk.create("dropped").expect("create");
    file.write_at(b"SYN", 0).expect("write");
    disk.crash(&mut |_| 0);
    assert_eq!(disk.list().expect("list"), ["kept"]);
    assert_eq!(disk.contents("kept").expect("there"), b"synced");
    assert!(file.len().is_err(), "a handle does not survive the crash");
}

#[test]
fn a_crash_undoes_the_latest_names_and_the_same_choices_give_the_same_disk() {
    let crashed = |names: u64| {
        let disk = MemDisk::new();
        for name in ["a", "b"] {
            let file = disk.create(name).expect("create");
            file.write_at(name.as_bytes(), 0).expect("write");
            file.sync_data().expect("sync");
        }
        disk.sync_dir().expect("sync");
        disk.rename("a", "b").expect("rename");
        disk.remove("b").expect("remove");
        disk.create("c").expect("create");
        let mut picks = [names].into_iter();
        disk.crash(&mut |bound| picks.next().unwrap_or(0).min(bound - 1));
        let names = disk.list().expect("list");
        let content = |name: &String| disk.contents(name).expect("there");
        let contents: Vec<Vec<u8>> = names.iter().map(content).collect();
        (names.join(" "), contents.concat())
    };
    let expected = [("a b", "ab"), ("b", "a"), ("", ""), ("c", "")];
    for (survive, (names, contents)) in (0..).zip(expected) {
        let expected = (names.to_owned(), contents.as_bytes().to_vec());
        assert_eq!(crashed(survive), expected);
        assert_eq!(crashed(survive), expected);
    }
}

#[test]
fn a_failing_sync_of_the_names_makes_none_of_them_durable() {
    let disk = MemDisk::new();
    disk.create("a").expect("create");
    disk.fail_sync(1);
    disk.sync_dir().expect_err("injected");
    disk.crash(&mut |_| 0);
    assert_eq!(disk.list().expect("list"), Vec::<String>::new());
}

#[test]
fn a_crash_tears_writes_at_any_byte_or_sector() {
    let write = |pick: &mut dyn FnMut(u64) -> u64| {
        let disk = MemDisk::new();
        let file = disk.create("a").expect("create");
        file.write_zeros(0, 2048).expect("zeros");
        file.sync_data().expect("sync");
        disk.sync_dir().expect("sync");
        file.write_at(&[1; 1024], 256).expect("write");
        disk.crash(pick);
        disk.contents("a").expect("there")
    };
    // No names to drop; then "a prefix of it"; then how long.
    let mut picks = [0, 1, 300].into_iter();
    let torn = write(&mut |_| picks.next().expect("three questions"));
    let expected = [vec![0; 256], vec![1; 300], vec![0; 1492]].concat();
    assert!(torn == expected);
    // "Some sectors": the first, not the second, the third.
    let mut picks = [0, 2, 1, 0, 1].into_iter();
    let torn = write(&mut |_| picks.next().expect("five questions"));
    let expected = [
        vec![0; 256],
        vec![1; 256],
        vec![0; 512],
        vec![1; 256],
        vec![0; 768],
    ]
    .concat();
    assert!(torn == expected);
}

#[test]
fn what_a_failed_sync_gave_up_no_later_sync_writes() {
    let disk = MemDisk::new();
    let file = disk.create("a").expect("create");
    disk.sync_dir().expect("sync");
    file.write_at(b"lost", 0).expect("write");
    disk.fail_sync(1);
    file.sync_data().expect_err("injected");
    file.write_at(b"kept", 4).expect("write");
    file.sync_data().expect("sync");
    assert_eq!(disk.contents("a").expect("there"), b"lostkept");
    disk.crash(&mut |_| 0);
    assert_eq!(disk.contents("a").expect("there"), b"\0\0\0\0kept");
}

#[test]
fn a_full_disk_writes_what_fits_and_says_so() {
    let disk = MemDisk::new();
    let file = disk.create("a").expect("create");
    disk.set_capacity(Some(6));
    let error = file.write_at(b"12345678", 0).expect_err("full");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(disk.contents("a").expect("there"), b"123456");
    file.write_at(b"ab", 0).expect("no growth");
    disk.set_capacity(None);
    file.write_at(b"12345678", 0).expect("space again");
}
