//! The raft configuration as it stands in the log's marks: `version u8 | auto_leave u8 | 4 x (count u16 LE, ids u64 LE)`.

use crate::machine::Members;
use raft::eraftpb::ConfState;

const VERSION: u8 = 1;

/// Raft's form of a set of members.
pub(crate) fn of(members: &Members) -> ConfState {
    let mut state = ConfState::default();
    state.set_voters(members.voters.clone());
    state.set_learners(members.learners.clone());
    state
}

/// The set of members that raft has.
pub(crate) fn members(state: &ConfState) -> Members {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    Members {
        voters: sorted(&state.voters),
        learners: sorted(&state.learners),
    }
}

pub(crate) fn encode(state: &ConfState) -> Vec<u8> {
    let mut out = vec![VERSION, u8::from(state.auto_leave)];
    for ids in [
        &state.voters,
        &state.learners,
        &state.voters_outgoing,
        &state.learners_next,
    ] {
        // Groups have a handful of members; the count fits by far.
        out.extend((ids.len() as u16).to_le_bytes());
        for id in ids.iter() {
            out.extend(id.to_le_bytes());
        }
    }
    out
}

/// Reads a configuration back; `None` for anything that [`encode`] does not write.
pub(crate) fn decode(bytes: &[u8]) -> Option<ConfState> {
    let (&[VERSION, auto_leave @ (0 | 1)], mut rest) = bytes.split_first_chunk::<2>()? else {
        return None;
    };
    let mut lists = [const { Vec::new() }; 4];
    for list in &mut lists {
        let (count, after) = rest.split_first_chunk::<2>()?;
        rest = after;
        for _ in 0..u16::from_le_bytes(*count) {
            let (id, after) = rest.split_first_chunk::<8>()?;
            list.push(u64::from_le_bytes(*id));
            rest = after;
        }
    }
    if !rest.is_empty() {
        return None;
    }
    let [voters, learners, outgoing, next] = lists;
    let mut state = ConfState::default();
    state.set_voters(voters);
    state.set_learners(learners);
    state.set_voters_outgoing(outgoing);
    state.set_learners_next(next);
    state.auto_leave = auto_leave == 1;
    Some(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_comes_back_and_garbage_does_not() {
        let mut state = ConfState::default();
        state.set_voters(vec![1, u64::MAX]);
        state.set_learners_next(vec![7]);
        state.auto_leave = true;
        let bytes = encode(&state);
        assert_eq!(decode(&bytes), Some(state));
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), None, "cut at {end}");
        }
        assert_eq!(decode(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
