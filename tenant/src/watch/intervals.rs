//! Finds the range watchers that hold a key: a treap ordered by start, each node knowing the greatest end below it.

use bytes::Bytes;
use holdfast_auth::KeyRange;
use std::hash::{BuildHasher, RandomState};

type Link = Option<u32>;

#[derive(Debug)]
struct Node {
    start: Bytes,
    /// `None` is no upper bound.
    end: Option<Bytes>,
    id: u32,
    priority: u64,
    /// Greatest end in this subtree.
    reach: Option<Bytes>,
    left: Link,
    right: Link,
}

/// Half-open key intervals, each with the id of its owner.
#[derive(Debug, Default)]
pub(super) struct Intervals {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: Link,
    /// Where priorities come from. Nobody can foresee them: whoever chose keys to suit them would line the tree up. The shape
    /// of the tree is seen in no answer.
    chance: RandomState,
}

impl Intervals {
    pub(super) fn insert(&mut self, keys: &KeyRange, id: u32) {
        let (start, end) = interval(keys);
        let node = Node {
            reach: end.clone(),
            start,
            end,
            id,
            priority: self.chance.hash_one(id),
            left: None,
            right: None,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        let (left, right) = self.split(self.root, at);
        let joined = self.join(left, Some(at));
        self.root = self.join(joined, right);
    }

    pub(super) fn remove(&mut self, keys: &KeyRange, id: u32) {
        let (start, _) = interval(keys);
        self.root = self.remove_below(self.root, &start, id);
    }

    /// Calls `found` with the id of every interval that holds `key`.
    pub(super) fn stab(&self, key: &[u8], found: &mut impl FnMut(u32)) {
        let mut pending = vec![self.root];
        while let Some(link) = pending.pop() {
            let Some(at) = link else { continue };
            let node = &self.nodes[at as usize];
            if node.reach.as_ref().is_some_and(|reach| reach <= key) {
                continue;
            }
            pending.push(node.left);
            if node.start <= key {
                if node.end.as_ref().is_none_or(|end| key < end) {
                    found(node.id);
                }
                pending.push(node.right);
            }
        }
    }

    fn before(&self, a: u32, start: &Bytes, id: u32) -> bool {
        let node = &self.nodes[a as usize];
        (&node.start, node.id) < (start, id)
    }

    fn refresh(&mut self, at: u32) {
        let node = &self.nodes[at as usize];
        let mut reach = node.end.clone();
        for child in [node.left, node.right].into_iter().flatten() {
            let below = &self.nodes[child as usize].reach;
            reach = match (reach, below) {
                (Some(a), Some(b)) => Some(if a >= *b { a } else { b.clone() }),
                _ => None,
            };
        }
        self.nodes[at as usize].reach = reach;
    }

    /// Splits a subtree into what stands before node `pivot` and what stands after it.
    fn split(&mut self, link: Link, pivot: u32) -> (Link, Link) {
        let Some(at) = link else { return (None, None) };
        let (start, id) = {
            let pivot = &self.nodes[pivot as usize];
            (pivot.start.clone(), pivot.id)
        };
        if self.before(at, &start, id) {
            let right = self.nodes[at as usize].right;
            let (a, b) = self.split(right, pivot);
            self.nodes[at as usize].right = a;
            self.refresh(at);
            (Some(at), b)
        } else {
            let left = self.nodes[at as usize].left;
            let (a, b) = self.split(left, pivot);
            self.nodes[at as usize].left = b;
            self.refresh(at);
            (a, Some(at))
        }
    }

    fn join(&mut self, left: Link, right: Link) -> Link {
        match (left, right) {
            (None, other) | (other, None) => other,
            (Some(a), Some(b)) => {
                if self.nodes[a as usize].priority >= self.nodes[b as usize].priority {
                    let inner = self.nodes[a as usize].right;
                    let joined = self.join(inner, Some(b));
                    self.nodes[a as usize].right = joined;
                    self.refresh(a);
                    Some(a)
                } else {
                    let inner = self.nodes[b as usize].left;
                    let joined = self.join(Some(a), inner);
                    self.nodes[b as usize].left = joined;
                    self.refresh(b);
                    Some(b)
                }
            }
        }
    }

    fn remove_below(&mut self, link: Link, start: &Bytes, id: u32) -> Link {
        let at = link?;
        let node = &self.nodes[at as usize];
        let (left, right) = (node.left, node.right);
        if node.id == id && node.start == *start {
            let joined = self.join(left, right);
            self.free.push(at);
            return joined;
        }
        if self.before(at, start, id) {
            self.nodes[at as usize].right = self.remove_below(right, start, id);
        } else {
            self.nodes[at as usize].left = self.remove_below(left, start, id);
        }
        self.refresh(at);
        Some(at)
    }
}

fn interval(keys: &KeyRange) -> (Bytes, Option<Bytes>) {
    match keys {
        KeyRange::Point(key) => {
            let mut end = key.to_vec();
            end.push(0);
            (key.clone(), Some(end.into()))
        }
        KeyRange::Span { start, end } => (start.clone(), Some(end.clone())),
        KeyRange::From(start) => (start.clone(), None),
        KeyRange::All => (Bytes::new(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn depth(tree: &Intervals) -> usize {
        let mut deepest = 0;
        let mut pending = vec![(tree.root, 1)];
        while let Some((link, depth)) = pending.pop() {
            let Some(at) = link else { continue };
            deepest = deepest.max(depth);
            let node = &tree.nodes[at as usize];
            pending.push((node.left, depth + 1));
            pending.push((node.right, depth + 1));
        }
        deepest
    }

    /// Clients choose the keys, and ids are given out in order: whoever could tell a watch's priority could line the tree up, and a
    /// walk down a long line ends the stack.
    #[test]
    fn chosen_keys_do_not_line_the_tree_up() {
        // splitmix64, a likely choice for a fixed mixing function.
        let mix = |id: u64| {
            let mut z = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let mut tree = Intervals::default();
        for id in 0..2_000u32 {
            let start = Bytes::copy_from_slice(&mix(u64::from(id)).to_be_bytes());
            tree.insert(&KeyRange::From(start), id);
        }
        assert!(depth(&tree) < 100, "{} deep", depth(&tree));
    }

    proptest! {
        #[test]
        fn stabbing_finds_what_a_list_finds(
            ops in proptest::collection::vec((0..12u8, 0..12u8, any::<bool>()), 1..80),
            key in 0..12u8,
        ) {
            let mut tree = Intervals::default();
            let mut list: Vec<(KeyRange, u32)> = Vec::new();
            for (id, (a, b, remove)) in ops.into_iter().enumerate() {
                if remove && !list.is_empty() {
                    let (keys, id) = list.swap_remove(usize::from(a) % list.len());
                    tree.remove(&keys, id);
                    continue;
                }
                let keys = match b {
                    0 => KeyRange::From(vec![a].into()),
                    1 => KeyRange::All,
                    _ => KeyRange::Span { start: vec![a].into(), end: vec![b].into() },
                };
                tree.insert(&keys, id as u32);
                list.push((keys, id as u32));
            }
            let mut found = Vec::new();
            tree.stab(&[key], &mut |id| found.push(id));
            found.sort_unstable();
            let mut expected: Vec<_> = list
                .iter()
                .filter(|(keys, _)| keys.contains(&[key]))
                .map(|(_, id)| *id)
                .collect();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
