//! The bytes of a segment: header, frames, batches. The parent module's documentation draws them.

use super::HardState;
use crate::LogPosition;

/// The version of the segment format that this program writes, and the newest it reads. Every version keeps the first 16
/// bytes of the segment header and its checksum in bytes 60 to 64, so that an older program can refuse a newer file.
pub const FORMAT_VERSION: u32 = 1;

pub(super) const MAGIC: [u8; 8] = *b"HFRAFTLG";
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
pub(super) const FRAME_BYTES: usize = 9;
pub(super) const BATCH_HEADER_BYTES: usize = 40;
pub(super) const TERMINATOR_BYTES: usize = 8;

const BATCH_PAYLOAD_BYTES: usize = BATCH_HEADER_BYTES - FRAME_BYTES;
const ENTRY_FIXED_BYTES: usize = 21;
const HARD_STATE_BYTES: usize = 24;
const POSITION_BYTES: usize = 16;

const TYPE_BATCH: u8 = 1;
const TYPE_ENTRY: u8 = 2;
const TYPE_HARD_STATE: u8 = 3;
const TYPE_MARK: u8 = 4;
const TYPE_SNAPSHOT: u8 = 5;

/// The first 64 bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The length of the file; it is fixed from the start.
    pub capacity: u32,
    /// The segment's number; rises by one from segment to segment and is never used again.
    pub sequence: u64,
    /// The index that an entry appended at the segment's start would get.
    pub first_index: u64,
    /// A number of this use of the file alone, in every batch header.
    pub seed: u64,
    /// Where the records of the segment before this one end; 0 in the first segment.
    pub previous_end: u32,
    /// The chain at that end; 0 in the first segment.
    pub previous_chain: u32,
    /// The checksum of the header, which starts the segment's chain.
    pub chain: u32,
}

/// Why a segment header was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// It is not one, or is not whole.
    Damaged(&'static str),
    /// It is whole, and of this newer version.
    Newer(u32),
}

impl SegmentHeader {
    /// Encodes the header and sets `chain` to its checksum.
    pub(super) fn encode(&mut self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.capacity.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_index.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.seed.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.previous_end.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.previous_chain.to_le_bytes());
        self.chain = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&self.chain.to_le_bytes());
        bytes
    }

    /// Decodes the header at the start of `bytes`.
    pub(super) fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderFault> {
        let Some(bytes) = bytes.get(..SEGMENT_HEADER_BYTES) else {
            return Err(HeaderFault::Damaged("the segment header is cut off"));
        };
        let mut fields = Fields(bytes);
        let decoded = (|| {
            let magic = fields.take(8)?;
            let version = fields.u32()?;
            let header = SegmentHeader {
                capacity: fields.u32()?,
                sequence: fields.u64()?,
                first_index: fields.u64()?,
                seed: fields.u64()?,
                previous_end: fields.u32()?,
                previous_chain: fields.u32()?,
                chain: Fields(bytes.get(60..)?).u32()?,
            };
            Some((magic, version, header))
        })();
        let Some((magic, version, header)) = decoded else {
            return Err(HeaderFault::Damaged("the segment header is cut off"));
        };
        if magic != MAGIC {
            return Err(HeaderFault::Damaged(
                "the segment header's magic number is wrong",
            ));
        }
        if crc32c::crc32c(&bytes[..60]) != header.chain {
            return Err(HeaderFault::Damaged(
                "the segment header's checksum is wrong",
            ));
        }
        match version {
            FORMAT_VERSION => Ok(header),
            0 => Err(HeaderFault::Damaged("the segment header's version is zero")),
            newer => Err(HeaderFault::Newer(newer)),
        }
    }
}

/// The first frame of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchHeader {
    /// The segment's seed.
    pub(super) seed: u64,
    /// Where in the file the batch starts.
    pub(super) offset: u32,
    /// The file was synced up to here when the batch was written; at most `offset`.
    pub(super) synced: u32,
    /// The chain before the batch.
    pub(super) previous: u32,
    /// The sum of the frames after the header, without the padding.
    pub(super) body_bytes: u32,
    /// How many frames these are.
    pub(super) count: u32,
}

impl BatchHeader {
    /// Decodes the batch header at `at` and verifies all that it says about itself: its own checksum, that it belongs to
    /// this use of the file, and to this place. Whether it continues the chain is for the caller to see. Returns the
    /// chain behind it.
    pub(super) fn decode(bytes: &[u8], at: usize, seed: u64) -> Option<(BatchHeader, u32)> {
        let frame = bytes.get(at..at.checked_add(BATCH_HEADER_BYTES)?)?;
        let mut fields = Fields(frame);
        let length = fields.u32()?;
        let crc = fields.u32()?;
        let kind = fields.u8()?;
        // The seed is looked at before the checksum, because recovery asks this at each eighth byte of a file.
        if length as usize != BATCH_PAYLOAD_BYTES || kind != TYPE_BATCH || fields.u64()? != seed {
            return None;
        }
        let header = BatchHeader {
            seed,
            offset: fields.u32()?,
            synced: fields.u32()?,
            previous: fields.u32()?,
            body_bytes: fields.u32()?,
            count: fields.u32()?,
        };
        (frame_crc(0, frame) == crc && header.offset as usize == at).then_some((header, crc))
    }

    /// That of a batch without records, a barrier: its place is taken, and nothing else is said.
    pub(super) fn barrier(seed: u64, offset: u32, synced: u32, previous: u32) -> BatchHeader {
        BatchHeader {
            seed,
            offset,
            synced,
            previous,
            body_bytes: 0,
            count: 0,
        }
    }

    /// Where the next batch starts.
    pub(super) fn end(&self) -> usize {
        self.offset as usize + batch_bytes(self.body_bytes as usize)
    }
}

/// The bytes of a batch in the file, for a body of so many bytes: batches start at multiples of eight.
pub(super) fn batch_bytes(body: usize) -> usize {
    (BATCH_HEADER_BYTES + body).next_multiple_of(8)
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// One entry; it replaces the entry of that index and all after it.
    Entry {
        /// Its place in the log.
        index: u64,
        /// Its term.
        term: u64,
        /// The caller's kind.
        kind: u8,
        /// The caller's context.
        context: &'a [u8],
        /// The caller's data.
        data: &'a [u8],
    },
    /// Raft's term, vote and commit index.
    HardState(HardState),
    /// The entries up to the position are compacted away.
    Mark {
        /// The last entry compacted away.
        position: LogPosition,
        /// The membership at that position, as the caller encodes it.
        conf_state: &'a [u8],
    },
    /// A snapshot was installed: the whole log is replaced by it.
    Snapshot {
        /// The last entry that the snapshot contains.
        position: LogPosition,
        /// The hard state from then on.
        hard_state: HardState,
        /// The membership at that position, as the caller encodes it.
        conf_state: &'a [u8],
    },
}

impl<'a> Record<'a> {
    /// The size of the whole frame.
    pub(super) fn frame_bytes(&self) -> usize {
        FRAME_BYTES
            + match self {
                Record::Entry { context, data, .. } => {
                    ENTRY_FIXED_BYTES + context.len() + data.len()
                }
                Record::HardState(_) => HARD_STATE_BYTES,
                Record::Mark { conf_state, .. } => POSITION_BYTES + conf_state.len(),
                Record::Snapshot { conf_state, .. } => {
                    POSITION_BYTES + HARD_STATE_BYTES + conf_state.len()
                }
            }
    }

    fn encode_payload(&self, buffer: &mut Vec<u8>) {
        match self {
            Record::Entry {
                index,
                term,
                kind,
                context,
                data,
            } => {
                buffer.extend_from_slice(&index.to_le_bytes());
                buffer.extend_from_slice(&term.to_le_bytes());
                buffer.push(*kind);
                // A batch is at most MAX_SEGMENT_BYTES long, so the length fits.
                buffer.extend_from_slice(&(context.len() as u32).to_le_bytes());
                buffer.extend_from_slice(context);
                buffer.extend_from_slice(data);
            }
            Record::HardState(state) => encode_hard_state(buffer, state),
            Record::Mark {
                position,
                conf_state,
            } => {
                encode_position(buffer, position);
                buffer.extend_from_slice(conf_state);
            }
            Record::Snapshot {
                position,
                hard_state,
                conf_state,
            } => {
                encode_position(buffer, position);
                encode_hard_state(buffer, hard_state);
                buffer.extend_from_slice(conf_state);
            }
        }
    }

    fn decode_payload(kind: u8, payload: &'a [u8]) -> Option<Record<'a>> {
        let mut fields = Fields(payload);
        let record = match kind {
            TYPE_ENTRY => {
                let (index, term, kind) = (fields.u64()?, fields.u64()?, fields.u8()?);
                let context_bytes = fields.u32()? as usize;
                Record::Entry {
                    index,
                    term,
                    kind,
                    context: fields.take(context_bytes)?,
                    data: fields.rest(),
                }
            }
            TYPE_HARD_STATE => Record::HardState(fields.hard_state()?),
            TYPE_MARK => Record::Mark {
                position: fields.position()?,
                conf_state: fields.rest(),
            },
            TYPE_SNAPSHOT => Record::Snapshot {
                position: fields.position()?,
                hard_state: fields.hard_state()?,
                conf_state: fields.rest(),
            },
            _ => return None,
        };
        fields.0.is_empty().then_some(record)
    }

    fn type_byte(&self) -> u8 {
        match self {
            Record::Entry { .. } => TYPE_ENTRY,
            Record::HardState(_) => TYPE_HARD_STATE,
            Record::Mark { .. } => TYPE_MARK,
            Record::Snapshot { .. } => TYPE_SNAPSHOT,
        }
    }
}

/// Why a frame was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameFault {
    /// The bytes are not those that were written.
    Corrupt(&'static str),
    /// The bytes are as they were written, but make no sense: no torn write does this.
    Nonsense(&'static str),
}

/// Decodes the frame at the start of `bytes`, whose chain so far is `chain`; returns it with its size and the chain after
/// it. A length is believed only if the bytes are there.
pub(super) fn decode_frame(
    bytes: &[u8],
    chain: u32,
) -> Result<(Record<'_>, usize, u32), FrameFault> {
    let mut fields = Fields(bytes);
    let (Some(length), Some(crc), Some(kind)) = (fields.u32(), fields.u32(), fields.u8()) else {
        return Err(FrameFault::Corrupt("the record's frame is cut off"));
    };
    let Some(payload) = fields.take(length as usize) else {
        return Err(FrameFault::Corrupt("the record's length exceeds its batch"));
    };
    let size = FRAME_BYTES + payload.len();
    if frame_crc(chain, &bytes[..size]) != crc {
        return Err(FrameFault::Corrupt("the record's checksum is wrong"));
    }
    match Record::decode_payload(kind, payload) {
        Some(record) => Ok((record, size, crc)),
        None => Err(FrameFault::Nonsense(
            "the record is of an unknown type, or its content does not fit its type",
        )),
    }
}

/// The checksum of a frame (whose own checksum field, bytes 4 to 8, is left out), continuing `chain`. The frame has at
/// least [`FRAME_BYTES`].
fn frame_crc(chain: u32, frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(chain, &frame[..4]), &frame[8..])
}

/// Where a frame was put: what is needed to read it back alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Where in the file the frame starts.
    pub offset: u32,
    /// Its size.
    pub bytes: u32,
    /// The chain before it.
    pub seed: u32,
}

/// Appends a batch to `buffer`: its header (whose `body_bytes` and `count` must be those of the records), the records, the
/// padding. Notes where each entry comes to lie; returns the chain behind the batch. The caller has made sure that offset
/// plus size is at most [`super::MAX_SEGMENT_BYTES`], so that no number here overflows.
pub(super) fn encode_batch<'a>(
    buffer: &mut Vec<u8>,
    header: &BatchHeader,
    records: impl Iterator<Item = Record<'a>>,
    entries: &mut Vec<Placement>,
) -> u32 {
    let start = buffer.len();
    begin_frame(buffer, BATCH_PAYLOAD_BYTES, TYPE_BATCH);
    buffer.extend_from_slice(&header.seed.to_le_bytes());
    buffer.extend_from_slice(&header.offset.to_le_bytes());
    buffer.extend_from_slice(&header.synced.to_le_bytes());
    buffer.extend_from_slice(&header.previous.to_le_bytes());
    buffer.extend_from_slice(&header.body_bytes.to_le_bytes());
    buffer.extend_from_slice(&header.count.to_le_bytes());
    buffer.extend_from_slice(&[0; 3]);
    let mut chain = end_frame(buffer, start, 0);
    for record in records {
        let at = buffer.len();
        let size = record.frame_bytes();
        begin_frame(buffer, size - FRAME_BYTES, record.type_byte());
        record.encode_payload(buffer);
        if let Record::Entry { .. } = record {
            entries.push(Placement {
                offset: header.offset + (at - start) as u32,
                bytes: size as u32,
                seed: chain,
            });
        }
        chain = end_frame(buffer, at, chain);
    }
    buffer.resize(start + (buffer.len() - start).next_multiple_of(8), 0);
    chain
}

fn begin_frame(buffer: &mut Vec<u8>, payload_bytes: usize, kind: u8) {
    let mut frame = [0; FRAME_BYTES];
    frame[..4].copy_from_slice(&(payload_bytes as u32).to_le_bytes());
    frame[8] = kind;
    buffer.extend_from_slice(&frame);
}

fn end_frame(buffer: &mut [u8], at: usize, chain: u32) -> u32 {
    let frame = &mut buffer[at..];
    let crc = frame_crc(chain, frame);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    crc
}

fn encode_position(buffer: &mut Vec<u8>, position: &LogPosition) {
    buffer.extend_from_slice(&position.index.to_le_bytes());
    buffer.extend_from_slice(&position.term.to_le_bytes());
}

fn encode_hard_state(buffer: &mut Vec<u8>, state: &HardState) {
    buffer.extend_from_slice(&state.term.to_le_bytes());
    buffer.extend_from_slice(&state.vote.to_le_bytes());
    buffer.extend_from_slice(&state.commit.to_le_bytes());
}

/// The bytes not yet decoded. Every reader answers `None` where they run out.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn position(&mut self) -> Option<LogPosition> {
        Some(LogPosition {
            index: self.u64()?,
            term: self.u64()?,
        })
    }

    fn hard_state(&mut self) -> Option<HardState> {
        Some(HardState {
            term: self.u64()?,
            vote: self.u64()?,
            commit: self.u64()?,
        })
    }
}
