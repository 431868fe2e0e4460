//! What members send each other, in bytes: `version u8 | kind u8 | body`, little endian.
//!
//! ```text
//! kind 1, of raft:  type u8 | reject u8 | to u64 | from u64 | term u64 | log term u64 | index u64 | commit u64 | commit term u64 |
//!                   reject hint u64 | context (u16 length) | snapshot u8 [index u64, term u64, configuration (u32 length)] |
//!                   entries u32, each: kind u8 | term u64 | index u64 | context (u16 length) | data (u32 length)
//! kind 2, forward:  term u64 | proposals u32, each: sequence u64 | data (u32 length); from the member and incarnation u64 before them
//! kind 3, refused:  incarnation u64 | failure u8 | sequences u32, each u64
//! ```
//!
//! Raft's own encoding has a parser that is not made for foreign bytes; this one checks every length and count before it uses it. A
//! decoded message still may make no sense: `sense` looks at that.

use crate::conf_state;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};

const VERSION: u8 = 1;
const RAFT: u8 = 1;
const FORWARD: u8 = 2;
const REFUSED: u8 = 3;

/// Entries, proposals or sequences in one message.
const ITEMS_MAX: usize = 1 << 16;
/// Bytes of a context: ours have 24, with a membership change's command behind.
const CONTEXT_BYTES_MAX: usize = u16::MAX as usize;

/// Why a message of another member is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageFault {
    /// It is shorter than it says.
    #[error("the message is cut off")]
    Cut,
    /// It has more than it says.
    #[error("the message has {0} bytes too many")]
    Surplus(usize),
    /// Something in it has no meaning.
    #[error("the message has an unknown {0}")]
    Unknown(&'static str),
    /// It is from, or for, another member than the connection.
    #[error("the message is from member {from:x} to member {to:x}, on a connection from {peer:x}")]
    Misdirected {
        /// As it says.
        from: u64,
        /// As it says.
        to: u64,
        /// As the connection says.
        peer: u64,
    },
    /// No member that keeps the rules sends it.
    #[error("the message makes no sense: {0}")]
    Senseless(&'static str),
}

/// A proposal on its way to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forwarded {
    pub(crate) sequence: u64,
    pub(crate) data: Bytes,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PeerMessage {
    Raft(Message),
    Forward {
        incarnation: u64,
        term: u64,
        proposals: Vec<Forwarded>,
    },
    Refused {
        incarnation: u64,
        overloaded: bool,
        sequences: Vec<u64>,
    },
}

const TYPES: [MessageType; 12] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

pub(crate) fn encode(message: &PeerMessage) -> Bytes {
    let mut out = BytesMut::new();
    match message {
        PeerMessage::Raft(message) => encode_raft(message, &mut out),
        PeerMessage::Forward {
            incarnation,
            term,
            proposals,
        } => {
            let bytes: usize = proposals.iter().map(|p| 12 + p.data.len()).sum();
            out.reserve(22 + bytes);
            out.put_slice(&[VERSION, FORWARD]);
            out.put_u64_le(*incarnation);
            out.put_u64_le(*term);
            out.put_u32_le(proposals.len() as u32);
            for proposal in proposals {
                out.put_u64_le(proposal.sequence);
                out.put_u32_le(proposal.data.len() as u32);
                out.put_slice(&proposal.data);
            }
        }
        PeerMessage::Refused {
            incarnation,
            overloaded,
            sequences,
        } => {
            out.put_slice(&[VERSION, REFUSED]);
            out.put_u64_le(*incarnation);
            out.put_u8(u8::from(*overloaded));
            out.put_u32_le(sequences.len() as u32);
            for sequence in sequences {
                out.put_u64_le(*sequence);
            }
        }
    }
    out.freeze()
}

fn encode_raft(message: &Message, out: &mut BytesMut) {
    let entries: usize = message
        .entries
        .iter()
        .map(|entry| 23 + entry.context.len() + entry.data.len())
        .sum();
    out.reserve(128 + message.context.len() + entries);
    let kind = TYPES.iter().position(|kind| *kind == message.msg_type);
    out.put_slice(&[VERSION, RAFT]);
    // A type that is not in the list goes to no other member; its place behind the list makes it one that is refused.
    out.put_u8(kind.unwrap_or(TYPES.len()) as u8);
    out.put_u8(u8::from(message.reject));
    for number in [
        message.to,
        message.from,
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
    ] {
        out.put_u64_le(number);
    }
    out.put_u16_le(message.context.len() as u16);
    out.put_slice(&message.context);
    let snapshot = message.get_snapshot().get_metadata();
    if snapshot.index == 0 {
        out.put_u8(0);
    } else {
        out.put_u8(1);
        out.put_u64_le(snapshot.index);
        out.put_u64_le(snapshot.term);
        let conf_state = conf_state::encode(snapshot.get_conf_state());
        out.put_u32_le(conf_state.len() as u32);
        out.put_slice(&conf_state);
    }
    out.put_u32_le(message.entries.len() as u32);
    for entry in message.entries.iter() {
        out.put_u8(entry_kind(entry.entry_type));
        out.put_u64_le(entry.term);
        out.put_u64_le(entry.index);
        out.put_u16_le(entry.context.len() as u16);
        out.put_slice(&entry.context);
        out.put_u32_le(entry.data.len() as u32);
        out.put_slice(&entry.data);
    }
}

/// The kind of an entry as log and messages name it.
pub(crate) fn entry_kind(kind: EntryType) -> u8 {
    match kind {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    }
}

/// The reverse of [`entry_kind`].
pub(crate) fn entry_type(kind: u8) -> Option<EntryType> {
    match kind {
        0 => Some(EntryType::EntryNormal),
        1 => Some(EntryType::EntryConfChange),
        2 => Some(EntryType::EntryConfChangeV2),
        _ => None,
    }
}

/// Decodes what [`encode`] writes. Data and contexts share the memory of `bytes`.
pub(crate) fn decode(bytes: Bytes) -> Result<PeerMessage, MessageFault> {
    let mut reader = Reader { rest: bytes };
    if reader.byte()? != VERSION {
        return Err(MessageFault::Unknown("version"));
    }
    let message = match reader.byte()? {
        RAFT => PeerMessage::Raft(decode_raft(&mut reader)?),
        FORWARD => {
            let incarnation = reader.number()?;
            let term = reader.number()?;
            let count = reader.count(12)?;
            let mut proposals = Vec::with_capacity(count);
            for _ in 0..count {
                let sequence = reader.number()?;
                let data = reader.long()?;
                proposals.push(Forwarded { sequence, data });
            }
            PeerMessage::Forward {
                incarnation,
                term,
                proposals,
            }
        }
        REFUSED => {
            let incarnation = reader.number()?;
            let overloaded = reader.flag("reason of a refusal")?;
            let count = reader.count(8)?;
            let sequences = (0..count)
                .map(|_| reader.number())
                .collect::<Result<_, _>>()?;
            PeerMessage::Refused {
                incarnation,
                overloaded,
                sequences,
            }
        }
        _ => return Err(MessageFault::Unknown("kind")),
    };
    match reader.rest.len() {
        0 => Ok(message),
        surplus => Err(MessageFault::Surplus(surplus)),
    }
}

fn decode_raft(reader: &mut Reader) -> Result<Message, MessageFault> {
    let mut message = Message::default();
    let kind = usize::from(reader.byte()?);
    message.msg_type = *TYPES
        .get(kind)
        .ok_or(MessageFault::Unknown("type of message"))?;
    message.reject = reader.flag("reject")?;
    message.to = reader.number()?;
    message.from = reader.number()?;
    message.term = reader.number()?;
    message.log_term = reader.number()?;
    message.index = reader.number()?;
    message.commit = reader.number()?;
    message.commit_term = reader.number()?;
    message.reject_hint = reader.number()?;
    message.context = reader.short()?;
    if reader.flag("snapshot")? {
        let index = reader.number()?;
        let term = reader.number()?;
        let conf_state =
            conf_state::decode(&reader.long()?).ok_or(MessageFault::Unknown("configuration"))?;
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = index;
        metadata.term = term;
        metadata.set_conf_state(conf_state);
        message.set_snapshot(snapshot);
    }
    let count = reader.count(23)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let kind = reader.byte()?;
        entries.push(Entry {
            entry_type: entry_type(kind).ok_or(MessageFault::Unknown("kind of entry"))?,
            term: reader.number()?,
            index: reader.number()?,
            context: reader.short()?,
            data: reader.long()?,
            ..Entry::default()
        });
    }
    message.entries = entries.into();
    Ok(message)
}

/// The longest context that fits.
pub(crate) fn context_fits(bytes: usize) -> bool {
    bytes <= CONTEXT_BYTES_MAX
}

struct Reader {
    rest: Bytes,
}

impl Reader {
    fn byte(&mut self) -> Result<u8, MessageFault> {
        self.rest.try_get_u8().map_err(|_| MessageFault::Cut)
    }

    fn flag(&mut self, what: &'static str) -> Result<bool, MessageFault> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(MessageFault::Unknown(what)),
        }
    }

    fn number(&mut self) -> Result<u64, MessageFault> {
        self.rest.try_get_u64_le().map_err(|_| MessageFault::Cut)
    }

    /// A count of items of which each takes at least `least` bytes.
    fn count(&mut self, least: usize) -> Result<usize, MessageFault> {
        let count = self.rest.try_get_u32_le().map_err(|_| MessageFault::Cut)? as usize;
        if count > ITEMS_MAX || count * least > self.rest.len() {
            return Err(MessageFault::Cut);
        }
        Ok(count)
    }

    fn short(&mut self) -> Result<Bytes, MessageFault> {
        let length = self.rest.try_get_u16_le().map_err(|_| MessageFault::Cut)?;
        self.take(usize::from(length))
    }

    fn long(&mut self) -> Result<Bytes, MessageFault> {
        let length = self.rest.try_get_u32_le().map_err(|_| MessageFault::Cut)?;
        self.take(length as usize)
    }

    fn take(&mut self, length: usize) -> Result<Bytes, MessageFault> {
        if length > self.rest.len() {
            return Err(MessageFault::Cut);
        }
        Ok(self.rest.split_to(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<PeerMessage> {
        let mut message = Message {
            msg_type: MessageType::MsgAppend,
            reject: true,
            to: 2,
            from: u64::MAX,
            term: 3,
            log_term: 2,
            index: 9,
            commit: 8,
            commit_term: 3,
            reject_hint: 7,
            context: Bytes::from_static(b"context"),
            ..Message::default()
        };
        message.entries = vec![
            Entry {
                entry_type: EntryType::EntryConfChange,
                term: 3,
                index: 10,
                data: Bytes::from_static(b"data"),
                context: Bytes::from_static(b"whose"),
                ..Entry::default()
            },
            Entry {
                term: 3,
                index: 11,
                ..Entry::default()
            },
        ]
        .into();
        let mut snapshot = Message {
            msg_type: MessageType::MsgSnapshot,
            to: 2,
            from: 1,
            ..Message::default()
        };
        let metadata = snapshot.mut_snapshot().mut_metadata();
        metadata.index = 5;
        metadata.term = 4;
        metadata.mut_conf_state().voters = vec![1, 2];
        metadata.mut_conf_state().learners = vec![3];
        vec![
            PeerMessage::Raft(message),
            PeerMessage::Raft(snapshot),
            PeerMessage::Forward {
                incarnation: 7,
                term: 2,
                proposals: vec![Forwarded {
                    sequence: 1,
                    data: Bytes::from_static(b"put"),
                }],
            },
            PeerMessage::Refused {
                incarnation: 7,
                overloaded: true,
                sequences: vec![1, 2],
            },
        ]
    }

    #[test]
    fn messages_come_back_and_cut_ones_do_not() {
        for message in samples() {
            let bytes = encode(&message);
            assert_eq!(decode(bytes.clone()).as_ref(), Ok(&message));
            for end in 0..bytes.len() {
                assert!(decode(bytes.slice(..end)).is_err(), "cut at {end}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(decode(longer.into()), Err(MessageFault::Surplus(1)));
        }
    }

    #[test]
    fn counts_and_lengths_are_checked_before_they_are_used() {
        for message in samples() {
            let bytes = encode(&message);
            for at in 0..bytes.len() {
                let mut changed = bytes.to_vec();
                changed[at] = 0xff;
                // Whatever comes of it: no panic, and no memory for what is not there.
                let _ = decode(changed.into());
            }
        }
    }
}
