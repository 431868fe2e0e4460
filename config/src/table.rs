//! The one list of settings. Flag parsing, variable names, file keys, `--help` and `--print-config` are derived from it.

mod rows;

pub(crate) use rows::{Key, ROWS};

use std::time::Duration;

use crate::feature::Feature;
use crate::url::ListenUrl;
use crate::value::{parse_bool, parse_duration, parse_int};

/// One setting.
#[derive(Debug)]
pub(crate) struct Row {
    /// The flag's name without dashes; the file key too, unless `file_keys` says otherwise.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// As it would be written on the command line; empty for "not set".
    pub(crate) default: &'static str,
    /// The default in profile `strict`, where it is another one.
    pub(crate) strict: Option<&'static str>,
    /// What a bare number counts, for the help text; empty where the value is not a bare number.
    pub(crate) unit: &'static str,
    pub(crate) help: &'static str,
    pub(crate) section: Section,
    /// Names of older etcd releases for the same setting.
    pub(crate) older: &'static [&'static str],
    /// `section/key` in the file, where it is not the flag's name on the top level.
    pub(crate) file_keys: &'static [&'static str],
    /// Whether etcd has it. Decides the variable's prefix, and whether giving it ends the quick start.
    pub(crate) etcd: bool,
    pub(crate) standing: Standing,
}

/// What a value looks like; ranges are inclusive.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// `--x`, `--x=true`, `--x=false`; never takes the next argument.
    Bool,
    /// Syntax of a boolean, any value: etcd's own ignored flags.
    Anything,
    Text,
    Choice(&'static [&'static str]),
    Int(i64, i64),
    /// A Go duration within these bounds, in milliseconds.
    Time(u64, u64),
    /// Comma-separated.
    List,
    /// URLs to bind.
    ListenUrls,
    /// URLs that clients dial.
    DialUrls,
    /// URLs to bind for other members, TCP alone.
    PeerListenUrls,
    /// URLs that other members dial, TCP alone.
    PeerUrls,
}

/// What a setting does here.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Standing {
    Applies,
    /// A switch of an older release for what is now a feature gate.
    Gate(Feature),
    /// Accepted, has no effect, and the log says so with this reason.
    Ignored(&'static str),
    /// What we do is fixed; these values agree with it and are taken silently, others are ignored with this reason.
    Fixed(&'static [&'static str], &'static str),
    /// Ignoring it would be unsafe; only these values are taken, others refused with this reason.
    Refused(&'static [&'static str], &'static str),
    /// About this run of the program, not about the server, so no key of the file; a variable only if this says so.
    Command {
        variable: bool,
    },
}

/// Headings of the help text, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Command,
    Holdfast,
    Users,
    Audit,
    Member,
    Clustering,
    Security,
    Auth,
    Monitoring,
    Logging,
    Tracing,
    Maintenance,
    Unsafe,
    Older,
}

impl Section {
    pub(crate) const ALL: [Self; 14] = [
        Self::Command,
        Self::Holdfast,
        Self::Users,
        Self::Audit,
        Self::Member,
        Self::Clustering,
        Self::Security,
        Self::Auth,
        Self::Monitoring,
        Self::Logging,
        Self::Tracing,
        Self::Maintenance,
        Self::Unsafe,
        Self::Older,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Command => "Command",
            Self::Holdfast => "Holdfast",
            Self::Users => "Holdfast: users",
            Self::Audit => "Holdfast: audit",
            Self::Member => "Member",
            Self::Clustering => "Clustering",
            Self::Security => "Security",
            Self::Auth => "Auth",
            Self::Monitoring => "Profiling and monitoring",
            Self::Logging => "Logging",
            Self::Tracing => "Distributed tracing",
            Self::Maintenance => "Maintenance and features",
            Self::Unsafe => "Unsafe",
            Self::Older => "Of older etcd releases",
        }
    }
}

impl Row {
    const fn new(
        section: Section,
        name: &'static str,
        kind: Kind,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            default,
            strict: None,
            unit: "",
            help,
            section,
            older: &[],
            file_keys: &[],
            etcd: !matches!(section, Section::Holdfast | Section::Users | Section::Audit),
            standing: if matches!(section, Section::Command) {
                Standing::Command { variable: false }
            } else {
                Standing::Applies
            },
        }
    }

    /// The default in profile `strict`.
    const fn strict(self, default: &'static str) -> Self {
        Self {
            strict: Some(default),
            ..self
        }
    }

    const fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    const fn older(self, older: &'static [&'static str]) -> Self {
        Self { older, ..self }
    }

    const fn file(self, file_keys: &'static [&'static str]) -> Self {
        Self { file_keys, ..self }
    }

    const fn standing(self, standing: Standing) -> Self {
        Self { standing, ..self }
    }

    /// Whether the flag stands without a value, so that it must not take the next argument.
    pub(crate) fn is_switch(&self) -> bool {
        matches!(self.kind, Kind::Bool | Kind::Anything)
    }

    /// The names of the environment variable, the current one first.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (String, Option<&'static str>)> {
        let prefix = if self.etcd { "ETCD_" } else { "HOLDFAST_" };
        let variable =
            move |name: &str| format!("{prefix}{}", name.to_ascii_uppercase().replace('-', "_"));
        let given_there = !matches!(self.standing, Standing::Command { variable: false });
        let current = given_there.then(|| (variable(self.name), None));
        current.into_iter().chain(
            self.older
                .iter()
                .map(move |older| (variable(older), Some(*older))),
        )
    }

    /// The paths of the key in the file, the current one first.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
        let given_there = !matches!(self.standing, Standing::Command { .. });
        let nested = self.file_keys.iter().map(|key| (*key, None));
        let top = (self.file_keys.is_empty() && given_there).then_some((self.name, None));
        nested
            .chain(top)
            .chain(self.older.iter().map(|older| (*older, Some(*older))))
    }

    /// The URLs of a value.
    pub(crate) fn urls(&self, value: &str) -> Result<Vec<ListenUrl>, String> {
        match self.kind {
            Kind::ListenUrls => ListenUrl::parse_listen_list(value),
            Kind::PeerListenUrls => ListenUrl::parse_peer_listen_list(value),
            Kind::PeerUrls => ListenUrl::parse_peer_list(value),
            _ => ListenUrl::parse_list(value),
        }
    }

    /// Checks a value by itself: syntax and range.
    pub(crate) fn check(&self, value: &str) -> Result<(), String> {
        match self.kind {
            Kind::Bool => parse_bool(value).map(drop),
            Kind::Choice(choices) if choices.contains(&value) => Ok(()),
            Kind::Choice(choices) => {
                let shown: Vec<_> = choices
                    .iter()
                    .map(|c| if c.is_empty() { "\"\"" } else { c })
                    .collect();
                Err(format!("expected one of {}", shown.join(", ")))
            }
            Kind::Int(min, max) => match parse_int(value)? {
                number if (min..=max).contains(&number) => Ok(()),
                _ => Err(format!("the number must be from {min} to {max}")),
            },
            Kind::Time(min_ms, max_ms) => {
                let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(max_ms));
                match parse_duration(value)? {
                    time if (min..=max).contains(&time) => Ok(()),
                    _ => Err(format!(
                        "the duration must be from {min:?} to {}",
                        shown_hours(max)
                    )),
                }
            }
            Kind::ListenUrls | Kind::DialUrls | Kind::PeerListenUrls | Kind::PeerUrls => {
                self.urls(value).map(drop)
            }
            Kind::Anything | Kind::Text | Kind::List => Ok(()),
        }
    }
}

fn shown_hours(time: Duration) -> String {
    if time.as_secs() >= 3600 {
        format!("{}h", time.as_secs() / 3600)
    } else {
        format!("{time:?}")
    }
}

impl Key {
    pub(crate) fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// The setting with this flag name, and the older name if it was called by that.
    pub(crate) fn by_flag(name: &str) -> Option<(Self, Option<&'static str>)> {
        Self::ALL.iter().find_map(|key| {
            let row = key.row();
            if row.name == name {
                return Some((*key, None));
            }
            row.older
                .iter()
                .find(|older| **older == name)
                .map(|older| (*key, Some(*older)))
        })
    }

    /// Every flag name, older ones too.
    pub(crate) fn flag_names() -> impl Iterator<Item = &'static str> {
        ROWS.iter()
            .flat_map(|row| std::iter::once(row.name).chain(row.older.iter().copied()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_defaults_are_valid() {
        let mut names = HashSet::new();
        for name in Key::flag_names() {
            assert!(names.insert(name), "{name} twice");
        }
        let mut keys = HashSet::new();
        for (key, _) in ROWS.iter().flat_map(Row::keys) {
            assert!(keys.insert(key), "{key} twice");
        }
        for row in ROWS {
            assert!(
                !row.help.is_empty() && row.help.ends_with('.'),
                "--{}: help",
                row.name
            );
            let defaults = [Some(row.default), row.strict].into_iter().flatten();
            for default in defaults.filter(|default| !default.is_empty()) {
                row.check(default)
                    .unwrap_or_else(|reason| panic!("--{}: {reason}", row.name));
            }
        }
    }
}
