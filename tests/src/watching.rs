//! A raw watch stream: every frame can be sent and seen.

use crate::{PATIENCE, Raw};
use holdfast_proto::{etcdserverpb as pb, mvccpb};
use pb::watch_request::RequestUnion;
use std::time::Duration;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// One watch stream.
pub struct RawWatch {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Responses,
}

/// etcd answers the call itself only together with the first response, so the call is under way until one is asked for.
enum Responses {
    Opening(JoinHandle<Result<Streaming<pb::WatchResponse>, Status>>),
    Open(Box<Streaming<pb::WatchResponse>>),
}

impl RawWatch {
    /// Opens a stream without a watch on it.
    pub fn open(raw: &Raw) -> Self {
        let (requests, receiver) = mpsc::channel(1024);
        let mut client = raw.watch.clone();
        let opening = async move {
            let answer = client.watch(ReceiverStream::new(receiver)).await?;
            Ok(answer.into_inner())
        };
        Self {
            requests,
            responses: Responses::Opening(tokio::spawn(opening)),
        }
    }

    /// Opens a stream with one watch on it, whose `created` answer was seen; gives the header revision of that answer.
    pub async fn on(raw: &Raw, request: pb::WatchCreateRequest) -> (Self, i64) {
        let mut watch = Self::open(raw);
        let created = watch.create(request).await;
        assert!(created.created && !created.canceled, "{created:?}");
        (watch, crate::wire::revision(&created.header))
    }

    /// Sends a create request.
    pub async fn request(&self, request: pb::WatchCreateRequest) {
        self.send(RequestUnion::CreateRequest(request)).await;
    }

    /// Sends a create request and reads the next answer, which must be `created`.
    pub async fn create(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.request(request).await;
        let answer = self.next().await;
        assert!(
            answer.created,
            "the next answer is not `created`: {answer:?}"
        );
        answer
    }

    /// Sends a cancel request.
    pub async fn cancel(&self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(pb::WatchCancelRequest {
            watch_id,
        }))
        .await;
    }

    /// Asks for progress.
    pub async fn progress(&self) {
        self.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}))
            .await;
    }

    /// Asks for progress, where the stream may have ended or may have no room.
    pub(crate) fn try_progress(&self) -> Result<(), ()> {
        let union = Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
        let request = pb::WatchRequest {
            request_union: union,
        };
        match self.requests.try_send(request) {
            Err(mpsc::error::TrySendError::Closed(_)) => Err(()),
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
        }
    }

    /// Sends a frame without any request in it.
    pub async fn empty_frame(&self) {
        self.requests
            .send(pb::WatchRequest {
                request_union: None,
            })
            .await
            .expect("the stream is open");
    }

    async fn send(&self, union: RequestUnion) {
        let request = pb::WatchRequest {
            request_union: Some(union),
        };
        // A stream that has ended meanwhile says so, and why, to whom reads its answers.
        let _ = self.requests.send(request).await;
    }

    /// The next answer.
    pub async fn next(&mut self) -> pb::WatchResponse {
        self.next_within(PATIENCE)
            .await
            .expect("a watch answer in time")
    }

    /// The next answer, or `None` when none came within `limit`.
    pub async fn next_within(&mut self, limit: Duration) -> Option<pb::WatchResponse> {
        let next = tokio::time::timeout(limit, self.message()).await.ok()?;
        Some(
            next.expect("the stream goes on")
                .expect("the stream does not end"),
        )
    }

    /// The next answer, the end (`None`) or the failure of the stream.
    pub async fn message(&mut self) -> Result<Option<pb::WatchResponse>, Status> {
        if let Responses::Opening(opening) = &mut self.responses {
            let stream = opening.await.expect("the call does not panic")?;
            self.responses = Responses::Open(Box::new(stream));
        }
        match &mut self.responses {
            Responses::Open(stream) => stream.message().await,
            Responses::Opening(_) => unreachable!("opened above"),
        }
    }

    /// Closes the client's side of the stream.
    pub fn close_requests(&mut self) {
        self.requests = mpsc::channel(1).0;
    }

    /// Reads answers until `count` events were seen; gives the events of all of them.
    pub async fn events(&mut self, count: usize) -> Vec<mvccpb::Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let answer = self.next().await;
            assert!(!answer.canceled, "cancelled: {answer:?}");
            events.extend(answer.events);
        }
        events
    }
}

/// A watch of one key.
pub fn watch_key(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: crate::wire::b(key),
        ..Default::default()
    }
}

/// A watch of all keys with a prefix.
pub fn watch_prefix(prefix: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        range_end: crate::wire::prefix_end(prefix.as_bytes()),
        ..watch_key(prefix)
    }
}

/// An event as text: `+key=value@mod` or `-key@mod`.
pub fn event_text(event: &mvccpb::Event) -> String {
    let kv = event.kv.as_ref().expect("an event has a key");
    let key = String::from_utf8_lossy(&kv.key);
    let value = String::from_utf8_lossy(&kv.value);
    if event.r#type == mvccpb::event::EventType::Delete as i32 {
        format!("-{key}@{}", kv.mod_revision)
    } else {
        format!("+{key}={value}@{}", kv.mod_revision)
    }
}
