//! Kills, power cuts and damaged files.

use super::*;
use std::fs;

/// Copies a store's files as they are, as a kill would leave them. Journals are cut behind their data: they are sparse.
pub(super) fn image(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            image(&path, &target);
        } else if path.extension().is_some_and(|e| e == "jnl") {
            let mut bytes = fs::read(&path).unwrap();
            let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
            bytes.truncate(end + 8192);
            fs::write(target, bytes).unwrap();
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

fn journals(store: &Path) -> Vec<PathBuf> {
    journal::list(&store.join("fjall"))
        .unwrap()
        .into_iter()
        .map(|(_, path)| path)
        .collect()
}

/// A store that was checkpointed at 60 and persisted through 160 in many batches, as after a kill; with the journal's length at
/// the checkpoint and the end of its data.
fn crashed(dir: &Path) -> (PathBuf, u64, u64) {
    let live = dir.join("live");
    let (store, _) = Store::open(&live, small()).unwrap();
    for main in (2..=160).step_by(2) {
        stage(&store, main..=main + 1);
        store.persist().unwrap();
        if main == 60 {
            store.checkpoint().unwrap();
        }
    }
    let crashed = dir.join("crashed");
    image(&live, &crashed);
    let mark = mark::Mark::read(&crashed.join("store.mark"))
        .unwrap()
        .unwrap();
    assert_eq!(mark.position, at(61));
    let data = fs::read(&journals(&crashed)[0]).unwrap();
    let end = data.iter().rposition(|&b| b != 0).unwrap() as u64 + 1;
    (crashed, mark.journals[0].len, end)
}

/// Opens, checks that nothing before `least` is gone and all rows are of whole transactions, replays the rest, opens again.
fn recovers(path: &Path, least: u64, case: &str) -> Opened {
    let (store, opened) = Store::open(path, small()).unwrap_or_else(|e| panic!("{case}: {e}"));
    assert_eq!(opened.set_aside, None, "{case}");
    assert!(opened.applied.index >= least, "{case}: {opened:?}");
    let applied = opened.applied.index as i64;
    check(&store, applied);
    stage(&store, applied + 1..=170);
    store.persist().unwrap();
    drop(store);
    let (store, again) = Store::open(path, small()).unwrap();
    assert_eq!(again.applied, at(170), "{case}");
    assert_eq!(again.recovered, None, "{case}");
    check(&store, 170);
    opened
}

#[test]
fn a_kill_loses_nothing_that_was_persisted() {
    let dir = tempfile::tempdir().unwrap();
    let (crashed, ..) = crashed(dir.path());
    let opened = recovers(&crashed, 161, "kill");
    assert_eq!(opened.recovered, None);
}

#[test]
fn a_lost_tail_behind_the_mark_is_cut_and_nothing_before_it_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (crashed, mark, end) = crashed(dir.path());
    assert!(end > mark + 30_000);
    let mut copies = 0;
    let step = (end - mark) / 23;
    for (i, offset) in (mark..end).step_by(step as usize).enumerate() {
        for damage in ["cut", "zero page", "zero rest", "garble", "flip"] {
            let case = format!("{damage} at {offset} of {end}, mark {mark}");
            let path = dir.path().join(format!("case-{i}-{}", &damage[..1]));
            image(&crashed, &path);
            let journal = &journals(&path)[0];
            let mut bytes = fs::read(journal).unwrap();
            let (from, page) = (offset as usize, (offset as usize + 4096).min(end as usize));
            match damage {
                "cut" => bytes.truncate(from),
                "zero page" => bytes[from..page].fill(0),
                "zero rest" => bytes[from..].fill(0),
                "garble" => bytes[from..page]
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, b)| *b = (i as u8).wrapping_mul(167) ^ 0x5a),
                _ => bytes[from] ^= 0x40,
            }
            fs::write(journal, &bytes).unwrap();
            let opened = recovers(&path, 61, &case);
            if damage == "garble" {
                let cut = opened.recovered.expect(&case);
                assert!(cut.at >= mark && cut.at <= offset, "{case}");
                if let Some(kept) = cut.kept {
                    let kept = kept.join(format!("0.jnl.from-{}", cut.at));
                    assert_eq!(fs::read(kept).unwrap(), bytes[cut.at as usize..], "{case}");
                    copies += 1;
                }
            }
            fs::remove_dir_all(path).unwrap();
        }
    }
    assert!(copies >= 15, "{copies} of 24 garbled tails were kept");
}

#[test]
fn damage_before_the_mark_is_refused_untouched_or_set_aside_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (crashed, mark, _) = crashed(dir.path());
    for (i, offset) in (0..mark).step_by((mark / 20) as usize).enumerate() {
        let path = dir.path().join(format!("case-{i}"));
        image(&crashed, &path);
        let journal = journals(&path)[0].clone();
        let mut bytes = fs::read(&journal).unwrap();
        match i % 3 {
            0 => bytes[offset as usize] ^= 1,
            1 => bytes[offset as usize..mark as usize].fill(0),
            _ => bytes.truncate(offset as usize),
        }
        fs::write(&journal, &bytes).unwrap();

        let strict = StoreOptions {
            may_set_aside: false,
            ..small()
        };
        match Store::open(&path, strict) {
            Err(OpenError::Damaged { path, .. }) => assert_eq!(path, journal),
            other => panic!("offset {offset}: {other:?}"),
        }
        assert_eq!(fs::read(&journal).unwrap(), bytes);

        let (store, opened) = Store::open(&path, small()).unwrap();
        let aside = opened.set_aside.expect("set aside");
        assert_eq!(
            aside,
            PathBuf::from(format!("{}.damaged-1", path.display()))
        );
        assert_eq!(opened.applied, LogPosition::default());
        assert_eq!(fs::read(&journals(&aside)[0]).unwrap(), bytes);
        stage(&store, 2..=5);
        check(&store, 5);
    }
}

#[test]
fn missing_files_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (crashed, ..) = crashed(dir.path());
    let strict = StoreOptions {
        may_set_aside: false,
        ..small()
    };
    for (i, missing) in ["fjall/0.jnl", "fjall", "fjall/version"].iter().enumerate() {
        let path = dir.path().join(format!("case-{i}"));
        image(&crashed, &path);
        let gone = path.join(missing);
        if gone.is_dir() {
            fs::remove_dir_all(gone).unwrap();
        } else {
            fs::remove_file(gone).unwrap();
        }
        assert!(
            matches!(
                Store::open(&path, strict.clone()),
                Err(OpenError::Damaged { .. })
            ),
            "{missing}"
        );
    }
    // The mark itself: its loss takes nothing away.
    fs::write(crashed.join("store.mark"), b"junk").unwrap();
    recovers(&crashed, 161, "no mark");
}

#[test]
fn a_hole_in_the_history_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (store, _) = Store::open(&path, small()).unwrap();
    stage(&store, 2..=9);
    store.persist().unwrap();
    // As if the batch that removed this record had been lost.
    let stale = keys::applied_key(0);
    fjall(&store)
        .meta
        .insert(stale, fjall_writer::position_bytes(at(1)))
        .unwrap();
    drop(store);
    let (_, opened) = Store::open(&path, small()).unwrap();
    assert!(opened.set_aside.is_some());
}

#[test]
fn journals_are_sealed_deleted_and_cut_as_the_store_grows() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let options = StoreOptions {
        memtable_bytes: 4 << 20,
        cache_bytes: 0,
        ..small()
    };
    let (store, _) = Store::open(&live, options.clone()).unwrap();
    let big = |main: i64| Row {
        value: Bytes::from(vec![main as u8; 128 << 10]),
        ..row(main)
    };
    // 250 MiB: without help from the checkpoint four journals would be kept.
    let mut last = 1;
    while last < 2000 {
        last += 1;
        store.stage(at(last as u64), vec![Change::PutRow(T1, big(last))]);
        if last % 40 == 0 {
            store.persist().unwrap();
            store.checkpoint().unwrap();
        }
    }
    assert!(store.disk_bytes() < 500 << 20);
    last += 1;
    store.stage(at(last as u64), vec![Change::PutRow(T1, big(last))]);
    store.persist().unwrap();
    assert!(journals(&live).len() <= 3);
    drop(store);

    // The last batch torn, in the newest journal or, if that was sealed just after it, in the one before.
    let all = journals(&live);
    assert!(!all[0].ends_with("0.jnl"), "no journal was ever deleted");
    let data = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        bytes.iter().rposition(|&b| b != 0).map(|i| i as u64 + 1)
    };
    let (torn, end) = all
        .iter()
        .rev()
        .find_map(|path| Some((path, data(path)?)))
        .unwrap();
    let file = fs::OpenOptions::new().write(true).open(torn).unwrap();
    file.set_len(end - 1000).unwrap();
    let (store, opened) = Store::open(&live, options).unwrap();
    assert_eq!(opened.applied, at(last as u64 - 1));
    let cut = opened.recovered.unwrap();
    assert_eq!(&cut.journal, torn);
    assert_eq!(cut.kept.is_some(), Some(torn) != all.last());
    assert_eq!(store.scan(T1, rev(0), i64::MAX).count() as i64, last - 2);
    assert_eq!(store.get(T1, rev(1000)).unwrap(), Some(big(1000)));
}
