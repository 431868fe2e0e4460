//! What is accepted, repaired and refused.

use super::*;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::{Command, Stdio},
};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn open(path: &Path) -> Result<DataDir, DataDirError> {
    DataDir::open(path, None)
}

#[test]
fn a_new_directory_is_private_and_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a").join("b");
    let data = open(&path).unwrap();
    assert_eq!(data.warnings(), [] as [&str; 0]);
    for made in [
        &path,
        &path.join("log"),
        &path.join("store"),
        &path.join("snap"),
        &path.join("../../a"),
    ] {
        assert_eq!(mode(made), 0o700, "{}", made.display());
    }
    assert_eq!(data.log_dir(), path.join("log"));
    assert_eq!(data.identity().unwrap(), None);
    let identity = Identity {
        cluster_id: 1,
        member_id: 2,
        name: "n".to_owned(),
        profile: Profile::Etcd,
        instance: 3,
    };
    data.write_identity(&identity).unwrap();
    drop(data);
    let data = open(&path).unwrap();
    assert_eq!(data.identity().unwrap(), Some(identity));
    fs::write(path.join("identity"), "junk").unwrap();
    let error = data.identity().unwrap_err().to_string();
    assert!(error.contains("identity is damaged"), "{error}");
}

#[test]
fn open_permissions_are_repaired_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    drop(open(&path).unwrap());
    set_mode(&path, 0o755);
    set_mode(&path.join("store"), 0o770);
    let data = open(&path).unwrap();
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("store")), 0o700);
    let [first, second] = data.warnings() else {
        panic!("{:?}", data.warnings());
    };
    assert!(first.contains("were 0755 and are now 0700"), "{first}");
    assert!(second.contains("store were 0770"), "{second}");
}

#[test]
fn a_second_process_is_refused_by_the_first_ones_id() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    fs::create_dir(&path).unwrap();
    set_mode(&path, 0o700);
    // Another process holds the lock: flock runs `cat`, which waits for its input to end.
    let mut holder = Command::new("flock")
        .arg(path.join("LOCK"))
        .args(["sh", "-c", "echo 4711 > \"$0\"; echo locked; exec cat"])
        .arg(path.join("LOCK"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 7];
    holder
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(
        error,
        DataDirError::InUse {
            pid: Some(4711),
            ..
        }
    ));
    assert_eq!(
        error.to_string(),
        format!(
            "data directory {} is used by another process (pid 4711)",
            path.display()
        )
    );
    drop(holder.stdin.take());
    holder.wait().unwrap();
    let data = open(&path).unwrap();
    // Within a process too.
    let error = open(&path).unwrap_err();
    assert!(matches!(error, DataDirError::InUse { pid: Some(p), .. } if p == std::process::id()));
    drop(data);
    open(&path).unwrap();
}

#[test]
fn a_newer_a_damaged_and_a_missing_format_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    drop(open(&path).unwrap());
    let format = path.join("FORMAT");
    let good = fs::read(&format).unwrap();
    fs::write(&format, "holdfast-data 9\n").unwrap();
    set_mode(&path, 0o750);
    let error = open(&path).unwrap_err().to_string();
    assert!(
        error.contains("has format 9") && error.contains("up to 1"),
        "{error}"
    );
    assert_eq!(mode(&path), 0o750, "a refused directory was touched");
    for bad in ["", "holdfast-data", "holdfast-data 0", "x 1"] {
        fs::write(&format, bad).unwrap();
        assert!(matches!(open(&path), Err(DataDirError::BadFormat { .. })));
    }
    fs::remove_file(&format).unwrap();
    // Nothing in it yet: an interrupted first start.
    drop(open(&path).unwrap());
    assert_eq!(fs::read(&format).unwrap(), good);
    fs::remove_file(&format).unwrap();
    fs::write(path.join("log").join("1"), "entries").unwrap();
    assert!(matches!(
        open(&path),
        Err(DataDirError::MissingFormat { .. })
    ));
}

#[test]
fn what_is_not_ours_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [&file, &file.join("below")] {
        assert!(matches!(
            open(path),
            Err(DataDirError::NotADirectory { .. })
        ));
    }

    let etcd = dir.path().join("etcd");
    fs::create_dir_all(etcd.join("member").join("snap")).unwrap();
    let error = open(&etcd).unwrap_err().to_string();
    assert!(error.contains("was made by etcd"), "{error}");

    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("thesis.txt"), "x").unwrap();
    set_mode(&home, 0o755);
    let error = open(&home).unwrap_err().to_string();
    assert!(error.contains("it holds \"thesis.txt\""), "{error}");

    let shared = dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    set_mode(&shared, 0o1777);
    assert!(matches!(open(&shared), Err(DataDirError::Shared { .. })));
    for (path, expected) in [(&home, 0o755), (&shared, 0o1777)] {
        assert_eq!(mode(path), expected);
        assert!(!path.join("LOCK").exists());
    }

    let volume = dir.path().join("volume");
    fs::create_dir_all(volume.join("lost+found")).unwrap();
    open(&volume).unwrap();
}

#[test]
fn another_owner_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    fs::create_dir(&path).unwrap();
    // Only root can give a directory away; the system's root directory is somebody else's for all others.
    let foreign = if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        path.as_path()
    } else {
        Path::new("/")
    };
    let error = open(foreign).unwrap_err();
    assert!(matches!(error, DataDirError::WrongOwner { .. }), "{error}");
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    if rustix::process::geteuid().is_root() {
        // Permissions do not bind root; the kernel's own tree refuses even root with one of these errors.
        let error = open(Path::new("/proc/holdfast-test")).unwrap_err();
        assert!(error.to_string().contains("/proc/holdfast-test"), "{error}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    fs::create_dir(&path).unwrap();
    set_mode(&path, 0o500);
    let error = open(&path).unwrap_err();
    assert!(matches!(error, DataDirError::ReadOnly { .. }), "{error}");
    set_mode(&path, 0o700);
}

#[test]
fn the_logs_own_directory_must_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (path, wal) = (dir.path().join("d"), dir.path().join("wal"));
    let data = DataDir::open(&path, Some(&wal)).unwrap();
    assert_eq!(data.log_dir(), wal);
    assert_eq!(mode(&wal), 0o700);
    // One log for two nodes.
    assert!(matches!(
        DataDir::open(&dir.path().join("other"), Some(&wal)),
        Err(DataDirError::InUse { .. })
    ));
    drop(data);
    DataDir::open(&path, Some(&wal)).unwrap();
    let error = open(&path).unwrap_err();
    assert!(
        matches!(&error, DataDirError::LogDirChanged { was, .. } if *was == wal),
        "{error}"
    );

    let inside = dir.path().join("inside");
    drop(open(&inside).unwrap());
    fs::write(inside.join("log").join("1"), "entries").unwrap();
    assert!(matches!(
        DataDir::open(&inside, Some(&dir.path().join("wal2"))),
        Err(DataDirError::LogDirChanged { .. })
    ));
}
