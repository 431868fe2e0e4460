//! Where files may be, and who may read them.

use crate::{LONG, Log};
use holdfast_audit::{Auditor, FileConfig, KeyError, Notice, SinkConfig, keys};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn files_and_folders_are_closed_to_others() {
    let mut log = Log::new();
    log.path = log.folder.path().join("deep/er/audit.log");
    log.session(1);
    assert_eq!(mode(&log.path), 0o600);
    assert_eq!(mode(log.path.parent().unwrap()), 0o700);

    fs::set_permissions(&log.path, Permissions::from_mode(0o644)).unwrap();
    let (auditor, notices) = Auditor::start(log.config()).unwrap();
    let [Notice::PermissionsRepaired { found: 0o644, .. }] = notices.as_slice() else {
        panic!("{notices:?}");
    };
    assert_eq!(mode(&log.path), 0o600);
    auditor.stop(LONG);
}

#[test]
fn links_and_things_that_are_no_files_are_refused() {
    let log = Log::new();
    log.session(1);
    let at = |name: &str| log.folder.path().join(name);
    symlink(&log.path, at("link")).unwrap();
    fs::hard_link(&log.path, at("second")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    fs::create_dir(at("folder")).unwrap();
    for (name, why) in [
        ("link", "symbolic link"),
        ("second", "second name"),
        ("pipe", ""),
        ("folder", ""),
    ] {
        let mut config = log.config();
        config.sinks = vec![SinkConfig::File(FileConfig::new(at(name)))];
        let error = Auditor::start(config).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(name), "{error}");
    }
}

#[test]
fn the_key_is_made_once_and_kept_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit-key");
    let made = keys::load_or_create(&path, [1; 32]).unwrap();
    assert_eq!(mode(&path), 0o600);
    let read = keys::load_or_create(&path, [2; 32]).unwrap();
    assert_eq!(made.public(), read.public());
    let text = fs::read_to_string(&path).unwrap();
    assert!(!format!("{made:?}").contains(text.trim()), "{made:?}");
    assert_eq!(
        made.public()
            .to_string()
            .parse::<holdfast_audit::PublicKey>()
            .unwrap(),
        made.public()
    );

    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        keys::load_or_create(&path, [2; 32]),
        Err(KeyError::Permissions { mode: 0o640, .. })
    ));
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    for wrong in ["", "00", &"g".repeat(64), &"0".repeat(65)] {
        fs::write(&path, wrong).unwrap();
        let error = keys::load_or_create(&path, [2; 32])
            .unwrap_err()
            .to_string();
        assert!(error.contains("64 hexadecimal digits"), "{error}");
    }
    fs::remove_file(&path).unwrap();
    symlink(folder.path().join("elsewhere"), &path).unwrap();
    assert!(keys::load_or_create(&path, [2; 32]).is_err());
}
