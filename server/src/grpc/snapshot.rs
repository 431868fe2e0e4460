//! The Snapshot stream: our own snapshot format (`docs/ARCHITECTURE.md`, "File formats"), framed as etcd's clients check it: the
//! body's length is a multiple of 512, and 32 bytes of SHA-256 over it follow.
//!
//! The snapshot is written to an unlinked file first: the length is then known, and a slow client holds no view of the store.

use super::{Connection, StreamGuard, errors, off_runtime};
use crate::version;
use bytes::Bytes;
use holdfast_auth::{Caller, Denied};
use holdfast_proto::etcdserverpb as pb;
use holdfast_storage::snapshot::{SnapshotReader, SnapshotScope};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Status};

/// Bytes in one message (etcd's).
const CHUNK_BYTES: usize = 32 << 10;
/// The unit that clients expect the body to be a multiple of.
const SECTOR_BYTES: u64 = 512;
/// Messages that are read from the file at a time and wait for the client.
const QUEUED_CHUNKS: usize = 8;
/// A client that takes no message for so long is given up: its file takes space, and others wait for their turn.
const PATIENCE: Duration = Duration::from_secs(30);

type Item = Result<pb::SnapshotResponse, Status>;

/// Streams a snapshot. Threads for long work are taken while there is something to do, never while the client reads.
pub(super) fn stream(
    connection: Arc<Connection>,
    caller: Caller,
    guard: StreamGuard,
) -> Pin<Box<dyn Stream<Item = Item> + Send>> {
    let (sender, receiver) = mpsc::channel(QUEUED_CHUNKS);
    let (failed, failure) = oneshot::channel();
    tokio::spawn(async move {
        // The whole guard: a closure takes the fields that it names.
        let mut guard = guard;
        match send(&connection, &caller, &sender).await {
            Ok(()) => guard.code = Code::Ok,
            Err(Unsent::Gone) => {}
            Err(Unsent::Failed(status)) => {
                guard.code = status.code();
                tracing::error!(error = status.message(), "cannot send a snapshot");
                // A client that is gone needs no error.
                let _ = failed.send(status);
            }
        }
    });
    // An error comes after the messages that wait: they may fill the queue.
    let end = futures::stream::once(failure).filter_map(|failure| failure.ok().map(Err));
    Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver).chain(end))
}

/// Why a snapshot was not sent whole.
enum Unsent {
    /// The client went.
    Gone,
    Failed(Status),
}

impl From<Status> for Unsent {
    fn from(status: Status) -> Unsent {
        Unsent::Failed(status)
    }
}

impl From<io::Error> for Unsent {
    fn from(error: io::Error) -> Unsent {
        Unsent::Failed(Status::internal(format!("etcdserver: snapshot: {error}")))
    }
}

/// Whether who began to read everything still may.
///
/// # Errors
/// The refusal, as the client is told it.
pub(super) fn check(connection: &Connection, caller: &Caller) -> Result<(), Status> {
    let auth = connection.tenant.auth();
    match auth.stream_access(caller) {
        Ok(access) if access.is_admin() => Ok(()),
        Ok(_) => Err(errors::denied(Denied::NotPermitted)),
        Err(denied) => Err(errors::denied(denied)),
    }
}

async fn send(
    connection: &Arc<Connection>,
    caller: &Caller,
    sender: &mpsc::Sender<Item>,
) -> Result<(), Unsent> {
    let begun = Instant::now();
    let node = connection.node();
    let _turn = tokio::select! {
        turn = node.snapshots.acquire() => turn,
        () = sender.closed() => return Err(Unsent::Gone),
    };
    let writer = connection.clone();
    let mut body = off_runtime(move || Body::write(&writer)).await??;
    let (index, length) = (body.index, body.remaining);
    loop {
        let (read, messages) =
            off_runtime(move || body.read().map(|messages| (body, messages))).await??;
        body = read;
        if messages.is_empty() {
            break;
        }
        check(connection, caller)?;
        for message in messages {
            match tokio::time::timeout(PATIENCE, sender.send(Ok(message))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Unsent::Gone),
                Err(_) => {
                    let text = "etcdserver: snapshot: the client does not read";
                    return Err(Status::resource_exhausted(text).into());
                }
            }
        }
    }
    node.metrics.snapshot_sent(begun.elapsed());
    tracing::info!(index, bytes = length, "sent database snapshot");
    Ok(())
}

/// A snapshot in a file.
struct Body {
    file: File,
    index: u64,
    remaining: u64,
    /// `None` once it was sent.
    hash: Option<Sha256>,
}

impl Body {
    fn write(connection: &Connection) -> io::Result<Body> {
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
        file.rewind()?;
        Ok(Body {
            file,
            index,
            remaining: length + padding,
            hash: Some(Sha256::new()),
        })
    }

    /// The next messages; none after the last.
    fn read(&mut self) -> io::Result<Vec<pb::SnapshotResponse>> {
        let mut messages = Vec::new();
        let message = |remaining_bytes, blob| pb::SnapshotResponse {
            header: None,
            remaining_bytes,
            blob,
            version: version::STORAGE.to_owned(),
        };
        while messages.len() < QUEUED_CHUNKS
            && self.remaining > 0
            && let Some(hash) = &mut self.hash
        {
            let mut chunk = vec![0; CHUNK_BYTES.min(self.remaining as usize)];
            self.file.read_exact(&mut chunk)?;
            hash.update(&chunk);
            self.remaining -= chunk.len() as u64;
            messages.push(message(self.remaining, Bytes::from(chunk)));
        }
        if self.remaining == 0
            && let Some(hash) = self.hash.take()
        {
            messages.push(message(0, Bytes::copy_from_slice(&hash.finalize())));
        }
        Ok(messages)
    }
}

fn unlinked_file(dir: &Path) -> io::Result<File> {
    tempfile::tempfile_in(dir)
}
