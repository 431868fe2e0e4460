//! The raft log's recovery. Three ways to come to files:
//!
//! * 0: the input's own bytes;
//! * 1: segments of any records, with right checksums (`forged`), so that what stands behind the checksums is reached, too;
//! * 2: a history of appends, syncs, compactions, snapshots, restarts and power cuts, and damage at the end (`history`).
//!
//! However the files came to be: opening returns a log or an error. A log can be read as a whole and appended to, and says the same when
//! it is opened again. After a history, a log says what was there at the last sync or after an append since; damage is not read as
//! something else.

mod forged;
mod history;

use crate::input::Input;
use bytes::Bytes;
use holdfast_storage::LogPosition;
use holdfast_storage::disk::{Disk, MemDisk};
use holdfast_storage::log::{Entry, HardState, LogBatch, LogError, LogOptions, RaftLog, Recovered};

pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let disk = match input.u8() % 3 {
        0 => own_files(&mut input),
        1 => forged::files(&mut input),
        _ => {
            return history::run(&mut input);
        }
    };
    let Ok((log, recovered)) = open(&disk) else {
        return false;
    };
    goes_on(&disk, log, &recovered);
    true
}

/// Small segments and no cache, so that little input crosses segments and what is read comes from the files.
fn open(disk: &MemDisk) -> Result<(RaftLog<MemDisk>, Recovered), LogError> {
    let options = LogOptions {
        segment_bytes: 4096,
        recycle: 1,
        sync: true,
        cache_bytes: 0,
        seed: Some(7),
    };
    RaftLog::open(disk.clone(), options)
}

/// Input: for each file which one (one byte), whether it is filled up with zeros to a page, and its bytes.
fn own_files(input: &mut Input<'_>) -> MemDisk {
    let disk = MemDisk::new();
    for _ in 0..4 {
        if input.is_empty() {
            break;
        }
        let name = match input.u8() {
            0 => "synced".to_owned(),
            1 => "spare-00000001.log".to_owned(),
            2 => "spare-00000002.tmp".to_owned(),
            3 => "ffffffffffffffff.log".to_owned(),
            sequence => format!("{:016x}.log", sequence - 3),
        };
        let filled = input.u8() & 1 == 1;
        let mut bytes = input.long().to_vec();
        if filled {
            bytes.resize(bytes.len().next_multiple_of(4096), 0);
        }
        disk.replace(&name, bytes);
    }
    disk
}

/// All that a log can be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct View {
    mark: LogPosition,
    conf_state: Bytes,
    hard_state: HardState,
    entries: Vec<Entry>,
}

impl View {
    fn of(log: &RaftLog<MemDisk>) -> View {
        let entries = log
            .entries(log.first_index(), log.last_index() + 1, u64::MAX)
            .expect("all entries are readable");
        let mark = log.mark();
        assert_eq!(log.first_index(), mark.index + 1);
        assert_eq!(log.last_index(), mark.index + entries.len() as u64);
        let mut term = mark.term;
        for (place, entry) in (log.first_index()..).zip(&entries) {
            assert_eq!(entry.index, place);
            assert!(entry.term >= term, "terms do not fall");
            term = entry.term;
            assert_eq!(log.term(place).expect("an entry has a term"), Some(term));
        }
        View {
            mark,
            conf_state: log.conf_state().clone(),
            hard_state: log.hard_state(),
            entries,
        }
    }

    fn next_index(&self) -> u64 {
        self.mark.index + self.entries.len() as u64 + 1
    }

    fn last_term(&self) -> u64 {
        self.entries
            .last()
            .map_or(self.mark.term, |entry| entry.term)
    }
}

/// A log that could be opened is as good as any: it can be read, appended to, closed, and read again.
fn goes_on(disk: &MemDisk, mut log: RaftLog<MemDisk>, recovered: &Recovered) {
    let mut view = View::of(&log);
    assert_eq!(recovered.entries, view.entries.len() as u64);
    let read: usize = view
        .entries
        .iter()
        .map(|entry| entry.data.len() + entry.context.len())
        .sum();
    let files = disk.list().expect("a disk in memory lists its files");
    let written: u64 = files.iter().filter_map(|name| disk.len(name).ok()).sum();
    assert!(read as u64 <= written, "more was read than was there");
    let entry = Entry {
        index: view.next_index(),
        term: view.last_term(),
        kind: 1,
        data: Bytes::from_static(b"behind the recovered ones"),
        context: Bytes::new(),
    };
    let appended = log.append(LogBatch {
        entries: std::slice::from_ref(&entry),
        hard_state: None,
    });
    match appended {
        Ok(()) => view.entries.push(entry),
        // The last index of all stays free.
        Err(LogError::Gap { .. }) => assert_eq!(entry.index, u64::MAX),
        Err(error) => panic!("a recovered log cannot be appended to: {error}"),
    }
    log.close().expect("closing");
    let (log, recovered) = open(disk).expect("what was closed opens");
    assert_eq!(recovered.tail_cut, None, "a closed log has no torn tail");
    assert_eq!(View::of(&log), view);
}
