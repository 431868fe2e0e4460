//! Takes connections off the listeners and deals them to the workers, on a thread of its own.
//!
//! One thread that deals is fairer than SO_REUSEPORT, whose hashing left one of two runtimes idle (DESIGN §11.1).

use super::bind::{Bound, Listener, SocketFile};
use super::permit::{Connections, Permit};
use super::stream::Socket;
use super::throttle::Throttle;
use crate::metrics::Metrics;
use futures::future::join_all;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Pause after an error that will not go away by itself: no file descriptors, no memory. Long enough not to spin, short enough not
/// to be felt when it has passed.
const BACK_OFF: Duration = Duration::from_millis(100);

/// An accepted connection on its way to a worker.
pub(crate) struct Incoming {
    pub(crate) stream: Socket,
    /// Absent on a unix socket.
    pub(crate) peer: Option<SocketAddr>,
    /// The position of its listener in what the acceptor was given.
    pub(crate) listener: usize,
    /// To be kept as long as the connection lives.
    pub(crate) permit: Permit,
}

/// The acceptor's bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AcceptorOptions {
    pub(crate) workers: usize,
    pub(crate) max_connections: usize,
    /// Connections from one address (one /64 of IPv6), if they are to be bounded.
    pub(crate) max_per_source: Option<usize>,
}

/// The thread that accepts. Dropping it stops it, closes the listeners and removes their unix sockets.
pub(crate) struct Acceptor {
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    /// Begins to accept. `deal` gets each connection with the number of the worker that was chosen for it; it must not block.
    ///
    /// # Errors
    ///
    /// The thread or its event loop cannot be made.
    pub(crate) fn start(
        listeners: Vec<Bound>,
        options: AcceptorOptions,
        metrics: Arc<Metrics>,
        deal: impl Fn(usize, Incoming) + Send + 'static,
    ) -> io::Result<Acceptor> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let sockets: Vec<_> = {
            // Sockets are registered with the event loop of the runtime in whose context they are made.
            let _context = runtime.enter();
            listeners
                .into_iter()
                .enumerate()
                .flat_map(|(index, bound)| {
                    bound
                        .listeners
                        .into_iter()
                        .map(move |listener| Door::new(index, listener))
                })
                .collect::<io::Result<_>>()?
        };
        let desk = Desk {
            connections: Connections::new(
                options.workers,
                options.max_connections,
                options.max_per_source,
                metrics.clone(),
            ),
            metrics,
            refusals: Throttle::new(1),
            failures: Throttle::new(1),
            deal,
        };
        let thread = std::thread::Builder::new()
            .name("hf-accept".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = stopped.notified() => {}
                        _ = join_all(sockets.iter().map(|door| desk.serve(door))) => {}
                    }
                });
                drop(sockets);
            })?;
        Ok(Acceptor {
            stop,
            thread: Some(thread),
        })
    }

    /// Accepts no more and waits until the listeners are closed. Connections that were dealt live on.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the accepting thread panicked");
        }
    }
}

/// A listening socket in the event loop.
struct Door {
    index: usize,
    socket: DoorSocket,
}

enum DoorSocket {
    Tcp(tokio::net::TcpListener),
    Unix(
        tokio::net::UnixListener,
        #[expect(dead_code, reason = "removes the socket's file when dropped")] SocketFile,
    ),
}

impl Door {
    fn new(index: usize, listener: Listener) -> io::Result<Door> {
        let socket = match listener {
            Listener::Tcp(listener) => {
                DoorSocket::Tcp(tokio::net::TcpListener::from_std(listener)?)
            }
            Listener::Unix(listener, file) => {
                DoorSocket::Unix(tokio::net::UnixListener::from_std(listener)?, file)
            }
        };
        Ok(Door { index, socket })
    }

    /// The next connection, taken off this event loop, so that its worker can put it on its own.
    async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match &self.socket {
            DoorSocket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Socket::Tcp(stream.into_std()?), Some(peer)))
            }
            DoorSocket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream.into_std()?), None))
            }
        }
    }
}

/// Where connections are counted and dealt.
struct Desk<F> {
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    refusals: Throttle,
    failures: Throttle,
    deal: F,
}

impl<F: Fn(usize, Incoming)> Desk<F> {
    /// Accepts at one door for ever.
    async fn serve(&self, door: &Door) {
        loop {
            match door.accept().await {
                Ok((stream, peer)) => self.take(door.index, stream, peer),
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    if let Some(held_back) = self.failures.pass(Instant::now()) {
                        tracing::error!(%error, held_back, "cannot accept connections");
                    }
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    fn take(&self, listener: usize, stream: Socket, peer: Option<SocketAddr>) {
        match self.connections.admit(peer.map(|peer| peer.ip())) {
            Ok(permit) => {
                let incoming = Incoming {
                    stream,
                    peer,
                    listener,
                    permit,
                };
                (self.deal)(incoming.permit.worker(), incoming);
            }
            Err(reason) => {
                self.metrics.connection_refused(reason);
                drop(stream);
                if let Some(held_back) = self.refusals.pass(Instant::now()) {
                    tracing::warn!(
                        "remote-addr" = peer.map(tracing::field::display),
                        reason,
                        held_back,
                        "refused connection"
                    );
                }
            }
        }
    }
}

/// Errors that Linux reports for a connection that was gone before it was accepted (accept(2)): the next one may be fine.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionAborted
            | K::ConnectionReset
            | K::ConnectionRefused
            | K::Interrupted
            | K::WouldBlock
            | K::NotConnected
            | K::InvalidInput
            | K::NetworkDown
            | K::NetworkUnreachable
            | K::HostUnreachable
            | K::TimedOut
            | K::BrokenPipe
    )
}
