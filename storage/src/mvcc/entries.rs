//! What the index knows of the keys of one leaf, packed.
//!
//! Of each key the [`Head`] of its current version and a record: what of that version has no place in the head, and then the
//! chain of those before it. All records of a leaf stand in one buffer: no allocation, pointer or reference count per key, and
//! copying a leaf beside a snapshot is a copy of bytes. A chain that grows too long for that goes into a [`History`] as a whole,
//! and a new one begins.

use super::history::{CHUNK_MAX, History, Run, chain_due, prune_chain, rounded};
use super::keys::CAPACITY;
use super::packed::{Chain, Head, LINK_MAX, Scratch};
use super::version::{Version, due};
use crate::Revision;
use std::ops::Range;

/// Longest chain in the buffer: some fourteen versions at four bytes each. A change moves what stands behind it in the buffer,
/// half of 3 KB at the very most keys of a leaf with the longest chains.
pub(super) const CHAIN_MAX: usize = if cfg!(test) { 12 } else { 48 };
const _: () =
    assert!(CHAIN_MAX + LINK_MAX <= u8::MAX as usize && CHAIN_MAX + LINK_MAX <= CHUNK_MAX);

/// Bytes taken in advance when the records grow: for a few versions even where they take up next to nothing.
const SPARE: usize = 32;

/// Addressed by the position of the key.
#[derive(Clone, Debug)]
pub(super) struct Entries {
    heads: Vec<Head>,
    /// The length of each record. They are short: adding up the bytes in front of one costs less than to keep their sums.
    lengths: [u8; CAPACITY],
    records: Vec<u8>,
    /// The versions older than those in the buffer, of the few keys that have more, ascending by position.
    histories: Vec<(u16, History)>,
}

/// Where a record is, and what it says of the current version.
struct Record {
    current: Version,
    /// The current version's part.
    own: Range<usize>,
    /// The chain, which follows it.
    chain: Range<usize>,
}

impl Default for Entries {
    fn default() -> Entries {
        Entries {
            heads: Vec::new(),
            lengths: [0; CAPACITY],
            records: Vec::new(),
            histories: Vec::new(),
        }
    }
}

impl Entries {
    pub(super) fn with_capacity(count: usize) -> Entries {
        Entries {
            heads: Vec::with_capacity(count),
            ..Entries::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether the current version is not a tombstone.
    pub(super) fn alive(&self, position: usize) -> bool {
        self.heads[position].alive()
    }

    /// `main` of the current version.
    pub(super) fn newest(&self, position: usize) -> i64 {
        self.heads[position].main()
    }

    #[inline]
    pub(super) fn current(&self, position: usize) -> Version {
        self.complete(self.heads[position], position)
    }

    #[inline]
    fn complete(&self, head: Head, position: usize) -> Version {
        if head.more() {
            self.record(position).current
        } else {
            head.plain()
        }
    }

    /// What a reader at revision `at` sees.
    #[inline]
    pub(super) fn at(&self, position: usize, at: i64) -> Option<Version> {
        let head = self.heads[position];
        if head.main() <= at {
            head.alive().then(|| self.complete(head, position))
        } else {
            self.superseded_at(position, at).and_then(Version::if_alive)
        }
    }

    /// The newest version written at or before revision `at`, tombstones included.
    pub(super) fn newest_at(&self, position: usize, at: i64) -> Option<Version> {
        if self.heads[position].main() <= at {
            return Some(self.current(position));
        }
        self.superseded_at(position, at)
    }

    /// As [`Entries::newest_at`], but for the current version.
    fn superseded_at(&self, position: usize, at: i64) -> Option<Version> {
        self.chain(&self.record(position))
            .find(|version| version.modified.main <= at)
            .or_else(|| self.history(position)?.newest_at(at))
    }

    /// Fills `found`, newest first, with some of the versions written after `revision`, tombstones included: the oldest ones,
    /// and none only if there is none.
    pub(super) fn after(&self, position: usize, revision: Revision, found: &mut Vec<Version>) {
        found.clear();
        if let Some(history) = self.history(position) {
            history.after(revision, found);
        }
        if found.is_empty() {
            let record = self.record(position);
            found.extend(
                std::iter::once(record.current)
                    .chain(self.chain(&record))
                    .take_while(|version| version.modified > revision),
            );
        }
    }

    /// The least compaction mark at which the oldest version is garbage ([`due`]), `i64::MAX` if none can make it so.
    pub(super) fn due(&self, position: usize) -> i64 {
        if self.lengths[position] == 0 && self.histories.is_empty() {
            return due(&self.heads[position].plain(), i64::MAX);
        }
        let record = self.record(position);
        let chain = self.chain(&record);
        match self.history(position) {
            Some(history) => history.due(
                chain
                    .last()
                    .map_or(self.heads[position].main(), |oldest| oldest.modified.main),
            ),
            None => chain_due(chain, self.heads[position].main())
                .unwrap_or_else(|| due(&record.current, i64::MAX)),
        }
    }

    /// Makes `new` the current version in the place of `old`. Gives a bound on [`Entries::due`] that, together with the value
    /// before, is exact: only the first superseded version changes it.
    pub(super) fn supersede(&mut self, position: usize, old: &Version, new: &Version) -> i64 {
        let Record { own, chain, .. } = self.record(position);
        let first = chain.is_empty() && self.history(position).is_none();
        let mut front = Scratch::new();
        self.heads[position] = Head::pack(new, &mut front);
        let own_len = front.len();
        front.link(new, old);
        if chain.len() + front.len() - own_len > CHAIN_MAX {
            front.truncate(own_len);
            self.spill(position, old, chain.clone());
            self.replace(position, own.start..chain.end, front.as_slice());
        } else {
            self.replace(position, own, front.as_slice());
        }
        if first {
            due(old, new.modified.main)
        } else {
            i64::MAX
        }
    }

    /// Copies `newest` and the chain behind it to the history.
    fn spill(&mut self, position: usize, newest: &Version, chain: Range<usize>) {
        let run = Run {
            newest: *newest,
            older: &self.records[chain],
        };
        match self.histories.binary_search_by_key(&position, place) {
            Ok(at) => self.histories[at].1.push(run),
            Err(at) => {
                let history = History::of(run);
                if self.histories.len() == self.histories.capacity() {
                    self.histories.reserve_exact(1 + self.histories.len() / 4);
                }
                self.histories.insert(at, (position as u16, history));
            }
        }
    }

    /// Removes versions that are garbage at `mark`, oldest first, until `dropped` holds `limit` of them. True if nothing of
    /// the key remains.
    pub(super) fn prune(
        &mut self,
        position: usize,
        mark: i64,
        limit: usize,
        dropped: &mut Vec<Revision>,
    ) -> bool {
        if dropped.len() >= limit || self.due(position) > mark {
            return false;
        }
        let newest = self.heads[position].main();
        let record = self.record(position);
        if let Ok(at) = self.histories.binary_search_by_key(&position, place) {
            let next = self.chain(&record).last();
            let next = next.map_or(newest, |oldest| oldest.modified.main);
            if !self.histories[at].1.prune(next, mark, limit, dropped) {
                return false;
            }
            self.histories.remove(at);
        }
        let kept = prune_chain(self.chain(&record), newest, mark, limit, dropped);
        let gone = record.chain.start + kept..record.chain.end;
        self.replace(position, gone, &[]);
        let over = kept == 0 && dropped.len() < limit && due(&record.current, i64::MAX) <= mark;
        if over {
            dropped.push(record.current.modified);
        }
        over
    }

    /// A new key. There must be room: see [`CAPACITY`].
    pub(super) fn insert(&mut self, position: usize, version: &Version) {
        let mut own = Scratch::new();
        let head = Head::pack(version, &mut own);
        let len = self.len();
        if len == self.heads.capacity() {
            self.heads.reserve_exact(places(len + 1) - len);
        }
        self.heads.insert(position, head);
        self.lengths.copy_within(position..len, position + 1);
        self.lengths[position] = 0;
        for (other, _) in &mut self.histories {
            if usize::from(*other) >= position {
                *other += 1;
            }
        }
        if own.len() > 0 {
            let start = self.start(position);
            self.replace(position, start..start, own.as_slice());
        }
    }

    /// A new key behind all others, with its history: `chain`, of at most [`CHAIN_MAX`] bytes, and what is older than that.
    pub(super) fn push(&mut self, version: &Version, chain: &[u8], history: Option<History>) {
        let position = self.len();
        self.insert(position, version);
        let end = self.records.len();
        self.replace(position, end..end, chain);
        if let Some(history) = history {
            self.histories.push((position as u16, history));
        }
    }

    pub(super) fn remove(&mut self, position: usize) {
        let record = self.bounds(position);
        self.replace(position, record, &[]);
        self.heads.remove(position);
        self.lengths.copy_within(position + 1.., position);
        self.histories
            .retain(|(other, _)| usize::from(*other) != position);
        for (other, _) in &mut self.histories {
            if usize::from(*other) > position {
                *other -= 1;
            }
        }
    }

    /// Takes the entries from `position` on.
    pub(super) fn split_off(&mut self, position: usize) -> Entries {
        let start = self.start(position);
        let mut right = Entries {
            records: self.records.split_off(start),
            histories: self.histories.split_off(
                self.histories
                    .partition_point(|(other, _)| usize::from(*other) < position),
            ),
            ..Entries::default()
        };
        let count = self.len() - position;
        right.lengths[..count].copy_from_slice(&self.lengths[position..self.len()]);
        right.heads = self.heads.split_off(position);
        for (other, _) in &mut right.histories {
            *other -= position as u16;
        }
        self.shrink();
        right
    }

    /// Moves all entries of `other`, which follow ours, to our end.
    pub(super) fn append(&mut self, other: &mut Entries) {
        let (ours, theirs) = (self.len(), other.len());
        self.lengths[ours..ours + theirs].copy_from_slice(&other.lengths[..theirs]);
        self.heads.append(&mut other.heads);
        self.records.append(&mut other.records);
        self.histories.extend(
            other
                .histories
                .drain(..)
                .map(|(position, history)| (ours as u16 + position, history)),
        );
    }

    /// Gives back what is not used.
    pub(super) fn shrink(&mut self) {
        self.heads.shrink_to(places(self.len()));
        self.records.shrink_to(rounded(self.records.len() + SPARE));
        self.histories.shrink_to_fit();
    }

    fn history(&self, position: usize) -> Option<&History> {
        if self.histories.is_empty() {
            return None;
        }
        let at = self.histories.binary_search_by_key(&position, place).ok()?;
        Some(&self.histories[at].1)
    }

    /// Where the record at `position` starts in the buffer.
    fn start(&self, position: usize) -> usize {
        let before = self.lengths[..position].iter();
        before.map(|length| u32::from(*length)).sum::<u32>() as usize
    }

    fn bounds(&self, position: usize) -> Range<usize> {
        let start = self.start(position);
        start..start + usize::from(self.lengths[position])
    }

    fn record(&self, position: usize) -> Record {
        let Range { start, end } = self.bounds(position);
        let (current, own) = self.heads[position].unpack(&self.records[start..end]);
        Record {
            current,
            own: start..start + own,
            chain: start + own..end,
        }
    }

    fn chain(&self, record: &Record) -> Chain<'_> {
        Chain::new(record.current, &self.records[record.chain.clone()])
    }

    /// Puts `new` in the place of a part of the record at `position`.
    fn replace(&mut self, position: usize, part: Range<usize>, new: &[u8]) {
        let len = self.records.len();
        let changed = len - part.len() + new.len();
        self.lengths[position] =
            (usize::from(self.lengths[position]) + new.len() - part.len()) as u8;
        if changed > self.records.capacity() {
            self.records.reserve_exact(rounded(changed + SPARE) - len);
        }
        if changed > len {
            self.records.resize(changed, 0);
        }
        let end = part.start + new.len();
        self.records.copy_within(part.end..len, end);
        self.records.truncate(changed);
        self.records[part.start..end].copy_from_slice(new);
    }
}

/// How many heads there is room for where `count` of them are.
fn places(count: usize) -> usize {
    const SIZE: usize = size_of::<Head>();
    rounded(count * SIZE) / SIZE
}

fn place((position, _): &(u16, History)) -> usize {
    usize::from(*position)
}

#[cfg(test)]
impl Entries {
    /// Checks everything; gives the number of superseded versions.
    pub(super) fn check(&self) -> usize {
        assert_eq!(self.start(self.len()), self.records.len());
        assert!(self.histories.is_sorted_by(|a, b| a.0 < b.0));
        assert!(
            self.histories
                .iter()
                .all(|history| place(history) < self.len())
        );
        (0..self.len())
            .map(|position| {
                let versions = self.versions(position);
                assert!(versions.is_sorted_by(|a, b| a.modified < b.modified));
                assert!(self.record(position).chain.len() <= CHAIN_MAX);
                versions.len() - 1
            })
            .sum()
    }

    /// All versions of a key, oldest first.
    pub(super) fn versions(&self, position: usize) -> Vec<Version> {
        let record = self.record(position);
        let mut chain = self.chain(&record);
        let mut versions: Vec<Version> = chain.by_ref().collect();
        assert!(chain.rest().is_empty(), "no bytes are left over");
        versions.reverse();
        let mut all = self.history(position).map_or(Vec::new(), History::check);
        all.extend(versions);
        all.push(record.current);
        all
    }
}
