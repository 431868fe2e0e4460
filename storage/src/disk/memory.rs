//! A disk in memory that behaves as badly as a real one may, and the same way each time.

use super::{Disk, DiskFile};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// What a device writes as a whole, or at least is asked to: the grain in which [`MemDisk::crash`] scatters a write.
const SECTOR_BYTES: usize = 512;

/// A directory in memory that knows what was synced and what was not. A clone is the same disk. Deterministic: all chance
/// comes from the closure given to [`MemDisk::crash`].
#[derive(Clone, Debug, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

type SharedInode = Arc<Mutex<Inode>>;

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, SharedInode>,
    durable_names: BTreeMap<String, SharedInode>,
    unsynced_names: Vec<NameChange>,
    capacity: Option<u64>,
    /// Raised by a crash; a file opened before is dead.
    epoch: u64,
    syncs: u64,
    failing_sync: Option<u64>,
    writes: u64,
    failing_write: Option<(u64, io::ErrorKind)>,
}

#[derive(Debug)]
enum NameChange {
    Create(String, SharedInode),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

#[derive(Debug)]
struct Unsynced {
    change: Change,
    /// A sync of it failed: as Linux does, the page then counts as clean and no later sync writes it.
    given_up: bool,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl MemDisk {
    /// An empty disk without a size limit.
    pub fn new() -> MemDisk {
        MemDisk::default()
    }

    /// The power fails. Of the directory changes since the last [`Disk::sync_dir`] a prefix survives (file systems journal
    /// names in order); of each unsynced write all, nothing, a prefix, or any of its sectors. `pick(n)` answers a number
    /// below `n` and decides all of it. Files opened before answer only errors afterwards.
    pub fn crash(&self, pick: &mut dyn FnMut(u64) -> u64) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.epoch += 1;
        let changes = std::mem::take(&mut state.unsynced_names);
        let survive = pick(changes.len() as u64 + 1) as usize;
        let mut names = std::mem::take(&mut state.durable_names);
        for change in changes.into_iter().take(survive) {
            change.apply(&mut names);
        }
        for inode in names.values() {
            inode.lock().crash(pick);
        }
        state.durable_names = names.clone();
        state.names = names;
    }

    /// Limits the sum of all file lengths; a write that would exceed it writes what fits and fails with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Makes the `nth` sync from now (1 = the next), of a file or of the directory, fail.
    pub fn fail_sync(&self, nth: u64) {
        let mut state = self.state.lock();
        state.failing_sync = Some(state.syncs + nth);
    }

    /// Makes the `nth` write from now (1 = the next) fail with `kind` after half of its bytes.
    pub fn fail_write(&self, nth: u64, kind: io::ErrorKind) {
        let mut state = self.state.lock();
        state.failing_write = Some((state.writes + nth, kind));
    }

    /// How many syncs were asked for so far.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// How many writes were asked for so far.
    pub fn writes(&self) -> u64 {
        self.state.lock().writes
    }

    /// The content of a file as a reader sees it now.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let inode = state.names.get(name)?.lock();
        Some(inode.current.clone())
    }

    /// Replaces a file, or creates it, durably: for damage done behind the program's back.
    pub fn replace(&self, name: &str, bytes: Vec<u8>) {
        let inode = Arc::new(Mutex::new(Inode {
            durable: bytes.clone(),
            current: bytes,
            unsynced: Vec::new(),
        }));
        let mut state = self.state.lock();
        state
            .durable_names
            .insert(name.to_owned(), Arc::clone(&inode));
        state.names.insert(name.to_owned(), inode);
    }

    /// A disk of its own with the same files as a reader sees them now, all of it durable.
    pub fn fork(&self) -> MemDisk {
        let fork = MemDisk::new();
        for (name, inode) in &self.state.lock().names {
            fork.replace(name, inode.lock().current.clone());
        }
        fork
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, SharedInode>) {
        match self {
            NameChange::Create(name, inode) => {
                names.insert(name, inode);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
            NameChange::Remove(name) => {
                names.remove(&name);
            }
        }
    }
}

impl State {
    /// Counts a sync and says whether it is the one to fail.
    fn count_sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        if self.failing_sync == Some(self.syncs) {
            self.failing_sync = None;
            return Err(io::Error::other("injected sync failure"));
        }
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        self.names
            .values()
            .map(|inode| inode.lock().current.len() as u64)
            .sum()
    }

    /// How far a file of `length` bytes may grow towards `wanted`.
    fn allowed_len(&self, length: usize, wanted: usize) -> usize {
        match self.capacity {
            Some(capacity) if wanted > length => {
                let free = capacity.saturating_sub(self.used_bytes());
                wanted.min(length.saturating_add(usize::try_from(free).unwrap_or(usize::MAX)))
            }
            _ => wanted,
        }
    }
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.current, |_| true);
        self.unsynced.push(Unsynced {
            change,
            given_up: false,
        });
    }

    fn crash(&mut self, pick: &mut dyn FnMut(u64) -> u64) {
        for Unsynced { change, .. } in std::mem::take(&mut self.unsynced) {
            match (pick(4), &change) {
                (0, _) => {}
                (1, Change::Write { offset, bytes }) => {
                    let kept = pick(bytes.len() as u64 + 1) as usize;
                    let kept = Change::Write {
                        offset: *offset,
                        bytes: bytes[..kept].to_vec(),
                    };
                    kept.apply(&mut self.durable, |_| true);
                }
                (2, Change::Write { .. }) => change.apply(&mut self.durable, |_| pick(2) == 1),
                _ => change.apply(&mut self.durable, |_| true),
            }
        }
        self.current = self.durable.clone();
    }
}

impl Change {
    fn overlaps(&self, other: &Change) -> bool {
        let range = |change: &Change| match change {
            Change::Write { offset, bytes } => *offset..offset + bytes.len(),
            Change::SetLen(bytes) => *bytes..usize::MAX,
        };
        let (a, b) = (range(self), range(other));
        a.start < b.end && b.start < a.end
    }

    /// Applies the change to a file's content; a write only in the sectors that `keep` wants.
    fn apply(&self, content: &mut Vec<u8>, mut keep: impl FnMut(usize) -> bool) {
        match self {
            Change::SetLen(bytes) => content.resize(*bytes, 0),
            Change::Write { offset, bytes } => {
                let mut from = 0;
                while from < bytes.len() {
                    let at = offset + from;
                    let sector = at / SECTOR_BYTES;
                    let to = bytes.len().min((sector + 1) * SECTOR_BYTES - offset);
                    if keep(sector) {
                        let end = offset + to;
                        if content.len() < end {
                            content.resize(end, 0);
                        }
                        content[at..end].copy_from_slice(&bytes[from..to]);
                    }
                    from = to;
                }
            }
        }
    }
}

impl Disk for MemDisk {
    type File = MemFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state.lock().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<MemFile> {
        let state = self.state.lock();
        let inode = Arc::clone(state.names.get(name).ok_or_else(not_found)?);
        Ok(MemFile {
            state: Arc::clone(&self.state),
            inode,
            epoch: state.epoch,
        })
    }

    fn create(&self, name: &str) -> io::Result<MemFile> {
        let mut state = self.state.lock();
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = SharedInode::default();
        state.names.insert(name.to_owned(), Arc::clone(&inode));
        state
            .unsynced_names
            .push(NameChange::Create(name.to_owned(), Arc::clone(&inode)));
        Ok(MemFile {
            state: Arc::clone(&self.state),
            inode,
            epoch: state.epoch,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let inode = state.names.remove(from).ok_or_else(not_found)?;
        state.names.insert(to.to_owned(), inode);
        state
            .unsynced_names
            .push(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.names.remove(name).ok_or_else(not_found)?;
        state
            .unsynced_names
            .push(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.count_sync()?;
        state.unsynced_names.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.state.lock().names.contains_key(name))
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        let state = self.state.lock();
        let inode = state.names.get(name).ok_or_else(not_found)?;
        let bytes = inode.lock().current.len();
        Ok(bytes as u64)
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }
}

/// An open file of a [`MemDisk`].
#[derive(Debug)]
pub struct MemFile {
    state: Arc<Mutex<State>>,
    inode: SharedInode,
    epoch: u64,
}

impl MemFile {
    /// Runs with the disk and the file locked, in this order, unless the disk has crashed since the file was opened.
    fn with<R>(
        &self,
        run: impl FnOnce(&mut State, &SharedInode) -> io::Result<R>,
    ) -> io::Result<R> {
        let mut state = self.state.lock();
        if state.epoch != self.epoch {
            return Err(io::Error::other(
                "the disk crashed since the file was opened",
            ));
        }
        run(&mut state, &self.inode)
    }
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

impl DiskFile for MemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = position(offset)?;
        self.with(|_, inode| {
            let inode = inode.lock();
            let bytes = from
                .checked_add(buffer.len())
                .and_then(|to| inode.current.get(from..to))
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = position(offset)?;
        let end = offset
            .checked_add(bytes.len())
            .ok_or(io::ErrorKind::FileTooLarge)?;
        self.with(|state, inode| {
            state.writes += 1;
            let length = inode.lock().current.len();
            let fits = state
                .allowed_len(length, end)
                .saturating_sub(offset)
                .min(bytes.len());
            let (written, failure) = match state.failing_write {
                Some((nth, kind)) if nth == state.writes => {
                    state.failing_write = None;
                    (fits.min(bytes.len() / 2), Some(kind))
                }
                _ if fits < bytes.len() => (fits, Some(io::ErrorKind::StorageFull)),
                _ => (bytes.len(), None),
            };
            if written > 0 {
                inode.lock().change(Change::Write {
                    offset,
                    bytes: bytes[..written].to_vec(),
                });
            }
            failure.map_or(Ok(()), |kind| Err(kind.into()))
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|state, inode| {
            let outcome = state.count_sync();
            let mut inode = inode.lock();
            let inode = &mut *inode;
            if outcome.is_err() {
                for unsynced in &mut inode.unsynced {
                    unsynced.given_up = true;
                }
                return outcome;
            }
            for Unsynced { change, given_up } in std::mem::take(&mut inode.unsynced) {
                if given_up {
                    inode.unsynced.push(Unsynced { change, given_up });
                } else {
                    change.apply(&mut inode.durable, |_| true);
                    // What was given up cannot come back over what was written later.
                    inode
                        .unsynced
                        .retain(|earlier| !earlier.change.overlaps(&change));
                }
            }
            Ok(())
        })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let bytes = position(bytes)?;
        self.with(|state, inode| {
            let length = inode.lock().current.len();
            if state.allowed_len(length, bytes) < bytes {
                return Err(io::ErrorKind::StorageFull.into());
            }
            inode.lock().change(Change::SetLen(bytes));
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|_, inode| Ok(inode.lock().current.len() as u64))
    }
}
