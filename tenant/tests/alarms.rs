//! Alarms are named by a member id that the client chooses; their number is bounded all the same.

use bytes::Bytes;
use holdfast_auth::Caller;
use holdfast_storage::backend::{Store, StoreOptions};
use holdfast_storage::lease::Millis;
use holdfast_storage::{LogPosition, TenantId};
use holdfast_tenant::{Alarm, AlarmKind, Command, Machine, MachineOptions, Refusal};
use std::sync::Arc;

#[test]
fn a_client_cannot_raise_alarms_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let (store, opened) = Store::open(dir.path(), StoreOptions::default()).unwrap();
    let options = MachineOptions {
        quota_bytes: None,
        lease_checkpoint_interval: Millis(10_000),
        lease_ownership: false,
        founding: Vec::new(),
    };
    let mut machine =
        Machine::restore(Arc::new(store), opened.applied, options, Millis(0)).unwrap();
    let corrupt = |member| Alarm {
        member,
        kind: AlarmKind::Corrupt,
    };
    let mut entry = Vec::new();
    for member in 0..5_000 {
        Command::RaiseAlarm(corrupt(member)).encode(TenantId::DEFAULT, &Caller::Server, &mut entry);
    }
    // One that is raised already is no new one, and clearing makes room.
    Command::RaiseAlarm(corrupt(0)).encode(TenantId::DEFAULT, &Caller::Server, &mut entry);
    Command::ClearAlarm(corrupt(0)).encode(TenantId::DEFAULT, &Caller::Server, &mut entry);
    Command::RaiseAlarm(corrupt(6_000)).encode(TenantId::DEFAULT, &Caller::Server, &mut entry);
    let position = LogPosition { index: 1, term: 1 };
    let mut outcomes = Vec::new();
    machine
        .apply(position, Bytes::from(entry), Millis(0), &mut outcomes)
        .unwrap();
    let refused = |outcome: &Result<_, Refusal>| *outcome == Err(Refusal::TooManyAlarms);
    assert!(outcomes[0].is_ok() && refused(&outcomes[4_999]));
    assert!(outcomes[5_000..].iter().all(Result::is_ok));
    let tenant = machine.tenants().get(TenantId::DEFAULT).unwrap();
    assert!(tenant.alarms().len() <= 1_024);
}
