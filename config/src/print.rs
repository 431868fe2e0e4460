//! The texts of `--help` and `--print-config`.

use std::fmt::Write;

use crate::settings::Settings;
use crate::table::{Key, Kind, ROWS, Row, Section, Standing};

const USAGE: &str = "\
Usage:

  holdfast                   the quick start: makes certificates and data in ./holdfast-data, and serves on localhost
  holdfast [flags]           serve as an etcd with these flags would
  holdfast --print-config    show what would be used, and why
  holdfast --version | --help

Every flag below may be given as -x, --x=value or --x value, as a variable (ETCD_FOO_BAR for --foo-bar, HOLDFAST_FOO_BAR in the
sections called Holdfast), or as a key in the file that --config-file names. Flags win over variables, variables over the file.
";

/// The usage text: every flag by section, with default, meaning, and what is not used here.
pub(crate) fn help() -> String {
    let mut text = USAGE.to_owned();
    for section in Section::ALL {
        text.push_str(&format!("\n{}:\n", section.title()));
        for row in ROWS.iter().filter(|row| row.section == section) {
            help_row(&mut text, row);
        }
    }
    text
}

fn help_row(text: &mut String, row: &Row) {
    // Writing to a String cannot fail, so the results carry nothing.
    let _ = match row.kind {
        Kind::Anything => writeln!(text, "  --{}", row.name),
        _ => writeln!(text, "  --{} '{}'", row.name, row.default),
    };
    let _ = write!(text, "    {}", row.help);
    if let Kind::Choice(choices) = row.kind {
        let shown: Vec<_> = choices
            .iter()
            .copied()
            .filter(|choice| !choice.is_empty())
            .collect();
        let _ = write!(text, " One of {}.", shown.join(", "));
    }
    if !row.unit.is_empty() {
        let _ = write!(text, " In {}.", row.unit);
    }
    if let Some(strict) = row.strict {
        let _ = write!(text, " In profile strict the default is '{strict}'.");
    }
    match row.standing {
        Standing::Ignored(why) | Standing::Fixed(_, why) if !why.is_empty() => {
            let _ = write!(text, " Accepted, without effect: {why}.");
        }
        Standing::Refused(_, why) => {
            let _ = write!(text, " Not supported: {why}.");
        }
        _ => {}
    }
    for older in row.older {
        let _ = write!(text, " Also --{older}.");
    }
    text.push('\n');
}

/// Every value that applies, and every value that was given, each with its origin.
pub(crate) fn values(settings: &Settings, notices: &[String]) -> String {
    let shown =
        |key: &&Key| settings.is_given(**key) || matches!(key.row().standing, Standing::Applies);
    let rows: Vec<_> = Key::ALL
        .iter()
        .filter(shown)
        .map(|key| {
            (
                key.row().name,
                one_line(settings.text(*key)),
                one_line(&settings.origin(*key).to_string()),
            )
        })
        .collect();
    let name_width = rows
        .iter()
        .map(|(name, ..)| name.chars().count())
        .max()
        .unwrap_or(0);
    // One long value must not push every origin out of sight.
    let value_width = rows
        .iter()
        .map(|(_, value, _)| value.chars().count())
        .max()
        .unwrap_or(0)
        .min(40);
    let mut text = String::new();
    for (name, value, origin) in rows {
        let _ = writeln!(text, "{name:name_width$}  {value:value_width$}  # {origin}");
    }
    for notice in notices {
        let _ = writeln!(text, "# notice: {}", one_line(notice));
    }
    text
}

/// Control characters in a foreign value must not forge further lines.
fn one_line(text: &str) -> String {
    if text.is_empty() {
        return "\"\"".to_owned();
    }
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}
