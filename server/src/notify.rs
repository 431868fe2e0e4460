//! Tells systemd (or whatever set `NOTIFY_SOCKET`) how this process is doing: `sd_notify(3)`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Where to tell it; nowhere if nobody asked. A supervisor that cannot be told is logged and is never a reason to stop.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    socket: Option<OsString>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub(crate) fn from_environment() -> Notifier {
        Notifier::new(
            env::var_os("NOTIFY_SOCKET"),
            env::var("WATCHDOG_USEC").ok().as_deref(),
            env::var("WATCHDOG_PID").ok().as_deref(),
        )
    }

    fn new(
        socket: Option<OsString>,
        watchdog_usec: Option<&str>,
        watchdog_pid: Option<&str>,
    ) -> Notifier {
        // The watchdog may be meant for a parent of ours.
        let ours = watchdog_pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let watchdog = watchdog_usec
            .and_then(|usec| usec.parse().ok())
            .filter(|usec| ours && *usec > 0)
            .map(Duration::from_micros);
        Notifier {
            socket: socket.filter(|path| !path.is_empty()),
            watchdog,
        }
    }

    /// How often [`Notifier::alive`] has to be called, if anybody watches: half the time after which we would be killed, as
    /// `sd_watchdog_enabled(3)` recommends.
    pub(crate) fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// Clients are served.
    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }

    /// The process begins to stop.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The process is not stuck.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, state: &str) {
        let Some(path) = &self.socket else { return };
        if let Err(error) = send(path, state) {
            tracing::warn!(socket = ?path, state, %error, "failed to notify init daemon");
        }
    }
}

fn send(path: &OsStr, state: &str) -> io::Result<()> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(path)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "NOTIFY_SOCKET is neither an absolute path nor an abstract name",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    // A supervisor that does not read must not hold us up.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("timeout");
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).expect("datagram");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn path_and_abstract_sockets() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("bind");
        let name = format!("holdfast-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("name");
        let by_name = UnixDatagram::bind_addr(&address).expect("bind");
        for (socket, given) in [
            (by_path, path.into_os_string()),
            (by_name, format!("@{name}").into()),
        ] {
            let notifier = Notifier::new(Some(given), None, None);
            notifier.ready();
            assert_eq!(receive(&socket), "READY=1");
            notifier.alive();
            assert_eq!(receive(&socket), "WATCHDOG=1");
            notifier.stopping();
            assert_eq!(receive(&socket), "STOPPING=1");
        }
    }

    #[test]
    fn nobody_there_is_not_fatal() {
        for socket in ["", "/nonexistent/notify", "relative", "@"] {
            Notifier::new(Some(socket.into()), None, None).ready();
        }
        Notifier::default().ready();
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time() {
        let me = std::process::id().to_string();
        let interval = |usec, pid| Notifier::new(None, usec, pid).watchdog_interval();
        assert_eq!(
            interval(Some("3000000"), None),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(
            interval(Some("3000000"), Some(me.as_str())),
            Some(Duration::from_millis(1500))
        );
        for (usec, pid) in [
            (Some("3000000"), Some("1")),
            (Some("3000000"), Some("x")),
            (Some("0"), None),
            (Some("-1"), None),
            (Some("soon"), None),
            (None, None),
        ] {
            assert_eq!(interval(usec, pid), None, "{usec:?} {pid:?}");
        }
    }
}
