//! The comparison for people.

use super::{
    Mode,
    cases::{Against, Case},
    results::{Results, against, bound},
};
use crate::server_process::Kind;
use std::fmt::Write;

/// Versions and conditions.
pub(super) fn head(results: &Results) -> String {
    let mut text = String::new();
    for (kind, version) in &results.versions {
        let _ = writeln!(text, "{:<10} {version}", kind.name());
    }
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let _ = writeln!(
        text,
        "{processors} processors shared with the client; medians of {} rounds of {} s, interleaved",
        results.rounds, results.seconds
    );
    text
}

/// The medians of one case.
pub(super) fn case(results: &Results, case: &Case, mode: Mode) -> String {
    let mut text = format!(
        "\n{:<34}{:>12}{:>12}{:>12}{:>10}{:>10}\n",
        format!("{} {}", case.name, mode.name()),
        "etcd",
        "holdfast",
        "noop",
        "to etcd",
        "to noop"
    );
    for figure in case.shown {
        let _ = write!(text, "  {:<32}", figure.name());
        for kind in [Kind::Etcd, Kind::Holdfast, Kind::Noop] {
            let value = results.median(case.name, mode, kind, *figure);
            let _ = write!(text, "{:>12}", number(value));
        }
        for other in [Kind::Etcd, Kind::Noop] {
            let ratio = results.ratio(case.name, mode, other, *figure);
            let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}×"));
            let _ = write!(text, "{ratio:>10}");
        }
        text.push('\n');
    }
    text
}

/// Every target, reached or missed, and what failed.
pub(super) fn verdicts(results: &Results) -> String {
    let mut text = String::new();
    let verdicts = results.verdicts();
    if !verdicts.is_empty() {
        text.push_str("\nTargets\n");
    }
    for verdict in &verdicts {
        let target = &verdict.target;
        let wanted = if target.against == Against::Nothing {
            format!("{} {}", bound(target.bound), verdict.limit)
        } else {
            format!(
                "{} {:.2}× {}",
                bound(target.bound),
                verdict.limit,
                against(target.against)
            )
        };
        let _ = writeln!(
            text,
            "  {} {:<28}{:<24}{:<28}{:>10.2}",
            if verdict.pass { "pass" } else { "MISS" },
            format!("{} {}", verdict.case.name, verdict.mode.name()),
            target.figure.name(),
            wanted,
            verdict.value
        );
    }
    let missed = verdicts.iter().filter(|verdict| !verdict.pass).count();
    if !verdicts.is_empty() {
        let _ = writeln!(text, "{missed} of {} targets missed", verdicts.len());
    }
    for failure in results.failures() {
        let _ = writeln!(text, "FAILED: {failure}");
    }
    text
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
    }
}
