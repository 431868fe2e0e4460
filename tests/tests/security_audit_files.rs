//! The audit log as a promise: what is done only if it is told, what the files survive, and what nobody can change unseen.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

mod security;

use holdfast_tests::{
    Guarded, PATIENCE, Raw, ServerOptions, eventually, holdfast_only,
    wire::{get, put},
};
use security::{
    AuditFile,
    audit::{Audited, LeaseCall},
};
use serde_json::Value;
use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::Path,
    time::{Duration, Instant},
};
use tonic::Code;

const STRICT_PUTS: &str =
    "rules:\n- rpc: [KV/Put, Auth/*]\n  level: metadata\n  delivery: strict\n- level: metadata\n";

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
        root.user_add("unseen", "a long password")
            .await
            .unwrap_err();
        // What is told as well as possible goes on.
        root.lease_call("best effort").await;
        assert_eq!(value_of(root, "a").await, "seen");
    }
    let page = holdfast_tests::http_get(audited.guarded.server.port(), "/metrics")
        .await
        .body;
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
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{:?}",
            started.elapsed()
        );
    }
    // Read, it goes on.
    let draining = std::thread::spawn(move || {
        silent
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
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
        guarded
            .root
            .put(put("a", &index.to_string()))
            .await
            .unwrap();
    }
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
    let told = file
        .records()
        .into_iter()
        .filter(|record| record["rpc"] == "KV/Put" && record["stage"] == "begin");
    assert_eq!(told.count(), 600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_private_rotated_and_bounded() {
    holdfast_only!();
    let flags = ["--audit-file-max-bytes=1048576", "--audit-file-max-count=2"];
    let mut audited = Audited::start("", &flags).await;
    let files = |folder: &Path| -> Vec<_> {
        let entries = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let ours = |path: &std::path::PathBuf| path.to_string_lossy().contains("audit.log");
        entries.filter(ours).collect()
    };
    // Written until the oldest file has made room.
    let oldest = audited.folder.path().join("audit.log.00000000000000000000");
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut was_there = false;
    while !was_there || oldest.exists() {
        was_there |= oldest.exists();
        assert!(
            Instant::now() < deadline,
            "{:?}",
            files(audited.folder.path())
        );
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..16 {
            let raw = audited.guarded.root.clone();
            writers.spawn(async move {
                for index in 0..50 {
                    raw.put(put(&format!("w{writer}"), &index.to_string()))
                        .await
                        .unwrap();
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
    let middle = found
        .iter()
        .filter(|path| **path != audited.file.0)
        .max()
        .unwrap();
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
    let known = verdict.report["last_checkpoint"]
        .as_str()
        .unwrap()
        .to_owned();
    audited.guarded.server.restart();
    let raw = audited.guarded.server.raw().await;
    let root = raw
        .login("root", holdfast_tests::ROOT_PASSWORD)
        .await
        .unwrap();
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
    let begun = audited
        .file
        .records()
        .into_iter()
        .filter(|record| record["rpc"] == "KV/Put" && record["stage"] == "begin");
    let begun = begun.count();
    assert!(begun > answered, "{begun} told, {answered} answered");
    let verdict = audited.file.verify(&["--expect", &known]);
    assert!(verdict.is_intact(), "{verdict:?}");
    // It was not stopped, and says so.
    assert!(!audited.file.verify(&["--closed"]).is_intact());
    audited.guarded.server.restart();
    let resumed = |line: &Value| line["type"] == "resumed";
    let told = audited
        .file
        .lines()
        .into_iter()
        .rfind(resumed)
        .expect("a line of the resumption");
    assert_eq!(told["was_stopped"], false, "{told}");
    let exit = audited.guarded.server.terminate();
    assert!(
        exit.status.is_some_and(|status| status.success()),
        "{:?}",
        exit.status
    );
    let verdict = audited.file.verify(&["--closed", "--expect", &known]);
    assert!(verdict.is_proven, "{verdict:?}");
    let blocks = audited.file.blocks();
    assert!(
        blocks.iter().copied().eq(1..=blocks.len() as u64),
        "{blocks:?}"
    );
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
        audited
            .guarded
            .root
            .put(put(&format!("k{index}"), "v"))
            .await
            .unwrap();
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
        assert!(
            !verdict.is_proven && !verdict.is_intact(),
            "{what}: {verdict:?}"
        );
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
            check(
                &swapped.concat(),
                &format!("lines {at} and the next swapped"),
            );
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
    check(
        &[&lines[..3].concat()[..], forged, &lines[3..].concat()].concat(),
        "a line amid",
    );
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
