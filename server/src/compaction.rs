//! Removes what compaction marked, piece by piece, between the writes; and tells who waits for it.

use crate::node::Node;
use holdfast_storage::TenantId;
use holdfast_tenant::Tenant;
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Bytes that a row counts for besides key and value; as the state machine counts.
const ROW_OVERHEAD_BYTES: u64 = holdfast_tenant::ROW_OVERHEAD_BYTES;

/// How far removal has got.
pub(crate) struct Compaction {
    signal: Mutex<Signal>,
    asked: Condvar,
    removed: watch::Sender<HashMap<TenantId, i64>>,
}

#[derive(Default)]
struct Signal {
    asked: bool,
    stopped: bool,
}

impl Compaction {
    pub(crate) fn new() -> Compaction {
        Compaction {
            signal: Mutex::default(),
            asked: Condvar::new(),
            removed: watch::Sender::new(HashMap::new()),
        }
    }

    /// A compaction was applied.
    pub(crate) fn requested(&self) {
        self.signal.lock().asked = true;
        self.asked.notify_one();
    }

    /// Ends [`Compaction::run`].
    pub(crate) fn stop(&self) {
        self.signal.lock().stopped = true;
        self.asked.notify_one();
    }

    /// Waits until everything that `revision` killed is removed from the tenant.
    pub(crate) async fn wait_until_removed(&self, tenant: &Tenant, revision: i64) {
        let id = tenant.id;
        let mut removed = self.removed.subscribe();
        // The sender lives as long as the node; an error means that it stops, and then there is nothing to wait for.
        let _ = removed
            .wait_for(|all| all.get(&id).is_some_and(|done| *done >= revision))
            .await;
    }

    /// Removes until stopped. On a thread of its own.
    pub(crate) fn run(&self, node: &Arc<Node>) {
        loop {
            {
                let mut signal = self.signal.lock();
                while !signal.asked && !signal.stopped {
                    self.asked.wait(&mut signal);
                }
                if signal.stopped {
                    return;
                }
                signal.asked = false;
            }
            for tenant in node.tenants.all() {
                if !self.remove(node, &tenant) {
                    return;
                }
            }
        }
    }

    /// Removes one tenant's garbage. `false` when it was told to stop.
    fn remove(&self, node: &Arc<Node>, tenant: &Arc<Tenant>) -> bool {
        loop {
            let generation = node.status.installed();
            let mark = tenant.compacted();
            if !self.remove_up_to(node, tenant, mark) {
                return false;
            }
            // Not before an installation that is under way is through: what this pass removed may have come back with a snapshot.
            if node.group.with_machine(|_| node.status.installed()) == generation {
                self.removed.send_modify(|all| {
                    all.insert(tenant.id, mark);
                });
                return true;
            }
        }
    }

    fn remove_up_to(&self, node: &Arc<Node>, tenant: &Arc<Tenant>, mark: i64) -> bool {
        let begun = Instant::now();
        let mut removed = 0usize;
        let mut rows = Vec::new();
        loop {
            let (dropped, done) = tenant.prune(node.config.compaction_batch_limit);
            if !dropped.is_empty() {
                removed += dropped.len();
                let bytes = match node
                    .tenants
                    .store()
                    .get_many(tenant.id, &dropped, &mut rows)
                {
                    Ok(()) => rows
                        .iter()
                        .flatten()
                        .map(|row| {
                            ROW_OVERHEAD_BYTES + row.key.len() as u64 + row.value.len() as u64
                        })
                        .sum(),
                    Err(error) => {
                        tracing::warn!(%error, "cannot size rows that are removed");
                        0
                    }
                };
                node.group
                    .with_machine(|applier| applier.machine.drop_rows(tenant, dropped, bytes));
            }
            if done {
                break;
            }
            let mut signal = self.signal.lock();
            if signal.stopped {
                return false;
            }
            // The writes get their turn (etcd pauses as long).
            self.asked
                .wait_for(&mut signal, node.config.compaction_sleep_interval);
        }
        if removed > 0 {
            tracing::info!(
                tenant = %tenant.id,
                compact_revision = mark,
                rows = removed,
                took_ms = begun.elapsed().as_millis() as u64,
                "finished scheduled compaction"
            );
        }
        true
    }
}

/// The revisions that periodic and revision-bound auto-compaction choose.
pub(crate) struct AutoCompaction {
    mode: holdfast_config::AutoCompaction,
    samples: std::collections::VecDeque<(Instant, i64)>,
    /// The newest revision that is older than the retention.
    aged: i64,
    last: i64,
    compacted_at: Option<Instant>,
}

const HOUR: Duration = Duration::from_secs(3600);

/// How often revision-bound compaction looks (etcd's).
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);

impl AutoCompaction {
    pub(crate) fn new(mode: holdfast_config::AutoCompaction) -> AutoCompaction {
        AutoCompaction {
            mode,
            samples: std::collections::VecDeque::new(),
            aged: 0,
            last: 0,
            compacted_at: None,
        }
    }

    /// How often to call [`AutoCompaction::due`]; `None` when nothing is compacted by itself.
    pub(crate) fn interval(&self) -> Option<Duration> {
        match self.mode {
            holdfast_config::AutoCompaction::Off => None,
            // A tenth of the retention, and of an hour for longer ones (behaviour §3.6).
            holdfast_config::AutoCompaction::Periodic(retention) => {
                let unit = retention.min(HOUR) / 10;
                Some(unit.max(Duration::from_millis(100)))
            }
            holdfast_config::AutoCompaction::Revision(_) => Some(REVISION_INTERVAL),
        }
    }

    /// The revision to compact at now, if any.
    pub(crate) fn due(&mut self, now: Instant, current: i64) -> Option<i64> {
        let revision = match self.mode {
            holdfast_config::AutoCompaction::Off => return None,
            holdfast_config::AutoCompaction::Revision(keep) => current - keep,
            holdfast_config::AutoCompaction::Periodic(retention) => {
                self.samples.push_back((now, current));
                while let Some((at, revision)) = self.samples.front()
                    && now.saturating_duration_since(*at) >= retention
                {
                    self.aged = *revision;
                    self.samples.pop_front();
                }
                // Once in a retention, and in an hour for longer ones, as etcd.
                let pause = retention.min(HOUR);
                if self
                    .compacted_at
                    .is_some_and(|at| now.saturating_duration_since(at) < pause)
                {
                    return None;
                }
                self.aged
            }
        };
        if revision <= self.last || revision <= 0 {
            return None;
        }
        self.last = revision;
        self.compacted_at = Some(now);
        Some(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_config::AutoCompaction as Mode;

    #[test]
    fn periodic_compaction_keeps_the_retention() {
        let mut auto = AutoCompaction::new(Mode::Periodic(Duration::from_secs(3600)));
        assert_eq!(auto.interval(), Some(Duration::from_secs(360)));
        let begun = Instant::now();
        for step in 0..10 {
            let now = begun + Duration::from_secs(360 * step);
            assert_eq!(auto.due(now, 100 + step as i64), None, "step {step}");
        }
        assert_eq!(auto.due(begun + Duration::from_secs(3600), 110), Some(100));
        for step in 11..20 {
            let now = begun + Duration::from_secs(360 * step);
            assert_eq!(auto.due(now, 110), None, "step {step}");
        }
        assert_eq!(auto.due(begun + Duration::from_secs(7200), 120), Some(110));
    }

    #[test]
    fn revision_compaction_keeps_the_count() {
        let mut auto = AutoCompaction::new(Mode::Revision(10));
        let now = Instant::now();
        assert_eq!(auto.due(now, 10), None);
        assert_eq!(auto.due(now, 15), Some(5));
        assert_eq!(auto.due(now, 15), None);
    }
}
