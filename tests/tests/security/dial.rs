//! Clients that come from any loopback address and show any certificate.

use holdfast_certs::{ClientStream, ClientTls, connect};
use holdfast_tests::{PATIENCE, Raw, soon};
use hyper_util::rt::TokioIo;
use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpSocket, TcpStream},
};
use tonic::{codegen::http::Uri, transport::Endpoint};
use tower_service::Service;

/// How to reach a port of a server on 127.0.0.1.
#[derive(Clone)]
pub(crate) struct Dial {
    port: u16,
    from: Ipv4Addr,
    tls: Option<ClientTls>,
}

impl Dial {
    /// Plaintext, from 127.0.0.1.
    pub(crate) fn plain(port: u16) -> Self {
        Self {
            port,
            from: Ipv4Addr::LOCALHOST,
            tls: None,
        }
    }

    /// TLS, from 127.0.0.1.
    pub(crate) fn tls(port: u16, tls: ClientTls) -> Self {
        Self {
            tls: Some(tls),
            ..Self::plain(port)
        }
    }

    /// From another address of the loopback network, 127.0.0.0/8.
    pub(crate) fn from(self, from: [u8; 4]) -> Self {
        Self {
            from: from.into(),
            ..self
        }
    }

    /// One connection. With TLS 1.3 a refusal of our certificate may show only with the first read.
    pub(crate) async fn open(&self) -> Result<Io, String> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((self.from, 0))).unwrap();
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let stream = socket
            .connect(to)
            .await
            .map_err(|error| error.to_string())?;
        stream.set_nodelay(true).unwrap();
        match &self.tls {
            None => Ok(Io::Plain(stream)),
            Some(tls) => connect(tls, stream, "127.0.0.1")
                .await
                .map(|stream| Io::Tls(Box::new(stream)))
                .map_err(|error| error.to_string()),
        }
    }

    /// gRPC stubs on one connection of their own. It is not made again when it ends.
    pub(crate) async fn raw(&self) -> Result<Raw, String> {
        let once = Once(Some(self.clone()));
        let endpoint = Endpoint::from_static("http://127.0.0.1").connect_timeout(PATIENCE);
        let channel = endpoint.connect_with_connector(once).await;
        channel.map(Raw::over).map_err(|error| causes(&error))
    }
}

/// An error with all its causes.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Dials once: a channel whose connection was cut must not hide that by a second one.
struct Once(Option<Dial>);

impl Service<Uri> for Once {
    type Response = TokioIo<Io>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Io>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dial = self.0.take();
        Box::pin(async move {
            let dial = dial.ok_or_else(|| io::Error::other("the one connection has ended"))?;
            dial.open()
                .await
                .map(TokioIo::new)
                .map_err(io::Error::other)
        })
    }
}

/// A connection with or without TLS.
pub(crate) enum Io {
    Plain(TcpStream),
    Tls(Box<ClientStream<TcpStream>>),
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What a page came back with.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Head and body as they came.
    pub(crate) text: String,
}

impl Answer {
    /// The value of a header; `name` in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let head = self.text.split("\r\n\r\n").next()?;
        head.lines().find_map(|line| {
            let (given, value) = line.split_once(':')?;
            given.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// What comes after the head.
    pub(crate) fn body(&self) -> &str {
        self.text
            .split_once("\r\n\r\n")
            .map_or("", |(_, body)| body)
    }
}

/// `GET path` over HTTP/1.1 on a connection of its own, with the usual `Host`; or why there was no answer.
pub(crate) async fn get(dial: &Dial, path: &str) -> Result<Answer, String> {
    ask(
        dial,
        "GET",
        path,
        &[("Host", &format!("127.0.0.1:{}", dial.port))],
    )
    .await
}

/// One request with exactly these headers; or why there was no answer.
pub(crate) async fn ask(
    dial: &Dial,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Answer, String> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    let exchange = async {
        let mut io = dial.open().await?;
        let failed = |error: io::Error| error.to_string();
        let sent = io.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        // A refusal is read even if it came before the request was sent.
        let read = io.read_to_end(&mut answer).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        match text.split(' ').nth(1).and_then(|code| code.parse().ok()) {
            Some(status) => Ok(Answer { status, text }),
            None => Err(read
                .and(Ok(()))
                .and(sent)
                .map_or_else(failed, |()| format!("ended without an answer: {text:?}"))),
        }
    };
    soon("an answer or a refusal", exchange).await
}

/// The value of a series of a metrics page: `name` with its labels as they are written there.
pub(crate) fn sample(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| {
        let value = line.strip_prefix(series)?.strip_prefix(' ')?;
        value.trim().parse().ok()
    })
}

/// Waits until a connection that was open is at its end.
pub(crate) async fn ends(io: &mut Io, limit: Duration) {
    let mut rest = Vec::new();
    let reading = io.read_to_end(&mut rest);
    let ended = tokio::time::timeout(limit, reading).await;
    assert!(ended.is_ok(), "the connection is open after {limit:?}");
}
