//! Whether log and state fit together at a start.

use super::encoded;
use crate::conf_state;
use crate::failure::CoreError;
use crate::machine::Members;
use holdfast_storage::LogPosition;
use holdfast_storage::disk::Disk;
use holdfast_storage::log::{HardState, RaftLog};

/// The voters with which a log's group was founded, if the log still begins with that.
pub fn founding_voters<D: Disk>(log: &RaftLog<D>) -> Vec<u64> {
    if log.mark().index > 1 {
        return Vec::new();
    }
    conf_state::decode(log.conf_state()).map_or_else(Vec::new, |state| state.voters)
}

/// Makes the log agree with a state that was put in its place by a snapshot.
pub(super) fn record_installed<D: Disk>(
    log: &mut RaftLog<D>,
    members: &Members,
    applied: LogPosition,
) -> Result<(), CoreError> {
    let has = applied.index >= log.mark().index
        && applied.index <= log.last_index()
        && log.term(applied.index)? == Some(applied.term);
    if has {
        return Ok(());
    }
    let known = log.hard_state();
    let state = HardState {
        term: known.term.max(applied.term),
        // A vote counts in its own term only.
        vote: if known.term >= applied.term {
            known.vote
        } else {
            0
        },
        commit: applied.index,
    };
    Ok(log.install_snapshot(applied, encoded(members), state)?)
}

/// Checks that the entry which the state applied last stands in the log, or right before it.
pub(super) fn check_reach<D: Disk>(
    log: &RaftLog<D>,
    applied: LogPosition,
) -> Result<(), CoreError> {
    let last = log.last_index();
    if applied.index > last {
        return Err(CoreError::Ahead {
            applied: applied.index,
            last,
        });
    }
    if applied.index < log.mark().index {
        return Ok(());
    }
    match log.term(applied.index)? {
        Some(found) if found != applied.term => Err(CoreError::Diverged {
            index: applied.index,
            applied: applied.term,
            found,
        }),
        _ => Ok(()),
    }
}
