//! Building a tree bottom-up.

use super::keys::separator;
use super::node::{Child, INNER_MAX, Inner, Leaf};

/// Builds a tree from leaves in key order, filled by the caller.
pub(super) fn build(leaves: Vec<Leaf>) -> Child {
    let mut firsts: Vec<Box<[u8]>> = Vec::with_capacity(leaves.len());
    for (at, leaf) in leaves.iter().enumerate() {
        firsts.push(match at.checked_sub(1).map(|before| &leaves[before].keys) {
            Some(before) => separator(before.get(before.len() - 1), leaf.keys.get(0)).into(),
            None => Box::default(),
        });
    }
    let mut level: Vec<(Box<[u8]>, Child)> = firsts
        .into_iter()
        .zip(leaves.into_iter().map(Leaf::into_child))
        .collect();
    while level.len() > 1 {
        let groups = level.len().div_ceil(INNER_MAX);
        let mut above = Vec::with_capacity(groups);
        let mut rest = level.into_iter();
        for group in 0..groups {
            // Equal shares, so that the last node is not left with a single child.
            let share = rest.len().div_ceil(groups - group);
            let mut inner = Inner {
                children: Vec::with_capacity(share),
                ..Inner::default()
            };
            let mut first = None;
            for (separator, child) in rest.by_ref().take(share) {
                if first.is_some() {
                    inner.separators.push(&separator);
                } else {
                    first = Some(separator);
                }
                inner.children.push(child);
            }
            inner.separators.shrink();
            above.push((first.unwrap_or_default(), inner.into_child()));
        }
        level = above;
    }
    level.pop().map_or_else(Child::empty, |(_, root)| root)
}
