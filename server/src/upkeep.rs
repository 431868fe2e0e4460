//! What the node does by itself: ends leases, records their remaining time, compacts by age, and moves rows to the store.

use crate::compaction::AutoCompaction;
use crate::node::{Node, ProposeError, Worker};
use futures::stream::{FuturesUnordered, StreamExt};
use holdfast_consensus::Failure;
use holdfast_storage::backend::PersistError;
use holdfast_storage::log::LogError;
use holdfast_tenant::{AlarmKind, Command, Refusal};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often leases are looked at (etcd's half second).
const LEASE_INTERVAL: Duration = Duration::from_millis(500);
/// Leases ended per look: with the interval, etcd's thousand a second.
const EXPIRIES_PER_LOOK: usize = 500;
/// Checkpoints in one command.
const CHECKPOINTS_PER_LOOK: usize = 1_000;

/// Ends leases and records remaining times. One task; never ends.
pub(crate) async fn leases(worker: Arc<Worker>) {
    let mut interval = tokio::time::interval(LEASE_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let node = &worker.node;
        // Read before the leases are: whoever leads later counts their time anew.
        let term = node.status.term();
        if !node.status.leads() {
            continue;
        }
        for tenant in node.tenants.all() {
            let now = node.clock.now();
            let expired = if tenant.is_alarmed(AlarmKind::Corrupt) {
                // Nothing is deleted until it is known whose data are right; every attempt would be refused.
                Vec::new()
            } else {
                tenant.expired_leases(now, EXPIRIES_PER_LOOK)
            };
            let mut revocations: FuturesUnordered<_> = expired
                .into_iter()
                .map(|id| {
                    let node = node.clone();
                    async move {
                        let command = Command::LeaseRevoke { id };
                        (id, node.propose_in_term(term, &command).await)
                    }
                })
                .collect();
            let mut failed: Option<(i64, ProposeError)> = None;
            let mut failures = 0u32;
            while let Some((id, result)) = revocations.next().await {
                match result {
                    Ok(_) => node.metrics.lease_expired(),
                    // Revoked by a client in the meantime.
                    Err(ProposeError::Refused(Refusal::LeaseNotFound)) => {}
                    // The next leader ends it.
                    Err(ProposeError::Failure(Failure::NotLeader | Failure::LeaderChanged)) => {}
                    Err(error) => {
                        failures += 1;
                        failed = Some((id, error));
                    }
                }
            }
            // One line for all: what hinders one hinders the others.
            if let Some((id, error)) = failed {
                tracing::warn!(lease = id, failures, ?error, "cannot revoke expired leases");
            }
            let due = tenant.due_lease_checkpoints(now, CHECKPOINTS_PER_LOOK);
            if !due.is_empty() {
                let command = Command::LeaseCheckpoint(due);
                if let Err(error) = node.propose_in_term(term, &command).await {
                    tracing::warn!(?error, "cannot record the remaining time of leases");
                }
            }
        }
    }
}

/// Compacts by age or count. One task; ends at once when that is off.
pub(crate) async fn auto_compaction(worker: Arc<Worker>) {
    let node = worker.node.clone();
    let mut auto = AutoCompaction::new(node.config.auto_compaction);
    let Some(every) = auto.interval() else {
        return;
    };
    let mut interval = tokio::time::interval(every);
    loop {
        interval.tick().await;
        let tenant = &node.default_tenant;
        // Followers count, too, so that one which comes to lead knows the past.
        let Some(revision) = auto.due(Instant::now(), tenant.revision()) else {
            continue;
        };
        if !node.status.leads() {
            continue;
        }
        let command = Command::Compact { revision };
        match worker.propose_internal(tenant, &command).await {
            Ok(_) => {
                tracing::info!(revision, "compacted automatically");
                node.compaction.requested();
            }
            Err(ProposeError::Refused(Refusal::Compacted)) => {}
            Err(error) => tracing::warn!(revision, ?error, "cannot compact automatically"),
        }
    }
}

/// Niceness of threads that work behind the requests.
const BEHIND_NICENESS: i32 = 5;

/// Niceness of threads that read and take snapshots for other members: they have time.
const BACKGROUND_NICENESS: i32 = 15;

/// As [`yield_to_requests`], and behind everything else, too.
pub(crate) fn yield_to_everything() {
    lower_priority(BACKGROUND_NICENESS);
}

/// Gives this thread, and those that it starts, less of a busy processor than the threads that serve requests have. On Linux
/// niceness is a thread's own.
pub(crate) fn yield_to_requests() {
    lower_priority(BEHIND_NICENESS);
}

fn lower_priority(niceness: i32) {
    if let Err(error) = rustix::process::setpriority_process(None, niceness) {
        tracing::debug!(%error, "cannot lower a thread's priority");
    }
}

/// A disk that failed behind the writes: the process must stop, and the next one reads back what is there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpkeepError {
    #[error(transparent)]
    Store(#[from] PersistError),
    #[error(transparent)]
    Log(LogError),
}

/// Moves rows from memory to the store, behind the writes, and cuts the log after checkpoints.
pub(crate) struct Persister {
    stopped: Mutex<bool>,
    wake: Condvar,
}

/// How often rows are moved while there are some: a thread that works in long bursts takes the processor from the requests for as
/// long.
const BUSY_INTERVAL: Duration = Duration::from_millis(10);
/// How often rows are moved, at least.
const PERSIST_INTERVAL: Duration = Duration::from_millis(200);
/// How often the store is synced and the log cut, if anything was moved.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);
/// Least time between two of them, however many entries come (`--snapshot-count`).
const CHECKPOINT_INTERVAL_MIN: Duration = Duration::from_secs(2);

impl Persister {
    pub(crate) fn new() -> Persister {
        Persister {
            stopped: Mutex::new(false),
            wake: Condvar::new(),
        }
    }

    /// Ends [`Persister::run`] after a last round.
    pub(crate) fn stop(&self) {
        *self.stopped.lock() = true;
        self.wake.notify_one();
    }

    /// Moves rows until stopped; then once more, with a checkpoint, so that the next start is quick. On a thread of its own.
    ///
    /// # Errors
    /// When the store fails for another reason than space: the process must stop, the log has everything.
    pub(crate) fn run(&self, node: &Node) -> Result<(), UpkeepError> {
        let store = node.tenants.store();
        let spares = node.group.spares();
        let mut last_checkpoint = Instant::now();
        let mut next_checkpoint = last_checkpoint + CHECKPOINT_INTERVAL;
        let mut checkpointed = store.staged_position().index;
        let mut moved_since = false;
        let (mut full, mut busy) = (false, false);
        yield_to_requests();
        loop {
            let stopped = {
                let mut stopped = self.stopped.lock();
                if !*stopped && store.staged_bytes() < PERSIST_AT_BYTES {
                    let wait = if busy {
                        BUSY_INTERVAL
                    } else {
                        PERSIST_INTERVAL
                    };
                    self.wake.wait_for(&mut stopped, wait);
                }
                *stopped
            };
            if spares.has_work() && !stopped {
                match spares.work() {
                    // Appends inside a segment need no space, and the next segment may find some.
                    Ok(()) | Err(LogError::NoSpace { .. }) => {}
                    Err(error) => return Err(UpkeepError::Log(error)),
                }
            }
            let begun = Instant::now();
            match store.persist() {
                Ok(persisted) => {
                    busy = persisted.rows > 0;
                    if persisted.rows > 0 || persisted.bytes > 0 {
                        node.metrics.persisted(begun.elapsed());
                        moved_since = true;
                    }
                    full = false;
                    node.store_full.store(false, Ordering::Relaxed);
                }
                Err(error @ PersistError::NoSpace { .. }) => {
                    if !full {
                        tracing::error!(%error, "the store's disk is full: rows stay in memory and in the log");
                        full = true;
                        node.store_full.store(true, Ordering::Relaxed);
                    }
                }
                Err(error @ PersistError::Stopped { no_space: true, .. }) => {
                    // Reads go on; the next start recovers from the log.
                    tracing::error!(%error, "the store takes no more rows until a restart with space");
                    node.store_full.store(true, Ordering::Relaxed);
                    let mut stopped = self.stopped.lock();
                    while !*stopped {
                        self.wake.wait(&mut stopped);
                    }
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            let now = Instant::now();
            let many = store.staged_position().index
                >= checkpointed.saturating_add(node.config.snapshot_count)
                && now >= last_checkpoint + CHECKPOINT_INTERVAL_MIN;
            if moved_since && !full && (stopped || many || now >= next_checkpoint) {
                match store.checkpoint() {
                    Ok(position) => {
                        moved_since = false;
                        checkpointed = position.index;
                        if let Err(error) = node.group.compact_log(position) {
                            tracing::error!(%error, "cannot cut the raft log");
                        } else {
                            tracing::debug!(index = position.index, "saved snapshot");
                        }
                    }
                    Err(error @ PersistError::NoSpace { .. }) => {
                        tracing::error!(%error, "cannot checkpoint the store: no space");
                    }
                    Err(error) => return Err(error.into()),
                }
                last_checkpoint = Instant::now();
                next_checkpoint = last_checkpoint + CHECKPOINT_INTERVAL;
            }
            if stopped {
                return Ok(());
            }
            if full {
                let mut stopped = self.stopped.lock();
                self.wake.wait_for(&mut stopped, Duration::from_secs(1));
            }
        }
    }
}

/// Staged bytes at which rows are moved without waiting.
const PERSIST_AT_BYTES: usize = 512 << 10;
