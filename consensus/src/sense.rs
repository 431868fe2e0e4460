//! Whether a decoded message of raft may be given to it. Raft trusts its peers: some messages that no correct member sends would end the
//! process. They are dropped here instead, and counted.

use crate::log_storage::LogStorage;
use crate::message::MessageFault;
use holdfast_storage::disk::Disk;
use raft::eraftpb::{ConfState, Message, MessageType};
use raft::{Raft, RawNode, StateRole};
use std::collections::BTreeSet;

/// Terms and indexes stay below this, so that adding to them cannot overflow.
const NUMBER_MAX: u64 = 1 << 62;
/// How far ahead a term may be: more than a century of an election each second, so that no message uses up the numbers.
const TERM_JUMP_MAX: u64 = 1 << 32;
/// Members of a group: far more than a group has.
const MEMBERS_MAX: usize = 64;
/// Bytes of a ReadIndex context; ours have 32.
const READ_CONTEXT_BYTES_MAX: usize = 64;
/// The context of a vote that a transfer of leadership asks for.
const TRANSFER_CONTEXT: &[u8] = b"CampaignTransfer";

/// What is to be done with a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Raft may have it.
    Sound,
    /// It is of one that leads no more, or never did: dropped.
    Late,
    /// The leader counts on more than this member has: it lost data.
    LostData { known: u64 },
}

pub(crate) fn check<D: Disk>(
    node: &RawNode<LogStorage<D>>,
    peer: u64,
    message: &Message,
) -> Result<Verdict, MessageFault> {
    let raft = &node.raft;
    if message.from != peer || message.to != raft.id || peer == raft.id || peer == 0 {
        return Err(MessageFault::Misdirected {
            from: message.from,
            to: message.to,
            peer,
        });
    }
    let numbers = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
    ];
    if numbers.iter().any(|number| *number > NUMBER_MAX) {
        return Err(MessageFault::Senseless("a number is beyond all bounds"));
    }
    if message.term > raft.term.saturating_add(TERM_JUMP_MAX) {
        return Err(MessageFault::Senseless("a term of the far future"));
    }
    let kind = message.msg_type;
    let is_read = kind == MessageType::MsgReadIndex;
    if (message.term == 0) != is_read {
        return Err(MessageFault::Senseless("its term"));
    }
    if message.log_term > message.term && !is_read {
        return Err(MessageFault::Senseless(
            "an entry of a later term than its own",
        ));
    }
    let has_snapshot = message.get_snapshot().get_metadata().index != 0;
    if has_snapshot != (kind == MessageType::MsgSnapshot) {
        return Err(MessageFault::Senseless("a snapshot out of place"));
    }
    check_context(message)?;
    let current = message.term >= raft.term;
    match kind {
        MessageType::MsgAppend => {
            check_leader(raft, message)?;
            check_entries(node, message)?;
        }
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
            let [entry] = message.entries.as_ref() else {
                return Err(MessageFault::Senseless("not one context"));
            };
            if entry.data.len() > READ_CONTEXT_BYTES_MAX || !entry.context.is_empty() {
                return Err(MessageFault::Senseless("a long context"));
            }
            if is_read && !entry.data.starts_with(&peer.to_le_bytes()) {
                return Err(MessageFault::Senseless("another member's context"));
            }
            if !is_read && raft.leader_id != peer {
                return Ok(Verdict::Late);
            }
        }
        _ if !message.entries.is_empty() => {
            return Err(MessageFault::Senseless("entries out of place"));
        }
        MessageType::MsgTimeoutNow if message.term == raft.term && raft.leader_id != peer => {
            return Ok(Verdict::Late);
        }
        MessageType::MsgHeartbeat => {
            check_leader(raft, message)?;
            let last = raft.raft_log.last_index();
            if current && message.commit > last {
                return Ok(Verdict::LostData {
                    known: message.commit,
                });
            }
        }
        MessageType::MsgAppendResponse => {
            let last = raft.raft_log.last_index();
            if raft.state == StateRole::Leader
                && message.term == raft.term
                && (!message.reject && message.index > last)
            {
                return Err(MessageFault::Senseless(
                    "it has entries that its leader has not",
                ));
            }
        }
        MessageType::MsgSnapshot => {
            check_leader(raft, message)?;
            let metadata = message.get_snapshot().get_metadata();
            if metadata.index > NUMBER_MAX || metadata.term == 0 || metadata.term > message.term {
                return Err(MessageFault::Senseless("the snapshot's position"));
            }
            check_conf_state(metadata.get_conf_state())?;
        }
        _ => {}
    }
    Ok(Verdict::Sound)
}

fn check_context(message: &Message) -> Result<(), MessageFault> {
    let fits = match message.msg_type {
        MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse => {
            message.context.len() <= READ_CONTEXT_BYTES_MAX
        }
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
            message.context.is_empty() || message.context == TRANSFER_CONTEXT
        }
        _ => message.context.is_empty(),
    };
    if fits {
        Ok(())
    } else {
        Err(MessageFault::Senseless("its context"))
    }
}

/// A term has one leader.
fn check_leader<D: Disk>(
    raft: &Raft<LogStorage<D>>,
    message: &Message,
) -> Result<(), MessageFault> {
    let another = raft.leader_id != 0 && raft.leader_id != message.from;
    if message.term == raft.term && (another || raft.state == StateRole::Leader) {
        return Err(MessageFault::Senseless("two leaders in one term"));
    }
    Ok(())
}

/// Entries follow each other, and replace nothing that is committed.
fn check_entries<D: Disk>(
    node: &RawNode<LogStorage<D>>,
    message: &Message,
) -> Result<(), MessageFault> {
    let log = &node.raft.raft_log;
    // Raft takes an index beyond its log for one of term 0.
    if (message.index == 0) != (message.log_term == 0) {
        return Err(MessageFault::Senseless("the entry before its entries"));
    }
    let mut previous = message.log_term.max(1);
    for (expected, entry) in (message.index + 1..).zip(message.entries.iter()) {
        if entry.index != expected || entry.term < previous || entry.term > message.term {
            return Err(MessageFault::Senseless("entries out of order"));
        }
        previous = entry.term;
        // What is before the first entry of the log was committed, too; raft does not look at it.
        if entry.index >= log.first_index()
            && entry.index <= log.committed
            && log.term(entry.index).is_ok_and(|term| term != entry.term)
            && message.term >= node.raft.term
        {
            return Err(MessageFault::Senseless("it replaces a committed entry"));
        }
    }
    Ok(())
}

fn check_conf_state(state: &ConfState) -> Result<(), MessageFault> {
    let plain = state.voters_outgoing.is_empty() && state.learners_next.is_empty();
    let all: Vec<u64> = state
        .voters
        .iter()
        .chain(state.learners.iter())
        .copied()
        .collect();
    let different: BTreeSet<u64> = all.iter().copied().collect();
    let in_order = state.voters.is_sorted() && state.learners.is_sorted();
    if !plain
        || !in_order
        || state.auto_leave
        || state.voters.is_empty()
        || all.len() > MEMBERS_MAX
        || different.len() != all.len()
        || different.contains(&0)
    {
        return Err(MessageFault::Senseless("the snapshot's configuration"));
    }
    Ok(())
}
