//! Writing the stream.

use super::{BLOCK_PAYLOAD_BYTES, MAGIC, TAG_END, TAG_META, TAG_ROW, VERSION};
use crate::{
    backend::{ReadError, RowScan, StoreView, encode_record},
    types::{LogPosition, Revision, TenantId},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What a snapshot covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotScope {
    /// Everything.
    All,
    /// One tenant's rows, and the state records whose key begins with one of the prefixes (only the state machine knows
    /// which records are a tenant's).
    Tenant {
        /// The tenant.
        tenant: TenantId,
        /// Its records.
        meta_prefixes: Vec<Bytes>,
    },
}

/// The stream of one [`StoreView`]: an iterator of chunks of at most 256 KiB. It holds one chunk in memory (more only for a
/// row that is larger). Ends after the first error.
pub struct SnapshotReader {
    view: StoreView,
    tenants: std::vec::IntoIter<TenantId>,
    current: Option<(TenantId, RowScan)>,
    meta: std::vec::IntoIter<(Bytes, Bytes)>,
    pending: BytesMut,
    crc: u32,
    begun: bool,
    ended: bool,
    meta_count: u64,
    row_count: u64,
}

impl SnapshotReader {
    /// Begins a stream.
    ///
    /// # Errors
    /// [`ReadError`] if the tenants or state records cannot be read.
    pub fn new(
        view: StoreView,
        cluster_id: u64,
        scope: &SnapshotScope,
    ) -> Result<SnapshotReader, ReadError> {
        let (tenants, meta) = match scope {
            SnapshotScope::All => (view.tenants()?, view.meta(&[])?),
            SnapshotScope::Tenant {
                tenant,
                meta_prefixes,
            } => {
                let mut meta = Vec::new();
                for prefix in meta_prefixes {
                    meta.extend(view.meta(prefix)?);
                }
                meta.sort();
                meta.dedup();
                (vec![*tenant], meta)
            }
        };
        let position = view.position();
        let mut pending = BytesMut::with_capacity(BLOCK_PAYLOAD_BYTES + 1024);
        pending.put_u64(position.index);
        pending.put_u64(position.term);
        pending.put_u64(cluster_id);
        pending.put_u32(tenants.len() as u32);
        for tenant in &tenants {
            pending.put_u32(tenant.0);
        }
        Ok(SnapshotReader {
            view,
            tenants: tenants.into_iter(),
            current: None,
            meta: meta.into_iter(),
            pending,
            crc: 0,
            begun: false,
            ended: false,
            meta_count: 0,
            row_count: 0,
        })
    }

    /// The position that the snapshot is of.
    pub fn position(&self) -> LogPosition {
        self.view.position()
    }

    /// Appends the next record; false when there is none left.
    fn append(&mut self) -> Result<bool, ReadError> {
        if let Some((key, value)) = self.meta.next() {
            self.pending.put_u8(TAG_META);
            self.pending.put_u32(key.len() as u32);
            self.pending.put_u32(value.len() as u32);
            self.pending.extend_from_slice(&key);
            self.pending.extend_from_slice(&value);
            self.meta_count += 1;
            return Ok(true);
        }
        loop {
            if let Some((tenant, rows)) = &mut self.current {
                if let Some(row) = rows.next() {
                    let row = row?;
                    let record = encode_record(&row);
                    self.pending.put_u8(TAG_ROW);
                    self.pending.put_u32(tenant.0);
                    self.pending.put_i64(row.revision.main);
                    self.pending.put_u32(row.revision.sub);
                    self.pending.put_u32(record.len() as u32);
                    self.pending.extend_from_slice(&record);
                    self.row_count += 1;
                    return Ok(true);
                }
                self.current = None;
            }
            let Some(tenant) = self.tenants.next() else {
                return Ok(false);
            };
            let rows = self.view.scan(tenant, Revision::first(0), i64::MAX);
            self.current = Some((tenant, rows));
        }
    }

    fn block(&mut self) -> Bytes {
        let len = self.pending.len().min(BLOCK_PAYLOAD_BYTES);
        let mut out = BytesMut::with_capacity(len + 16);
        if !self.begun {
            self.begun = true;
            out.extend_from_slice(&MAGIC);
            out.put_u16(VERSION);
        }
        let head = (len as u32).to_be_bytes();
        self.crc = crc32c::crc32c_append(self.crc, &head);
        self.crc = crc32c::crc32c_append(self.crc, &self.pending[..len]);
        out.extend_from_slice(&head);
        out.put_u32(self.crc);
        out.extend_from_slice(&self.pending[..len]);
        self.pending.advance(len);
        out.freeze()
    }
}

impl Iterator for SnapshotReader {
    type Item = Result<Bytes, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended && self.pending.len() < BLOCK_PAYLOAD_BYTES {
            match self.append() {
                Ok(true) => {}
                Ok(false) => {
                    self.ended = true;
                    self.pending.put_u8(TAG_END);
                    self.pending.put_u64(self.meta_count);
                    self.pending.put_u64(self.row_count);
                }
                Err(error) => {
                    self.ended = true;
                    self.pending.clear();
                    return Some(Err(error));
                }
            }
        }
        (!self.pending.is_empty()).then(|| Ok(self.block()))
    }
}
