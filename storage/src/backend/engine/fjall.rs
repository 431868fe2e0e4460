//! fjall, as this store uses it.

use super::super::{
    StoreOptions, journal,
    keys::{META_KEYSPACE, ROWS_KEYSPACE},
};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, config::BlockSizePolicy};
use std::{
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Bigger blocks than fjall's 4 KiB: an index rebuild reads all of them, and a row that misses the cache costs one checksum
/// over a block either way.
const BLOCK_BYTES: u32 = 8 * 1024;
/// With more than one, fjall's first worker keeps itself free for flushes by putting compaction messages back into the queue, and
/// spins on them for as long as another worker compacts: a whole core.
const WORKER_THREADS: usize = 1;
const OPEN_FILES_MAX: usize = 128;
const META_MEMTABLE_BYTES: u64 = 2 << 20;

pub(in crate::backend) struct FjallEngine {
    pub(in crate::backend) db: Database,
    pub(in crate::backend) rows: Keyspace,
    pub(in crate::backend) meta: Keyspace,
    dir: PathBuf,
    generation: u64,
    /// Held for as long as anything can read the files.
    _lock: Arc<File>,
}

impl FjallEngine {
    pub(in crate::backend) fn open(
        dir: &Path,
        generation: u64,
        options: &StoreOptions,
        lock: Arc<File>,
    ) -> fjall::Result<FjallEngine> {
        let db = Database::builder(dir)
            .cache_size(options.block_cache_bytes)
            .max_journaling_size(options.journal_bytes.max(64 << 20))
            .max_cached_files(Some(OPEN_FILES_MAX))
            .worker_threads(WORKER_THREADS)
            // Values that compress well are compressed in the tables; in the journal it would cost the persister thread.
            .journal_compression(CompressionType::None)
            .open()?;
        let rows = db.keyspace(ROWS_KEYSPACE, || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(options.memtable_bytes)
                .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
                // Rows that the index names exist: a filter in the last level would answer nothing.
                .expect_point_read_hits(true)
        })?;
        let meta = db.keyspace(META_KEYSPACE, || {
            KeyspaceCreateOptions::default().max_memtable_size(META_MEMTABLE_BYTES)
        })?;
        Ok(FjallEngine {
            db,
            rows,
            meta,
            dir: dir.to_owned(),
            generation,
            _lock: lock,
        })
    }

    pub(in crate::backend) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(in crate::backend) fn generation(&self) -> u64 {
        self.generation
    }

    pub(in crate::backend) fn disk_bytes(&self) -> u64 {
        let journals: u64 = journal::list(&self.dir)
            .unwrap_or_default()
            .iter()
            .filter_map(|(_, path)| path.metadata().ok())
            .map(|m| m.blocks() * 512)
            .sum();
        journals + self.rows.disk_space() + self.meta.disk_space()
    }
}
