//! The tree: nodes, what they sum up, and how they are searched.
//!
//! A counted B+tree whose nodes are shared with snapshots. A writer changes a node in place while nobody else holds it and
//! copies it otherwise, so a snapshot is a clone of the root. The sums over each subtree stand in its parent, beside the
//! pointer: a count never touches the nodes it counts.

use super::entries::Entries;
use super::keys::Keys;
use std::ops::Range;
use std::sync::Arc;

/// Most keys of a leaf. Tests use small nodes, so that small trees take every shape.
pub(super) const LEAF_MAX: usize = if cfg!(test) { 8 } else { 64 };
/// Most children of an inner node. Fewer than keys in a leaf, because copying an inner node beside a snapshot touches the
/// reference count of every child.
pub(super) const INNER_MAX: usize = if cfg!(test) { 8 } else { 32 };

/// What is known of a subtree without looking into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Keys, deleted ones included.
    pub(super) keys: usize,
    /// Keys whose current version is not a tombstone.
    pub(super) live: usize,
    /// The greatest `main` at which a key was changed. At or above it the current versions are the visible ones.
    pub(super) newest: i64,
    /// The least compaction mark at which something here is garbage ([`Entries::due`]).
    pub(super) due: i64,
}

impl Summary {
    pub(super) const EMPTY: Summary = Summary {
        keys: 0,
        live: 0,
        newest: i64::MIN,
        due: i64::MAX,
    };

    fn add(self, other: Summary) -> Summary {
        Summary {
            keys: self.keys + other.keys,
            live: self.live + other.live,
            newest: self.newest.max(other.newest),
            due: self.due.min(other.due),
        }
    }

    /// Whether a reader at `at` sees nothing at all here.
    pub(super) fn invisible(&self, at: i64) -> bool {
        self.live == 0 && self.newest <= at
    }
}

/// A subtree, with its sums. The root is one too.
#[derive(Clone, Debug)]
pub(super) struct Child {
    pub(super) node: Node,
    pub(super) sum: Summary,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Leaf(Arc<Leaf>),
    Inner(Arc<Inner>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    pub(super) keys: Keys,
    pub(super) entries: Entries,
}

/// One child at least, two at least in the root.
#[derive(Clone, Debug, Default)]
pub(super) struct Inner {
    /// One less than children: `separators[i]` is greater than every key of `children[i]` and not greater than any of
    /// `children[i + 1]`.
    pub(super) separators: Keys,
    pub(super) children: Vec<Child>,
}

impl Leaf {
    pub(super) fn summary(&self) -> Summary {
        (0..self.entries.len()).fold(Summary::EMPTY, |sum, at| {
            sum.add(Summary {
                keys: 1,
                live: usize::from(self.entries.alive(at)),
                newest: self.entries.newest(at),
                due: self.entries.due(at),
            })
        })
    }

    pub(super) fn into_child(self) -> Child {
        Child {
            sum: self.summary(),
            node: Node::Leaf(Arc::new(self)),
        }
    }
}

impl Inner {
    pub(super) fn summary(&self) -> Summary {
        self.children
            .iter()
            .fold(Summary::EMPTY, |sum, child| sum.add(child.sum))
    }

    pub(super) fn into_child(self) -> Child {
        Child {
            sum: self.summary(),
            node: Node::Inner(Arc::new(self)),
        }
    }

    /// The child that holds `key` if any does.
    pub(super) fn child_of(&self, key: &[u8]) -> usize {
        match self.separators.search(key) {
            Ok(at) => at + 1,
            Err(at) => at,
        }
    }
}

impl Child {
    pub(super) fn empty() -> Child {
        Child {
            node: Node::Leaf(Arc::default()),
            sum: Summary::EMPTY,
        }
    }

    /// Keys of a leaf, children of an inner node.
    pub(super) fn width(&self) -> usize {
        match &self.node {
            Node::Leaf(leaf) => leaf.entries.len(),
            Node::Inner(inner) => inner.children.len(),
        }
    }

    /// Keys that exist.
    pub(super) fn live(&self) -> usize {
        self.sum.live
    }

    /// The leaf with `key`, and where in it the key is.
    pub(super) fn find(&self, key: &[u8]) -> Option<(&Leaf, usize)> {
        let mut node = &self.node;
        loop {
            match node {
                Node::Inner(inner) => node = &inner.children[inner.child_of(key)].node,
                Node::Leaf(leaf) => return Some((leaf, leaf.keys.search(key).ok()?)),
            }
        }
    }

    /// How many keys are less than `key`, and whether it is there itself.
    pub(super) fn rank(&self, key: &[u8]) -> (usize, bool) {
        let (mut node, mut before) = (&self.node, 0);
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.child_of(key);
                    before += inner.children[..at]
                        .iter()
                        .map(|child| child.sum.keys)
                        .sum::<usize>();
                    node = &inner.children[at].node;
                }
                Node::Leaf(leaf) => {
                    return match leaf.keys.search(key) {
                        Ok(at) => (before + at, true),
                        Err(at) => (before + at, false),
                    };
                }
            }
        }
    }

    /// How many of the keys at the ranks in `window` a reader at `at` sees.
    pub(super) fn count(&self, window: Range<usize>, at: i64) -> usize {
        if window.is_empty() || self.sum.invisible(at) {
            return 0;
        }
        if window.start == 0 && window.end >= self.sum.keys && self.sum.newest <= at {
            return self.sum.live;
        }
        match &self.node {
            Node::Leaf(leaf) => window
                .filter(|position| leaf.entries.at(*position, at).is_some())
                .count(),
            Node::Inner(inner) => {
                let mut before = 0;
                let mut total = 0;
                for child in &inner.children {
                    if before >= window.end {
                        break;
                    }
                    total += child.count(child.part_of(&window, before), at);
                    before += child.sum.keys;
                }
                total
            }
        }
    }

    /// The part of `window` that falls on this subtree, whose first key has rank `before`, in ranks of its own.
    pub(super) fn part_of(&self, window: &Range<usize>, before: usize) -> Range<usize> {
        let clip = |rank: usize| rank.saturating_sub(before).min(self.sum.keys);
        clip(window.start)..clip(window.end)
    }
}

#[cfg(test)]
impl Child {
    /// Checks the whole tree; gives the number of superseded versions and the length of all keys.
    pub(super) fn check(&self) -> (usize, usize) {
        self.check_below(None, None, true).1
    }

    /// The depth below, and what [`Child::check`] gives.
    fn check_below(
        &self,
        low: Option<&[u8]>,
        high: Option<&[u8]>,
        root: bool,
    ) -> (usize, (usize, usize)) {
        match &self.node {
            Node::Leaf(leaf) => {
                assert_eq!(self.sum, leaf.summary());
                assert_eq!(leaf.keys.len(), leaf.entries.len());
                assert!(leaf.entries.len() <= LEAF_MAX && (root || leaf.entries.len() > 0));
                let keys: Vec<&[u8]> = (0..leaf.keys.len()).map(|at| leaf.keys.get(at)).collect();
                assert!(keys.is_sorted_by(|a, b| a < b));
                assert!(keys.iter().all(|key| low.is_none_or(|low| low <= *key)));
                assert!(keys.iter().all(|key| high.is_none_or(|high| *key < high)));
                let versions = leaf.entries.check();
                (0, (versions, keys.iter().map(|key| key.len()).sum()))
            }
            Node::Inner(inner) => {
                assert_eq!(self.sum, inner.summary());
                assert_eq!(inner.separators.len() + 1, inner.children.len());
                // Pruning may leave an inner node below the root with one child until a neighbour is joined with it.
                assert!((if root { 2 } else { 1 }..=INNER_MAX).contains(&inner.children.len()));
                let (mut depths, mut total) = (Vec::new(), (0, 0));
                for (at, child) in inner.children.iter().enumerate() {
                    let low = if at == 0 {
                        low
                    } else {
                        Some(inner.separators.get(at - 1))
                    };
                    let high = if at + 1 == inner.children.len() {
                        high
                    } else {
                        Some(inner.separators.get(at))
                    };
                    let (depth, (versions, bytes)) = child.check_below(low, high, false);
                    depths.push(depth);
                    total = (total.0 + versions, total.1 + bytes);
                }
                assert!(depths.iter().all(|depth| *depth == depths[0]));
                (depths[0] + 1, total)
            }
        }
    }
}
