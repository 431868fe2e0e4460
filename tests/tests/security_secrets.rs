//! Where secrets must not be, after everything that administrators do in a life was done: logs, audit, metrics, answers, snapshots and every
//! file of the data directory are searched, as they are, in base64 and in hexadecimal.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a panic is the report of a failure"
)]

mod security;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use holdfast_proto::{admin as admin_pb, etcdserverpb as pb};
use holdfast_tests::{
    Guarded,
    Kind::Readwrite,
    PATIENCE, Raw, RawWatch, ServerOptions, eventually, holdfast_only, watch_key,
    wire::{get, put},
};
use rustix::process::Signal;
use security::{AuditFile, Secured, Site, TokenKey, get as page, holds, snapshot};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tonic::Status;

type Admin = admin_pb::admin_client::AdminClient<holdfast_tests::Carrier>;

/// What must not be found, and where it may be.
struct Secret {
    what: String,
    forms: Vec<Vec<u8>>,
    /// The file that keeps it.
    home: Option<&'static str>,
}

#[derive(Default)]
struct Secrets(Vec<Secret>);

impl Secrets {
    fn add(&mut self, what: &str, secret: &[u8], home: Option<&'static str>) {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut forms = vec![
            secret.to_vec(),
            hex.to_uppercase().into_bytes(),
            hex.into_bytes(),
        ];
        // As a part of something longer, base64 is of three kinds, by where in its group of three bytes the secret begins. The first and last
        // characters depend on the neighbours.
        for shift in 0..3 {
            let shifted = [&b"xxx"[..shift], secret].concat();
            for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                let text = engine.encode(&shifted);
                let from = [0, 2, 3][shift];
                forms.push(text.as_bytes()[from..text.len() - 2].to_vec());
            }
        }
        forms.sort();
        forms.dedup();
        assert!(
            forms.iter().all(|form| form.len() >= 8),
            "{what} is too short to be searched for"
        );
        let what = what.to_owned();
        self.0.push(Secret { what, forms, home });
    }

    /// Everything in a PEM file that tells of the key: each line of its body, and the bytes.
    fn add_pem(&mut self, what: &str, pem: &str) {
        let body: Vec<_> = pem
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .collect();
        for line in &body {
            if line.len() >= 16 {
                self.add(&format!("a line of {what}"), line.as_bytes(), None);
            }
        }
        let der = STANDARD.decode(body.concat()).unwrap();
        // The inside of a PKCS #8 file of a small key: its private half stands near the front.
        self.add(what, &der[der.len() / 2 - 12..der.len() / 2 + 12], None);
        self.add(what, &der[30..54.min(der.len())], None);
    }

    fn search(&self, place: &str, bytes: &[u8], found: &mut Vec<String>) {
        for secret in &self.0 {
            if secret.home.is_some_and(|home| place.ends_with(home)) {
                continue;
            }
            for form in &secret.forms {
                if holds(bytes, form) {
                    let form = String::from_utf8_lossy(form);
                    found.push(format!("{} as {form:?} in {place}", secret.what));
                }
            }
        }
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

/// What was seen of the server beside its files.
#[derive(Default)]
struct Seen(Vec<(String, Vec<u8>)>);

impl Seen {
    fn add(&mut self, place: &str, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.to_owned(), bytes.into()));
    }

    fn refusal<T: std::fmt::Debug>(&mut self, what: &str, answer: Result<T, Status>) {
        let status = answer.expect_err(what);
        let text = format!("{status:?} {} {:?}", status.message(), status.metadata());
        self.add(what, text);
        self.add(what, status.details());
    }

    async fn pages(&mut self, secured: &Secured<'_>, site: &Site) {
        let shown = site.client("root");
        for path in [
            "/metrics",
            "/debug/vars",
            "/version",
            "/health",
            "/livez?verbose",
            "/readyz?verbose",
        ] {
            for dial in [
                secured.http(Some(&shown)),
                secured.metrics_http(Some(&shown)),
            ] {
                self.add(path, page(&dial, path).await.unwrap().text);
            }
        }
    }

    async fn answers(&mut self, root: &Raw) {
        self.add("Status", format!("{:?}", root.status().await.unwrap()));
        self.add(
            "AuthStatus",
            format!("{:?}", root.auth_status().await.unwrap()),
        );
        self.add("UserList", format!("{:?}", root.user_list().await.unwrap()));
        self.add(
            "UserGet",
            format!("{:?}", root.user_get("alice").await.unwrap()),
        );
        let mut admin = Admin::new(root.carrier.clone());
        let keys = admin
            .list_token_keys(admin_pb::ListTokenKeysRequest {})
            .await;
        self.add("ListTokenKeys", format!("{:?}", keys.unwrap()));
    }
}

#[test]
fn the_search_finds_a_secret_in_each_of_its_forms() {
    let mut secrets = Secrets::default();
    secrets.add("a password", password("x").as_bytes(), Some("its-home"));
    let text = password("x");
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    for before in ["", "a", "ab", "abc"] {
        let longer = format!("{before}{text} and more");
        for form in [
            longer.clone(),
            format!("{before}{hex}"),
            STANDARD.encode(&longer),
            URL_SAFE_NO_PAD.encode(&longer),
        ] {
            let mut found = Vec::new();
            secrets.search("a log", form.as_bytes(), &mut found);
            assert!(!found.is_empty(), "{form}");
            found.clear();
            secrets.search("folder/its-home", form.as_bytes(), &mut found);
            secrets.search("a log", &form.as_bytes()[..form.len() / 3], &mut found);
            assert!(found.is_empty(), "{found:?}");
        }
    }
}

/// Text of the kind that is a secret here; the marks make each one distinct.
fn password(of: &str) -> String {
    format!("Pw-{of}-9f1c!correct horse")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2021_28235_a_life_of_administration_leaves_no_secret_anywhere() {
    holdfast_only!();
    let site = Site::new();
    let audit = AuditFile(site.path("audit.log"));
    let rules = site.path("rules.yaml");
    fs::write(&rules, "rules:\n- level: keys\n").unwrap();
    let rules = format!("--audit-rules-file={}", rules.display());
    let flags = [&*audit.flag(), &rules, "--log-level=debug"];
    let mut secured = site.strict(&flags);
    let (mut secrets, mut seen) = (Secrets::default(), Seen::default());
    let data = secured.server.data_dir();
    let token_key = |data: &Path| {
        let text = fs::read_to_string(data.join("token-key")).unwrap();
        text.lines().nth(1).unwrap().to_owned()
    };
    let unhex = |hex: &str| -> Vec<u8> {
        let pairs = (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16));
        pairs.collect::<Result<_, _>>().unwrap()
    };
    secrets.add(
        "the first token key",
        &unhex(&token_key(&data)),
        Some("token-key"),
    );
    let audit_key = fs::read_to_string(data.join("audit-key")).unwrap();
    let audit_key = audit_key.split_whitespace().last().unwrap().to_owned();
    secrets.add("the audit key", &unhex(&audit_key), Some("audit-key"));
    secrets.add_pem(
        "the server's key",
        &fs::read_to_string(site.path("server.key")).unwrap(),
    );
    let shown = site.client("root");
    secrets.add_pem("root's key", &shown.key_pem);
    let passwords = [
        "root",
        "alice",
        "alice's new",
        "bob",
        "wrong",
        "nobody's",
        "short",
    ];
    for of in passwords {
        secrets.add(&format!("the password {of}"), password(of).as_bytes(), None);
    }

    let root = secured.raw(&shown).await;
    root.change_password("root", &password("root"))
        .await
        .unwrap();
    for (name, of) in [("alice", "alice"), ("bob", "bob")] {
        root.user_add(name, &password(of)).await.unwrap();
        root.role_add(name).await.unwrap();
        root.role_grant(name, (Readwrite, "a", "c")).await.unwrap();
        root.user_grant_role(name, name).await.unwrap();
    }
    let nobody = secured.raw(&site.nobody()).await;
    let mut tokens = Vec::new();
    for (name, of) in [("root", "root"), ("alice", "alice"), ("bob", "bob")] {
        tokens.push(nobody.authenticate(name, &password(of)).await.unwrap());
    }
    seen.refusal(
        "a wrong password",
        nobody.authenticate("alice", &password("wrong")).await,
    );
    seen.refusal(
        "an unknown user",
        nobody.authenticate("eve", &password("nobody's")).await,
    );
    // Mistakes that people make: a password where the name belongs is not one that can be kept out of the audit log, but of all else.
    seen.refusal(
        "a user twice",
        root.user_add("alice", &password("wrong")).await,
    );
    seen.refusal(
        "an unknown user",
        root.change_password("eve", &password("nobody's")).await,
    );
    seen.refusal(
        "not permitted",
        nobody
            .with_token(&tokens[1])
            .user_add("eve", &password("wrong"))
            .await,
    );
    seen.refusal(
        "nobody",
        nobody.change_password("alice", &password("wrong")).await,
    );
    let alice = nobody.with_token(&tokens[1]);
    alice.put(put("a", "1")).await.unwrap();
    let (watch, _) = RawWatch::on(&alice, watch_key("a")).await;
    seen.refusal("not permitted", alice.range(get("x")).await);
    alice
        .change_password("alice", &password("alice's new"))
        .await
        .unwrap();
    seen.refusal("an old token", alice.put(put("a", "2")).await);
    seen.refusal(
        "a damaged token",
        nobody.with_token(&format!("{}x", tokens[0])).status().await,
    );
    let bearer = format!("Bearer {}x", tokens[2]);
    let damaged = nobody.with_metadata(&[("authorization", &bearer)]);
    seen.refusal("a damaged token", damaged.status().await);
    tokens.push(
        nobody
            .authenticate("alice", &password("alice's new"))
            .await
            .unwrap(),
    );
    let mut admin = Admin::new(root.carrier.clone());
    let request = admin_pb::RotateTokenKeyRequest {
        overlap_seconds: 600,
    };
    admin.rotate_token_key(request).await.unwrap();
    secrets.add(
        "the second token key",
        &unhex(&token_key(&data)),
        Some("token-key"),
    );
    tokens.push(nobody.authenticate("bob", &password("bob")).await.unwrap());
    nobody
        .with_token(&tokens[4])
        .put(put("b", "1"))
        .await
        .unwrap();
    root.user_delete("bob").await.unwrap();
    drop(watch);
    for (index, token) in tokens.iter().enumerate() {
        let mut parts = token.splitn(3, '.');
        let (_, claims, signature) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
        secrets.add(&format!("token {index}"), token.as_bytes(), None);
        secrets.add(
            &format!("the claims of token {index}"),
            claims.as_bytes(),
            None,
        );
        secrets.add(
            &format!("the signature of token {index}"),
            signature.as_bytes(),
            None,
        );
    }
    seen.pages(&secured, &site).await;
    seen.answers(&root).await;
    seen.add("a snapshot", snapshot(&root).await);
    secured.server.signal(Signal::HUP);
    // What is in the store by now is there as tables, too, after a restart.
    secured.server.kill();
    secured.server.restart();
    let root = secured.raw(&shown).await;
    root.defragment().await;
    let nobody = secured.raw(&site.nobody()).await;
    nobody
        .with_token(&tokens[3])
        .put(put("a", "3"))
        .await
        .unwrap();
    seen.pages(&secured, &site).await;
    seen.answers(&root).await;
    seen.add("a snapshot", snapshot(&root).await);
    let told = || async { (!audit.end_of("KV/Put", "alice").await.is_null()).then_some(()) };
    eventually(PATIENCE, "the audit log", told).await;
    secured.server.terminate();

    seen.add("the log", secured.server.log().lines().join("\n"));
    let log = secured.server.log().lines().join("\n");
    assert!(
        log.contains("\"level\":\"debug\""),
        "the log is at its most talkative"
    );
    let mut searched = 0;
    for path in files(&data).into_iter().chain([audit.0.clone()]) {
        let bytes = fs::read(&path).unwrap();
        searched += bytes.len();
        seen.add(&path.display().to_string(), bytes);
    }
    let mut found = Vec::new();
    for (place, bytes) in &seen.0 {
        secrets.search(place, bytes, &mut found);
    }
    let places = seen.0.len();
    eprintln!(
        "{} secrets, {places} places, {searched} bytes of files",
        secrets.0.len()
    );
    assert!(found.is_empty(), "{found:#?}");

    // Hashes are in the store and the log, and nowhere else.
    let is_store =
        |place: &str| place.contains("/store/") || place.contains("/log/") || place == "a snapshot";
    let hashed = |bytes: &[u8]| holds(bytes, b"$argon2id$");
    let places: Vec<_> = seen
        .0
        .iter()
        .filter(|(_, bytes)| hashed(bytes))
        .map(|(place, _)| place)
        .collect();
    assert!(
        places.iter().any(|place| is_store(place)),
        "the search finds what is there: {places:?}"
    );
    assert!(places.iter().all(|place| is_store(place)), "{places:?}");
    // The search can find: these are where they belong.
    for (name, key) in [
        ("token-key", "the second token key"),
        ("audit-key", "the audit key"),
    ] {
        let secret = secrets.0.iter().find(|secret| secret.what == key).unwrap();
        let bytes = fs::read(data.join(name)).unwrap();
        assert!(
            secret.forms.iter().any(|form| holds(&bytes, form)),
            "{key} in {name}"
        );
    }
}

/// A call that the harness has no name for.
trait Defragment {
    async fn defragment(&self);
}

impl Defragment for Raw {
    async fn defragment(&self) {
        let request = pb::DefragmentRequest {};
        self.maintenance.clone().defragment(request).await.unwrap();
    }
}

#[tokio::test]
async fn files_with_keys_are_named_in_errors_and_never_quoted() {
    holdfast_only!();
    let folder = tempfile::tempdir().unwrap();
    let key = TokenKey::new();
    let flag = key.flag(folder.path());
    let body = key.private_pem().lines().nth(1).unwrap().to_owned();
    let jwt_key = folder.path().join("jwt.key");
    for damaged in [
        body.clone(),
        format!("-----BEGIN PRIVATE KEY-----\n{body}x\n-----END PRIVATE KEY-----\n"),
        format!("-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----\n"),
        format!("{}{}", key.private_pem(), key.private_pem()),
        format!("-----BEGIN PRIVATE KEY-----\n{body}"),
    ] {
        fs::write(&jwt_key, &damaged).unwrap();
        let exit = holdfast_tests::Server::refusal(ServerOptions::new().flag(flag.clone()));
        assert!(exit.failed() && exit.says("jwt.key"), "{exit:#?}");
        assert!(!exit.says(&body[..20]), "{exit:#?}");
    }
    // A secret on the command line is a mistake that is refused, not repeated.
    for value in [
        "jwt,sign-method=HS256,secret=hunter2hunter2",
        "hunter2hunter2",
        "simple,hunter2hunter2",
    ] {
        let exit = holdfast_tests::Server::refusal(
            ServerOptions::new().flag(format!("--auth-token={value}")),
        );
        assert!(exit.failed(), "{value}");
    }
}

#[tokio::test]
async fn an_error_tells_nothing_of_what_was_wrong_with_a_secret() {
    holdfast_only!();
    let guarded = Guarded::start_with(ServerOptions::new().flag("--log-level=debug")).await;
    let secret = "hunter2-and-then-some";
    let raw = guarded.anonymous();
    let mut texts = Vec::new();
    let mut keep = |answer: Result<(), Status>| {
        let status = answer.unwrap_err();
        texts.push(format!("{status:?} {:?}", status.metadata()));
    };
    keep(raw.authenticate("root", secret).await.map(drop));
    keep(raw.authenticate(&"u".repeat(5_000), secret).await.map(drop));
    keep(
        raw.authenticate("root", &secret.repeat(1_000))
            .await
            .map(drop),
    );
    keep(raw.user_add("u", secret).await.map(drop));
    keep(raw.change_password("root", secret).await.map(drop));
    keep(guarded.root.user_add("root", secret).await.map(drop));
    keep(
        guarded
            .root
            .change_password("nobody", secret)
            .await
            .map(drop),
    );
    keep(guarded.root.user_add("", secret).await.map(drop));
    keep(raw.with_token(secret).status().await.map(drop));
    keep(
        raw.with_metadata(&[("authorization", &format!("Bearer {secret}"))])
            .status()
            .await
            .map(drop),
    );
    keep(
        raw.with_metadata(&[("authorization", &format!("Basic {secret}"))])
            .status()
            .await
            .map(drop),
    );
    let hashed = pb::AuthUserAddRequest {
        name: "u".to_owned(),
        hashed_password: secret.to_owned(),
        ..Default::default()
    };
    keep(guarded.root.user_add_call(hashed).await.map(drop));
    texts.extend(guarded.server.log().lines());
    for text in texts {
        assert!(!text.contains("hunter2"), "{text}");
    }
}
