//! argv in the syntax of Go's `flag` package: `-x`, `--x`, `--x=v`, `--x v`; a switch never takes the next argument.

use crate::error::ConfigError;
use crate::settings::{Origin, Settings};
use crate::spelling::nearest;
use crate::table::{Key, Standing};
use crate::value::parse_bool;

/// What argv said.
#[derive(Debug)]
pub(crate) enum CommandLine {
    Help,
    Flags(Vec<Flag>),
}

/// One flag, in the order given.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) key: Key,
    older: Option<&'static str>,
    pub(crate) value: String,
}

impl CommandLine {
    pub(crate) fn parse(arguments: Vec<String>) -> Result<Self, ConfigError> {
        let mut flags = Vec::new();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                match arguments.next() {
                    Some(argument) => return Err(ConfigError::NotAFlag { argument }),
                    None => break,
                }
            }
            let Some(body) = argument.strip_prefix('-').filter(|body| !body.is_empty()) else {
                return Err(ConfigError::NotAFlag { argument });
            };
            let body = body.strip_prefix('-').unwrap_or(body);
            if body.is_empty() || body.starts_with(['-', '=']) {
                return Err(ConfigError::BadFlagSyntax { argument });
            }
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            if matches!(name, "h" | "help") {
                return Ok(Self::Help);
            }
            let Some((key, older)) = Key::by_flag(name) else {
                let nearest = nearest(name, Key::flag_names());
                return Err(ConfigError::UnknownFlag {
                    given: name.to_owned(),
                    nearest,
                });
            };
            let value = match value {
                Some(value) => value,
                None if key.row().is_switch() => "true".to_owned(),
                None => arguments
                    .next()
                    .ok_or_else(|| ConfigError::MissingArgument {
                        flag: name.to_owned(),
                    })?,
            };
            flags.push(Flag { key, older, value });
        }
        Ok(Self::Flags(flags))
    }
}

/// Offers every flag that is about the server.
pub(crate) fn apply(flags: &[Flag], settings: &mut Settings) -> Result<(), ConfigError> {
    for Flag { key, older, value } in flags {
        let row = key.row();
        if !matches!(row.standing, Standing::Command { .. }) {
            settings.offer(*key, *older, value, Origin::Flag(older.unwrap_or(row.name)))?;
        }
    }
    Ok(())
}

/// The state of a switch that is about this run of the program.
pub(crate) fn switch(flags: &[Flag], key: Key) -> Result<bool, ConfigError> {
    let Some(flag) = flags.iter().rev().find(|flag| flag.key == key) else {
        return Ok(false);
    };
    let name = key.row().name;
    parse_bool(&flag.value).map_err(|reason| ConfigError::InvalidValue {
        name,
        value: flag.value.clone(),
        origin: Origin::Flag(name),
        reason,
    })
}
