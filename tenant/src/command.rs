//! Commands as they stand in the raft log: what a tenant's state machine is told to do, and its encoding.
//!
//! One raft entry carries many commands (`docs/ARCHITECTURE.md`, "File formats"). A command is
//! `length u32 LE | kind u8 | tenant u32 LE | body`; numbers in bodies are LEB128, signed ones zigzag. Every length and tag is
//! checked on decoding: an entry may come from a damaged disk or another member.

use crate::answer::{Alarm, AlarmKind};
use crate::request::{
    Compare, DeleteRange, Op, Operand, Order, Put, Range, Relation, RevisionFilter, SortTarget, Txn,
};
use bytes::{Buf, BufMut, Bytes};
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

fn decode_alarm(body: &mut Bytes) -> Result<Alarm, DecodeError> {
    if body.len() < 9 {
        return Err(DecodeError::Truncated);
    }
    let member = body.get_u64_le();
    let kind = match body.get_u8() {
        1 => AlarmKind::NoSpace,
        2 => AlarmKind::Corrupt,
        _ => return Err(DecodeError::Unknown("alarm")),
    };
    Ok(Alarm { member, kind })
}

const PREVIOUS: u8 = 1;
const KEEP_VALUE: u8 = 2;
const KEEP_LEASE: u8 = 4;

fn encode_put(put: &Put, out: &mut Vec<u8>) {
    let mut flags = 0;
    for (set, bit) in [
        (put.previous, PREVIOUS),
        (put.keep_value, KEEP_VALUE),
        (put.keep_lease, KEEP_LEASE),
    ] {
        if set {
            flags |= bit;
        }
    }
    out.put_u8(flags);
    signed(put.lease, out);
    blob(&put.key, out);
    blob(&put.value, out);
}

fn decode_put(body: &mut Bytes) -> Result<Put, DecodeError> {
    let flags = take_flags(body, PREVIOUS | KEEP_VALUE | KEEP_LEASE)?;
    Ok(Put {
        previous: flags & PREVIOUS != 0,
        keep_value: flags & KEEP_VALUE != 0,
        keep_lease: flags & KEEP_LEASE != 0,
        lease: take_signed(body)?,
        key: take_blob(body)?,
        value: take_blob(body)?,
    })
}

fn encode_delete(delete: &DeleteRange, out: &mut Vec<u8>) {
    out.put_u8(if delete.previous { PREVIOUS } else { 0 });
    encode_keys(&delete.keys, out);
}

fn decode_delete(body: &mut Bytes) -> Result<DeleteRange, DecodeError> {
    let flags = take_flags(body, PREVIOUS)?;
    Ok(DeleteRange {
        previous: flags & PREVIOUS != 0,
        keys: decode_keys(body)?,
    })
}

const KEYS_ONLY: u8 = 1;
const COUNT_ONLY: u8 = 2;
const FILTERED: u8 = 4;

fn encode_range(range: &Range, out: &mut Vec<u8>) {
    let mut flags = 0;
    for (set, bit) in [
        (range.keys_only, KEYS_ONLY),
        (range.count_only, COUNT_ONLY),
        (range.filter.is_set(), FILTERED),
    ] {
        if set {
            flags |= bit;
        }
    }
    out.put_u8(flags);
    encode_keys(&range.keys, out);
    unsigned(range.limit, out);
    signed(range.revision, out);
    out.put_u8(match range.order {
        Order::Natural => 0,
        Order::SortedPrefix(target) => 0x10 | target_code(target),
        Order::Sorted {
            target,
            descending: false,
        } => 0x20 | target_code(target),
        Order::Sorted {
            target,
            descending: true,
        } => 0x30 | target_code(target),
    });
    if range.filter.is_set() {
        let filter = range.filter;
        for bound in [
            filter.min_mod,
            filter.max_mod,
            filter.min_create,
            filter.max_create,
        ] {
            signed(bound, out);
        }
    }
}

fn decode_range(body: &mut Bytes) -> Result<Range, DecodeError> {
    let flags = take_flags(body, KEYS_ONLY | COUNT_ONLY | FILTERED)?;
    let keys = decode_keys(body)?;
    let limit = take_unsigned(body)?;
    let revision = take_signed(body)?;
    let code = take_u8(body)?;
    let order = match code >> 4 {
        0 if code == 0 => Order::Natural,
        1 => Order::SortedPrefix(sort_target(code & 15)?),
        2 => Order::Sorted {
            target: sort_target(code & 15)?,
            descending: false,
        },
        3 => Order::Sorted {
            target: sort_target(code & 15)?,
            descending: true,
        },
        _ => return Err(DecodeError::Unknown("sort order")),
    };
    let mut filter = RevisionFilter::default();
    if flags & FILTERED != 0 {
        filter.min_mod = take_signed(body)?;
        filter.max_mod = take_signed(body)?;
        filter.min_create = take_signed(body)?;
        filter.max_create = take_signed(body)?;
    }
    Ok(Range {
        keys,
        limit,
        revision,
        order,
        keys_only: flags & KEYS_ONLY != 0,
        count_only: flags & COUNT_ONLY != 0,
        filter,
    })
}

fn target_code(target: SortTarget) -> u8 {
    match target {
        SortTarget::Key => 0,
        SortTarget::Version => 1,
        SortTarget::Create => 2,
        SortTarget::Mod => 3,
        SortTarget::Value => 4,
    }
}

fn sort_target(code: u8) -> Result<SortTarget, DecodeError> {
    Ok(match code {
        0 => SortTarget::Key,
        1 => SortTarget::Version,
        2 => SortTarget::Create,
        3 => SortTarget::Mod,
        4 => SortTarget::Value,
        _ => return Err(DecodeError::Unknown("sort target")),
    })
}

fn encode_txn(txn: &Txn, out: &mut Vec<u8>) {
    unsigned(txn.compares.len() as u64, out);
    for compare in &txn.compares {
        encode_compare(compare, out);
    }
    for arm in [&txn.success, &txn.failure] {
        unsigned(arm.len() as u64, out);
        for op in arm {
            match op {
                Op::Range(range) => {
                    out.put_u8(0);
                    encode_range(range, out);
                }
                Op::Put(put) => {
                    out.put_u8(PUT);
                    encode_put(put, out);
                }
                Op::DeleteRange(delete) => {
                    out.put_u8(DELETE_RANGE);
                    encode_delete(delete, out);
                }
                Op::Txn(txn) => {
                    out.put_u8(TXN);
                    encode_txn(txn, out);
                }
            }
        }
    }
}

fn decode_txn(body: &mut Bytes, depth: usize) -> Result<Txn, DecodeError> {
    if depth >= MAX_TXN_DEPTH {
        return Err(DecodeError::TooDeep);
    }
    let count = take_count(body)?;
    let mut compares = Vec::with_capacity(count.min(RESERVE));
    for _ in 0..count {
        compares.push(decode_compare(body)?);
    }
    let mut arm = || {
        let count = take_count(body)?;
        let mut ops = Vec::with_capacity(count.min(RESERVE));
        for _ in 0..count {
            ops.push(match take_u8(body)? {
                0 => Op::Range(decode_range(body)?),
                PUT => Op::Put(decode_put(body)?),
                DELETE_RANGE => Op::DeleteRange(decode_delete(body)?),
                TXN => Op::Txn(decode_txn(body, depth + 1)?),
                _ => return Err(DecodeError::Unknown("transaction step")),
            });
        }
        Ok(ops)
    };
    let success = arm()?;
    let failure = arm()?;
    Ok(Txn {
        compares,
        success,
        failure,
    })
}

fn encode_compare(compare: &Compare, out: &mut Vec<u8>) {
    let relation = match compare.relation {
        Relation::Equal => 0,
        Relation::Greater => 1,
        Relation::Less => 2,
        Relation::NotEqual => 3,
    };
    let (target, number) = match &compare.operand {
        Operand::Version(n) => (0, *n),
        Operand::Create(n) => (1, *n),
        Operand::Mod(n) => (2, *n),
        Operand::Value(_) => (3, 0),
        Operand::Lease(n) => (4, *n),
    };
    out.put_u8(relation << 4 | target);
    encode_keys(&compare.keys, out);
    match &compare.operand {
        Operand::Value(value) => blob(value, out),
        _ => signed(number, out),
    }
}

fn decode_compare(body: &mut Bytes) -> Result<Compare, DecodeError> {
    let code = take_u8(body)?;
    let relation = match code >> 4 {
        0 => Relation::Equal,
        1 => Relation::Greater,
        2 => Relation::Less,
        3 => Relation::NotEqual,
        _ => return Err(DecodeError::Unknown("relation")),
    };
    let keys = decode_keys(body)?;
    let operand = match code & 15 {
        0 => Operand::Version(take_signed(body)?),
        1 => Operand::Create(take_signed(body)?),
        2 => Operand::Mod(take_signed(body)?),
        3 => Operand::Value(take_blob(body)?),
        4 => Operand::Lease(take_signed(body)?),
        _ => return Err(DecodeError::Unknown("compare target")),
    };
    Ok(Compare {
        keys,
        relation,
        operand,
    })
}

fn encode_keys(keys: &KeyRange, out: &mut Vec<u8>) {
    match keys {
        KeyRange::Point(key) => {
            out.put_u8(0);
            blob(key, out);
        }
        KeyRange::Span { start, end } => {
            out.put_u8(1);
            blob(start, out);
            blob(end, out);
        }
        KeyRange::From(start) => {
            out.put_u8(2);
            blob(start, out);
        }
        KeyRange::All => out.put_u8(3),
    }
}

fn decode_keys(body: &mut Bytes) -> Result<KeyRange, DecodeError> {
    Ok(match take_u8(body)? {
        0 => KeyRange::Point(take_blob(body)?),
        1 => KeyRange::Span {
            start: take_blob(body)?,
            end: take_blob(body)?,
        },
        2 => KeyRange::From(take_blob(body)?),
        3 => KeyRange::All,
        _ => return Err(DecodeError::Unknown("key range")),
    })
}

fn unsigned(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.put_u8(n as u8 | 0x80);
        n >>= 7;
    }
    out.put_u8(n as u8);
}

fn signed(n: i64, out: &mut Vec<u8>) {
    unsigned(((n << 1) ^ (n >> 63)) as u64, out);
}

fn blob(bytes: &[u8], out: &mut Vec<u8>) {
    unsigned(bytes.len() as u64, out);
    out.put_slice(bytes);
}

fn take_u8(body: &mut Bytes) -> Result<u8, DecodeError> {
    if body.is_empty() {
        return Err(DecodeError::Truncated);
    }
    Ok(body.get_u8())
}

fn take_u32(body: &mut Bytes) -> Result<u32, DecodeError> {
    if body.len() < 4 {
        return Err(DecodeError::Truncated);
    }
    Ok(body.get_u32_le())
}

fn take_flags(body: &mut Bytes, known: u8) -> Result<u8, DecodeError> {
    let flags = take_u8(body)?;
    if flags & !known != 0 {
        return Err(DecodeError::Unknown("flag"));
    }
    Ok(flags)
}

fn take_unsigned(body: &mut Bytes) -> Result<u64, DecodeError> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take_u8(body)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(DecodeError::Unknown("number"));
        }
        n |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(n);
        }
    }
    Err(DecodeError::Unknown("number"))
}

fn take_signed(body: &mut Bytes) -> Result<i64, DecodeError> {
    let n = take_unsigned(body)?;
    Ok((n >> 1) as i64 ^ -((n & 1) as i64))
}

/// A count of items that follow. Each takes at least one byte, which bounds what may be reserved for them.
fn take_count(body: &mut Bytes) -> Result<usize, DecodeError> {
    let count = take_unsigned(body)?;
    if count > body.len() as u64 {
        return Err(DecodeError::Truncated);
    }
    Ok(count as usize)
}

fn take_blob(body: &mut Bytes) -> Result<Bytes, DecodeError> {
    let length = take_unsigned(body)?;
    if length > body.len() as u64 {
        return Err(DecodeError::Truncated);
    }
    Ok(body.split_to(length as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..6).prop_map(Bytes::from)
    }

    fn keys() -> impl Strategy<Value = KeyRange> {
        (bytes(), bytes()).prop_map(|(key, end)| KeyRange::from_pair(key, end))
    }

    fn put() -> impl Strategy<Value = Put> {
        (bytes(), bytes(), any::<i64>(), any::<[bool; 3]>()).prop_map(
            |(key, value, lease, [previous, keep_value, keep_lease])| Put {
                key,
                value,
                lease,
                previous,
                keep_value,
                keep_lease,
            },
        )
    }

    fn range() -> impl Strategy<Value = Range> {
        let target = prop_oneof![
            Just(SortTarget::Key),
            Just(SortTarget::Version),
            Just(SortTarget::Create),
            Just(SortTarget::Mod),
            Just(SortTarget::Value),
        ];
        let order =
            (0..3, target, any::<bool>()).prop_map(|(kind, target, descending)| match kind {
                0 => Order::Natural,
                1 => Order::SortedPrefix(target),
                _ => Order::Sorted { target, descending },
            });
        let filter = any::<[i64; 4]>().prop_map(|f| RevisionFilter {
            min_mod: f[0],
            max_mod: f[1],
            min_create: f[2],
            max_create: f[3],
        });
        (
            keys(),
            any::<u64>(),
            any::<i64>(),
            order,
            any::<[bool; 2]>(),
            filter,
        )
            .prop_map(
                |(keys, limit, revision, order, [keys_only, count_only], filter)| Range {
                    keys,
                    limit,
                    revision,
                    order,
                    keys_only,
                    count_only,
                    filter,
                },
            )
    }

    fn compare() -> impl Strategy<Value = Compare> {
        let relation = prop_oneof![
            Just(Relation::Equal),
            Just(Relation::Greater),
            Just(Relation::Less),
            Just(Relation::NotEqual),
        ];
        let operand = (0..5, any::<i64>(), bytes()).prop_map(|(kind, n, value)| match kind {
            0 => Operand::Version(n),
            1 => Operand::Create(n),
            2 => Operand::Mod(n),
            3 => Operand::Value(value),
            _ => Operand::Lease(n),
        });
        (keys(), relation, operand).prop_map(|(keys, relation, operand)| Compare {
            keys,
            relation,
            operand,
        })
    }

    fn txn() -> impl Strategy<Value = Txn> {
        let leaf = prop_oneof![
            range().prop_map(Op::Range),
            put().prop_map(Op::Put),
            (keys(), any::<bool>())
                .prop_map(|(keys, previous)| Op::DeleteRange(DeleteRange { keys, previous })),
        ];
        let op = leaf.prop_recursive(3, 12, 3, |inner| {
            let arm = proptest::collection::vec(inner, 0..3);
            (proptest::collection::vec(compare(), 0..3), arm.clone(), arm).prop_map(
                |(compares, success, failure)| {
                    Op::Txn(Txn {
                        compares,
                        success,
                        failure,
                    })
                },
            )
        });
        proptest::collection::vec(op, 0..4).prop_map(|success| Txn {
            success,
            ..Txn::default()
        })
    }

    fn command() -> impl Strategy<Value = Command> {
        let alarm = (any::<u64>(), any::<bool>()).prop_map(|(member, space)| Alarm {
            member,
            kind: if space {
                AlarmKind::NoSpace
            } else {
                AlarmKind::Corrupt
            },
        });
        prop_oneof![
            put().prop_map(Command::Put),
            (keys(), any::<bool>())
                .prop_map(|(keys, previous)| Command::DeleteRange(DeleteRange { keys, previous })),
            txn().prop_map(Command::Txn),
            any::<i64>().prop_map(|revision| Command::Compact { revision }),
            (any::<i64>(), any::<i64>()).prop_map(|(id, ttl)| Command::LeaseGrant { id, ttl }),
            any::<i64>().prop_map(|id| Command::LeaseRevoke { id }),
            proptest::collection::vec((any::<i64>(), any::<i64>()), 0..4)
                .prop_map(Command::LeaseCheckpoint),
            alarm.clone().prop_map(Command::RaiseAlarm),
            alarm.prop_map(Command::ClearAlarm),
        ]
    }

    proptest! {
        #[test]
        fn commands_come_back_as_they_went(items in proptest::collection::vec((any::<u32>(), command()), 0..4)) {
            let mut entry = Vec::new();
            for (tenant, command) in &items {
                command.encode(TenantId(*tenant), &mut entry);
            }
            let mut entry = Bytes::from(entry);
            for (tenant, command) in items {
                prop_assert_eq!(Command::decode_next(&mut entry), Ok(Some((TenantId(tenant), command))));
            }
            prop_assert_eq!(Command::decode_next(&mut entry), Ok(None));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut entry = Bytes::from(bytes);
            while let Ok(Some(_)) = Command::decode_next(&mut entry) {}
        }

        #[test]
        fn a_damaged_command_never_panics(command in command(), at in any::<proptest::sample::Index>(), flip in 1..=255u8) {
            let mut entry = Vec::new();
            command.encode(TenantId::DEFAULT, &mut entry);
            let at = at.index(entry.len());
            entry[at] ^= flip;
            let _ = Command::decode_next(&mut Bytes::from(entry));
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let mut txn = Txn::default();
        for _ in 0..MAX_TXN_DEPTH {
            txn = Txn {
                success: vec![Op::Txn(txn)],
                ..Txn::default()
            };
        }
        let mut entry = Vec::new();
        Command::Txn(txn).encode(TenantId::DEFAULT, &mut entry);
        assert_eq!(
            Command::decode_next(&mut Bytes::from(entry)),
            Err(DecodeError::TooDeep)
        );
    }
}
