//! A received state takes the place of a machine's, while readers go on.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "world/replica.rs"]
mod replica;

use bytes::Bytes;
use holdfast_auth::{AuthChange, Caller, KeyRange};
use holdfast_storage::backend::{MemoryStore, Store};
use holdfast_storage::lease::{Millis, NotPrimary};
use holdfast_storage::{LogPosition, Row, TenantId};
use holdfast_tenant::request::{DeleteRange, Order, Put, Range, RevisionFilter};
use holdfast_tenant::{
    Alarm, AlarmKind, Command, InstallFault, Machine, MachineOptions, Member, Outcome,
    ROW_OVERHEAD_BYTES, Refusal, Tenant,
};
use replica::{received, replica, store_options};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const T: TenantId = TenantId::DEFAULT;

fn member() -> Member {
    Member {
        id: 5,
        peer_urls: vec!["http://127.0.0.1:2380".into()],
        ..Member::default()
    }
}

fn options(founding: Vec<Member>) -> MachineOptions {
    MachineOptions {
        quota_bytes: None,
        lease_checkpoint_interval: Millis(300_000),
        lease_ownership: false,
        founding,
    }
}

fn open(disk: &MemoryStore) -> Machine {
    let (store, opened) = Store::in_memory(disk, store_options()).unwrap();
    Machine::restore(
        Arc::new(store),
        opened.applied,
        options(vec![member()]),
        Millis(0),
    )
    .unwrap()
}

fn apply(machine: &mut Machine, commands: &[Command]) -> Vec<Outcome> {
    let mut entry = Vec::new();
    for command in commands {
        command.encode(T, &Caller::Server, &mut entry);
    }
    let mut outcomes = Vec::new();
    let position = LogPosition {
        index: machine.position().index + 1,
        term: 1,
    };
    machine
        .apply(position, entry.into(), Millis(1_000), &mut outcomes)
        .unwrap();
    outcomes
}

fn put(key: &str, value: impl Into<Bytes>, lease: i64) -> Command {
    Command::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into(),
        lease,
        previous: false,
        keep_value: false,
        keep_lease: false,
    })
}

fn delete(key: &str) -> Command {
    Command::DeleteRange(DeleteRange {
        keys: point(key),
        previous: false,
    })
}

fn point(key: &str) -> KeyRange {
    KeyRange::Point(Bytes::copy_from_slice(key.as_bytes()))
}

fn range(keys: KeyRange, revision: i64) -> Range {
    Range {
        keys,
        revision,
        limit: 0,
        order: Order::Natural,
        keys_only: false,
        count_only: false,
        filter: RevisionFilter::default(),
    }
}

fn tenant(machine: &Machine) -> Arc<Tenant> {
    machine.tenants().get(T).unwrap()
}

/// Removes what was compacted, from the index and from the store.
fn prune(machine: &mut Machine) {
    let tenant = tenant(machine);
    let (dropped, done) = tenant.prune(usize::MAX);
    assert!(done);
    let mut rows = Vec::new();
    let store = machine.tenants().store().clone();
    store.get_many(T, &dropped, &mut rows).unwrap();
    let size = |row: &Row| ROW_OVERHEAD_BYTES + (row.key.len() + row.value.len()) as u64;
    let bytes = rows.iter().flatten().map(size).sum();
    machine.drop_rows(&tenant, dropped, bytes);
}

/// All that a client, or another member, can tell of a state.
fn told(machine: &Machine, tenant: &Tenant) -> String {
    let tenants = machine.tenants();
    let rows: Vec<_> = (tenant.compacted().max(1)..=tenant.revision())
        .map(|at| tenants.range(tenant, &range(KeyRange::All, at)).unwrap())
        .collect();
    let leases: Vec<_> = (1..5)
        .map(|id| {
            tenant
                .lease_time_to_live(id, true, Millis(0))
                .map(|life| (life.0.granted_secs, life.1))
        })
        .collect();
    format!(
        "{:?} {:?} {:?} {} {} {} {:?} {:?} {} {:?} {:?} {:?} {rows:?} {leases:?}",
        machine.position(),
        tenant.revision(),
        tenant.compacted(),
        tenant.keys(),
        tenant.size_bytes(),
        tenant.auth_hash(),
        tenant.alarms(),
        tenant.is_alarmed(AlarmKind::Corrupt),
        tenant.lease_count(),
        tenants.hash_kv(tenant, 0).unwrap(),
        tenants.token_keys(),
        tenants.members(),
    )
}

#[test]
fn everything_is_as_on_the_member_that_sent_it() {
    let disk = MemoryStore::default();
    let mut machine = open(&disk);
    apply(
        &mut machine,
        &[
            Command::LeaseGrant { id: 1, ttl: 50 },
            put("gone", "1", 1),
            put("kept", "2", 0),
        ],
    );
    machine.promote_leases(Millis(0), Millis(0));
    let tenant = tenant(&machine);
    let mut ahead = replica(&machine);
    assert_eq!(told(&machine, &tenant), told(&ahead, &self::tenant(&ahead)));

    apply(
        &mut ahead,
        &[
            Command::Auth(AuthChange::UserAdd {
                name: "root".into(),
                password: None,
            }),
            Command::LeaseRevoke { id: 1 },
            Command::LeaseGrant { id: 2, ttl: 70 },
            put("new", "3", 2),
            put("kept", "4", 0),
            Command::MemberAdd {
                id: 6,
                peer_urls: vec!["http://127.0.0.2:2380".into()],
                is_learner: true,
                max_learners: 1,
            },
            Command::Compact { revision: 4 },
            Command::RaiseAlarm(Alarm {
                member: 5,
                kind: AlarmKind::NoSpace,
            }),
        ],
    );
    prune(&mut ahead);
    let incoming = received(machine.tenants().store(), ahead.tenants().store());
    machine.install(incoming, Millis(0)).unwrap();
    let expected = told(&ahead, &self::tenant(&ahead));
    assert_eq!(told(&machine, &tenant), expected);
    assert!(Arc::ptr_eq(&tenant, &self::tenant(&machine)));
    assert!(tenant.is_alarmed(AlarmKind::NoSpace));

    // Whoever gets a state does not lead.
    assert!(tenant.expired_leases(Millis(u64::MAX), 10).is_empty());
    assert_eq!(tenant.renew_lease(2, Millis(0)), Err(NotPrimary));

    let more = [
        Command::ClearAlarm(Alarm {
            member: 5,
            kind: AlarmKind::NoSpace,
        }),
        put("new", "5", 0),
        delete("kept"),
    ];
    assert_eq!(apply(&mut machine, &more), apply(&mut ahead, &more));
    let expected = told(&ahead, &self::tenant(&ahead));
    assert_eq!(told(&machine, &tenant), expected);

    machine.tenants().store().persist().unwrap();
    drop((machine, tenant));
    let machine = open(&disk);
    assert_eq!(told(&machine, &self::tenant(&machine)), expected);
}

#[test]
fn what_is_old_or_has_no_members_changes_nothing() {
    let disk = MemoryStore::default();
    let mut machine = open(&disk);
    apply(&mut machine, &[put("a", "1", 0)]);
    let old = received(machine.tenants().store(), machine.tenants().store());
    apply(&mut machine, &[put("a", "2", 0)]);
    let same = received(machine.tenants().store(), machine.tenants().store());
    let before = told(&machine, &tenant(&machine));
    for incoming in [old, same] {
        let refused = machine.install(incoming, Millis(0));
        assert!(matches!(refused, Err(InstallFault::Old { applied: 2, .. })));
    }
    let (store, _) = Store::in_memory(&MemoryStore::default(), store_options()).unwrap();
    let nobody = options(Vec::new());
    let mut nobody =
        Machine::restore(Arc::new(store), LogPosition::default(), nobody, Millis(0)).unwrap();
    for _ in 0..3 {
        apply(&mut nobody, &[put("b", "1", 0)]);
    }
    let incoming = received(machine.tenants().store(), nobody.tenants().store());
    let refused = machine.install(incoming, Millis(0));
    assert!(matches!(refused, Err(InstallFault::NoMembers)));
    assert_eq!(told(&machine, &tenant(&machine)), before);
}

/// A put is removed, then a state is received in which it still is, and then the put's tombstone is to be removed.
#[test]
fn what_was_removed_from_the_state_before_is_not_removed_from_the_one_received() {
    let disk = MemoryStore::default();
    let mut machine = open(&disk);
    apply(&mut machine, &[put("a", "1", 0)]);
    apply(&mut machine, &[delete("a")]);
    apply(
        &mut machine,
        &[put("b", "1", 0), Command::Compact { revision: 4 }],
    );
    let tenant = tenant(&machine);
    let mut ahead = replica(&machine);
    apply(&mut ahead, &[put("b", "2", 0)]);

    let (dropped, _) = tenant.prune(1);
    assert_eq!(dropped.len(), 1);
    machine.drop_rows(&tenant, dropped, 0);
    let (dropped, done) = tenant.prune(1);
    assert!(done && dropped.len() == 1);
    let incoming = received(machine.tenants().store(), ahead.tenants().store());
    machine.install(incoming, Millis(0)).unwrap();
    machine.drop_rows(&tenant, dropped, 0);
    machine.tenants().store().persist().unwrap();
    drop((machine, tenant));

    let mut machine = open(&disk);
    let read = |machine: &Machine| {
        let tenant = self::tenant(machine);
        let answer = machine.tenants().range(&tenant, &range(point("a"), 0));
        answer.unwrap().rows
    };
    assert_eq!(read(&machine), []);
    prune(&mut machine);
    machine.tenants().store().persist().unwrap();
    drop(machine);
    assert_eq!(read(&open(&disk)), []);
}

const KEYS: usize = 60;

/// Transactions of one value for all keys: a state in which two values are found is none.
fn write_all(machine: &mut Machine, value: usize) {
    let puts: Vec<Command> = (0..KEYS)
        .map(|key| put(&format!("k{key:02}"), value.to_string(), 0))
        .collect();
    apply(machine, &puts);
}

/// How often there were reads, and when they end.
#[derive(Default)]
struct Readers {
    stop: AtomicBool,
    reads: AtomicUsize,
}

#[test]
fn readers_see_the_state_before_or_the_state_after() {
    let disk = MemoryStore::default();
    let mut machine = open(&disk);
    write_all(&mut machine, 0);
    let tenants = machine.tenants().clone();
    let tenant = tenant(&machine);
    let readers = Readers::default();
    let until = Instant::now() + Duration::from_secs(60);
    thread::scope(|scope| {
        for kind in 0..4 {
            let (tenants, tenant, readers) = (&tenants, &tenant, &readers);
            scope.spawn(move || {
                while !readers.stop.load(Ordering::SeqCst) {
                    read(kind, tenants, tenant);
                    readers.reads.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 1..60 {
            let mut ahead = replica(&machine);
            let before = tenant.revision();
            for value in 0..3 {
                write_all(&mut ahead, round * 10 + value);
            }
            if round % 3 != 0 {
                // What the readers are at is gone.
                let revision = before + KEYS as i64 + (round % 7) as i64;
                apply(&mut ahead, &[Command::Compact { revision }]);
                prune(&mut ahead);
            }
            let incoming = received(tenants.store(), ahead.tenants().store());
            let reads = readers.reads.load(Ordering::SeqCst);
            machine.install(incoming, Millis(0)).unwrap();
            while readers.reads.load(Ordering::SeqCst) < reads + 4 {
                assert!(Instant::now() < until, "the readers stand still");
                thread::yield_now();
            }
            if round % 2 == 0 {
                write_all(&mut machine, round * 10 + 5);
            }
        }
        readers.stop.store(true, Ordering::SeqCst);
    });
}

fn read(kind: usize, tenants: &holdfast_tenant::Tenants, tenant: &Tenant) {
    match kind {
        // Short and long, of the present: never an error.
        0 => {
            let limited = Range {
                limit: 100,
                ..range(KeyRange::All, 0)
            };
            check_rows(tenants.range(tenant, &limited).unwrap());
        }
        1 => check_rows(tenants.range(tenant, &range(KeyRange::All, 0)).unwrap()),
        // Piece by piece, at one revision: whole, or compacted.
        2 => {
            let snapshot = tenants.snapshot(tenant);
            let mut found = Vec::new();
            for key in 0..KEYS {
                let piece = range(point(&format!("k{key:02}")), snapshot.revision());
                match tenants.range_in(tenant.id, &snapshot, &piece) {
                    Ok(answer) => found.extend(answer.rows),
                    Err(Refusal::Compacted) => return,
                    Err(other) => panic!("{other}"),
                }
            }
            assert_eq!(found.len(), KEYS);
            assert!(
                found
                    .iter()
                    .all(|row| row.revision.main <= snapshot.revision())
            );
        }
        // The sum over what is compacted is that of a state, not of two.
        _ => match (tenants.hash_kv(tenant, 0), tenants.hash_kv(tenant, 0)) {
            (Ok(one), Ok(two))
                if one.revision == two.revision && one.compact_revision == two.compact_revision =>
            {
                assert_eq!(one, two);
            }
            (Ok(_), Ok(_)) => {}
            other => panic!("{other:?}"),
        },
    }
}

fn check_rows(answer: holdfast_tenant::RangeAnswer) {
    assert_eq!(answer.rows.len(), KEYS);
    for row in &answer.rows {
        assert!(row.revision.main <= answer.revision);
    }
    // One command is one revision: of the last ones every key has one, in turn.
    let newest = answer.rows.iter().map(|row| row.revision.main).max();
    assert_eq!(newest, Some(answer.revision));
}

#[test]
#[ignore = "tells how long it takes; run it with --nocapture"]
fn how_long_a_million_rows_take() {
    let mut machine = open(&MemoryStore::default());
    apply(&mut machine, &[put("a", "1", 0)]);
    let mut ahead = replica(&machine);
    for some in 0..1_000 {
        let puts: Vec<Command> = (0..1_000)
            .map(|key| put(&format!("key/{some:04}/{key:04}"), vec![b'v'; 64], 0))
            .collect();
        apply(&mut ahead, &puts);
    }
    for round in 0..2 {
        apply(&mut ahead, &[put("a", "2", 0)]);
        let incoming = received(machine.tenants().store(), ahead.tenants().store());
        let begun = Instant::now();
        let state =
            holdfast_tenant::IncomingState::read(incoming, machine.options(), Millis(0)).unwrap();
        println!("{round}: building took {:?}", begun.elapsed());
        let (tenants, tenant) = (machine.tenants().clone(), tenant(&machine));
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let longest = scope.spawn(|| {
                let mut longest = Duration::ZERO;
                while !stop.load(Ordering::SeqCst) {
                    let begun = Instant::now();
                    tenants.range(&tenant, &range(point("a"), 0)).unwrap();
                    longest = longest.max(begun.elapsed());
                }
                longest
            });
            thread::sleep(Duration::from_millis(50));
            let begun = Instant::now();
            machine.install_state(state).unwrap();
            println!(
                "{round}: putting it in place, freeing included, took {:?}",
                begun.elapsed()
            );
            stop.store(true, Ordering::SeqCst);
            println!(
                "{round}: the longest read took {:?}",
                longest.join().unwrap()
            );
        });
    }
}
