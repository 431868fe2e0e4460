//! Where a store keeps its generations: a directory, or memory.

use super::{
    StoreOptions,
    engine::{Holder, MemoryStore, memory_place},
    errors::OpenError,
    generations::{self, Current},
    open,
    persist::Writer,
};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

pub(super) struct Home {
    place: Place,
    /// The highest generation given out.
    newest: AtomicU64,
}

enum Place {
    Directory {
        dir: PathBuf,
        lock: Arc<File>,
    },
    Memory {
        store: MemoryStore,
        holder: Arc<Holder>,
    },
}

/// Why another generation was not put in use.
pub(super) struct NotSwitched {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
    /// It may have been, or may be after a crash: nobody knows.
    pub(super) maybe: bool,
}

impl Home {
    pub(super) fn directory(dir: &Path, lock: Arc<File>, newest: u64) -> Home {
        Home {
            place: Place::Directory {
                dir: dir.to_owned(),
                lock,
            },
            newest: AtomicU64::new(newest),
        }
    }

    pub(super) fn memory(store: MemoryStore, holder: Arc<Holder>, newest: u64) -> Home {
        Home {
            place: Place::Memory { store, holder },
            newest: AtomicU64::new(newest),
        }
    }

    /// The directory, or what stands for it in messages.
    pub(super) fn path(&self) -> PathBuf {
        match &self.place {
            Place::Directory { dir, .. } => dir.clone(),
            Place::Memory { .. } => memory_place(),
        }
    }

    pub(super) fn is_memory(&self) -> bool {
        matches!(self.place, Place::Memory { .. })
    }

    /// Takes the number of a new generation.
    pub(super) fn reserve(&self) -> u64 {
        self.newest.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes the reserved generation, empty.
    pub(super) fn begin(
        &self,
        generation: u64,
        options: &StoreOptions,
    ) -> Result<Writer, OpenError> {
        match &self.place {
            Place::Directory { dir, lock } => open::begin(dir, generation, options, lock)
                .map(|writer| Writer::Fjall(Box::new(writer))),
            Place::Memory { store, holder } => {
                let (engine, _) = store.generation(generation, holder);
                Ok(Writer::Memory(engine))
            }
        }
    }

    /// Puts a generation in use, durably.
    pub(super) fn switch(&self, current: Current) -> Result<(), NotSwitched> {
        match &self.place {
            Place::Directory { dir, .. } => current.write(dir),
            Place::Memory { store, holder } => {
                store.switch(current, holder).map_err(|reason| NotSwitched {
                    path: memory_place(),
                    source: io::Error::other(reason),
                    maybe: false,
                })
            }
        }
    }

    /// Removes what is kept of a generation that is not in use and has no readers.
    pub(super) fn discard(&self, generation: u64) {
        match &self.place {
            Place::Directory { dir, .. } => generations::discard(dir, generation),
            Place::Memory { store, holder } => store.remove(generation, holder),
        }
    }
}
