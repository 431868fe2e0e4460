//! Auth on and off: what it takes, that `root` cannot be lost, what a restart keeps (behaviour §3.13).

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::authpb;
use holdfast_tests::{
    Guarded, Kind, ROOT_PASSWORD, Raw, Server, ServerOptions, bad_token, denied, refused,
    unidentified,
    wire::{get, put, revision},
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
async fn auth_is_off_at_first_and_everybody_may_administer() {
    let server = open();
    let raw = server.raw().await;
    let status = raw.auth_status().await.unwrap();
    assert!(!status.enabled);
    assert_eq!(status.auth_revision, 1);
    assert_eq!(revision(&status.header), 1);
    failed_precondition(
        raw.authenticate("root", "whatever").await,
        "authentication is not enabled",
    );
    assert!(raw.user_list().await.unwrap().is_empty());
    assert!(raw.role_list().await.unwrap().is_empty());
    raw.user_add("somebody", "a long password").await.unwrap();
    // What calls carry does not matter either.
    let with = raw.with_token("not a token");
    with.put(put("a", "1")).await.unwrap();
    with.role_add("some role").await.unwrap();
}

#[tokio::test]
async fn auth_is_enabled_only_with_a_root_that_can_administer() {
    let server = open();
    let raw = server.raw().await;
    failed_precondition(raw.enable_auth().await, "root user does not exist");
    raw.user_add("root", ROOT_PASSWORD).await.unwrap();
    failed_precondition(raw.enable_auth().await, "root user does not have root role");
    raw.role_add("r").await.unwrap();
    raw.user_grant_role("root", "r").await.unwrap();
    failed_precondition(raw.enable_auth().await, "root user does not have root role");
    assert!(!raw.auth_status().await.unwrap().enabled);
    raw.put(put("a", "1")).await.unwrap();

    raw.user_grant_role("root", "root").await.unwrap();
    raw.enable_auth().await.unwrap();
    assert!(raw.auth_status().await.unwrap().enabled);
    unidentified(raw.put(put("a", "2")).await);
    let root = raw.login("root", ROOT_PASSWORD).await.unwrap();
    root.put(put("a", "3")).await.unwrap();
}

#[tokio::test]
async fn the_role_root_needs_no_record_and_can_be_had_by_others() {
    let server = open();
    let raw = server.raw().await;
    raw.user_add("root", ROOT_PASSWORD).await.unwrap();
    raw.user_add("deputy", "a long password").await.unwrap();
    raw.user_grant_role("root", "root").await.unwrap();
    raw.user_grant_role("deputy", "root").await.unwrap();
    raw.enable_auth().await.unwrap();
    let root = raw.login("root", ROOT_PASSWORD).await.unwrap();
    assert!(root.role_list().await.unwrap().is_empty());
    assert_eq!(root.user_get("root").await.unwrap(), ["root"]);
    failed_precondition(root.role_get("root").await, "role name not found");

    // A deputy is as good as root, until the role is taken from it.
    let deputy = raw.login("deputy", "a long password").await.unwrap();
    deputy.put(put("a", "1")).await.unwrap();
    deputy.user_add_without_password("w").await.unwrap();
    deputy.compact(1).await.unwrap();
    root.user_revoke_role("deputy", "root").await.unwrap();
    let deputy = raw.login("deputy", "a long password").await.unwrap();
    denied(deputy.range(get("a")).await);
    denied(deputy.user_list().await);

    // The record changes nothing.
    root.role_add("root").await.unwrap();
    assert_eq!(
        texts(&root.role_get("root").await.unwrap()),
        ["READWRITE ..\0"]
    );
    root.put(put("a", "2")).await.unwrap();
}

#[tokio::test]
async fn root_cannot_be_taken_away_while_auth_is_on() {
    let server = open();
    let raw = server.raw().await;
    raw.role_add("root").await.unwrap();
    raw.role_add("r").await.unwrap();
    raw.user_add("root", ROOT_PASSWORD).await.unwrap();
    raw.user_grant_role("root", "root").await.unwrap();
    raw.user_grant_role("root", "r").await.unwrap();
    raw.enable_auth().await.unwrap();
    let root = raw.login("root", ROOT_PASSWORD).await.unwrap();
    let why = "invalid auth management";
    invalid_argument(root.user_delete("root").await, why);
    invalid_argument(root.role_delete("root").await, why);
    invalid_argument(root.user_revoke_role("root", "root").await, why);
    assert_eq!(root.user_get("root").await.unwrap(), ["r", "root"]);

    // Its other roles and its password are no different from anybody's.
    root.user_revoke_role("root", "r").await.unwrap();
    let root = raw.login("root", ROOT_PASSWORD).await.unwrap();
    root.change_password("root", "another long password")
        .await
        .unwrap();
    raw.authenticate("root", ROOT_PASSWORD).await.unwrap_err();
    let root = raw.login("root", "another long password").await.unwrap();

    // With auth off all of it can go.
    root.disable_auth().await.unwrap();
    raw.user_revoke_role("root", "root").await.unwrap();
    raw.role_delete("root").await.unwrap();
    raw.user_delete("root").await.unwrap();
    assert!(raw.user_list().await.unwrap().is_empty());
    failed_precondition(raw.enable_auth().await, "root user does not exist");
}

#[tokio::test]
async fn disabling_needs_root_and_kills_every_token() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[(Kind::Readwrite, "a", "")]).await;
    let nobody = guarded.anonymous();
    unidentified(nobody.disable_auth().await);
    denied(user.disable_auth().await);
    unidentified(nobody.enable_auth().await);
    denied(user.enable_auth().await);
    root.enable_auth().await.unwrap();
    let before = root.auth_revision().await;

    root.disable_auth().await.unwrap();
    assert!(!nobody.auth_status().await.unwrap().enabled);
    assert_eq!(nobody.auth_revision().await, before + 1);
    nobody.put(put("b", "1")).await.unwrap();
    user.put(put("b", "2")).await.unwrap();
    assert_eq!(nobody.user_list().await.unwrap(), ["root", "u"]);
    failed_precondition(
        nobody.authenticate("u", "the password of u").await,
        "authentication is not enabled",
    );
    nobody.disable_auth().await.unwrap();

    // What was granted is there again, but not the tokens.
    nobody.enable_auth().await.unwrap();
    bad_token(root.user_list().await);
    bad_token(user.put(put("a", "1")).await);
    unidentified(nobody.put(put("a", "1")).await);
    let user = guarded.login("u").await;
    user.put(put("a", "1")).await.unwrap();
    denied(user.put(put("b", "1")).await);
}

/// What a server knows of users and roles, as `root` sees it.
async fn everything_known(root: &Raw) -> Vec<String> {
    let mut known = Vec::new();
    for user in root.user_list().await.unwrap() {
        known.push(format!("{user}: {:?}", root.user_get(&user).await.unwrap()));
    }
    for role in root.role_list().await.unwrap() {
        let permissions = texts(&root.role_get(&role).await.unwrap());
        known.push(format!("{role}: {permissions:?}"));
    }
    let status = root.auth_status().await.unwrap();
    known.push(format!("{} {}", status.enabled, status.auth_revision));
    known
}

#[tokio::test]
async fn users_roles_passwords_and_the_switch_outlive_restarts_and_crashes() {
    let mut guarded = Guarded::start().await;
    guarded.add_user("u", &[(Kind::Readwrite, "a", "c")]).await;
    guarded.add_user("gone", &[(Kind::Read, "a", "")]).await;
    let root = &guarded.root;
    root.user_add_without_password("w").await.unwrap();
    root.user_grant_role("w", "gone").await.unwrap();
    root.user_delete("gone").await.unwrap();
    root.role_grant("u", (Kind::Read, "x", "\0")).await.unwrap();
    root.role_revoke("u", "a", "c").await.unwrap();
    root.role_grant("u", (Kind::Write, "w", "")).await.unwrap();
    let known = everything_known(root).await;
    for crash in [true, false] {
        if crash {
            guarded.server.kill();
        } else {
            guarded.server.terminate();
        }
        guarded.server.restart();
        let raw = guarded.server.raw().await;
        unidentified(raw.put(put("w", "1")).await);
        let root = raw.login("root", ROOT_PASSWORD).await.unwrap();
        assert_eq!(everything_known(&root).await, known, "crash: {crash}");
        let user = raw.login("u", "the password of u").await.unwrap();
        user.put(put("w", "1")).await.unwrap();
        user.range(get("xyz")).await.unwrap();
        denied(user.put(put("a", "1")).await);
        raw.authenticate("gone", "the password of gone")
            .await
            .unwrap_err();
        raw.authenticate("w", "").await.unwrap_err();
    }
    let root = guarded.server.raw().await;
    let root = root.login("root", ROOT_PASSWORD).await.unwrap();
    root.disable_auth().await.unwrap();
    guarded.server.kill();
    guarded.server.restart();
    let raw = guarded.server.raw().await;
    assert!(!raw.auth_status().await.unwrap().enabled);
    assert_eq!(raw.user_list().await.unwrap(), ["root", "u", "w"]);
}
