//! Readers beside the thread that applies, compacts and prunes.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use bytes::Bytes;
use holdfast_auth::{Caller, KeyRange};
use holdfast_storage::backend::{Store, StoreOptions};
use holdfast_storage::lease::Millis;
use holdfast_storage::{LogPosition, TenantId};
use holdfast_tenant::request::{Op, Order, Put, Range, RevisionFilter, SortTarget, Txn};
use holdfast_tenant::{Command, Machine, MachineOptions, RangeAnswer, StepAnswer, Tenant, Tenants};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const KEYS: i64 = 40;
const ROUNDS: i64 = 2_000;

fn range(keys: KeyRange, order: Order) -> Range {
    Range {
        keys,
        limit: 0,
        revision: 0,
        order,
        keys_only: false,
        count_only: false,
        filter: RevisionFilter::default(),
    }
}

/// Every key is overwritten over and over, and all that is overwritten is compacted and removed at once. A read of the present
/// must not be told that its revision was compacted: it did not ask for one.
#[test]
fn a_read_of_the_present_never_fails_however_fast_the_past_goes_away() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        cache_bytes: 0,
        reserve_bytes: 0,
        ..StoreOptions::default()
    };
    let (store, opened) = Store::open(dir.path(), options).unwrap();
    let options = MachineOptions {
        quota_bytes: None,
        lease_checkpoint_interval: Millis(300_000),
        lease_ownership: false,
        founding: Vec::new(),
    };
    let mut machine =
        Machine::restore(Arc::new(store), opened.applied, options, Millis(0)).unwrap();
    let tenants = machine.tenants().clone();
    let tenant = tenants.get(TenantId::DEFAULT).unwrap();
    let done = AtomicBool::new(false);
    write(&mut machine, &tenant, 0);

    thread::scope(|scope| {
        let reads: [fn(&Tenants, &Tenant) -> RangeAnswer; 5] =
            [read_all, read_by_value, read_in_txn, read_point, hash];
        let readers = reads.map(|read| {
            let (done, tenants, tenant) = (&done, &tenants, &tenant);
            scope.spawn(move || {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let answer = read(tenants, tenant);
                    assert!(answer.revision >= last, "the past came back");
                    last = answer.revision;
                    if answer.rows.is_empty() {
                        continue;
                    }
                    assert_eq!(answer.rows.len() as i64, KEYS);
                    assert!(
                        answer
                            .rows
                            .iter()
                            .all(|row| row.revision.main <= answer.revision)
                    );
                    // A round is one transaction, so that a state has one round's values.
                    let first = &answer.rows[0].value;
                    assert!(
                        answer.rows.iter().all(|row| row.value == first),
                        "a torn state"
                    );
                }
            })
        });
        for round in 1..ROUNDS {
            write(&mut machine, &tenant, round);
            if readers.iter().any(|reader| reader.is_finished()) {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

fn read_all(tenants: &Tenants, tenant: &Tenant) -> RangeAnswer {
    tenants
        .range(tenant, &range(KeyRange::All, Order::Natural))
        .unwrap()
}

fn read_by_value(tenants: &Tenants, tenant: &Tenant) -> RangeAnswer {
    let order = Order::Sorted {
        target: SortTarget::Value,
        descending: false,
    };
    tenants.range(tenant, &range(KeyRange::All, order)).unwrap()
}

fn read_point(tenants: &Tenants, tenant: &Tenant) -> RangeAnswer {
    let point = KeyRange::Point("k07".into());
    let mut answer = tenants
        .range(tenant, &range(point, Order::Natural))
        .unwrap();
    assert_eq!(answer.rows.len(), 1);
    answer.rows.clear();
    answer
}

fn hash(tenants: &Tenants, tenant: &Tenant) -> RangeAnswer {
    RangeAnswer {
        revision: tenants.hash_kv(tenant, 0).unwrap().revision,
        ..RangeAnswer::default()
    }
}

fn read_in_txn(tenants: &Tenants, tenant: &Tenant) -> RangeAnswer {
    let txn = Txn {
        success: vec![Op::Range(range(KeyRange::All, Order::Natural))],
        ..Txn::default()
    };
    let mut answer = tenants.read_txn(tenant, &txn).unwrap();
    match answer.steps.pop() {
        Some(StepAnswer::Range(range)) => range,
        other => panic!("{other:?}"),
    }
}

fn write(machine: &mut Machine, tenant: &Tenant, round: i64) {
    let value = Bytes::from(format!("{round:05}"));
    let success = (0..KEYS).map(|key| {
        Op::Put(Put {
            key: format!("k{key:02}").into(),
            value: value.clone(),
            lease: 0,
            previous: false,
            keep_value: false,
            keep_lease: false,
        })
    });
    let txn = Txn {
        success: success.collect(),
        ..Txn::default()
    };
    let mut entry = Vec::new();
    Command::Txn(txn).encode(TenantId::DEFAULT, &Caller::Server, &mut entry);
    // Now and then, as even the fastest of compactors do.
    let compacts = round % 5 == 1;
    if compacts {
        let revision = tenant.revision() + 1;
        Command::Compact { revision }.encode(TenantId::DEFAULT, &Caller::Server, &mut entry);
    }
    let position = LogPosition {
        index: 2 + round as u64,
        term: 1,
    };
    let mut outcomes = Vec::new();
    machine
        .apply(position, entry.into(), Millis(0), &mut outcomes)
        .unwrap();
    assert!(outcomes.iter().all(Result::is_ok));
    let (dropped, _) = tenant.prune(usize::MAX);
    machine.drop_rows(tenant, dropped, 0);
    if round % 50 == 0 {
        machine.tenants().store().persist().unwrap();
    }
}
