//! From a configuration to a node: data directory, log, store, state, raft.

use crate::cluster::bootstrap::{self, Bootstrap, BootstrapError};
use crate::cluster::{Cluster, Links, peer_version};
use crate::compaction::Compaction;
use crate::held::Budget;
use crate::login::{LoginOptions, Logins};
use crate::mailbox::Mailboxes;
use crate::metrics::Metrics;
use crate::node::{
    Applier, Clock, Identity, Node, NodeGroup, READ_BUDGET_UNIT_BYTES, auth_version,
};
use crate::peer::{Me, PeerNet, PeerOptions, Security};
use crate::tls::{self, TlsSetupError};
use crate::tokens::{Tokens, TokensError};
use holdfast_audit::{Auditor, NodeKey};
use holdfast_auth::password::HashParams;
use holdfast_config::{AuditSink, Config, ConfigError, Profile};
use holdfast_consensus::{Core, CoreError, CoreOptions, GroupOptions};
use holdfast_storage::TenantId;
use holdfast_storage::backend::{OpenError, PersistError, Store, StoreOptions};
use holdfast_storage::datadir::{self, DataDir, DataDirError, IdentityError};
use holdfast_storage::disk::RealDisk;
use holdfast_storage::lease::Millis;
use holdfast_storage::log::{LogError, LogOptions, RaftLog};
use holdfast_tenant::{Machine, MachineOptions, RestoreError};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Why the node did not start. Each says what to look at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot open {}: {source}", path.display())]
    LogDir { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(
        "the data directory {} has a member's log, but the file that says which member it is, identity, is missing. Restore it. If it is lost, \
         remove the member from the cluster, delete the directory, and add it again as a new one",
        path.display()
    )]
    NoIdentity { path: PathBuf },
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Core(#[from] CoreError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the audit log's key: {0}")]
    AuditKey(#[from] holdfast_audit::keys::KeyError),
    #[error("the audit log's rules: {0}")]
    AuditRules(#[from] holdfast_audit::RulesError),
    #[error("cannot make the audit log's folder {}: {source}", path.display())]
    AuditDir { path: PathBuf, source: io::Error },
    #[error("the audit log: {0}")]
    Audit(#[from] holdfast_audit::StartError),
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error("cannot start the threads that check passwords: {0}")]
    Threads(io::Error),
    #[error("opening the store failed")]
    StorePanicked,
    #[error("the default tenant is missing")]
    NoDefaultTenant,
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error("TLS between members: {0}")]
    PeerTls(#[from] TlsSetupError),
    #[error("the thread for other members: {0}")]
    PeerNet(io::Error),
    #[error("the members of the cluster cannot be stored: {0}")]
    Founding(#[from] PersistError),
    #[error("--force-new-cluster: {0}")]
    Force(holdfast_tenant::Refusal),
}

/// How often the remaining time of leases is recorded, milliseconds. A restart gives a lease back at most this much of its life.
const LEASE_CHECKPOINT_INTERVAL: Millis = Millis(10_000);
/// Length of a log segment: a few seconds of heavy writing, and zeroed in well under a second at the first start.
const SEGMENT_BYTES: u64 = 32 << 20;
/// Bytes of entries the log keeps in memory: what members get that lag a little.
const LOG_CACHE_BYTES: usize = 2 << 20;
/// Bytes of entries that the log keeps for members that lag.
const KEEP_BYTES: u64 = 256 << 20;
/// The grain of raft's time.
const TICKS_PER_HEARTBEAT: u32 = 10;
/// Bytes of commands that may wait for the log.
const QUEUE_BYTES: usize = 64 << 20;
/// Most commands that a connection's thread takes through the log itself (DESIGN §11.3).
const INLINE_COMMANDS: usize = 16;
/// Longest sync for which it does: it blocks the thread's other connections.
const INLINE_SYNC: Duration = Duration::from_micros(400);

/// Signs the audit log's checkpoints; beside the data, for this member alone.
const AUDIT_KEY_FILE: &str = "audit-key";

/// What hashing passwords may take of the processor in the long run: on two cores about ten logins in a second, after a burst of some
/// twenty.
const HASHING_SHARE: f64 = 0.06;

/// Snapshots that are sent at a time.
const SNAPSHOTS_MAX: usize = 4;

/// A node, and what must be kept while it lives.
pub(crate) struct Booted {
    pub(crate) node: Arc<Node>,
    pub(crate) data_dir: DataDir,
}

pub(crate) fn boot(
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    workers: usize,
    banished: tokio::sync::mpsc::UnboundedSender<String>,
) -> Result<Booted, BootError> {
    if !DataDir::is_founded(&config.data_dir) {
        // Before anything is made.
        config.check_founding()?;
    }
    let data_dir = DataDir::open(&config.data_dir, config.wal_dir.as_deref())?;
    for warning in data_dir.warnings() {
        tracing::warn!("{warning}");
    }
    let known = data_dir.identity()?;
    let profile = known
        .as_ref()
        .map_or(config.profile, |known| match known.profile {
            datadir::Profile::Strict => Profile::Strict,
            datadir::Profile::Etcd => Profile::Etcd,
        });
    let security = Security {
        tls: tls::peer_tls(&config, profile)?,
        // Where certificates name members, nothing without one passes.
        plaintext: profile == Profile::Etcd || config.peer_tls.certificate.is_none(),
    };
    let peer_tls = security.tls.clone();
    let Bootstrap {
        identity,
        mut founding,
        to_write,
        mut contacts,
    } = bootstrap::bootstrap(&config, &data_dir, &security)?;
    let log_dir = data_dir.log_dir();
    let disk = RealDisk::open(log_dir).map_err(|source| BootError::LogDir {
        path: log_dir.to_owned(),
        source,
    })?;
    let (log, recovered) = RaftLog::open(
        disk,
        LogOptions {
            segment_bytes: SEGMENT_BYTES,
            sync: !config.unsafe_no_fsync,
            cache_bytes: LOG_CACHE_BYTES,
            ..LogOptions::default()
        },
    )?;
    if let Some(cut) = &recovered.tail_cut {
        tracing::warn!(
            file = %cut.file.display(),
            offset = cut.offset,
            bytes = cut.bytes,
            reason = cut.reason,
            "cut a write that was never synced off the raft log"
        );
    }
    if known.is_none() && (log.last_index() > 0 || log.hard_state().term > 0) {
        // It is written before anything enters the log, a vote included.
        return Err(BootError::NoIdentity {
            path: config.data_dir.clone(),
        });
    }
    let is_alone = holdfast_consensus::founding_voters(&log) == [identity.member];
    if founding.is_empty() && is_alone {
        // Should the store be begun anew: what it began with. In a larger group the log does not know all of that.
        founding = vec![bootstrap::alone(&config, &identity)];
    }
    let options = StoreOptions {
        cache_bytes: config.value_cache_bytes,
        // Only a log that begins with the first entry can rebuild the store.
        may_set_aside: log.mark().index <= 1 && is_alone,
        ..StoreOptions::default()
    };
    let store_dir = data_dir.store_dir();
    // Opened by a thread of low priority, which the store's own threads inherit.
    let opened = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                crate::upkeep::yield_to_requests();
                Store::open(&store_dir, options)
            })
            .join()
    });
    // A panic on any thread has stopped the process already.
    let (store, opened) = opened.map_err(|_| BootError::StorePanicked)??;
    if let Some(cut) = &opened.recovered {
        tracing::warn!(
            journal = %cut.journal.display(),
            at = cut.at,
            reason = cut.reason,
            "cut the store's journal back; the raft log restores what is missing"
        );
    }
    if let Some(path) = &opened.set_aside {
        tracing::error!(path = %path.display(), "the store was damaged and set aside; rebuilding it from the raft log");
    }
    let audit_key = holdfast_audit::keys::load_or_create(
        &config.data_dir.join(AUDIT_KEY_FILE),
        rand::random(),
    )?;
    let auditor = start_audit(&config, &identity, audit_key.clone())?;
    let clock = Clock::new();
    let machine_options = MachineOptions {
        quota_bytes: config.quota_backend_bytes,
        lease_checkpoint_interval: LEASE_CHECKPOINT_INTERVAL,
        lease_ownership: identity.profile == Profile::Strict,
        founding,
    };
    let mut machine = Machine::restore(
        Arc::new(store),
        opened.applied,
        machine_options.clone(),
        clock.now(),
    )?;
    let tenants = machine.tenants().clone();
    if tenants.members().len() != 1 {
        // At each start: whoever reaches a peer port without TLS may speak as any member.
        config.check_peer_security(identity.profile, [])?;
    }
    if config.force_new_cluster {
        machine
            .force_sole_member(identity.member, log.hard_state().term)
            .map_err(BootError::Force)?;
    }
    if to_write.is_some() || config.force_new_cluster {
        // Before anything relies on it.
        tenants.store().persist()?;
        tenants.store().checkpoint()?;
    }
    if config.force_new_cluster {
        // Said when it holds, whatever happens next.
        tracing::warn!(
            "--force-new-cluster: this member is now the only one of its cluster; what the others have is given up"
        );
    }
    if let Some(identity) = to_write {
        data_dir.write_identity(&identity)?;
    }
    let default_tenant = tenants
        .get(TenantId::DEFAULT)
        .ok_or(BootError::NoDefaultTenant)?;
    let tokens = Tokens::open(&config, &identity, tenants.clone())?;
    let logins = Logins::new(LoginOptions {
        memory_bytes: config.login_memory_bytes,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        share_of_cores: HASHING_SHARE,
        params: HashParams::default(),
        hashing_seconds: metrics.hashing_seconds(),
        waiting_seconds: metrics.waiting_seconds(),
    })
    .map_err(BootError::Threads)?;
    let (auth_changes, auth_changed) = tokio::sync::watch::channel(auth_version(&default_tenant));
    if tenants.members().is_empty() && contacts.is_empty() {
        contacts = bootstrap::contacts(&config, &identity, &security)?;
    }
    let (member_changes, members_changed) = tokio::sync::watch::channel(tenants.members());
    let compaction = Arc::new(Compaction::new());
    let net = PeerNet::new(PeerOptions {
        me: Me {
            cluster: identity.cluster,
            member: identity.member,
            name: config.name.clone(),
            instance: identity.instance,
            version: peer_version(),
        },
        security,
        read_timeout: config.raft_read_timeout,
        write_timeout: config.raft_write_timeout,
        metrics: metrics.peers().clone(),
    })
    .map_err(BootError::PeerNet)?;
    // Finer than heartbeats, so that elections of several members seldom fall together.
    let tick = (config.heartbeat_interval / TICKS_PER_HEARTBEAT).max(Duration::from_millis(1));
    let ticks = |time: Duration| (time.as_nanos() / tick.as_nanos().max(1)) as usize;
    let core = Core::new(
        log,
        Applier {
            machine,
            compacted: default_tenant.compacted(),
            tenant: default_tenant.clone(),
            auth_changes,
            member_changes,
            compaction: compaction.clone(),
            clock,
            metrics: metrics.clone(),
            slow_apply: config.warning_apply_duration,
            lease_extension: Millis(2 * config.election_timeout.as_millis() as u64),
        },
        opened.applied,
        opened.installed,
        CoreOptions {
            member: identity.member,
            incarnation: rand::random(),
            election_ticks: ticks(config.election_timeout).max(2),
            heartbeat_ticks: ticks(config.heartbeat_interval).max(1),
            pre_vote: config.pre_vote,
            advance_first_election: config.initial_election_tick_advance,
            patience_ticks: ticks(crate::serve::request_limit(&config)) as u64 + 1,
            keep_entries: config.snapshot_catchup_entries,
            keep_bytes: KEEP_BYTES,
            seed: rand::random(),
        },
        metrics.clone(),
    )?;
    // One more for what belongs to no worker.
    let mailboxes = Arc::new(Mailboxes::new(workers + 1));
    let group = Arc::new(NodeGroup::new(
        core,
        mailboxes.clone(),
        Arc::new(Links::new(net.clone(), identity.cluster)),
        GroupOptions {
            tick,
            queue_bytes: QUEUE_BYTES,
            inline_commands: INLINE_COMMANDS,
            inline_sync: INLINE_SYNC,
        },
    ));
    let read_budget_units = u32::try_from(config.memory_budget_bytes / READ_BUDGET_UNIT_BYTES)
        .unwrap_or(u32::MAX)
        .clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize) as u32);
    let node = Arc::new(Node {
        read_budget: Arc::new(Semaphore::new(read_budget_units as usize)),
        read_budget_units,
        held: Budget::new(config.memory_budget_bytes),
        snapshots: Semaphore::new(SNAPSHOTS_MAX),
        hashes: Semaphore::new(1),
        status: group.status().clone(),
        snap_dir: data_dir.snap_dir(),
        identity,
        group,
        tenants,
        default_tenant,
        clock,
        metrics,
        mailbox: mailboxes.of(workers).clone(),
        mailboxes,
        compaction,
        cluster: Cluster::new(
            net,
            peer_tls,
            machine_options,
            contacts,
            members_changed,
            banished,
        ),
        auth_changes: auth_changed,
        tokens,
        changing_passwords: parking_lot::Mutex::default(),
        logins,
        auditor,
        audit_key,
        store_full: std::sync::atomic::AtomicBool::new(false),
        shutdown: tokio::sync::watch::Sender::new(false),
        config,
    });
    Ok(Booted { node, data_dir })
}

fn start_audit(config: &Config, identity: &Identity, key: NodeKey) -> Result<Auditor, BootError> {
    // The folder that the strict profile's default names is ours to make.
    let own = config.data_dir.join("audit");
    for sink in &config.for_profile(identity.profile).audit_sinks {
        if let AuditSink::File(path) = sink
            && path.parent() == Some(own.as_path())
        {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&own)
                .map_err(|source| BootError::AuditDir {
                    path: own.clone(),
                    source,
                })?;
        }
    }
    let public_key = key.public();
    let made = crate::audit::config(config, identity.profile, identity.cluster, key)?;
    if !made.sinks.is_empty() {
        // For `holdfastctl audit verify --public-key`, best taken from another machine's copy of this log.
        tracing::info!(%public_key, "writing an audit log, signed with this member's key");
    }
    let (auditor, notices) = Auditor::start(made)?;
    for notice in notices {
        tracing::warn!(%notice, "audit log");
    }
    Ok(auditor)
}
