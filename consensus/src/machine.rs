//! What a core drives, and whom it tells.

use bytes::Bytes;
use holdfast_storage::LogPosition;
use std::time::Duration;

/// Who belongs to a group, by id, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those that vote.
    pub voters: Vec<u64>,
    /// Those that only follow.
    pub learners: Vec<u64>,
}

impl Members {
    /// Whether a member is one of them.
    pub fn contains(&self, member: u64) -> bool {
        self.voters.contains(&member) || self.learners.contains(&member)
    }

    pub(crate) fn len(&self) -> usize {
        self.voters.len() + self.learners.len()
    }
}

/// What committed entries are applied to. Membership is part of its state: the configuration that raft works with follows from it.
pub trait StateMachine: Send + 'static {
    /// The result of one command.
    type Outcome: Send + 'static;
    /// A consistent view of the state, cheap to take; what a snapshot is read from.
    type View: Send + 'static;
    /// A snapshot that was received and verified whole, and is not in use yet.
    type Incoming: Send + 'static;

    /// Whether an entry that another member proposed may go into the log: one that cannot be applied would end every member. An entry that
    /// changes voters or learners must be proposed as a change.
    ///
    /// # Errors
    /// A text for one that may not.
    fn check(&self, data: &Bytes) -> Result<(), String>;

    /// What a received snapshot is of, and the members in it.
    fn describe(incoming: &Self::Incoming) -> (LogPosition, Members);

    /// Applies one entry and appends the outcome of each command in it, in order.
    ///
    /// # Errors
    /// A text for an entry that cannot be applied; the member stops.
    fn apply(
        &mut self,
        position: LogPosition,
        data: Bytes,
        outcomes: &mut Vec<Self::Outcome>,
    ) -> Result<(), String>;

    /// The members as at the last applied entry. Empty in a member that waits for its first snapshot.
    fn members(&self) -> Members;

    /// The state as at the last applied entry.
    ///
    /// # Errors
    /// A text when the state cannot be viewed; the member stops.
    fn view(&mut self) -> Result<Self::View, String>;

    /// Replaces the whole state. It is durable when this returns, and a note with it says so until [`StateMachine::recorded`].
    ///
    /// # Errors
    /// A text; the member stops.
    fn install(&mut self, position: LogPosition, incoming: Self::Incoming) -> Result<(), String>;

    /// The log has its record of what was installed.
    ///
    /// # Errors
    /// A text; the member stops.
    fn recorded(&mut self) -> Result<(), String>;

    /// This member has become the leader, and everything committed before is applied.
    fn lead(&mut self);

    /// This member no longer leads.
    fn follow(&mut self);
}

/// Told what the log does, for metrics.
pub trait Observer: Send + Sync + 'static {
    /// A sync of the log took this long.
    fn synced(&self, duration: Duration);
    /// This many bytes were appended.
    fn appended(&self, bytes: usize);
}

/// What something submitted came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done<O> {
    /// A command was applied.
    Applied(O),
    /// What the state machine has applied may be read: it is at least what was committed when the read was asked for.
    Readable,
}

/// A change of one member. The entry's command makes the same change to [`StateMachine::members`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Adds a voter, or makes one of a learner.
    Voter(u64),
    /// Adds a learner.
    Learner(u64),
    /// Takes a member out for good.
    Remove(u64),
}

/// What goes to another member. Transports carry it: in order, or not at all, and never twice.
pub enum Outgoing<V> {
    /// A message for the other member's [`crate::Core::receive`].
    Message {
        /// The other member.
        to: u64,
        /// Opaque to whoever carries it.
        bytes: Bytes,
    },
    /// A snapshot: the view's content, then the message, for the other member's [`crate::Core::receive_snapshot`].
    Snapshot {
        /// The other member.
        to: u64,
        /// What the view is of.
        position: LogPosition,
        /// Opaque to whoever carries it.
        message: Bytes,
        /// What to read.
        view: V,
    },
}

/// What a leader knows of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The member.
    pub id: u64,
    /// The last entry that it has for certain.
    pub matched: u64,
    /// Whether it was heard of in the last election time-out.
    pub active: bool,
    /// Whether it has no vote.
    pub is_learner: bool,
}
