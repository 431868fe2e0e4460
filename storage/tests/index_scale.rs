//! The index at the size it is built for: real node sizes, many keys.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test, with a measurement that prints"
)]

use holdfast_storage::Revision;
use holdfast_storage::mvcc::{KeySpan, Mvcc, RowHeader, Version, View};
use std::collections::BTreeMap;
use std::time::Instant;

/// A fixed, well mixed sequence.
struct Sequence(u64);

impl Sequence {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % below
    }
}

fn key(number: usize) -> Vec<u8> {
    // 24 bytes, in no order of the numbers.
    format!(
        "/registry/{:08x}/{:05}",
        (number as u32).wrapping_mul(2_654_435_761),
        number % 100_000
    )
    .into_bytes()
}

#[test]
fn a_large_index_agrees_with_an_ordered_map() {
    let mut mvcc = Mvcc::new();
    let mut model: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    let mut rows = BTreeMap::new();
    let mut sequence = Sequence(1);
    let mut held = Vec::new();
    for step in 0..120_000 {
        let key = key(sequence.next(20_000));
        if step % 3 == 2 {
            let deleted = mvcc.begin().delete_range(KeySpan::point(&key));
            assert_eq!(
                deleted
                    .first()
                    .map(|deleted| deleted.previous.modified.main),
                model.remove(&key)
            );
            rows.extend(
                deleted
                    .into_iter()
                    .map(|deleted| (deleted.revision, (key.clone(), 0, 0))),
            );
        } else {
            let put = mvcc.begin().put(&key, 0);
            rows.insert(
                put.revision,
                (key.clone(), put.create_revision, put.version),
            );
            model.insert(key, put.revision.main);
        }
        if step % 30_000 == 29_999 {
            held.push((mvcc.snapshot(), model.clone()));
            mvcc.compact(mvcc.revision() - 10_000).unwrap();
        }
        if step % 50 == 0 {
            for revision in mvcc.prune(100).dropped {
                rows.remove(&revision);
            }
        }
    }
    let mut restore = Mvcc::restore(mvcc.revision(), mvcc.compacted());
    for (revision, (key, create_revision, version)) in &rows {
        let (create_revision, version) = (*create_revision, *version);
        let tombstone = version == 0;
        restore
            .row(RowHeader {
                revision: *revision,
                key,
                create_revision,
                version,
                lease: 0,
                tombstone,
            })
            .unwrap();
    }
    let restored = restore.finish().unwrap();
    held.push((mvcc.snapshot(), model.clone()));
    held.push((restored.snapshot(), model));
    for (snapshot, model) in &held {
        let at = snapshot.revision();
        let pair = |(key, version): (&[u8], Version)| (key.to_vec(), version.modified.main);
        assert!(
            snapshot
                .range_at(KeySpan::ALL, at)
                .map(pair)
                .eq(model.clone())
        );
        assert!(
            snapshot
                .range_at(KeySpan::ALL, at)
                .rev()
                .map(pair)
                .eq(model.clone().into_iter().rev())
        );
        for (start, end) in [(0, 1), (17, 4_711), (8_000, 9_000), (5, 5)] {
            let (start, end) = (key(start), key(end));
            let expected = if start < end {
                model.range(start.clone()..end.clone()).count()
            } else {
                0
            };
            assert_eq!(
                snapshot.count_at(KeySpan::between(&start, &end), at),
                expected as u64
            );
        }
    }
    // The restored index and the one that went on agree on the past as well.
    let (a, b) = (mvcc.view(), restored.view());
    let at = mvcc.revision() - 5_000;
    assert!(
        a.range_at(KeySpan::ALL, at)
            .eq(b.range_at(KeySpan::ALL, at))
    );
    assert_eq!(
        a.count_at(KeySpan::ALL, at),
        a.range_at(KeySpan::ALL, at).count() as u64
    );
    assert!(a.history_at_compaction(at).eq(b.history_at_compaction(at)));
}

/// Histories of real length: beyond what stands in a leaf, and of several levels.
#[test]
fn long_histories_agree_with_lists() {
    let mut mvcc = Mvcc::new();
    let mut versions: BTreeMap<Vec<u8>, Vec<(i64, Option<Version>)>> = BTreeMap::new();
    let mut sequence = Sequence(3);
    let mut held = Vec::new();
    let agree = |mvcc: View<'_>, versions: &BTreeMap<Vec<u8>, Vec<(i64, Option<Version>)>>| {
        for at in (mvcc.compacted().max(0)..=mvcc.revision()).step_by(61) {
            for (key, versions) in versions {
                let end = versions.partition_point(|(main, _)| *main <= at);
                let expected = end.checked_sub(1).and_then(|last| versions[last].1);
                assert_eq!(mvcc.get_at(key, at), expected, "at {at}");
            }
        }
    };
    for step in 0..120_000i64 {
        // Half of the changes are of one key.
        let key = key(sequence.next(40).saturating_sub(20));
        if step % 97 == 96 {
            for deleted in mvcc.begin().delete_range(KeySpan::point(&key)) {
                let deletion = (deleted.revision.main, None);
                versions.entry(key.clone()).or_default().push(deletion);
            }
        } else {
            let lease = if step % 10 == 9 { i64::MAX - step } else { 0 };
            let main = mvcc.begin().put(&key, lease).revision.main;
            versions
                .entry(key.clone())
                .or_default()
                .push((main, mvcc.get(&key)));
        }
        if step % 40_000 == 39_999 {
            agree(mvcc.view(), &versions);
            held.push((mvcc.snapshot(), versions.clone()));
            mvcc.compact(mvcc.revision() - 20_000).unwrap();
            while !mvcc.prune(1_000).done {}
        }
    }
    agree(mvcc.view(), &versions);
    for (snapshot, versions) in &held {
        agree(snapshot.view(), versions);
    }
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn per<T>(what: &str, count: usize, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    println!(
        "{what}: {:.0} ns each",
        start.elapsed().as_nanos() as f64 / count as f64
    );
    result
}

/// The best of 20 shares, because the machine does other things as well.
fn best(what: &str, picks: &[usize], mut run: impl FnMut(usize)) {
    let share = picks.len() / 20;
    let times = picks.chunks(share).map(|picks| {
        let start = Instant::now();
        picks.iter().for_each(|pick| run(*pick));
        start.elapsed().as_nanos() as usize / picks.len()
    });
    let mut times: Vec<usize> = times.collect();
    times.sort_unstable();
    println!(
        "{what}: {} ns each at best, median {}",
        times[0],
        times[times.len() / 2]
    );
}

/// `cargo test --release -p holdfast-storage --test index_scale -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, for optimised builds"]
fn measure_one_million_keys() {
    const KEYS: usize = 1_000_000;
    let keys: Vec<Vec<u8>> = (0..KEYS).map(key).collect();
    let mut sequence = Sequence(7);
    let picks: Vec<usize> = (0..KEYS).map(|_| sequence.next(KEYS)).collect();

    let before = resident_bytes();
    let mut mvcc = Mvcc::new();
    per("put new key, random order", KEYS, || {
        for key in &keys {
            mvcc.begin().put(key, 0);
        }
    });
    let grown = resident_bytes() - before;
    println!(
        "memory: {} bytes per key, key included; estimated {}",
        grown / KEYS,
        mvcc.memory_bytes() / KEYS
    );
    best("get", &picks, |pick| {
        assert!(mvcc.get(&keys[pick]).is_some())
    });
    per("iterate", KEYS, || {
        assert_eq!(
            mvcc.view()
                .range_at(KeySpan::ALL, i64::MAX)
                .map(|(key, _)| usize::from(key[0] > 0))
                .sum::<usize>(),
            KEYS
        )
    });
    per("iterate backwards", KEYS, || {
        assert_eq!(
            mvcc.view().range_at(KeySpan::ALL, i64::MAX).rev().count(),
            KEYS
        )
    });
    per("count all", 1, || {
        assert_eq!(
            mvcc.view().count_at(KeySpan::ALL, mvcc.revision()),
            KEYS as u64
        )
    });
    let (low, high) = (b"/registry/3", b"/registry/b");
    per("count half", 1, || {
        assert!(
            mvcc.view()
                .count_at(KeySpan::between(low, high), mvcc.revision())
                > 400_000
        )
    });
    let pinned = mvcc.revision();
    per("put existing key, first time", KEYS / 2, || {
        for pick in &picks[..KEYS / 2] {
            mvcc.begin().put(&keys[*pick], 0);
        }
    });
    let before = resident_bytes();
    let mut again = 0;
    best("put existing key", &picks[..KEYS / 2], |pick| {
        again += usize::from(mvcc.begin().put(&keys[pick], 0).previous.is_some());
    });
    println!(
        "memory: {} bytes per superseded version",
        (resident_bytes() - before) / again
    );
    per("count all at a pinned revision", 1, || {
        assert_eq!(mvcc.view().count_at(KeySpan::ALL, pinned), KEYS as u64)
    });
    for batch in [1, 16, 64, 1024] {
        let mut published = mvcc.snapshot();
        per(
            &format!("put existing key, snapshot every {batch}"),
            KEYS / 10,
            || {
                for (number, pick) in picks[..KEYS / 10].iter().enumerate() {
                    mvcc.begin().put(&keys[*pick], 0);
                    if number % batch == 0 {
                        published = mvcc.snapshot();
                    }
                }
            },
        );
        drop(published);
    }
    mvcc.compact(mvcc.revision()).unwrap();
    let mut dropped = 0;
    let mut longest = 0;
    let start = Instant::now();
    loop {
        let one = Instant::now();
        let pruned = mvcc.prune(1_000);
        longest = longest.max(one.elapsed().as_micros());
        dropped += pruned.dropped.len();
        if pruned.done {
            break;
        }
    }
    println!(
        "prune: {} ns each of {dropped}, longest call {longest} us",
        start.elapsed().as_nanos() / dropped as u128
    );
    println!(
        "memory after pruning: {} bytes per key; estimated {}",
        (resident_bytes() - before + grown) / KEYS,
        mvcc.memory_bytes() / KEYS
    );
    drop(mvcc);

    let before = resident_bytes();
    let mut restore = Mvcc::restore(KEYS as i64 + 1, -1);
    let restored = per("restore row", KEYS, || {
        for (number, key) in keys.iter().enumerate() {
            let main = number as i64 + 2;
            let revision = Revision::first(main);
            restore
                .row(RowHeader {
                    revision,
                    key,
                    create_revision: main,
                    version: 1,
                    lease: 0,
                    tombstone: false,
                })
                .unwrap();
        }
        restore.finish().unwrap()
    });
    println!(
        "memory after restore: {} bytes per key",
        resident_bytes().saturating_sub(before) / KEYS
    );
    best("get after restore", &picks, |pick| {
        assert!(restored.get(&keys[pick]).is_some())
    });
    drop(restored);
    // What the machine gives: a map of the standard library with the same content, on which the figures above are to be seen.
    let map: BTreeMap<Vec<u8>, [i64; 5]> = keys.iter().map(|key| (key.clone(), [0; 5])).collect();
    best("get of a BTreeMap", &picks, |pick| {
        assert!(map.contains_key(&keys[pick]))
    });
}
