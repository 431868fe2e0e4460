//! Admission by quota, once a request is permitted: who may not write neither learns of the quota nor raises the alarm, which the first
//! refusal does.

use super::{Connection, errors};
use holdfast_tenant::{Alarm, AlarmKind, Command, Refusal};
use tonic::Status;

impl Connection {
    /// Refuses a request that needs `cost` more bytes than the tenant has left.
    pub(super) async fn admit(&self, cost: u64) -> Result<(), Status> {
        let alarmed = self.tenant.is_alarmed(AlarmKind::NoSpace);
        if !alarmed && self.tenant.has_space(cost) {
            return Ok(());
        }
        if !alarmed {
            let alarm = Alarm {
                member: self.node().identity.member,
                kind: AlarmKind::NoSpace,
            };
            tracing::warn!(tenant = %self.tenant.id, size = self.tenant.size_bytes(), quota = ?self.tenant.quota_bytes(), "quota exceeded, raising the NOSPACE alarm");
            self.worker
                .propose_internal(&self.tenant, &Command::RaiseAlarm(alarm))
                .await
                .map_err(|error| self.unanswered(error))?;
        }
        Err(errors::refused(&Refusal::NoSpace))
    }
}
