//! Received snapshots in the place of what was there: crashes at every point, readers at the switch, failures.

use super::*;
use crate::snapshot::{Installer, SnapshotReader, SnapshotScope};
use damage::image;
use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

const CLUSTER: u64 = 7;

/// The stream of a store with transactions 2 to `last`, a value of `tag` in each row, at log index 1000 + `tag`.
fn stream(last: i64, tag: u64) -> Vec<Bytes> {
    let (source, _) = Store::in_memory(&MemoryStore::default(), small()).unwrap();
    let rows = (2..=last).map(|main| Change::PutRow(T1, tagged(main, tag)));
    source.stage(at(1000 + tag), rows.collect());
    SnapshotReader::new(source.view(), CLUSTER, &SnapshotScope::All)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

fn tagged(main: i64, tag: u64) -> Row {
    Row {
        value: Bytes::from(tag.to_string().repeat(30)),
        ..row(main)
    }
}

fn receive(store: &Store, stream: &[Bytes]) -> IncomingStore {
    let mut installer: Installer = store.incoming(Some(CLUSTER)).unwrap();
    for piece in stream {
        installer.push(piece).unwrap();
    }
    installer.finish().unwrap()
}

/// Checks that the store holds the contents of [`stream`] and nothing else.
fn check_tagged(store: &Store, last: i64, tag: u64) {
    let expected: Vec<Row> = (2..=last).map(|main| tagged(main, tag)).collect();
    let rows: Vec<Row> = store
        .scan(T1, rev(0), i64::MAX)
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(rows, expected);
    for expected in &expected {
        let row = store.get(T1, expected.revision).unwrap();
        assert_eq!(row.as_ref(), Some(expected));
    }
    assert_eq!(store.get(T1, rev(last + 1)).unwrap(), None);
    assert_eq!(store.tenants().unwrap(), [T1]);
    assert_eq!(store.meta(b"").unwrap(), []);
}

/// Tells the other threads to end, also if this one fails: they would be waited for for ever.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_snapshot_takes_the_place_of_everything() {
    for ground in Ground::both() {
        let (store, _) = ground.open();
        stage(&store, 2..=60);
        store.persist().unwrap();
        store.checkpoint().unwrap();
        stage(&store, 61..=80);
        check(&store, 80);
        let before = store.view();
        let mut scan = store.scan(T2, rev(0), i64::MAX);
        assert_eq!(scan.next().unwrap().unwrap(), row(2));

        let stream = stream(30, 5);
        let incoming = receive(&store, &stream);
        assert_eq!(incoming.info.position, at(1005));
        check(&store, 80);
        store.install(incoming).unwrap();
        check_tagged(&store, 30, 5);
        assert_eq!(store.staged_position(), at(1005));
        assert_eq!(store.staged_bytes(), 0);
        // What is written now is written to the new contents.
        assert_eq!(store.checkpoint().unwrap(), at(1005));
        store.stage(at(1006), vec![Change::PutRow(T1, tagged(31, 5))]);
        assert_eq!(store.persist().unwrap().position, at(1006));
        assert_eq!(store.checkpoint().unwrap(), at(1006));
        check_tagged(&store, 31, 5);
        // Who began before goes on with what was there.
        assert_eq!(scan.count(), 78);
        assert_eq!(before.position(), at(80));
        assert_eq!(before.scan(T1, rev(0), i64::MAX).count(), 79);
        assert_eq!(before.meta(b"").unwrap().len(), 1);
        if let Ground::Directory(dir) = &ground {
            let dir = dir.path().join("deep").join("store");
            assert!(dir.join("fjall").exists());
            drop(before);
            store.persist().unwrap();
            assert_eq!(entries(&dir), ["current", "generation-1", "store.lock"]);
        }
        drop(store);

        for recorded in [false, true] {
            let (store, opened) = ground.open();
            let expected = Opened {
                applied: at(1006),
                installed: true,
                ..Opened::default()
            };
            assert_eq!(opened, expected);
            check_tagged(&store, 31, 5);
            if recorded {
                store.installed_recorded().unwrap();
            }
        }
        let (store, opened) = ground.open();
        assert!(!opened.installed);
        store.installed_recorded().unwrap();
        // And once more.
        store.install(receive(&store, &self::stream(9, 6))).unwrap();
        check_tagged(&store, 9, 6);
        drop(store);
        let (store, opened) = ground.open();
        assert!(opened.installed);
        assert_eq!(opened.applied, at(1006));
        check_tagged(&store, 9, 6);
    }
}

#[test]
fn what_was_received_but_not_installed_is_removed() {
    for ground in Ground::both() {
        let (store, _) = ground.open();
        stage(&store, 2..=40);
        store.persist().unwrap();
        let stream = stream(1000, 5);
        let mut half = store.incoming(Some(CLUSTER)).unwrap();
        half.push(&stream[0]).unwrap();
        let whole = receive(&store, &stream);
        match &ground {
            Ground::Directory(dir) => {
                let dir = dir.path().join("deep").join("store");
                // Killed here.
                let killed = dir.with_file_name("killed");
                image(&dir, &killed);
                assert!(killed.join("generation-2").exists());
                let (copy, opened) = Store::open(&killed, small()).unwrap();
                assert_eq!((opened.applied, opened.installed), (at(40), false));
                check(&copy, 40);
                let left = ["fjall", "store.lock", "store.mark"];
                assert_eq!(entries(&killed), left);
                drop((half, whole));
                assert_eq!(entries(&dir), left);
            }
            Ground::Memory(memory) => {
                memory.crash(&mut |n| n - 1);
                assert!(store.install(whole).is_err());
                let (store, opened) = Store::in_memory(memory, small()).unwrap();
                assert_eq!((opened.applied, opened.installed), (at(40), false));
                check(&store, 40);
            }
        }
        check(&store, 40);
    }
}

#[test]
fn a_kill_at_any_point_of_the_switch_leaves_the_old_or_the_new() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let (store, _) = Store::open(&live, small()).unwrap();
    stage(&store, 2..=40);
    store.persist().unwrap();
    let incoming = receive(&store, &stream(30, 5));
    let killed = |name: &str| {
        let copy = dir.path().join(name);
        image(&live, &copy);
        copy
    };
    let before = killed("before");
    let half_written = killed("half written");
    fs::write(half_written.join("current.new"), b"HFCU").unwrap();
    let reading = store.view();
    store.install(incoming).unwrap();
    let after = killed("after");
    let half_removed = killed("half removed");
    fs::remove_file(half_removed.join("fjall/0.jnl")).unwrap();
    fs::remove_file(half_removed.join("store.mark")).unwrap();
    let without_lock = killed("without lock");
    fs::remove_file(without_lock.join("store.lock")).unwrap();
    drop(reading);
    store.persist().unwrap();
    let removed = killed("removed");
    assert!(!removed.join("fjall").exists());
    for old in [before, half_written] {
        let (store, opened) = Store::open(&old, small()).unwrap();
        assert_eq!((opened.applied, opened.installed), (at(40), false));
        check(&store, 40);
        assert!(!old.join("generation-1").exists());
        // The remains are not in the way of the next one.
        store.install(receive(&store, &stream(20, 6))).unwrap();
        drop(store);
        check_tagged(&Store::open(&old, small()).unwrap().0, 20, 6);
    }
    for new in [after, half_removed, without_lock, removed] {
        let (store, opened) = Store::open(&new, small()).unwrap();
        assert_eq!((opened.applied, opened.installed), (at(1005), true));
        assert_eq!(opened.set_aside, None);
        check_tagged(&store, 30, 5);
        assert_eq!(entries(&new), ["current", "generation-1", "store.lock"]);
    }
}

#[test]
fn installed_contents_lose_a_torn_tail_and_nothing_before_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let (store, _) = Store::open(&live, small()).unwrap();
    store.install(receive(&store, &stream(30, 5))).unwrap();
    store.stage(at(1006), vec![Change::PutRow(T1, tagged(31, 5))]);
    store.persist().unwrap();
    let torn = dir.path().join("torn");
    image(&live, &torn);
    let journal = torn.join("generation-1/fjall/0.jnl");
    let mut bytes = fs::read(&journal).unwrap();
    let end = bytes.iter().rposition(|&b| b != 0).unwrap();
    bytes[end - 10..].fill(0x55);
    fs::write(&journal, bytes).unwrap();
    let (copy, opened) = Store::open(&torn, small()).unwrap();
    assert_eq!(opened.applied, at(1005));
    assert!(opened.installed);
    assert_eq!(opened.recovered.unwrap().journal, journal);
    check_tagged(&copy, 30, 5);
}

#[test]
fn a_damaged_or_missing_name_of_the_current_contents_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let (store, _) = Store::open(&live, small()).unwrap();
    store.install(receive(&store, &stream(30, 5))).unwrap();
    store.persist().unwrap();
    drop(store);
    let strict = StoreOptions {
        may_set_aside: false,
        ..small()
    };
    type Harm = fn(&Path);
    let cases: [(&str, Harm); 3] = [
        ("missing", |dir| {
            fs::remove_file(dir.join("current")).unwrap();
        }),
        ("damaged", |dir| {
            fs::write(dir.join("current"), b"junk").unwrap();
        }),
        ("without contents", |dir| {
            fs::remove_dir_all(dir.join("generation-1")).unwrap();
        }),
    ];
    for (name, harm) in cases {
        let path = dir.path().join(name);
        image(&live, &path);
        harm(&path);
        let before = entries(&path);
        let refused = Store::open(&path, strict.clone());
        assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{name}");
        assert_eq!(entries(&path), before, "{name}");
        let (_, opened) = Store::open(&path, small()).unwrap();
        assert_eq!(entries(&opened.set_aside.unwrap()), before, "{name}");
        assert_eq!(opened.applied, LogPosition::default());
    }
}

#[test]
fn a_switch_that_fails_leaves_the_old_contents() {
    let ground = Ground::Directory(tempfile::tempdir().unwrap());
    let Ground::Directory(dir) = &ground else {
        unreachable!()
    };
    let dir = dir.path().join("deep").join("store");
    let (store, _) = ground.open();
    stage(&store, 2..=40);
    fs::create_dir(dir.join("current.new")).unwrap();
    let failed = store.install(receive(&store, &stream(30, 5)));
    assert!(matches!(failed, Err(ReplaceError::NotSwitched { .. })));
    check(&store, 40);
    assert!(!dir.join("generation-1").exists());
    assert_eq!(store.persist().unwrap().position, at(40));
    fs::remove_dir(dir.join("current.new")).unwrap();

    // The name is there already, as something that cannot be replaced: the rename fails, and that may be only the answer.
    fs::create_dir(dir.join("current")).unwrap();
    let failed = store.install(receive(&store, &stream(30, 5)));
    assert!(matches!(failed, Err(ReplaceError::Unknown { .. })));
    check(&store, 40);
    stage(&store, 41..=42);
    assert!(matches!(store.persist(), Err(PersistError::Stopped { .. })));
    assert!(matches!(
        store.checkpoint(),
        Err(PersistError::Stopped { .. })
    ));
    assert!(dir.join("generation-2").exists() && dir.join("fjall").exists());
}

#[test]
fn contents_for_another_store_and_a_full_disk_are_refused() {
    let [first, second] = Ground::both();
    let (store, _) = first.open();
    stage(&store, 2..=20);
    let (other, _) = second.open();
    let refused = store.install(receive(&other, &stream(30, 5)));
    assert!(matches!(refused, Err(ReplaceError::OtherStore)));
    check(&store, 20);

    let Ground::Memory(memory) = &second else {
        unreachable!()
    };
    stage(&other, 2..=20);
    let pieces = stream(30, 5);
    for full in [MemoryStore::fail_persist, MemoryStore::fail_checkpoint] {
        let mut installer = other.incoming(None).unwrap();
        installer.push(&pieces.concat()).unwrap();
        full(memory, 1);
        assert!(installer.finish().is_err());
        check(&other, 20);
    }
    other.install(receive(&other, &pieces)).unwrap();
    check_tagged(&other, 30, 5);
}

#[test]
fn every_read_at_the_switch_sees_the_old_or_the_new() {
    const LAST: i64 = 120;
    const ROUNDS: u64 = 30;
    for ground in Ground::both() {
        let (store, _) = ground
            .try_open(StoreOptions {
                // Room for some of the rows only, so that reads mix cache and engine.
                cache_bytes: 24 << 10,
                ..small()
            })
            .unwrap();
        let streams: Vec<_> = (0..ROUNDS).map(|tag| stream(LAST, tag)).collect();
        store.install(receive(&store, &streams[0])).unwrap();
        // The newest contents that are in place for sure, and the newest that may be.
        let (least, most) = (AtomicU64::new(0), AtomicU64::new(0));
        let done = AtomicBool::new(false);
        let revisions: Vec<Revision> = (2..=LAST).map(rev).collect();
        let tag_of = |rows: &[Row], case: &str| {
            assert_eq!(rows.len() as i64, LAST - 1, "{case}");
            let tag: u64 = (0..ROUNDS)
                .find(|tag| rows[0].value == tagged(2, *tag).value)
                .unwrap();
            for row in rows {
                assert_eq!(*row, tagged(row.revision.main, tag), "{case}");
            }
            tag
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let low = least.load(Ordering::Acquire);
                    store.persist().unwrap();
                    let position = store.checkpoint().unwrap();
                    let high = most.load(Ordering::Acquire);
                    assert!((1000 + low..=1000 + high).contains(&position.index));
                }
            });
            for reader in 0..2 {
                let (store, least, most, done, revisions) =
                    (&store, &least, &most, &done, &revisions);
                scope.spawn(move || {
                    let mut out = Vec::new();
                    for round in reader.. {
                        if done.load(Ordering::Acquire) {
                            break;
                        }
                        let low = least.load(Ordering::Acquire);
                        let (rows, case): (Vec<Row>, _) = match round % 4 {
                            0 => {
                                store.get_many(T1, revisions, &mut out).unwrap();
                                (out.drain(..).flatten().collect(), "get_many")
                            }
                            1 => {
                                let scan = store.scan(T1, rev(0), i64::MAX);
                                (scan.collect::<Result<_, _>>().unwrap(), "scan")
                            }
                            2 => {
                                let view = store.view();
                                let scan = view.scan(T1, rev(0), i64::MAX);
                                let rows: Vec<Row> = scan.collect::<Result<_, _>>().unwrap();
                                let tag = tag_of(&rows, "view");
                                assert_eq!(view.position(), at(1000 + tag));
                                (rows, "view")
                            }
                            _ => {
                                let one = rev(2 + round % (LAST - 1));
                                let row = store.get(T1, one).unwrap().unwrap();
                                let value = row.value;
                                let whole = revisions.iter().map(|r| Row {
                                    value: value.clone(),
                                    ..tagged(r.main, 0)
                                });
                                (whole.collect(), "get")
                            }
                        };
                        let high = most.load(Ordering::Acquire);
                        let tag = tag_of(&rows, case);
                        assert!((low..=high).contains(&tag), "{case}: {low} {tag} {high}");
                    }
                });
            }
            let _ends = Ends(&done);
            for (tag, stream) in (0..).zip(&streams).skip(1) {
                let incoming = receive(&store, stream);
                most.store(tag, Ordering::Release);
                store.install(incoming).unwrap();
                least.store(tag, Ordering::Release);
                check_tagged(&store, LAST, tag);
            }
        });
        store.persist().unwrap();
        if let Ground::Directory(dir) = &ground {
            let dir = dir.path().join("deep").join("store");
            assert_eq!(entries(&dir).len(), 3, "{:?}", entries(&dir));
        }
    }
}

#[test]
fn a_power_cut_takes_nothing_of_what_was_installed() {
    let memory = MemoryStore::default();
    let (store, _) = Store::in_memory(&memory, small()).unwrap();
    stage(&store, 2..=40);
    store.persist().unwrap();
    store.install(receive(&store, &stream(30, 5))).unwrap();
    store.stage(at(1006), vec![Change::PutRow(T1, tagged(31, 5))]);
    store.persist().unwrap();
    memory.crash(&mut |_| 0);
    let (store, opened) = Store::in_memory(&memory, small()).unwrap();
    assert_eq!((opened.applied, opened.installed), (at(1005), true));
    check_tagged(&store, 30, 5);
}
