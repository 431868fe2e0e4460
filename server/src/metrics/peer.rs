//! Series about other members, under etcd's names where it has them. Members are named by their ids in hexadecimal, as etcd does.

use super::process::unix_seconds;
use super::series::{Registrar, doubling};
use parking_lot::Mutex;
use prometheus::{
    GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Traffic with other members. Clones are the same.
#[derive(Clone)]
pub(crate) struct PeerMetrics {
    all: Arc<All>,
}

struct All {
    sent_bytes: IntCounterVec,
    sent_failures: IntCounterVec,
    received_bytes: IntCounterVec,
    received_failures: IntCounterVec,
    round_trip: HistogramVec,
    known: IntGaugeVec,
    active: IntGaugeVec,
    disconnected: IntCounterVec,
    snapshots_sent: IntCounterVec,
    snapshots_unsent: IntCounterVec,
    snapshots_sending: IntGaugeVec,
    snapshot_sending: HistogramVec,
    snapshots_received: IntCounterVec,
    snapshots_unreceived: IntCounterVec,
    snapshots_receiving: IntGaugeVec,
    snapshot_receiving: HistogramVec,
    dropped: IntCounterVec,
    refused: IntCounterVec,
    connections: IntGauge,
    certificate_not_after: GaugeVec,
    /// The label of this member, once it is known.
    local: Mutex<String>,
}

/// The label of a member.
fn label(member: u64) -> String {
    format!("{member:x}")
}

impl PeerMetrics {
    pub(super) fn new(r: &Registrar<'_>) -> PeerMetrics {
        let to = &["To"];
        let from = &["From"];
        let both = &["Local", "Remote"];
        let snapshot = || doubling(0.1, 10);
        let all = All {
            sent_bytes: r.counters(
                "etcd_network_peer_sent_bytes_total",
                "Bytes of messages sent to another member.",
                to,
            ),
            sent_failures: r.counters(
                "etcd_network_peer_sent_failures_total",
                "Failures to send to another member: streams that broke, and messages that were dropped.",
                to,
            ),
            received_bytes: r.counters(
                "etcd_network_peer_received_bytes_total",
                "Bytes of messages received from another member.",
                from,
            ),
            received_failures: r.counters(
                "etcd_network_peer_received_failures_total",
                "Streams of another member that broke.",
                from,
            ),
            round_trip: r.histograms(
                "etcd_network_peer_round_trip_time_seconds",
                "Time of a round trip to another member.",
                to,
                doubling(0.0001, 16),
            ),
            known: r.gauges(
                "etcd_network_known_peers",
                "Members that this one knows of.",
                both,
            ),
            active: r.gauges(
                "etcd_network_active_peers",
                "Members that this one has a stream to.",
                both,
            ),
            disconnected: r.counters(
                "etcd_network_disconnected_peers_total",
                "Streams to another member that ended.",
                both,
            ),
            snapshots_sent: r.counters(
                "etcd_network_snapshot_send_success",
                "Snapshots that another member has taken.",
                to,
            ),
            snapshots_unsent: r.counters(
                "etcd_network_snapshot_send_failures",
                "Snapshots that could not be sent.",
                to,
            ),
            snapshots_sending: r.gauges(
                "etcd_network_snapshot_send_inflights_total",
                "Snapshots that are being sent.",
                to,
            ),
            snapshot_sending: r.histograms(
                "etcd_network_snapshot_send_total_duration_seconds",
                "Time to send a snapshot.",
                to,
                snapshot(),
            ),
            snapshots_received: r.counters(
                "etcd_network_snapshot_receive_success",
                "Snapshots that were received whole.",
                from,
            ),
            snapshots_unreceived: r.counters(
                "etcd_network_snapshot_receive_failures",
                "Snapshots that were not received whole, or could not be used.",
                from,
            ),
            snapshots_receiving: r.gauges(
                "etcd_network_snapshot_receive_inflights_total",
                "Snapshots that are being received.",
                from,
            ),
            snapshot_receiving: r.histograms(
                "etcd_network_snapshot_receive_total_duration_seconds",
                "Time to receive a snapshot.",
                from,
                snapshot(),
            ),
            dropped: r.counters(
                "holdfast_peer_dropped_messages_total",
                "Messages to another member that were dropped, because too many waited or there is no stream.",
                to,
            ),
            refused: r.counters(
                "holdfast_peer_refused_total",
                "Connections and calls between members that one of the two refused, by reason.",
                &["reason"],
            ),
            connections: r.gauge(
                "holdfast_peer_connections_open",
                "Connections on the peer listeners, those in their handshake included.",
            ),
            certificate_not_after: r.float_gauges(
                "holdfast_peer_certificate_not_after_seconds",
                "End of validity of the certificates between members, seconds since 1970: that of the server, of the client, the first of the CAs.",
                &["certificate"],
            ),
            local: Mutex::default(),
        };
        PeerMetrics { all: Arc::new(all) }
    }

    /// Series of their own, for tests and for what has no page of metrics.
    #[cfg(test)]
    pub(crate) fn detached() -> PeerMetrics {
        PeerMetrics::new(&Registrar {
            registry: &prometheus::Registry::new(),
        })
    }

    /// This member is that one.
    pub(crate) fn set_local(&self, member: u64) {
        *self.all.local.lock() = label(member);
    }

    /// The series of what goes to one member, found once. Dropping them all is [`Self::forget`].
    pub(crate) fn to(&self, member: u64) -> PeerSeries {
        let to = label(member);
        let to = &[to.as_str()];
        let local = self.all.local.lock().clone();
        let both = &[local.as_str(), to[0]];
        let all = &self.all;
        let known = all.known.with_label_values(both);
        known.set(1);
        PeerSeries {
            sent_bytes: all.sent_bytes.with_label_values(to),
            failures: all.sent_failures.with_label_values(to),
            dropped: all.dropped.with_label_values(to),
            round_trip: all.round_trip.with_label_values(to),
            active: all.active.with_label_values(both),
            disconnected: all.disconnected.with_label_values(both),
        }
    }

    /// The series of what comes from one member: bytes, and streams that broke.
    pub(crate) fn from(&self, member: u64) -> (IntCounter, IntCounter) {
        let from = label(member);
        let from = &[from.as_str()];
        (
            self.all.received_bytes.with_label_values(from),
            self.all.received_failures.with_label_values(from),
        )
    }

    /// Removes the series of a member that is gone. What is still counted for it shows nowhere.
    pub(crate) fn forget(&self, member: u64) {
        let label = label(member);
        let one = &[label.as_str()];
        let local = self.all.local.lock().clone();
        let both = &[local.as_str(), one[0]];
        let all = &self.all;
        // A series that never was cannot be removed, which is as good.
        for series in [
            &all.sent_bytes,
            &all.sent_failures,
            &all.received_bytes,
            &all.received_failures,
            &all.snapshots_sent,
            &all.snapshots_unsent,
            &all.snapshots_received,
            &all.snapshots_unreceived,
            &all.dropped,
        ] {
            let _ = series.remove_label_values(one);
        }
        for series in [
            &all.round_trip,
            &all.snapshot_sending,
            &all.snapshot_receiving,
        ] {
            let _ = series.remove_label_values(one);
        }
        for series in [&all.snapshots_sending, &all.snapshots_receiving] {
            let _ = series.remove_label_values(one);
        }
        let _ = all.known.remove_label_values(both);
        let _ = all.active.remove_label_values(both);
        let _ = all.disconnected.remove_label_values(both);
    }

    /// A Hello or a connection was refused, by us or by the other member. The reasons are a fixed set of words.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.all.refused.with_label_values(&[reason]).inc();
    }

    /// How often that was, for this reason.
    #[cfg(test)]
    pub(crate) fn refusals(&self, reason: &'static str) -> u64 {
        self.all.refused.with_label_values(&[reason]).get()
    }

    /// A connection on a peer listener was accepted.
    pub(crate) fn connection_opened(&self) {
        self.all.connections.inc();
    }

    /// It ended.
    pub(crate) fn connection_closed(&self) {
        self.all.connections.dec();
    }

    /// The certificates between members that are in use end then: the one to serve with, the one to dial with, the first of the CAs.
    /// What there is none of has no series.
    pub(crate) fn certificates_expire(
        &self,
        server: SystemTime,
        client: Option<SystemTime>,
        ca: Option<SystemTime>,
    ) {
        for (label, at) in [("server", Some(server)), ("client", client), ("ca", ca)] {
            if let Some(at) = at {
                let series = self.all.certificate_not_after.with_label_values(&[label]);
                series.set(unix_seconds(at));
            }
        }
    }

    /// A snapshot to a member begins.
    pub(crate) fn snapshot_send_began(&self, to: u64) {
        let to = label(to);
        self.all.snapshots_sending.with_label_values(&[&to]).inc();
    }

    /// It ended.
    pub(crate) fn snapshot_send_ended(&self, to: u64, took: Duration, ok: bool) {
        let to = label(to);
        let to = &[to.as_str()];
        let all = &self.all;
        all.snapshots_sending.with_label_values(to).dec();
        if ok {
            all.snapshots_sent.with_label_values(to).inc();
            let seconds = all.snapshot_sending.with_label_values(to);
            seconds.observe(took.as_secs_f64());
        } else {
            all.snapshots_unsent.with_label_values(to).inc();
        }
    }

    /// A snapshot from a member begins.
    pub(crate) fn snapshot_receive_began(&self, from: u64) {
        let from = label(from);
        let receiving = self.all.snapshots_receiving.with_label_values(&[&from]);
        receiving.inc();
    }

    /// It ended.
    pub(crate) fn snapshot_receive_ended(&self, from: u64, took: Duration, ok: bool) {
        let from = label(from);
        let from = &[from.as_str()];
        let all = &self.all;
        all.snapshots_receiving.with_label_values(from).dec();
        if ok {
            all.snapshots_received.with_label_values(from).inc();
            let seconds = all.snapshot_receiving.with_label_values(from);
            seconds.observe(took.as_secs_f64());
        } else {
            all.snapshots_unreceived.with_label_values(from).inc();
        }
    }
}

/// What goes to one member.
#[derive(Clone)]
pub(crate) struct PeerSeries {
    pub(crate) sent_bytes: IntCounter,
    /// Streams that broke, and rounds of dropped messages.
    pub(crate) failures: IntCounter,
    /// Messages.
    pub(crate) dropped: IntCounter,
    /// Seconds.
    pub(crate) round_trip: Histogram,
    /// 1 while there is a stream.
    pub(crate) active: IntGauge,
    pub(crate) disconnected: IntCounter,
}
