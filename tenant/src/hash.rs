//! HashKV: a checksum over a tenant's logical content, the same on every member that holds the same data, however far each has
//! got with removing what was compacted. It is computed as etcd computes it, so that the same history has the same hash there.

use crate::answer::Refusal;
use crate::state::{Tenant, Tenants};
use bytes::BufMut;
use holdfast_storage::mvcc::{KeySpan, View};
use holdfast_storage::{Revision, Row};

/// A checksum and what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    /// CRC-32C over the covered rows in revision order.
    pub hash: u32,
    /// The revision up to which rows are covered.
    pub hash_revision: i64,
    /// The compacted revision; rows that it killed are not covered.
    pub compact_revision: i64,
    /// The store's current revision.
    pub revision: i64,
}

/// etcd's name for the table of rows, with which its hash begins.
const TABLE: &[u8] = b"key";

impl Tenants {
    /// Computes the checksum up to `revision`; 0 is the current one. Takes as long as a scan of the rows.
    ///
    /// # Errors
    /// [`Refusal::Compacted`] and [`Refusal::FutureRevision`] for a revision that is not there, [`Refusal::Storage`] when rows cannot
    /// be read.
    pub fn hash_kv(&self, tenant: &Tenant, revision: i64) -> Result<KvHash, Refusal> {
        let (snapshot, until, rows) = loop {
            let snapshot = self.snapshot(tenant);
            let until = if revision == 0 {
                snapshot.revision()
            } else {
                revision
            };
            if until < snapshot.compacted() {
                return Err(Refusal::Compacted);
            }
            if until > snapshot.revision() {
                return Err(Refusal::FutureRevision);
            }
            // The rows of the entry in hand reach the store at its end, and `until` may be among them.
            drop(self.applying.read());
            // A negative revision has no rows before it, and is none that the store's keys could be ordered by.
            let rows = self
                .store()
                .scan(tenant.id, Revision::first(0), until.max(0));
            // It may be the scan of a received store whose index is not in place yet.
            drop(self.applying.read());
            // The scan is of one moment; no compaction may lie between that moment and the snapshot.
            if tenant.compacted() == snapshot.compacted() {
                break (snapshot, until, rows);
            }
        };
        let view = snapshot.view();
        // etcd keeps a row at or below the compacted revision if it is the newest of its key at the hash's revision; if no key
        // exists there, if it is one that the compaction left.
        let none_lives = view.count_at(KeySpan::ALL, until) == 0;
        let mut hash = holdfast_storage::crc32c(0, TABLE);
        let mut encoded = Vec::new();
        for row in rows {
            let row = row.map_err(|error| Refusal::Storage(error.to_string()))?;
            if row.revision.main <= view.compacted() && !is_kept(view, &row, until, none_lives) {
                continue;
            }
            encoded.clear();
            encode_as_etcd(&row, &mut encoded);
            hash = holdfast_storage::crc32c(hash, &encoded);
        }
        Ok(KvHash {
            hash,
            hash_revision: until,
            compact_revision: view.compacted(),
            revision: view.revision(),
        })
    }
}

fn is_kept(view: View<'_>, row: &Row, until: i64, none_lives: bool) -> bool {
    let newest_at = |at: i64| {
        view.get_at(&row.key, at)
            .is_some_and(|version| version.modified == row.revision)
    };
    newest_at(view.compacted()) && (none_lives || newest_at(until))
}

/// A row's name and value as they stand in etcd's table: `main BE | '_' | sub BE [| 't']`, and the encoded `mvccpb.KeyValue`, of which
/// a tombstone has the key alone.
fn encode_as_etcd(row: &Row, out: &mut Vec<u8>) {
    out.put_i64(row.revision.main);
    out.put_u8(b'_');
    out.put_i64(i64::from(row.revision.sub));
    if row.tombstone {
        out.put_u8(b't');
    }
    if !row.key.is_empty() {
        out.put_u8(0x0a);
        varint(row.key.len() as u64, out);
        out.put_slice(&row.key);
    }
    if row.tombstone {
        return;
    }
    for (tag, number) in [
        (0x10, row.create_revision),
        (0x18, row.revision.main),
        (0x20, row.version),
    ] {
        if number != 0 {
            out.put_u8(tag);
            varint(number as u64, out);
        }
    }
    if !row.value.is_empty() {
        out.put_u8(0x2a);
        varint(row.value.len() as u64, out);
        out.put_slice(&row.value);
    }
    if row.lease != 0 {
        out.put_u8(0x30);
        varint(row.lease as u64, out);
    }
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}
