//! The state, built again from what the store holds.

use super::members::{stored_given_up, stored_members, stored_or_founding};
use super::records::{
    ALARM, AUTH, COMPACTED, GIVEN_UP, LEASE, MEMBER, REMOVED, REVISION, TOKEN_KEY, record_key,
};
use super::{Machine, MachineOptions};
use crate::answer::{Alarm, AlarmKind};
use crate::membership::{Membership, MembershipFault};
use crate::state::{ROW_OVERHEAD_BYTES, Tenant, TenantState, Tenants, alarm_bit};
use crate::token_key::TokenKeyRecord;
use crate::watch::Inbox;
use bytes::Bytes;
use holdfast_auth::AuthState;
use holdfast_storage::backend::{Store, StoreView};
use holdfast_storage::lease::{LeaseTable, Millis};
use holdfast_storage::mvcc::{Mvcc, RowHeader};
use holdfast_storage::{LogPosition, TenantId};
use parking_lot::RwLock;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

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
    /// The records of the members do not fit together.
    #[error("the stored members do not make a group: {0}")]
    Members(MembershipFault),
    /// Nor do those that were to found the group.
    #[error("the members that are to found the cluster do not make one: {0}")]
    Founding(MembershipFault),
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
        let view = store.view();
        let (members, founded) = stored_or_founding(&view, &options.founding)?;
        let tenants = Arc::new(Tenants {
            store: store.clone(),
            inbox: Arc::new(Inbox::default()),
            token_keys: RwLock::new(Arc::new(restore_token_keys(&view)?)),
            members: RwLock::new(Arc::new(members)),
            by_id: RwLock::default(),
            applying: RwLock::default(),
        });
        for (id, state) in restore_tenants(&view, &options, now)? {
            let tenant = Tenant::new(id, state, &options);
            tenants.by_id.write().insert(id, Arc::new(tenant));
        }
        let given_up = stored_given_up(&view)?;
        // It would keep what is staged in memory.
        drop(view);
        // At once, not with the next entry: what is read from the store from now on has its members.
        if !founded.is_empty() {
            store.stage(applied, founded);
        }
        Ok(Machine {
            tenants,
            position: applied,
            given_up,
            options,
            changes: Vec::new(),
            rows: HashMap::new(),
            transactions: Vec::new(),
            messages: Vec::new(),
        })
    }
}

/// Everything that is stored, ready to be used.
pub(super) struct StoredState {
    pub(super) tenants: Vec<(TenantId, TenantState)>,
    /// Ordered by key id.
    pub(super) token_keys: Vec<TokenKeyRecord>,
    pub(super) members: Membership,
    pub(super) given_up: Option<u64>,
}

impl StoredState {
    /// Reads the whole state. Takes about a second for a million rows.
    pub(super) fn read(
        view: &StoreView,
        options: &MachineOptions,
        now: Millis,
    ) -> Result<StoredState, RestoreError> {
        Ok(StoredState {
            members: stored_members(view)?,
            given_up: stored_given_up(view)?,
            token_keys: restore_token_keys(view)?,
            tenants: restore_tenants(view, options, now)?,
        })
    }
}

pub(super) fn damaged(key: &Bytes, reason: impl ToString) -> RestoreError {
    RestoreError::Record {
        key: key.clone(),
        reason: reason.to_string(),
    }
}

/// Whose a record is; `None` for what belongs to the whole group.
fn record_tenant(key: &Bytes) -> Result<Option<TenantId>, RestoreError> {
    match key.as_ref() {
        [REVISION | COMPACTED | LEASE | ALARM | AUTH, a, b, c, d, ..] => {
            Ok(Some(TenantId(u32::from_be_bytes([*a, *b, *c, *d]))))
        }
        [TOKEN_KEY | MEMBER | REMOVED | GIVEN_UP, ..] => Ok(None),
        _ => Err(damaged(key, "unknown kind")),
    }
}

fn restore_token_keys(store: &StoreView) -> Result<Vec<TokenKeyRecord>, RestoreError> {
    let mut keys = Vec::new();
    for (key, value) in store.meta(&[TOKEN_KEY])? {
        let record = TokenKeyRecord::decode(&key[1..], &value);
        keys.push(record.map_err(|error| damaged(&key, error))?);
    }
    keys.sort_by(|a, b| a.kid.cmp(&b.kid));
    Ok(keys)
}

fn restore_auth(store: &StoreView, id: TenantId) -> Result<AuthState, RestoreError> {
    let prefix = record_key(AUTH, id, &[]);
    let records = store.meta(&prefix)?;
    let records = records
        .into_iter()
        .map(|(key, value)| (key.slice(prefix.len()..), value));
    AuthState::restore(records).map_err(|error| damaged(&prefix, error))
}

fn stored_revision(
    store: &StoreView,
    kind: u8,
    tenant: TenantId,
) -> Result<Option<i64>, RestoreError> {
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

fn restore_tenants(
    store: &StoreView,
    options: &MachineOptions,
    now: Millis,
) -> Result<Vec<(TenantId, TenantState)>, RestoreError> {
    let mut ids = store.tenants()?;
    for (key, _) in store.meta(&[])? {
        ids.extend(record_tenant(&key)?);
    }
    ids.push(TenantId::DEFAULT);
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter()
        .map(|id| Ok((id, restore_tenant(store, id, options, now)?)))
        .collect()
}

fn restore_tenant(
    store: &StoreView,
    id: TenantId,
    options: &MachineOptions,
    now: Millis,
) -> Result<TenantState, RestoreError> {
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
    let auth = restore_auth(store, id)?;
    let mut alarms = BTreeSet::new();
    for (key, _) in store.meta(&record_key(ALARM, id, &[]))? {
        let alarm = key
            .get(5..)
            .and_then(|rest| rest.split_last())
            .and_then(|(kind, member)| {
                let kind = [AlarmKind::NoSpace, AlarmKind::Corrupt]
                    .into_iter()
                    .find(|known| alarm_bit(*known) == *kind)?;
                let member = u64::from_be_bytes(<[u8; 8]>::try_from(member).ok()?);
                Some(Alarm { member, kind })
            })
            .ok_or_else(|| damaged(&key, "not an alarm"))?;
        alarms.insert(alarm);
    }
    Ok(TenantState {
        mvcc,
        leases,
        auth: Arc::new(auth),
        alarms,
        bytes,
    })
}
