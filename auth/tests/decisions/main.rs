//! Random histories of users and roles, and random requests against each state, compared with a model that knows no intervals: it
//! asks for every key by itself. Neither a grant too many nor a refusal too many is let through.
//!
//! Keys are words of up to three letters of a small alphabet, so that ranges often meet, overlap and leave gaps of one key.
//! `HOLDFAST_SEED` repeats a run; a failure prints it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a panic is the report of a failure"
)]

mod generate;
mod model;
mod records;

use generate::Generator;
use holdfast_auth::{Affected, AuthState, Demands, KeyRange, Policy, Standing, Verb};
use model::{Model, Universe};
use rand::RngExt;
use std::env;

const DECISIONS: u64 = 1_200_000;
const CHANGES_PER_HISTORY: usize = 120;
const DECISIONS_PER_CHANGE: usize = 40;

/// A request with the shape of a transaction: demands of its own, and arms with further ones.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) standing: Option<Stand>,
    pub(crate) own: Vec<(Verb, KeyRange)>,
    pub(crate) arms: Vec<Request>,
}

/// A [`Standing`] with a name of its own.
#[derive(Debug)]
pub(crate) enum Stand {
    Admin,
    User(String),
    Holder(String),
}

impl Demands for &Request {
    fn standing(&self) -> Standing<'_> {
        match &self.standing {
            None => Standing::Any,
            Some(Stand::Admin) => Standing::Admin,
            Some(Stand::User(name)) => Standing::AdminOrUser(name),
            Some(Stand::Holder(role)) => Standing::AdminOrHolder(role),
        }
    }

    fn demands(&self, demand: &mut dyn FnMut(Verb, &KeyRange)) {
        for (verb, keys) in &self.own {
            demand(*verb, keys);
        }
        for arm in &self.arms {
            arm.demands(demand);
        }
    }
}

fn seed() -> u64 {
    let given = env::var("HOLDFAST_SEED").ok();
    given.map_or_else(
        || rand::rng().random(),
        |text| text.parse().expect("HOLDFAST_SEED is a number"),
    )
}

#[derive(Debug, Default)]
struct Tally {
    decisions: u64,
    in_force: u64,
    /// With users and roles in force, by a caller with roles other than `root`, of a request that touches keys.
    granted_by_roles: u64,
    refused_by_roles: u64,
    /// Of the granted ones, those that no single permission covers.
    granted_together: u64,
}

#[test]
fn every_decision_is_what_asking_key_by_key_gives() {
    let seed = seed();
    println!("HOLDFAST_SEED={seed}");
    let mut universe = Universe::new();
    let mut generator = Generator::new(seed);
    let mut tally = Tally::default();
    while tally.decisions < DECISIONS {
        history(seed, &mut generator, &mut universe, &mut tally);
    }
    println!("{tally:?}");
    // What the random choices are worth: each kind of decision must have been taken often.
    for often in [
        tally.granted_by_roles,
        tally.refused_by_roles,
        tally.granted_together,
    ] {
        assert!(often > DECISIONS / 100, "HOLDFAST_SEED={seed}: {tally:?}");
    }
}

fn history(seed: u64, generator: &mut Generator, universe: &mut Universe, tally: &mut Tally) {
    let mut state = AuthState::new();
    let mut model = Model::new();
    let mut changes = generator.opening();
    changes.extend((0..CHANGES_PER_HISTORY).map(|_| generator.change_later()));
    for step in changes {
        let change = step.make(&model);
        let before = model.clone();
        let expected = model.apply(&change);
        let outcome = state.apply(&change);
        assert_eq!(
            outcome.as_ref().err(),
            expected.as_ref().err(),
            "HOLDFAST_SEED={seed}: {change:?} in {before:?}"
        );
        model.compare(&state);
        if let Ok(applied) = outcome {
            let affected = affected_of(&applied.affected);
            let expected = before.affected_by_becoming(&model);
            assert_eq!(affected, expected, "HOLDFAST_SEED={seed}: {change:?}");
        }
        // While it is off there is little to decide.
        let decisions = if model.enabled {
            DECISIONS_PER_CHANGE
        } else {
            4
        };
        for _ in 0..decisions {
            decision(seed, generator, universe, tally, &state, &model);
        }
    }
}

fn decision(
    seed: u64,
    generator: &mut Generator,
    universe: &mut Universe,
    tally: &mut Tally,
    state: &AuthState,
    model: &Model,
) {
    let caller = generator.caller(model);
    let policy = generator.policy();
    let request = generator.request(0);
    let expected = model.decide(universe, &caller, policy, &request);
    let decided = state.authorize(&caller, policy, &request);
    assert_eq!(
        decided.as_ref().err(),
        expected.as_ref().err(),
        "HOLDFAST_SEED={seed}: {caller:?} {policy:?} {request:?} in {model:?}"
    );
    if let Ok(authorized) = decided {
        assert_eq!(*authorized.caller(), caller);
    }
    tally.decisions += 1;
    tally.in_force += u64::from(model.enabled);
    let mut demands = Vec::new();
    (&&request).demands(&mut |verb, keys| demands.push((verb, keys.clone())));
    if let Some(roles) = model.plain_roles_of(&caller)
        && policy == Some(Policy::KeyScoped)
        && request.standing.is_none()
        && demands.iter().any(|(_, keys)| !keys.is_empty())
    {
        match expected {
            Ok(()) => {
                tally.granted_by_roles += 1;
                let single = |(verb, keys): &(Verb, KeyRange)| {
                    model.one_permission_covers(universe, &roles, *verb, keys)
                };
                tally.granted_together += u64::from(!demands.iter().all(single));
            }
            Err(_) => tally.refused_by_roles += 1,
        }
    }
    // Streams: as a request by a caller who was not refused for a role that came or went.
    let stream = state
        .stream_access(&caller)
        .and_then(|access| access.permits(Policy::KeyScoped, &&request));
    assert_eq!(
        stream,
        model.decide_stream(universe, &caller, &request),
        "HOLDFAST_SEED={seed}: stream of {caller:?} {request:?} in {model:?}"
    );
}

/// Ids of affected users, whether they are still there, and roles; `None` for everyone.
type WhoIsAffected = Option<(Vec<(u64, bool)>, Vec<String>)>;

fn affected_of(affected: &Affected) -> WhoIsAffected {
    match affected {
        Affected::Nobody => Some((Vec::new(), Vec::new())),
        Affected::Everyone => None,
        Affected::Some { users, roles } => {
            let mut ids: Vec<_> = users
                .iter()
                .map(|(id, user)| {
                    assert!(user.as_ref().is_none_or(|user| user.id == *id));
                    (id.0, user.is_some())
                })
                .collect();
            ids.sort_unstable();
            Some((ids, roles.iter().map(|role| role.to_string()).collect()))
        }
    }
}
