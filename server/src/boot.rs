//! From a configuration to a node: data directory, log, store, state, raft.

use crate::compaction::Compaction;
use crate::held::Budget;
use crate::login::{LoginOptions, Logins};
use crate::mailbox::Mailboxes;
use crate::metrics::Metrics;
use crate::node::{
    Applier, Clock, Identity, Node, NodeGroup, READ_BUDGET_UNIT_BYTES, auth_version,
};
use crate::tokens::{Tokens, TokensError};
use holdfast_audit::{Auditor, NodeKey};
use holdfast_auth::password::HashParams;
use holdfast_config::{AuditSink, ClusterState, Config, ConfigError, Profile};
use holdfast_consensus::{Core, CoreError, CoreOptions, GroupOptions};
use holdfast_storage::TenantId;
use holdfast_storage::backend::{OpenError, Store, StoreOptions};
use holdfast_storage::datadir::{self, DataDir, DataDirError, IdentityError};
use holdfast_storage::disk::RealDisk;
use holdfast_storage::lease::Millis;
use holdfast_storage::log::{LogError, LogOptions, RaftLog};
use holdfast_tenant::{Machine, MachineOptions, RestoreError};
use sha2::{Digest, Sha256};
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
    #[error("--initial-cluster does not name this member, {0:?}")]
    NotInCluster(String),
    #[error(
        "--initial-cluster-state is \"existing\", but this version runs a node that stands alone: there is nothing to join"
    )]
    NothingToJoin,
    #[error("--initial-cluster names {0} members: this version runs a node that stands alone")]
    ManyMembers(usize),
}

/// How often the remaining time of leases is recorded, milliseconds. A restart gives a lease back at most this much of its life.
const LEASE_CHECKPOINT_INTERVAL: Millis = Millis(10_000);
/// Length of a log segment: a few seconds of heavy writing, and zeroed in well under a second at the first start.
const SEGMENT_BYTES: u64 = 32 << 20;
/// Bytes of entries the log keeps in memory. A node that stands alone reads its log only at start.
const LOG_CACHE_BYTES: usize = 4 << 20;
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
) -> Result<Booted, BootError> {
    if !DataDir::is_founded(&config.data_dir) {
        // Before anything is made.
        config.check_founding()?;
    }
    let data_dir = DataDir::open(&config.data_dir, config.wal_dir.as_deref())?;
    for warning in data_dir.warnings() {
        tracing::warn!("{warning}");
    }
    let identity = identity(&config, &data_dir)?;
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
    let options = StoreOptions {
        cache_bytes: config.value_cache_bytes,
        // Only a log that begins with the first entry can rebuild the store.
        may_set_aside: log.mark().index <= 1,
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
    let machine = Machine::restore(
        Arc::new(store),
        opened.applied,
        MachineOptions {
            quota_bytes: config.quota_backend_bytes,
            lease_checkpoint_interval: LEASE_CHECKPOINT_INTERVAL,
            lease_ownership: identity.profile == Profile::Strict,
        },
        clock.now(),
    )?;
    let tenants = machine.tenants().clone();
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
    let tick = config.heartbeat_interval;
    let core = Core::new(
        log,
        Applier {
            machine,
            tenant: default_tenant.clone(),
            auth_changes,
            clock,
            metrics: metrics.clone(),
            slow_apply: config.warning_apply_duration,
        },
        opened.applied,
        &CoreOptions {
            member: identity.member,
            voters: vec![identity.member],
            election_ticks: (config.election_timeout.as_millis() / tick.as_millis().max(1)).max(2)
                as usize,
            heartbeat_ticks: 1,
        },
        metrics.clone(),
    )?;
    let mailboxes = Arc::new(Mailboxes::new(workers));
    let group = Arc::new(NodeGroup::new(
        core,
        mailboxes.clone(),
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
        mailboxes,
        compaction: Compaction::new(),
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

/// Who this member is: written at the first start, read at every later one.
fn identity(config: &Config, data_dir: &DataDir) -> Result<Identity, BootError> {
    if let Some(stored) = data_dir.identity()? {
        let profile = stored.profile;
        tracing::info!(
            cluster = format!("{:x}", stored.cluster_id),
            member = format!("{:x}", stored.member_id),
            profile = profile.as_str(),
            "restarting member"
        );
        return Ok(Identity {
            cluster: stored.cluster_id,
            member: stored.member_id,
            profile: match profile {
                datadir::Profile::Strict => Profile::Strict,
                datadir::Profile::Etcd => Profile::Etcd,
            },
        });
    }
    if config.initial_cluster_state == ClusterState::Existing {
        return Err(BootError::NothingToJoin);
    }
    if config.initial_cluster.len() > 1 {
        return Err(BootError::ManyMembers(config.initial_cluster.len()));
    }
    let Some(own) = config
        .initial_cluster
        .iter()
        .find(|member| member.name == config.name)
    else {
        return Err(BootError::NotInCluster(config.name.clone()));
    };
    // As in etcd the ids follow from the peer URLs and the token, so that all members of a cluster find the same ones.
    let mut urls: Vec<String> = own.peer_urls.iter().map(ToString::to_string).collect();
    urls.sort();
    let member = digest_id(
        urls.iter()
            .map(String::as_bytes)
            .chain([config.initial_cluster_token.as_bytes()]),
    );
    let cluster = digest_id([
        member.to_be_bytes().as_slice(),
        config.initial_cluster_token.as_bytes(),
    ]);
    data_dir.write_identity(&datadir::Identity {
        cluster_id: cluster,
        member_id: member,
        name: config.name.clone(),
        profile: match config.profile {
            Profile::Strict => datadir::Profile::Strict,
            Profile::Etcd => datadir::Profile::Etcd,
        },
    })?;
    tracing::info!(
        cluster = format!("{cluster:x}"),
        member = format!("{member:x}"),
        profile = match config.profile {
            Profile::Strict => "strict",
            Profile::Etcd => "etcd",
        },
        "founding a cluster of one member"
    );
    Ok(Identity {
        cluster,
        member,
        profile: config.profile,
    })
}

/// The first eight bytes of a SHA-256 over length-prefixed parts; never 0, which raft takes for nobody.
fn digest_id<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first).max(1)
}
