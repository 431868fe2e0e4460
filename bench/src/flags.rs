//! Command line flags as tables: one row is the flag, its default and its line of help, so that help and parser cannot disagree.

use std::{collections::HashMap, fmt::Write, str::FromStr};

/// One flag. `placeholder` is empty for a switch, which takes no value.
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) placeholder: &'static str,
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
}

/// Flags under one heading of the help.
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) flags: &'static [Flag],
}

/// Why the command line was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlagError {
    #[error("unknown flag --{0}; see --help")]
    Unknown(String),
    #[error("unexpected argument `{0}`; see --help")]
    Unexpected(String),
    #[error("flag --{0} needs a value")]
    NoValue(&'static str),
    #[error("flag --{0} is a switch and takes no value")]
    Switch(&'static str),
    #[error("flag --{name}: `{value}` is not {expected}")]
    Invalid {
        name: &'static str,
        value: String,
        expected: &'static str,
    },
}

/// The values given, over the defaults of the tables.
pub(crate) struct Flags {
    groups: &'static [Group],
    given: HashMap<&'static str, String>,
    /// Arguments that are not flags, in order.
    pub(crate) positional: Vec<String>,
}

impl Flags {
    /// Parses `--name value` and `--name=value`. At most `positional` arguments may stand without a name.
    pub(crate) fn parse(
        arguments: impl IntoIterator<Item = String>,
        groups: &'static [Group],
        positional: usize,
    ) -> Result<Self, FlagError> {
        let mut flags = Self {
            groups,
            given: HashMap::new(),
            positional: Vec::new(),
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(body) = argument.strip_prefix("--") else {
                if flags.positional.len() == positional {
                    return Err(FlagError::Unexpected(argument));
                }
                flags.positional.push(argument);
                continue;
            };
            let (name, attached) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            let flag = flags
                .find(name)
                .ok_or_else(|| FlagError::Unknown(name.to_owned()))?;
            let value = match (flag.placeholder.is_empty(), attached) {
                (true, None) => "true".to_owned(),
                (true, Some(_)) => return Err(FlagError::Switch(flag.name)),
                (false, Some(value)) => value,
                (false, None) => arguments.next().ok_or(FlagError::NoValue(flag.name))?,
            };
            flags.given.insert(flag.name, value);
        }
        Ok(flags)
    }

    /// The value of a flag, or its default.
    pub(crate) fn text(&self, name: &'static str) -> &str {
        match self.given.get(name) {
            Some(value) => value,
            None => self.find(name).map_or("", |flag| flag.default),
        }
    }

    /// The value, or nothing when it is empty.
    pub(crate) fn optional(&self, name: &'static str) -> Option<&str> {
        Some(self.text(name)).filter(|value| !value.is_empty())
    }

    /// Whether a switch was given.
    pub(crate) fn switch(&self, name: &'static str) -> bool {
        self.given.contains_key(name)
    }

    /// A number within `least..`.
    pub(crate) fn number<T: FromStr + PartialOrd>(
        &self,
        name: &'static str,
        least: T,
        expected: &'static str,
    ) -> Result<T, FlagError> {
        let value = self.text(name);
        match value.parse::<T>() {
            Ok(number) if number >= least => Ok(number),
            _ => Err(FlagError::Invalid {
                name,
                value: value.to_owned(),
                expected,
            }),
        }
    }

    fn find(&self, name: &str) -> Option<&'static Flag> {
        self.groups
            .iter()
            .flat_map(|group| group.flags)
            .find(|flag| flag.name == name)
    }
}

/// The help text of some groups, one line a flag.
pub(crate) fn help(groups: &[Group]) -> String {
    let mut text = String::new();
    for group in groups {
        let _ = writeln!(text, "\n{}:", group.title);
        for flag in group.flags {
            let head = if flag.placeholder.is_empty() {
                format!("--{}", flag.name)
            } else {
                format!("--{} {}", flag.name, flag.placeholder)
            };
            let default = if flag.default.is_empty() {
                String::new()
            } else {
                format!(" [{}]", flag.default)
            };
            let _ = writeln!(text, "  {head:<32} {}{default}", flag.help);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &[Group] = &[Group {
        title: "Flags",
        flags: &[
            Flag {
                name: "seconds",
                placeholder: "S",
                default: "3",
                help: "how long",
            },
            Flag {
                name: "json",
                placeholder: "",
                default: "",
                help: "as JSON",
            },
        ],
    }];

    fn parse(line: &str) -> Result<Flags, FlagError> {
        Flags::parse(line.split_whitespace().map(str::to_owned), GROUPS, 1)
    }

    #[test]
    fn both_spellings_defaults_and_switches() -> Result<(), FlagError> {
        for line in ["put --seconds 7 --json", "--seconds=7 put --json"] {
            let flags = parse(line)?;
            assert_eq!(flags.number::<u64>("seconds", 1, "a number")?, 7);
            assert!(flags.switch("json"));
            assert_eq!(flags.positional, ["put"]);
        }
        assert_eq!(parse("")?.number::<u64>("seconds", 1, "a number")?, 3);
        Ok(())
    }

    #[test]
    fn wrong_lines_are_refused() {
        assert!(matches!(parse("--secs 1"), Err(FlagError::Unknown(_))));
        assert!(matches!(parse("--seconds"), Err(FlagError::NoValue(_))));
        assert!(matches!(parse("--json=1"), Err(FlagError::Switch(_))));
        assert!(matches!(parse("put get"), Err(FlagError::Unexpected(_))));
        let flags = parse("--seconds 0").ok();
        assert!(
            flags
                .and_then(|flags| flags.number::<u64>("seconds", 1, "a number").ok())
                .is_none()
        );
    }

    #[test]
    fn help_names_every_flag() {
        let text = help(GROUPS);
        assert!(text.contains("--seconds S") && text.contains("[3]") && text.contains("--json"));
    }
}
