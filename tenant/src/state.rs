//! The tenants' state, as readers and the hub see it while the state machine changes it.

use crate::answer::{Alarm, AlarmKind, RangeAnswer, Refusal, TxnAnswer};
use crate::committed::CommittedRows;
use crate::lease_rules::LeaseLife;
use crate::machine::MachineOptions;
use crate::membership::Membership;
use crate::read;
use crate::request::{Op, Order, Put, Range, Txn};
use crate::token_key::TokenKeyRecord;
use crate::txn;
use crate::watch::Inbox;
use bytes::Bytes;
use holdfast_auth::{AuthState, KeyRange};
use holdfast_storage::backend::Store;
use holdfast_storage::lease::{LeaseTable, Millis, NotPrimary};
use holdfast_storage::mvcc::{Mvcc, Snapshot};
use holdfast_storage::{Revision, TenantId, crc32c};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// Bytes that a row counts for in a tenant's size besides its key and value: its record, and its place in the index.
pub const ROW_OVERHEAD_BYTES: u64 = 64;

/// One tenant: a whole etcd of its own.
pub struct Tenant {
    /// Its number.
    pub id: TenantId,
    pub(crate) mvcc: RwLock<Mvcc>,
    pub(crate) leases: Mutex<LeaseTable>,
    /// Open watch streams. Counted before a stream's first watch reads the revision, so that no event is missed: whoever applies
    /// a change after that holds the index's lock after it and sees the count.
    pub(crate) watch_streams: AtomicUsize,
    pub(crate) published: AtomicI64,
    /// Logical size: rows not yet pruned.
    pub(crate) bytes: AtomicU64,
    pub(crate) alarms: RwLock<BTreeSet<Alarm>>,
    /// One bit per raised kind, for the hot path.
    pub(crate) alarm_bits: AtomicU8,
    /// Shared, so that whoever needs the state for longer takes a reference to it and holds up no change.
    pub(crate) auth: RwLock<Arc<AuthState>>,
    /// Logical bytes that the tenant may hold; `None` is unbounded.
    quota_bytes: Option<u64>,
    /// See [`MachineOptions::lease_ownership`].
    pub(crate) lease_ownership: bool,
    /// How often the state was replaced by a received one. Changes while `mvcc` is locked for writing.
    replaced: AtomicU64,
    /// [`Tenant::replaced`] at the last [`Tenant::prune`].
    pruned_after: AtomicU64,
}

/// What is replicated of a tenant, where nobody sees it: just read from a store, or taken out of use.
pub(crate) struct TenantState {
    pub(crate) mvcc: Mvcc,
    pub(crate) leases: LeaseTable,
    pub(crate) auth: Arc<AuthState>,
    pub(crate) alarms: BTreeSet<Alarm>,
    /// See [`Tenant::bytes`].
    pub(crate) bytes: u64,
}

impl TenantState {
    /// That of a tenant of which nothing is stored.
    pub(crate) fn empty(lease_checkpoint_interval: Millis) -> TenantState {
        TenantState {
            mvcc: Mvcc::new(),
            leases: LeaseTable::new(lease_checkpoint_interval),
            auth: Arc::new(AuthState::new()),
            alarms: BTreeSet::new(),
            bytes: 0,
        }
    }
}

impl Tenant {
    pub(crate) fn new(id: TenantId, state: TenantState, options: &MachineOptions) -> Tenant {
        Tenant {
            id,
            published: AtomicI64::new(state.mvcc.revision()),
            mvcc: RwLock::new(state.mvcc),
            leases: Mutex::new(state.leases),
            watch_streams: AtomicUsize::new(0),
            bytes: AtomicU64::new(state.bytes),
            alarm_bits: AtomicU8::new(alarm_bits(&state.alarms)),
            alarms: RwLock::new(state.alarms),
            auth: RwLock::new(state.auth),
            quota_bytes: options.quota_bytes,
            lease_ownership: options.lease_ownership,
            replaced: AtomicU64::new(0),
            pruned_after: AtomicU64::new(0),
        }
    }

    /// Puts another state in place and gives back the one before it, to be dropped where that holds up nobody. What the hub is told of,
    /// [`Tenant::published`] included, is the caller's.
    pub(crate) fn replace(&self, mut state: TenantState) -> TenantState {
        // All at once, in the order in which they are locked wherever somebody needs two of them: who may read is judged by the users and
        // roles that belong to the index.
        let mut auth = self.auth.write();
        let mut mvcc = self.mvcc.write();
        let mut leases = self.leases.lock();
        let mut alarms = self.alarms.write();
        std::mem::swap(&mut *auth, &mut state.auth);
        std::mem::swap(&mut *mvcc, &mut state.mvcc);
        std::mem::swap(&mut *leases, &mut state.leases);
        std::mem::swap(&mut *alarms, &mut state.alarms);
        state.bytes = self.bytes.swap(state.bytes, Ordering::Relaxed);
        self.alarm_bits
            .store(alarm_bits(&alarms), Ordering::Release);
        self.replaced.fetch_add(1, Ordering::Relaxed);
        state
    }

    /// Whether the state is still the one that was pruned last. If not, that pass has removed nothing from it.
    pub(crate) fn is_what_was_pruned(&self) -> bool {
        let _unchanged = self.mvcc.read();
        self.pruned_after.load(Ordering::Relaxed) == self.replaced.load(Ordering::Relaxed)
    }

    /// The current revision.
    pub fn revision(&self) -> i64 {
        self.mvcc.read().revision()
    }

    /// The compacted revision; -1 before the first compaction.
    pub fn compacted(&self) -> i64 {
        self.mvcc.read().compacted()
    }

    /// The logical size of all rows not yet pruned, bytes.
    pub fn size_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Live keys.
    pub fn keys(&self) -> usize {
        self.mvcc.read().keys()
    }

    /// The quota, bytes; `None` is unbounded.
    pub fn quota_bytes(&self) -> Option<u64> {
        self.quota_bytes
    }

    /// The raised alarms.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.alarms.read().iter().copied().collect()
    }

    /// Whether an alarm of this kind is raised.
    pub fn is_alarmed(&self, kind: AlarmKind) -> bool {
        self.alarm_bits.load(Ordering::Acquire) & alarm_bit(kind) != 0
    }

    /// The users and roles as they are now. Changes wait for the guard: whoever needs the state for longer clones the `Arc` in it.
    pub fn auth(&self) -> RwLockReadGuard<'_, Arc<AuthState>> {
        self.auth.read()
    }

    /// A checksum over the users and roles: the same on every member that applied the same changes.
    pub fn auth_hash(&self) -> u32 {
        let state = self.auth.read().clone();
        let mut records: Vec<(Bytes, Bytes)> = state.records().collect();
        records.sort_unstable();
        records.into_iter().fold(0, |hash, (key, value)| {
            [key, value].iter().fold(hash, |hash, part| {
                // With its length, so that no two lists of records read the same.
                let hash = crc32c(hash, &(part.len() as u64).to_le_bytes());
                crc32c(hash, part)
            })
        })
    }

    /// Whether a request that needs `cost` more bytes fits into the quota.
    pub fn has_space(&self, cost: u64) -> bool {
        self.quota_bytes
            .is_none_or(|quota| self.size_bytes().saturating_add(cost) < quota)
    }

    /// A watch stream was opened; see [`Tenant::watch_stream_closed`].
    pub fn watch_stream_opened(&self) {
        self.watch_streams.fetch_add(1, Ordering::SeqCst);
    }

    /// A watch stream that was counted is gone.
    pub fn watch_stream_closed(&self) {
        self.watch_streams.fetch_sub(1, Ordering::SeqCst);
    }

    /// How many watch streams are open.
    pub fn watch_stream_count(&self) -> usize {
        self.watch_streams.load(Ordering::Relaxed)
    }

    /// Whether a lease exists.
    pub fn has_lease(&self, id: i64) -> bool {
        self.leases.lock().contains(id)
    }

    /// How many leases there are.
    pub fn lease_count(&self) -> usize {
        self.leases.lock().len()
    }

    /// All leases, the one that ends first first.
    pub fn lease_ids(&self) -> Vec<i64> {
        self.leases.lock().list()
    }

    /// How long a lease lives, and its keys if they are asked for. `None` if there is no such lease.
    pub fn lease_time_to_live(&self, id: i64, keys: bool, now: Millis) -> Option<LeaseLife> {
        let leases = self.leases.lock();
        let time = leases.time_to_live(id, now)?;
        let keys = if keys {
            leases.keys(id).map(<[u8]>::to_vec).collect()
        } else {
            Vec::new()
        };
        Some((time, keys))
    }

    /// Starts a lease's time anew. Gives its TTL in seconds and whether a checkpoint must be cleared through the log
    /// ([`crate::Command::LeaseCheckpoint`] with 0) before the client is answered; `None` if there is no such lease, or it is over.
    ///
    /// # Errors
    /// [`NotPrimary`] unless this member leads. The leader knows about the lease: the client must not be told that it is gone.
    pub fn renew_lease(&self, id: i64, now: Millis) -> Result<Option<(i64, bool)>, NotPrimary> {
        let renewal = self.leases.lock().renew(id, now)?;
        Ok(renewal.map(|renewal| (renewal.ttl_secs, renewal.clear_checkpoint)))
    }

    /// Whether this member counts the time of leases: it leads.
    pub fn counts_leases(&self) -> bool {
        self.leases.lock().is_primary()
    }

    /// At most `max` leases whose time is over, those that ended first in front. None unless this member leads.
    pub fn expired_leases(&self, now: Millis, max: usize) -> Vec<i64> {
        self.leases.lock().expired(now, max)
    }

    /// At most `max` leases whose remaining time is to be recorded, with that time in seconds. None unless this member leads.
    pub fn due_lease_checkpoints(&self, now: Millis, max: usize) -> Vec<(i64, i64)> {
        self.leases.lock().due_checkpoints(now, max)
    }

    /// Removes up to `max` versions that are dead at the compacted revision from the index. Gives their revisions, whose rows are
    /// to be dropped ([`crate::Machine::drop_rows`]) before the next call, and whether nothing more is left to remove. One thread does
    /// this.
    pub fn prune(&self, max: usize) -> (Vec<Revision>, bool) {
        let mut mvcc = self.mvcc.write();
        let pruned = mvcc.prune(max);
        self.pruned_after
            .store(self.replaced.load(Ordering::Relaxed), Ordering::Relaxed);
        drop(mvcc);
        (pruned.dropped, pruned.done)
    }
}

pub(crate) fn alarm_bits(alarms: &BTreeSet<Alarm>) -> u8 {
    alarms
        .iter()
        .fold(0, |bits, alarm| bits | alarm_bit(alarm.kind))
}

pub(crate) fn alarm_bit(kind: AlarmKind) -> u8 {
    match kind {
        AlarmKind::NoSpace => 1,
        AlarmKind::Corrupt => 2,
    }
}

/// What a put counts against the quota, in bytes (etcd's estimate).
pub fn put_cost(put: &Put) -> u64 {
    256 + put.key.len() as u64 + put.value.len() as u64
}

/// What a lease counts against the quota, in bytes (etcd's estimate).
pub const LEASE_COST_BYTES: u64 = 64;

/// What a transaction counts against the quota, in bytes: its more expensive arm.
pub fn txn_cost(txn: &Txn) -> u64 {
    let arm = |ops: &[Op]| {
        ops.iter()
            .map(|op| match op {
                Op::Put(put) => put_cost(put),
                Op::Txn(txn) => txn_cost(txn),
                Op::Range(_) | Op::DeleteRange(_) => 0,
            })
            .sum::<u64>()
    };
    arm(&txn.success).max(arm(&txn.failure))
}

/// All tenants of one raft group, with the store behind them.
pub struct Tenants {
    pub(crate) store: Arc<Store>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) by_id: RwLock<HashMap<TenantId, Arc<Tenant>>>,
    /// Ordered by key id.
    pub(crate) token_keys: RwLock<Arc<Vec<TokenKeyRecord>>>,
    pub(crate) members: RwLock<Arc<Membership>>,
    /// Held for writing while a raft entry is applied: the index shows a change a moment before its row is in the store, and a
    /// reader that falls into this moment waits here. So does one that meets the store of a received snapshot with the index before it.
    pub(crate) applying: RwLock<()>,
}

impl Tenants {
    /// A tenant, if it exists.
    pub fn get(&self, id: TenantId) -> Option<Arc<Tenant>> {
        self.by_id.read().get(&id).cloned()
    }

    /// Every tenant.
    pub fn all(&self) -> Vec<Arc<Tenant>> {
        self.by_id.read().values().cloned().collect()
    }

    /// The keys that tokens may be signed with, ordered by id; retired ones included, until they are forgotten. Another `Arc` when
    /// they have changed.
    pub fn token_keys(&self) -> Arc<Vec<TokenKeyRecord>> {
        self.token_keys.read().clone()
    }

    /// Who belongs to the group, as at the applied position. Another `Arc` when it has changed.
    pub fn members(&self) -> Arc<Membership> {
        self.members.read().clone()
    }

    /// The store behind the tenants.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The hub's queue.
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Reads a range at the state as it is now.
    ///
    /// # Errors
    /// [`Refusal`] for a compacted or future revision, or when the store cannot be read.
    pub fn range(&self, tenant: &Tenant, range: &Range) -> Result<RangeAnswer, Refusal> {
        if read::needs_rows(range) || is_long(range) {
            return of_the_present(range.revision <= 0, || {
                self.range_in(tenant.id, &self.snapshot(tenant), range)
            });
        }
        // Short reads go without a snapshot, which would make the next writes copy what they change.
        let rows = self.committed(tenant.id);
        of_the_present(range.revision <= 0, || {
            let selection = {
                let mvcc = tenant.mvcc.read();
                let at = read::revision_to_read(range, mvcc.view())?;
                read::select(mvcc.view(), &rows, range, at)?
            };
            let oldest = selection.oldest().unwrap_or(i64::MAX);
            let answer = selection.fetch(&rows, range.keys_only);
            self.explain(tenant.id, oldest, answer)
        })
    }

    /// A snapshot of a tenant's index: the state as it is now, for reading piece by piece.
    pub fn snapshot(&self, tenant: &Tenant) -> Snapshot {
        tenant.mvcc.read().snapshot()
    }

    /// Reads a range in a snapshot. Rows that were compacted since then make it fail with [`Refusal::Compacted`].
    ///
    /// # Errors
    /// As [`Tenants::range`].
    pub fn range_in(
        &self,
        tenant: TenantId,
        snapshot: &Snapshot,
        range: &Range,
    ) -> Result<RangeAnswer, Refusal> {
        let rows = self.committed(tenant);
        let at = read::revision_to_read(range, snapshot.view())?;
        let answer = read::range(snapshot.view(), &rows, range, at);
        self.explain(tenant, at, answer)
    }

    /// Runs a transaction of reads at the state as it is now.
    ///
    /// # Errors
    /// As [`Tenants::range`].
    pub fn read_txn(&self, tenant: &Tenant, txn: &Txn) -> Result<TxnAnswer, Refusal> {
        let rows = self.committed(tenant.id);
        let oldest = txn
            .arms()
            .filter_map(|op| match op {
                Op::Range(range) if range.revision > 0 => Some(range.revision),
                _ => None,
            })
            .min();
        of_the_present(oldest.is_none(), || {
            let snapshot = self.snapshot(tenant);
            let answer = txn::read_only(snapshot.view(), &rows, txn);
            self.explain(tenant.id, oldest.unwrap_or(snapshot.revision()), answer)
        })
    }

    /// A row that vanished while it was read was compacted, if the mark has passed the revision that was read at.
    fn explain<T>(
        &self,
        tenant: TenantId,
        at: i64,
        answer: Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        match answer {
            Err(Refusal::Storage(_))
                if self
                    .get(tenant)
                    .is_some_and(|tenant| tenant.compacted() > at) =>
            {
                Err(Refusal::Compacted)
            }
            other => other,
        }
    }

    pub(crate) fn committed(&self, tenant: TenantId) -> CommittedRows<'_> {
        CommittedRows {
            tenants: self,
            tenant,
        }
    }
}

/// How often a read of the present begins anew.
const PRESENT_ATTEMPTS: usize = 16;

/// Runs a read. What it was about to read may be overwritten, compacted and removed meanwhile; if it did not ask for a certain
/// revision, what is current by then answers it as well, and it has no use for an error about compaction.
pub(crate) fn of_the_present<T>(
    is_present: bool,
    read: impl Fn() -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    for _ in 1..PRESENT_ATTEMPTS {
        match read() {
            Err(Refusal::Compacted) if is_present => {}
            other => return other,
        }
    }
    read()
}

/// Most keys that a range looks at under the index's lock: some ten microseconds.
const SHORT_RANGE_KEYS: u64 = 512;

/// Whether a range may look at many keys.
fn is_long(range: &Range) -> bool {
    if matches!(range.keys, KeyRange::Point(_)) {
        return false;
    }
    if range.revision > 0 {
        // What has changed since is passed over key by key, also to count.
        return true;
    }
    if range.count_only {
        return false;
    }
    range.order != Order::Natural
        || range.filter.is_set()
        || !(1..=SHORT_RANGE_KEYS).contains(&range.limit)
}
