//! A connector for HTTP clients (tonic's `Endpoint::connect_with_connector`): TLS, plain TCP or a Unix socket.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tower_service::Service;

use crate::{
    client::{ClientStream, ClientTls, ConnectError, connect},
    target::Target,
};

/// Makes connections for an HTTP client. Cheap to clone.
///
/// Connecting has no deadline of its own; the HTTP client's connect timeout covers resolving, connecting and handshake.
#[derive(Debug, Clone)]
pub struct TlsConnector {
    tls: Option<ClientTls>,
    target: Option<Target>,
}

impl TlsConnector {
    /// Goes where each request's URI says; `https` needs `tls`.
    pub fn new(tls: Option<ClientTls>) -> Self {
        Self { tls, target: None }
    }

    /// Goes to `target` whatever the URI says. This is the way to Unix sockets, and to TLS behind a client that may not
    /// see `https` (see [`Target::dial_uri`]).
    pub fn fixed(tls: Option<ClientTls>, target: Target) -> Self {
        Self {
            tls,
            target: Some(target),
        }
    }

    /// Makes one connection.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub async fn connect(&self, target: &Target) -> Result<ClientIo, ConnectError> {
        let tls = match (target.is_tls(), &self.tls) {
            (false, _) => None,
            (true, Some(tls)) => Some(tls),
            (true, None) => return Err(ConnectError::NoTls(target.to_string())),
        };
        let host = target.tls_host();
        Ok(match (Socket::open(target).await?, tls) {
            (Socket::Tcp(tcp), None) => ClientIo::Tcp(tcp),
            (Socket::Unix(unix), None) => ClientIo::Unix(unix),
            (Socket::Tcp(tcp), Some(tls)) => {
                ClientIo::Tls(Box::new(connect(tls, tcp, host).await?))
            }
            (Socket::Unix(unix), Some(tls)) => {
                ClientIo::UnixTls(Box::new(connect(tls, unix, host).await?))
            }
        })
    }
}

/// A connection without TLS yet.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(crate) async fn open(target: &Target) -> Result<Self, ConnectError> {
        let opened = match target {
            Target::Tcp { host, port, .. } => {
                match TcpStream::connect((host.as_str(), *port)).await {
                    // Requests are small and waited for.
                    Ok(tcp) => tcp.set_nodelay(true).map(|()| Self::Tcp(tcp)),
                    Err(error) => Err(error),
                }
            }
            Target::Unix { path, .. } => UnixStream::connect(path).await.map(Self::Unix),
        };
        opened.map_err(|source| ConnectError::Io {
            target: target.to_string(),
            source,
        })
    }
}

impl Service<Uri> for TlsConnector {
    type Response = TokioIo<ClientIo>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let target = match &connector.target {
                Some(target) => target.clone(),
                None => Target::try_from(&uri)?,
            };
            connector.connect(&target).await.map(TokioIo::new)
        })
    }
}

/// A connection made by [`TlsConnector`].
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientIo {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<ClientStream<TcpStream>>),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over a Unix socket.
    UnixTls(Box<ClientStream<UnixStream>>),
}

macro_rules! on_stream {
    ($io:expr, $stream:ident => $call:expr) => {
        match $io {
            ClientIo::Tcp($stream) => $call,
            ClientIo::Tls($stream) => $call,
            ClientIo::Unix($stream) => $call,
            ClientIo::UnixTls($stream) => $call,
        }
    };
}

impl AsyncRead for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        on_stream!(self, stream => stream.is_write_vectored())
    }
}
