//! What the index must do, written down as plainly as possible: every version ever written, and filters over them.

use crate::Revision;
use crate::mvcc::{KeySpan, Mvcc, RowHeader, Version, View};
use std::collections::BTreeMap;
use std::ops::Bound;

#[derive(Clone, Default)]
pub(super) struct Model {
    /// All versions, never pruned; `None` is a tombstone.
    keys: BTreeMap<Vec<u8>, Vec<(Revision, Option<Version>)>>,
    pub(super) revision: i64,
    pub(super) compacted: i64,
}

impl Model {
    pub(super) fn new() -> Model {
        Model {
            keys: BTreeMap::new(),
            revision: 1,
            compacted: -1,
        }
    }

    pub(super) fn current(&self, key: &[u8]) -> Option<Version> {
        self.at(key, i64::MAX)
    }

    fn at(&self, key: &[u8], at: i64) -> Option<Version> {
        let versions = self.keys.get(key)?;
        versions
            .iter()
            .rev()
            .find(|(revision, _)| revision.main <= at)?
            .1
    }

    pub(super) fn put(&mut self, key: &[u8], modified: Revision, lease: i64) -> Version {
        let version = match self.current(key) {
            Some(before) => Version {
                modified,
                version: before.version + 1,
                lease,
                ..before
            },
            None => Version {
                create_revision: modified.main,
                modified,
                version: 1,
                lease,
            },
        };
        self.keys
            .entry(key.to_vec())
            .or_default()
            .push((modified, Some(version)));
        self.revision = modified.main;
        version
    }

    pub(super) fn delete(&mut self, key: &[u8], revision: Revision) {
        self.keys
            .entry(key.to_vec())
            .or_default()
            .push((revision, None));
        self.revision = revision.main;
    }

    pub(super) fn range(&self, span: &Span, at: i64) -> Vec<(Vec<u8>, Version)> {
        let keys = self.keys.keys().filter(|key| span.contains(key));
        keys.filter_map(|key| Some((key.clone(), self.at(key, at)?)))
            .collect()
    }

    /// Behaviour §3.6, up to revision `until`.
    pub(super) fn kept(&self, until: i64) -> Vec<(Vec<u8>, Revision, bool)> {
        let mut kept = Vec::new();
        for (key, versions) in &self.keys {
            let base = versions
                .iter()
                .rfind(|(revision, _)| revision.main <= self.compacted.min(until));
            let base = base
                .filter(|(revision, version)| version.is_some() || revision.main == self.compacted);
            let later = versions
                .iter()
                .filter(|(revision, _)| revision.main > self.compacted && revision.main <= until);
            kept.extend(
                base.into_iter()
                    .chain(later)
                    .map(|(revision, version)| (key.clone(), *revision, version.is_none())),
            );
        }
        kept
    }

    /// Compares every answer at every revision that can be read.
    pub(super) fn compare(&self, view: View<'_>, spans: &[Span]) {
        assert_eq!(
            (view.revision(), view.compacted()),
            (self.revision, self.compacted)
        );
        for at in self.compacted.max(0)..=self.revision + 1 {
            for span in spans {
                let expected = self.range(span, at);
                let found: Vec<_> = view.range_at(span.borrow(), at).map(own).collect();
                assert_eq!(found, expected, "range {span:?} at {at}");
                let mut backwards: Vec<_> =
                    view.range_at(span.borrow(), at).rev().map(own).collect();
                backwards.reverse();
                assert_eq!(backwards, expected, "descending range {span:?} at {at}");
                assert_eq!(
                    both_ends(view, span, at),
                    expected,
                    "range {span:?} at {at} from both ends"
                );
                assert_eq!(
                    view.count_at(span.borrow(), at),
                    expected.len() as u64,
                    "count {span:?} at {at}"
                );
            }
            for key in self.keys.keys() {
                assert_eq!(view.get_at(key, at), self.at(key, at));
            }
            let versions: Vec<_> = view
                .history_at_compaction(at)
                .map(|item| (item.key.to_vec(), item.revision, item.tombstone))
                .collect();
            assert_eq!(versions, self.kept(at), "history until {at}");
        }
        assert_eq!(view.get(b"never written"), None);
        assert_eq!(
            view.keys() as u64,
            view.count_at(KeySpan::ALL, self.revision)
        );
        for key in self.keys.keys() {
            assert_eq!(view.get(key), self.current(key));
        }
    }
}

fn own((key, version): (&[u8], Version)) -> (Vec<u8>, Version) {
    (key.to_vec(), version)
}

fn both_ends(view: View<'_>, span: &Span, at: i64) -> Vec<(Vec<u8>, Version)> {
    let mut range = view.range_at(span.borrow(), at);
    let (mut front, mut back) = (Vec::new(), Vec::new());
    for step in 0.. {
        let Some(item) = (if step % 3 == 0 {
            range.next_back()
        } else {
            range.next()
        }) else {
            break;
        };
        if step % 3 == 0 { &mut back } else { &mut front }.push(own(item));
    }
    assert!(range.next().is_none() && range.next_back().is_none());
    front.extend(back.into_iter().rev());
    front
}

#[derive(Clone, Debug)]
pub(super) struct Span(pub(super) Bound<Vec<u8>>, pub(super) Bound<Vec<u8>>);

impl Span {
    pub(super) fn borrow(&self) -> KeySpan<'_> {
        KeySpan {
            start: self.0.as_ref().map(Vec::as_slice),
            end: self.1.as_ref().map(Vec::as_slice),
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        (match &self.0 {
            Bound::Included(start) => key >= start.as_slice(),
            Bound::Excluded(start) => key > start.as_slice(),
            Bound::Unbounded => true,
        }) && (match &self.1 {
            Bound::Included(end) => key <= end.as_slice(),
            Bound::Excluded(end) => key < end.as_slice(),
            Bound::Unbounded => true,
        })
    }
}

/// The backend's rows: what a restart starts from.
#[derive(Clone, Default)]
pub(super) struct Rows(pub(super) BTreeMap<Revision, (Vec<u8>, Option<Version>)>);

impl Rows {
    /// Drops a row that must be garbage: superseded at or below the mark, or a tombstone below it, and the oldest of its key.
    pub(super) fn drop_garbage(&mut self, revision: Revision, mark: i64) {
        let (key, version) = self.0.remove(&revision).expect("a dropped row exists");
        let mut others = self
            .0
            .iter()
            .filter(|(_, (other, _))| *other == key)
            .map(|(revision, _)| *revision);
        let next = others.next();
        assert!(
            next.is_none_or(|next| next > revision),
            "the oldest version goes first"
        );
        let superseded = next.is_some_and(|next| next.main <= mark);
        assert!(
            superseded || (version.is_none() && revision.main < mark),
            "{revision:?} is not garbage at {mark}"
        );
    }

    pub(super) fn restore(&self, revision: i64, compacted: i64) -> Mvcc {
        let mut restore = Mvcc::restore(revision, compacted);
        for (revision, (key, version)) in &self.0 {
            let header = RowHeader {
                revision: *revision,
                key,
                create_revision: version.map_or(0, |version| version.create_revision),
                version: version.map_or(0, |version| version.version),
                lease: version.map_or(0, |version| version.lease),
                tombstone: version.is_none(),
            };
            restore.row(header).expect("a row that was written");
        }
        restore.finish().expect("rows that were written")
    }
}
