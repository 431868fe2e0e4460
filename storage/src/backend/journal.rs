//! Reads the framing of fjall's journals, so that this store knows where they end and whether they are whole before fjall acts on
//! them: fjall cuts a journal silently at a frame that it cannot parse, in sealed journals too, refuses to open over a wrong
//! checksum, and trusts lengths.
//!
//! A journal (`<n>.jnl`, the highest number is written to, the others are sealed and synced) begins sparse with 64 MiB of zeroes. A
//! batch in it (fjall disk format 3, little endian):
//! `1 | items u32 | seqno u64`, then items `2 | kind u8 | compression u8 | keyspace u64 | key len u16 | value len u32 | stored
//! len u32 | key | value` or `4 | keyspace u64`, then `3 | xxh3 of the items u64 | "FJL" 3`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::Xxh3;

const TAG_START: u8 = 1;
const TAG_ITEM: u8 = 2;
const TAG_END: u8 = 3;
const TAG_CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";
const BUFFER_BYTES: usize = 256 * 1024;

/// How far a journal has been walked: always to the end of a whole batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) len: u64,
    /// CRC32C of all bytes up to `len`.
    pub(super) crc: u32,
    seqno: u64,
}

/// What is behind the last whole batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing, or zeroes.
    Clean,
    /// Bytes that are no whole batch.
    Broken {
        /// Where the batch begins.
        offset: u64,
        reason: &'static str,
        /// Nothing or only zeroes follow: a write that was never finished, not damage within.
        unfinished: bool,
    },
}

/// The journals in `dir` by number, the oldest first.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "jnl")
            && let Some(id) = path
                .file_stem()
                .and_then(|s| s.to_str())
                .and_then(|s| s.parse().ok())
        {
            journals.push((id, path));
        }
    }
    journals.sort_unstable();
    Ok(journals)
}

/// Walks a journal on from `progress` to its end, telling each batch's end to `at_batch`.
pub(super) fn walk(
    path: &Path,
    progress: &mut Progress,
    mut at_batch: impl FnMut(&Progress),
) -> io::Result<Ending> {
    let mut file = File::open(path)?;
    let file_len = file.metadata()?.len();
    file.seek(SeekFrom::Start(progress.len))?;
    let mut walker = Walker {
        input: BufReader::with_capacity(BUFFER_BYTES, file),
        left: file_len.saturating_sub(progress.len),
        at: progress.len,
        crc: progress.crc,
        hash: Xxh3::new(),
    };
    loop {
        let first = *progress == Progress::default();
        match walker.batch(progress.seqno, first)? {
            Step::Batch(seqno) => {
                *progress = Progress {
                    len: walker.at,
                    crc: walker.crc,
                    seqno,
                };
                at_batch(progress);
            }
            Step::End => return Ok(Ending::Clean),
            Step::Broken(reason) => {
                // A length that damage made too large looks the same as a write that was cut off. The latter is what happens:
                // pages that a power cut took read as zeroes.
                let unfinished = reason == CUT_OFF || walker.rest_is_zero()?;
                // A tag of zero with nothing but zeroes behind it is the unused part.
                return Ok(if unfinished && reason == UNUSED {
                    Ending::Clean
                } else {
                    Ending::Broken {
                        offset: progress.len,
                        reason,
                        unfinished,
                    }
                });
            }
        }
    }
}

/// Copies what a file holds from `offset` on to `target`, leaving holes for zeroes.
pub(super) fn copy_tail(path: &Path, offset: u64, target: &Path) -> io::Result<()> {
    let mut input = File::open(path)?;
    input.seek(SeekFrom::Start(offset))?;
    let mut output = File::create_new(target)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let n = input.read(&mut buffer)?;
        let Some(chunk) = buffer.get(..n).filter(|c| !c.is_empty()) else {
            break;
        };
        if chunk.iter().all(|&b| b == 0) {
            output.seek_relative(n as i64)?;
        } else {
            output.write_all(chunk)?;
        }
    }
    let end = output.stream_position()?;
    output.set_len(end)?;
    output.sync_all()
}

const UNUSED: &str = "zeroes where a batch should begin";
const CUT_OFF: &str = "file ends inside a batch";

enum Step {
    Batch(u64),
    End,
    Broken(&'static str),
}

struct Walker {
    input: BufReader<File>,
    /// Bytes from here to the file's end: no length is believed beyond it.
    left: u64,
    at: u64,
    crc: u32,
    hash: Xxh3,
}

impl Walker {
    fn batch(&mut self, last_seqno: u64, first: bool) -> io::Result<Step> {
        if self.left == 0 {
            return Ok(Step::End);
        }
        let Some([tag]) = self.take::<1>()? else {
            return Ok(Step::End);
        };
        if tag != TAG_START {
            return Ok(Step::Broken(if tag == 0 {
                UNUSED
            } else {
                "no batch begins here"
            }));
        }
        let (Some(items), Some(seqno)) = (self.take::<4>()?, self.take::<8>()?) else {
            return Ok(Step::Broken(CUT_OFF));
        };
        let seqno = u64::from_le_bytes(seqno);
        if !first && seqno <= last_seqno {
            return Ok(Step::Broken("batch number does not rise"));
        }
        self.hash.reset();
        for _ in 0..u32::from_le_bytes(items) {
            if let Some(reason) = self.item()? {
                return Ok(Step::Broken(reason));
            }
        }
        let (Some([tag]), Some(checksum), Some(trailer)) =
            (self.take::<1>()?, self.take::<8>()?, self.take::<4>()?)
        else {
            return Ok(Step::Broken(CUT_OFF));
        };
        if tag != TAG_END || trailer != TRAILER {
            return Ok(Step::Broken("batch has no end mark"));
        }
        if u64::from_le_bytes(checksum) != self.hash.digest() {
            return Ok(Step::Broken("batch checksum does not match"));
        }
        Ok(Step::Batch(seqno))
    }

    /// Walks over one item; a reason if it is none.
    fn item(&mut self) -> io::Result<Option<&'static str>> {
        let Some(tag) = self.take::<1>()? else {
            return Ok(Some(CUT_OFF));
        };
        self.hash.update(&tag);
        match tag {
            [TAG_ITEM] => {
                let Some(head) = self.take::<20>()? else {
                    return Ok(Some(CUT_OFF));
                };
                self.hash.update(&head);
                // kind, compression, 8 bytes keyspace, key length, plain length, stored length
                let [
                    _,
                    compression,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    k0,
                    k1,
                    p0,
                    p1,
                    p2,
                    p3,
                    s0,
                    s1,
                    s2,
                    s3,
                ] = head;
                let plain = u32::from_le_bytes([p0, p1, p2, p3]);
                let stored = u32::from_le_bytes([s0, s1, s2, s3]);
                // The store switches journal compression off, and without it the lengths agree.
                if compression != 0 || plain != stored {
                    return Ok(Some("item header is impossible"));
                }
                let body = u64::from(u16::from_le_bytes([k0, k1])) + u64::from(stored);
                Ok((!self.skip(body)?).then_some(CUT_OFF))
            }
            [TAG_CLEAR] => {
                let Some(keyspace) = self.take::<8>()? else {
                    return Ok(Some(CUT_OFF));
                };
                self.hash.update(&keyspace);
                Ok(None)
            }
            _ => Ok(Some("no item begins here")),
        }
    }

    fn take<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        if self.left < N as u64 {
            return Ok(None);
        }
        let mut bytes = [0; N];
        match self.input.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        }
        self.consumed(&bytes);
        Ok(Some(bytes))
    }

    /// Hashes over `count` bytes. Whether there are as many.
    fn skip(&mut self, mut count: u64) -> io::Result<bool> {
        if self.left < count {
            return Ok(false);
        }
        while count > 0 {
            let buffer = self.input.fill_buf()?;
            let n = buffer
                .len()
                .min(usize::try_from(count).unwrap_or(usize::MAX));
            let Some(piece) = buffer.get(..n).filter(|p| !p.is_empty()) else {
                return Ok(false);
            };
            self.hash.update(piece);
            self.crc = crc32c::crc32c_append(self.crc, piece);
            self.input.consume(n);
            self.at += n as u64;
            self.left -= n as u64;
            count -= n as u64;
        }
        Ok(true)
    }

    fn consumed(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.at += bytes.len() as u64;
        self.left -= bytes.len() as u64;
    }

    fn rest_is_zero(&mut self) -> io::Result<bool> {
        // What is buffered counts from here; holes behind it are skipped, for the unused part has tens of MiB.
        let buffered = self.input.buffer();
        if buffered.iter().any(|&b| b != 0) {
            return Ok(false);
        }
        let mut at = self.at + buffered.len() as u64;
        let file = self.input.get_mut();
        let mut chunk = vec![0; 64 * 1024];
        loop {
            match rustix::fs::seek(&*file, rustix::fs::SeekFrom::Data(at)) {
                Ok(data) => at = data,
                Err(rustix::io::Errno::NXIO) => return Ok(true),
                // A file system without holes: read on.
                Err(_) => {
                    file.seek(SeekFrom::Start(at))?;
                }
            }
            let n = file.read(&mut chunk)?;
            if n == 0 {
                return Ok(true);
            }
            if chunk.iter().take(n).any(|&b| b != 0) {
                return Ok(false);
            }
            at += n as u64;
        }
    }
}
