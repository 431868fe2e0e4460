//! A process under test, with its log.

use crate::Log;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// The line that tells supervisors that clients are served (etcd's process contract).
const READY: &str = "ready to serve client requests";

/// At most one running process at a time; killed on drop. The log goes over all of them.
#[derive(Default)]
pub(crate) struct Process {
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

    /// Whether it ended because something else had one of its ports.
    pub(crate) fn lacked_port(&self) -> bool {
        self.says("ddress already in use")
    }
}

/// A process that was started: the place in its log from which it speaks.
pub(crate) struct Started {
    mark: usize,
    at: Instant,
}

impl Process {
    /// Starts `command`, whose output becomes the log.
    pub(crate) fn spawn(&mut self, mut command: Command) -> Started {
        assert!(self.child.is_none(), "still running");
        let started = Started {
            mark: self.log.len(),
            at: Instant::now(),
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server binary runs");
        self.log.follow(child.stderr.take().expect("piped"));
        self.log.follow(child.stdout.take().expect("piped"));
        self.child = Some(child);
        started
    }

    /// Waits until it serves clients, or ended.
    pub(crate) fn wait_ready(&mut self, started: &Started, limit: Duration) -> Result<(), Exit> {
        if self.log.wait_after(started.mark, READY, limit).is_some() {
            return Ok(());
        }
        let status = self.wait_exit(Duration::from_secs(1));
        self.kill();
        Err(Exit {
            status,
            took: started.at.elapsed(),
            log: self.log.lines(),
        })
    }

    /// Whether a process was started and not seen to end.
    pub(crate) fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// The log so far, over all starts.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Ends it with SIGKILL, also when it is stopped.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when the process is gone already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
            self.log.wait_closed(Duration::from_secs(5));
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("the server can be signalled");
    }

    /// Asks it to stop with SIGTERM and waits until it ended.
    pub(crate) fn terminate(&mut self, limit: Duration) -> Exit {
        let started = Instant::now();
        self.signal(Signal::TERM);
        let status = self.wait_exit(limit);
        let took = started.elapsed();
        self.kill();
        Exit {
            status,
            took,
            log: self.log.lines(),
        }
    }

    /// Waits until it ended by itself. `None` after `limit`.
    pub(crate) fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
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
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
