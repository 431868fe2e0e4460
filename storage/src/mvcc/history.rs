//! A key's older superseded versions: a persistent queue of packed runs.
//!
//! A key written ten thousand times a second has millions of versions between two compactions, so neither a push beside an
//! outstanding snapshot nor a lookup may cost their number. This is a tree with all leaves at one depth that grows at its
//! right edge and shrinks at its left one; a step copies at most one node of each level. A leaf is a [`Chain`] of up to
//! [`CHUNK_MAX`] bytes in one allocation.

use super::packed::{Chain, LINK_MAX, ORIGIN, Scratch};
use super::version::{Version, due};
use crate::Revision;
use std::sync::Arc;

/// Branches of one inner node.
const WIDTH: usize = if cfg!(test) { 4 } else { 32 };

/// Longest chain of a leaf: three times what a leaf holds, and no more because a lookup decodes it, in up to 0.5 us. With its
/// length and two reference counts it fills a size class of the allocator.
pub(super) const CHUNK_MAX: usize = if cfg!(test) { 111 } else { 175 };
const _: () = assert!(CHUNK_MAX <= u8::MAX as usize && CHUNK_MAX > LINK_MAX);

/// At least one version.
#[derive(Clone, Debug)]
pub(super) enum History {
    Chunk(Chunk),
    /// One branch at least, two at least in the root.
    Tree(Arc<Vec<Branch>>),
}

/// The length of a chain, the chain, and what is left of the allocator's size class.
#[derive(Clone, Debug)]
pub(super) struct Chunk(Arc<[u8]>);

#[derive(Clone, Debug)]
pub(super) struct Branch {
    /// The revision of the oldest version below when the branch was made; pruning, which touches the first branch only, does not raise
    /// it. Greater than all revisions of the branch before, which is all that a search needs.
    first: Revision,
    below: History,
}

/// Versions to be appended: `newest`, and the chain behind it, which takes [`CHUNK_MAX`] − [`LINK_MAX`] bytes at most.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) newest: Version,
    pub(super) older: &'a [u8],
}

impl Run<'_> {
    fn oldest(&self) -> Version {
        Chain::new(self.newest, self.older)
            .last()
            .unwrap_or(self.newest)
    }
}

impl History {
    pub(super) fn of(run: Run<'_>) -> History {
        let mut newest = Scratch::new();
        newest.link(&ORIGIN, &run.newest);
        History::Chunk(Chunk::of(&[newest.as_slice(), run.older]))
    }

    /// Appends versions newer than all that are there.
    pub(super) fn push(&mut self, run: Run<'_>) {
        let oldest = run.oldest();
        if self.push_below(run, &oldest) {
            return;
        }
        let right = Branch {
            first: oldest.modified,
            below: self.beside(run, &oldest),
        };
        let left = Branch {
            first: self.oldest().modified,
            below: self.clone(),
        };
        *self = History::Tree(Arc::new(vec![left, right]));
    }

    /// False if the whole subtree is full.
    fn push_below(&mut self, run: Run<'_>, oldest: &Version) -> bool {
        match self {
            History::Chunk(chunk) => chunk.push(run, oldest),
            History::Tree(branches) => {
                let branches = Arc::make_mut(branches);
                let full = branches.len() >= WIDTH;
                let Some(last) = branches.last_mut() else {
                    return false;
                };
                if last.below.push_below(run, oldest) {
                    return true;
                }
                if !full {
                    let below = last.below.beside(run, oldest);
                    branches.push(Branch {
                        first: oldest.modified,
                        below,
                    });
                }
                !full
            }
        }
    }

    /// A subtree of this one's depth that holds `run` alone.
    fn beside(&self, run: Run<'_>, oldest: &Version) -> History {
        match self {
            History::Tree(branches) if !branches.is_empty() => {
                let below = branches[0].below.beside(run, oldest);
                History::Tree(Arc::new(vec![Branch {
                    first: oldest.modified,
                    below,
                }]))
            }
            History::Tree(_) | History::Chunk(_) => History::of(run),
        }
    }

    fn oldest(&self) -> Version {
        match self {
            History::Chunk(chunk) => chunk.chain().last().unwrap_or(ORIGIN),
            History::Tree(branches) => branches
                .first()
                .map_or(ORIGIN, |branch| branch.below.oldest()),
        }
    }

    /// The newest version at or below `main`.
    pub(super) fn newest_at(&self, main: i64) -> Option<Version> {
        let mut history = self;
        loop {
            match history {
                History::Chunk(chunk) => {
                    return chunk.chain().find(|version| version.modified.main <= main);
                }
                History::Tree(branches) => {
                    let end = branches.partition_point(|branch| branch.first.main <= main);
                    history = &branches.get(end.checked_sub(1)?)?.below;
                }
            }
        }
    }

    /// Appends to `found`, newest first, some of the versions after `revision`: the oldest ones.
    pub(super) fn after(&self, revision: Revision, found: &mut Vec<Version>) {
        match self {
            History::Chunk(chunk) => found.extend(
                chunk
                    .chain()
                    .take_while(|version| version.modified > revision),
            ),
            History::Tree(branches) => {
                let next = branches.partition_point(|branch| branch.first <= revision);
                let count = found.len();
                if let Some(before) = next.checked_sub(1) {
                    branches[before].below.after(revision, found);
                }
                if found.len() == count
                    && let Some(branch) = branches.get(next)
                {
                    branch.below.after(revision, found);
                }
            }
        }
    }

    /// [`due`] of the oldest version. `next` is when the version after all these was written.
    pub(super) fn due(&self, next: i64) -> i64 {
        match self {
            History::Chunk(chunk) => chain_due(chunk.chain(), next).unwrap_or(i64::MAX),
            History::Tree(branches) => branches.first().map_or(i64::MAX, |branch| {
                let next = branches.get(1).map_or(next, |branch| branch.first.main);
                branch.below.due(next)
            }),
        }
    }

    /// Removes versions that are garbage at `mark`, oldest first, until `dropped` holds `limit` of them. True if nothing remains.
    /// `next` as in [`History::due`].
    pub(super) fn prune(
        &mut self,
        next: i64,
        mark: i64,
        limit: usize,
        dropped: &mut Vec<Revision>,
    ) -> bool {
        let emptied = self.prune_below(next, mark, limit, dropped);
        while let History::Tree(branches) = self {
            match branches.as_slice() {
                [only] => *self = only.below.clone(),
                _ => break,
            }
        }
        emptied
    }

    fn prune_below(
        &mut self,
        next: i64,
        mark: i64,
        limit: usize,
        dropped: &mut Vec<Revision>,
    ) -> bool {
        match self {
            History::Chunk(chunk) => {
                let kept = prune_chain(chunk.chain(), next, mark, limit, dropped);
                chunk.truncate(kept);
                kept == 0
            }
            History::Tree(branches) => {
                let branches = Arc::make_mut(branches);
                let mut emptied = 0;
                while emptied < branches.len() {
                    let next = branches
                        .get(emptied + 1)
                        .map_or(next, |branch| branch.first.main);
                    if !branches[emptied]
                        .below
                        .prune_below(next, mark, limit, dropped)
                    {
                        break;
                    }
                    emptied += 1;
                }
                branches.drain(..emptied);
                branches.is_empty()
            }
        }
    }
}

impl Chunk {
    /// A chain in as small an allocation as holds it.
    fn of(parts: &[&[u8]]) -> Chunk {
        /// Of an [`Arc`], in front of what it holds.
        const COUNTS: usize = 16;
        let mut bytes = [0; rounded(COUNTS + 1 + CHUNK_MAX)];
        let mut end = 1;
        for part in parts {
            bytes[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        bytes[0] = (end - 1) as u8;
        Chunk(bytes[..rounded(COUNTS + end) - COUNTS].into())
    }

    fn bytes(&self) -> &[u8] {
        &self.0[1..=usize::from(self.0[0])]
    }

    fn chain(&self) -> Chain<'_> {
        Chain::new(ORIGIN, self.bytes())
    }

    /// False if there is no room.
    fn push(&mut self, run: Run<'_>, oldest: &Version) -> bool {
        let mut rest = self.chain();
        let Some(before) = rest.next() else {
            return false;
        };
        let (mut newest, mut joint) = (Scratch::new(), Scratch::new());
        newest.link(&ORIGIN, &run.newest);
        joint.link(oldest, &before);
        let parts = [newest.as_slice(), run.older, joint.as_slice(), rest.rest()];
        let fits = parts.iter().map(|part| part.len()).sum::<usize>() <= CHUNK_MAX;
        if fits {
            let chunk = Chunk::of(&parts);
            *self = chunk;
        }
        fits
    }

    /// Keeps the first `kept` bytes of the chain.
    fn truncate(&mut self, kept: usize) {
        if kept < self.bytes().len() {
            let chunk = Chunk::of(&[&self.bytes()[..kept]]);
            *self = chunk;
        }
    }
}

/// The smallest size not less than `size` that wastes nothing of an allocation: allocators have four classes of sizes between two
/// powers of two.
pub(super) const fn rounded(size: usize) -> usize {
    let step = size.next_power_of_two() / 8;
    size.next_multiple_of(if step < 16 { 16 } else { step })
}

/// [`due`] of the oldest version of a chain, `None` if it is empty. `next` is when the version after it was written.
pub(super) fn chain_due(chain: Chain<'_>, mut next: i64) -> Option<i64> {
    let mut oldest = None;
    for version in chain {
        if let Some(Version { modified, .. }) = oldest.replace(version) {
            next = modified.main;
        }
    }
    oldest.map(|oldest| due(&oldest, next))
}

/// Chooses the versions of a chain that are garbage at `mark`, the oldest ones, until `dropped` holds `limit` of them. They
/// are appended to it, oldest first; gives the length of the chain without them.
pub(super) fn prune_chain(
    chain: Chain<'_>,
    mut next: i64,
    mark: i64,
    limit: usize,
    dropped: &mut Vec<Revision>,
) -> usize {
    let whole = chain.rest().len();
    let before = dropped.len();
    let mut rest = chain.clone();
    let mut newer = 0;
    for version in chain.clone() {
        // What is older than garbage is garbage.
        if dropped.len() > before || due(&version, next) <= mark {
            dropped.push(version.modified);
        } else {
            newer += 1;
        }
        next = version.modified.main;
    }
    let garbage = dropped.len() - before;
    dropped[before..].reverse();
    dropped.truncate(limit.max(before));
    let kept = newer + garbage - (dropped.len() - before);
    rest.by_ref().take(kept).for_each(drop);
    whole - rest.rest().len()
}

#[cfg(test)]
impl History {
    /// Checks the shape; gives all versions, oldest first.
    pub(super) fn check(&self) -> Vec<Version> {
        fn walk(history: &History, root: bool, out: &mut Vec<Version>) -> usize {
            match history {
                History::Chunk(chunk) => {
                    let mut versions: Vec<Version> = chunk.chain().collect();
                    assert!(!versions.is_empty());
                    versions.reverse();
                    out.extend(versions);
                    0
                }
                History::Tree(branches) => {
                    assert!((if root { 2 } else { 1 }..=WIDTH).contains(&branches.len()));
                    let mut depths = Vec::new();
                    for branch in branches.iter() {
                        assert!(branch.first <= branch.below.oldest().modified);
                        assert!(out.last().is_none_or(|last| last.modified < branch.first));
                        depths.push(walk(&branch.below, false, out));
                    }
                    assert!(depths.iter().all(|depth| *depth == depths[0]));
                    depths[0] + 1
                }
            }
        }
        let mut all = Vec::new();
        walk(self, true, &mut all);
        assert!(all.is_sorted_by(|a, b| a.modified < b.modified));
        all
    }
}
