//! Files are continued after a stop, a crash, and damage.

use crate::{LONG, Log, Node};
use holdfast_audit::{Auditor, NodeKey, Notice, read};
use std::{
    fs::{self, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
};

#[test]
fn sessions_continue_one_chain() {
    let log = Log::new();
    for _ in 0..3 {
        log.session(2);
    }
    let report = log.assert_intact();
    assert_eq!(report.records, 6);
    assert_eq!(report.first.unwrap().seq, 0);
    let text = log.text();
    assert_eq!(text.matches(r#""type":"header""#).count(), 1);
    assert_eq!(text.matches(r#""was_stopped":true"#).count(), 2);
    assert_eq!(text.matches(r#""type":"start""#).count(), 3);
    assert_eq!(text.matches(r#""type":"stop""#).count(), 3);
}

/// Starts on what a crash left, records one request, stops. Gives what the operator hears.
fn recover(log: &Log) -> Vec<Notice> {
    let (auditor, notices) = Auditor::start(log.config()).unwrap();
    Node::new(&auditor).put(99);
    auditor.stop(LONG);
    notices
}

#[test]
fn a_file_that_a_crash_cut_off_anywhere_is_continued_and_nothing_is_cut() {
    let whole = Log::new();
    whole.session(2);
    let good = fs::read(&whole.path).unwrap();
    // The header with its seal and checkpoint is there or not, never in part: the file gets its name afterwards.
    let created: usize = good
        .split_inclusive(|byte| *byte == b'\n')
        .take(3)
        .map(<[u8]>::len)
        .sum();
    for length in created..=good.len() {
        let log = Log::new();
        fs::write(&log.path, &good[..length]).unwrap();
        fs::set_permissions(&log.path, Permissions::from_mode(0o600)).unwrap();
        let notices = recover(&log);
        let after = fs::read(&log.path).unwrap();
        assert!(after.starts_with(&good[..length]), "{length}");
        let report = log.assert_intact();
        assert_eq!(report.first.unwrap().seq, 0, "{length}");
        let text = String::from_utf8(after).unwrap();
        assert!(text.contains(r#""id":"0000000000000063""#), "{length}");

        let before = &good[..length];
        let torn = length - before.iter().rposition(|byte| *byte == b'\n').unwrap() - 1;
        let is_whole = length == good.len() || length == good.len() - 1;
        assert_eq!(notices.is_empty(), is_whole, "{length}: {notices:?}");
        if let [Notice::Resumed { torn_bytes, .. }] = notices.as_slice() {
            assert_eq!(*torn_bytes, torn as u64, "{length}");
        }
        assert!(
            text.contains(&format!(r#""torn_bytes":{torn}}}"#)),
            "{length}"
        );
    }
}

#[test]
fn an_empty_file_is_begun_and_a_foreign_one_left_alone() {
    let log = Log::new();
    fs::write(&log.path, "").unwrap();
    fs::set_permissions(&log.path, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(recover(&log), []);
    log.assert_intact();

    let log = Log::new();
    fs::write(&log.path, "root:x:0:0:\n").unwrap();
    let error = Auditor::start(log.config()).unwrap_err().to_string();
    assert!(
        error.contains("does not begin like an audit log"),
        "{error}"
    );
    assert_eq!(log.text(), "root:x:0:0:\n");
}

#[test]
fn a_file_that_was_changed_is_set_aside_and_the_chain_goes_on() {
    let log = Log::new();
    log.session(2);
    let text = log.text().replacen("alice", "mallo", 1);
    fs::write(&log.path, &text).unwrap();
    let notices = recover(&log);
    let [Notice::SetAside { to, why, .. }] = notices.as_slice() else {
        panic!("{notices:?}");
    };
    assert!(why.contains("was changed"), "{why}");
    assert_eq!(fs::read_to_string(to).unwrap(), text);
    let files = read::files(&log.path).unwrap();
    assert_eq!(files, [to.clone(), log.path.clone()]);
    // What was changed is still found, and nothing else is wrong.
    let report = log.verify();
    assert_eq!(report.problems.len(), 1, "{report:#?}");
}

#[test]
fn another_key_begins_another_file() {
    let mut log = Log::new();
    log.session(1);
    let first = log.key.public();
    log.key = NodeKey::from_seed([8; 32]).unwrap();
    let notices = recover(&log);
    assert!(
        matches!(notices.as_slice(), [Notice::SetAside { .. }]),
        "{notices:?}"
    );
    let mut options = log.options();
    let files = read::files(&log.path).unwrap();
    assert!(!read::verify(&files, &options).unwrap().is_intact());
    options.trusted.push(first);
    let report = read::verify(&files, &options).unwrap();
    assert!(report.is_intact() && report.is_trusted, "{report:#?}");
    // On their own word, the change shows.
    options.trusted.clear();
    let report = read::verify(&files, &options).unwrap();
    assert_eq!(report.problems.len(), 1, "{report:#?}");
}

#[test]
fn lines_that_others_append_are_not_passed_off_as_ours() {
    let log = Log::new();
    let (auditor, _) = Auditor::start(log.config()).unwrap();
    let node = Node::new(&auditor);
    node.put(1);
    assert!(auditor.flush(LONG));
    let mut file = OpenOptions::new().append(true).open(&log.path).unwrap();
    writeln!(file, r#"{{"type":"rpc","time":"forged"}}"#).unwrap();
    // Long enough that the file is looked at again.
    crate::until("the sink sees it", || {
        node.put(2);
        assert!(auditor.flush(LONG));
        log.text().contains("resumed") || !log.verify().is_intact()
    });
    auditor.stop(LONG);
    let says = log.text().contains(r#""was_stopped":false"#);
    assert!(says || !log.verify().is_intact());
}

#[test]
fn a_file_that_others_cut_off_is_set_aside_and_the_chain_goes_on() {
    let log = Log::new();
    let (auditor, _) = Auditor::start(log.config()).unwrap();
    let node = Node::new(&auditor);
    for id in 0..5 {
        node.put(id);
        assert!(auditor.flush(LONG));
    }
    let length = log.text().len() as u64;
    let file = OpenOptions::new().write(true).open(&log.path).unwrap();
    file.set_len(length / 2).unwrap();
    crate::until("the sink sees it", || {
        node.put(5);
        assert!(auditor.flush(LONG));
        read::files(&log.path).unwrap().len() == 2
    });
    auditor.stop(LONG);
    let notices = auditor.notices();
    assert!(
        matches!(notices.as_slice(), [Notice::SetAside { why, .. }] if why.contains("shorter")),
        "{notices:?}"
    );
    assert!(!log.verify().is_intact());
    let rest = [log.path.clone()];
    let report = read::verify(&rest, &log.options()).unwrap();
    assert!(report.is_intact(), "{:#?}", report.problems);
    // It continues what was written, not what was left of it.
    assert!(report.first.unwrap().seq >= 6, "{report:?}");
}

#[test]
fn only_one_process_writes_to_a_file() {
    let log = Log::new();
    let (auditor, _) = Auditor::start(log.config()).unwrap();
    let error = Auditor::start(log.config()).unwrap_err().to_string();
    assert!(error.contains("another process"), "{error}");
    auditor.stop(LONG);
    log.session(1);
    log.assert_intact();
}
