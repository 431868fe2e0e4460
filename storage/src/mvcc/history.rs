//! The superseded versions of one key: a persistent queue.
//!
//! A key written ten thousand times a second has millions of versions between two compactions, so neither a push beside an
//! outstanding snapshot nor a lookup may cost their number. This is a tree with all leaves at one depth that grows at its
//! right edge and shrinks at its left one; a step copies at most one node of each level.

use super::version::Version;
use crate::Revision;
use std::sync::Arc;

/// Entries of one node. A node of versions is then 1.3 KB, which is what a push beside a snapshot copies.
const WIDTH: usize = 32;

/// At least one version, oldest first.
#[derive(Clone, Debug)]
pub(super) struct History(Arc<Node>);

#[derive(Clone, Debug)]
enum Node {
    /// A leaf of one version, which is what most histories are: it saves the vector's allocation.
    One(Version),
    Leaf(Vec<Version>),
    Inner(Vec<Branch>),
}

#[derive(Clone, Debug)]
struct Branch {
    /// The revision of the oldest version below when the branch was made; popping does not raise it. Still greater than all
    /// revisions of the branch before, which is all that a search needs.
    first: Revision,
    node: Arc<Node>,
}

impl History {
    pub(super) fn of(version: Version) -> History {
        History(Arc::new(Node::One(version)))
    }

    /// Appends a version, newer than all that are there.
    pub(super) fn push(&mut self, version: Version) {
        if Node::push(&mut self.0, version) {
            return;
        }
        let right = Branch {
            first: version.modified,
            node: Arc::new(self.0.beside(version)),
        };
        let left = Branch {
            first: self.oldest().modified,
            node: self.0.clone(),
        };
        self.0 = Arc::new(Node::Inner(vec![left, right]));
    }

    pub(super) fn oldest(&self) -> Version {
        self.0.oldest()
    }

    /// Takes the oldest version off; true if it was the only one (the queue must then be dropped).
    pub(super) fn pop_oldest(&mut self) -> (Version, bool) {
        let (version, emptied) = Node::pop(&mut self.0);
        while let Node::Inner(branches) = &*self.0 {
            match branches.as_slice() {
                [only] => self.0 = only.node.clone(),
                _ => break,
            }
        }
        (version, emptied)
    }

    /// The newest version at or below `main`.
    pub(super) fn newest_at(&self, main: i64) -> Option<Version> {
        let mut node = &*self.0;
        loop {
            match node {
                Node::One(version) => return (version.modified.main <= main).then_some(*version),
                Node::Leaf(versions) => {
                    let end = versions.partition_point(|version| version.modified.main <= main);
                    return versions.get(end.checked_sub(1)?).copied();
                }
                Node::Inner(branches) => {
                    let end = branches.partition_point(|branch| branch.first.main <= main);
                    node = &branches.get(end.checked_sub(1)?)?.node;
                }
            }
        }
    }

    /// The oldest version after `revision`.
    pub(super) fn first_after(&self, revision: Revision) -> Option<Version> {
        self.0.first_after(revision)
    }

    #[cfg(test)]
    pub(super) fn check(&self) -> (Revision, usize) {
        fn walk(node: &Node, out: &mut Vec<Revision>) -> usize {
            match node {
                Node::One(version) => {
                    out.push(version.modified);
                    0
                }
                Node::Leaf(versions) => {
                    assert!((1..=WIDTH).contains(&versions.len()));
                    out.extend(versions.iter().map(|version| version.modified));
                    0
                }
                Node::Inner(branches) => {
                    assert!((1..=WIDTH).contains(&branches.len()));
                    let mut depths = Vec::new();
                    for branch in branches {
                        assert!(branch.first <= branch.node.oldest().modified);
                        assert!(out.last().is_none_or(|last| *last < branch.first));
                        depths.push(walk(&branch.node, out));
                    }
                    assert!(depths.iter().all(|depth| *depth == depths[0]));
                    depths[0] + 1
                }
            }
        }
        let mut all = Vec::new();
        walk(&self.0, &mut all);
        assert!(all.is_sorted_by(|a, b| a < b));
        (all[all.len() - 1], all.len())
    }
}

impl Node {
    /// False if the whole subtree is full.
    fn push(node: &mut Arc<Node>, version: Version) -> bool {
        match Arc::make_mut(node) {
            Node::One(first) => {
                let versions = vec![*first, version];
                *node = Arc::new(Node::Leaf(versions));
                true
            }
            Node::Leaf(versions) if versions.len() == WIDTH => false,
            Node::Leaf(versions) => {
                if versions.len() == versions.capacity() {
                    // Doubling would leave half of a short history unused.
                    versions.reserve_exact((versions.len() / 2).max(2).min(WIDTH - versions.len()));
                }
                versions.push(version);
                true
            }
            Node::Inner(branches) => {
                let full = branches.len() == WIDTH;
                let Some(last) = branches.last_mut() else {
                    return false;
                };
                if Node::push(&mut last.node, version) {
                    return true;
                }
                if full {
                    return false;
                }
                let node = Arc::new(last.node.beside(version));
                branches.push(Branch {
                    first: version.modified,
                    node,
                });
                true
            }
        }
    }

    /// A subtree of this one's depth that holds `version` alone.
    fn beside(&self, version: Version) -> Node {
        match self {
            Node::One(_) | Node::Leaf(_) => Node::One(version),
            Node::Inner(branches) => match branches.first() {
                Some(branch) => {
                    let node = Arc::new(branch.node.beside(version));
                    Node::Inner(vec![Branch {
                        first: version.modified,
                        node,
                    }])
                }
                None => Node::One(version),
            },
        }
    }

    /// The oldest version below, and whether the subtree is empty without it.
    fn pop(node: &mut Arc<Node>) -> (Version, bool) {
        if let Node::One(version) = &**node {
            return (*version, true);
        }
        match Arc::make_mut(node) {
            Node::One(version) => (*version, true),
            Node::Leaf(versions) => {
                let version = versions.remove(0);
                (version, versions.is_empty())
            }
            Node::Inner(branches) => {
                let (version, emptied) = Node::pop(&mut branches[0].node);
                if emptied {
                    branches.remove(0);
                }
                (version, branches.is_empty())
            }
        }
    }

    fn oldest(&self) -> Version {
        match self {
            Node::One(version) => *version,
            Node::Leaf(versions) => versions[0],
            Node::Inner(branches) => branches[0].node.oldest(),
        }
    }

    fn first_after(&self, revision: Revision) -> Option<Version> {
        match self {
            Node::One(version) => (version.modified > revision).then_some(*version),
            Node::Leaf(versions) => versions
                .get(versions.partition_point(|version| version.modified <= revision))
                .copied(),
            Node::Inner(branches) => {
                let next = branches.partition_point(|branch| branch.first <= revision);
                next.checked_sub(1)
                    .and_then(|before| branches[before].node.first_after(revision))
                    .or_else(|| branches.get(next).map(|branch| branch.node.oldest()))
            }
        }
    }
}
