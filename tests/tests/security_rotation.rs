//! Keys of tokens that change, and tokens of other issuers that end.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

mod security;

use holdfast_proto::{admin as admin_pb, etcdserverpb as pb};
use holdfast_tests::{
    Guarded,
    Kind::Readwrite,
    ROOT_PASSWORD, Raw, RawWatch, Server, ServerOptions, bad_token, denied, eventually,
    holdfast_only, password_of, soon, watch_key,
    wire::{get, put},
};
use security::{
    TokenKey,
    jwt::{now, take_apart},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    pin::pin,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

type Admin = admin_pb::admin_client::AdminClient<holdfast_tests::Carrier>;

const YEAR_SECONDS: i64 = 365 * 24 * 60 * 60;

async fn rotate(by: &Raw, overlap_seconds: i64) -> Result<(), Status> {
    let request = admin_pb::RotateTokenKeyRequest { overlap_seconds };
    let mut admin = Admin::new(by.carrier.clone());
    admin.rotate_token_key(request).await.map(drop)
}

#[tokio::test]
async fn more_rotations_than_are_remembered_leave_a_node_that_starts() {
    holdfast_only!();
    let mut guarded = Guarded::start().await;
    let raw = guarded.anonymous();
    let mut by = guarded.root.clone();
    let mut refusals = Vec::new();
    let mut older = String::new();
    for turn in 0..70 {
        if turn % 20 == 0 {
            // The first keys are forgotten on the way.
            older = raw.authenticate("root", ROOT_PASSWORD).await.unwrap();
            by = raw.with_token(&older);
        }
        refusals.extend(rotate(&by, YEAR_SECONDS).await.err());
    }
    let newest = raw.authenticate("root", ROOT_PASSWORD).await.unwrap();
    let works = async |server: &Server| {
        let raw = server.raw().await;
        for token in [&newest, &older] {
            raw.with_token(token).put(put("a", "1")).await.unwrap();
        }
        let fresh = raw.login("root", ROOT_PASSWORD).await.unwrap();
        fresh.put(put("a", "2")).await.unwrap();
    };
    works(&guarded.server).await;
    guarded.server.terminate();
    guarded.server.restart();
    works(&guarded.server).await;
    guarded.server.kill();
    guarded.server.restart();
    works(&guarded.server).await;
    // A key that leaked can be replaced at any time.
    assert!(refusals.is_empty(), "{refusals:?}");
}

/// Makes a call, and gives it up after this time, to the microsecond; tells whether it ended before that.
async fn give_up<F: Future>(after: Duration, call: F) -> bool {
    let begun = Instant::now();
    let mut call = pin!(call);
    while begun.elapsed() < after {
        tokio::select! {
            biased;
            _ = &mut call => return true,
            () = tokio::task::yield_now() => {}
        }
    }
    false
}

/// A fresh login, once keys that are to retire sign no more; and the key of its token.
async fn lasting_login(raw: &Raw, what: &str) -> (Raw, String) {
    let login = || async {
        let token = raw.authenticate("root", ROOT_PASSWORD).await.unwrap();
        let key = take_apart(&token).0["kid"].as_str().unwrap().to_owned();
        let fresh = raw.with_token(&token);
        // A rotation that was given up may go on meanwhile, and the key retire in this very second.
        fresh.put(put("a", "1")).await.ok()?;
        let mut admin = Admin::new(fresh.carrier.clone());
        let listed = admin.list_token_keys(admin_pb::ListTokenKeysRequest {});
        let listed = listed.await.ok()?.into_inner();
        let of_it = listed.keys.iter().find(|listed| listed.key_id == key);
        (of_it?.retires_at_unix == 0).then_some((fresh, key))
    };
    eventually(Duration::from_secs(3), what, login).await
}

#[tokio::test]
async fn a_rotation_that_its_client_gives_up_leaves_logins_working() {
    holdfast_only!();
    let mut guarded = Guarded::start().await;
    let raw = guarded.anonymous();
    let begun = Instant::now();
    for _ in 0..4 {
        rotate(&guarded.root, 600).await.unwrap();
    }
    let step = begun.elapsed() / 40;
    let mut after = step;
    let mut keys = BTreeSet::new();
    let mut given_up = 0;
    for turn in 0..60 {
        let (root, key) = lasting_login(&raw, &format!("a login before rotation {turn}")).await;
        keys.insert(key);
        let overlap_seconds = if turn < 55 { 600 } else { 1 };
        let rotation = rotate(&root, overlap_seconds);
        // Later each time, until one is done before that.
        if give_up(after, rotation).await {
            after = after * 3 / 5;
        } else {
            given_up += 1;
            after += step;
        }
    }
    eprintln!(
        "{given_up} given up, {} keys, the last after {after:?}",
        keys.len()
    );
    assert!(given_up > 0 && keys.len() > 1);
    // Time must pass here: the last overlaps end.
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    let (root, _) = lasting_login(&raw, "a login after the last rotation").await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    root.put(put("a", "1")).await.unwrap();
    guarded.server.kill();
    guarded.server.restart();
    lasting_login(&guarded.server.raw().await, "a login after a restart").await;
}

/// A server that takes tokens of an external issuer, and that issuer's key.
struct External {
    guarded: Guarded,
    raw: Raw,
    key: TokenKey,
    _folder: TempDir,
}

impl External {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = TokenKey::new();
        let file = folder.path().join("keys.json");
        let keys = json!({ "keys": [key.jwk("ext-1")] });
        fs::write(&file, keys.to_string()).unwrap();
        let options = ServerOptions::new()
            .flag(format!("--auth-jwks-file={}", file.display()))
            .flag("--auth-jwt-issuer=https://issuer.example")
            .flag("--auth-jwt-audience=the store")
            .flag("--auth-jwt-roles-claim=groups");
        let guarded = Guarded::start_with(options).await;
        let root = &guarded.root;
        root.role_add("r").await.unwrap();
        root.role_grant("r", (Readwrite, "r", "")).await.unwrap();
        let raw = guarded.anonymous();
        Self {
            guarded,
            raw,
            key,
            _folder: folder,
        }
    }

    fn as_user(&self, subject: &str, groups: Value, ends: u64) -> Raw {
        let header = json!({ "alg": "EdDSA", "kid": "ext-1", "typ": "JWT" });
        let claims = json!({
            "iss": "https://issuer.example",
            "aud": "the store",
            "sub": subject,
            "groups": groups,
            "iat": now(),
            "exp": ends,
        });
        self.raw.with_token(&self.key.sign(&header, &claims))
    }
}

/// The refusal that ended a stream at this time.
#[track_caller]
fn ended<T: std::fmt::Debug>(answer: Result<T, Status>, ends: u64) {
    bad_token(answer);
    assert!((ends..=ends + 5).contains(&now()), "{} for {ends}", now());
}

#[tokio::test]
async fn streams_of_an_external_token_end_with_it() {
    holdfast_only!();
    let external = External::start().await;
    let ends = now() + 4;
    let carol = external.as_user("carol", json!(["r"]), ends);
    let (mut watch, _) = RawWatch::on(&carol, watch_key("r")).await;
    let (mut other, _) = RawWatch::on(&carol, watch_key("r")).await;
    let request = pb::LeaseGrantRequest { ttl: 600, id: 10 };
    carol.grant(request).await.unwrap();
    let (sender, receiver) = mpsc::channel(8);
    let request = pb::LeaseKeepAliveRequest { id: 10 };
    sender.send(request).await.unwrap();
    let requests = ReceiverStream::new(receiver);
    let answer = carol.lease.clone().lease_keep_alive(requests).await;
    let mut leases = answer.unwrap().into_inner();
    assert!(soon("a keep-alive", leases.message()).await.is_ok());
    let root = &external.guarded.root;
    root.put(put("r", "before")).await.unwrap();
    assert_eq!(watch.events(1).await.len(), 1);
    assert_eq!(other.events(1).await.len(), 1);
    let renewed = external.as_user("carol", json!(["r"]), now() + 600);
    let (mut lasting, _) = RawWatch::on(&renewed, watch_key("r")).await;
    let within = Duration::from_secs(8);
    let (watched, other, kept) = tokio::join!(
        tokio::time::timeout(within, watch.message()),
        tokio::time::timeout(within, other.message()),
        tokio::time::timeout(within, leases.message()),
    );
    ended(watched.expect("the watch goes on"), ends);
    ended(other.expect("the other watch goes on"), ends);
    ended(kept.expect("the keep-alive goes on"), ends);
    drop(sender);
    // On the same connection.
    root.put(put("r", "afterwards")).await.unwrap();
    assert_eq!(lasting.events(1).await.len(), 1);
}

#[tokio::test]
async fn an_external_caller_changes_no_password() {
    holdfast_only!();
    let external = External::start().await;
    let guarded = &external.guarded;
    guarded.add_user("erin", &[(Readwrite, "e", "")]).await;
    let erin = external.as_user("erin", json!([]), now() + 600);
    erin.put(put("e", "1")).await.unwrap();
    denied(erin.change_password("erin", "a password of theirs").await);
    let carol = external.as_user("carol", json!(["r"]), now() + 600);
    denied(carol.change_password("erin", "a password of theirs").await);
    let theirs = external.raw.login("erin", "a password of theirs").await;
    assert!(theirs.is_err());
    let erin = guarded.login("erin").await;
    // Of itself it may.
    let own = erin.change_password("erin", "another password").await;
    own.unwrap();
    assert!(
        external
            .raw
            .login("erin", &password_of("erin"))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_null_in_place_of_roles_is_no_roles() {
    holdfast_only!();
    let external = External::start().await;
    let carol = external.as_user("carol", Value::Null, now() + 600);
    denied(carol.range(get("r")).await);
    denied(carol.put(put("r", "1")).await);
    assert!(carol.auth_status().await.is_ok());
    // As a user of ours is known by its own roles.
    let guarded = &external.guarded;
    guarded.add_user("erin", &[(Readwrite, "e", "")]).await;
    let erin = external.as_user("erin", Value::Null, now() + 600);
    erin.put(put("e", "1")).await.unwrap();
    denied(erin.range(get("r")).await);
}
