//! Text and numbers as JSON, written straight into a line.
//!
//! Nothing a client sends can end a string, a line or a terminal's good behaviour: names and keys that are not printable become base64, and
//! our own messages are escaped.

use base64::{Engine, engine::general_purpose::STANDARD};

/// What a byte needs: nothing, a backslash, or a second look.
const PLAIN: u8 = 0;
const ESCAPE: u8 = 1;
const OTHER: u8 = 2;

const CLASS: [u8; 256] = {
    let mut class = [OTHER; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        class[byte] = PLAIN;
        byte += 1;
    }
    class[b'"' as usize] = ESCAPE;
    class[b'\\' as usize] = ESCAPE;
    class
};

/// A name or key of a client: printable text as a string, everything else as `{"b64":"…"}`.
pub(crate) fn name(out: &mut Vec<u8>, bytes: &[u8]) {
    let found = bytes
        .iter()
        .fold(PLAIN, |found, byte| found | CLASS[usize::from(*byte)]);
    if found == PLAIN {
        out.push(b'"');
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
    let printable = || std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(is_printable));
    if found == ESCAPE || printable() {
        out.push(b'"');
        for byte in bytes {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        out.push(b'"');
    } else {
        out.extend_from_slice(br#"{"b64":""#);
        out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
        out.extend_from_slice(br#""}"#);
    }
}

/// A message of our own, of which at most `limit` bytes are kept. What is not printable is escaped.
pub(crate) fn message(out: &mut Vec<u8>, text: &str, limit: usize) {
    let kept = &text[..text.floor_char_boundary(limit)];
    out.push(b'"');
    for character in kept.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            _ if is_printable(character) => {
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(b"\\u");
                    crate::hex::push(out, &unit.to_be_bytes());
                }
            }
        }
    }
    if kept.len() < text.len() {
        out.extend_from_slice("…".as_bytes());
    }
    out.push(b'"');
}

/// Characters that show themselves: no control characters, and none that change the direction or the place of their neighbours, with which a
/// line could be made to look like another one.
pub(crate) fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

pub(crate) fn number(out: &mut Vec<u8>, mut value: u64) {
    // u64::MAX has 20 digits.
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

pub(crate) fn signed(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    number(out, value.unsigned_abs());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_are_text_if_they_can_be_shown() {
        let shown = |bytes: &[u8]| with(|out| name(out, bytes));
        assert_eq!(shown(b"/a b"), r#""/a b""#);
        assert_eq!(shown(br#"a"\"#), r#""a\"\\""#);
        assert_eq!(shown("ключ".as_bytes()), r#""ключ""#);
        assert_eq!(shown(b"a\nb"), r#"{"b64":"YQpi"}"#);
        assert_eq!(shown(b"\xff"), r#"{"b64":"/w=="}"#);
        assert_eq!(shown(b"\0"), r#"{"b64":"AA=="}"#);
        // An override of the writing direction would show the line otherwise than it is.
        assert_eq!(shown("\u{202e}".as_bytes()), r#"{"b64":"4oCu"}"#);
    }

    #[test]
    fn messages_are_escaped_and_cut() {
        let shown = |text| with(|out| message(out, text, 8));
        assert_eq!(shown("a\"b\nc"), "\"a\\\"b\\u000ac\"");
        assert_eq!(shown("12345678"), r#""12345678""#);
        assert_eq!(shown("123456789"), r#""12345678…""#);
        // The limit falls into a character.
        assert_eq!(shown("1234567é"), r#""1234567…""#);
    }

    #[test]
    fn numbers_have_all_their_digits() {
        for value in [0, 9, 10, 99, 100, u64::MAX] {
            assert_eq!(with(|out| number(out, value)), value.to_string());
        }
        for value in [0, -1, i64::MIN, i64::MAX] {
            assert_eq!(with(|out| signed(out, value)), value.to_string());
        }
    }

    proptest! {
        #[test]
        fn a_json_parser_reads_what_was_written(bytes in prop::collection::vec(any::<u8>(), 0..40), text in ".{0,40}") {
            let written = with(|out| name(out, &bytes));
            prop_assert!(!written.contains('\n'));
            let read: serde_json::Value = serde_json::from_str(&written).unwrap();
            let back = match &read {
                serde_json::Value::String(text) => text.as_bytes().to_vec(),
                other => STANDARD.decode(other["b64"].as_str().unwrap()).unwrap(),
            };
            prop_assert_eq!(back, bytes);

            let written = with(|out| message(out, &text, usize::MAX));
            prop_assert!(!written.contains('\n'));
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }
}
