//! Reads flags and words as etcdctl's flag library does: long flags with two dashes, short ones with one, a value after `=` or
//! in the next argument, and flags anywhere before `--`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::spec::{Command, Flag, Kind};
use crate::{
    Exit, Failure,
    go_syntax::{parse_bool, parse_duration, parse_int, quote},
};

/// A command line taken apart.
pub(crate) struct Read {
    /// The commands that were named, from the root on; never empty.
    pub(crate) path: Vec<&'static Command>,
    values: BTreeMap<&'static str, String>,
    given: BTreeSet<&'static str>,
    positional: Vec<Vec<u8>>,
    dashes: Option<usize>,
}

impl fmt::Debug for Read {
    /// Names the commands and flags only: values and words may be passwords, or hold one as in `user add name:password`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path: Vec<&str> = self.path.iter().map(|command| command.name).collect();
        f.debug_struct("Read")
            .field("path", &path)
            .field("given", &self.given)
            .field("positional", &self.positional.len())
            .finish_non_exhaustive()
    }
}

/// Reads `arguments` as words and flags of `root`, of the commands below it that they name, and of `globals`.
///
/// # Errors
///
/// An unknown command or flag, or a flag value of the wrong kind; all end in exit code 1.
pub(crate) fn read(
    root: &'static Command,
    globals: &'static [Flag],
    arguments: &[Vec<u8>],
) -> Result<Read, Failure> {
    let mut line = Read {
        path: vec![root],
        values: BTreeMap::new(),
        given: BTreeSet::new(),
        positional: Vec::new(),
        dashes: None,
    };
    line.add_defaults(globals);
    line.add_defaults(root.flags);
    line.consume(globals, arguments)
        .map_err(|text| Failure::new(Exit::Error, line.with_hint(&text)))?;
    Ok(line)
}

impl Read {
    /// The command that was named last.
    pub(crate) fn command(&self) -> &'static Command {
        // The path starts with the root and only grows.
        self.path.last().copied().unwrap_or(&super::spec::ROOT)
    }

    /// All words that are no flags, those behind `--` included.
    pub(crate) fn positional(&self) -> &[Vec<u8>] {
        &self.positional
    }

    /// The words before `--`, and those behind it if there is one.
    pub(crate) fn around_dashes(&self) -> (&[Vec<u8>], Option<&[Vec<u8>]>) {
        match self.dashes {
            Some(at) => {
                let (before, after) = self.positional.split_at(at);
                (before, Some(after))
            }
            None => (&self.positional, None),
        }
    }

    /// The text of a flag: given, or its default.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// A boolean flag. Values were checked when they were set, here and below.
    pub(crate) fn flag(&self, name: &str) -> bool {
        parse_bool(self.text(name)).unwrap_or_default()
    }

    /// An integer flag.
    pub(crate) fn int(&self, name: &str) -> i64 {
        parse_int(self.text(name), 10).unwrap_or_default()
    }

    /// A duration flag.
    pub(crate) fn duration(&self, name: &str) -> std::time::Duration {
        parse_duration(self.text(name)).unwrap_or_default()
    }

    /// Whether the flag was given, on the command line or by its variable.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.given.contains(name)
    }

    /// Sets the flags that were not given from the `ETCDCTL_*` variables; an empty variable is none.
    ///
    /// # Errors
    ///
    /// A value that the flag does not take.
    pub(crate) fn fill_from_environment(
        &mut self,
        flags: &'static [Flag],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<(), Failure> {
        for flag in flags.iter().filter(|flag| !is_about_program(flag)) {
            if self.is_given(flag.name) {
                continue;
            }
            let variable = variable(flag.name);
            if let Some(value) = environment(&variable).filter(|value| !value.is_empty()) {
                check(flag, &value).map_err(|reason| {
                    super::bad_arguments(format!(
                        "invalid value {} for {variable}: {reason}",
                        quote(value.as_bytes())
                    ))
                })?;
                self.set(flag, value);
            }
        }
        Ok(())
    }

    /// The global flags as variables, secrets left out: what `--debug` shows.
    pub(crate) fn describe_globals(&self) -> String {
        let shown = super::spec::GLOBAL_FLAGS
            .iter()
            .filter(|flag| !is_about_program(flag));
        shown
            .map(|flag| {
                let value = match (flag.name, self.text(flag.name)) {
                    ("user", user) => user.split(':').next().unwrap_or_default(),
                    (_, secret) if flag.kind == Kind::Secret && !secret.is_empty() => "***",
                    (_, value) => value,
                };
                format!("{}={value}\n", variable(flag.name))
            })
            .collect()
    }

    fn add_defaults(&mut self, flags: &'static [Flag]) {
        for flag in flags {
            self.values.insert(flag.name, flag.default.to_owned());
        }
    }

    fn with_hint(&self, text: &str) -> String {
        let names: Vec<&str> = self.path.iter().map(|command| command.name).collect();
        format!("{text}\nRun '{} --help' for usage.", names.join(" "))
    }

    fn consume(&mut self, globals: &'static [Flag], arguments: &[Vec<u8>]) -> Result<(), String> {
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if argument == b"--" {
                self.dashes = Some(self.positional.len());
                self.positional.extend(rest.by_ref().cloned());
            } else if let Some(long) = argument.strip_prefix(b"--") {
                self.long_flag(globals, long, &mut rest)?;
            } else if argument.len() > 1 && argument.starts_with(b"-") {
                self.short_flags(globals, argument, &mut rest)?;
            } else if self.command().children.is_empty() {
                self.positional.push(argument.clone());
            } else {
                self.descend(argument)?;
            }
        }
        Ok(())
    }

    /// Goes to the child of that name, or to the only one whose name starts with it (`compact` is `compaction`).
    fn descend(&mut self, name: &[u8]) -> Result<(), String> {
        let children = self.command().children;
        let exact = children.iter().find(|child| child.name.as_bytes() == name);
        let mut matching = children
            .iter()
            .filter(|child| child.name.as_bytes().starts_with(name));
        let chosen = match (exact, matching.next(), matching.next()) {
            (Some(child), _, _) | (None, Some(child), None) => child,
            _ => {
                let names: Vec<&str> = self.path.iter().map(|command| command.name).collect();
                return Err(format!(
                    "unknown command {} for \"{}\"",
                    quote(name),
                    names.join(" ")
                ));
            }
        };
        self.path.push(chosen);
        self.add_defaults(chosen.flags);
        Ok(())
    }

    fn find(
        &self,
        globals: &'static [Flag],
        wanted: impl Fn(&Flag) -> bool,
    ) -> Option<&'static Flag> {
        let own = self.path.iter().rev().flat_map(|command| command.flags);
        own.chain(globals).find(|flag| wanted(flag))
    }

    fn long_flag(
        &mut self,
        globals: &'static [Flag],
        argument: &[u8],
        rest: &mut std::slice::Iter<'_, Vec<u8>>,
    ) -> Result<(), String> {
        let (name, value) = match argument.iter().position(|byte| *byte == b'=') {
            Some(at) => (&argument[..at], Some(&argument[at + 1..])),
            None => (argument, None),
        };
        let shown = String::from_utf8_lossy(name);
        let flag = self
            .find(globals, |flag| flag.name.as_bytes() == name)
            .ok_or_else(|| format!("unknown flag: --{shown}"))?;
        let value = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool) => b"true",
            (None, _) => rest
                .next()
                .ok_or_else(|| format!("flag needs an argument: --{shown}"))?,
        };
        self.take(flag, value)
    }

    fn short_flags(
        &mut self,
        globals: &'static [Flag],
        argument: &[u8],
        rest: &mut std::slice::Iter<'_, Vec<u8>>,
    ) -> Result<(), String> {
        let shown = String::from_utf8_lossy(argument).into_owned();
        let mut letters = &argument[1..];
        while let Some((letter, tail)) = letters.split_first() {
            let letter = char::from(*letter);
            let flag = self
                .find(globals, |flag| flag.short == Some(letter))
                .ok_or_else(|| format!("unknown shorthand flag: '{letter}' in {shown}"))?;
            let value = match tail.strip_prefix(b"=") {
                Some(value) => value,
                None if flag.kind == Kind::Bool => {
                    self.take(flag, b"true")?;
                    letters = tail;
                    continue;
                }
                None if !tail.is_empty() => tail,
                None => rest
                    .next()
                    .ok_or_else(|| format!("flag needs an argument: '{letter}' in {shown}"))?,
            };
            return self.take(flag, value);
        }
        Ok(())
    }

    fn take(&mut self, flag: &'static Flag, value: &[u8]) -> Result<(), String> {
        let invalid = |reason: &str| {
            let dashed = match flag.short {
                Some(short) => format!("-{short}, --{}", flag.name),
                None => format!("--{}", flag.name),
            };
            let shown = match flag.kind {
                Kind::Secret => String::new(),
                _ => format!(" {}", quote(value)),
            };
            format!("invalid argument{shown} for \"{dashed}\" flag: {reason}")
        };
        let text = std::str::from_utf8(value).map_err(|_| invalid("not valid UTF-8"))?;
        check(flag, text).map_err(|reason| invalid(&reason))?;
        self.set(flag, text.to_owned());
        Ok(())
    }

    fn set(&mut self, flag: &'static Flag, value: String) {
        let first = self.given.insert(flag.name);
        let slot = self.values.entry(flag.name).or_default();
        if flag.kind == Kind::List && !first {
            slot.push(',');
            slot.push_str(&value);
        } else {
            *slot = value;
        }
    }
}

fn check(flag: &Flag, value: &str) -> Result<(), String> {
    match flag.kind {
        Kind::Bool => parse_bool(value).map(drop),
        Kind::Int => parse_int(value, 10).map(drop),
        Kind::Duration => parse_duration(value).map(drop),
        Kind::Text | Kind::Secret | Kind::List => Ok(()),
    }
}

/// Whether the flag only makes sense on the command line.
fn is_about_program(flag: &Flag) -> bool {
    matches!(flag.name, "help" | "version")
}

/// The environment variable of a global flag.
fn variable(flag: &str) -> String {
    format!("ETCDCTL_{}", flag.to_uppercase().replace('-', "_"))
}
