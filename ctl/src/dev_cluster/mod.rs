//! `dev-cluster`: a cluster on this machine by one command, to try things out and to break them.
//!
//! One directory holds everything: the CAs and certificates, a data directory and a log for each member, and a file that says what
//! cluster it is. The members are processes of their own, as in earnest; this one starts them, waits, and stops them.

mod banner;
mod plan;
mod process;

use std::{
    env,
    ffi::OsStr,
    fmt::Display,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use holdfast_certs::{DevCa, DevCaFiles, DevPeerCa};
use holdfast_proto::etcdserverpb::RangeRequest;
use rustix::process::Signal;
use tokio::{
    signal::unix::{self, SignalKind},
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tonic::Code;

use self::{
    banner::{Access, Served},
    plan::{Certificates, Member, Shape, flags},
    process::{Process, next_end},
};
use crate::{
    Exit, Failure,
    cli::{Globals, Read},
    connect::Client,
    output,
};

pub(crate) use process::{BECOME_MEMBER, become_member};

/// A file of this name says what cluster the directory holds, and is locked while one runs in it.
const RECORD: &str = "cluster";
/// Far more than [`Shape::record`] writes.
const MAX_RECORD_BYTES: u64 = 1024;
/// How long the members may take until all serve. A healthy one needs a second.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long they may take to stop before they are killed.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks whether a member serves.
const LOOK: Duration = Duration::from_millis(100);

/// Runs a cluster until it is told to stop.
pub(crate) async fn run(line: &Read) -> Result<(), Failure> {
    let program = program(line.text("holdfast"))?;
    let mut signals = Signals::new()?;
    let site = Site::open(line)?;
    let (access, mut processes) = site.start(&program)?;
    let globals = globals(&site.members, &access)?;
    let client = Client::new(&globals)?;
    let outcome = tokio::select! {
        ready = ready(&client, &site.members, Instant::now() + START_DEADLINE) => match ready {
            Ok(()) => None,
            Err(failure) => Some(Err(failure)),
        },
        end = next_end(&mut processes) => Some(Err(died(&processes, end))),
        () = signals.next() => Some(Ok(())),
    };
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => {
            // A cluster that serves goes on when nobody listens to what is said about it.
            let _ = output::write_stdout(site.banner(&processes, &access).as_bytes());
            serve(&mut processes, &mut signals).await
        }
    };
    let stopped = stop(&mut processes, &mut signals).await;
    outcome.and(stopped)
}

/// Until a signal comes or no member is left. That one ends is what such a cluster is for.
async fn serve(processes: &mut [Process], signals: &mut Signals) -> Result<(), Failure> {
    loop {
        let end = tokio::select! {
            () = signals.next() => return Ok(()),
            end = next_end(processes) => end,
        };
        match end.and_then(|index| processes.get(index)) {
            None => return Err(Failure::new(Exit::Error, "no member is left")),
            Some(process) => say(&format!("member {} ended: {}", process.name, how(process))),
        }
    }
}

/// Asks all members to stop and waits for them; those that take too long, or all at a second signal, are killed.
async fn stop(processes: &mut [Process], signals: &mut Signals) -> Result<(), Failure> {
    for process in processes.iter() {
        process.signal(Signal::TERM);
    }
    let deadline = Instant::now() + STOP_DEADLINE;
    let mut impatient = false;
    let mut failed = Vec::new();
    loop {
        let end = tokio::select! {
            end = next_end(processes) => end,
            () = signals.next(), if !impatient => {
                impatient = true;
                kill(processes);
                continue;
            }
            () = sleep_until(deadline), if !impatient => {
                impatient = true;
                kill(processes);
                continue;
            }
        };
        let Some(process) = end.and_then(|index| processes.get(index)) else {
            break;
        };
        if !process.ended().is_some_and(|status| status.success()) {
            failed.push(format!("member {}: {}", process.name, how(process)));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Error,
        format!("not all members stopped in order: {}", failed.join("; ")),
    ))
}

fn kill(processes: &[Process]) {
    for process in processes {
        process.signal(Signal::KILL);
    }
}

/// The reason to give up when a member ends before the cluster serves.
fn died(processes: &[Process], end: Option<usize>) -> Failure {
    let Some(process) = end.and_then(|index| processes.get(index)) else {
        return Failure::new(Exit::Error, "no member was started");
    };
    Failure::new(
        Exit::Error,
        format!(
            "member {} ended before the cluster was ready: {}; the end of {}:\n{}",
            process.name,
            how(process),
            process.log.display(),
            process.last_words().trim_end()
        ),
    )
}

fn how(process: &Process) -> String {
    process
        .ended()
        .map_or_else(String::new, |status| status.to_string())
}

/// Until every member has answered a read that needs a majority.
async fn ready(client: &Client<'_>, members: &[Member], deadline: Instant) -> Result<(), Failure> {
    for member in members {
        let url = member.client_url();
        let mut last = String::new();
        loop {
            match timeout_at(deadline, serves(client, &url)).await {
                Ok(Ok(())) => break,
                Ok(Err(reason)) => last = reason,
                Err(_) => {
                    return Err(Failure::new(
                        Exit::Error,
                        format!(
                            "member {} does not serve after {} s: {last}",
                            member.name,
                            START_DEADLINE.as_secs()
                        ),
                    ));
                }
            }
            sleep(LOOK).await;
        }
    }
    Ok(())
}

async fn serves(client: &Client<'_>, url: &str) -> Result<(), String> {
    let link = client.link(url).await;
    let link = link.map_err(|error| Failure::from(error).to_string())?;
    let request = RangeRequest {
        key: "health".into(),
        ..RangeRequest::default()
    };
    let read = client.send(link, |link| {
        let request = request.clone();
        async move { link.kv().range(request).await }
    });
    match read.await {
        Ok(_) => Ok(()),
        // Judged by what a majority holds, too.
        Err(status) if status.code() == Code::PermissionDenied => Ok(()),
        Err(status) => Err(crate::failure::status_text(&status)),
    }
}

/// The directory of a cluster, held for as long as this lives.
struct Site {
    /// Absolute.
    dir: PathBuf,
    members: Vec<Member>,
    _lock: File,
}

impl Site {
    fn open(line: &Read) -> Result<Site, Failure> {
        let members = match line.positional() {
            [] => None,
            [count] => Some(number(count).ok_or_else(|| {
                bad(format!(
                    "the number of members must be 1 to {}",
                    plan::MAX_MEMBERS
                ))
            })?),
            _ => return Err(bad("dev-cluster takes one argument, the number of members")),
        };
        let base_port = match line.is_given("base-port") {
            false => None,
            true => match u16::try_from(line.int("base-port")) {
                Ok(port) => Some(port),
                Err(_) => return Err(bad("--base-port must be a port")),
            },
        };
        let dir = Path::new(line.text("dir"));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| cannot("make", dir, error))?;
        let dir = fs::canonicalize(dir).map_err(|error| cannot("find", dir, error))?;
        let path = dir.join(RECORD);
        let mut record = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| cannot("open", &path, error))?;
        record.try_lock().map_err(|error| {
            cannot("lock (does a cluster run in this directory?)", &path, error)
        })?;
        let mut text = String::new();
        (&record)
            .take(MAX_RECORD_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| cannot("read", &path, error))?;
        // Nothing is in it when it was made now, or by a run that ended right then and so before its members.
        let recorded = match text.as_str() {
            "" => None,
            text => Some(Shape::parse(text).ok_or_else(|| cannot("read", &path, "it is damaged"))?),
        };
        let shape = Shape::settle(members, base_port, recorded)?;
        if recorded.is_none() {
            record
                .write_all(shape.record().as_bytes())
                .and_then(|()| record.sync_all())
                .map_err(|error| cannot("write", &path, error))?;
        }
        Ok(Site {
            dir,
            members: shape.members(),
            _lock: record,
        })
    }

    /// Makes the certificates that are missing, and starts the members.
    fn start(&self, program: &Path) -> Result<(Access, Vec<Process>), Failure> {
        let certs = self.dir.join("certs");
        let failed = |error: holdfast_certs::IssueError| bad_state(error.to_string());
        let clients = DevCa::open_or_create(&certs).map_err(failed)?;
        let peers = DevPeerCa::open_or_create(&certs).map_err(failed)?;
        for warning in clients.warnings().iter().chain(peers.warnings()) {
            say(&format!("warning: {warning}"));
        }
        let DevCaFiles {
            ca_cert,
            server_cert,
            server_key,
            client_cert,
            client_key,
            ..
        } = clients.files();
        let mut plans = Vec::with_capacity(self.members.len());
        for member in &self.members {
            let own = peers.member(&member.name, &[]).map_err(failed)?;
            let certificates = Certificates {
                client_ca: ca_cert.clone(),
                server_cert: server_cert.clone(),
                server_key: server_key.clone(),
                peer_ca: peers.ca_cert(),
                peer_cert: own.cert,
                peer_key: own.key,
            };
            plans.push((
                member,
                flags(member, &self.members, &self.dir, &certificates),
            ));
        }
        // Those already started are killed if one cannot be.
        let processes = plans
            .iter()
            .map(|(member, flags)| {
                Process::start(&member.name, program, flags, member.log_file(&self.dir))
            })
            .collect::<Result<_, _>>()?;
        let access = Access {
            ca: ca_cert,
            cert: client_cert,
            key: client_key,
        };
        Ok((access, processes))
    }

    fn banner(&self, processes: &[Process], access: &Access) -> String {
        let served: Vec<_> = self
            .members
            .iter()
            .zip(processes)
            .map(|(member, process)| Served {
                name: member.name.clone(),
                url: member.client_url(),
                pid: process.pid(),
                log: process.log.clone(),
            })
            .collect();
        banner::banner(&served, access)
    }
}

/// The server's program: the one that was named, or the one beside this.
fn program(named: &str) -> Result<PathBuf, Failure> {
    let path = match named {
        "" => env::current_exe()
            .map_err(|error| bad_state(format!("cannot find this program: {error}")))?
            .with_file_name("holdfast"),
        path => PathBuf::from(path),
    };
    // The members are started elsewhere than where a relative path would be looked for by its name alone.
    fs::canonicalize(&path).map_err(|error| {
        bad(format!(
            "{}: {error}; name the server's program with --holdfast",
            path.display()
        ))
    })
}

fn globals(members: &[Member], access: &Access) -> Result<Globals, Failure> {
    let text = |path: &PathBuf| match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(bad("the path of --dir must be UTF-8")),
    };
    Ok(Globals::with_certificate(
        members.iter().map(Member::client_url).collect(),
        text(&access.ca)?,
        text(&access.cert)?,
        text(&access.key)?,
    ))
}

/// What asks this program to stop.
struct Signals([unix::Signal; 3]);

impl Signals {
    fn new() -> Result<Signals, Failure> {
        let listen = |kind| {
            unix::signal(kind)
                .map_err(|error| bad_state(format!("cannot listen for signals: {error}")))
        };
        Ok(Signals([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            // The terminal is closed.
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn number(text: &[u8]) -> Option<u8> {
    let text = OsStr::from_bytes(text).to_str()?;
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn say(text: &str) {
    output::write_stderr(format!("{text}\n").as_bytes());
}

fn bad(text: impl Into<String>) -> Failure {
    Failure::new(Exit::BadArguments, text)
}

fn bad_state(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Error, text)
}

fn cannot(what: &str, path: &Path, error: impl Display) -> Failure {
    bad_state(format!("cannot {what} {}: {error}", path.display()))
}
