//! One member of a cluster: its process, ports and files.

use super::{Certificates, certificates::lazy};
use crate::{
    Exit, Log, Raw, ServerOptions, free_port,
    process::{Process, Started},
    server_binary,
};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// What a member's process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs (or ended by itself).
    Running,
    /// It is stopped with SIGSTOP.
    Paused,
    /// There is none.
    Down,
    /// It was removed from the cluster for good.
    Removed,
}

/// One member.
pub struct Member {
    pub(super) process: Process,
    pub(super) state: State,
    pub(super) name: String,
    pub(super) client_port: u16,
    /// Where it listens for others.
    pub(super) peer_port: u16,
    /// Where others reach it.
    pub(super) advertised_port: u16,
    pub(super) data: PathBuf,
    scheme: &'static str,
}

/// What a new process of a member is told of the cluster.
#[derive(Clone)]
pub(super) struct Bootstrap {
    pub(super) cluster: String,
    pub(super) state: &'static str,
}

impl Member {
    pub(super) fn new(name: String, data: PathBuf, tls: bool) -> Self {
        let peer_port = free_port();
        Self {
            process: Process::default(),
            state: State::Down,
            name,
            client_port: free_port(),
            peer_port,
            advertised_port: peer_port,
            data,
            scheme: if tls { "https" } else { "http" },
        }
    }

    /// The URL at which clients reach it.
    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.client_port)
    }

    /// The URL at which other members reach it.
    pub fn peer_url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.advertised_port)
    }

    /// The port on which it listens for other members, without any proxy.
    pub fn peer_port(&self) -> u16 {
        self.peer_port
    }

    /// The port on which it listens for clients.
    pub fn port(&self) -> u16 {
        self.client_port
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// What its process does.
    pub fn state(&self) -> State {
        self.state
    }

    /// Its log so far, over all starts.
    pub fn log(&self) -> &Log {
        self.process.log()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(super) fn raw(&self, certificates: Option<&Certificates>, user: &str) -> Raw {
        lazy(
            self.client_port,
            certificates.map(|found| found.client(user)),
        )
    }

    pub(super) fn spawn(
        &mut self,
        folder: &Path,
        options: &ServerOptions,
        certificates: Option<&Certificates>,
        bootstrap: &Bootstrap,
    ) -> Started {
        let client = self.endpoint();
        let listen = format!("{}://127.0.0.1:{}", self.scheme, self.peer_port);
        let mut command = Command::new(options.binary.clone().unwrap_or_else(server_binary));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(options.environment.iter().cloned())
            .current_dir(folder)
            .arg(format!("--name={}", self.name))
            .arg(format!("--data-dir={}", self.data.display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={listen}"))
            .arg(format!("--initial-advertise-peer-urls={}", self.peer_url()))
            .arg(format!("--initial-cluster={}", bootstrap.cluster))
            .arg(format!("--initial-cluster-state={}", bootstrap.state))
            .arg("--initial-cluster-token=tests")
            .args(
                certificates
                    .map(|found| found.flags(&self.name))
                    .unwrap_or_default(),
            )
            .args(&options.arguments);
        self.state = State::Running;
        self.process.spawn(command)
    }

    /// The end of its log, when it does not do what it must.
    pub(super) fn explain(&self, exit: &Exit) -> String {
        format!(
            "{}: status {:?} after {:?}\n{}",
            self.name,
            exit.status,
            exit.took,
            self.log().tail(20)
        )
    }
}
