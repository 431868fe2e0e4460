//! Defaults, configuration file, environment and flags, merged into one validated [`Config`].
//!
//! Speaks etcd's configuration language — its flags in Go's flag syntax, its `ETCD_*` variables, its YAML or JSON file —
//! so that a unit file written for etcd starts Holdfast. Precedence is defaults < file < environment < flags.
//!
//! **Must not know:** sockets, TLS, runtimes, the clock, the process. This crate prints nothing, logs nothing and never
//! exits; argv, environment and the file arrive as parameters, and what an operator should be told is in
//! [`Config::notices`].
//!
//! Code map: `table` is the one list of settings, from which flag parsing, variable names, file keys, `--help` and
//! `--print-config` are derived. `command_line`, `environment` and `file` each offer raw values to `settings`, which keeps
//! the winner and its origin. `build` turns winners into the typed [`Config`], with `bootstrap`, `security`, `issuer`, `audit` and
//! `log` for their parts and `profile` for what depends on the profile; `validate` checks what needs several of them, but for what
//! holds only when a data directory is made: [`Config::check_founding`] and [`Config::check_bootstrap`].

mod audit;
mod bootstrap;
mod build;
mod command_line;
mod config;
mod environment;
mod error;
mod feature;
mod file;
mod issuer;
mod log;
mod print;
mod profile;
mod security;
mod settings;
mod spelling;
mod table;
mod url;
mod validate;
mod value;

pub use audit::{AuditConfig, AuditSink, AuditSync};
pub use bootstrap::{DiscoverySrv, InitialMember};
pub use config::{Allowed, AutoCompaction, ClusterState, Config, GrpcKeepalive, MetricsDetail};
pub use error::ConfigError;
pub use feature::{Feature, FeatureGates, Stage};
pub use issuer::ExternalIssuerConfig;
pub use log::{LogConfig, LogFormat, LogLevel, LogOutput, LogRotation};
pub use profile::{Profile, ProfileSettings};
pub use security::{CertificateFiles, TlsVersion, TransportSecurity};
pub use settings::Origin;
pub use url::{Host, ListenUrl, Place, Scheme};
pub use value::parse_duration;

use std::ffi::OsString;
use std::io;
use std::path::Path;

use command_line::CommandLine;
use settings::Settings;
use table::Key;

/// What the command line asked for.
#[derive(Debug)]
pub enum Outcome {
    /// Run the server with this configuration.
    Serve(Box<Config>),
    /// `--help`: the usage text, for stdout, with exit status 0.
    Help(String),
    /// `--version`: the server knows its version; exit status 0.
    Version,
    /// `--print-config`: every value with its origin, for stdout, with exit status 0. Only a valid configuration is printed.
    PrintConfig(String),
}

/// Merges and validates the configuration.
///
/// * `arguments` — argv without the program's name.
/// * `environment` — all variables (`std::env::vars_os()`); only `ETCD_*` and `HOLDFAST_*` are looked at.
/// * `read_file` — reads the file that `--config-file` names; not called when none is named.
///
/// # Errors
///
/// The first setting that is unknown, malformed, out of range or contradicts another; the message names it and its origin.
pub fn load(
    arguments: Vec<String>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    read_file: impl FnOnce(&Path) -> io::Result<Vec<u8>>,
) -> Result<Outcome, ConfigError> {
    let flags = match CommandLine::parse(arguments)? {
        CommandLine::Help => return Ok(Outcome::Help(print::help())),
        CommandLine::Flags(flags) => flags,
    };
    if command_line::switch(&flags, Key::Version)? {
        return Ok(Outcome::Version);
    }
    let variables = environment::read(environment)?;

    let mut settings = Settings::default();
    if let Some(path) = config_file(&flags, &variables) {
        let path = Path::new(path);
        let bytes = read_file(path).map_err(|source| ConfigError::ReadFile {
            path: path.to_owned(),
            source,
        })?;
        settings.note_file();
        file::apply(path, &bytes, &mut settings)?;
    }
    environment::apply(variables, &mut settings)?;
    command_line::apply(&flags, &mut settings)?;

    let print = command_line::switch(&flags, Key::PrintConfig)?;
    let config = build::config(settings)?;
    Ok(if print {
        Outcome::PrintConfig(config.print())
    } else {
        Outcome::Serve(Box::new(config))
    })
}

fn config_file<'a>(
    flags: &'a [command_line::Flag],
    variables: &'a environment::Variables,
) -> Option<&'a str> {
    let flag = flags
        .iter()
        .rev()
        .find(|flag| flag.key == Key::ConfigFile)
        .map(|flag| flag.value.as_str());
    flag.or_else(|| variables.value(Key::ConfigFile))
        .filter(|path| !path.is_empty())
}
