//! The life of a token: what ends it and what does not.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_tests::{
    Guarded,
    Kind::{Read, Readwrite, Write},
    ROOT_PASSWORD, Raw, RawWatch, ServerOptions, bad_token, denied, event_text, eventually,
    holdfast_only, is_reference, turned_away, watch_key,
    wire::{get, put},
};
use std::time::Duration;
use tonic::Code;

/// The changes that concern others than the user `u`, which has the role `u`.
async fn unrelated_changes(root: &Raw) {
    root.user_add("other", "a long password").await.unwrap();
    root.role_add("others").await.unwrap();
    root.role_grant("others", (Readwrite, "a", "\0"))
        .await
        .unwrap();
    root.user_grant_role("other", "others").await.unwrap();
    root.change_password("other", "another long password")
        .await
        .unwrap();
    root.role_revoke("others", "a", "\0").await.unwrap();
    root.user_revoke_role("other", "others").await.unwrap();
    root.role_delete("others").await.unwrap();
    root.user_delete("other").await.unwrap();
}

/// With etcd's JWTs each of these changes ended every token.
#[tokio::test]
async fn issue_13300_unrelated_changes_leave_tokens_alive() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[(Readwrite, "a", "")]).await;
    let second = guarded.login("u").await;
    for _ in 0..5 {
        unrelated_changes(root).await;
        user.put(put("a", "1")).await.unwrap();
        second.range(get("a")).await.unwrap();
        user.status().await.unwrap();
    }
    // A refused change is no change.
    root.user_grant_role("u", "nobody").await.unwrap_err();
    root.user_revoke_role("u", "root").await.unwrap_err();
    root.user_add("u", "a long password").await.unwrap_err();
    // Neither is what is the case already.
    root.user_grant_role("u", "u").await.unwrap();
    user.put(put("a", "1")).await.unwrap();
}

#[tokio::test]
async fn issue_19828_what_a_role_permits_changes_under_a_token() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[(Read, "a", "")]).await;
    for _ in 0..5 {
        user.range(get("a")).await.unwrap();
        denied(user.put(put("a", "1")).await);
        root.role_grant("u", (Write, "a", "")).await.unwrap();
        denied(user.range(get("a")).await);
        user.put(put("a", "1")).await.unwrap();
        root.role_revoke("u", "a", "").await.unwrap();
        denied(user.put(put("a", "1")).await);
        denied(user.range(get("a")).await);
        root.role_grant("u", (Read, "a", "")).await.unwrap();
    }
}

#[tokio::test]
async fn issue_19828_a_change_of_its_own_user_ends_a_token_at_once() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    guarded.add_user("other", &[(Read, "b", "")]).await;
    guarded.add_user("u", &[(Readwrite, "a", "")]).await;
    let mut password = "the password of u".to_owned();
    for change in 0..4 {
        let first = root.login("u", &password).await.unwrap();
        let second = root.login("u", &password).await.unwrap();
        let other = guarded.login("other").await;
        first.put(put("a", "1")).await.unwrap();
        match change {
            0 => {
                password = "another long password".to_owned();
                root.change_password("u", &password).await.map(drop)
            }
            1 => root.user_grant_role("u", "other").await.map(drop),
            2 => root.user_revoke_role("u", "other").await.map(drop),
            _ => root.role_delete("u").await.map(drop),
        }
        .unwrap();
        for token in [&first, &second] {
            bad_token(token.put(put("a", "2")).await);
            bad_token(token.range(get("a")).await);
            bad_token(token.status().await);
            bad_token(token.user_get("u").await);
            let watch = RawWatch::open(token).create(watch_key("a")).await;
            assert!(watch.canceled);
            bad_token(holdfast_tests::watch_refusal(&watch));
        }
        other.range(get("b")).await.unwrap();
        root.user_get("u").await.unwrap();
    }
}

/// The same password, set again, is a change, too: that is how one logs everybody out.
#[tokio::test]
async fn a_password_set_again_ends_its_tokens() {
    let guarded = Guarded::start().await;
    let user = guarded.user("u", &[(Readwrite, "a", "")]).await;
    let same = "the password of u";
    guarded.root.change_password("u", same).await.unwrap();
    bad_token(user.put(put("a", "1")).await);
    guarded.login("u").await.put(put("a", "1")).await.unwrap();
}

#[tokio::test]
async fn a_user_made_anew_under_the_same_name_is_another_user() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let grants = [(Readwrite, "a", "")];
    let old = guarded.user("u", &grants).await;
    old.put(put("a", "1")).await.unwrap();
    root.user_delete("u").await.unwrap();
    root.user_add("u", "the password of u").await.unwrap();
    turned_away(old.put(put("a", "2")).await);
    root.user_grant_role("u", "u").await.unwrap();
    for _ in 0..3 {
        turned_away(old.put(put("a", "2")).await);
        turned_away(old.range(get("a")).await);
        // As many changes as there were to the old one make it no more alike.
        root.role_set("u", &grants).await;
    }
    let new = guarded.login("u").await;
    new.put(put("a", "3")).await.unwrap();
    turned_away(old.put(put("a", "2")).await);
}

#[tokio::test]
async fn tokens_outlive_a_restart() {
    holdfast_only!();
    let mut guarded = Guarded::start().await;
    guarded.add_user("u", &[(Readwrite, "a", "")]).await;
    guarded.add_user("v", &[(Readwrite, "a", "")]).await;
    let raw = guarded.anonymous();
    let alive = raw.authenticate("u", "the password of u").await.unwrap();
    let dead = raw.authenticate("v", "the password of v").await.unwrap();
    guarded
        .root
        .change_password("v", "another long password")
        .await
        .unwrap();
    for crash in [true, false] {
        if crash {
            guarded.server.kill();
        } else {
            guarded.server.terminate();
        }
        guarded.server.restart();
        let raw = guarded.server.raw().await;
        raw.with_token(&alive).put(put("a", "1")).await.unwrap();
        bad_token(raw.with_token(&dead).put(put("a", "1")).await);
    }
}

#[tokio::test]
async fn a_token_of_another_cluster_is_no_token() {
    // etcd first waits until its log is as long as the other's was when the token was made.
    holdfast_only!();
    let (here, elsewhere) = (Guarded::start().await, Guarded::start().await);
    for guarded in [&here, &elsewhere] {
        guarded.add_user("u", &[(Readwrite, "a", "")]).await;
    }
    let raw = elsewhere.anonymous();
    let foreign = [
        raw.authenticate("u", "the password of u").await.unwrap(),
        raw.authenticate("root", ROOT_PASSWORD).await.unwrap(),
    ];
    for token in foreign {
        raw.with_token(&token).status().await.unwrap();
        let user = here.root.with_token(&token);
        bad_token(user.put(put("a", "1")).await);
        bad_token(user.status().await);
        bad_token(user.user_list().await);
    }
}

/// A server whose tokens live for two seconds.
async fn short_lived() -> Guarded {
    Guarded::start_with(ServerOptions::new().flag("--auth-token-ttl=2")).await
}

/// Waits until the token of `user` has ended by itself.
async fn expired(user: &Raw) {
    let limit = Duration::from_secs(20);
    // etcd prolongs a token by each use, so this asks seldom enough.
    let pause = Duration::from_secs(if is_reference() { 4 } else { 0 });
    eventually(limit, "the token ends", || async {
        tokio::time::sleep(pause).await;
        let status = user.range(get("a")).await.err()?;
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        Some(())
    })
    .await;
}

#[tokio::test]
async fn tokens_end_by_themselves() {
    let guarded = short_lived().await;
    guarded.add_user("u", &[(Readwrite, "a", "")]).await;
    let user = guarded.login("u").await;
    user.range(get("a")).await.unwrap();
    expired(&user).await;
    bad_token(user.put(put("a", "1")).await);
    guarded.login("u").await.put(put("a", "1")).await.unwrap();
}

/// A client would have to log in anew for each watch; revocation does not need that (`auth_revocation`).
#[tokio::test]
async fn a_watch_outlives_its_token() {
    let guarded = short_lived().await;
    guarded.add_user("u", &[(Readwrite, "a", "")]).await;
    let user = guarded.login("u").await;
    let (mut watch, _) = RawWatch::on(&user, watch_key("a")).await;
    expired(&user).await;
    guarded.login("u").await.put(put("a", "1")).await.unwrap();
    let events = watch.events(1).await;
    assert_eq!(event_text(&events[0]), "+a=1@2");
    // A new watch on the old stream is a new call with the old token.
    assert!(watch.create(watch_key("a")).await.canceled);
}
