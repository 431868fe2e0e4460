//! Reading and checking the stream, whatever pieces it comes in.

use super::{BLOCK_HEAD_BYTES, BLOCK_PAYLOAD_BYTES, MAGIC, TAG_END, TAG_META, TAG_ROW, VERSION};
use crate::{
    backend::decode_record,
    types::{LogPosition, Revision, Row, TenantId},
};
use bytes::{Buf, Bytes, BytesMut};

/// No record is larger: values are bounded by the request limit, far below.
const RECORD_MAX_BYTES: usize = 1 << 30;
/// Far above what one cluster serves; bounds what a false head can make us gather.
const TENANTS_MAX: usize = 1 << 20;

/// What a snapshot says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The log position that it is of.
    pub position: LogPosition,
    /// The cluster that it is of.
    pub cluster_id: u64,
    /// The tenants in it.
    pub tenants: Vec<TenantId>,
    /// State records read so far; all of them once the stream has ended.
    pub meta_records: u64,
    /// Rows read so far; all of them once the stream has ended.
    pub rows: u64,
}

/// One record of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotItem {
    /// A state record.
    Meta(Bytes, Bytes),
    /// A row.
    Row(TenantId, Row),
}

/// Why a stream is not a snapshot.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It does not begin like one.
    #[error("not a snapshot of this program")]
    NotASnapshot,
    /// It was made by a newer version.
    #[error("snapshot has version {found}, this program knows versions up to {supported}")]
    NewerVersion {
        /// The version found.
        found: u16,
        /// The newest version this program knows.
        supported: u16,
    },
    /// It is damaged.
    #[error("snapshot is damaged in the block at offset {offset}: {reason}")]
    Damaged {
        /// Where the block begins.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// It stops before its end.
    #[error("snapshot ends too early, after {offset} bytes")]
    Incomplete {
        /// How much there was.
        offset: u64,
    },
}

/// Takes a stream apart. Only whole, checked blocks are looked into.
#[derive(Debug, Default)]
pub struct SnapshotDecoder {
    input: BytesMut,
    payload: BytesMut,
    /// Offset of the block in `input`.
    offset: u64,
    crc: u32,
    begun: bool,
    info: Option<SnapshotInfo>,
    ended: bool,
    failed: bool,
}

impl SnapshotDecoder {
    /// A decoder at the beginning of a stream.
    pub fn new() -> SnapshotDecoder {
        SnapshotDecoder::default()
    }

    /// What is known of the snapshot: `None` until its head was read.
    pub fn info(&self) -> Option<&SnapshotInfo> {
        self.info.as_ref()
    }

    /// Takes the next piece of the stream and appends the records in it to `out`.
    ///
    /// # Errors
    /// [`SnapshotError`]; the records appended so far are then worth nothing, and every further call fails.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<SnapshotItem>) -> Result<(), SnapshotError> {
        if self.failed {
            return Err(self.damaged("an earlier block was damaged"));
        }
        self.input.extend_from_slice(piece);
        let result = self.blocks(out);
        self.failed = result.is_err();
        result
    }

    /// Checks that the stream ended where it should.
    ///
    /// # Errors
    /// [`SnapshotError::Incomplete`] if it did not.
    pub fn finish(self) -> Result<SnapshotInfo, SnapshotError> {
        let offset = self.offset + self.input.len() as u64;
        match self.info {
            Some(info) if self.ended && !self.failed && self.input.is_empty() => Ok(info),
            _ => Err(SnapshotError::Incomplete { offset }),
        }
    }

    fn damaged(&self, reason: &'static str) -> SnapshotError {
        SnapshotError::Damaged {
            offset: self.offset,
            reason,
        }
    }

    fn blocks(&mut self, out: &mut Vec<SnapshotItem>) -> Result<(), SnapshotError> {
        if !self.begun {
            let start = self.input.len().min(MAGIC.len());
            if self.input.get(..start) != MAGIC.get(..start) {
                return Err(SnapshotError::NotASnapshot);
            }
            if self.input.len() < MAGIC.len() + 2 {
                return Ok(());
            }
            self.input.advance(MAGIC.len());
            match self.input.get_u16() {
                VERSION => {}
                found => {
                    return Err(SnapshotError::NewerVersion {
                        found,
                        supported: VERSION,
                    });
                }
            }
            self.offset = 8;
            self.begun = true;
        }
        while let Some((head, _)) = self.input.split_first_chunk::<4>() {
            let head = *head;
            let len = u32::from_be_bytes(head) as usize;
            if len == 0 || len > BLOCK_PAYLOAD_BYTES {
                return Err(self.damaged("block length is impossible"));
            }
            if self.ended {
                return Err(self.damaged("something follows the end"));
            }
            if self.input.len() < BLOCK_HEAD_BYTES + len {
                return Ok(());
            }
            self.input.advance(4);
            let crc = self.input.get_u32();
            let payload = self.input.split_to(len);
            self.crc = crc32c::crc32c_append(self.crc, &head);
            self.crc = crc32c::crc32c_append(self.crc, &payload);
            if crc != self.crc {
                return Err(self.damaged("checksum does not match"));
            }
            self.payload.extend_from_slice(&payload);
            self.records(out)?;
            self.offset += (BLOCK_HEAD_BYTES + len) as u64;
        }
        Ok(())
    }

    fn records(&mut self, out: &mut Vec<SnapshotItem>) -> Result<(), SnapshotError> {
        if self.info.is_none() {
            match take_head(&mut self.payload) {
                Ok(None) => return Ok(()),
                Ok(head) => self.info = head,
                Err(reason) => return Err(self.damaged(reason)),
            }
        }
        loop {
            if self.ended {
                return match self.payload.is_empty() {
                    true => Ok(()),
                    false => Err(self.damaged("something follows the end")),
                };
            }
            match take_record(&mut self.payload) {
                Ok(None) => return Ok(()),
                Ok(Some(Record::Item(item))) => {
                    if let Some(info) = &mut self.info {
                        match &item {
                            SnapshotItem::Meta(..) => info.meta_records += 1,
                            SnapshotItem::Row(tenant, _) => {
                                if info.tenants.binary_search(tenant).is_err() {
                                    return Err(self.damaged("row of a tenant not in the head"));
                                }
                                info.rows += 1;
                            }
                        }
                    }
                    out.push(item);
                }
                Ok(Some(Record::End { meta, rows })) => {
                    let counted = self.info.as_ref().map(|i| (i.meta_records, i.rows));
                    if counted != Some((meta, rows)) {
                        return Err(self.damaged("number of records does not match"));
                    }
                    self.ended = true;
                }
                Err(reason) => return Err(self.damaged(reason)),
            }
        }
    }
}

/// Takes the head, `None` if it is not all there yet.
fn take_head(payload: &mut BytesMut) -> Result<Option<SnapshotInfo>, &'static str> {
    let Some(&count) = payload.get(24..).and_then(|p| p.first_chunk::<4>()) else {
        return Ok(None);
    };
    let count = u32::from_be_bytes(count) as usize;
    if count > TENANTS_MAX {
        return Err("number of tenants is impossible");
    }
    if payload.len() - 28 < count * 4 {
        return Ok(None);
    }
    let position = LogPosition {
        index: payload.get_u64(),
        term: payload.get_u64(),
    };
    let cluster_id = payload.get_u64();
    payload.advance(4);
    let tenants: Vec<_> = (0..count).map(|_| TenantId(payload.get_u32())).collect();
    if !tenants.is_sorted_by(|a, b| a < b) {
        return Err("tenants are not in order");
    }
    Ok(Some(SnapshotInfo {
        position,
        cluster_id,
        tenants,
        meta_records: 0,
        rows: 0,
    }))
}

enum Record {
    Item(SnapshotItem),
    End { meta: u64, rows: u64 },
}

/// Takes the next record, `None` if it is not all there yet.
fn take_record(payload: &mut BytesMut) -> Result<Option<Record>, &'static str> {
    let u32_at = |payload: &BytesMut, at: usize| {
        let bytes = payload.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes) as usize)
    };
    match payload.first() {
        None => Ok(None),
        Some(&TAG_META) => {
            let (Some(key), Some(value)) = (u32_at(payload, 1), u32_at(payload, 5)) else {
                return Ok(None);
            };
            if key.max(value) > RECORD_MAX_BYTES {
                return Err("record length is impossible");
            }
            if payload.len() < 9 + key + value {
                return Ok(None);
            }
            payload.advance(9);
            let body = Bytes::copy_from_slice(&payload.split_to(key + value));
            let item = SnapshotItem::Meta(body.slice(..key), body.slice(key..));
            Ok(Some(Record::Item(item)))
        }
        Some(&TAG_ROW) => {
            let Some(len) = u32_at(payload, 17) else {
                return Ok(None);
            };
            if len > RECORD_MAX_BYTES {
                return Err("record length is impossible");
            }
            if payload.len() < 21 + len {
                return Ok(None);
            }
            payload.advance(1);
            let tenant = TenantId(payload.get_u32());
            let revision = Revision {
                main: payload.get_i64(),
                sub: payload.get_u32(),
            };
            payload.advance(4);
            if revision.main < 0 {
                return Err("revision is impossible");
            }
            let record = Bytes::copy_from_slice(&payload.split_to(len));
            let row = decode_record(revision, &record)?;
            Ok(Some(Record::Item(SnapshotItem::Row(tenant, row))))
        }
        Some(&TAG_END) => {
            if payload.len() < 17 {
                return Ok(None);
            }
            payload.advance(1);
            Ok(Some(Record::End {
                meta: payload.get_u64(),
                rows: payload.get_u64(),
            }))
        }
        Some(_) => Err("unknown record"),
    }
}
