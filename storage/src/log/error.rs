//! What can go wrong with the log, one variant per thing a caller or an operator does about it.

use std::io;
use std::path::{Path, PathBuf};

/// A failed operation on the raft log. Unless the variant says otherwise the log is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Records that had been synced are gone or changed. The files are left as they are: the operator restores the member
    /// from its peers or a snapshot, or repairs the medium.
    #[error(
        "raft log {file}: damaged at offset {offset}: {reason}; nothing was changed, refusing to go on without records \
         that may have been acknowledged"
    )]
    Damaged {
        /// The file with the first bad record.
        file: PathBuf,
        /// Where in it that record starts, in bytes.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The file was written by a newer program.
    #[error(
        "raft log {file}: format version {found} is newer than {supported}, the newest this program reads"
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// The version it names.
        found: u32,
        /// [`super::FORMAT_VERSION`].
        supported: u32,
    },
    /// The disk or the quota is full. Nothing of the call was kept; it may be tried again when there is space.
    #[error("raft log {file}: no space left")]
    NoSpace {
        /// The file that should have grown.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An operation on a file failed. If it was a write or a sync, the log is poisoned.
    #[error("raft log {file}: cannot {operation}")]
    Io {
        /// The file.
        file: PathBuf,
        /// The verb: open, read, write, sync, …
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier write or sync failed, so that nobody knows what is on the medium. The process must stop; the next one
    /// reads back what is there.
    #[error("raft log: an earlier write or sync failed")]
    Poisoned,
    /// An append leaves out indexes.
    #[error("raft log: entry {found} does not follow, at most {expected} may come next")]
    Gap {
        /// The highest index that could be appended.
        expected: u64,
        /// The index given.
        found: u64,
    },
    /// An entry has a lower term than the one before it.
    #[error("raft log: entry {index} has term {found}, lower than term {previous} before it")]
    TermRegression {
        /// The entry's index.
        index: u64,
        /// The term of the entry before.
        previous: u64,
        /// The entry's term.
        found: u64,
    },
    /// A position names an entry that has another term here.
    #[error("raft log: entry {index} has term {term}, not {found}")]
    TermMismatch {
        /// The index.
        index: u64,
        /// The term in the log.
        term: u64,
        /// The term given.
        found: u64,
    },
    /// The index was compacted away.
    #[error("raft log: entry {index} is compacted, the first one is {first}")]
    Compacted {
        /// The index asked for.
        index: u64,
        /// The first index that is there.
        first: u64,
    },
    /// The index is not in the log yet.
    #[error("raft log: entry {index} does not exist, the last one is {last}")]
    Unavailable {
        /// The index asked for.
        index: u64,
        /// The last index that is there.
        last: u64,
    },
    /// A batch or a configuration that no segment can hold.
    #[error("raft log: {bytes} bytes at once are more than the limit of {limit}")]
    TooLarge {
        /// The size of it.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// An option outside its bounds.
    #[error("raft log: segment size {0} is not a multiple of 4096 between 4096 and 1 GiB")]
    SegmentSize(u64),
}

impl LogError {
    /// The failure of a file operation, told apart by what the caller can do about it.
    pub(super) fn io(
        file: impl AsRef<Path>,
        operation: &'static str,
        source: io::Error,
    ) -> LogError {
        let file = file.as_ref().to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                LogError::NoSpace { file, source }
            }
            _ => LogError::Io {
                file,
                operation,
                source,
            },
        }
    }
}
