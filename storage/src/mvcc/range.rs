//! Iteration over the keys that a reader sees.

use super::node::{Child, Inner, Leaf, Node};
use super::version::Version;
use std::ops::Range as Ranks;

/// The keys of a span as of one revision, in key order; `rev()` gives them in descending order.
///
/// It borrows what it was made from. To go on later, start a new one behind the last key.
pub struct Range<'a> {
    root: &'a Child,
    at: i64,
    /// Ranks not yet visited. Both ends count down from it, which is how they know where they meet.
    rest: Ranks<usize>,
    front: Option<Cursor<'a>>,
    back: Option<Cursor<'a>>,
}

/// A place in the tree: the leaf, and for each inner node above it how far it was visited (the next child for the front
/// cursor, the number of children left for the back one; `at` likewise for the leaf's keys).
struct Cursor<'a> {
    path: Vec<(&'a Inner, usize)>,
    leaf: &'a Leaf,
    at: usize,
}

impl<'a> Range<'a> {
    pub(super) fn new(root: &'a Child, rest: Ranks<usize>, at: i64) -> Range<'a> {
        Range {
            root,
            at,
            rest,
            front: None,
            back: None,
        }
    }
}

impl<'a> Cursor<'a> {
    /// Finds the key at `rank`, which must exist. `behind` is 1 for a front cursor, 0 for a back cursor.
    fn seek(root: &'a Child, mut rank: usize, behind: usize) -> Cursor<'a> {
        let mut path = Vec::with_capacity(6);
        let mut node = &root.node;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    return Cursor {
                        path,
                        leaf,
                        at: rank + 1 - behind,
                    };
                }
                Node::Inner(inner) => {
                    let mut child = 0;
                    while child + 1 < inner.children.len() && rank >= inner.children[child].sum.keys
                    {
                        rank -= inner.children[child].sum.keys;
                        child += 1;
                    }
                    path.push((&**inner, child + behind));
                    node = &inner.children[child].node;
                }
            }
        }
    }

    /// Goes to the next leaf, passing over subtrees in which nothing is visible; false if there is none within `rest`.
    fn next_leaf(&mut self, rest: &mut Ranks<usize>, at: i64) -> bool {
        while let Some((inner, next)) = self.path.last_mut() {
            let Some(child) = inner.children.get(*next) else {
                self.path.pop();
                continue;
            };
            *next += 1;
            if child.sum.invisible(at) {
                rest.start = rest.end.min(rest.start + child.sum.keys);
                if rest.start == rest.end {
                    return false;
                }
                continue;
            }
            match &child.node {
                Node::Inner(inner) => self.path.push((inner, 0)),
                Node::Leaf(leaf) => {
                    (self.leaf, self.at) = (leaf, 0);
                    return true;
                }
            }
        }
        false
    }

    /// As [`Cursor::next_leaf`], leftwards.
    fn previous_leaf(&mut self, rest: &mut Ranks<usize>, at: i64) -> bool {
        while let Some((inner, left)) = self.path.last_mut() {
            let Some(next) = left.checked_sub(1) else {
                self.path.pop();
                continue;
            };
            *left = next;
            let child = &inner.children[next];
            if child.sum.invisible(at) {
                rest.end = rest.start.max(rest.end.saturating_sub(child.sum.keys));
                if rest.start == rest.end {
                    return false;
                }
                continue;
            }
            match &child.node {
                Node::Inner(inner) => self.path.push((inner, inner.children.len())),
                Node::Leaf(leaf) => {
                    (self.leaf, self.at) = (leaf, leaf.entries.len());
                    return true;
                }
            }
        }
        false
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = (&'a [u8], Version);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let cursor = self
                .front
                .get_or_insert_with(|| Cursor::seek(self.root, self.rest.start, 1));
            if cursor.at == cursor.leaf.entries.len() && !cursor.next_leaf(&mut self.rest, self.at)
            {
                break;
            }
            let at = cursor.at;
            cursor.at += 1;
            self.rest.start += 1;
            if let Some(version) = cursor.leaf.entries.at(at, self.at) {
                return Some((cursor.leaf.keys.get(at), version));
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.rest.len()))
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let cursor = self
                .back
                .get_or_insert_with(|| Cursor::seek(self.root, self.rest.end - 1, 0));
            if cursor.at == 0 && !cursor.previous_leaf(&mut self.rest, self.at) {
                break;
            }
            cursor.at -= 1;
            self.rest.end -= 1;
            if let Some(version) = cursor.leaf.entries.at(cursor.at, self.at) {
                return Some((cursor.leaf.keys.get(cursor.at), version));
            }
        }
        None
    }
}
