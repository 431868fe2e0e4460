//! Starts, awaits and stops the servers that are compared. Whatever ends the comparison, its servers end with it.

use crate::{
    grpc::{CallError, Connection},
    tls::{Dialer, TlsFiles},
};
use bytes::Buf;
use holdfast_certs::DevCaFiles;
use holdfast_proto::{authpb, etcdserverpb as pb};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, TcpListener},
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

/// Room for a million keys and the history of every run; the same for both stores.
const QUOTA_BYTES: &str = "8589934592";

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

fn failed(context: impl Into<String>) -> impl FnOnce(io::Error) -> ServerError {
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

/// How to start one server.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) kind: Kind,
    pub(crate) binary: PathBuf,
    /// Where its data and log go.
    pub(crate) directory: PathBuf,
    /// Mutual TLS if given.
    pub(crate) certs: Option<DevCaFiles>,
    /// With users and, for Holdfast, an audit log. Needs `certs`.
    pub(crate) secured: Option<Secured>,
}

/// The user that loads run as on a server with users.
#[derive(Clone, Debug)]
pub(crate) struct Secured {
    pub(crate) user: &'static str,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// A server at work. Dropping it stops it.
pub(crate) struct Server {
    recipe: Recipe,
    ports: [u16; 2],
    child: Option<Child>,
    log: PathBuf,
    pub(crate) dialer: Dialer,
}

impl Server {
    /// Starts it on fresh data, and returns when it is ready.
    pub(crate) fn start(recipe: Recipe) -> Result<Self, ServerError> {
        let directory = &recipe.directory;
        fs::create_dir_all(directory).map_err(failed(format!("create {}", directory.display())))?;
        let ports = free_ports()?;
        let scheme = if recipe.certs.is_some() {
            "https"
        } else {
            "http"
        };
        let dialer = |cert: Option<(&PathBuf, &PathBuf)>| {
            let files = recipe.certs.as_ref().map(|files| {
                let (cert, key) = cert.unwrap_or((&files.client_cert, &files.client_key));
                TlsFiles {
                    ca: Some(files.ca_cert.clone()),
                    cert: Some(cert.clone()),
                    key: Some(key.clone()),
                    ..TlsFiles::default()
                }
            });
            Dialer::new(
                &format!("{scheme}://127.0.0.1:{}", ports[0]),
                &files.unwrap_or_default(),
            )
        };
        let root = dialer(None)?;
        let user = match &recipe.secured {
            Some(secured) => dialer(Some((&secured.cert, &secured.key)))?,
            None => root.clone(),
        };
        let log = directory.join("log");
        let mut server = Self {
            recipe,
            ports,
            child: None,
            log,
            dialer: user,
        };
        server.launch()?;
        if let Some(secured) = &server.recipe.secured {
            make_users(&root, secured.user)?;
        }
        Ok(server)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.recipe.kind
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Stops it in order and starts it on the same data; gives the time from start to readiness.
    pub(crate) fn restart(&mut self) -> Result<Duration, ServerError> {
        self.stop();
        self.launch()
    }

    /// Stops it and removes its data.
    pub(crate) fn discard(mut self) {
        self.stop();
        // What stays behind goes with the scratch directory.
        let _ = fs::remove_dir_all(&self.recipe.directory);
    }

    /// Bytes of its data directory on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        size_of_tree(&self.recipe.directory.join("data"))
    }

    fn launch(&mut self) -> Result<Duration, ServerError> {
        let log =
            File::create(&self.log).map_err(failed(format!("create {}", self.log.display())))?;
        let errors = log.try_clone().map_err(failed("share the log"))?;
        let begin = Instant::now();
        // Held over the start, so that the signal handler cannot run between a process and its entry.
        let mut running = RUNNING.lock();
        let child = self
            .command()
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(failed(format!("run {}", self.recipe.binary.display())))?;
        running.push(child.id());
        drop(running);
        self.child = Some(child);
        self.await_readiness(begin)
    }

    fn await_readiness(&mut self, begin: Instant) -> Result<Duration, ServerError> {
        let name = self.recipe.kind.name();
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

    fn command(&self) -> Command {
        let mut command = Command::new(&self.recipe.binary);
        let scheme = if self.recipe.certs.is_some() {
            "https"
        } else {
            "http"
        };
        let [client, peer] = self.ports;
        if self.recipe.kind == Kind::Noop {
            command.args(["noop-server", "--listen", &format!("127.0.0.1:{client}")]);
        } else {
            let url = format!("{scheme}://127.0.0.1:{client}");
            let peer = format!("http://127.0.0.1:{peer}");
            command
                .args(["--name", "bench", "--data-dir"])
                .arg(self.recipe.directory.join("data"))
                .args(["--listen-client-urls", &url])
                .args(["--advertise-client-urls", &url])
                .args(["--quota-backend-bytes", QUOTA_BYTES]);
            if self.recipe.kind == Kind::Holdfast && self.recipe.secured.is_some() {
                let log = self.recipe.directory.join("audit.log");
                command.arg(format!("--audit-log=file:{}", log.display()));
            }
            if self.recipe.kind == Kind::Etcd {
                command
                    .args(["--listen-peer-urls", &peer])
                    .args(["--initial-advertise-peer-urls", &peer])
                    .args(["--initial-cluster", &format!("bench={peer}")]);
            }
        }
        if let Some(certs) = &self.recipe.certs {
            command
                .arg("--cert-file")
                .arg(&certs.server_cert)
                .arg("--key-file")
                .arg(&certs.server_key)
                .arg("--trusted-ca-file")
                .arg(&certs.ca_cert);
            if self.recipe.kind != Kind::Noop {
                command.arg("--client-cert-auth");
            }
        }
        command
    }

    fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        signal(child.id(), Signal::TERM);
        let begin = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            if begin.elapsed() > STOP_WITHIN {
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            thread::sleep(POLL);
        }
        RUNNING.lock().retain(|pid| *pid != child.id());
    }
}

impl Drop for Server {
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

/// Ports that were free a moment ago: etcd cannot be told to take any and say which.
fn free_ports() -> Result<[u16; 2], ServerError> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    let context = "find a free port";
    let (first, second) = (
        bind().map_err(failed(context))?,
        bind().map_err(failed(context))?,
    );
    Ok([
        port(&first).map_err(failed(context))?,
        port(&second).map_err(failed(context))?,
    ])
}

/// Makes root and the user, who may read and write every key that begins with `/`, and switches authentication on.
fn make_users(dialer: &Dialer, user: &str) -> Result<(), ServerError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("make a runtime"))?;
    let add = |name: &str| pb::AuthUserAddRequest {
        name: name.to_owned(),
        options: Some(authpb::UserAddOptions { no_password: true }),
        ..pb::AuthUserAddRequest::default()
    };
    let grant = |user: &str, role: &str| pb::AuthUserGrantRoleRequest {
        user: user.to_owned(),
        role: role.to_owned(),
    };
    let permission = authpb::Permission {
        perm_type: authpb::permission::Type::Readwrite as i32,
        key: "/".into(),
        range_end: "0".into(),
    };
    runtime.block_on(async {
        let mut connection = Connection::open(dialer).await?;
        macro_rules! call {
            ($method:literal, $message:expr) => {
                let rpc = connection.rpc(concat!("/etcdserverpb.Auth/", $method))?;
                connection
                    .call(&rpc, &$message, |answer| {
                        answer.advance(answer.remaining());
                        Ok(())
                    })
                    .await?;
            };
        }
        call!("UserAdd", add("root"));
        call!("UserGrantRole", grant("root", "root"));
        call!("UserAdd", add(user));
        call!(
            "RoleAdd",
            pb::AuthRoleAddRequest {
                name: user.to_owned()
            }
        );
        call!(
            "RoleGrantPermission",
            pb::AuthRoleGrantPermissionRequest {
                name: user.to_owned(),
                perm: Some(permission),
            }
        );
        call!("UserGrantRole", grant(user, user));
        call!("AuthEnable", pb::AuthEnableRequest {});
        Ok(())
    })
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

fn size_of_tree(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;

    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of_tree(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
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
