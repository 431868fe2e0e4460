//! Points in time for people.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Unix seconds as `2026-01-31T23:59:59Z`. What has no such form (before the year 0, after 9999) stays a number.
pub(super) fn text(unix_seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix_seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| unix_seconds.to_string())
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn every_number_has_a_form() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (253_402_300_800, "253402300800"),
            (-62_167_219_201, "-62167219201"),
            (i64::MAX, "9223372036854775807"),
        ] {
            assert_eq!(text(seconds), expected);
        }
    }
}
