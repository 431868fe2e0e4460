//! Watches end where their callers lose the right to them: nothing later is delivered, whatever the interleaving.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod model;
mod strategies;
mod world;

use bytes::Bytes;
use holdfast_auth::{AuthChange, Caller, KeyRange};
use holdfast_tenant::Command;
use holdfast_tenant::request::{Op, Put, Txn};
use holdfast_tenant::watch::{Message, WatchRequest};
use model::all_keys;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use strategies::auth::{Who, auth_change, set_up, who};
use strategies::keys;
use world::{World, delete, put, put_of, watch};

#[derive(Clone, Debug)]
enum Change {
    Data(Command),
    Auth(AuthChange),
    /// Takes a permission that is there from a role that is there.
    Revoke(usize, usize),
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<Change>),
    /// In the middle of the next round, after so many questions of the hub.
    ApplyWithin(usize, Vec<Change>),
    /// Takes from one of the watches what it rests on, in one way or another, and changes one of its keys before and after that; in one
    /// entry, which is applied in the middle of the next round or before it.
    Strike(Option<usize>, usize, u8),
    /// Makes a watch that starts in the past, and strikes its caller in the round that serves it.
    Ambush(usize, i64, KeyRange, Who, usize, u8),
    /// More than waits for the hub: it is forgotten, and read from the store.
    Flood,
    /// A received state takes the place of the machine's: with these changes in between, in one of the watches' callers too, and a
    /// compaction so far back. In the middle of the next round or before it.
    Install(
        Option<usize>,
        Vec<Change>,
        Option<(usize, u8)>,
        Option<i64>,
        bool,
    ),
    Create(usize, Option<i64>, KeyRange, Who, [bool; 2]),
    Cancel(usize, i64),
    Progress(usize),
    Room(usize, usize),
    Close(usize),
    Compact(i64),
    Round,
    Tick,
}

fn change() -> impl Strategy<Value = Change> {
    let key = || prop::sample::select(vec!["a", "b", "c", "d", "ab"]);
    let txn = (key(), key()).prop_map(|(a, b)| {
        let success = if a == b {
            vec![Op::Put(put_of(a, "x"))]
        } else {
            vec![Op::Put(put_of(a, "x")), Op::Put(put_of(b, "y"))]
        };
        Command::Txn(Txn {
            success,
            ..Txn::default()
        })
    });
    prop_oneof![
        8 => key().prop_map(|key| Change::Data(put(key, "v"))),
        1 => keys().prop_map(|keys| Change::Data(delete(keys))),
        2 => txn.prop_map(Change::Data),
        3 => auth_change().prop_map(Change::Auth),
        4 => (0..4usize, 0..4usize).prop_map(|(role, at)| Change::Revoke(role, at)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let stream = || 0..2usize;
    let start = prop_oneof![3 => Just(None), 4 => (-25..4i64).prop_map(Some)];
    prop_oneof![
        12 => vec(change(), 1..5).prop_map(Step::Apply),
        8 => (0..12usize, vec(change(), 1..5)).prop_map(|(after, changes)| Step::ApplyWithin(after, changes)),
        8 => (prop_oneof![2 => (0..9usize).prop_map(Some), 1 => Just(None)], 0..9usize, 0..6u8)
            .prop_map(|(after, watch, how)| Step::Strike(after, watch, how)),
        8 => (stream(), 1..25i64, keys(), who(), 1..7usize, 0..6u8)
            .prop_map(|(at, back, keys, who, after, how)| Step::Ambush(at, back, keys, who, after, how)),
        14 => (stream(), start, keys(), who(), any::<[bool; 2]>())
            .prop_map(|(at, start, keys, who, flags)| Step::Create(at, start, keys, who, flags)),
        1 => (stream(), 0..5i64).prop_map(|(at, id)| Step::Cancel(at, id)),
        1 => stream().prop_map(Step::Progress),
        5 => (stream(), prop_oneof![2 => Just(0usize), 2 => 1..4usize, 2 => Just(usize::MAX)])
            .prop_map(|(at, room)| Step::Room(at, room)),
        1 => stream().prop_map(Step::Close),
        1 => (0..8i64).prop_map(Step::Compact),
        12 => Just(Step::Round),
        1 => Just(Step::Tick),
    ]
}

fn install() -> impl Strategy<Value = Step> {
    let within = prop::option::of(0..12usize);
    let struck = prop::option::weighted(0.3, (0..9usize, 0..6u8));
    let compact = prop::option::weighted(0.4, -4..8i64);
    let changes = vec(change(), 0..6);
    (within, changes, struck, compact, any::<bool>()).prop_map(
        |(within, changes, struck, compact, prune)| {
            Step::Install(within, changes, struck, compact, prune)
        },
    )
}

fn commands(world: &World, changes: Vec<Change>) -> Vec<(Caller, Command)> {
    let roles = &world.model.auth.roles;
    let command = |change| match change {
        Change::Data(command) => command,
        Change::Auth(change) => Command::Auth(change),
        Change::Revoke(role, at) => {
            let role = roles.iter().filter(|(_, held)| !held.is_empty()).nth(role);
            let Some((role, held)) = role else {
                return put("d", "nothing to revoke");
            };
            Command::Auth(AuthChange::RoleRevokePermission {
                role: role.clone(),
                keys: held[at % held.len()].keys.clone(),
            })
        }
    };
    changes
        .into_iter()
        .map(|change| (Caller::Server, command(change)))
        .collect()
}

/// All watches that are there or were asked for: their keys and their callers.
fn watches(world: &World) -> Vec<(KeyRange, Caller)> {
    let watches = world.streams.iter().flat_map(|stream| {
        let active = stream.watches.iter().filter(|watch| watch.ended.is_none());
        let asked = stream.requested.iter();
        asked
            .map(|(request, caller, _)| (request, caller))
            .chain(active.map(|watch| (&watch.request, &watch.caller)))
    });
    let pairs = watches.map(|(request, caller)| (request.keys.clone(), caller.clone()));
    pairs.collect()
}

/// See [`Step::Strike`]. Afterwards the caller may or may not be as before.
fn strike(world: &World, keys: &KeyRange, caller: &Caller, how: u8) -> Vec<(Caller, Command)> {
    let auth = &world.model.auth;
    let Some(key) = all_keys().find(|key| keys.contains(key)) else {
        return vec![(Caller::Server, put("d", "it watches nothing"))];
    };
    let change = Command::Put(Put {
        key,
        ..put_of("", "v")
    });
    let mut commands = vec![change.clone()];
    let user = auth.users.iter().find(|(_, user)| match caller {
        Caller::User { id, .. } => user.id == id.0,
        _ => false,
    });
    // A caller who is no user has the roles of its token, and each loses what it has.
    let Some((user, state)) = user else {
        commands.extend(auth.roles.iter().flat_map(|(role, held)| {
            held.iter().map(|permission| {
                Command::Auth(AuthChange::RoleRevokePermission {
                    role: role.clone(),
                    keys: permission.keys.clone(),
                })
            })
        }));
        commands.push(change);
        return by_server(commands);
    };
    let all = |to: fn(String, String) -> AuthChange| {
        let roles = state.roles.iter();
        roles.map(move |role| Command::Auth(to(user.clone(), role.clone())))
    };
    match how {
        0 => commands.push(Command::Auth(AuthChange::UserDelete { name: user.clone() })),
        1 => commands.push(Command::Auth(AuthChange::UserChangePassword {
            name: user.clone(),
            password: None,
        })),
        _ => commands.extend(all(|user, role| AuthChange::UserRevokeRole { user, role })),
    }
    commands.push(change.clone());
    if how == 5 {
        // What is given back does not bring the watch back.
        commands.extend(all(|user, role| AuthChange::UserGrantRole { user, role }));
        commands.push(change);
    }
    by_server(commands)
}

fn by_server(commands: Vec<Command>) -> Vec<(Caller, Command)> {
    let commands = commands.into_iter();
    commands.map(|command| (Caller::Server, command)).collect()
}

/// The keys, or others that the caller may watch; the edge lets nothing else through to the hub.
fn permitted(world: &World, caller: &Caller, keys: KeyRange) -> Option<KeyRange> {
    let auth = &world.model.auth;
    let granted = auth.roles.values().flatten();
    let mut wanted = [keys]
        .into_iter()
        .chain(granted.map(|held| held.keys.clone()));
    wanted.find(|keys| auth.may_watch(caller, keys).is_ok())
}

/// What the flood is made of: each is half of what may wait.
fn large(size: &Bytes) -> Command {
    Command::Put(Put {
        value: size.clone(),
        ..put_of("a", "")
    })
}

fn run(first: &[Command], steps: Vec<Step>) {
    let mut world = World::new(2);
    world.apply(first);
    let value = Bytes::from(vec![b'l'; 33 << 20]);
    for step in steps {
        match step {
            Step::Apply(changes) => {
                let commands = commands(&world, changes);
                world.apply_by(&commands);
            }
            Step::ApplyWithin(after, changes) => {
                let commands = commands(&world, changes);
                world.apply_within(after, commands);
            }
            Step::Strike(after, watch, how) => {
                let watches = watches(&world);
                let Some((keys, caller)) = watches.get(watch % watches.len().max(1)) else {
                    continue;
                };
                let commands = strike(&world, keys, caller, how);
                match after {
                    Some(after) => world.apply_within(after, commands),
                    None => world.apply_by(&commands),
                }
            }
            Step::Ambush(at, back, keys, who, after, how) => {
                let caller = who.resolve(&world.model.auth);
                let Some(keys) = permitted(&world, &caller, keys) else {
                    continue;
                };
                let commands = strike(&world, &keys, &caller, how);
                let request = WatchRequest {
                    start: (world.model.revision - back).max(1),
                    ..watch(keys)
                };
                world.create_by(at, request, caller);
                world.apply_within(after, commands);
                world.step();
            }
            Step::Flood => {
                world.model.overflowed = true;
                for _ in 0..3 {
                    world.apply(&[large(&value)]);
                }
            }
            Step::Install(within, changes, struck, compact, prune) => {
                let mut entries: Vec<_> = commands(&world, changes)
                    .into_iter()
                    .map(|command| vec![command])
                    .collect();
                let watches = watches(&world);
                if let Some((watch, how)) = struck
                    && let Some((keys, caller)) = watches.get(watch % watches.len().max(1))
                {
                    entries.push(strike(&world, keys, caller, how));
                }
                if let Some(back) = compact {
                    let revision = world.model.revision - back;
                    entries.push(by_server(vec![Command::Compact { revision }]));
                }
                match within {
                    Some(after) => world.install_within(after, entries, prune),
                    None => world.install(&entries, prune),
                }
            }
            Step::Create(at, start, keys, who, [previous, fragment]) => {
                let caller = who.resolve(&world.model.auth);
                let Some(keys) = permitted(&world, &caller, keys) else {
                    continue;
                };
                let start = start.map_or(0, |start| world.model.revision + start);
                let request = WatchRequest {
                    start,
                    previous,
                    fragment,
                    ..watch(keys)
                };
                world.create_by(at, request, caller);
            }
            Step::Cancel(at, watch_id) => {
                let stream = world.streams[at].id;
                world.inbox().push(Message::Cancel { stream, watch_id });
            }
            Step::Progress(at) => {
                let stream = world.streams[at].id;
                world.inbox().push(Message::Progress { stream });
            }
            Step::Room(at, room) => world.streams[at].sink.give_room(room),
            Step::Close(at) => world.close(at),
            Step::Compact(back) => {
                let revision = world.model.revision - back;
                world.apply(&[Command::Compact { revision }]);
            }
            Step::Round => {
                world.step();
            }
            Step::Tick => world.tick(),
        }
    }
    world.check_all();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        rng_seed: RngSeed::Fixed(20_261_120),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_watch_outlives_its_permission(
        first in set_up(),
        steps in vec(step(), 20..120),
    ) {
        run(&first, steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 12,
        rng_seed: RngSeed::Fixed(20_261_120),
        failure_persistence: None,
        max_shrink_iters: 100,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nor_when_the_inbox_overflows(
        first in set_up(),
        mut steps in vec(step(), 20..60),
        flood in 5..60usize,
    ) {
        steps.insert(flood.min(steps.len()), Step::Flood);
        run(&first, steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        rng_seed: RngSeed::Fixed(20_261_120),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    })]

    /// Each watch gets what lies in a gap exactly once, in its place, or ends: as compacted, or since nobody knows its permission there.
    #[test]
    fn nor_is_anything_lost_or_told_to_others_when_a_received_state_takes_the_place_of_another(
        first in prop_oneof![2 => set_up(), 1 => Just(Vec::new())],
        steps in vec(prop_oneof![12 => step(), 1 => install()], 20..120),
    ) {
        run(&first, steps);
    }
}
