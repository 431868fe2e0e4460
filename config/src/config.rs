//! The result: every setting that means something to the server, typed and within its range.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::audit::AuditConfig;
use crate::bootstrap::{DiscoverySrv, InitialMember};
use crate::feature::FeatureGates;
use crate::issuer::ExternalIssuerConfig;
use crate::log::LogConfig;
use crate::print;
use crate::profile::{ByProfile, Profile};
use crate::security::TransportSecurity;
use crate::settings::Settings;
use crate::url::ListenUrl;

/// A validated configuration. Fields are named after the flags, where their meaning is described by `--help`; the docs here
/// say what a flag's text became.
#[derive(Debug, Clone)]
pub struct Config {
    /// Nothing was given that etcd knows: the server makes a development CA, a server certificate for `localhost` and a client
    /// certificate, and requires client certificates. [`Config::client_tls`] then has no files.
    pub quick_start: bool,
    /// Rules of a cluster founded with this configuration. A member that has data keeps the profile stored there: it, and not
    /// this field, goes into [`Config::for_profile`].
    pub profile: Profile,
    /// Threads that serve connections; absent for one per core.
    pub workers: Option<NonZeroUsize>,
    /// Plaintext may be served to other machines; belongs into every start-up log.
    pub allow_plaintext: bool,
    /// Time a new connection has to finish its TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// Client connections open at one time.
    pub max_connections: usize,
    /// TLS handshakes in progress at one time.
    pub max_pending_handshakes: usize,
    /// Watches on one watch stream.
    pub max_watches_per_stream: usize,
    /// Leases alive at one time in one tenant.
    pub max_leases: usize,
    /// Bytes that the answers to long ranges may hold together.
    pub memory_budget_bytes: u64,
    /// Bytes of recently used values kept in memory.
    pub value_cache_bytes: u64,

    /// This member's name; neither empty nor with control characters, at most 255 bytes.
    pub name: String,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where the raft log is kept, if not in `data_dir`.
    pub wal_dir: Option<PathBuf>,
    /// Applied entries between two cuts of the raft log; never zero.
    pub snapshot_count: u64,
    /// Entries kept behind a cut for members that lag; never zero.
    pub snapshot_catchup_entries: u64,
    /// Time between heartbeats.
    pub heartbeat_interval: Duration,
    /// At least five heartbeat intervals, at most 50 s.
    pub election_timeout: Duration,
    /// Start with most of the election timeout elapsed.
    pub initial_election_tick_advance: bool,
    /// Listeners for clients; never empty.
    pub listen_client_urls: Vec<ListenUrl>,
    /// Listeners for HTTP alone. If not empty, `listen_client_urls` serve gRPC alone.
    pub listen_client_http_urls: Vec<ListenUrl>,
    /// Further listeners for metrics and health.
    pub listen_metrics_urls: Vec<ListenUrl>,
    /// How clients reach this member; 1 to 32.
    pub advertise_client_urls: Vec<ListenUrl>,
    /// Bytes a tenant may keep before its NOSPACE alarm; absent for no quota.
    pub quota_backend_bytes: Option<u64>,
    /// Operations in one transaction.
    pub max_txn_ops: usize,
    /// Bytes of one client request.
    pub max_request_bytes: usize,
    /// Streams that one client connection may have open.
    pub max_concurrent_streams: u32,
    /// Pings on client connections.
    pub grpc_keepalive: GrpcKeepalive,
    /// Time without a byte after which a connection to another member is given up; at least two heartbeat intervals.
    pub raft_read_timeout: Duration,
    /// The same for bytes that another member does not take.
    pub raft_write_timeout: Duration,
    /// Set SO_REUSEPORT on listeners.
    pub socket_reuse_port: bool,
    /// Set SO_REUSEADDR on listeners.
    pub socket_reuse_address: bool,
    /// Do not sync the log.
    pub unsafe_no_fsync: bool,

    /// How other members reach this one, by TCP; 1 to 32.
    pub initial_advertise_peer_urls: Vec<ListenUrl>,
    /// Members of a new cluster, each once, in the order given; empty exactly if `discovery_srv` is to find them. Whether this
    /// member is among them matters only when a cluster is founded or joined: [`Config::check_bootstrap`].
    pub initial_cluster: Vec<InitialMember>,
    /// Where DNS names them instead.
    pub discovery_srv: Option<DiscoverySrv>,
    /// Found or join.
    pub initial_cluster_state: ClusterState,
    /// Distinguishes clusters that have the same members.
    pub initial_cluster_token: String,
    /// Refuse member changes that would lose the quorum.
    pub strict_reconfig_check: bool,
    /// Ask for votes before an election is started.
    pub pre_vote: bool,
    /// Learners the cluster may have.
    pub max_learners: usize,
    /// Make this member the only one of its cluster.
    pub force_new_cluster: bool,
    /// History that is kept.
    pub auto_compaction: AutoCompaction,

    /// TLS towards clients.
    pub client_tls: TransportSecurity,
    /// TLS towards other members.
    pub peer_tls: TransportSecurity,
    /// Origins from which browsers may call.
    pub cors: Allowed,
    /// Host names that an HTTP request may address on a plaintext listener.
    pub host_whitelist: Allowed,

    /// `simple`, `jwt,…` or empty. The options are read by the auth crate, which may still refuse them.
    pub auth_token: String,
    /// Life of a simple token; never zero.
    pub auth_token_ttl: Duration,
    /// As given. Password hashing does not use it.
    pub bcrypt_cost: u32,
    /// The only SPIFFE trust domain whose ids name users; absent for any. A valid trust domain name.
    pub client_cert_uri_trust_domain: Option<String>,
    /// Bytes that password hashing may use at one time; at least one hash of 19 MiB.
    pub login_memory_bytes: u64,
    /// An issuer beside this server whose tokens are accepted.
    pub external_issuer: Option<ExternalIssuerConfig>,
    /// The audit log, but for its sinks, which are in [`Config::for_profile`].
    pub audit: AuditConfig,

    /// The log.
    pub log: LogConfig,
    /// Applying an entry for longer is logged.
    pub warning_apply_duration: Duration,
    /// Answering a request for longer is logged.
    pub warning_unary_request_duration: Duration,
    /// Serve profiles under /debug/pprof/.
    pub enable_pprof: bool,
    /// Amount of metrics.
    pub metrics: MetricsDetail,

    /// Time between comparisons of the members' data, if they are wanted.
    pub corrupt_check_time: Option<Duration>,
    /// Time between comparisons of the hashes of compactions; counts if the gate `CompactHashCheck` is on.
    pub compact_hash_check_time: Duration,
    /// Revisions removed in one batch of a compaction; never zero.
    pub compaction_batch_limit: usize,
    /// Pause between two batches; never zero.
    pub compaction_sleep_interval: Duration,
    /// Idle time after which a watch that asked for it gets a progress notification; never zero.
    pub watch_progress_notify_interval: Duration,
    /// Serve the JSON gateway under /v3/.
    pub enable_grpc_gateway: bool,
    /// Features that are on.
    pub feature_gates: FeatureGates,

    /// What an operator should know of this configuration, each once, for the log at start: settings that were accepted and do
    /// nothing, older spellings, unknown variables, risky values.
    pub notices: Vec<String>,

    /// For [`Config::for_profile`].
    pub(crate) by_profile: ByProfile,
    /// For [`Config::print`].
    pub(crate) settings: Settings,
}

impl Config {
    /// Every value with its origin, one per line, and the notices as comments; what `--print-config` shows. Passwords are not
    /// in it.
    #[must_use]
    pub fn print(&self) -> String {
        print::values(&self.settings, &self.notices)
    }
}

/// Pings on client connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcKeepalive {
    /// Least time between two pings of a client.
    pub min_time: Duration,
    /// Idle time after which the server pings; absent for never.
    pub interval: Option<Duration>,
    /// Time a pinged client has to answer; absent for ever.
    pub timeout: Option<Duration>,
}

/// Whether a cluster is founded or joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// Founded.
    New,
    /// Joined.
    Existing,
}

/// History that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    /// All of it, until a client compacts.
    Off,
    /// The last so much time.
    Periodic(Duration),
    /// The last so many revisions.
    Revision(i64),
}

/// A list of permitted names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// All names.
    Any,
    /// These.
    Only(Vec<String>),
}

impl Allowed {
    /// Whether `name` is permitted, compared without regard to ASCII case.
    #[must_use]
    pub fn permits(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names.iter().any(|known| known.eq_ignore_ascii_case(name)),
        }
    }
}

/// Amount of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsDetail {
    /// Without histograms.
    Basic,
    /// With latency histograms of every RPC.
    Extensive,
}
