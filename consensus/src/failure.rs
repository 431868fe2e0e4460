//! Why something has no outcome, and why a member ends.

use holdfast_storage::log::LogError;

/// Why a submitted command has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no leader to take it.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// Only the leader can do it.
    #[error("etcdserver: not leader")]
    NotLeader,
    /// Leadership changed before it was committed; whether it will be is not known.
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    /// The connection to the leader was lost; whether it will be committed is not known.
    #[error("etcdserver: request timed out, possibly due to connection lost")]
    ConnectionLost,
    /// Another change of members is on its way.
    #[error("etcdserver: too many requests")]
    ChangePending,
    /// Too much is waiting.
    #[error("etcdserver: too many requests")]
    Overloaded,
    /// The log's disk is full. The member takes no more writes until it is restarted with space.
    #[error("etcdserver: no space left on the log's disk")]
    DiskFull,
    /// The member is stopping.
    #[error("etcdserver: server stopped")]
    Stopped,
}

/// A member that cannot go on. The process must stop: nothing half-alive.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Raft refused its own state.
    #[error("raft: {0}")]
    Raft(#[from] raft::Error),
    /// An entry could not be applied.
    #[error("entry {index} cannot be applied: {reason}")]
    Apply {
        /// Its index.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// A snapshot could not be made, or not be put in place.
    #[error("the snapshot at entry {index}: {reason}")]
    Snapshot {
        /// What it is of.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// The applied state is older than the first entry that is left.
    #[error(
        "the store was applied up to entry {applied}, but the log begins after entry {mark}: entries between are missing"
    )]
    Gap {
        /// The store's position.
        applied: u64,
        /// The log's mark.
        mark: u64,
    },
    /// The applied state is newer than the log: it was replaced, or lost what was not synced. Entries that were proposed now would
    /// take places which the state counts as applied already.
    #[error("the store was applied up to entry {applied}, but the log ends with entry {last}")]
    Ahead {
        /// The store's position.
        applied: u64,
        /// The log's last entry.
        last: u64,
    },
    /// The applied state comes from another log.
    #[error(
        "the store applied entry {index} of term {applied}, but in the log it is of term {found}"
    )]
    Diverged {
        /// The store's position.
        index: u64,
        /// Its term there.
        applied: u64,
        /// Its term in the log.
        found: u64,
    },
    /// The leader counts on entries that this member has not.
    #[error(
        "the leader knows that this member has entry {known}, but its log ends with entry {last}: its disk lost data. Remove the member \
         from the cluster, and add it again as a new one"
    )]
    LostData {
        /// What this member has acknowledged.
        known: u64,
        /// What it has.
        last: u64,
    },
}
