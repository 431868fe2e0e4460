//! HashKV: a checksum over a tenant's logical content, the same on every member that holds the same data, however far each has
//! got with removing what was compacted.

use crate::answer::Refusal;
use crate::state::{Tenant, Tenants, of_the_present};
use holdfast_storage::{Revision, Row};

/// A checksum and what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    /// CRC-32C over the covered rows in key order.
    pub hash: u32,
    /// The revision up to which rows are covered.
    pub hash_revision: i64,
    /// The compacted revision; rows that it killed are not covered.
    pub compact_revision: i64,
    /// The store's current revision.
    pub revision: i64,
}

/// Rows read at a time.
const BATCH: usize = 512;

impl Tenants {
    /// Computes the checksum up to `revision`; 0 is the current one.
    ///
    /// # Errors
    /// [`Refusal::Compacted`] and [`Refusal::FutureRevision`] for a revision that is not there, [`Refusal::Storage`] when rows cannot
    /// be read.
    pub fn hash_kv(&self, tenant: &Tenant, revision: i64) -> Result<KvHash, Refusal> {
        of_the_present(revision == 0, || self.hash_once(tenant, revision))
    }

    fn hash_once(&self, tenant: &Tenant, revision: i64) -> Result<KvHash, Refusal> {
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
        let mut hash = 0;
        let mut batch: Vec<Revision> = Vec::with_capacity(BATCH);
        let mut rows = Vec::new();
        let mut flush = |batch: &mut Vec<Revision>, hash: &mut u32| {
            self.store()
                .get_many(tenant.id, batch, &mut rows)
                .map_err(|error| Refusal::Storage(error.to_string()))?;
            if rows.iter().any(Option::is_none) {
                drop(self.applying.read());
                self.store()
                    .get_many(tenant.id, batch, &mut rows)
                    .map_err(|error| Refusal::Storage(error.to_string()))?;
            }
            for (row, revision) in rows.iter().zip(batch.iter()) {
                match row {
                    Some(row) => *hash = extend(*hash, row),
                    None if tenant.compacted() > snapshot.compacted() => {
                        return Err(Refusal::Compacted);
                    }
                    None => return Err(crate::txn::missing(*revision)),
                }
            }
            batch.clear();
            Ok(())
        };
        for generation in snapshot.history_at_compaction(until) {
            batch.push(generation.revision);
            if batch.len() == BATCH {
                flush(&mut batch, &mut hash)?;
            }
        }
        flush(&mut batch, &mut hash)?;
        Ok(KvHash {
            hash,
            hash_revision: until,
            compact_revision: snapshot.compacted(),
            revision: snapshot.revision(),
        })
    }
}

fn extend(hash: u32, row: &Row) -> u32 {
    let numbers = [
        row.revision.main,
        i64::from(row.revision.sub),
        row.create_revision,
        row.version,
        row.lease,
        i64::from(row.tombstone),
        row.key.len() as i64,
        row.value.len() as i64,
    ];
    let hash = numbers.iter().fold(hash, |hash, number| {
        holdfast_storage::crc32c(hash, &number.to_le_bytes())
    });
    let hash = holdfast_storage::crc32c(hash, &row.key);
    holdfast_storage::crc32c(hash, &row.value)
}
