//! What can go wrong, one enum per operation.

use crate::types::{Revision, TenantId};
use std::{io, path::PathBuf};

/// An error of the engine below, whose type stays inside this crate.
pub type EngineError = Box<dyn std::error::Error + Send + Sync>;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file operation failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Somebody else has the store open.
    #[error("store {} is in use by another process", path.display())]
    Locked {
        /// The store's directory.
        path: PathBuf,
    },
    /// The store was written by a newer version.
    #[error("store {} has format {found}, this program knows formats up to {supported}; use a newer program", path.display())]
    NewerFormat {
        /// The store's directory.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format this program knows.
        supported: u32,
    },
    /// The store is damaged where no repair is safe, and the options forbid setting it aside. Nothing was changed.
    #[error("store is damaged: {}: {reason}", path.display())]
    Damaged {
        /// The damaged file or directory.
        path: PathBuf,
        /// What is wrong, with the offset where there is one.
        reason: String,
    },
    /// The engine failed for another reason.
    #[error("store {}: {source}", path.display())]
    Engine {
        /// The store's directory.
        path: PathBuf,
        /// The engine's error.
        source: EngineError,
    },
}

impl OpenError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.into();
        move |source| OpenError::Io { path, source }
    }
}

/// Why a row could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The record is not a row.
    #[error("row {}/{} of tenant {tenant} is damaged: {reason}", revision.main, revision.sub)]
    Corrupt {
        /// Whose row.
        tenant: TenantId,
        /// Which row.
        revision: Revision,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A key in the row keyspace is no row key.
    #[error("store has a key that names no row, near tenant {tenant}")]
    CorruptKey {
        /// The tenant being read.
        tenant: TenantId,
    },
    /// The engine could not read (I/O error or a failed block checksum).
    #[error("store could not be read: {0}")]
    Engine(#[source] EngineError),
}

impl ReadError {
    pub(super) fn engine(error: fjall::Error) -> ReadError {
        ReadError::Engine(Box::new(error))
    }
}

/// Why staged rows could not be moved to disk. They stay staged, and readable.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// The disk is full (or below the reserve) and nothing was written: a later call can succeed.
    #[error("no space left for the store in {}", path.display())]
    NoSpace {
        /// The store's directory.
        path: PathBuf,
    },
    /// A write failed and the engine takes no further writes until the store is opened again: the node must stop serving
    /// writes. What was applied meanwhile is in the raft log.
    #[error("store in {} stopped writing{}: {reason}", path.display(), if *no_space { " because the disk is full" } else { "" })]
    Stopped {
        /// The store's directory.
        path: PathBuf,
        /// Whether a full disk is the cause.
        no_space: bool,
        /// What failed first.
        reason: String,
    },
    /// The mark beside the journal could not be written; the raft log must not be cut. A later call can succeed.
    #[error("{}: {source}", path.display())]
    Mark {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The journal on disk does not end where the engine says that it wrote.
    #[error("journal {} is not as it was written: {reason} at offset {offset}", path.display())]
    Journal {
        /// The journal file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A state record's key is longer than the engine takes.
    #[error("a state record's key has {len} bytes, at most {max} are possible")]
    MetaKeyTooLong {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
}
