//! The raft log: entries, hard state and compaction marks in segments of our own format, the point of durability.
//!
//! [`RaftLog`] is a value of one thread. It knows nothing of raft beyond "entries with index and term": what an entry's
//! kind, data and context, or a configuration's bytes, mean is the caller's. Positions in it are [`LogPosition`]s.
//!
//! # Files
//!
//! `<sequence, 16 hex digits>.log` is a segment, `spare-*.log` an empty one kept for use, `*.tmp` one being made, `synced`
//! a note (magic "HFSYNC01", sequence u64, seed u64, offset u32, CRC32C u32). All integers are little endian.
//!
//! ```text
//! segment  = header, batch, batch, ..., 8 zero bytes, anything
//! header   = magic "HFRAFTLG", version u32, capacity u32, sequence u64, first index u64, seed u64,
//!            previous end u32, previous chain u32, 12 zeros, CRC32C of the 60 bytes before: 64 bytes
//! frame    = length u32, CRC32C u32, type u8, payload of that length
//! batch    = one frame of type 1 (40 bytes), frames of other types (none: a barrier), padding to a multiple of 8
//!   1 batch      seed u64, offset u32, synced u32, previous chain u32, body bytes u32, frames u32, 3 zeros
//!   2 entry      index u64, term u64, kind u8, context length u32, context, data
//!   3 hard state term u64, vote u64, commit u64
//!   4 mark       index u64, term u64, conf state
//!   5 snapshot   index u64, term u64, hard state, conf state
//! ```
//!
//! A frame's CRC starts from the CRC of the frame before it (the *chain*), a batch's header from nothing: it carries the
//! chain instead, and its own offset and the segment's seed, so that it proves itself wherever it is found. One append is
//! one batch is one write; a batch counts whole or not at all, so hard state and entries of one append stay together.
//!
//! A segment has its full length, in written zeros, before it is used: then a sync has no metadata to write, and an append
//! inside a segment cannot run out of space. It gets its name last: header and first batch are written and synced under a
//! spare's name, then renamed, then the directory is synced, then records follow. The first batch repeats mark and hard
//! state, so that every segment can be the first one. A used-up file is not zeroed when it is recycled: what is left in it
//! carries another seed.
//!
//! # Torn or damaged
//!
//! After a crash the bytes written since the last sync may be there, or not, or in part. Bytes synced before are there, or
//! the medium is broken. Recovery must cut the first and must not cut the second, so it must know what was synced. Every
//! batch header carries *synced*: how far this file had been synced when the batch was written. This is evidence: a header
//! with it exists only if the sync had succeeded before. With `B` the place where the chain of whole batches ends:
//!
//! * Some header behind `B` says *synced > B*: what is missing at `B` had been synced. **Damage.** Headers behind `B` are
//!   found without the chain, by their seed and checksum at each multiple of 8.
//! * The first batch of a segment is bad, or a segment's header, or its length: all three were synced before the file got
//!   its name. **Damage.**
//! * The segment is not the last one: a new segment is begun only when the one before is synced to its end, and the new
//!   header repeats where that end is and the chain there. If they differ, **damage**. A gap in the sequence numbers is
//!   damage too, unless a later mark shows that nothing before the gap is needed (a compaction cut off by a crash).
//! * A record whose checksum is right and whose content is impossible was not torn. **Damage.**
//! * Otherwise nothing says that the bytes at `B` were ever synced. Zeros there and no header behind are a clean end;
//!   anything else is a torn tail, which is **cut** and reported ([`Recovered::tail_cut`]).
//!
//! What remains is damage inside the last synced batches, before any later batch carries the mark: it looks like a torn
//! write. The sync that makes a batch durable cannot vouch for itself within the same file, so a file beside the segments,
//! `synced`, notes after each sync which segment was synced how far. The note is written and not synced (it costs a
//! microsecond): after the death of the process it is exact, and then every damage to what was synced is refused, as is the
//! loss of the newest segments as a whole; after a power cut it may be old or gone, which makes no claim false, and
//! damage *by that same power cut* inside the last batches is cut. A disk that honours syncs never does that.
//! [`RaftLog::close`] makes the note durable.
//!
//! A header of this use of the file that is left behind a cut says *synced ≤* the cut, and the end never moves back
//! before a cut, so old remains are never taken for evidence; they are zeroed all the same.
//!
//! Recovery writes the bytes from the last proven sync to the end once more and syncs them. They may be in the page
//! cache only; and after a failed sync Linux takes pages for clean that never reached the medium, so that syncing alone
//! would prove nothing.
//!
//! # Barriers
//!
//! What is behind the end is not always nothing: a power cut may have taken the first sector of a batch and left the
//! others, and a write that failed for lack of space may have been made in part. Such remains must never become a batch
//! again. They would: a batch is begun in the same place by the same header if it is as long and the same was synced
//! before, so that its first sector, and no more, is what the remains had been missing. And a batch that ends in zeros,
//! half written to a file of zeros, is whole already.
//!
//! Therefore a batch without records, a *barrier*, takes their place and is synced, at the end of each recovery and
//! before a batch is refused for lack of space that was written in part. Every batch behind it says *synced* of a place
//! that no header written before does. So no header is the same as one of before, and no frame of before continues the
//! chain of a new one.

mod cache;
mod error;
mod format;
mod raft_log;
mod recovery;
mod scan;
mod segment;
mod spares;
mod state;
mod sync_note;
mod writer;

pub use error::LogError;
pub use format::{FORMAT_VERSION, HeaderFault, Placement, Record, SegmentHeader};
pub use raft_log::RaftLog;
pub use scan::{Placed, Scan, Tail, scan_segment};
pub use spares::SparePool;

use bytes::Bytes;
use std::path::PathBuf;

/// The longest a segment, and so a batch, may be: what recovery may have to hold in memory at once.
pub const MAX_SEGMENT_BYTES: u64 = 1 << 30;

/// The longest configuration that a mark or snapshot record takes. A raft configuration has some bytes per member.
pub const MAX_CONF_STATE_BYTES: usize = 1 << 20;

/// One raft entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the log, from 1.
    pub index: u64,
    /// The term in which it was proposed.
    pub term: u64,
    /// The caller's kind of entry; stored, not looked at.
    pub kind: u8,
    /// The caller's data.
    pub data: Bytes,
    /// The caller's context.
    pub context: Bytes,
}

/// What raft must not forget besides the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term seen.
    pub term: u64,
    /// Whom this member voted for in that term, 0 for nobody.
    pub vote: u64,
    /// The highest index known to be committed.
    pub commit: u64,
}

/// What one append persists: all of it or nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogBatch<'a> {
    /// Consecutive entries. If the first one's index is already in the log, it replaces that entry and all after it.
    pub entries: &'a [Entry],
    /// The new hard state, if it changed.
    pub hard_state: Option<HardState>,
}

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The length of a segment in bytes, a multiple of 4096 up to [`MAX_SEGMENT_BYTES`]. A batch that does not fit gets a
    /// longer segment of its own. May differ from run to run.
    pub segment_bytes: u64,
    /// How many spare segments to hold ready.
    pub recycle: usize,
    /// Whether [`RaftLog::sync`] syncs. Without it a power cut may lose acknowledged batches of the newest segment;
    /// changes of segment, compactions and snapshots are synced all the same, so the rest stays readable.
    pub sync: bool,
    /// How many bytes of the newest entries stay in memory.
    pub cache_bytes: usize,
    /// Where segment seeds come from; `None` takes randomness from the system. Fixed only where runs must be repeatable.
    pub seed: Option<u64>,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: 64 * 1024 * 1024,
            recycle: 2,
            sync: true,
            cache_bytes: 32 * 1024 * 1024,
            seed: None,
        }
    }
}

/// What recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The torn tail that was cut, if there was one.
    pub tail_cut: Option<TailCut>,
    /// How many segments hold the log.
    pub segments: usize,
    /// How many entries it has.
    pub entries: u64,
}

/// The end of the log as a crash left it: a write that had not been synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailCut {
    /// The newest segment.
    pub file: PathBuf,
    /// Where it was cut.
    pub offset: u64,
    /// How far the remains of the write reached behind it, in bytes.
    pub bytes: u64,
    /// What was wrong with them.
    pub reason: &'static str,
}
