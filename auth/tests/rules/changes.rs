//! The rules and refusals of changes.

use crate::{
    READ, WRITE, apply, forbid, grant, keys, password, permit, permit_nothing, revoke, role_add,
    role_delete, run, user_add, user_delete,
};
use holdfast_auth::{AuthChange, AuthState, KeyRange, Permission, bounds};

#[test]
fn users_and_roles_while_off() {
    let mut state = AuthState::new();
    run(
        &mut state,
        &[
            (AuthChange::Disable, "", 1),
            (role_add(""), "role name is empty", 1),
            (role_add("r"), "", 2),
            (role_add("r"), "role name already exists", 2),
            (user_add(""), "user name is empty", 2),
            (user_add("u"), "", 3),
            (user_add("u"), "user name already exists", 3),
            (password("nobody"), "user name not found", 3),
            (password("u"), "", 4),
            (password("u"), "", 5),
            (grant("nobody", "norole"), "user name not found", 5),
            (grant("u", "norole"), "role name not found", 5),
            (grant("u", ""), "role name not found", 5),
            (grant("u", "r"), "", 6),
            (grant("u", "r"), "", 6),
            (revoke("u", "zz"), "role is not granted to the user", 6),
            (revoke("nobody", "zz"), "user name not found", 6),
            (user_delete("nobody"), "user name not found", 6),
            (user_delete(""), "user name not found", 6),
            (role_delete("nope"), "role name not found", 6),
            (role_delete("root"), "role name not found", 6),
            (role_delete("r"), "", 7),
        ],
    );
    assert!(state.user("u").unwrap().roles.is_empty());
}

#[test]
fn permissions_of_a_role() {
    let mut state = AuthState::new();
    run(
        &mut state,
        &[
            (role_add("r"), "", 2),
            (permit_nothing("nope"), "permission not given", 2),
            (permit("nope", "", "", READ), "invalid auth management", 2),
            (permit("nope", "a", "", READ), "role name not found", 2),
            (permit("root", "a", "", READ), "role name not found", 2),
            (permit("r", "", "", READ), "invalid auth management", 2),
            (permit("r", "b", "a", READ), "invalid auth management", 2),
            (permit("r", "b", "b", READ), "invalid auth management", 2),
            (permit("r", "a", "", READ), "", 3),
            // What is there already counts as a change here, other than with the roles of a user.
            (permit("r", "a", "", READ), "", 4),
            (permit("r", "a", "", WRITE), "", 5),
            (permit("r", "\0", "\0", WRITE), "", 6),
            (permit("r", "\0", "", WRITE), "", 7),
            (permit("r", "a", "\0", READ), "", 8),
            (permit("r", "a", "c", WRITE), "", 9),
            (permit("r", "A", "c", WRITE), "", 10),
        ],
    );
    let order: Vec<KeyRange> = state
        .role("r")
        .unwrap()
        .permissions()
        .map(|permission| permission.keys.clone())
        .collect();
    let expected = [
        keys("\0", ""),
        keys("\0", "\0"),
        keys("A", "c"),
        keys("a", ""),
        keys("a", "\0"),
        keys("a", "c"),
    ];
    assert_eq!(order, expected);
    let kind = state.role("r").unwrap().permissions().nth(3).unwrap().kind;
    assert_eq!(kind, WRITE, "the kind is overwritten");
    run(
        &mut state,
        &[
            (
                forbid("r", "zz", ""),
                "permission is not granted to the role",
                10,
            ),
            (
                forbid("r", "a", "b"),
                "permission is not granted to the role",
                10,
            ),
            (forbid("nope", "zz", ""), "role name not found", 10),
            (forbid("r", "\0", "\0"), "", 11),
            (forbid("r", "a", ""), "", 12),
            (
                forbid("r", "a", ""),
                "permission is not granted to the role",
                12,
            ),
        ],
    );
    // The pair of everything, without the key that etcd wants.
    let refused = Permission::from_pair("".into(), "\0".into(), READ).unwrap_err();
    assert_eq!(refused.to_string(), "etcdserver: invalid auth management");
    let all = Permission::from_pair("\0".into(), "\0".into(), READ).unwrap();
    assert_eq!(all.keys, KeyRange::All);
    // Spellings that no pair has.
    for odd in [
        KeyRange::From("".into()),
        KeyRange::From("\0".into()),
        KeyRange::Span {
            start: "a".into(),
            end: "\0".into(),
        },
    ] {
        let change = AuthChange::RoleGrantPermission {
            role: "r".into(),
            permission: Some(Permission {
                keys: odd,
                kind: READ,
            }),
        };
        run(&mut state, &[(change, "invalid auth management", 12)]);
    }
}

#[test]
fn switching_on_needs_root_and_protects_it() {
    let mut state = AuthState::new();
    run(
        &mut state,
        &[
            (user_add("u"), "", 2),
            (AuthChange::Enable, "root user does not exist", 2),
            (user_add("root"), "", 3),
            (AuthChange::Enable, "root user does not have root role", 3),
            (grant("root", "root"), "", 4),
            (grant("root", "root"), "", 4),
            (AuthChange::Enable, "", 4),
            (AuthChange::Enable, "", 4),
            (user_delete("root"), "invalid auth management", 4),
            (revoke("root", "root"), "invalid auth management", 4),
            (revoke("root", "zz"), "role is not granted to the user", 4),
            (role_delete("root"), "invalid auth management", 4),
            (role_add("root"), "", 5),
            (role_delete("root"), "invalid auth management", 5),
            (permit("root", "a", "", READ), "", 6),
            (grant("u", "root"), "", 7),
            (revoke("u", "root"), "", 8),
            (AuthChange::Disable, "", 9),
            (AuthChange::Disable, "", 9),
            (revoke("root", "root"), "", 10),
            (role_delete("root"), "", 11),
            (user_delete("root"), "", 12),
        ],
    );
}

#[test]
fn everything_is_bounded() {
    let mut state = AuthState::new();
    let long = "x".repeat(bounds::NAME_BYTES + 1);
    let too_long = "user or role name is longer than 256 bytes";
    let control = "user or role name holds control characters";
    run(
        &mut state,
        &[
            (user_add(&long), too_long, 1),
            (role_add(&long), too_long, 1),
            (user_add("a\nb"), control, 1),
            (role_add("\u{1b}[2J"), control, 1),
            (user_add(&long[1..]), "", 2),
            (role_add("r"), "", 3),
        ],
    );
    for number in 0..bounds::PERMISSIONS_PER_ROLE {
        apply(&mut state, permit("r", &format!("k{number:04}"), "", READ));
    }
    let full = state.revision();
    let program = [
        (
            permit("r", "one more", "", READ),
            "too many permissions in a role",
            full,
        ),
        (permit("r", "k0000", "", WRITE), "", full + 1),
    ];
    run(&mut state, &program);

    let mut state = AuthState::new();
    apply(&mut state, role_add("r"));
    let large = "k".repeat(bounds::KEY_BYTES_PER_ROLE);
    let program = [
        (permit("r", &large, "", READ), "", 3),
        (
            permit("r", "a", "", READ),
            "too many bytes of keys in a role",
            3,
        ),
        (forbid("r", &large, ""), "", 4),
        (permit("r", "a", "", READ), "", 5),
    ];
    run(&mut state, &program);

    let mut state = AuthState::new();
    for number in 0..bounds::ROLES {
        apply(&mut state, role_add(&format!("r{number}")));
    }
    let full = state.revision();
    run(&mut state, &[(role_add("more"), "too many roles", full)]);
    apply(&mut state, user_add("u"));
    for number in 0..bounds::ROLES_PER_USER {
        apply(&mut state, grant("u", &format!("r{number}")));
    }
    let full = state.revision();
    let more = grant("u", "r9999");
    run(&mut state, &[(more, "too many roles of a user", full)]);
    for number in 1..bounds::USERS {
        apply(&mut state, user_add(&format!("u{number}")));
    }
    let full = state.revision();
    run(&mut state, &[(user_add("more"), "too many users", full)]);
}
