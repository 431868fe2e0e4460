//! Series about who may do what: refusals, logins, the audit log.

use super::series::{Registrar, doubling};
use crate::login::LoginStats;
use holdfast_audit::Stats as AuditStats;
use holdfast_auth::Denied;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// What other parts of the server know of it, as of now.
#[derive(Clone, Debug, Default)]
pub(crate) struct SecurityGauges {
    /// Rises with every change of users and roles.
    pub(crate) auth_revision: u64,
    /// Whether authentication is on.
    pub(crate) auth_enabled: bool,
    pub(crate) logins: LoginStats,
    pub(crate) audit: AuditStats,
}

pub(super) struct Security {
    denied: IntCounterVec,
    pub(super) hashing_seconds: Histogram,
    pub(super) waiting_seconds: Histogram,
    auth_revision: IntGauge,
    auth_enabled: IntGauge,
    logins: IntCounterVec,
    passwords_stored: IntCounter,
    passwords_waiting: IntGauge,
    hashing_bytes: IntGauge,
    audit_records: IntCounter,
    audit_lost: IntCounter,
    audit_refused: IntCounter,
    audit_queue_bytes: IntGauge,
    audit_written: IntCounterVec,
    audit_sink_lost: IntCounterVec,
    audit_sink_errors: IntCounterVec,
    audit_sink_hanging: IntGaugeVec,
}

impl Security {
    pub(super) fn new(r: &Registrar<'_>) -> Security {
        Security {
            denied: r.counters(
                "holdfast_requests_denied_total",
                "Requests refused for who made them, by reason.",
                &["reason"],
            ),
            hashing_seconds: r.histogram(
                "holdfast_password_hashing_seconds",
                "Time that a thread took to hash a password.",
                doubling(0.005, 12),
            ),
            waiting_seconds: r.histogram(
                "holdfast_password_waiting_seconds",
                "Time that a password waited for a thread.",
                doubling(0.001, 15),
            ),
            auth_revision: r.gauge(
                "etcd_debugging_auth_revision",
                "The revision of users, roles and permissions.",
            ),
            auth_enabled: r.gauge("holdfast_auth_enabled", "Whether authentication is on."),
            logins: r.counters(
                "holdfast_logins_total",
                "Passwords that clients offered, by what came of them.",
                &["result"],
            ),
            passwords_stored: r.counter(
                "holdfast_passwords_hashed_total",
                "Passwords that were hashed to be kept.",
            ),
            passwords_waiting: r.gauge(
                "holdfast_passwords_waiting",
                "Passwords that wait for a thread.",
            ),
            hashing_bytes: r.gauge(
                "holdfast_password_hashing_bytes",
                "Memory in use for hashing passwords.",
            ),
            audit_records: r.counter(
                "holdfast_audit_records_total",
                "Records that the audit log has accepted.",
            ),
            audit_lost: r.counter(
                "holdfast_audit_lost_total",
                "Records that were lost before any sink, because too many waited.",
            ),
            audit_refused: r.counter(
                "holdfast_audit_refused_requests_total",
                "Requests refused because no sink took their record.",
            ),
            audit_queue_bytes: r.gauge(
                "holdfast_audit_queue_bytes",
                "Records that wait for the audit log's sinks.",
            ),
            audit_written: r.counters(
                "holdfast_audit_sink_records_total",
                "Records that a sink has taken.",
                &["sink"],
            ),
            audit_sink_lost: r.counters(
                "holdfast_audit_sink_lost_total",
                "Records that a sink did not take.",
                &["sink"],
            ),
            audit_sink_errors: r.counters(
                "holdfast_audit_sink_errors_total",
                "Errors of a sink.",
                &["sink"],
            ),
            audit_sink_hanging: r.gauges(
                "holdfast_audit_sink_hanging",
                "Whether a sink has not answered within its deadline.",
                &["sink"],
            ),
        }
    }

    pub(super) fn denied(&self, denied: Denied) {
        let reason = match denied {
            Denied::NoPolicy => "no_policy",
            Denied::Unidentified => "unidentified",
            Denied::InvalidToken => "invalid_token",
            Denied::NotPermitted => "not_permitted",
            Denied::Disagree => "identities_disagree",
        };
        self.denied.with_label_values(&[reason]).inc();
    }

    /// Takes the values of this moment. Scrapes do so one at a time.
    pub(super) fn set(&self, now: &SecurityGauges) {
        let gauge =
            |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge(&self.auth_revision, now.auth_revision);
        gauge(&self.auth_enabled, u64::from(now.auth_enabled));
        let logins = &now.logins;
        for (result, count) in [
            ("right", logins.right),
            ("wrong", logins.wrong),
            ("blocked_user", logins.blocked_user),
            ("blocked_source", logins.blocked_source),
            ("busy", logins.busy),
            ("too_long", logins.too_long),
        ] {
            advance(&self.logins.with_label_values(&[result]), count);
        }
        advance(&self.passwords_stored, logins.stored);
        gauge(&self.passwords_waiting, logins.waiting as u64);
        gauge(&self.hashing_bytes, logins.memory_bytes);
        let audit = &now.audit;
        advance(&self.audit_records, audit.records);
        advance(&self.audit_lost, audit.lost);
        advance(&self.audit_refused, audit.strict_refused);
        gauge(&self.audit_queue_bytes, audit.queue_bytes);
        for sink in &audit.sinks {
            let name = [sink.name.as_str()];
            advance(&self.audit_written.with_label_values(&name), sink.written);
            advance(&self.audit_sink_lost.with_label_values(&name), sink.lost);
            advance(
                &self.audit_sink_errors.with_label_values(&name),
                sink.errors,
            );
            self.audit_sink_hanging
                .with_label_values(&name)
                .set(i64::from(sink.hanging));
        }
    }
}

/// Brings a counter up to a count that is kept elsewhere.
fn advance(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}
