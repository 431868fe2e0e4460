//! Leases: granted, revoked, their time recorded.

use super::records::lease_key;
use super::{Machine, Outcome, done};
use crate::answer::{Answer, Refusal};
use crate::request::DeleteRange;
use crate::state::Tenant;
use holdfast_auth::{Caller, KeyRange};
use holdfast_storage::Change;
use holdfast_storage::lease::{Millis, Owner};

impl Machine {
    pub(super) fn grant(
        &mut self,
        tenant: &Tenant,
        caller: &Caller,
        id: i64,
        ttl: i64,
        now: Millis,
    ) -> Outcome {
        if id == 0 {
            // It means no lease everywhere else, and its record could not be read back.
            return Err(Refusal::Malformed("lease id 0"));
        }
        let owner = caller.owner().and_then(|owner| Owner::new(&owner));
        let mut leases = tenant.leases.lock();
        leases
            .grant(id, ttl, owner, now)
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

    pub(super) fn revoke(&mut self, tenant: &Tenant, id: i64) -> Outcome {
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

    pub(super) fn checkpoint(&mut self, tenant: &Tenant, items: &[(i64, i64)]) -> Outcome {
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
}
