//! The few file operations that durable formats here are built from, so that the raft log runs unchanged on a real
//! directory ([`RealDisk`]) and on a disk in memory that can lose what was not synced ([`MemDisk`]).
//!
//! A [`Disk`] is one flat directory. The contract of both kinds is that of POSIX at its weakest: a write is on the medium
//! only after [`DiskFile::sync_data`] returned, a name (created, renamed, removed) only after [`Disk::sync_dir`] returned,
//! and after a failed sync nobody knows.

mod memory;
mod real;

pub use memory::{MemDisk, MemFile};
pub use real::{RealDisk, RealFile};

use std::fmt;
use std::io;
use std::path::PathBuf;

/// One directory of files.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// An open file of this disk.
    type File: DiskFile;

    /// The names of all files, in no particular order. A name that is not UTF-8 is not ours and is left out.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and writing; `NotFound` if there is none.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Creates an empty file, open for reading and writing; `AlreadyExists` if the name is taken.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Renames atomically, replacing `to` if it exists. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name. Durable after [`Disk::sync_dir`]. Open files of it stay usable.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all names durable as they are now.
    fn sync_dir(&self) -> io::Result<()>;

    /// Whether the name exists.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// The length in bytes of the file of that name.
    fn len(&self, name: &str) -> io::Result<u64>;

    /// The name as a person finds it, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// An open file. Offsets and lengths are in bytes.
pub trait DiskFile: fmt::Debug + Send {
    /// Fills the buffer from `offset`; `UnexpectedEof` if the file is shorter.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, extending the file if needed. On an error any part of it may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Returns when all that was written, and the length needed to read it, is on the medium (`fdatasync`). After an
    /// error the state of the unsynced writes is unknown, and a later success says nothing about them.
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts the file, or extends it with a hole.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// The length now.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Writes zeros from `from` to `to`. Really written ones: a hole or a `fallocate`d extent would make each later sync
    /// change metadata as well (113 µs instead of 77 µs, DESIGN §11.4). The dirty backlog stays small, so that a sync of
    /// another file of the same file system does not have to wait for all of it.
    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        static CHUNK: [u8; 256 * 1024] = [0; 256 * 1024];
        const BACKLOG_BYTES: u64 = 4 * 1024 * 1024;
        let mut at = from;
        let mut backlog = 0;
        while at < to {
            let size = (to - at).min(CHUNK.len() as u64);
            self.write_at(&CHUNK[..size as usize], at)?;
            at += size;
            backlog += size;
            if backlog >= BACKLOG_BYTES && at < to {
                self.sync_data()?;
                backlog = 0;
            }
        }
        Ok(())
    }
}
