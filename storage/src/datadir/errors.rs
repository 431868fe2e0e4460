//! Why a data directory is refused. Each text says what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A file operation failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The directory, or what it lies on, cannot be written.
    #[error("data directory: {} cannot be written ({source}); a node needs write access", path.display())]
    ReadOnly {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// There is a file where the directory should be.
    #[error("data directory: {} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// It belongs to another user.
    #[error("data directory: {} belongs to user {owner}, this process runs as user {user}; run as that user or chown it", path.display())]
    WrongOwner {
        /// The directory.
        path: PathBuf,
        /// The owner's user id.
        owner: u32,
        /// Ours.
        user: u32,
    },
    /// Another process has it.
    #[error("data directory {} is used by another process{}", path.display(), pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, as far as it is known.
        pid: Option<u32>,
    },
    /// It was written by a newer version.
    #[error("data directory {} has format {found}, this program knows formats up to {supported}; use a newer program", path.display())]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format this program knows.
        supported: u32,
    },
    /// The format file is damaged.
    #[error("data directory: {} is damaged; restore it or use another directory", path.display())]
    BadFormat {
        /// The file.
        path: PathBuf,
    },
    /// It holds data but no format file.
    #[error("data directory: {} holds data, but the file FORMAT is missing; restore it or use another directory", path.display())]
    MissingFormat {
        /// The subdirectory that holds data.
        path: PathBuf,
    },
    /// It is etcd's.
    #[error("data directory: {} was made by etcd, whose files are not read here; give a directory of its own and copy the keys", path.display())]
    Etcd {
        /// The directory.
        path: PathBuf,
    },
    /// It holds something else.
    #[error("data directory: {} is not empty and was not made by this program (it holds {found:?}); give a directory of its own", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One name in it.
        found: String,
    },
    /// It is shared by all users, as `/tmp` is.
    #[error("data directory: {} is a shared directory; give a directory below it", path.display())]
    Shared {
        /// The directory.
        path: PathBuf,
    },
    /// The raft log was elsewhere before.
    #[error("data directory {}: the raft log is in {}, not in {}; give the same --wal-dir as before", path.display(), was.display(), now.display())]
    LogDirChanged {
        /// The directory.
        path: PathBuf,
        /// Where the log is.
        was: PathBuf,
        /// Where it was now said to be.
        now: PathBuf,
    },
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            DataDirError::ReadOnly { path, source }
        }
        io::ErrorKind::NotADirectory => DataDirError::NotADirectory { path },
        _ => DataDirError::Io { path, source },
    }
}
