//! Random users, roles, permissions and callers. There are few of them, so that they meet.

use super::keys;
use crate::model::AuthModel;
use holdfast_auth::{
    AuthChange, Caller, PasswordHash, Permission, PermissionKind, TokenEpochs, UserId,
};
use holdfast_tenant::Command;
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

const USERS: [&str; 5] = ["root", "ann", "bob", "cid", ""];
const ROLES: [&str; 5] = ["root", "r1", "r2", "r3", ""];

fn user() -> impl Strategy<Value = String> {
    (prop_oneof![1 => Just(0usize), 12 => 1..4usize, 1 => Just(4usize)])
        .prop_map(|at| USERS[at].to_owned())
}

fn role() -> impl Strategy<Value = String> {
    (prop_oneof![1 => Just(0usize), 12 => 1..4usize, 1 => Just(4usize)])
        .prop_map(|at| ROLES[at].to_owned())
}

pub(crate) fn password(kind: u8) -> Option<PasswordHash> {
    let text = match kind {
        0 => return None,
        1 => "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
        _ => {
            "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI"
        }
    };
    Some(PasswordHash::parse(text).unwrap())
}

pub(crate) fn permission() -> impl Strategy<Value = Permission> {
    let kind = prop::sample::select(vec![
        PermissionKind::Read,
        PermissionKind::Write,
        PermissionKind::ReadWrite,
        PermissionKind::ReadWrite,
    ]);
    (keys(), kind).prop_map(|(keys, kind)| Permission { keys, kind })
}

pub(crate) fn auth_change() -> impl Strategy<Value = AuthChange> {
    prop_oneof![
        4 => Just(AuthChange::Enable),
        1 => Just(AuthChange::Disable),
        6 => (user(), 0..3u8).prop_map(|(name, kind)| AuthChange::UserAdd { name, password: password(kind) }),
        3 => user().prop_map(|name| AuthChange::UserDelete { name }),
        4 => (user(), 0..3u8).prop_map(|(name, kind)| AuthChange::UserChangePassword { name, password: password(kind) }),
        12 => (user(), role()).prop_map(|(user, role)| AuthChange::UserGrantRole { user, role }),
        6 => (user(), role()).prop_map(|(user, role)| AuthChange::UserRevokeRole { user, role }),
        5 => role().prop_map(|name| AuthChange::RoleAdd { name }),
        2 => role().prop_map(|name| AuthChange::RoleDelete { name }),
        16 => (role(), prop::option::weighted(0.95, permission()))
            .prop_map(|(role, permission)| AuthChange::RoleGrantPermission { role, permission }),
        8 => (role(), keys()).prop_map(|(role, keys)| AuthChange::RoleRevokePermission { role, keys }),
        1 => (1..9u64, 1..9u64).prop_map(|(user, credential)| AuthChange::UpgradePassword {
            user: UserId(user),
            credential,
            password: password(2).unwrap(),
        }),
    ]
}

/// The changes of a tenant that is set up: users with roles and permissions, in force.
pub(crate) fn set_up() -> impl Strategy<Value = Vec<Command>> {
    let grants = vec((1..4usize, permission()), 3..8);
    let holders = vec((1..4usize, 1..4usize), 2..6);
    (grants, holders).prop_map(|(grants, holders)| {
        let mut changes = Vec::new();
        for name in &USERS[..4] {
            changes.push(AuthChange::UserAdd {
                name: (*name).into(),
                password: None,
            });
        }
        for name in &ROLES[1..4] {
            changes.push(AuthChange::RoleAdd {
                name: (*name).into(),
            });
        }
        for (role, permission) in grants {
            let (role, permission) = (ROLES[role].into(), Some(permission));
            changes.push(AuthChange::RoleGrantPermission { role, permission });
        }
        for (user, role) in [(0, 0)].into_iter().chain(holders) {
            let (user, role) = (USERS[user].into(), ROLES[role].into());
            changes.push(AuthChange::UserGrantRole { user, role });
        }
        changes.push(AuthChange::Enable);
        changes.into_iter().map(Command::Auth).collect()
    })
}

/// A caller as it will be when the state is known.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    Server,
    Anonymous,
    /// By certificate, or with a token that is so many epochs and credentials old.
    User(usize, Option<(u64, u64)>),
    /// A user id that nobody may have.
    Stranger(u64),
    External(String, Vec<String>),
}

pub(crate) fn who() -> impl Strategy<Value = Who> {
    let token = prop_oneof![
        6 => Just(Some((0, 0))),
        4 => Just(None),
        1 => (0..2u64, 0..2u64).prop_map(Some),
    ];
    let user = prop_oneof![2 => Just(0usize), 9 => 1..4usize];
    let external = prop_oneof![9 => Just("ext".to_owned()), 1 => Just(String::new())];
    prop_oneof![
        3 => Just(Who::Server),
        1 => Just(Who::Anonymous),
        24 => (user, token).prop_map(|(user, token)| Who::User(user, token)),
        1 => (0..20u64).prop_map(Who::Stranger),
        6 => (external, vec(role(), 0..3)).prop_map(|(subject, roles)| Who::External(subject, roles)),
    ]
}

impl Who {
    pub(crate) fn resolve(&self, auth: &AuthModel) -> Caller {
        match self {
            Who::Server => Caller::Server,
            Who::Anonymous => Caller::Anonymous,
            Who::User(user, token) => {
                let Some(user) = auth.users.get(USERS[*user]) else {
                    return Caller::Anonymous;
                };
                let now = auth.epochs(user);
                Caller::User {
                    id: UserId(user.id),
                    token: token.map(|(epochs, credentials)| TokenEpochs {
                        epoch: now.epoch - epochs,
                        credential: now.credential - credentials,
                    }),
                }
            }
            Who::Stranger(id) => Caller::User {
                id: UserId(*id),
                token: None,
            },
            Who::External(subject, roles) => Caller::External {
                subject: subject.as_str().into(),
                roles: roles.iter().map(|role| Arc::from(role.as_str())).collect(),
            },
        }
    }
}
