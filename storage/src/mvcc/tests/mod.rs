//! The index against a naive model, and its edges one by one.

mod model;
mod packing;
mod program;
mod restoring;

use super::*;
use std::ops::Bound;

fn mvcc(keys: &[&str]) -> Mvcc {
    let mut mvcc = Mvcc::new();
    for key in keys {
        mvcc.begin().put(key.as_bytes(), 0);
    }
    mvcc
}

/// Readers take snapshots to other threads.
const _: () = {
    const fn shared_between_threads<T: Clone + Send + Sync>() {}
    shared_between_threads::<Snapshot>();
};

#[test]
fn the_first_write_gets_revision_two() {
    let mut mvcc = Mvcc::new();
    assert_eq!((mvcc.revision(), mvcc.compacted()), (1, -1));
    let mut txn = mvcc.begin();
    assert_eq!(
        (txn.revision(), txn.next_revision()),
        (1, Revision::first(2))
    );
    assert!(txn.delete_range(KeySpan::ALL).is_empty());
    assert_eq!(txn.revision(), 1, "deleting nothing changes nothing");
    let put = txn.put(b"a", 7);
    assert_eq!(
        (put.revision, put.create_revision, put.version, put.previous),
        (Revision::first(2), 2, 1, None)
    );
    assert_eq!(txn.revision(), 2);
    assert_eq!(
        txn.get(b"a").map(|version| version.lease),
        Some(7),
        "a transaction sees its own writes"
    );
    let deleted = txn.delete_range(KeySpan::point(b"a"));
    assert_eq!(deleted[0].revision, Revision { main: 2, sub: 1 });
    assert_eq!(txn.range(KeySpan::ALL).count(), 0);
    assert_eq!(txn.finish(), 2);
    assert_eq!(mvcc.revision(), 2);
    let put = mvcc.begin().put(b"a", 0);
    assert_eq!(
        (put.create_revision, put.version, put.previous),
        (3, 1, None),
        "a deleted key starts anew"
    );
}

#[test]
fn spans_that_are_empty_or_reversed_give_nothing() {
    let mvcc = mvcc(&["a", "b", "c"]);
    let (a, b, c) = (&b"a"[..], &b"b"[..], &b"c"[..]);
    for (start, end, expected) in [
        (Bound::Included(b), Bound::Excluded(b), 0),
        (Bound::Included(c), Bound::Excluded(a), 0),
        (Bound::Excluded(b), Bound::Excluded(b), 0),
        (Bound::Excluded(b), Bound::Included(b), 0),
        (Bound::Excluded(c), Bound::Included(a), 0),
        (Bound::Included(b), Bound::Included(b), 1),
        (Bound::Excluded(a), Bound::Excluded(c), 1),
        (Bound::Unbounded, Bound::Excluded(c), 2),
        (Bound::Included(b""), Bound::Unbounded, 3),
    ] {
        let span = KeySpan { start, end };
        assert_eq!(
            mvcc.view().range_at(span, i64::MAX).count(),
            expected,
            "{span:?}"
        );
        assert_eq!(
            mvcc.view().range_at(span, i64::MAX).rev().count(),
            expected,
            "{span:?}"
        );
        assert_eq!(
            mvcc.view().count_at(span, i64::MAX),
            expected as u64,
            "{span:?}"
        );
    }
    assert_eq!(mvcc.view().count_at(KeySpan::ALL, i64::MIN), 0);
}

#[test]
fn compaction_goes_forward_only() {
    let mut mvcc = mvcc(&["a", "a", "a"]);
    assert_eq!(mvcc.compact(-1), Err(CompactError::Compacted));
    assert_eq!(
        mvcc.compact(0),
        Ok(()),
        "once on a store that was never compacted"
    );
    assert_eq!(mvcc.compact(0), Err(CompactError::Compacted));
    assert_eq!(mvcc.compact(5), Err(CompactError::Future));
    assert_eq!(mvcc.compact(4), Ok(()));
    assert_eq!(
        mvcc.prune(0),
        Pruned {
            dropped: vec![],
            done: false
        }
    );
    assert_eq!(
        mvcc.prune(1),
        Pruned {
            dropped: vec![Revision::first(2)],
            done: false
        }
    );
    assert_eq!(
        mvcc.prune(9),
        Pruned {
            dropped: vec![Revision::first(3)],
            done: true
        }
    );
    assert_eq!(
        mvcc.prune(9),
        Pruned {
            dropped: vec![],
            done: true
        }
    );
}

#[test]
fn a_tombstone_at_the_mark_stays_until_the_next_compaction() {
    let mut mvcc = mvcc(&["a"]);
    mvcc.begin().delete_range(KeySpan::ALL);
    mvcc.begin().put(b"b", 0);
    mvcc.compact(3).unwrap();
    assert_eq!(
        mvcc.prune(9),
        Pruned {
            dropped: vec![Revision::first(2)],
            done: true
        }
    );
    let kept: Vec<_> = mvcc
        .view()
        .history_at_compaction(4)
        .map(|item| (item.revision.main, item.tombstone))
        .collect();
    assert_eq!(kept, [(3, true), (4, false)]);
    mvcc.compact(4).unwrap();
    assert_eq!(
        mvcc.prune(9),
        Pruned {
            dropped: vec![Revision::first(3)],
            done: true
        }
    );
    assert_eq!(mvcc.root.sum.keys, 1, "nothing of the key remains");
}

#[test]
fn one_key_written_very_often() {
    let mut mvcc = Mvcc::new();
    let mut held = Vec::new();
    for round in 0..20_000 {
        mvcc.begin().put(b"hot", round);
        if round % 3_000 == 0 {
            held.push(mvcc.snapshot());
        }
    }
    mvcc.root.check();
    let pick = |view: View<'_>| -> Vec<_> {
        (1..=view.revision())
            .step_by(97)
            .map(|at| view.get_at(b"hot", at).map(|version| version.modified.main))
            .collect()
    };
    let expected = |view: View<'_>| -> Vec<_> {
        (1..=view.revision())
            .step_by(97)
            .map(|at| (at > 1).then_some(at))
            .collect()
    };
    assert_eq!(pick(mvcc.view()), expected(mvcc.view()));
    mvcc.compact(15_000).unwrap();
    let mut dropped = Vec::new();
    loop {
        let pruned = mvcc.prune(777);
        dropped.extend(pruned.dropped);
        mvcc.root.check();
        if pruned.done {
            break;
        }
    }
    assert!(dropped.iter().map(|revision| revision.main).eq(2..15_000));
    assert_eq!(
        mvcc.view()
            .get_at(b"hot", 15_000)
            .map(|version| version.modified.main),
        Some(15_000)
    );
    for snapshot in held {
        assert_eq!(
            pick(snapshot.view()),
            expected(snapshot.view()),
            "a snapshot is not touched by pruning"
        );
    }
}

/// Deep trees that shrink from the left, the right and the middle: nodes of every level are joined and parted.
#[test]
fn pruning_keeps_a_deep_tree_in_order() {
    const KEYS: usize = 3_000;
    let key = |number: usize| format!("{:05}", number).into_bytes();
    for (seed, order) in [(1, 1), (2, 1_007), (3, 2_999)] {
        let mut mvcc = Mvcc::new();
        for number in 0..KEYS {
            mvcc.begin().put(&key(number * order % KEYS), 0);
        }
        mvcc.root.check();
        let mut alive: Vec<bool> = vec![true; KEYS];
        for round in 1..60 {
            let start = round * 1_361 * seed % KEYS;
            let end = (start + round * 11 % 300).min(KEYS);
            mvcc.begin()
                .delete_range(KeySpan::between(&key(start), &key(end)));
            alive[start..end].fill(false);
            // Some come back, so that nodes grow again between the joins.
            for number in (start..end).step_by(5).filter(|_| round % 3 == 0) {
                mvcc.begin().put(&key(number), 0);
                alive[number] = true;
            }
            let probe = mvcc.begin().put(b"probe", 0);
            mvcc.compact(probe.revision.main).unwrap();
            while !mvcc.prune(64).done {
                mvcc.root.check();
            }
            mvcc.root.check();
            let expected = (0..KEYS)
                .filter(|number| alive[*number])
                .map(key)
                .chain([b"probe".to_vec()]);
            assert!(
                mvcc.view()
                    .range_at(KeySpan::ALL, i64::MAX)
                    .map(|(key, _)| key.to_vec())
                    .eq(expected)
            );
            assert!((0..KEYS).all(|number| mvcc.get(&key(number)).is_some() == alive[number]));
        }
    }
}
