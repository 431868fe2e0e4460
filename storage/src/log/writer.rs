//! The end of the log: one batch after the other into the newest segment, a new segment when that is full.

use super::LogError;
use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, Placement, Record, SegmentHeader, TERMINATOR_BYTES,
    batch_bytes, encode_batch,
};
use super::segment::{FreshSegment, Segment, begin_segment, measure};
use super::spares::SparePool;
use super::state::LogState;
use super::sync_note::{SyncNote, Synced};
use crate::disk::{Disk, DiskFile};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// An encode buffer that one big batch made longer than this is given back.
const KEPT_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// The segments, and where the next batch goes.
#[derive(Debug)]
pub(super) struct Writer<D: Disk> {
    pub(super) disk: Arc<D>,
    pub(super) spares: Arc<SparePool<D>>,
    pub(super) segment_bytes: u32,
    pub(super) seeds: Seeds,
    /// The segments before the newest one, with consecutive sequence numbers.
    pub(super) older: VecDeque<Segment<D::File>>,
    pub(super) newest: Segment<D::File>,
    /// Where the next batch goes, in the newest segment. All older segments are synced to their end.
    pub(super) position: u32,
    /// The chain there.
    pub(super) chain: u32,
    /// The newest segment is synced up to here.
    pub(super) synced: u32,
    /// Where that is noted.
    pub(super) note: SyncNote<D::File>,
    /// A write or sync failed: see [`LogError::Poisoned`].
    pub(super) poisoned: bool,
    /// The last batch written, kept for its allocation.
    pub(super) buffer: Vec<u8>,
    /// Where the entries of the last batch lie in the newest segment.
    pub(super) placed: Vec<Placement>,
}

/// Gives each use of a file its own number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seeds(pub(super) u64);

impl Seeds {
    /// SplitMix64 of base and sequence: sequence numbers are never used twice, so neither are seeds.
    pub(super) fn seed(self, sequence: u64) -> u64 {
        let mut z = self
            .0
            .wrapping_add(sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl<D: Disk> Writer<D> {
    pub(super) fn check(&self) -> Result<(), LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        Ok(())
    }

    /// Writes the records as one batch, beginning a new segment with `state` if they do not fit. Notes in `placed` where
    /// the entries lie.
    pub(super) fn write<'a, R>(&mut self, records: R, state: &LogState) -> Result<(), LogError>
    where
        R: Iterator<Item = Record<'a>> + Clone,
    {
        self.check()?;
        let (body, count) = measure(records.clone());
        let bytes = batch_bytes(body);
        if bytes > (self.newest.capacity - self.position) as usize {
            self.begin_segment(bytes, state)?;
        }
        let header = BatchHeader {
            seed: self.newest.seed,
            offset: self.position,
            synced: self.synced,
            previous: self.chain,
            // It fits the segment, so it fits 32 bits.
            body_bytes: body as u32,
            count,
        };
        self.placed.clear();
        self.buffer.clear();
        self.buffer.reserve(bytes + TERMINATOR_BYTES);
        let chain = encode_batch(&mut self.buffer, &header, records, &mut self.placed);
        let end = self.position + bytes as u32;
        // Capacity and batches are multiples of eight: there is room for all of the terminator or for none.
        if end < self.newest.capacity {
            self.buffer.extend_from_slice(&[0; TERMINATOR_BYTES]);
        }
        let written = self
            .newest
            .file
            .write_at(&self.buffer, u64::from(self.position));
        if self.buffer.capacity() > KEPT_BUFFER_BYTES {
            self.buffer = Vec::new();
        }
        if let Err(source) = written {
            return Err(self.after_failed_write(source));
        }
        self.position = end;
        self.chain = chain;
        Ok(())
    }

    /// Makes everything written durable.
    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        self.check()?;
        if self.synced == self.position {
            return Ok(());
        }
        if let Err(source) = self.newest.file.sync_data() {
            self.poisoned = true;
            let file = self.disk.path(&self.newest.name);
            // Never NoSpace: that would mean that trying again may help.
            return Err(LogError::Io {
                file,
                operation: "sync",
                source,
            });
        }
        self.synced = self.position;
        self.note_synced();
        Ok(())
    }

    /// Notes how far the newest segment is synced.
    pub(super) fn note_synced(&self) {
        self.note.write(&Synced {
            sequence: self.newest.sequence,
            seed: self.newest.seed,
            offset: self.synced,
        });
    }

    /// The open segment of that number.
    pub(super) fn segment(&self, sequence: u64) -> Option<&Segment<D::File>> {
        if sequence == self.newest.sequence {
            return Some(&self.newest);
        }
        let oldest = self.older.front()?.sequence;
        self.older
            .get(usize::try_from(sequence.checked_sub(oldest)?).ok()?)
    }

    /// Hands the segments before `sequence` to the spare pool.
    pub(super) fn retire_before(&mut self, sequence: u64) {
        while let Some(segment) = self.older.pop_front_if(|oldest| oldest.sequence < sequence) {
            self.spares
                .retire(segment.name, u64::from(segment.capacity));
        }
    }

    fn begin_segment(&mut self, room: usize, state: &LogState) -> Result<(), LogError> {
        self.sync()?;
        let sequence = self.newest.sequence + 1;
        let header = SegmentHeader {
            capacity: 0,
            sequence,
            first_index: state.next_index(),
            seed: self.seeds.seed(sequence),
            previous_end: self.position,
            previous_chain: self.chain,
            chain: 0,
        };
        let begun = begin_segment(
            &*self.disk,
            &self.spares,
            self.segment_bytes,
            header,
            state,
            room,
        );
        let FreshSegment {
            segment,
            position,
            chain,
        } = begun.inspect_err(|error| {
            // A full disk can be emptied and a batch can be made smaller; after any other failure only a restart finds
            // out what is on the medium.
            self.poisoned = !matches!(error, LogError::NoSpace { .. } | LogError::TooLarge { .. });
        })?;
        self.older
            .push_back(std::mem::replace(&mut self.newest, segment));
        self.position = position;
        self.chain = chain;
        self.synced = position;
        self.note_synced();
        Ok(())
    }

    /// After a batch could not be written at `position`. A full disk can be emptied, but the caller may only be told that
    /// nothing was kept if that holds for the medium too; after any other failure only a restart finds out what is there.
    fn after_failed_write(&mut self, source: io::Error) -> LogError {
        let file = self.disk.path(&self.newest.name);
        let error = LogError::io(&file, "write", source);
        self.poisoned = match error {
            // Where files are copied on write a full disk takes nothing, a barrier neither; and none is needed then.
            LogError::NoSpace { .. } if self.is_end_untouched() => false,
            LogError::NoSpace { .. } => {
                // A part of the batch stands there, and is all of it if the file held the rest already: its zeros.
                if let Err(source) = self.write_barrier() {
                    self.poisoned = true;
                    // Not NoSpace: the batch may have been kept.
                    return LogError::Io {
                        file,
                        operation: "write",
                        source,
                    };
                }
                false
            }
            _ => true,
        };
        error
    }

    /// Whether nothing was written behind the last batch: the first word of a batch is never zero.
    fn is_end_untouched(&self) -> bool {
        let mut word = [0xff; TERMINATOR_BYTES];
        let read = self
            .newest
            .file
            .read_at(&mut word, u64::from(self.position));
        read.is_ok() && word == [0; TERMINATOR_BYTES]
    }

    /// Takes the place at `position`, where there is room for a batch, durably with a batch that says nothing (see the
    /// module's documentation).
    fn write_barrier(&mut self) -> io::Result<()> {
        let barrier =
            BatchHeader::barrier(self.newest.seed, self.position, self.synced, self.chain);
        let mut bytes = Vec::with_capacity(BATCH_HEADER_BYTES + TERMINATOR_BYTES);
        let chain = encode_batch(&mut bytes, &barrier, std::iter::empty(), &mut Vec::new());
        let end = self.position + bytes.len() as u32;
        if end < self.newest.capacity {
            bytes.extend_from_slice(&[0; TERMINATOR_BYTES]);
        }
        self.newest
            .file
            .write_at(&bytes, u64::from(self.position))?;
        self.newest.file.sync_data()?;
        self.position = end;
        self.chain = chain;
        self.synced = end;
        self.note_synced();
        Ok(())
    }
}
