//! The processes of the members. None outlives this one: each asks the system to be killed with its parent before it becomes a
//! member, which only the process itself can ask for.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, OpenOptions},
    io::{Read as _, Seek, SeekFrom},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::OpenOptionsExt,
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use futures::future::select_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::{Exit, Failure};

/// Not a command that people give: what this program is started with to become a member. The arguments behind it are the
/// parent's process id, the program and the program's arguments.
pub(crate) const BECOME_MEMBER: &[u8] = b"__become-dev-member";

/// How much of a log is shown when its member has failed.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 12;

/// A member that was started.
pub(super) struct Process {
    pub(super) name: String,
    pub(super) log: PathBuf,
    child: Child,
    /// Once it has ended.
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `program` with `flags`, and adds what it says to the file `log`.
    pub(super) fn start(
        name: &str,
        program: &Path,
        flags: &[OsString],
        log: PathBuf,
    ) -> Result<Process, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(Exit::Error, format!("cannot start member {name}: {error}"))
        };
        let output = OpenOptions::new()
            .append(true)
            .create(true)
            // As closed as the data: a log names users and keys.
            .mode(0o600)
            .open(&log)
            .map_err(|error| failed(&format!("{}: {error}", log.display())))?;
        let errors = output.try_clone().map_err(|error| failed(&error))?;
        let own = std::env::current_exe().map_err(|error| failed(&error))?;
        let child = Command::new(own)
            .arg(OsStr::from_bytes(BECOME_MEMBER))
            .arg(std::process::id().to_string())
            .arg(program)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // Ctrl-C is for us to pass on, once and in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        Ok(Process {
            name: name.to_owned(),
            log,
            child,
            ended: None,
        })
    }

    /// The process id; `None` once it has ended.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    pub(super) fn ended(&self) -> Option<ExitStatus> {
        self.ended
    }

    pub(super) fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // The process id is ours until the child is waited for; that it has just ended is no failure.
            let _ = kill_process(pid, signal);
        }
    }

    /// The end of the log.
    pub(super) fn last_words(&self) -> String {
        tail(&self.log).unwrap_or_default()
    }
}

/// Waits until one more of them has ended, and says which (its place); `None` if none is left. May be dropped and called again.
pub(super) async fn next_end(processes: &mut [Process]) -> Option<usize> {
    let waits: Vec<_> = processes
        .iter_mut()
        .enumerate()
        .filter(|(_, process)| process.ended.is_none())
        .map(|(index, process)| {
            Box::pin(async move {
                // That a child cannot be waited for does not happen while we are its parent; it is then as good as ended.
                let status = process.child.wait().await;
                process.ended = Some(status.unwrap_or_default());
                index
            })
        })
        .collect();
    if waits.is_empty() {
        return None;
    }
    Some(select_all(waits).await.0)
}

/// Becomes the program that the arguments behind [`BECOME_MEMBER`] name; returns only with the reason why not.
pub(crate) fn become_member(arguments: &[Vec<u8>]) -> Failure {
    let [parent, program, flags @ ..] = arguments else {
        return Failure::new(Exit::BadArguments, "not for use by hand");
    };
    if let Err(failure) = die_with(parent) {
        return failure;
    }
    let text = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
    let program = text(program);
    let error = std::process::Command::new(&program)
        .args(flags.iter().map(text))
        .exec();
    Failure::new(
        Exit::Error,
        format!("cannot run {}: {error}", program.display()),
    )
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn die_with(parent: &[u8]) -> Result<(), Failure> {
    use rustix::process::{getppid, set_parent_process_death_signal};
    let parent = std::str::from_utf8(parent).ok();
    let parent = parent.and_then(|parent| parent.parse::<i32>().ok());
    let is_child = || parent.is_some() && getppid().map(|own| own.as_raw_nonzero().get()) == parent;
    let gone = || Failure::new(Exit::Error, "the parent is gone");
    if !is_child() {
        return Err(gone());
    }
    // Not a request to stop: one that hangs would not hear it, and a member has to bear being killed anyway.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| {
        Failure::new(
            Exit::Error,
            format!("cannot be bound to the parent: {error}"),
        )
    })?;
    // It may have ended before that was asked for.
    if is_child() { Ok(()) } else { Err(gone()) }
}

/// Other systems have no such request; there a parent that is killed leaves its members behind.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn die_with(_parent: &[u8]) -> Result<(), Failure> {
    Ok(())
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    Ok(lines[from..]
        .iter()
        .map(|line| format!("  {line}\n"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_log_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(tail(&path).is_err());
        let long: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, long).unwrap();
        let shown = tail(&path).unwrap();
        assert_eq!(shown.lines().count(), TAIL_LINES);
        assert!(shown.ends_with("  line 999\n"));
        std::fs::write(&path, b"\xff\n").unwrap();
        assert_eq!(tail(&path).unwrap(), "  \u{fffd}\n");
    }

    #[test]
    fn nobody_becomes_a_member_of_another_parent() {
        let arguments = |parent: &str| [parent, "/bin/true"].map(|a| a.as_bytes().to_vec());
        // The parent of a test is not process 1 but for a container that runs nothing else; its own id it never is.
        let own = std::process::id().to_string();
        for parent in [own.as_str(), "", "x", "0", "-1"] {
            assert_eq!(become_member(&arguments(parent)).exit(), Exit::Error);
        }
        assert_eq!(become_member(&[]).exit(), Exit::BadArguments);
    }
}
