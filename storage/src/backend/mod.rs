//! The rows behind the index, shared by all tenants, and the state machine's small records.
//!
//! A change goes through three places: *staged* (memory, visible at once), then the engine – fjall – with a buffered write (survives
//! the process), then a *checkpoint* (synced; the raft log may be cut up to it). The raft log is what makes a change durable; this
//! store is always behind it and is brought up to date by replay.
//!
//! One thread, the persister, calls [`Store::persist`] and [`Store::checkpoint`]; nothing else writes to fjall. fjall syncs under
//! its journal lock (tens of milliseconds), so neither call belongs on a thread that answers requests.
//!
//! A member that is too far behind gets everything anew: [`Store::incoming`] takes a snapshot beside the present contents,
//! [`Store::install`] puts it in their place.
//!
//! The engine may also be memory ([`Store::in_memory`]), for simulated members: the same store, on a [`MemoryStore`] that can crash.

mod cache;
mod engine;
mod errors;
mod fjall_writer;
mod generations;
mod home;
mod journal;
mod keys;
mod mark;
mod open;
mod persist;
mod record;
mod replace;
mod scan;
mod staged;
#[cfg(test)]
mod tests;

pub use engine::MemoryStore;
pub use errors::{EngineError, OpenError, PersistError, ReadError};
pub use persist::Persisted;
pub use record::RowHeader;
pub use replace::{IncomingStore, ReplaceError};
pub use scan::{RowHeaders, RowScan, StoreView};

pub(crate) use record::{decode as decode_record, encode as encode_record};
pub(crate) use replace::IncomingGeneration;

use crate::types::{Change, LogPosition, Revision, Row, TenantId};
use bytes::Bytes;
use cache::RowCache;
use engine::Engine;
use home::Home;
use parking_lot::Mutex;
use persist::{Persister, Writer};
use staged::{Lookup, Seen, Staged};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Sizes of a [`Store`]. All are bounds on memory or disk; the defaults suit a node with 512 MiB.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Bytes of rows kept in memory after they were used or persisted; 0 for none.
    pub cache_bytes: u64,
    /// Bytes of fjall's own block cache.
    pub block_cache_bytes: u64,
    /// Bytes after which fjall writes its sorted buffer of rows to a table. Up to four such buffers are in memory under load.
    pub memtable_bytes: u64,
    /// Bytes of sealed journals after which fjall writes buffers out early; at least 64 MiB.
    pub journal_bytes: u64,
    /// Bytes after which staged changes become one fjall batch. One [`Store::stage`] call is never split.
    pub max_batch_bytes: usize,
    /// Free bytes that must remain on the disk: below, [`Store::persist`] refuses before the engine meets the full disk, which
    /// would stop it until a restart.
    pub reserve_bytes: u64,
    /// Whether a store that cannot be repaired is renamed aside and begun anew. Give `false` when the raft log does not begin
    /// with its first entry and no peer or snapshot can rebuild the store: the damage is then an error, and nothing is touched.
    pub may_set_aside: bool,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            cache_bytes: 4 << 20,
            block_cache_bytes: 8 << 20,
            memtable_bytes: 4 << 20,
            journal_bytes: 64 << 20,
            max_batch_bytes: 1 << 20,
            reserve_bytes: 64 << 20,
            may_set_aside: true,
        }
    }
}

/// What [`Store::open`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The last log entry whose changes are in the store, whole. Replay begins behind it. If the raft log begins later than
    /// the entry after this one, the store cannot be brought up to date and the caller must refuse or fetch a snapshot.
    pub applied: LogPosition,
    /// The engine's journal lost a tail that was never synced, and was cut there; replay restores what is missing.
    pub recovered: Option<JournalCut>,
    /// The store was damaged beyond repair: it is now here, and a new one was begun that must be rebuilt.
    pub set_aside: Option<PathBuf>,
    /// The contents came as a snapshot ([`Store::install`]), and nobody has said yet ([`Store::installed_recorded`]) that the
    /// raft log knows it: if the log does not hold the entry at `applied`, it must be begun anew there.
    pub installed: bool,
}

/// A cut of the engine's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalCut {
    /// The journal file.
    pub journal: PathBuf,
    /// Its length now.
    pub at: u64,
    /// Why it ends there.
    pub reason: String,
    /// Where what was cut off is kept, `None` if it was an unfinished write at the very end.
    pub kept: Option<PathBuf>,
}

/// The store. See the module's text for the way of a change.
pub struct Store {
    home: Arc<Home>,
    options: StoreOptions,
    staged: Staged,
    cache: RowCache,
    persister: Mutex<Persister>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("home", &self.home.path())
            .field("generation", &self.staged.generation())
            .field("staged_bytes", &self.staged.bytes())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in `dir`, creating it if it is missing. Un-synced journal pages that a power cut took are cut off;
    /// see [`Opened`] for what may have happened and [`StoreOptions::may_set_aside`] for damage beyond that.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: &Path, options: StoreOptions) -> Result<(Store, Opened), OpenError> {
        let (home, writer, opened) = open::open(dir, &options)?;
        let writer = Writer::Fjall(Box::new(writer));
        let store = Store::assemble(Arc::new(home), writer, &opened, options);
        Ok((store, opened))
    }

    /// Opens the store that is kept on `memory`, where a new one is empty. No threads, no time and no chance are in it; of the
    /// options, only `cache_bytes` and `max_batch_bytes` count.
    ///
    /// # Errors
    /// [`OpenError::Locked`] while another is open on it that did not crash.
    pub fn in_memory(
        memory: &MemoryStore,
        options: StoreOptions,
    ) -> Result<(Store, Opened), OpenError> {
        let holder = memory.hold()?;
        let current = memory.current();
        let (engine, applied) = memory.generation(current.generation, &holder);
        let home = Home::memory(memory.clone(), holder, current.generation);
        let opened = Opened {
            applied,
            installed: current.installed,
            ..Opened::default()
        };
        let writer = Writer::Memory(engine);
        let store = Store::assemble(Arc::new(home), writer, &opened, options);
        Ok((store, opened))
    }

    fn assemble(home: Arc<Home>, writer: Writer, opened: &Opened, options: StoreOptions) -> Store {
        Store {
            staged: Staged::new(writer.engine(), opened.applied, options.max_batch_bytes),
            cache: RowCache::new(options.cache_bytes, home.is_memory()),
            persister: Mutex::new(Persister {
                persisted: opened.applied,
                writer,
                installed: opened.installed,
                retired: Vec::new(),
            }),
            home,
            options,
        }
    }

    /// Takes the changes of the log entries up to `position`; memory only. The calls come in log order from one thread, and a
    /// call's changes reach the disk in one atomic batch: spread a large compaction over many calls (dropping rows late is
    /// harmless).
    pub fn stage(&self, position: LogPosition, changes: Vec<Change>) {
        if self.cache.enabled() {
            let generation = self.staged.generation();
            for change in &changes {
                if let Change::DropRow(tenant, revision) = change {
                    self.cache.remove(generation, *tenant, *revision);
                }
            }
        }
        self.staged.stage(position, changes);
    }

    /// Bytes of memory that staged changes hold (an estimate that includes overhead).
    pub fn staged_bytes(&self) -> usize {
        self.staged.bytes()
    }

    /// Waits until at most `limit` bytes are staged, or `timeout` has passed. Whether it is so.
    /// The apply side bounds its lead over the disk with this.
    pub fn wait_until_staged_below(&self, limit: usize, timeout: Duration) -> bool {
        self.staged.wait_below(limit, timeout)
    }

    /// The position of the last staged call (or what was applied at opening).
    pub fn staged_position(&self) -> LogPosition {
        self.staged.position()
    }

    /// Reads one row: from the cache, from what is staged, from the engine.
    ///
    /// # Errors
    /// [`ReadError`] if the row cannot be read or is not one.
    pub fn get(&self, tenant: TenantId, revision: Revision) -> Result<Option<Row>, ReadError> {
        let generation = self.staged.generation();
        if let Some(row) = self.cache.get(generation, tenant, revision) {
            return Ok(Some(row));
        }
        match self.staged.find(tenant, revision) {
            Seen::Row(row) => Ok(row),
            Seen::Ask(engine) => self.fetch(&engine, tenant, revision),
        }
    }

    /// Reads many rows of one tenant into `out`, one place per revision, which is cleared first. Cheaper than as many
    /// [`Store::get`] calls: what is staged is locked once. All are of the same contents, if [`Store::install`] replaces them
    /// meanwhile.
    ///
    /// # Errors
    /// As [`Store::get`]; `out` is then incomplete.
    pub fn get_many(
        &self,
        tenant: TenantId,
        revisions: &[Revision],
        out: &mut Vec<Option<Row>>,
    ) -> Result<(), ReadError> {
        loop {
            let generation = self.staged.generation();
            out.clear();
            out.reserve(revisions.len());
            let mut missing = 0;
            for &revision in revisions {
                let row = self.cache.get(generation, tenant, revision);
                missing += usize::from(row.is_none());
                out.push(row);
            }
            if missing == 0 {
                return Ok(());
            }
            let mut lookups: Vec<Option<Lookup>> = out
                .iter()
                .map(|row| row.is_some().then_some(Lookup::Absent))
                .collect();
            let engine = self.staged.find_many(tenant, revisions, &mut lookups);
            if engine.generation() != generation {
                // What came from the cache was replaced meanwhile.
                continue;
            }
            for ((place, lookup), &revision) in out.iter_mut().zip(lookups).zip(revisions) {
                if place.is_none() {
                    *place = match lookup {
                        Some(Lookup::Found(row)) => Some(row),
                        Some(Lookup::Dropped) => None,
                        // Between the two looks the row may have gone from staged to the engine, never the other way.
                        Some(Lookup::Absent) | None => self.fetch(&engine, tenant, revision)?,
                    };
                }
            }
            return Ok(());
        }
    }

    fn fetch(
        &self,
        engine: &Engine,
        tenant: TenantId,
        revision: Revision,
    ) -> Result<Option<Row>, ReadError> {
        let Some(record) = engine.get(tenant, revision)? else {
            return Ok(None);
        };
        let record = record::detached(&record);
        let row =
            record::decode_sharing(revision, &record).map_err(|reason| ReadError::Corrupt {
                tenant,
                revision,
                reason,
            })?;
        self.cache
            .insert(engine.generation(), tenant, revision, record);
        Ok(Some(row))
    }

    /// The rows of `tenant` from `from` through transaction `through_main`, in revision order, as at this moment: rows staged
    /// later are not seen, and every row of the moment is seen once, whatever the persister does meanwhile.
    pub fn scan(&self, tenant: TenantId, from: Revision, through_main: i64) -> RowScan {
        RowScan::new(self.rows_between(tenant, from, through_main))
    }

    /// The headers of all rows of `tenant` in revision order: what an index is built from. Values are not decoded.
    pub fn row_headers(&self, tenant: TenantId) -> RowHeaders {
        RowHeaders::new(self.rows_between(tenant, Revision::first(0), i64::MAX))
    }

    fn rows_between(&self, tenant: TenantId, from: Revision, through_main: i64) -> scan::Merge {
        let (capture, snapshot) = self.staged.capture_range(tenant, from, through_main);
        scan::Merge::new(&snapshot, capture, tenant, from, through_main)
    }

    /// The state records whose key begins with `prefix`, in key order.
    ///
    /// # Errors
    /// [`ReadError::Engine`] if the store cannot be read.
    pub fn meta(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        self.view().meta(prefix)
    }

    /// The tenants that have rows, in order of their ids.
    ///
    /// # Errors
    /// [`ReadError::Engine`] if the store cannot be read.
    pub fn tenants(&self) -> Result<Vec<TenantId>, ReadError> {
        self.view().tenants()
    }

    /// A consistent view of rows and records as at the last staged position. Until it is dropped it holds what is staged now in
    /// memory, and the store's files open even if the store is dropped.
    pub fn view(&self) -> StoreView {
        let (capture, snapshot) = self.staged.capture();
        StoreView::new(snapshot, capture)
    }

    /// Bytes that the store takes on disk, journals included (what is allocated, not file lengths: journals are sparse); 0
    /// in memory.
    pub fn disk_bytes(&self) -> u64 {
        self.staged.engine().disk_bytes()
    }

    /// Moves everything staged so far to the engine, the applied position in the same atomic batch as the rows it covers, then
    /// unpins it and leaves the rows in the cache. On the persister thread only; waits for fjall where that is behind.
    ///
    /// # Errors
    /// See [`PersistError`]: what was not moved stays staged.
    pub fn persist(&self) -> Result<Persisted, PersistError> {
        let mut persister = self.persister.lock();
        self.sweep(&mut persister);
        persister.persist(&self.staged, &self.cache, &self.options)
    }

    /// Syncs what was persisted and records, synced, how far the journals are good. The raft log may be cut up to the
    /// returned position, not further. On the persister thread only.
    ///
    /// # Errors
    /// See [`PersistError`]; the raft log must not be cut then.
    pub fn checkpoint(&self) -> Result<LogPosition, PersistError> {
        let mut persister = self.persister.lock();
        self.sweep(&mut persister);
        persister.checkpoint()
    }
}
