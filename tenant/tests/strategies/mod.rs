//! Random commands and reads on few keys, revisions and leases, so that they meet.

#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod auth;

use bytes::Bytes;
use holdfast_auth::KeyRange;
use holdfast_tenant::request::{
    Compare, DeleteRange, Op, Operand, Order, Put, Range, Relation, RevisionFilter, SortTarget, Txn,
};
use holdfast_tenant::{Alarm, AlarmKind, Command};
use proptest::collection::vec;
use proptest::prelude::*;

/// The ids that leases get.
pub(crate) const LEASES: [i64; 6] = [1, 2, 3, -4, i64::MIN, i64::MAX];

pub(crate) fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "c", "d", "aa", "ab", "ba", "ca"]).prop_map(Bytes::from),
        1 => prop::sample::select(vec![&b"\0"[..], b"\xff\xff", b"b\0"]).prop_map(Bytes::from),
    ]
}

pub(crate) fn value() -> impl Strategy<Value = Bytes> {
    vec(b'x'..=b'z', 0..3).prop_map(Bytes::from)
}

pub(crate) fn keys() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => key().prop_map(KeyRange::Point),
        4 => (key(), key()).prop_map(|(start, end)| KeyRange::Span { start, end }),
        1 => key().prop_map(KeyRange::From),
        1 => Just(KeyRange::All),
    ]
}

pub(crate) fn lease() -> impl Strategy<Value = i64> {
    prop_oneof![30 => Just(0i64), 12 => prop::sample::select(LEASES.to_vec()), 1 => any::<i64>()]
}

pub(crate) fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => Just(0i64),
        8 => -2..40i64,
        1 => prop::sample::select(vec![i64::MIN, i64::MAX]),
    ]
}

/// See [`near`].
pub(crate) fn compacted() -> impl Strategy<Value = i64> {
    prop_oneof![
        1 => Just(0i64),
        12 => 1..20i64,
        1 => prop::sample::select(vec![i64::MIN, -1, i64::MAX]),
    ]
}

pub(crate) fn put() -> impl Strategy<Value = Put> {
    (
        key(),
        value(),
        lease(),
        any::<bool>(),
        prop_oneof![20 => Just(0), 3 => 1..4],
    )
        .prop_map(|(key, value, lease, previous, keep)| {
            let (keep_value, keep_lease) = (keep & 1 != 0, keep & 2 != 0);
            Put {
                key,
                value: if keep_value { Bytes::new() } else { value },
                lease: if keep_lease { 0 } else { lease },
                previous,
                keep_value,
                keep_lease,
            }
        })
}

pub(crate) fn delete() -> impl Strategy<Value = DeleteRange> {
    (keys(), any::<bool>()).prop_map(|(keys, previous)| DeleteRange { keys, previous })
}

pub(crate) fn target() -> impl Strategy<Value = SortTarget> {
    prop::sample::select(vec![
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ])
}

/// A range that stands in a transaction. Most read the present: a revision that is not there refuses the whole.
pub(crate) fn range_step() -> impl Strategy<Value = Range> {
    (range(), prop::bool::weighted(0.9)).prop_map(|(range, present)| Range {
        revision: if present { 0 } else { range.revision },
        ..range
    })
}

pub(crate) fn range() -> impl Strategy<Value = Range> {
    let order = prop_oneof![
        Just(Order::Natural),
        target().prop_map(Order::SortedPrefix),
        (target(), any::<bool>())
            .prop_map(|(target, descending)| Order::Sorted { target, descending }),
    ];
    let bound = || prop_oneof![6 => Just(0i64), 2 => -1..30i64, 1 => Just(i64::MAX)];
    let filter = (bound(), bound(), bound(), bound()).prop_map(
        |(min_mod, max_mod, min_create, max_create)| RevisionFilter {
            min_mod,
            max_mod,
            min_create,
            max_create,
        },
    );
    let filter = prop_oneof![2 => Just(RevisionFilter::default()), 1 => filter];
    let limit = prop_oneof![4 => Just(0u64), 6 => 1..4u64, 1 => Just(u64::MAX)];
    (keys(), limit, revision(), order, any::<[bool; 3]>(), filter).prop_map(
        |(keys, limit, revision, order, [keys_only, a, b], filter)| Range {
            keys,
            limit,
            revision,
            order,
            keys_only,
            count_only: a && b,
            filter,
        },
    )
}

pub(crate) fn compare() -> impl Strategy<Value = Compare> {
    let relation = prop::sample::select(vec![
        Relation::Equal,
        Relation::Greater,
        Relation::Less,
        Relation::NotEqual,
    ]);
    let number = || prop_oneof![8 => 0..6i64, 3 => 0..30i64, 1 => any::<i64>()];
    let operand = prop_oneof![
        number().prop_map(Operand::Version),
        number().prop_map(Operand::Create),
        number().prop_map(Operand::Mod),
        value().prop_map(Operand::Value),
        lease().prop_map(Operand::Lease),
    ];
    (keys(), relation, operand).prop_map(|(keys, relation, operand)| Compare {
        keys,
        relation,
        operand,
    })
}

pub(crate) fn txn_of(op: impl Strategy<Value = Op> + Clone) -> impl Strategy<Value = Txn> {
    (vec(compare(), 0..3), vec(op.clone(), 0..3), vec(op, 0..3)).prop_map(
        |(compares, success, failure)| Txn {
            compares,
            success,
            failure,
        },
    )
}

pub(crate) fn op() -> impl Strategy<Value = Op> + Clone {
    let leaf = prop_oneof![
        3 => put().prop_map(Op::Put),
        2 => delete().prop_map(Op::DeleteRange),
        2 => range_step().prop_map(Op::Range),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| txn_of(inner.boxed()).prop_map(Op::Txn))
        .boxed()
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    let alarm = || {
        (1..3u64, any::<bool>()).prop_map(|(member, space)| Alarm {
            member,
            kind: if space {
                AlarmKind::NoSpace
            } else {
                AlarmKind::Corrupt
            },
        })
    };
    let id = || prop::sample::select(LEASES.to_vec());
    prop_oneof![
        60 => put().prop_map(Command::Put),
        16 => delete().prop_map(Command::DeleteRange),
        60 => txn_of(op()).prop_map(Command::Txn),
        14 => compacted().prop_map(|revision| Command::Compact { revision }),
        24 => (id(), 1..200i64).prop_map(|(id, ttl)| Command::LeaseGrant { id, ttl }),
        8 => id().prop_map(|id| Command::LeaseRevoke { id }),
        4 => vec((lease(), any::<i64>()), 0..3).prop_map(Command::LeaseCheckpoint),
        1 => alarm().prop_map(Command::RaiseAlarm),
        20 => alarm().prop_map(Command::ClearAlarm),
    ]
}
