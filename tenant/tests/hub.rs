//! The hub, driven by hand over a real machine: what each watch gets, whatever the interleaving.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod model;
mod world;

use holdfast_auth::{Caller, KeyRange};
use holdfast_storage::lease::Millis;
use holdfast_storage::{Row, TenantId};
use holdfast_tenant::Command;
use holdfast_tenant::request::{DeleteRange, Op, Txn};
use holdfast_tenant::watch::{DeliveryKind, Event, Inbox, Message, Transaction, WatchRequest};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use world::{World, delete, put, put_of, span, watch};

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<Command>),
    /// Compacts so many revisions before the present, and perhaps removes the rows.
    Compact(i64, bool),
    /// On a stream; the start is relative to the present if it is not 0.
    Create(usize, Option<i64>, WatchRequest),
    Cancel(usize, i64),
    Progress(usize),
    Room(usize, usize),
    Close(usize),
    Persist,
    Round,
    Tick,
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "d"])
}

fn keys() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => key().prop_map(|key| KeyRange::Point(key.into())),
        3 => (key(), key()).prop_map(|(a, b)| span(a, b)),
        1 => key().prop_map(|key| KeyRange::From(key.into())),
        2 => Just(KeyRange::All),
    ]
}

fn change() -> impl Strategy<Value = Command> {
    let value = || {
        prop::sample::select(vec![
            "",
            "x",
            "yyyy",
            "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
        ])
    };
    let txn = (value(), value(), 0..4).prop_map(|(x, y, deletes)| {
        let mut success = vec![Op::Put(put_of("a", x)), Op::Put(put_of("b", y))];
        let delete = |keys| {
            Op::DeleteRange(DeleteRange {
                keys,
                previous: true,
            })
        };
        match deletes {
            0 => {}
            1 => success.insert(1, delete(span("c", "e"))),
            // Without an upper bound it may stand beside puts of the same keys: they change twice in one revision.
            2 => success.insert(0, delete(KeyRange::All)),
            _ => success.push(delete(KeyRange::From("b".into()))),
        }
        Command::Txn(Txn {
            success,
            ..Txn::default()
        })
    });
    prop_oneof![
        6 => (key(), value()).prop_map(|(key, value)| put(key, value)),
        3 => keys().prop_map(delete),
        2 => txn,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let stream = || 0..2usize;
    let request = (
        keys(),
        prop_oneof![6 => Just(0i64), 3 => 1..4i64, 1 => -2..0i64],
        any::<[bool; 5]>(),
    )
        .prop_map(
            |(keys, id, [progress, no_put, no_delete, previous, fragment])| WatchRequest {
                id,
                keys,
                start: 0,
                progress,
                no_put: no_put && !no_delete,
                no_delete: no_delete && !progress,
                previous,
                fragment,
            },
        );
    let start = prop_oneof![2 => Just(None), 4 => (-25..4i64).prop_map(Some)];
    prop_oneof![
        12 => vec(change(), 1..4).prop_map(Step::Apply),
        2 => (0..8i64, any::<bool>()).prop_map(|(back, prune)| Step::Compact(back, prune)),
        6 => (stream(), start, request).prop_map(|(at, start, request)| Step::Create(at, start, request)),
        2 => (stream(), 0..5i64).prop_map(|(at, id)| Step::Cancel(at, id)),
        3 => stream().prop_map(Step::Progress),
        5 => (stream(), prop_oneof![2 => Just(0usize), 2 => 1..4usize, 2 => Just(usize::MAX)])
            .prop_map(|(at, room)| Step::Room(at, room)),
        1 => stream().prop_map(Step::Close),
        1 => Just(Step::Persist),
        10 => Just(Step::Round),
        2 => Just(Step::Tick),
    ]
}

fn run(steps: Vec<Step>) {
    let mut world = World::new(2);
    for step in steps {
        match step {
            Step::Apply(commands) => world.apply(&commands),
            Step::Compact(back, prune) => {
                let revision = world.model.revision - back;
                world.apply(&[Command::Compact { revision }]);
                if prune {
                    world.prune();
                }
            }
            Step::Create(at, start, mut request) => {
                request.start = start.map_or(0, |start| world.model.revision + start);
                world.create(at, request);
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
            Step::Persist => {
                world.machine().tenants().store().persist().unwrap();
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
    fn every_watch_gets_exactly_its_events(steps in vec(step(), 20..120)) {
        run(steps);
    }
}

fn canceled(compacted: i64) -> DeliveryKind {
    DeliveryKind::Canceled {
        compacted,
        reason: String::new(),
    }
}

fn kinds(world: &World, at: usize) -> Vec<(i64, i64, DeliveryKind)> {
    let deliveries = world.streams[at].history.iter();
    deliveries
        .map(|d| (d.watch_id, d.revision, d.kind.clone()))
        .collect()
}

#[test]
fn cancel_answers_for_known_watches_only_and_ids_are_given_out_again_only_when_asked() {
    let mut world = World::new(1);
    let stream = world.streams[0].id;
    let with_id = |id| WatchRequest {
        id,
        ..watch(KeyRange::All)
    };
    for id in [0, 1, 0, 1, -1, -7] {
        world.create(0, with_id(id));
    }
    for watch_id in [5, 1, 1, -1] {
        world.inbox().push(Message::Cancel { stream, watch_id });
    }
    world.create(0, with_id(1));
    world.create(0, with_id(0));
    world.step();
    let rejected = |reason: &str| DeliveryKind::Rejected {
        reason: reason.to_owned(),
    };
    let expected = [
        (0, DeliveryKind::Created),
        (1, DeliveryKind::Created),
        (2, DeliveryKind::Created),
        (
            -1,
            rejected("mvcc: duplicate watch ID provided on the WatchStream"),
        ),
        (-1, rejected("etcdserver: watch ID is negative")),
        (-1, rejected("etcdserver: watch ID is negative")),
        (1, canceled(0)),
        (1, DeliveryKind::Created),
        (3, DeliveryKind::Created),
    ];
    let found: Vec<_> = kinds(&world, 0)
        .into_iter()
        .map(|(id, _, kind)| (id, kind))
        .collect();
    assert_eq!(found, expected);
    world.apply(&[put("a", "x")]);
    world.check_all();
    // Four watches live, each with one event; the canceled one got none.
    assert_eq!(world.streams[0].history.len(), expected.len() + 4);
}

#[test]
fn starts_at_the_edges_of_what_can_be_asked_for() {
    let mut world = World::new(1);
    for n in 0..5 {
        world.apply(&[put("a", n.to_string())]);
    }
    world.apply(&[Command::Compact { revision: 4 }]);
    world.prune();
    for start in [i64::MIN, -1, 1, 3, 4, i64::MAX] {
        world.create(
            0,
            WatchRequest {
                start,
                ..watch(KeyRange::All)
            },
        );
    }
    world.settle();
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    let rejected = DeliveryKind::Rejected {
        reason: compacted.to_owned(),
    };
    let found = kinds(&world, 0);
    assert_eq!(found[..2], [(-1, 6, rejected.clone()), (-1, 6, rejected)]);
    let created: Vec<_> = (0..4).map(|id| (id, 6, DeliveryKind::Created)).collect();
    assert_eq!(found[2..6], created[..]);
    let canceled = canceled(4);
    assert_eq!(found[6..8], [(0, 0, canceled.clone()), (1, 0, canceled)]);
    assert_eq!(found.len(), 9);
    assert!(matches!(&found[8], (2, 6, DeliveryKind::Events { events, .. }) if events.len() == 3));
    world.apply(&[put("a", "x"), delete(KeyRange::All)]);
    world.check_all();
    let stream = world.streams[0].id;
    world.inbox().push(Message::Progress { stream });
    world.settle();
    let progress = |world: &World| {
        let all = kinds(world, 0);
        all.into_iter()
            .filter(|(.., kind)| *kind == DeliveryKind::Progress)
            .map(|(id, at, _)| (id, at))
            .collect::<Vec<_>>()
    };
    assert_eq!(progress(&world), [], "one watch has not begun");
    world.inbox().push(Message::Cancel {
        stream,
        watch_id: 3,
    });
    world.inbox().push(Message::Progress { stream });
    world.settle();
    assert_eq!(progress(&world), [(-1, 8)]);
}

#[test]
fn progress_is_told_to_idle_watches_that_asked_and_to_synced_streams() {
    let mut world = World::new(1);
    let stream = world.streams[0].id;
    let progress = |world: &World| {
        let all = kinds(world, 0);
        all.into_iter()
            .filter(|(.., kind)| *kind == DeliveryKind::Progress)
            .map(|(id, at, _)| (id, at))
            .collect::<Vec<_>>()
    };
    world.inbox().push(Message::Progress { stream });
    world.settle();
    assert_eq!(progress(&world), [], "a stream without watches");
    world.create(
        0,
        WatchRequest {
            progress: true,
            ..watch(KeyRange::Point("a".into()))
        },
    );
    world.create(0, watch(KeyRange::Point("b".into())));
    world.apply(&[put("other", "x")]);
    world.tick();
    // The first one never had an event.
    assert_eq!(progress(&world), [(0, 2)]);
    world.apply(&[put("a", "x")]);
    world.tick();
    assert_eq!(progress(&world).len(), 1, "it was busy");
    world.apply(&[put("b", "x")]);
    world.tick();
    assert_eq!(progress(&world)[1..], [(0, 4)]);

    // Behind: a stream without room.
    world.streams[0].sink.give_room(0);
    world.apply(&[put("b", "y")]);
    world.inbox().push(Message::Progress { stream });
    world.settle_without_room();
    world.tick();
    assert_eq!(progress(&world).len(), 2);
    world.settle();
    world.inbox().push(Message::Progress { stream });
    world.settle();
    assert_eq!(progress(&world)[2..], [(-1, 5)]);
    world.check_all();
}

#[test]
fn a_large_answer_is_split_for_those_who_asked() {
    let mut world = World::new(1);
    world.create(
        0,
        WatchRequest {
            fragment: true,
            ..watch(KeyRange::All)
        },
    );
    world.create(0, watch(KeyRange::All));
    world.create(
        0,
        WatchRequest {
            fragment: true,
            start: 2,
            ..watch(KeyRange::All)
        },
    );
    world.step();
    let success = (0..9)
        .map(|n| Op::Put(put_of(&format!("k{n}"), "value")))
        .collect();
    world.apply(&[Command::Txn(Txn {
        success,
        ..Txn::default()
    })]);
    world.check_all();
    for id in [0, 2] {
        let parts: Vec<bool> = kinds(&world, 0)
            .into_iter()
            .filter(|(of, ..)| *of == id)
            .filter_map(|(_, revision, kind)| match kind {
                DeliveryKind::Events { fragment, .. } => {
                    assert_eq!(revision, 2);
                    Some(fragment)
                }
                _ => None,
            })
            .collect();
        assert!(parts.len() > 1);
        assert!(parts[..parts.len() - 1].iter().all(|fragment| *fragment));
        assert!(!parts[parts.len() - 1]);
    }
}

/// More transactions than wait for the hub: they are forgotten in the inbox, not for the watches.
#[test]
fn a_flooded_inbox_loses_no_event() {
    let mut world = World::new(2);
    world.create(0, watch(KeyRange::Point("a".into())));
    world.create(
        0,
        WatchRequest {
            previous: true,
            ..watch(span("b", "d"))
        },
    );
    world.create(1, watch(KeyRange::All));
    world.create(
        1,
        WatchRequest {
            start: 20_010,
            ..watch(KeyRange::All)
        },
    );
    world.step();
    world.apply(&[put("a", "first")]);
    world.step();
    world.streams[1].sink.give_room(0);
    world.create(
        0,
        WatchRequest {
            start: 1,
            ..watch(KeyRange::Point("c".into()))
        },
    );
    let flood = |world: &mut World| {
        for n in 0..42 {
            let entry: Vec<_> = (0..400)
                .map(|m| put(["a", "b", "c", "x"][m % 4], format!("{n} {m}")))
                .collect();
            // The naive model is too slow for this many.
            let mut bytes = Vec::new();
            for command in &entry {
                command.encode(TenantId::DEFAULT, &Caller::Server, &mut bytes);
            }
            let position = world.next_position();
            world
                .machine()
                .apply(position, bytes.into(), Millis(0), &mut Vec::new())
                .unwrap();
        }
    };
    flood(&mut world);
    let stream = world.streams[0].id;
    assert!(
        world.inbox().load().transactions < 16_800,
        "the inbox was not bounded"
    );
    // What stands in the queue at the time of the flood is served after it.
    world.create(0, watch(KeyRange::Point("a".into())));
    world.inbox().push(Message::Progress { stream });
    world.sync_model();
    world.step();
    flood(&mut world);
    world.sync_model();
    world.check_all();
    let seen: Vec<usize> = world.streams[1]
        .watches
        .iter()
        .map(|watch| watch.events.len())
        .collect();
    assert_eq!(seen[0], 2 * 42 * 400 + 1);
    assert!(seen[1] > 10_000);
}

/// A few large values weigh as much as many small ones.
#[test]
fn the_inbox_is_bounded_in_bytes() {
    let inbox = Inbox::default();
    let row = |main: i64| Row {
        revision: holdfast_storage::Revision::first(main),
        key: "k".into(),
        value: vec![0; 1 << 20].into(),
        create_revision: 2,
        version: 1,
        lease: 0,
        tombstone: false,
    };
    for main in 2..300 {
        let events = vec![Event {
            row: row(main),
            replaced: None,
        }];
        inbox.push(Message::Applied(vec![Transaction {
            tenant: TenantId::DEFAULT,
            main,
            events,
        }]));
        assert!(
            inbox.load().transactions <= 65,
            "{} MiB wait",
            inbox.load().transactions
        );
    }
    assert!(inbox.load().transactions > 0);
}
