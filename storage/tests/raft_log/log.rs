//! The operations, each with the log read back afterwards.

use crate::view::{View, at, batch, entries, entry, hard_state, open, options, segment_names};
use bytes::Bytes;
use holdfast_storage::disk::{Disk, MemDisk, RealDisk};
use holdfast_storage::log::{LogBatch, LogError, LogOptions, RaftLog};
use std::io::ErrorKind;

/// Runs the step on the log, and requires that the log says the same before and after a restart, without a cut.
fn reopened(disk: &MemDisk, step: impl FnOnce(&mut RaftLog<MemDisk>)) -> View {
    let (mut log, recovered) = open(disk).expect("open");
    assert_eq!(recovered.tail_cut, None);
    step(&mut log);
    log.sync().expect("sync");
    let before = View::of(&log);
    drop(log);
    let (log, recovered) = open(disk).expect("open again");
    assert_eq!(recovered.tail_cut, None);
    assert_eq!(recovered.entries, before.entries.len() as u64);
    assert_eq!(View::of(&log), before);
    before
}

#[test]
fn each_operation_survives_a_restart() {
    let disk = MemDisk::new();
    assert_eq!(reopened(&disk, |_| {}), View::default());
    let first = entries(1..6, 1, 100);
    let view = reopened(&disk, |log| {
        log.append(LogBatch {
            entries: &first,
            hard_state: Some(hard_state(1, 3, 0)),
        })
        .expect("append");
    });
    assert_eq!(
        (view.hard_state, &view.entries),
        (hard_state(1, 3, 0), &first)
    );

    let view = reopened(&disk, |log| {
        log.append(batch(&entries(4..7, 2, 10)))
            .expect("overwrite the end");
    });
    assert_eq!(
        view.entries,
        [entries(1..4, 1, 100), entries(4..7, 2, 10)].concat()
    );

    let view = reopened(&disk, |log| {
        log.append(LogBatch {
            entries: &[],
            hard_state: Some(hard_state(2, 0, 5)),
        })
        .expect("hard state alone");
    });
    assert_eq!(view.hard_state, hard_state(2, 0, 5));

    let view = reopened(&disk, |log| {
        log.compact_to(at(4, 2), Bytes::from_static(b"three"))
            .expect("compact");
    });
    assert_eq!((view.mark, view.entries), (at(4, 2), entries(5..7, 2, 10)));

    let view = reopened(&disk, |log| {
        log.compact_to(at(6, 2), Bytes::from_static(b"all"))
            .expect("compact to the end");
    });
    assert_eq!(
        (view.mark, view.conf_state, view.entries.len()),
        (at(6, 2), Bytes::from_static(b"all"), 0)
    );

    let view = reopened(&disk, |log| {
        log.append(batch(&entries(7..30, 3, 700)))
            .expect("several segments");
        log.install_snapshot(
            at(100, 9),
            Bytes::from_static(b"new"),
            hard_state(9, 1, 100),
        )
        .expect("snapshot");
    });
    let expected = View {
        mark: at(100, 9),
        conf_state: Bytes::from_static(b"new"),
        hard_state: hard_state(9, 1, 100),
        entries: Vec::new(),
    };
    assert_eq!(view, expected);

    let view = reopened(&disk, |log| {
        log.append(batch(&[entry(101, 9, 10_000)]))
            .expect("longer than a segment");
        log.append(batch(&[entry(102, 9, 0)])).expect("empty");
    });
    assert_eq!(view.entries, [entry(101, 9, 10_000), entry(102, 9, 0)]);
}

#[test]
fn a_snapshot_replaces_unrelated_entries_on_both_sides_of_it() {
    // Entries of a leader that failed: of a later term than the snapshot, before and behind its position, in several segments,
    // synced or not; the position itself may be there, with another term.
    for (cached, synced) in [(0, true), (usize::MAX, false)] {
        let disk = MemDisk::new();
        let options = LogOptions {
            cache_bytes: cached,
            ..options()
        };
        let open = || RaftLog::open(disk.clone(), options.clone()).expect("open");
        let (mut log, _) = open();
        log.append(batch(&entries(1..5, 1, 100))).expect("append");
        log.compact_to(at(3, 1), Bytes::new()).expect("compact");
        for some in entries(5..60, 9, 300).chunks(5) {
            log.append(LogBatch {
                entries: some,
                hard_state: Some(hard_state(9, 2, 4)),
            })
            .expect("append");
        }
        if synced {
            log.sync().expect("sync");
        }
        assert!(segment_names(&disk).len() > 2);
        let conf_state = Bytes::from_static(b"members");
        log.install_snapshot(at(30, 5), conf_state.clone(), hard_state(10, 0, 30))
            .expect("snapshot");
        let mut expected = View {
            mark: at(30, 5),
            conf_state,
            hard_state: hard_state(10, 0, 30),
            entries: Vec::new(),
        };
        assert_eq!(View::of(&log), expected);
        assert_eq!(log.term(31).expect("not there"), None);
        disk.crash(&mut |_| 0);
        drop(log);
        let (mut log, recovered) = open();
        assert_eq!(View::of(&log), expected, "{recovered:?}");
        // What the leader sends next, of a term before that of the entries that were there.
        expected.entries = entries(31..62, 6, 300);
        log.append(batch(&expected.entries)).expect("append");
        log.sync().expect("sync");
        log.spares().work().expect("spares");
        assert_eq!(View::of(&log), expected);
        disk.crash(&mut |_| 0);
        assert_eq!(View::of(&open().0), expected);
    }
}

#[test]
fn a_real_directory_holds_the_log() {
    let directory = tempfile::tempdir().expect("directory");
    let open = || {
        RaftLog::open(
            RealDisk::open(directory.path()).expect("directory"),
            options(),
        )
        .expect("open")
        .0
    };
    let mut log = open();
    log.append(batch(&entries(1..100, 1, 300))).expect("append");
    log.sync().expect("sync");
    log.compact_to(at(50, 1), Bytes::new()).expect("compact");
    log.spares().work().expect("spares");
    let before = View::of(&log);
    log.close().expect("close");
    let log = open();
    assert_eq!(View::of(&log), before);
    assert_eq!(log.first_index(), 51);
}

#[test]
fn what_does_not_fit_the_log_is_refused_and_changes_nothing() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk).expect("open");
    log.append(batch(&entries(1..10, 2, 10))).expect("append");
    log.compact_to(at(4, 2), Bytes::new()).expect("compact");
    let before = View::of(&log);
    let refused = |result: Result<(), LogError>| result.expect_err("refused").to_string();

    let gap = log.append(batch(&[entry(11, 2, 1)]));
    assert!(matches!(
        gap,
        Err(LogError::Gap {
            expected: 10,
            found: 11
        })
    ));
    let hole = log.append(batch(&[entry(10, 2, 1), entry(12, 2, 1)]));
    assert!(matches!(
        hole,
        Err(LogError::Gap {
            expected: 11,
            found: 12
        })
    ));
    let compacted = log.append(batch(&[entry(4, 3, 1)]));
    assert!(matches!(
        compacted,
        Err(LogError::Compacted { index: 4, first: 5 })
    ));
    let older = log.append(batch(&[entry(10, 1, 1)]));
    assert!(matches!(
        older,
        Err(LogError::TermRegression {
            index: 10,
            previous: 2,
            found: 1
        })
    ));
    assert!(refused(log.compact_to(at(6, 1), Bytes::new())).contains("term 2"));
    let beyond = log.compact_to(at(10, 2), Bytes::new());
    assert!(matches!(
        beyond,
        Err(LogError::Unavailable { index: 10, last: 9 })
    ));
    let back = log.install_snapshot(at(3, 2), Bytes::new(), hard_state(2, 0, 3));
    assert!(matches!(back, Err(LogError::Compacted { index: 3, .. })));
    let last = log.install_snapshot(at(u64::MAX, 2), Bytes::new(), hard_state(2, 0, 3));
    assert!(matches!(last, Err(LogError::Gap { .. })));
    let large = log.compact_to(at(5, 2), Bytes::from(vec![0; 2 << 20]));
    assert!(matches!(large, Err(LogError::TooLarge { .. })));
    log.compact_to(at(2, 2), Bytes::new())
        .expect("a mark before the mark is no news");

    assert!(matches!(
        log.term(3),
        Err(LogError::Compacted { index: 3, first: 5 })
    ));
    assert_eq!(log.term(4).expect("the mark"), Some(2));
    assert_eq!(log.term(10).expect("not yet"), None);
    assert!(matches!(
        log.entries(4, 6, 0),
        Err(LogError::Compacted { index: 4, .. })
    ));
    assert!(matches!(
        log.entries(5, 11, 0),
        Err(LogError::Unavailable { index: 10, last: 9 })
    ));
    assert_eq!(log.entries(7, 7, 0).expect("empty"), []);
    assert_eq!(View::of(&log), before);

    let odd = LogOptions {
        segment_bytes: 5000,
        ..options()
    };
    assert!(matches!(
        RaftLog::open(MemDisk::new(), odd),
        Err(LogError::SegmentSize(5000))
    ));
}

#[test]
fn reads_are_bounded_and_the_same_from_cache_and_disk() {
    for cache_bytes in [0, 1500, usize::MAX] {
        let disk = MemDisk::new();
        let options = LogOptions {
            cache_bytes,
            ..options()
        };
        let (mut log, _) = RaftLog::open(disk, options).expect("open");
        let all = entries(1..41, 1, 300);
        for some in all.chunks(3) {
            log.append(batch(some)).expect("append");
        }
        assert_eq!(log.entries(1, 41, u64::MAX).expect("all"), all);
        assert_eq!(log.entries(38, 41, u64::MAX).expect("the end"), all[37..]);
        assert_eq!(log.entries(5, 41, 0).expect("at least one"), all[4..5]);
        assert_eq!(
            log.entries(5, 41, 1000).expect("three of 330 bytes"),
            all[4..7]
        );
        let newer = entries(20..23, 2, 10);
        log.append(batch(&newer)).expect("overwrite");
        let expected = [&all[..19], &newer].concat();
        assert_eq!(log.entries(1, 23, u64::MAX).expect("all"), expected);
    }
}

#[test]
fn an_append_is_one_write_and_a_sync_one_sync() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk).expect("open");
    let before = (disk.writes(), disk.syncs());
    log.append(LogBatch {
        entries: &entries(1..20, 1, 50),
        hard_state: Some(hard_state(1, 1, 0)),
    })
    .expect("append");
    assert_eq!((disk.writes(), disk.syncs()), (before.0 + 1, before.1));
    log.sync().expect("sync");
    log.sync().expect("nothing to do");
    // The second write is the note beside the log.
    assert_eq!((disk.writes(), disk.syncs()), (before.0 + 2, before.1 + 1));
}

#[test]
fn compaction_recycles_whole_segments_and_stale_records_stay_dead() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk).expect("open");
    let mut next = 1;
    // Each round fills segments with records of the same sizes as before, so that old ones lie exactly where new ones
    // would be looked for.
    for round in 1..=6 {
        for _ in 0..24 {
            log.append(batch(&[entry(next, round, 300)]))
                .expect("append");
            log.sync().expect("sync");
            next += 1;
        }
        assert!(segment_names(&disk).len() >= 2);
        log.compact_to(at(next - 3, round), Bytes::new())
            .expect("compact");
        log.spares().work().expect("recycle");
        assert!(!log.spares().has_work());
        assert!(segment_names(&disk).len() <= 2, "old segments are gone");
        let before = View::of(&log);
        assert_eq!(before.entries.len(), 2);
        drop(log);
        let recovered;
        (log, recovered) = open(&disk).expect("open");
        assert_eq!(
            recovered.tail_cut, None,
            "stale records are not a torn tail"
        );
        assert_eq!(View::of(&log), before);
    }
    let spares = disk
        .list()
        .expect("list")
        .iter()
        .filter(|name| name.starts_with("spare"))
        .count();
    assert_eq!(spares, 1);
}

#[test]
fn a_compaction_cut_off_by_a_crash_is_finished_later() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk).expect("open");
    log.append(batch(&entries(1..60, 1, 300))).expect("append");
    for index in 60..70 {
        log.append(batch(&[entry(index, 1, 300)])).expect("append");
    }
    log.compact_to(at(69, 1), Bytes::new()).expect("compact");
    let before = View::of(&log);
    drop(log);
    let names = segment_names(&disk);
    assert!(names.len() >= 3, "the spare pool did not work yet");
    disk.remove(&names[1])
        .expect("only the middle one was removed");
    let (log, _) = open(&disk).expect("nothing before the gap is needed");
    assert_eq!(View::of(&log), before);
    log.spares().work().expect("work");
    assert_eq!(
        segment_names(&disk),
        [names.last().expect("newest").clone()]
    );
}

#[test]
fn a_full_disk_refuses_and_a_retry_with_space_works() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk).expect("open");
    disk.set_capacity(Some(4200));
    let mut next = 1;
    let error = loop {
        match log.append(batch(&[entry(next, 1, 300)])) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
    };
    assert!(next > 10, "the first segment has its space already");
    assert!(matches!(&error, LogError::NoSpace { .. }), "{error}");
    assert!(matches!(
        log.append(batch(&[entry(next, 1, 300)])),
        Err(LogError::NoSpace { .. })
    ));
    assert_eq!(View::of(&log).entries, entries(1..next, 1, 300));
    assert_eq!(segment_names(&disk).len(), 1);
    let (other, recovered) = open(&disk.fork()).expect("a restart at this point");
    assert_eq!(
        (View::of(&other), recovered.tail_cut),
        (View::of(&log), None)
    );
    disk.set_capacity(None);
    log.append(batch(&[entry(next, 1, 300)]))
        .expect("space again");
    log.sync().expect("sync");
    let before = View::of(&log);
    drop(log);
    assert_eq!(View::of(&open(&disk).expect("open").0), before);
}

#[test]
fn a_write_cut_short_by_a_full_disk_leaves_no_trace() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk).expect("open");
    log.append(batch(&entries(1..4, 1, 100))).expect("append");
    disk.fail_write(1, ErrorKind::StorageFull);
    let full = log.append(batch(&entries(4..9, 1, 100)));
    assert!(matches!(full, Err(LogError::NoSpace { .. })));
    let (restarted, recovered) = open(&disk.fork()).expect("open");
    assert_eq!(View::of(&restarted).entries, entries(1..4, 1, 100));
    assert_eq!(recovered.tail_cut, None);
    log.append(batch(&entries(4..5, 1, 10)))
        .expect("a smaller one");
    log.sync().expect("sync");
    let (restarted, recovered) = open(&disk).expect("open");
    assert_eq!(
        View::of(&restarted).entries,
        [entries(1..4, 1, 100), entries(4..5, 1, 10)].concat()
    );
    assert_eq!(recovered.tail_cut, None);
}

#[test]
fn after_a_failed_sync_or_write_nothing_works() {
    let break_sync = |disk: &MemDisk, log: &mut RaftLog<MemDisk>| {
        disk.fail_sync(1);
        log.sync()
    };
    let break_write = |disk: &MemDisk, log: &mut RaftLog<MemDisk>| {
        disk.fail_write(1, ErrorKind::Other);
        log.append(batch(&[entry(2, 1, 10)]))
    };
    type Break = fn(&MemDisk, &mut RaftLog<MemDisk>) -> Result<(), LogError>;
    for broken in [break_sync as Break, break_write] {
        let disk = MemDisk::new();
        let (mut log, _) = open(&disk).expect("open");
        log.append(batch(&[entry(1, 1, 10)])).expect("append");
        let error = broken(&disk, &mut log).expect_err("injected");
        assert!(matches!(error, LogError::Io { .. }), "{error}");
        let poisoned =
            |result: Result<(), LogError>| assert!(matches!(result, Err(LogError::Poisoned)));
        poisoned(log.sync());
        poisoned(log.append(batch(&[entry(2, 1, 10)])));
        poisoned(log.append(batch(&[])));
        poisoned(log.compact_to(at(1, 1), Bytes::new()));
        poisoned(log.install_snapshot(at(5, 1), Bytes::new(), hard_state(1, 1, 5)));
        poisoned(log.entries(1, 2, 0).map(drop));
        poisoned(log.term(1).map(drop));
        poisoned(log.close());
    }
}

#[test]
fn without_sync_only_changes_of_segment_wait_for_the_medium() {
    let disk = MemDisk::new();
    let options = LogOptions {
        sync: false,
        ..options()
    };
    let (mut log, _) = RaftLog::open(disk.clone(), options).expect("open");
    let syncs = disk.syncs();
    log.append(batch(&[entry(1, 1, 10)])).expect("append");
    log.sync().expect("sync");
    assert_eq!(disk.syncs(), syncs);
    log.append(batch(&entries(2..40, 1, 300)))
        .expect("a new segment");
    assert!(disk.syncs() > syncs);
    disk.crash(&mut |_| 0);
    assert_eq!(
        View::of(&open(&disk).expect("open").0).entries,
        [entry(1, 1, 10)]
    );
}

#[test]
fn the_spare_pool_keeps_segments_ready_and_clears_up() {
    let disk = MemDisk::new();
    disk.replace("spare-00000003.log", vec![9; 4096]);
    disk.replace("spare-00000004.log", vec![9; 100]);
    disk.replace("spare-00000005.tmp", vec![9; 4096]);
    disk.replace("notes.txt", b"not ours".to_vec());
    let (mut log, _) = open(&disk).expect("open");
    let names = |disk: &MemDisk| disk.list().expect("list");
    assert_eq!(
        names(&disk),
        ["0000000000000001.log", "notes.txt", "synced"],
        "the one good spare is in use"
    );
    let pool = log.spares();
    assert!(pool.has_work());
    pool.work().expect("work");
    assert!(!pool.has_work());
    assert_eq!(names(&disk).len(), 4);
    let syncs = disk.syncs();
    log.append(batch(&entries(1..10, 1, 390))).expect("append");
    log.append(batch(&entries(10..11, 1, 390)))
        .expect("a new segment");
    assert_eq!(
        disk.syncs(),
        syncs + 3,
        "end of the old one, start of the new one, its name; no zeroing"
    );
    assert!(pool.has_work());
    assert_eq!(View::of(&log).entries.len(), 10);
}
