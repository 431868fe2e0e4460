//! Recently used rows, as records, bounded by bytes.

use super::record;
use crate::types::{Revision, Row, TenantId};
use bytes::Bytes;
use quick_cache::{
    OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};
use std::hash::{BuildHasherDefault, Hasher};

/// What a cached record costs besides its bytes: its slot, with those for ghosts and the table, and two allocations.
const RECORD_OVERHEAD_BYTES: usize = 180;

/// Least bytes of a shard: a record that is larger than its shard is never cached.
const SHARD_BYTES_MIN: u64 = 512 << 10;

/// A row of one generation of the store: a reader that was overtaken by a received snapshot cannot put an old row in a new one's
/// place. The low half of the number does: it rises by one with each snapshot.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    generation: u32,
    tenant: TenantId,
    revision: Revision,
}

impl Key {
    fn new(generation: u64, tenant: TenantId, revision: Revision) -> Key {
        Key {
            generation: generation as u32,
            tenant,
            revision,
        }
    }
}

/// The numbers in a key are given out by the server, nobody can choose colliding ones; and a simulated run evicts the same rows
/// each time.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_i64(&mut self, n: i64) {
        self.write_u64(n as u64);
    }

    fn write_u64(&mut self, n: u64) {
        // The odd constant nearest to 2^64 / golden ratio.
        self.0 = (self.0.rotate_left(23) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// The cache picks its shard by the low bits and a slot by the others: the high ones, which every bit of the key reaches, are
    /// folded into all.
    fn finish(&self) -> u64 {
        let folded = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        folded ^ (folded >> 29)
    }
}

type Records = Cache<Key, Bytes, RecordBytes, BuildHasherDefault<KeyHasher>>;

#[derive(Clone)]
struct RecordBytes;

impl Weighter<Key, Bytes> for RecordBytes {
    fn weight(&self, _: &Key, record: &Bytes) -> u64 {
        (RECORD_OVERHEAD_BYTES + record.len()) as u64
    }
}

pub(super) struct RowCache(Option<Records>);

impl RowCache {
    /// 0 bytes switches the cache off. `one_shard` makes it the same on every machine; otherwise there are more with more cores and bytes.
    pub(super) fn new(bytes: u64, one_shard: bool) -> RowCache {
        if bytes == 0 {
            return RowCache(None);
        }
        // A guess for typical rows; the table grows if they are smaller.
        let items = usize::try_from(bytes / 512).unwrap_or(usize::MAX);
        let mut options = OptionsBuilder::new();
        options
            .estimated_items_capacity(items)
            .weight_capacity(bytes);
        let most = if one_shard {
            1
        } else {
            4 * std::thread::available_parallelism().map_or(1, usize::from)
        };
        let shards = usize::try_from(bytes / SHARD_BYTES_MIN).unwrap_or(most);
        options.shards(shards.clamp(1, most));
        // It fails only without the two capacities.
        RowCache(options.build().ok().map(|options| {
            Cache::with_options(
                options,
                RecordBytes,
                BuildHasherDefault::default(),
                DefaultLifecycle::default(),
            )
        }))
    }

    pub(super) fn get(&self, generation: u64, tenant: TenantId, revision: Revision) -> Option<Row> {
        let record = self
            .0
            .as_ref()?
            .get(&Key::new(generation, tenant, revision))?;
        // All that is put here is whole.
        record::decode_sharing(revision, &record).ok()
    }

    /// `record` shares its buffer with nothing that is much larger.
    pub(super) fn insert(
        &self,
        generation: u64,
        tenant: TenantId,
        revision: Revision,
        record: Bytes,
    ) {
        if let Some(cache) = &self.0 {
            cache.insert(Key::new(generation, tenant, revision), record);
        }
    }

    pub(super) fn remove(&self, generation: u64, tenant: TenantId, revision: Revision) {
        if let Some(cache) = &self.0 {
            cache.remove(&Key::new(generation, tenant, revision));
        }
    }

    /// Takes everything out.
    pub(super) fn clear(&self) {
        if let Some(cache) = &self.0 {
            cache.clear();
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
