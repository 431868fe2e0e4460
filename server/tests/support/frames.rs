//! HTTP/2 frames as an attacker writes them: no flow control, no state, no manners.

use prost::Message;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A literal header field, not indexed, with a new name (RFC 7541, section 6.2.2).
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name, value] {
        integer(text.len(), &mut block);
        block.extend(text.as_bytes());
    }
    block
}

/// With a prefix of seven bits.
fn integer(mut value: usize, into: &mut Vec<u8>) {
    if value < 127 {
        into.push(value as u8);
        return;
    }
    into.push(127);
    value -= 127;
    while value >= 128 {
        into.push((value % 128) as u8 | 128);
        value /= 128;
    }
    into.push(value as u8);
}

/// The header block of a gRPC call.
pub(crate) fn call_headers(path: &str) -> Vec<u8> {
    [
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", path),
        field(":authority", "localhost"),
        field("content-type", "application/grpc"),
        field("te", "trailers"),
    ]
    .concat()
}

/// A message with its gRPC prefix.
pub(crate) fn grpc(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    framed.extend(body);
    framed
}

/// A whole unary call on a stream.
pub(crate) fn unary(stream: u32, path: &str, message: &impl Message) -> Vec<u8> {
    let mut frames = frame(HEADERS, END_HEADERS, stream, &call_headers(path));
    frames.extend(data(stream, &grpc(message), true));
    frames
}

/// Bytes of a stream in frames of the default size.
pub(crate) fn data(stream: u32, bytes: &[u8], end: bool) -> Vec<u8> {
    let mut frames = Vec::new();
    let mut chunks = bytes.chunks(16_384).peekable();
    while let Some(chunk) = chunks.next() {
        let flags = if end && chunks.peek().is_none() {
            END_STREAM
        } else {
            0
        };
        frames.extend(frame(DATA, flags, stream, chunk));
    }
    frames
}

pub(crate) struct Attacker {
    pub(crate) socket: TcpStream,
}

impl Attacker {
    /// Connects and says hello with these settings.
    pub(crate) async fn connect(port: u16, settings: &[(u16, u32)]) -> Attacker {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        socket
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        socket
            .write_all(&frame(SETTINGS, 0, 0, &payload))
            .await
            .unwrap();
        Attacker { socket }
    }

    /// Sends as long as the server takes it; `false` when it has closed the connection, or has taken nothing for `patience`.
    pub(crate) async fn send(&mut self, bytes: &[u8], patience: Duration) -> bool {
        let sent = tokio::time::timeout(patience, self.socket.write_all(bytes)).await;
        matches!(sent, Ok(Ok(())))
    }

    /// Waits until the server closes the connection, throwing away what it says.
    pub(crate) async fn closed_within(&mut self, limit: Duration) -> bool {
        let mut buffer = vec![0; 64 << 10];
        let closed = async {
            loop {
                match self.socket.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        tokio::time::timeout(limit, closed).await.is_ok()
    }
}

/// An attacker that keeps to the windows of the server, as it must to send much, and throws away what it is sent. It opens its own
/// windows as far as its settings and [`Attacker::send`] have before.
pub(crate) struct Paced {
    writer: OwnedWriteHalf,
    windows: Arc<Mutex<Windows>>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Windows {
    connection: i64,
    initial: i64,
    /// What the server has added to streams.
    added: HashMap<u32, i64>,
    sent: HashMap<u32, i64>,
    received: u64,
    closed: bool,
    ended: Vec<u32>,
}

impl Attacker {
    pub(crate) async fn paced(self) -> Paced {
        let (reader, writer) = self.socket.into_split();
        let windows = Arc::new(Mutex::new(Windows {
            connection: 65_535,
            initial: 65_535,
            ..Windows::default()
        }));
        let changed = Arc::new(Notify::new());
        tokio::spawn(listen(reader, windows.clone(), changed.clone()));
        let mut paced = Paced {
            writer,
            windows,
            changed,
        };
        // The server's windows count from the acknowledgement on.
        while paced.windows.lock().unwrap().initial == 65_535 {
            paced.changed.notified().await;
        }
        let ack = frame(SETTINGS, ACK, 0, &[]);
        assert!(paced.send(&ack, Duration::from_secs(1)).await);
        paced
    }
}

async fn listen(mut reader: OwnedReadHalf, windows: Arc<Mutex<Windows>>, changed: Arc<Notify>) {
    let mut head = [0; 9];
    let mut payload = Vec::new();
    while reader.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        payload.resize(length, 0);
        if reader.read_exact(&mut payload).await.is_err() {
            break;
        }
        let mut windows = windows.lock().unwrap();
        match head[3] {
            DATA => windows.received += length as u64,
            RST_STREAM => windows.ended.push(stream),
            HEADERS if head[4] & END_STREAM != 0 => windows.ended.push(stream),
            SETTINGS if head[4] & ACK == 0 => {
                for setting in payload.chunks_exact(6) {
                    if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                        windows.initial =
                            u32::from_be_bytes(setting[2..].try_into().unwrap()).into();
                    }
                }
            }
            WINDOW_UPDATE => {
                let more = i64::from(u32::from_be_bytes(payload[..4].try_into().unwrap()));
                if stream == 0 {
                    windows.connection += more;
                } else {
                    *windows.added.entry(stream).or_default() += more;
                }
            }
            _ => {}
        }
        drop(windows);
        changed.notify_one();
    }
    windows.lock().unwrap().closed = true;
    changed.notify_one();
}

impl Paced {
    /// Sends bytes of a stream as far as the server takes them; `false` when it ends the stream or the connection, or takes nothing
    /// for `patience`.
    pub(crate) async fn data(&mut self, stream: u32, bytes: &[u8], patience: Duration) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = {
                let mut windows = self.windows.lock().unwrap();
                if windows.closed || windows.ended.contains(&stream) {
                    return false;
                }
                let sent = windows.sent.get(&stream).copied().unwrap_or_default();
                let added = windows.added.get(&stream).copied().unwrap_or_default();
                let room = windows.connection.min(windows.initial + added - sent);
                let room = room.clamp(0, rest.len().min(16_384) as i64);
                windows.connection -= room;
                *windows.sent.entry(stream).or_default() += room;
                room as usize
            };
            if room == 0 {
                let changed = tokio::time::timeout(patience, self.changed.notified()).await;
                if changed.is_err() {
                    return false;
                }
                continue;
            }
            let (now, later) = rest.split_at(room);
            rest = later;
            if !self.send(&frame(DATA, 0, stream, now), patience).await {
                return false;
            }
        }
        true
    }

    pub(crate) async fn send(&mut self, bytes: &[u8], patience: Duration) -> bool {
        let sent = tokio::time::timeout(patience, self.writer.write_all(bytes)).await;
        matches!(sent, Ok(Ok(())))
    }

    /// Whether the server has closed the connection.
    pub(crate) fn is_closed(&self) -> bool {
        self.windows.lock().unwrap().closed
    }
}
