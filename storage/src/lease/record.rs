//! A lease's record among the small state records of the backend. The keys are not in it: they name their lease themselves.
//!
//! Layout: format (1 byte), granted TTL (8 bytes), checkpointed remaining time (8 bytes, 0 for none); seconds, little-endian. Format
//! 1 ends there and is that of a lease without an owner, format 2 goes on with the owner.

use bytes::Bytes;

const WITHOUT_OWNER: u8 = 1;
const WITH_OWNER: u8 = 2;
const LENGTH: usize = 17;

/// Most bytes of an owner. It is kept for each lease, of which there may be a million.
const OWNER_BYTES_MAX: usize = 512;

/// Whose a lease is: bytes that mean something to the caller alone, at least 1 and at most 512.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner(Box<[u8]>);

impl Owner {
    /// An owner, unless the bytes are none or too many.
    pub fn new(bytes: &[u8]) -> Option<Owner> {
        (1..=OWNER_BYTES_MAX)
            .contains(&bytes.len())
            .then(|| Owner(bytes.into()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A longer TTL is refused on the wire (behaviour §3.8), so it cannot be in a record.
pub(super) const TTL_MAX_SECS: i64 = 9_000_000_000;

/// The replicated part of a lease, without its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) ttl_secs: i64,
    /// 0: the full TTL.
    pub(super) checkpoint_secs: i64,
    pub(super) owner: Option<Owner>,
}

/// Why bytes are not a lease's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer version, or damaged.
    #[error("lease record of unknown format {0}")]
    Format(u8),
    /// Too short or too long.
    #[error("lease record of {0} bytes")]
    Length(usize),
    /// The TTL is not positive or beyond what can be granted.
    #[error("lease record with a TTL of {0} s")]
    Ttl(i64),
    /// The checkpoint is negative or not less than the TTL.
    #[error("lease record with a checkpoint of {checkpoint_secs} s at a TTL of {ttl_secs} s")]
    Checkpoint {
        /// The checkpointed remaining time.
        checkpoint_secs: i64,
        /// The granted TTL.
        ttl_secs: i64,
    },
    /// A lease of this id is there already, or it is 0, which means no lease.
    #[error("lease record for id {0}, which is taken or impossible")]
    Id(i64),
}

impl Record {
    pub(super) fn encode(&self) -> Bytes {
        let owner = self.owner.as_ref().map_or(&[][..], Owner::as_bytes);
        let mut bytes = Vec::with_capacity(LENGTH + owner.len());
        bytes.push(if owner.is_empty() {
            WITHOUT_OWNER
        } else {
            WITH_OWNER
        });
        bytes.extend_from_slice(&self.ttl_secs.to_le_bytes());
        bytes.extend_from_slice(&self.checkpoint_secs.to_le_bytes());
        bytes.extend_from_slice(owner);
        Bytes::from(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
        let wrong_length = || RecordError::Length(bytes.len());
        let (&format, fields) = bytes.split_first().ok_or_else(wrong_length)?;
        if !matches!(format, WITHOUT_OWNER | WITH_OWNER) {
            return Err(RecordError::Format(format));
        }
        let (ttl, fields) = fields.split_first_chunk::<8>().ok_or_else(wrong_length)?;
        let (checkpoint, rest) = fields.split_first_chunk::<8>().ok_or_else(wrong_length)?;
        let owner = if format == WITH_OWNER {
            Some(Owner::new(rest).ok_or_else(wrong_length)?)
        } else if rest.is_empty() {
            None
        } else {
            return Err(wrong_length());
        };
        let (ttl_secs, checkpoint_secs) =
            (i64::from_le_bytes(*ttl), i64::from_le_bytes(*checkpoint));
        if !(1..=TTL_MAX_SECS).contains(&ttl_secs) {
            return Err(RecordError::Ttl(ttl_secs));
        }
        if !(0..ttl_secs).contains(&checkpoint_secs) {
            return Err(RecordError::Checkpoint {
                checkpoint_secs,
                ttl_secs,
            });
        }
        Ok(Record {
            ttl_secs,
            checkpoint_secs,
            owner,
        })
    }
}
