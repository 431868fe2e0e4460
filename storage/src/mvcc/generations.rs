//! The logical content of a compacted store, version by version.

use super::node::{Child, Inner, Leaf, Node};
use super::version::Version;
use crate::Revision;

/// One version of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation<'a> {
    /// The key.
    pub key: &'a [u8],
    /// When it was changed; also the key of its row.
    pub revision: Revision,
    /// Whether the change deleted the key.
    pub tombstone: bool,
}

/// See [`View::history_at_compaction`](super::View::history_at_compaction).
pub struct Generations<'a> {
    /// Inner nodes above the leaf with the next child to visit.
    path: Vec<(&'a Inner, usize)>,
    leaf: &'a Leaf,
    at: usize,
    /// The version of the current key that was given last.
    last: Option<Revision>,
    /// Versions of the current key after that one, newest first: as many as were decoded at once.
    next: Vec<Version>,
    compacted: i64,
    until: i64,
}

impl<'a> Generations<'a> {
    pub(super) fn new(root: &'a Child, compacted: i64, until: i64) -> Generations<'a> {
        let mut path = Vec::new();
        let mut node = &root.node;
        loop {
            match node {
                Node::Inner(inner) => {
                    path.push((&**inner, 1));
                    node = &inner.children[0].node;
                }
                Node::Leaf(leaf) => {
                    return Generations {
                        path,
                        leaf,
                        at: 0,
                        last: None,
                        next: Vec::new(),
                        compacted,
                        until,
                    };
                }
            }
        }
    }

    fn next_leaf(&mut self) -> Option<()> {
        loop {
            let (inner, next) = self.path.last_mut()?;
            let Some(child) = inner.children.get(*next) else {
                self.path.pop();
                continue;
            };
            *next += 1;
            match &child.node {
                Node::Inner(inner) => self.path.push((inner, 0)),
                Node::Leaf(leaf) => {
                    (self.leaf, self.at) = (leaf, 0);
                    return Some(());
                }
            }
        }
    }

    /// The version of the current key that comes after `last`.
    fn following(&mut self) -> Option<Version> {
        let (entries, at) = (&self.leaf.entries, self.at);
        if self.last.is_none() {
            self.next.clear();
            let base = entries
                .newest_at(at, self.compacted.min(self.until))
                .filter(|version| version.alive() || version.modified.main >= self.compacted);
            self.next.extend(base);
        }
        if self.next.is_empty() {
            let after = self.last.unwrap_or(Revision {
                main: self.compacted,
                sub: u32::MAX,
            });
            entries.after(at, after, &mut self.next);
        }
        self.next
            .pop()
            .filter(|version| version.modified.main <= self.until)
    }
}

impl<'a> Iterator for Generations<'a> {
    type Item = Generation<'a>;

    fn next(&mut self) -> Option<Generation<'a>> {
        loop {
            if self.at == self.leaf.entries.len() {
                self.next_leaf()?;
                continue;
            }
            if let Some(version) = self.following() {
                self.last = Some(version.modified);
                let key = self.leaf.keys.get(self.at);
                return Some(Generation {
                    key,
                    revision: version.modified,
                    tombstone: !version.alive(),
                });
            }
            self.at += 1;
            self.last = None;
        }
    }
}
