//! One event as one line.

use super::Severity;
use holdfast_config::LogFormat;
use std::error::Error;
use std::fmt::{self, Debug, Write};
use std::time::SystemTime;
use time::OffsetDateTime;
use tracing::Metadata;
use tracing::field::{Field, Visit};

/// Longest text of one field in bytes, before escaping: keys of etcd's clients may be as long as a request.
const TEXT_BYTES_MAX: usize = 8 << 10;

/// A line in the making: the message comes first in the line, but not always first in the event.
pub(super) struct Line {
    format: LogFormat,
    /// Level, time and caller.
    head: String,
    message: String,
    /// Each with a comma before it.
    fields: String,
}

impl Line {
    pub(super) fn begin(
        format: LogFormat,
        level: Severity,
        at: SystemTime,
        metadata: &Metadata<'_>,
    ) -> Line {
        let mut head = String::with_capacity(256);
        let place = Place {
            file: metadata.file(),
            line: metadata.line(),
        };
        // Writing to a String cannot fail, here and below.
        let _ = match format {
            LogFormat::Json => write!(
                head,
                r#"{{"level":"{}","ts":"{}","caller":"{}","#,
                level.as_str(),
                Timestamp(at),
                JsonText(&place.to_string()),
            ),
            LogFormat::Console => write!(head, "{}\t{}\t{place}\t", Timestamp(at), level.as_str()),
        };
        Line {
            format,
            head,
            message: String::new(),
            fields: String::new(),
        }
    }

    pub(super) fn end(self) -> String {
        let Line {
            format,
            mut head,
            message,
            fields,
        } = self;
        match format {
            LogFormat::Json => {
                head.push_str(r#""msg":""#);
                head.push_str(&message);
                head.push('"');
                head.push_str(&fields);
                head.push_str("}\n");
            }
            LogFormat::Console => {
                head.push_str(&message);
                if let Some(fields) = fields.strip_prefix(',') {
                    let _ = write!(head, "\t{{{fields}}}");
                }
                head.push('\n');
            }
        }
        head
    }

    fn name(&mut self, field: &Field) {
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        let _ = write!(self.fields, r#","{}":"#, JsonText(name));
    }

    fn text(&mut self, field: &Field, text: fmt::Arguments<'_>) {
        if field.name() == "message" {
            let _ = Escaping::new(&mut self.message).write_fmt(text);
        } else {
            self.name(field);
            self.fields.push('"');
            let _ = Escaping::new(&mut self.fields).write_fmt(text);
            self.fields.push('"');
        }
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        if field.name() == "message" {
            self.text(field, format_args!("{value}"));
            return;
        }
        self.name(field);
        let _ = write!(self.fields, "{value}");
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinities.
        if value.is_finite() {
            self.plain(field, value);
        } else {
            self.text(field, format_args!("{value}"));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.text(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, format_args!("{value:?}"));
    }
}

/// Writes text as the inside of a JSON string, escaped and cut to [`TEXT_BYTES_MAX`].
struct Escaping<'a> {
    into: &'a mut String,
    left: usize,
    cut: bool,
}

impl Escaping<'_> {
    fn new(into: &mut String) -> Escaping<'_> {
        Escaping {
            into,
            left: TEXT_BYTES_MAX,
            cut: false,
        }
    }
}

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.cut {
                return Ok(());
            }
            let Some(left) = self.left.checked_sub(c.len_utf8()) else {
                self.cut = true;
                self.into.push_str("… (cut)");
                return Ok(());
            };
            self.left = left;
            match c {
                '"' => self.into.push_str("\\\""),
                '\\' => self.into.push_str("\\\\"),
                '\n' => self.into.push_str("\\n"),
                '\r' => self.into.push_str("\\r"),
                '\t' => self.into.push_str("\\t"),
                // Control characters, those of terminals beyond ASCII included, and the line ends of Unicode.
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                    write!(self.into, "\\u{:04x}", u32::from(c))?;
                }
                c => self.into.push(c),
            }
        }
        Ok(())
    }
}

struct JsonText<'a>(&'a str);

impl fmt::Display for JsonText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut escaped = String::new();
        Escaping::new(&mut escaped).write_str(self.0)?;
        f.write_str(&escaped)
    }
}

/// `server/serve.rs:42`: the last directory that is not `src`, and the file, as zap has package and file.
struct Place<'a> {
    file: Option<&'a str>,
    line: Option<u32>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(file) = self.file else {
            return f.write_str("undefined");
        };
        let mut parts = file.rsplit(['/', '\\']).filter(|part| *part != "src");
        let name = parts.next().unwrap_or_default();
        if let Some(directory) = parts.next() {
            write!(f, "{directory}/")?;
        }
        write!(f, "{name}:{}", self.line.unwrap_or_default())
    }
}

/// `2026-01-02T15:04:05.999999Z`.
struct Timestamp(SystemTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = OffsetDateTime::from(self.0);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.microsecond()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_have_six_digits_and_places_two_parts() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_767_366_245_000_009);
        assert_eq!(Timestamp(at).to_string(), "2026-01-02T15:04:05.000009Z");
        for (file, place) in [
            ("server/src/serve.rs", "server/serve.rs:42"),
            ("server/src/grpc/kv.rs", "grpc/kv.rs:42"),
            ("/a/b/src/main.rs", "b/main.rs:42"),
            ("main.rs", "main.rs:42"),
        ] {
            let line = Some(42);
            let shown = Place {
                file: Some(file),
                line,
            };
            assert_eq!(shown.to_string(), place);
        }
    }
}
