//! What was found in the files of an audit log.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use holdfast_audit::read::Report;

use super::go_json::{self, Object};

/// A log and what verifying it brought.
#[derive(Debug)]
pub struct Verified {
    /// Its current file.
    pub log: PathBuf,
    /// What was found.
    pub report: Report,
}

impl Verified {
    /// Whether every line is in the chain, under a checkpoint, and signed by a key that was known before.
    pub fn is_proven(&self) -> bool {
        let report = &self.report;
        report.is_trusted
            && report.last_checkpoint.is_some()
            && report.is_intact()
            && report.more_problems == 0
            && report.unsigned_blocks == 0
            && report.unsealed_lines == 0
    }
}

pub(super) fn print(logs: &[Verified], out: &mut Vec<u8>) -> io::Result<()> {
    for verified in logs {
        let report = &verified.report;
        for problem in &report.problems {
            writeln!(out, "{}", printable(&problem.to_string()))?;
        }
        if report.more_problems > 0 {
            writeln!(out, "and {} more problems", report.more_problems)?;
        }
        let found = if verified.is_proven() {
            "proven"
        } else {
            "NOT PROVEN"
        };
        let log = verified.log.display().to_string();
        writeln!(out, "{}: {found}", printable(&log))?;
        writeln!(
            out,
            "  {} files, {} lines, {} records, {} records lost before they were written",
            report.files, report.lines, report.records, report.lost
        )?;
        if let (Some(first), Some(last)) = (&report.first_time, &report.last_time) {
            writeln!(out, "  from {first} to {last}")?;
        }
        writeln!(
            out,
            "  {} blocks, {} checkpoints",
            report.seals, report.checkpoints
        )?;
        if let Some(first) = report.first.filter(|first| first.seq > 0) {
            writeln!(
                out,
                "  begins after block {first}; older files are not here"
            )?;
        }
        for key in &report.keys {
            writeln!(out, "  signed by {key}")?;
        }
        if !report.is_trusted {
            writeln!(
                out,
                "  nothing but the files says that these keys are the right ones; --public-key would"
            )?;
        }
        if report.unsigned_blocks > 0 || report.unsealed_lines > 0 {
            writeln!(
                out,
                "  {} blocks and {} lines after the last checkpoint are not signed yet",
                report.unsigned_blocks, report.unsealed_lines
            )?;
        }
        if let Some(checkpoint) = &report.last_checkpoint {
            writeln!(out, "  last checkpoint {checkpoint}")?;
        }
    }
    Ok(())
}

/// Text in which nothing speaks to the terminal: a file that was tampered with may try.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

pub(super) fn json(verified: &Verified, out: &mut Vec<u8>) {
    go_json::object(out, |o| fill(verified, o));
}

fn fill(verified: &Verified, o: &mut Object<'_>) {
    let report = &verified.report;
    o.text("log", &verified.log.to_string_lossy());
    o.number("proven", verified.is_proven());
    o.number("files", report.files);
    o.number("lines", report.lines);
    o.number("records", report.records);
    o.number("lost", report.lost);
    o.number("seals", report.seals);
    o.number("checkpoints", report.checkpoints);
    for (name, position) in [
        ("first", &report.first),
        ("last", &report.last),
        ("last_checkpoint", &report.last_checkpoint),
    ] {
        if let Some(position) = position {
            o.text(name, &position.to_string());
        }
    }
    for (name, time) in [
        ("first_time", &report.first_time),
        ("last_time", &report.last_time),
    ] {
        o.text_unless_empty(name, time.as_deref().unwrap_or_default());
    }
    let keys: Vec<String> = report.keys.iter().map(ToString::to_string).collect();
    o.array("keys", &keys, |key, out| go_json::string(key, out));
    o.number("trusted", report.is_trusted);
    o.number("unsigned_blocks", report.unsigned_blocks);
    o.number("unsealed_lines", report.unsealed_lines);
    o.array("problems", &report.problems, |problem, out| {
        go_json::object(out, |o| {
            o.text("file", &problem.file.to_string_lossy());
            o.number("line", problem.line);
            o.number("offset", problem.offset);
            o.text("what", &problem.what);
        });
    });
    o.number("more_problems", report.more_problems);
}

#[cfg(test)]
mod tests {
    use holdfast_audit::read::Problem;

    use super::*;

    #[test]
    fn a_report_leaves_the_terminal_alone() {
        let problem = Problem {
            file: "a\u{1b}[2J.log".into(),
            line: 7,
            offset: 9,
            what: "signed by \u{9b}31m\r\u{1b}c".to_owned(),
        };
        let verified = Verified {
            log: "a\u{1b}[2J.log".into(),
            report: Report {
                problems: vec![problem],
                ..Report::default()
            },
        };
        let mut out = Vec::new();
        print(&[verified], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
        assert!(text.starts_with("a\\u{1b}[2J.log:7 "), "{text}");
    }
}
