//! A node's life: start in order, serve, stop in order.

use crate::audit;
use crate::boot;
use crate::cluster::{self, Handler};
use crate::founding;
use crate::grpc::{MESSAGE_OVERHEAD_BYTES, encode_event};
use crate::listen::{self, AcceptorOptions, PendingHandshakes};
use crate::logging;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::notify::Notifier;
use crate::peer::PeerListener;
use crate::probe::NodeProbe;
use crate::quickstart::{self, QuickStart};
use crate::router::Surfaces;
use crate::serve::{self, Listener, Shared};
use crate::tls::{self, ListenerTls};
use crate::upkeep::Persister;
use holdfast_certs::DevCa;
use holdfast_config::{CertificateFiles, Config, Feature, ListenUrl, MetricsDetail};
use holdfast_tenant::watch::{Hub, HubLimits, Message};
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Runs the node until it is told to stop.
pub(crate) fn live(mut config: Config) -> ExitCode {
    let logging = match logging::init(&config.log) {
        Ok(logging) => logging,
        Err(error) => {
            // The log is what failed; stderr is what is left.
            let _ = writeln!(std::io::stderr(), "holdfast: cannot open the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    for warning in &logging.warnings {
        tracing::warn!("{warning}");
    }
    die_with_any_thread();
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    tracing::info!(
        holdfast = crate::version::HOLDFAST,
        etcd_compatible = crate::version::COMPATIBLE,
        name = config.name,
        data_dir = %config.data_dir.display(),
        allow_plaintext = config.allow_plaintext,
        "starting"
    );
    if config.unsafe_no_fsync {
        tracing::warn!(
            "the log is not synced (--unsafe-no-fsync): a power cut loses acknowledged writes"
        );
    }
    let result = prepare_quick_start(&mut config).and_then(|quick_start| run(config, quick_start));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %chain(&*error), "holdfast stops");
            ExitCode::FAILURE
        }
    }
}

/// An error with all its causes, on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// A panic on any thread stops the process: nothing half-alive. It is logged first.
fn die_with_any_thread() {
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(panic = %panic, "a defect of ours stops the process");
        std::process::abort();
    }));
}

fn prepare_quick_start(config: &mut Config) -> Result<Option<QuickStart>, AnyError> {
    if !config.quick_start {
        return Ok(None);
    }
    let quick_start = quickstart::prepare(&config.data_dir)?;
    for warning in &quick_start.warnings {
        tracing::warn!("{warning}");
    }
    config.client_tls.certificate = Some(CertificateFiles {
        cert_file: quick_start.cert_file.clone(),
        key_file: quick_start.key_file.clone(),
    });
    config.client_tls.trusted_ca_file = Some(quick_start.ca_file.clone());
    config.client_tls.client_cert_auth = true;
    Ok(Some(quick_start))
}

const PERSIST: &str = "persist";

/// How long a stop waits for the audit log's last records.
const AUDIT_STOP: Duration = Duration::from_millis(500);

/// A thread whose end ends the process, unless it was asked to stop.
struct Core {
    name: &'static str,
    thread: JoinHandle<Result<(), AnyError>>,
}

fn spawn_core(
    name: &'static str,
    failed: &tokio::sync::mpsc::UnboundedSender<String>,
    work: impl FnOnce() -> Result<(), AnyError> + Send + 'static,
) -> Result<Core, AnyError> {
    let failed = failed.clone();
    let thread = std::thread::Builder::new()
        .name(format!("hf-{name}"))
        .spawn(move || {
            let result = work();
            if let Err(error) = &result {
                // The receiver is gone only when the process stops anyway.
                let _ = failed.send(format!("{name}: {}", chain(&**error)));
            }
            result
        })?;
    Ok(Core { name, thread })
}

fn run(config: Config, quick_start: Option<QuickStart>) -> Result<(), AnyError> {
    let config = Arc::new(config);
    let notifier = Notifier::from_environment();
    let metrics = Metrics::new(config.metrics == MetricsDetail::Extensive);
    metrics.features(&config.feature_gates);
    let workers = config.workers.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        usize::from,
    );
    // Ports first: a clash is found before the data directory is touched.
    let urls = listener_urls(&config);
    let mut bounds = Vec::new();
    for (url, _) in &urls {
        bounds.push(listen::bind(url, &config)?);
    }
    let (failed, mut failures) = tokio::sync::mpsc::unbounded_channel();
    let (banished, mut banishment) = tokio::sync::mpsc::unbounded_channel();
    let booted = boot::boot(config.clone(), metrics.clone(), workers, banished)?;
    let node = booted.node;
    let peer_listeners = peer_listeners(&node)?;
    let tls = ListenerTls::load(&config, node.identity.profile)?;
    let mut listeners = Vec::new();
    for (url, surfaces) in &urls {
        let tls = match (url.is_tls(), &tls) {
            (false, _) => None,
            (true, Some(tls)) => Some(tls.clone()),
            (true, None) => return Err(tls::TlsSetupError::MissingCertificate.into()),
        };
        listeners.push(Listener {
            tls,
            surfaces: *surfaces,
        });
    }
    if let Some(tls) = &tls {
        metrics.certificate_expires(tls.tls.report().not_after);
    }
    if let Some(tls) = &node.cluster.tls {
        tls::peers_expire(&tls.listener().report(), &metrics);
    }

    let persister = Arc::new(Persister::new());
    let mut cores = Vec::new();
    {
        let group = node.group.clone();
        cores.push(spawn_core("raft", &failed, move || Ok(group.run()?))?);
        let (node, persister) = (node.clone(), persister.clone());
        cores.push(spawn_core(PERSIST, &failed, move || {
            Ok(persister.run(&node)?)
        })?);
    }
    {
        let node = node.clone();
        cores.push(spawn_core("compact", &failed, move || {
            node.compaction.run(&node);
            Ok(())
        })?);
    }
    {
        let hub = Hub::new(
            node.tenants.inbox().clone(),
            node.tenants.clone(),
            node.mailboxes.clone(),
            encode_event,
            HubLimits {
                watches_per_stream: config.max_watches_per_stream,
                fragment_bytes: config.max_request_bytes + MESSAGE_OVERHEAD_BYTES,
                progress_interval: config.watch_progress_notify_interval,
            },
            Instant::now(),
        );
        cores.push(spawn_core("watch", &failed, move || {
            hub.run();
            Ok(())
        })?);
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        // Before anybody is told that the node serves: a signal at that moment must find its handler.
        let mut signals = Signals::new()?;
        let limit = serve::request_limit(&config);
        tokio::spawn(node.mailbox.clone().serve(limit));
        for task in tasks(&node) {
            tokio::spawn(task);
        }
        let failed = failed.clone();
        tokio::spawn(async move {
            if let Some(reason) = banishment.recv().await {
                tokio::time::sleep(LEAVE_AFTER).await;
                let _ = failed.send(reason);
            }
        });
        let net = &node.cluster.net;
        net.run(peer_listeners, Arc::new(Handler::new(node.clone())))?;
        let begin = async {
            tokio::select! {
                ready = get_ready(&node) => ready,
                failure = failures.recv() => Err(failure.unwrap_or_default().into()),
            }
        };
        tokio::select! {
            begun = begin => begun?,
            () = signals.stop.asked() => return Ok(()),
        }
        // What an earlier process marked and did not remove, replayed compactions included.
        node.compaction.requested();
        let shared = Arc::new(Shared {
            probe: Arc::new(NodeProbe::new(node.clone())),
            node: node.clone(),
            listeners,
            handshakes: PendingHandshakes::new(config.max_pending_handshakes),
        });
        let mut dealers = Vec::new();
        let mut worker_threads = Vec::new();
        for index in 0..workers {
            let (dealer, thread) = serve::spawn_worker(index, shared.clone())?;
            dealers.push(dealer);
            worker_threads.push(thread);
        }
        let acceptor = listen::Acceptor::start(
            bounds,
            AcceptorOptions {
                workers,
                max_connections: config.max_connections,
                max_per_source: node.settings().max_connections_per_source.map(usize::from),
            },
            metrics.clone(),
            move |worker, incoming| {
                // A worker is gone only when the node stops; the connection is closed by being dropped.
                let _ = dealers[worker].send(incoming);
            },
        )?;
        for (url, surfaces) in &urls {
            if surfaces.grpc {
                // Supervisors wait for this line (behaviour §6.1).
                tracing::info!(address = %url, "ready to serve client requests");
            } else {
                tracing::info!(address = %url, "serving metrics and health");
            }
        }
        notifier.ready();
        if let Some(quick_start) = &quick_start {
            // A closed stdout does not stop a server.
            let _ = std::io::stdout()
                .lock()
                .write_all(quick_start.banner.as_bytes());
        }
        let watched = Watched {
            node: &node,
            tls: tls.as_deref(),
            notifier: &notifier,
            ca: quick_start.as_ref().map(|quick_start| &quick_start.ca),
        };
        let result = watched.until_the_end(signals, &mut failures).await;
        notifier.stopping();
        if result.is_ok() {
            node.hand_over(HAND_OVER_MAX).await;
        }
        acceptor.stop();
        node.shutdown.send_replace(true);
        for thread in worker_threads {
            // A worker that panicked has stopped the process already.
            let _ = thread.join();
        }
        result
    });
    runtime.shutdown_background();

    node.cluster.net.stop();
    node.group.stop();
    node.compaction.stop();
    node.tenants.inbox().push(Message::Stop);
    let mut outcome = result;
    // The persister last: what the log has is moved to the store, so that the next start is quick.
    let (persist, others): (Vec<Core>, Vec<Core>) =
        cores.into_iter().partition(|core| core.name == PERSIST);
    for core in others {
        join(core, &mut outcome);
    }
    persister.stop();
    for core in persist {
        join(core, &mut outcome);
    }
    node.auditor.stop(AUDIT_STOP);
    node.logins.stop();
    tracing::info!("stopped");
    drop(booted.data_dir);
    outcome
}

fn join(core: Core, outcome: &mut Result<(), AnyError>) {
    match core.thread.join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) if outcome.is_ok() => *outcome = Err(error),
        Ok(Err(_)) => {}
        Err(_) if outcome.is_ok() => *outcome = Err(format!("{} panicked", core.name).into()),
        Err(_) => {}
    }
}

/// Binds what other members dial.
fn peer_listeners(node: &Node) -> Result<Vec<PeerListener>, AnyError> {
    let mut listeners = Vec::new();
    for url in &node.settings().listen_peer_urls {
        for socket in listen::bind(url, &node.config)?.into_tcp() {
            listeners.push(PeerListener {
                socket,
                tls: url.is_tls(),
            });
        }
        tracing::info!(address = %url, "listening for other members");
    }
    Ok(listeners)
}

/// What a node does on the main thread, all its life.
fn tasks(node: &Arc<Node>) -> Vec<Pin<Box<dyn Future<Output = ()> + Send>>> {
    let (members, leader, corruption) = (node.clone(), node.clone(), node.clone());
    vec![
        Box::pin(async move { members.follow_members().await }),
        Box::pin(async move { cluster::watch_leader(&leader).await }),
        Box::pin(async move { cluster::watch_for_corruption(&corruption).await }),
    ]
}

/// Waits until this member is one of a cluster that works, and has applied everything that was committed when it asked: only then may
/// anybody read.
async fn get_ready(node: &Node) -> Result<(), AnyError> {
    node.take_members(&node.tenants.members());
    cluster::publish(node).await?;
    let mut told: Option<Instant> = None;
    while let Err(error) = node.linearizable().await {
        if told.is_none_or(|at| at.elapsed() > TELL_AGAIN) {
            tracing::warn!(?error, "waiting for a leader");
            told = Some(Instant::now());
        }
        // Mostly it has waited for a leader for as long as a request may. But when the core has failed, or the log is full, the error
        // comes at once, and what ends this member, and signals, are to be looked at in between.
        tokio::time::sleep(ASK_AGAIN).await;
    }
    if node
        .config
        .feature_gates
        .enabled(Feature::InitialCorruptCheck)
    {
        node.check_own_data().await?;
    }
    founding::initial_auth(node).await?;
    founding::publish_token_key(node).await?;
    Ok(())
}

/// How long a member goes on that was removed: whoever asked it for that is to be answered.
const LEAVE_AFTER: Duration = Duration::from_secs(2);

/// How long to wait before the next look for a leader.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// How often it says that it still waits.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// How long a stop waits for another member to lead.
const HAND_OVER_MAX: Duration = Duration::from_millis(500);

/// How often TLS files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// How often the quick start's certificates are looked at for renewal.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(3600);

/// The signals that mean something.
struct Signals {
    stop: Stop,
    hangup: Signal,
}

/// Those that end the node.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            stop: Stop {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

impl Stop {
    /// Waits until the node is to stop.
    async fn asked(&mut self) {
        let signal = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "stopping");
    }
}

/// What the main thread looks after while the workers serve.
struct Watched<'a> {
    node: &'a Node,
    tls: Option<&'a ListenerTls>,
    notifier: &'a Notifier,
    ca: Option<&'a DevCa>,
}

impl Watched<'_> {
    /// Serves signals and timers until the node is to stop, or a core thread has failed.
    async fn until_the_end(
        &self,
        mut signals: Signals,
        failures: &mut tokio::sync::mpsc::UnboundedReceiver<String>,
    ) -> Result<(), AnyError> {
        let mut reload = tokio::time::interval(RELOAD_INTERVAL);
        let mut renewal = tokio::time::interval(RENEWAL_INTERVAL);
        let every = self.notifier.watchdog_interval();
        let mut watchdog = tokio::time::interval(every.unwrap_or(RENEWAL_INTERVAL));
        loop {
            tokio::select! {
                () = signals.stop.asked() => return Ok(()),
                _ = signals.hangup.recv() => self.reload_on_signal(),
                _ = reload.tick() => {
                    self.reload();
                    for notice in self.node.auditor.notices() {
                        tracing::warn!(%notice, "audit log");
                    }
                }
                _ = renewal.tick() => self.renew(),
                _ = watchdog.tick(), if every.is_some() => self.notifier.alive(),
                failure = failures.recv() => return Err(failure.unwrap_or_default().into()),
            }
        }
    }

    /// What only a signal asks for: the audit log's rules and files, and the keys of other issuers.
    fn reload_on_signal(&self) {
        self.reload();
        let node = self.node;
        if let Err(error) = reload_audit(node) {
            tracing::error!(error = %chain(&*error), "cannot reload the audit log's rules; those in use stay");
        }
        if let Err(error) = node.tokens.reload() {
            tracing::error!(error = %chain(&error), "cannot reload the keys of tokens; those in use stay");
        }
    }

    fn reload(&self) {
        if let Some(tls) = self.tls {
            tls.poll(&self.node.metrics);
        }
        if let Some(tls) = &self.node.cluster.tls {
            tls::poll_peers(tls, &self.node.metrics);
        }
    }

    /// Renews the quick start's certificates; the reload that follows takes them.
    fn renew(&self) {
        match self.ca.map(DevCa::renew) {
            Some(Err(error)) => {
                tracing::error!(%error, "cannot renew the quick start's certificates")
            }
            Some(Ok(renewed)) if !renewed.is_empty() => {
                tracing::info!(?renewed, "renewed the quick start's certificates");
            }
            _ => {}
        }
    }
}

fn reload_audit(node: &Node) -> Result<(), AnyError> {
    let config = audit::config(
        &node.config,
        node.identity.profile,
        node.identity.cluster,
        node.audit_key.clone(),
    )?;
    for notice in node.auditor.reload(config)? {
        tracing::warn!(%notice, "audit log");
    }
    tracing::info!("reloaded the audit log's rules");
    Ok(())
}

/// Every listener with what it serves. With `--listen-client-http-urls`, client URLs are gRPC alone.
fn listener_urls(config: &Config) -> Vec<(ListenUrl, Surfaces)> {
    let split = !config.listen_client_http_urls.is_empty();
    let surfaces = |url: &ListenUrl, grpc: bool, http: bool, for_clients: bool| Surfaces {
        grpc,
        http,
        for_clients,
        plaintext: !url.is_tls(),
    };
    let grpc = config
        .listen_client_urls
        .iter()
        .map(|url| (url.clone(), surfaces(url, true, !split, true)));
    let http = config
        .listen_client_http_urls
        .iter()
        .map(|url| (url.clone(), surfaces(url, false, true, true)));
    let metrics = config
        .listen_metrics_urls
        .iter()
        .map(|url| (url.clone(), surfaces(url, false, true, false)));
    grpc.chain(http).chain(metrics).collect()
}
