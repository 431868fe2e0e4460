//! Segments with right checksums and any records in them (the format is drawn in `storage::log`).
//!
//! Input: for each segment what is odd about its header (one byte of flags, and a number for each), then frames (type, length, payload)
//! with commands between them: type 0 ends the batch, 255 the segment.

use crate::input::Input;
use holdfast_storage::crc32c;
use holdfast_storage::disk::MemDisk;

const SEGMENT_BYTES: usize = 4096;
const BATCH_HEADER_BYTES: usize = 40;
const END_OF_BATCH: u8 = 0;
const END_OF_SEGMENT: u8 = 255;

const OTHER_SEQUENCE: u8 = 1;
const OTHER_FIRST_INDEX: u8 = 2;
const OTHER_PREVIOUS_END: u8 = 4;
const OTHER_PREVIOUS_CHAIN: u8 = 8;
const OTHER_VERSION: u8 = 16;
const SYNCED_AHEAD: u8 = 32;
const DAMAGED: u8 = 64;

pub(super) fn files(input: &mut Input<'_>) -> MemDisk {
    let disk = MemDisk::new();
    let mut first_index = u64::from(input.u8()).max(1);
    let (mut previous_end, mut previous_chain) = (0, 0);
    for sequence in 1..=3_u64 {
        if input.is_empty() {
            break;
        }
        let flags = input.u8();
        let mut field = |flag: u8, usual: u64| {
            if flags & flag == 0 {
                usual
            } else {
                input.u64()
            }
        };
        let header = Header {
            version: field(OTHER_VERSION, 1) as u32,
            sequence: field(OTHER_SEQUENCE, sequence),
            first_index: field(OTHER_FIRST_INDEX, first_index),
            seed: sequence ^ 0x5eed,
            previous_end: field(OTHER_PREVIOUS_END, previous_end) as u32,
            previous_chain: field(OTHER_PREVIOUS_CHAIN, previous_chain) as u32,
        };
        let mut segment = Segment::new(&header, flags & SYNCED_AHEAD != 0);
        segment.fill(input);
        (previous_end, previous_chain) = (segment.bytes.len() as u64, segment.chain.into());
        first_index = segment.next_index.unwrap_or(first_index);
        let mut bytes = segment.bytes;
        bytes.resize(SEGMENT_BYTES, 0);
        if flags & DAMAGED != 0 {
            let at = usize::from(input.u16()) % SEGMENT_BYTES;
            bytes[at] ^= input.u8();
        }
        disk.replace(&format!("{sequence:016x}.log"), bytes);
    }
    disk
}

struct Header {
    version: u32,
    sequence: u64,
    first_index: u64,
    seed: u64,
    previous_end: u32,
    previous_chain: u32,
}

struct Segment {
    bytes: Vec<u8>,
    seed: u64,
    chain: u32,
    synced_ahead: bool,
    /// Behind the last entry, if there was one.
    next_index: Option<u64>,
}

impl Segment {
    fn new(header: &Header, synced_ahead: bool) -> Segment {
        let mut bytes = b"HFRAFTLG".to_vec();
        bytes.extend_from_slice(&header.version.to_le_bytes());
        bytes.extend_from_slice(&(SEGMENT_BYTES as u32).to_le_bytes());
        for number in [header.sequence, header.first_index, header.seed] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for number in [header.previous_end, header.previous_chain] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&[0; 12]);
        let chain = crc32c(0, &bytes);
        bytes.extend_from_slice(&chain.to_le_bytes());
        Segment {
            bytes,
            seed: header.seed,
            chain,
            synced_ahead,
            next_index: None,
        }
    }

    fn fill(&mut self, input: &mut Input<'_>) {
        let mut frames = Vec::new();
        while !input.is_empty() {
            match input.u8() {
                END_OF_SEGMENT => break,
                END_OF_BATCH => {
                    if !self.add_batch(&frames) {
                        break;
                    }
                    frames.clear();
                }
                kind => frames.push((kind, input.short())),
            }
        }
        if !frames.is_empty() {
            self.add_batch(&frames);
        }
    }

    /// Adds a batch; false if there is no room for it.
    fn add_batch(&mut self, frames: &[(u8, &[u8])]) -> bool {
        let at = self.bytes.len();
        let body: usize = frames.iter().map(|(_, payload)| 9 + payload.len()).sum();
        let size = (BATCH_HEADER_BYTES + body).next_multiple_of(8);
        if at + size + 8 > SEGMENT_BYTES {
            return false;
        }
        let synced = if self.synced_ahead { at } else { 64 };
        let mut header = self.seed.to_le_bytes().to_vec();
        for number in [
            at as u32,
            synced as u32,
            self.chain,
            body as u32,
            frames.len() as u32,
        ] {
            header.extend_from_slice(&number.to_le_bytes());
        }
        header.extend_from_slice(&[0; 3]);
        self.chain = 0;
        self.add_frame(1, &header);
        for (kind, payload) in frames {
            self.add_frame(*kind, payload);
            if let (2, Some((index, _))) = (*kind, payload.split_first_chunk()) {
                self.next_index = Some(u64::from_le_bytes(*index).wrapping_add(1));
            }
        }
        self.bytes.resize(at + size, 0);
        true
    }

    fn add_frame(&mut self, kind: u8, payload: &[u8]) {
        let length = (payload.len() as u32).to_le_bytes();
        let chain = crc32c(crc32c(crc32c(self.chain, &length), &[kind]), payload);
        self.bytes.extend_from_slice(&length);
        self.bytes.extend_from_slice(&chain.to_le_bytes());
        self.bytes.push(kind);
        self.bytes.extend_from_slice(payload);
        self.chain = chain;
    }
}
