//! Making a store out of a stream, beside the present one, and putting it in its place at once.

use super::{SnapshotDecoder, SnapshotError, SnapshotInfo, SnapshotItem};
use crate::{
    backend::{OpenError, PersistError, Store, StoreOptions},
    types::{Change, LogPosition},
};
use rustix::fs::{CWD, RenameFlags};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// Staged bytes after which rows go to disk.
const PERSIST_ABOVE_BYTES: usize = 8 << 20;

/// Why a snapshot was not installed. The present store is as it was.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The stream is no whole snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It is of another cluster.
    #[error("snapshot is of cluster {found:016x}, not of {expected:016x}")]
    OtherCluster {
        /// The cluster it is of.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// The new store could not be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new store could not be written.
    #[error(transparent)]
    Persist(#[from] PersistError),
    /// The stream's source failed.
    #[error("snapshot could not be read: {0}")]
    Source(Box<dyn std::error::Error + Send + Sync>),
    /// The directories could not be swapped.
    #[error("{}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

/// Takes a stream piece by piece. Dropped before [`Installer::finish`], it leaves the present store as it was (and a directory
/// `<target>.incoming` that the next one clears).
#[derive(Debug)]
pub struct Installer {
    target: PathBuf,
    incoming: PathBuf,
    store: Store,
    decoder: SnapshotDecoder,
    items: Vec<SnapshotItem>,
    expected_cluster: Option<u64>,
}

impl Installer {
    /// Begins an installation into `target`, the directory of a [`Store`] that exists or not.
    ///
    /// # Errors
    /// [`InstallError`] if the new store cannot be made.
    pub fn begin(
        target: &Path,
        expected_cluster: Option<u64>,
        options: &StoreOptions,
    ) -> Result<Installer, InstallError> {
        let incoming = beside(target, ".incoming");
        remove_dir(&incoming)?;
        let options = StoreOptions {
            // Nothing reads the rows while they arrive.
            cache_bytes: 0,
            ..options.clone()
        };
        let (store, _) = Store::open(&incoming, options)?;
        Ok(Installer {
            target: target.to_owned(),
            incoming,
            store,
            decoder: SnapshotDecoder::new(),
            items: Vec::new(),
            expected_cluster,
        })
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`InstallError`]; the installation cannot go on then.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), InstallError> {
        self.decoder.push(piece, &mut self.items)?;
        if let (Some(info), Some(expected)) = (self.decoder.info(), self.expected_cluster)
            && info.cluster_id != expected
        {
            return Err(InstallError::OtherCluster {
                found: info.cluster_id,
                expected,
            });
        }
        let changes = self.items.drain(..).map(|item| match item {
            SnapshotItem::Meta(key, value) => Change::PutMeta(key, value),
            SnapshotItem::Row(tenant, row) => Change::PutRow(tenant, row),
        });
        // The position comes with the last batch: a half-filled store is at 0.
        self.store.stage(LogPosition::default(), changes.collect());
        if self.store.staged_bytes() > PERSIST_ABOVE_BYTES {
            self.store.persist()?;
        }
        Ok(())
    }

    /// Ends the installation: the new store is complete, synced and in its place. No [`Store`] may be open on the target.
    ///
    /// # Errors
    /// [`InstallError`] if the stream was not complete or a file operation failed.
    pub fn finish(self) -> Result<SnapshotInfo, InstallError> {
        let info = self.decoder.finish()?;
        self.store.stage(info.position, Vec::new());
        self.store.persist()?;
        self.store.checkpoint()?;
        drop(self.store);
        swap(&self.incoming, &self.target).map_err(|source| InstallError::Io {
            path: self.target.clone(),
            source,
        })?;
        Ok(info)
    }
}

/// Installs a whole stream; see [`Installer`].
///
/// # Errors
/// See [`InstallError`].
pub fn install<C, E>(
    chunks: impl IntoIterator<Item = Result<C, E>>,
    target: &Path,
    expected_cluster: Option<u64>,
    options: &StoreOptions,
) -> Result<SnapshotInfo, InstallError>
where
    C: AsRef<[u8]>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut installer = Installer::begin(target, expected_cluster, options)?;
    for chunk in chunks {
        let chunk = chunk.map_err(|e| InstallError::Source(e.into()))?;
        installer.push(chunk.as_ref())?;
    }
    installer.finish()
}

/// Reads a whole stream and checks it, without keeping anything.
///
/// # Errors
/// [`InstallError::Snapshot`] and [`InstallError::Source`].
pub fn verify<C, E>(
    chunks: impl IntoIterator<Item = Result<C, E>>,
) -> Result<SnapshotInfo, InstallError>
where
    C: AsRef<[u8]>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut decoder = SnapshotDecoder::new();
    let mut items = Vec::new();
    for chunk in chunks {
        let chunk = chunk.map_err(|e| InstallError::Source(e.into()))?;
        decoder.push(chunk.as_ref(), &mut items)?;
        items.clear();
    }
    Ok(decoder.finish()?)
}

/// Where a file system cannot swap two directories at once, a crash between the two renames leaves none in place: the old one,
/// kept as `<dir>.replaced`, is put back.
pub(crate) fn undo_half_swap(dir: &Path) -> io::Result<()> {
    let replaced = beside(dir, ".replaced");
    if !dir.try_exists()? && replaced.try_exists()? {
        std::fs::rename(&replaced, dir)?;
        sync_parent(dir)?;
    }
    Ok(())
}

fn swap(incoming: &Path, target: &Path) -> io::Result<()> {
    let replaced = beside(target, ".replaced");
    if replaced.try_exists()? {
        std::fs::remove_dir_all(&replaced)?;
    }
    if !target.try_exists()? {
        std::fs::rename(incoming, target)?;
        return sync_parent(target);
    }
    match rustix::fs::renameat_with(CWD, incoming, CWD, target, RenameFlags::EXCHANGE) {
        Ok(()) => {
            sync_parent(target)?;
            // What was the target is now under the other name.
            std::fs::remove_dir_all(incoming)
        }
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            std::fs::rename(target, &replaced)?;
            std::fs::rename(incoming, target)?;
            sync_parent(target)?;
            std::fs::remove_dir_all(&replaced)
        }
        Err(e) => Err(e.into()),
    }
}

fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove_dir(path: &Path) -> Result<(), InstallError> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(InstallError::Io {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
