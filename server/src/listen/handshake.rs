//! From an accepted socket to a connection: the TLS handshake, or the first byte of a plaintext client.
//!
//! A client that sends nothing must cost next to nothing and hold up nobody (CVE-2026-73500): a handshake has a deadline, there is
//! a most of them at one time, and beyond it the oldest gives way. A good client needs a few milliseconds, so the oldest is never
//! a good one unless strangers arrive faster than the whole allowance within these milliseconds.

use super::acceptor::Incoming;
use super::permit::Permit;
use super::stream::{Socket, Stream};
use super::throttle::Throttle;
use crate::metrics::Metrics;
use holdfast_certs::{HandshakeError, PeerIdentity, ServerTls, accept};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Lines about failed handshakes per second.
const LINES_PER_SECOND: u32 = 10;

/// Handshakes in progress, of all workers. Clones are the same.
#[derive(Clone)]
pub(crate) struct PendingHandshakes {
    shared: Arc<Shared>,
}

struct Shared {
    most: usize,
    pending: Mutex<Pending>,
    lines: Throttle,
}

#[derive(Default)]
struct Pending {
    next: u64,
    /// By age, the oldest first. Each can be told to give way.
    by_age: BTreeMap<u64, oneshot::Sender<()>>,
}

impl PendingHandshakes {
    /// At most `most` at one time, and at least one.
    pub(crate) fn new(most: usize) -> PendingHandshakes {
        PendingHandshakes {
            shared: Arc::new(Shared {
                most: most.max(1),
                pending: Mutex::default(),
                lines: Throttle::new(LINES_PER_SECOND),
            }),
        }
    }

    fn begin<'a>(&'a self, metrics: &'a Metrics) -> (Turn<'a>, oneshot::Receiver<()>) {
        let (give_way, told) = oneshot::channel();
        let mut pending = self.shared.pending.lock();
        let id = pending.next;
        pending.next += 1;
        let oldest = if pending.by_age.len() >= self.shared.most {
            pending.by_age.pop_first()
        } else {
            None
        };
        pending.by_age.insert(id, give_way);
        drop(pending);
        if let Some((_, oldest)) = oldest {
            // If it has ended in the meantime, so much the better.
            let _ = oldest.send(());
        }
        metrics.handshake_began();
        (
            Turn {
                shared: &self.shared,
                metrics,
                id,
            },
            told,
        )
    }
}

/// A handshake's place among those in progress.
struct Turn<'a> {
    shared: &'a Shared,
    metrics: &'a Metrics,
    id: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.shared.pending.lock().by_age.remove(&self.id);
        self.metrics.handshake_ended();
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Rejection {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("client did not finish its handshake in time")]
    TooSlow,
    #[error("client gave way to newer ones: too many handshakes are in progress")]
    GaveWay,
    #[error("client speaks TLS on a plaintext listener (https:// instead of http://?)")]
    UnexpectedTls,
    #[error("client closed the connection without a request")]
    Silent,
}

impl Rejection {
    /// A short fixed word for the metric.
    fn label(&self) -> &'static str {
        match self {
            Self::Handshake(error) => error.label(),
            Self::Io(_) => "io",
            Self::TooSlow => "timeout",
            Self::GaveWay => "gave_way",
            Self::UnexpectedTls => "unexpected_tls",
            Self::Silent => "closed",
        }
    }
}

/// Makes a connection of an accepted socket on the current runtime: with `tls` by a handshake, which yields the client's identity
/// if certificates are asked for; without, as soon as the client speaks. `None` if that fails or takes longer than `deadline`, in
/// which case the socket is closed, counted and logged.
pub(crate) async fn establish(
    incoming: Incoming,
    tls: Option<&ServerTls>,
    deadline: Duration,
    pending: &PendingHandshakes,
    metrics: &Metrics,
) -> Option<(Stream, Option<PeerIdentity>, Permit)> {
    let Incoming {
        stream,
        peer,
        permit,
        ..
    } = incoming;
    let (_turn, told) = pending.begin(metrics);
    let result = tokio::select! {
        // On the heap: handshakes are few, connections many, and this future lives in the task of each.
        result = Box::pin(connect(stream, tls)) => result,
        () = tokio::time::sleep(deadline) => Err(Rejection::TooSlow),
        _ = told => Err(Rejection::GaveWay),
    };
    match result {
        Ok((stream, identity)) => Some((stream, identity, permit)),
        Err(rejection) => {
            report(&rejection, peer, &pending.shared.lines, metrics);
            None
        }
    }
}

async fn connect(
    socket: Socket,
    tls: Option<&ServerTls>,
) -> Result<(Stream, Option<PeerIdentity>), Rejection> {
    Ok(match (socket, tls) {
        (Socket::Tcp(stream), Some(tls)) => {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let (stream, identity) = accept(tls, stream).await?;
            (Stream::Tls(Box::new(stream)), identity)
        }
        (Socket::Tcp(stream), None) => {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            first_byte(&stream).await?;
            (Stream::Plain(stream), None)
        }
        (Socket::Unix(stream), Some(tls)) => {
            let stream = tokio::net::UnixStream::from_std(stream)?;
            let (stream, identity) = accept(tls, stream).await?;
            (Stream::UnixTls(Box::new(stream)), identity)
        }
        (Socket::Unix(stream), None) => {
            let stream = tokio::net::UnixStream::from_std(stream)?;
            stream.readable().await?;
            (Stream::Unix(stream), None)
        }
    })
}

/// Waits until a plaintext client speaks, which HTTP clients of all versions do first, and leaves what it says unread.
async fn first_byte(stream: &tokio::net::TcpStream) -> Result<(), Rejection> {
    /// The type of the first TLS record, ClientHello's (RFC 8446, section 5.1).
    const HANDSHAKE: u8 = 22;
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(Rejection::Silent),
        _ if first[0] == HANDSHAKE => Err(Rejection::UnexpectedTls),
        _ => Ok(()),
    }
}

fn report(rejection: &Rejection, peer: Option<SocketAddr>, lines: &Throttle, metrics: &Metrics) {
    metrics.handshake_failed(rejection.label());
    // Load balancers and port scans connect and go; etcd would fill its log with them.
    let harmless = matches!(
        rejection,
        Rejection::Silent | Rejection::Handshake(HandshakeError::Closed)
    );
    if harmless {
        tracing::debug!(
            "remote-addr" = peer.map(tracing::field::display),
            error = %rejection,
            "rejected connection on client endpoint"
        );
    } else if let Some(held_back) = lines.pass(Instant::now()) {
        tracing::warn!(
            "remote-addr" = peer.map(tracing::field::display),
            error = %rejection,
            held_back,
            "rejected connection on client endpoint"
        );
    }
}
