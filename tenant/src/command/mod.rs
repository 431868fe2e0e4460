//! Commands as they stand in the raft log: what a tenant's state machine is told to do, and its encoding.
//!
//! One raft entry carries many commands (`docs/ARCHITECTURE.md`, "File formats"). A command is
//! `length u32 LE | kind u8 | tenant u32 LE | body`; numbers in bodies are LEB128, signed ones zigzag. Every length and tag is
//! checked on decoding: an entry may come from a damaged disk or another member.

mod codec;

use crate::answer::{Alarm, AlarmKind};
use crate::request::{DeleteRange, Put, Txn};
use bytes::{BufMut, Bytes};
use codec::{
    decode_alarm, decode_delete, decode_put, decode_txn, encode_delete, encode_put, encode_txn,
    signed, take_count, take_signed, take_u8, take_u32, unsigned,
};
use holdfast_auth::{Demands, KeyRange, Verb};
use holdfast_storage::TenantId;

/// Nesting deeper than this is refused at the edge and when decoding: each level costs stack.
pub const MAX_TXN_DEPTH: usize = 64;

/// Items reserved ahead while decoding a list; a longer list grows as its items turn out to be there.
const RESERVE: usize = 128;

/// A change of one tenant's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Write a key.
    Put(Put),
    /// Delete keys.
    DeleteRange(DeleteRange),
    /// A transaction.
    Txn(Txn),
    /// Forget history before a revision.
    Compact {
        /// The revision.
        revision: i64,
    },
    /// Create a lease.
    LeaseGrant {
        /// Its id, not 0.
        id: i64,
        /// Its time, seconds, already raised to the minimum.
        ttl: i64,
    },
    /// End a lease and delete its keys.
    LeaseRevoke {
        /// Its id.
        id: i64,
    },
    /// Record how long leases still have, in seconds; 0 is the full time.
    LeaseCheckpoint(Vec<(i64, i64)>),
    /// Raise an alarm.
    RaiseAlarm(Alarm),
    /// Clear an alarm.
    ClearAlarm(Alarm),
}

impl Demands for Command {
    fn demands(&self, demand: &mut dyn FnMut(Verb, &KeyRange)) {
        match self {
            Command::Put(put) => put.demands(demand),
            Command::DeleteRange(delete) => delete.demands(demand),
            Command::Txn(txn) => txn.demands(demand),
            // What these need besides their RPC's policy depends on the tenant's state, not on the request.
            Command::Compact { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseCheckpoint(_)
            | Command::RaiseAlarm(_)
            | Command::ClearAlarm(_) => {}
        }
    }
}

/// A command that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Bytes are missing.
    #[error("the command ends early")]
    Truncated,
    /// A tag or number that no version writes.
    #[error("the command holds an unknown {0}")]
    Unknown(&'static str),
    /// Nested deeper than [`MAX_TXN_DEPTH`].
    #[error("the transaction is nested too deep")]
    TooDeep,
    /// Bytes are left over.
    #[error("the command has bytes left over")]
    Trailing,
}

const PUT: u8 = 1;
const DELETE_RANGE: u8 = 2;
const TXN: u8 = 3;
const COMPACT: u8 = 4;
const LEASE_GRANT: u8 = 5;
const LEASE_REVOKE: u8 = 6;
const LEASE_CHECKPOINT: u8 = 7;
const RAISE_ALARM: u8 = 8;
const CLEAR_ALARM: u8 = 9;

impl Command {
    /// Appends the command, with its length and tenant, to an entry.
    pub fn encode(&self, tenant: TenantId, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32_le(0);
        out.put_u8(self.kind());
        out.put_u32_le(tenant.0);
        match self {
            Command::Put(put) => encode_put(put, out),
            Command::DeleteRange(delete) => encode_delete(delete, out),
            Command::Txn(txn) => encode_txn(txn, out),
            Command::Compact { revision } => signed(*revision, out),
            Command::LeaseGrant { id, ttl } => {
                signed(*id, out);
                signed(*ttl, out);
            }
            Command::LeaseRevoke { id } => signed(*id, out),
            Command::LeaseCheckpoint(items) => {
                unsigned(items.len() as u64, out);
                for (id, remaining) in items {
                    signed(*id, out);
                    signed(*remaining, out);
                }
            }
            Command::RaiseAlarm(alarm) | Command::ClearAlarm(alarm) => {
                out.put_u64_le(alarm.member);
                out.put_u8(match alarm.kind {
                    AlarmKind::NoSpace => 1,
                    AlarmKind::Corrupt => 2,
                });
            }
        }
        // Requests are bounded far below 4 GiB at the edge (`max-request-bytes`), so the length fits.
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn kind(&self) -> u8 {
        match self {
            Command::Put(_) => PUT,
            Command::DeleteRange(_) => DELETE_RANGE,
            Command::Txn(_) => TXN,
            Command::Compact { .. } => COMPACT,
            Command::LeaseGrant { .. } => LEASE_GRANT,
            Command::LeaseRevoke { .. } => LEASE_REVOKE,
            Command::LeaseCheckpoint(_) => LEASE_CHECKPOINT,
            Command::RaiseAlarm(_) => RAISE_ALARM,
            Command::ClearAlarm(_) => CLEAR_ALARM,
        }
    }

    /// Takes the next command off an entry; `None` at its end.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that [`Command::encode`] does not write.
    pub fn decode_next(entry: &mut Bytes) -> Result<Option<(TenantId, Command)>, DecodeError> {
        if entry.is_empty() {
            return Ok(None);
        }
        let length = take_u32(entry)? as usize;
        if length > entry.len() {
            return Err(DecodeError::Truncated);
        }
        let mut body = entry.split_to(length);
        let kind = take_u8(&mut body)?;
        let tenant = TenantId(take_u32(&mut body)?);
        let body_ref = &mut body;
        let command = match kind {
            PUT => Command::Put(decode_put(body_ref)?),
            DELETE_RANGE => Command::DeleteRange(decode_delete(body_ref)?),
            TXN => Command::Txn(decode_txn(body_ref, 0)?),
            COMPACT => Command::Compact {
                revision: take_signed(body_ref)?,
            },
            LEASE_GRANT => Command::LeaseGrant {
                id: take_signed(body_ref)?,
                ttl: take_signed(body_ref)?,
            },
            LEASE_REVOKE => Command::LeaseRevoke {
                id: take_signed(body_ref)?,
            },
            LEASE_CHECKPOINT => {
                let count = take_count(body_ref)?;
                let mut items = Vec::with_capacity(count.min(RESERVE));
                for _ in 0..count {
                    items.push((take_signed(body_ref)?, take_signed(body_ref)?));
                }
                Command::LeaseCheckpoint(items)
            }
            RAISE_ALARM => Command::RaiseAlarm(decode_alarm(body_ref)?),
            CLEAR_ALARM => Command::ClearAlarm(decode_alarm(body_ref)?),
            _ => return Err(DecodeError::Unknown("command kind")),
        };
        if !body.is_empty() {
            return Err(DecodeError::Trailing);
        }
        Ok(Some((tenant, command)))
    }
}

#[cfg(test)]
mod tests;
