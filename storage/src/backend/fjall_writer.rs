//! Writing to fjall, and knowing how far its journals are good.

use super::{
    StoreOptions,
    engine::FjallEngine,
    errors::PersistError,
    journal::{self, Ending, Progress},
    keys::{applied_key, meta_key, row_key},
    mark::{JournalMark, Mark},
    persist::Batch,
};
use crate::types::LogPosition;
use fjall::{AbstractTree, OwnedWriteBatch, PersistMode};
use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration};

/// fjall waits inside a commit, without looking whether its workers are alive, once 4 buffers wait to be written or 30 runs
/// lie in level 0. This store waits before, where it can look.
const SEALED_MEMTABLES_MAX: usize = 2;
const LEVEL_0_RUNS_MAX: usize = 24;
const ENGINE_BUSY_PAUSE: Duration = Duration::from_millis(2);

/// The only one who writes to its engine.
pub(super) struct FjallWriter {
    pub(super) engine: Arc<FjallEngine>,
    pub(super) mark_path: PathBuf,
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

impl FjallWriter {
    /// Writes a batch and returns the number of rows in it.
    pub(super) fn write(
        &mut self,
        changes: &Batch<'_>,
        options: &StoreOptions,
    ) -> Result<usize, PersistError> {
        self.check_space(options, changes.bytes as u64)?;
        self.wait_until_ready()?;

        let engine = &self.engine;
        let mut batch = OwnedWriteBatch::with_capacity(engine.db.clone(), changes.items() + 2)
            .durability(Some(PersistMode::Buffer));
        for (tenant, revision, record) in &changes.rows {
            batch.insert(&engine.rows, row_key(*tenant, *revision), record.clone());
        }
        for &(tenant, revision) in &changes.drops {
            batch.remove(&engine.rows, row_key(tenant, revision));
        }
        for (key, value) in &changes.meta {
            match value {
                Some(value) => batch.insert(&engine.meta, meta_key(key), value.clone()),
                None => batch.remove(&engine.meta, meta_key(key)),
            }
        }
        batch.remove(&engine.meta, applied_key(self.batch));
        batch.insert(
            &engine.meta,
            applied_key(self.batch + 1),
            position_bytes(changes.position),
        );
        batch.commit().map_err(|e| self.stop(&e))?;
        self.batch += 1;
        Ok(changes.rows.len() + changes.drops.len())
    }

    pub(super) fn checkpoint(&mut self, persisted: LogPosition) -> Result<(), PersistError> {
        self.check_running()?;
        self.engine
            .db
            .persist(PersistMode::SyncAll)
            .map_err(|e| self.stop(&e))?;
        let journals = self.walk_journals()?;
        let newest = journals.last().map_or(0, |j| j.id);
        let mark = Mark {
            position: persisted,
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
            self.engine
                .meta
                .rotate_memtable()
                .map_err(|e| self.stop(&e))?;
            self.tidied = newest;
        }
        Ok(())
    }

    /// Follows the journals to their ends. Nothing else writes, so each must end at a whole batch.
    fn walk_journals(&mut self) -> Result<Vec<JournalMark>, PersistError> {
        let dir = self.engine.dir();
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

    pub(super) fn check_running(&self) -> Result<(), PersistError> {
        match &self.stopped {
            None => Ok(()),
            Some(stopped) => Err(stopped.error(&self.engine)),
        }
    }

    fn check_space(&self, options: &StoreOptions, bytes: u64) -> Result<(), PersistError> {
        // The batch goes to the journal now and to a table later.
        let needed = options.reserve_bytes.saturating_add(2 * bytes);
        match free_bytes(&self.engine) {
            Some(free) if free < needed => Err(PersistError::NoSpace {
                path: self.engine.dir().to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn wait_until_ready(&mut self) -> Result<(), PersistError> {
        while self.engine.rows.sealed_memtable_count() >= SEALED_MEMTABLES_MAX
            || self.engine.rows.tree.l0_run_count() >= LEVEL_0_RUNS_MAX
        {
            // Writes nothing; tells whether a worker has died.
            self.engine
                .db
                .persist(PersistMode::Buffer)
                .map_err(|e| self.stop(&e))?;
            std::thread::sleep(ENGINE_BUSY_PAUSE);
        }
        Ok(())
    }

    /// fjall refuses all writes after a failed one, so this is final; what is staged stays readable.
    fn stop(&mut self, error: &fjall::Error) -> PersistError {
        let full = |e: &io::Error| {
            matches!(
                e.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        };
        let no_space = match error {
            fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => full(e),
            // A worker met the error; it is told only as "poisoned".
            fjall::Error::Poisoned => free_bytes(&self.engine).is_some_and(|free| free < 1 << 20),
            _ => false,
        };
        self.stop_because(no_space, error.to_string())
    }

    /// No further writes until the store is opened again.
    pub(super) fn stop_because(&mut self, no_space: bool, reason: String) -> PersistError {
        tracing::error!(path = %self.engine.dir().display(), error = %reason, no_space, "store stopped writing");
        let stopped = Stopped { no_space, reason };
        let error = stopped.error(&self.engine);
        self.stopped = Some(stopped);
        error
    }
}

impl Stopped {
    fn error(&self, engine: &FjallEngine) -> PersistError {
        PersistError::Stopped {
            path: engine.dir().to_owned(),
            no_space: self.no_space,
            reason: self.reason.clone(),
        }
    }
}

fn free_bytes(engine: &FjallEngine) -> Option<u64> {
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
