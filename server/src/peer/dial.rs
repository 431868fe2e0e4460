//! HTTP/2 connections to other members.

use super::bounds::{
    ANSWER_BYTES_MAX, CONNECTION_WINDOW, DIAL_DEADLINE, HEADER_LIST_BYTES, HTTP_FRAME,
    PENDING_RESETS, STREAM_WINDOW,
};
use super::frames::{Body, FrameError, Frames, whole};
use super::hello::Refusal;
use super::security::{Holder, SecureError, Security};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::task::JoinHandle;
use tonic::Status;

/// The service that members offer each other.
pub(super) const SERVICE: &str = "/holdfast.peer.v1.Peer/";

/// Why a call to another member has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The member's own answer, which is that of whoever asked for the call.
    #[error("the member answered: {0}")]
    Answered(Status),
    /// It does not speak with this member.
    #[error("the member refuses this one: {0}")]
    Refused(Refusal),
    /// Its host answers, and says that no process listens there.
    #[error("no process listens at {0}")]
    NobodyListens(String),
    /// There is no such member, or no connection to it.
    #[error("the member cannot be reached: {0}")]
    Unreachable(String),
    #[error("the member did not answer in time")]
    Deadline,
    #[error("the member's answer makes no sense: {0}")]
    Malformed(String),
}

impl CallError {
    /// What a status of the other side means.
    pub(super) fn of(status: Status) -> CallError {
        match Refusal::of(&status) {
            Some(refusal) => Self::Refused(refusal),
            None => Self::Answered(status),
        }
    }
}

impl From<FrameError> for CallError {
    fn from(error: FrameError) -> CallError {
        match error {
            FrameError::Broken(_) | FrameError::Truncated => Self::Unreachable(error.to_string()),
            _ => Self::Malformed(error.to_string()),
        }
    }
}

/// How long a silent connection is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeepAlive {
    /// From the last byte to a ping.
    pub(super) interval: Duration,
    /// From a ping to the end.
    pub(super) timeout: Duration,
}

impl KeepAlive {
    /// A peer that says nothing for `deadline` is given up.
    pub(super) fn within(deadline: Duration) -> KeepAlive {
        let interval = deadline / 3;
        KeepAlive {
            interval,
            timeout: deadline.saturating_sub(interval),
        }
    }
}

/// A connection to a member. It ends when this is dropped.
pub(super) struct Connection {
    pub(super) requests: Requests,
    pub(super) holder: Holder,
    _driver: Driver,
}

/// The task of a connection; it ends with this.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where requests on a connection begin; clones are the same.
#[derive(Clone)]
pub(super) struct Requests {
    sender: SendRequest<Body>,
}

impl Connection {
    /// Dials one URL, under a deadline.
    pub(super) async fn open(
        security: &Security,
        url: &str,
        keep_alive: KeepAlive,
    ) -> Result<Connection, CallError> {
        let opening = async {
            let secured = security.dial(url).await;
            let secured = secured.map_err(|error| match error {
                SecureError::Io { source, .. } if source.kind() == ErrorKind::ConnectionRefused => {
                    CallError::NobodyListens(url.to_owned())
                }
                error => CallError::Unreachable(error.to_string()),
            })?;
            let (sender, driver) = Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_frame_size(HTTP_FRAME)
                .max_header_list_size(HEADER_LIST_BYTES)
                .max_pending_accept_reset_streams(PENDING_RESETS)
                .keep_alive_interval(keep_alive.interval)
                .keep_alive_timeout(keep_alive.timeout)
                .keep_alive_while_idle(true)
                .handshake(secured.io)
                .await
                .map_err(|error| CallError::Unreachable(told(&error)))?;
            let driver = tokio::spawn(async move {
                // An error of the connection reaches every stream on it.
                if let Err(error) = driver.await {
                    tracing::debug!(%error, "connection to a member ended");
                }
            });
            Ok(Connection {
                requests: Requests { sender },
                holder: secured.holder,
                _driver: Driver(driver),
            })
        };
        // On the heap: connections are few and long, and this future lives in the task of each.
        match tokio::time::timeout(DIAL_DEADLINE, Box::pin(opening)).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Unreachable(format!(
                "{url} does not answer within {} s",
                DIAL_DEADLINE.as_secs()
            ))),
        }
    }
}

impl Requests {
    /// Begins a call; the answer's body, once its headers say that there is one.
    pub(super) async fn begin(
        &mut self,
        method: &'static str,
        body: Body,
        most: usize,
    ) -> Result<Frames<Incoming>, CallError> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        // HTTP/2 wants an authority; nobody looks at this one.
        *request.uri_mut() = Uri::builder()
            .scheme("http")
            .authority("peer")
            .path_and_query(format!("{SERVICE}{method}"))
            .build()
            .map_err(|error| CallError::Malformed(error.to_string()))?;
        let headers = request.headers_mut();
        let grpc = HeaderValue::from_static("application/grpc");
        headers.insert(header::CONTENT_TYPE, grpc);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let answer = self.sender.send_request(request).await;
        answered(
            answer.map_err(|error| CallError::Unreachable(told(&error)))?,
            most,
        )
    }

    /// One request, one answer.
    pub(super) async fn call<T: Message + Default>(
        &mut self,
        method: &'static str,
        message: &impl Message,
        check: impl FnOnce(&Bytes) -> Result<(), FrameError>,
    ) -> Result<T, CallError> {
        let mut answer = self.begin(method, whole(message), ANSWER_BYTES_MAX).await?;
        let Some(bytes) = answer.next().await? else {
            // An answer may be a status alone, in the trailers.
            return Err(CallError::of(answer.status()));
        };
        check(&bytes)?;
        let message = T::decode(bytes).map_err(FrameError::from)?;
        match answer.next().await? {
            Some(_) => Err(CallError::Malformed("two answers".to_owned())),
            None if answer.status().code() == tonic::Code::Ok => Ok(message),
            None => Err(CallError::of(answer.status())),
        }
    }
}

fn answered(response: Response<Incoming>, most: usize) -> Result<Frames<Incoming>, CallError> {
    if response.status() != StatusCode::OK {
        let status = response.status();
        return Err(CallError::Malformed(format!("HTTP status {status}")));
    }
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != tonic::Code::Ok => Err(CallError::of(status)),
        _ => Ok(Frames::new(response.into_body(), most)),
    }
}

/// hyper's own words are the kind of error; what happened is behind it.
fn told(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
