//! Users, roles and permissions as they are administered: calls, errors, auth revisions (behaviour §3.13).

use bytes::Bytes;
use holdfast_proto::{authpb, etcdserverpb as pb};
use holdfast_tests::{
    Guarded, Kind, ROOT_PASSWORD, Server, ServerOptions, denied, holdfast_only, refused,
    wire::{b, get, put, revision},
};
use tonic::{Code, Status};

/// A call that cannot be carried out as things are.
#[track_caller]
fn failed_precondition<T: std::fmt::Debug>(answer: Result<T, Status>, text: &str) {
    refused(
        answer,
        Code::FailedPrecondition,
        &format!("etcdserver: {text}"),
    );
}

/// A call that can never be carried out.
#[track_caller]
fn invalid_argument<T: std::fmt::Debug>(answer: Result<T, Status>, text: &str) {
    refused(
        answer,
        Code::InvalidArgument,
        &format!("etcdserver: {text}"),
    );
}

/// Permissions as text: `READ a..b`.
fn texts(permissions: &[authpb::Permission]) -> Vec<String> {
    let text = |permission: &authpb::Permission| {
        let kind = permission.perm_type().as_str_name();
        let key = String::from_utf8_lossy(&permission.key).into_owned();
        let end = String::from_utf8_lossy(&permission.range_end).into_owned();
        match end.as_str() {
            "" => format!("{kind} {key}"),
            end => format!("{kind} {key}..{end}"),
        }
    };
    permissions.iter().map(text).collect()
}

/// A server with auth off.
fn open() -> Server {
    Server::start_with(Guarded::options(ServerOptions::new()))
}

#[tokio::test]
async fn every_change_raises_the_auth_revision_by_one_and_nothing_else_does() {
    let server = open();
    let raw = server.raw().await;
    let nobody = raw.anonymous();
    let mut expected = 1;
    macro_rules! step {
        (+ $call:expr) => {
            $call.await.unwrap();
            expected += 1;
            assert_eq!(
                nobody.auth_revision().await,
                expected,
                "{}",
                stringify!($call)
            );
        };
        (= $call:expr) => {
            $call.await.unwrap();
            assert_eq!(
                nobody.auth_revision().await,
                expected,
                "{}",
                stringify!($call)
            );
        };
        (! $call:expr) => {
            $call.await.unwrap_err();
            assert_eq!(
                nobody.auth_revision().await,
                expected,
                "{}",
                stringify!($call)
            );
        };
    }
    step!(+ raw.user_add("root", ROOT_PASSWORD));
    step!(!raw.user_add("root", ROOT_PASSWORD));
    step!(+ raw.user_add("u", "a long password"));
    step!(+ raw.user_add_without_password("w"));
    step!(= raw.user_get("u"));
    step!(= raw.user_list());
    step!(+ raw.change_password("u", "another long password"));
    step!(!raw.change_password("nobody", "another long password"));
    step!(+ raw.role_add("r"));
    step!(!raw.role_add("r"));
    step!(!raw.role_add(""));
    step!(+ raw.role_grant("r", (Kind::Read, "a", "")));
    step!(+ raw.role_grant("r", (Kind::Write, "a", "")));
    step!(!raw.role_grant("nobody", (Kind::Write, "a", "")));
    step!(+ raw.role_revoke("r", "a", ""));
    step!(!raw.role_revoke("r", "a", ""));
    step!(= raw.role_get("r"));
    step!(= raw.role_list());
    step!(+ raw.user_grant_role("u", "r"));
    step!(= raw.user_grant_role("u", "r"));
    step!(!raw.user_grant_role("u", "nobody"));
    step!(+ raw.user_revoke_role("u", "r"));
    step!(!raw.user_revoke_role("u", "r"));
    step!(+ raw.user_grant_role("root", "root"));
    step!(= raw.user_grant_role("root", "root"));
    step!(= raw.put(put("a", "1")));
    step!(= raw.enable_auth());
    let raw = raw.login("root", ROOT_PASSWORD).await.unwrap();
    step!(= raw.authenticate("u", "another long password"));
    step!(= raw.enable_auth());
    step!(!raw.user_delete("root"));
    step!(!raw.user_revoke_role("root", "root"));
    step!(+ raw.user_delete("w"));
    step!(!raw.user_delete("w"));
    step!(+ raw.role_delete("r"));
    step!(!raw.role_delete("r"));
    step!(= raw.put(put("a", "1")));
    step!(+ raw.disable_auth());
    // Off already.
    step!(= raw.disable_auth());
    step!(= raw.enable_auth());
    assert!(nobody.auth_status().await.unwrap().enabled);
}

#[tokio::test]
async fn auth_changes_answer_with_the_revision_of_the_store_and_leave_it_alone() {
    let server = open();
    let raw = server.raw().await;
    for count in 2..=4 {
        let answer = raw.put(put("a", "1")).await.unwrap();
        assert_eq!(revision(&answer.header), count);
    }
    let expected = raw.status().await.unwrap().header.unwrap();
    macro_rules! check {
        ($call:expr) => {
            let header = $call.await.unwrap().header.unwrap();
            assert_eq!(header.revision, 4, "{}", stringify!($call));
            assert_eq!(
                (header.cluster_id, header.member_id, header.raft_term),
                (expected.cluster_id, expected.member_id, expected.raft_term),
                "{}",
                stringify!($call)
            );
        };
    }
    let name = || "u".to_owned();
    check!(raw.user_add("root", ROOT_PASSWORD));
    check!(raw.user_grant_role("root", "root"));
    check!(raw.user_add("u", "a long password"));
    check!(raw.role_add("r"));
    check!(raw.role_grant("r", (Kind::Read, "a", "")));
    check!(raw.user_grant_role("u", "r"));
    check!(raw.user_get_call(pb::AuthUserGetRequest { name: name() }));
    check!(raw.user_list_call(pb::AuthUserListRequest {}));
    check!(raw.role_get_call(pb::AuthRoleGetRequest { role: "r".into() }));
    check!(raw.role_list_call(pb::AuthRoleListRequest {}));
    check!(raw.change_password("u", "another long password"));
    // Once authentication is on, ours tells nobody the revision.
    check!(raw.auth_status());
    check!(raw.enable_auth());
    check!(raw.authenticate_call(pb::AuthenticateRequest {
        name: name(),
        password: "another long password".to_owned(),
    }));
    let raw = raw.login("root", ROOT_PASSWORD).await.unwrap();
    check!(raw.user_revoke_role("u", "r"));
    check!(raw.role_revoke("r", "a", ""));
    check!(raw.role_delete("r"));
    check!(raw.user_delete("u"));
    check!(raw.disable_auth());
    assert_eq!(raw.revision().await, 4);
}

#[tokio::test]
async fn user_calls_name_what_is_wrong() {
    let server = open();
    let raw = server.raw().await;
    invalid_argument(
        raw.user_add("", "a long password").await,
        "user name is empty",
    );
    invalid_argument(
        raw.user_add_without_password("").await,
        "user name is empty",
    );
    raw.user_add("u", "a long password").await.unwrap();
    failed_precondition(
        raw.user_add("u", "a long password").await,
        "user name already exists",
    );
    failed_precondition(
        raw.user_add_without_password("u").await,
        "user name already exists",
    );
    raw.role_add("r").await.unwrap();
    for name in ["", "nobody", "U"] {
        let missing = "user name not found";
        failed_precondition(raw.user_get(name).await, missing);
        failed_precondition(raw.user_delete(name).await, missing);
        failed_precondition(raw.change_password(name, "a long password").await, missing);
        failed_precondition(raw.user_grant_role(name, "r").await, missing);
        failed_precondition(raw.user_grant_role(name, "nobody").await, missing);
        failed_precondition(raw.user_revoke_role(name, "r").await, missing);
    }
    for role in ["", "nobody", "R"] {
        failed_precondition(raw.user_grant_role("u", role).await, "role name not found");
        failed_precondition(
            raw.user_revoke_role("u", role).await,
            "role is not granted to the user",
        );
    }
    failed_precondition(
        raw.user_revoke_role("u", "r").await,
        "role is not granted to the user",
    );
}

#[tokio::test]
async fn role_calls_name_what_is_wrong() {
    let server = open();
    let raw = server.raw().await;
    invalid_argument(raw.role_add("").await, "role name is empty");
    raw.role_add("r").await.unwrap();
    failed_precondition(raw.role_add("r").await, "role name already exists");
    for role in ["", "nobody", "R", "root"] {
        let missing = "role name not found";
        failed_precondition(raw.role_get(role).await, missing);
        failed_precondition(raw.role_delete(role).await, missing);
        failed_precondition(raw.role_grant(role, (Kind::Read, "a", "")).await, missing);
        failed_precondition(raw.role_revoke(role, "a", "").await, missing);
    }
    let nothing = pb::AuthRoleGrantPermissionRequest {
        name: "r".to_owned(),
        perm: None,
    };
    invalid_argument(raw.role_grant_call(nothing).await, "permission not given");
    for (key, end) in [("", ""), ("", "b"), ("", "\0"), ("b", "b"), ("b", "a")] {
        invalid_argument(
            raw.role_grant("r", (Kind::Read, key, end)).await,
            "invalid auth management",
        );
    }
    // A range that is no range is wrong for any role.
    invalid_argument(
        raw.role_grant("nobody", (Kind::Read, "b", "a")).await,
        "invalid auth management",
    );
    raw.role_grant("r", (Kind::Read, "a", "c")).await.unwrap();
    for (key, end) in [("a", ""), ("a", "b"), ("a", "\0"), ("", ""), ("b", "c")] {
        failed_precondition(
            raw.role_revoke("r", key, end).await,
            "permission is not granted to the role",
        );
    }
    assert_eq!(texts(&raw.role_get("r").await.unwrap()), ["READ a..c"]);
}

#[tokio::test]
async fn an_unknown_kind_of_permission_is_refused() {
    holdfast_only!();
    let server = open();
    let raw = server.raw().await;
    raw.role_add("r").await.unwrap();
    for kind in [-1, 3, i32::MAX] {
        let request = pb::AuthRoleGrantPermissionRequest {
            name: "r".to_owned(),
            perm: Some(authpb::Permission {
                perm_type: kind,
                key: b("a"),
                range_end: Bytes::new(),
            }),
        };
        let status = raw.role_grant_call(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{kind}: {status:?}");
    }
    assert!(raw.role_get("r").await.unwrap().is_empty());
    assert_eq!(raw.auth_revision().await, 2);
}

#[tokio::test]
async fn names_are_bounded_and_without_control_characters() {
    holdfast_only!();
    let server = open();
    let raw = server.raw().await;
    let longest = "n".repeat(256);
    raw.user_add_without_password(&longest).await.unwrap();
    raw.role_add(&longest).await.unwrap();
    raw.user_grant_role(&longest, &longest).await.unwrap();
    raw.user_add_without_password("ünï code 名").await.unwrap();
    for name in [
        "n".repeat(257),
        "a\nb".into(),
        "\0".into(),
        "a\u{7f}".into(),
    ] {
        for status in [
            raw.user_add_without_password(&name).await.unwrap_err(),
            raw.user_add(&name, "a long password").await.unwrap_err(),
            raw.role_add(&name).await.unwrap_err(),
        ] {
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        }
    }
    assert_eq!(raw.user_list().await.unwrap().len(), 2);
    assert_eq!(raw.role_list().await.unwrap(), [longest]);
}

#[tokio::test]
async fn lists_are_in_order_of_names() {
    let server = open();
    let raw = server.raw().await;
    for name in ["m", "z", "a", "mm", "B"] {
        raw.user_add_without_password(name).await.unwrap();
        raw.role_add(name).await.unwrap();
    }
    for role in ["z", "B", "m"] {
        raw.user_grant_role("m", role).await.unwrap();
    }
    let expected = ["B", "a", "m", "mm", "z"];
    assert_eq!(raw.user_list().await.unwrap(), expected);
    assert_eq!(raw.role_list().await.unwrap(), expected);
    assert_eq!(raw.user_get("m").await.unwrap(), ["B", "m", "z"]);
    assert!(raw.user_get("a").await.unwrap().is_empty());
}

#[tokio::test]
async fn granting_a_range_again_replaces_its_kind() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[(Kind::Read, "a", "c")]).await;
    user.range(get("a")).await.unwrap();
    denied(user.put(put("a", "1")).await);
    root.role_grant("u", (Kind::Write, "a", "c")).await.unwrap();
    denied(user.range(get("a")).await);
    user.put(put("a", "1")).await.unwrap();
    assert_eq!(texts(&root.role_get("u").await.unwrap()), ["WRITE a..c"]);
    root.role_grant("u", (Kind::Readwrite, "a", "c"))
        .await
        .unwrap();
    user.range(get("a")).await.unwrap();
    user.put(put("a", "1")).await.unwrap();
    assert_eq!(
        texts(&root.role_get("u").await.unwrap()),
        ["READWRITE a..c"]
    );
}

#[tokio::test]
async fn a_role_lists_its_permissions_in_order_of_keys() {
    let server = open();
    let raw = server.raw().await;
    raw.role_add("r").await.unwrap();
    for permission in [
        (Kind::Read, "m", "n"),
        (Kind::Write, "z", ""),
        (Kind::Read, "\0", "\0"),
        (Kind::Readwrite, "a", "\0"),
        (Kind::Read, "b", ""),
    ] {
        raw.role_grant("r", permission).await.unwrap();
    }
    assert_eq!(
        texts(&raw.role_get("r").await.unwrap()),
        [
            "READ \0..\0",
            "READWRITE a..\0",
            "READ b",
            "READ m..n",
            "WRITE z"
        ]
    );
    // Exactly the pair goes.
    raw.role_revoke("r", "m", "n").await.unwrap();
    raw.role_revoke("r", "\0", "\0").await.unwrap();
    assert_eq!(
        texts(&raw.role_get("r").await.unwrap()),
        ["READWRITE a..\0", "READ b", "WRITE z"]
    );
}

#[tokio::test]
async fn one_key_can_have_several_ranges_each_revoked_by_itself() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let ranges = [("a", ""), ("a", "b"), ("a", "c"), ("a", "\0")];
    let user = guarded.user("u", &[]).await;
    for (key, end) in ranges {
        root.role_grant("u", (Kind::Read, key, end)).await.unwrap();
    }
    let listed = root.role_get("u").await.unwrap();
    assert_eq!(listed.len(), 4, "{listed:?}");
    for (key, end) in ranges {
        user.range(get("a")).await.unwrap();
        root.role_revoke("u", key, end).await.unwrap();
    }
    denied(user.range(get("a")).await);
    assert!(root.role_get("u").await.unwrap().is_empty());
}

#[tokio::test]
async fn deleting_a_role_takes_it_from_its_holders_for_good() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let grants = [(Kind::Readwrite, "a", "")];
    guarded.add_user("u", &grants).await;
    guarded.add_user("v", &grants).await;
    root.user_grant_role("v", "u").await.unwrap();
    guarded.login("u").await.put(put("a", "1")).await.unwrap();

    root.role_delete("u").await.unwrap();
    assert!(root.user_get("u").await.unwrap().is_empty());
    assert_eq!(root.user_get("v").await.unwrap(), ["v"]);
    denied(guarded.login("u").await.put(put("a", "1")).await);
    guarded.login("v").await.put(put("a", "1")).await.unwrap();

    // A role of the same name is another role.
    root.role_add("u").await.unwrap();
    root.role_set("u", &grants).await;
    assert!(root.user_get("u").await.unwrap().is_empty());
    denied(guarded.login("u").await.put(put("a", "1")).await);
}

#[tokio::test]
async fn deleting_a_user_leaves_its_roles() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    guarded.add_user("u", &[(Kind::Read, "a", "")]).await;
    root.user_delete("u").await.unwrap();
    assert_eq!(root.user_list().await.unwrap(), ["root"]);
    assert_eq!(root.role_list().await.unwrap(), ["u"]);
    assert_eq!(texts(&root.role_get("u").await.unwrap()), ["READ a"]);
    // A user of the same name starts with nothing.
    root.user_add("u", "another long password").await.unwrap();
    assert!(root.user_get("u").await.unwrap().is_empty());
    let user = root.login("u", "another long password").await.unwrap();
    denied(user.range(get("a")).await);
}

#[tokio::test]
async fn a_user_without_password_cannot_log_in() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    root.user_add_without_password("w").await.unwrap();
    // What comes with the option is not a password either.
    let both = pb::AuthUserAddRequest {
        name: "x".to_owned(),
        password: "a long password".to_owned(),
        options: Some(authpb::UserAddOptions { no_password: true }),
        ..Default::default()
    };
    root.user_add_call(both).await.unwrap();
    for user in ["w", "x"] {
        for password in ["", "a long password", ROOT_PASSWORD] {
            root.authenticate(user, password).await.unwrap_err();
        }
    }
    assert_eq!(root.user_list().await.unwrap(), ["root", "w", "x"]);
}

#[tokio::test]
async fn a_hash_that_a_client_sends_is_not_believed() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    // bcrypt of "somebody else's", as etcd's own API layer would send it.
    let hash = "JDJhJDA0JHhKUWxhbWNtV3kxYjVxWmtzY1VxQ3VVcW14Y0xJSWpyLkxPTWRvYWp0WTVYWGM3QjhScTVL";
    let add = pb::AuthUserAddRequest {
        name: "u".to_owned(),
        password: "a long password".to_owned(),
        hashed_password: hash.to_owned(),
        ..Default::default()
    };
    root.user_add_call(add).await.unwrap();
    root.authenticate("u", "a long password").await.unwrap();
    let change = pb::AuthUserChangePasswordRequest {
        name: "u".to_owned(),
        password: "another long password".to_owned(),
        hashed_password: hash.to_owned(),
    };
    root.change_password_call(change).await.unwrap();
    root.authenticate("u", "another long password")
        .await
        .unwrap();
    for password in ["a long password", "somebody else's", hash, ""] {
        root.authenticate("u", password).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_changed_password_replaces_the_old_one() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    guarded.add_user("u", &[(Kind::Read, "a", "")]).await;
    root.change_password("u", "another long password")
        .await
        .unwrap();
    root.authenticate("u", "the password of u")
        .await
        .unwrap_err();
    let user = root.login("u", "another long password").await.unwrap();
    user.range(get("a")).await.unwrap();
}

#[tokio::test]
async fn concurrent_changes_each_count_once() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let before = root.auth_revision().await;
    let mut tasks = Vec::new();
    for number in 0..40 {
        let root = root.clone();
        tasks.push(tokio::spawn(async move {
            let role = format!("r{}", number % 20);
            // Of two tasks that add the same role one succeeds.
            root.role_add(&role).await.is_ok()
        }));
    }
    let mut added = 0;
    for task in tasks {
        added += u64::from(task.await.unwrap());
    }
    assert_eq!(added, 20);
    assert_eq!(root.role_list().await.unwrap().len(), 20);
    assert_eq!(root.auth_revision().await, before + 20);
}
