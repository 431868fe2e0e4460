//! The log: lines shaped as etcd's (behaviour §6), one JSON object each, to the outputs of `--log-outputs`.
//!
//! A line never breaks: what is not printable is escaped, long values are cut. Nothing is ever coloured. An output that cannot be
//! written to (a closed stderr, a full disk) loses lines and is no reason to stop.

mod line;
mod output;

use holdfast_config::{LogConfig, LogLevel};
use line::Line;
use output::Output;
use std::io;
use std::time::SystemTime;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

/// What came of setting the log up.
#[derive(Debug)]
pub(crate) struct Logging {
    /// What was asked for and is not done; to be logged.
    pub(crate) warnings: Vec<String>,
}

/// Sets up the log of this process. To be called once, before threads are started.
///
/// # Errors
///
/// An output cannot be opened, or the log was set up before.
pub(crate) fn init(config: &LogConfig) -> Result<Logging, io::Error> {
    let mut warnings = Vec::new();
    let outputs = config
        .outputs
        .iter()
        .map(|output| Output::open(output, config.rotation.as_ref(), &mut warnings))
        .collect::<io::Result<_>>()?;
    let lines = Lines {
        format: config.format,
        level: config.level,
        outputs,
    };
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines))
        .map_err(io::Error::other)?;
    Ok(Logging { warnings })
}

/// Writes events as lines.
struct Lines {
    format: holdfast_config::LogFormat,
    level: LogLevel,
    outputs: Vec<Output>,
}

/// Lines of raft's own, which the consensus crate carries over.
const RAFT: &str = "raft";
/// Our crates' targets begin with it.
const OURS: &str = "holdfast";

impl Lines {
    /// The lowest level that is written of a target. Libraries only tell what is wrong: their lower levels are about their own
    /// innards, and HTTP/2's would show clients' headers, tokens included. Raft's can be had with the rest of `debug`.
    fn level_of(&self, target: &str) -> LevelFilter {
        let wanted = match self.level {
            LogLevel::Off => LevelFilter::OFF,
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
        };
        let talkative =
            target.starts_with(OURS) || (self.level == LogLevel::Debug && target.starts_with(RAFT));
        if talkative {
            wanted
        } else {
            wanted.min(LevelFilter::WARN)
        }
    }

    fn writes(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level_of(metadata.target())
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.writes(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.writes(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level_of(OURS))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let level = Severity::of(metadata.level());
        let mut line = Line::begin(self.format, level, SystemTime::now(), metadata);
        event.record(&mut line);
        let line = line.end();
        for output in &self.outputs {
            output.write(level, &line);
        }
    }
}

/// etcd's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Debug,
    Info,
    Warn,
    Error,
}

impl Severity {
    fn of(level: &Level) -> Severity {
        match *level {
            Level::ERROR => Self::Error,
            Level::WARN => Self::Warn,
            Level::INFO => Self::Info,
            Level::DEBUG | Level::TRACE => Self::Debug,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// The number of syslog(3), which the journal takes.
    fn priority(self) -> u8 {
        match self {
            Self::Debug => 7,
            Self::Info => 6,
            Self::Warn => 4,
            Self::Error => 3,
        }
    }
}

#[cfg(test)]
mod tests;
