//! Defects that can be switched on, to prove that the simulator finds them. They are compiled in with the feature `planted` alone, which nothing
//! but the simulator's test asks for; without it each question is answered at compile time.

/// One defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Entries, votes and terms are acknowledged without a sync of the log.
    AckBeforeSync,
    /// The vote is not in the hard state that is written.
    VoteNotKept,
    /// The term in the hard state that is written is an old one.
    TermNotKept,
    /// All rounds of ReadIndex in a term have one context.
    ReusedReadContext,
    /// A leader trusts its clock instead of asking for a majority before a read.
    ReadByLease,
    /// A member serves linearizable reads of what it has.
    ReadWithoutRound,
    /// A read does not wait until what was committed is applied.
    ReadBeforeApplied,
    /// The store says that it has less than it has: entries are applied twice after a restart.
    AppliedBehind,
    /// The store says that it has one entry more than it has.
    AppliedAhead,
    /// A snapshot goes with the members of the log's last cut.
    SnapshotWithOldMembers,
    /// The note of an installed snapshot is removed before the log has its record.
    InstallNoteForgotten,
    /// The hub is not told of an installed snapshot.
    InstallNotToldToHub,
    /// A checkpoint does not sync the store, and the log is cut all the same.
    CutBeyondCheckpoint,
    /// A command is not judged again where it stands in the log.
    StaleAuthAtApply,
    /// A leader takes a forwarded proposal and says that it has not.
    ForwardTakenAndRefused,
    /// The answer to a proposal of an earlier process is taken for one to this.
    IncarnationIgnored,
    /// A new leader counts leases from when they were last renewed as far as it knows.
    LeasesNotExtended,
    /// A renewal leaves the recorded remaining time as it is.
    CheckpointNotCleared,
    /// A member that was removed goes on voting.
    RemovedVotes,
    /// An event for a watch without room is forgotten.
    EventWithoutRoomLost,
    /// A change of users and roles ends no watch.
    RevocationForgotten,
    /// An entry that replaces another leaves those behind it in the log.
    TailNotReplaced,
}

/// All of them.
pub const DEFECTS: [Defect; 22] = [
    Defect::AckBeforeSync,
    Defect::VoteNotKept,
    Defect::TermNotKept,
    Defect::ReusedReadContext,
    Defect::ReadByLease,
    Defect::ReadWithoutRound,
    Defect::ReadBeforeApplied,
    Defect::AppliedBehind,
    Defect::AppliedAhead,
    Defect::SnapshotWithOldMembers,
    Defect::InstallNoteForgotten,
    Defect::InstallNotToldToHub,
    Defect::CutBeyondCheckpoint,
    Defect::StaleAuthAtApply,
    Defect::ForwardTakenAndRefused,
    Defect::IncarnationIgnored,
    Defect::LeasesNotExtended,
    Defect::CheckpointNotCleared,
    Defect::RemovedVotes,
    Defect::EventWithoutRoomLost,
    Defect::RevocationForgotten,
    Defect::TailNotReplaced,
];

#[cfg(feature = "planted")]
mod switch {
    use super::Defect;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Defect>> = const { Cell::new(None) };
    }

    /// Switches a defect on in this thread, or all off.
    pub fn plant(defect: Option<Defect>) {
        PLANTED.set(defect);
    }

    /// Whether a defect is switched on in this thread.
    pub fn is_planted(defect: Defect) -> bool {
        PLANTED.get() == Some(defect)
    }
}

#[cfg(feature = "planted")]
pub use switch::{is_planted, plant};

/// Whether a defect is switched on. Never in a build without the feature.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is_planted(_: Defect) -> bool {
    false
}
