//! What others may know of a member at any time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// See the module's text. Each value is true by itself; two of them need not be of the same moment.
#[derive(Debug, Default)]
pub struct Status {
    pub(crate) term: AtomicU64,
    pub(crate) leader: AtomicU64,
    pub(crate) committed: AtomicU64,
    pub(crate) applied: AtomicU64,
    pub(crate) leads: AtomicBool,
    pub(crate) leads_alone: AtomicBool,
    pub(crate) disk_full: AtomicBool,
    pub(crate) removed: AtomicBool,
    pub(crate) leader_changes: AtomicU64,
    pub(crate) refused_messages: AtomicU64,
    pub(crate) read_rounds: AtomicU64,
    pub(crate) installed: AtomicU64,
}

impl Status {
    /// The current term.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }
    /// The leader's id, 0 for none.
    pub fn leader(&self) -> u64 {
        self.leader.load(Ordering::Acquire)
    }
    /// The last committed entry.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }
    /// The last applied entry.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }
    /// Whether this member leads, as far as it knows, and has applied all that was committed before it led.
    pub fn leads(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }
    /// Whether this member leads a group of which it is the only voter, and has applied all that was committed before it led. Then
    /// what it has applied is what is committed: a read of its state is linearizable without asking anybody.
    pub fn leads_alone(&self) -> bool {
        self.leads_alone.load(Ordering::Acquire)
    }
    /// Whether the log's disk ran full.
    pub fn disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }
    /// Whether this member was taken out of the group.
    pub fn removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }
    /// How often the leader changed.
    pub fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Ordering::Relaxed)
    }
    /// Messages of other members that made no sense and were dropped.
    pub fn refused_messages(&self) -> u64 {
        self.refused_messages.load(Ordering::Relaxed)
    }
    /// Rounds of ReadIndex that this member asked for.
    pub fn read_rounds(&self) -> u64 {
        self.read_rounds.load(Ordering::Relaxed)
    }
    /// Snapshots that replaced this member's state.
    pub fn installed(&self) -> u64 {
        self.installed.load(Ordering::Relaxed)
    }
}
