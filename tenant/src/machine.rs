//! The replicated state machine: applies committed entries, in log order, to memory, and says what the store must keep.
//!
//! Deterministic: the same entries give the same state and answers on every member. Time enters as a parameter and touches only
//! when a lease ends here, never what is stored.

use crate::answer::{Alarm, Answer, Refusal};
use crate::command::{Command, DecodeError};
use crate::request::{DeleteRange, Put, Txn};
use crate::state::{ROW_OVERHEAD_BYTES, Tenant, Tenants, alarm_bit};
use crate::txn::{self, Execution, PendingRows};
use crate::watch::{Event, Inbox, Message, Transaction};
use bytes::{BufMut, Bytes, BytesMut};
use holdfast_auth::KeyRange;
use holdfast_storage::backend::Store;
use holdfast_storage::lease::{LeaseTable, Millis};
use holdfast_storage::mvcc::{Mvcc, RowHeader};
use holdfast_storage::{Change, LogPosition, Revision, Row, TenantId};
use parking_lot::RwLock;
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
#[derive(Clone, Copy, Debug)]
pub struct MachineOptions {
    /// Logical bytes a tenant may hold; `None` is unbounded.
    pub quota_bytes: Option<u64>,
    /// How often the remaining time of long leases is recorded.
    pub lease_checkpoint_interval: Millis,
}

/// A state that cannot be rebuilt from what is stored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store cannot be read.
    #[error("cannot read the store: {0}")]
    Read(#[from] holdfast_storage::backend::ReadError),
    /// The rows do not make an index.
    #[error("tenant {tenant}: the stored rows do not fit together: {source}")]
    Rows {
        /// Whose.
        tenant: TenantId,
        /// What is wrong.
        source: holdfast_storage::mvcc::RestoreError,
    },
    /// A state record is not one.
    #[error("the state record {key:?} is damaged: {reason}")]
    Record {
        /// Its key.
        key: Bytes,
        /// What is wrong.
        reason: String,
    },
}

/// Alarms of one tenant: two for each of many members. A client names the member, so that their number has no other bound.
const ALARMS_MAX: usize = 1_024;

const REVISION: u8 = b'r';
const COMPACTED: u8 = b'c';
const LEASE: u8 = b'l';
const ALARM: u8 = b'a';

/// The state machine of one raft group.
pub struct Machine {
    tenants: Arc<Tenants>,
    position: LogPosition,
    options: MachineOptions,
    changes: Vec<Change>,
    /// Rows of the entry in hand, per tenant, in revision order.
    rows: HashMap<TenantId, Vec<Row>>,
    transactions: Vec<Transaction>,
}

impl Machine {
    /// Rebuilds the state from the store, which was applied up to `applied`.
    ///
    /// # Errors
    /// [`RestoreError`] when the store does not hold a whole state.
    pub fn restore(
        store: Arc<Store>,
        applied: LogPosition,
        options: MachineOptions,
        now: Millis,
    ) -> Result<Machine, RestoreError> {
        let tenants = Arc::new(Tenants {
            store: store.clone(),
            inbox: Arc::new(Inbox::default()),
            by_id: RwLock::default(),
            applying: RwLock::default(),
        });
        let mut ids = store.tenants()?;
        for (key, _) in store.meta(&[])? {
            ids.push(record_tenant(&key)?);
        }
        ids.push(TenantId::DEFAULT);
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let tenant = restore_tenant(&store, id, options, now)?;
            tenants.by_id.write().insert(id, Arc::new(tenant));
        }
        Ok(Machine {
            tenants,
            position: applied,
            options,
            changes: Vec::new(),
            rows: HashMap::new(),
            transactions: Vec::new(),
        })
    }

    /// The state, for readers.
    pub fn tenants(&self) -> &Arc<Tenants> {
        &self.tenants
    }

    /// The last applied entry.
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// This node begins to lead: the time of all leases starts anew from their last checkpoint.
    pub fn promote_leases(&self, now: Millis, extend: Millis) {
        for tenant in self.tenants.all() {
            tenant.leases.lock().promote(now, extend);
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
        let mut touched: Vec<Arc<Tenant>> = Vec::new();
        while let Some((id, command)) = Command::decode_next(&mut entry)? {
            let Some(tenant) = touched
                .iter()
                .find(|tenant| tenant.id == id)
                .cloned()
                .or_else(|| tenants.get(id))
            else {
                return Err(DecodeError::Unknown("tenant").into());
            };
            let outcome = self.command(&tenant, &command, now);
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
        if !self.transactions.is_empty() {
            let transactions = std::mem::take(&mut self.transactions);
            self.tenants.inbox.push(Message::Applied(transactions));
        }
        for tenant in touched {
            tenant.published.store(tenant.revision(), Ordering::Release);
        }
    }

    fn command(&mut self, tenant: &Tenant, command: &Command, now: Millis) -> Outcome {
        let alarms = tenant.alarm_bits.load(Ordering::Acquire);
        if alarms != 0 {
            self.check_alarms(alarms, command)?;
        }
        match command {
            Command::Put(put) => self.put(tenant, put),
            Command::DeleteRange(delete) => self.delete(tenant, delete),
            Command::Txn(txn) => self.txn(tenant, txn),
            Command::Compact { revision } => self.compact(tenant, *revision),
            Command::LeaseGrant { id, ttl } => self.grant(tenant, *id, *ttl, now),
            Command::LeaseRevoke { id } => self.revoke(tenant, *id),
            Command::LeaseCheckpoint(items) => {
                let mut leases = tenant.leases.lock();
                for (id, remaining) in items {
                    if leases.checkpoint(*id, *remaining)
                        && let Some(record) = leases.encode(*id)
                    {
                        self.changes
                            .push(Change::PutMeta(lease_key(tenant.id, *id), record));
                    }
                }
                drop(leases);
                Ok(done(tenant, Vec::new()))
            }
            Command::RaiseAlarm(alarm) => {
                let mut alarms = tenant.alarms.write();
                if alarms.len() >= ALARMS_MAX && !alarms.contains(alarm) {
                    return Err(Refusal::TooManyAlarms);
                }
                let raised = alarms.insert(*alarm);
                drop(alarms);
                if raised {
                    self.changes
                        .push(Change::PutMeta(alarm_key(tenant.id, *alarm), Bytes::new()));
                }
                refresh_alarm_bits(tenant);
                Ok(done(tenant, vec![*alarm]))
            }
            Command::ClearAlarm(alarm) => {
                let cleared = tenant.alarms.write().remove(alarm);
                if cleared {
                    self.changes
                        .push(Change::DropMeta(alarm_key(tenant.id, *alarm)));
                }
                refresh_alarm_bits(tenant);
                let alarms = cleared.then_some(*alarm).into_iter().collect();
                Ok(done(tenant, alarms))
            }
        }
    }

    fn check_alarms(&self, alarms: u8, command: &Command) -> Result<(), Refusal> {
        if alarms & alarm_bit(crate::AlarmKind::Corrupt) != 0
            && !matches!(
                command,
                Command::RaiseAlarm(_) | Command::ClearAlarm(_) | Command::LeaseCheckpoint(_)
            )
        {
            return Err(Refusal::Corrupt);
        }
        let needs_space = match command {
            Command::Put(_) | Command::LeaseGrant { .. } => true,
            Command::Txn(txn) => txn.has_put(),
            _ => false,
        };
        if needs_space && alarms & alarm_bit(crate::AlarmKind::NoSpace) != 0 {
            return Err(Refusal::NoSpace);
        }
        Ok(())
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

    fn grant(&mut self, tenant: &Tenant, id: i64, ttl: i64, now: Millis) -> Outcome {
        if id == 0 {
            // It means no lease everywhere else, and its record could not be read back.
            return Err(Refusal::Malformed("lease id 0"));
        }
        let mut leases = tenant.leases.lock();
        leases
            .grant(id, ttl, now)
            .map_err(|_| Refusal::LeaseExists)?;
        let granted = leases.time_to_live(id, now);
        if let Some(record) = leases.encode(id) {
            self.changes
                .push(Change::PutMeta(lease_key(tenant.id, id), record));
        }
        drop(leases);
        Ok(Answer::LeaseGranted {
            id,
            ttl: granted.map_or(ttl, |time| time.granted_secs),
            revision: tenant.revision(),
        })
    }

    fn revoke(&mut self, tenant: &Tenant, id: i64) -> Outcome {
        let keys = tenant
            .leases
            .lock()
            .revoke(id)
            .ok_or(Refusal::LeaseNotFound)?;
        self.changes
            .push(Change::DropMeta(lease_key(tenant.id, id)));
        self.write(tenant, |execution| {
            for key in keys {
                execution.delete(&DeleteRange {
                    keys: KeyRange::Point(key),
                    previous: false,
                })?;
            }
            Ok(Answer::LeaseRevoked {
                revision: execution.txn.revision(),
            })
        })
    }

    /// The options that the machine was made with.
    pub fn options(&self) -> MachineOptions {
        self.options
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

fn refresh_alarm_bits(tenant: &Tenant) {
    let bits = tenant
        .alarms
        .read()
        .iter()
        .fold(0, |bits, alarm| bits | alarm_bit(alarm.kind));
    tenant.alarm_bits.store(bits, Ordering::Release);
}

fn record_key(kind: u8, tenant: TenantId, rest: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(5 + rest.len());
    key.put_u8(kind);
    key.put_u32(tenant.0);
    key.put_slice(rest);
    key.freeze()
}

fn lease_key(tenant: TenantId, id: i64) -> Bytes {
    record_key(LEASE, tenant, &id.to_be_bytes())
}

fn alarm_key(tenant: TenantId, alarm: Alarm) -> Bytes {
    let mut rest = alarm.member.to_be_bytes().to_vec();
    rest.push(alarm_bit(alarm.kind));
    record_key(ALARM, tenant, &rest)
}

fn damaged(key: &Bytes, reason: impl ToString) -> RestoreError {
    RestoreError::Record {
        key: key.clone(),
        reason: reason.to_string(),
    }
}

fn record_tenant(key: &Bytes) -> Result<TenantId, RestoreError> {
    match key.as_ref() {
        [REVISION | COMPACTED | LEASE | ALARM, a, b, c, d, ..] => {
            Ok(TenantId(u32::from_be_bytes([*a, *b, *c, *d])))
        }
        _ => Err(damaged(key, "unknown kind")),
    }
}

fn stored_revision(store: &Store, kind: u8, tenant: TenantId) -> Result<Option<i64>, RestoreError> {
    let key = record_key(kind, tenant, &[]);
    match store.meta(&key)?.into_iter().next() {
        Some((key, value)) => {
            let bytes = <[u8; 8]>::try_from(value.as_ref())
                .map_err(|_| damaged(&key, "not eight bytes"))?;
            Ok(Some(i64::from_le_bytes(bytes)))
        }
        None => Ok(None),
    }
}

fn restore_tenant(
    store: &Store,
    id: TenantId,
    options: MachineOptions,
    now: Millis,
) -> Result<Tenant, RestoreError> {
    let rows_fault = |source| RestoreError::Rows { tenant: id, source };
    let compacted = stored_revision(store, COMPACTED, id)?.unwrap_or(-1);
    let revision = stored_revision(store, REVISION, id)?
        .unwrap_or(1)
        .max(compacted)
        .max(1);
    let mut restore = Mvcc::restore(revision, compacted);
    let mut bytes = 0;
    for header in store.row_headers(id) {
        let header = header?;
        bytes += ROW_OVERHEAD_BYTES + header.key.len() as u64 + header.value_bytes;
        restore
            .row(RowHeader {
                revision: header.revision,
                key: &header.key,
                create_revision: header.create_revision,
                version: header.version,
                lease: header.lease,
                tombstone: header.tombstone,
            })
            .map_err(rows_fault)?;
    }
    let mvcc = restore.finish().map_err(rows_fault)?;
    let mut leases = LeaseTable::new(options.lease_checkpoint_interval);
    for (key, value) in store.meta(&record_key(LEASE, id, &[]))? {
        let lease = key
            .get(5..)
            .and_then(|rest| <[u8; 8]>::try_from(rest).ok())
            .map(i64::from_be_bytes)
            .ok_or_else(|| damaged(&key, "no lease id"))?;
        leases
            .decode(lease, &value, now)
            .map_err(|error| damaged(&key, error))?;
    }
    if !leases.is_empty() {
        let view = mvcc.view();
        for (key, version) in view.range_at(holdfast_storage::mvcc::KeySpan::ALL, revision) {
            if version.lease != 0 {
                leases.attach(version.lease, key);
            }
        }
    }
    let tenant = Tenant::new(id, mvcc, leases, options.quota_bytes);
    tenant.bytes.store(bytes, Ordering::Relaxed);
    for (key, _) in store.meta(&record_key(ALARM, id, &[]))? {
        let alarm = key
            .get(5..)
            .and_then(|rest| rest.split_last())
            .and_then(|(kind, member)| {
                let kind = [crate::AlarmKind::NoSpace, crate::AlarmKind::Corrupt]
                    .into_iter()
                    .find(|known| alarm_bit(*known) == *kind)?;
                let member = u64::from_be_bytes(<[u8; 8]>::try_from(member).ok()?);
                Some(Alarm { member, kind })
            })
            .ok_or_else(|| damaged(&key, "not an alarm"))?;
        tenant.alarms.write().insert(alarm);
    }
    refresh_alarm_bits(&tenant);
    Ok(tenant)
}
