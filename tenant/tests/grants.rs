//! What a caller is shown and what it changes lies inside what it was granted at that place in the log: looked at in the answers and
//! in the rows that were written, not in the requests.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod model;
mod node;
mod strategies;

use bytes::Bytes;
use holdfast_auth::{AuthChange, Caller, KeyRange, Permission, PermissionKind, Policy, Verb};
use holdfast_storage::{Revision, Row, TenantId};
use holdfast_tenant::request::{Op, Range, Txn};
use holdfast_tenant::{
    Answer, Command, Outcome, RangeAnswer, StepAnswer, TxnAnswer, validate_put, validate_txn,
};
use model::{AuthModel, all_keys};
use node::{NOW, Node};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::collections::BTreeMap;
use strategies::auth::{Who, auth_change, set_up, who};
use strategies::{LEASES, command, compare, put, range};

const TENANT: TenantId = TenantId::DEFAULT;

#[derive(Clone, Debug)]
enum Step {
    /// One entry. What is asked for by a client has passed the edge, which knew the state before the entry.
    Entry(Vec<(Who, Command)>),
    Read(Who, Range),
    ReadTxn(Who, Txn),
    LeaseKeys(Who, i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let command = prop_oneof![
        8 => (who(), command()),
        // There is something to see, and rights change between what others do.
        4 => (Just(Who::Server), put().prop_map(Command::Put)),
        1 => (Just(Who::Server), auth_change().prop_map(Command::Auth)),
    ];
    let reads = (
        vec(compare(), 0..3),
        vec(range().prop_map(Op::Range), 0..3),
        vec(range().prop_map(Op::Range), 0..3),
    );
    let reads = reads.prop_map(|(compares, success, failure)| Txn {
        compares,
        success,
        failure,
    });
    let lease = prop::sample::select(LEASES.to_vec());
    prop_oneof![
        16 => vec(command, 1..6).prop_map(Step::Entry),
        24 => (who(), range()).prop_map(|(who, range)| Step::Read(who, range)),
        8 => (who(), reads).prop_map(|(who, txn)| Step::ReadTxn(who, txn)),
        2 => (who(), lease).prop_map(|(who, lease)| Step::LeaseKeys(who, lease)),
        1 => Just(Step::Restart),
    ]
}

/// Everything that an answer shows of keys.
fn shown(outcome: &Outcome) -> Vec<&Row> {
    match outcome {
        Ok(Answer::Put(put)) => put.previous.iter().collect(),
        Ok(Answer::Delete(delete)) => delete.previous.iter().collect(),
        Ok(Answer::Txn(txn)) => shown_in_txn(txn),
        _ => vec![],
    }
}

fn shown_in_txn(txn: &TxnAnswer) -> Vec<&Row> {
    txn.steps
        .iter()
        .flat_map(|step| match step {
            StepAnswer::Range(range) => range.rows.iter().collect(),
            StepAnswer::Put(put) => put.previous.iter().collect::<Vec<_>>(),
            StepAnswer::Delete(delete) => delete.previous.iter().collect(),
            StepAnswer::Txn(inner) => shown_in_txn(inner),
        })
        .collect()
}

/// Counters that say whether the test has tested anything.
#[derive(Default)]
struct Seen {
    shown: usize,
    changed: usize,
    denied: usize,
}

struct Run {
    node: Node,
    auth: AuthModel,
    owners: BTreeMap<i64, Bytes>,
    seen: Seen,
}

impl Run {
    fn entry(&mut self, commands: Vec<(Caller, Command)>) {
        let tenant = self.node.tenant(TENANT);
        let before = tenant.revision();
        let entry: Vec<_> = commands
            .iter()
            .map(|(caller, command)| (TENANT, caller.clone(), command.clone()))
            .collect();
        let outcomes = self.node.apply_by(&entry);
        let store = self.node.machine().tenants().store().clone();
        let rows: Vec<Row> = store
            .scan(TENANT, Revision::first(before + 1), i64::MAX)
            .map(|row| row.unwrap())
            .collect();
        let mut last = before;
        for ((caller, command), outcome) in commands.iter().zip(&outcomes) {
            let now = revision_after(outcome).unwrap_or(last);
            let written = last + 1..=now;
            let changed = rows
                .iter()
                .filter(|row| written.contains(&row.revision.main));
            last = now;
            self.check(caller, command, outcome, changed);
            if let (Command::Auth(change), Ok(_)) = (command, outcome) {
                self.auth.apply(change).unwrap();
            }
            match (command, outcome, caller.owner()) {
                (Command::LeaseGrant { id, .. }, Ok(_), Some(owner)) => {
                    self.owners.insert(*id, owner);
                }
                (Command::LeaseRevoke { id }, Ok(_), _) => {
                    self.owners.remove(id);
                }
                _ => {}
            }
        }
        assert_eq!(
            last,
            self.node.tenant(TENANT).revision(),
            "a change that nobody answers for"
        );
    }

    fn check<'r>(
        &mut self,
        caller: &Caller,
        command: &Command,
        outcome: &Outcome,
        changed: impl Iterator<Item = &'r Row>,
    ) {
        let mut changed = changed.peekable();
        if outcome.is_err() {
            assert!(
                changed.peek().is_none(),
                "{command:?} was refused and changed something"
            );
            self.seen.denied += 1;
            return;
        }
        let who = self.auth.who(caller, false);
        let who = who.unwrap_or_else(|denied| panic!("{denied} did not stop {caller:?}"));
        for row in shown(outcome) {
            assert!(
                who.may(Verb::Read, &row.key),
                "{caller:?} saw {row:?} by {command:?}"
            );
            self.seen.shown += usize::from(!who.admin);
        }
        // Ending a lease takes its keys with it, whatever became of the rights since they were attached.
        let owns = match command {
            Command::LeaseRevoke { id } if self.node.lease_ownership => self
                .owners
                .get(id)
                .cloned()
                .is_some_and(|owner| Some(owner) == caller.owner()),
            _ => false,
        };
        for row in changed {
            let may = owns || who.may(Verb::Write, &row.key);
            assert!(may, "{caller:?} changed {row:?} by {command:?}");
            self.seen.changed += usize::from(!who.admin);
        }
    }

    fn check_range(&mut self, caller: &Caller, range: &Range, answer: &RangeAnswer) {
        let who = self.auth.who(caller, false).unwrap();
        for row in &answer.rows {
            assert!(
                who.may(Verb::Read, &row.key),
                "{caller:?} saw {row:?} by {range:?}"
            );
            self.seen.shown += usize::from(!who.admin);
        }
        // A number tells of all the keys that it counts.
        let counted = answer.count > 0;
        let all = || all_keys().filter(|key| range.keys.contains(key));
        assert!(
            !counted || all().all(|key| who.may(Verb::Read, &key)),
            "{caller:?}: {range:?}"
        );
    }

    fn step(&mut self, step: Step) {
        let tenant = self.node.tenant(TENANT);
        let state = tenant.auth().clone();
        let policy = Some(Policy::KeyScoped);
        match step {
            Step::Entry(commands) => {
                let admitted = commands.into_iter().filter_map(|(who, command)| {
                    let caller = who.resolve(&self.auth);
                    let valid = match &command {
                        Command::Put(put) => validate_put(put).is_ok(),
                        Command::Txn(txn) => validate_txn(txn).is_ok(),
                        // They would stop the rest.
                        Command::RaiseAlarm(_) => false,
                        _ => true,
                    };
                    if caller == Caller::Server {
                        return valid.then_some((caller, command));
                    }
                    let authorized = state.authorize(&caller, policy, command).ok()?;
                    let caller = authorized.caller().clone();
                    valid.then(|| (caller, authorized.into_request()))
                });
                let admitted = admitted.collect();
                self.entry(admitted);
            }
            Step::Read(who, range) => {
                let caller = who.resolve(&self.auth);
                let Ok(range) = state.authorize(&caller, policy, range) else {
                    return;
                };
                let tenants = self.node.machine().tenants().clone();
                if let Ok(answer) = tenants.range(&tenant, range.request()) {
                    self.check_range(&caller, range.request(), &answer);
                }
            }
            Step::ReadTxn(who, txn) => {
                let caller = who.resolve(&self.auth);
                let Ok(txn) = state.authorize(&caller, policy, txn) else {
                    return;
                };
                let tenants = self.node.machine().tenants().clone();
                if let Ok(answer) = tenants.read_txn(&tenant, txn.request()) {
                    let who = self.auth.who(&caller, false).unwrap();
                    for row in shown_in_txn(&answer) {
                        assert!(who.may(Verb::Read, &row.key), "{caller:?} saw {row:?}");
                        self.seen.shown += usize::from(!who.admin);
                    }
                }
            }
            Step::LeaseKeys(who, id) => {
                let caller = who.resolve(&self.auth);
                let Ok(access) = state.access(&caller) else {
                    return;
                };
                let found = tenant.lease_time_to_live_for(&access, &caller, id, true, NOW);
                if let Ok(Some((_, keys))) = found {
                    let who = self.auth.who(&caller, false).unwrap();
                    for key in keys {
                        assert!(
                            who.may(Verb::Read, &key),
                            "{caller:?} saw {key:?} on lease {id}"
                        );
                        self.seen.shown += usize::from(!who.admin);
                    }
                }
            }
            Step::Restart => self.node.restart(),
        }
    }
}

fn revision_after(outcome: &Outcome) -> Option<i64> {
    Some(match outcome.as_ref().ok()? {
        Answer::Put(answer) => answer.revision,
        Answer::Delete(answer) => answer.revision,
        Answer::Txn(answer) => answer.revision,
        Answer::Compacted { revision }
        | Answer::LeaseGranted { revision, .. }
        | Answer::LeaseRevoked { revision }
        | Answer::Done { revision, .. } => *revision,
        Answer::Members(_) => return None,
    })
}

/// Enough of the keys to everybody that they do something.
fn wide_grants() -> impl Iterator<Item = AuthChange> {
    let span = |role: &str, start: &'static str, end: &'static str, kind| {
        let keys = KeyRange::Span {
            start: start.into(),
            end: end.into(),
        };
        AuthChange::RoleGrantPermission {
            role: role.into(),
            permission: Some(Permission { keys, kind }),
        }
    };
    let holds = |user: &str, role: &str| AuthChange::UserGrantRole {
        user: user.into(),
        role: role.into(),
    };
    [
        span("r1", "a", "b", PermissionKind::ReadWrite),
        span("r2", "b", "d", PermissionKind::ReadWrite),
        span("r3", "aa", "c", PermissionKind::Read),
        holds("ann", "r1"),
        holds("ann", "r2"),
        holds("bob", "r2"),
        holds("cid", "r3"),
        holds("cid", "r1"),
    ]
    .into_iter()
}

#[test]
fn what_is_shown_and_changed_lies_inside_what_was_granted() {
    let mut total = Seen::default();
    let config = ProptestConfig {
        cases: 128,
        rng_seed: RngSeed::Fixed(20_261_120),
        failure_persistence: None,
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    };
    let total_seen = std::cell::RefCell::new(&mut total);
    let inputs = (any::<bool>(), set_up(), vec(step(), 30..120));
    proptest::test_runner::TestRunner::new(config)
        .run(&inputs, |(lease_ownership, first, steps)| {
            let mut run = Run {
                node: Node::with_lease_ownership(lease_ownership),
                auth: AuthModel::new(),
                owners: BTreeMap::new(),
                seen: Seen::default(),
            };
            let wide = wide_grants().map(Command::Auth);
            let by_server = first.into_iter().chain(wide);
            let by_server = by_server.map(|command| (Caller::Server, command));
            run.entry(by_server.collect());
            for step in steps {
                run.step(step);
            }
            let mut total = total_seen.borrow_mut();
            total.shown += run.seen.shown;
            total.changed += run.seen.changed;
            total.denied += run.seen.denied;
            Ok(())
        })
        .unwrap();
    // A test in which nobody may do anything shows nothing.
    assert!(total.shown > 500, "only {} rows were shown", total.shown);
    assert!(
        total.changed > 500,
        "only {} rows were changed",
        total.changed
    );
    assert!(
        total.denied > 100,
        "only {} commands were refused",
        total.denied
    );
}
