//! Writing files so that a crash leaves the old content or the new, never half of it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::error::{IssueError, Warning};

/// Mode of files that hold secrets.
pub(crate) const PRIVATE: u32 = 0o600;
/// Mode of files that anybody may read.
pub(crate) const PUBLIC: u32 = 0o644;

/// Replaces `dir/name`.
pub(crate) fn write(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<(), IssueError> {
    let path = dir.join(name);
    replace(dir, name, bytes, mode).map_err(|source| IssueError::Write { path, source })
}

fn replace(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary(dir, name);
    remove_if_there(&temporary)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    sync_dir(dir)
}

/// Removes what a crash in the middle of [`write`] left behind: it may be part of a private key.
pub(crate) fn remove_leftovers(dir: &Path, names: &[&str]) -> Result<(), IssueError> {
    for name in names {
        let path = temporary(dir, name);
        remove_if_there(&path).map_err(|source| IssueError::Write { path, source })?;
    }
    Ok(())
}

/// Makes `dir` (and its parents) if needed, open to its owner only. An existing one that is open to others is narrowed.
pub(crate) fn private_dir(dir: &Path, warnings: &mut Vec<Warning>) -> Result<(), IssueError> {
    let make = || {
        if !dir.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            match dir.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent)?,
                _ => sync_dir(Path::new("."))?,
            }
        }
        Ok(())
    };
    make().map_err(|source| IssueError::Write {
        path: dir.to_owned(),
        source,
    })?;
    narrow(dir, 0o700, warnings)
}

/// Takes away permissions beyond `mode`.
pub(crate) fn narrow(
    path: &Path,
    mode: u32,
    warnings: &mut Vec<Warning>,
) -> Result<(), IssueError> {
    let mut repair = || {
        let found = fs::metadata(path)?.mode() & 0o777;
        if found & !mode != 0 {
            fs::set_permissions(path, Permissions::from_mode(found & mode))?;
            warnings.push(Warning::PermissionsRepaired {
                path: path.to_owned(),
                found,
            });
        }
        Ok(())
    };
    repair().map_err(|source| IssueError::Write {
        path: path.to_owned(),
        source,
    })
}

fn temporary(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(".{name}.tmp"))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
