//! Changing the tree: puts, deletions, splits.

use super::Deleted;
use super::keys::separator;
use super::node::{Child, INNER_MAX, Inner, LEAF_MAX, Leaf, Node, Summary};
use super::version::Version;
use crate::Revision;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// What a put did.
pub(super) struct Inserted {
    pub(super) version: Version,
    /// The version before, if it was alive.
    pub(super) previous: Option<Version>,
    /// Whether the key was not in the index at all.
    pub(super) new_key: bool,
    due: i64,
    split: Option<Split>,
}

/// The right half of a node that became too large.
struct Split {
    separator: Box<[u8]>,
    right: Child,
}

impl Child {
    /// Puts `key` into the tree whose root this is.
    pub(super) fn put(&mut self, key: &[u8], modified: Revision, lease: i64) -> Inserted {
        let mut inserted = self.insert(key, modified, lease);
        if let Some(split) = inserted.split.take() {
            let mut root = Inner::default();
            root.separators.push(&split.separator);
            root.children.push(std::mem::replace(self, Child::empty()));
            root.children.push(split.right);
            *self = root.into_child();
        }
        inserted
    }

    fn insert(&mut self, key: &[u8], modified: Revision, lease: i64) -> Inserted {
        let (inserted, resized) = match &mut self.node {
            Node::Leaf(leaf) => {
                let leaf = Arc::make_mut(leaf);
                let inserted = leaf.insert(key, modified, lease);
                let resized = inserted.split.is_some().then(|| leaf.summary());
                (inserted, resized)
            }
            Node::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let at = inner.child_of(key);
                let mut inserted = inner.children[at].insert(key, modified, lease);
                if let Some(split) = inserted.split.take() {
                    inner.separators.insert(at, &split.separator);
                    inner.children.insert(at + 1, split.right);
                    inserted.split = inner.split_if_full(at + 1);
                }
                let resized = inserted.split.is_some().then(|| inner.summary());
                (inserted, resized)
            }
        };
        self.sum = resized.unwrap_or(Summary {
            keys: self.sum.keys + usize::from(inserted.new_key),
            live: self.sum.live + usize::from(inserted.previous.is_none()),
            newest: modified.main,
            // Superseding a version can only bring its key's mark down: the minimum stays exact.
            due: self.sum.due.min(inserted.due),
        });
        inserted
    }

    /// Deletes the live keys at the ranks in `window`. `next` is the revision of the first deletion and afterwards the one
    /// that follows the last.
    pub(super) fn delete(
        &mut self,
        window: Range<usize>,
        next: &mut Revision,
        deleted: &mut Vec<Deleted>,
    ) {
        if window.is_empty() || self.sum.live == 0 {
            return;
        }
        match &mut self.node {
            Node::Leaf(leaf) => {
                if !window.clone().any(|at| leaf.entries.alive(at)) {
                    return;
                }
                let leaf = Arc::make_mut(leaf);
                for at in window {
                    let Some(previous) = leaf.entries.current(at).if_alive() else {
                        continue;
                    };
                    let tombstone = Version::tombstone(*next);
                    let due = leaf.entries.supersede(at, &previous, &tombstone);
                    deleted.push(Deleted {
                        key: Bytes::copy_from_slice(leaf.keys.get(at)),
                        revision: *next,
                        previous,
                    });
                    next.sub += 1;
                    self.sum.live -= 1;
                    self.sum.newest = next.main;
                    self.sum.due = self.sum.due.min(due);
                }
            }
            Node::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let mut before = 0;
                for child in &mut inner.children {
                    if before >= window.end {
                        break;
                    }
                    let part = child.part_of(&window, before);
                    before += child.sum.keys;
                    child.delete(part, next, deleted);
                }
                self.sum = inner.summary();
            }
        }
    }
}

impl Leaf {
    fn insert(&mut self, key: &[u8], modified: Revision, lease: i64) -> Inserted {
        match self.keys.search(key) {
            Ok(at) => {
                let before = self.entries.current(at);
                let version = Version::following(Some(&before), modified, lease);
                let due = self.entries.supersede(at, &before, &version);
                Inserted {
                    version,
                    previous: before.if_alive(),
                    new_key: false,
                    due,
                    split: None,
                }
            }
            Err(at) => {
                let version = Version::following(None, modified, lease);
                self.keys.insert(at, key);
                self.entries.insert(at, &version);
                let split = self.split_if_full(at);
                Inserted {
                    version,
                    previous: None,
                    new_key: true,
                    due: i64::MAX,
                    split,
                }
            }
        }
    }

    /// Keys that arrive in ascending order leave full leaves behind; otherwise the halves are equal.
    fn split_if_full(&mut self, inserted: usize) -> Option<Split> {
        let len = self.entries.len();
        (len > LEAF_MAX).then(|| {
            let (separator, right) = self.split_off(if inserted + 1 == len {
                len - 1
            } else {
                len / 2
            });
            Split {
                separator,
                right: right.into_child(),
            }
        })
    }

    /// Takes the keys from `at` on; both sides must remain non-empty.
    pub(super) fn split_off(&mut self, at: usize) -> (Box<[u8]>, Leaf) {
        let right = Leaf {
            keys: self.keys.split_off(at),
            entries: self.entries.split_off(at),
        };
        (
            separator(self.keys.get(at - 1), right.keys.get(0)).into(),
            right,
        )
    }
}

impl Inner {
    fn split_if_full(&mut self, inserted: usize) -> Option<Split> {
        let len = self.children.len();
        (len > INNER_MAX).then(|| {
            let (separator, right) = self.split_off(if inserted + 1 == len {
                len - 2
            } else {
                len / 2
            });
            Split {
                separator,
                right: right.into_child(),
            }
        })
    }

    /// Takes the children from `at` on; both sides must remain non-empty.
    pub(super) fn split_off(&mut self, at: usize) -> (Box<[u8]>, Inner) {
        let right = Inner {
            separators: self.separators.split_off(at),
            children: self.children.split_off(at),
        };
        let separator = self.separators.get(at - 1).into();
        self.separators.remove(at - 1);
        (separator, right)
    }
}
