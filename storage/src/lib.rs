//! What is kept: the MVCC index, the rows behind it (fjall), leases, the raft log and snapshots.
//!
//! This crate must not know about the network, TLS, users or permissions. Key ranges arrive as plain bounds, time as a
//! parameter. It is the only crate that names fjall.

pub mod backend;
pub mod datadir;
pub mod disk;
pub mod lease;
pub mod log;
pub mod mvcc;
pub mod planted;
pub mod snapshot;
mod types;

pub use types::{Change, LogPosition, Revision, Row, TenantId};

/// CRC-32C of `bytes`, continued from `crc` (0 to begin).
pub fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}
