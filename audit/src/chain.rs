//! The chain that ties a file's lines together, as lines.
//!
//! A *seal* ends a block: it has the number of the block and `chain`, the SHA-256 of the chain before and of all bytes since the last seal. A
//! *checkpoint* signs the position that the seal before it stands for; it belongs to the bytes of the next block. A *header* begins each file with
//! the position that the file before ended at.
//!
//! Each line has one spelling only: what is read is rendered again and compared, or covered by the signature, so that no byte of it is free.

use aws_lc_rs::digest;
use serde::Deserialize;
use std::{fmt, str::FromStr, time::SystemTime};

use crate::{NodeKey, PublicKey, hex, line, stamp::Stamp, text};

/// The layout of files that this version writes and reads.
pub(crate) const FORMAT: u64 = 1;

const HEADER: &[u8] = br#"{"type":"header","#;
const SEAL: &[u8] = br#"{"type":"seal","#;
const CHECKPOINT: &[u8] = br#"{"type":"checkpoint","#;
const RESUMED: &[u8] = br#"{"type":"resumed","#;
pub(crate) const STOP: &[u8] = br#"{"type":"stop","#;

/// A place in a chain: how many blocks were sealed, and what the last seal says. Text is `<seq>:<64 hexadecimal digits>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Number of the last seal; 0 at the very beginning.
    pub seq: u64,
    /// Its hash; zeros at the very beginning.
    pub chain: [u8; 32],
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, hex::text(&self.chain))
    }
}

/// The text is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a position in an audit chain is a number, a colon and 64 lower-case hexadecimal digits")]
pub struct PositionError;

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (seq, chain) = text.split_once(':').ok_or(PositionError)?;
        Ok(Self {
            seq: seq.parse().map_err(|_| PositionError)?,
            chain: hex::parse(chain).ok_or(PositionError)?,
        })
    }
}

/// A position, and what came since.
#[derive(Clone)]
pub(crate) struct Chain {
    position: Position,
    hashed: digest::Context,
    /// Since the last seal.
    lines: u64,
}

impl Chain {
    pub(crate) fn at(position: Position) -> Self {
        let mut hashed = digest::Context::new(&digest::SHA256);
        hashed.update(&position.chain);
        Self {
            position,
            hashed,
            lines: 0,
        }
    }

    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// Lines since the last seal.
    pub(crate) fn open_lines(&self) -> u64 {
        self.lines
    }

    /// Adds bytes: whole lines, or parts of one.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.hashed.update(bytes);
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    }

    /// Ends the block; gives the seal's line.
    pub(crate) fn seal(&mut self) -> Vec<u8> {
        let hashed = self.hashed.clone().finish();
        let mut position = Position {
            seq: self.position.seq.saturating_add(1),
            chain: [0; 32],
        };
        position.chain.copy_from_slice(hashed.as_ref());
        let line = seal_line(position, self.lines);
        *self = Self::at(position);
        line
    }
}

fn seal_line(position: Position, lines: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    out.extend_from_slice(br#"{"type":"seal","seq":"#);
    text::number(&mut out, position.seq);
    out.extend_from_slice(br#","lines":"#);
    text::number(&mut out, lines);
    out.extend_from_slice(br#","chain":""#);
    hex::push(&mut out, &position.chain);
    out.extend_from_slice(b"\"}\n");
    out
}

/// Signs a position. The signature is over the line up to its own field.
pub(crate) fn checkpoint(position: Position, key: &NodeKey) -> Vec<u8> {
    let mut out = line::begin("checkpoint");
    out.extend_from_slice(br#","seq":"#);
    text::number(&mut out, position.seq);
    out.extend_from_slice(br#","chain":""#);
    hex::push(&mut out, &position.chain);
    out.extend_from_slice(br#"","key":""#);
    out.extend_from_slice(key.public().kid().as_bytes());
    out.push(b'"');
    let signature = key.sign(&out);
    out.extend_from_slice(SIGNATURE);
    hex::push(&mut out, &signature);
    out.extend_from_slice(b"\"}\n");
    out
}

const SIGNATURE: &[u8] = br#","signature":""#;

/// What is said of those who write a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) version: String,
    pub(crate) node: String,
    pub(crate) cluster: String,
    pub(crate) public: PublicKey,
}

/// The first line of a file, which continues the chain at `position`.
pub(crate) fn header(identity: &Identity, position: Position) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(br#"{"type":"header","time":"#);
    Stamp::default().push(&mut out, SystemTime::now());
    out.extend_from_slice(br#","format":"#);
    text::number(&mut out, FORMAT);
    for (name, value) in [
        ("version", &identity.version),
        ("node", &identity.node),
        ("cluster", &identity.cluster),
    ] {
        out.extend_from_slice(format!(",\"{name}\":").as_bytes());
        text::message(&mut out, value, MAX_IDENTITY_BYTES);
    }
    out.extend_from_slice(br#","seq":"#);
    text::number(&mut out, position.seq);
    out.extend_from_slice(br#","chain":""#);
    hex::push(&mut out, &position.chain);
    out.extend_from_slice(br#"","key":""#);
    out.extend_from_slice(identity.public.kid().as_bytes());
    out.extend_from_slice(br#"","public_key":""#);
    out.extend_from_slice(identity.public.to_string().as_bytes());
    out.extend_from_slice(b"\"}\n");
    out
}

const MAX_IDENTITY_BYTES: usize = 256;

/// Says that a process continues a file, and how it found it.
pub(crate) fn resumed(was_stopped: bool, unsealed_lines: u64, torn_bytes: u64) -> Vec<u8> {
    let mut out = line::begin("resumed");
    out.extend_from_slice(br#","was_stopped":"#);
    out.extend_from_slice(if was_stopped { b"true" } else { b"false" });
    out.extend_from_slice(br#","unsealed_lines":"#);
    text::number(&mut out, unsealed_lines);
    out.extend_from_slice(br#","torn_bytes":"#);
    text::number(&mut out, torn_bytes);
    out.extend_from_slice(b"}\n");
    out
}

/// A line, as far as the chain is concerned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Header(Header),
    Seal {
        position: Position,
        lines: u64,
    },
    Checkpoint(Checkpoint),
    Resumed {
        torn_bytes: u64,
    },
    /// It begins like one of them and is none: damaged, or not written to its end.
    Odd(&'static str),
    /// Anything else.
    Other,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) identity: Identity,
    pub(crate) position: Position,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) position: Position,
    pub(crate) kid: String,
    signed: Vec<u8>,
    signature: Vec<u8>,
}

impl Checkpoint {
    pub(crate) fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.kid() == self.kid && key.verifies(&self.signed, &self.signature)
    }
}

/// Reads a line with its end.
pub(crate) fn parse(line: &[u8]) -> Parsed {
    if !line.starts_with(br#"{"type":""#) || line.starts_with(line::RPC) {
        return Parsed::Other;
    }
    let (found, what) = if line.starts_with(SEAL) {
        (parse_seal(line), "seal")
    } else if line.starts_with(CHECKPOINT) {
        (parse_checkpoint(line), "checkpoint")
    } else if line.starts_with(HEADER) {
        (parse_header(line), "header")
    } else if line.starts_with(RESUMED) {
        (parse_resumed(line), "resumed")
    } else {
        return Parsed::Other;
    };
    found.unwrap_or(Parsed::Odd(what))
}

#[derive(Deserialize)]
struct WrittenSeal<'a> {
    seq: u64,
    lines: u64,
    chain: &'a str,
}

fn parse_seal(line: &[u8]) -> Option<Parsed> {
    let written: WrittenSeal<'_> = serde_json::from_slice(line).ok()?;
    let position = Position {
        seq: written.seq,
        chain: hex::parse(written.chain)?,
    };
    (seal_line(position, written.lines) == line).then_some(Parsed::Seal {
        position,
        lines: written.lines,
    })
}

#[derive(Deserialize)]
struct WrittenCheckpoint<'a> {
    seq: u64,
    chain: &'a str,
    key: &'a str,
    signature: &'a str,
}

fn parse_checkpoint(line: &[u8]) -> Option<Parsed> {
    let written: WrittenCheckpoint<'_> = serde_json::from_slice(line).ok()?;
    let signature: [u8; 64] = hex::parse(written.signature)?;
    let mut end = SIGNATURE.to_vec();
    hex::push(&mut end, &signature);
    end.extend_from_slice(b"\"}\n");
    Some(Parsed::Checkpoint(Checkpoint {
        position: Position {
            seq: written.seq,
            chain: hex::parse(written.chain)?,
        },
        kid: written.key.to_owned(),
        signed: line.strip_suffix(end.as_slice())?.to_vec(),
        signature: signature.to_vec(),
    }))
}

#[derive(Deserialize)]
struct WrittenHeader {
    format: u64,
    version: String,
    node: String,
    cluster: String,
    seq: u64,
    chain: String,
    public_key: String,
}

fn parse_header(line: &[u8]) -> Option<Parsed> {
    let written: WrittenHeader = serde_json::from_slice(line).ok()?;
    if written.format != FORMAT {
        return None;
    }
    Some(Parsed::Header(Header {
        identity: Identity {
            version: written.version,
            node: written.node,
            cluster: written.cluster,
            public: written.public_key.parse().ok()?,
        },
        position: Position {
            seq: written.seq,
            chain: hex::parse(&written.chain)?,
        },
    }))
}

#[derive(Deserialize)]
struct WrittenResumed {
    torn_bytes: u64,
}

fn parse_resumed(line: &[u8]) -> Option<Parsed> {
    let written: WrittenResumed = serde_json::from_slice(line).ok()?;
    Some(Parsed::Resumed {
        torn_bytes: written.torn_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_chain_has_one_spelling() {
        let key = NodeKey::from_seed([7; 32]).unwrap();
        let mut chain = Chain::at(Position::default());
        chain.add(b"one\ntwo\n");
        let seal = chain.seal();
        let checkpoint = checkpoint(chain.position(), &key);
        assert!(
            matches!(parse(&seal), Parsed::Seal { position, lines: 2 } if position == chain.position())
        );
        let Parsed::Checkpoint(read) = parse(&checkpoint) else {
            panic!("{}", String::from_utf8_lossy(&checkpoint));
        };
        assert_eq!(read.position, chain.position());
        assert!(read.is_signed_by(&key.public()));
        assert!(!read.is_signed_by(&NodeKey::from_seed([8; 32]).unwrap().public()));
        for line in [seal, checkpoint] {
            for at in 0..line.len() {
                for bit in 0..8 {
                    let mut bad = line.clone();
                    bad[at] ^= 1 << bit;
                    let is_taken = match parse(&bad) {
                        Parsed::Checkpoint(read) => read.is_signed_by(&key.public()),
                        // A number or a hash can become another one, which then is wrong.
                        Parsed::Seal { position, lines } => {
                            position == chain.position() && lines == 2
                        }
                        _ => false,
                    };
                    assert!(!is_taken, "{}", String::from_utf8_lossy(&bad));
                }
            }
        }
    }

    #[test]
    fn positions_are_text() {
        let position = Position {
            seq: 12,
            chain: [0xab; 32],
        };
        assert_eq!(position.to_string().parse(), Ok(position));
        for wrong in ["", "12", "12:", "x:00", "-1:00"] {
            assert_eq!(wrong.parse::<Position>(), Err(PositionError), "{wrong}");
        }
    }
}
