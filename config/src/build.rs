//! From the winners of all settings to the typed configuration.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::config::{Allowed, AutoCompaction, ClusterState, Config, GrpcKeepalive, MetricsDetail};
use crate::error::ConfigError;
use crate::feature::FeatureGates;
use crate::profile::{self, Profile};
use crate::settings::{Origin, Settings};
use crate::table::{Key, Standing};
use crate::value::{parse_duration, parse_int};
use crate::{audit, bootstrap, issuer, log, security, validate};

/// What `--quota-backend-bytes=0` means (behaviour §4.2).
const DEFAULT_QUOTA_BYTES: u64 = 2 << 30;

/// A connection on which one heartbeat is late is not given up yet.
const HEARTBEATS_PER_RAFT_TIMEOUT: u32 = 2;

/// Where the quick start differs from the table.
const QUICK_START: [(Key, &str); 5] = [
    (Key::Profile, "strict"),
    (Key::DataDir, "holdfast-data"),
    (Key::ListenClientUrls, "https://localhost:2379"),
    (Key::AdvertiseClientUrls, "https://localhost:2379"),
    (Key::ClientCertAuth, "true"),
];

pub(crate) fn config(mut settings: Settings) -> Result<Config, ConfigError> {
    let settings = &mut settings;
    let standing_notices = settings.standing_notices()?;
    let quick_start = settings.is_quick_start();
    derive_defaults(settings, quick_start)?;
    let profile = match settings.text(Key::Profile) {
        "strict" => Profile::Strict,
        _ => Profile::Etcd,
    };
    let by_profile = profile::build(settings, profile)?;
    let (client_tls, peer_tls) = security::build(settings, quick_start, profile)?;
    let discovery_srv = bootstrap::discovery_srv(settings)?;
    let heartbeat_interval = Duration::from_millis(settings.number(Key::HeartbeatInterval)?);

    let mut config = Config {
        quick_start,
        profile,
        workers: NonZeroUsize::new(settings.number(Key::Workers)?),
        allow_plaintext: settings.boolean(Key::AllowPlaintext)?,
        tls_handshake_timeout: settings.time(Key::TlsHandshakeTimeout)?,
        max_connections: settings.number(Key::MaxConnections)?,
        max_pending_handshakes: settings.number(Key::MaxPendingHandshakes)?,
        max_watches_per_stream: settings.number(Key::MaxWatchesPerStream)?,
        max_leases: settings.number(Key::MaxLeases)?,
        memory_budget_bytes: settings.number(Key::MemoryBudgetBytes)?,
        value_cache_bytes: settings.number(Key::ValueCacheBytes)?,

        name: name(settings)?,
        data_dir: settings
            .path(Key::DataDir)
            .ok_or_else(|| settings.invalid(Key::DataDir, "a directory is needed".to_owned()))?,
        wal_dir: settings.path(Key::WalDir),
        snapshot_count: settings.number_or_default(Key::SnapshotCount)?,
        snapshot_catchup_entries: settings.number_or_default(Key::SnapshotCatchupEntries)?,
        heartbeat_interval,
        election_timeout: Duration::from_millis(settings.number(Key::ElectionTimeout)?),
        initial_election_tick_advance: settings.boolean(Key::InitialElectionTickAdvance)?,
        listen_client_urls: settings.urls(Key::ListenClientUrls)?,
        listen_client_http_urls: settings.urls(Key::ListenClientHttpUrls)?,
        listen_metrics_urls: settings.urls(Key::ListenMetricsUrls)?,
        advertise_client_urls: settings.urls(Key::AdvertiseClientUrls)?,
        quota_backend_bytes: match settings.number::<i64>(Key::QuotaBackendBytes)? {
            0 => Some(DEFAULT_QUOTA_BYTES),
            bytes => u64::try_from(bytes).ok(),
        },
        max_txn_ops: settings.number(Key::MaxTxnOps)?,
        max_request_bytes: settings.number(Key::MaxRequestBytes)?,
        max_concurrent_streams: settings.number(Key::MaxConcurrentStreams)?,
        grpc_keepalive: GrpcKeepalive {
            min_time: settings.time(Key::GrpcKeepaliveMinTime)?,
            interval: settings.time_or_never(Key::GrpcKeepaliveInterval)?,
            timeout: settings.time_or_never(Key::GrpcKeepaliveTimeout)?,
        },
        raft_read_timeout: raft_timeout(settings, Key::RaftReadTimeout, heartbeat_interval)?,
        raft_write_timeout: raft_timeout(settings, Key::RaftWriteTimeout, heartbeat_interval)?,
        socket_reuse_port: settings.boolean(Key::SocketReusePort)?,
        socket_reuse_address: settings.boolean(Key::SocketReuseAddress)?,
        unsafe_no_fsync: settings.boolean(Key::UnsafeNoFsync)?,

        initial_advertise_peer_urls: settings.urls(Key::InitialAdvertisePeerUrls)?,
        initial_cluster: bootstrap::initial_cluster(settings)?,
        discovery_srv,
        initial_cluster_state: match settings.text(Key::InitialClusterState) {
            "existing" => ClusterState::Existing,
            _ => ClusterState::New,
        },
        initial_cluster_token: settings.text(Key::InitialClusterToken).to_owned(),
        strict_reconfig_check: settings.boolean(Key::StrictReconfigCheck)?,
        pre_vote: settings.boolean(Key::PreVote)?,
        max_learners: settings.number(Key::MaxLearners)?,
        force_new_cluster: settings.boolean(Key::ForceNewCluster)?,
        auto_compaction: auto_compaction(settings)?,

        client_tls,
        peer_tls,
        cors: allowed(settings, Key::Cors),
        host_whitelist: allowed(settings, Key::HostWhitelist),

        auth_token: auth_token(settings)?,
        auth_token_ttl: Duration::from_secs(settings.number_or_default(Key::AuthTokenTtl)?),
        bcrypt_cost: settings.number(Key::BcryptCost)?,
        client_cert_uri_trust_domain: issuer::trust_domain(settings, quick_start)?,
        login_memory_bytes: settings.number(Key::LoginMemoryBytes)?,
        external_issuer: issuer::external(settings)?,
        audit: audit::build(settings)?,

        log: log::build(settings)?,
        warning_apply_duration: settings.time(Key::WarningApplyDuration)?,
        warning_unary_request_duration: settings.time(Key::WarningUnaryRequestDuration)?,
        enable_pprof: settings.boolean(Key::EnablePprof)?,
        metrics: match settings.text(Key::Metrics) {
            "extensive" => MetricsDetail::Extensive,
            _ => MetricsDetail::Basic,
        },

        corrupt_check_time: settings.time_or_never(Key::CorruptCheckTime)?,
        compact_hash_check_time: settings.time(Key::CompactHashCheckTime)?,
        compaction_batch_limit: settings.number_or_default(Key::CompactionBatchLimit)?,
        compaction_sleep_interval: settings.time_or_default(Key::CompactionSleepInterval)?,
        watch_progress_notify_interval: settings
            .time_or_default(Key::WatchProgressNotifyInterval)?,
        enable_grpc_gateway: settings.boolean(Key::EnableGrpcGateway)?,
        feature_gates: feature_gates(settings)?,

        notices: settings.take_notices(),
        by_profile,
        settings: settings.clone(),
    };
    config.notices.extend(standing_notices);
    validate::check(&mut config)?;
    Ok(config)
}

/// Fills in the defaults that depend on other settings.
fn derive_defaults(settings: &mut Settings, quick_start: bool) -> Result<(), ConfigError> {
    if quick_start {
        for (key, value) in QUICK_START {
            settings.derive(key, value.to_owned(), Origin::QuickStart);
        }
    } else {
        let data_dir = format!("{}.etcd", settings.text(Key::Name));
        settings.derive(Key::DataDir, data_dir, Origin::Default);
    }
    // As in etcd, a member that names no cluster founds one of its own, unless DNS names one.
    let name = settings.text(Key::Name);
    let cluster: Vec<_> = if settings.text(Key::DiscoverySrv).is_empty() {
        let urls = settings.urls(Key::InitialAdvertisePeerUrls)?;
        urls.iter().map(|url| format!("{name}={url}")).collect()
    } else {
        Vec::new()
    };
    settings.derive(Key::InitialCluster, cluster.join(","), Origin::Default);
    Ok(())
}

fn name(settings: &Settings) -> Result<String, ConfigError> {
    let name = settings.text(Key::Name);
    match bootstrap::check_name(name) {
        Ok(()) => Ok(name.to_owned()),
        Err(reason) => Err(settings.invalid(Key::Name, reason)),
    }
}

/// A deadline of connections between members. It is never shorter than the pauses that the leader makes by itself.
fn raft_timeout(
    settings: &mut Settings,
    key: Key,
    heartbeat: Duration,
) -> Result<Duration, ConfigError> {
    let time = settings.time_or_default(key)?;
    let least = heartbeat * HEARTBEATS_PER_RAFT_TIMEOUT;
    if time < least && settings.is_given(key) {
        settings.notice(format!(
            "--{} ({time:?}) is raised to {HEARTBEATS_PER_RAFT_TIMEOUT} heartbeat intervals ({least:?})",
            key.row().name
        ));
    }
    Ok(time.max(least))
}

fn auto_compaction(settings: &Settings) -> Result<AutoCompaction, ConfigError> {
    let text = settings.text(Key::AutoCompactionRetention);
    let invalid = |reason: String| settings.invalid(Key::AutoCompactionRetention, reason);
    if text.is_empty() {
        return Ok(AutoCompaction::Off);
    }
    if settings.text(Key::AutoCompactionMode) == "revision" {
        let by_revision =
            |reason| format!("{reason}; in mode revision this is a number of revisions");
        return match parse_int(text).map_err(|reason| invalid(by_revision(reason)))? {
            0 => Ok(AutoCompaction::Off),
            revisions if revisions > 0 => Ok(AutoCompaction::Revision(revisions)),
            _ => Err(invalid("the number cannot be negative".to_owned())),
        };
    }
    let hours = text
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| format!("{text}h"));
    match parse_duration(hours.as_deref().unwrap_or(text)).map_err(invalid)? {
        Duration::ZERO => Ok(AutoCompaction::Off),
        time => Ok(AutoCompaction::Periodic(time)),
    }
}

fn allowed(settings: &Settings, key: Key) -> Allowed {
    let names = settings.list(key);
    if names.is_empty() || names.iter().any(|name| name == "*") {
        Allowed::Any
    } else {
        Allowed::Only(names)
    }
}

fn auth_token(settings: &Settings) -> Result<String, ConfigError> {
    let text = settings.text(Key::AuthToken);
    match text.split_once(',').map_or(text, |(kind, _)| kind) {
        "" | "simple" | "jwt" => Ok(text.to_owned()),
        _ => Err(settings.invalid(
            Key::AuthToken,
            "expected simple, or jwt with its options".to_owned(),
        )),
    }
}

/// Gates by name, and the switches of older releases. The stronger source wins; within one source, the gate.
fn feature_gates(settings: &Settings) -> Result<FeatureGates, ConfigError> {
    let text = settings.text(Key::FeatureGates);
    let gates_layer = settings.origin(Key::FeatureGates).layer();
    let mut gates = FeatureGates::default();
    let mut stronger = Vec::new();
    for key in Key::ALL {
        let (Standing::Gate(feature), Some(given)) = (key.row().standing, settings.given(*key))
        else {
            continue;
        };
        let on = settings.boolean(*key)?;
        if given.origin.layer() > gates_layer {
            stronger.push((feature, on));
        }
        gates.set(feature, on);
    }
    gates
        .merge(text)
        .map_err(|reason| settings.invalid(Key::FeatureGates, reason))?;
    for (feature, on) in stronger {
        gates.set(feature, on);
    }
    Ok(gates)
}
