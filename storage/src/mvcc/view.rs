//! Reading: the same questions to the writer's state, to a transaction's, and to a snapshot.

use super::generations::Generations;
use super::node::Child;
use super::range::Range;
use super::version::Version;
use std::ops::Bound;
use std::ops::Range as Ranks;

/// An interval of keys. An end at or before the start makes it empty.
#[derive(Clone, Copy, Debug)]
pub struct KeySpan<'a> {
    /// Where it starts.
    pub start: Bound<&'a [u8]>,
    /// Where it ends.
    pub end: Bound<&'a [u8]>,
}

impl<'a> KeySpan<'a> {
    /// Every key.
    pub const ALL: KeySpan<'static> = KeySpan {
        start: Bound::Unbounded,
        end: Bound::Unbounded,
    };

    /// One key.
    pub const fn point(key: &'a [u8]) -> KeySpan<'a> {
        KeySpan {
            start: Bound::Included(key),
            end: Bound::Included(key),
        }
    }

    /// From `start` to before `end`.
    pub const fn between(start: &'a [u8], end: &'a [u8]) -> KeySpan<'a> {
        KeySpan {
            start: Bound::Included(start),
            end: Bound::Excluded(end),
        }
    }

    /// From `start` on.
    pub const fn from(start: &'a [u8]) -> KeySpan<'a> {
        KeySpan {
            start: Bound::Included(start),
            end: Bound::Unbounded,
        }
    }

    /// The ranks of the span's keys in a tree.
    pub(super) fn ranks(&self, root: &Child) -> Ranks<usize> {
        let start = match self.start {
            Bound::Unbounded => 0,
            Bound::Included(key) => root.rank(key).0,
            Bound::Excluded(key) => {
                let (rank, found) = root.rank(key);
                rank + usize::from(found)
            }
        };
        let end = match self.end {
            Bound::Unbounded => root.sum.keys,
            Bound::Excluded(key) => root.rank(key).0,
            Bound::Included(key) => {
                let (rank, found) = root.rank(key);
                rank + usize::from(found)
            }
        };
        start..end.max(start)
    }
}

/// A borrowed, consistent state of one tenant's keys. Free to copy.
///
/// Revisions asked for (`at`) are to be checked by the caller against [`View::compacted`] and [`View::revision`]; outside
/// of them the answer is of no use (above: the newest state; below the compaction mark: what happens to be there), but there
/// always is one.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(super) root: &'a Child,
    pub(super) revision: i64,
    pub(super) compacted: i64,
}

impl<'a> View<'a> {
    /// The revision of the newest change.
    pub fn revision(self) -> i64 {
        self.revision
    }

    /// The compaction mark: reads at it are possible, below it not. -1 before the first compaction.
    pub fn compacted(self) -> i64 {
        self.compacted
    }

    /// The current version of a key, `None` if it does not exist.
    pub fn get(self, key: &[u8]) -> Option<Version> {
        let (leaf, at) = self.root.find(key)?;
        leaf.entries.current(at).if_alive()
    }

    /// The version of a key as of revision `at`, `None` if it did not exist then.
    pub fn get_at(self, key: &[u8], at: i64) -> Option<Version> {
        let (leaf, position) = self.root.find(key)?;
        leaf.entries.at(position, at)
    }

    /// The keys of a span as of revision `at`, in key order (`rev()`: descending).
    pub fn range_at(self, span: KeySpan<'_>, at: i64) -> Range<'a> {
        Range::new(self.root, span.ranks(self.root), at)
    }

    /// How many keys of a span existed at revision `at`. Logarithmic for the current revision; for an older one it looks
    /// only into those parts of the span that have changed since.
    pub fn count_at(self, span: KeySpan<'_>, at: i64) -> u64 {
        self.root.count(span.ranks(self.root), at) as u64
    }

    /// Every version that a store compacted at [`View::compacted`] has to hold up to revision `rev`, for HashKV: those after the mark, and
    /// per key the newest one up to the mark unless it is a tombstone from before the mark. In key order, each key's versions oldest first. The
    /// answer does not depend on how much of the garbage has been pruned.
    pub fn history_at_compaction(self, rev: i64) -> Generations<'a> {
        Generations::new(self.root, self.compacted, rev)
    }

    /// Keys that exist now.
    pub fn keys(self) -> usize {
        self.root.live()
    }
}

/// An immutable state of one tenant's keys. Made and cloned in O(1), valid for as long as it is kept; meanwhile the writer
/// copies each node that it changes for the first time.
#[derive(Clone)]
pub struct Snapshot {
    pub(super) root: Child,
    pub(super) revision: i64,
    pub(super) compacted: i64,
}

impl Snapshot {
    /// The same reads, borrowed.
    pub fn view(&self) -> View<'_> {
        View {
            root: &self.root,
            revision: self.revision,
            compacted: self.compacted,
        }
    }

    /// The revision of the newest change in it.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The compaction mark when it was made.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// See [`View::get`].
    pub fn get(&self, key: &[u8]) -> Option<Version> {
        self.view().get(key)
    }

    /// See [`View::get_at`].
    pub fn get_at(&self, key: &[u8], at: i64) -> Option<Version> {
        self.view().get_at(key, at)
    }

    /// See [`View::range_at`].
    pub fn range_at(&self, span: KeySpan<'_>, at: i64) -> Range<'_> {
        self.view().range_at(span, at)
    }

    /// See [`View::count_at`].
    pub fn count_at(&self, span: KeySpan<'_>, at: i64) -> u64 {
        self.view().count_at(span, at)
    }

    /// See [`View::history_at_compaction`].
    pub fn history_at_compaction(&self, rev: i64) -> Generations<'_> {
        self.view().history_at_compaction(rev)
    }
}
