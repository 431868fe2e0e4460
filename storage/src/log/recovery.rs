//! From the files to a log, or to the reason why not. The argument is in the parent module's documentation.

use super::cache::Cache;
use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, HeaderFault, SEGMENT_HEADER_BYTES, SegmentHeader,
    TERMINATOR_BYTES, encode_batch,
};
use super::scan::{Scan, Tail, scan_segment};
use super::segment::{FreshSegment, Segment, begin_segment, segment_name, segment_sequence};
use super::spares::SparePool;
use super::state::LogState;
use super::sync_note::{self, SyncNote, Synced};
use super::writer::{Seeds, Writer};
use super::{FORMAT_VERSION, LogError, LogOptions, MAX_SEGMENT_BYTES, RaftLog, Recovered, TailCut};
use crate::disk::{Disk, DiskFile};
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// The smallest segment: one page.
const MIN_SEGMENT_BYTES: u64 = 4096;

/// A segment read back. Of the newest one the bytes are kept, for its end is written once more.
struct Read<F> {
    segment: Segment<F>,
    scan: Scan,
    bytes: Vec<u8>,
}

impl<D: Disk> RaftLog<D> {
    /// Opens the log in the directory that `disk` is, or begins an empty one there. Reads all segments.
    ///
    /// Cuts a torn tail and says so. Refuses with [`LogError::Damaged`] or [`LogError::Newer`], leaving all segments as they are, where
    /// going on could lose what was synced. Nothing guards against a second process on the directory: that is the caller's part.
    pub fn open(disk: D, options: LogOptions) -> Result<(RaftLog<D>, Recovered), LogError> {
        let size = options.segment_bytes;
        if !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&size)
            || !size.is_multiple_of(MIN_SEGMENT_BYTES)
        {
            return Err(LogError::SegmentSize(size));
        }
        let segment_bytes = size as u32;
        let disk = Arc::new(disk);
        let names = disk
            .list()
            .map_err(|source| LogError::io(disk.path(""), "list", source))?;
        let mut sequences: Vec<u64> = names
            .iter()
            .filter_map(|name| segment_sequence(name))
            .collect();
        sequences.sort_unstable();
        let run = last_run(&sequences);

        let mut recovery = Recovery::new(&*disk);
        for &sequence in &sequences[run.clone()] {
            recovery.read(sequence)?;
        }
        recovery.check_note(sync_note::read(&*disk)?)?;
        let Recovery {
            state,
            older,
            newest,
            ..
        } = recovery;
        let state = state.unwrap_or_else(|| LogState::starting_at(1));
        if let (Some((first, last)), Some(&sequence)) = (state.missing(), sequences.get(run.start))
        {
            let reason =
                format!("entries {first} to {last} are missing: the segment before is gone");
            return Err(damaged(&*disk, &segment_name(sequence), 0, reason));
        }

        let spares = Arc::new(SparePool::new(
            Arc::clone(&disk),
            segment_bytes,
            options.recycle,
        ));
        for name in names.iter().filter(|name| segment_sequence(name).is_none()) {
            spares.adopt(name)?;
        }
        let seeds = Seeds(
            options
                .seed
                .unwrap_or_else(|| RandomState::new().hash_one(segment_bytes)),
        );
        let note = SyncNote::open(&*disk)?;
        // A name seen here may be one that the crash left in memory only; no batch, nor the barrier, may follow before it
        // is durable.
        disk.sync_dir()
            .map_err(|source| LogError::io(disk.path(""), "sync", source))?;
        let (newest, position, chain, tail_cut) = match newest {
            Some(newest) => {
                let RepairedEnd {
                    position,
                    chain,
                    tail_cut,
                } = repair_end(&*disk, &newest)?;
                (newest.segment, position, chain, tail_cut)
            }
            None => {
                let header = SegmentHeader {
                    capacity: 0,
                    sequence: 1,
                    first_index: state.next_index(),
                    seed: seeds.seed(1),
                    previous_end: 0,
                    previous_chain: 0,
                    chain: 0,
                };
                let FreshSegment {
                    segment,
                    position,
                    chain,
                } = begin_segment(&*disk, &spares, segment_bytes, header, &state, 0)?;
                (segment, position, chain, None)
            }
        };
        for &sequence in &sequences[..run.start] {
            let name = segment_name(sequence);
            let bytes = disk
                .len(&name)
                .map_err(|source| LogError::io(disk.path(&name), "read", source))?;
            spares.retire(name, bytes);
        }
        let mut writer = Writer {
            disk,
            spares,
            segment_bytes,
            seeds,
            older,
            newest,
            position,
            chain,
            synced: position,
            note,
            poisoned: false,
            buffer: Vec::new(),
            placed: Vec::new(),
        };
        writer.note_synced();
        writer.retire_before(state.oldest_sequence().unwrap_or(writer.newest.sequence));
        let recovered = Recovered {
            tail_cut,
            segments: writer.older.len() + 1,
            entries: state.len(),
        };
        let log = RaftLog {
            state,
            cache: Cache::new(options.cache_bytes),
            writer,
            sync: options.sync,
        };
        Ok((log, recovered))
    }
}

/// Which of the sorted numbers belong to the log: the consecutive ones at the end. Whether those before a gap are needed
/// shows when these are read.
fn last_run(sequences: &[u64]) -> std::ops::Range<usize> {
    let gap = sequences
        .windows(2)
        .rposition(|pair| pair[0] + 1 != pair[1]);
    gap.map_or(0, |gap| gap + 1)..sequences.len()
}

fn damaged<D: Disk>(disk: &D, name: &str, offset: u64, reason: impl Into<String>) -> LogError {
    LogError::Damaged {
        file: disk.path(name),
        offset,
        reason: reason.into(),
    }
}

/// The segments read so far.
struct Recovery<'a, D: Disk> {
    disk: &'a D,
    state: Option<LogState>,
    older: VecDeque<Segment<D::File>>,
    newest: Option<Read<D::File>>,
}

impl<'a, D: Disk> Recovery<'a, D> {
    fn new(disk: &'a D) -> Recovery<'a, D> {
        Recovery {
            disk,
            state: None,
            older: VecDeque::new(),
            newest: None,
        }
    }

    /// Reads the next segment of the log.
    fn read(&mut self, sequence: u64) -> Result<(), LogError> {
        let name = segment_name(sequence);
        let damaged = |offset: u64, reason: String| damaged(self.disk, &name, offset, reason);
        let refused = |fault| match fault {
            HeaderFault::Damaged(reason) => damaged(0, reason.to_owned()),
            HeaderFault::Newer(found) => LogError::Newer {
                file: self.disk.path(&name),
                found,
                supported: FORMAT_VERSION,
            },
        };
        let failed = |operation, source| LogError::io(self.disk.path(&name), operation, source);
        let file = self
            .disk
            .open(&name)
            .map_err(|source| failed("open", source))?;
        let length = file.len().map_err(|source| failed("read", source))?;
        let mut start = [0; SEGMENT_HEADER_BYTES];
        if length < start.len() as u64 {
            return Err(damaged(length, "the segment header is cut off".to_owned()));
        }
        file.read_at(&mut start, 0)
            .map_err(|source| failed("read", source))?;
        let header = SegmentHeader::decode(&start).map_err(refused)?;
        if u64::from(header.capacity) != length || length > MAX_SEGMENT_BYTES {
            let reason = format!(
                "the file has {length} bytes, its header says {}",
                header.capacity
            );
            return Err(damaged(length.min(header.capacity.into()), reason));
        }
        if header.sequence != sequence || sequence == u64::MAX || header.first_index == 0 {
            let reason = format!(
                "the header is that of segment {}, with first entry {}",
                header.sequence, header.first_index
            );
            return Err(damaged(16, reason));
        }
        if let Some(previous) = self.newest.take() {
            self.check_end_of(&previous, &header)?;
            self.older.push_back(previous.segment);
        }
        let state = self
            .state
            .get_or_insert_with(|| LogState::starting_at(header.first_index));
        if header.first_index != state.next_index() {
            let reason = format!(
                "the segment begins at entry {}, the one before ended before entry {}",
                header.first_index,
                state.next_index()
            );
            return Err(damaged(24, reason));
        }

        let mut bytes = vec![0; length as usize];
        file.read_at(&mut bytes, 0)
            .map_err(|source| failed("read", source))?;
        let mut impossible = None;
        let scan = scan_segment(&bytes, |placed| {
            if impossible.is_none()
                && let Err(reason) = state.replay(placed.record, sequence, placed.placement)
            {
                impossible = Some(damaged(placed.placement.offset.into(), reason));
            }
        })
        .map_err(refused)?;
        if let Some(impossible) = impossible {
            return Err(impossible);
        }
        if let Tail::Damaged { offset, reason } = scan.tail {
            return Err(damaged(offset.into(), reason.to_owned()));
        }
        self.newest = Some(Read {
            segment: Segment {
                sequence,
                capacity: header.capacity,
                seed: header.seed,
                name,
                file,
            },
            scan,
            bytes,
        });
        Ok(())
    }

    /// What was noted as synced must be there.
    fn check_note(&mut self, note: Option<Synced>) -> Result<(), LogError> {
        let Some(synced) = note else {
            return Ok(());
        };
        let newest = self.newest.as_mut();
        match newest.filter(|newest| newest.segment.sequence >= synced.sequence) {
            None => {
                let reason = "the segment is missing, and was synced up to here";
                let name = segment_name(synced.sequence);
                Err(damaged(self.disk, &name, synced.offset.into(), reason))
            }
            // Of an older segment the one behind it knows more; another use of the file is another log.
            Some(Read { segment, .. })
                if (segment.sequence, segment.seed) != (synced.sequence, synced.seed) =>
            {
                Ok(())
            }
            Some(Read { segment, scan, .. }) if scan.end < synced.offset => {
                let reason = match scan.tail {
                    Tail::Torn { reason, .. } | Tail::Damaged { reason, .. } => reason,
                    Tail::Clean => "records are missing",
                };
                let reason = format!(
                    "{reason}; the file was synced up to offset {}",
                    synced.offset
                );
                Err(damaged(self.disk, &segment.name, scan.end.into(), reason))
            }
            Some(Read { scan, .. }) => {
                scan.proven = scan.proven.max(synced.offset);
                Ok(())
            }
        }
    }

    /// A segment that another one follows was synced to its end, and the follower knows where that is.
    fn check_end_of(&self, previous: &Read<D::File>, next: &SegmentHeader) -> Result<(), LogError> {
        let Scan {
            end, chain, tail, ..
        } = &previous.scan;
        if (*end, *chain) == (next.previous_end, next.previous_chain) {
            return Ok(());
        }
        let reason = match tail {
            Tail::Torn { reason, .. } | Tail::Damaged { reason, .. } => reason,
            Tail::Clean => "records are missing",
        };
        let reason = format!(
            "{reason}; the next segment follows offset {}",
            next.previous_end
        );
        Err(damaged(
            self.disk,
            &previous.segment.name,
            u64::from(*end),
            reason,
        ))
    }
}

/// Where the log goes on after [`repair_end`].
struct RepairedEnd {
    position: u32,
    chain: u32,
    tail_cut: Option<TailCut>,
}

/// Cuts what is torn, makes durable what is kept, and puts a barrier behind it.
fn repair_end<D: Disk>(disk: &D, newest: &Read<D::File>) -> Result<RepairedEnd, LogError> {
    let Read {
        segment,
        scan,
        bytes,
    } = newest;
    let file = disk.path(&segment.name);
    let tail_cut = match scan.tail {
        Tail::Torn { bytes, reason } => Some(TailCut {
            file: file.clone(),
            offset: scan.end.into(),
            bytes: bytes.into(),
            reason,
        }),
        Tail::Clean | Tail::Damaged { .. } => None,
    };
    let proven = scan.proven.min(scan.end);
    let mut last = bytes
        .get(proven as usize..scan.end as usize)
        .unwrap_or_default()
        .to_vec();
    let mut chain = scan.chain;
    // What is too short for a barrier is too short for any batch, so none can have been there.
    if scan.end as usize + BATCH_HEADER_BYTES <= bytes.len() {
        // Written together with what it follows, it must not claim that this was synced.
        let barrier = BatchHeader::barrier(segment.seed, scan.end, proven, scan.chain);
        chain = encode_batch(&mut last, &barrier, std::iter::empty(), &mut Vec::new());
    }
    let position = proven + last.len() as u32;
    if position as usize + TERMINATOR_BYTES <= bytes.len() {
        last.extend_from_slice(&[0; TERMINATOR_BYTES]);
    }
    let write = || {
        if tail_cut.is_some() {
            let (end, capacity) = (scan.end.into(), segment.capacity.into());
            segment.file.write_zeros(end, capacity)?;
        }
        segment.file.write_at(&last, proven.into())
    };
    write().map_err(|source| LogError::io(&file, "write", source))?;
    let synced = segment.file.sync_data();
    synced.map_err(|source| LogError::io(&file, "sync", source))?;
    Ok(RepairedEnd {
        position,
        chain,
        tail_cut,
    })
}
