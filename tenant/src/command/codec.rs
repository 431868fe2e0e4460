//! The bodies of commands, field by field.

use super::{DELETE_RANGE, DecodeError, MAX_TXN_DEPTH, PUT, RESERVE, TXN};
use crate::answer::{Alarm, AlarmKind};
use crate::request::{
    Compare, DeleteRange, Op, Operand, Order, Put, Range, Relation, RevisionFilter, SortTarget, Txn,
};
use bytes::{Buf, BufMut, Bytes};
use holdfast_auth::KeyRange;

pub(super) fn decode_alarm(body: &mut Bytes) -> Result<Alarm, DecodeError> {
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

pub(super) fn encode_put(put: &Put, out: &mut Vec<u8>) {
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

pub(super) fn decode_put(body: &mut Bytes) -> Result<Put, DecodeError> {
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

pub(super) fn encode_delete(delete: &DeleteRange, out: &mut Vec<u8>) {
    out.put_u8(if delete.previous { PREVIOUS } else { 0 });
    encode_keys(&delete.keys, out);
}

pub(super) fn decode_delete(body: &mut Bytes) -> Result<DeleteRange, DecodeError> {
    let flags = take_flags(body, PREVIOUS)?;
    Ok(DeleteRange {
        previous: flags & PREVIOUS != 0,
        keys: decode_keys(body)?,
    })
}

const KEYS_ONLY: u8 = 1;
const COUNT_ONLY: u8 = 2;
const FILTERED: u8 = 4;

pub(super) fn encode_range(range: &Range, out: &mut Vec<u8>) {
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

pub(super) fn decode_range(body: &mut Bytes) -> Result<Range, DecodeError> {
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
        if !filter.is_set() {
            return Err(DecodeError::Unknown("flag"));
        }
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

pub(super) fn target_code(target: SortTarget) -> u8 {
    match target {
        SortTarget::Key => 0,
        SortTarget::Version => 1,
        SortTarget::Create => 2,
        SortTarget::Mod => 3,
        SortTarget::Value => 4,
    }
}

pub(super) fn sort_target(code: u8) -> Result<SortTarget, DecodeError> {
    Ok(match code {
        0 => SortTarget::Key,
        1 => SortTarget::Version,
        2 => SortTarget::Create,
        3 => SortTarget::Mod,
        4 => SortTarget::Value,
        _ => return Err(DecodeError::Unknown("sort target")),
    })
}

pub(super) fn encode_txn(txn: &Txn, out: &mut Vec<u8>) {
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

pub(super) fn decode_txn(body: &mut Bytes, depth: usize) -> Result<Txn, DecodeError> {
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

pub(super) fn encode_compare(compare: &Compare, out: &mut Vec<u8>) {
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

pub(super) fn decode_compare(body: &mut Bytes) -> Result<Compare, DecodeError> {
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

pub(super) fn encode_keys(keys: &KeyRange, out: &mut Vec<u8>) {
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

pub(super) fn decode_keys(body: &mut Bytes) -> Result<KeyRange, DecodeError> {
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

pub(super) fn unsigned(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.put_u8(n as u8 | 0x80);
        n >>= 7;
    }
    out.put_u8(n as u8);
}

pub(super) fn signed(n: i64, out: &mut Vec<u8>) {
    unsigned(((n << 1) ^ (n >> 63)) as u64, out);
}

pub(super) fn blob(bytes: &[u8], out: &mut Vec<u8>) {
    unsigned(bytes.len() as u64, out);
    out.put_slice(bytes);
}

pub(super) fn take_u8(body: &mut Bytes) -> Result<u8, DecodeError> {
    if body.is_empty() {
        return Err(DecodeError::Truncated);
    }
    Ok(body.get_u8())
}

pub(super) fn take_u32(body: &mut Bytes) -> Result<u32, DecodeError> {
    if body.len() < 4 {
        return Err(DecodeError::Truncated);
    }
    Ok(body.get_u32_le())
}

pub(super) fn take_flags(body: &mut Bytes, known: u8) -> Result<u8, DecodeError> {
    let flags = take_u8(body)?;
    if flags & !known != 0 {
        return Err(DecodeError::Unknown("flag"));
    }
    Ok(flags)
}

pub(super) fn take_unsigned(body: &mut Bytes) -> Result<u64, DecodeError> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take_u8(body)?;
        let bits = u64::from(byte & 0x7f);
        // Beyond 64 bits, or with zeros at its end: a number has one spelling.
        if shift == 63 && bits > 1 || shift > 0 && byte == 0 {
            return Err(DecodeError::Unknown("number"));
        }
        n |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(n);
        }
    }
    Err(DecodeError::Unknown("number"))
}

pub(super) fn take_signed(body: &mut Bytes) -> Result<i64, DecodeError> {
    let n = take_unsigned(body)?;
    Ok((n >> 1) as i64 ^ -((n & 1) as i64))
}

/// A count of items that follow. Each takes at least one byte, which bounds what may be reserved for them.
pub(super) fn take_count(body: &mut Bytes) -> Result<usize, DecodeError> {
    let count = take_unsigned(body)?;
    if count > body.len() as u64 {
        return Err(DecodeError::Truncated);
    }
    Ok(count as usize)
}

pub(super) fn take_blob(body: &mut Bytes) -> Result<Bytes, DecodeError> {
    let length = take_unsigned(body)?;
    if length > body.len() as u64 {
        return Err(DecodeError::Truncated);
    }
    Ok(body.split_to(length as usize))
}
