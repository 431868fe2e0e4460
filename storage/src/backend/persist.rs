//! The way of staged changes to the engine.

use super::{
    StoreOptions,
    cache::RowCache,
    engine::{Engine, MemoryBatch, MemoryEngine},
    errors::PersistError,
    fjall_writer::FjallWriter,
    keys::META_KEY_MAX_BYTES,
    record,
    staged::{Segment, Staged},
};
use crate::planted::{Defect, is_planted};
use crate::types::{LogPosition, Revision, TenantId};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

/// What one [`super::Store::persist`] moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Persisted {
    /// The position up to which everything is in the engine now.
    pub position: LogPosition,
    /// Rows written or dropped.
    pub rows: usize,
    /// Bytes of staged memory given back.
    pub bytes: usize,
}

/// What only the persister thread needs.
pub(super) struct Persister {
    pub(super) persisted: LogPosition,
    pub(super) writer: Writer,
    /// The contents came as a snapshot that the raft log may not know of.
    pub(super) installed: bool,
    /// Replaced engines, until nobody reads them any more.
    pub(super) retired: Vec<Engine>,
}

/// The writing side of an [`Engine`].
pub(super) enum Writer {
    Fjall(Box<FjallWriter>),
    Memory(Arc<MemoryEngine>),
}

/// What goes to the engine at once, all or nothing. All items of a fjall batch have one sequence number, so it must not both
/// write and remove a key.
pub(super) struct Batch<'a> {
    /// The rows to write, as records.
    pub(super) rows: Vec<(TenantId, Revision, Bytes)>,
    pub(super) drops: HashSet<(TenantId, Revision)>,
    pub(super) meta: BTreeMap<&'a Bytes, &'a Option<Bytes>>,
    pub(super) position: LogPosition,
    /// Staged memory that it holds.
    pub(super) bytes: usize,
}

impl<'a> Batch<'a> {
    fn new(group: &'a [Arc<Segment>], persisted: LogPosition) -> Batch<'a> {
        let mut batch = Batch {
            rows: Vec::new(),
            drops: HashSet::new(),
            meta: BTreeMap::new(),
            position: persisted,
            bytes: 0,
        };
        for segment in group {
            batch.drops.extend(&segment.drops);
            batch.meta.extend(&segment.meta);
            if !is_planted(Defect::AppliedBehind) {
                batch.position = batch.position.max(segment.position);
            }
            batch.bytes += segment.bytes;
        }
        batch.position.index += u64::from(is_planted(Defect::AppliedAhead));
        let of_tenants = || group.iter().flat_map(|segment| &segment.rows);
        batch.rows.reserve_exact(
            of_tenants()
                .map(|(_, of_tenant)| of_tenant.rows.len())
                .sum(),
        );
        for (&tenant, of_tenant) in of_tenants() {
            for row in &of_tenant.rows {
                if batch.drops.is_empty() || !batch.drops.contains(&(tenant, row.revision)) {
                    batch.rows.push((tenant, row.revision, record::encode(row)));
                }
            }
        }
        batch
    }

    /// The number of items.
    pub(super) fn items(&self) -> usize {
        self.rows.len() + self.drops.len() + self.meta.len()
    }

    fn check(&self) -> Result<(), PersistError> {
        match self.meta.keys().find(|k| k.len() > META_KEY_MAX_BYTES) {
            Some(key) => Err(PersistError::MetaKeyTooLong {
                len: key.len(),
                max: META_KEY_MAX_BYTES,
            }),
            None => Ok(()),
        }
    }
}

impl Writer {
    pub(super) fn engine(&self) -> Engine {
        match self {
            Writer::Fjall(writer) => Engine::Fjall(Arc::clone(&writer.engine)),
            Writer::Memory(engine) => Engine::Memory(Arc::clone(engine)),
        }
    }

    fn check_running(&self) -> Result<(), PersistError> {
        match self {
            Writer::Fjall(writer) => writer.check_running(),
            Writer::Memory(_) => Ok(()),
        }
    }

    /// No further writes until the store is opened again.
    pub(super) fn stop(&mut self, reason: &str) {
        match self {
            Writer::Fjall(writer) => {
                writer.stop_because(false, reason.to_owned());
            }
            // A switch in memory either happens or not.
            Writer::Memory(_) => {}
        }
    }

    /// Writes a batch and returns the number of rows in it.
    fn write(&mut self, batch: &Batch<'_>, options: &StoreOptions) -> Result<usize, PersistError> {
        match self {
            Writer::Fjall(writer) => writer.write(batch, options),
            Writer::Memory(engine) => write_to_memory(engine, batch),
        }
    }

    pub(super) fn checkpoint(&mut self, persisted: LogPosition) -> Result<(), PersistError> {
        match self {
            Writer::Fjall(writer) => writer.checkpoint(persisted),
            Writer::Memory(_) if is_planted(Defect::CutBeyondCheckpoint) => Ok(()),
            Writer::Memory(engine) => engine.sync(),
        }
    }
}

fn write_to_memory(engine: &MemoryEngine, batch: &Batch<'_>) -> Result<usize, PersistError> {
    let mut rows: Vec<_> = batch
        .rows
        .iter()
        .map(|(tenant, revision, record)| ((*tenant, *revision), Some(record.clone())))
        .collect();
    rows.extend(batch.drops.iter().map(|key| (*key, None)));
    let count = rows.len();
    engine.write(MemoryBatch {
        rows,
        meta: batch
            .meta
            .iter()
            .map(|(key, value)| ((*key).clone(), (*value).clone()))
            .collect(),
        position: batch.position,
    })?;
    Ok(count)
}

impl Persister {
    pub(super) fn persist(
        &mut self,
        staged: &Staged,
        cache: &RowCache,
        options: &StoreOptions,
    ) -> Result<Persisted, PersistError> {
        self.writer.check_running()?;
        let segments = staged.seal();
        let mut moved = Persisted {
            position: self.persisted,
            ..Persisted::default()
        };
        let generation = self.writer.engine().generation();
        let mut rest = segments.as_slice();
        while let Some(first) = rest.first() {
            let mut bytes = first.bytes;
            let more = rest[1..]
                .iter()
                .take_while(|s| {
                    bytes += s.bytes;
                    bytes <= options.max_batch_bytes
                })
                .count();
            let (group, later) = rest.split_at(1 + more);
            let batch = Batch::new(group, self.persisted);
            batch.check()?;
            moved.rows += self.writer.write(&batch, options)?;
            moved.bytes += batch.bytes;
            self.persisted = batch.position;
            moved.position = self.persisted;
            settle_cache(&batch, cache, generation);
            staged.unpin(group.len());
            rest = later;
        }
        Ok(moved)
    }

    pub(super) fn checkpoint(&mut self) -> Result<LogPosition, PersistError> {
        self.writer.checkpoint(self.persisted)?;
        Ok(self.persisted)
    }
}

/// Leaves the written rows in the cache, and takes out the dropped ones: a read or an earlier batch may have put them back.
/// For as long as the engine buffers what was written, the two share it.
fn settle_cache(batch: &Batch<'_>, cache: &RowCache, generation: u64) {
    if !cache.enabled() {
        return;
    }
    for (tenant, revision, record) in &batch.rows {
        cache.insert(generation, *tenant, *revision, record.clone());
    }
    for &(tenant, revision) in &batch.drops {
        cache.remove(generation, tenant, revision);
    }
}
