//! The stored form of a row:
//! `version u8 | flags u8 | create varint | version varint | lease zigzag | key len varint | value len varint | key | value`.
//!
//! The header comes first, so that a rebuild of the index never touches values. Blocks and journal batches carry checksums of
//! their own; the checks here are against a record that is whole and yet not ours.

use crate::types::{Revision, Row};
use bytes::{BufMut, Bytes, BytesMut};

const RECORD_VERSION: u8 = 1;
const FLAG_TOMBSTONE: u8 = 1;

/// Records from this size on keep the buffer that they were read in; smaller ones are copied, because a slice of a fjall block
/// would keep the whole block alive for as long as the row is cached or queued.
const COPY_BELOW_BYTES: usize = 16 * 1024;

/// Everything of a row but its value: what the index is rebuilt from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowHeader {
    /// When the row was written.
    pub revision: Revision,
    /// The changed key.
    pub key: Bytes,
    /// `main` of the first put since the key was last deleted; 0 for a tombstone.
    pub create_revision: i64,
    /// Puts since the key was last deleted, from 1; 0 for a tombstone.
    pub version: i64,
    /// The lease the key is attached to, 0 for none.
    pub lease: i64,
    /// Whether the change deleted the key.
    pub tombstone: bool,
    /// Length of the value.
    pub value_bytes: u64,
}

impl RowHeader {
    /// The header of `row`, sharing its key.
    pub fn of(row: &Row) -> RowHeader {
        RowHeader {
            revision: row.revision,
            key: row.key.clone(),
            create_revision: row.create_revision,
            version: row.version,
            lease: row.lease,
            tombstone: row.tombstone,
            value_bytes: row.value.len() as u64,
        }
    }
}

pub(crate) fn encode(row: &Row) -> Bytes {
    let numbers = [
        row.create_revision as u64,
        row.version as u64,
        ((row.lease << 1) ^ (row.lease >> 63)) as u64,
        row.key.len() as u64,
        row.value.len() as u64,
    ];
    // Exactly: the engine's buffer and the cache keep it.
    let head = 2 + numbers.iter().map(|n| varint_len(*n)).sum::<usize>();
    let mut out = BytesMut::with_capacity(head + row.key.len() + row.value.len());
    out.put_u8(RECORD_VERSION);
    out.put_u8(if row.tombstone { FLAG_TOMBSTONE } else { 0 });
    for number in numbers {
        put_varint(&mut out, number);
    }
    out.extend_from_slice(&row.key);
    out.extend_from_slice(&row.value);
    out.freeze()
}

/// Decodes a whole row of a record that lies in a buffer with others. The error says what is wrong with the record.
pub(crate) fn decode(revision: Revision, record: &Bytes) -> Result<Row, &'static str> {
    decode_sharing(revision, &detached(record))
}

/// Decodes a whole row whose key and value are parts of `record`.
pub(super) fn decode_sharing(revision: Revision, record: &Bytes) -> Result<Row, &'static str> {
    let head = decode_head(record)?;
    let body = record.slice(head.key_start..);
    Ok(Row {
        revision,
        key: body.slice(..head.key_len),
        value: body.slice(head.key_len..),
        create_revision: head.create_revision,
        version: head.version,
        lease: head.lease,
        tombstone: head.tombstone,
    })
}

/// Decodes all but the value. The key is a copy of its own: an index keeps it for long.
pub(super) fn decode_header(revision: Revision, record: &[u8]) -> Result<RowHeader, &'static str> {
    let head = decode_head(record)?;
    Ok(RowHeader {
        revision,
        key: Bytes::copy_from_slice(&record[head.key_start..head.key_start + head.key_len]),
        create_revision: head.create_revision,
        version: head.version,
        lease: head.lease,
        tombstone: head.tombstone,
        value_bytes: (record.len() - head.key_start - head.key_len) as u64,
    })
}

/// The record without what else its buffer holds, unless it is most of it.
pub(super) fn detached(record: &Bytes) -> Bytes {
    if record.len() < COPY_BELOW_BYTES {
        Bytes::copy_from_slice(record)
    } else {
        record.clone()
    }
}

struct Head {
    create_revision: i64,
    version: i64,
    lease: i64,
    tombstone: bool,
    key_start: usize,
    key_len: usize,
}

/// Checks the whole frame of a record: after this, `key_start + key_len <= record.len()` and the rest is the value.
fn decode_head(record: &[u8]) -> Result<Head, &'static str> {
    let &[version, flags, ref rest @ ..] = record else {
        return Err("record is shorter than its header");
    };
    if version != RECORD_VERSION {
        return Err("unknown record version");
    }
    if flags & !FLAG_TOMBSTONE != 0 {
        return Err("unknown record flags");
    }
    let mut rest = rest;
    let create_revision = take_positive(&mut rest)?;
    let version = take_positive(&mut rest)?;
    let lease = take_varint(&mut rest)?;
    let key_len = take_varint(&mut rest)?;
    let value_len = take_varint(&mut rest)?;
    if key_len.checked_add(value_len) != Some(rest.len() as u64) {
        return Err("record length does not match its key and value");
    }
    Ok(Head {
        create_revision,
        version,
        lease: ((lease >> 1) as i64) ^ -((lease & 1) as i64),
        tombstone: flags & FLAG_TOMBSTONE != 0,
        key_start: record.len() - rest.len(),
        key_len: usize::try_from(key_len).map_err(|_| "key length out of range")?,
    })
}

fn varint_len(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

pub(crate) fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn take_varint(input: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first().ok_or("record ends inside a number")?;
        *input = rest;
        if shift == 63 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("number out of range")
}

fn take_positive(input: &mut &[u8]) -> Result<i64, &'static str> {
    i64::try_from(take_varint(input)?).map_err(|_| "number out of range")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            revision: Revision { main: 7, sub: 3 },
            key: Bytes::from_static(b"key"),
            value: Bytes::from(vec![9; 300]),
            create_revision: 5,
            version: 2,
            lease: i64::MIN,
            tombstone: false,
        }
    }

    #[test]
    fn rows_survive_encoding() {
        let tombstone = Row {
            value: Bytes::new(),
            create_revision: 0,
            version: 0,
            lease: 0,
            tombstone: true,
            ..row()
        };
        let big = Row {
            value: Bytes::from(vec![1; COPY_BELOW_BYTES * 2]),
            lease: -1,
            ..row()
        };
        for row in [row(), tombstone, big] {
            let record = encode(&row);
            assert_eq!(decode(row.revision, &record).unwrap(), row);
            assert_eq!(decode_sharing(row.revision, &record).unwrap(), row);
            assert_eq!(
                decode_header(row.revision, &record).unwrap(),
                RowHeader::of(&row)
            );
        }
    }

    #[test]
    fn a_record_takes_no_more_room_than_it_fills() {
        let numbers = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit]);
        for number in numbers.chain([u64::MAX]) {
            let mut out = BytesMut::new();
            put_varint(&mut out, number);
            assert_eq!(varint_len(number), out.len(), "{number}");
        }
    }

    #[test]
    fn no_cut_or_altered_frame_is_taken_for_a_row() {
        let record = encode(&row());
        for end in 0..record.len() {
            assert!(decode(row().revision, &record.slice(..end)).is_err());
        }
        let mut longer = record.to_vec();
        longer.push(0);
        assert!(decode(row().revision, &longer.into()).is_err());
        for byte in 0..12 {
            for bit in 0..8 {
                let mut bytes = record.to_vec();
                bytes[byte] ^= 1 << bit;
                let _ = decode(row().revision, &bytes.into());
            }
        }
        assert!(decode(row().revision, &Bytes::from_static(&[1, 0, 255, 255, 255])).is_err());
        assert!(decode(row().revision, &Bytes::from_static(&[2, 0, 0, 0, 0, 0, 0])).is_err());
        assert!(decode(row().revision, &Bytes::from_static(&[1, 2, 0, 0, 0, 0, 0])).is_err());
    }
}
