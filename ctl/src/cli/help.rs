//! Texts of `--help`, `options` and `version`.

use std::fmt::Write;

use super::spec::{Command, Flag, GLOBAL_FLAGS, Kind};

/// The release of the etcd API that this client speaks.
const API_VERSION: &str = "3.7";

pub(super) fn version() -> String {
    format!(
        "holdfastctl version: {}\nAPI version: {API_VERSION}\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// The help of the last command of `path`, which starts at the root.
pub(super) fn command(path: &[&'static Command]) -> String {
    let Some(command) = path.last() else {
        return String::new();
    };
    let names: Vec<&str> = path.iter().map(|command| command.name).collect();
    let name = names.join(" ");
    let mut text = format!("{}\n\nUsage:\n", command.about);
    // Writing into a String cannot fail; the same holds below.
    if command.children.is_empty() {
        let _ = writeln!(
            text,
            "  {} [flags]",
            [&name, command.usage].join(" ").trim_end()
        );
    } else {
        let _ = writeln!(text, "  {name} [command]");
        let _ = writeln!(text, "\nCommands:");
        let width = command
            .children
            .iter()
            .map(|child| child.name.len())
            .max()
            .unwrap_or(0);
        for child in command.children {
            let first = child.about.lines().next().unwrap_or_default();
            let _ = writeln!(text, "  {:width$}  {first}", child.name);
        }
    }
    if !command.flags.is_empty() {
        text.push_str("\nFlags:\n");
        flags(&mut text, command.flags);
    }
    if path.len() == 1 {
        text.push_str("\nGlobal flags (may stand anywhere):\n");
        flags(&mut text, GLOBAL_FLAGS);
        text.push_str(ENVIRONMENT);
    } else {
        let _ = writeln!(
            text,
            "\n\"{} options\" lists the global flags.",
            path[0].name
        );
    }
    text
}

/// The list of global flags.
pub(super) fn options() -> String {
    let mut text = "Every command takes these flags:\n\n".to_owned();
    flags(&mut text, GLOBAL_FLAGS);
    text.push_str(ENVIRONMENT);
    text
}

const ENVIRONMENT: &str = "
A global flag that is not given is read from the environment: ETCDCTL_ and its name in capitals, with _ for -
(ETCDCTL_ENDPOINTS, ETCDCTL_WRITE_OUT). A flag wins over its variable. Durations are written as 300ms, 5s, 1m30s.
";

fn flags(text: &mut String, flags: &[Flag]) {
    let heads: Vec<String> = flags.iter().map(head).collect();
    let width = heads.iter().map(String::len).max().unwrap_or(0);
    for (head, flag) in heads.iter().zip(flags) {
        let _ = write!(text, "  {head:width$}  {}", flag.about);
        match (flag.kind, flag.default) {
            (_, "" | "false") | (Kind::Int, "0") | (Kind::Duration, "0s") => {}
            (_, default) => {
                let _ = write!(text, " (default {default})");
            }
        }
        text.push('\n');
    }
}

fn head(flag: &Flag) -> String {
    let short = match flag.short {
        Some(letter) => format!("-{letter}, "),
        None => "    ".to_owned(),
    };
    let kind = match flag.kind {
        Kind::Bool => "",
        Kind::Int => " int",
        Kind::Text | Kind::Secret => " string",
        Kind::List => " strings",
        Kind::Duration => " duration",
    };
    format!("{short}--{}{kind}", flag.name)
}
