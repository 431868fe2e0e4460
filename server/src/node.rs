//! The node: everything that handlers share.

use crate::compaction::Compaction;
use crate::held::Budget;
use crate::login::Logins;
use crate::mailbox::{Completion, Mailbox, Mailboxes};
use crate::metrics::Metrics;
use crate::tokens::Tokens;
use bytes::Bytes;
use holdfast_audit::{Auditor, NodeKey, Writer};
use holdfast_auth::{Authorized, Caller};
use holdfast_config::{Config, Profile, ProfileSettings};
use holdfast_consensus::{Failure, Group, StateMachine, Status, Submission};
use holdfast_storage::LogPosition;
use holdfast_storage::disk::RealDisk;
use holdfast_storage::lease::Millis;
use holdfast_tenant::{Command, Machine, Outcome, Refusal, Tenant, Tenants};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore};

/// The grain of the memory budget of long answers, bytes.
pub(crate) const READ_BUDGET_UNIT_BYTES: u64 = 4096;

/// The clock that leases run by: milliseconds since the process began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    begun: Instant,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock {
            begun: Instant::now(),
        }
    }

    pub(crate) fn now(self) -> Millis {
        Millis(self.begun.elapsed().as_millis() as u64)
    }
}

/// Joins the tenants' state machine to the raft driver.
pub(crate) struct Applier {
    pub(crate) machine: Machine,
    /// The only tenant.
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    /// An entry that takes longer is logged.
    pub(crate) slow_apply: Duration,
    /// Told when users and roles have changed, or the switch.
    pub(crate) auth_changes: tokio::sync::watch::Sender<AuthVersion>,
}

/// Which state of users and roles is in force: whether they are, and the auth revision.
pub(crate) type AuthVersion = (bool, u64);

/// The version of a tenant's users and roles.
pub(crate) fn auth_version(tenant: &Tenant) -> AuthVersion {
    let auth = tenant.auth();
    (auth.is_enabled(), auth.revision())
}

impl StateMachine for Applier {
    type Outcome = Outcome;

    fn apply(
        &mut self,
        position: LogPosition,
        data: Bytes,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), String> {
        let begun = Instant::now();
        let result = self
            .machine
            .apply(position, data, self.clock.now(), outcomes)
            .map_err(|error| error.to_string());
        let took = begun.elapsed();
        self.metrics.applied(took, outcomes);
        let version = auth_version(&self.tenant);
        self.auth_changes
            .send_if_modified(|known| std::mem::replace(known, version) != version);
        if took > self.slow_apply {
            self.metrics.slow_apply();
            tracing::warn!(
                index = position.index,
                commands = outcomes.len(),
                took_ms = took.as_millis() as u64,
                "applying an entry took long"
            );
        }
        result
    }

    fn lead(&mut self) {
        self.machine.promote_leases(self.clock.now(), Millis(0));
    }
}

/// The raft group of this process.
pub(crate) type NodeGroup = Group<Applier, RealDisk>;

/// Who this member is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) cluster: u64,
    pub(crate) member: u64,
    /// Fixed when the cluster was founded.
    pub(crate) profile: Profile,
}

/// What handlers share.
pub(crate) struct Node {
    pub(crate) identity: Identity,
    pub(crate) config: Arc<Config>,
    pub(crate) group: Arc<NodeGroup>,
    pub(crate) status: Arc<Status>,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) default_tenant: Arc<Tenant>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) mailboxes: Arc<Mailboxes>,
    pub(crate) compaction: Compaction,
    /// Tells streams that users and roles have changed.
    pub(crate) auth_changes: tokio::sync::watch::Receiver<AuthVersion>,
    pub(crate) tokens: Tokens,
    /// Users whose password is being changed.
    pub(crate) changing_passwords: Mutex<HashSet<String>>,
    pub(crate) logins: Arc<Logins>,
    pub(crate) auditor: Auditor,
    /// Signs the audit log's checkpoints.
    pub(crate) audit_key: NodeKey,
    /// Memory that long answers share, in units of [`READ_BUDGET_UNIT_BYTES`].
    pub(crate) read_budget: Arc<Semaphore>,
    pub(crate) read_budget_units: u32,
    /// What connections hold besides.
    pub(crate) held: Arc<Budget>,
    /// Turns of snapshots: each takes as much of the disk as the store.
    pub(crate) snapshots: Semaphore,
    /// Turns of hashes: each reads the whole store, on a thread that long ranges need, too.
    pub(crate) hashes: Semaphore,
    pub(crate) snap_dir: PathBuf,
    /// The store's disk is full: rows stay in memory, so few more may come.
    pub(crate) store_full: AtomicBool,
    pub(crate) shutdown: tokio::sync::watch::Sender<bool>,
}

/// The turn of one user's change of password; others of that user are refused until it is dropped.
pub(crate) struct PasswordChange<'a> {
    node: &'a Node,
    user: String,
}

impl Drop for PasswordChange<'_> {
    fn drop(&mut self) {
        self.node.changing_passwords.lock().remove(&self.user);
    }
}

impl Node {
    /// Takes a user's turn to change the password, unless another change of the same user is under way: hashing is work, and one at a time is
    /// enough for anybody.
    pub(crate) fn password_change(&self, user: &str) -> Option<PasswordChange<'_>> {
        let is_first = self.changing_passwords.lock().insert(user.to_owned());
        is_first.then(|| PasswordChange {
            node: self,
            user: user.to_owned(),
        })
    }

    /// What follows from the cluster's profile.
    pub(crate) fn settings(&self) -> &ProfileSettings {
        self.config.for_profile(self.identity.profile)
    }

    /// Whether reads of the applied state are linearizable now.
    pub(crate) fn can_read(&self) -> Result<(), Failure> {
        if self.status.leads_alone() {
            Ok(())
        } else {
            Err(Failure::NoLeader)
        }
    }
}

/// Bytes of applied rows that may wait for the store: bounds memory and the replay after a crash.
const STAGED_BYTES_MAX: usize = 96 << 20;

/// Bytes of commands that a worker's handlers may gather while the store is behind. A client that resets its streams at once is not
/// held back by waiting: only this bounds what it leaves behind.
const GATHERED_BYTES_MAX: usize = 64 << 20;

/// Most bytes reserved ahead for a worker's next batch.
const GATHERED_RESERVE_BYTES: usize = 64 << 10;

/// One worker's side of the node: its mailbox and the commands that its handlers gather.
pub(crate) struct Worker {
    pub(crate) node: Arc<Node>,
    pub(crate) mailbox: Arc<Mailbox>,
    /// Where the worker's calls leave their audit records.
    pub(crate) audit: Writer,
    gathered: Mutex<Submission>,
    flush: Notify,
}

/// Why a proposal has no answer.
#[derive(Debug)]
pub(crate) enum ProposeError {
    /// It was not taken, or lost.
    Failure(Failure),
    /// It took longer than a request may.
    TimedOut,
    /// It was refused.
    Refused(Refusal),
    /// It is longer than `max-request-bytes`.
    TooLarge,
}

impl From<Refusal> for ProposeError {
    fn from(refusal: Refusal) -> ProposeError {
        ProposeError::Refused(refusal)
    }
}

impl Worker {
    pub(crate) fn new(node: Arc<Node>, worker: usize) -> Worker {
        Worker {
            mailbox: node.mailboxes.of(worker).clone(),
            audit: node.auditor.writer(),
            node,
            gathered: Mutex::default(),
            flush: Notify::new(),
        }
    }

    /// Sends a client's command through the log.
    pub(crate) async fn propose(
        &self,
        tenant: &Tenant,
        command: Authorized<Command>,
    ) -> Result<holdfast_tenant::Answer, ProposeError> {
        self.submit(tenant, command.caller(), command.request())
            .await
    }

    /// Sends a command of the server's own through the log: expiry, checkpoints, alarms, auto-compaction.
    pub(crate) async fn propose_internal(
        &self,
        tenant: &Tenant,
        command: &Command,
    ) -> Result<holdfast_tenant::Answer, ProposeError> {
        self.submit(tenant, &Caller::Server, command).await
    }

    async fn submit(
        &self,
        tenant: &Tenant,
        caller: &Caller,
        command: &Command,
    ) -> Result<holdfast_tenant::Answer, ProposeError> {
        let expected = {
            let mut gathered = self.gathered.lock();
            let before = gathered.data.len();
            if before > GATHERED_BYTES_MAX {
                return Err(ProposeError::Failure(Failure::Overloaded));
            }
            command.encode(tenant.id, caller, &mut gathered.data);
            if gathered.data.len() - before > self.node.config.max_request_bytes {
                gathered.data.truncate(before);
                return Err(ProposeError::TooLarge);
            }
            let (ticket, expected) = self.mailbox.expect(Instant::now());
            gathered.tickets.push(ticket);
            expected
        };
        self.flush.notify_one();
        let completion: Option<Completion> = expected.await;
        match completion {
            Some(Ok(Ok(answer))) => Ok(answer),
            Some(Ok(Err(refusal))) => Err(ProposeError::Refused(refusal)),
            Some(Err(failure)) => {
                self.node.metrics.proposal_failed();
                Err(ProposeError::Failure(failure))
            }
            None => {
                self.node.metrics.proposal_failed();
                Err(ProposeError::TimedOut)
            }
        }
    }

    /// Hands gathered commands to the group, as many at a time as the handlers of one round of the runtime left. Never ends.
    pub(crate) async fn flush_commands(self: Arc<Self>) {
        loop {
            self.flush.notified().await;
            let store = self.node.tenants.store();
            while store.staged_bytes() > STAGED_BYTES_MAX
                && !self.node.store_full.load(Ordering::Relaxed)
            {
                // The store is behind: writes wait for it here, and what is waiting is bounded by the clients' requests.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let submission = {
                let mut gathered = self.gathered.lock();
                // The next batch will be about as long.
                let next = Submission {
                    data: Vec::with_capacity(gathered.data.len().min(GATHERED_RESERVE_BYTES)),
                    tickets: Vec::with_capacity(gathered.tickets.len()),
                };
                std::mem::replace(&mut *gathered, next)
            };
            if submission.tickets.is_empty() {
                continue;
            }
            let tickets = submission.tickets.clone();
            let submitted = if store.staged_bytes() > STAGED_BYTES_MAX {
                Err(Failure::DiskFull)
            } else {
                self.node.group.submit(submission)
            };
            if let Err(failure) = submitted {
                use holdfast_consensus::Completions;
                let mut done: Vec<_> = tickets
                    .into_iter()
                    .map(|ticket| (ticket, Err(failure)))
                    .collect();
                self.node.mailboxes.complete(&mut done);
            }
        }
    }
}
