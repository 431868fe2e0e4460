//! Rebuilding the index from rows.
//!
//! Rows come by revision, the tree is ordered by key. Finding each row's key in a hash table, sorting the distinct keys once and
//! building the tree bottom-up takes a quarter of the time of as many insertions and leaves full nodes.

use super::build::build;
use super::chains::{Chains, Place};
use super::entries::Entries;
use super::node::{LEAF_MAX, Leaf};
use super::version::Version;
use super::{FIRST_REVISION, Mvcc, NEVER_COMPACTED};
use crate::Revision;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

/// Revisions beyond this are damage, not history: at a million writes per second it takes 146,000 years to get there, and
/// arithmetic on what is below it cannot overflow.
const REVISION_MAX: i64 = i64::MAX / 2;

/// A row without its value.
#[derive(Clone, Copy, Debug)]
pub struct RowHeader<'a> {
    /// See [`Row::revision`](crate::Row::revision).
    pub revision: Revision,
    /// See [`Row::key`](crate::Row::key).
    pub key: &'a [u8],
    /// See [`Row::create_revision`](crate::Row::create_revision).
    pub create_revision: i64,
    /// See [`Row::version`](crate::Row::version).
    pub version: i64,
    /// See [`Row::lease`](crate::Row::lease).
    pub lease: i64,
    /// See [`Row::tombstone`](crate::Row::tombstone).
    pub tombstone: bool,
}

/// Why rows do not make an index. Each is damage or a defect: no sequence of writes and prunes leaves such rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The store's revision or compaction mark is impossible.
    #[error("revision {revision} with compaction mark {compacted} is impossible")]
    Marks {
        /// The store's revision.
        revision: i64,
        /// The store's compaction mark.
        compacted: i64,
    },
    /// The row's revision is not greater than that of the row before it.
    #[error("row {main}/{sub} is not in the order of revisions", main = .0.main, sub = .0.sub)]
    Order(Revision),
    /// The row's revision is not one that the store has reached.
    #[error("row {main}/{sub} is beyond the store's revision or before its first", main = .0.main, sub = .0.sub)]
    OutOfBounds(Revision),
    /// A field of the row is impossible, whatever the other rows are.
    #[error("row {main}/{sub} has an impossible key, create revision or version", main = .0.main, sub = .0.sub)]
    Malformed(Revision),
    /// The row does not follow the row of the same key before it: a row between them is missing or one of them is wrong.
    #[error("row {main}/{sub} does not continue its key's history", main = .0.main, sub = .0.sub)]
    Discontinuous(Revision),
}

/// An index being rebuilt.
pub struct Restore {
    revision: i64,
    compacted: i64,
    last: Option<Revision>,
    /// All distinct keys, one after the other.
    arena: Vec<u8>,
    slots: Vec<Slot>,
    chains: Chains,
    /// The slot of a key by the key's hash; slots of equal hashes are chained.
    table: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    hasher: RandomState,
    superseded: usize,
}

struct Slot {
    start: usize,
    len: u32,
    /// One more than the slot of another key with the same hash, 0 for none.
    next: u32,
    current: Version,
    /// Its newest superseded version.
    older: Option<Place>,
}

/// The table's keys are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Restore {
    pub(super) fn new(revision: i64, compacted: i64) -> Restore {
        Restore {
            revision,
            compacted,
            last: None,
            arena: Vec::new(),
            slots: Vec::new(),
            chains: Chains::default(),
            table: HashMap::default(),
            hasher: RandomState::new(),
            superseded: 0,
        }
    }

    /// Takes the next row. Rows that are garbage at the compaction mark may be among them: pruning was not finished, and will go
    /// on with them.
    pub fn row(&mut self, row: RowHeader<'_>) -> Result<(), RestoreError> {
        let version = self.checked(&row)?;
        let hash = self.hasher.hash_one(row.key);
        let newest = self.slots.len();
        let mut next = 0;
        if let Some(&first) = self.table.get(&hash) {
            let mut at = first;
            loop {
                let slot = &mut self.slots[at as usize];
                if &self.arena[slot.start..slot.start + slot.len as usize] == row.key {
                    if !follows(&slot.current, &version) {
                        return Err(RestoreError::Discontinuous(row.revision));
                    }
                    slot.older = self.chains.push(&version, &slot.current, slot.older);
                    slot.current = version;
                    self.superseded += 1;
                    self.last = Some(row.revision);
                    return Ok(());
                }
                match slot.next.checked_sub(1) {
                    Some(other) => at = other,
                    None => break,
                }
            }
            next = first + 1;
        }
        let (Ok(slot), Ok(len)) = (u32::try_from(newest), u32::try_from(row.key.len())) else {
            return Err(RestoreError::Malformed(row.revision));
        };
        self.table.insert(hash, slot);
        self.slots.push(Slot {
            start: self.arena.len(),
            len,
            next,
            current: version,
            older: None,
        });
        self.arena.extend_from_slice(row.key);
        self.last = Some(row.revision);
        Ok(())
    }

    fn checked(&self, row: &RowHeader<'_>) -> Result<Version, RestoreError> {
        let modified = row.revision;
        if self.last.is_some_and(|last| last >= modified) {
            return Err(RestoreError::Order(modified));
        }
        if modified.main <= FIRST_REVISION || modified.main > self.revision {
            return Err(RestoreError::OutOfBounds(modified));
        }
        let possible = if row.tombstone {
            row.version == 0 && row.create_revision == 0
        } else {
            (1..=REVISION_MAX).contains(&row.version)
                && row.create_revision > FIRST_REVISION
                && row.create_revision <= modified.main
        };
        if row.key.is_empty() || !possible {
            return Err(RestoreError::Malformed(modified));
        }
        Ok(if row.tombstone {
            Version::tombstone(modified)
        } else {
            Version {
                create_revision: row.create_revision,
                modified,
                version: row.version,
                lease: row.lease,
            }
        })
    }

    /// Builds the index.
    pub fn finish(self) -> Result<Mvcc, RestoreError> {
        let Restore {
            revision,
            compacted,
            arena,
            slots,
            mut chains,
            table,
            superseded,
            ..
        } = self;
        if !(FIRST_REVISION..=REVISION_MAX).contains(&revision)
            || !(NEVER_COMPACTED..=revision).contains(&compacted)
        {
            return Err(RestoreError::Marks {
                revision,
                compacted,
            });
        }
        drop(table);
        let order = in_key_order(&arena, &slots);
        let groups = order.len().div_ceil(LEAF_MAX);
        let mut leaves = Vec::with_capacity(groups);
        let mut rest = order.into_iter();
        for group in 0..groups {
            let share = rest.len().div_ceil(groups - group);
            let mut leaf = Leaf {
                entries: Entries::with_capacity(share),
                ..Leaf::default()
            };
            for (_, number) in rest.by_ref().take(share) {
                let slot = &slots[number as usize];
                leaf.keys.push(slot.key(&arena));
                let (chain, history) = chains.take(slot.current, slot.older);
                leaf.entries.push(&slot.current, chain, history);
            }
            leaves.push(leaf);
        }
        Ok(Mvcc {
            root: build(leaves),
            revision,
            compacted,
            key_bytes: arena.len(),
            superseded,
        })
    }
}

impl Slot {
    fn key<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        &arena[self.start..self.start + self.len as usize]
    }
}

/// The slots' numbers in the order of their keys, each with the eight bytes behind what all keys have in common: those decide most
/// comparisons without a look at the keys, which lie scattered in memory.
fn in_key_order(arena: &[u8], slots: &[Slot]) -> Vec<(u64, u32)> {
    let Some(first) = slots.first().map(|slot| slot.key(arena)) else {
        return Vec::new();
    };
    let common = slots.iter().fold(first.len(), |common, slot| {
        first[..common]
            .iter()
            .zip(slot.key(arena))
            .take_while(|(a, b)| a == b)
            .count()
    });
    let head = |slot: &Slot| {
        let mut head = [0; 8];
        head.iter_mut()
            .zip(&slot.key(arena)[common..])
            .for_each(|(to, from)| *to = *from);
        u64::from_be_bytes(head)
    };
    let mut order: Vec<(u64, u32)> = (0..)
        .zip(slots)
        .map(|(number, slot)| (head(slot), number))
        .collect();
    let key = |number: u32| slots[number as usize].key(arena);
    // A head padded with zeros is not greater than that of any longer key; equal heads are told apart by the keys.
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1))));
    order
}

/// Whether `next` is what a write after `before` gives.
fn follows(before: &Version, next: &Version) -> bool {
    if !next.alive() {
        return before.alive();
    }
    let expected = Version::following(Some(before), next.modified, next.lease);
    *next == expected
}
