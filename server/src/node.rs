//! The node: everything that handlers share.

use crate::cluster::Cluster;
use crate::compaction::Compaction;
use crate::held::Budget;
use crate::login::Logins;
use crate::mailbox::{Completion, Expected, Mailbox, Mailboxes};
use crate::metrics::Metrics;
use crate::tokens::Tokens;
use bytes::Bytes;
use holdfast_audit::{Auditor, NodeKey, Writer};
use holdfast_auth::{Authorized, Caller};
use holdfast_config::{Config, Profile, ProfileSettings};
use holdfast_consensus::{Done, Failure, Group, Members, StateMachine, Status, Submission, Ticket};
use holdfast_storage::LogPosition;
use holdfast_storage::backend::StoreView;
use holdfast_storage::disk::RealDisk;
use holdfast_storage::lease::Millis;
use holdfast_tenant::{
    Answer, Command, IncomingState, Machine, Membership, Outcome, Refusal, Tenant, Tenants,
};
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
    /// What a new leader adds to the time of leases: the old one may have renewed some until it noticed.
    pub(crate) lease_extension: Millis,
    /// Told when users and roles have changed, or the switch.
    pub(crate) auth_changes: tokio::sync::watch::Sender<AuthVersion>,
    /// Told when the members have changed.
    pub(crate) member_changes: tokio::sync::watch::Sender<Arc<Membership>>,
    /// Told when a compaction was applied.
    pub(crate) compaction: Arc<Compaction>,
    pub(crate) compacted: i64,
}

impl Applier {
    /// Tells whoever waits what has changed.
    fn tell(&mut self) {
        let version = auth_version(&self.tenant);
        self.auth_changes
            .send_if_modified(|known| std::mem::replace(known, version) != version);
        let members = self.machine.tenants().members();
        self.member_changes.send_if_modified(|known| {
            let is_new = !Arc::ptr_eq(known, &members);
            *known = members;
            is_new
        });
        let compacted = self.tenant.compacted();
        if std::mem::replace(&mut self.compacted, compacted) != compacted {
            self.compaction.requested();
        }
    }
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
    type View = StoreView;
    type Incoming = IncomingState;

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
        self.tell();
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

    fn check(&self, data: &Bytes) -> Result<(), String> {
        let mut rest = data.clone();
        loop {
            match Command::decode_next(&mut rest) {
                Ok(None) => return Ok(()),
                Ok(Some((tenant, _, command))) => {
                    if changes_votes(&command) {
                        return Err("a change of voters among other commands".to_owned());
                    }
                    if self.machine.tenants().get(tenant).is_none() {
                        return Err("a command for an unknown tenant".to_owned());
                    }
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn describe(incoming: &IncomingState) -> (LogPosition, Members) {
        (incoming.position(), of_raft(incoming.members()))
    }

    fn members(&self) -> Members {
        of_raft(&self.machine.tenants().members())
    }

    fn view(&mut self) -> Result<StoreView, String> {
        Ok(self.machine.tenants().store().view())
    }

    fn install(&mut self, position: LogPosition, incoming: IncomingState) -> Result<(), String> {
        if incoming.position() != position {
            return Err("the snapshot is of another entry than its message".to_owned());
        }
        let begun = Instant::now();
        self.metrics.installing(true);
        let installed = self.machine.install_state(incoming);
        self.metrics.installing(false);
        installed.map_err(|error| error.to_string())?;
        self.tell();
        // What the sender had compacted and not yet removed came with it, at the same mark or not.
        self.compaction.requested();
        tracing::info!(
            index = position.index,
            took_ms = begun.elapsed().as_millis() as u64,
            "installed a snapshot"
        );
        Ok(())
    }

    fn recorded(&mut self) -> Result<(), String> {
        let store = self.machine.tenants().store();
        store
            .installed_recorded()
            .map_err(|error| error.to_string())
    }

    fn lead(&mut self) {
        self.machine
            .promote_leases(self.clock.now(), self.lease_extension);
    }

    fn follow(&mut self) {
        self.machine.demote_leases();
    }
}

/// A membership as raft sees it.
fn of_raft(members: &Membership) -> Members {
    Members {
        voters: members.voters(),
        learners: members.learners(),
    }
}

/// Whether a command must go into the log as a change of voters or learners.
fn changes_votes(command: &Command) -> bool {
    matches!(
        command,
        Command::MemberAdd { .. } | Command::MemberPromote { .. } | Command::MemberRemove { .. }
    )
}

/// The raft group of this process.
pub(crate) type NodeGroup = Group<Applier, RealDisk>;

/// Who this member is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) cluster: u64,
    pub(crate) member: u64,
    /// This data directory's.
    pub(crate) instance: u64,
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
    /// For what belongs to no worker; served by the main thread.
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) compaction: Arc<Compaction>,
    /// The other members.
    pub(crate) cluster: Cluster,
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

    /// Waits until the applied state may be read as the present one; for what does not belong to a worker.
    pub(crate) async fn linearizable(&self) -> Result<(), ProposeError> {
        if self.status.leads_alone() {
            return Ok(());
        }
        let begun = Instant::now();
        let (ticket, expected) = self.mailbox.expect(begun);
        let result = match self.group.read(&[ticket]) {
            Ok(()) => readable(expected.await),
            Err(failure) => Err(ProposeError::Failure(failure)),
        };
        self.metrics.read_index(begun.elapsed(), &result);
        result
    }

    /// Puts a command of the server's own through the log; for what does not belong to a worker.
    pub(crate) async fn propose(&self, command: &Command) -> Result<Answer, ProposeError> {
        let (submission, expected) = self.internal(command);
        let result = match self.group.submit(submission) {
            Ok(()) => applied(expected.await),
            Err(failure) => Err(ProposeError::Failure(failure)),
        };
        self.metrics.proposed(&result);
        result
    }

    /// As [`Node::propose`], but only while this member leads in `term`: what was decided by what only that leader knows must not go
    /// through the next one.
    pub(crate) async fn propose_in_term(
        &self,
        term: u64,
        command: &Command,
    ) -> Result<Answer, ProposeError> {
        let (submission, expected) = self.internal(command);
        self.group
            .submit_in_term(term, submission)
            .map_err(ProposeError::Failure)?;
        applied(expected.await)
    }

    fn internal(&self, command: &Command) -> (Submission, Expected) {
        let mut submission = Submission::default();
        let tenant = self.default_tenant.id;
        command.encode(tenant, &Caller::Server, &mut submission.data);
        let (ticket, expected) = self.mailbox.expect(Instant::now());
        submission.tickets.push(ticket);
        (submission, expected)
    }
}

/// What a command came to.
pub(crate) fn applied(completion: Option<Completion>) -> Result<Answer, ProposeError> {
    match completion {
        Some(Ok(Done::Applied(Ok(answer)))) => Ok(answer),
        Some(Ok(Done::Applied(Err(refusal)))) => Err(ProposeError::Refused(refusal)),
        Some(Err(failure)) => Err(ProposeError::Failure(failure)),
        // A command's slot is never told that something may be read.
        Some(Ok(Done::Readable)) | None => Err(ProposeError::TimedOut),
    }
}

fn readable(completion: Option<Completion>) -> Result<(), ProposeError> {
    match completion {
        Some(Ok(Done::Readable)) => Ok(()),
        Some(Err(failure)) => Err(ProposeError::Failure(failure)),
        // A read's slot is never told a command's outcome.
        Some(Ok(Done::Applied(_))) | None => Err(ProposeError::TimedOut),
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
    gathered_reads: Mutex<Vec<Ticket>>,
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
            gathered_reads: Mutex::default(),
            flush: Notify::new(),
        }
    }

    /// Sends a client's command through the log.
    pub(crate) async fn propose(
        &self,
        tenant: &Tenant,
        command: Authorized<Command>,
    ) -> Result<Answer, ProposeError> {
        self.submit(tenant, command.caller(), command.request())
            .await
    }

    /// Sends a command of the server's own through the log: expiry, checkpoints, alarms, auto-compaction.
    pub(crate) async fn propose_internal(
        &self,
        tenant: &Tenant,
        command: &Command,
    ) -> Result<Answer, ProposeError> {
        self.submit(tenant, &Caller::Server, command).await
    }

    async fn submit(
        &self,
        tenant: &Tenant,
        caller: &Caller,
        command: &Command,
    ) -> Result<Answer, ProposeError> {
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
        let result = applied(expected.await);
        self.node.metrics.proposed(&result);
        result
    }

    /// Waits until the applied state may be read as the present one: at once on a member that leads alone. One round of ReadIndex serves all
    /// reads that wait.
    pub(crate) async fn linearizable(&self) -> Result<(), ProposeError> {
        if self.node.status.leads_alone() {
            return Ok(());
        }
        let begun = Instant::now();
        let (ticket, expected) = self.mailbox.expect(begun);
        self.gathered_reads.lock().push(ticket);
        self.flush.notify_one();
        let result = readable(expected.await);
        self.node.metrics.read_index(begun.elapsed(), &result);
        result
    }

    /// Hands gathered commands to the group, as many at a time as the handlers of one round of the runtime left. Never ends.
    pub(crate) async fn flush_commands(self: Arc<Self>) {
        loop {
            self.flush.notified().await;
            let reads = std::mem::take(&mut *self.gathered_reads.lock());
            if !reads.is_empty()
                && let Err(failure) = self.node.group.read(&reads)
            {
                self.complete(reads, failure);
            }
            if self.gathered.lock().tickets.is_empty() {
                continue;
            }
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
            let tickets = submission.tickets.clone();
            let submitted = if store.staged_bytes() > STAGED_BYTES_MAX {
                Err(Failure::DiskFull)
            } else {
                self.node.group.submit(submission)
            };
            if let Err(failure) = submitted {
                self.complete(tickets, failure);
            }
        }
    }

    fn complete(&self, tickets: Vec<Ticket>, failure: Failure) {
        use holdfast_consensus::Completions;
        let mut done: Vec<_> = tickets
            .into_iter()
            .map(|ticket| (ticket, Err(failure)))
            .collect();
        self.node.mailboxes.complete(&mut done);
    }
}
