//! Key ranges: one type for the check and for the execution of a request (CVE-2026-73499 came from having two).

use bytes::Bytes;
use std::ops::Bound;

/// The keys a request touches. Built once, where the wire request is lowered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    /// One key.
    Point(Bytes),
    /// `start <= key < end`; holds nothing when `end <= start`.
    Span {
        /// First key.
        start: Bytes,
        /// First key that is outside.
        end: Bytes,
    },
    /// Every key from this one on.
    From(Bytes),
    /// Every key.
    All,
}

/// The range end that means "no end".
const OPEN: &[u8] = &[0];

impl KeyRange {
    /// Reads etcd's `(key, range_end)` pair: no end is one key, the end `\0` is no upper bound, `\0` with end `\0` is everything.
    pub fn from_pair(key: Bytes, range_end: Bytes) -> KeyRange {
        if range_end.is_empty() {
            KeyRange::Point(key)
        } else if range_end != OPEN {
            KeyRange::Span {
                start: key,
                end: range_end,
            }
        } else if key.is_empty() || key == OPEN {
            KeyRange::All
        } else {
            KeyRange::From(key)
        }
    }

    /// The pair that [`KeyRange::from_pair`] reads as this range.
    pub fn to_pair(&self) -> (Bytes, Bytes) {
        match self {
            KeyRange::Point(key) => (key.clone(), Bytes::new()),
            KeyRange::Span { start, end } => (start.clone(), end.clone()),
            KeyRange::From(start) => (start.clone(), Bytes::from_static(OPEN)),
            KeyRange::All => (Bytes::from_static(OPEN), Bytes::from_static(OPEN)),
        }
    }

    /// The range as bounds for an ordered map. The bounds of an empty span may cross.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        match self {
            KeyRange::Point(key) => (Bound::Included(key), Bound::Included(key)),
            KeyRange::Span { start, end } => (Bound::Included(start), Bound::Excluded(end)),
            KeyRange::From(start) => (Bound::Included(start), Bound::Unbounded),
            KeyRange::All => (Bound::Unbounded, Bound::Unbounded),
        }
    }

    /// Whether no key can be inside.
    pub fn is_empty(&self) -> bool {
        matches!(self, KeyRange::Span { start, end } if end <= start)
    }

    /// Whether `key` is inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::Point(point) => point == key,
            KeyRange::Span { start, end } => start <= key && key < end,
            KeyRange::From(start) => start <= key,
            KeyRange::All => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(key: &'static str, end: &'static str, inside: &[&str], outside: &[&str]) {
        let range = KeyRange::from_pair(key.into(), end.into());
        for k in inside {
            assert!(range.contains(k.as_bytes()), "{range:?} must hold {k:?}");
        }
        for k in outside {
            assert!(
                !range.contains(k.as_bytes()),
                "{range:?} must not hold {k:?}"
            );
        }
        let (key, end) = range.to_pair();
        assert_eq!(KeyRange::from_pair(key, end), range);
    }

    #[test]
    fn pairs_mean_what_etcd_means() {
        check("a", "", &["a"], &["", "a\0", "b"]);
        check("a", "c", &["a", "b", "b\u{ff}"], &["c", "A"]);
        check("b", "\0", &["b", "c", "zzz"], &["a", ""]);
        check("\0", "\0", &["", "\0", "z"], &[]);
        check("b", "a", &[], &["a", "b"]);
    }

    #[test]
    fn only_crossed_spans_are_empty() {
        assert!(KeyRange::from_pair("b".into(), "b".into()).is_empty());
        assert!(!KeyRange::from_pair("b".into(), "".into()).is_empty());
        assert!(!KeyRange::from_pair("b".into(), "\0".into()).is_empty());
    }
}
