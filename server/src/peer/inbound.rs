//! The stream of messages that another member has opened.

use super::bounds::FRAME_BYTES_MAX;
use super::frames::{self, Body, Frames, frame, respond, trailers};
use super::handler::PeerHandler;
use super::hello::Refusal;
use super::serve::{Served, first};
use bytes::Bytes;
use holdfast_proto::peer as pb;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Acks that wait to be written. One each second is asked for; who asks for more and does not read them gets fewer.
const ACKS_WAITING: usize = 8;

/// The streams of messages that others have opened: one for each member.
#[derive(Default)]
pub(super) struct Streams {
    newest: Mutex<HashMap<u64, Arc<Notify>>>,
}

impl Streams {
    /// A new stream of a member takes the place of the one before.
    fn replace(&self, member: u64) -> Arc<Notify> {
        let end = Arc::new(Notify::new());
        let before = self.newest.lock().insert(member, end.clone());
        if let Some(before) = before {
            before.notify_one();
        }
        end
    }

    fn remove(&self, member: u64, end: &Arc<Notify>) {
        let mut newest = self.newest.lock();
        if newest
            .get(&member)
            .is_some_and(|newest| Arc::ptr_eq(newest, end))
        {
            newest.remove(&member);
        }
    }
}

type Acks = mpsc::Sender<Result<Frame<Bytes>, io::Error>>;

/// Answers the Hello, and hands over what follows it until the stream ends.
pub(super) async fn messages(
    served: Arc<Served>,
    mut frames: Frames<Incoming>,
    handler: Arc<dyn PeerHandler>,
) -> Result<Response<Body>, Status> {
    let batch = first(&mut frames).await?;
    frames.permit(FRAME_BYTES_MAX);
    let batch = frames::batch(batch).map_err(|error| error.status())?;
    let hello = served.introduced(batch.hello)?;
    if !batch.messages.is_empty() {
        return Err(Refusal::Malformed.status("messages before the answer"));
    }
    let (acks, answers) = mpsc::channel(ACKS_WAITING);
    let welcome = pb::Ack {
        welcome: Some(served.shared.me.hello(hello.from)),
        probe: 0,
    };
    // There is room: nothing was sent before.
    let _ = acks.try_send(Ok(Frame::data(frame(&welcome))));
    let end = served.shared.streams.replace(hello.from);
    tokio::spawn(async move {
        let from = hello.from;
        let (_, broken) = served.shared.metrics.from(from);
        let status = tokio::select! {
            biased;
            () = end.notified() => Status::aborted("a newer stream has taken the place of this one"),
            status = read(&served, from, frames, &acks, handler) => status,
        };
        if status.code() != tonic::Code::Ok {
            broken.inc();
            tracing::debug!("remote-peer-id" = %format_args!("{from:x}"), %status, "stream of a member ended");
        }
        // If nobody reads any more, nobody needs to know.
        let _ = acks.try_send(Ok(Frame::trailers(trailers(&status))));
        served.shared.streams.remove(from, &end);
    });
    let body = StreamBody::new(ReceiverStream::new(answers));
    Ok(respond(BodyExt::boxed_unsync(body)))
}

/// Reads until the stream ends, and says how it did.
async fn read(
    served: &Served,
    from: u64,
    mut frames: Frames<Incoming>,
    acks: &Acks,
    handler: Arc<dyn PeerHandler>,
) -> Status {
    let (received, _) = served.shared.metrics.from(from);
    loop {
        let bytes = match frames.next().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Status::ok(""),
            Err(error) => return error.status(),
        };
        received.inc_by(bytes.len() as u64);
        let batch = match frames::batch(bytes) {
            Ok(batch) if batch.hello.is_none() => batch,
            Ok(_) => return Refusal::Malformed.status("a second introduction"),
            Err(error) => return error.status(),
        };
        if batch.probe != 0 {
            let ack = pb::Ack {
                welcome: None,
                probe: batch.probe,
            };
            let _ = acks.try_send(Ok(Frame::data(frame(&ack))));
            // It is to be on its way before this thread waits for the disk: what is measured is the network.
            tokio::task::yield_now().await;
        }
        if !batch.messages.is_empty() {
            handler.receive(from, batch.messages);
            let_others_go().await;
        }
    }
}

/// Lets the tasks that are ready go first, without a look at the sockets in between: that would be a system call for each batch.
async fn let_others_go() {
    let mut gone = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut gone, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
