//! The data directory: made, checked and locked before anything in it is opened.
//!
//! ```text
//! <data dir>/           0700, owned by the user that runs the node
//!   FORMAT              version of this layout
//!   LOCK                held (flock) while a node runs; names its process
//!   identity            which member of which cluster this is
//!   log/                the raft log (or the directory given as the log's own)
//!   store/              the rows (crate::backend)
//!   snap/               snapshots on their way
//! ```

mod checks;
mod errors;
mod identity;
#[cfg(test)]
mod tests;

pub use errors::DataDirError;
pub use identity::{Identity, IdentityError, Profile};

use errors::io_error;
use rustix::fs::FlockOperation;
use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

/// The version of the directory's layout. A directory of a newer one is refused untouched.
pub const FORMAT_VERSION: u32 = 1;

const FORMAT_FILE: &str = "FORMAT";
const FORMAT_WORD: &str = "holdfast-data";
const LOCK_FILE: &str = "LOCK";
/// Names the log's directory if it is not `log/`: a node that starts without it would begin an empty log.
const LOG_DIR_FILE: &str = "log-dir";
const IDENTITY_FILE: &str = "identity";

/// An open data directory. The lock is held until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    log: PathBuf,
    warnings: Vec<String>,
    _locks: Vec<File>,
}

impl DataDir {
    /// Whether a member was founded here. Looks and touches nothing; what is there may still be refused by [`DataDir::open`].
    pub fn is_founded(path: &Path) -> bool {
        path.join(IDENTITY_FILE).exists()
    }

    /// Opens `path`, creating it (and its parents) with mode 0700 if it is missing, and takes its lock. `wal_dir` is where the
    /// raft log lives if not in `path` (etcd's `--wal-dir`); it must stay the same for the life of the directory.
    ///
    /// Permissions of group and others are taken away, with a warning (see [`DataDir::warnings`]).
    ///
    /// # Errors
    /// See [`DataDirError`]; nothing is changed then in a directory that is not a data directory.
    pub fn open(path: &Path, wal_dir: Option<&Path>) -> Result<DataDir, DataDirError> {
        let mut warnings = Vec::new();
        make(path)?;
        checks::refuse_etcd(path)?;
        checks::owner(path)?;
        let formatted = exists(&path.join(FORMAT_FILE))?;
        if !formatted {
            checks::refuse_foreign(path)?;
        }
        let found = read_format(path)?;
        warnings.extend(checks::repair_mode(path)?);
        let mut locks = vec![lock(path)?];
        if found.is_none() {
            checks::refuse_half(path)?;
            let text = format!("{FORMAT_WORD} {FORMAT_VERSION}\n");
            write_atomic(path, FORMAT_FILE, text.as_bytes())?;
        }
        let log = match wal_dir {
            Some(dir) => {
                make(dir)?;
                checks::owner(dir)?;
                checks::refuse_shared(dir)?;
                warnings.extend(checks::repair_mode(dir)?);
                locks.push(lock(dir)?);
                absolute(dir)?
            }
            None => absolute(&path.join("log"))?,
        };
        remember_log_dir(path, wal_dir.map(|_| log.as_path()))?;
        for sub in [&log, &path.join("store"), &path.join("snap")] {
            make(sub)?;
            warnings.extend(checks::repair_mode(sub)?);
        }
        Ok(DataDir {
            root: path.to_owned(),
            log,
            warnings,
            _locks: locks,
        })
    }

    /// What was repaired while opening, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the raft log lives.
    pub fn log_dir(&self) -> &Path {
        &self.log
    }

    /// Where the rows live.
    pub fn store_dir(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Where snapshots are received and written.
    pub fn snap_dir(&self) -> PathBuf {
        self.root.join("snap")
    }

    /// Who this member is; `None` before the first start is through.
    ///
    /// # Errors
    /// [`IdentityError`] if the file cannot be read or is damaged.
    pub fn identity(&self) -> Result<Option<Identity>, IdentityError> {
        Identity::read(&self.root.join(IDENTITY_FILE))
    }

    /// Writes who this member is: atomic and synced.
    ///
    /// # Errors
    /// [`IdentityError`] if the name cannot be stored or the file not be written.
    pub fn write_identity(&self, identity: &Identity) -> Result<(), IdentityError> {
        let text = identity.encode()?;
        write_atomic(&self.root, IDENTITY_FILE, text.as_bytes()).map_err(IdentityError::Write)
    }
}

fn make(path: &Path) -> Result<(), DataDirError> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    match (made, path.metadata()) {
        (_, Ok(meta)) if !meta.is_dir() => Err(DataDirError::NotADirectory {
            path: path.to_owned(),
        }),
        (Ok(()), Ok(_)) => Ok(()),
        (Err(e), _) | (_, Err(e)) => Err(io_error(path)(e)),
    }
}

fn exists(path: &Path) -> Result<bool, DataDirError> {
    path.try_exists().map_err(io_error(path))
}

fn absolute(path: &Path) -> Result<PathBuf, DataDirError> {
    std::path::absolute(path).map_err(io_error(path))
}

fn read_format(root: &Path) -> Result<Option<u32>, DataDirError> {
    let path = root.join(FORMAT_FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error(&path)(e)),
    };
    let found = std::str::from_utf8(&text)
        .ok()
        .and_then(|t| t.trim_end().strip_prefix(FORMAT_WORD)?.trim().parse().ok());
    match found {
        Some(found) if found > FORMAT_VERSION => Err(DataDirError::NewerFormat {
            path: root.to_owned(),
            found,
            supported: FORMAT_VERSION,
        }),
        Some(found) if found > 0 => Ok(Some(found)),
        _ => Err(DataDirError::BadFormat { path }),
    }
}

/// Takes the directory's lock and leaves our process id in it for whoever comes second.
fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error(&path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // The holder may be just writing it: then the error does without.
            let pid = file
                .take(32)
                .read_to_string(&mut text)
                .ok()
                .and_then(|_| text.trim().parse().ok());
            return Err(DataDirError::InUse {
                path: dir.to_owned(),
                pid,
            });
        }
        Err(e) => return Err(io_error(&path)(e.into())),
    }
    let mut put_pid = || {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    put_pid().map_err(io_error(&path))?;
    Ok(file)
}

fn remember_log_dir(root: &Path, given: Option<&Path>) -> Result<(), DataDirError> {
    let path = root.join(LOG_DIR_FILE);
    let known = match std::fs::read(&path) {
        Ok(mut bytes) => {
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            Some(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(io_error(&path)(e)),
    };
    let own = root.join("log");
    match (known, given) {
        (None, None) => Ok(()),
        (Some(known), Some(given)) if known == given => Ok(()),
        (None, Some(given)) if !checks::has_entries(&own)? => {
            let mut line = given.as_os_str().as_bytes().to_vec();
            line.push(b'\n');
            write_atomic(root, LOG_DIR_FILE, &line)
        }
        (known, given) => Err(DataDirError::LogDirChanged {
            path: root.to_owned(),
            was: known.unwrap_or(own),
            now: given.map_or_else(|| root.join("log"), Path::to_owned),
        }),
    }
}

/// Replaces a file of `dir` by rename, synced with its directory.
fn write_atomic(dir: &Path, name: impl AsRef<OsStr>, bytes: &[u8]) -> Result<(), DataDirError> {
    let path = dir.join(name.as_ref());
    let next = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&next, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(io_error(&path))
}
