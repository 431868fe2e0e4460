//! What changes mean for callers: policies, standing, tokens, streams.

use crate::{
    ARGON2ID, READ, WRITE, apply, forbid, grant, hash, keys, password, permit, revoke, role_add,
    role_delete, user_add, user_delete,
};
use holdfast_auth::{
    Access, Affected, AuthChange, AuthState, Caller, Demands, Denied, KeyRange, Policy, Standing,
    TokenEpochs, UserId, Verb, bounds,
};
use std::sync::Arc;

struct Asks<'a>(Standing<'a>, &'a [(Verb, KeyRange)]);

impl Demands for Asks<'_> {
    fn standing(&self) -> Standing<'_> {
        self.0
    }

    fn demands(&self, demand: &mut dyn FnMut(Verb, &KeyRange)) {
        for (verb, keys) in self.1 {
            demand(*verb, keys);
        }
    }
}

const NOTHING: Asks<'_> = Asks(Standing::Any, &[]);

/// On; `ada` may read `a` by role `reader`, `bob` has no role.
fn in_force() -> AuthState {
    let mut state = AuthState::new();
    for change in [
        user_add("root"),
        grant("root", "root"),
        role_add("reader"),
        permit("reader", "a", "", READ),
        user_add("ada"),
        grant("ada", "reader"),
        user_add("bob"),
        AuthChange::Enable,
    ] {
        apply(&mut state, change);
    }
    state
}

fn by_certificate(state: &AuthState, name: &str) -> Caller {
    Caller::User {
        id: state.user(name).unwrap().id,
        token: None,
    }
}

fn by_token(state: &AuthState, name: &str) -> Caller {
    let user = state.user(name).unwrap();
    Caller::User {
        id: user.id,
        token: Some(TokenEpochs {
            epoch: user.epoch,
            credential: user.credential,
        }),
    }
}

fn external(roles: &[&str]) -> Caller {
    let roles: Vec<Arc<str>> = roles.iter().map(|&role| role.into()).collect();
    Caller::External {
        subject: "guest".into(),
        roles: roles.into(),
    }
}

fn refusal(state: &AuthState, caller: &Caller, policy: Policy, asks: Asks<'_>) -> Option<Denied> {
    state.authorize(caller, Some(policy), asks).err()
}

#[test]
fn an_rpc_without_a_policy_is_refused_also_while_off() {
    for state in [AuthState::new(), in_force()] {
        let refused = state.authorize(&Caller::Server, None, NOTHING);
        assert_eq!(refused.err(), Some(Denied::NoPolicy));
    }
}

#[test]
fn a_policy_names_who_may_ask() {
    let state = in_force();
    let admin = Some(Denied::NotPermitted);
    let nobody = Some(Denied::Unidentified);
    for (policy, of_ada, of_nobody) in [
        (Policy::Public, None, None),
        (Policy::Authenticated, None, nobody),
        (Policy::KeyScoped, None, nobody),
        (Policy::TenantAdmin, admin, nobody),
        (Policy::PlatformAdmin, admin, nobody),
    ] {
        let ada = by_token(&state, "ada");
        let root = by_certificate(&state, "root");
        assert_eq!(refusal(&state, &ada, policy, NOTHING), of_ada, "{policy:?}");
        assert_eq!(
            refusal(&state, &external(&["reader"]), policy, NOTHING),
            of_ada
        );
        assert_eq!(
            refusal(&state, &Caller::Anonymous, policy, NOTHING),
            of_nobody
        );
        assert_eq!(refusal(&state, &root, policy, NOTHING), None);
        let off = AuthState::new();
        assert_eq!(refusal(&off, &Caller::Anonymous, policy, NOTHING), None);
    }
}

#[test]
fn a_public_request_that_asks_for_something_is_judged() {
    let state = in_force();
    let read = [(Verb::Read, keys("a", ""))];
    for asks in [Asks(Standing::Any, &read), Asks(Standing::Admin, &[])] {
        let refused = refusal(&state, &Caller::Anonymous, Policy::Public, asks);
        assert_eq!(refused, Some(Denied::Unidentified));
    }
}

#[test]
fn standing_is_for_oneself_and_for_holders() {
    let mut state = in_force();
    let ada = by_certificate(&state, "ada");
    let check = |state: &AuthState, caller: &Caller, standing: Standing<'_>| {
        refusal(state, caller, Policy::Authenticated, Asks(standing, &[])).is_none()
    };
    assert!(check(&state, &ada, Standing::AdminOrUser("ada")));
    assert!(!check(&state, &ada, Standing::AdminOrUser("bob")));
    assert!(check(&state, &ada, Standing::AdminOrHolder("reader")));
    assert!(!check(&state, &ada, Standing::AdminOrHolder("other")));
    assert!(!check(&state, &ada, Standing::AdminOrHolder("root")));
    assert!(!check(&state, &ada, Standing::Admin));
    let guest = external(&["reader", "no such role", "root"]);
    assert!(check(&state, &guest, Standing::AdminOrHolder("reader")));
    for standing in [
        Standing::AdminOrHolder("no such role"),
        Standing::AdminOrHolder("root"),
        Standing::AdminOrUser("guest"),
    ] {
        assert!(!check(&state, &guest, standing), "{standing:?}");
    }
    // Also when the role has a record.
    apply(&mut state, role_add("root"));
    assert!(!check(&state, &guest, Standing::AdminOrHolder("root")));
    assert!(!state.access(&guest).unwrap().is_admin());
}

#[test]
fn a_user_may_change_their_own_password_and_nobody_elses() {
    let state = in_force();
    let ada = by_token(&state, "ada");
    let try_it = |change: AuthChange| state.authorize(&ada, Some(Policy::Authenticated), change);
    assert!(try_it(password("ada")).is_ok());
    for change in [
        password("bob"),
        password("root"),
        AuthChange::Disable,
        grant("ada", "root"),
        user_delete("ada"),
        permit("reader", "b", "", READ),
        AuthChange::UpgradePassword {
            user: state.user("ada").unwrap().id,
            credential: state.user("ada").unwrap().credential,
            password: hash(ARGON2ID),
        },
    ] {
        assert_eq!(
            try_it(change.clone()).err(),
            Some(Denied::NotPermitted),
            "{change:?}"
        );
    }
}

fn may_read_a(access: Result<Access<'_>, Denied>) -> Result<bool, Denied> {
    access.map(|access| access.allows(Verb::Read, &keys("a", "")))
}

/// etcd#13300, #19828: there, any change makes every JWT invalid.
#[test]
fn a_token_dies_with_a_change_of_its_own_user_only() {
    let mut state = in_force();
    let token = by_token(&state, "ada");
    for change in [
        user_add("cleo"),
        grant("bob", "reader"),
        password("bob"),
        permit("reader", "b", "", READ),
        role_add("other"),
        permit("other", "c", "", READ),
        AuthChange::UpgradePassword {
            user: state.user("ada").unwrap().id,
            credential: state.user("ada").unwrap().credential,
            password: hash(ARGON2ID),
        },
    ] {
        apply(&mut state, change.clone());
        assert_eq!(may_read_a(state.access(&token)), Ok(true), "{change:?}");
    }
    for (change, of_streams) in [
        (grant("ada", "other"), Ok(true)),
        (revoke("ada", "other"), Ok(true)),
        (role_delete("reader"), Ok(false)),
        (password("ada"), Err(Denied::InvalidToken)),
        (user_delete("ada"), Err(Denied::NotPermitted)),
    ] {
        let token = by_token(&state, "ada");
        assert!(state.access(&token).is_ok());
        apply(&mut state, change.clone());
        let expected = of_streams.map(|_| ()).err().unwrap_or(Denied::InvalidToken);
        assert_eq!(state.access(&token).err(), Some(expected), "{change:?}");
        assert_eq!(
            may_read_a(state.stream_access(&token)),
            of_streams,
            "{change:?}"
        );
    }
}

#[test]
fn a_user_made_anew_under_the_same_name_is_somebody_else() {
    let mut state = in_force();
    let (token, certificate) = (by_token(&state, "ada"), by_certificate(&state, "ada"));
    let old = Arc::clone(state.user("ada").unwrap());
    apply(&mut state, user_delete("ada"));
    apply(&mut state, user_add("ada"));
    apply(&mut state, grant("ada", "reader"));
    let new = state.user("ada").unwrap();
    assert!(new.id > old.id && new.epoch > old.epoch && new.credential > old.credential);
    for caller in [token, certificate] {
        assert_eq!(state.access(&caller).err(), Some(Denied::NotPermitted));
        assert_eq!(
            state.stream_access(&caller).err(),
            Some(Denied::NotPermitted)
        );
    }
    assert_ne!(
        by_token(&state, "ada").owner(),
        Caller::User {
            id: old.id,
            token: None
        }
        .owner()
    );
}

#[test]
fn a_better_hash_needs_the_password_that_was_verified() {
    let mut state = in_force();
    let ada = Arc::clone(state.user("ada").unwrap());
    let upgrade = |user: UserId, credential: u64| AuthChange::UpgradePassword {
        user,
        credential,
        password: hash(ARGON2ID),
    };
    let before = state.clone();
    for change in [
        upgrade(ada.id, ada.credential + 1),
        upgrade(UserId(999), 999),
    ] {
        let applied = state.apply(&change).unwrap();
        assert!(applied.records.is_empty() && applied.affected == Affected::Nobody);
        assert_eq!(state, before);
    }
    let applied = state.apply(&upgrade(ada.id, ada.credential)).unwrap();
    assert_eq!(applied.affected, Affected::Nobody);
    let after = state.user("ada").unwrap();
    assert_eq!(after.password, Some(hash(ARGON2ID)));
    assert_eq!((after.epoch, after.credential), (ada.epoch, ada.credential));
    assert_eq!(state.revision(), before.revision());

    // Whoever lost the password in between does not get it back.
    let without = AuthChange::UserChangePassword {
        name: "ada".into(),
        password: None,
    };
    apply(&mut state, without);
    let credential = state.user("ada").unwrap().credential;
    for credential in [ada.credential, credential] {
        apply(&mut state, upgrade(ada.id, credential));
        assert_eq!(state.user("ada").unwrap().password, None);
    }
}

/// Names of affected users, with `-` before those that are gone, and roles.
fn names(state: &AuthState, affected: &Affected) -> String {
    match affected {
        Affected::Nobody => "nobody".into(),
        Affected::Everyone => "everyone".into(),
        Affected::Some { users, roles } => {
            let users = users.iter().map(|(id, user)| match user {
                Some(user) => {
                    assert_eq!(state.user_by_id(*id), Some(user));
                    user.name.to_string()
                }
                None => format!("-{}", id.0),
            });
            let roles = roles.iter().map(|role| format!("role {role}"));
            users.chain(roles).collect::<Vec<_>>().join(", ")
        }
    }
}

#[test]
fn a_change_says_whom_it_affects() {
    let mut state = in_force();
    let ada = state.user("ada").unwrap().id.0;
    let gone = format!("-{ada}");
    for (change, expected) in [
        (AuthChange::Enable, "nobody"),
        (user_add("cleo"), "nobody"),
        (role_add("r"), "nobody"),
        (permit("r", "x", "", READ), "role r"),
        (grant("bob", "reader"), "bob"),
        (grant("bob", "reader"), "nobody"),
        (permit("reader", "b", "", READ), "ada, bob, role reader"),
        (permit("reader", "b", "", READ), "nobody"),
        (permit("reader", "b", "", WRITE), "ada, bob, role reader"),
        (forbid("reader", "b", ""), "ada, bob, role reader"),
        (password("bob"), "bob"),
        (revoke("bob", "reader"), "bob"),
        (forbid("reader", "a", ""), "ada, role reader"),
        (role_delete("reader"), "ada, role reader"),
        (role_add("root"), "nobody"),
        (permit("root", "a", "", READ), "nobody"),
        (user_delete("ada"), &gone),
        (AuthChange::Disable, "everyone"),
        (AuthChange::Disable, "nobody"),
        (role_delete("root"), "root, role root"),
    ] {
        let affected = apply(&mut state, change.clone());
        assert_eq!(names(&state, &affected), expected, "{change:?}");
    }
}

#[test]
fn an_external_caller_has_what_its_roles_grant_together() {
    let mut state = in_force();
    apply(&mut state, role_add("next"));
    apply(&mut state, permit("next", "a\0", "c", READ));
    let read = |state: &AuthState, roles: &[&str], key: &str, end: &str| {
        let caller = external(roles);
        let access = state.access(&caller).unwrap();
        access.allows(Verb::Read, &keys(key, end))
    };
    assert!(read(&state, &["reader", "next"], "a", "c"));
    assert!(!read(&state, &["reader"], "a", "c"));
    assert!(!read(&state, &["next"], "a", "c"));
    assert!(!read(&state, &["root"], "a", ""));
    assert!(read(&state, &[], "b", "a"), "an empty span has no keys");
    apply(&mut state, forbid("next", "a\0", "c"));
    assert!(!read(&state, &["reader", "next"], "a", "c"));

    let nameless = Caller::External {
        subject: "".into(),
        roles: Arc::new(["reader".into()]),
    };
    assert_eq!(state.access(&nameless).err(), Some(Denied::Unidentified));
    let many: Vec<String> = (0..=bounds::ROLES_PER_USER)
        .map(|n| n.to_string())
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(
        state.access(&external(&many)).err(),
        Some(Denied::NotPermitted)
    );
}

#[test]
fn nothing_shows_a_hash() {
    let state = in_force();
    let change = password("ada");
    let applied = state.clone().apply(&change).unwrap();
    let shown = format!("{state:?} {change:?} {applied:?}");
    assert!(shown.contains("ada") && !shown.contains("$2a$") && !shown.contains("$argon2"));
}
