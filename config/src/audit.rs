//! The audit log, in words: sinks, rules, sizes. Writing it is the audit crate's part.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::ConfigError;
use crate::settings::Settings;
use crate::table::Key;
use crate::url::{Host, Place, parse_tcp};

/// A request waits for every sink, so more of them is a mistake.
const MAX_SINKS: usize = 8;

/// Stands for `--data-dir` at the start of a path.
const DATA_DIR: &str = "${data-dir}";

/// What applies to all audit records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// Rules that pick what is recorded; absent for the built-in ones.
    pub rules_file: Option<PathBuf>,
    /// Bytes of an audit file at which a new one is begun.
    pub file_max_bytes: u64,
    /// Full files kept beside the current one; never zero.
    pub file_max_count: usize,
    /// When a file is synced.
    pub sync: AuditSync,
    /// Time a sink has to take a record.
    pub deadline: Duration,
}

/// When an audit file is synced to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditSync {
    /// Never: it is left to the operating system.
    None,
    /// Now and then.
    Checkpoint,
    /// Before a request that is recorded is answered.
    Block,
}

/// A destination of audit records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditSink {
    /// A file that is appended to, and replaced when it is full.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// A syslog daemon behind a unix socket.
    SyslogSocket(PathBuf),
    /// A syslog daemon behind a network address.
    SyslogAddress {
        /// Where it runs.
        host: Host,
        /// Never zero.
        port: u16,
    },
}

impl AuditSink {
    /// Whether records leave this machine, which syslog does not encrypt.
    pub(crate) fn is_remote(&self) -> bool {
        match self {
            Self::SyslogAddress { host, .. } => !match host {
                Host::Ip(ip) => ip.to_canonical().is_loopback(),
                Host::Name(name) => name.eq_ignore_ascii_case("localhost"),
            },
            Self::File(_) | Self::Stdout | Self::SyslogSocket(_) => false,
        }
    }
}

pub(crate) fn build(settings: &Settings) -> Result<AuditConfig, ConfigError> {
    Ok(AuditConfig {
        rules_file: settings.path(Key::AuditRulesFile),
        file_max_bytes: settings.number(Key::AuditFileMaxBytes)?,
        file_max_count: settings.number(Key::AuditFileMaxCount)?,
        sync: match settings.text(Key::AuditSync) {
            "none" => AuditSync::None,
            "block" => AuditSync::Block,
            _ => AuditSync::Checkpoint,
        },
        deadline: settings.time(Key::AuditDeadline)?,
    })
}

/// The sinks of `--audit-log`.
pub(crate) fn sinks(settings: &Settings) -> Result<Vec<AuditSink>, ConfigError> {
    let invalid = |reason| settings.invalid(Key::AuditLog, reason);
    let data_dir = settings.path(Key::DataDir).unwrap_or_default();
    let items = settings.list(Key::AuditLog);
    if items == ["none"] {
        return Ok(Vec::new());
    }
    let mut sinks = Vec::new();
    for item in &items {
        let sink =
            sink(item, &data_dir).map_err(|reason| invalid(format!("{item:?}: {reason}")))?;
        if !sinks.contains(&sink) {
            sinks.push(sink);
        }
    }
    if sinks.len() > MAX_SINKS {
        return Err(invalid(format!("more than {MAX_SINKS} sinks")));
    }
    Ok(sinks)
}

fn sink(text: &str, data_dir: &Path) -> Result<AuditSink, String> {
    if text == "stdout" {
        return Ok(AuditSink::Stdout);
    }
    if text == "none" {
        return Err("none excludes all others".to_owned());
    }
    if let Some(path) = text.strip_prefix("file:") {
        return path_of(path, data_dir).map(AuditSink::File);
    }
    match text.strip_prefix("syslog:") {
        Some(path) if path.starts_with('/') || path.starts_with(DATA_DIR) => {
            path_of(path, data_dir).map(AuditSink::SyslogSocket)
        }
        Some(address) => match parse_tcp(address)? {
            Place::Tcp { port: 0, .. } => Err("the port cannot be 0".to_owned()),
            Place::Tcp { host, port } => Ok(AuditSink::SyslogAddress { host, port }),
            Place::Socket { path } => Ok(AuditSink::SyslogSocket(path)),
        },
        None => Err(
            "expected file:<path>, stdout, syslog:<path of a socket>, syslog:<host>:<port> or none"
                .to_owned(),
        ),
    }
}

/// A path, which may begin with `${data-dir}`.
fn path_of(text: &str, data_dir: &Path) -> Result<PathBuf, String> {
    let path = match text.strip_prefix(DATA_DIR) {
        Some(below) if below.len() > 1 && below.starts_with('/') => {
            data_dir.join(below.trim_start_matches('/'))
        }
        Some(_) => return Err(format!("expected a path below {DATA_DIR}")),
        None => PathBuf::from(text),
    };
    if text.is_empty() || text.ends_with('/') {
        return Err("the name of a file is missing".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("a path here has no control characters".to_owned());
    }
    Ok(path)
}
