//! Rows as they are for readers and the hub: those of applied entries, whatever is being applied at the moment.

use crate::answer::Refusal;
use crate::read::Rows;
use crate::state::Tenants;
use crate::txn;
use crate::watch::{History, may_watch};
use holdfast_auth::{Caller, Denied, KeyRange};
use holdfast_storage::{Revision, Row, TenantId};
use std::sync::atomic::Ordering;

/// Rows that are looked for at once while nothing can be applied: those that a reader has missed for being too early, a few as a rule.
const SETTLED_ROWS: usize = 256;

/// Rows of applied entries.
pub(crate) struct CommittedRows<'a> {
    pub(crate) tenants: &'a Tenants,
    pub(crate) tenant: TenantId,
}

impl Rows for CommittedRows<'_> {
    fn fetch(&self, revisions: &[Revision]) -> Result<Vec<Row>, Refusal> {
        let store = &self.tenants.store;
        let unreadable = |error: holdfast_storage::backend::ReadError| {
            tracing::error!(%error, "cannot read rows");
            Refusal::Storage(error.to_string())
        };
        if let [revision] = revisions {
            let mut row = store.get(self.tenant, *revision).map_err(unreadable)?;
            if row.is_none() {
                let _settled = self.tenants.applying.read();
                row = store.get(self.tenant, *revision).map_err(unreadable)?;
            }
            return match row {
                Some(row) => Ok(vec![row]),
                None => Err(txn::missing(*revision)),
            };
        }
        let mut found = Vec::new();
        store
            .get_many(self.tenant, revisions, &mut found)
            .map_err(unreadable)?;
        let missing: Vec<usize> = (0..found.len()).filter(|at| found[*at].is_none()).collect();
        let mut again = Vec::new();
        for some in missing.chunks(SETTLED_ROWS) {
            let wanted: Vec<Revision> = some.iter().map(|at| revisions[*at]).collect();
            let _settled = self.tenants.applying.read();
            store
                .get_many(self.tenant, &wanted, &mut again)
                .map_err(unreadable)?;
            for ((at, revision), row) in some.iter().zip(wanted).zip(again.drain(..)) {
                found[*at] = Some(row.ok_or_else(|| txn::missing(revision))?);
            }
        }
        Ok(found.into_iter().flatten().collect())
    }
}

impl History for Tenants {
    fn revision(&self, tenant: TenantId) -> i64 {
        self.get(tenant).map_or(1, |tenant| tenant.revision())
    }

    fn compacted(&self, tenant: TenantId) -> i64 {
        self.get(tenant).map_or(-1, |tenant| tenant.compacted())
    }

    fn published(&self, tenant: TenantId) -> i64 {
        self.get(tenant)
            .map_or(1, |tenant| tenant.published.load(Ordering::Acquire))
    }

    fn scan(
        &self,
        tenant: TenantId,
        from: i64,
        through: i64,
        visit: &mut dyn FnMut(Row) -> bool,
    ) -> Result<(), String> {
        let rows = {
            // Rows of the entry in hand reach the store at its end, and `through` may be among them. And while a received store takes the
            // place of this one, the compacted revision that belongs to its rows is not told yet.
            let _settled = self.applying.read();
            self.store.scan(tenant, Revision::first(from), through)
        };
        for row in rows {
            let row = row.map_err(|error| error.to_string())?;
            if !visit(row) {
                break;
            }
        }
        Ok(())
    }

    fn before(&self, tenant: TenantId, key: &[u8], main: i64) -> Option<Row> {
        let state = self.get(tenant)?;
        let version = {
            let mvcc = state.mvcc.read();
            if main <= mvcc.compacted() {
                return None;
            }
            mvcc.view().get_at(key, main - 1)?
        };
        self.row(tenant, version.modified)
    }

    fn may_watch(&self, tenant: TenantId, caller: &Caller, keys: &KeyRange) -> Result<(), Denied> {
        let tenant = self.get(tenant).ok_or(Denied::NotPermitted)?;
        may_watch(&tenant.auth.read(), caller, keys)
    }

    fn row(&self, tenant: TenantId, revision: Revision) -> Option<Row> {
        self.committed(tenant).fetch(&[revision]).ok()?.pop()
    }
}
