//! What is read when it is asked for, and the text of all series.

use super::process::Process;
use super::security::{Security, SecurityGauges};
use super::series::Registrar;
use parking_lot::Mutex;
use prometheus::{Counter, Gauge, IntCounter, IntGauge, IntGaugeVec, Registry, TextEncoder};

/// Values that other parts of the server know, as of now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauges {
    /// The compatible version, `3.7.1`.
    pub(crate) server_version: String,
    /// `3.7`, once it is known.
    pub(crate) cluster_version: Option<String>,
    pub(crate) member_id: u64,
    pub(crate) has_leader: bool,
    pub(crate) is_leader: bool,
    pub(crate) is_learner: bool,
    pub(crate) leader_changes: u64,
    pub(crate) proposals_committed: u64,
    pub(crate) proposals_applied: u64,
    pub(crate) proposals_pending: u64,
    /// Absent without a quota.
    pub(crate) quota_bytes: Option<u64>,
    pub(crate) db_size_bytes: u64,
    pub(crate) db_size_in_use_bytes: u64,
    pub(crate) keys: u64,
    pub(crate) current_revision: i64,
    pub(crate) compact_revision: i64,
    pub(crate) watch_streams: u64,
    pub(crate) watchers: u64,
    pub(crate) slow_watchers: u64,
    pub(crate) pending_events: u64,
    /// Alarms that are raised: the member's id and etcd's name of the kind.
    pub(crate) alarms: Vec<(u64, &'static str)>,
    pub(crate) defragmenting: bool,
    /// Bytes that are applied and not yet in the store.
    pub(crate) staged_bytes: u64,
    /// Messages of other members that made no sense.
    pub(crate) messages_refused: u64,
    /// Rounds of ReadIndex; one serves many reads.
    pub(crate) read_rounds: u64,
    /// Snapshots that replaced this member's state.
    pub(crate) snapshots_installed: u64,
    pub(crate) security: SecurityGauges,
}

pub(super) struct ScrapeGauges {
    /// Two scrapes at once must not mix their values, nor see a counter go back.
    scraping: Mutex<()>,
    server_version: IntGaugeVec,
    cluster_version: IntGaugeVec,
    member_id: IntGaugeVec,
    has_leader: IntGauge,
    is_leader: IntGauge,
    is_learner: IntGauge,
    leader_changes: IntCounter,
    proposals_committed: IntGauge,
    proposals_applied: IntGauge,
    proposals_pending: IntGauge,
    quota_bytes: IntGauge,
    db_size: IntGauge,
    db_size_in_use: IntGauge,
    keys: IntGauge,
    current_revision: IntGauge,
    compact_revision: IntGauge,
    watch_streams: IntGauge,
    watchers: IntGauge,
    slow_watchers: IntGauge,
    pending_events: IntGauge,
    alarms: IntGaugeVec,
    defragmenting: IntGauge,
    staged_bytes: IntGauge,
    messages_refused: IntCounter,
    read_rounds: IntCounter,
    snapshots_installed: IntCounter,
    build: IntGaugeVec,
    resident_bytes: Gauge,
    virtual_bytes: Gauge,
    cpu_seconds: Counter,
    open_fds: Gauge,
    max_fds: Gauge,
    start_time: Gauge,
    os_fd_used: Gauge,
    os_fd_limit: Gauge,
}

impl ScrapeGauges {
    pub(super) fn new(r: &Registrar<'_>) -> ScrapeGauges {
        ScrapeGauges {
            scraping: Mutex::new(()),
            server_version: r.gauges(
                "etcd_server_version",
                "The version of etcd that this server is compatible with.",
                &["server_version"],
            ),
            cluster_version: r.gauges(
                "etcd_cluster_version",
                "The version of etcd that the cluster is compatible with.",
                &["cluster_version"],
            ),
            member_id: r.gauges("etcd_server_id", "This member's id.", &["server_id"]),
            has_leader: r.gauge("etcd_server_has_leader", "Whether a leader is known."),
            is_leader: r.gauge("etcd_server_is_leader", "Whether this member leads."),
            is_learner: r.gauge(
                "etcd_server_is_learner",
                "Whether this member is a learner.",
            ),
            leader_changes: r.counter(
                "etcd_server_leader_changes_seen_total",
                "Changes of the leader that this member saw.",
            ),
            proposals_committed: r.gauge(
                "etcd_server_proposals_committed_total",
                "Index of the last committed entry.",
            ),
            proposals_applied: r.gauge(
                "etcd_server_proposals_applied_total",
                "Index of the last applied entry.",
            ),
            proposals_pending: r.gauge(
                "etcd_server_proposals_pending",
                "Commands that were proposed and have no outcome yet.",
            ),
            quota_bytes: r.gauge(
                "etcd_server_quota_backend_bytes",
                "Bytes that a tenant may keep; 0 without a quota.",
            ),
            db_size: r.gauge(
                "etcd_mvcc_db_total_size_in_bytes",
                "Logical size of the data, its history included.",
            ),
            db_size_in_use: r.gauge(
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Logical size of the data that a defragmentation would leave.",
            ),
            keys: r.gauge("etcd_debugging_mvcc_keys_total", "Keys that exist."),
            current_revision: r.gauge(
                "etcd_debugging_mvcc_current_revision",
                "The current revision.",
            ),
            compact_revision: r.gauge(
                "etcd_debugging_mvcc_compact_revision",
                "The revision of the last compaction.",
            ),
            watch_streams: r.gauge(
                "etcd_debugging_mvcc_watch_stream_total",
                "Watch streams that are open.",
            ),
            watchers: r.gauge(
                "etcd_debugging_mvcc_watcher_total",
                "Watches that are open.",
            ),
            slow_watchers: r.gauge(
                "etcd_debugging_mvcc_slow_watcher_total",
                "Watches that are behind the current revision.",
            ),
            pending_events: r.gauge(
                "etcd_debugging_mvcc_pending_events_total",
                "Events that wait to be sent.",
            ),
            alarms: r.gauges(
                "etcd_debugging_server_alarms",
                "Alarms that are raised.",
                &["server_id", "alarm_type"],
            ),
            defragmenting: r.gauge(
                "etcd_disk_defrag_inflight",
                "Whether a defragmentation runs.",
            ),
            staged_bytes: r.gauge(
                "holdfast_staged_bytes",
                "Bytes that are applied and durable in the log, and not yet in the store.",
            ),
            messages_refused: r.counter(
                "holdfast_raft_messages_refused_total",
                "Messages of other members that made no sense and were dropped.",
            ),
            read_rounds: r.counter(
                "holdfast_raft_read_rounds_total",
                "Times that this member asked the leader's index; one round serves all reads that wait.",
            ),
            snapshots_installed: r.counter(
                "holdfast_raft_snapshots_installed_total",
                "Snapshots of the leader that replaced this member's state.",
            ),
            build: r.gauges(
                "holdfast_build_info",
                "Holdfast's own version.",
                &["version"],
            ),
            resident_bytes: r.float_gauge(
                "process_resident_memory_bytes",
                "Memory of the process that is in RAM.",
            ),
            virtual_bytes: r.float_gauge(
                "process_virtual_memory_bytes",
                "Address space of the process.",
            ),
            cpu_seconds: r.float_counter(
                "process_cpu_seconds_total",
                "Processor time that the process used, user and system.",
            ),
            open_fds: r.float_gauge("process_open_fds", "File descriptors that are open."),
            max_fds: r.float_gauge("process_max_fds", "File descriptors that may be open."),
            start_time: r.float_gauge(
                "process_start_time_seconds",
                "Start of the process, seconds since 1970.",
            ),
            os_fd_used: r.float_gauge("os_fd_used", "File descriptors that are open."),
            os_fd_limit: r.float_gauge("os_fd_limit", "File descriptors that may be open."),
        }
    }

    pub(super) fn render(
        &self,
        now: &Gauges,
        security: &Security,
        process: Process,
        registry: &Registry,
    ) -> String {
        let _scraping = self.scraping.lock();
        self.set(now);
        security.set(&now.security);
        self.set_process(process);
        let families: Vec<_> = registry
            .gather()
            .into_iter()
            // A vector without series is not a family in the text format; the encoder calls it an error.
            .filter(|family| !family.get_metric().is_empty())
            .collect();
        TextEncoder::new()
            .encode_to_string(&families)
            .unwrap_or_else(|error| {
                tracing::error!(%error, "metrics cannot be written");
                String::new()
            })
    }

    fn set(&self, now: &Gauges) {
        only(&self.server_version, &now.server_version);
        match &now.cluster_version {
            Some(version) => only(&self.cluster_version, version),
            None => self.cluster_version.reset(),
        }
        only(&self.member_id, &format!("{:x}", now.member_id));
        only(&self.build, env!("CARGO_PKG_VERSION"));
        for (counter, value) in [
            (&self.leader_changes, now.leader_changes),
            (&self.messages_refused, now.messages_refused),
            (&self.read_rounds, now.read_rounds),
            (&self.snapshots_installed, now.snapshots_installed),
        ] {
            counter.inc_by(value.saturating_sub(counter.get()));
        }
        for (gauge, value) in [
            (&self.has_leader, u64::from(now.has_leader)),
            (&self.is_leader, u64::from(now.is_leader)),
            (&self.is_learner, u64::from(now.is_learner)),
            (&self.proposals_committed, now.proposals_committed),
            (&self.proposals_applied, now.proposals_applied),
            (&self.proposals_pending, now.proposals_pending),
            (&self.quota_bytes, now.quota_bytes.unwrap_or(0)),
            (&self.db_size, now.db_size_bytes),
            (&self.db_size_in_use, now.db_size_in_use_bytes),
            (&self.keys, now.keys),
            (&self.watch_streams, now.watch_streams),
            (&self.watchers, now.watchers),
            (&self.slow_watchers, now.slow_watchers),
            (&self.pending_events, now.pending_events),
            (&self.defragmenting, u64::from(now.defragmenting)),
            (&self.staged_bytes, now.staged_bytes),
        ] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        self.current_revision.set(now.current_revision);
        self.compact_revision.set(now.compact_revision);
        self.alarms.reset();
        for (member, kind) in &now.alarms {
            let member = format!("{member:x}");
            self.alarms
                .with_label_values(&[member.as_str(), kind])
                .set(1);
        }
    }

    fn set_process(&self, process: Process) {
        let set = |gauge: &Gauge, value: Option<f64>| gauge.set(value.unwrap_or(f64::NAN));
        set(
            &self.resident_bytes,
            process.resident_bytes.map(|n| n as f64),
        );
        set(&self.virtual_bytes, process.virtual_bytes.map(|n| n as f64));
        set(&self.start_time, process.start_time_seconds);
        for gauge in [&self.open_fds, &self.os_fd_used] {
            set(gauge, process.open_fds.map(|n| n as f64));
        }
        for gauge in [&self.max_fds, &self.os_fd_limit] {
            set(gauge, process.max_fds.map(|n| n as f64));
        }
        if let Some(seconds) = process.cpu_seconds {
            let more = seconds - self.cpu_seconds.get();
            self.cpu_seconds.inc_by(more.max(0.0));
        }
    }
}

/// Makes `label` the one series of a vector that carries its value in the label.
fn only(vector: &IntGaugeVec, label: &str) {
    vector.reset();
    vector.with_label_values(&[label]).set(1);
}
