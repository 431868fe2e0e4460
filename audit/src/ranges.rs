//! The keys of a request, rendered while the request is at hand and kept, bounded, until its record is written.

use aws_lc_rs::hmac;

use crate::{hex, text};

/// More ranges of one request are left out of its record.
const MAX_RANGES: usize = 16;
/// More bytes of a key are left out of the record.
const MAX_KEY_BYTES: usize = 1024;
/// Bytes of a hashed key: enough that two keys never share one, short enough to read.
const HASH_BYTES: usize = 16;

/// One key or range that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySpan<'k> {
    /// One key.
    Point(&'k [u8]),
    /// From the first key up to, and without, the second.
    Span(&'k [u8], &'k [u8]),
    /// All keys from this one on; of everything the start is empty.
    From(&'k [u8]),
}

impl KeySpan<'_> {
    /// Whether any key of the span begins with `prefix`.
    pub(crate) fn touches(&self, prefix: &[u8]) -> bool {
        match *self {
            Self::Point(key) => key.starts_with(prefix),
            Self::Span(start, end) => {
                start < end && (start < prefix || start.starts_with(prefix)) && end > prefix
            }
            Self::From(start) => start < prefix || start.starts_with(prefix),
        }
    }
}

/// The keys of one request, as far as the rules want them.
#[derive(Clone, Debug, Default)]
pub struct Keys(Option<Box<Rendered>>);

#[derive(Clone, Debug, Default)]
struct Rendered {
    /// The list as it stands in a record of level `keys`; empty if no rule wants it.
    plain: Vec<u8>,
    /// The same for `keys_hashed`.
    hashed: Vec<u8>,
    /// One bit for each key prefix of the rules that is touched.
    prefixes: u64,
    is_truncated: bool,
}

/// What rules want of keys.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) plain: bool,
    pub(crate) hashed: bool,
    /// The bit and the prefix.
    pub(crate) prefixes: Vec<(u64, Box<[u8]>)>,
}

impl Wanted {
    pub(crate) fn is_anything(&self) -> bool {
        self.plain || self.hashed || !self.prefixes.is_empty()
    }
}

impl Keys {
    /// No keys: the request has none, or the plan does not want them.
    pub const fn none() -> Self {
        Self(None)
    }

    pub(crate) fn render<'k>(
        wanted: &Wanted,
        hash_key: &hmac::Key,
        spans: impl IntoIterator<Item = KeySpan<'k>>,
    ) -> Self {
        let mut rendered = Rendered::default();
        let mut count = 0;
        for span in spans {
            // All spans are looked at for prefixes, so that nobody hides a key behind sixteen others.
            for (bit, prefix) in &wanted.prefixes {
                if span.touches(prefix) {
                    rendered.prefixes |= bit;
                }
            }
            count += 1;
            if count > MAX_RANGES {
                rendered.is_truncated = true;
                continue;
            }
            if wanted.plain {
                let is_truncated = &mut rendered.is_truncated;
                push_span(&mut rendered.plain, &span, |out, key| {
                    *is_truncated |= key.len() > MAX_KEY_BYTES;
                    text::name(out, &key[..key.len().min(MAX_KEY_BYTES)]);
                });
            }
            if wanted.hashed {
                push_span(&mut rendered.hashed, &span, |out, key| {
                    let tag = hmac::sign(hash_key, key);
                    out.push(b'"');
                    hex::push(out, &tag.as_ref()[..HASH_BYTES]);
                    out.push(b'"');
                });
            }
        }
        if count == 0 {
            return Self(None);
        }
        for list in [&mut rendered.plain, &mut rendered.hashed] {
            if !list.is_empty() {
                list.push(b']');
            }
        }
        Self(Some(Box::new(rendered)))
    }

    pub(crate) fn prefixes(&self) -> u64 {
        self.0.as_ref().map_or(0, |rendered| rendered.prefixes)
    }

    /// Writes the fields of a record of level `keys`.
    pub(crate) fn push_plain(&self, out: &mut Vec<u8>) {
        if let Some(rendered) = &self.0 {
            push_field(out, br#","keys":"#, &rendered.plain, rendered.is_truncated);
        }
    }

    /// Writes the fields of a record of level `keys_hashed`.
    pub(crate) fn push_hashed(&self, out: &mut Vec<u8>) {
        if let Some(rendered) = &self.0 {
            let name = br#","keys_hashed":"#;
            push_field(out, name, &rendered.hashed, rendered.is_truncated);
        }
    }
}

fn push_field(out: &mut Vec<u8>, name: &[u8], list: &[u8], is_truncated: bool) {
    if !list.is_empty() {
        out.extend_from_slice(name);
        out.extend_from_slice(list);
        if is_truncated {
            out.extend_from_slice(br#","keys_truncated":true"#);
        }
    }
}

fn push_span(out: &mut Vec<u8>, span: &KeySpan<'_>, mut push: impl FnMut(&mut Vec<u8>, &[u8])) {
    out.extend_from_slice(if out.is_empty() { b"[[" } else { b",[" });
    match *span {
        KeySpan::Point(key) => push(out, key),
        KeySpan::Span(start, end) => {
            push(out, start);
            out.push(b',');
            push(out, end);
        }
        KeySpan::From(start) => {
            push(out, start);
            out.extend_from_slice(b",null");
        }
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use KeySpan::{From, Point, Span};

    fn key(secret: u8) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[secret; 32])
    }

    fn fields(wanted: &Wanted, spans: &[KeySpan<'_>]) -> String {
        let keys = Keys::render(wanted, &key(1), spans.iter().copied());
        let mut out = Vec::new();
        keys.push_plain(&mut out);
        keys.push_hashed(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn plain() -> Wanted {
        Wanted {
            plain: true,
            ..Wanted::default()
        }
    }

    #[test]
    fn spans_are_lists_of_one_or_two() {
        let spans = [Point(b"a"), Span(b"a", b"b"), From(b"\0")];
        assert_eq!(
            fields(&plain(), &spans),
            r#","keys":[["a"],["a","b"],[{"b64":"AA=="},null]]"#
        );
        assert_eq!(fields(&plain(), &[]), "");
        assert_eq!(fields(&Wanted::default(), &spans), "");
    }

    #[test]
    fn many_ranges_and_long_keys_are_truncated() {
        let text = fields(&plain(), &[Point(b"k"); 17]);
        assert_eq!(text.matches(r#"["k"]"#).count(), 16, "{text}");
        assert!(text.ends_with(r#","keys_truncated":true"#), "{text}");
        let text = fields(&plain(), &[Point(&[b'x'; 1025])]);
        assert_eq!(text.matches('x').count(), 1024, "{text}");
        assert!(text.ends_with(r#","keys_truncated":true"#), "{text}");
        let text = fields(&plain(), &[Point(&[b'x'; 1024]); 16]);
        assert!(!text.contains("truncated"), "{text}");
    }

    #[test]
    fn hashes_depend_on_the_whole_key_and_on_the_nodes_secret() {
        let wanted = Wanted {
            hashed: true,
            ..Wanted::default()
        };
        let of = |secret: u8, bytes: &[u8]| {
            let keys = Keys::render(&wanted, &key(secret), [Point(bytes)]);
            let mut out = Vec::new();
            keys.push_hashed(&mut out);
            String::from_utf8(out).unwrap()
        };
        let long = vec![b'x'; 2000];
        let mut other = long.clone();
        other[1999] = b'y';
        assert_eq!(of(1, &long), of(1, &long));
        assert_ne!(of(1, &long), of(1, &other));
        assert_ne!(of(1, &long), of(2, &long));
        assert_eq!(
            of(1, b"a").len(),
            r#","keys_hashed":[[""]]"#.len() + 2 * HASH_BYTES
        );
        assert!(!of(1, &long).contains('x'));
    }

    #[test]
    fn prefixes_are_found_in_every_span() {
        let prefix = b"/s/";
        for span in [
            Point(b"/s/"),
            Point(b"/s/x"),
            Span(b"/s/a", b"/s/b"),
            Span(b"/", b"/s/a"),
            Span(b"/s/zz", b"/t"),
            Span(b"", b"z"),
            From(b""),
            From(b"/s/zz"),
        ] {
            assert!(span.touches(prefix), "{span:?}");
        }
        for span in [
            Point(b"/s"),
            Span(b"/", b"/s/"),
            Span(b"/s0", b"/t"),
            Span(b"/s/b", b"/s/a"),
            From(b"/s0"),
        ] {
            assert!(!span.touches(prefix), "{span:?}");
        }
        let wanted = Wanted {
            prefixes: vec![(4, prefix.as_slice().into())],
            ..Wanted::default()
        };
        // Behind more ranges than a record shows.
        let mut spans = vec![Point(b"other".as_slice()); 100];
        assert_eq!(Keys::render(&wanted, &key(1), spans.clone()).prefixes(), 0);
        spans.push(Point(b"/s/x"));
        assert_eq!(Keys::render(&wanted, &key(1), spans).prefixes(), 4);
    }
}
