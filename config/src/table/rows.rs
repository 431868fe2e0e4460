//! The rows: every flag of etcd 3.4 to 3.7 (behaviour §4.2) and ours. Names and defaults are etcd's unless a comment says
//! otherwise; ranges are ours, and exist so that no number can be configured that no server could mean.

use super::Kind::{
    Anything, Bool, Choice, DialUrls, Int, List, ListenUrls, PeerListenUrls, PeerUrls, Text, Time,
};
use super::Section::{
    Audit, Auth, Clustering, Command, Holdfast, Logging, Maintenance, Member, Monitoring, Older,
    Security, Tracing, Unsafe, Users,
};
use super::Standing::{Fixed, Gate, Ignored, Refused};
use super::{Row, Standing};
use crate::feature::Feature;

const MAX: i64 = i64::MAX;
const MIB: i64 = 1 << 20;
const LOGIN_HASH_BYTES: i64 = 19 * MIB;
/// Milliseconds of the longest duration that Go, and so a unit file, can express.
const EVER: u64 = i64::MAX as u64 / 1_000_000;
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
const NO_DISCOVERY: &str = "members are found by --initial-cluster or --discovery-srv; starting without the discovery \
                            service would found a cluster of its own";
const OF_DISCOVERY: &str =
    "members are found by --initial-cluster or --discovery-srv, not by a discovery service";
const NO_PROXY: &str = "there is no v2 proxy";
const NO_V2: &str = "there is no v2 API and no v2 store";
const NO_BBOLT: &str =
    "the store is not bbolt; rows are written behind the log in batches of its own choice";
const ARGON2ID: &str = "passwords are hashed with Argon2id; a bcrypt hash is only taken over from an etcd, up to cost 14, \
                        until its user logs in";
const NO_TRACES: &str = "spans are not exported";
const LONG_IGNORED: &str = "etcd ignores it too";
const STORE_SHRINKS: &str = "the store gives space back by itself";

macro_rules! rows {
    ($($key:ident = $row:expr;)*) => {
        /// The settings by name; a key is the number of its row.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Key { $($key),* }

        impl Key {
            pub(crate) const ALL: &[Self] = &[$(Self::$key),*];
        }

        /// The rows in the order of [`Key`].
        pub(crate) static ROWS: &[Row] = &[$($row),*];
    };
}

rows! {
    Help = Row::new(Command, "help", Bool, "false",
        "Show this text (also -h).");
    Version = Row::new(Command, "version", Bool, "false",
        "Show the version.");
    PrintConfig = Row { etcd: false, ..Row::new(Command, "print-config", Bool, "false",
        "Show every value with its origin, and do not start.") };
    ConfigFile = Row::new(Command, "config-file", Text, "",
        "YAML or JSON file with these settings; environment and flags win over it. Variable \
         ETCD_CONFIG_FILE.").standing(Standing::Command { variable: true });

    Profile = Row::new(Holdfast, "profile", Choice(&["strict", "etcd"]), "etcd",
        "Rules of a new cluster: 'strict' enforces password length, lease ownership and named peers, \
         'etcd' behaves as etcd does. 'strict' is the default of the quick start.");
    Workers = Row::new(Holdfast, "workers", Int(0, 1024), "0",
        "Threads that serve connections; 0 means one per core.");
    AllowPlaintext = Row::new(Holdfast, "allow-plaintext", Bool, "false",
        "Permit http:// on an address that other machines reach.");
    TlsHandshakeTimeout = Row::new(Holdfast, "tls-handshake-timeout", Time(100, 600_000), "5s",
        "Time a new connection has to finish its TLS handshake.");
    MaxConnections = Row::new(Holdfast, "max-connections", Int(1, 10_000_000), "10000",
        "Client connections open at one time; further ones are closed at once.");
    MaxConnectionsPerSource = Row::new(Holdfast, "max-connections-per-source", Int(0, 10_000_000), "0",
        "Client connections open at one time from one address; further ones are closed at once. 0 means no cap.")
        .strict("1024");
    MaxPendingHandshakes = Row::new(Holdfast, "max-pending-handshakes", Int(1, 1_000_000), "1024",
        "TLS handshakes in progress at one time.");
    MaxWatchesPerStream = Row::new(Holdfast, "max-watches-per-stream", Int(1, 10_000_000), "100000",
        "Watches on one watch stream.");
    MaxLeases = Row::new(Holdfast, "max-leases", Int(1, 1_000_000_000), "1000000",
        "Leases alive at one time in one tenant.");
    MemoryBudgetBytes = Row::new(Holdfast, "memory-budget-bytes", Int(16 * MIB, MAX), "1073741824",
        "Memory that the answers to long ranges may hold together; more of them wait.")
        .unit("bytes");
    ValueCacheBytes = Row::new(Holdfast, "value-cache-bytes", Int(0, MAX), "4194304",
        "Memory for recently used values; others are read from the store.").unit("bytes");
    ClientCertAllowedCn = Row::new(Holdfast, "client-cert-allowed-cn", List, "",
        "Common names that a client certificate may have; empty allows all.")
        .file(&["client-transport-security/allowed-cn", "client-transport-security/allowed-cns"]);

    ClientCertUriTrustDomain = Row::new(Holdfast, "client-cert-uri-trust-domain", Text, "",
        "The only SPIFFE trust domain whose ids in client certificates name users; empty allows all that the CA signs.")
        .file(&["client-transport-security/uri-trust-domain"]);

    InitialAuth = Row::new(Users, "initial-auth", Bool, "false",
        "Found a new cluster with authentication on: user root, with role root and without a password, is known by \
         its certificate.").strict("true");
    MinPasswordLength = Row::new(Users, "min-password-length", Int(0, 64), "0",
        "Least length of a new password.").unit("bytes").strict("12");
    // The least is one hash of the kind that is made here (19 MiB).
    LoginMemoryBytes = Row::new(Users, "login-memory-bytes", Int(LOGIN_HASH_BYTES, 1 << 40), "67108864",
        "Memory that password hashes may use together, 19 MiB each; further logins wait.").unit("bytes");
    AuthJwksFile = Row::new(Users, "auth-jwks-file", Text, "",
        "Public keys (JWKS) of an external issuer whose tokens are accepted too.");
    AuthJwtIssuer = Row::new(Users, "auth-jwt-issuer", Text, "",
        "The 'iss' that tokens of --auth-jwks-file must have.");
    AuthJwtAudience = Row::new(Users, "auth-jwt-audience", Text, "",
        "The 'aud' that tokens of --auth-jwks-file must have.");
    AuthJwtUserClaim = Row::new(Users, "auth-jwt-user-claim", Text, "sub",
        "The claim of such a token that names the user.");
    AuthJwtRolesClaim = Row::new(Users, "auth-jwt-roles-claim", Text, "",
        "The claim of such a token that lists the roles of a user who has no record here; empty for none.");

    AuditLog = Row::new(Audit, "audit-log", List, "",
        "Where audit records go: file:<path>, stdout, syslog:<path of a socket>, syslog:<host>:<port>; empty or none for \
         nowhere. A path may begin with ${data-dir}.").strict("file:${data-dir}/audit/audit.log");
    AuditRulesFile = Row::new(Audit, "audit-rules-file", Text, "",
        "Rules that pick what is recorded, and how much of it; empty for the built-in ones.");
    AuditFileMaxBytes = Row::new(Audit, "audit-file-max-bytes", Int(MIB, 1 << 40), "104857600",
        "Size at which a new audit file is begun.").unit("bytes");
    AuditFileMaxCount = Row::new(Audit, "audit-file-max-count", Int(1, 10_000), "10",
        "Full audit files to keep beside the current one.");
    AuditSync = Row::new(Audit, "audit-sync", Choice(&["none", "checkpoint", "block"]), "checkpoint",
        "When an audit file is synced to disk: never, now and then, or before each request is answered.");
    AuditDeadline = Row::new(Audit, "audit-deadline", Time(10, 60_000), "2s",
        "Time a sink has to take a record.");

    Name = Row::new(Member, "name", Text, "default",
        "Name of this member, unique in its cluster.");
    DataDir = Row::new(Member, "data-dir", Text, "${name}.etcd",
        "Directory for everything this member keeps. The quick start uses holdfast-data.");
    WalDir = Row::new(Member, "wal-dir", Text, "",
        "Separate directory for the raft log.");
    SnapshotCount = Row::new(Member, "snapshot-count", Int(0, 1_000_000_000), "10000",
        "Applied entries between two cuts of the raft log; 0 means the default.");
    SnapshotCatchupEntries = Row::new(Member, "snapshot-catchup-entries", Int(0, 1_000_000_000), "5000",
        "Entries kept behind a cut, for members that lag; who lags more gets a snapshot. 0 means the default.")
        .older(&["experimental-snapshot-catchup-entries"]);
    HeartbeatInterval = Row::new(Member, "heartbeat-interval", Int(1, 10_000), "100",
        "Time between heartbeats of a leader.").unit("milliseconds");
    ElectionTimeout = Row::new(Member, "election-timeout", Int(5, 50_000), "1000",
        "Time without a heartbeat after which an election starts; at least 5 heartbeat intervals.")
        .unit("milliseconds");
    InitialElectionTickAdvance = Row::new(Member, "initial-election-tick-advance", Bool, "true",
        "Start with most of the election timeout elapsed.");
    ListenPeerUrls = Row::new(Member, "listen-peer-urls", PeerListenUrls, "http://localhost:2380",
        "URLs to listen on for other members: http:// or https://. Empty for none, which serves a cluster of one.")
        .strict("");
    ListenClientUrls = Row::new(Member, "listen-client-urls", ListenUrls, "http://localhost:2379",
        "URLs to listen on for clients: gRPC, and HTTP unless --listen-client-http-urls is given.");
    ListenClientHttpUrls = Row::new(Member, "listen-client-http-urls", ListenUrls, "",
        "URLs to listen on for HTTP alone; --listen-client-urls then serve gRPC alone.");
    MaxSnapshots = Row::new(Member, "max-snapshots", Int(0, MAX), "5",
        "Snapshot files to keep.").standing(Ignored("one snapshot is kept, and replaced as a whole"));
    MaxWals = Row::new(Member, "max-wals", Int(0, MAX), "5",
        "Log files to keep.")
        .standing(Ignored("log segments are recycled as soon as a snapshot covers them"));
    QuotaBackendBytes = Row::new(Member, "quota-backend-bytes", Int(i64::MIN, MAX), "0",
        "Size at which a tenant gets the NOSPACE alarm; 0 means 2 GiB, a negative number no quota.")
        .unit("bytes");
    BackendBatchInterval = Row::new(Member, "backend-batch-interval", Time(0, EVER), "",
        "Longest time before a store transaction is committed.").standing(Ignored(NO_BBOLT));
    BackendBatchLimit = Row::new(Member, "backend-batch-limit", Int(0, MAX), "0",
        "Most operations before a store transaction is committed.").standing(Ignored(NO_BBOLT));
    BackendBboltFreelistType = Row::new(Member, "backend-bbolt-freelist-type", Choice(&["map", "array"]), "map",
        "Kind of the store's free list.")
        .older(&["experimental-backend-bbolt-freelist-type"])
        .standing(Ignored(NO_BBOLT));
    MaxTxnOps = Row::new(Member, "max-txn-ops", Int(1, 1_000_000), "128",
        "Operations in one transaction.");
    MaxRequestBytes = Row::new(Member, "max-request-bytes", Int(1, 256 * MIB), "1572864",
        "Size of a client request.").unit("bytes");
    MaxConcurrentStreams = Row::new(Member, "max-concurrent-streams", Int(1, u32::MAX as i64), "4294967295",
        "Streams that one client connection may have open.");
    GrpcKeepaliveMinTime = Row::new(Member, "grpc-keepalive-min-time", Time(0, EVER), "5s",
        "Least time between two pings of a client.")
        .standing(Ignored("pings are answered at a bounded cost, however many come"));
    GrpcKeepaliveInterval = Row::new(Member, "grpc-keepalive-interval", Time(0, EVER), "2h",
        "Idle time after which the server pings a client; 0 turns it off.");
    GrpcKeepaliveTimeout = Row::new(Member, "grpc-keepalive-timeout", Time(0, EVER), "20s",
        "Time a pinged client has to answer; 0 turns it off.");
    SocketReusePort = Row::new(Member, "socket-reuse-port", Bool, "false",
        "Set SO_REUSEPORT on listeners.")
        .file(&["socket-reuse-port", "socket-options/reuse-port"]);
    SocketReuseAddress = Row::new(Member, "socket-reuse-address", Bool, "false",
        "Set SO_REUSEADDR on listeners.")
        .file(&["socket-reuse-address", "socket-options/reuse-address"]);
    RaftReadTimeout = Row::new(Member, "raft-read-timeout", Time(0, EVER), "5s",
        "Time without a byte after which a connection to another member is given up; 0 means the default, and it is \
         at least 2 heartbeat intervals.");
    RaftWriteTimeout = Row::new(Member, "raft-write-timeout", Time(0, EVER), "5s",
        "Time after which a connection is given up whose other end takes no bytes; 0 means the default, and it is at \
         least 2 heartbeat intervals.");
    MemoryMlock = Row::new(Member, "memory-mlock", Bool, "false",
        "Keep the store's pages in memory.")
        .older(&["experimental-memory-mlock"])
        .standing(Fixed(&["false"], "the store's pages are not locked"));

    InitialAdvertisePeerUrls = Row::new(Clustering, "initial-advertise-peer-urls", PeerUrls, "http://localhost:2380",
        "URLs under which other members reach this one: http:// or https://.");
    InitialCluster = Row::new(Clustering, "initial-cluster", Text, "default=http://localhost:2380",
        "Members of a new cluster: name=url,name2=url2; a name with several URLs is repeated. By default this member alone; \
         without meaning once the member has data.");
    InitialClusterState = Row::new(Clustering, "initial-cluster-state", Choice(&["new", "existing"]), "new",
        "Whether the cluster is founded or joined; without meaning once the member has data.");
    InitialClusterToken = Row::new(Clustering, "initial-cluster-token", Text, "etcd-cluster",
        "Distinguishes clusters that have the same members.");
    AdvertiseClientUrls = Row::new(Clustering, "advertise-client-urls", DialUrls, "http://localhost:2379",
        "URLs under which clients reach this member.");
    DiscoverySrv = Row::new(Clustering, "discovery-srv", Text, "",
        "DNS domain whose SRV records _etcd-server-ssl._tcp and _etcd-server._tcp name the members of a new cluster, \
         instead of --initial-cluster.");
    DiscoverySrvName = Row::new(Clustering, "discovery-srv-name", Text, "",
        "Suffix of the SRV names: _etcd-server-ssl-<suffix>._tcp.");
    DiscoveryToken = Row::new(Clustering, "discovery-token", Text, "",
        "Token of the cluster at the discovery service.").file(&["discovery-token", "discovery-config/token"])
        .standing(Refused(&[""], NO_DISCOVERY));
    DiscoveryEndpoints = Row::new(Clustering, "discovery-endpoints", List, "",
        "Endpoints of the discovery service.").file(&["discovery-endpoints", "discovery-config/endpoints"])
        .standing(Refused(&[""], NO_DISCOVERY));
    DiscoveryDialTimeout = Row::new(Clustering, "discovery-dial-timeout", Time(0, EVER), "2s",
        "Discovery: time to connect.").standing(Ignored(OF_DISCOVERY));
    DiscoveryRequestTimeout = Row::new(Clustering, "discovery-request-timeout", Time(0, EVER), "5s",
        "Discovery: time for a request.").standing(Ignored(OF_DISCOVERY));
    DiscoveryKeepaliveTime = Row::new(Clustering, "discovery-keepalive-time", Time(0, EVER), "2s",
        "Discovery: time between pings.").standing(Ignored(OF_DISCOVERY));
    DiscoveryKeepaliveTimeout = Row::new(Clustering, "discovery-keepalive-timeout", Time(0, EVER), "6s",
        "Discovery: time for a ping's answer.").standing(Ignored(OF_DISCOVERY));
    DiscoveryInsecureTransport = Row::new(Clustering, "discovery-insecure-transport", Bool, "true",
        "Discovery: plaintext.").standing(Ignored(OF_DISCOVERY));
    DiscoveryInsecureSkipTlsVerify = Row::new(Clustering, "discovery-insecure-skip-tls-verify", Bool, "false",
        "Discovery: do not verify the service.").standing(Ignored(OF_DISCOVERY));
    DiscoveryCertFile = Row::new(Clustering, "discovery-cert", Text, "",
        "Discovery: client certificate.").standing(Ignored(OF_DISCOVERY));
    DiscoveryCertKeyFile = Row::new(Clustering, "discovery-key", Text, "",
        "Discovery: client key.").standing(Ignored(OF_DISCOVERY));
    DiscoveryCacert = Row::new(Clustering, "discovery-cacert", Text, "",
        "Discovery: CA of the service.").standing(Ignored(OF_DISCOVERY));
    DiscoveryUser = Row::new(Clustering, "discovery-user", Text, "",
        "Discovery: user, perhaps with password.").standing(Ignored(OF_DISCOVERY));
    DiscoveryPassword = Row::new(Clustering, "discovery-password", Text, "",
        "Discovery: password.").standing(Ignored(OF_DISCOVERY));
    DiscoveryFallback = Row::new(Clustering, "discovery-fallback", Choice(&["exit", "proxy"]), "exit",
        "What to do when discovery fails.").standing(Fixed(&["exit", "proxy"], OF_DISCOVERY));
    StrictReconfigCheck = Row::new(Clustering, "strict-reconfig-check", Bool, "true",
        "Refuse member changes that would lose the quorum.");
    PreVote = Row::new(Clustering, "pre-vote", Bool, "true",
        "Ask the others before starting an election, so that a member that comes back disturbs nobody.");
    MaxLearners = Row::new(Clustering, "max-learners", Int(0, 1000), "1",
        "Learners the cluster may have.");
    AutoCompactionRetention = Row::new(Clustering, "auto-compaction-retention", Text, "0",
        "History to keep: a duration (a bare number means hours) or a number of revisions, by mode; 0 \
         turns compaction off.");
    AutoCompactionMode = Row::new(Clustering, "auto-compaction-mode", Choice(&["periodic", "revision"]), "periodic",
        "What --auto-compaction-retention counts.");

    CertFile = Row::new(Security, "cert-file", Text, "",
        "Server certificate for clients (PEM).").file(&["client-transport-security/cert-file"]);
    CertKeyFile = Row::new(Security, "key-file", Text, "",
        "Key of --cert-file (PEM).").file(&["client-transport-security/key-file"]);
    ClientCertFile = Row::new(Security, "client-cert-file", Text, "",
        "Certificate for the server's connection to itself.")
        .file(&["client-transport-security/client-cert-file"])
        .standing(Ignored("the JSON gateway does not connect to the server"));
    ClientKeyFile = Row::new(Security, "client-key-file", Text, "",
        "Key of --client-cert-file.")
        .file(&["client-transport-security/client-key-file"])
        .standing(Ignored("the JSON gateway does not connect to the server"));
    ClientCertAuth = Row::new(Security, "client-cert-auth", Bool, "false",
        "Require client certificates and take the user from their common name.")
        .file(&["client-transport-security/client-cert-auth"]);
    TrustedCaFile = Row::new(Security, "trusted-ca-file", Text, "",
        "CA of client certificates (PEM); alone it already requires them.")
        .file(&["client-transport-security/trusted-ca-file"]);
    ClientCrlFile = Row::new(Security, "client-crl-file", Text, "",
        "Revocation list for client certificates.")
        .file(&["client-transport-security/crl-file", "client-crl-file"]);
    ClientCertAllowedHostname = Row::new(Security, "client-cert-allowed-hostname", List, "",
        "Host names of which a client certificate must carry one; empty allows all.")
        .file(&["client-transport-security/allowed-hostname", "client-transport-security/allowed-hostnames"]);
    ClientSkipSan = Row::new(Security, "client-skip-client-san-verification", Bool, "false",
        "Do not compare a client certificate's host names with its address.")
        .file(&["client-transport-security/skip-client-san-verification"])
        .standing(Fixed(&["true", "false"], "client addresses are never compared with certificates"));
    AutoTls = Row::new(Security, "auto-tls", Bool, "false",
        "Serve clients with a certificate made at start.").file(&["client-transport-security/auto-tls"]);
    PeerCertFile = Row::new(Security, "peer-cert-file", Text, "",
        "Certificate of this member for others (PEM); in profile strict it names the member.").file(&["peer-transport-security/cert-file"]);
    PeerCertKeyFile = Row::new(Security, "peer-key-file", Text, "",
        "Key of --peer-cert-file (PEM).").file(&["peer-transport-security/key-file"]);
    PeerClientCertFile = Row::new(Security, "peer-client-cert-file", Text, "",
        "Separate certificate for connections to other members (PEM).")
        .file(&["peer-transport-security/client-cert-file"]);
    PeerClientKeyFile = Row::new(Security, "peer-client-key-file", Text, "",
        "Key of --peer-client-cert-file (PEM).").file(&["peer-transport-security/client-key-file"]);
    PeerClientCertAuth = Row::new(Security, "peer-client-cert-auth", Bool, "false",
        "Require certificates of other members.").file(&["peer-transport-security/client-cert-auth"]);
    PeerTrustedCaFile = Row::new(Security, "peer-trusted-ca-file", Text, "",
        "CA of the members' certificates (PEM); alone it already requires them.")
        .file(&["peer-transport-security/trusted-ca-file"]);
    PeerCrlFile = Row::new(Security, "peer-crl-file", Text, "",
        "Revocation list for members' certificates.")
        .file(&["peer-transport-security/crl-file", "peer-crl-file"]);
    PeerCertAllowedCn = Row::new(Security, "peer-cert-allowed-cn", List, "",
        "Common names that a member's certificate may have; empty allows all.")
        .file(&["peer-transport-security/allowed-cn", "peer-transport-security/allowed-cns"]);
    PeerCertAllowedHostname = Row::new(Security, "peer-cert-allowed-hostname", List, "",
        "Host names of which a member's certificate must carry one; empty allows all.")
        .file(&["peer-transport-security/allowed-hostname", "peer-transport-security/allowed-hostnames"]);
    PeerSkipSan = Row::new(Security, "peer-skip-client-san-verification", Bool, "false",
        "Do not compare a member's certificate with its address.")
        .older(&["experimental-peer-skip-client-san-verification"])
        .file(&["peer-transport-security/skip-client-san-verification", "peer-skip-client-san-verification"]);
    PeerAutoTls = Row::new(Security, "peer-auto-tls", Bool, "false",
        "Speak to other members with a certificate made at start.")
        .file(&["peer-transport-security/auto-tls"]);
    SelfSignedCertValidity = Row::new(Security, "self-signed-cert-validity", Int(1, 100), "1",
        "Validity of certificates made by --auto-tls and --peer-auto-tls.").unit("years");
    CipherSuites = Row::new(Security, "cipher-suites", List, "",
        "TLS 1.2 cipher suites to offer, by IANA name; empty for all that are sound.");
    // etcd's default is TLS1.2; ours is the design's: TLS 1.3 only unless told otherwise.
    TlsMinVersion = Row::new(Security, "tls-min-version", Choice(&["", "TLS1.2", "TLS1.3"]), "TLS1.3",
        "Lowest TLS version.");
    TlsMaxVersion = Row::new(Security, "tls-max-version", Choice(&["", "TLS1.2", "TLS1.3"]), "",
        "Highest TLS version; empty for the newest.");
    Cors = Row::new(Security, "cors", List, "*",
        "Origins from which browsers may call; empty or * for all.");
    HostWhitelist = Row::new(Security, "host-whitelist", List, "*",
        "Host names that an HTTP request may address on a plaintext listener; empty or * for all.");

    AuthToken = Row::new(Auth, "auth-token", Text, "simple",
        "Kind of the tokens given at login: simple, jwt with its options, or empty for none.");
    AuthTokenTtl = Row::new(Auth, "auth-token-ttl", Int(0, 31_536_000), "300",
        "Life of a simple token; 0 means the default.").unit("seconds");
    BcryptCost = Row::new(Auth, "bcrypt-cost", Int(4, 31), "10",
        "Cost of password hashing.").standing(Ignored(ARGON2ID));

    EnablePprof = Row::new(Monitoring, "enable-pprof", Bool, "false",
        "Serve profiles under /debug/pprof/.")
        .standing(Ignored("profiles are taken from outside, with perf"));
    Metrics = Row::new(Monitoring, "metrics", Choice(&["basic", "extensive"]), "basic",
        "Amount of metrics; 'extensive' adds latency histograms of every RPC.");
    ListenMetricsUrls = Row::new(Monitoring, "listen-metrics-urls", ListenUrls, "",
        "Further URLs for /metrics and health; https uses the client certificate.");

    Logger = Row::new(Logging, "logger", Choice(&["zap", "capnslog"]), "zap",
        "Log library.").standing(Fixed(&["zap", "capnslog"], ""));
    LogOutputs = Row::new(Logging, "log-outputs", List, "default",
        "Where the log goes: default or stderr, stdout, systemd/journal, or paths of files.")
        .older(&["log-output"]);
    LogLevel = Row::new(Logging, "log-level", Choice(&["debug", "info", "warn", "error", "dpanic", "panic", "fatal"]), "info",
        "Lowest level that is logged.");
    LogFormat = Row::new(Logging, "log-format", Choice(&["json", "console"]), "json",
        "How log lines look.");
    // Only in etcd's file, where it is not a flag.
    DisableLogSampling = Row::new(Logging, "disable-log-sampling", Bool, "true",
        "Write every log line.").standing(Fixed(&["true", "false"], "log lines are never sampled"));
    EnableLogRotation = Row::new(Logging, "enable-log-rotation", Bool, "false",
        "Rotate the one file in --log-outputs.");
    LogRotationConfigJson = Row::new(Logging, "log-rotation-config-json", Text, r#"{"maxsize":100,"maxage":0,"maxbackups":0,"localtime":false,"compress":false}"#,
        "Rotation: maxsize in MB, maxage in days, maxbackups in files (0 for no limit).");
    WarningApplyDuration = Row::new(Logging, "warning-apply-duration", Time(0, EVER), "100ms",
        "Applying an entry for longer is logged.").older(&["experimental-warning-apply-duration"]);
    WarningUnaryRequestDuration = Row::new(Logging, "warning-unary-request-duration", Time(0, EVER), "300ms",
        "Answering a request for longer is logged.").older(&["experimental-warning-unary-request-duration"]);

    EnableDistributedTracing = Row::new(Tracing, "enable-distributed-tracing", Bool, "false",
        "Export spans.")
        .older(&["experimental-enable-distributed-tracing"])
        .standing(Fixed(&["false"], NO_TRACES));
    DistributedTracingAddress = Row::new(Tracing, "distributed-tracing-address", Text, "localhost:4317",
        "Collector of spans.")
        .older(&["experimental-distributed-tracing-address"])
        .standing(Ignored(NO_TRACES));
    DistributedTracingServiceName = Row::new(Tracing, "distributed-tracing-service-name", Text, "etcd",
        "Service name in spans.")
        .older(&["experimental-distributed-tracing-service-name"])
        .standing(Ignored(NO_TRACES));
    DistributedTracingInstanceId = Row::new(Tracing, "distributed-tracing-instance-id", Text, "",
        "Instance name in spans.")
        .older(&["experimental-distributed-tracing-instance-id"])
        .standing(Ignored(NO_TRACES));
    DistributedTracingSamplingRate = Row::new(Tracing, "distributed-tracing-sampling-rate", Int(0, 1_000_000), "0",
        "Spans sampled, per million.")
        .older(&["experimental-distributed-tracing-sampling-rate"])
        .standing(Ignored(NO_TRACES));

    FeatureGates = Row::new(Maintenance, "feature-gates", Text, "",
        "Feature gates to set: Name=true,Name=false; AllAlpha and AllBeta set a whole stage. \
         InitialCorruptCheck and CompactHashCheck act; the others are only shown in the metrics.");
    CorruptCheckTime = Row::new(Maintenance, "corrupt-check-time", Time(0, EVER), "0s",
        "Time between comparisons of the members' data; 0 turns them off.")
        .older(&["experimental-corrupt-check-time"]);
    CompactHashCheckTime = Row::new(Maintenance, "compact-hash-check-time", Time(1, EVER), "1m",
        "Time between comparisons of the hashes of compactions, with the gate CompactHashCheck.")
        .older(&["experimental-compact-hash-check-time"]);
    CompactionBatchLimit = Row::new(Maintenance, "compaction-batch-limit", Int(0, 1_000_000), "1000",
        "Revisions removed in one batch of a compaction; 0 means the default.")
        .older(&["experimental-compaction-batch-limit"]);
    CompactionSleepInterval = Row::new(Maintenance, "compaction-sleep-interval", Time(0, HOUR), "10ms",
        "Pause between two batches of a compaction; 0 means the default.")
        .older(&["experimental-compaction-sleep-interval"]);
    WatchProgressNotifyInterval = Row::new(Maintenance, "watch-progress-notify-interval", Time(0, EVER), "10m",
        "Idle time after which a watch that asked for it gets a progress notification; 0 means the \
         default.").older(&["experimental-watch-progress-notify-interval"]);
    DowngradeCheckTime = Row::new(Maintenance, "downgrade-check-time", Time(0, DAY), "5s",
        "Time between checks of a downgrade.")
        .older(&["experimental-downgrade-check-time"])
        .standing(Ignored("versions are not changed on a timer"));
    BootstrapDefragThresholdMegabytes = Row::new(Maintenance, "bootstrap-defrag-threshold-megabytes", Int(0, MAX), "0",
        "Space that a defragmentation at start must gain.")
        .unit("megabytes")
        .older(&["experimental-bootstrap-defrag-threshold-megabytes"])
        .standing(Fixed(&["0"], STORE_SHRINKS));
    EnableGrpcGateway = Row::new(Maintenance, "enable-grpc-gateway", Bool, "true",
        "Serve the JSON gateway under /v3/.")
        .standing(Ignored("the JSON gateway is not served"));

    ForceNewCluster = Row::new(Unsafe, "force-new-cluster", Bool, "false",
        "Make this member the only one of its cluster, for disaster recovery.");
    UnsafeNoFsync = Row::new(Unsafe, "unsafe-no-fsync", Bool, "false",
        "Do not sync the log: a power cut loses acknowledged writes.");

    InitialCorruptCheck = Row::new(Older, "experimental-initial-corrupt-check", Bool, "false",
        "Now the feature gate InitialCorruptCheck.").standing(Gate(Feature::InitialCorruptCheck));
    CompactHashCheckEnabled = Row::new(Older, "experimental-compact-hash-check-enabled", Bool, "false",
        "Now the feature gate CompactHashCheck.").standing(Gate(Feature::CompactHashCheck));
    EnableLeaseCheckpoint = Row::new(Older, "experimental-enable-lease-checkpoint", Bool, "false",
        "Now the feature gate LeaseCheckpoint.").standing(Gate(Feature::LeaseCheckpoint));
    EnableLeaseCheckpointPersist = Row::new(Older, "experimental-enable-lease-checkpoint-persist", Bool, "false",
        "Now the feature gate LeaseCheckpointPersist.").standing(Gate(Feature::LeaseCheckpointPersist));
    StopGrpcServiceOnDefrag = Row::new(Older, "experimental-stop-grpc-service-on-defrag", Bool, "false",
        "Now the feature gate StopGRPCServiceOnDefrag.").standing(Gate(Feature::StopGrpcServiceOnDefrag));
    TxnModeWriteWithSharedBuffer = Row::new(Older, "experimental-txn-mode-write-with-shared-buffer", Bool, "true",
        "Now the feature gate TxnModeWriteWithSharedBuffer.")
        .standing(Gate(Feature::TxnModeWriteWithSharedBuffer));
    EnableV2V3 = Row::new(Older, "experimental-enable-v2v3", Text, "",
        "v2 API on the v3 store.").standing(Fixed(&[""], NO_V2));
    EnableV2 = Row::new(Older, "enable-v2", Bool, "false",
        "v2 API.").standing(Fixed(&["false"], NO_V2));
    V2Deprecation = Row::new(Older, "v2-deprecation", Text, "write-only",
        "Phase of the v2 store's removal.").standing(Ignored(NO_V2));
    Discovery = Row::new(Older, "discovery", Text, "",
        "URL of the v2 discovery service.").standing(Refused(&[""], NO_DISCOVERY));
    DiscoveryProxy = Row::new(Older, "discovery-proxy", Text, "",
        "HTTP proxy to the discovery service.").standing(Fixed(&[""], OF_DISCOVERY));
    Proxy = Row::new(Older, "proxy", Choice(&["off", "readonly", "on", "false"]), "off",
        "v2 proxy.").standing(Refused(&["off", "false"], NO_PROXY));
    ProxyFailureWait = Row::new(Older, "proxy-failure-wait", Int(0, MAX), "5000",
        "v2 proxy.").unit("milliseconds").standing(Ignored(NO_PROXY));
    ProxyRefreshInterval = Row::new(Older, "proxy-refresh-interval", Int(0, MAX), "30000",
        "v2 proxy.").unit("milliseconds").standing(Ignored(NO_PROXY));
    ProxyDialTimeout = Row::new(Older, "proxy-dial-timeout", Int(0, MAX), "1000",
        "v2 proxy.").unit("milliseconds").standing(Ignored(NO_PROXY));
    ProxyWriteTimeout = Row::new(Older, "proxy-write-timeout", Int(0, MAX), "5000",
        "v2 proxy.").unit("milliseconds").standing(Ignored(NO_PROXY));
    ProxyReadTimeout = Row::new(Older, "proxy-read-timeout", Int(0, MAX), "0",
        "v2 proxy.").unit("milliseconds").standing(Ignored(NO_PROXY));
    Debug = Row::new(Older, "debug", Bool, "false",
        "Debug log (3.4).").standing(Fixed(&["false"], "use --log-level=debug"));
    LogPackageLevels = Row::new(Older, "log-package-levels", Text, "",
        "Log level by package (3.4).").standing(Fixed(&[""], "use --log-level"));
    ClusterActiveSize = Row::new(Older, "cluster-active-size", Anything, "",
        "Of etcd 0.4.").standing(Ignored(LONG_IGNORED));
    ClusterRemoveDelay = Row::new(Older, "cluster-remove-delay", Anything, "",
        "Of etcd 0.4.").standing(Ignored(LONG_IGNORED));
    ClusterSyncInterval = Row::new(Older, "cluster-sync-interval", Anything, "",
        "Of etcd 0.4.").standing(Ignored(LONG_IGNORED));
    ConfigOld = Row::new(Older, "config", Anything, "",
        "Of etcd 0.4.").standing(Ignored(LONG_IGNORED));
    Force = Row::new(Older, "force", Anything, "",
        "Of etcd 0.4.").standing(Ignored(LONG_IGNORED));
    MaxResultBuffer = Row::new(Older, "max-result-buffer", Anything, "",
        "Of etcd 0.4.").standing(Ignored(LONG_IGNORED));
    MaxRetryAttempts = Row::new(Older, "max-retry-attempts", Anything, "",
        "Of etcd 0.4.").standing(Ignored(LONG_IGNORED));
    PeerHeartbeatInterval = Row::new(Older, "peer-heartbeat-interval", Anything, "",
        "Of etcd 0.4.").standing(Ignored(LONG_IGNORED));
    PeerElectionTimeout = Row::new(Older, "peer-election-timeout", Anything, "",
        "Of etcd 0.4.").standing(Ignored(LONG_IGNORED));
    RetryInterval = Row::new(Older, "retry-interval", Anything, "",
        "Of etcd 0.4.").standing(Ignored(LONG_IGNORED));
    Snapshot = Row::new(Older, "snapshot", Anything, "",
        "Of etcd 0.4.").standing(Ignored(LONG_IGNORED));
    VerboseOld = Row::new(Older, "v", Anything, "",
        "Of etcd 0.4.").standing(Ignored(LONG_IGNORED));
    VeryVerboseOld = Row::new(Older, "vv", Anything, "",
        "Of etcd 0.4.").standing(Ignored(LONG_IGNORED));
}
