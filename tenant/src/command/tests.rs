//! Commands come back from the log as they went, and nothing else does.

use super::*;
use crate::request::{Compare, Op, Operand, Order, Range, Relation, RevisionFilter, SortTarget};
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..6).prop_map(Bytes::from)
}

fn keys() -> impl Strategy<Value = KeyRange> {
    (bytes(), bytes()).prop_map(|(key, end)| KeyRange::from_pair(key, end))
}

fn put() -> impl Strategy<Value = Put> {
    (bytes(), bytes(), any::<i64>(), any::<[bool; 3]>()).prop_map(
        |(key, value, lease, [previous, keep_value, keep_lease])| Put {
            key,
            value,
            lease,
            previous,
            keep_value,
            keep_lease,
        },
    )
}

fn range() -> impl Strategy<Value = Range> {
    let target = prop_oneof![
        Just(SortTarget::Key),
        Just(SortTarget::Version),
        Just(SortTarget::Create),
        Just(SortTarget::Mod),
        Just(SortTarget::Value),
    ];
    let order = (0..3, target, any::<bool>()).prop_map(|(kind, target, descending)| match kind {
        0 => Order::Natural,
        1 => Order::SortedPrefix(target),
        _ => Order::Sorted { target, descending },
    });
    let filter = any::<[i64; 4]>().prop_map(|f| RevisionFilter {
        min_mod: f[0],
        max_mod: f[1],
        min_create: f[2],
        max_create: f[3],
    });
    (
        keys(),
        any::<u64>(),
        any::<i64>(),
        order,
        any::<[bool; 2]>(),
        filter,
    )
        .prop_map(
            |(keys, limit, revision, order, [keys_only, count_only], filter)| Range {
                keys,
                limit,
                revision,
                order,
                keys_only,
                count_only,
                filter,
            },
        )
}

fn compare() -> impl Strategy<Value = Compare> {
    let relation = prop_oneof![
        Just(Relation::Equal),
        Just(Relation::Greater),
        Just(Relation::Less),
        Just(Relation::NotEqual),
    ];
    let operand = (0..5, any::<i64>(), bytes()).prop_map(|(kind, n, value)| match kind {
        0 => Operand::Version(n),
        1 => Operand::Create(n),
        2 => Operand::Mod(n),
        3 => Operand::Value(value),
        _ => Operand::Lease(n),
    });
    (keys(), relation, operand).prop_map(|(keys, relation, operand)| Compare {
        keys,
        relation,
        operand,
    })
}

fn txn() -> impl Strategy<Value = Txn> {
    let leaf = prop_oneof![
        range().prop_map(Op::Range),
        put().prop_map(Op::Put),
        (keys(), any::<bool>())
            .prop_map(|(keys, previous)| Op::DeleteRange(DeleteRange { keys, previous })),
    ];
    let op = leaf.prop_recursive(3, 12, 3, |inner| {
        let arm = proptest::collection::vec(inner, 0..3);
        (proptest::collection::vec(compare(), 0..3), arm.clone(), arm).prop_map(
            |(compares, success, failure)| {
                Op::Txn(Txn {
                    compares,
                    success,
                    failure,
                })
            },
        )
    });
    proptest::collection::vec(op, 0..4).prop_map(|success| Txn {
        success,
        ..Txn::default()
    })
}

fn command() -> impl Strategy<Value = Command> {
    let alarm = (any::<u64>(), any::<bool>()).prop_map(|(member, space)| Alarm {
        member,
        kind: if space {
            AlarmKind::NoSpace
        } else {
            AlarmKind::Corrupt
        },
    });
    prop_oneof![
        put().prop_map(Command::Put),
        (keys(), any::<bool>())
            .prop_map(|(keys, previous)| Command::DeleteRange(DeleteRange { keys, previous })),
        txn().prop_map(Command::Txn),
        any::<i64>().prop_map(|revision| Command::Compact { revision }),
        (any::<i64>(), any::<i64>()).prop_map(|(id, ttl)| Command::LeaseGrant { id, ttl }),
        any::<i64>().prop_map(|id| Command::LeaseRevoke { id }),
        proptest::collection::vec((any::<i64>(), any::<i64>()), 0..4)
            .prop_map(Command::LeaseCheckpoint),
        alarm.clone().prop_map(Command::RaiseAlarm),
        alarm.prop_map(Command::ClearAlarm),
    ]
}

proptest! {
    #[test]
    fn commands_come_back_as_they_went(items in proptest::collection::vec((any::<u32>(), command()), 0..4)) {
        let mut entry = Vec::new();
        for (tenant, command) in &items {
            command.encode(TenantId(*tenant), &mut entry);
        }
        let mut entry = Bytes::from(entry);
        for (tenant, command) in items {
            prop_assert_eq!(Command::decode_next(&mut entry), Ok(Some((TenantId(tenant), command))));
        }
        prop_assert_eq!(Command::decode_next(&mut entry), Ok(None));
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut entry = Bytes::from(bytes);
        while let Ok(Some(_)) = Command::decode_next(&mut entry) {}
    }

    #[test]
    fn a_damaged_command_never_panics(command in command(), at in any::<proptest::sample::Index>(), flip in 1..=255u8) {
        let mut entry = Vec::new();
        command.encode(TenantId::DEFAULT, &mut entry);
        let at = at.index(entry.len());
        entry[at] ^= flip;
        let _ = Command::decode_next(&mut Bytes::from(entry));
    }
}

#[test]
fn nesting_is_bounded() {
    let mut txn = Txn::default();
    for _ in 0..MAX_TXN_DEPTH {
        txn = Txn {
            success: vec![Op::Txn(txn)],
            ..Txn::default()
        };
    }
    let mut entry = Vec::new();
    Command::Txn(txn).encode(TenantId::DEFAULT, &mut entry);
    assert_eq!(
        Command::decode_next(&mut Bytes::from(entry)),
        Err(DecodeError::TooDeep)
    );
}
