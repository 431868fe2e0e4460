//! Connections of other members: from accepting to the end, and the way of each call.

use super::bounds::{
    CONNECTION_WINDOW, HEADER_LIST_BYTES, HELLO_BYTES_MAX, HELLO_DEADLINE, HTTP_FRAME, LEASES_MAX,
    PENDING_RESETS, REQUEST_BYTES_MAX, SNAPSHOT_MESSAGE_BYTES_MAX, STRANGERS_CALLS, STREAM_WINDOW,
    STREAMS_MAX,
};
use super::dial::SERVICE;
use super::doors::Seat;
use super::frames::{Body, FrameError, Frames, answer};
use super::handler::{ChangeMembers, HashAt, KeepAlive, OutOfBounds, TimeToLive};
use super::hello::{Hello, PROTOCOL_VERSION, Refusal};
use super::net::{PeerListener, Shared};
use super::security::{Holder, SecureError, Secured};
use super::{inbound, snapshot};
use bytes::Bytes;
use holdfast_proto::peer as pb;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tonic::Status;

/// Pause after an error of accepting that will not go away by itself, such as a lack of file descriptors.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Accepts at one door for ever.
pub(super) async fn accept(shared: Arc<Shared>, listener: PeerListener) -> io::Result<()> {
    let is_tls = listener.tls;
    let listener = TcpListener::from_std(listener.socket)?;
    loop {
        match listener.accept().await {
            Ok((tcp, remote)) => {
                tokio::spawn(connection(shared.clone(), tcp, remote, is_tls));
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                if shared.notices.pass() {
                    tracing::error!(%error, "cannot accept connections of members");
                }
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// Errors that Linux reports for a connection that was gone before it was accepted (accept(2)).
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted
    )
}

/// Why a connection did not come to be one of a member.
#[derive(Debug, thiserror::Error)]
enum Rejection {
    #[error(transparent)]
    Secure(#[from] SecureError),
    #[error("it did not introduce itself in time")]
    TooSlow,
    #[error("it gave way to newer ones")]
    GaveWay,
}

impl Rejection {
    fn label(&self) -> &'static str {
        match self {
            Self::Secure(SecureError::Accept(_)) => "handshake",
            Self::Secure(SecureError::Address(_)) => "address",
            Self::Secure(SecureError::Plaintext(_)) => "plaintext",
            Self::Secure(_) => "connection",
            Self::TooSlow => "timeout",
            Self::GaveWay => "gave_way",
        }
    }
}

async fn connection(shared: Arc<Shared>, tcp: TcpStream, remote: SocketAddr, is_tls: bool) {
    let seat = Arc::new(shared.doors.enter());
    // Answers are small and waited for. If it cannot be said, they come later.
    let _ = tcp.set_nodelay(true);
    let hosts = shared.hosts.read().clone();
    let late = tokio::time::sleep(HELLO_DEADLINE);
    tokio::pin!(late);
    let secured = tokio::select! {
        // On the heap: handshakes are few, connections long.
        secured = Box::pin(shared.security.accept(tcp, remote, is_tls, &hosts)) => {
            secured.map_err(Rejection::from)
        }
        () = &mut late => Err(Rejection::TooSlow),
        () = seat.told_to_leave() => Err(Rejection::GaveWay),
    };
    let Secured { io, holder } = match secured {
        Ok(secured) => secured,
        Err(rejection) => return reject(&shared, remote, &rejection),
    };
    let peers = Peers(Arc::new(Served {
        shared: shared.clone(),
        seat: seat.clone(),
        holder: holder.clone(),
        remote,
        strangers_calls: Semaphore::new(STRANGERS_CALLS),
    }));
    let keep_alive = shared.keep_alive;
    let serving = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(HTTP_FRAME)
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .keep_alive_interval(keep_alive.interval)
        .keep_alive_timeout(keep_alive.timeout)
        .serve_connection(io, peers);
    tokio::pin!(serving);
    let ended = holder.ended();
    tokio::pin!(ended);
    let mut waiting = true;
    loop {
        tokio::select! {
            result = serving.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!("remote-addr" = %remote, %error, "connection of a member ended");
                }
                return;
            }
            () = &mut late, if waiting => {
                waiting = false;
                if !seat.is_greeted() {
                    return reject(&shared, remote, &Rejection::TooSlow);
                }
            }
            () = seat.told_to_leave() => {
                if !seat.is_greeted() {
                    reject(&shared, remote, &Rejection::GaveWay);
                }
                return;
            }
            // Nothing of a connection outlives its certificate: it is cut, not drained.
            reason = &mut ended => {
                tracing::info!("remote-addr" = %remote, %reason, "closing a connection of a member whose certificate is no longer good");
                return;
            }
        }
    }
}

fn reject(shared: &Shared, remote: SocketAddr, rejection: &Rejection) {
    shared.metrics.refused(rejection.label());
    if shared.notices.pass() {
        tracing::warn!("remote-addr" = %remote, error = %rejection, "rejected connection on peer endpoint");
    }
}

/// One connection, as its calls see it.
pub(super) struct Served {
    pub(super) shared: Arc<Shared>,
    seat: Arc<Seat>,
    holder: Holder,
    remote: SocketAddr,
    /// Calls that wait for what a stranger sends.
    strangers_calls: Semaphore,
}

struct Peers(Arc<Served>);

type Answered = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl hyper::service::Service<Request<Incoming>> for Peers {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answered;

    fn call(&self, request: Request<Incoming>) -> Answered {
        let served = self.0.clone();
        Box::pin(async move {
            let is_grpc = request
                .headers()
                .get(header::CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
            if !is_grpc || request.method() != Method::POST {
                let mut response = Response::new(Body::default());
                *response.status_mut() = StatusCode::NOT_FOUND;
                return Ok(response);
            }
            let stranger = if served.seat.is_greeted() {
                None
            } else {
                Some(served.strangers_calls.try_acquire())
            };
            let answer = match stranger {
                Some(Err(_)) => Err(Status::resource_exhausted("introduce yourself first")),
                _ => served.clone().answer(request).await,
            };
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }
}

impl From<OutOfBounds> for Status {
    fn from(error: OutOfBounds) -> Status {
        Status::invalid_argument(error.to_string())
    }
}

impl Served {
    async fn answer(
        self: Arc<Served>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let method = parts.uri.path().strip_prefix(SERVICE);
        let handler = self.shared.handler()?.clone();
        match method {
            Some("Messages") => {
                let frames = Frames::new(body, HELLO_BYTES_MAX);
                return inbound::messages(self, frames, handler).await;
            }
            Some("InstallSnapshot") => {
                let most = SNAPSHOT_MESSAGE_BYTES_MAX + HELLO_BYTES_MAX;
                let frames = Frames::new(body, most);
                return snapshot::receive(&self, frames, handler).await;
            }
            _ => {}
        }
        let frames = Frames::new(body, REQUEST_BYTES_MAX);
        match method {
            Some("KeepAlive") => {
                let message: pb::KeepAliveRequest = one(frames).await?;
                let from = self.introduced(message.hello.clone())?.from;
                let wanted = message.lease_ids.len().min(LEASES_MAX);
                let ttl_seconds = handler
                    .keep_alive(from, KeepAlive::from_wire(message)?)
                    .await?;
                if ttl_seconds.len() != wanted {
                    return Err(Status::internal("an answer for each lease is missing"));
                }
                Ok(answer(&pb::KeepAliveResponse { ttl_seconds }))
            }
            Some("TimeToLive") => {
                let message: pb::TimeToLiveRequest = one(frames).await?;
                let from = self.introduced(message.hello.clone())?.from;
                let times = handler
                    .time_to_live(from, TimeToLive::from_wire(message)?)
                    .await?;
                Ok(answer(&pb::TimeToLiveResponse {
                    found: times.is_some(),
                    granted_seconds: times.map_or(0, |times| times.granted_secs),
                    remaining_seconds: times.map_or(0, |times| times.remaining_secs),
                }))
            }
            Some("ChangeMembers") => {
                let message: pb::ChangeMembersRequest = one(frames).await?;
                let from = self.introduced(message.hello.clone())?.from;
                let index = handler
                    .change_members(from, ChangeMembers::from_wire(message)?)
                    .await?;
                Ok(answer(&pb::ChangeMembersResponse { index }))
            }
            Some("Hash") => {
                let message: pb::HashRequest = one(frames).await?;
                let from = self.introduced(message.hello.clone())?.from;
                let hashes = handler.hash(from, HashAt::from_wire(&message)?).await?;
                Ok(answer(&pb::HashResponse {
                    hash: hashes.hash,
                    hash_revision: hashes.hash_revision,
                    compact_revision: hashes.compact_revision,
                    auth_hash: hashes.auth_hash,
                    applied_index: hashes.applied_index,
                }))
            }
            Some("Describe") => {
                let message: pb::DescribeRequest = one(frames).await?;
                if message.protocol != PROTOCOL_VERSION {
                    self.shared.metrics.refused(Refusal::Protocol.label());
                    return Err(Refusal::Protocol.status(&message.protocol.to_string()));
                }
                Ok(answer(&handler.describe().to_wire()))
            }
            _ => Err(Status::unimplemented(
                "members offer each other no such call",
            )),
        }
    }

    /// Checks who introduces itself, and says so where it matters.
    pub(super) fn introduced(&self, wire: Option<pb::Hello>) -> Result<Hello, Status> {
        let from = wire.as_ref().map_or(0, |hello| hello.from_member);
        let judged = self.judge(wire);
        let shared = &self.shared;
        let refusal = judged.as_ref().err().map(|(refusal, _)| *refusal);
        let news = shared.notices.changed(from, refusal);
        judged.map_err(|(refusal, detail)| {
            shared.metrics.refused(refusal.label());
            if news {
                tracing::warn!(
                    "remote-addr" = %self.remote,
                    "remote-peer-id" = %format_args!("{from:x}"),
                    error = %refusal,
                    detail,
                    "rejected a member on peer endpoint"
                );
            }
            refusal.status(&detail)
        })
    }

    fn judge(&self, wire: Option<pb::Hello>) -> Result<Hello, (Refusal, String)> {
        let hello = self.shared.me.read(wire)?;
        let without_detail = |refusal| (refusal, String::new());
        let handler = self.shared.handler();
        let handler = handler.map_err(|_| without_detail(Refusal::UnknownMember))?;
        let known = handler.check(&hello).map_err(without_detail)?;
        self.holder
            .may_speak_for(&hello.name, &known)
            .map_err(|why| (Refusal::Certificate, why))?;
        if !self.seat.greet(hello.from) {
            let detail = "one connection speaks for one member";
            return Err((Refusal::Malformed, detail.to_owned()));
        }
        Ok(hello)
    }
}

/// The only message of a request, which must come at once.
async fn one<T: Message + Default>(mut frames: Frames<Incoming>) -> Result<T, Status> {
    let bytes = first(&mut frames).await?;
    T::decode(bytes).map_err(|error| FrameError::from(error).status())
}

/// The first message of a request, which must come at once.
pub(super) async fn first(frames: &mut Frames<Incoming>) -> Result<Bytes, Status> {
    match tokio::time::timeout(HELLO_DEADLINE, frames.next()).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(Status::invalid_argument("the request is empty")),
        Ok(Err(error)) => Err(error.status()),
        Err(_) => Err(Status::deadline_exceeded(
            "the request did not come in time",
        )),
    }
}
