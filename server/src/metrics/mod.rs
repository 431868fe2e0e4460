//! Metrics under etcd's names (behaviour §5), so that its dashboards and alerts work, and ours under `holdfast_`.
//!
//! Only what this member can fill with true values is here. Counting is cheap enough for every request: each series that a request
//! touches is found by position, never by its labels. What other parts of the server know anyhow is read when it is asked for, in
//! [`Gauges`].

mod applies;
mod calls;
mod clients;
mod peer;
mod process;
mod render;
mod rpc;
mod security;
mod series;

pub(crate) use peer::{PeerMetrics, PeerSeries};
pub(crate) use process::fd_limit;
pub(crate) use render::Gauges;
pub(crate) use rpc::{Kind as RpcKind, Rpc};
pub(crate) use security::SecurityGauges;

use crate::node::ProposeError;
use applies::Applies;
use calls::Calls;
use clients::ClientRequests;
use holdfast_auth::Denied;
use holdfast_config::FeatureGates;
use holdfast_tenant::Outcome;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use render::ScrapeGauges;
use security::Security;
use series::{Registrar, doubling};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tonic::Code;

/// When etcd asks the leader again, and counts the read as slow.
const SLOW_READ_INDEX: Duration = Duration::from_millis(500);

/// All series of this process.
pub(crate) struct Metrics {
    registry: Registry,
    calls: Calls,
    applies: Applies,
    clients: ClientRequests,
    at_scrape: ScrapeGauges,
    security: Security,
    peers: PeerMetrics,

    wal_fsync: Histogram,
    wal_written_bytes: IntGauge,
    backend_commit: Histogram,
    backend_defrag: Histogram,
    backend_snapshot: Histogram,
    hash_kv: Histogram,
    received_bytes: IntCounter,
    sent_bytes: IntCounter,

    ranges: IntCounter,
    /// Of failed and of successful ranges; resolved once, because this is counted with every read.
    range_duration: [Histogram; 2],
    events: IntCounter,
    leases_renewed: IntCounter,
    leases_expired: IntCounter,

    proposals_failed: IntCounter,
    read_indexes_failed: IntCounter,
    slow_read_indexes: IntCounter,
    installing: IntGauge,
    promotions: IntCounter,
    promotion_failures: IntCounterVec,
    slow_applies: IntCounter,
    health_success: IntCounter,
    health_failures: IntCounter,
    health_check: IntGaugeVec,
    health_checks: IntCounterVec,
    features: IntGaugeVec,
    stream_failures: IntCounterVec,

    connections_open: IntGauge,
    connections_refused: IntCounterVec,
    handshakes_pending: IntGauge,
    handshakes_failed: IntCounterVec,
    certificate_reloads: IntCounterVec,
    certificate_not_after: prometheus::Gauge,
}

impl Metrics {
    /// Makes the series. `extensive` adds the histogram of every RPC's duration (`--metrics=extensive`).
    pub(crate) fn new(extensive: bool) -> Arc<Metrics> {
        let registry = Registry::new();
        let r = Registrar {
            registry: &registry,
        };
        let milliseconds = || doubling(0.001, 14);
        let metrics = Metrics {
            calls: Calls::new(&r, extensive),
            applies: Applies::new(&r),
            clients: ClientRequests::new(&r),
            at_scrape: ScrapeGauges::new(&r),
            security: Security::new(&r),
            peers: PeerMetrics::new(&r),
            wal_fsync: r.histogram(
                "etcd_disk_wal_fsync_duration_seconds",
                "Time that the raft log took to reach the disk.",
                milliseconds(),
            ),
            wal_written_bytes: r.gauge(
                "etcd_disk_wal_write_bytes_total",
                "Bytes appended to the raft log.",
            ),
            backend_commit: r.histogram(
                "etcd_disk_backend_commit_duration_seconds",
                "Time that the store took to take a batch of rows.",
                milliseconds(),
            ),
            backend_defrag: r.histogram(
                "etcd_disk_backend_defrag_duration_seconds",
                "Time of a defragmentation.",
                doubling(0.1, 13),
            ),
            backend_snapshot: r.histogram(
                "etcd_disk_backend_snapshot_duration_seconds",
                "Time to stream a snapshot.",
                doubling(0.01, 17),
            ),
            hash_kv: r.histogram(
                "etcd_mvcc_hash_rev_duration_seconds",
                "Time to hash the keys and values of a revision.",
                doubling(0.01, 15),
            ),
            received_bytes: r.counter(
                "etcd_network_client_grpc_received_bytes_total",
                "Bytes received from gRPC clients.",
            ),
            sent_bytes: r.counter(
                "etcd_network_client_grpc_sent_bytes_total",
                "Bytes sent to gRPC clients.",
            ),
            ranges: r.counter(
                "etcd_mvcc_range_total",
                "Ranges that this member read, those in transactions included.",
            ),
            range_duration: {
                let all = r.histograms(
                    "etcd_server_range_duration_seconds",
                    "Time to read a range.",
                    &["success"],
                    doubling(0.0001, 20),
                );
                ["false", "true"].map(|success| all.with_label_values(&[success]))
            },
            events: r.counter(
                "etcd_debugging_mvcc_events_total",
                "Events sent to watchers.",
            ),
            leases_renewed: r.counter(
                "etcd_debugging_lease_renewed_total",
                "Lease renewals that this member answered as leader.",
            ),
            leases_expired: r.counter(
                "etcd_debugging_server_lease_expired_total",
                "Leases that expired.",
            ),
            proposals_failed: r.counter(
                "etcd_server_proposals_failed_total",
                "Proposals that were not taken, or whose outcome is not known.",
            ),
            read_indexes_failed: r.counter(
                "etcd_server_read_indexes_failed_total",
                "Reads that did not learn from the leader what they may see.",
            ),
            slow_read_indexes: r.counter(
                "etcd_server_slow_read_indexes_total",
                "Reads that waited more than half a second for what they may see, the failed ones included.",
            ),
            installing: r.gauge(
                "etcd_server_snapshot_apply_in_progress_total",
                "1 while a received snapshot replaces this member's state.",
            ),
            promotions: r.counter(
                "etcd_server_learner_promote_successes",
                "Learners that were made voters through this member.",
            ),
            promotion_failures: r.counters(
                "etcd_server_learner_promote_failures",
                "Promotions through this member that came to nothing, by reason.",
                &["Reason"],
            ),
            slow_applies: r.counter(
                "etcd_server_slow_apply_total",
                "Entries whose application took longer than --warning-apply-duration.",
            ),
            health_success: r.counter(
                "etcd_server_health_success",
                "Answers of /health that said yes.",
            ),
            health_failures: r.counter(
                "etcd_server_health_failures",
                "Answers of /health that said no.",
            ),
            health_check: r.gauges(
                "etcd_server_healthcheck",
                "Last result of each check of /livez and /readyz: 1 is good.",
                &["type", "name"],
            ),
            health_checks: r.counters(
                "etcd_server_healthchecks_total",
                "Checks of /livez and /readyz by result.",
                &["type", "name", "status"],
            ),
            features: r.gauges(
                "etcd_server_feature_enabled",
                "Whether a feature gate is on.",
                &["name", "stage"],
            ),
            stream_failures: r.counters(
                "etcd_network_server_stream_failures_total",
                "Streams that ended with an error of the client's connection.",
                &["Type", "API"],
            ),
            connections_open: r.gauge(
                "holdfast_connections_open",
                "Client connections that are open, those in their handshake included.",
            ),
            connections_refused: r.counters(
                "holdfast_connections_refused_total",
                "Client connections closed at once, by reason.",
                &["reason"],
            ),
            handshakes_pending: r.gauge(
                "holdfast_handshakes_pending",
                "Client connections in their handshake.",
            ),
            handshakes_failed: r.counters(
                "holdfast_handshakes_failed_total",
                "Handshakes that did not make a connection, by reason.",
                &["reason"],
            ),
            certificate_reloads: r.counters(
                "holdfast_certificate_reloads_total",
                "Reloads of certificates, CAs and revocation lists that changed, by result.",
                &["result"],
            ),
            certificate_not_after: r.float_gauge(
                "holdfast_certificate_not_after_seconds",
                "End of validity of the server certificate, seconds since 1970; 0 without one.",
            ),
            registry,
        };
        Arc::new(metrics)
    }

    /// Traffic with other members.
    pub(crate) fn peers(&self) -> &PeerMetrics {
        &self.peers
    }

    /// An RPC began.
    pub(crate) fn started(&self, rpc: Rpc) {
        self.calls.started(rpc);
    }

    /// An RPC ended.
    pub(crate) fn handled(&self, rpc: Rpc, code: Code, took: Duration) {
        self.calls.handled(rpc, code, took);
    }

    /// Messages of an RPC arrived.
    pub(crate) fn messages_received(&self, rpc: Rpc, messages: u64) {
        self.calls.received(rpc, messages);
    }

    /// Messages of an RPC were sent.
    pub(crate) fn messages_sent(&self, rpc: Rpc, messages: u64) {
        self.calls.sent(rpc, messages);
    }

    /// A request came from a client that names this version of the API (header `client-api-version`), if any.
    pub(crate) fn client_request(&self, rpc: Rpc, api_version: Option<&[u8]>) {
        self.clients.count(rpc.kind(), api_version);
    }

    /// A stream of this API (`watch` or `lease-keepalive`) ended because the client's end failed while `direction` (`send` or
    /// `receive`).
    pub(crate) fn stream_failed(&self, direction: &'static str, api: &'static str) {
        let labels = [direction, api];
        self.stream_failures.with_label_values(&labels).inc();
    }

    /// An entry with these outcomes was applied.
    pub(crate) fn applied(&self, duration: Duration, outcomes: &[Outcome]) {
        let ranges = self.applies.count(duration, outcomes);
        if ranges > 0 {
            self.ranges.inc_by(ranges);
        }
    }

    /// Applying an entry took longer than `--warning-apply-duration`.
    pub(crate) fn slow_apply(&self) {
        self.slow_applies.inc();
    }

    /// A range was read outside the log.
    pub(crate) fn ranged(&self, took: Duration, success: bool) {
        self.ranges.inc();
        self.range_duration[usize::from(success)].observe(took.as_secs_f64());
    }

    /// A proposal came to this; what the state machine refused did not fail.
    pub(crate) fn proposed<T>(&self, result: &Result<T, ProposeError>) {
        if let Err(ProposeError::Failure(_) | ProposeError::TimedOut) = result {
            self.proposals_failed.inc();
        }
    }

    /// A read asked for the leader's index, which came to this.
    pub(crate) fn read_index(&self, took: Duration, result: &Result<(), ProposeError>) {
        if took > SLOW_READ_INDEX {
            self.slow_read_indexes.inc();
        }
        if result.is_err() {
            self.read_indexes_failed.inc();
        }
    }

    /// A snapshot begins to replace this member's state, or is done.
    pub(crate) fn installing(&self, begins: bool) {
        self.installing.set(i64::from(begins));
    }

    /// A promotion of a learner that this member was asked for ended. `failure` is one of a few texts.
    pub(crate) fn promoted(&self, failure: Option<&'static str>) {
        match failure {
            None => self.promotions.inc(),
            Some(reason) => self.promotion_failures.with_label_values(&[reason]).inc(),
        }
    }

    /// The store took a batch of rows.
    pub(crate) fn persisted(&self, took: Duration) {
        self.backend_commit.observe(took.as_secs_f64());
    }

    /// A defragmentation ended.
    pub(crate) fn defragmented(&self, took: Duration) {
        self.backend_defrag.observe(took.as_secs_f64());
    }

    /// A snapshot was streamed.
    pub(crate) fn snapshot_sent(&self, took: Duration) {
        self.backend_snapshot.observe(took.as_secs_f64());
    }

    /// A revision was hashed.
    pub(crate) fn hashed(&self, took: Duration) {
        self.hash_kv.observe(took.as_secs_f64());
    }

    /// Bytes came from clients.
    pub(crate) fn received_bytes(&self, bytes: usize) {
        self.received_bytes.inc_by(bytes as u64);
    }

    /// Bytes went to clients.
    pub(crate) fn sent_bytes(&self, bytes: usize) {
        self.sent_bytes.inc_by(bytes as u64);
    }

    /// Events went to watchers.
    pub(crate) fn events_sent(&self, events: u64) {
        self.events.inc_by(events);
    }

    /// A lease was renewed.
    pub(crate) fn lease_renewed(&self) {
        self.leases_renewed.inc();
    }

    /// A lease expired.
    pub(crate) fn lease_expired(&self) {
        self.leases_expired.inc();
    }

    /// `/health` answered.
    pub(crate) fn health(&self, healthy: bool) {
        if healthy {
            self.health_success.inc();
        } else {
            self.health_failures.inc();
        }
    }

    /// A check of `livez` or `readyz` was made.
    pub(crate) fn health_check(&self, endpoint: &'static str, check: &'static str, good: bool) {
        self.health_check
            .with_label_values(&[endpoint, check])
            .set(i64::from(good));
        let status = if good { "success" } else { "error" };
        self.health_checks
            .with_label_values(&[endpoint, check, status])
            .inc();
    }

    /// Exports which features are on.
    pub(crate) fn features(&self, gates: &FeatureGates) {
        for (name, stage, on) in gates.iter() {
            self.features
                .with_label_values(&[name, stage.as_str()])
                .set(i64::from(on));
        }
    }

    /// A request was refused for who made it.
    pub(crate) fn denied(&self, denied: Denied) {
        self.security.denied(denied);
    }

    /// Gets the seconds that hashing each password took.
    pub(crate) fn hashing_seconds(&self) -> Histogram {
        self.security.hashing_seconds.clone()
    }

    /// Gets the seconds that each password waited for a thread.
    pub(crate) fn waiting_seconds(&self) -> Histogram {
        self.security.waiting_seconds.clone()
    }

    /// A connection was accepted.
    pub(crate) fn connection_opened(&self) {
        self.connections_open.inc();
    }

    /// An accepted connection ended.
    pub(crate) fn connection_closed(&self) {
        self.connections_open.dec();
    }

    /// A connection was closed at once.
    pub(crate) fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.with_label_values(&[reason]).inc();
    }

    /// A handshake began.
    pub(crate) fn handshake_began(&self) {
        self.handshakes_pending.inc();
    }

    /// A handshake ended, well or not.
    pub(crate) fn handshake_ended(&self) {
        self.handshakes_pending.dec();
    }

    /// A handshake failed. The reasons are a fixed set of words.
    pub(crate) fn handshake_failed(&self, reason: &'static str) {
        self.handshakes_failed.with_label_values(&[reason]).inc();
    }

    /// Certificates changed on disk and were loaded, or could not be.
    pub(crate) fn certificates_reloaded(&self, worked: bool) {
        let result = if worked { "reloaded" } else { "failed" };
        self.certificate_reloads.with_label_values(&[result]).inc();
    }

    /// The server certificate in use ends then.
    pub(crate) fn certificate_expires(&self, at: SystemTime) {
        self.certificate_not_after.set(process::unix_seconds(at));
    }

    /// Everything as text for Prometheus, with the values that are read when they are asked for.
    pub(crate) fn render(&self, gauges: &Gauges) -> String {
        self.at_scrape.render(
            gauges,
            &self.security,
            process::Process::read(),
            &self.registry,
        )
    }
}

impl holdfast_consensus::Observer for Metrics {
    fn synced(&self, duration: Duration) {
        self.wal_fsync.observe(duration.as_secs_f64());
    }

    fn appended(&self, bytes: usize) {
        self.wal_written_bytes.add(bytes as i64);
    }
}

#[cfg(test)]
mod tests;
