//! Full files make room for new ones, in one chain.

use crate::{LONG, Log, Node, until};
use holdfast_audit::{Auditor, AuditorConfig, SinkConfig, read};
use std::fs;

fn small(log: &Log, keep: usize) -> AuditorConfig {
    let mut file = log.file();
    file.max_bytes = 3000;
    file.keep = keep;
    AuditorConfig {
        sinks: vec![SinkConfig::File(file)],
        ..log.config()
    }
}

/// Records requests until there are so many rotated files.
fn fill(log: &Log, auditor: &Auditor, files: usize) {
    let node = Node::new(auditor);
    let mut id = 0;
    until("rotation", || {
        node.put(id);
        assert!(auditor.flush(LONG));
        id += 1;
        read::files(&log.path).unwrap().len() > files
    });
}

#[test]
fn rotated_files_are_one_chain() {
    let log = Log::new();
    for round in 1..4 {
        let (auditor, notices) = Auditor::start(small(&log, 100)).unwrap();
        assert_eq!(notices, []);
        fill(&log, &auditor, round * 3);
        auditor.stop(LONG);
    }
    let report = log.assert_intact();
    assert_eq!(report.first.unwrap().seq, 0);
    assert!(report.files >= 10, "{report:?}");
    let files = read::files(&log.path).unwrap();
    assert_eq!(files.last(), Some(&log.path));
    for file in &files {
        let size = fs::metadata(file).unwrap().len();
        assert!(size < 6000, "{}: {size}", file.display());
    }
}

#[test]
fn a_file_that_is_missing_cut_off_or_out_of_place_is_noticed() {
    let log = Log::new();
    let (auditor, _) = Auditor::start(small(&log, 100)).unwrap();
    fill(&log, &auditor, 4);
    auditor.stop(LONG);
    let files = read::files(&log.path).unwrap();
    let verify = |files: &[std::path::PathBuf]| read::verify(files, &log.options()).unwrap();
    assert!(verify(&files).is_intact());
    // The oldest ones may be gone: the report says where it begins.
    let report = verify(&files[1..]);
    assert!(
        report.is_intact() && report.first.unwrap().seq > 0,
        "{report:#?}"
    );
    for missing in 1..files.len() - 1 {
        let mut some = files.clone();
        some.remove(missing);
        assert!(!verify(&some).is_intact(), "{missing}");
    }
    for first in 0..files.len() {
        for second in first + 1..files.len() {
            let mut some = files.clone();
            some.swap(first, second);
            assert!(!verify(&some).is_intact(), "{first} {second}");
        }
    }
    let whole = fs::read(&files[1]).unwrap();
    for length in 0..whole.len() {
        fs::write(&files[1], &whole[..length]).unwrap();
        assert!(!verify(&files).is_intact(), "{length}");
    }
}

#[test]
fn only_so_many_files_are_kept() {
    let log = Log::new();
    let (auditor, _) = Auditor::start(small(&log, 2)).unwrap();
    let node = Node::new(&auditor);
    let first = || log.verify().first.map_or(0, |position| position.seq);
    let mut id = 0;
    until("old files go", || {
        node.put(id);
        assert!(auditor.flush(LONG));
        id += 1;
        let count = read::files(&log.path).unwrap().len();
        assert!(count <= 4, "{count}");
        count == 3 && first() > 20
    });
    auditor.stop(LONG);
    assert!(read::files(&log.path).unwrap().len() <= 3);
    log.assert_intact();
}

#[test]
fn a_file_that_others_moved_or_deleted_is_begun_again() {
    let log = Log::new();
    let (auditor, _) = Auditor::start(log.config()).unwrap();
    let node = Node::new(&auditor);
    node.put(1);
    assert!(auditor.flush(LONG));
    let moved = log.folder.path().join("moved");
    fs::rename(&log.path, &moved).unwrap();
    until("a new file", || {
        node.put(2);
        assert!(auditor.flush(LONG));
        log.path.exists()
    });
    auditor.stop(LONG);
    let files = [moved, log.path.clone()];
    let report = read::verify(&files, &log.options()).unwrap();
    // The chain goes on; only the checkpoint at the end of the old file is missing, which nobody could write any more.
    assert!(report.problems.len() <= 1, "{report:#?}");
    let text = log.text();
    assert!(text.starts_with(r#"{"type":"header""#), "{text}");
}

#[test]
fn after_a_crash_between_two_names_the_chain_goes_on() {
    let log = Log::new();
    log.session(2);
    let end = log.verify().last.unwrap();
    fs::rename(
        &log.path,
        log.folder.path().join("audit.log.00000000000000000000"),
    )
    .unwrap();
    fs::write(log.folder.path().join("audit.log.new"), "half").unwrap();
    log.session(1);
    let report = log.assert_intact();
    assert_eq!((report.files, report.records), (2, 3), "{report:?}");
    assert!(report.last.unwrap().seq > end.seq);
    assert!(!log.folder.path().join("audit.log.new").exists());
}

#[test]
fn the_stop_line_stays_the_last_one() {
    let log = Log::new();
    for round in 0..10 {
        let mut file = log.file();
        // Every block fills a file.
        file.max_bytes = 1;
        file.keep = 100;
        let config = AuditorConfig {
            sinks: vec![SinkConfig::File(file)],
            ..log.config()
        };
        let (auditor, notices) = Auditor::start(config).unwrap();
        assert_eq!(notices, []);
        Node::new(&auditor).put(round);
        auditor.stop(LONG);
        let text = log.text();
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        for (line, kind) in last.iter().zip(["checkpoint", "seal", "stop"]) {
            assert!(
                line.starts_with(&format!(r#"{{"type":"{kind}""#)),
                "{round}: {text}"
            );
        }
    }
    assert_eq!(log.assert_intact().records, 10);
}
