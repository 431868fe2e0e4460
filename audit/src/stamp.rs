//! Times as RFC 3339 in UTC with microseconds.

use std::time::{Duration, SystemTime};
use time::OffsetDateTime;

/// Writes times and remembers the last second's text: only the microseconds differ between most records.
#[derive(Debug)]
pub(crate) struct Stamp {
    second: u64,
    /// `2026-11-20T10:09:19.`
    text: [u8; 20],
}

impl Default for Stamp {
    fn default() -> Self {
        Self {
            second: 0,
            text: *b"1970-01-01T00:00:00.",
        }
    }
}

impl Stamp {
    /// `"2026-11-20T10:09:19.123456Z"`, with its quotes. Times before 1970 and after 9999 count as the nearest that can be written.
    pub(crate) fn push(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        // 9999-12-31T23:59:59Z
        const LAST: u64 = 253_402_300_799;
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let second = since.as_secs().min(LAST);
        if second != self.second {
            self.turn(second);
        }
        let mut text = *b"\"1970-01-01T00:00:00.000000Z\"";
        text[1..21].copy_from_slice(&self.text);
        let mut micros = since.subsec_micros();
        for digit in text[21..27].iter_mut().rev() {
            *digit = b'0' + (micros % 10) as u8;
            micros /= 10;
        }
        out.extend_from_slice(&text);
    }

    fn turn(&mut self, second: u64) {
        let moment = OffsetDateTime::from_unix_timestamp(second as i64)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let year = moment.year().unsigned_abs();
        let pairs = [
            (0, (year / 100) as u8),
            (2, (year % 100) as u8),
            (5, moment.month().into()),
            (8, moment.day()),
            (11, moment.hour()),
            (14, moment.minute()),
            (17, moment.second()),
        ];
        for (at, value) in pairs {
            self.text[at] = b'0' + value / 10;
            self.text[at + 1] = b'0' + value % 10;
        }
        self.second = second;
    }
}

/// `time` without quotes.
pub(crate) fn text(time: SystemTime) -> String {
    let mut out = Vec::with_capacity(29);
    Stamp::default().push(&mut out, time);
    String::from_utf8_lossy(&out[1..out.len() - 1]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_what_the_calendar_says() {
        let mut stamp = Stamp::default();
        let mut check = |seconds: u64, nanos: u32, expected: &str| {
            let mut out = Vec::new();
            stamp.push(
                &mut out,
                SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos),
            );
            assert_eq!(String::from_utf8(out).unwrap(), format!("\"{expected}\""));
        };
        check(0, 0, "1970-01-01T00:00:00.000000Z");
        check(1_582_934_400, 1_999, "2020-02-29T00:00:00.000001Z");
        check(1_582_934_399, 999_999_999, "2020-02-28T23:59:59.999999Z");
        check(1_582_934_399, 5_000, "2020-02-28T23:59:59.000005Z");
        check(253_402_300_800, 0, "9999-12-31T23:59:59.000000Z");
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(text(before), "1970-01-01T00:00:00.000000Z");
    }
}
