//! What was applied, by kind.

use super::series::{Registrar, doubling};
use holdfast_tenant::{Answer, Outcome, StepAnswer};
use prometheus::{Histogram, IntCounter};
use std::time::Duration;

pub(super) struct Applies {
    puts: IntCounter,
    deletes: IntCounter,
    txns: IntCounter,
    leases_granted: IntCounter,
    leases_revoked: IntCounter,
    lease_ttl: Histogram,
    durations: Durations,
}

/// `etcd_server_apply_duration_seconds` by what was applied.
struct Durations {
    put: Histogram,
    delete: Histogram,
    txn: Histogram,
    compaction: Histogram,
    lease_grant: Histogram,
    lease_revoke: Histogram,
    other: Histogram,
    refused: Histogram,
}

/// Operations of one command.
#[derive(Default)]
struct Operations {
    ranges: u64,
    puts: u64,
    deletes: u64,
}

impl Applies {
    pub(super) fn new(registrar: &Registrar<'_>) -> Applies {
        let durations = registrar.histograms(
            "etcd_server_apply_duration_seconds",
            "Time to apply a command; commands of one entry share its time evenly.",
            &["version", "op", "success"],
            doubling(0.0001, 20),
        );
        let duration = |op, success| durations.with_label_values(&["v3", op, success]);
        Applies {
            puts: registrar.counter(
                "etcd_mvcc_put_total",
                "Puts applied, those in transactions included.",
            ),
            deletes: registrar.counter(
                "etcd_mvcc_delete_total",
                "Deletes applied, those in transactions included.",
            ),
            txns: registrar.counter(
                "etcd_mvcc_txn_total",
                "Transactions applied that had more than one operation.",
            ),
            leases_granted: registrar
                .counter("etcd_debugging_lease_granted_total", "Leases granted."),
            leases_revoked: registrar.counter(
                "etcd_debugging_lease_revoked_total",
                "Leases revoked, the expired ones included.",
            ),
            lease_ttl: registrar.histogram(
                "etcd_debugging_lease_ttl_total",
                "Seconds that leases were granted for.",
                doubling(1.0, 24),
            ),
            durations: Durations {
                put: duration("Put", "true"),
                delete: duration("DeleteRange", "true"),
                txn: duration("Txn", "true"),
                compaction: duration("Compaction", "true"),
                lease_grant: duration("LeaseGrant", "true"),
                lease_revoke: duration("LeaseRevoke", "true"),
                other: duration("Other", "true"),
                refused: duration("Any", "false"),
            },
        }
    }

    /// Counts an entry and returns how many ranges it read.
    pub(super) fn count(&self, duration: Duration, outcomes: &[Outcome]) -> u64 {
        let share = duration.as_secs_f64() / outcomes.len().max(1) as f64;
        let mut sum = Operations::default();
        let mut txns = 0;
        for outcome in outcomes {
            let histogram = match outcome {
                Err(_) => &self.durations.refused,
                Ok(Answer::Put(_)) => {
                    sum.puts += 1;
                    &self.durations.put
                }
                Ok(Answer::Delete(_)) => {
                    sum.deletes += 1;
                    &self.durations.delete
                }
                Ok(Answer::Txn(txn)) => {
                    let mut operations = Operations::default();
                    operations.add(&txn.steps);
                    // As etcd counts: a transaction of one operation is counted as that operation.
                    if operations.ranges + operations.puts + operations.deletes > 1 {
                        txns += 1;
                    }
                    sum.ranges += operations.ranges;
                    sum.puts += operations.puts;
                    sum.deletes += operations.deletes;
                    &self.durations.txn
                }
                Ok(Answer::Compacted { .. }) => &self.durations.compaction,
                Ok(Answer::LeaseGranted { ttl, .. }) => {
                    self.leases_granted.inc();
                    self.lease_ttl.observe(*ttl as f64);
                    &self.durations.lease_grant
                }
                Ok(Answer::LeaseRevoked { .. }) => {
                    self.leases_revoked.inc();
                    &self.durations.lease_revoke
                }
                Ok(_) => &self.durations.other,
            };
            histogram.observe(share);
        }
        for (counter, count) in [
            (&self.puts, sum.puts),
            (&self.deletes, sum.deletes),
            (&self.txns, txns),
        ] {
            if count > 0 {
                counter.inc_by(count);
            }
        }
        sum.ranges
    }
}

impl Operations {
    /// Nesting is bounded by the command's decoder.
    fn add(&mut self, steps: &[StepAnswer]) {
        for step in steps {
            match step {
                StepAnswer::Range(_) => self.ranges += 1,
                StepAnswer::Put(_) => self.puts += 1,
                StepAnswer::Delete(_) => self.deletes += 1,
                StepAnswer::Txn(txn) => self.add(&txn.steps),
            }
        }
    }
}
