//! What a log says, as one value to compare; and the pieces every test builds logs from.

use bytes::Bytes;
use holdfast_storage::LogPosition;
use holdfast_storage::disk::{Disk, MemDisk};
use holdfast_storage::log::{Entry, HardState, LogBatch, LogError, LogOptions, RaftLog, Recovered};

/// All that a log can be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) mark: LogPosition,
    pub(crate) conf_state: Bytes,
    pub(crate) hard_state: HardState,
    pub(crate) entries: Vec<Entry>,
}

impl View {
    pub(crate) fn of<D: Disk>(log: &RaftLog<D>) -> View {
        let entries = log
            .entries(log.first_index(), log.last_index() + 1, u64::MAX)
            .expect("all entries are readable");
        assert_eq!(log.first_index(), log.mark().index + 1);
        assert_eq!(log.last_index(), log.mark().index + entries.len() as u64);
        assert_eq!(
            log.term(log.mark().index).expect("the mark has a term"),
            Some(log.mark().term)
        );
        for entry in &entries {
            assert_eq!(log.term(entry.index).expect("term"), Some(entry.term));
        }
        View {
            mark: log.mark(),
            conf_state: log.conf_state().clone(),
            hard_state: log.hard_state(),
            entries,
        }
    }

    pub(crate) fn next_index(&self) -> u64 {
        self.mark.index + self.entries.len() as u64 + 1
    }

    pub(crate) fn put(&mut self, entries: &[Entry]) {
        if let Some(first) = entries.first() {
            let keep = first.index - self.mark.index - 1;
            self.entries.truncate(keep as usize);
            self.entries.extend_from_slice(entries);
        }
    }
}

/// Small segments and no cache, so that every test crosses segments and reads from disk.
pub(crate) fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 4096,
        recycle: 1,
        sync: true,
        cache_bytes: 0,
        seed: Some(7),
    }
}

pub(crate) fn open(disk: &MemDisk) -> Result<(RaftLog<MemDisk>, Recovered), LogError> {
    RaftLog::open(disk.clone(), options())
}

pub(crate) fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    let fill = (index * 31 + term * 7) as u8;
    Entry {
        index,
        term,
        kind: (index % 3) as u8,
        data: Bytes::from(vec![fill; bytes]),
        context: Bytes::from(vec![fill ^ 0x55; bytes % 5]),
    }
}

/// An entry that ends in zeros: on a file of zeros it is whole before all of it is written.
pub(crate) fn blank_entry(index: u64, term: u64, bytes: usize) -> Entry {
    Entry {
        data: Bytes::from(vec![0; bytes]),
        ..entry(index, term, 0)
    }
}

pub(crate) fn entries(range: std::ops::Range<u64>, term: u64, bytes: usize) -> Vec<Entry> {
    range.map(|index| entry(index, term, bytes)).collect()
}

pub(crate) fn batch(entries: &[Entry]) -> LogBatch<'_> {
    LogBatch {
        entries,
        hard_state: None,
    }
}

pub(crate) fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit }
}

pub(crate) fn at(index: u64, term: u64) -> LogPosition {
    LogPosition { index, term }
}

/// The segments in order.
pub(crate) fn segment_names(disk: &MemDisk) -> Vec<String> {
    let mut names = disk.list().expect("list");
    names.retain(|name| !name.starts_with("spare") && name.ends_with(".log"));
    names.sort();
    names
}

/// SplitMix64, for what must be random and repeatable.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
