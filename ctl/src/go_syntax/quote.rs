use std::fmt::Write;

/// Quotes bytes as Go's `%q` does: printable Unicode stays, bytes that are no UTF-8 become `\xff`.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut quoted = String::with_capacity(bytes.len() + 2);
    quoted.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            quote_char(c, &mut quoted);
        }
        for byte in chunk.invalid() {
            // Writing into a String cannot fail; the same holds below.
            let _ = write!(quoted, "\\x{byte:02x}");
        }
    }
    quoted.push('"');
    quoted
}

fn quote_char(c: char, quoted: &mut String) {
    let escape = match c {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\x07' => "\\a",
        '\x08' => "\\b",
        '\x0c' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\x0b' => "\\v",
        _ if is_printable(c) => return quoted.push(c),
        _ => {
            let code = u32::from(c);
            let _ = match code {
                0..0x80 => write!(quoted, "\\x{code:02x}"),
                0x80..0x1_0000 => write!(quoted, "\\u{code:04x}"),
                _ => write!(quoted, "\\U{code:08x}"),
            };
            return;
        }
    };
    quoted.push_str(escape);
}

/// Whether Go prints `c` as it is. Rust's escape rule for strings has the same notion of printable, except that it also escapes
/// a combining mark at the start of a string; so one is asked about in second place.
fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        '\0'..='\x7f' => false,
        _ => {
            let text: String = ['a', c].iter().collect();
            text.escape_debug().count() == 2
        }
    }
}

/// Reads one Go string literal (`"…"` or `` `…` ``) from the start of `text`: its bytes and the length of the literal.
/// None if there is no complete and valid one.
pub(crate) fn unquote_prefix(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    match text.first()? {
        b'`' => {
            let end = text[1..].iter().position(|byte| *byte == b'`')?;
            Some((text[1..=end].to_vec(), end + 2))
        }
        b'"' => {
            let mut bytes = Vec::new();
            let mut at = 1;
            loop {
                match *text.get(at)? {
                    b'"' => return Some((bytes, at + 1)),
                    b'\n' => return None,
                    b'\\' => at += 1 + unescape(&text[at + 1..], &mut bytes)?,
                    byte => {
                        bytes.push(byte);
                        at += 1;
                    }
                }
            }
        }
        _ => None,
    }
}

/// Decodes the escape whose backslash has just been read and returns how many bytes it took.
fn unescape(text: &[u8], bytes: &mut Vec<u8>) -> Option<usize> {
    let simple = match *text.first()? {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' => b'\\',
        b'"' => b'"',
        b'x' => {
            bytes.push(u8::try_from(number(text.get(1..3)?, 16)?).ok()?);
            return Some(3);
        }
        b'0'..=b'7' => {
            bytes.push(u8::try_from(number(text.get(..3)?, 8)?).ok()?);
            return Some(3);
        }
        kind @ (b'u' | b'U') => {
            let length = if kind == b'u' { 5 } else { 9 };
            let c = char::from_u32(number(text.get(1..length)?, 16)?)?;
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(length);
        }
        _ => return None,
    };
    bytes.push(simple);
    Some(1)
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    digits.iter().try_fold(0u32, |value, digit| {
        let digit = char::from(*digit).to_digit(radix)?;
        value.checked_mul(radix)?.checked_add(digit)
    })
}

/// Splits a line of a transaction or an interactive watch into arguments: words, `'…'` taken literally and `"…"` with Go's
/// escapes. Quotes that are never closed are skipped, as etcdctl does.
///
/// # Errors
///
/// A double-quoted argument with an invalid escape, given back as it stands.
pub(crate) fn split_arguments(line: &[u8]) -> Result<Vec<Vec<u8>>, Vec<u8>> {
    let is_space = |byte: &u8| matches!(byte, b'\t' | b'\n' | 0x0c | b'\r' | b' ');
    let mut arguments = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.first() {
        let length = match first {
            b'\'' => rest[1..]
                .iter()
                .position(|byte| *byte == b'\'')
                .map(|end| end + 2),
            b'"' => quoted_length(rest),
            byte if is_space(byte) => None,
            _ => Some(rest.iter().position(is_space).unwrap_or(rest.len())),
        };
        let Some(length) = length else {
            rest = &rest[1..];
            continue;
        };
        let (argument, tail) = rest.split_at(length);
        arguments.push(match first {
            b'\'' => argument[1..length - 1].to_vec(),
            b'"' => {
                let unquoted = unquote_prefix(argument);
                unquoted.ok_or_else(|| argument.to_vec())?.0
            }
            _ => argument.to_vec(),
        });
        rest = tail;
    }
    Ok(arguments)
}

/// The length of the double-quoted text at the start of `text`, whatever its escapes mean.
fn quoted_length(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_follows_go() {
        for (bytes, expected) in [
            (&b"foo"[..], "\"foo\""),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (b"\n\t\x00\x7f\x0b", r#""\n\t\x00\x7f\v""#),
            (b"\xff\xc3\xa9", "\"\\xffé\""),
            (
                "\u{a0}\u{301}\u{200b}\u{e0001}".as_bytes(),
                "\"\\u00a0\u{301}\\u200b\\U000e0001\"",
            ),
        ] {
            assert_eq!(quote(bytes), expected);
        }
    }

    #[test]
    fn unquoting_follows_go() {
        for (text, expected) in [
            (&b"\"foo\") = "[..], Some((b"foo".to_vec(), 5))),
            (b"`a\\b`x", Some((b"a\\b".to_vec(), 5))),
            (
                br#""\x41\101\u00e9\"""#,
                Some((b"AA\xc3\xa9\"".to_vec(), 18)),
            ),
            (br#""\q""#, None),
            (br#""\x4""#, None),
            (br#""\777""#, None),
            (br#""\ud800""#, None),
            (b"\"open", None),
            (b"\"open\\", None),
            (b"plain", None),
            (b"", None),
        ] {
            assert_eq!(
                unquote_prefix(text),
                expected,
                "{:?}",
                text.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn lines_are_split_as_etcdctl_does() {
        for (line, expected) in [
            ("put key1 \"over wrote\"", vec!["put", "key1", "over wrote"]),
            ("put 'a b' c'd", vec!["put", "a b", "c'd"]),
            ("get \"open", vec!["get", "open"]),
            (r#"put k "a\"b\n""#, vec!["put", "k", "a\"b\n"]),
            ("put k \"\"", vec!["put", "k", ""]),
            ("   ", vec![]),
        ] {
            let expected: Vec<Vec<u8>> = expected
                .iter()
                .map(|text| text.as_bytes().to_vec())
                .collect();
            assert_eq!(split_arguments(line.as_bytes()), Ok(expected), "{line}");
        }
        assert!(split_arguments(br#"put k "\q""#).is_err());
    }
}
