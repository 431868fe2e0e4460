//! What the state machine must do in single cases.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod node;

use bytes::Bytes;
use holdfast_auth::{Caller, KeyRange};
use holdfast_storage::lease::Millis;
use holdfast_storage::{Change, Revision, TenantId};
use holdfast_tenant::request::{
    DeleteRange, Op, Order, Put, Range, RevisionFilter, SortTarget, Txn,
};
use holdfast_tenant::{Answer, Command, Refusal};
use node::{NOW, Node, TENANTS, position};

/// etcd takes any id but 0.
const LEASES: [i64; 6] = [1, 2, 3, -4, i64::MIN, i64::MAX];

/// What one tenant does is not to be seen in another: the same commands give the same answers with and without a neighbour.
#[test]
fn tenants_do_not_influence_each_other() {
    let put = |key: String, value: &str| {
        Command::Put(Put {
            key: key.into(),
            value: Bytes::copy_from_slice(value.as_bytes()),
            lease: 0,
            previous: true,
            keep_value: false,
            keep_lease: false,
        })
    };
    let mut alone = Node::new();
    let mut shared = Node::new();
    for n in 0..30 {
        let mine = (TENANTS[0], put(format!("k{}", n % 4), "mine"));
        let other = [
            (TENANTS[1], put(format!("k{}", n % 3), "other")),
            (TENANTS[1], Command::Compact { revision: n }),
            (TENANTS[1], Command::LeaseGrant { id: n, ttl: 5 }),
        ];
        let answers = alone.apply(std::slice::from_ref(&mine));
        let mut entry = other.to_vec();
        entry.insert(n as usize % 4, mine);
        let shared_answers = shared.apply(&entry);
        assert_eq!(answers[0], shared_answers[n as usize % 4]);
    }
    let hash = |node: &Node| {
        let tenants = node.machine.as_ref().unwrap().tenants();
        tenants.hash_kv(&node.tenant(TENANTS[0]), 0).unwrap()
    };
    assert_eq!(hash(&alone), hash(&shared));
    assert_eq!(shared.tenant(TENANTS[0]).compacted(), -1);
    assert_eq!(shared.tenant(TENANTS[0]).lease_count(), 0);
}

fn plain_put(key: &'static str, lease: i64) -> Command {
    Command::Put(Put {
        key: key.into(),
        value: "v".into(),
        lease,
        previous: false,
        keep_value: false,
        keep_lease: false,
    })
}

/// etcd takes any id but 0 (behaviour §3.8), and negative ones come back from the store as well.
#[test]
fn leases_of_any_id_survive_a_restart_with_their_keys_and_checkpoints() {
    let mut node = Node::new();
    for (at, id) in LEASES.into_iter().enumerate() {
        let key = ["a", "b", "c", "d", "e", "f"][at];
        let outcomes = node.apply(&[
            (TenantId::DEFAULT, Command::LeaseGrant { id, ttl: 1000 }),
            (TenantId::DEFAULT, plain_put(key, id)),
            (
                TenantId::DEFAULT,
                Command::LeaseCheckpoint(vec![(id, 10 + at as i64)]),
            ),
        ]);
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    }
    node.machine().tenants().store().persist().unwrap();
    let applied = node.log.len();
    node.restart();
    assert_eq!(
        node.machine().position(),
        position(applied - 1),
        "nothing was replayed"
    );
    let tenant = node.tenant(TenantId::DEFAULT);
    for (at, id) in LEASES.into_iter().enumerate() {
        let (time, keys) = tenant.lease_time_to_live(id, true, NOW).unwrap();
        assert_eq!(
            (time.granted_secs, time.remaining_secs()),
            (1000, 10 + at as i64)
        );
        assert_eq!(keys, [vec![b'a' + at as u8]]);
    }
}

/// What no edge lets through must not make a state that cannot be read back.
#[test]
fn hostile_commands_leave_a_state_that_restores() {
    let mut node = Node::new();
    let extremes = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
    let mut entry = Vec::new();
    for n in extremes {
        entry.push((TenantId::DEFAULT, Command::Compact { revision: n }));
        for ttl in extremes {
            entry.push((TenantId::DEFAULT, Command::LeaseGrant { id: n, ttl }));
            entry.push((TenantId::DEFAULT, Command::LeaseCheckpoint(vec![(n, ttl)])));
            entry.push((TenantId::DEFAULT, Command::LeaseRevoke { id: n }));
        }
        entry.push((TenantId::DEFAULT, Command::LeaseGrant { id: n, ttl: n }));
        entry.push((TenantId::DEFAULT, plain_put("k", n)));
        entry.push((TenantId::DEFAULT, plain_put("", 0)));
        entry.push((
            TenantId::DEFAULT,
            Command::DeleteRange(DeleteRange {
                keys: KeyRange::Point(Bytes::new()),
                previous: true,
            }),
        ));
        let range = Range {
            keys: KeyRange::All,
            limit: n as u64,
            revision: n,
            order: Order::Natural,
            keys_only: false,
            count_only: false,
            filter: RevisionFilter {
                min_mod: n,
                max_mod: n,
                min_create: n,
                max_create: n,
            },
        };
        entry.push((
            TenantId::DEFAULT,
            Command::Txn(Txn {
                success: vec![
                    Op::Range(range),
                    Op::Put(Put {
                        key: Bytes::new(),
                        value: "v".into(),
                        lease: 0,
                        previous: true,
                        keep_value: false,
                        keep_lease: false,
                    }),
                ],
                ..Txn::default()
            }),
        ));
    }
    let outcomes = node.apply(&entry);
    for ((_, command), outcome) in entry.iter().zip(&outcomes) {
        match (command, outcome) {
            (Command::LeaseGrant { id: 0, .. }, outcome) => assert!(outcome.is_err()),
            (Command::Put(put), outcome) if put.key.is_empty() => {
                assert_eq!(*outcome, Err(Refusal::EmptyKey));
            }
            (Command::LeaseGrant { .. }, Ok(Answer::LeaseGranted { ttl, .. })) => {
                assert!(
                    (1..=9_000_000_000).contains(ttl),
                    "the answer names the granted time"
                );
            }
            _ => {}
        }
    }
    let before = node.tenant(TenantId::DEFAULT);
    let (revision, leases) = (before.revision(), before.lease_count());
    assert_eq!(leases, extremes.len() - 1);
    let _ = before.expired_leases(Millis(u64::MAX), usize::MAX);
    let _ = before.due_lease_checkpoints(Millis(u64::MAX), usize::MAX);
    node.machine()
        .promote_leases(Millis(u64::MAX), Millis(u64::MAX));
    drop(before);
    node.machine().tenants().store().persist().unwrap();
    node.restart();
    let after = node.tenant(TenantId::DEFAULT);
    assert_eq!((after.revision(), after.lease_count()), (revision, leases));
}

/// A row that cannot be read while an entry is applied: others can, and would get another state. And the steps before it are done.
#[test]
fn an_unreadable_row_stops_the_machine_instead_of_half_a_transaction() {
    let mut node = Node::new();
    node.apply(&[(TenantId::DEFAULT, plain_put("a", 0))]);
    let store = node.machine().tenants().store().clone();
    let lost = Change::DropRow(TenantId::DEFAULT, Revision::first(2));
    store.stage(position(0), vec![lost]);
    let with_previous = |key: &'static str| {
        Op::Put(Put {
            key: key.into(),
            value: "w".into(),
            lease: 0,
            previous: true,
            keep_value: false,
            keep_lease: false,
        })
    };
    let txn = Txn {
        success: vec![with_previous("b"), with_previous("a")],
        ..Txn::default()
    };
    let mut entry = Vec::new();
    Command::Txn(txn).encode(TenantId::DEFAULT, &Caller::Server, &mut entry);
    let result = node
        .machine()
        .apply(position(1), entry.into(), NOW, &mut Vec::new());
    assert!(
        result.is_err(),
        "a transaction was answered that is half done"
    );
}

/// Keys alone come from the index and without their lease, but not where the order names the value (observed on etcd 3.7.1, also for
/// a single key).
#[test]
fn a_key_that_is_sorted_by_value_keeps_its_lease() {
    let mut node = Node::new();
    node.apply(&[
        (TenantId::DEFAULT, Command::LeaseGrant { id: 9, ttl: 100 }),
        (TenantId::DEFAULT, plain_put("x", 9)),
    ]);
    let tenants = node.machine().tenants().clone();
    let lease = |keys: KeyRange, order| {
        let range = Range {
            keys,
            limit: 0,
            revision: 0,
            order,
            keys_only: true,
            count_only: false,
            filter: RevisionFilter::default(),
        };
        let answer = tenants
            .range(&node.tenant(TenantId::DEFAULT), &range)
            .unwrap();
        assert!(answer.rows[0].value.is_empty());
        answer.rows[0].lease
    };
    for keys in [KeyRange::Point("x".into()), KeyRange::All] {
        assert_eq!(lease(keys.clone(), Order::Natural), 0);
        assert_eq!(
            lease(keys.clone(), Order::SortedPrefix(SortTarget::Value)),
            9
        );
        let sorted = Order::Sorted {
            target: SortTarget::Value,
            descending: false,
        };
        assert_eq!(lease(keys, sorted), 9);
    }
}
