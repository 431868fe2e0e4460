//! A server process under test.

use crate::{Exit, Log, PATIENCE, Raw, ServerOptions, free_port, process::Process, server_binary};
use rustix::process::Signal;
use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};
use tempfile::TempDir;

/// A server process on loopback with a data directory of its own; killed and removed on drop. When the test fails, the end of
/// the log is part of the report.
pub struct Server {
    options: ServerOptions,
    // Before the folder: it ends before its files go.
    process: Process,
    folder: TempDir,
    client_port: u16,
    peer_port: u16,
}

impl Server {
    /// Starts the plain server and waits until it serves.
    pub fn start() -> Self {
        Self::start_with(ServerOptions::new())
    }

    /// Starts a server and waits until it serves.
    pub fn start_with(options: ServerOptions) -> Self {
        match Self::try_start(options) {
            Ok(server) => server,
            Err(exit) => panic!("the server did not start: {exit:#?}"),
        }
    }

    /// Starts a server and waits until it serves, or ends.
    pub fn try_start(options: ServerOptions) -> Result<Self, Exit> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut server = Self {
                options: options.clone(),
                process: Process::default(),
                folder: tempfile::tempdir().expect("a temporary directory"),
                client_port: free_port(),
                peer_port: free_port(),
            };
            match server.launch() {
                Ok(()) => return Ok(server),
                Err(exit) if attempts < 5 && exit.lacked_port() => {}
                Err(exit) => return Err(exit),
            }
        }
    }

    /// Runs a server that is expected to refuse: waits until it ends by itself. A server that serves instead fails the test.
    pub fn refusal(options: ServerOptions) -> Exit {
        match Self::try_start(options) {
            Ok(server) => panic!(
                "the server serves, but had to refuse:\n{}",
                server.log().tail(30)
            ),
            Err(exit) => exit,
        }
    }

    fn launch(&mut self) -> Result<(), Exit> {
        let started = self.process.spawn(self.command());
        self.process.wait_ready(&started, Duration::from_secs(60))
    }

    /// The command line; the environment is replaced as wrappers do (behaviour §6.1).
    fn command(&self) -> Command {
        let client = self.endpoint();
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let binary = self.options.binary.clone().unwrap_or_else(server_binary);
        let mut command = Command::new(binary);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.options.environment.iter().cloned())
            .current_dir(self.folder.path())
            .arg("--name=default")
            .arg(format!("--data-dir={}", self.data_dir().display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=default={peer}"))
            .args(&self.options.arguments);
        command
    }

    /// Where clients reach it.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// The port for clients and HTTP.
    pub fn port(&self) -> u16 {
        self.client_port
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        match &self.options.data {
            Some(path) => path.clone(),
            None => self.folder.path().join("data"),
        }
    }

    /// The temporary directory that is removed together with the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its log so far, over all restarts.
    pub fn log(&self) -> &Log {
        self.process.log()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A client of the `etcd-client` crate on a connection of its own.
    pub async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([self.endpoint()], None)
            .await
            .expect("a client connects")
    }

    /// Raw gRPC stubs on a connection of their own, for what `etcd-client` cannot express.
    pub async fn raw(&self) -> Raw {
        Raw::connect(&self.endpoint()).await
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Asks it to stop with SIGTERM and waits until it ended.
    pub fn terminate(&mut self) -> Exit {
        self.process.terminate(PATIENCE)
    }

    /// Waits until it ended by itself. `None` after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.process.wait_exit(limit)
    }

    /// Starts it again on the same directory and ports, after [`Server::kill`] or [`Server::terminate`].
    pub fn restart(&mut self) {
        if let Err(exit) = self.try_restart() {
            panic!("the server did not start again: {exit:#?}");
        }
    }

    /// Starts it again with other options on the same ports, and the same directory unless the options name one.
    pub fn restart_with(&mut self, options: ServerOptions) {
        let data = self.options.data.clone();
        self.options = options;
        if self.options.data.is_none() {
            self.options.data = data;
        }
        self.restart();
    }

    /// Starts it again, or tells how it ended.
    pub fn try_restart(&mut self) -> Result<(), Exit> {
        self.launch()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- end of the server's log ---\n{}", self.log().tail(30));
        }
    }
}
