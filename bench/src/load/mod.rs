//! The loads: what they are called, how they are set up, and what each reports.

mod closed_loop;
mod keyspace;
mod paced;
mod scan;
mod stage;
mod unary;
mod watch;

use crate::{
    grpc::CallError,
    progress::Progress,
    report::{Report, Shape},
    tls::Dialer,
};
use closed_loop::drive;
pub(crate) use paced::{PacedPuts, Sample};
pub(crate) use stage::to_float;
use std::{io, time::Duration};

/// A load by name. See `holdfast-bench --help` for what each does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    Put,
    Get,
    Range,
    Count,
    Txn,
    LeaseGrant,
    LeaseKeepAlive,
    WatchPrefix,
    WatchKeys,
    Scan,
}

impl Load {
    /// Every load with its name and its line of help.
    pub(crate) const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (
            Self::Put,
            "put",
            "puts of random keys (or of each key once: --sequential)",
        ),
        (Self::Get, "get", "linearizable gets of single random keys"),
        (
            Self::Range,
            "range",
            "linearizable ranges over a prefix of --keys keys, with --limit",
        ),
        (
            Self::Count,
            "count",
            "count_only ranges over a prefix of --keys keys",
        ),
        (
            Self::Txn,
            "txn",
            "compare-and-put: if mod_revision(key) = last seen, then put, else range",
        ),
        (Self::LeaseGrant, "lease-grant", "lease grants"),
        (
            Self::LeaseKeepAlive,
            "lease-keep-alive",
            "one keep-alive stream and one lease per request in flight",
        ),
        (
            Self::WatchPrefix,
            "watch-prefix",
            "one writer (--rate or as fast as it can), --watchers watches of its prefix",
        ),
        (
            Self::WatchKeys,
            "watch-keys",
            "one writer over --watchers keys, each watched on its own",
        ),
        (
            Self::Scan,
            "scan",
            "puts at --rate, first calm, then while all --keys keys are read in pages",
        ),
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known, _)| *known == name)
            .map(|(load, _, _)| *load)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(load, _, _)| *load == self)
            .map_or("?", |(_, name, _)| name)
    }

    /// Keys of its keyspace unless told otherwise.
    pub(crate) fn default_keys(self) -> u64 {
        match self {
            Self::Range => 1_000,
            Self::Count | Self::Scan => 1_000_000,
            _ => 100_000,
        }
    }
}

/// Everything that shapes one run.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) dialer: Dialer,
    /// More members of the server's cluster; the connections are dealt round all of them.
    pub(crate) other_dialers: Vec<Dialer>,
    /// The server's processes, for their CPU and memory, which are added up.
    pub(crate) pids: Vec<u32>,
    pub(crate) connections: usize,
    /// Requests in flight over all connections.
    pub(crate) in_flight: usize,
    /// Threads of the client, each with its own runtime and share of the connections.
    pub(crate) threads: usize,
    pub(crate) seed: u64,
    pub(crate) value_bytes: usize,
    pub(crate) keys: u64,
    pub(crate) prefix: String,
    pub(crate) sequential: bool,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    /// Ends the run after so many requests instead of after `duration`, without warm-up.
    pub(crate) requests: Option<u64>,
    /// Requests per second, if paced.
    pub(crate) rate: Option<f64>,
    pub(crate) watchers: usize,
    /// Watches that share one stream.
    pub(crate) watches_per_stream: usize,
    pub(crate) limit: i64,
    /// Keys in a page of the scan.
    pub(crate) page_keys: i64,
    /// The keys are there already.
    pub(crate) skip_setup: bool,
}

impl Settings {
    /// The settings that every flag defaults to.
    pub(crate) fn new(load: Load, dialer: Dialer) -> Self {
        Self {
            dialer,
            other_dialers: Vec::new(),
            pids: Vec::new(),
            connections: 4,
            in_flight: 100,
            threads: 1,
            seed: 1,
            value_bytes: 256,
            keys: load.default_keys(),
            prefix: "/bench/".to_owned(),
            sequential: false,
            warmup: Duration::from_secs(1),
            duration: Duration::from_secs(5),
            requests: None,
            rate: (load == Load::Scan).then_some(500.0),
            watchers: if load == Load::WatchKeys { 1_000 } else { 100 },
            watches_per_stream: 1,
            limit: 500,
            page_keys: 10_000,
            skip_setup: false,
        }
    }
}

impl Settings {
    /// All endpoints, separated by commas.
    pub(crate) fn endpoints(&self) -> String {
        let others = self.other_dialers.iter().map(Dialer::base);
        let all: Vec<_> = std::iter::once(self.dialer.base()).chain(others).collect();
        all.join(",")
    }

    /// Where a connection goes.
    fn dialer_of(&self, connection: usize) -> &Dialer {
        let count = self.other_dialers.len() + 1;
        let other = (connection % count).checked_sub(1);
        other
            .and_then(|other| self.other_dialers.get(other))
            .unwrap_or(&self.dialer)
    }
}

/// Why a run could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("set-up of the load: {0}")]
    Setup(CallError),
    #[error("{context}: {source}")]
    Io {
        context: &'static str,
        source: io::Error,
    },
    #[error("cannot read what process {pid} uses: {source}")]
    Process { pid: u32, source: io::Error },
    #[error("histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    #[error("a thread of the client died")]
    Thread,
    #[error("preloading the keys failed: {0}")]
    Preload(String),
}

/// Runs one load: set-up, warm-up, measurement.
pub(crate) fn run(
    load: Load,
    settings: &Settings,
    progress: Progress,
) -> Result<Report, LoadError> {
    if !settings.skip_setup {
        preload(load, settings, progress)?;
    }
    let shape = Shape::of(load, settings);
    match load {
        Load::Put => closed::<unary::Put>(shape, settings, progress),
        Load::Get => closed::<unary::Get>(shape, settings, progress),
        Load::Range => closed::<unary::List>(shape, settings, progress),
        Load::Count => closed::<unary::Count>(shape, settings, progress),
        Load::Txn => closed::<unary::CompareAndPut>(shape, settings, progress),
        Load::LeaseGrant => closed::<unary::Grant>(shape, settings, progress),
        Load::LeaseKeepAlive => closed::<unary::KeepAlive>(shape, settings, progress),
        Load::WatchPrefix | Load::WatchKeys => watch::run(load, shape, settings, progress),
        Load::Scan => scan::run(shape, settings, progress),
    }
}

fn closed<W: closed_loop::Work>(
    shape: Shape,
    settings: &Settings,
    progress: Progress,
) -> Result<Report, LoadError> {
    let stage = stage::Stage::new(settings);
    let measured = drive::<W>(settings, &stage, progress, shape.load)?;
    Ok(Report::new(shape, measured))
}

/// Puts the keys that the load reads.
fn preload(load: Load, settings: &Settings, progress: Progress) -> Result<(), LoadError> {
    if !matches!(load, Load::Get | Load::Range | Load::Count | Load::Scan) {
        return Ok(());
    }
    let filling = Settings {
        sequential: true,
        connections: 4,
        in_flight: 100,
        threads: 1,
        requests: Some(settings.keys),
        rate: None,
        ..settings.clone()
    };
    let stage = stage::Stage::new(&filling);
    let measured = if load == Load::Range {
        drive::<unary::ListPut>(&filling, &stage, progress, "preload")?
    } else {
        drive::<unary::Put>(&filling, &stage, progress, "preload")?
    };
    match measured.first_error {
        Some(error) => Err(LoadError::Preload(error)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{ConnectError, TlsFiles};

    #[test]
    fn connections_are_dealt_round_the_endpoints() -> Result<(), ConnectError> {
        let dialer = |port| Dialer::new(&format!("h:{port}"), &TlsFiles::default());
        let alone = Settings::new(Load::Put, dialer(1)?);
        assert!((0..3).all(|connection| alone.dialer_of(connection).base() == "http://h:1"));
        let settings = Settings {
            other_dialers: vec![dialer(2)?, dialer(3)?],
            ..alone
        };
        let dealt = (0..4).map(|connection| settings.dialer_of(connection).base());
        assert_eq!(
            dealt.collect::<Vec<_>>(),
            ["http://h:1", "http://h:2", "http://h:3", "http://h:1"]
        );
        assert_eq!(settings.endpoints(), "http://h:1,http://h:2,http://h:3");
        Ok(())
    }
}
