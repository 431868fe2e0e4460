//! Runs the same loads against etcd, Holdfast and the do-nothing server, interleaved, and prints ratios.
//!
//! The machine drifts (neighbours, clocks, disks), so a figure of one server is only worth something beside one of another taken
//! within seconds: every round runs each server once, every second round in reverse order, and ratios are taken within a round.

mod cases;
mod million;
mod results;
mod secured;
mod server;
mod table;

use crate::{
    flags::FlagError,
    load::{self, LoadError},
    progress::Progress,
    server_process::{self, Kind, ServerError},
};
use cases::{CASES, Case, MILLION_KEYS};
use holdfast_certs::{DevCa, DevCaFiles, IssueError};
use results::{Results, Run};
pub(crate) use secured::Cost;
pub(crate) use server::QUOTA_BYTES;
use server::{Recipe, Server};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// `statfs(2)`'s type of a file system in memory, where a sync costs nothing.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Whether clients and servers talk in clear or with certificates on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Plain,
    Mtls,
}

impl Mode {
    /// The modes of `--tls`.
    pub(crate) fn parse(value: &str) -> Result<Vec<Self>, FlagError> {
        match value {
            "plain" => Ok(vec![Self::Plain]),
            "mtls" => Ok(vec![Self::Mtls]),
            "both" => Ok(vec![Self::Plain, Self::Mtls]),
            other => Err(FlagError::Invalid {
                name: "tls",
                value: other.to_owned(),
                expected: "plain, mtls or both",
            }),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Mtls => "mTLS",
        }
    }
}

/// What is asked of a comparison.
pub(crate) struct Comparison {
    pub(crate) etcd: Option<PathBuf>,
    pub(crate) holdfast: Option<PathBuf>,
    pub(crate) rounds: usize,
    pub(crate) duration: Duration,
    pub(crate) warmup: Duration,
    pub(crate) modes: Vec<Mode>,
    pub(crate) cases: Vec<&'static Case>,
    /// Keys of the cases named after a million.
    pub(crate) million: u64,
    /// Data directories go below this one, and are removed.
    pub(crate) directory: PathBuf,
    pub(crate) output: PathBuf,
    pub(crate) progress: Progress,
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompareError {
    #[error("{context}: {source}")]
    Io { context: String, source: io::Error },
    #[error("make certificates: {0}")]
    Certificates(#[from] IssueError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("unknown load `{0}`; known: {1}")]
    UnknownCase(String, String),
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
}

fn failed(context: impl Into<String>) -> impl FnOnce(io::Error) -> CompareError {
    let context = context.into();
    move |source| CompareError::Io { context, source }
}

/// The cases of a comma-separated list, or all for an empty one.
pub(crate) fn select(list: &str) -> Result<Vec<&'static Case>, CompareError> {
    if list.is_empty() {
        return Ok(CASES.iter().collect());
    }
    list.split(',')
        .map(|name| {
            Case::named(name)
                .ok_or_else(|| CompareError::UnknownCase(name.to_owned(), names().join(", ")))
        })
        .collect()
}

/// The names of all cases.
pub(crate) fn names() -> Vec<&'static str> {
    CASES.iter().map(|case| case.name).collect()
}

impl Comparison {
    /// Runs everything, prints each case when it is done and the verdicts at the end. True if every target was reached and every
    /// request answered.
    pub(crate) fn run(&self) -> Result<bool, CompareError> {
        fs::create_dir_all(&self.directory)
            .map_err(failed(format!("create {}", self.directory.display())))?;
        let scratch = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(&self.directory)
            .map_err(failed("create a scratch directory"))?;
        server_process::end_servers_on_signals(scratch.path())?;
        let ca = DevCa::open_or_create(&scratch.path().join("certs"))?;
        let mut results = Results::new(self, self.versions()?);
        if on_tmpfs(scratch.path()) {
            results.fail(format!(
                "{} is in memory: syncs are free, latencies and ratios mean little",
                self.directory.display()
            ));
        }
        print!("{}", table::head(&results));
        for mode in &self.modes {
            let site = Site {
                comparison: self,
                scratch: scratch.path(),
                mode: *mode,
                certs: (*mode == Mode::Mtls).then(|| ca.files()),
            };
            for case in &self.cases {
                if !case.name.starts_with(MILLION_KEYS) {
                    site.interleave(case, &mut results);
                    print!("{}", table::case(&results, case, *mode));
                }
            }
            // How much memory keys take does not depend on TLS.
            if *mode == Mode::Plain || !self.modes.contains(&Mode::Plain) {
                million::run(&site, &mut results);
            }
        }
        print!("{}", table::verdicts(&results));
        let file = fs::File::create(&self.output)
            .map_err(failed(format!("create {}", self.output.display())))?;
        serde_json::to_writer_pretty(file, &results.document())?;
        println!("\nEvery run: {}", self.output.display());
        Ok(results.good())
    }

    fn kinds(&self) -> Vec<(Kind, PathBuf)> {
        let noop = std::env::current_exe().ok();
        [
            (Kind::Etcd, self.etcd.clone()),
            (Kind::Holdfast, self.holdfast.clone()),
            (Kind::Noop, noop),
        ]
        .into_iter()
        .filter_map(|(kind, binary)| binary.map(|binary| (kind, binary)))
        .collect()
    }

    fn versions(&self) -> Result<Vec<(Kind, String)>, CompareError> {
        self.kinds()
            .iter()
            .map(|(kind, binary)| Ok((*kind, server_process::version(*kind, binary)?)))
            .collect()
    }
}

/// Whether a sync of what lies there is free, so that figures mean little.
pub(crate) fn on_tmpfs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == TMPFS_MAGIC)
}

/// Where the cases of one mode take place.
struct Site<'a> {
    comparison: &'a Comparison,
    scratch: &'a Path,
    mode: Mode,
    certs: Option<DevCaFiles>,
}

impl Site<'_> {
    /// Starts, on fresh data, each server that can answer the case; one that does not start is noted and left out.
    fn servers(&self, case: &Case, results: &mut Results) -> Vec<Server> {
        let mut servers = Vec::new();
        for (kind, binary) in self.comparison.kinds() {
            if !kind.stores() && !case.noop {
                continue;
            }
            let started = Server::start(Recipe {
                kind,
                binary,
                directory: self.scratch.join(format!(
                    "{}-{}-{}",
                    case.name,
                    self.mode.name(),
                    kind.name()
                )),
                certs: self.certs.clone(),
                secured: None,
            });
            match started {
                Ok(server) => servers.push(server),
                Err(error) => results.fail(format!("{}: {error}", case.name)),
            }
        }
        servers
    }

    /// All rounds of one case.
    fn interleave(&self, case: &'static Case, results: &mut Results) {
        let servers = self.servers(case, results);
        for round in 0..self.comparison.rounds {
            self.round(case, round, &servers, round > 0, results);
        }
        for server in servers {
            server.discard();
        }
    }

    /// Runs the case once against each server.
    fn round(
        &self,
        case: &'static Case,
        round: usize,
        servers: &[Server],
        skip_setup: bool,
        results: &mut Results,
    ) {
        let mut order: Vec<_> = servers.iter().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for server in order {
            eprintln!(
                "{} {} round {}/{}: {}",
                case.name,
                self.mode.name(),
                round + 1,
                self.comparison.rounds,
                server.kind().name()
            );
            let settings = load::Settings {
                pids: server.pid().into_iter().collect(),
                duration: self.comparison.duration,
                warmup: self.comparison.warmup,
                skip_setup: skip_setup || !server.kind().stores(),
                ..self.settings(case, server)
            };
            match load::run(case.load, &settings, self.comparison.progress) {
                Ok(report) => results.add(Run {
                    case: case.name,
                    mode: self.mode,
                    server: server.kind(),
                    round,
                    report,
                }),
                Err(error) => results.fail(format!(
                    "{} {} on {}: {error}",
                    case.name,
                    self.mode.name(),
                    server.kind().name()
                )),
            }
        }
    }

    fn settings(&self, case: &Case, server: &Server) -> load::Settings {
        let settings = case.settings(server.dialer.clone());
        if case.name.starts_with(MILLION_KEYS) {
            load::Settings {
                keys: self.comparison.million,
                ..settings
            }
        } else {
            settings
        }
    }
}
