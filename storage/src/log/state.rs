//! What the records say, taken together: the same rules for a record just written and for one read back.

use super::HardState;
use super::format::{Placement, Record};
use crate::LogPosition;
use crate::planted::{Defect, is_planted};
use bytes::Bytes;
use std::collections::VecDeque;

/// Where an entry lies, and its term.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) term: u64,
    pub(super) sequence: u64,
    pub(super) placement: Placement,
}

/// The log without the entries' content.
#[derive(Debug)]
pub(super) struct LogState {
    pub(super) mark: LogPosition,
    pub(super) conf_state: Bytes,
    pub(super) hard_state: HardState,
    /// The index of `places[0]`: `mark.index + 1`, but while segments are read back it may be more, if earlier entries
    /// were in segments that a mark yet to come made superfluous.
    first: u64,
    places: VecDeque<Place>,
}

impl LogState {
    /// A log whose next entry is `first`, and nothing known before it.
    pub(super) fn starting_at(first: u64) -> LogState {
        LogState {
            mark: LogPosition::default(),
            conf_state: Bytes::new(),
            hard_state: HardState::default(),
            first,
            places: VecDeque::new(),
        }
    }

    /// The index behind the last entry.
    pub(super) fn next_index(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    pub(super) fn len(&self) -> u64 {
        self.places.len() as u64
    }

    pub(super) fn place(&self, index: u64) -> Option<&Place> {
        let offset = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.places.get(offset)
    }

    /// The term of the entry, or of the mark.
    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if index == self.mark.index {
            return Some(self.mark.term);
        }
        self.place(index).map(|place| place.term)
    }

    /// The oldest segment that still holds an entry.
    pub(super) fn oldest_sequence(&self) -> Option<u64> {
        self.places.front().map(|place| place.sequence)
    }

    /// The entries between the mark and the first one known, if there is such a gap.
    pub(super) fn missing(&self) -> Option<(u64, u64)> {
        (self.mark.index + 1 < self.first).then(|| (self.mark.index + 1, self.first - 1))
    }

    /// What a new segment begins with.
    pub(super) fn checkpoint(&self) -> [Record<'_>; 2] {
        let mark = Record::Mark {
            position: self.mark,
            conf_state: &self.conf_state,
        };
        [mark, Record::HardState(self.hard_state)]
    }

    /// Replaces the entry of that index and all after it. The index is above the mark and at most [`Self::next_index`].
    pub(super) fn put_entry(&mut self, index: u64, place: Place) {
        match usize::try_from(index.saturating_sub(self.first)) {
            Ok(offset) if offset < self.places.len() && is_planted(Defect::TailNotReplaced) => {
                self.places[offset] = place;
                return;
            }
            Ok(offset) if index >= self.first => self.places.truncate(offset),
            _ => {
                self.places.clear();
                self.first = index;
            }
        }
        self.places.push_back(place);
    }

    /// Forgets the entries up to the position, which is at least the mark.
    pub(super) fn put_mark(&mut self, position: LogPosition, conf_state: Bytes) {
        while self.first <= position.index && self.places.pop_front().is_some() {
            self.first += 1;
        }
        self.mark = position;
        self.conf_state = conf_state;
    }

    /// Forgets all entries; the log goes on behind the position.
    pub(super) fn put_snapshot(
        &mut self,
        position: LogPosition,
        hard_state: HardState,
        conf_state: Bytes,
    ) {
        self.places.clear();
        self.first = position.index + 1;
        self.mark = position;
        self.conf_state = conf_state;
        self.hard_state = hard_state;
    }

    /// Applies a record read from segment `sequence`; says what is wrong with one that we cannot have written.
    pub(super) fn replay(
        &mut self,
        record: Record<'_>,
        sequence: u64,
        placement: Placement,
    ) -> Result<(), String> {
        match record {
            Record::Entry { index, term, .. } => {
                let next = self.next_index();
                if index <= self.mark.index || index > next || index == u64::MAX {
                    return Err(format!(
                        "entry {index} where {} to {next} may be",
                        self.mark.index + 1
                    ));
                }
                // Of an entry before the first one known there is at least the mark.
                let previous = self.term(index - 1).unwrap_or(self.mark.term);
                if term < previous {
                    return Err(format!(
                        "entry {index} of term {term} behind term {previous}"
                    ));
                }
                self.put_entry(
                    index,
                    Place {
                        term,
                        sequence,
                        placement,
                    },
                );
            }
            Record::HardState(hard_state) => self.hard_state = hard_state,
            Record::Mark {
                position,
                conf_state,
            } => {
                if position.index < self.mark.index || position.index >= self.next_index() {
                    return Err(format!("a compaction mark at entry {}", position.index));
                }
                let fits = match self.place(position.index) {
                    Some(place) => place.term == position.term,
                    // The first segment that is left says where it begins by a mark.
                    None if position.index == self.mark.index && self.mark.index > 0 => {
                        position.term == self.mark.term
                    }
                    None => self
                        .places
                        .front()
                        .is_none_or(|first| position.term <= first.term),
                };
                if !fits {
                    return Err(format!(
                        "a compaction mark at entry {} with term {}",
                        position.index, position.term
                    ));
                }
                self.put_mark(position, Bytes::copy_from_slice(conf_state));
            }
            Record::Snapshot {
                position,
                hard_state,
                conf_state,
            } => {
                if position.index < self.mark.index || position.index == u64::MAX {
                    return Err(format!("a snapshot at entry {}", position.index));
                }
                self.put_snapshot(position, hard_state, Bytes::copy_from_slice(conf_state));
            }
        }
        Ok(())
    }
}
