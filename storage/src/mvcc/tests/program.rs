//! Random programs against the model.

use super::model::{Model, Rows, Span};
use crate::mvcc::{Mvcc, Snapshot, Version};
use proptest::collection::vec;
use proptest::prelude::*;
use std::ops::Bound;

#[derive(Clone, Debug)]
enum Step {
    /// One transaction.
    Write(Vec<Write>),
    /// Puts of many keys, one transaction each.
    Fill(u8, u8),
    /// Compact at this share (of 255) of the way from the mark to the current revision.
    Compact(u8),
    Prune(usize),
    PruneAll,
    /// Take a snapshot and keep it to the end.
    Hold,
    Restart,
}

#[derive(Clone, Debug)]
enum Write {
    Put(u8, i64),
    Delete(Span),
}

/// Keys that share prefixes, contain the extremes of a byte, and are longer than what a node packs.
fn key(number: u8) -> Vec<u8> {
    let group = number % 5;
    let mut key = match group {
        0 => b"/registry/pods/".to_vec(),
        1 => vec![0xff, 0xff],
        2 => vec![b'k'; 300],
        3 => vec![0],
        _ => Vec::new(),
    };
    key.extend_from_slice(&[b'a' + number / 5 % 7, number / 35]);
    key
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        4 => any::<u8>().prop_map(|number| Bound::Included(key(number))),
        4 => any::<u8>().prop_map(|number| Bound::Excluded(key(number))),
        1 => vec(any::<u8>(), 0..3).prop_map(Bound::Included),
        2 => Just(Bound::Unbounded),
    ]
}

fn span() -> impl Strategy<Value = Span> {
    prop_oneof![
        3 => (bound(), bound()).prop_map(|(start, end)| Span(start, end)),
        2 => any::<u8>().prop_map(|number| Span(Bound::Included(key(number)), Bound::Included(key(number)))),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        5 => (any::<u8>(), 0..3i64).prop_map(|(number, lease)| Write::Put(number, lease)),
        // A few keys that are written again and again.
        3 => (0..4u8, 0..3i64).prop_map(|(number, lease)| Write::Put(number, lease)),
        2 => span().prop_map(Write::Delete),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => vec(write(), 0..5).prop_map(Step::Write),
        2 => (any::<u8>(), 0..40u8).prop_map(|(first, count)| Step::Fill(first, count)),
        3 => any::<u8>().prop_map(Step::Compact),
        3 => (0..6usize).prop_map(Step::Prune),
        1 => Just(Step::PruneAll),
        2 => Just(Step::Hold),
        1 => Just(Step::Restart),
    ]
}

struct Run {
    mvcc: Mvcc,
    model: Model,
    rows: Rows,
    held: Vec<(Snapshot, Model)>,
}

impl Run {
    fn write(&mut self, writes: &[Write]) {
        let before = self.model.revision;
        let mut txn = self.mvcc.begin();
        for write in writes {
            let next = txn.next_revision();
            assert_eq!(next.main, before + 1);
            match write {
                Write::Put(number, lease) => {
                    let key = key(*number);
                    let previous = self.model.current(&key);
                    let version = self.model.put(&key, next, *lease);
                    let put = txn.put(&key, *lease);
                    assert_eq!(
                        (put.revision, put.previous, put.key.as_ref()),
                        (next, previous, key.as_slice())
                    );
                    assert_eq!(
                        (put.create_revision, put.version),
                        (version.create_revision, version.version)
                    );
                    self.rows.0.insert(next, (key, Some(version)));
                }
                Write::Delete(span) => {
                    let expected = self.model.range(span, i64::MAX);
                    let deleted = txn.delete_range(span.borrow());
                    let found: Vec<(Vec<u8>, Version)> = deleted
                        .iter()
                        .map(|deleted| (deleted.key.to_vec(), deleted.previous))
                        .collect();
                    assert_eq!(found, expected);
                    for (sub, deleted) in (next.sub..).zip(deleted) {
                        assert_eq!(
                            (deleted.revision.main, deleted.revision.sub),
                            (next.main, sub)
                        );
                        self.model.delete(&deleted.key, deleted.revision);
                        self.rows
                            .0
                            .insert(deleted.revision, (deleted.key.to_vec(), None));
                    }
                }
            }
            assert_eq!(txn.revision(), self.model.revision);
        }
        let current: Vec<_> = txn
            .range(Span(Bound::Unbounded, Bound::Unbounded).borrow())
            .map(|(_, version)| version)
            .collect();
        assert_eq!(
            current.len() as u64,
            txn.view()
                .count_at(crate::mvcc::KeySpan::ALL, txn.revision())
        );
        assert_eq!(txn.finish(), self.model.revision);
    }

    fn prune(&mut self, limit: usize) {
        let pruned = self.mvcc.prune(limit);
        assert!(pruned.dropped.len() <= limit);
        for revision in pruned.dropped {
            self.rows.drop_garbage(revision, self.model.compacted);
        }
        let mut kept: Vec<_> = self
            .model
            .kept(i64::MAX)
            .into_iter()
            .map(|(_, revision, _)| revision)
            .collect();
        kept.sort_unstable();
        assert_eq!(
            pruned.done,
            self.rows.0.keys().copied().eq(kept),
            "done when only what must be kept is left"
        );
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(writes) => self.write(writes),
            Step::Fill(first, count) => {
                for number in 0..*count {
                    self.write(&[Write::Put(first.wrapping_add(number), 0)]);
                }
            }
            Step::Compact(share) => {
                let from = self.model.compacted.max(0);
                let mark = from + (self.model.revision - from) * i64::from(*share) / 255;
                if self.mvcc.compact(mark).is_ok() {
                    self.model.compacted = mark;
                } else {
                    assert_eq!(mark, self.model.compacted);
                }
            }
            Step::Prune(limit) => self.prune(*limit),
            Step::PruneAll => self.prune(usize::MAX),
            Step::Hold => self.held.push((self.mvcc.snapshot(), self.model.clone())),
            Step::Restart => {
                self.mvcc = self.rows.restore(self.model.revision, self.model.compacted)
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn random_programs_agree_with_the_model(steps in vec(step(), 1..60), spans in vec(span(), 1..4)) {
        let mut run = Run { mvcc: Mvcc::new(), model: Model::new(), rows: Rows::default(), held: Vec::new() };
        for (number, step) in steps.iter().enumerate() {
            run.step(step);
            let (superseded, key_bytes) = run.mvcc.root.check();
            prop_assert_eq!((superseded, key_bytes), (run.mvcc.superseded, run.mvcc.key_bytes));
            prop_assert_eq!(superseded + run.mvcc.root.sum.keys, run.rows.0.len());
            if number % 8 == 0 || number + 1 == steps.len() {
                run.model.compare(run.mvcc.view(), &spans);
            }
        }
        for (snapshot, model) in &run.held {
            model.compare(snapshot.view(), &spans);
        }
        let restored = run.rows.restore(run.model.revision, run.model.compacted);
        restored.root.check();
        run.model.compare(restored.view(), &spans);
    }
}
