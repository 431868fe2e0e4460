//! Attacks on tokens: forged, altered, old, of others, of users that are no more.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

mod security;

use holdfast_proto::admin as admin_pb;
use holdfast_tests::{
    Guarded,
    Kind::{Read, Readwrite},
    Raw, Server, ServerOptions, bad_token, denied, holdfast_only, password_of, turned_away,
    wire::{get, put},
};
use security::{
    TokenKey, dies,
    jwt::{message, now, sign_hs256, take_apart, with},
};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use tempfile::TempDir;
use tonic::Status;

/// A server whose tokens are signed with a key that the test has, too.
struct Forge {
    guarded: Guarded,
    raw: Raw,
    key: TokenKey,
    /// Of a good token of `alice`, who may read and write `a`.
    header: Value,
    claims: Value,
    _keys: TempDir,
}

impl Forge {
    async fn start() -> Self {
        let keys = tempfile::tempdir().unwrap();
        let key = TokenKey::new();
        let flag = key.flag(keys.path());
        let guarded = Guarded::start_with(ServerOptions::new().flag(flag)).await;
        guarded.add_user("alice", &[(Readwrite, "a", "")]).await;
        let raw = guarded.anonymous();
        let token = raw.authenticate("alice", &password_of("alice")).await;
        let (header, claims) = take_apart(&token.unwrap());
        let forge = Self {
            guarded,
            raw,
            key,
            header,
            claims,
            _keys: keys,
        };
        // What is forged without a fault passes: the other tests change one thing of it.
        forge
            .passes(&forge.key.sign(&forge.header, &forge.claims))
            .await;
        forge
    }

    /// The good token with other members in its header and claims, rightly signed.
    fn altered(&self, header: Value, claims: Value) -> String {
        let header = with(&self.header, header);
        self.key.sign(&header, &with(&self.claims, claims))
    }

    async fn passes(&self, token: &str) {
        self.raw.with_token(token).put(put("a", "1")).await.unwrap();
    }

    /// On a connection that has seen good tokens, and on a new one.
    async fn refuses(&self, token: &str) {
        for raw in [self.raw.clone(), self.guarded.server.raw().await] {
            let raw = raw.with_token(token);
            bad_token(raw.range(get("a")).await);
            bad_token(raw.put(put("a", "2")).await);
            bad_token(raw.status().await);
            bad_token(raw.user_list().await);
        }
        self.passes(&self.key.sign(&self.header, &self.claims))
            .await;
    }
}

#[tokio::test]
async fn alg_none_is_refused() {
    holdfast_only!();
    let forge = Forge::start().await;
    let good = forge.key.sign(&forge.header, &forge.claims);
    let signature = good.rsplit_once('.').unwrap().1;
    for alg in ["none", "None", "NONE", "nOnE", "", "null"] {
        let header = with(&forge.header, json!({ "alg": alg }));
        let message = message(&header, &forge.claims);
        for token in [
            format!("{message}."),
            message.clone(),
            format!("{message}.{signature}"),
        ] {
            forge.refuses(&token).await;
        }
    }
    for alg in [Value::Null, json!(0), json!(["EdDSA"]), json!({})] {
        let header = with(&forge.header, json!({ "alg": "x" }));
        let mut header = header.as_object().unwrap().clone();
        header.insert("alg".into(), alg);
        forge
            .refuses(&forge.key.sign(&header.into(), &forge.claims))
            .await;
    }
    forge
        .refuses(&forge.altered(json!({ "alg": null }), json!({})))
        .await;
}

#[tokio::test]
async fn the_public_key_as_the_secret_of_hs256_is_refused() {
    holdfast_only!();
    let forge = Forge::start().await;
    let pem = forge.key.public_pem();
    let header = with(&forge.header, json!({ "alg": "HS256" }));
    let root = with(&forge.claims, json!({ "sub": "root", "username": "root" }));
    for secret in [
        pem.as_bytes(),
        pem.trim_end().as_bytes(),
        forge.key.public(),
        b"",
    ] {
        for claims in [&forge.claims, &root] {
            forge.refuses(&sign_hs256(secret, &header, claims)).await;
            forge
                .refuses(&sign_hs256(secret, &forge.header, claims))
                .await;
        }
    }
    for alg in ["HS384", "RS256", "ES256", "PS256", "Ed25519", "eddsa"] {
        forge
            .refuses(&forge.altered(json!({ "alg": alg }), json!({})))
            .await;
    }
}

#[tokio::test]
async fn another_key_of_the_same_name_is_refused() {
    holdfast_only!();
    let forge = Forge::start().await;
    let mine = TokenKey::new();
    forge
        .refuses(&mine.sign(&forge.header, &forge.claims))
        .await;
    // A key that the token brings along is not used.
    let brings = with(&forge.header, json!({ "jwk": mine.jwk("mine") }));
    forge.refuses(&mine.sign(&brings, &forge.claims)).await;
    for kid in [
        json!("mine"),
        json!(""),
        json!("../token-key"),
        json!(7),
        Value::Null,
    ] {
        let mut header = forge.header.as_object().unwrap().clone();
        header.insert("kid".into(), kid);
        forge
            .refuses(&forge.key.sign(&header.into(), &forge.claims))
            .await;
    }
    forge
        .refuses(&forge.altered(json!({ "kid": null }), json!({})))
        .await;
}

#[tokio::test]
async fn tokens_of_another_tenant_audience_or_issuer_are_refused() {
    holdfast_only!();
    let forge = Forge::start().await;
    for claims in [
        json!({ "tenant": "other" }),
        json!({ "tenant": "" }),
        json!({ "tenant": ["default"] }),
        json!({ "tenant": null }),
        json!({ "aud": "holdfast:0" }),
        json!({ "aud": "" }),
        json!({ "aud": null }),
        json!({ "iss": "holdfast/0" }),
        json!({ "iss": null }),
        // Older states of the user.
        json!({ "uid": null }),
        json!({ "epoch": 0 }),
        json!({ "epoch": null }),
        json!({ "credential": null }),
        json!({ "username": "root" }),
        json!({ "sub": "root" }),
    ] {
        forge.refuses(&forge.altered(json!({}), claims)).await;
    }
    // As with a user that was deleted.
    let gone = forge.altered(json!({}), json!({ "uid": 999_999 }));
    turned_away(forge.raw.with_token(&gone).put(put("a", "2")).await);
}

#[tokio::test]
async fn expired_tokens_and_those_of_the_future_are_refused() {
    holdfast_only!();
    let forge = Forge::start().await;
    for claims in [
        json!({ "exp": now() - 1 }),
        json!({ "exp": now() }),
        json!({ "exp": 0 }),
        json!({ "exp": -1 }),
        json!({ "exp": (now() + 600).to_string() }),
        json!({ "exp": null }),
        json!({ "iat": now() + 3_600 }),
        json!({ "iat": now() + 3_600, "exp": now() + 7_200 }),
        json!({ "iat": null }),
        json!({ "nbf": now() + 3_600 }),
    ] {
        forge.refuses(&forge.altered(json!({}), claims)).await;
    }
}

#[tokio::test]
async fn a_token_of_1_mib_harms_nobody() {
    holdfast_only!();
    let forge = Forge::start().await;
    let other = forge.guarded.root.clone();
    for length in [8 * 1024 + 1, 31 * 1024, 64 * 1024, 1 << 20] {
        let rest = "x".repeat(length);
        let good = forge.key.sign(&forge.header, &forge.claims);
        for token in [
            rest.clone(),
            format!("{good}{rest}"),
            format!("{rest}{good}"),
        ] {
            // The whole connection may end with it.
            let raw = forge.guarded.server.raw().await;
            raw.with_token(&token).range(get("a")).await.unwrap_err();
            let padded = &[("token", &*good), ("padding", &*token)];
            let padded = raw.with_metadata(padded).range(get("a")).await;
            assert!(
                length < 32 * 1024 || padded.is_err(),
                "{length} bytes of headers"
            );
        }
        // A claim that long, too.
        let long = forge.altered(json!({}), json!({ "padding": rest }));
        let raw = forge.guarded.server.raw().await;
        raw.with_token(&long).range(get("a")).await.unwrap_err();
    }
    other.put(put("b", "1")).await.unwrap();
    forge.refuses(&"x".repeat(9_000)).await;
}

#[tokio::test]
async fn a_user_made_again_under_the_same_name_is_another() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let old = guarded.user("u", &[(Readwrite, "a", "")]).await;
    old.put(put("a", "1")).await.unwrap();
    let root = &guarded.root;
    root.user_delete("u").await.unwrap();
    root.user_add("u", &password_of("u")).await.unwrap();
    root.user_grant_role("u", "u").await.unwrap();
    let refused = |answer: Result<_, Status>| answer.map(drop).expect_err("the old token");
    refused(old.put(put("a", "2")).await.map(drop));
    refused(old.range(get("a")).await.map(drop));
    refused(old.status().await.map(drop));
    let new = guarded.login("u").await;
    new.put(put("a", "3")).await.unwrap();
    // Nor does it come back with the next one.
    refused(old.put(put("a", "4")).await.map(drop));
}

#[tokio::test]
async fn issue_13300_and_19828_unrelated_changes_leave_tokens_alone() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let alice = guarded.user("alice", &[(Readwrite, "a", "")]).await;
    guarded.add_user("bob", &[(Read, "b", "")]).await;
    let mut round = 0;
    let mut lives = async || {
        round += 1;
        alice.put(put("a", &round.to_string())).await.unwrap();
    };
    lives().await;
    root.user_add("carol", "a long password").await.unwrap();
    lives().await;
    root.change_password("bob", "another long password")
        .await
        .unwrap();
    lives().await;
    root.role_add("r").await.unwrap();
    root.role_grant("r", (Readwrite, "a", "z")).await.unwrap();
    lives().await;
    root.user_grant_role("bob", "r").await.unwrap();
    lives().await;
    root.user_revoke_role("bob", "r").await.unwrap();
    lives().await;
    guarded
        .anonymous()
        .login("carol", "a long password")
        .await
        .unwrap();
    lives().await;
    root.user_delete("carol").await.unwrap();
    root.role_delete("r").await.unwrap();
    lives().await;
    // What its role may do is another matter than who it is.
    root.role_grant("alice", (Readwrite, "c", ""))
        .await
        .unwrap();
    lives().await;
    alice.put(put("c", "1")).await.unwrap();
    root.role_revoke("alice", "c", "").await.unwrap();
    denied(alice.put(put("c", "2")).await);
    lives().await;
    // Its own password or roles end it at once.
    root.role_add("more").await.unwrap();
    root.user_grant_role("alice", "more").await.unwrap();
    bad_token(alice.put(put("a", "no")).await);
    let alice = guarded.login("alice").await;
    alice.put(put("a", "yes")).await.unwrap();
    root.user_revoke_role("alice", "more").await.unwrap();
    bad_token(alice.put(put("a", "no")).await);
    let alice = guarded.login("alice").await;
    root.change_password("alice", "another long password")
        .await
        .unwrap();
    bad_token(alice.put(put("a", "no")).await);
}

#[tokio::test]
async fn a_token_ends_at_its_time_also_on_an_open_connection() {
    holdfast_only!();
    let keys = tempfile::tempdir().unwrap();
    let jwt = TokenKey::new()
        .flag(keys.path())
        .replace("ttl=10m", "ttl=3s");
    for flags in [vec!["--auth-token-ttl=3"], vec![&*jwt]] {
        let options = flags
            .iter()
            .fold(ServerOptions::new(), |options, flag| options.flag(*flag));
        let guarded = Guarded::start_with(options).await;
        guarded.root.user_add("u", &password_of("u")).await.unwrap();
        guarded.root.user_grant_role("u", "root").await.unwrap();
        let user = guarded.login("u").await;
        user.put(put("a", "1")).await.unwrap();
        dies(&user, "the end of the token").await;
        let again = guarded.login("u").await;
        again.put(put("a", "2")).await.unwrap();
    }
}

type Admin = admin_pb::admin_client::AdminClient<holdfast_tests::Carrier>;

#[tokio::test]
async fn a_retired_key_is_refused_after_the_overlap_and_not_before() {
    holdfast_only!();
    let mut guarded = Guarded::start().await;
    let root = &guarded.root;
    guarded.add_user("u", &[(Readwrite, "a", "")]).await;
    let raw = guarded.anonymous();
    let old = raw.authenticate("u", &password_of("u")).await.unwrap();
    let user = raw.with_token(&old);
    user.put(put("a", "1")).await.unwrap();
    for stranger in [&raw, &user] {
        let mut admin = Admin::new(stranger.carrier.clone());
        let refused = admin.rotate_token_key(admin_pb::RotateTokenKeyRequest::default());
        refused.await.unwrap_err();
        let refused = admin.list_token_keys(admin_pb::ListTokenKeysRequest {});
        refused.await.unwrap_err();
    }
    let mut admin = Admin::new(root.carrier.clone());
    for overlap_seconds in [-1, i64::MIN, i64::MAX] {
        let request = admin_pb::RotateTokenKeyRequest { overlap_seconds };
        let status = admin.rotate_token_key(request).await.unwrap_err();
        assert_eq!(
            status.code(),
            tonic::Code::InvalidArgument,
            "{overlap_seconds}"
        );
    }
    let request = admin_pb::RotateTokenKeyRequest { overlap_seconds: 4 };
    let rotated = admin.rotate_token_key(request).await.unwrap().into_inner();
    // During the overlap both are good, on every connection.
    user.put(put("a", "2")).await.unwrap();
    let elsewhere = guarded.server.raw().await.with_token(&old);
    elsewhere.put(put("a", "3")).await.unwrap();
    let new = raw.authenticate("u", &password_of("u")).await.unwrap();
    let kid = |token: &str| take_apart(token).0["kid"].as_str().unwrap().to_owned();
    assert_eq!(kid(&new), rotated.key_id);
    assert_ne!(kid(&new), kid(&old));
    let renewed = raw.with_token(&new);
    renewed.put(put("a", "4")).await.unwrap();
    // Root's token is of the old key as well.
    let request = admin_pb::ListTokenKeysRequest {};
    let listed = admin.list_token_keys(request).await.unwrap().into_inner();
    let retires = |kid: &str| {
        let found = listed.keys.iter().find(|key| key.key_id == kid);
        found.unwrap().retires_at_unix
    };
    assert_eq!(retires(&kid(&new)), 0);
    assert_eq!(retires(&kid(&old)), rotated.previous_retire_at_unix);
    dies(&user, "the retirement on the connection that was used").await;
    dies(&elsewhere, "the retirement on another one").await;
    dies(root, "the retirement of root's").await;
    let late = now() as i64 - rotated.previous_retire_at_unix;
    assert!((0..10).contains(&late), "{late} s late");
    renewed.put(put("a", "5")).await.unwrap();
    // Nor does a restart bring it back.
    guarded.server.kill();
    guarded.server.restart();
    let raw = guarded.server.raw().await;
    bad_token(raw.with_token(&old).range(get("a")).await);
    raw.with_token(&new).put(put("a", "6")).await.unwrap();
}

#[tokio::test]
async fn the_token_key_is_for_its_owner_alone() {
    holdfast_only!();
    let mut server = Server::start();
    let path = server.data_dir().join("token-key");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    server.terminate();
    // Once others could read it, it is a secret no more.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let exit = server.try_restart().unwrap_err();
    assert!(exit.failed() && exit.says("token-key"), "{exit:#?}");
    for damaged in ["", "holdfast-token-key 2\n00\n", "garbage"] {
        fs::write(&path, damaged).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let exit = server.try_restart().unwrap_err();
        assert!(exit.failed() && exit.says("token-key"), "{exit:#?}");
    }
    fs::remove_file(&path).unwrap();
    server.restart();
    assert_eq!(mode(&path), 0o600);
}
