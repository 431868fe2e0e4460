//! The servers that are compared: what each is started with.

use crate::{
    grpc::Connection,
    server_process::{Kind, ServerError, ServerProcess, failed},
    tls::{Dialer, TlsFiles},
};
use bytes::Buf;
use holdfast_certs::DevCaFiles;
use holdfast_proto::{authpb, etcdserverpb as pb};
use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Room for a million keys and the history of every run; the same for all stores.
pub(crate) const QUOTA_BYTES: &str = "8589934592";

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
    process: ServerProcess,
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
        let process = ServerProcess::new(recipe.kind, directory.join("log"));
        let mut server = Self {
            recipe,
            ports,
            process,
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
        self.process.pid()
    }

    /// Stops it in order and starts it on the same data; gives the time from start to readiness.
    pub(crate) fn restart(&mut self) -> Result<Duration, ServerError> {
        self.process.stop();
        self.launch()
    }

    /// Stops it and removes its data.
    pub(crate) fn discard(mut self) {
        self.process.stop();
        // What stays behind goes with the scratch directory.
        let _ = fs::remove_dir_all(&self.recipe.directory);
    }

    /// Bytes of its data directory on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        size_of_tree(&self.recipe.directory.join("data"))
    }

    fn launch(&mut self) -> Result<Duration, ServerError> {
        let begin = self.process.launch(self.command())?;
        self.process.await_readiness(begin)
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
