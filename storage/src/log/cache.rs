//! The newest entries in memory: what raft sends to followers and applies is nearly always there.

use super::Entry;
use std::collections::VecDeque;

/// What an entry costs besides its bytes.
const ENTRY_OVERHEAD_BYTES: usize = size_of::<Entry>();

/// Consecutive entries up to the log's end, as many as fit a number of bytes. The bytes are shared with the caller.
#[derive(Debug)]
pub(super) struct Cache {
    entries: VecDeque<Entry>,
    bytes: usize,
    limit_bytes: usize,
}

impl Cache {
    pub(super) fn new(limit_bytes: usize) -> Cache {
        Cache {
            entries: VecDeque::new(),
            bytes: 0,
            limit_bytes,
        }
    }

    /// Adds the entry behind the last one, dropping the oldest ones where room is needed.
    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += cost(&entry);
        self.entries.push_back(entry);
        while self.bytes > self.limit_bytes && self.pop(VecDeque::pop_front) {}
    }

    /// Drops the entries from `index` on.
    pub(super) fn truncate(&mut self, index: u64) {
        while self.entries.back().is_some_and(|last| last.index >= index)
            && self.pop(VecDeque::pop_back)
        {}
    }

    /// Drops the entries up to `index`.
    pub(super) fn drop_to(&mut self, index: u64) {
        while self
            .entries
            .front()
            .is_some_and(|first| first.index <= index)
            && self.pop(VecDeque::pop_front)
        {}
    }

    /// The index from which on all entries are here.
    pub(super) fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|first| first.index)
    }

    /// The entries `low..high`; those before the first one here are left out.
    pub(super) fn range(&self, low: u64, high: u64) -> impl Iterator<Item = &Entry> {
        let first = self.first_index().unwrap_or(high);
        let position = |index: u64| (index.saturating_sub(first) as usize).min(self.entries.len());
        self.entries.range(position(low)..position(high.max(low)))
    }

    fn pop(&mut self, side: fn(&mut VecDeque<Entry>) -> Option<Entry>) -> bool {
        let popped = side(&mut self.entries);
        self.bytes -= popped.as_ref().map_or(0, cost);
        popped.is_some()
    }
}

fn cost(entry: &Entry) -> usize {
    ENTRY_OVERHEAD_BYTES + entry.data.len() + entry.context.len()
}
