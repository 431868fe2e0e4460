//! The state machine against a model of one etcd per tenant, over restarts, pruning, two tenants, and callers who may do more or
//! less from one command to the next.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod model;
mod node;
mod strategies;

use holdfast_auth::{Caller, Denied};
use holdfast_storage::mvcc::Snapshot;
use holdfast_storage::{Revision, Row, TenantId};
use holdfast_tenant::request::{Op, Range, Txn};
use holdfast_tenant::{
    Answer, Command, LeaseUse, Outcome, Refusal, TokenKeyRecord, validate_put, validate_txn,
};
use model::Model;
use node::{NOW, Node, TENANTS, row_bytes};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::collections::BTreeMap;
use strategies::auth::{Who, auth_change, set_up, who};
use strategies::{LEASES, command, compare, range, revision};

/// etcd's checksum of its table: `key`, then each row's name and encoded value. What the compaction left below it counts only where
/// it is still the newest of its key at `until`, unless no key exists there (as etcd 3.7.1 does it).
fn crc_of(model: &Model, until: i64) -> u32 {
    let at_mark = model.at(model.compacted);
    let at_until = model.at(until);
    let newest = |state: &BTreeMap<&[u8], &Row>, row: &Row| {
        state
            .get(row.key.as_ref())
            .is_some_and(|other| other.revision == row.revision)
    };
    let counts = |row: &&Row| {
        row.revision.main > model.compacted
            || newest(&at_mark, row) && (at_until.is_empty() || newest(&at_until, row))
    };
    let rows = model.rows.iter().filter(|row| row.revision.main <= until);
    rows.filter(counts)
        .fold(holdfast_storage::crc32c(0, b"key"), |hash, row| {
            let mut bytes = row.revision.main.to_be_bytes().to_vec();
            bytes.push(b'_');
            bytes.extend(i64::from(row.revision.sub).to_be_bytes());
            if row.tombstone {
                bytes.push(b't');
            }
            let mut field = |tag: u8, number: u64, text: Option<&[u8]>| {
                if number == 0 {
                    return;
                }
                bytes.push(tag);
                let mut rest = number;
                while rest > 127 {
                    bytes.push((rest % 128) as u8 + 128);
                    rest /= 128;
                }
                bytes.push(rest as u8);
                bytes.extend(text.unwrap_or_default());
            };
            field(0x0a, row.key.len() as u64, Some(&row.key));
            if !row.tombstone {
                field(0x10, row.create_revision as u64, None);
                field(0x18, row.revision.main as u64, None);
                field(0x20, row.version as u64, None);
                field(0x2a, row.value.len() as u64, Some(&row.value));
                field(0x30, row.lease as u64, None);
            }
            holdfast_storage::crc32c(hash, &bytes)
        })
}

fn check_hash(node: &Node, id: TenantId, model: &Model, revision: i64) {
    let tenants = node.machine.as_ref().unwrap().tenants();
    let found = tenants.hash_kv(&node.tenant(id), revision);
    let until = if revision == 0 {
        model.revision
    } else {
        revision
    };
    if until < model.compacted {
        assert_eq!(found, Err(Refusal::Compacted));
    } else if until > model.revision {
        assert_eq!(found, Err(Refusal::FutureRevision));
    } else {
        let found = found.unwrap();
        assert_eq!(found.hash, crc_of(model, until), "hash at {until}");
        assert_eq!(found.hash_revision, until);
        assert_eq!(found.compact_revision, model.compacted);
        assert_eq!(found.revision, model.revision);
    }
}

fn check_state(node: &Node, id: TenantId, model: &Model) {
    let tenant = node.tenant(id);
    assert_eq!(tenant.revision(), model.revision);
    assert_eq!(tenant.compacted(), model.compacted);
    assert_eq!(tenant.keys(), model.now().len());
    assert_eq!(
        tenant.alarms(),
        model.alarms.iter().copied().collect::<Vec<_>>()
    );
    let mut ids = tenant.lease_ids();
    ids.sort_unstable();
    assert_eq!(ids, model.leases.keys().copied().collect::<Vec<_>>());
    for (id, ttl) in &model.leases {
        let (time, keys) = tenant.lease_time_to_live(*id, true, NOW).unwrap();
        assert_eq!(time.granted_secs, *ttl);
        assert_eq!(keys, model.attached(*id));
    }
    check_hash(node, id, model, 0);
    check_auth(node, id, model);
}

/// Users, roles and who may use which lease.
fn check_auth(node: &Node, id: TenantId, model: &Model) {
    let tenant = node.tenant(id);
    let state = tenant.auth().clone();
    assert_eq!(state.is_enabled(), model.auth.enabled);
    assert_eq!(state.revision(), model.auth.revision);
    assert!(state.users().len() == model.auth.users.len());
    for (user, (name, expected)) in state.users().zip(&model.auth.users) {
        let found = (user.id.0, user.epoch, user.credential);
        assert_eq!(*user.name, **name);
        assert_eq!(found, (expected.id, expected.epoch, expected.credential));
        assert!(
            user.roles
                .iter()
                .map(|role| &**role)
                .eq(expected.roles.iter())
        );
    }
    assert!(state.roles().len() == model.auth.roles.len());
    for ((name, role), (expected, permissions)) in state.roles().zip(&model.auth.roles) {
        assert_eq!(name, expected);
        assert_eq!(role.permissions().len(), permissions.len());
        assert!(role.permissions().all(|held| permissions.contains(held)));
    }
    let external = Caller::External {
        subject: "ext".into(),
        roles: ["r1".into(), "r2".into()].into(),
    };
    let users = model
        .auth
        .users
        .keys()
        .flat_map(|name| model.auth.user(name, true));
    for caller in users.chain([external, Caller::Anonymous]) {
        let access = match state.access(&caller) {
            Ok(access) => access,
            Err(denied) => {
                assert_eq!(Err(denied), model.visible_leases(&caller));
                continue;
            }
        };
        let mut visible = tenant.visible_leases(&access, &caller);
        if let Ok(ids) = &mut visible {
            ids.sort_unstable();
        }
        assert_eq!(visible, model.visible_leases(&caller), "{caller:?}");
        let who = model.auth.who(&caller, false).unwrap();
        for id in LEASES {
            let uses = [
                LeaseUse::Attach,
                LeaseUse::Revoke,
                LeaseUse::KeepAlive,
                LeaseUse::TimeToLive { keys: false },
                LeaseUse::TimeToLive { keys: true },
            ];
            for usage in uses {
                let expected = model.may_lease(&who, &caller, id, usage);
                let expected = if expected {
                    Ok(())
                } else {
                    Err(Denied::NotPermitted)
                };
                let found = tenant.may_use_lease(&access, &caller, id, usage);
                assert_eq!(found, expected, "{usage:?} of {id} by {caller:?}");
                if let LeaseUse::TimeToLive { keys } = usage {
                    let found = tenant.lease_time_to_live_for(&access, &caller, id, keys, NOW);
                    let names = found.map(|found| found.map_or(vec![], |(_, keys)| keys));
                    let attached = if keys { model.attached(id) } else { vec![] };
                    assert_eq!(names, expected.map(|()| attached));
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(usize, Who, Command)>),
    Read(usize, Range),
    ReadTxn(usize, Txn),
    Hash(usize, i64),
    Persist,
    Checkpoint,
    Restart,
    Prune(usize, usize, bool),
    Hold(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let tenant = || 0..TENANTS.len();
    let reads = vec(compare(), 0..3).prop_flat_map(|compares| {
        let arm = || vec(range().prop_map(Op::Range), 0..3);
        (Just(compares), arm(), arm()).prop_map(|(compares, success, failure)| Txn {
            compares,
            success,
            failure,
        })
    });
    prop_oneof![
        16 => vec((tenant(), who(), any_command()), 1..8).prop_map(Step::Apply),
        12 => (tenant(), range()).prop_map(|(tenant, range)| Step::Read(tenant, range)),
        4 => (tenant(), reads).prop_map(|(tenant, txn)| Step::ReadTxn(tenant, txn)),
        2 => (tenant(), revision()).prop_map(|(tenant, revision)| Step::Hash(tenant, revision)),
        3 => Just(Step::Persist),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        4 => (tenant(), prop_oneof![1..4usize, Just(1000usize)], prop::bool::weighted(0.9))
            .prop_map(|(tenant, max, rows)| Step::Prune(tenant, max, rows)),
        2 => tenant().prop_map(Step::Hold),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let time = || prop::option::of(0..60u64);
    let key = (0..90u8, 0..60u64, 0..3u64, time(), time()).prop_map(
        |(kid, made_at, member, retires_at, retire_older_at)| Command::PublishTokenKey {
            key: TokenKeyRecord {
                kid: format!("k{kid}"),
                // One of these is somebody else's with the same id.
                public_key: [kid / 89; 32],
                made_at,
                member,
                retires_at,
            },
            retire_older_at,
        },
    );
    prop_oneof![
        20 => command(),
        7 => auth_change().prop_map(Command::Auth),
        1 => key,
    ]
}

/// The token keys, by id.
type TokenKeys = BTreeMap<String, TokenKeyRecord>;

fn publish(keys: &mut TokenKeys, command: &Command) -> Result<(), Refusal> {
    let Command::PublishTokenKey {
        key,
        retire_older_at,
    } = command
    else {
        return Ok(());
    };
    let mut next = keys.clone();
    next.retain(|kid, known| {
        *kid == key.kid || known.retires_at.is_none_or(|at| at >= key.made_at)
    });
    for known in next.values_mut().filter(|known| known.member == key.member) {
        if let Some(at) = retire_older_at
            && known.kid != key.kid
        {
            known.retires_at = Some(known.retires_at.unwrap_or(u64::MAX).min(*at));
        }
    }
    match next.get(&key.kid) {
        Some(known) if (known.public_key, known.member) != (key.public_key, key.member) => {
            return Err(Refusal::Malformed("token key id, which is taken"));
        }
        Some(_) => {}
        None => {
            if next.len() == 64 {
                // The member's own that would go first makes room; of several, the first by id.
                let own = next.values().filter(|known| known.member == key.member);
                let first = own.min_by_key(|known| known.retires_at.unwrap_or(u64::MAX));
                let first = first.ok_or(Refusal::TooManyTokenKeys)?.kid.clone();
                next.remove(&first);
            }
            next.insert(key.kid.clone(), key.clone());
        }
    }
    *keys = next;
    Ok(())
}

/// Turns a small number into a revision around which something happens: the present, a few of the future, the past.
fn near(revision: i64, model: &Model) -> i64 {
    match revision {
        1..40 => model.revision + 2 - revision,
        other => other,
    }
}

fn admissible(command: &Command) -> bool {
    match command {
        Command::Put(put) => validate_put(put).is_ok(),
        Command::Txn(txn) => validate_txn(txn).is_ok(),
        _ => true,
    }
}

/// A snapshot, whose it is, and the model of that moment.
type Held = (usize, Snapshot, Model);

fn run(lease_ownership: bool, set_up: [Vec<Command>; 2], steps: Vec<Step>) {
    let mut node = Node::with_lease_ownership(lease_ownership);
    let mut models = TENANTS.map(|_| Model::new());
    let mut token_keys = TokenKeys::new();
    for (at, commands) in set_up.iter().enumerate() {
        models[at].lease_ownership = lease_ownership;
        let entry = commands
            .iter()
            .map(|command| (TENANTS[at], command.clone()));
        let outcomes = node.apply(&entry.collect::<Vec<_>>());
        for (command, outcome) in commands.iter().zip(outcomes) {
            assert_eq!(outcome, models[at].apply(command), "{command:?}");
        }
    }
    let mut held: Option<Held> = None;
    for step in steps {
        match step {
            Step::Apply(mut commands) => {
                commands.retain(|(_, _, command)| admissible(command));
                for (at, _, command) in &mut commands {
                    if let Command::Compact { revision } = command {
                        *revision = near(*revision, &models[*at]);
                    }
                }
                let entry: Vec<_> = commands
                    .into_iter()
                    .map(|(at, who, command)| (TENANTS[at], who.resolve(&models[at].auth), command))
                    .collect();
                let outcomes = node.apply_by(&entry);
                assert_eq!(outcomes.len(), entry.len());
                for ((id, caller, command), outcome) in entry.iter().zip(outcomes) {
                    let at = TENANTS.iter().position(|other| other == id).unwrap();
                    let mut expected: Outcome = models[at].apply_by(caller, command);
                    if let Ok(Answer::Done { .. }) = expected
                        && let Err(refusal) = publish(&mut token_keys, command)
                    {
                        expected = Err(refusal);
                    }
                    assert_eq!(outcome, expected, "{caller:?}: {command:?}");
                }
            }
            Step::Read(at, mut range) => {
                range.revision = near(range.revision, &models[at]);
                let tenants = node.machine().tenants().clone();
                let tenant = node.tenant(TENANTS[at]);
                let found = tenants.range(&tenant, &range);
                assert_eq!(found, models[at].range(&range), "{range:?}");
                if let Some((at, snapshot, model)) = &held {
                    check_held(&node, TENANTS[*at], snapshot, model, &range, &models[*at]);
                }
            }
            Step::ReadTxn(at, txn) => {
                let tenants = node.machine().tenants().clone();
                let found = tenants.read_txn(&node.tenant(TENANTS[at]), &txn);
                assert_eq!(found, models[at].read_txn(&txn), "{txn:?}");
            }
            Step::Hash(at, revision) => {
                check_hash(&node, TENANTS[at], &models[at], near(revision, &models[at]));
            }
            Step::Persist => {
                node.machine().tenants().store().persist().unwrap();
            }
            Step::Checkpoint => {
                node.machine().tenants().store().checkpoint().unwrap();
            }
            Step::Restart => {
                held = None;
                let before = TENANTS.map(|id| node.tenant(id).auth_hash());
                node.restart();
                assert_eq!(TENANTS.map(|id| node.tenant(id).auth_hash()), before);
            }
            Step::Prune(at, max, rows) => {
                node.prune(TENANTS[at], max, rows);
            }
            Step::Hold(at) => {
                let tenant = node.tenant(TENANTS[at]);
                let snapshot = node.machine().tenants().snapshot(&tenant);
                held = Some((at, snapshot, models[at].clone()));
            }
        }
        for (id, model) in TENANTS.iter().zip(&models) {
            check_state(&node, *id, model);
        }
        let found = node.machine().tenants().token_keys();
        assert!(found.iter().eq(token_keys.values()));
    }
    drop(held);
    node.machine().tenants().store().persist().unwrap();
    node.restart();
    assert!(
        node.machine()
            .tenants()
            .token_keys()
            .iter()
            .eq(token_keys.values())
    );
    for (id, model) in TENANTS.iter().zip(&models) {
        check_state(&node, *id, model);
        while !node.prune(*id, 3, true) {}
        let kept = model.kept(i64::MAX);
        assert_eq!(
            node.tenant(*id).size_bytes(),
            kept.iter().copied().map(row_bytes).sum::<u64>()
        );
        check_rows(&node, *id, &kept);
    }
    node.machine().tenants().store().persist().unwrap();
    node.restart();
    for (id, model) in TENANTS.iter().zip(&models) {
        check_state(&node, *id, model);
        let kept = model.kept(i64::MAX);
        assert_eq!(
            node.tenant(*id).size_bytes(),
            kept.iter().copied().map(row_bytes).sum::<u64>()
        );
        check_rows(&node, *id, &kept);
    }
}

/// The store holds these rows and no others.
fn check_rows(node: &Node, id: TenantId, expected: &[&Row]) {
    let store = node.machine.as_ref().unwrap().tenants().store().clone();
    let found: Vec<Row> = store
        .scan(id, Revision::first(0), i64::MAX)
        .map(|row| row.unwrap())
        .collect();
    let mut expected: Vec<Row> = expected.iter().map(|row| (*row).clone()).collect();
    expected.sort_by_key(|row| row.revision);
    assert_eq!(found, expected);
}

/// A snapshot answers as the state did when it was made, or says that what it needs was compacted since.
fn check_held(
    node: &Node,
    id: TenantId,
    snapshot: &Snapshot,
    then: &Model,
    range: &Range,
    now: &Model,
) {
    let tenants = node.machine.as_ref().unwrap().tenants();
    let at = if range.revision > 0 {
        range.revision
    } else {
        then.revision
    };
    match tenants.range_in(id, snapshot, range) {
        Err(Refusal::Compacted) if at < now.compacted => {}
        found => assert_eq!(found, then.range(range), "in a snapshot: {range:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        rng_seed: RngSeed::Fixed(20_261_120),
        failure_persistence: None,
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_answer_is_that_of_one_etcd_per_tenant(
        lease_ownership in any::<bool>(),
        first in prop_oneof![1 => Just(vec![]), 3 => set_up()],
        second in prop_oneof![1 => Just(vec![]), 1 => set_up()],
        steps in vec(step(), 30..150),
    ) {
        run(lease_ownership, [first, second], steps);
    }
}
