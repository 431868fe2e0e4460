//! Recently used rows, bounded by bytes.

use crate::types::{Revision, Row, TenantId};
use quick_cache::{Weighter, sync::Cache};

/// What a cached row costs besides its key and value: the row, its slot with the ghost share, and one allocation.
const ROW_OVERHEAD_BYTES: usize = 280;

#[derive(Clone)]
struct RowBytes;

impl Weighter<(TenantId, Revision), Row> for RowBytes {
    fn weight(&self, _: &(TenantId, Revision), row: &Row) -> u64 {
        (ROW_OVERHEAD_BYTES + row.key.len() + row.value.len()) as u64
    }
}

pub(super) struct RowCache(Option<Cache<(TenantId, Revision), Row, RowBytes>>);

impl RowCache {
    /// 0 bytes switches the cache off.
    pub(super) fn new(bytes: u64) -> RowCache {
        RowCache((bytes > 0).then(|| {
            // A guess for typical rows; the table grows if they are smaller.
            let items = usize::try_from(bytes / 1024).unwrap_or(usize::MAX);
            Cache::with_weighter(items, bytes, RowBytes)
        }))
    }

    pub(super) fn get(&self, tenant: TenantId, revision: Revision) -> Option<Row> {
        self.0.as_ref()?.get(&(tenant, revision))
    }

    pub(super) fn insert(&self, tenant: TenantId, row: Row) {
        if let Some(cache) = &self.0 {
            cache.insert((tenant, row.revision), row);
        }
    }

    pub(super) fn remove(&self, tenant: TenantId, revision: Revision) {
        if let Some(cache) = &self.0 {
            cache.remove(&(tenant, revision));
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, Cache::weight)
    }

    pub(super) fn enabled(&self) -> bool {
        self.0.is_some()
    }
}
