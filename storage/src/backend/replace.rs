//! Putting received contents in the place of the present ones, in a store that is open.

use super::{
    OpenError, Opened, PersistError, Store, StoreOptions, StoreView,
    generations::Current,
    home::Home,
    persist::{Persister, Writer},
    staged::Capture,
};
use crate::snapshot::{InstallError, Installer, SnapshotInfo};
use std::{fmt, io, path::PathBuf, sync::Arc};

/// Why received contents were not put in place.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// The switch could not be written. The present contents stay in use.
    #[error("{}: {source}", path.display())]
    NotSwitched {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Nobody knows whether the switch is on the disk. The present contents stay in use until a restart, which may come up with
    /// the others, and take no further writes: the process must stop.
    #[error("{}: {source}; whether the snapshot is in use after a restart is not known", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The contents were received for another store.
    #[error("the snapshot was received for another store")]
    OtherStore,
}

/// A snapshot received and verified whole, on disk and synced, but not yet in use. Dropped, it is removed.
pub struct IncomingStore {
    /// What it is of.
    pub info: SnapshotInfo,
    /// The engine must be closed before its files are removed.
    writer: Writer,
    guard: GenerationGuard,
}

impl IncomingStore {
    /// What was received, to be read before it is put in place.
    pub fn view(&self) -> StoreView {
        let capture = Capture {
            segments: Vec::new(),
            position: self.info.position,
        };
        StoreView::new(self.writer.engine().snapshot(), capture)
    }
}

impl fmt::Debug for IncomingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingStore")
            .field("info", &self.info)
            .field("generation", &self.guard.generation)
            .finish_non_exhaustive()
    }
}

/// A generation on its way, as a store of its own that is filled in the usual manner. Dropped, it is removed.
#[derive(Debug)]
pub(crate) struct IncomingGeneration {
    pub(crate) store: Store,
    guard: GenerationGuard,
}

/// Removes a generation when dropped, unless it came in use.
struct GenerationGuard {
    home: Arc<Home>,
    generation: u64,
    in_use: bool,
}

impl fmt::Debug for GenerationGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.generation.fmt(f)
    }
}

impl Drop for GenerationGuard {
    fn drop(&mut self) {
        if !self.in_use {
            self.home.discard(self.generation);
        }
    }
}

impl IncomingGeneration {
    fn begin(home: &Arc<Home>, options: &StoreOptions) -> Result<IncomingGeneration, OpenError> {
        let generation = home.reserve();
        // From here on whatever was made is removed again.
        let guard = GenerationGuard {
            home: Arc::clone(home),
            generation,
            in_use: false,
        };
        let options = StoreOptions {
            // Nothing reads the rows while they arrive.
            cache_bytes: 0,
            ..options.clone()
        };
        let writer = home.begin(generation, &options)?;
        let store = Store::assemble(Arc::clone(home), writer, &Opened::default(), options);
        Ok(IncomingGeneration { store, guard })
    }

    /// Writes and syncs what was staged, as the snapshot that `info` describes.
    pub(crate) fn finish(self, info: SnapshotInfo) -> Result<IncomingStore, PersistError> {
        self.store.stage(info.position, Vec::new());
        self.store.persist()?;
        self.store.checkpoint()?;
        Ok(IncomingStore {
            info,
            writer: self.store.persister.into_inner().writer,
            guard: self.guard,
        })
    }
}

impl Store {
    /// Begins to receive a snapshot beside the present contents, which stay in use: up to 8 MiB and what the engine buffers
    /// are in memory. It must be of the cluster `expected_cluster`, if that is given.
    ///
    /// # Errors
    /// [`InstallError::Open`] if there is no room for it.
    pub fn incoming(&self, expected_cluster: Option<u64>) -> Result<Installer, InstallError> {
        let generation = IncomingGeneration::begin(&self.home, &self.options)?;
        Ok(Installer::begin(generation, expected_cluster))
    }

    /// Puts a received snapshot in the place of everything: rows, records, what is staged, the applied position, which may fall.
    /// When it returns, this is so for every read to come and after a crash; [`Opened::installed`] says so until
    /// [`Store::installed_recorded`]. Each read of another thread sees the old contents or the new, and a view or scan that began
    /// goes on with the old; their files are removed by a later [`Store::persist`], when nobody reads them any more.
    ///
    /// It waits for a [`Store::persist`] or [`Store::checkpoint`] under way; a position that the latter returns later is one of
    /// the new contents. On the thread that stages.
    ///
    /// # Errors
    /// See [`ReplaceError`]; the present contents are still in use then.
    pub fn install(&self, incoming: IncomingStore) -> Result<(), ReplaceError> {
        let IncomingStore {
            info,
            writer,
            mut guard,
        } = incoming;
        if !Arc::ptr_eq(&self.home, &guard.home) {
            // Closed before it is removed.
            drop(writer);
            return Err(ReplaceError::OtherStore);
        }
        let mut persister = self.persister.lock();
        let current = Current {
            generation: guard.generation,
            installed: true,
        };
        if let Err(failure) = self.home.switch(current) {
            if !failure.maybe {
                drop(writer);
                return Err(ReplaceError::NotSwitched {
                    path: failure.path,
                    source: failure.source,
                });
            }
            guard.in_use = true;
            persister
                .writer
                .stop("the store may have been replaced by a snapshot");
            return Err(ReplaceError::Unknown {
                path: failure.path,
                source: failure.source,
            });
        }
        guard.in_use = true;
        let old = std::mem::replace(&mut persister.writer, writer);
        persister.persisted = info.position;
        self.staged
            .replace(persister.writer.engine(), info.position, || {
                self.cache.clear();
            });
        // Closing it, and removing its files, is left to the persister thread.
        persister.retired.push(old.engine());
        persister.installed = true;
        tracing::info!(
            index = info.position.index,
            term = info.position.term,
            generation = current.generation,
            rows = info.rows,
            "store replaced by a snapshot"
        );
        Ok(())
    }

    /// Forgets that the contents came as a snapshot: the raft log has its record of it, durably. Does nothing if they did not.
    ///
    /// # Errors
    /// [`ReplaceError::NotSwitched`]: after a restart [`Opened::installed`] may still be set, which is harmless.
    pub fn installed_recorded(&self) -> Result<(), ReplaceError> {
        let mut persister = self.persister.lock();
        if !persister.installed {
            return Ok(());
        }
        let current = Current {
            generation: self.staged.generation(),
            installed: false,
        };
        self.home
            .switch(current)
            .map_err(|failure| ReplaceError::NotSwitched {
                path: failure.path,
                source: failure.source,
            })?;
        persister.installed = false;
        Ok(())
    }

    /// Closes replaced engines that nobody reads any more, and removes what is kept of them.
    pub(super) fn sweep(&self, persister: &mut Persister) {
        let retired = &mut persister.retired;
        while let Some(at) = retired.iter().position(super::Engine::is_last_handle) {
            let engine = retired.swap_remove(at);
            let generation = engine.generation();
            drop(engine);
            self.home.discard(generation);
        }
    }
}
