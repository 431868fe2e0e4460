//! What permissions cover: sorted sets of intervals in which nothing overlaps or touches, and their pair for reading and writing.
//!
//! Keys are byte strings in lexical order, so `k` and `k\0` have nothing between them: one key is the interval `[k, k\0)`, and
//! intervals that touch are one. A demand is covered by a merged set exactly when one of its intervals holds the whole of it,
//! because the first key of a gap is a key.

use crate::permission::{Permission, PermissionKind};
use crate::{KeyRange, Verb};
use bytes::Bytes;

/// The smallest key there is: an empty key is not a key.
const LEAST_KEY: &[u8] = &[0];

/// Lower bound inclusive, upper bound exclusive, no upper bound for everything above. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interval {
    lower: Bytes,
    upper: Option<Bytes>,
}

impl Interval {
    fn of(keys: &KeyRange) -> Option<Interval> {
        let (lower, upper) = match keys {
            KeyRange::Point(key) => {
                let mut after = Vec::with_capacity(key.len() + 1);
                after.extend_from_slice(key);
                after.push(0);
                (key.clone(), Some(Bytes::from(after)))
            }
            KeyRange::Span { start, end } if start < end => (start.clone(), Some(end.clone())),
            KeyRange::Span { .. } => return None,
            KeyRange::From(start) => (start.clone(), None),
            KeyRange::All => (Bytes::new(), None),
        };
        Some(Interval { lower, upper })
    }
}

/// Whether `upper` (no bound: infinite) reaches as far as `end` (no end: infinite).
fn reaches(upper: Option<&Bytes>, end: Option<&[u8]>) -> bool {
    match (upper, end) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(upper), Some(end)) => end <= &upper[..],
    }
}

/// A union of intervals, merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges {
    merged: Vec<Interval>,
}

impl Ranges {
    fn of(mut intervals: Vec<Interval>) -> Ranges {
        intervals.sort_by(|a, b| a.lower.cmp(&b.lower));
        let mut merged: Vec<Interval> = Vec::new();
        for next in intervals {
            match merged.last_mut() {
                Some(last) if reaches(last.upper.as_ref(), Some(&next.lower)) => {
                    if !reaches(last.upper.as_ref(), next.upper.as_deref()) {
                        last.upper = next.upper;
                    }
                }
                _ => merged.push(next),
            }
        }
        merged.shrink_to_fit();
        Ranges { merged }
    }

    /// Whether every key of `keys` is inside.
    fn cover(&self, keys: &KeyRange) -> bool {
        match keys {
            KeyRange::Point(key) => self
                .last_from(key)
                .is_some_and(|at| at.upper.as_ref().is_none_or(|upper| key < upper)),
            KeyRange::Span { start, end } => {
                end <= start
                    || self
                        .last_from(start)
                        .is_some_and(|at| reaches(at.upper.as_ref(), Some(end)))
            }
            KeyRange::From(start) => self.cover_all_from(start),
            KeyRange::All => self.cover_all_from(LEAST_KEY),
        }
    }

    fn cover_all_from(&self, start: &[u8]) -> bool {
        self.last_from(start).is_some_and(|at| at.upper.is_none())
    }

    /// The last interval that begins at `key` or before it: the only one that can hold it.
    fn last_from(&self, key: &[u8]) -> Option<&Interval> {
        let after = self.merged.partition_point(|at| at.lower[..] <= *key);
        self.merged[..after].last()
    }
}

/// The united permissions of a user, a role or a set of roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    root: bool,
    read: Ranges,
    write: Ranges,
}

impl Grants {
    /// The grants of role `root`: everything.
    pub(crate) fn root() -> Grants {
        Grants {
            root: true,
            ..Grants::default()
        }
    }

    pub(crate) fn of_permissions<'a>(permissions: impl Iterator<Item = &'a Permission>) -> Grants {
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for permission in permissions {
            let Some(interval) = Interval::of(&permission.keys) else {
                continue;
            };
            match permission.kind {
                PermissionKind::Read => read.push(interval),
                PermissionKind::Write => write.push(interval),
                PermissionKind::ReadWrite => {
                    read.push(interval.clone());
                    write.push(interval);
                }
            }
        }
        Grants {
            root: false,
            read: Ranges::of(read),
            write: Ranges::of(write),
        }
    }

    /// Everything that any of `parts` grants, and what only several of them together do.
    pub(crate) fn union<'a>(parts: impl Iterator<Item = &'a Grants>) -> Grants {
        let (mut root, mut read, mut write) = (false, Vec::new(), Vec::new());
        for part in parts {
            root |= part.root;
            read.extend_from_slice(&part.read.merged);
            write.extend_from_slice(&part.write.merged);
        }
        Grants {
            root,
            read: Ranges::of(read),
            write: Ranges::of(write),
        }
    }

    /// Whether `verb` is granted on every key of `keys`. An empty span has no keys.
    pub fn allows(&self, verb: Verb, keys: &KeyRange) -> bool {
        self.root
            || match verb {
                Verb::Read => self.read.cover(keys),
                Verb::Write => self.write.cover(keys),
            }
    }

    /// Whether these are the grants of role `root`.
    pub fn is_root(&self) -> bool {
        self.root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static str, end: &'static str) -> KeyRange {
        KeyRange::from_pair(key.into(), end.into())
    }

    #[track_caller]
    fn check(
        granted: &[(&'static str, &'static str)],
        covered: &[(&'static str, &'static str)],
        refused: &[(&'static str, &'static str)],
    ) {
        let permissions: Vec<Permission> = granted
            .iter()
            .map(|&(key, end)| Permission {
                keys: range(key, end),
                kind: PermissionKind::Read,
            })
            .collect();
        let grants = Grants::of_permissions(permissions.iter());
        for &(key, end) in covered {
            assert!(
                grants.allows(Verb::Read, &range(key, end)),
                "{key:?} {end:?}"
            );
            assert!(!grants.allows(Verb::Write, &range(key, end)) || range(key, end).is_empty());
        }
        for &(key, end) in refused {
            assert!(
                !grants.allows(Verb::Read, &range(key, end)),
                "{key:?} {end:?}"
            );
        }
    }

    #[test]
    fn one_key_is_one_key() {
        check(
            &[("a", "")],
            &[("a", ""), ("a", "a\0"), ("z", "b")],
            &[("a", "b"), ("a\0", ""), ("a", "\0"), ("\0", "\0"), ("", "")],
        );
    }

    #[test]
    fn what_touches_or_overlaps_is_one() {
        check(
            &[("c", "d"), ("a", "b"), ("b", "c"), ("a", "bb")],
            &[("a", "d"), ("a", "c"), ("bz", "cz")],
            &[("a", "d\0"), ("A", "b"), ("d", ""), ("a", "\0")],
        );
        check(&[("a", ""), ("a\0", "")], &[("a", "a\0\0")], &[("a", "b")]);
        check(&[("a", "b"), ("b\0", "c")], &[("a", "b")], &[("a", "c")]);
    }

    #[test]
    fn an_inner_grant_does_not_shorten_the_outer() {
        check(&[("a", "z"), ("b", "c")], &[("a", "z")], &[]);
        check(&[("a", "\0"), ("b", "c")], &[("b", "\0"), ("a", "\0")], &[]);
    }

    #[test]
    fn everything_takes_a_grant_without_end() {
        check(&[("\0", "\0")], &[("\0", "\0"), ("a", "\0"), ("", "")], &[]);
        check(
            &[("\0", "a"), ("a", "\u{ff}\u{ff}")],
            &[],
            &[("\0", "\0"), ("a", "\0")],
        );
        check(&[("\0", "a"), ("a", "\0")], &[("\0", "\0")], &[]);
    }
}
