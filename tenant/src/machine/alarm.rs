//! Alarms: raised, cleared, and what is refused while one is raised.

use super::records::alarm_key;
use super::{Machine, Outcome, done};
use crate::answer::{Alarm, AlarmKind, Refusal};
use crate::command::Command;
use crate::state::{Tenant, alarm_bit, alarm_bits};
use bytes::Bytes;
use holdfast_storage::Change;
use std::sync::atomic::Ordering;

/// Alarms of one tenant: two for each of many members. A client names the member, so that their number has no other bound.
const ALARMS_MAX: usize = 1_024;

impl Machine {
    pub(super) fn raise(&mut self, tenant: &Tenant, alarm: Alarm) -> Outcome {
        self.refuse_removed(alarm.member)?;
        let mut alarms = tenant.alarms.write();
        if alarms.len() >= ALARMS_MAX && !alarms.contains(&alarm) {
            return Err(Refusal::TooManyAlarms);
        }
        let raised = alarms.insert(alarm);
        drop(alarms);
        if raised {
            self.changes
                .push(Change::PutMeta(alarm_key(tenant.id, alarm), Bytes::new()));
        }
        refresh_alarm_bits(tenant);
        Ok(done(tenant, vec![alarm]))
    }

    pub(super) fn clear(&mut self, tenant: &Tenant, alarm: Alarm) -> Outcome {
        let cleared = tenant.alarms.write().remove(&alarm);
        if cleared {
            self.changes
                .push(Change::DropMeta(alarm_key(tenant.id, alarm)));
        }
        refresh_alarm_bits(tenant);
        let alarms = cleared.then_some(alarm).into_iter().collect();
        Ok(done(tenant, alarms))
    }
}

pub(super) fn check_alarms(alarms: u8, command: &Command) -> Result<(), Refusal> {
    if alarms & alarm_bit(AlarmKind::Corrupt) != 0
        && !matches!(
            command,
            Command::RaiseAlarm(_)
                | Command::ClearAlarm(_)
                | Command::LeaseCheckpoint(_)
                // Who may do what must not wait until the data are repaired; etcd goes on with these as well.
                | Command::Auth(_)
                | Command::PublishTokenKey { .. }
        )
        // To remove the member whose data are wrong is how they are repaired.
        && !command.is_of_members()
    {
        return Err(Refusal::Corrupt);
    }
    let needs_space = match command {
        Command::Put(_) | Command::LeaseGrant { .. } => true,
        Command::Txn(txn) => txn.has_put(),
        _ => false,
    };
    if needs_space && alarms & alarm_bit(AlarmKind::NoSpace) != 0 {
        return Err(Refusal::NoSpace);
    }
    Ok(())
}

pub(super) fn refresh_alarm_bits(tenant: &Tenant) {
    let bits = alarm_bits(&tenant.alarms.read());
    tenant.alarm_bits.store(bits, Ordering::Release);
}
