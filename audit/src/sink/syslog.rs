//! A syslog daemon (RFC 5424 messages over a unix datagram socket or UDP): one message for each line, without a chain.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs, UdpSocket},
    os::unix::net::UnixDatagram,
    time::{Duration, SystemTime},
};

use super::{Refused, Sink};
use crate::{SyslogTarget, block::Block, line, stamp};

/// Facility 10 (security messages), severity 6 (informational).
const PRIORITY: &str = "<86>";
/// What a UDP datagram can carry, with room for the header.
const MAX_UDP_BYTES: usize = 65_000;

pub(crate) struct SyslogSink {
    target: SyslogTarget,
    timeout: Duration,
    /// The part of the header after the time.
    header: String,
    socket: Option<Socket>,
    message: Vec<u8>,
}

enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl Socket {
    fn send(&self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.send(message),
            Self::Udp(socket) => socket.send(message),
        }
        .map(drop)
    }
}

impl SyslogSink {
    pub(crate) fn new(target: SyslogTarget, node: &str, timeout: Duration) -> Self {
        let host: String = node
            .chars()
            .filter(char::is_ascii_graphic)
            .take(255)
            .collect();
        let host = if host.is_empty() { "-" } else { &host };
        let process = std::process::id();
        Self {
            target,
            timeout,
            header: format!(" {host} holdfast {process} audit - "),
            socket: None,
            message: Vec::new(),
        }
    }

    fn connect(&self) -> io::Result<Socket> {
        match &self.target {
            SyslogTarget::Socket(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(self.timeout))?;
                Ok(Socket::Unix(socket))
            }
            SyslogTarget::Udp { host, port } => {
                let address = (host.as_str(), *port)
                    .to_socket_addrs()?
                    .next()
                    .ok_or_else(|| io::Error::other("the name has no address"))?;
                let any: SocketAddr = match address {
                    SocketAddr::V4(_) => ([0; 4], 0).into(),
                    SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                socket.set_write_timeout(Some(self.timeout))?;
                Ok(Socket::Udp(socket))
            }
        }
    }

    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        if self.socket.is_none() {
            self.socket = Some(self.connect()?);
        }
        let message = &mut self.message;
        message.clear();
        message.extend_from_slice(PRIORITY.as_bytes());
        message.extend_from_slice(b"1 ");
        match time_of(line) {
            Some(time) => message.extend_from_slice(time),
            None => message.extend_from_slice(stamp::text(SystemTime::now()).as_bytes()),
        }
        message.extend_from_slice(self.header.as_bytes());
        message.extend_from_slice(line);
        let Some(socket) = &self.socket else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if matches!(socket, Socket::Udp(_)) && message.len() > MAX_UDP_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a record is too long for a datagram",
            ));
        }
        socket.send(message)
    }
}

/// The time that a line begins with.
fn time_of(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(line::RPC)?.strip_prefix(b"\"")?;
    rest.get(..27)
}

impl Sink for SyslogSink {
    fn take(&mut self, block: &Block, lost: u64) -> Result<(), Refused> {
        let mut taken = 0;
        let said = (lost > 0).then(|| line::lost(lost));
        let said = said.as_deref().unwrap_or_default();
        for (is_said, lines) in [(true, said), (false, &block.lines)] {
            for line in lines.split(|byte| *byte == b'\n') {
                if line.is_empty() {
                    continue;
                }
                if let Err(error) = self.send(line) {
                    // The daemon may have been started anew; the next try makes a new socket.
                    self.socket = None;
                    return Err(Refused { taken, error });
                }
                taken += u64::from(!is_said);
            }
        }
        Ok(())
    }
}
