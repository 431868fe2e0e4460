//! The way of staged changes to disk.

use super::{
    StoreOptions,
    cache::RowCache,
    engine::Engine,
    errors::PersistError,
    journal::{self, Ending, Progress},
    keys::{META_KEY_MAX_BYTES, applied_key, meta_key, row_key},
    mark::{JournalMark, Mark},
    record,
    staged::{Segment, Staged},
};
use crate::types::{LogPosition, Revision, TenantId};
use bytes::Bytes;
use fjall::{AbstractTree, OwnedWriteBatch, PersistMode};
use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

/// fjall waits inside a commit, without looking whether its workers are alive, once 4 buffers wait to be written or 30 runs
/// lie in level 0. This store waits before, where it can look.
const SEALED_MEMTABLES_MAX: usize = 2;
const LEVEL_0_RUNS_MAX: usize = 24;
const ENGINE_BUSY_PAUSE: Duration = Duration::from_millis(2);

/// What one [`super::Store::persist`] moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Persisted {
    /// The position up to which everything is in fjall now.
    pub position: LogPosition,
    /// Rows written or dropped.
    pub rows: usize,
    /// Bytes of staged memory given back.
    pub bytes: usize,
}

/// What only the persister thread needs.
pub(super) struct Persister {
    pub(super) mark_path: PathBuf,
    pub(super) persisted: LogPosition,
    /// The number of the last batch (see [`super::keys::APPLIED_PREFIX`]).
    pub(super) batch: u64,
    /// How far each journal was walked, by its number.
    pub(super) walked: BTreeMap<u64, Progress>,
    /// The newest journal when the meta keyspace was last written out.
    pub(super) tidied: u64,
    /// The first failure of the engine, which it does not recover from.
    pub(super) stopped: Option<Stopped>,
}

#[derive(Clone)]
pub(super) struct Stopped {
    no_space: bool,
    reason: String,
}

impl Persister {
    pub(super) fn persist(
        &mut self,
        staged: &Staged,
        cache: &RowCache,
        engine: &Engine,
        options: &StoreOptions,
    ) -> Result<Persisted, PersistError> {
        self.check_running(engine)?;
        let segments = staged.seal();
        let mut moved = Persisted {
            position: self.persisted,
            ..Persisted::default()
        };
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
            moved.rows += self.write(group, engine, options)?;
            moved.bytes += group.iter().map(|s| s.bytes).sum::<usize>();
            moved.position = self.persisted;
            settle_cache(group, cache);
            staged.unpin(group.len());
            rest = later;
        }
        Ok(moved)
    }

    /// Writes the segments as one batch and returns the number of rows in it.
    fn write(
        &mut self,
        group: &[Arc<Segment>],
        engine: &Engine,
        options: &StoreOptions,
    ) -> Result<usize, PersistError> {
        // All items of a batch have one sequence number, so it must not name a key twice.
        let mut drops: HashSet<(TenantId, Revision)> = HashSet::new();
        let mut meta: BTreeMap<&Bytes, &Option<Bytes>> = BTreeMap::new();
        let mut position = self.persisted;
        let mut bytes = 0;
        for segment in group {
            drops.extend(&segment.drops);
            meta.extend(&segment.meta);
            position = position.max(segment.position);
            bytes += segment.bytes;
        }
        if let Some(key) = meta.keys().find(|k| k.len() > META_KEY_MAX_BYTES) {
            return Err(PersistError::MetaKeyTooLong {
                len: key.len(),
                max: META_KEY_MAX_BYTES,
            });
        }
        self.check_space(engine, options, bytes as u64)?;
        self.wait_until_ready(engine)?;

        let items = rows_in(group) + drops.len() + meta.len() + 2;
        let mut batch = OwnedWriteBatch::with_capacity(engine.db.clone(), items)
            .durability(Some(PersistMode::Buffer));
        let mut rows = drops.len();
        for (tenant, row) in group.iter().flat_map(|s| {
            s.rows
                .iter()
                .flat_map(|(t, of_tenant)| of_tenant.rows.iter().map(move |r| (*t, r)))
        }) {
            if drops.is_empty() || !drops.contains(&(tenant, row.revision)) {
                batch.insert(
                    &engine.rows,
                    row_key(tenant, row.revision),
                    record::encode(row),
                );
                rows += 1;
            }
        }
        for &(tenant, revision) in &drops {
            batch.remove(&engine.rows, row_key(tenant, revision));
        }
        for (key, value) in meta {
            match value {
                Some(value) => batch.insert(&engine.meta, meta_key(key), value.clone()),
                None => batch.remove(&engine.meta, meta_key(key)),
            }
        }
        batch.remove(&engine.meta, applied_key(self.batch));
        batch.insert(
            &engine.meta,
            applied_key(self.batch + 1),
            position_bytes(position),
        );
        batch.commit().map_err(|e| self.stop(engine, &e))?;
        self.batch += 1;
        self.persisted = position;
        Ok(rows)
    }

    pub(super) fn checkpoint(&mut self, engine: &Engine) -> Result<LogPosition, PersistError> {
        self.check_running(engine)?;
        engine
            .db
            .persist(PersistMode::SyncAll)
            .map_err(|e| self.stop(engine, &e))?;
        let journals = self.walk_journals(engine)?;
        let newest = journals.last().map_or(0, |j| j.id);
        let mark = Mark {
            position: self.persisted,
            journals,
        };
        mark.write(&self.mark_path)
            .map_err(|source| PersistError::Mark {
                path: self.mark_path.clone(),
                source,
            })?;
        // fjall deletes a sealed journal only when all that it holds is in tables. Rows get there by themselves, but the few
        // records of the meta keyspace would stay in memory and keep every journal: they are written out once per journal.
        if newest > self.tidied {
            engine
                .meta
                .rotate_memtable()
                .map_err(|e| self.stop(engine, &e))?;
            self.tidied = newest;
        }
        Ok(self.persisted)
    }

    /// Follows the journals to their ends. Nothing else writes, so each must end at a whole batch.
    fn walk_journals(&mut self, engine: &Engine) -> Result<Vec<JournalMark>, PersistError> {
        let dir = engine.dir();
        let files = journal::list(dir).map_err(|source| PersistError::Mark {
            path: dir.to_owned(),
            source,
        })?;
        self.walked
            .retain(|id, _| files.iter().any(|(known, _)| known == id));
        let mut marks = Vec::with_capacity(files.len());
        for (id, path) in files {
            let progress = self.walked.entry(id).or_default();
            match journal::walk(&path, progress, |_| {}) {
                Ok(Ending::Clean) => marks.push(JournalMark {
                    id,
                    len: progress.len,
                    crc: progress.crc,
                }),
                Ok(Ending::Broken { offset, reason, .. }) => {
                    return Err(PersistError::Journal {
                        path,
                        offset,
                        reason,
                    });
                }
                // Deleted meanwhile: all that it held is in tables.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.walked.remove(&id);
                }
                Err(source) => return Err(PersistError::Mark { path, source }),
            }
        }
        Ok(marks)
    }

    fn check_running(&self, engine: &Engine) -> Result<(), PersistError> {
        match &self.stopped {
            None => Ok(()),
            Some(stopped) => Err(stopped.error(engine)),
        }
    }

    fn check_space(
        &self,
        engine: &Engine,
        options: &StoreOptions,
        bytes: u64,
    ) -> Result<(), PersistError> {
        // The batch goes to the journal now and to a table later.
        let needed = options.reserve_bytes.saturating_add(2 * bytes);
        match free_bytes(engine) {
            Some(free) if free < needed => Err(PersistError::NoSpace {
                path: engine.dir().to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn wait_until_ready(&mut self, engine: &Engine) -> Result<(), PersistError> {
        while engine.rows.sealed_memtable_count() >= SEALED_MEMTABLES_MAX
            || engine.rows.tree.l0_run_count() >= LEVEL_0_RUNS_MAX
        {
            // Writes nothing; tells whether a worker has died.
            engine
                .db
                .persist(PersistMode::Buffer)
                .map_err(|e| self.stop(engine, &e))?;
            std::thread::sleep(ENGINE_BUSY_PAUSE);
        }
        Ok(())
    }

    /// fjall refuses all writes after a failed one, so this is final; what is staged stays readable.
    fn stop(&mut self, engine: &Engine, error: &fjall::Error) -> PersistError {
        let full = |e: &io::Error| {
            matches!(
                e.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        };
        let no_space = match error {
            fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => full(e),
            // A worker met the error; it is told only as "poisoned".
            fjall::Error::Poisoned => free_bytes(engine).is_some_and(|free| free < 1 << 20),
            _ => false,
        };
        let stopped = Stopped {
            no_space,
            reason: error.to_string(),
        };
        tracing::error!(path = %engine.dir().display(), error = %stopped.reason, no_space, "store stopped writing");
        let error = stopped.error(engine);
        self.stopped = Some(stopped);
        error
    }
}

impl Stopped {
    fn error(&self, engine: &Engine) -> PersistError {
        PersistError::Stopped {
            path: engine.dir().to_owned(),
            no_space: self.no_space,
            reason: self.reason.clone(),
        }
    }
}

fn rows_in(group: &[Arc<Segment>]) -> usize {
    group
        .iter()
        .flat_map(|s| s.rows.values())
        .map(|t| t.rows.len())
        .sum()
}

/// Leaves the written rows in the cache, and takes out the dropped ones: a read or an earlier batch may have put them back.
fn settle_cache(group: &[Arc<Segment>], cache: &RowCache) {
    if !cache.enabled() {
        return;
    }
    for segment in group {
        for (&tenant, of_tenant) in &segment.rows {
            for row in &of_tenant.rows {
                cache.insert(tenant, record::detached(row));
            }
        }
        for &(tenant, revision) in &segment.drops {
            cache.remove(tenant, revision);
        }
    }
}

fn free_bytes(engine: &Engine) -> Option<u64> {
    let stat = rustix::fs::statvfs(engine.dir()).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

pub(super) fn position_bytes(position: LogPosition) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&position.index.to_be_bytes());
    bytes[8..].copy_from_slice(&position.term.to_be_bytes());
    bytes
}

pub(super) fn parse_position(bytes: &[u8]) -> Option<LogPosition> {
    let (index, term) = bytes.split_first_chunk::<8>()?;
    Some(LogPosition {
        index: u64::from_be_bytes(*index),
        term: u64::from_be_bytes(term.try_into().ok()?),
    })
}
