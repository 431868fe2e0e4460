//! Versions in a few bytes each.
//!
//! What one version of a key is follows nearly always from the version after it: it has the same create revision and lease, a
//! `version` lower by one, and was written some revisions earlier. So a key's history is a [`Chain`] that goes from the
//! newest version to the oldest and holds of each only in what it differs from what the newer one leads to expect. In that
//! direction a put adds to the chain what it has at hand, and decodes nothing.
//!
//! One link: the difference of the `main` revisions, times two, as a LEB128; the lowest bit tells that a byte of flags follows,
//! and after it the fields named there.

use super::version::Version;
use crate::Revision;

/// Flags: which fields follow, because they are not as expected.
const SUB: u8 = 1;
const CREATE: u8 = 2;
const VERSION: u8 = 4;
const LEASE: u8 = 8;
const MAIN: u8 = 16;

/// Flags, `main`, `sub`, create revision, version and lease, as long as they can be, after a difference of one byte. (A long
/// difference takes the place of `main`.)
pub(super) const LINK_MAX: usize = 1 + 1 + 10 + 5 + 10 + 10 + 10;

/// What the newest link of a chain that stands for itself refers to.
pub(super) const ORIGIN: Version = Version::tombstone(Revision::first(0));

/// A few bytes on the stack, to be copied to where they belong: room for the [`Head`]'s rest and a link.
pub(super) struct Scratch {
    bytes: [u8; 2 * LINK_MAX],
    len: usize,
}

impl Scratch {
    pub(super) const fn new() -> Scratch {
        Scratch {
            bytes: [0; 2 * LINK_MAX],
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// There is room for what is written by one [`Head::pack`] and one [`Scratch::link`], and no more is.
    fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    /// Appends the link from `newer` to `older`.
    pub(super) fn link(&mut self, newer: &Version, older: &Version) {
        let main = older.modified.main;
        let mut flags = differences(&expected(newer, main), older);
        let mut apart = newer.modified.main.wrapping_sub(main) as u64;
        if apart >> 63 != 0 {
            (flags, apart) = (flags | MAIN, 0);
        }
        self.number(apart << 1 | u64::from(flags != 0));
        if flags != 0 {
            self.fields(flags, older);
        }
    }

    /// Appends `flags` and the fields that they name.
    fn fields(&mut self, flags: u8, version: &Version) {
        let main = version.modified.main;
        self.byte(flags);
        if flags & MAIN != 0 {
            self.number(folded(main));
        }
        if flags & SUB != 0 {
            self.number(u64::from(version.modified.sub));
        }
        if flags & CREATE != 0 {
            self.number(folded(main.wrapping_sub(version.create_revision)));
        }
        if flags & VERSION != 0 {
            self.number(version.version as u64);
        }
        if flags & LEASE != 0 {
            self.number(version.lease as u64);
        }
    }
}

/// A number near zero, of either sign, as a small one.
const fn folded(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

const fn unfolded(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// What the version before `newer` must be, if it was written at `main` and nothing else is known.
fn expected(newer: &Version, main: i64) -> Version {
    let modified = Revision::first(main);
    match newer.version {
        // A key that was put once and deleted.
        0 => Version {
            create_revision: main,
            modified,
            version: 1,
            lease: 0,
        },
        1 => Version::tombstone(modified),
        version => Version {
            create_revision: newer.create_revision,
            modified,
            version: version.wrapping_sub(1),
            lease: newer.lease,
        },
    }
}

/// The flags of the fields in which `version` is not as expected, but for `main`.
fn differences(expected: &Version, version: &Version) -> u8 {
    let flag = |differs: bool, flag: u8| if differs { flag } else { 0 };
    flag(version.modified.sub != expected.modified.sub, SUB)
        | flag(version.create_revision != expected.create_revision, CREATE)
        | flag(version.version != expected.version, VERSION)
        | flag(version.lease != expected.lease, LEASE)
}

/// Takes a LEB128 off; `None` if it is cut off.
pub(super) fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Takes the fields named by `flags` off, but for `main`, and puts them into `version`.
fn fields(bytes: &mut &[u8], flags: u8, version: &mut Version) -> Option<()> {
    if flags & SUB != 0 {
        version.modified.sub = number(bytes)? as u32;
    }
    if flags & CREATE != 0 {
        let back = unfolded(number(bytes)?);
        version.create_revision = version.modified.main.wrapping_sub(back);
    }
    if flags & VERSION != 0 {
        version.version = number(bytes)? as i64;
    }
    if flags & LEASE != 0 {
        version.lease = number(bytes)? as i64;
    }
    Some(())
}

/// The versions of a chain, newest first.
#[derive(Clone)]
pub(super) struct Chain<'a> {
    newer: Version,
    rest: &'a [u8],
}

impl<'a> Chain<'a> {
    /// The chain that was written behind `newer`.
    pub(super) fn new(newer: Version, bytes: &'a [u8]) -> Chain<'a> {
        Chain { newer, rest: bytes }
    }

    /// The bytes of the versions that were not given yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl Iterator for Chain<'_> {
    type Item = Version;

    #[inline]
    fn next(&mut self) -> Option<Version> {
        let word = number(&mut self.rest)?;
        let mut main = self.newer.modified.main.wrapping_sub((word >> 1) as i64);
        let version = if word & 1 == 0 {
            expected(&self.newer, main)
        } else {
            let (flags, rest) = self.rest.split_first()?;
            self.rest = rest;
            if flags & MAIN != 0 {
                main = unfolded(number(&mut self.rest)?);
            }
            let mut version = expected(&self.newer, main);
            fields(&mut self.rest, *flags, &mut version)?;
            version
        };
        self.newer = version;
        Some(version)
    }
}

/// A key's current version, so far as it is like those of most keys: written by a transaction's first change, without a lease.
/// The rest stands in front of the key's chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    main: i64,
    /// From the create revision to `main`.
    age: u32,
    /// [`Version::version`] in the lower bits, any number but 0 if it has no place there; [`MORE`] if something differs.
    version: u32,
}

/// In [`Head::version`]: flags and fields stand in front of the chain.
const MORE: u32 = 1 << 31;

impl Head {
    /// Writes what has no place here to `rest`.
    pub(super) fn pack(version: &Version, rest: &mut Scratch) -> Head {
        let main = version.modified.main;
        let age = main.checked_sub(version.create_revision);
        let low = u32::try_from(version.version)
            .ok()
            .filter(|low| low & MORE == 0);
        let mut head = Head {
            main,
            age: age.and_then(|age| u32::try_from(age).ok()).unwrap_or(0),
            version: low.unwrap_or(1),
        };
        let flags = differences(&head.plain(), version);
        if flags != 0 {
            head.version |= MORE;
            rest.fields(flags, version);
        }
        head
    }

    /// The version, and the length of its part of `record`.
    pub(super) fn unpack(self, record: &[u8]) -> (Version, usize) {
        let mut version = self.plain();
        let mut rest = record;
        if self.more()
            && let Some((flags, fields_on)) = rest.split_first()
        {
            rest = fields_on;
            // What was packed is complete.
            let _complete = fields(&mut rest, *flags, &mut version);
        }
        (version, record.len() - rest.len())
    }

    /// The version, if nothing of it stands elsewhere.
    #[inline]
    pub(super) fn plain(self) -> Version {
        let version = i64::from(self.version & !MORE);
        Version {
            create_revision: match version {
                0 => 0,
                _ => self.main.wrapping_sub(i64::from(self.age)),
            },
            modified: Revision::first(self.main),
            version,
            lease: 0,
        }
    }

    /// Whether a part of the version stands in front of the chain.
    pub(super) fn more(self) -> bool {
        self.version & MORE != 0
    }

    pub(super) fn main(self) -> i64 {
        self.main
    }

    /// See [`Version::alive`].
    pub(super) fn alive(self) -> bool {
        self.version & !MORE != 0
    }
}
