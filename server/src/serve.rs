//! Workers: one thread and one runtime each, which own their connections from the handshake to the end (DESIGN §11.1).

use crate::grpc::TENANT;
use crate::grpc::{Connection, Services};
use crate::held::{self, Held};
use crate::identity::ConnectionIdentity;
use crate::listen::{self, Incoming, PendingHandshakes, Stream};
use crate::metered::Metered;
use crate::node::{Node, Worker};
use crate::probe::NodeProbe;
use crate::router::{Router, Surfaces};
use crate::tls::ListenerTls;
use crate::upkeep;
use holdfast_certs::PeerIdentity;
use holdfast_config::{Config, Profile};
use holdfast_transport::Coalesce;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;

/// What a listener is, for the connections that come through it.
pub(crate) struct Listener {
    pub(crate) tls: Option<Arc<ListenerTls>>,
    pub(crate) surfaces: Surfaces,
}

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) node: Arc<Node>,
    pub(crate) probe: Arc<NodeProbe>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) handshakes: PendingHandshakes,
}

/// Where new connections are dealt to.
pub(crate) type Dealer = mpsc::UnboundedSender<Incoming>;

/// How long a command may take before its client is told that it timed out: five seconds and two election time-outs
/// (behaviour §3.9).
pub(crate) fn request_limit(config: &Config) -> Duration {
    Duration::from_secs(5) + 2 * config.election_timeout
}

/// Time that connections get to finish when the node stops (behaviour §6.1: a stop ends within 1.5 s).
const DRAIN: Duration = Duration::from_millis(700);

/// Starts a worker thread. It ends when the node shuts down and its connections are done.
pub(crate) fn spawn_worker(
    index: usize,
    shared: Arc<Shared>,
) -> io::Result<(Dealer, JoinHandle<()>)> {
    let (dealer, incoming) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .on_thread_start(upkeep::yield_to_requests)
        .thread_name(format!("hf-blocking-{index}"))
        .build()?;
    let thread = std::thread::Builder::new()
        .name(format!("hf-worker-{index}"))
        .spawn(move || {
            runtime.block_on(work(index, shared, incoming));
            // Long reads that still run must not hold up the stop.
            runtime.shutdown_background();
        })?;
    Ok((dealer, thread))
}

async fn work(index: usize, shared: Arc<Shared>, mut incoming: mpsc::UnboundedReceiver<Incoming>) {
    let node = &shared.node;
    let worker = Arc::new(Worker::new(node.clone(), index));
    tokio::spawn(worker.mailbox.clone().serve(request_limit(&node.config)));
    tokio::spawn(worker.clone().flush_commands());
    if index == 0 {
        tokio::spawn(upkeep::leases(worker.clone()));
        tokio::spawn(upkeep::auto_compaction(worker.clone()));
    }
    let mut shutdown = node.shutdown.subscribe();
    // Every connection holds a clone; when the last is dropped, all are done.
    let (alive, mut all_done) = mpsc::channel::<()>(1);
    loop {
        tokio::select! {
            arrival = incoming.recv() => match arrival {
                Some(arrival) => {
                    tokio::spawn(connection(
                        shared.clone(),
                        worker.clone(),
                        arrival,
                        alive.clone(),
                    ));
                }
                None => break,
            },
            _ = shutdown.wait_for(|stopping| *stopping) => break,
        }
    }
    drop(alive);
    // Whoever does not finish in time is cut off.
    let _ = tokio::time::timeout(DRAIN, all_done.recv()).await;
}

async fn connection(
    shared: Arc<Shared>,
    worker: Arc<Worker>,
    arrival: Incoming,
    _alive: mpsc::Sender<()>,
) {
    let Some(listener) = shared.listeners.get(arrival.listener) else {
        return;
    };
    let peer = arrival.peer;
    let tls = listener.tls.as_ref().map(|listener| &listener.tls);
    let handshaken = listen::establish(
        arrival,
        tls,
        shared.node.config.tls_handshake_timeout,
        &shared.handshakes,
        &shared.node.metrics,
    )
    .await;
    let Some((stream, identity, _permit)) = handshaken else {
        return;
    };
    let identity = identity.map(Arc::new);
    let node = &shared.node;
    let certified = match certified(node, identity.as_deref()) {
        Ok(certified) => certified,
        Err(reason) => {
            node.metrics.connection_refused("identity");
            tracing::warn!(
                "remote-addr" = peer.map(tracing::field::display),
                %reason,
                "rejected connection on client endpoint"
            );
            return;
        }
    };
    let held = Held::new(shared.node.held.clone());
    let connection = Arc::new(Connection {
        tenant: shared.node.default_tenant.clone(),
        worker,
        identity: ConnectionIdentity::new(certified, node.identity.profile == Profile::Etcd),
        plans: Mutex::default(),
        peer,
        held: held.clone(),
    });
    let router = Router {
        services: Services::new(connection),
        probe: shared.probe.clone(),
        surfaces: listener.surfaces,
    };
    let ended = ended(listener.tls.clone(), identity);
    tokio::select! {
        () = serve(&shared.node, stream, router) => {}
        // Nothing of a connection outlives its certificate: it is cut, not drained.
        reason = ended => tracing::info!(%reason, "closing a connection whose certificate is no longer good"),
        () = stalled(&held) => {
            shared.node.metrics.connection_refused("does_not_read");
            tracing::warn!(
                "remote-addr" = peer.map(tracing::field::display),
                "closing a connection whose client does not read its answers"
            );
        }
    }
}

/// The user that a connection's certificate names.
///
/// # Errors
/// What is wrong with the identity: who is refused by it is nobody.
fn certified(node: &Node, identity: Option<&PeerIdentity>) -> Result<Option<Arc<str>>, String> {
    // As in etcd, a certificate is a user only where the flag says so; else it opens the door, and a token says who comes.
    let Some(identity) = identity.filter(|_| node.config.client_tls.client_cert_auth) else {
        return Ok(None);
    };
    let trust_domain = node.config.client_cert_uri_trust_domain.as_deref();
    let named = identity
        .named_user(trust_domain)
        .map_err(|error| error.to_string())?;
    let Some(named) = named else {
        return Ok(None);
    };
    match named.tenant {
        Some(tenant) if tenant != TENANT => Err(format!("there is no tenant {tenant:?}")),
        _ => Ok(Some(named.user.into())),
    }
}

/// Waits until the client has stopped to read.
async fn stalled(held: &Held) {
    let mut look = held::Look::default();
    loop {
        tokio::time::sleep(held::LOOK).await;
        if held.is_stalled(&mut look) {
            return;
        }
    }
}

async fn serve(node: &Node, stream: Stream, router: Router) {
    let builder = protocol(node);
    let stream = Metered::new(Coalesce::new(stream), node.metrics.clone());
    let serving = builder.serve_connection(TokioIo::new(stream), router);
    tokio::pin!(serving);
    let mut shutdown = node.shutdown.subscribe();
    let mut ending = false;
    loop {
        tokio::select! {
            result = serving.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            _ = shutdown.wait_for(|stopping| *stopping), if !ending => {
                ending = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Waits until the connection's certificate has ended: by time, or by what a reload brought.
async fn ended(tls: Option<Arc<ListenerTls>>, identity: Option<Arc<PeerIdentity>>) -> String {
    let (Some(tls), Some(identity)) = (tls, identity) else {
        return std::future::pending().await;
    };
    let mut reloads = tls.reloads.subscribe();
    // A reload between the handshake and here wakes nobody.
    if let Err(invalid) = tls.tls.still_valid(&identity, SystemTime::now()) {
        return invalid.to_string();
    }
    loop {
        let left = identity
            .not_after
            .duration_since(SystemTime::now())
            .unwrap_or(Duration::ZERO);
        if left.is_zero() {
            return "it has expired".to_owned();
        }
        // Far deadlines are approached in steps: timers do not reach for years, and clocks are set.
        let deadline = Instant::now() + left.min(Duration::from_secs(3600));
        tokio::select! {
            () = tokio::time::sleep_until(deadline.into()) => {}
            changed = reloads.changed() => {
                if changed.is_err() {
                    return std::future::pending().await;
                }
                if let Err(invalid) = tls.tls.still_valid(&identity, SystemTime::now()) {
                    return invalid.to_string();
                }
            }
        }
    }
}

/// Bytes of one stream that may be on their way to us unread: more than the largest request by default.
const STREAM_WINDOW: u32 = 2 << 20;
/// Bytes of one connection that may be on their way to us unread.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes of one request's headers: tokens fit, floods do not (CONTINUATION flood, 2024).
const HEADER_LIST_BYTES: u32 = 32 << 10;
/// Streams that a client may have reset before we have looked at them (rapid reset, CVE-2023-44487).
const PENDING_RESETS: usize = 64;
/// Answers of one stream that may wait for a slow client, bytes.
const SEND_BUFFER: usize = 1 << 20;
/// Streams of one connection, if the configuration does not ask for fewer: each costs a few kilobytes.
const STREAMS_MAX: u32 = 20_000;

fn protocol(node: &Node) -> Builder<TokioExecutor> {
    let keepalive = &node.config.grpc_keepalive;
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(node.config.max_concurrent_streams.min(STREAMS_MAX))
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(keepalive.interval);
    if let Some(timeout) = keepalive.timeout {
        builder.http2().keep_alive_timeout(timeout);
    }
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10));
    builder
}
