//! Whoever changes anything in a log is noticed, up to what the chain can prove.

use crate::Log;
use aws_lc_rs::digest;
use holdfast_audit::{
    NodeKey,
    read::{self, Position, Report, VerifyOptions},
};
use std::{fs, path::Path};

/// A log of two sessions: four checkpoints, and a `resumed` line in the middle.
fn two_sessions() -> Log {
    let log = Log::new();
    log.session(3);
    log.session(2);
    let report = log.assert_intact();
    assert_eq!((report.records, report.checkpoints), (5, 4), "{report:?}");
    log
}

fn lines_of(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}

fn verify(path: &Path, bytes: &[u8], options: &VerifyOptions) -> Report {
    fs::write(path, bytes).unwrap();
    read::verify(&[path.to_owned()], options).unwrap()
}

#[track_caller]
fn noticed(log: &Log, bytes: &[u8], what: &str) {
    let path = log.folder.path().join("tampered");
    let report = verify(&path, bytes, &log.options());
    assert!(!report.is_intact(), "not noticed: {what}");
}

#[test]
fn every_bit_counts() {
    let log = two_sessions();
    let good = fs::read(&log.path).unwrap();
    for at in 0..good.len() {
        for mask in [1, 0x20] {
            let mut bad = good.clone();
            bad[at] ^= mask;
            noticed(&log, &bad, &format!("byte {at} ^ {mask:#x}"));
        }
    }
}

#[test]
fn every_byte_that_is_removed_or_added_is_noticed() {
    let log = two_sessions();
    let good = fs::read(&log.path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad.remove(at);
        noticed(&log, &bad, &format!("byte {at} removed"));
    }
    for at in 0..=good.len() {
        let mut bad = good.clone();
        bad.insert(at, b'\n');
        noticed(&log, &bad, &format!("an empty line at byte {at}"));
    }
}

#[test]
fn lines_removed_repeated_reordered_or_inserted_are_noticed() {
    let log = two_sessions();
    let good = fs::read(&log.path).unwrap();
    let lines = lines_of(&good);
    let record = lines
        .iter()
        .find(|line| line.starts_with(br#"{"type":"rpc""#))
        .unwrap();
    for at in 0..=lines.len() {
        let mut bad = lines.clone();
        bad.insert(at, record);
        noticed(
            &log,
            &bad.concat(),
            &format!("record inserted before line {at}"),
        );
    }
    for at in 0..lines.len() {
        for to in 0..=lines.len() {
            let mut bad = lines.clone();
            bad.insert(to, lines[at]);
            noticed(&log, &bad.concat(), &format!("line {at} repeated at {to}"));
        }
        for other in at + 1..lines.len() {
            let mut bad = lines.clone();
            bad.swap(at, other);
            if bad != lines {
                noticed(&log, &bad.concat(), &format!("{at} and {other} swapped"));
            }
        }
    }
}

#[test]
fn any_run_of_lines_that_is_missing_is_noticed() {
    let log = two_sessions();
    let good = fs::read(&log.path).unwrap();
    let lines = lines_of(&good);
    let last = log.verify().last_checkpoint;
    let path = log.folder.path().join("tampered");
    let mut undetectable = 0;
    for from in 0..lines.len() {
        for to in from + 1..=lines.len() {
            let bad = [&lines[..from], &lines[to..]].concat().concat();
            let report = verify(&path, &bad, &log.options());
            // A file that is cut off after a checkpoint looks like one that was stopped there – unless the end is known from elsewhere.
            let is_cut = to == lines.len()
                && from > 0
                && lines[from - 1].starts_with(br#"{"type":"checkpoint""#);
            assert_eq!(
                report.is_intact(),
                is_cut,
                "lines {from}..{to}: {report:#?}"
            );
            undetectable += u64::from(is_cut);
            let options = VerifyOptions {
                expect: last,
                ..log.options()
            };
            let report = verify(&path, &bad, &options);
            assert!(!report.is_intact(), "lines {from}..{to}");
        }
    }
    assert_eq!(undetectable, 3);
    let options = VerifyOptions {
        expect: last,
        ..log.options()
    };
    assert!(verify(&path, &good, &options).is_intact());
}

#[test]
fn one_damage_is_one_problem_with_its_place() {
    let log = two_sessions();
    let mut bad = fs::read(&log.path).unwrap();
    let text = String::from_utf8(bad.clone()).unwrap();
    let at = text.find("alice").unwrap();
    bad[at] = b'A';
    let path = log.folder.path().join("tampered");
    let report = verify(&path, &bad, &log.options());
    let [problem] = report.problems.as_slice() else {
        panic!("{report:#?}");
    };
    // At the seal of the record's block.
    let seal = at + text[at..].find(r#"{"type":"seal""#).unwrap();
    assert_eq!(problem.offset, seal as u64, "{problem}");
    assert_eq!(
        problem.line as usize,
        text[..seal].matches('\n').count() + 1
    );
    assert!(problem.what.contains("was changed"), "{problem}");
}

/// Changes a record and computes all hashes anew, which needs no secret.
fn rehashed(good: &[u8]) -> Vec<u8> {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let text = String::from_utf8(good.to_vec())
        .unwrap()
        .replacen("alice", "mallo", 1);
    let mut chain = [0; 32];
    let mut block = Vec::new();
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        if line.starts_with(r#"{"type":"seal""#) {
            let mut hashed = digest::Context::new(&digest::SHA256);
            hashed.update(&chain);
            hashed.update(&block);
            chain.copy_from_slice(hashed.finish().as_ref());
            block.clear();
            let start = line.find(r#""chain":""#).unwrap() + 9;
            out.push_str(&format!("{}{}\"}}\n", &line[..start], hex(&chain)));
        } else {
            block.extend_from_slice(line.as_bytes());
            out.push_str(line);
        }
    }
    out.into_bytes()
}

#[test]
fn hashes_computed_anew_do_not_fit_the_signatures() {
    let log = two_sessions();
    let good = fs::read(&log.path).unwrap();
    let path = log.folder.path().join("tampered");
    let report = verify(&path, &rehashed(&good), &log.options());
    // The seals are as good as ours; the checkpoints are not.
    assert!(
        report
            .problems
            .iter()
            .all(|problem| problem.what.contains("checkpoint")),
        "{report:#?}"
    );
    assert!(!report.is_intact());
    let unchanged = rehashed(&good);
    assert_eq!(unchanged.len(), good.len());
}

#[test]
fn a_log_of_another_key_is_noticed_if_ours_is_known() {
    let ours = two_sessions();
    let mut forged = Log::new();
    forged.key = NodeKey::from_seed([66; 32]).unwrap();
    forged.session(3);
    let files = [forged.path.clone()];
    let report = read::verify(&files, &ours.options()).unwrap();
    assert!(!report.is_intact());
    assert!(!report.is_trusted);
    // Without a key from elsewhere it looks fine, and the report says that nothing is known of the key.
    let own_word = VerifyOptions {
        closed: true,
        ..VerifyOptions::default()
    };
    let report = read::verify(&files, &own_word).unwrap();
    assert!(report.is_intact(), "{report:#?}");
    assert!(!report.is_trusted);
    assert_eq!(report.keys, [forged.key.public()]);
}

#[test]
fn a_growing_log_has_an_end_that_is_not_proven_yet() {
    let log = two_sessions();
    let good = fs::read(&log.path).unwrap();
    let path = log.folder.path().join("growing");
    let growing = VerifyOptions {
        closed: false,
        ..log.options()
    };
    let lines = lines_of(&good);
    // Everything after the last but one checkpoint: resumed, seal | checkpoint | start …
    let signed = lines
        .iter()
        .take(lines.len() - 1)
        .rposition(|line| line.starts_with(br#"{"type":"checkpoint""#))
        .unwrap();
    for end in signed + 1..lines.len() {
        let report = verify(&path, &lines[..end].concat(), &growing);
        assert!(report.is_intact(), "{report:#?}");
        let is_proven = report.unsigned_blocks == 0 && report.unsealed_lines == 0;
        assert_eq!(is_proven, end == signed + 1, "{end}: {report:#?}");
    }
    // Half a line is an end, too, but not for a log that was stopped.
    let cut = &good[..good.len() - 1];
    assert!(verify(&path, cut, &growing).is_intact());
    assert!(!verify(&path, cut, &log.options()).is_intact());
}

#[test]
fn files_that_are_no_logs_are_problems_and_not_panics() {
    let log = Log::new();
    for bytes in [
        b"".as_slice(),
        b"\n",
        b"{\"type\":\"seal\"",
        b"{\"type\":\"header\",\"time\":\"\"}\n",
        b"\xff\xff\n{\"type\":\"checkpoint\",\n",
        b"{\"type\":\"seal\",\"seq\":18446744073709551615,\"lines\":0,\"chain\":\"0000000000000000000000000000000000000000000000000000000000000000\"}\n\n",
    ] {
        noticed(&log, bytes, &String::from_utf8_lossy(bytes));
    }
    let mut long = vec![b'x'; 1 << 20];
    long.push(b'\n');
    noticed(&log, &long, "a line of a mebibyte");
    assert_eq!(Position::default().seq, 0);
}
