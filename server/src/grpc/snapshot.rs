//! The Snapshot stream: our own snapshot format (`docs/ARCHITECTURE.md`, "File formats"), framed as etcd's clients check it: the
//! body's length is a multiple of 512, and 32 bytes of SHA-256 over it follow.
//!
//! The snapshot is written to an unlinked file first: the length is then known, and a slow client holds no view of the store.

use super::{Connection, StreamGuard};
use crate::version;
use bytes::Bytes;
use holdfast_proto::etcdserverpb as pb;
use holdfast_storage::snapshot::{SnapshotReader, SnapshotScope};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Status};

/// Bytes in one message (etcd's).
const CHUNK_BYTES: usize = 32 << 10;
/// The unit that clients expect the body to be a multiple of.
const SECTOR_BYTES: u64 = 512;
/// Messages that wait for the client.
const QUEUED_CHUNKS: usize = 8;

pub(super) fn stream(
    connection: Arc<Connection>,
    guard: StreamGuard,
) -> Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>> {
    let (sender, receiver) = mpsc::channel(QUEUED_CHUNKS);
    tokio::task::spawn_blocking(move || {
        let mut guard = guard;
        guard.code = Code::Ok;
        if let Err(error) = send(&connection, &sender) {
            guard.code = Code::Internal;
            tracing::error!(%error, "cannot send a snapshot");
            let status = Status::internal(format!("etcdserver: snapshot: {error}"));
            // A client that is gone needs no error.
            let _ = sender.blocking_send(Err(status));
        }
    });
    Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver).map(|item| item))
}

fn send(
    connection: &Connection,
    sender: &mpsc::Sender<Result<pb::SnapshotResponse, Status>>,
) -> io::Result<()> {
    let begun = Instant::now();
    let node = connection.node();
    let reader = SnapshotReader::new(
        node.tenants.store().view(),
        node.identity.cluster,
        &SnapshotScope::All,
    )
    .map_err(io::Error::other)?;
    let index = reader.position().index;
    let mut file = unlinked_file(&node.snap_dir)?;
    let mut length = 0u64;
    for chunk in reader {
        let chunk = chunk.map_err(io::Error::other)?;
        file.write_all(&chunk)?;
        length += chunk.len() as u64;
    }
    let padding = length.next_multiple_of(SECTOR_BYTES) - length;
    file.write_all(&vec![0; padding as usize])?;
    length += padding;
    file.rewind()?;
    let mut hash = Sha256::new();
    let mut remaining = length;
    while remaining > 0 {
        let mut chunk = vec![0; CHUNK_BYTES.min(remaining as usize)];
        file.read_exact(&mut chunk)?;
        hash.update(&chunk);
        remaining -= chunk.len() as u64;
        let message = pb::SnapshotResponse {
            header: None,
            remaining_bytes: remaining,
            blob: Bytes::from(chunk),
            version: version::STORAGE.to_owned(),
        };
        if sender.blocking_send(Ok(message)).is_err() {
            return Ok(());
        }
    }
    let last = pb::SnapshotResponse {
        header: None,
        remaining_bytes: 0,
        blob: Bytes::copy_from_slice(&hash.finalize()),
        version: version::STORAGE.to_owned(),
    };
    if sender.blocking_send(Ok(last)).is_ok() {
        node.metrics.snapshot_sent(begun.elapsed());
        tracing::info!(index, bytes = length, "sent database snapshot");
    }
    Ok(())
}

fn unlinked_file(dir: &Path) -> io::Result<File> {
    tempfile::tempfile_in(dir)
}
