//! The replicated state machine: applies committed entries, in log order, to memory, and says what the store must keep.
//!
//! Deterministic: the same entries give the same state and answers on every member. Time enters as a parameter and touches only
//! when a lease ends here, never what is stored.

mod alarm;
mod auth;
mod install;
mod lease;
mod members;
mod records;
mod restore;

pub use install::{IncomingState, InstallFault};
pub use restore::RestoreError;

use crate::answer::{Alarm, Answer, Refusal};
use crate::command::{Command, DecodeError};
use crate::membership::Member;
use crate::request::{DeleteRange, Put, Txn};
use crate::state::{ROW_OVERHEAD_BYTES, Tenant, Tenants};
use crate::txn::{self, Execution, PendingRows};
use crate::watch::{Event, Message, Transaction};
use bytes::Bytes;
use holdfast_auth::Caller;
use holdfast_storage::lease::Millis;
use holdfast_storage::{Change, LogPosition, Revision, Row, TenantId};
use records::{COMPACTED, REVISION, record_key};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What an applied command gives its caller.
pub type Outcome = Result<Answer, Refusal>;

/// An entry that cannot be applied. The machine must not go on: it would differ from other members, or from itself after a restart.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// No member writes such an entry.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A row that a command needs cannot be read. The entry may be half applied, in memory alone.
    #[error("a row that a command needs cannot be read: {0}")]
    Unreadable(String),
}

/// How tenants are set up.
#[derive(Clone, Debug)]
pub struct MachineOptions {
    /// Logical bytes a tenant may hold; `None` is unbounded.
    pub quota_bytes: Option<u64>,
    /// How often the remaining time of long leases is recorded.
    pub lease_checkpoint_interval: Millis,
    /// A lease belongs to its creator: others may not use one that has no keys. All members must have the same setting, which is
    /// part of the cluster's profile: it decides over commands.
    pub lease_ownership: bool,
    /// Who belongs to the group if the store does not say: in a new cluster that is known from the beginning, and with a data directory
    /// from before there were records of members. All members found a cluster with the same ones, and it must be the same ones for as
    /// long as the store may be built again from the log's first entry. Empty for a member that joins: a snapshot tells it.
    pub founding: Vec<Member>,
}

/// The state machine of one raft group.
pub struct Machine {
    tenants: Arc<Tenants>,
    position: LogPosition,
    /// Set while entries may come of a group that was given up: the last of its terms.
    given_up: Option<u64>,
    options: MachineOptions,
    changes: Vec<Change>,
    /// Rows of the entry in hand, per tenant, in revision order.
    rows: HashMap<TenantId, Vec<Row>>,
    /// Watched changes of the entry in hand since the last of `messages`.
    transactions: Vec<Transaction>,
    /// What the entry in hand has for the hub, in the order of its commands.
    messages: Vec<Message>,
}

impl Machine {
    /// The state, for readers.
    pub fn tenants(&self) -> &Arc<Tenants> {
        &self.tenants
    }

    /// The last applied entry.
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// This member begins to lead, and has applied what was committed before: the time of all leases starts anew from their last
    /// checkpoint, and `extend` longer. See [`LeaseTable::promote`](holdfast_storage::lease::LeaseTable::promote) for how long that must be.
    pub fn promote_leases(&self, now: Millis, extend: Millis) {
        for tenant in self.tenants.all() {
            tenant.leases.lock().promote(now, extend);
        }
    }

    /// This member leads no longer: it ends no leases, records no times and renews nothing.
    pub fn demote_leases(&self) {
        for tenant in self.tenants.all() {
            tenant.leases.lock().demote();
        }
    }

    /// Applies one entry and appends one outcome per command, in order.
    ///
    /// # Errors
    /// [`ApplyError`]; the process must stop.
    pub fn apply(
        &mut self,
        position: LogPosition,
        mut entry: Bytes,
        now: Millis,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), ApplyError> {
        let tenants = self.tenants.clone();
        let applying = tenants.applying.write();
        self.leave_given_up(position.term);
        let mut touched: Vec<Arc<Tenant>> = Vec::new();
        while let Some((id, caller, command)) = Command::decode_next(&mut entry)? {
            let Some(tenant) = touched
                .iter()
                .find(|tenant| tenant.id == id)
                .cloned()
                .or_else(|| tenants.get(id))
            else {
                return Err(DecodeError::Unknown("tenant").into());
            };
            let outcome = self.command(&tenant, &caller, &command, now);
            if let Err(Refusal::Storage(reason)) = outcome {
                return Err(ApplyError::Unreadable(reason));
            }
            outcomes.push(outcome);
            if !touched.iter().any(|other| other.id == id) {
                touched.push(tenant);
            }
        }
        self.position = position;
        self.finish(position, &touched);
        drop(applying);
        Ok(())
    }

    /// Tells the store that rows which [`Tenant::prune`] removed from the index may go. `bytes` is what they counted for.
    pub fn drop_rows(&mut self, tenant: &Tenant, dropped: Vec<Revision>, bytes: u64) {
        if !tenant.is_what_was_pruned() {
            // The store was replaced since, and may have again what was dropped before these rows: a put whose tombstone goes first
            // would live again after a restart. The index in place knows all of them, and is pruned like the one before.
            return;
        }
        let changes = dropped
            .into_iter()
            .map(|revision| Change::DropRow(tenant.id, revision))
            .collect();
        self.tenants.store.stage(self.position, changes);
        let _ = tenant
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |size| {
                Some(size.saturating_sub(bytes))
            });
    }

    fn finish(&mut self, position: LogPosition, touched: &[Arc<Tenant>]) {
        let mut changes = std::mem::take(&mut self.changes);
        for tenant in touched {
            let Some(rows) = self.rows.get_mut(&tenant.id) else {
                continue;
            };
            if let Some(last) = rows.last() {
                changes.push(Change::PutMeta(
                    record_key(REVISION, tenant.id, &[]),
                    Bytes::copy_from_slice(&last.revision.main.to_le_bytes()),
                ));
            }
            let bytes: u64 = rows.iter().map(row_bytes).sum();
            tenant.bytes.fetch_add(bytes, Ordering::Relaxed);
            changes.extend(rows.drain(..).map(|row| Change::PutRow(tenant.id, row)));
        }
        self.tenants.store.stage(position, changes);
        self.flush_transactions();
        if !self.messages.is_empty() {
            self.tenants.inbox.push_all(self.messages.drain(..));
        }
        // After the inbox has it: the hub reads this first, and what it reads then is what it was told of.
        for tenant in touched {
            tenant.published.store(tenant.revision(), Ordering::Release);
        }
    }

    /// Ends the transactions that come before what is pushed to the hub next.
    fn flush_transactions(&mut self) {
        if !self.transactions.is_empty() {
            let transactions = std::mem::take(&mut self.transactions);
            self.messages.push(Message::Applied(transactions));
        }
    }

    fn command(
        &mut self,
        tenant: &Tenant,
        caller: &Caller,
        command: &Command,
        now: Millis,
    ) -> Outcome {
        // First of all: who may not do it is told nothing else.
        auth::permit(tenant, caller, command)?;
        let alarms = tenant.alarm_bits.load(Ordering::Acquire);
        if alarms != 0 {
            alarm::check_alarms(alarms, command)?;
        }
        match command {
            Command::Put(put) => self.put(tenant, put),
            Command::DeleteRange(delete) => self.delete(tenant, delete),
            Command::Txn(txn) => self.txn(tenant, txn),
            Command::Compact { revision } => self.compact(tenant, *revision),
            Command::LeaseGrant { id, ttl } => self.grant(tenant, caller, *id, *ttl, now),
            Command::LeaseRevoke { id } => self.revoke(tenant, *id),
            Command::LeaseCheckpoint(items) => self.checkpoint(tenant, items),
            Command::RaiseAlarm(alarm) => self.raise(tenant, *alarm),
            Command::ClearAlarm(alarm) => self.clear(tenant, *alarm),
            Command::Auth(change) => self.change_auth(tenant, change),
            Command::PublishTokenKey {
                key,
                retire_older_at,
            } => self.publish_token_key(tenant, key, *retire_older_at),
            Command::MemberAdd { .. }
            | Command::MemberPromote { .. }
            | Command::MemberRemove { .. }
            | Command::MemberUpdate { .. }
            | Command::MemberPublish { .. } => self.change_members(command),
        }
    }

    fn put(&mut self, tenant: &Tenant, put: &Put) -> Outcome {
        self.write(tenant, |execution| {
            let leases = &*execution.leases;
            txn::check_put(execution.txn.view(), put, &|id| leases.contains(id))?;
            execution.put(put).map(Answer::Put)
        })
    }

    fn delete(&mut self, tenant: &Tenant, delete: &DeleteRange) -> Outcome {
        self.write(tenant, |execution| {
            execution.delete(delete).map(Answer::Delete)
        })
    }

    fn txn(&mut self, tenant: &Tenant, txn: &Txn) -> Outcome {
        self.write(tenant, |execution| {
            let pending = PendingRows {
                store: execution.store,
                tenant: execution.tenant,
                rows: execution.rows,
            };
            let view = execution.txn.view();
            let verdict = txn::judge(view, &pending, txn)?;
            let leases = &*execution.leases;
            txn::check(view, txn, &verdict, &|id| leases.contains(id))?;
            execution.run(txn, &verdict).map(Answer::Txn)
        })
    }

    /// Runs one transaction on a tenant's state.
    fn write(
        &mut self,
        tenant: &Tenant,
        run: impl FnOnce(&mut Execution<'_>) -> Outcome,
    ) -> Outcome {
        let mut mvcc = tenant.mvcc.write();
        let mut leases = tenant.leases.lock();
        let watched = tenant.watch_streams.load(Ordering::SeqCst) > 0;
        let mut events: Vec<Event> = Vec::new();
        let before = mvcc.revision();
        let rows = self.rows.entry(tenant.id).or_default();
        let mut execution = Execution {
            txn: mvcc.begin(),
            store: &self.tenants.store,
            tenant: tenant.id,
            rows,
            events: watched.then_some(&mut events),
            leases: &mut leases,
        };
        let outcome = run(&mut execution);
        let main = execution.txn.finish();
        if main > before && !events.is_empty() {
            self.transactions.push(Transaction {
                tenant: tenant.id,
                main,
                events,
            });
        }
        outcome
    }

    fn compact(&mut self, tenant: &Tenant, revision: i64) -> Outcome {
        use holdfast_storage::mvcc::CompactError;
        let mut mvcc = tenant.mvcc.write();
        mvcc.compact(revision).map_err(|error| match error {
            CompactError::Compacted => Refusal::Compacted,
            CompactError::Future => Refusal::FutureRevision,
        })?;
        let current = mvcc.revision();
        drop(mvcc);
        self.changes.push(Change::PutMeta(
            record_key(COMPACTED, tenant.id, &[]),
            Bytes::copy_from_slice(&revision.to_le_bytes()),
        ));
        Ok(Answer::Compacted { revision: current })
    }

    /// The options that the machine was made with.
    pub fn options(&self) -> &MachineOptions {
        &self.options
    }
}

pub(crate) fn row_bytes(row: &Row) -> u64 {
    ROW_OVERHEAD_BYTES + row.key.len() as u64 + row.value.len() as u64
}

fn done(tenant: &Tenant, alarms: Vec<Alarm>) -> Answer {
    Answer::Done {
        alarms,
        revision: tenant.revision(),
    }
}
