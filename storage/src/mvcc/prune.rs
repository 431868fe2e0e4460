//! Removing garbage from the tree.
//!
//! Each subtree knows the least compaction mark at which something in it is garbage, so a pass goes straight to the garbage
//! and needs no list of it, neither in memory nor after a restart.

use super::node::{Child, INNER_MAX, Inner, LEAF_MAX, Leaf, Node};
use crate::Revision;
use std::sync::Arc;

/// A node with fewer keys or children than this share of the maximum is joined with a neighbour. A quarter, not half: a node
/// that was just split must not be joined again by the next removal.
pub(super) const SCARCE: usize = 4;

/// One pass over the garbage.
pub(super) struct Pass {
    pub(super) mark: i64,
    /// Most revisions to drop.
    pub(super) limit: usize,
    pub(super) dropped: Vec<Revision>,
    /// The length of the keys that went away.
    pub(super) key_bytes: usize,
}

impl Child {
    /// Removes garbage from the tree whose root this is, as far as `pass` allows.
    pub(super) fn prune_root(&mut self, pass: &mut Pass) {
        self.prune(pass);
        while let Node::Inner(inner) = &self.node {
            match inner.children.as_slice() {
                [] => *self = Child::empty(),
                [only] => *self = only.clone(),
                _ => break,
            }
        }
    }

    fn prune(&mut self, pass: &mut Pass) {
        if self.sum.due > pass.mark || pass.dropped.len() >= pass.limit {
            return;
        }
        match &mut self.node {
            Node::Leaf(leaf) => {
                let leaf = Arc::make_mut(leaf);
                leaf.prune(pass);
                self.sum = leaf.summary();
            }
            Node::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                for child in &mut inner.children {
                    child.prune(pass);
                }
                inner.mend();
                self.sum = inner.summary();
            }
        }
    }

    fn scarce(&self) -> bool {
        self.width()
            < match &self.node {
                Node::Leaf(_) => LEAF_MAX / SCARCE,
                Node::Inner(_) => INNER_MAX / SCARCE,
            }
    }
}

impl Leaf {
    fn prune(&mut self, pass: &mut Pass) {
        let mut at = 0;
        while at < self.entries.len() {
            if self
                .entries
                .prune(at, pass.mark, pass.limit, &mut pass.dropped)
            {
                pass.key_bytes += self.keys.get(at).len();
                self.entries.remove(at);
                self.keys.remove(at);
            } else {
                at += 1;
            }
        }
        self.entries.shrink();
    }
}

impl Inner {
    /// Removes empty children, then joins scarce ones with a neighbour (an empty inner node has no separators to join).
    fn mend(&mut self) {
        let mut at = 0;
        while at < self.children.len() {
            if self.children[at].width() > 0 {
                at += 1;
                continue;
            }
            self.children.remove(at);
            if !self.children.is_empty() {
                self.separators.remove(at.saturating_sub(1));
            }
        }
        let mut at = 0;
        while at < self.children.len() {
            let count = self.children.len();
            if !self.children[at].scarce() || count == 1 {
                at += 1;
                continue;
            }
            let left = at.min(count - 2);
            self.join(left);
            at = if self.children.len() < count {
                left
            } else {
                at + 1
            };
        }
    }

    /// Makes one child of `left` and the one after it, or, where that is too large, two of equal size.
    fn join(&mut self, left: usize) {
        let (before, after) = self.children.split_at_mut(left + 1);
        let (a, b) = (&mut before[left], &mut after[0]);
        let parted = match (&mut a.node, &mut b.node) {
            (Node::Leaf(x), Node::Leaf(y)) => {
                let (x, y) = (Arc::make_mut(x), Arc::make_mut(y));
                x.keys.append(&mut y.keys);
                x.entries.append(&mut y.entries);
                let parted = (x.entries.len() > LEAF_MAX).then(|| {
                    let (separator, right) = x.split_off(x.entries.len() / 2);
                    (separator, right.into_child())
                });
                a.sum = x.summary();
                parted
            }
            (Node::Inner(x), Node::Inner(y)) => {
                let (x, y) = (Arc::make_mut(x), Arc::make_mut(y));
                x.separators.push(self.separators.get(left));
                x.separators.append(&mut y.separators);
                x.children.append(&mut y.children);
                let parted = (x.children.len() > INNER_MAX).then(|| {
                    let (separator, right) = x.split_off(x.children.len() / 2);
                    (separator, right.into_child())
                });
                a.sum = x.summary();
                parted
            }
            // All leaves are at one depth.
            (Node::Leaf(_), Node::Inner(_)) | (Node::Inner(_), Node::Leaf(_)) => return,
        };
        self.separators.remove(left);
        if let Some((separator, right)) = parted {
            self.separators.insert(left, &separator);
            self.children[left + 1] = right;
        } else {
            self.children.remove(left + 1);
        }
    }
}
