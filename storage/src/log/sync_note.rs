//! A file beside the segments that says how far the log was synced: written after each sync, and not synced itself.

use super::LogError;
use crate::disk::{Disk, DiskFile};
use std::io;

/// The file's name.
const NAME: &str = "synced";
/// Names the format's version too: what another version wrote is no evidence for this one.
const MAGIC: [u8; 8] = *b"HFSYNC01";
const NOTE_BYTES: usize = 32;

/// That the segment `sequence`, in the use that `seed` names, was synced up to `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Synced {
    pub(super) sequence: u64,
    pub(super) seed: u64,
    pub(super) offset: u32,
}

impl Synced {
    fn encode(&self) -> [u8; NOTE_BYTES] {
        let mut bytes = [0; NOTE_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.seed.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.offset.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; NOTE_BYTES]) -> Option<Synced> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (seed, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (crc, _) = rest.split_first_chunk()?;
        let whole = crc32c::crc32c(&bytes[..28]) == u32::from_le_bytes(*crc);
        (whole && *magic == MAGIC).then(|| Synced {
            sequence: u64::from_le_bytes(*sequence),
            seed: u64::from_le_bytes(*seed),
            offset: u32::from_le_bytes(*offset),
        })
    }
}

/// What an earlier run noted last. A note that is missing or not whole says nothing: it is evidence for the good case
/// only.
pub(super) fn read<D: Disk>(disk: &D) -> Result<Option<Synced>, LogError> {
    let failed = |source| LogError::io(disk.path(NAME), "read", source);
    let file = match disk.open(NAME) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = [0; NOTE_BYTES];
    match file.read_at(&mut bytes, 0) {
        Ok(()) => Ok(Synced::decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// The open note.
#[derive(Debug)]
pub(super) struct SyncNote<F> {
    file: F,
}

impl<F: DiskFile> SyncNote<F> {
    /// Opens the note, creating it if there is none.
    pub(super) fn open<D: Disk<File = F>>(disk: &D) -> Result<SyncNote<F>, LogError> {
        let file = match disk.open(NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(NAME),
            opened => opened,
        };
        let file = file.map_err(|source| LogError::io(disk.path(NAME), "open", source))?;
        Ok(SyncNote { file })
    }

    /// Notes a sync that has succeeded. A failure is dropped: the log is as durable without the note, which then says
    /// less than it could.
    pub(super) fn write(&self, synced: &Synced) {
        let _ = self.file.write_at(&synced.encode(), 0);
    }

    /// Makes the note durable.
    pub(super) fn sync<D: Disk<File = F>>(&self, disk: &D) -> Result<(), LogError> {
        self.file
            .sync_data()
            .map_err(|source| LogError::io(disk.path(NAME), "sync", source))
    }
}
