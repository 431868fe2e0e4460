//! Who a call is made by: tokens in metadata, logins, what one may know of oneself (behaviour §1.2, §3.13).

use holdfast_tests::{
    Guarded,
    Kind::{Read, Readwrite},
    ROOT_PASSWORD, bad_token, denied, holdfast_only, is_reference, refused, turned_away,
    unidentified,
    wire::{get, put},
};
use tonic::{Code, Status};

/// The one answer to every login that fails.
#[track_caller]
fn login_failed<T: std::fmt::Debug>(answer: Result<T, Status>) {
    refused(
        answer,
        Code::InvalidArgument,
        "etcdserver: authentication failed, invalid user ID or password",
    );
}

#[tokio::test]
async fn a_token_comes_in_either_header() {
    let guarded = Guarded::start().await;
    guarded.add_user("u", &[(Read, "a", "")]).await;
    let raw = guarded.anonymous();
    let token = raw.authenticate("u", "the password of u").await.unwrap();
    let bearer = format!("Bearer {token}");
    for entries in [
        &[("token", &*token)][..],
        &[("authorization", &*token)],
        &[("authorization", &*bearer)],
        &[("token", &*token), ("authorization", "garbage")],
        &[("token", &*token), ("authorization", &*bearer)],
    ] {
        let user = raw.with_metadata(entries);
        user.range(get("a")).await.unwrap();
        denied(user.range(get("b")).await);
    }
    for entries in [
        &[("token", "garbage")][..],
        &[("authorization", "garbage")],
        &[("authorization", "Bearer garbage")],
        &[("token", "garbage"), ("authorization", &*token)],
        &[("authorization", "Basic dTp0aGUgcGFzc3dvcmQgb2YgdQ==")],
    ] {
        bad_token(raw.with_metadata(entries).range(get("a")).await);
    }
    unidentified(raw.range(get("a")).await);
    unidentified(
        raw.with_metadata(&[("tokens", &token)])
            .range(get("a"))
            .await,
    );
}

#[tokio::test]
async fn tokens_are_needed_for_each_call_and_not_for_the_connection() {
    let guarded = Guarded::start().await;
    let raw = guarded.anonymous();
    let user = guarded.user("u", &[(Readwrite, "u", "")]).await;
    let other = guarded.user("v", &[(Readwrite, "v", "")]).await;
    for round in 0..5 {
        let value = round.to_string();
        user.put(put("u", &value)).await.unwrap();
        denied(user.put(put("v", &value)).await);
        other.put(put("v", &value)).await.unwrap();
        denied(other.put(put("u", &value)).await);
        unidentified(raw.put(put("u", &value)).await);
    }
    // Elsewhere the same tokens are as good.
    let elsewhere = guarded.server.raw().await;
    unidentified(elsewhere.put(put("u", "1")).await);
    let token = elsewhere
        .authenticate("u", "the password of u")
        .await
        .unwrap();
    guarded
        .root
        .with_token(&token)
        .put(put("u", "1"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_token_that_is_altered_is_no_token() {
    let guarded = Guarded::start().await;
    guarded.add_user("u", &[(Read, "a", "")]).await;
    let raw = guarded.anonymous();
    let token = raw.authenticate("u", "the password of u").await.unwrap();
    raw.with_token(&token).range(get("a")).await.unwrap();
    for at in (0..token.len()).step_by(7) {
        let mut altered = token.clone().into_bytes();
        altered[at] = if altered[at] == b'x' { b'y' } else { b'x' };
        let altered = String::from_utf8(altered).unwrap();
        bad_token(raw.with_token(&altered).range(get("a")).await);
    }
    for altered in [
        token[..token.len() - 1].to_owned(),
        token[1..].to_owned(),
        format!("{token}x"),
        format!("{token}{token}"),
        format!("Bearer Bearer {token}"),
        "x".repeat(7_000),
        ".".to_owned(),
        "..".to_owned(),
        "....".to_owned(),
    ] {
        bad_token(raw.with_token(&altered).range(get("a")).await);
    }
    raw.with_token(&token).range(get("a")).await.unwrap();
}

#[tokio::test]
async fn the_token_of_a_deleted_user_is_dead() {
    let guarded = Guarded::start().await;
    let user = guarded.user("u", &[(Readwrite, "a", "")]).await;
    user.put(put("a", "1")).await.unwrap();
    guarded.root.user_delete("u").await.unwrap();
    turned_away(user.put(put("a", "2")).await);
    turned_away(user.range(get("a")).await);
    turned_away(user.status().await);
    turned_away(user.user_get("u").await);
    login_failed(user.authenticate("u", "the password of u").await);
    assert_eq!(guarded.root.revision().await, 2);
}

#[tokio::test]
async fn a_login_that_fails_has_one_answer() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    guarded.add_user("u", &[(Read, "a", "")]).await;
    let raw = guarded.anonymous();
    for (user, password) in [
        ("u", ""),
        ("u", "the password of v"),
        ("u", "The password of u"),
        ("u", "the password of u "),
        ("nobody", "the password of u"),
        ("nobody", ""),
        ("U", "the password of u"),
        ("", "the password of u"),
        ("", ""),
        ("root", "the password of u"),
    ] {
        login_failed(raw.authenticate(user, password).await);
    }
    root.user_delete("u").await.unwrap();
    login_failed(raw.authenticate("u", "the password of u").await);
    raw.authenticate("root", ROOT_PASSWORD).await.unwrap();
}

#[tokio::test]
async fn a_user_without_password_is_no_different_to_who_guesses() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    guarded.root.user_add_without_password("w").await.unwrap();
    for password in ["", "a long password"] {
        login_failed(guarded.anonymous().authenticate("w", password).await);
    }
}

#[tokio::test]
async fn a_user_knows_its_own_roles_and_what_they_hold() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    guarded.add_user("v", &[(Read, "v", "")]).await;
    guarded.add_user("u", &[(Read, "a", "b")]).await;
    let user = guarded.login("u").await;
    assert_eq!(user.user_get("u").await.unwrap(), ["u"]);
    assert_eq!(user.role_get("u").await.unwrap().len(), 1);
    // Not permitted is said before not found.
    for other in ["root", "v", "nobody", ""] {
        denied(user.user_get(other).await);
        denied(user.role_get(other).await);
    }
    denied(user.user_list().await);
    denied(user.role_list().await);
    // Of a role that comes later, too.
    root.user_grant_role("u", "v").await.unwrap();
    let user = guarded.login("u").await;
    assert_eq!(user.user_get("u").await.unwrap(), ["u", "v"]);
    assert_eq!(user.role_get("v").await.unwrap().len(), 1);
    root.user_revoke_role("u", "v").await.unwrap();
    let user = guarded.login("u").await;
    denied(user.role_get("v").await);
}

#[tokio::test]
async fn a_user_administers_nothing() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    guarded.add_user("v", &[]).await;
    let user = guarded.user("u", &[(Readwrite, "\0", "\0")]).await;
    let before = root.auth_revision().await;
    denied(user.user_grant_role("u", "root").await);
    denied(user.user_add("w", "a long password").await);
    denied(user.user_delete("v").await);
    denied(user.user_delete("u").await);
    denied(user.user_revoke_role("u", "u").await);
    denied(user.role_grant("u", (Readwrite, "\0", "\0")).await);
    denied(user.role_revoke("u", "\0", "\0").await);
    denied(user.role_add("root").await);
    denied(user.role_delete("u").await);
    denied(user.change_password("root", "mine, all of it").await);
    denied(user.change_password("v", "mine, all of it").await);
    denied(user.change_password("nobody", "mine, all of it").await);
    if is_reference() {
        denied(user.change_password("u", "mine, all of it").await);
    }
    assert_eq!(root.auth_revision().await, before);
    assert_eq!(root.user_get("u").await.unwrap(), ["u"]);
}

#[tokio::test]
async fn a_user_changes_its_own_password() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let user = guarded.user("u", &[(Readwrite, "a", "")]).await;
    let before = guarded.root.auth_revision().await;
    user.change_password("u", "a password of my own")
        .await
        .unwrap();
    assert_eq!(guarded.root.auth_revision().await, before + 1);
    // The token that did it is of the old password.
    bad_token(user.put(put("a", "1")).await);
    bad_token(user.change_password("u", "and another one").await);
    login_failed(user.authenticate("u", "the password of u").await);
    let user = user.login("u", "a password of my own").await.unwrap();
    user.put(put("a", "1")).await.unwrap();
}
