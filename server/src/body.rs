//! Bodies of requests and answers, counted in their connection's account.

use crate::framing::{Messages, Unfinished};
use crate::held::{Inbound, Kind, Unsent};
use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::StreamBody;
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

/// A part of the memory budget, until it is given back.
pub(crate) type Share = Arc<Mutex<Option<Arc<OwnedSemaphorePermit>>>>;

/// The message of a long answer, encoded and framed away from the runtime. As an extension of a response it takes the place of the
/// response's own body.
#[derive(Clone)]
pub(crate) struct Prepared(Bytes);

impl Prepared {
    /// Encodes a message with gRPC's prefix: a flag (not compressed) and its length.
    pub(crate) fn new(message: impl prost::Message) -> Prepared {
        let length = message.encoded_len();
        let mut frame = BytesMut::with_capacity(5 + length);
        frame.put_u8(0);
        // What is longer than 4 GiB no client takes; the saturated length makes it refuse.
        frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        message.encode_raw(&mut frame);
        Prepared(frame.freeze())
    }

    /// The message and the trailers of success.
    pub(crate) fn into_body(self) -> tonic::body::Body {
        let mut trailers = http::HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let frames = [Frame::data(self.0), Frame::trailers(trailers)].map(Ok::<_, Status>);
        tonic::body::Body::new(StreamBody::new(futures::stream::iter(frames)))
    }
}

/// An answer's body.
pub(crate) struct Answer {
    body: tonic::body::Body,
    unsent: Unsent,
    /// A stream of answers, of which the next is made only when there is room for it.
    streams: bool,
    share: Option<Share>,
    /// Other tasks had their turn since the last piece.
    yielded: bool,
}

impl Answer {
    pub(crate) fn new(
        body: tonic::body::Body,
        unsent: Unsent,
        streams: bool,
        share: Option<Share>,
    ) -> Answer {
        Answer {
            body,
            unsent,
            streams,
            share,
            yielded: false,
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            share.lock().take();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if !this.unsent.is_empty() && !std::mem::replace(&mut this.yielded, true) {
            // Writing a piece takes a while: the answers of others go in between.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.yielded = false;
        if let Some(piece) = this.unsent.next() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if this.streams {
            ready!(this.unsent.held().poll_room(Kind::Short, context.waker()));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        Poll::Ready(
            frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| this.unsent.begin(bytes)))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.unsent.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body.
pub(crate) struct Counted {
    body: Incoming,
    inbound: Arc<Inbound>,
    /// For a stream of messages, of which each is done when the next begins; `None` for a request of one.
    messages: Option<Messages>,
}

impl Counted {
    pub(crate) fn new(body: Incoming, inbound: Arc<Inbound>, streams: bool) -> Counted {
        Counted {
            body,
            inbound,
            messages: streams.then(Messages::default),
        }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
            None => return Poll::Ready(None),
        };
        if let Some(bytes) = frame.data_ref() {
            let counted = match &mut this.messages {
                Some(messages) => match messages.follow(bytes) {
                    Unfinished::Same(bytes) => bytes,
                    Unfinished::Other(bytes) => {
                        this.inbound.reset();
                        bytes
                    }
                },
                None => bytes.len(),
            };
            if !this.inbound.add(counted) {
                let status = Status::resource_exhausted("etcdserver: too many requests");
                return Poll::Ready(Some(Err(status)));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
