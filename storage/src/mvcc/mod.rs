//! The index of one tenant: which keys exist, and which existed at any revision not yet compacted.
//!
//! It holds keys and versions but no values: a value is the row at the version's revision, in the backend. Everything is in
//! memory, synchronous and deterministic: the same calls give the same state on every member.
//!
//! One writer changes the index; readers take a [`Snapshot`] in O(1) and keep it for as long as they like.

mod build;
mod chains;
mod edit;
mod entries;
mod generations;
mod history;
mod keys;
mod node;
mod packed;
mod prune;
mod range;
mod restore;
#[cfg(test)]
mod tests;
mod txn;
mod version;
mod view;

pub use generations::{Generation, Generations};
pub use range::Range;
pub use restore::{Restore, RestoreError, RowHeader};
pub use txn::{Deleted, Put, WriteTxn};
pub use version::Version;
pub use view::{KeySpan, Snapshot, View};

use crate::Revision;
use node::Child;
use prune::Pass;

/// The revision of a store in which nothing was written yet (behaviour §3.1).
const FIRST_REVISION: i64 = 1;
/// The compaction mark of a store that was never compacted: `Compact(0)` succeeds once (behaviour §3.6).
const NEVER_COMPACTED: i64 = -1;

/// One tenant's index, for its writer.
pub struct Mvcc {
    root: Child,
    revision: i64,
    compacted: i64,
    /// Length of all keys in the index, for the memory estimate.
    key_bytes: usize,
    /// Versions that are not current, for the memory estimate.
    superseded: usize,
}

/// Why a revision cannot be compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// It is at or below the compaction mark.
    #[error("the revision has been compacted already")]
    Compacted,
    /// It is not reached yet.
    #[error("the revision is in the future")]
    Future,
}

/// What [`Mvcc::prune`] removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// Rows to delete from the backend, in this order or all at once: of each key the oldest comes first. A tombstone that was
    /// dropped before the put below it would bring the key back to life on a restart in between.
    pub dropped: Vec<Revision>,
    /// Whether nothing is left to remove at the current compaction mark.
    pub done: bool,
}

impl Default for Mvcc {
    fn default() -> Mvcc {
        Mvcc::new()
    }
}

impl Mvcc {
    /// An empty index at revision 1, never compacted.
    pub fn new() -> Mvcc {
        Mvcc {
            root: Child::empty(),
            revision: FIRST_REVISION,
            compacted: NEVER_COMPACTED,
            key_bytes: 0,
            superseded: 0,
        }
    }

    /// Starts to rebuild an index from rows, which must be given in the order of their revisions.
    pub fn restore(revision: i64, compacted: i64) -> Restore {
        Restore::new(revision, compacted)
    }

    /// The revision of the newest change.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The compaction mark: reads at it are possible, below it not. -1 before the first compaction.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// The current state, borrowed.
    pub fn view(&self) -> View<'_> {
        View {
            root: &self.root,
            revision: self.revision,
            compacted: self.compacted,
        }
    }

    /// The current state, to keep. While it is kept the writer copies the nodes that it changes; drop it soon.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            root: self.root.clone(),
            revision: self.revision,
            compacted: self.compacted,
        }
    }

    /// The current version of a key, `None` if it does not exist.
    pub fn get(&self, key: &[u8]) -> Option<Version> {
        self.view().get(key)
    }

    /// Starts a transaction.
    pub fn begin(&mut self) -> WriteTxn<'_> {
        WriteTxn::new(self)
    }

    /// Sets the compaction mark. The garbage stays until [`Mvcc::prune`] takes it.
    pub fn compact(&mut self, revision: i64) -> Result<(), CompactError> {
        if revision <= self.compacted {
            return Err(CompactError::Compacted);
        }
        if revision > self.revision {
            return Err(CompactError::Future);
        }
        self.compacted = revision;
        Ok(())
    }

    /// Removes at most `max_versions` versions that are garbage at the compaction mark. The time depends on their number, not
    /// on that of the keys.
    pub fn prune(&mut self, max_versions: usize) -> Pruned {
        let keys = self.root.sum.keys;
        let mut pass = Pass {
            mark: self.compacted,
            limit: max_versions,
            dropped: Vec::new(),
            key_bytes: 0,
        };
        self.root.prune_root(&mut pass);
        let removed_keys = keys - self.root.sum.keys;
        self.superseded -= pass.dropped.len() - removed_keys;
        self.key_bytes -= pass.key_bytes;
        Pruned {
            dropped: pass.dropped,
            done: self.root.sum.due > self.compacted,
        }
    }

    /// Keys that exist now.
    pub fn keys(&self) -> usize {
        self.root.live()
    }

    /// An estimate of the memory that the index takes, without what is held by snapshots alone.
    pub fn memory_bytes(&self) -> usize {
        // As measured: a current version with its share of half-filled leaves and of inner nodes; packed keys with the buffer's
        // slack; a superseded version, which takes three to four bytes in a leaf, five to nine where there are dozens of the
        // same key.
        const CURRENT_BYTES: usize = 29;
        const SUPERSEDED_BYTES: usize = 4;
        self.root.sum.keys * CURRENT_BYTES
            + self.key_bytes * 13 / 12
            + self.superseded * SUPERSEDED_BYTES
    }
}
