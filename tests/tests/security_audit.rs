//! The audit log from outside: what it tells and what it never does, what it survives, and what nobody can change unseen.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

mod security;

use holdfast_certs::testing::TestLeaf;
use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    Guarded,
    Kind::Readwrite,
    PATIENCE, Raw, RawWatch, ServerOptions, denied, eventually, holdfast_only, password_of, soon,
    unidentified, watch_key,
    wire::{IntoOp, always, b, get, put, range},
};
use rustix::process::Signal;
use security::{AuditFile, Site};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tonic::Code;

/// A guarded server with an audit file of its own.
struct Audited {
    folder: TempDir,
    file: AuditFile,
    guarded: Guarded,
}

impl Audited {
    /// With these rules, unless there are none.
    async fn start(rules: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = AuditFile::beside(folder.path());
        let mut options = ServerOptions::new().flag(file.flag());
        if !rules.is_empty() {
            let path = folder.path().join("rules.yaml");
            fs::write(&path, rules).unwrap();
            options = options.flag(format!("--audit-rules-file={}", path.display()));
        }
        for flag in flags {
            options = options.flag(*flag);
        }
        let guarded = Guarded::start_with(options).await;
        Self {
            folder,
            file,
            guarded,
        }
    }

    /// Gives the server other rules, and waits until its log says what became of them.
    async fn reload(&self, rules: &str, said: &'static str) {
        let server = &self.guarded.server;
        fs::write(self.folder.path().join("rules.yaml"), rules).unwrap();
        let mark = server.log().len();
        server.signal(Signal::HUP);
        let log = server.log().clone();
        let told = tokio::task::spawn_blocking(move || log.wait_after(mark, said, PATIENCE));
        assert!(soon("a line", told).await.unwrap().is_some(), "nothing said of {said:?}");
    }
}

#[tokio::test]
async fn every_call_is_told_with_who_from_where_and_what_came_of_it() {
    holdfast_only!();
    let audited = Audited::start("", &[]).await;
    let guarded = &audited.guarded;
    let file = &audited.file;
    let user = guarded.user("alice", &[(Readwrite, "a", "")]).await;
    user.put(put("a", "a value that nobody writes down")).await.unwrap();
    let done = file.end_of("KV/Put", "alice").await;
    assert_eq!(done["outcome"], "OK");
    assert_eq!((&done["class"], &done["auth"]), (&json!("ok"), &json!("token")));
    assert_eq!((&done["tenant"], &done["revision"]), (&json!("default"), &json!(2)));
    assert!(done["source"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(done["request_bytes"].as_u64().unwrap() > 30);
    assert!(done["time"].as_str().unwrap().ends_with('Z'));
    user.range(get("a")).await.unwrap();
    assert_eq!(file.end_of("KV/Range", "alice").await["class"], "ok");
    denied(user.delete(holdfast_tests::wire::del("b")).await);
    let refused = file.end_of("KV/DeleteRange", "alice").await;
    assert_eq!(refused["class"], "denied");
    assert_eq!(refused["outcome"], "PermissionDenied");
    unidentified(guarded.anonymous().compact(1).await);
    let refused = file
        .record("a call of nobody", |record| record["rpc"] == "KV/Compact")
        .await;
    assert_eq!((&refused["class"], &refused["principal"]), (&json!("denied"), &Value::Null));
    guarded.anonymous().authenticate("alice", "wrong, and secret").await.unwrap_err();
    let login = |class: &'static str, name: &'static str| {
        move |record: &Value| {
            record["rpc"] == "Auth/Authenticate" && record["class"] == class && record["object"] == name
        }
    };
    file.record("the failed login", login("denied", "alice")).await;
    file.record("the good login", login("ok", "alice")).await;
    guarded.anonymous().authenticate("nobody", "x").await.unwrap_err();
    file.record("the login of nobody", login("denied", "nobody")).await;
    file.end_of("Auth/UserAdd", "root").await;
    file.end_of("Auth/RoleGrantPermission", "root").await;
    let watching = RawWatch::open(&user).create(watch_key("b")).await;
    assert!(watching.canceled);
    file.record("the refused watch", |record| {
        record["rpc"] == "Watch/Watch" && record["class"] == "denied"
    })
    .await;
    let text = String::from_utf8(file.bytes()).unwrap();
    for secret in ["a value", "wrong, and secret", &password_of("alice"), "$argon2id"] {
        assert!(!text.contains(secret), "{secret:?} in the audit log");
    }
    // By default keys are not told.
    assert!(file.records().iter().all(|record| record.get("keys").is_none()));
}

const LEVELS: &str = r"
rules:
- key_prefix: plain/
  level: keys
- key_prefix: hashed/
  level: keys_hashed
- rpc: KV/Range
  outcome: ok
  level: none
- level: metadata
";

#[tokio::test]
async fn keys_are_told_as_the_rules_say_and_values_never() {
    holdfast_only!();
    let audited = Audited::start(LEVELS, &[]).await;
    let (root, file) = (&audited.guarded.root, &audited.file);
    let value = "value-of-the-test";
    for key in ["plain/1", "hashed/1", "hashed/2", "hashed/1", "silent/1"] {
        root.put(put(key, value)).await.unwrap();
    }
    let txn = always(vec![put("plain/in a txn", value).op(), put("x", value).op()]);
    root.txn(txn).await.unwrap();
    root.range(get("silent/1")).await.unwrap();
    root.range(range("plain/", "plain0")).await.unwrap();
    root.range(range("a", "z")).await.unwrap();
    root.lease_call("the last of all").await;
    file.end_of("Lease/LeaseGrant", "root").await;
    let puts: Vec<_> = file.records().into_iter().filter(|record| record["rpc"] == "KV/Put").collect();
    assert_eq!(puts.len(), 5);
    assert_eq!(puts[0]["keys"], json!([["plain/1"]]));
    assert_eq!(puts[0].get("keys_hashed"), None);
    for hashed in &puts[1..4] {
        assert_eq!(hashed.get("keys"), None);
        assert!(hashed["keys_hashed"][0][0].as_str().unwrap().len() >= 16);
    }
    assert_eq!(puts[1]["keys_hashed"], puts[3]["keys_hashed"], "the same key is recognised");
    assert_ne!(puts[1]["keys_hashed"], puts[2]["keys_hashed"]);
    assert_eq!((puts[4].get("keys"), puts[4].get("keys_hashed")), (None, None));
    let txn = file.end_of("KV/Txn", "root").await;
    assert_eq!(txn["keys"][0], json!(["plain/in a txn"]));
    let ranges: Vec<_> = file.records().into_iter().filter(|record| record["rpc"] == "KV/Range").collect();
    assert!(ranges.iter().all(|record| record.get("keys").is_some()), "{ranges:?}");
    assert_eq!(ranges.len(), 2, "that of silent/1 is not told: {ranges:?}");
    let text = String::from_utf8(file.bytes()).unwrap();
    for never in [value, "hashed/1", "hashed/2", "silent/1"] {
        assert!(!text.contains(never), "{never:?} in the audit log");
    }
}

/// A call that is not on keys.
trait LeaseCall {
    async fn lease_call(&self, what: &str);
}

impl LeaseCall for Raw {
    async fn lease_call(&self, what: &str) {
        let request = pb::LeaseGrantRequest { ttl: 60, id: 0 };
        self.grant(request).await.expect(what);
    }
}

#[tokio::test]
async fn no_byte_of_a_client_breaks_a_line() {
    holdfast_only!();
    let audited = Audited::start("rules:\n- level: keys\n", &[]).await;
    let (guarded, file) = (&audited.guarded, &audited.file);
    let forged = "x\"}\n{\"type\":\"rpc\",\"principal\":\"root\",\"forged\":true}\n";
    let rows: [&[u8]; 7] = [
        forged.as_bytes(),
        b"\xff\xfe\x00\x80",
        b"\r\n\t\x1b[2J\x7f",
        "\u{202e}txet\u{2066}".as_bytes(),
        "\u{feff}\u{2028}".as_bytes(),
        b"\\\"\\u0000",
        &[b'k'; 5_000],
    ];
    for key in rows {
        let key = bytes::Bytes::copy_from_slice(key);
        guarded.root.put(pb::PutRequest { key: key.clone(), ..put("", "v") }).await.unwrap();
        guarded.root.range(pb::RangeRequest { key, range_end: b("\0"), ..Default::default() }).await.unwrap();
    }
    for name in [forged, "a\u{0}b", "\u{202e}toor", "x\r\ny", &"n".repeat(3_000)] {
        guarded.anonymous().authenticate(name, name).await.unwrap_err();
        let _ = guarded.root.user_add(name, "a long password").await;
        let _ = guarded.root.user_get(name).await;
        let _ = guarded.root.with_token(&name.escape_debug().to_string()).range(get("a")).await;
    }
    guarded.root.lease_call("the last").await;
    file.end_of("Lease/LeaseGrant", "root").await;
    check_lines(file);
    assert!(file.verify(&[]).is_intact());
}

#[track_caller]
fn check_lines(file: &AuditFile) {
    for line in file.lines() {
        assert_eq!(line.get("forged"), None, "{line}");
        assert!(line["type"].is_string(), "{line}");
    }
    let bytes = file.bytes();
    let control = |byte: &u8| (*byte < 0x20 && *byte != b'\n') || *byte == 0x7f;
    assert!(!bytes.iter().any(control), "control characters");
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.contains(['\u{202e}', '\u{2066}', '\u{2028}', '\u{feff}']));
}

#[tokio::test]
async fn no_name_in_a_certificate_breaks_a_line() {
    holdfast_only!();
    let site = Site::new();
    let file = AuditFile(site.path("audit.log"));
    let secured = site.strict(&[&file.flag()]);
    for name in [
        "x\"}\n{\"type\":\"rpc\",\"forged\":true}\n",
        "\u{202e}toor",
        "a\u{7f}\u{1b}[2J",
        "\\",
    ] {
        let shown = site.issue(&TestLeaf::client(name));
        if let Ok(raw) = secured.try_raw(Some(&shown)).await {
            raw.range(get("a")).await.unwrap_err();
        }
    }
    secured.root().await.lease_call("the last").await;
    let last = file.end_of("Lease/LeaseGrant", "root").await;
    assert_eq!(last["auth"], "certificate");
    check_lines(&file);
}

const STRICT_PUTS: &str = "rules:\n- rpc: [KV/Put, Auth/*]\n  level: metadata\n  delivery: strict\n- level: metadata\n";

/// The put is refused for the audit log's sake, soon, and not carried out.
async fn is_refused(root: &Raw, limit: Duration) {
    let started = Instant::now();
    let status = root.put(put("a", "unseen")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("audit"), "{status:?}");
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
}

async fn value_of(root: &Raw, key: &str) -> String {
    let answer = root.range(get(key)).await.unwrap();
    holdfast_tests::wire::values(&answer).join(",")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_a_file_that_fails_refuses_what_it_would_not_tell() {
    holdfast_only!();
    let audited = Audited::start(STRICT_PUTS, &["--audit-deadline=1s"]).await;
    let (root, file) = (&audited.guarded.root, &audited.file);
    root.put(put("a", "seen")).await.unwrap();
    // The record of the beginning is there before the answer.
    let told = file.records().into_iter().any(|record| {
        record["rpc"] == "KV/Put" && record["stage"] == "begin" && record["principal"] == "root"
    });
    assert!(told, "{:?}", file.records());
    // In the file's place now stands something that cannot be written.
    let aside = audited.folder.path().join("aside.log");
    fs::rename(&file.0, &aside).unwrap();
    fs::create_dir(&file.0).unwrap();
    let broken = || async { root.put(put("b", "x")).await.err() };
    eventually(PATIENCE, "the failure is noticed", broken).await;
    for _ in 0..3 {
        is_refused(root, Duration::from_secs(5)).await;
        root.user_add("unseen", "a long password").await.unwrap_err();
        // What is told as well as possible goes on.
        root.lease_call("best effort").await;
        assert_eq!(value_of(root, "a").await, "seen");
    }
    let page = holdfast_tests::http_get(audited.guarded.server.port(), "/metrics").await.body;
    let refused = security::sample(&page, "holdfast_audit_refused_requests_total");
    assert!(refused.unwrap() >= 6.0, "{refused:?}");
    // The old file comes back: all goes on, in the same chain.
    fs::remove_dir(&file.0).unwrap();
    fs::rename(&aside, &file.0).unwrap();
    let works = || async { root.put(put("a", "seen again")).await.ok() };
    eventually(PATIENCE, "puts are taken again", works).await;
    assert_eq!(root.user_list().await.unwrap(), ["root"]);
    let mut audited = audited;
    audited.guarded.server.terminate();
    let verdict = audited.file.verify(&["--closed"]);
    assert!(verdict.is_proven, "{verdict:?}");
    let lost = verdict.report["lost"].as_u64().unwrap();
    assert!(lost >= 3, "what was lost is told: {verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_a_sink_that_hangs_refuses_within_its_deadline() {
    holdfast_only!();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("syslog");
    // Somebody listens and never reads.
    let silent = UnixDatagram::bind(&socket).unwrap();
    let rules = folder.path().join("rules.yaml");
    fs::write(&rules, STRICT_PUTS).unwrap();
    let options = ServerOptions::new()
        .flag(format!("--audit-log=syslog:{}", socket.display()))
        .flag(format!("--audit-rules-file={}", rules.display()))
        .flag("--audit-deadline=500ms");
    let guarded = Guarded::start_with(options).await;
    let root = &guarded.root;
    let full = || async { root.put(put("b", "x")).await.err() };
    let status = eventually(Duration::from_secs(60), "the socket is full", full).await;
    assert_eq!(status.code(), Code::Unavailable);
    for _ in 0..5 {
        is_refused(root, Duration::from_secs(3)).await;
        let started = Instant::now();
        assert_eq!(value_of(root, "a").await, "");
        root.lease_call("best effort").await;
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
    // Read, it goes on.
    let draining = std::thread::spawn(move || {
        silent.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut datagram = [0; 65_536];
        let mut seen = 0_usize;
        while silent.recv(&mut datagram).is_ok() {
            seen += 1;
        }
        seen
    });
    let works = || async { root.put(put("a", "seen")).await.ok() };
    eventually(PATIENCE, "puts are taken again", works).await;
    drop(guarded);
    assert!(draining.join().unwrap() > 0);
}

#[tokio::test]
async fn strict_one_good_sink_is_enough() {
    holdfast_only!();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("syslog");
    let _silent = UnixDatagram::bind(&socket).unwrap();
    let file = AuditFile::beside(folder.path());
    let rules = folder.path().join("rules.yaml");
    fs::write(&rules, STRICT_PUTS).unwrap();
    let options = ServerOptions::new()
        .flag(format!("{},syslog:{}", file.flag(), socket.display()))
        .flag(format!("--audit-rules-file={}", rules.display()))
        .flag("--audit-deadline=500ms");
    let guarded = Guarded::start_with(options).await;
    let started = Instant::now();
    for index in 0..600 {
        guarded.root.put(put("a", &index.to_string())).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let told = file.records().into_iter().filter(|record| {
        record["rpc"] == "KV/Put" && record["stage"] == "begin"
    });
    assert_eq!(told.count(), 600);
}

#[tokio::test]
async fn rules_are_reloaded_by_sighup_and_a_bad_file_changes_nothing() {
    holdfast_only!();
    let audited = Audited::start("rules:\n- level: metadata\n", &[]).await;
    let (root, file) = (&audited.guarded.root, &audited.file);
    root.put(put("before", "v")).await.unwrap();
    let first = file.end_of("KV/Put", "root").await;
    assert_eq!(first.get("keys"), None);
    for bad in [
        "rules:\n- level: everything\n",
        "rules:\n- level: keys\n  unknown: 1\n",
        "rules: 1\n",
        "\u{0}\u{1}",
        "",
    ] {
        audited.reload(bad, "those in use stay").await;
    }
    root.put(put("between", "v")).await.unwrap();
    root.lease_call("a mark").await;
    file.end_of("Lease/LeaseGrant", "root").await;
    assert!(file.records().iter().all(|record| record.get("keys").is_none()));
    audited.reload("rules:\n- rpc: KV/Put\n  level: keys\n- level: none\n", "reloaded the audit log").await;
    root.put(put("after", "v")).await.unwrap();
    let told = file.record("the put after", |record| record["keys"][0][0] == "after").await;
    assert_eq!(told["rpc"], "KV/Put");
    // The change of the rules is in the log itself.
    let rules = |line: &&Value| line.get("generation").is_some();
    assert!(file.lines().iter().filter(rules).count() >= 2, "{:?}", file.lines());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_private_rotated_and_bounded() {
    holdfast_only!();
    let flags = ["--audit-file-max-bytes=1048576", "--audit-file-max-count=2"];
    let mut audited = Audited::start("", &flags).await;
    let files = |folder: &Path| -> Vec<_> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let ours = |path: &std::path::PathBuf| path.to_string_lossy().contains("audit.log");
        entries.filter(ours).collect()
    };
    // Written until the oldest file has made room.
    let oldest = audited.folder.path().join("audit.log.00000000000000000000");
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut was_there = false;
    while !was_there || oldest.exists() {
        was_there |= oldest.exists();
        assert!(Instant::now() < deadline, "{:?}", files(audited.folder.path()));
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..16 {
            let raw = audited.guarded.root.clone();
            writers.spawn(async move {
                for index in 0..50 {
                    raw.put(put(&format!("w{writer}"), &index.to_string())).await.unwrap();
                }
            });
        }
        writers.join_all().await;
    }
    audited.guarded.server.terminate();
    let found = files(audited.folder.path());
    assert_eq!(found.len(), 3, "{found:?}");
    for path in &found {
        let metadata = fs::metadata(path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{path:?}");
        // A file is left when it is full; what waited for it at that moment is written whole.
        assert!(metadata.len() < 17 << 20, "{path:?}: {}", metadata.len());
    }
    let verdict = audited.file.verify(&["--closed"]);
    assert!(verdict.is_proven, "{verdict:?}");
    assert_eq!(verdict.report["files"], 3);
    assert_eq!(verdict.report["lost"], 0);
    // The ones before are known to have been: the chain does not begin anew.
    assert!(!verdict.report["first"].as_str().unwrap().starts_with("0:"));
    // One that is missing is missed.
    let middle = found.iter().filter(|path| **path != audited.file.0).max().unwrap();
    fs::remove_file(middle).unwrap();
    assert!(!audited.file.verify(&["--closed"]).is_intact());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chain_goes_on_over_restarts_and_sigkill() {
    holdfast_only!();
    let mut audited = Audited::start(STRICT_PUTS, &[]).await;
    audited.guarded.root.put(put("a", "1")).await.unwrap();
    audited.guarded.server.terminate();
    let verdict = audited.file.verify(&["--closed"]);
    assert!(verdict.is_proven, "{verdict:?}");
    let known = verdict.report["last_checkpoint"].as_str().unwrap().to_owned();
    audited.guarded.server.restart();
    let raw = audited.guarded.server.raw().await;
    let root = raw.login("root", holdfast_tests::ROOT_PASSWORD).await.unwrap();
    // Killed amid writes: what was answered was told before.
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let root = root.clone();
        writers.spawn(async move {
            let mut answered = 0_usize;
            while root.put(put(&format!("w{writer}"), "v")).await.is_ok() {
                answered += 1;
            }
            answered
        });
    }
    let some = || async {
        let begun = audited.file.records().len();
        (begun > 300).then_some(())
    };
    eventually(PATIENCE, "some hundred records", some).await;
    audited.guarded.server.kill();
    let answered: usize = writers.join_all().await.into_iter().sum();
    let begun = audited.file.records().into_iter().filter(|record| {
        record["rpc"] == "KV/Put" && record["stage"] == "begin"
    });
    let begun = begun.count();
    assert!(begun > answered, "{begun} told, {answered} answered");
    let verdict = audited.file.verify(&["--expect", &known]);
    assert!(verdict.is_intact(), "{verdict:?}");
    // It was not stopped, and says so.
    assert!(!audited.file.verify(&["--closed"]).is_intact());
    audited.guarded.server.restart();
    let resumed = |line: &Value| line["type"] == "resumed";
    let told = audited.file.lines().into_iter().rfind(resumed).expect("a line of the resumption");
    assert_eq!(told["was_stopped"], false, "{told}");
    let exit = audited.guarded.server.terminate();
    assert!(exit.status.is_some_and(|status| status.success()), "{:?}", exit.status);
    let verdict = audited.file.verify(&["--closed", "--expect", &known]);
    assert!(verdict.is_proven, "{verdict:?}");
    let blocks = audited.file.blocks();
    assert!(blocks.iter().copied().eq(1..=blocks.len() as u64), "{blocks:?}");
}

/// A copy of the log with other bytes.
fn altered(folder: &Path, bytes: &[u8]) -> AuditFile {
    let copy = AuditFile(folder.join("copy.log"));
    fs::write(&copy.0, bytes).unwrap();
    copy
}

#[tokio::test]
async fn no_change_of_a_file_goes_unseen() {
    holdfast_only!();
    let mut audited = Audited::start("rules:\n- level: keys\n", &[]).await;
    for index in 0..5 {
        audited.guarded.root.put(put(&format!("k{index}"), "v")).await.unwrap();
        audited.guarded.root.range(get("a")).await.unwrap();
    }
    audited.guarded.server.terminate();
    let verdict = audited.file.verify(&["--closed"]);
    assert!(verdict.is_proven, "{verdict:?}");
    let folder = tempfile::tempdir().unwrap();
    let keys = audited.file.0.with_file_name("audit-keys");
    let good = audited.file.bytes();
    let check = |bytes: &[u8], what: &str| {
        let verdict = altered(folder.path(), bytes).verify_by(&keys, &["--closed"]);
        assert!(!verdict.is_proven && !verdict.is_intact(), "{what}: {verdict:?}");
    };
    let copy = altered(folder.path(), &good).verify_by(&keys, &["--closed"]);
    assert!(copy.is_proven, "{copy:?}");
    for at in (0..good.len()).step_by(good.len() / 150 + 1) {
        let mut changed = good.clone();
        changed[at] ^= 1;
        check(&changed, &format!("a bit of byte {at}"));
    }
    let lines: Vec<&[u8]> = good.split_inclusive(|byte| *byte == b'\n').collect();
    for at in 0..lines.len() {
        let without = [&lines[..at], &lines[at + 1..]].concat().concat();
        check(&without, &format!("line {at} taken out"));
        let twice = [&lines[..=at], &lines[at..]].concat().concat();
        check(&twice, &format!("line {at} twice"));
        if at + 1 < lines.len() {
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            check(&swapped.concat(), &format!("lines {at} and the next swapped"));
        }
        if at > 0 && at + 1 < lines.len() {
            // To a checkpoint and the end of a stop a cut shows only by what is known from elsewhere.
            let cut = lines[..at].concat();
            let known = verdict.report["last_checkpoint"].as_str().unwrap();
            let verdict = altered(folder.path(), &cut).verify_by(&keys, &["--expect", known]);
            assert!(!verdict.is_intact(), "cut off at line {at}: {verdict:?}");
        }
    }
    let forged = b"{\"type\":\"rpc\",\"principal\":\"root\"}\n";
    check(&[&good[..], forged].concat(), "a line at the end");
    check(&[&lines[..3].concat()[..], forged, &lines[3..].concat()].concat(), "a line amid");
    check(b"", "an empty file");
    // A whole log of somebody else's key.
    let other = Audited::start("", &[]).await;
    let verdict = other.file.verify_by(&keys, &[]);
    assert!(!verdict.is_intact() && !verdict.is_proven, "{verdict:?}");
}

#[tokio::test]
async fn logs_that_others_could_write_or_that_are_no_files_are_refused() {
    holdfast_only!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let flag = AuditFile::beside(folder.path()).flag();
    for make in [
        |path: &Path| fs::create_dir(path).unwrap(),
        |path: &Path| std::os::unix::fs::symlink("/dev/null", path).unwrap(),
        |path: &Path| {
            let target = path.with_file_name("elsewhere");
            fs::write(&target, "not ours").unwrap();
            std::os::unix::fs::symlink(target, path).unwrap();
        },
    ] {
        make(&path);
        let exit = holdfast_tests::Server::refusal(ServerOptions::new().flag(flag.clone()));
        assert!(exit.failed() && exit.says("audit.log"), "{exit:#?}");
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
    }
    let elsewhere = fs::read_to_string(folder.path().join("elsewhere"));
    assert_eq!(elsewhere.unwrap(), "not ours");
}
