//! The audit commands, on logs that the audit crate wrote.

#![expect(
    clippy::expect_used,
    reason = "a helper that cannot do its part fails the test"
)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, SystemTime},
};

use holdfast_audit::{
    Auditor, AuditorConfig, AuthMethod, Code, End, FileConfig, KeySpan, NodeKey, Outcome, Record,
    Rules, SinkConfig, Subject,
};

const PATIENCE: Duration = Duration::from_secs(60);

struct Log {
    folder: tempfile::TempDir,
    auditor: Auditor,
}

impl Log {
    /// A log with three requests: alice puts a/1, bob is refused a/2, and nobody fails at b.
    fn start() -> Log {
        let folder = tempfile::tempdir().expect("a folder");
        let key = NodeKey::from_seed([7; 32]).expect("a key");
        fs::write(
            folder.path().join("keys"),
            format!("# n1\n{}\n", key.public()),
        )
        .expect("written");
        let other = NodeKey::from_seed([8; 32]).expect("a key").public();
        fs::write(folder.path().join("wrong"), other.to_string()).expect("written");
        let mut config = AuditorConfig::new("n1", "cluster", "0.1.0", key);
        config.rules = Rules::parse("rules: [{level: keys}]").expect("rules");
        config.sinks = vec![SinkConfig::File(FileConfig::new(
            folder.path().join("audit.log"),
        ))];
        let (auditor, _) = Auditor::start(config).expect("an auditor");
        let log = Log { folder, auditor };
        let refused = |code| Outcome::Denied {
            code,
            reason: "etcdserver: permission denied",
        };
        log.record(Some("alice"), "KV/Put", b"a/1", Outcome::Ok);
        log.record(
            Some("bob"),
            "KV/Range",
            b"a/2",
            refused(Code::PermissionDenied),
        );
        let failed = Outcome::Failed {
            code: Code::Unavailable,
            reason: "etcdserver: no leader",
        };
        log.record(None, "KV/Put", b"b", failed);
        log
    }

    fn record(&self, principal: Option<&str>, rpc: &str, key: &[u8], outcome: Outcome<'_>) {
        let subject = Subject {
            tenant: "default",
            principal,
            auth: AuthMethod::None,
            source: None,
        };
        let plan = self.auditor.plan(&subject, rpc);
        let keys = plan.keys([KeySpan::Point(key)]);
        let record = Record {
            time: SystemTime::now(),
            id: 1,
            keys: &keys,
            object: None,
            request_bytes: 5,
        };
        let end = End {
            outcome,
            revision: Some(3),
            duration: Duration::from_millis(1),
        };
        self.auditor.writer().end(&plan, &record, &end);
        assert!(self.auditor.flush(PATIENCE));
    }

    fn stop(self) -> tempfile::TempDir {
        self.auditor.stop(PATIENCE);
        self.folder
    }
}

fn holdfastctl(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfastctl"));
    command.args(arguments).env_clear().current_dir(folder);
    command
}

fn run(arguments: &[&str], folder: &Path) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = holdfastctl(arguments, folder)
        .output()
        .expect("the binary runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code(), text(&stdout), text(&stderr))
}

const VERIFY: &[&str] = &["audit", "verify", "--public-key", "keys"];

#[test]
fn a_log_is_proven_with_its_key_only() {
    let folder = Log::start().stop();
    for place in ["audit.log", ".", "./audit.log"] {
        let (code, out, err) = run(&[VERIFY, &[place, "--closed"]].concat(), folder.path());
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        assert!(out.starts_with("audit.log: proven\n  1 files, "), "{out}");
        assert!(out.contains(" 3 records, 0 records lost"), "{out}");
    }
    let (code, out, _) = run(
        &[VERIFY, &["audit.log", "-w", "json"]].concat(),
        folder.path(),
    );
    assert_eq!(code, Some(0));
    assert!(out.starts_with("[{\"log\":\"audit.log\",\"proven\":true,\"files\":1,"));
    assert!(
        out.ends_with("\"problems\":[],\"more_problems\":0}]\n"),
        "{out}"
    );

    // Without a key, nothing is known of who signed; with another, it is known to be the wrong one.
    let (code, out, err) = run(&["audit", "verify", "audit.log"], folder.path());
    assert_eq!(code, Some(1));
    assert_eq!(err, "Error: not everything is proven\n");
    assert!(out.starts_with("audit.log: NOT PROVEN\n"), "{out}");
    let wrong = ["audit", "verify", "--public-key=wrong", "audit.log"];
    let (code, out, _) = run(&wrong, folder.path());
    assert_eq!(code, Some(1));
    assert!(out.starts_with("audit.log:1 "), "{out}");
}

#[test]
fn what_was_changed_is_named() {
    let folder = Log::start().stop();
    let path = folder.path().join("audit.log");
    let whole = fs::read_to_string(&path).expect("the log");
    let (_, out, _) = run(&[VERIFY, &["."]].concat(), folder.path());
    let last = out
        .lines()
        .find_map(|line| line.strip_prefix("  last checkpoint "));
    let last = last.expect("a checkpoint").to_owned();
    let expect = ["--expect", &last];

    let (code, _, _) = run(&[VERIFY, &expect, &["."]].concat(), folder.path());
    assert_eq!(code, Some(0));
    fs::write(&path, whole.replace("bob", "eve")).expect("written");
    let (code, out, _) = run(&[VERIFY, &["."]].concat(), folder.path());
    assert_eq!(code, Some(1));
    assert!(out.starts_with("audit.log:"), "{out}");
    let (code, out, _) = run(&[VERIFY, &[".", "-w", "json"]].concat(), folder.path());
    assert_eq!(code, Some(1));
    assert!(out.contains("\"proven\":false"), "{out}");
    assert!(
        out.contains("\"problems\":[{\"file\":\"audit.log\",\"line\":"),
        "{out}"
    );

    // What is cut off at the end in order is noticed by those who know that there was more.
    let lines: Vec<&str> = whole.lines().collect();
    let checkpoint = |line: &&str| line.starts_with("{\"type\":\"checkpoint\"");
    let last_but_one = lines[..lines.len() - 1].iter().rposition(checkpoint);
    let kept = last_but_one.map_or(1, |at| at + 1);
    fs::write(&path, lines[..kept].join("\n") + "\n").expect("written");
    let (code, out, _) = run(&[VERIFY, &expect, &["."]].concat(), folder.path());
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("known from elsewhere"), "{out}");
}

#[test]
fn records_are_found_by_what_they_say() {
    let folder = Log::start().stop();
    let lines = |arguments: &[&str]| {
        let (code, out, err) = run(
            &[&["audit", "grep", "."], arguments].concat(),
            folder.path(),
        );
        assert_eq!(err, "", "{arguments:?}");
        assert_eq!(
            code,
            Some(if out.is_empty() { 1 } else { 0 }),
            "{arguments:?}"
        );
        let whole = |line: &str| line.starts_with('{') && line.ends_with('}');
        assert!(out.lines().all(whole), "{out}");
        out.lines().count()
    };
    for (arguments, count) in [
        (&[][..], 3),
        (&["--principal", "alice"], 1),
        (&["--principal", ""], 1),
        (&["--principal", "al*"], 1),
        (&["--principal", "al"], 0),
        (&["--rpc", "KV/*"], 3),
        (&["--rpc", "KV/Put"], 2),
        (&["--rpc", "KV/Put", "--principal", "bob"], 0),
        (&["--outcome", "denied"], 1),
        (&["--outcome", "Unavailable"], 1),
        (&["--tenant", "default"], 3),
        (&["--tenant", "other"], 0),
        (&["--key-prefix", "a/"], 2),
        (&["--key-prefix", "a/2"], 1),
        (&["--since", "2020", "--until", "2999-12"], 3),
        (&["--until", "2020-01-01T00:00:00Z"], 0),
    ] {
        assert_eq!(lines(arguments), count, "{arguments:?}");
    }
}

#[test]
fn mistakes_are_named() {
    let folder = Log::start().stop();
    fs::write(folder.path().join("other.log"), "").expect("written");
    for (arguments, error) in [
        (
            &["audit", "verify"][..],
            "audit verify needs a file or a directory",
        ),
        (
            &["audit", "grep", "missing"],
            "cannot read missing: entity not found",
        ),
        (
            &["audit", "tail", "."],
            "audit tail is of one log; there are audit.log, other.log",
        ),
        (
            &["audit", "tail", "-n", "-1", "audit.log"],
            "--lines takes no number below 0",
        ),
        (
            &["audit", "verify", "--public-key", "keys,audit.log", "."],
            "audit.log:1: ",
        ),
        (
            &["audit", "verify", "--public-key", "nothing", "."],
            "cannot read the keys in nothing: No such file or directory (os error 2)",
        ),
        (
            &["audit", "verify", "--expect", "5", "audit.log"],
            "--expect \"5\": a position in an audit chain is",
        ),
        (
            &["audit", "grep", "--outcome", "bad", "audit.log"],
            "--outcome \"bad\": an outcome is",
        ),
        (
            &["audit", "grep", "--since", "yesterday", "audit.log"],
            "--since \"yesterday\": a time is",
        ),
    ] {
        let (code, out, err) = run(arguments, folder.path());
        assert_eq!((code, out.as_str()), (Some(128), ""), "{arguments:?}");
        assert!(err.starts_with(&format!("Error: {error}")), "{err}");
    }
    let (code, _, err) = run(&["audit", "verify", ".", "-w", "fields"], folder.path());
    assert_eq!(code, Some(4));
    assert_eq!(err, "Error: fields not supported as output format\n");
}

#[test]
fn the_end_of_a_log_is_shown_and_followed() {
    let log = Log::start();
    let folder: PathBuf = log.folder.path().to_owned();
    let (code, out, _) = run(&["audit", "tail", "-n", "2", "audit.log"], &folder);
    assert_eq!(code, Some(0));
    let shown: Vec<&str> = out.lines().collect();
    assert_eq!(shown.len(), 2, "{out}");
    assert!(
        shown[0].contains("\"bob\"") && shown[1].contains("\"b\""),
        "{out}"
    );

    let mut child = holdfastctl(&["audit", "tail", "-f", "-n1", "."], &folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("readable");
    assert!(next().contains("\"b\""));
    log.record(Some("carol"), "KV/Put", b"c", Outcome::Ok);
    assert!(next().contains("\"carol\""));
    child.kill().expect("killed");
    child.wait().expect("ended");
}
