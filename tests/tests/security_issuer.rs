//! Tokens of an external issuer: whom they make, whom they never make, and forged ones.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

mod security;

use holdfast_proto::admin as admin_pb;
use holdfast_tests::{
    Guarded,
    Kind::{Read, Readwrite},
    PATIENCE, Raw, RawWatch, ServerOptions, bad_token, denied, holdfast_only, password_of, soon,
    watch_key,
    wire::{get, put},
};
use rustix::process::Signal;
use security::{
    TokenKey, dies,
    jwt::{message, now, sign_hs256, take_apart, with},
};
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};
use tempfile::TempDir;
use tonic::Status;

type Admin = admin_pb::admin_client::AdminClient<holdfast_tests::Carrier>;

/// A server that takes tokens of an external issuer, and that issuer's key.
struct External {
    guarded: Guarded,
    raw: Raw,
    key: TokenKey,
    folder: TempDir,
}

impl External {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = TokenKey::new();
        let file = folder.path().join("keys.json");
        let external = Self::write(&file, &[key.jwk("ext-1")]);
        let options = ServerOptions::new()
            .flag(external)
            .flag("--auth-jwt-issuer=https://issuer.example")
            .flag("--auth-jwt-audience=the store")
            .flag("--auth-jwt-roles-claim=groups");
        let guarded = Guarded::start_with(options).await;
        let root = &guarded.root;
        root.role_add("readers").await.unwrap();
        root.role_grant("readers", (Read, "r", "")).await.unwrap();
        guarded.add_user("alice", &[(Readwrite, "a", "")]).await;
        guarded.add_user("boss", &[]).await;
        root.user_grant_role("boss", "root").await.unwrap();
        let raw = guarded.anonymous();
        Self {
            guarded,
            raw,
            key,
            folder,
        }
    }

    fn write(file: &Path, keys: &[Value]) -> String {
        let beside = file.with_extension("new");
        fs::write(&beside, json!({ "keys": keys }).to_string()).unwrap();
        fs::rename(&beside, file).unwrap();
        format!("--auth-jwks-file={}", file.display())
    }

    fn header() -> Value {
        json!({ "alg": "EdDSA", "kid": "ext-1", "typ": "JWT" })
    }

    /// Good claims of this subject, with other members in their place.
    fn claims(subject: &str, groups: &[&str], members: Value) -> Value {
        let claims = json!({
            "iss": "https://issuer.example",
            "aud": ["somebody else", "the store"],
            "sub": subject,
            "groups": groups,
            "iat": now(),
            "exp": now() + 600,
        });
        with(&claims, members)
    }

    fn as_user(&self, subject: &str, groups: &[&str]) -> Raw {
        let claims = Self::claims(subject, groups, json!({}));
        self.raw
            .with_token(&self.key.sign(&Self::header(), &claims))
    }
}

#[tokio::test]
async fn an_external_token_is_its_user_and_its_roles() {
    holdfast_only!();
    let external = External::start().await;
    // A user of ours has its own roles, whatever the token says.
    let alice = external.as_user("alice", &["readers"]);
    alice.put(put("a", "1")).await.unwrap();
    denied(alice.range(get("r")).await);
    // A stranger has those of the token, as far as there are any.
    let carol = external.as_user("carol", &["readers", "nothing of ours"]);
    carol.range(get("r")).await.unwrap();
    denied(carol.put(put("r", "1")).await);
    denied(carol.range(get("a")).await);
    denied(external.as_user("carol", &[]).range(get("r")).await);
    denied(external.as_user("carol", &["alice2"]).range(get("a")).await);
    // A change of the role acts at once, on watches too.
    let (mut watch, _) = RawWatch::on(&carol, watch_key("r")).await;
    external
        .guarded
        .root
        .role_revoke("readers", "r", "")
        .await
        .unwrap();
    let answer = watch.next().await;
    assert!(answer.canceled && answer.events.is_empty(), "{answer:?}");
    denied(carol.range(get("r")).await);
    // Tokens of our own are as good as before.
    external
        .guarded
        .login("alice")
        .await
        .put(put("a", "2"))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_external_token_is_never_root() {
    holdfast_only!();
    let external = External::start().await;
    for (subject, groups) in [
        ("root", &[][..]),
        ("root", &["root"]),
        ("root", &["readers"]),
        ("boss", &[]),
        ("boss", &["root"]),
        ("carol", &["root"]),
        ("carol", &["readers", "root"]),
        ("carol", &["Root", "ROOT", " root", "root "]),
    ] {
        let raw = external.as_user(subject, groups);
        let refused = |answer: Result<(), Status>| {
            assert!(answer.is_err(), "{subject} with {groups:?}");
        };
        refused(raw.put(put("x", "1")).await.map(drop));
        refused(raw.user_list().await.map(drop));
        refused(raw.user_add("mallory", "a long password").await.map(drop));
        refused(raw.user_grant_role("carol", "root").await.map(drop));
        refused(raw.disable_auth().await.map(drop));
        let mut admin = Admin::new(raw.carrier.clone());
        let request = admin_pb::RotateTokenKeyRequest::default();
        refused(admin.rotate_token_key(request).await.map(drop));
    }
}

#[tokio::test]
async fn forged_external_tokens_are_refused() {
    holdfast_only!();
    let external = External::start().await;
    let header = External::header();
    let claims = External::claims("alice", &[], json!({}));
    let good = external.key.sign(&header, &claims);
    external
        .raw
        .with_token(&good)
        .put(put("a", "1"))
        .await
        .unwrap();
    let own = external
        .raw
        .authenticate("alice", &password_of("alice"))
        .await
        .unwrap();
    let own = take_apart(&own);
    let signed = |header: &Value, claims: &Value| external.key.sign(header, claims);
    let says = |members: Value| signed(&header, &with(&claims, members));
    let headed = |members: Value| signed(&with(&header, members), &claims);
    let hs256 = with(&header, json!({ "alg": "HS256" }));
    for token in [
        says(json!({ "iss": "https://issuer.example/" })),
        says(json!({ "iss": "https://evil.example" })),
        says(json!({ "iss": null })),
        says(json!({ "aud": "somebody else" })),
        says(json!({ "aud": [] })),
        says(json!({ "aud": null })),
        says(json!({ "exp": now() - 1 })),
        says(json!({ "exp": null })),
        says(json!({ "nbf": now() + 3_600 })),
        says(json!({ "iat": now() + 3_600 })),
        says(json!({ "sub": null })),
        says(json!({ "sub": "" })),
        says(json!({ "sub": ["alice"] })),
        says(json!({ "groups": [1] })),
        headed(json!({ "alg": "none" })),
        headed(json!({ "alg": "HS256" })),
        headed(json!({ "alg": "ES256" })),
        headed(json!({ "kid": "ext-2" })),
        headed(json!({ "kid": null })),
        headed(json!({ "kid": own.0["kid"] })),
        TokenKey::new().sign(&header, &claims),
        sign_hs256(external.key.public(), &hs256, &claims),
        sign_hs256(external.key.public_pem().as_bytes(), &hs256, &claims),
        format!(
            "{}.",
            message(&with(&header, json!({ "alg": "none" })), &claims)
        ),
        // Our own issuer's name with the external key, under either name of it.
        signed(&own.0, &own.1),
        signed(&header, &own.1),
        signed(&header, &with(&claims, json!({ "iss": own.1["iss"] }))),
    ] {
        bad_token(external.raw.with_token(&token).put(put("a", "2")).await);
    }
    external
        .raw
        .with_token(&good)
        .put(put("a", "3"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_key_taken_out_of_the_set_ends_its_tokens() {
    holdfast_only!();
    let external = External::start().await;
    let alice = external.as_user("alice", &[]);
    alice.put(put("a", "1")).await.unwrap();
    let file = external.folder.path().join("keys.json");
    let server = &external.guarded.server;
    // A file that is no key set changes nothing.
    let mark = server.log().len();
    fs::write(&file, "{").unwrap();
    server.signal(Signal::HUP);
    let log = server.log().clone();
    let told =
        tokio::task::spawn_blocking(move || log.wait_after(mark, "keys of tokens", PATIENCE));
    soon("a line in the log", told)
        .await
        .unwrap()
        .expect("a line in the log");
    alice.put(put("a", "2")).await.unwrap();
    External::write(&file, &[TokenKey::new().jwk("ext-2")]);
    server.signal(Signal::HUP);
    dies(&alice, "the end of the key on an open connection").await;
    let elsewhere = server.raw().await;
    let claims = External::claims("alice", &[], json!({}));
    let token = external.key.sign(&External::header(), &claims);
    bad_token(elsewhere.with_token(&token).range(get("a")).await);
    tokio::time::timeout(Duration::from_secs(5), external.guarded.login("alice"))
        .await
        .expect("tokens of our own are made");
}
