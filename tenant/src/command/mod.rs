//! Commands as they stand in the raft log: what a tenant's state machine is told to do, and its encoding.
//!
//! One raft entry carries many commands (`docs/ARCHITECTURE.md`, "File formats"). A command is
//! `length u32 LE | kind u8 | tenant u32 LE | body`; numbers in bodies are LEB128, signed ones zigzag. If the kind has its highest
//! bit set, the caller stands before the body; without it the command is the server's own. Every length and tag is checked on
//! decoding: an entry may come from a damaged disk or another member.

mod callers;
mod codec;
mod members;

pub use callers::SUBJECT_BYTES_MAX;

use crate::answer::{Alarm, AlarmKind};
use crate::membership::MemberVersion;
use crate::request::{DeleteRange, Put, Txn};
use crate::token_key::TokenKeyRecord;
use bytes::{BufMut, Bytes};
use callers::{
    decode_auth, decode_caller, decode_token_key, encode_auth, encode_caller, encode_token_key,
};
use codec::{
    decode_alarm, decode_delete, decode_put, decode_txn, encode_delete, encode_put, encode_txn,
    signed, take_count, take_signed, take_u8, take_u32, take_unsigned, unsigned,
};
use holdfast_auth::{AuthChange, Caller, Demands, KeyRange, Standing, Verb};
use holdfast_storage::TenantId;
use members::{decode_add, decode_publish, decode_update, encode_add, encode_publish, encode_urls};

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
    /// Create a lease. It belongs to the caller.
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
    /// Change users or roles.
    Auth(AuthChange),
    /// Make a token key known. It belongs to the whole group; only the server itself publishes one.
    PublishTokenKey {
        /// The key.
        key: TokenKeyRecord,
        /// From when on other keys of the same member are refused, seconds since the epoch, unless they retire sooner.
        retire_older_at: Option<u64>,
    },
    /// Add a member. This and the members' other commands are about the whole group: they stand in tenant `default`, and only its
    /// root, or the server, may have asked for them.
    MemberAdd {
        /// Its id, not 0.
        id: u64,
        /// Where its peers find it.
        peer_urls: Vec<String>,
        /// Whether it begins without a vote.
        is_learner: bool,
        /// How many learners there may be after it, if it is one. It stands in the command, as a setting of the member that proposes it:
        /// members whose settings differ must not come to different memberships.
        max_learners: u32,
    },
    /// Give a learner a vote.
    MemberPromote {
        /// Its id.
        id: u64,
    },
    /// Remove a member, for good. Its alarms and token keys go with it.
    MemberRemove {
        /// Its id.
        id: u64,
    },
    /// Change where a member's peers find it.
    MemberUpdate {
        /// Its id.
        id: u64,
        /// Where its peers find it from now on.
        peer_urls: Vec<String>,
    },
    /// What a member says of itself after it has started. Only the server itself does.
    MemberPublish {
        /// Its id.
        id: u64,
        /// Its name.
        name: String,
        /// Where clients find it.
        client_urls: Vec<String>,
        /// Its data directory, not 0. See [`crate::Member::instance`].
        instance: u64,
        /// What it runs.
        version: MemberVersion,
    },
}

impl Command {
    /// Whether this changes the membership.
    pub fn is_of_members(&self) -> bool {
        matches!(
            self,
            Command::MemberAdd { .. }
                | Command::MemberPromote { .. }
                | Command::MemberRemove { .. }
                | Command::MemberUpdate { .. }
                | Command::MemberPublish { .. }
        )
    }
}

impl Demands for Command {
    fn standing(&self) -> Standing<'_> {
        match self {
            Command::Put(_)
            | Command::DeleteRange(_)
            | Command::Txn(_)
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. } => Standing::Any,
            Command::Compact { .. }
            | Command::LeaseCheckpoint(_)
            | Command::RaiseAlarm(_)
            | Command::ClearAlarm(_)
            | Command::PublishTokenKey { .. }
            | Command::MemberAdd { .. }
            | Command::MemberPromote { .. }
            | Command::MemberRemove { .. }
            | Command::MemberUpdate { .. }
            | Command::MemberPublish { .. } => Standing::Admin,
            Command::Auth(change) => change.standing(),
        }
    }

    fn demands(&self, demand: &mut dyn FnMut(Verb, &KeyRange)) {
        match self {
            Command::Put(put) => put.demands(demand),
            Command::DeleteRange(delete) => delete.demands(demand),
            Command::Txn(txn) => txn.demands(demand),
            // What leases need depends on the tenant's state, not on the request; the others need a standing.
            Command::Compact { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseCheckpoint(_)
            | Command::RaiseAlarm(_)
            | Command::ClearAlarm(_)
            | Command::Auth(_)
            | Command::PublishTokenKey { .. }
            | Command::MemberAdd { .. }
            | Command::MemberPromote { .. }
            | Command::MemberRemove { .. }
            | Command::MemberUpdate { .. }
            | Command::MemberPublish { .. } => {}
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
const AUTH: u8 = 10;
const PUBLISH_TOKEN_KEY: u8 = 11;
const MEMBER_ADD: u8 = 12;
const MEMBER_PROMOTE: u8 = 13;
const MEMBER_REMOVE: u8 = 14;
const MEMBER_UPDATE: u8 = 15;
const MEMBER_PUBLISH: u8 = 16;

/// The bit of a kind that says that a caller follows. Entries from before there were callers have it nowhere.
const WITH_CALLER: u8 = 0x80;

impl Command {
    /// Appends the command, with its length, tenant and caller, to an entry. A caller from another issuer whose subject is longer than
    /// [`SUBJECT_BYTES_MAX`], or with more or longer roles than a user can have, is written as nobody.
    pub fn encode(&self, tenant: TenantId, caller: &Caller, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32_le(0);
        let by_server = *caller == Caller::Server;
        out.put_u8(self.kind() | if by_server { 0 } else { WITH_CALLER });
        out.put_u32_le(tenant.0);
        if !by_server {
            encode_caller(caller, out);
        }
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
            Command::Auth(change) => encode_auth(change, out),
            Command::PublishTokenKey {
                key,
                retire_older_at,
            } => encode_token_key(key, *retire_older_at, out),
            Command::MemberAdd {
                id,
                peer_urls,
                is_learner,
                max_learners,
            } => encode_add(*id, peer_urls, *is_learner, *max_learners, out),
            Command::MemberPromote { id } | Command::MemberRemove { id } => unsigned(*id, out),
            Command::MemberUpdate { id, peer_urls } => {
                unsigned(*id, out);
                encode_urls(peer_urls, out);
            }
            Command::MemberPublish {
                id,
                name,
                client_urls,
                instance,
                version,
            } => encode_publish(*id, name, client_urls, *instance, version, out),
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
            Command::Auth(_) => AUTH,
            Command::PublishTokenKey { .. } => PUBLISH_TOKEN_KEY,
            Command::MemberAdd { .. } => MEMBER_ADD,
            Command::MemberPromote { .. } => MEMBER_PROMOTE,
            Command::MemberRemove { .. } => MEMBER_REMOVE,
            Command::MemberUpdate { .. } => MEMBER_UPDATE,
            Command::MemberPublish { .. } => MEMBER_PUBLISH,
        }
    }

    /// Takes the next command off an entry; `None` at its end.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that [`Command::encode`] does not write.
    pub fn decode_next(
        entry: &mut Bytes,
    ) -> Result<Option<(TenantId, Caller, Command)>, DecodeError> {
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
        let caller = if kind & WITH_CALLER == 0 {
            Caller::Server
        } else {
            decode_caller(&mut body)?
        };
        let body_ref = &mut body;
        let command = match kind & !WITH_CALLER {
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
            AUTH => Command::Auth(decode_auth(body_ref)?),
            PUBLISH_TOKEN_KEY => {
                let (key, retire_older_at) = decode_token_key(body_ref)?;
                Command::PublishTokenKey {
                    key,
                    retire_older_at,
                }
            }
            MEMBER_ADD => decode_add(body_ref)?,
            MEMBER_PROMOTE => Command::MemberPromote {
                id: take_unsigned(body_ref)?,
            },
            MEMBER_REMOVE => Command::MemberRemove {
                id: take_unsigned(body_ref)?,
            },
            MEMBER_UPDATE => decode_update(body_ref)?,
            MEMBER_PUBLISH => decode_publish(body_ref)?,
            _ => return Err(DecodeError::Unknown("command kind")),
        };
        if !body.is_empty() {
            return Err(DecodeError::Trailing);
        }
        Ok(Some((tenant, caller, command)))
    }
}

#[cfg(test)]
mod tests;

/// A caller in bytes, as it stands in the log: for what is asked of another member in its name.
pub fn caller_bytes(caller: &Caller) -> Vec<u8> {
    let mut out = Vec::new();
    if *caller != Caller::Server {
        encode_caller(caller, &mut out);
    }
    out
}

/// Reads what [`caller_bytes`] writes.
///
/// # Errors
/// [`DecodeError`] for anything else.
pub fn caller_of_bytes(mut bytes: Bytes) -> Result<Caller, DecodeError> {
    if bytes.is_empty() {
        return Ok(Caller::Server);
    }
    let caller = decode_caller(&mut bytes)?;
    if bytes.is_empty() {
        Ok(caller)
    } else {
        Err(DecodeError::Truncated)
    }
}
