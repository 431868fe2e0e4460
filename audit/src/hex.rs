//! Bytes as lower-case hexadecimal digits. There is one spelling of each value: what is read is compared with it.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

pub(crate) fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// Exactly `2 * N` lower-case digits, or nothing.
pub(crate) fn parse<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_spelling() {
        assert_eq!(text(&[0, 0x9f, 0xff]), "009fff");
        assert_eq!(parse("009fff"), Some([0, 0x9f, 0xff]));
        for wrong in ["009ff", "009fff0", "009FFF", "009ffg", "+09fff"] {
            assert_eq!(parse::<3>(wrong), None, "{wrong}");
        }
    }
}
