//! The keys of one tree node, packed into one buffer.
//!
//! No allocation, pointer or reference count per key: that is less memory than a shared slice each (30 bytes less), a search
//! stays in a few neighbouring cache lines, and copying a node beside a snapshot is a copy of bytes.

use super::history::rounded;
use super::node::{INNER_MAX, LEAF_MAX};
use super::prune::SCARCE;
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

/// Longer keys are kept outside the buffer and shared, so that copying a node costs a bounded number of bytes however long
/// the keys are that clients send. It also keeps every offset within `u16`.
const PACKED_MAX: usize = 256;

/// A node holds one key more than its maximum before it is split, and a quarter more while it is joined with a scarce
/// neighbour.
pub(super) const CAPACITY: usize = 80;
const _: () =
    assert!(LEAF_MAX + LEAF_MAX / SCARCE <= CAPACITY && INNER_MAX + INNER_MAX / SCARCE <= CAPACITY);
const _: () = assert!(CAPACITY * PACKED_MAX <= u16::MAX as usize);

/// Keys in ascending order, addressed by position.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    len: usize,
    /// Where each key ends in `bytes`. A long key is empty here. In line, because a search would wait for one more cache line
    /// if they were elsewhere.
    ends: [u16; CAPACITY],
    bytes: Vec<u8>,
    /// Long keys with their positions, ascending.
    long: Vec<(u16, Arc<[u8]>)>,
}

impl Default for Keys {
    fn default() -> Keys {
        Keys {
            len: 0,
            ends: [0; CAPACITY],
            bytes: Vec::new(),
            long: Vec::new(),
        }
    }
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, position: usize) -> &[u8] {
        if !self.long.is_empty()
            && let Ok(at) = self
                .long
                .binary_search_by_key(&position, |(position, _)| usize::from(*position))
        {
            return &self.long[at].1;
        }
        &self.bytes[self.packed(position)]
    }

    fn packed(&self, position: usize) -> Range<usize> {
        self.start(position)..usize::from(self.ends[position])
    }

    /// Where the key at `position` starts in the buffer, or would start if it were inserted there.
    fn start(&self, position: usize) -> usize {
        position
            .checked_sub(1)
            .map_or(0, |before| usize::from(self.ends[before]))
    }

    /// Where `key` is, or where it would have to be inserted.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low.midpoint(high);
            match self.get(middle).cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    pub(super) fn insert(&mut self, position: usize, key: &[u8]) {
        let packed = if key.len() > PACKED_MAX { &[][..] } else { key };
        let start = self.start(position);
        let len = self.bytes.len() + packed.len();
        if len > self.bytes.capacity() {
            // Doubling would waste a quarter of the buffer on average.
            self.bytes.reserve_exact(rounded(len) - self.bytes.len());
        }
        self.bytes.splice(start..start, packed.iter().copied());
        self.ends.copy_within(position..self.len, position + 1);
        self.len += 1;
        self.ends[position] = start as u16;
        for end in &mut self.ends[position..self.len] {
            *end += packed.len() as u16;
        }
        for (other, _) in &mut self.long {
            if usize::from(*other) >= position {
                *other += 1;
            }
        }
        if key.len() > PACKED_MAX {
            let at = self
                .long
                .partition_point(|(other, _)| usize::from(*other) < position);
            self.long.insert(at, (position as u16, key.into()));
        }
    }

    pub(super) fn push(&mut self, key: &[u8]) {
        self.insert(self.len, key);
    }

    pub(super) fn remove(&mut self, position: usize) {
        let packed = self.packed(position);
        self.ends.copy_within(position + 1..self.len, position);
        self.len -= 1;
        for end in &mut self.ends[position..self.len] {
            *end -= packed.len() as u16;
        }
        self.bytes.drain(packed);
        self.long
            .retain(|(other, _)| usize::from(*other) != position);
        for (other, _) in &mut self.long {
            if usize::from(*other) > position {
                *other -= 1;
            }
        }
    }

    /// Takes the keys from `position` on.
    pub(super) fn split_off(&mut self, position: usize) -> Keys {
        let start = self.start(position);
        let mut right = Keys {
            len: self.len - position,
            ..Keys::default()
        };
        for (end, ours) in right.ends.iter_mut().zip(&self.ends[position..self.len]) {
            *end = ours - start as u16;
        }
        right.bytes = self.bytes.split_off(start);
        right.long = self.long.split_off(
            self.long
                .partition_point(|(other, _)| usize::from(*other) < position),
        );
        for (other, _) in &mut right.long {
            *other -= position as u16;
        }
        self.len = position;
        self.bytes.shrink_to(rounded(start));
        right
    }

    /// Moves all keys of `other`, which follow ours, to our end.
    pub(super) fn append(&mut self, other: &mut Keys) {
        let (base, count) = (self.bytes.len() as u16, self.len as u16);
        for (end, theirs) in self.ends[self.len..]
            .iter_mut()
            .zip(&other.ends[..other.len])
        {
            *end = base + theirs;
        }
        self.len += other.len;
        other.len = 0;
        self.bytes.append(&mut other.bytes);
        self.long.extend(
            other
                .long
                .drain(..)
                .map(|(position, key)| (count + position, key)),
        );
    }

    /// Gives back what growth took in advance.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }
}

/// The shortest key that is greater than `left` and not greater than `right`, given `left < right`: what a separator needs
/// to hold.
pub(super) fn separator<'a>(left: &[u8], right: &'a [u8]) -> &'a [u8] {
    let common = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    &right[..right.len().min(common + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(keys: &Keys) -> Vec<Vec<u8>> {
        (0..keys.len())
            .map(|position| keys.get(position).to_vec())
            .collect()
    }

    #[test]
    fn long_and_short_keys_keep_their_places() {
        let mut keys = Keys::default();
        let mut model: Vec<Vec<u8>> = Vec::new();
        for round in 0..60usize {
            let len = [3, 256, 257, 1, 5_000][round % 5];
            let key = vec![(round * 37 % 256) as u8; len];
            let at = model.partition_point(|other| *other < key);
            assert_eq!(keys.search(&key), Err(at));
            keys.insert(at, &key);
            model.insert(at, key.clone());
            assert_eq!(keys.search(&key), Ok(at));
            assert_eq!(list(&keys), model);
        }
        for at in [0, 57, 20, 20, 1, 33] {
            keys.remove(at);
            model.remove(at);
            assert_eq!(list(&keys), model);
        }
        for at in [0, 1, 27, model.len()] {
            let mut left = keys.clone();
            let mut right = left.split_off(at);
            assert_eq!(list(&left), model[..at]);
            assert_eq!(list(&right), model[at..]);
            left.append(&mut right);
            assert_eq!(list(&left), model);
        }
    }

    #[test]
    fn a_separator_is_short_and_between() {
        for (left, right, expected) in [
            ("a", "b", "b"),
            ("abc", "abd", "abd"),
            ("ab", "abcde", "abc"),
            ("", "xyz", "x"),
        ] {
            assert_eq!(
                separator(left.as_bytes(), right.as_bytes()),
                expected.as_bytes()
            );
        }
    }
}
