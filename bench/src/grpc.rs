//! A lean gRPC client straight on `h2`: no buffer, no balancer, no task but the connection's own, no decode that was not asked for.
//! A load generator on the machine of its server caps the throughput that can be seen (README, "What the client costs").

use crate::{
    answer::{Malformed, Pieces},
    tls::{ConnectError, Dialer},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::poll_fn;
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use prost::Message;

/// Windows wide enough that a 500-key answer (about 150 KB) on each stream never waits for a window update.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// A gRPC message is preceded by one byte of compression flag and four of length.
const PREFIX: usize = 5;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("HTTP/2: {0}")]
    Http2(#[from] h2::Error),
    #[error("HTTP status {0}")]
    Http(StatusCode),
    #[error("gRPC status {code}: {message}")]
    Status { code: String, message: String },
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the server closed the stream early")]
    Closed,
    #[error("the answer is compressed, which was not asked for")]
    Compressed,
    #[error("wrong answer: {0}")]
    Wrong(&'static str),
    #[error("invalid URL: {0}")]
    Url(#[from] http::uri::InvalidUri),
}

/// The full path of an RPC on one server.
#[derive(Clone, Debug)]
pub(crate) struct Rpc(Uri);

/// One connection; clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    headers: HeaderMap,
    base: String,
}

impl Connection {
    /// Dials and starts the connection's task on the current runtime.
    pub(crate) async fn open(dialer: &Dialer) -> Result<Self, CallError> {
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_push(false)
            .handshake(dialer.dial().await?)
            .await?;
        // An error of the connection reaches every stream on it, so the task need not report it.
        drop(tokio::spawn(connection));
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("holdfast-bench/", env!("CARGO_PKG_VERSION"))),
        );
        Ok(Self {
            sender,
            headers,
            base: dialer.base(),
        })
    }

    /// Names an RPC, such as `/etcdserverpb.KV/Put`.
    pub(crate) fn rpc(&self, path: &str) -> Result<Rpc, CallError> {
        Ok(Rpc(format!("{}{path}", self.base).parse()?))
    }

    /// One request, one answer: `read` gets the answer's message and must not read past it.
    pub(crate) async fn call<T>(
        &mut self,
        rpc: &Rpc,
        message: &impl Message,
        read: impl FnOnce(&mut Pieces) -> Result<T, Malformed>,
    ) -> Result<T, CallError> {
        let mut stream = self.open_stream(rpc).await?;
        stream.send.send_data(frame(message), true)?;
        let mut inbound = stream.inbound().await?;
        let answer = inbound.next(read).await?.ok_or(CallError::Closed)?;
        inbound.finish().await?;
        Ok(answer)
    }

    /// Opens a stream of messages in both directions.
    pub(crate) async fn open_stream(&mut self, rpc: &Rpc) -> Result<Stream, CallError> {
        poll_fn(|context| self.sender.poll_ready(context)).await?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = rpc.0.clone();
        *request.headers_mut() = self.headers.clone();
        let (response, send) = self.sender.send_request(request, false)?;
        Ok(Stream { send, response })
    }
}

/// A stream whose answer has not begun.
pub(crate) struct Stream {
    send: SendStream<Bytes>,
    response: h2::client::ResponseFuture,
}

impl Stream {
    pub(crate) fn send(&mut self, message: &impl Message) -> Result<(), CallError> {
        Ok(self.send.send_data(frame(message), false)?)
    }

    /// Waits for the headers of the answer and splits the stream.
    pub(crate) async fn begin(self) -> Result<(Outbound, Inbound), CallError> {
        let inbound = receive(self.response).await?;
        Ok((Outbound(self.send), inbound))
    }

    async fn inbound(self) -> Result<Inbound, CallError> {
        receive(self.response).await
    }
}

/// The sending half of a stream; dropping it before its end resets the stream.
pub(crate) struct Outbound(SendStream<Bytes>);

impl Outbound {
    pub(crate) fn send(&mut self, message: &impl Message) -> Result<(), CallError> {
        Ok(self.0.send_data(frame(message), false)?)
    }
}

/// The receiving half of a stream.
pub(crate) struct Inbound {
    body: RecvStream,
    pieces: Pieces,
}

impl Inbound {
    /// The next message, or nothing at the end of a stream that ended well.
    pub(crate) async fn next<T>(
        &mut self,
        read: impl FnOnce(&mut Pieces) -> Result<T, Malformed>,
    ) -> Result<Option<T>, CallError> {
        if !self.fill(PREFIX).await? {
            self.finish().await?;
            return Ok(None);
        }
        if self.pieces.get_u8() != 0 {
            return Err(CallError::Compressed);
        }
        let length = usize::try_from(self.pieces.get_u32()).map_err(|_| Malformed)?;
        if !self.fill(length).await? {
            return Err(CallError::Closed);
        }
        let mut message = self.pieces.split_to(length);
        Ok(Some(read(&mut message)?))
    }

    /// Waits until `count` bytes are there; false if the stream ended before.
    async fn fill(&mut self, count: usize) -> Result<bool, CallError> {
        while self.pieces.remaining() < count {
            let Some(piece) = self.body.data().await else {
                return Ok(false);
            };
            let piece = piece?;
            self.body.flow_control().release_capacity(piece.len())?;
            self.pieces.push(piece);
        }
        Ok(true)
    }

    /// Reads the trailers and checks the status in them.
    async fn finish(&mut self) -> Result<(), CallError> {
        while let Some(piece) = self.body.data().await {
            self.body.flow_control().release_capacity(piece?.len())?;
        }
        match self.body.trailers().await? {
            Some(trailers) => status(&trailers),
            None => Err(CallError::Closed),
        }
    }
}

async fn receive(response: h2::client::ResponseFuture) -> Result<Inbound, CallError> {
    let response = response.await?;
    if response.status() != StatusCode::OK {
        return Err(CallError::Http(response.status()));
    }
    // A refusal comes as headers alone, with the status in them.
    if response.headers().contains_key("grpc-status") {
        status(response.headers())?;
    }
    Ok(Inbound {
        body: response.into_body(),
        pieces: Pieces::default(),
    })
}

fn status(headers: &HeaderMap) -> Result<(), CallError> {
    match headers.get("grpc-status").map(HeaderValue::as_bytes) {
        Some(b"0") => Ok(()),
        Some(code) => Err(CallError::Status {
            code: String::from_utf8_lossy(code).into_owned(),
            message: headers
                .get("grpc-message")
                .map(|message| String::from_utf8_lossy(message.as_bytes()).into_owned())
                .unwrap_or_default(),
        }),
        None => Err(CallError::Closed),
    }
}

fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut frame);
    frame.freeze()
}
