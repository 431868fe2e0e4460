//! Which contents of a store's directory are in use.
//!
//! A received snapshot is written beside the present contents, as the next *generation*, and the file `current` then names it:
//! replacing that file is the switch. Generation 0, which every store begins with, lies in the store's directory itself
//! (`fjall/`, `store.mark`), generation n in `generation-<n>/`. Without `current` it is generation 0.
//!
//! `"HFCURR" | version u16 | generation u64 | installed u8 | crc32c u32`, big endian. `installed` is 1 from the switch until the raft
//! log has its record of the snapshot, too.

use super::{errors::OpenError, home::NotSwitched};
use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

const MAGIC: [u8; 6] = *b"HFCURR";
pub(super) const VERSION: u16 = 1;
const CURRENT_FILE: &str = "current";
const CURRENT_FILE_NEW: &str = "current.new";
const DIR_PREFIX: &str = "generation-";
pub(super) const ENGINE_DIR: &str = "fjall";
pub(super) const ENGINE_DIR_NEW: &str = "fjall.new";
pub(super) const MARK_FILE: &str = "store.mark";

/// What the file `current` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Current {
    pub(super) generation: u64,
    /// These contents came as a snapshot that the raft log may not know of.
    pub(super) installed: bool,
}

/// Why `current` says nothing.
#[derive(Debug)]
pub(super) enum Unreadable {
    Io(io::Error),
    Damaged,
    Newer(u16),
}

impl Current {
    /// What `dir` says.
    pub(super) fn read(dir: &Path) -> Result<Current, Unreadable> {
        match std::fs::read(Self::path(dir)) {
            Ok(bytes) => Current::decode(&bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Current::default()),
            Err(e) => Err(Unreadable::Io(e)),
        }
    }

    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join(CURRENT_FILE)
    }

    /// Replaces the file in `dir`, synced.
    pub(super) fn write(self, dir: &Path) -> Result<(), NotSwitched> {
        let path = Self::path(dir);
        let next = dir.join(CURRENT_FILE_NEW);
        let prepare = || {
            let mut file = File::create(&next)?;
            file.write_all(&self.encode())?;
            file.sync_all()
        };
        let failure = |maybe, source| NotSwitched {
            path: path.clone(),
            source,
            maybe,
        };
        prepare().map_err(|e| failure(false, e))?;
        std::fs::rename(&next, &path).map_err(|e| failure(true, e))?;
        File::open(dir)
            .and_then(|d| d.sync_all())
            .map_err(|e| failure(true, e))
    }

    fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(21);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.push(u8::from(self.installed));
        out.extend_from_slice(&crc32c::crc32c(&out).to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Current, Unreadable> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(Unreadable::Damaged)?;
        let version = body
            .strip_prefix(&MAGIC)
            .and_then(|rest| rest.split_first_chunk::<2>());
        let (version, rest) = match version {
            Some(parts) if crc32c::crc32c(body) == u32::from_be_bytes(*crc) => parts,
            _ => return Err(Unreadable::Damaged),
        };
        match (u16::from_be_bytes(*version), rest.split_first_chunk::<8>()) {
            (newer, _) if newer > VERSION => Err(Unreadable::Newer(newer)),
            (VERSION, Some((generation, [installed @ (0 | 1)]))) => Ok(Current {
                generation: u64::from_be_bytes(*generation),
                installed: *installed == 1,
            }),
            _ => Err(Unreadable::Damaged),
        }
    }
}

/// Where a generation lies in the store's directory `dir`.
pub(super) fn home(dir: &Path, generation: u64) -> PathBuf {
    match generation {
        0 => dir.to_owned(),
        n => dir.join(format!("{DIR_PREFIX}{n}")),
    }
}

/// The generations above 0 that have a directory.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some(n) = name.to_str().and_then(|n| n.strip_prefix(DIR_PREFIX))
            && let Ok(n) = n.parse::<u64>()
            && n > 0
        {
            found.push(n);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether generation 0 has left anything.
fn has_first(dir: &Path) -> io::Result<bool> {
    for name in [ENGINE_DIR, MARK_FILE] {
        if dir.join(name).try_exists()? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes a generation that is not in use, with all its files.
pub(super) fn remove(dir: &Path, generation: u64) -> io::Result<()> {
    let missing_is_fine = |result: io::Result<()>| match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    let home = home(dir, generation);
    if generation > 0 {
        return missing_is_fine(std::fs::remove_dir_all(home));
    }
    missing_is_fine(std::fs::remove_dir_all(home.join(ENGINE_DIR_NEW)))?;
    missing_is_fine(std::fs::remove_dir_all(home.join(ENGINE_DIR)))?;
    missing_is_fine(std::fs::remove_file(home.join(MARK_FILE)))
}

/// Removes all generations but `current`: what was replaced, and what never came to be. Returns the highest number seen, so that
/// none is used again while anything may remain of it.
pub(super) fn clear(dir: &Path, current: u64) -> Result<u64, OpenError> {
    let found = list(dir).map_err(OpenError::io(dir))?;
    let mut stale: Vec<u64> = found.iter().copied().filter(|n| *n != current).collect();
    if current != 0 && has_first(dir).map_err(OpenError::io(dir))? {
        stale.push(0);
    }
    if !stale.is_empty() {
        tracing::info!(path = %dir.display(), generations = ?stale, "removing contents of the store that are not in use");
    }
    for generation in stale {
        discard(dir, generation);
    }
    Ok(found.into_iter().max().unwrap_or(0).max(current))
}

/// Removes a generation; what cannot be removed now is tried again when the store is next opened.
pub(super) fn discard(dir: &Path, generation: u64) {
    let path = home(dir, generation);
    match remove(dir, generation) {
        // No line of info: it happens after each snapshot that is not taken, and others decide how many those are.
        Ok(()) => {
            tracing::debug!(path = %path.display(), generation, "removed contents of the store that are not in use")
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), generation, %error, "contents of the store that are not in use could not be removed")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_current_reads_back_and_no_damage_passes() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Current::read(dir.path()).unwrap(), Current::default());
        for installed in [true, false] {
            let current = Current {
                generation: 7,
                installed,
            };
            assert!(current.write(dir.path()).is_ok());
            assert_eq!(Current::read(dir.path()).unwrap(), current);
            let bytes = current.encode();
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 0x10;
                std::fs::write(Current::path(dir.path()), bad).unwrap();
                assert!(matches!(
                    Current::read(dir.path()),
                    Err(Unreadable::Damaged)
                ));
                assert!(matches!(
                    Current::decode(&bytes[..at]),
                    Err(Unreadable::Damaged)
                ));
            }
        }
        let mut newer = Current::default().encode();
        newer[7] = 2;
        let body = newer.len() - 4;
        let crc = crc32c::crc32c(&newer[..body]).to_be_bytes();
        newer[body..].copy_from_slice(&crc);
        assert!(matches!(Current::decode(&newer), Err(Unreadable::Newer(2))));
    }
}
