//! What is looked at before a directory is used.

use super::errors::{DataDirError, io_error};
use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

/// What may lie in a directory that is not yet ours: a fresh volume's `lost+found`, hidden files, key material put there first,
/// and what an interrupted first start leaves.
const HARMLESS: [&str; 9] = [
    "lost+found",
    "LOCK",
    "FORMAT.new",
    "certs",
    "pki",
    "tls",
    "log",
    "store",
    "snap",
];

pub(super) fn refuse_etcd(root: &Path) -> Result<(), DataDirError> {
    for sub in ["wal", "snap"] {
        let path = root.join("member").join(sub);
        if path.try_exists().map_err(io_error(&path))? {
            return Err(DataDirError::Etcd {
                path: root.to_owned(),
            });
        }
    }
    Ok(())
}

/// A directory whose owner is somebody else can be swapped by them at any time, also when this process is root's.
pub(super) fn owner(path: &Path) -> Result<(), DataDirError> {
    let owner = path.metadata().map_err(io_error(path))?.uid();
    let user = rustix::process::geteuid().as_raw();
    if owner == user {
        return Ok(());
    }
    Err(DataDirError::WrongOwner {
        path: path.to_owned(),
        owner,
        user,
    })
}

/// Refuses a directory of foreign content, whose permissions are not ours to repair.
pub(super) fn refuse_foreign(root: &Path) -> Result<(), DataDirError> {
    refuse_shared(root)?;
    for entry in std::fs::read_dir(root).map_err(io_error(root))? {
        let name = entry.map_err(io_error(root))?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with('.') && !HARMLESS.contains(&name.as_ref()) {
            return Err(DataDirError::Foreign {
                path: root.to_owned(),
                found: name.into_owned(),
            });
        }
    }
    Ok(())
}

pub(super) fn refuse_shared(path: &Path) -> Result<(), DataDirError> {
    let mode = path.metadata().map_err(io_error(path))?.mode();
    if mode & 0o1000 != 0 {
        return Err(DataDirError::Shared {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// Refuses a directory with data but without its format version.
pub(super) fn refuse_half(root: &Path) -> Result<(), DataDirError> {
    for sub in ["log", "store"] {
        let path = root.join(sub);
        if has_entries(&path)? {
            return Err(DataDirError::MissingFormat { path });
        }
    }
    Ok(())
}

pub(super) fn has_entries(path: &Path) -> Result<bool, DataDirError> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(io_error(path)(e)),
    }
}

/// Takes group's and others' permissions away; the text of a warning if there were any.
pub(super) fn repair_mode(path: &Path) -> Result<Option<String>, DataDirError> {
    let mode = path.metadata().map_err(io_error(path))?.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(None);
    }
    let repaired = mode & 0o700;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(repaired))
        .map_err(io_error(path))?;
    Ok(Some(format!(
        "permissions of {} were {mode:04o} and are now {repaired:04o}: other users must not read it",
        path.display()
    )))
}
