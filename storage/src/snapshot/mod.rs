//! Snapshots: the rows and state records as at one log position, as a stream of bytes that is checked while it is read.
//!
//! The stream (version 1, big endian): `"HFSNAP" | version u16`, then blocks `length u32 | crc32c u32 | payload`. Each CRC
//! continues the one before, over length and payload, so blocks cannot be left out, doubled or swapped. The payloads joined are:
//!
//! * the head: `index u64 | term u64 | cluster id u64 | tenants u32 | tenant u32 *`
//! * records: `1 | key length u32 | value length u32 | key | value` (state record), `2 | tenant u32 | main i64 | sub u32 |
//!   length u32 | row record` (as in [`crate::backend`])
//! * the end: `3 | state records u64 | rows u64`, and nothing behind it.

mod decode;
mod install;
mod reader;
#[cfg(test)]
mod tests;

pub use decode::{SnapshotDecoder, SnapshotError, SnapshotInfo, SnapshotItem};
pub use install::{InstallError, Installer, install, verify};
pub use reader::{SnapshotReader, SnapshotScope};

const MAGIC: [u8; 6] = *b"HFSNAP";
const VERSION: u16 = 1;
/// Payload of one block: small enough for a message of the peer protocol and a gRPC chunk.
const BLOCK_PAYLOAD_BYTES: usize = 256 * 1024 - BLOCK_HEAD_BYTES - 8;
const BLOCK_HEAD_BYTES: usize = 8;
const TAG_META: u8 = 1;
const TAG_ROW: u8 = 2;
const TAG_END: u8 = 3;
