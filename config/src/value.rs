//! Scalars in the spelling of Go's `flag`, `strconv` and `time` packages, which etcd's users write.

use std::time::Duration;

/// The largest duration Go can express (`math.MaxInt64` nanoseconds, about 292 years).
const MAX_DURATION_NANOS: u128 = i64::MAX as u128;

/// Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// Go's `strconv.ParseInt` with base 0: `0x`, `0o`, `0b`, a leading zero for octal, and `_` between digits.
pub(crate) fn parse_int(text: &str) -> Result<i64, String> {
    let malformed = || "expected a whole number".to_owned();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // Go takes `_` only between digits, and after a base prefix.
    let digits = if radix == 10 {
        digits
    } else {
        digits.strip_prefix('_').unwrap_or(digits)
    };
    if digits.starts_with('_') || digits.ends_with('_') || digits.contains("__") {
        return Err(malformed());
    }
    let digits = digits.replace('_', "");
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(malformed());
    }
    let signed = if negative {
        format!("-{digits}")
    } else {
        digits
    };
    i64::from_str_radix(&signed, radix).map_err(|_| "the number does not fit in 64 bits".to_owned())
}

/// Go's `time.ParseDuration`, for durations that are not negative: `100ms`, `1h30m`, `1.5s`, `0`.
///
/// # Errors
/// What is expected instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let malformed = || "expected a duration such as 100ms, 5s or 1h30m".to_owned();
    if text.starts_with('-') {
        return Err("a duration cannot be negative".to_owned());
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(malformed());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(|| "the unit is missing (ns, us, ms, s, m or h)".to_owned())?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        nanos = nanos.saturating_add(scaled(number, unit).ok_or_else(malformed)?);
        rest = tail;
    }
    if nanos > MAX_DURATION_NANOS {
        return Err("the duration is longer than 292 years".to_owned());
    }
    // Checked against MAX_DURATION_NANOS, which fits.
    Ok(Duration::from_nanos(
        u64::try_from(nanos).unwrap_or(u64::MAX),
    ))
}

/// `number` (digits with at most one point) of `unit`, in nanoseconds, the fraction rounded down.
fn scaled(number: &str, unit: &str) -> Option<u128> {
    let scale: u128 = match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let mut nanos = 0u128;
    for digit in whole.bytes() {
        nanos = nanos
            .saturating_mul(10)
            .saturating_add(u128::from(digit - b'0'));
    }
    nanos = nanos.saturating_mul(scale);
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        nanos = nanos.saturating_add(u128::from(digit - b'0').saturating_mul(place));
    }
    Some(nanos)
}

/// The items of a comma-separated list, trimmed, empty ones dropped, each once.
pub(crate) fn parse_list(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        if !items.iter().any(|known| known == item) {
            items.push(item.to_owned());
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_go_syntax() {
        for (text, expected_nanos) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("100ms", Some(100_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("5m0s", Some(300_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("+2h", Some(7_200_000_000_000)),
            ("7us", Some(7_000)),
            ("7\u{b5}s", Some(7_000)),
            ("600000000000ns", Some(600_000_000_000)),
            ("9223372036854775807ns", Some(i64::MAX as u64)),
            ("9223372036854775808ns", None),
            ("99999999999999999999999999999999999999999999h", None),
            ("5", None),
            ("", None),
            ("+", None),
            ("-1s", None),
            ("1d", None),
            ("1..5s", None),
            (".s", None),
            ("s", None),
            ("1h ", None),
        ] {
            assert_eq!(
                parse_duration(text).ok(),
                expected_nanos.map(Duration::from_nanos),
                "{text:?}"
            );
        }
    }

    #[test]
    fn integers_in_go_syntax() {
        for (text, expected) in [
            ("0", Some(0)),
            ("10", Some(10)),
            ("-7", Some(-7)),
            ("+7", Some(7)),
            ("0x10", Some(16)),
            ("0X_1f", Some(31)),
            ("010", Some(8)),
            ("0o17", Some(15)),
            ("0b101", Some(5)),
            ("1_000_000", Some(1_000_000)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("--1", None),
            ("-+1", None),
            ("0x", None),
            ("08", None),
            ("1_", None),
            ("_1", None),
            ("1__0", None),
            ("1.0", None),
            ("1e3", None),
            ("ten", None),
        ] {
            assert_eq!(parse_int(text).ok(), expected, "{text:?}");
        }
    }
}
