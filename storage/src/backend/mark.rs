//! `store.mark`: what the last checkpoint made safe, kept beside the engine's directory and replaced atomically.
//!
//! `"HFMARK" | version u16 | index u64 | term u64 | journals u32 | (number u64 | length u64 | crc32c u32)* | crc32c u32`, big endian.

use crate::types::LogPosition;
use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

const MAGIC: [u8; 6] = *b"HFMARK";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 28;
const JOURNAL_BYTES: usize = 20;

/// A journal as it was when it was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JournalMark {
    pub(super) id: u64,
    pub(super) len: u64,
    /// CRC32C of its first `len` bytes.
    pub(super) crc: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) position: LogPosition,
    /// In order of their numbers.
    pub(super) journals: Vec<JournalMark>,
}

impl Mark {
    /// The mark in `path`; `None` if there is none, an error of kind `InvalidData` if it is damaged.
    pub(super) fn read(path: &Path) -> io::Result<Option<Mark>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        Mark::decode(&bytes)
            .map(Some)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "damaged mark"))
    }

    /// Replaces the mark in `path`, synced.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let next = path.with_extension("mark.new");
        let mut file = File::create(&next)?;
        file.write_all(&self.encode())?;
        file.sync_all()?;
        std::fs::rename(&next, path)?;
        match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.journals.len() * JOURNAL_BYTES + 4);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&self.position.index.to_be_bytes());
        out.extend_from_slice(&self.position.term.to_be_bytes());
        out.extend_from_slice(&(self.journals.len() as u32).to_be_bytes());
        for journal in &self.journals {
            out.extend_from_slice(&journal.id.to_be_bytes());
            out.extend_from_slice(&journal.len.to_be_bytes());
            out.extend_from_slice(&journal.crc.to_be_bytes());
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Mark> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return None;
        }
        let rest = body
            .strip_prefix(&MAGIC)?
            .strip_prefix(&VERSION.to_be_bytes())?;
        let (index, rest) = rest.split_first_chunk::<8>()?;
        let (term, rest) = rest.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let (journals, rest) = rest.as_chunks::<JOURNAL_BYTES>();
        if !rest.is_empty() || journals.len() as u64 != u64::from(u32::from_be_bytes(*count)) {
            return None;
        }
        let journals = journals
            .iter()
            .map(|j| {
                let (id, j) = j.split_first_chunk::<8>()?;
                let (len, crc) = j.split_first_chunk::<8>()?;
                Some(JournalMark {
                    id: u64::from_be_bytes(*id),
                    len: u64::from_be_bytes(*len),
                    crc: u32::from_be_bytes(crc.try_into().ok()?),
                })
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Mark {
            position: LogPosition {
                index: u64::from_be_bytes(*index),
                term: u64::from_be_bytes(*term),
            },
            journals,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_and_no_damage_passes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.mark");
        assert_eq!(Mark::read(&path).unwrap(), None);
        let mark = Mark {
            position: LogPosition { index: 9, term: 2 },
            journals: vec![
                JournalMark {
                    id: 0,
                    len: 77,
                    crc: 5,
                },
                JournalMark {
                    id: 1,
                    len: 0,
                    crc: 0,
                },
            ],
        };
        mark.write(&path).unwrap();
        assert_eq!(Mark::read(&path).unwrap(), Some(mark.clone()));
        let bytes = mark.encode();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, bad).unwrap();
            assert_eq!(
                Mark::read(&path).unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
            assert_eq!(Mark::decode(&bytes[..at]), None);
        }
    }
}
