//! Why a configuration was refused.

use std::io;
use std::path::PathBuf;

use crate::settings::Origin;

/// A configuration that cannot be used; the message says what to change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A flag that is not in the table.
    #[error("flag provided but not defined: --{given}; the nearest known one is --{nearest}")]
    UnknownFlag {
        /// The name as given, without dashes.
        given: String,
        /// The known flag with the smallest edit distance.
        nearest: &'static str,
    },
    /// A flag that takes a value stood last on the command line.
    #[error("flag needs an argument: --{flag}")]
    MissingArgument {
        /// The flag's name.
        flag: String,
    },
    /// Three dashes, a dash with nothing behind it, or `--=x`.
    #[error("bad flag syntax: {argument}")]
    BadFlagSyntax {
        /// The argument as given.
        argument: String,
    },
    /// A positional argument.
    #[error("'{argument}' is not a valid flag")]
    NotAFlag {
        /// The argument as given.
        argument: String,
    },
    /// A value that its setting does not take.
    #[error("invalid value {value:?} for --{name} ({origin}): {reason}")]
    InvalidValue {
        /// The setting.
        name: &'static str,
        /// The value as given.
        value: String,
        /// Where the value comes from.
        origin: Origin,
        /// What is wrong with it.
        reason: String,
    },
    /// A variable of ours that is not UTF-8.
    #[error("the environment variable {name} is not valid UTF-8")]
    NotUtf8 {
        /// The variable.
        name: String,
    },
    /// The configuration file could not be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration file is not what this crate can parse.
    #[error("configuration file {}: {reason}", path.display())]
    MalformedFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line where the parser knows it.
        reason: String,
    },
    /// A key in the configuration file that is not in the table.
    #[error("configuration file {}: unknown key {key:?}; the nearest known one is {nearest:?}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key as given, with its section.
        key: String,
        /// The known key with the smallest edit distance, with its section.
        nearest: String,
    },
    /// A setting that would make an etcd behave in a way that this server cannot follow safely.
    #[error("--{name} ({origin}) is not supported: {reason}")]
    Unsupported {
        /// The setting.
        name: &'static str,
        /// Where the value comes from.
        origin: Origin,
        /// Why, and what to use instead.
        reason: &'static str,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Conflict(String),
}
