//! Making a store's contents out of a stream, beside the present ones.

use super::{SnapshotDecoder, SnapshotError, SnapshotInfo, SnapshotItem};
use crate::{
    backend::{
        IncomingGeneration, IncomingStore, OpenError, PersistError, ReplaceError, Store,
        StoreOptions,
    },
    types::{Change, LogPosition},
};
use std::path::Path;

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
    /// It could not be put in place.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
}

/// Takes a stream piece by piece, into a place beside the present contents of a store ([`Store::incoming`]). Dropped before
/// [`Installer::finish`], it removes what it took.
#[derive(Debug)]
pub struct Installer {
    generation: IncomingGeneration,
    decoder: SnapshotDecoder,
    items: Vec<SnapshotItem>,
    expected_cluster: Option<u64>,
}

impl Installer {
    pub(crate) fn begin(
        generation: IncomingGeneration,
        expected_cluster: Option<u64>,
    ) -> Installer {
        Installer {
            generation,
            decoder: SnapshotDecoder::new(),
            items: Vec::new(),
            expected_cluster,
        }
    }

    /// What is known of the snapshot: `None` until its head was read.
    pub fn info(&self) -> Option<&SnapshotInfo> {
        self.decoder.info()
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
        let store = &self.generation.store;
        // The position comes with the last batch: a half-filled store is at 0.
        store.stage(LogPosition::default(), changes.collect());
        if store.staged_bytes() > PERSIST_ABOVE_BYTES {
            store.persist()?;
        }
        Ok(())
    }

    /// Ends the stream: what it held is complete and synced, for [`Store::install`].
    ///
    /// # Errors
    /// [`InstallError`] if the stream was not complete or could not be written.
    pub fn finish(self) -> Result<IncomingStore, InstallError> {
        let info = self.decoder.finish()?;
        Ok(self.generation.finish(info)?)
    }
}

/// Installs a whole stream in the store in `target`, which is made if it is missing, and which nobody has open.
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
    let (store, _) = Store::open(target, options.clone())?;
    let mut installer = store.incoming(expected_cluster)?;
    for chunk in chunks {
        let chunk = chunk.map_err(|e| InstallError::Source(e.into()))?;
        installer.push(chunk.as_ref())?;
    }
    let incoming = installer.finish()?;
    let info = incoming.info.clone();
    store.install(incoming)?;
    // Removes what was replaced.
    store.persist()?;
    Ok(info)
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
