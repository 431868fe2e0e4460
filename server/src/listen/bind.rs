//! Binding the sockets of a listener's URL.

use holdfast_config::{Config, Host, ListenUrl, Place};
use socket2::{Domain, SockAddr, Type};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Connections that may wait to be accepted. The kernel lowers it to `net.core.somaxconn`, which is 4096 on current systems.
const BACKLOG: i32 = 4096;
/// With port 0 and `localhost`, how often another port is tried if the one chosen for IPv4 is taken for IPv6.
const PORT_ATTEMPTS: usize = 16;
/// Only this user may connect: connecting to a unix socket needs the right to write to it.
const SOCKET_MODE: u32 = 0o600;

/// Why a URL cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// The kernel refused.
    #[error("cannot listen on {url}: {source}")]
    Bind { url: ListenUrl, source: io::Error },
    /// Another process listens on the unix socket.
    #[error("cannot listen on {url}: another process listens on it")]
    InUse { url: ListenUrl },
    /// Something that is not a socket is in the way.
    #[error("cannot listen on {url}: {} exists and is not a socket", path.display())]
    NotASocket { url: ListenUrl, path: PathBuf },
    /// The host is a name, which may belong to another machine.
    #[error("cannot listen on {url}: it names neither an address nor localhost")]
    HostName { url: ListenUrl },
}

/// The bound and listening sockets of one URL. Connections queue up from now on.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(super) listeners: Vec<Listener>,
}

#[derive(Debug)]
pub(super) enum Listener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

impl Bound {
    /// The TCP sockets, for who accepts by other means. A unix socket is closed.
    pub(crate) fn into_tcp(self) -> Vec<std::net::TcpListener> {
        self.listeners
            .into_iter()
            .filter_map(|listener| match listener {
                Listener::Tcp(listener) => Some(listener),
                Listener::Unix(..) => None,
            })
            .collect()
    }
}

#[cfg(test)]
impl Bound {
    /// The TCP addresses, with the port that the system chose for port 0. Empty for a unix socket.
    pub(super) fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|listener| match listener {
                Listener::Tcp(listener) => listener.local_addr().ok(),
                Listener::Unix(..) => None,
            })
            .collect()
    }
}

/// Binds all sockets of a URL and listens on them. `localhost` means 127.0.0.1, and ::1 where the system has IPv6: clients try
/// either first.
///
/// A unix socket that nobody listens on any more is replaced; it is made for this user alone (mode 0600) before the first client
/// can connect, and removed at the end.
///
/// # Errors
///
/// The URL cannot be listened on.
pub(crate) fn bind(url: &ListenUrl, config: &Config) -> Result<Bound, ListenError> {
    let options = Options {
        reuse_port: config.socket_reuse_port,
    };
    bind_with(url, options)
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    /// SO_REUSEADDR needs no option: it is always set, as Go's runtime does for etcd whatever `--socket-reuse-address` says. Without
    /// it a restart would fail while connections of the process before are in TIME_WAIT.
    pub(super) reuse_port: bool,
}

pub(super) fn bind_with(url: &ListenUrl, options: Options) -> Result<Bound, ListenError> {
    let failed = |source| ListenError::Bind {
        url: url.clone(),
        source,
    };
    let listeners = match &url.place {
        Place::Socket { path } => vec![bind_unix(url, path)?],
        Place::Tcp {
            host: Host::Ip(ip),
            port,
        } => {
            let listener = bind_tcp(SocketAddr::new(*ip, *port), options).map_err(failed)?;
            vec![Listener::Tcp(listener)]
        }
        Place::Tcp {
            host: Host::Name(name),
            port,
        } if name.eq_ignore_ascii_case("localhost") => {
            let listeners = bind_localhost(*port, options).map_err(failed)?;
            listeners.into_iter().map(Listener::Tcp).collect()
        }
        Place::Tcp { .. } => return Err(ListenError::HostName { url: url.clone() }),
    };
    Ok(Bound { listeners })
}

fn bind_tcp(address: SocketAddr, options: Options) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if let IpAddr::V6(ip) = address.ip() {
        // [::] means all interfaces of both families, as Go has it; any other address only itself.
        socket.set_only_v6(!ip.is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bind_localhost(port: u16, options: Options) -> io::Result<Vec<std::net::TcpListener>> {
    let mut attempts = if port == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let v4 = bind_tcp((Ipv4Addr::LOCALHOST, port).into(), options)?;
        let chosen = v4.local_addr()?.port();
        match bind_tcp((Ipv6Addr::LOCALHOST, chosen).into(), options) {
            Ok(v6) => return Ok(vec![v4, v6]),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                // Going on would send clients that try IPv6 first to a stranger.
                if attempts == 0 {
                    return Err(io::Error::new(
                        error.kind(),
                        format!("[::1]:{chosen} is in use by another process"),
                    ));
                }
            }
            // No IPv6 on this machine, or not on its loopback interface.
            Err(_) => return Ok(vec![v4]),
        }
    }
}

fn bind_unix(url: &ListenUrl, path: &Path) -> Result<Listener, ListenError> {
    let failed = |source| ListenError::Bind {
        url: url.clone(),
        source,
    };
    remove_stale(url, path)?;
    let bind = || -> io::Result<Listener> {
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile::new(path)?;
        // Nobody can connect before `listen`, so the mode is right for the first client already.
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Listener::Unix(socket.into(), file))
    };
    bind().map_err(failed)
}

/// Removes a socket's file that a process left behind which is gone.
fn remove_stale(url: &ListenUrl, path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Bind {
        url: url.clone(),
        source,
    };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !found.file_type().is_socket() {
        return Err(ListenError::NotASocket {
            url: url.clone(),
            path: path.to_owned(),
        });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ListenError::InUse { url: url.clone() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        // A full backlog, a socket of another type, no permission: somebody may be there.
        Err(error) => Err(failed(error)),
    }
}

/// A unix socket's file, removed at the end unless another process has put its own in its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<SocketFile> {
        let made = fs::symlink_metadata(path)?;
        Ok(SocketFile {
            path: std::path::absolute(path)?,
            device: made.dev(),
            inode: made.ino(),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|now| (now.dev(), now.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the unix socket");
        }
    }
}
