//! The engine below the staged changes: fjall in a directory, or memory that a simulator can let crash.
//!
//! An enum, not a trait object: which one it is, is known when the store is opened, and every read goes through here.

mod fjall;
mod memory;

pub(super) use fjall::FjallEngine;
pub use memory::MemoryStore;
pub(super) use memory::{Contents, Holder, MemoryBatch, MemoryEngine, place as memory_place};

use super::{
    errors::ReadError,
    keys::{META_PREFIX, ROW_KEY_LEN, meta_key, parse_row_key, row_key},
};
use crate::types::{Revision, TenantId};
use ::fjall::Readable;
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included},
    sync::Arc,
};

/// A handle on one generation of a store's contents.
#[derive(Clone)]
pub(super) enum Engine {
    Fjall(Arc<FjallEngine>),
    Memory(Arc<MemoryEngine>),
}

impl Engine {
    /// Which contents these are: a received snapshot has a higher number than what it replaces.
    pub(super) fn generation(&self) -> u64 {
        match self {
            Engine::Fjall(engine) => engine.generation(),
            Engine::Memory(engine) => engine.generation(),
        }
    }

    /// The record of a row, which may lie in a buffer with others.
    pub(super) fn get(
        &self,
        tenant: TenantId,
        revision: Revision,
    ) -> Result<Option<Bytes>, ReadError> {
        match self {
            Engine::Fjall(engine) => engine
                .rows
                .get(row_key(tenant, revision))
                .map(|record| record.map(Bytes::from))
                .map_err(ReadError::engine),
            Engine::Memory(engine) => Ok(engine.get(tenant, revision)),
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        match self {
            Engine::Fjall(engine) => Snapshot::Fjall(engine.db.snapshot(), Arc::clone(engine)),
            Engine::Memory(engine) => Snapshot::Memory(engine.contents()),
        }
    }

    /// Bytes taken on disk; 0 in memory.
    pub(super) fn disk_bytes(&self) -> u64 {
        match self {
            Engine::Fjall(engine) => engine.disk_bytes(),
            Engine::Memory(_) => 0,
        }
    }

    /// Whether nobody else has a handle: no reader, no iterator.
    pub(super) fn is_last_handle(&self) -> bool {
        match self {
            Engine::Fjall(engine) => Arc::strong_count(engine) == 1,
            Engine::Memory(engine) => Arc::strong_count(engine) == 1,
        }
    }
}

/// The contents as at a moment. It keeps the engine alive.
#[derive(Clone)]
pub(super) enum Snapshot {
    Fjall(::fjall::Snapshot, Arc<FjallEngine>),
    Memory(Arc<Contents>),
}

impl Snapshot {
    /// The rows of `tenant` from `from` through `through`, none if that is before it.
    pub(super) fn rows(&self, tenant: TenantId, from: Revision, through: Revision) -> RowIter {
        match self {
            Snapshot::Fjall(snapshot, engine) => {
                let (start, end) = (row_key(tenant, from), row_key(tenant, through));
                let iter = if from > through {
                    snapshot.range(&engine.rows, start..start)
                } else {
                    snapshot.range(&engine.rows, start..=end)
                };
                RowIter::Fjall {
                    iter,
                    _engine: Arc::clone(engine),
                }
            }
            Snapshot::Memory(contents) => RowIter::Memory {
                next: (from <= through).then_some(Included((tenant, from))),
                last: (tenant, through),
                contents: Arc::clone(contents),
            },
        }
    }

    /// The state records whose key begins with `prefix`.
    pub(super) fn meta(&self, prefix: &[u8]) -> Result<BTreeMap<Bytes, Bytes>, ReadError> {
        match self {
            Snapshot::Fjall(snapshot, engine) => {
                let mut found = BTreeMap::new();
                for item in snapshot.prefix(&engine.meta, meta_key(prefix)) {
                    let (key, value) = item.into_inner().map_err(ReadError::engine)?;
                    if let Some((&META_PREFIX, key)) = key.split_first() {
                        found.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(&value));
                    }
                }
                Ok(found)
            }
            Snapshot::Memory(contents) => Ok(contents.meta(prefix)),
        }
    }

    /// The tenant of the first row whose tenant is not below `from`.
    pub(super) fn next_tenant(&self, from: TenantId) -> Result<Option<TenantId>, ReadError> {
        match self {
            Snapshot::Fjall(snapshot, engine) => {
                let start = [&from.0.to_be_bytes()[..], &[0; ROW_KEY_LEN - 4]].concat();
                let Some(item) = snapshot.range(&engine.rows, start..).next() else {
                    return Ok(None);
                };
                let key = item.key().map_err(ReadError::engine)?;
                match parse_row_key(&key) {
                    Some((tenant, _)) => Ok(Some(tenant)),
                    None => Err(ReadError::CorruptKey { tenant: from }),
                }
            }
            Snapshot::Memory(contents) => Ok(contents.next_tenant(from)),
        }
    }
}

/// Rows of one tenant in revision order.
pub(super) enum RowIter {
    Fjall {
        /// Stands before the engine: it must be gone first.
        iter: ::fjall::Iter,
        _engine: Arc<FjallEngine>,
    },
    Memory {
        contents: Arc<Contents>,
        /// Where to go on; `None` at the end.
        next: Option<std::ops::Bound<(TenantId, Revision)>>,
        last: (TenantId, Revision),
    },
}

impl RowIter {
    /// The next row's record.
    pub(super) fn next(
        &mut self,
        tenant: TenantId,
    ) -> Result<Option<(Revision, Bytes)>, ReadError> {
        match self {
            RowIter::Fjall { iter, .. } => {
                let Some(item) = iter.next() else {
                    return Ok(None);
                };
                let (key, value) = item.into_inner().map_err(ReadError::engine)?;
                match parse_row_key(&key) {
                    Some((found, revision)) if found == tenant => {
                        Ok(Some((revision, Bytes::from(value))))
                    }
                    _ => Err(ReadError::CorruptKey { tenant }),
                }
            }
            RowIter::Memory {
                contents,
                next,
                last,
            } => {
                let Some(from) = *next else {
                    return Ok(None);
                };
                let found = contents.rows.range((from, Included(*last))).next();
                // A range that begins behind its last key would be none.
                *next = found
                    .map(|(key, _)| *key)
                    .filter(|key| key < last)
                    .map(Excluded);
                Ok(found.map(|(key, record)| (key.1, record.clone())))
            }
        }
    }
}
