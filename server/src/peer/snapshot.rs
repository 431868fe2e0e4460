//! Snapshots, sent and received: each on a connection of its own, read and written on threads that may block.

use super::bounds::{
    HELLO_BYTES_MAX, HELLO_DEADLINE, PIECE_BYTES_MAX, PIECES_AHEAD, SNAPSHOT_RESULT, SNAPSHOT_STALL,
};
use super::dial::{CallError, Connection};
use super::frames::{Body, FrameError, Frames, answer, frame};
use super::handler::{PeerHandler, snapshot_message};
use super::link::Link;
use super::net::Shared;
use super::serve::{Served, first};
use bytes::Bytes;
use holdfast_proto::peer as pb;
use http::Response;
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tonic::Status;

/// The bytes of a snapshot in order. Read on a thread that may block, as fast as the receiver takes them.
pub(crate) type SnapshotPieces = Box<dyn Iterator<Item = io::Result<Bytes>> + Send>;

/// How often a transfer is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Sends a snapshot and tells the handler what came of it.
pub(super) async fn send(
    shared: Arc<Shared>,
    handler: Arc<dyn PeerHandler>,
    link: Option<Arc<Link>>,
    to: u64,
    message: Bytes,
    pieces: SnapshotPieces,
) {
    let Some(link) = link else {
        return handler.snapshot_sent(to, false);
    };
    let Some(_turn) = Turn::take(&link) else {
        tracing::warn!("remote-peer-id" = %format_args!("{to:x}"), "a snapshot is being sent to this member already");
        return handler.snapshot_sent(to, false);
    };
    let Ok(_permit) = shared.sending.acquire().await else {
        return;
    };
    let begun = Instant::now();
    shared.metrics.snapshot_send_began(to);
    let result = transfer(&shared, &link, message, pieces).await;
    let took = begun.elapsed();
    shared.metrics.snapshot_send_ended(to, took, result.is_ok());
    match &result {
        Ok(bytes) => tracing::info!(
            "remote-peer-id" = %format_args!("{to:x}"),
            bytes,
            took = ?took,
            "sent database snapshot"
        ),
        Err(error) => tracing::warn!(
            "remote-peer-id" = %format_args!("{to:x}"),
            %error,
            "cannot send a snapshot to a member"
        ),
    }
    handler.snapshot_sent(to, result.is_ok());
}

/// One snapshot to a member at a time.
struct Turn<'a>(&'a AtomicBool);

impl Turn<'_> {
    fn take(link: &Link) -> Option<Turn<'_>> {
        let taken = link.snapshotting.swap(true, Ordering::AcqRel);
        (!taken).then_some(Turn(&link.snapshotting))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

async fn transfer(
    shared: &Shared,
    link: &Link,
    message: Bytes,
    pieces: SnapshotPieces,
) -> Result<u64, CallError> {
    snapshot_message(&message).map_err(|error| CallError::Malformed(error.to_string()))?;
    let mut connection = connect(shared, link).await?;
    let (sender, waiting) = mpsc::channel(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        for piece in pieces {
            let failed = piece.is_err();
            // Nobody waits for more: the transfer has ended.
            if sender.blocking_send(Some(piece)).is_err() || failed {
                return;
            }
        }
        let _ = sender.blocking_send(None);
    });
    let first = frame(&pb::SnapshotPiece {
        hello: Some(shared.me.hello(link.id)),
        message,
        chunk: Bytes::new(),
        last: false,
    });
    let progress = Arc::new(Progress::default());
    let body = Pieces {
        first: Some(first),
        waiting,
        rest: Bytes::new(),
        is_over: false,
        progress: progress.clone(),
    };
    let receiving = async {
        let body = body.boxed_unsync();
        let mut result = connection
            .requests
            .begin("InstallSnapshot", body, HELLO_BYTES_MAX)
            .await?;
        match result.next().await? {
            Some(result) => {
                pb::SnapshotResult::decode(result).map_err(FrameError::from)?;
                Ok(())
            }
            None => Err(CallError::of(result.status())),
        }
    };
    tokio::select! {
        result = receiving => result?,
        () = stalled(&progress) => return Err(CallError::Deadline),
        reason = connection.holder.clone().ended() => {
            return Err(CallError::Unreachable(format!("certificate: {reason}")));
        }
    }
    // An answer before the end would be one to something else.
    if !progress.is_over.load(Ordering::Acquire) {
        return Err(CallError::Malformed("an answer before the end".to_owned()));
    }
    Ok(progress.bytes.load(Ordering::Relaxed))
}

/// A connection of its own: a snapshot must not stand in the way of messages.
async fn connect(shared: &Shared, link: &Link) -> Result<Connection, CallError> {
    let mut failure = CallError::Unreachable("it has no URL".to_owned());
    for url in link.urls() {
        match Connection::open(&shared.security, &url, shared.keep_alive).await {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// How far a transfer is.
#[derive(Default)]
struct Progress {
    bytes: AtomicU64,
    is_over: AtomicBool,
}

/// Waits until nothing has moved for too long.
async fn stalled(progress: &Progress) {
    let mut last = (0, false);
    let mut since = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let now = (
            progress.bytes.load(Ordering::Relaxed),
            progress.is_over.load(Ordering::Acquire),
        );
        if now != last {
            last = now;
            since = Instant::now();
        }
        let most = if last.1 {
            SNAPSHOT_RESULT
        } else {
            SNAPSHOT_STALL
        };
        if since.elapsed() > most {
            return;
        }
    }
}

/// The body of a snapshot's stream.
struct Pieces {
    first: Option<Bytes>,
    /// `None` is the end; a channel that closes without it belongs to a reader that failed.
    waiting: mpsc::Receiver<Option<io::Result<Bytes>>>,
    /// What is left of a piece that was too long for one.
    rest: Bytes,
    is_over: bool,
    progress: Arc<Progress>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if this.is_over {
            return Poll::Ready(None);
        }
        while this.rest.is_empty() {
            match ready!(this.waiting.poll_recv(context)) {
                Some(Some(Ok(piece))) => this.rest = piece,
                Some(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Some(None) => {
                    this.is_over = true;
                    this.progress.is_over.store(true, Ordering::Release);
                    let last = pb::SnapshotPiece {
                        last: true,
                        ..pb::SnapshotPiece::default()
                    };
                    return Poll::Ready(Some(Ok(Frame::data(frame(&last)))));
                }
                None => {
                    let error = io::Error::other("reading the snapshot was broken off");
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        let chunk = this.rest.split_to(this.rest.len().min(PIECE_BYTES_MAX));
        let bytes = chunk.len() as u64;
        this.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        let piece = pb::SnapshotPiece {
            chunk,
            ..pb::SnapshotPiece::default()
        };
        Poll::Ready(Some(Ok(Frame::data(frame(&piece)))))
    }
}

/// Receives a snapshot, one at a time.
pub(super) async fn receive(
    served: &Served,
    mut frames: Frames<Incoming>,
    handler: Arc<dyn PeerHandler>,
) -> Result<Response<Body>, Status> {
    let head = decode(first(&mut frames).await?)?;
    frames.permit(PIECE_BYTES_MAX + HELLO_BYTES_MAX);
    let from = served.introduced(head.hello)?.from;
    snapshot_message(&head.message)?;
    if !head.chunk.is_empty() || head.last {
        return Err(Status::invalid_argument("a piece before the beginning"));
    }
    let shared = &served.shared;
    // One that was broken off may still be ending.
    let turn = shared.receiving.clone().acquire_owned();
    let Ok(Ok(permit)) = tokio::time::timeout(HELLO_DEADLINE, turn).await else {
        return Err(Status::resource_exhausted(
            "another snapshot is being received",
        ));
    };
    let receipt = Receipt {
        shared: shared.clone(),
        from,
        begun: Instant::now(),
        ok: false,
    };
    shared.metrics.snapshot_receive_began(from);
    let (pieces, waiting) = mpsc::channel(PIECES_AHEAD);
    let taking = tokio::task::spawn_blocking(move || {
        // Until the thread is done, no other begins: it may hold files that the next one writes.
        let _permit = permit;
        let mut receipt = receipt;
        let result = take(&*handler, &receipt, head.message, waiting);
        receipt.ok = result.is_ok();
        result
    });
    let read = read(&mut frames, &pieces).await;
    drop(pieces);
    let taken = taking
        .await
        .map_err(|_| Status::internal("taking the snapshot failed"))?;
    // What the thread says of a broken stream is that it is broken; how it broke is known here.
    match (taken, read) {
        (Ok(()), _) => Ok(answer(&pb::SnapshotResult {})),
        (Err(_), Err(Ended::Broken(status))) | (Err(status), _) => {
            // Counted by the receipt. One whose key was stolen sends such as fast as it likes.
            if shared.notices.pass() {
                tracing::warn!("remote-peer-id" = %format_args!("{from:x}"), %status, "did not take a snapshot");
            }
            Err(status)
        }
    }
}

/// Counts a snapshot's receipt, however it ends.
struct Receipt {
    shared: Arc<Shared>,
    from: u64,
    begun: Instant,
    ok: bool,
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let metrics = &self.shared.metrics;
        metrics.snapshot_receive_ended(self.from, self.begun.elapsed(), self.ok);
    }
}

fn decode(bytes: Bytes) -> Result<pb::SnapshotPiece, Status> {
    pb::SnapshotPiece::decode(bytes).map_err(|error| FrameError::from(error).status())
}

/// Why no more pieces are read.
enum Ended {
    /// The thread that takes them wants no more, and says why.
    Refused,
    Broken(Status),
}

/// Reads pieces to the end; the end is `None` in the channel.
async fn read(
    frames: &mut Frames<Incoming>,
    pieces: &mpsc::Sender<Option<Bytes>>,
) -> Result<(), Ended> {
    let broken = |status| Err(Ended::Broken(status));
    loop {
        let bytes = match tokio::time::timeout(SNAPSHOT_STALL, frames.next()).await {
            Ok(Ok(Some(bytes))) => bytes,
            Ok(Ok(None)) => return broken(Status::aborted("the snapshot ends too early")),
            Ok(Err(error)) => return broken(error.status()),
            Err(_) => return broken(Status::deadline_exceeded("the snapshot has stalled")),
        };
        let piece = decode(bytes).map_err(Ended::Broken)?;
        if piece.hello.is_some() || !piece.message.is_empty() {
            return broken(Status::invalid_argument("a second beginning"));
        }
        if piece.chunk.len() > PIECE_BYTES_MAX || piece.chunk.is_empty() != piece.last {
            return broken(Status::invalid_argument("a piece that is none"));
        }
        let next = (!piece.last).then_some(piece.chunk);
        pieces.send(next).await.map_err(|_| Ended::Refused)?;
        if piece.last {
            return Ok(());
        }
    }
}

/// On a thread that may block: gives the pieces to the node.
fn take(
    handler: &dyn PeerHandler,
    receipt: &Receipt,
    message: Bytes,
    mut pieces: mpsc::Receiver<Option<Bytes>>,
) -> Result<(), Status> {
    let from = receipt.from;
    let mut sink = handler.begin_snapshot(from, message)?;
    if receipt.shared.notices.pass() {
        tracing::info!("remote-peer-id" = %format_args!("{from:x}"), "receiving a snapshot");
    }
    loop {
        match pieces.blocking_recv() {
            Some(Some(piece)) => sink.push(piece)?,
            Some(None) => return sink.finish(),
            None => return Err(Status::aborted("the snapshot was broken off")),
        }
    }
}
