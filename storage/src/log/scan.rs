//! What a segment holds, from its bytes alone. This is the part that meets damaged files, so it is a pure function: it
//! never panics, allocates nothing that a length in the file asks for, and takes time linear in the file's size.

use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, FrameFault, HeaderFault, Placement, Record,
    SEGMENT_HEADER_BYTES, SegmentHeader, TERMINATOR_BYTES, decode_frame,
};

/// A record and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed<'a> {
    /// Where it lies.
    pub placement: Placement,
    /// What it says.
    pub record: Record<'a>,
}

/// What [`scan_segment`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The segment's header.
    pub header: SegmentHeader,
    /// Where the last whole batch ends.
    pub end: u32,
    /// The chain there.
    pub chain: u32,
    /// The batches prove that the file was once synced up to here; at most `end` unless the tail is damaged.
    pub proven: u32,
    /// What comes after the last whole batch.
    pub tail: Tail,
}

/// What comes after the last whole batch of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing of this use of the file.
    Clean,
    /// A batch that was not written whole, or bytes behind it. Nothing proves that it was ever synced.
    Torn {
        /// How far the remains reach, in bytes from [`Scan::end`].
        bytes: u32,
        /// What is wrong at the end.
        reason: &'static str,
    },
    /// A batch that was synced and is not whole any more.
    Damaged {
        /// Where the bad record starts.
        offset: u32,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Reads one whole segment file. Calls `visit` for the records of each whole batch, in order, up to the first batch that
/// is not whole; then looks through the rest for what tells a torn tail from damage (the argument stands in the
/// documentation of [the module above](super)).
pub fn scan_segment<'a>(
    bytes: &'a [u8],
    mut visit: impl FnMut(Placed<'a>),
) -> Result<Scan, HeaderFault> {
    let header = SegmentHeader::decode(bytes)?;
    if header.capacity as usize != bytes.len() {
        // The length was on the medium before the file got its name, and never changes.
        return Err(HeaderFault::Damaged(
            "the file's length is not the one that its header names",
        ));
    }
    let mut records = Vec::new();
    let mut at = SEGMENT_HEADER_BYTES;
    let mut chain = header.chain;
    let mut proven = at;
    let fault = loop {
        match read_batch(bytes, at, header.seed, chain, &mut records) {
            Ok((batch, after)) => {
                records.drain(..).for_each(&mut visit);
                // The first batch was synced before the file got its name.
                let first = at == SEGMENT_HEADER_BYTES;
                at = batch.end();
                proven = proven.max(if first { at } else { batch.synced as usize });
                chain = after;
            }
            Err(fault) => break fault,
        }
    };
    let (later_proven, remains) = look_ahead(bytes, at, header.seed);
    let tail = match fault {
        Fault::Nonsense { offset, reason } => Tail::Damaged {
            offset: offset as u32,
            reason,
        },
        fault if at == SEGMENT_HEADER_BYTES || later_proven > at => {
            let (offset, reason) = match fault {
                Fault::End => (at, "records are missing that were synced"),
                Fault::Corrupt { offset, reason } | Fault::Nonsense { offset, reason } => {
                    (offset, reason)
                }
            };
            Tail::Damaged {
                offset: offset as u32,
                reason,
            }
        }
        Fault::End if remains == at => Tail::Clean,
        Fault::End => Tail::Torn {
            bytes: (remains - at) as u32,
            reason: "a batch is missing before others",
        },
        Fault::Corrupt { reason, .. } => Tail::Torn {
            bytes: (remains.max(nonzero_end(bytes, at)) - at) as u32,
            reason,
        },
    };
    Ok(Scan {
        header,
        end: at as u32,
        chain,
        proven: proven.max(later_proven) as u32,
        tail,
    })
}

enum Fault {
    /// The terminator, or no room for another batch.
    End,
    /// A record is not whole.
    Corrupt { offset: usize, reason: &'static str },
    /// A record is whole and makes no sense.
    Nonsense { offset: usize, reason: &'static str },
}

/// Reads the batch at `at` if it is whole. Leaves its records in `records` then, and leaves that empty otherwise.
fn read_batch<'a>(
    bytes: &'a [u8],
    at: usize,
    seed: u64,
    chain: u32,
    records: &mut Vec<Placed<'a>>,
) -> Result<(BatchHeader, u32), Fault> {
    let corrupt = |offset, reason| Fault::Corrupt { offset, reason };
    match bytes.get(at..at + TERMINATOR_BYTES) {
        None => return Err(Fault::End),
        Some(terminator) if terminator == [0; TERMINATOR_BYTES] => return Err(Fault::End),
        Some(_) => {}
    }
    let Some((header, after)) = BatchHeader::decode(bytes, at, seed) else {
        return Err(corrupt(at, "the batch header is not whole"));
    };
    if header.previous != chain {
        return Err(corrupt(
            at,
            "the batch does not continue the chain before it",
        ));
    }
    if header.synced as usize > at {
        return Err(Fault::Nonsense {
            offset: at,
            reason: "the batch claims that bytes after it were synced",
        });
    }
    let body = at + BATCH_HEADER_BYTES;
    let Some(mut rest) = bytes.get(body..body + header.body_bytes as usize) else {
        return Err(Fault::Nonsense {
            offset: at,
            reason: "the batch is longer than its segment",
        });
    };
    let mut offset = body;
    let mut chain = after;
    let mut count = 0;
    while !rest.is_empty() {
        match decode_frame(rest, chain) {
            Ok((record, size, after)) => {
                records.push(Placed {
                    placement: Placement {
                        offset: offset as u32,
                        bytes: size as u32,
                        seed: chain,
                    },
                    record,
                });
                offset += size;
                rest = &rest[size..];
                chain = after;
                count += 1;
            }
            Err(fault) => {
                records.clear();
                return Err(match fault {
                    FrameFault::Corrupt(reason) => Fault::Corrupt { offset, reason },
                    FrameFault::Nonsense(reason) => Fault::Nonsense { offset, reason },
                });
            }
        }
    }
    if count != header.count {
        records.clear();
        return Err(Fault::Nonsense {
            offset: at,
            reason: "the batch has another number of records than its header says",
        });
    }
    Ok((header, chain))
}

/// Looks at every place behind `from` where a batch of this use of the file may start. Returns the highest sync mark
/// found (0 if none) and where the remains end, at least `from`. A batch header proves itself, so no chain is needed.
fn look_ahead(bytes: &[u8], from: usize, seed: u64) -> (usize, usize) {
    let mut proven = 0;
    let mut remains = from;
    for at in (from..bytes.len()).step_by(8) {
        if let Some((header, _)) = BatchHeader::decode(bytes, at, seed) {
            // A mark beyond its own batch is not one that we wrote.
            if header.synced <= header.offset {
                proven = proven.max(header.synced as usize);
            }
            remains = remains.max(header.end().min(bytes.len()));
        }
    }
    (proven, remains)
}

/// Where the bytes at `from` first give way to eight zeros: how much a person would call the remains of a record.
fn nonzero_end(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    let words = rest
        .chunks(8)
        .take_while(|word| word.iter().any(|&byte| byte != 0));
    (from + 8 * words.count()).min(bytes.len())
}
