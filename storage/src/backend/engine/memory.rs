//! A store in memory whose "disk" survives the death of the process, and loses in a power cut what a disk may lose: the batches
//! written since the last checkpoint, from some point on. No threads, no time, no chance of its own.

use super::super::{
    errors::{OpenError, PersistError},
    generations::Current,
};
use crate::types::{LogPosition, Revision, TenantId};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound::{Included, Unbounded},
    path::PathBuf,
    sync::{Arc, Weak},
};

/// What a store in memory is kept on. A clone is the same one; it outlives the [`super::super::Store`] opened on it.
///
/// What [`super::super::Store::persist`] writes survives when the store is dropped (the process died), but is at the mercy of
/// [`MemoryStore::crash`] until [`super::super::Store::checkpoint`] returns.
#[derive(Clone, Default)]
pub struct MemoryStore {
    disk: Arc<Mutex<Disk>>,
}

/// Without the contents, which may be anybody's secrets.
impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = self.disk.lock();
        f.debug_struct("MemoryStore")
            .field("current", &disk.current)
            .field("full", &disk.full)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Disk {
    current: Current,
    generations: BTreeMap<u64, Stored>,
    /// Who has it open.
    holder: Weak<Holder>,
    full: bool,
    persists: u64,
    failing_persist: Option<u64>,
    checkpoints: u64,
    failing_checkpoint: Option<u64>,
}

/// Held by the store that is open, its incoming ones, and what reads them.
pub(in crate::backend) struct Holder;

#[derive(Default)]
struct Stored {
    durable: Contents,
    /// Written since the last checkpoint, oldest first.
    buffered: Vec<MemoryBatch>,
}

/// Rows, records and the applied position of one generation.
#[derive(Clone, Default)]
pub(in crate::backend) struct Contents {
    pub(in crate::backend) rows: BTreeMap<(TenantId, Revision), Bytes>,
    meta: BTreeMap<Bytes, Bytes>,
    applied: LogPosition,
}

/// What one write changes, all or nothing. `None` removes.
#[derive(Clone)]
pub(in crate::backend) struct MemoryBatch {
    pub(in crate::backend) rows: Vec<((TenantId, Revision), Option<Bytes>)>,
    pub(in crate::backend) meta: Vec<(Bytes, Option<Bytes>)>,
    pub(in crate::backend) position: LogPosition,
}

impl MemoryStore {
    /// The power fails: of the batches written since the last checkpoint a prefix survives. `pick(n)` is asked once and answers
    /// a number below `n`, how many that are (more counts as all). A store opened before can be read on but writes nothing any
    /// more, and no longer hinders another from being opened.
    pub fn crash(&self, pick: &mut dyn FnMut(u64) -> u64) {
        let mut disk = self.disk.lock();
        disk.holder = Weak::new();
        let current = disk.current.generation;
        disk.generations
            .retain(|generation, _| *generation == current);
        if let Some(stored) = disk.generations.get_mut(&current) {
            let buffered = std::mem::take(&mut stored.buffered);
            let survive = usize::try_from(pick(buffered.len() as u64 + 1)).unwrap_or(usize::MAX);
            for batch in buffered.iter().take(survive) {
                stored.durable.apply(batch);
            }
        }
    }

    /// How many batches the next [`MemoryStore::crash`] could take.
    pub fn unsynced_batches(&self) -> usize {
        let disk = self.disk.lock();
        disk.generations
            .get(&disk.current.generation)
            .map_or(0, |stored| stored.buffered.len())
    }

    /// While full, nothing can be persisted or checkpointed: both fail with [`PersistError::NoSpace`] and can be tried again.
    pub fn set_full(&self, full: bool) {
        self.disk.lock().full = full;
    }

    /// Makes the `nth` batch from now (1 = the next) fail with [`PersistError::NoSpace`].
    pub fn fail_persist(&self, nth: u64) {
        let mut disk = self.disk.lock();
        disk.failing_persist = Some(disk.persists + nth);
    }

    /// Makes the `nth` checkpoint from now (1 = the next) fail with [`PersistError::NoSpace`].
    pub fn fail_checkpoint(&self, nth: u64) {
        let mut disk = self.disk.lock();
        disk.failing_checkpoint = Some(disk.checkpoints + nth);
    }

    /// Takes it for a new store: fails while another is open.
    pub(in crate::backend) fn hold(&self) -> Result<Arc<Holder>, OpenError> {
        let mut disk = self.disk.lock();
        if disk.holder.strong_count() > 0 {
            return Err(OpenError::Locked { path: place() });
        }
        let holder = Arc::new(Holder);
        disk.holder = Arc::downgrade(&holder);
        // What was on its way when the last holder died.
        let current = disk.current.generation;
        disk.generations
            .retain(|generation, _| *generation == current);
        Ok(holder)
    }

    pub(in crate::backend) fn current(&self) -> Current {
        self.disk.lock().current
    }

    /// Opens a generation as it is, empty if it is new.
    pub(in crate::backend) fn generation(
        &self,
        generation: u64,
        holder: &Arc<Holder>,
    ) -> (Arc<MemoryEngine>, LogPosition) {
        let mut disk = self.disk.lock();
        let stored = disk.generations.entry(generation).or_default();
        let mut contents = stored.durable.clone();
        for batch in &stored.buffered {
            contents.apply(batch);
        }
        let applied = contents.applied;
        let engine = MemoryEngine {
            store: self.clone(),
            holder: Arc::clone(holder),
            generation,
            contents: RwLock::new(Arc::new(contents)),
        };
        (Arc::new(engine), applied)
    }

    /// Makes `current` the one to open, durably. Not if the holder crashed.
    pub(in crate::backend) fn switch(
        &self,
        current: Current,
        holder: &Arc<Holder>,
    ) -> Result<(), &'static str> {
        let mut disk = self.disk.lock();
        if !disk.is_held_by(holder) {
            return Err(CRASHED);
        }
        disk.current = current;
        Ok(())
    }

    pub(in crate::backend) fn remove(&self, generation: u64, holder: &Arc<Holder>) {
        let mut disk = self.disk.lock();
        if disk.is_held_by(holder) && disk.current.generation != generation {
            disk.generations.remove(&generation);
        }
    }
}

const CRASHED: &str = "the disk crashed since the store was opened";

impl Disk {
    fn is_held_by(&self, holder: &Arc<Holder>) -> bool {
        std::ptr::eq(self.holder.as_ptr(), Arc::as_ptr(holder))
    }

    fn check(&self, holder: &Arc<Holder>) -> Result<(), PersistError> {
        if !self.is_held_by(holder) {
            return Err(PersistError::Stopped {
                path: place(),
                no_space: false,
                reason: CRASHED.to_owned(),
            });
        }
        if self.full {
            return Err(PersistError::NoSpace { path: place() });
        }
        Ok(())
    }
}

/// Counts a call and says whether it is the one to fail.
fn count(calls: &mut u64, failing: &mut Option<u64>) -> Result<(), PersistError> {
    *calls += 1;
    if *failing == Some(*calls) {
        *failing = None;
        return Err(PersistError::NoSpace { path: place() });
    }
    Ok(())
}

/// What stands for the directory in messages.
pub(in crate::backend) fn place() -> PathBuf {
    PathBuf::from("(memory)")
}

impl Contents {
    fn apply(&mut self, batch: &MemoryBatch) {
        change(&mut self.rows, &batch.rows);
        change(&mut self.meta, &batch.meta);
        self.applied = batch.position;
    }

    pub(super) fn meta(&self, prefix: &[u8]) -> BTreeMap<Bytes, Bytes> {
        self.meta
            .range::<[u8], _>((Included(prefix), Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    pub(super) fn next_tenant(&self, from: TenantId) -> Option<TenantId> {
        let start = (from, Revision::first(i64::MIN));
        self.rows
            .range(start..)
            .next()
            .map(|((tenant, _), _)| *tenant)
    }
}

fn change<K: Ord + Clone>(map: &mut BTreeMap<K, Bytes>, changes: &[(K, Option<Bytes>)]) {
    for (key, value) in changes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

/// One open generation: what is durable, and what was written since.
pub(in crate::backend) struct MemoryEngine {
    store: MemoryStore,
    holder: Arc<Holder>,
    generation: u64,
    /// Shared with snapshots; a write copies it if there is one.
    contents: RwLock<Arc<Contents>>,
}

impl MemoryEngine {
    pub(in crate::backend) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn get(&self, tenant: TenantId, revision: Revision) -> Option<Bytes> {
        self.contents.read().rows.get(&(tenant, revision)).cloned()
    }

    pub(super) fn contents(&self) -> Arc<Contents> {
        Arc::clone(&self.contents.read())
    }

    /// Writes a batch: visible to all later reads, not yet safe from a crash.
    pub(in crate::backend) fn write(&self, batch: MemoryBatch) -> Result<(), PersistError> {
        let mut disk = self.store.disk.lock();
        let disk = &mut *disk;
        disk.check(&self.holder)?;
        count(&mut disk.persists, &mut disk.failing_persist)?;
        Arc::make_mut(&mut *self.contents.write()).apply(&batch);
        let stored = disk.generations.entry(self.generation).or_default();
        stored.buffered.push(batch);
        Ok(())
    }

    /// Makes what was written safe.
    pub(in crate::backend) fn sync(&self) -> Result<(), PersistError> {
        let mut disk = self.store.disk.lock();
        let disk = &mut *disk;
        disk.check(&self.holder)?;
        count(&mut disk.checkpoints, &mut disk.failing_checkpoint)?;
        let stored = disk.generations.entry(self.generation).or_default();
        for batch in std::mem::take(&mut stored.buffered) {
            stored.durable.apply(&batch);
        }
        Ok(())
    }
}
