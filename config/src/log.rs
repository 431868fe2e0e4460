//! Where the log goes and how it looks.

use std::path::PathBuf;

use serde::Deserialize;

use crate::error::ConfigError;
use crate::settings::Settings;
use crate::table::Key;

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Where lines go; never empty.
    pub outputs: Vec<LogOutput>,
    /// Lowest level that is written.
    pub level: LogLevel,
    /// How lines look.
    pub format: LogFormat,
    /// Rotation of the one file in `outputs`.
    pub rotation: Option<LogRotation>,
}

/// One destination of log lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error; what etcd calls `default`.
    Stderr,
    /// Standard output.
    Stdout,
    /// The systemd journal.
    Journal,
    /// A file that is appended to.
    File(PathBuf),
}

/// etcd's levels, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// `debug`.
    Debug,
    /// `info`.
    Info,
    /// `warn`.
    Warn,
    /// `error`.
    Error,
    /// `dpanic`, `panic` and `fatal`: nothing that Holdfast logs is above `error`, so nothing is written.
    Off,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Console,
}

/// Rotation of a log file. Zero means no limit, except for `max_size_megabytes`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogRotation {
    /// Size at which a new file is begun; never zero.
    #[serde(rename = "maxsize")]
    pub max_size_megabytes: u32,
    /// Age at which an old file is removed.
    #[serde(rename = "maxage")]
    pub max_age_days: u32,
    /// Old files to keep.
    #[serde(rename = "maxbackups")]
    pub max_backups: u32,
    /// Name old files by local time instead of UTC.
    #[serde(rename = "localtime")]
    pub local_time: bool,
    /// Compress old files.
    #[serde(rename = "compress")]
    pub compress: bool,
}

impl Default for LogRotation {
    fn default() -> Self {
        Self {
            max_size_megabytes: 100,
            max_age_days: 0,
            max_backups: 0,
            local_time: false,
            compress: false,
        }
    }
}

pub(crate) fn build(settings: &Settings) -> Result<LogConfig, ConfigError> {
    let mut outputs = Vec::new();
    for name in settings.list(Key::LogOutputs) {
        let output = match name.as_str() {
            "default" | "stderr" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            "systemd/journal" => LogOutput::Journal,
            path => LogOutput::File(PathBuf::from(path)),
        };
        if !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    if outputs.is_empty() {
        return Err(settings.invalid(Key::LogOutputs, "at least one output is needed".to_owned()));
    }
    let level = match settings.text(Key::LogLevel) {
        "debug" => LogLevel::Debug,
        "info" => LogLevel::Info,
        "warn" => LogLevel::Warn,
        "error" => LogLevel::Error,
        _ => LogLevel::Off,
    };
    let format = match settings.text(Key::LogFormat) {
        "console" => LogFormat::Console,
        _ => LogFormat::Json,
    };
    let rotation = settings
        .boolean(Key::EnableLogRotation)?
        .then(|| rotation(settings, &outputs))
        .transpose()?;
    Ok(LogConfig {
        outputs,
        level,
        format,
        rotation,
    })
}

fn rotation(settings: &Settings, outputs: &[LogOutput]) -> Result<LogRotation, ConfigError> {
    let files = outputs
        .iter()
        .filter(|output| matches!(output, LogOutput::File(_)))
        .count();
    if files != 1 {
        return Err(ConfigError::Conflict(format!(
            "--enable-log-rotation needs exactly one file in --log-outputs, not {files}"
        )));
    }
    let mut rotation: LogRotation = serde_json::from_str(settings.text(Key::LogRotationConfigJson))
        .map_err(|error| settings.invalid(Key::LogRotationConfigJson, error.to_string()))?;
    if rotation.max_size_megabytes == 0 {
        rotation.max_size_megabytes = LogRotation::default().max_size_megabytes;
    }
    Ok(rotation)
}
