//! Segment files: their names, and how a new one comes into being.

use super::format::{
    BatchHeader, Record, SEGMENT_HEADER_BYTES, SegmentHeader, TERMINATOR_BYTES, batch_bytes,
    encode_batch,
};
use super::spares::SparePool;
use super::state::LogState;
use super::{LogError, MAX_SEGMENT_BYTES};
use crate::disk::{Disk, DiskFile};

pub(super) const SPARE_SUFFIX: &str = ".log";
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";

/// The unit in which segments longer than usual are sized.
const PAGE_BYTES: u64 = 4096;

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment<F> {
    pub(super) sequence: u64,
    pub(super) capacity: u32,
    pub(super) seed: u64,
    pub(super) name: String,
    pub(super) file: F,
}

/// A segment in which nothing was written but what it begins with, all of it synced.
pub(super) struct FreshSegment<F> {
    pub(super) segment: Segment<F>,
    pub(super) position: u32,
    pub(super) chain: u32,
}

pub(super) fn segment_name(sequence: u64) -> String {
    format!("{sequence:016x}.log")
}

/// The sequence number that a segment's name says, `None` for other names.
pub(super) fn segment_sequence(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let sequence = u64::from_str_radix(digits, 16).ok()?;
    (sequence != 0 && segment_name(sequence) == name).then_some(sequence)
}

pub(super) fn spare_name(number: u64) -> String {
    format!("spare-{number:08x}{SPARE_SUFFIX}")
}

/// Creates a file of so many zeros and syncs it. What cannot be finished is removed.
pub(super) fn zeroed_file<D: Disk>(disk: &D, name: &str, bytes: u32) -> Result<D::File, LogError> {
    let failed = |operation, source| LogError::io(disk.path(name), operation, source);
    let file = disk
        .create(name)
        .map_err(|source| failed("create", source))?;
    let made = file
        .write_zeros(0, u64::from(bytes))
        .map_err(|source| failed("write", source))
        .and_then(|()| file.sync_data().map_err(|source| failed("sync", source)));
    match made {
        Ok(()) => Ok(file),
        Err(error) => {
            // The error at hand is the one that matters; a file left over is removed at the next start.
            let _ = disk.remove(name);
            Err(error)
        }
    }
}

/// The sum of the frames and their number.
pub(super) fn measure<'a>(records: impl Iterator<Item = Record<'a>>) -> (usize, u32) {
    records.fold((0_usize, 0), |(bytes, count), record| {
        (bytes.saturating_add(record.frame_bytes()), count + 1)
    })
}

/// Begins the segment that `header` describes (its capacity is decided here) with the state so far, and room for a batch of
/// `room` bytes. When this returns, the file is durable under its name.
pub(super) fn begin_segment<D: Disk>(
    disk: &D,
    spares: &SparePool<D>,
    segment_bytes: u32,
    mut header: SegmentHeader,
    state: &LogState,
    room: usize,
) -> Result<FreshSegment<D::File>, LogError> {
    let (body, count) = measure(state.checkpoint().into_iter());
    let position = SEGMENT_HEADER_BYTES + batch_bytes(body);
    let needed = position
        .saturating_add(room)
        .saturating_add(TERMINATOR_BYTES) as u64;
    if needed > MAX_SEGMENT_BYTES {
        return Err(LogError::TooLarge {
            bytes: room as u64,
            limit: MAX_SEGMENT_BYTES - (position + TERMINATOR_BYTES) as u64,
        });
    }
    let usual = needed <= u64::from(segment_bytes);
    // At most MAX_SEGMENT_BYTES, as is everything that lies inside a segment: it fits 32 bits.
    header.capacity = if usual {
        segment_bytes
    } else {
        needed.next_multiple_of(PAGE_BYTES) as u32
    };
    let mut bytes = header.encode().to_vec();
    let batch = BatchHeader {
        seed: header.seed,
        offset: SEGMENT_HEADER_BYTES as u32,
        synced: SEGMENT_HEADER_BYTES as u32,
        previous: header.chain,
        body_bytes: body as u32,
        count,
    };
    let records = state.checkpoint().into_iter();
    let chain = encode_batch(&mut bytes, &batch, records, &mut Vec::new());
    bytes.extend_from_slice(&[0; TERMINATOR_BYTES]);

    let (spare, file) = match if usual { spares.take()? } else { None } {
        Some(spare) => {
            let opened = disk.open(&spare);
            let file = opened.map_err(|source| LogError::io(disk.path(&spare), "open", source))?;
            (spare, file)
        }
        None => {
            let spare = format!("spare-{:08x}{TEMPORARY_SUFFIX}", spares.next_number());
            let file = zeroed_file(disk, &spare, header.capacity)?;
            (spare, file)
        }
    };
    let written = file
        .write_at(&bytes, 0)
        .map_err(|source| LogError::io(disk.path(&spare), "write", source))
        .and_then(|()| {
            let synced = file.sync_data();
            synced.map_err(|source| LogError::io(disk.path(&spare), "sync", source))
        });
    if let Err(error) = written {
        let _ = disk.remove(&spare);
        return Err(error);
    }
    let name = segment_name(header.sequence);
    disk.rename(&spare, &name)
        .map_err(|source| LogError::io(disk.path(&name), "rename", source))?;
    // Never NoSpace: the name may be durable now, and then no record may be added to the segment before it.
    disk.sync_dir().map_err(|source| LogError::Io {
        file: disk.path(""),
        operation: "sync",
        source,
    })?;
    Ok(FreshSegment {
        segment: Segment {
            sequence: header.sequence,
            capacity: header.capacity,
            seed: header.seed,
            name,
            file,
        },
        position: position as u32,
        chain,
    })
}
