//! etcd's rules for changing users and roles: texts, revisions and exceptions as an etcd 3.7.1 gave them to the same calls.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

mod callers;
mod changes;

use holdfast_auth::{
    Affected, AuthChange, AuthState, KeyRange, PasswordHash, Permission, PermissionKind,
};

const BCRYPT: &str = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";
const ARGON2ID: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";

fn hash(text: &str) -> PasswordHash {
    PasswordHash::parse(text).unwrap()
}

fn user_add(name: &str) -> AuthChange {
    AuthChange::UserAdd {
        name: name.into(),
        password: Some(hash(BCRYPT)),
    }
}

fn user_delete(name: &str) -> AuthChange {
    AuthChange::UserDelete { name: name.into() }
}

fn password(name: &str) -> AuthChange {
    AuthChange::UserChangePassword {
        name: name.into(),
        password: Some(hash(ARGON2ID)),
    }
}

fn grant(user: &str, role: &str) -> AuthChange {
    AuthChange::UserGrantRole {
        user: user.into(),
        role: role.into(),
    }
}

fn revoke(user: &str, role: &str) -> AuthChange {
    AuthChange::UserRevokeRole {
        user: user.into(),
        role: role.into(),
    }
}

fn role_add(name: &str) -> AuthChange {
    AuthChange::RoleAdd { name: name.into() }
}

fn role_delete(name: &str) -> AuthChange {
    AuthChange::RoleDelete { name: name.into() }
}

fn keys(key: &str, end: &str) -> KeyRange {
    KeyRange::from_pair(key.to_owned().into(), end.to_owned().into())
}

fn permit(role: &str, key: &str, end: &str, kind: PermissionKind) -> AuthChange {
    AuthChange::RoleGrantPermission {
        role: role.into(),
        permission: Some(Permission {
            keys: keys(key, end),
            kind,
        }),
    }
}

fn permit_nothing(role: &str) -> AuthChange {
    AuthChange::RoleGrantPermission {
        role: role.into(),
        permission: None,
    }
}

fn forbid(role: &str, key: &str, end: &str) -> AuthChange {
    AuthChange::RoleRevokePermission {
        role: role.into(),
        keys: keys(key, end),
    }
}

/// Applies each change and expects the text of its refusal, or none, and the auth revision after it.
#[track_caller]
fn run(state: &mut AuthState, program: &[(AuthChange, &str, u64)]) {
    for (change, refusal, revision) in program {
        let before = state.clone();
        let answer = match state.apply(change) {
            Ok(_) => String::new(),
            Err(refused) => {
                assert_eq!(
                    *state, before,
                    "{change:?} was refused and changed something"
                );
                refused.to_string()
            }
        };
        let expected = match *refusal {
            "" => String::new(),
            text => format!("etcdserver: {text}"),
        };
        assert_eq!(
            (answer, state.revision()),
            (expected, *revision),
            "{change:?}"
        );
    }
}

#[track_caller]
fn apply(state: &mut AuthState, change: AuthChange) -> Affected {
    state.apply(&change).unwrap().affected
}

const READ: PermissionKind = PermissionKind::Read;
const WRITE: PermissionKind = PermissionKind::Write;
