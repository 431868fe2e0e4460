//! The Watch service: one task per stream carries requests to the hub and deliveries to the client.

use super::watch_sink::Sink;
use super::{Connection, Session, StreamEnd, StreamGuard, errors, lower};
use crate::audit::Entry;
use crate::identity::{How, Identified};
use crate::metrics::Rpc;
use holdfast_auth::{Caller, Demands, Denied, KeyRange, Policy, Verb};
use holdfast_proto::servers::etcdserverpb::watch_server::Watch;
use holdfast_proto::{encoded, etcdserverpb as pb};
use holdfast_tenant::watch::{
    Delivery, DeliveryKind, Message, SharedSink, StreamId, WatchRequest, WatchSink,
};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// Requests handled before the deliveries get their turn.
const REQUESTS_PER_TURN: usize = 64;

static NEXT_STREAM: AtomicU64 = AtomicU64::new(1);

#[tonic::async_trait]
impl Watch for Session {
    type WatchStream = WatchStream;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<WatchStream>, Status> {
        let call = self.begin_stream(Rpc::Watch, &request);
        let mut guard = StreamGuard::new(self.0.clone(), Rpc::Watch);
        // Whoever is unknown gets a stream, on which every watch is refused (behaviour §3.7).
        if let Err(status) = call.open_unidentified().await {
            guard.code = status.code();
            return Err(status);
        }
        let who = call.who().cloned();
        let external = who.as_ref().ok().filter(|who| who.how == How::External);
        let mut ends: Vec<StreamEnd> = Vec::new();
        if let Some(who) = external.cloned() {
            ends.push(Box::pin(async move {
                who.ended().await;
                errors::denied(Denied::InvalidToken)
            }));
        }
        if call.wants_leader() {
            ends.push(self.leader_lost());
        }
        let id = StreamId(NEXT_STREAM.fetch_add(1, Ordering::Relaxed));
        let inbox = self.node().tenants.inbox().clone();
        let sink = Arc::new(Sink::new(id, inbox.clone(), self.worker.mailbox.clone()));
        self.tenant.watch_stream_opened();
        let shared: SharedSink = sink.clone();
        inbox.push(Message::Open {
            stream: id,
            tenant: self.tenant.id,
            sink: shared,
        });
        Ok(Response::new(WatchStream {
            id,
            requests: Some(request.into_inner()),
            failed: false,
            sink,
            connection: self.0.clone(),
            who,
            ends,
            waiting: None,
            guard,
        }))
    }
}

/// The answers of one watch stream.
pub(crate) struct WatchStream {
    id: StreamId,
    /// `None` once the client has sent its last request.
    requests: Option<Streaming<pb::WatchRequest>>,
    /// The stream has ended with an error.
    failed: bool,
    sink: Arc<Sink>,
    connection: Arc<Connection>,
    /// Who opened the stream.
    who: Result<Arc<Identified>, Status>,
    /// Each resolves when the stream must end.
    ends: Vec<StreamEnd>,
    /// A watch whose audit record is not taken yet, or that may be permitted in a moment. The requests behind it wait.
    waiting: Option<Waiting>,
    guard: StreamGuard,
}

/// A watch with whether its record was taken.
type Waiting =
    Pin<Box<dyn Future<Output = (WatchRequest, Result<(), Status>, Entry, Instant)> + Send>>;

/// A watch that is asked for, as demands.
struct Watched<'a>(&'a WatchRequest);

impl Demands for Watched<'_> {
    fn demands(&self, demand: &mut dyn FnMut(Verb, &KeyRange)) {
        demand(Verb::Read, &self.0.keys);
    }
}

/// Whether somebody may watch, by the users and roles that are known here.
fn permit(
    connection: &Connection,
    who: &Identified,
    request: &WatchRequest,
) -> Result<Caller, Denied> {
    who.access(&connection.tenant.auth())
        .and_then(|access| access.permits(Policy::KeyScoped, &Watched(request)))
        .map(|()| who.caller.clone())
}

impl WatchStream {
    fn push(&self, message: Message) {
        self.connection.node().tenants.inbox().push(message);
    }

    /// Sends the hub a request of the client's.
    fn ask(&self, message: Message) {
        self.sink.asked();
        self.push(message);
    }

    /// Grants a watch to the stream's caller as it stands now.
    fn authorize(&self, request: &WatchRequest) -> Result<Caller, Status> {
        let who = self.who.as_ref().map_err(Status::clone)?;
        permit(&self.connection, who, request).map_err(|denied| {
            self.connection.node().metrics.denied(denied);
            errors::denied(denied)
        })
    }

    /// Begins a watch, unless a strict rule wants the audit log's word first, or a grant may be on its way here.
    fn create(&mut self, request: WatchRequest) {
        let begun = Instant::now();
        let who = self.who.as_ref().ok();
        let entry = self.connection.audit_entry(Rpc::Watch, who);
        entry.demands(&Watched(&request));
        let now = who.map(|who| permit(&self.connection, who, &request));
        let is_late = matches!(now, Some(Err(Denied::NotPermitted))) && self.connection.may_lag();
        let asks_first = matches!(now, Some(Ok(_))) && entry.is_strict();
        let Some(who) = who.filter(|_| is_late || asks_first).cloned() else {
            let granted = self.authorize(&request);
            return self.created(request, granted, &entry, begun);
        };
        let connection = self.connection.clone();
        self.waiting = Some(Box::pin(async move {
            let caught_up = if is_late {
                connection.catch_up(Rpc::Watch).await
            } else {
                Ok(())
            };
            let is_granted = permit(&connection, &who, &request).is_ok();
            let taken = match caught_up {
                Ok(()) if is_granted && entry.is_strict() => {
                    let taken = connection.record_begin(&entry).await;
                    taken.map_err(|()| errors::audit_unavailable())
                }
                caught_up => caught_up,
            };
            (request, taken, entry, begun)
        }));
    }

    fn created(
        &self,
        request: WatchRequest,
        granted: Result<Caller, Status>,
        entry: &Entry,
        begun: Instant,
    ) {
        let outcome = granted.as_ref().err();
        let outcome = outcome.map(|status| (status.code(), status.message()));
        self.connection.record(entry, outcome, begun.elapsed());
        match granted {
            Ok(caller) => self.ask(Message::Create {
                stream: self.id,
                request,
                caller,
            }),
            // A refused watch is answered on the stream, which goes on; clients parse this text (behaviour §3.7).
            Err(status) => self.sink.push(Delivery {
                watch_id: -1,
                revision: match &self.who {
                    Ok(_) => self.connection.tenant.revision(),
                    Err(_) => 0,
                },
                kind: DeliveryKind::Rejected {
                    reason: format!(
                        "rpc error: code = {:?} desc = {}",
                        status.code(),
                        status.message()
                    ),
                },
            }),
        }
    }

    /// Goes on with a watch that waited for the audit log. Whether the stream may take requests.
    fn poll_waiting(&mut self, context: &mut Context<'_>) -> bool {
        let Some(waiting) = &mut self.waiting else {
            return true;
        };
        let Poll::Ready((request, taken, entry, begun)) = waiting.as_mut().poll(context) else {
            return false;
        };
        self.waiting = None;
        // What was permitted before the wait may not be so any more.
        let granted = taken.and_then(|()| self.authorize(&request));
        self.created(request, granted, &entry, begun);
        true
    }

    fn handle(&mut self, wire: pb::WatchRequest) {
        use pb::watch_request::RequestUnion;
        self.connection
            .node()
            .metrics
            .messages_received(Rpc::Watch, 1);
        match wire.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(lower::watch(create)),
            Some(RequestUnion::CancelRequest(cancel)) => self.ask(Message::Cancel {
                stream: self.id,
                watch_id: cancel.watch_id,
            }),
            Some(RequestUnion::ProgressRequest(_)) => {
                self.ask(Message::Progress { stream: self.id });
            }
            // etcd ignores a request without content.
            None => {}
        }
    }

    fn raise(&self, delivery: Delivery) -> encoded::WatchResponse {
        let metrics = &self.connection.node().metrics;
        metrics.messages_sent(Rpc::Watch, 1);
        let mut response = encoded::WatchResponse {
            header: Some(self.connection.header_at(delivery.revision)),
            watch_id: delivery.watch_id,
            ..encoded::WatchResponse::default()
        };
        match delivery.kind {
            DeliveryKind::Created => response.created = true,
            DeliveryKind::Rejected { reason } => {
                response.created = true;
                response.canceled = true;
                response.cancel_reason = reason;
            }
            DeliveryKind::Canceled { compacted, reason } => {
                response.canceled = true;
                response.compact_revision = compacted;
                response.cancel_reason = reason;
            }
            DeliveryKind::Events { events, fragment } => {
                metrics.events_sent(events.len() as u64);
                response.events = events;
                response.fragment = fragment;
            }
            DeliveryKind::Progress => {}
        }
        response
    }
}

impl Stream for WatchStream {
    type Item = Result<encoded::WatchResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut turns = 0;
        while !this.failed
            && this.poll_waiting(context)
            && this.sink.takes_requests()
            && let Some(requests) = &mut this.requests
        {
            if turns == REQUESTS_PER_TURN {
                context.waker().wake_by_ref();
                break;
            }
            turns += 1;
            match Pin::new(requests).poll_next(context) {
                Poll::Ready(Some(Ok(wire))) => this.handle(wire),
                Poll::Ready(Some(Err(status))) => {
                    let metrics = &this.connection.node().metrics;
                    metrics.stream_failed("receive", "watch");
                    this.guard.code = status.code();
                    this.failed = true;
                    return Poll::Ready(Some(Err(status)));
                }
                // The client has no more requests; its watches go on.
                Poll::Ready(None) => this.requests = None,
                Poll::Pending => break,
            }
        }
        if this.failed {
            return Poll::Ready(None);
        }
        let mut ends = this.ends.iter_mut();
        let ended = ends.find_map(|end| match end.as_mut().poll(context) {
            Poll::Ready(status) => Some(status),
            Poll::Pending => None,
        });
        if let Some(status) = ended {
            this.guard.code = status.code();
            this.failed = true;
            return Poll::Ready(Some(Err(status)));
        }
        match this.sink.poll_next(context) {
            Poll::Ready(delivery) => Poll::Ready(Some(Ok(this.raise(delivery)))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.push(Message::Close { stream: self.id });
        self.connection.tenant.watch_stream_closed();
    }
}
