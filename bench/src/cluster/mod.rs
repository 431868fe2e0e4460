//! Three members of Holdfast beside three of etcd: what they carry, how long nobody is served when the leader goes, and what a member
//! costs that comes back after a million writes.

mod catchup;
mod certificates;
mod failover;
mod flags;
mod members;
mod probe;
mod table;
mod throughput;
mod verdict;
mod windows;
mod writers;

use crate::{
    compare::{Mode, on_tmpfs},
    load::LoadError,
    progress::Progress,
    server_process::{self, Kind, ServerError, failed},
    tls::ConnectError,
};
use certificates::Certificates;
pub(crate) use flags::{run_catchup, run_cluster, run_failover};
use holdfast_certs::IssueError;
use members::{Cluster, Plan};
use serde_json::Value;
use std::{fs, path::PathBuf};
use tempfile::TempDir;

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("make certificates: {0}")]
    Certificates(#[from] IssueError),
    #[error("the endpoint of a member: {0}")]
    Dialer(#[from] ConnectError),
    #[error("{name}: {what}")]
    Unhealthy { name: &'static str, what: String },
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// What the three measurements have in common.
pub(crate) struct Arena {
    pub(crate) etcd: Option<PathBuf>,
    pub(crate) holdfast: PathBuf,
    pub(crate) modes: Vec<Mode>,
    /// Data directories go below this one, and are removed.
    pub(crate) directory: PathBuf,
    /// Where all figures go as JSON.
    pub(crate) output: Option<PathBuf>,
    pub(crate) progress: Progress,
}

/// A directory for data and certificates, removed when dropped.
struct Scratch {
    directory: TempDir,
    certificates: Certificates,
}

impl Arena {
    /// Makes room, and prints who takes part. What is there ends with the tool, also on a signal.
    fn open(&self) -> Result<Scratch, ClusterError> {
        fs::create_dir_all(&self.directory)
            .map_err(failed(format!("create {}", self.directory.display())))?;
        let directory = tempfile::Builder::new()
            .prefix("cluster-")
            .tempdir_in(&self.directory)
            .map_err(failed("create a scratch directory"))?;
        server_process::end_servers_on_signals(directory.path())?;
        let certificates = Certificates::make(&directory.path().join("certs"))?;
        for (kind, binary) in self.kinds() {
            let version = server_process::version(kind, &binary)?;
            println!("{:<10} {version}", kind.name());
        }
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        println!("{processors} processors shared by client and members; three members on loopback");
        if on_tmpfs(directory.path()) {
            println!(
                "{} is in memory: syncs are free, figures mean little",
                self.directory.display()
            );
        }
        Ok(Scratch {
            directory,
            certificates,
        })
    }

    /// etcd first, if it takes part.
    fn kinds(&self) -> Vec<(Kind, PathBuf)> {
        let etcd = self.etcd.iter().map(|binary| (Kind::Etcd, binary.clone()));
        etcd.chain([(Kind::Holdfast, self.holdfast.clone())])
            .collect()
    }

    /// Starts three members of each server on fresh data.
    fn clusters(&self, scratch: &Scratch, mode: Mode) -> Result<Vec<Cluster>, ClusterError> {
        let kinds = self.kinds().into_iter();
        kinds
            .map(|(kind, binary)| Cluster::start(plan(scratch, mode, kind, binary)))
            .collect()
    }

    fn write(&self, document: &Value) -> Result<(), ClusterError> {
        if let Some(path) = &self.output {
            let file =
                fs::File::create(path).map_err(failed(format!("create {}", path.display())))?;
            serde_json::to_writer_pretty(file, document)?;
            println!("\nEvery figure: {}", path.display());
        }
        Ok(())
    }
}

fn plan(scratch: &Scratch, mode: Mode, kind: Kind, binary: PathBuf) -> Plan {
    let directory = scratch.directory.path();
    Plan {
        kind,
        binary,
        directory: directory.join(format!("{}-{}", kind.name(), mode.name())),
        certificates: (mode == Mode::Mtls).then(|| scratch.certificates.clone()),
    }
}

/// Bytes in MiB.
fn mebibytes(bytes: u64) -> f64 {
    crate::load::to_float(bytes) / f64::from(1 << 20)
}
