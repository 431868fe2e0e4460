//! A server process under test.

use crate::{Log, PATIENCE, Raw, ServerOptions, free_port, server_binary};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The line that tells supervisors that clients are served (etcd's process contract).
const READY: &str = "ready to serve client requests";

/// A server process on loopback with a data directory of its own; killed and removed on drop. When the test fails, the end of
/// the log is part of the report.
pub struct Server {
    options: ServerOptions,
    folder: TempDir,
    client_port: u16,
    peer_port: u16,
    child: Option<Child>,
    log: Log,
}

/// How a server that did not come up, or was asked to stop, ended.
#[derive(Debug)]
pub struct Exit {
    /// Its exit status; `None` when it did not end in time and was killed.
    pub status: Option<ExitStatus>,
    /// How long it took.
    pub took: Duration,
    /// Everything it wrote.
    pub log: Vec<String>,
}

impl Exit {
    /// Whether it ended by itself with a failure status (not by a signal).
    pub fn failed(&self) -> bool {
        self.status
            .is_some_and(|status| status.code().is_some_and(|code| code != 0))
    }

    /// Whether some line of the log contains `text`.
    pub fn says(&self, text: &str) -> bool {
        self.log.iter().any(|line| line.contains(text))
    }
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
                folder: tempfile::tempdir().expect("a temporary directory"),
                client_port: free_port(),
                peer_port: free_port(),
                child: None,
                log: Log::default(),
            };
            match server.launch() {
                Ok(()) => return Ok(server),
                Err(exit) if attempts < 5 && exit.says("address already in use") => {}
                Err(exit) if attempts < 5 && exit.says("Address already in use") => {}
                Err(exit) => return Err(exit),
            }
        }
    }

    /// Runs a server that is expected to refuse: waits until it ends by itself. A server that serves instead fails the test.
    pub fn refusal(options: ServerOptions) -> Exit {
        match Self::try_start(options) {
            Ok(server) => panic!(
                "the server serves, but had to refuse:\n{}",
                server.log.tail(30)
            ),
            Err(exit) => exit,
        }
    }

    fn launch(&mut self) -> Result<(), Exit> {
        let started = Instant::now();
        let mark = self.log.len();
        let mut child = self.command().spawn().expect("the server binary runs");
        self.log.follow(child.stderr.take().expect("piped"));
        self.log.follow(child.stdout.take().expect("piped"));
        self.child = Some(child);
        if self
            .log
            .wait_after(mark, READY, Duration::from_secs(60))
            .is_some()
        {
            return Ok(());
        }
        let status = self.wait_exit(Duration::from_secs(1));
        self.kill();
        Err(Exit {
            status,
            took: started.elapsed(),
            log: self.log.lines(),
        })
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
            .args(&self.options.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
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
        &self.log
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
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
        if let Some(mut child) = self.child.take() {
            // Both fail only when the process is gone already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
            self.log.wait_closed(Duration::from_secs(5));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("the server can be signalled");
    }

    /// Asks it to stop with SIGTERM and waits until it ended.
    pub fn terminate(&mut self) -> Exit {
        let started = Instant::now();
        self.signal(Signal::TERM);
        let status = self.wait_exit(PATIENCE);
        let took = started.elapsed();
        self.kill();
        Exit {
            status,
            took,
            log: self.log.lines(),
        }
    }

    /// Waits until it ended by itself. `None` after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        let child = self.child.as_mut()?;
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                self.child = None;
                self.log.wait_closed(Duration::from_secs(5));
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
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
        assert!(self.child.is_none(), "still running");
        self.launch()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- end of the server's log ---\n{}", self.log.tail(30));
        }
    }
}
