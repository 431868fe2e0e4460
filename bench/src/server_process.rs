//! The process of a server: started, awaited, stopped. Whatever ends the tool ends the servers that it started.

use crate::grpc::CallError;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, Instant},
};

/// The line that etcd, Holdfast and the do-nothing server write when they serve (behaviour §6: supervisors wait for it).
const READY: &str = "ready to serve client requests";

/// A restart over a million keys takes etcd seconds; nothing sound takes this long.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// What a server gets to stop in order after SIGTERM.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// The grain of the time from start to readiness.
const POLL: Duration = Duration::from_millis(2);

/// Bytes of a log that an error shows.
const LOG_TAIL: usize = 2_000;

/// The processes that are running, for the signal handler.
static RUNNING: LazyLock<Mutex<Vec<u32>>> = LazyLock::new(Mutex::default);

/// Why a server is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error("{context}: {source}")]
    Io { context: String, source: io::Error },
    #[error("{name} ended before it was ready; its log ends with:\n{log}")]
    Ended { name: &'static str, log: String },
    #[error("{name} was not ready in time; its log ends with:\n{log}")]
    Deadline { name: &'static str, log: String },
    #[error("make the users: {0}")]
    Users(#[from] CallError),
    #[error("the endpoint of a server: {0}")]
    Dialer(#[from] crate::tls::ConnectError),
}

/// Says what was being done when the system refused.
pub(crate) fn failed(context: impl Into<String>) -> impl FnOnce(io::Error) -> ServerError {
    let context = context.into();
    move |source| ServerError::Io { context, source }
}

/// The servers that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Etcd,
    Holdfast,
    Noop,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Holdfast => "holdfast",
            Self::Noop => "noop",
        }
    }

    /// Whether it keeps what it is given.
    pub(crate) fn stores(self) -> bool {
        self != Self::Noop
    }
}

/// A server's process, which may be started more than once. Dropping it stops it.
pub(crate) struct ServerProcess {
    kind: Kind,
    child: Option<Child>,
    /// Holds what the present process has written.
    log: PathBuf,
}

impl ServerProcess {
    pub(crate) fn new(kind: Kind, log: PathBuf) -> Self {
        Self {
            kind,
            child: None,
            log,
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it, with an empty log; gives the moment.
    pub(crate) fn launch(&mut self, mut command: Command) -> Result<Instant, ServerError> {
        let log =
            File::create(&self.log).map_err(failed(format!("create {}", self.log.display())))?;
        let errors = log.try_clone().map_err(failed("share the log"))?;
        let binary = PathBuf::from(command.get_program());
        let begin = Instant::now();
        // Held over the start, so that the signal handler cannot run between a process and its entry.
        let mut running = RUNNING.lock();
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(failed(format!("run {}", binary.display())))?;
        running.push(child.id());
        drop(running);
        self.child = Some(child);
        Ok(begin)
    }

    /// Waits until it says that it serves; gives the time since `begin`.
    pub(crate) fn await_readiness(&mut self, begin: Instant) -> Result<Duration, ServerError> {
        let name = self.kind.name();
        loop {
            let log = fs::read(&self.log).unwrap_or_default();
            if contains(&log, READY.as_bytes()) {
                return Ok(begin.elapsed());
            }
            let ended = self
                .child
                .as_mut()
                .is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            let log = || {
                let tail = log.get(log.len().saturating_sub(LOG_TAIL)..);
                String::from_utf8_lossy(tail.unwrap_or_default()).into_owned()
            };
            if ended {
                return Err(ServerError::Ended { name, log: log() });
            }
            if begin.elapsed() > READY_WITHIN {
                return Err(ServerError::Deadline { name, log: log() });
            }
            thread::sleep(POLL);
        }
    }

    /// Ends it without a warning.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            RUNNING.lock().retain(|pid| *pid != child.id());
        }
    }

    /// Asks it to stop, and does not wait.
    pub(crate) fn terminate(&mut self) {
        // One that has been reaped has no id any more: somebody else may have it.
        if let Some(child) = &mut self.child
            && matches!(child.try_wait(), Ok(None))
        {
            signal(child.id(), Signal::TERM);
        }
    }

    /// Asks it to stop and waits until it has, or kills it when it takes too long.
    pub(crate) fn stop(&mut self) {
        self.terminate();
        self.await_end();
    }

    /// Waits for the end of one that was asked to stop, or kills it when it takes too long.
    pub(crate) fn await_end(&mut self) {
        let begin = Instant::now();
        while let Some(child) = &mut self.child
            && matches!(child.try_wait(), Ok(None))
            && begin.elapsed() <= STOP_WITHIN
        {
            thread::sleep(POLL);
        }
        // Reaps one that has ended, too.
        self.kill();
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.stop();
    }
}

/// On SIGINT, SIGTERM or SIGHUP: kills what runs, removes `directory`, ends the process.
pub(crate) fn end_servers_on_signals(directory: &Path) -> Result<(), ServerError> {
    let directory: Arc<Path> = directory.into();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("start a runtime"))?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let received = runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let mut hangup = signal(SignalKind::hangup())?;
                let mut terminate = signal(SignalKind::terminate())?;
                let mut interrupt = signal(SignalKind::interrupt())?;
                tokio::select! {
                    _ = hangup.recv() => {}
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                io::Result::Ok(())
            });
            if received.is_ok() {
                // The lock is kept: nothing may be started or reaped any more. The data is thrown away, so nobody is asked to stop.
                let running = RUNNING.lock();
                for pid in &*running {
                    signal(*pid, Signal::KILL);
                }
                let _ = fs::remove_dir_all(&directory);
                std::process::exit(130);
            }
        })
        .map_err(failed("start a thread"))?;
    Ok(())
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // The process may have ended by itself; there is nothing to be done about any other error.
        let _ = kill_process(pid, signal);
    }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

/// The first line of `--version`.
pub(crate) fn version(kind: Kind, binary: &Path) -> Result<String, ServerError> {
    if kind == Kind::Noop {
        return Ok(format!("holdfast-bench {}", env!("CARGO_PKG_VERSION")));
    }
    let output = Command::new(binary)
        .arg("--version")
        .output()
        .map_err(failed(format!("run {}", binary.display())))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or("unknown").to_owned())
}
