//! Commands come back from the log as they went, and nothing else does.

use super::*;
use crate::request::{Compare, Op, Operand, Order, Range, Relation, RevisionFilter, SortTarget};
use holdfast_auth::{PasswordHash, Permission, PermissionKind, TokenEpochs, UserId};
use proptest::prelude::*;
use std::sync::Arc;

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

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => proptest::collection::vec(any::<char>(), 0..4).prop_map(String::from_iter),
        1 => Just("x".repeat(256)),
    ]
}

fn hash() -> impl Strategy<Value = PasswordHash> {
    prop::sample::select(vec![
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI",
        "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
    ])
    .prop_map(|text| PasswordHash::parse(text).unwrap())
}

fn caller() -> impl Strategy<Value = Caller> {
    let token = any::<Option<(u64, u64)>>()
        .prop_map(|token| token.map(|(epoch, credential)| TokenEpochs { epoch, credential }));
    prop_oneof![
        Just(Caller::Server),
        Just(Caller::Anonymous),
        (any::<u64>(), token).prop_map(|(id, token)| Caller::User {
            id: UserId(id),
            token
        }),
        (text(), proptest::collection::vec(text(), 0..4)).prop_map(|(subject, roles)| {
            Caller::External {
                subject: subject
                    .chars()
                    .filter(|c| c.is_ascii())
                    .collect::<String>()
                    .into(),
                roles: roles.iter().map(|role| Arc::from(role.as_str())).collect(),
            }
        }),
    ]
}

fn auth_change() -> impl Strategy<Value = AuthChange> {
    let permission = (keys(), 0..3usize).prop_map(|(keys, kind)| Permission {
        keys,
        kind: [
            PermissionKind::Read,
            PermissionKind::Write,
            PermissionKind::ReadWrite,
        ][kind],
    });
    prop_oneof![
        Just(AuthChange::Enable),
        Just(AuthChange::Disable),
        (text(), proptest::option::of(hash()))
            .prop_map(|(name, password)| AuthChange::UserAdd { name, password }),
        text().prop_map(|name| AuthChange::UserDelete { name }),
        (text(), proptest::option::of(hash()))
            .prop_map(|(name, password)| AuthChange::UserChangePassword { name, password }),
        (text(), text()).prop_map(|(user, role)| AuthChange::UserGrantRole { user, role }),
        (text(), text()).prop_map(|(user, role)| AuthChange::UserRevokeRole { user, role }),
        text().prop_map(|name| AuthChange::RoleAdd { name }),
        text().prop_map(|name| AuthChange::RoleDelete { name }),
        (text(), proptest::option::of(permission))
            .prop_map(|(role, permission)| AuthChange::RoleGrantPermission { role, permission }),
        (text(), keys()).prop_map(|(role, keys)| AuthChange::RoleRevokePermission { role, keys }),
        (any::<u64>(), any::<u64>(), hash()).prop_map(|(user, credential, password)| {
            AuthChange::UpgradePassword {
                user: UserId(user),
                credential,
                password,
            }
        }),
    ]
}

fn token_key() -> impl Strategy<Value = Command> {
    let key = (
        text(),
        any::<[u8; 32]>(),
        any::<[u64; 2]>(),
        any::<Option<u64>>(),
    );
    (key, any::<Option<u64>>()).prop_map(
        |((kid, public_key, [made_at, member], retires_at), retire_older_at)| {
            Command::PublishTokenKey {
                key: TokenKeyRecord {
                    kid,
                    public_key,
                    made_at,
                    member,
                    retires_at,
                },
                retire_older_at,
            }
        },
    )
}

fn of_members() -> impl Strategy<Value = Command> {
    let urls = || proptest::collection::vec(text(), 0..4);
    let version = || (any::<u32>(), text()).prop_map(|(level, text)| MemberVersion { level, text });
    let of_publish = (any::<u64>(), text(), urls(), any::<u64>(), version());
    prop_oneof![
        (any::<u64>(), urls(), any::<bool>(), any::<u32>()).prop_map(
            |(id, peer_urls, is_learner, max_learners)| Command::MemberAdd {
                id,
                peer_urls,
                is_learner,
                max_learners,
            }
        ),
        any::<u64>().prop_map(|id| Command::MemberPromote { id }),
        any::<u64>().prop_map(|id| Command::MemberRemove { id }),
        (any::<u64>(), urls()).prop_map(|(id, peer_urls)| Command::MemberUpdate { id, peer_urls }),
        of_publish.prop_map(
            |(id, name, client_urls, instance, version)| Command::MemberPublish {
                id,
                name,
                client_urls,
                instance,
                version,
            }
        ),
    ]
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
        auth_change().prop_map(Command::Auth),
        token_key(),
        of_members(),
    ]
}

proptest! {
    #[test]
    fn commands_come_back_as_they_went(
        items in proptest::collection::vec((any::<u32>(), caller(), command()), 0..4),
    ) {
        let mut entry = Vec::new();
        for (tenant, caller, command) in &items {
            command.encode(TenantId(*tenant), caller, &mut entry);
        }
        let mut entry = Bytes::from(entry);
        for (tenant, caller, command) in items {
            let decoded = Command::decode_next(&mut entry);
            prop_assert_eq!(decoded, Ok(Some((TenantId(tenant), caller, command))));
        }
        prop_assert_eq!(Command::decode_next(&mut entry), Ok(None));
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut entry = Bytes::from(bytes);
        while let Ok(Some(_)) = Command::decode_next(&mut entry) {}
    }

    /// The length says where the command is to end; each of the places before it is too early.
    #[test]
    fn a_cut_command_is_an_error(caller in caller(), command in command()) {
        let mut whole = Vec::new();
        command.encode(TenantId::DEFAULT, &caller, &mut whole);
        for cut in 1..whole.len() {
            let torn = Bytes::copy_from_slice(&whole[..cut]);
            prop_assert!(Command::decode_next(&mut torn.clone()).is_err());
            if cut >= 4 {
                let mut shorter = torn.to_vec();
                shorter[..4].copy_from_slice(&(cut as u32 - 4).to_le_bytes());
                prop_assert!(Command::decode_next(&mut Bytes::from(shorter)).is_err());
            }
        }
    }

    /// Another byte anywhere is an error or another command, never this one: what was decided is what is applied.
    #[test]
    fn a_damaged_command_is_never_the_same(
        caller in caller(),
        command in command(),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let mut entry = Vec::new();
        command.encode(TenantId::DEFAULT, &caller, &mut entry);
        let at = at.index(entry.len());
        entry[at] ^= flip;
        if let Ok(Some((tenant, other_caller, other))) = Command::decode_next(&mut Bytes::from(entry)) {
            prop_assert!((tenant, other_caller, other) != (TenantId::DEFAULT, caller, command));
        }
    }
}

/// Entries from before there were callers: kind and tenant, then the body.
#[test]
fn a_command_without_a_caller_is_the_servers() {
    let old = [&[6, 0, 0, 0, COMPACT, 1, 0, 0, 0][..], &[10]].concat();
    let command = Command::Compact { revision: 5 };
    let decoded = Command::decode_next(&mut Bytes::from(old.clone()));
    assert_eq!(
        decoded,
        Ok(Some((TenantId::DEFAULT, Caller::Server, command.clone())))
    );
    let mut entry = Vec::new();
    command.encode(TenantId::DEFAULT, &Caller::Server, &mut entry);
    assert_eq!(entry, old);
}

/// The edge refuses such a caller. If it did not, the entry would stop every member; so the caller is nobody instead.
#[test]
fn a_caller_beyond_the_bounds_is_nobody() {
    let check = |subject: usize, roles: usize, role: usize, expected: bool| {
        let caller = Caller::External {
            subject: "s".repeat(subject).into(),
            roles: vec![Arc::from("r".repeat(role)); roles].into(),
        };
        let mut entry = Vec::new();
        Command::LeaseRevoke { id: 1 }.encode(TenantId::DEFAULT, &caller, &mut entry);
        let (_, decoded, _) = Command::decode_next(&mut Bytes::from(entry))
            .unwrap()
            .unwrap();
        let expected = if expected { caller } else { Caller::Anonymous };
        assert_eq!(decoded, expected);
    };
    check(511, 1_000, 256, true);
    check(512, 1, 1, false);
    check(1, 1_001, 1, false);
    check(1, 1, 257, false);
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
    Command::Txn(txn).encode(TenantId::DEFAULT, &Caller::Server, &mut entry);
    assert_eq!(
        Command::decode_next(&mut Bytes::from(entry)),
        Err(DecodeError::TooDeep)
    );
}

/// The bytes are in logs: they stay what they are.
#[test]
fn members_commands_are_written_as_documented() {
    let mut entry = Vec::new();
    let urls = vec!["u".to_owned()];
    for command in [
        Command::MemberAdd {
            id: 300,
            peer_urls: urls.clone(),
            is_learner: true,
            max_learners: 2,
        },
        Command::MemberPromote { id: 3 },
        Command::MemberRemove { id: 4 },
        Command::MemberUpdate {
            id: 5,
            peer_urls: urls.clone(),
        },
        Command::MemberPublish {
            id: 6,
            name: "n".to_owned(),
            client_urls: urls,
            instance: 7,
            version: MemberVersion {
                level: 1,
                text: "3".to_owned(),
            },
        },
    ] {
        command.encode(TenantId::DEFAULT, &Caller::Server, &mut entry);
    }
    let expected: [&[u8]; 5] = [
        &[12, 0, 0, 0, 12, 1, 0, 0, 0, 0xac, 2, 1, 1, b'u', 1, 2],
        &[6, 0, 0, 0, 13, 1, 0, 0, 0, 3],
        &[6, 0, 0, 0, 14, 1, 0, 0, 0, 4],
        &[9, 0, 0, 0, 15, 1, 0, 0, 0, 5, 1, 1, b'u'],
        &[
            15, 0, 0, 0, 16, 1, 0, 0, 0, 6, 1, b'n', 1, 1, b'u', 7, 1, 1, b'3',
        ],
    ];
    assert_eq!(entry, expected.concat());
}
