//! Messages that wait for one member, and the body of the stream that takes them away.

use super::bounds::{
    BATCH_BYTES, BATCH_MESSAGES_MAX, LOOK, QUEUE_BYTES_MAX, QUEUE_MESSAGES_DOWN, QUEUE_MESSAGES_MAX,
};
use super::frames::frame_batch;
use crate::metrics::PeerSeries;
use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Wakes the thread of the peers once, however many messages were queued for however many members: each wake of a sleeping thread is
/// a system call.
#[derive(Default)]
pub(super) struct Bell {
    rung: AtomicBool,
    notify: Notify,
}

impl Bell {
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.notify.notify_one();
        }
    }

    /// Waits until it was rung. What was queued before the ring is seen after it.
    pub(super) async fn wait(&self) {
        self.notify.notified().await;
        self.rung.store(false, Ordering::Release);
    }
}

/// Messages that wait for one member.
pub(super) struct Outbox {
    state: Mutex<State>,
    series: PeerSeries,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// The stream that messages are for, by number; that of others has ended. 0: none.
    session: u64,
    /// Whether it has been welcomed.
    up: bool,
    /// Of its body, when it found nothing.
    waker: Option<Waker>,
    /// Since when the first in the queue waits; some while it is not empty.
    waiting_since: Option<Instant>,
    /// Messages were dropped although the stream is up, and nobody was told.
    overflowed: bool,
    /// The last probe, and when it left; 0 once it has come back.
    probe: u64,
    probed_at: Option<Instant>,
}

impl State {
    fn pop(&mut self) -> Option<Bytes> {
        let message = self.queue.pop_front()?;
        self.bytes -= message.len();
        Some(message)
    }
}

impl Outbox {
    pub(super) fn new(series: PeerSeries) -> Outbox {
        Outbox {
            state: Mutex::default(),
            series,
        }
    }

    /// Queues a message; whether the bell must be rung for it. Never blocks.
    ///
    /// While the stream is up a full queue takes nothing more, so that what is in it stays without a gap; while it is not, the oldest
    /// give way.
    pub(super) fn push(&self, message: Bytes) -> bool {
        let mut state = self.state.lock();
        if !state.up {
            while state.queue.len() >= QUEUE_MESSAGES_DOWN
                || state.bytes + message.len() > QUEUE_BYTES_MAX
            {
                if state.pop().is_none() {
                    break;
                }
                self.series.dropped.inc();
            }
        }
        if message.is_empty()
            || state.queue.len() >= QUEUE_MESSAGES_MAX
            || state.bytes + message.len() > QUEUE_BYTES_MAX
        {
            self.series.dropped.inc();
            // The first of a run of drops is told.
            return state.up && !std::mem::replace(&mut state.overflowed, true);
        }
        let first = state.queue.is_empty();
        state.bytes += message.len();
        state.queue.push_back(message);
        if first {
            state.waiting_since = Some(Instant::now());
        }
        first && state.waker.is_some()
    }

    /// What the bell was rung for: wakes the stream, and says whether messages were dropped since the last time.
    pub(super) fn answer_bell(&self) -> bool {
        let mut state = self.state.lock();
        let waker = if state.queue.is_empty() {
            None
        } else {
            state.waker.take()
        };
        let overflowed = std::mem::take(&mut state.overflowed);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        if overflowed {
            self.series.failures.inc();
        }
        overflowed
    }

    /// A stream is begun: bodies of others end.
    fn begin(&self, session: u64) {
        let mut state = self.state.lock();
        state.session = session;
        state.up = false;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The stream is up: its body may take messages.
    pub(super) fn open(&self) {
        let mut state = self.state.lock();
        state.up = true;
        state.probe = 0;
        state.probed_at = None;
        // What has waited for the stream has not waited for the member to read.
        state.waiting_since = (!state.queue.is_empty()).then(Instant::now);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The stream is not up any more; what waited for it is dropped, since others of its messages are lost, too.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        let waker = state.waker.take();
        let dropped = state.queue.len() as u64;
        *state = State::default();
        drop(state);
        if dropped > 0 {
            self.series.dropped.inc_by(dropped);
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// How long the first message in the queue has waited for the member to take it.
    pub(super) fn waiting(&self) -> Duration {
        let state = self.state.lock();
        state
            .waiting_since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// A probe came back: the time of its round trip, if it is the one that is under way.
    pub(super) fn probe_returned(&self, probe: u64) -> Option<Duration> {
        let mut state = self.state.lock();
        if probe == 0 || state.probe != probe {
            return None;
        }
        state.probe = 0;
        state.probed_at.map(|at| at.elapsed())
    }

    /// The next batch for the stream `session`, framed; `Ready(None)` if that is not the one that is up.
    fn poll_batch(
        &self,
        session: u64,
        next_probe: &mut u64,
        context: &mut Context<'_>,
    ) -> Poll<Option<Bytes>> {
        let mut state = self.state.lock();
        if state.session != session {
            return Poll::Ready(None);
        }
        if !state.up || state.queue.is_empty() {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut batch = Vec::with_capacity(state.queue.len().min(BATCH_MESSAGES_MAX));
        let mut bytes = 0;
        while let Some(next) = state.queue.front() {
            if !batch.is_empty() && bytes + next.len() > BATCH_BYTES
                || batch.len() == BATCH_MESSAGES_MAX
            {
                break;
            }
            bytes += next.len();
            batch.extend(state.pop());
        }
        let now = Instant::now();
        state.waiting_since = (!state.queue.is_empty()).then_some(now);
        let due = state
            .probed_at
            .is_none_or(|at| now.saturating_duration_since(at) >= LOOK);
        let probe = if due {
            *next_probe += 1;
            state.probe = *next_probe;
            state.probed_at = Some(now);
            *next_probe
        } else {
            0
        };
        drop(state);
        let frame = frame_batch(&batch, probe);
        self.series.sent_bytes.inc_by(frame.len() as u64);
        Poll::Ready(Some(frame))
    }
}

/// The body of a stream of messages: the Hello, and when the stream is up whatever waits, in batches.
pub(super) struct Batches {
    outbox: Arc<Outbox>,
    session: u64,
    hello: Option<Bytes>,
    last_probe: u64,
}

impl Batches {
    /// Begins a stream; `session` is not 0 and not that of another one.
    pub(super) fn new(outbox: Arc<Outbox>, session: u64, hello: Bytes) -> Batches {
        outbox.begin(session);
        Batches {
            outbox,
            session,
            hello: Some(hello),
            last_probe: 0,
        }
    }
}

impl http_body::Body for Batches {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if let Some(hello) = this.hello.take() {
            return Poll::Ready(Some(Ok(Frame::data(hello))));
        }
        this.outbox
            .poll_batch(this.session, &mut this.last_probe, context)
            .map(|frame| frame.map(|frame| Ok(Frame::data(frame))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::PeerMetrics;
    use crate::peer::frames::{batch, frame};
    use futures::task::noop_waker;
    use holdfast_proto::peer as pb;
    use http_body::Body;

    fn outbox() -> (Arc<Outbox>, PeerSeries) {
        let series = PeerMetrics::detached().to(2);
        (Arc::new(Outbox::new(series.clone())), series)
    }

    fn take(batches: &mut Batches) -> Poll<Option<pb::MessageBatch>> {
        let waker = noop_waker();
        let frame = Pin::new(batches).poll_frame(&mut Context::from_waker(&waker));
        frame.map(|frame| {
            let data = frame?.expect("no error").into_data().expect("data");
            Some(batch(data.slice(5..)).expect("batch"))
        })
    }

    fn stream(outbox: &Arc<Outbox>, session: u64) -> Batches {
        let hello = frame(&pb::MessageBatch::default());
        let mut batches = Batches::new(outbox.clone(), session, hello);
        assert!(matches!(take(&mut batches), Poll::Ready(Some(_))));
        batches
    }

    #[test]
    fn a_full_queue_drops_and_says_so_once() {
        let (outbox, series) = outbox();
        let mut batches = stream(&outbox, 1);
        outbox.open();
        for _ in 0..QUEUE_MESSAGES_MAX {
            outbox.push(Bytes::from_static(b"x"));
        }
        assert!(!outbox.answer_bell());
        assert!(outbox.push(Bytes::from_static(b"y")), "rings for the first");
        assert!(!outbox.push(Bytes::from_static(b"y")));
        assert_eq!(series.dropped.get(), 2);
        assert!(outbox.answer_bell() && !outbox.answer_bell());
        // What was in the queue is without a gap.
        let Poll::Ready(Some(batch)) = take(&mut batches) else {
            panic!("a batch");
        };
        assert_eq!(batch.messages.len(), QUEUE_MESSAGES_MAX);
        assert!(take(&mut batches).is_pending());
    }

    #[test]
    fn bytes_are_bounded_too_and_batches_are_of_one_mebibyte() {
        let (outbox, series) = outbox();
        let mut batches = stream(&outbox, 1);
        outbox.open();
        let large = Bytes::from(vec![0; 3 << 19]);
        for _ in 0..QUEUE_BYTES_MAX / large.len() + 5 {
            outbox.push(large.clone());
        }
        assert_eq!(series.dropped.get(), 5);
        for _ in 0..2 {
            let Poll::Ready(Some(batch)) = take(&mut batches) else {
                panic!("a batch");
            };
            assert_eq!(batch.messages.len(), 1);
        }
    }

    #[test]
    fn without_a_stream_the_newest_wait() {
        let (outbox, series) = outbox();
        let mut batches = stream(&outbox, 7);
        for number in 0..=255u8 {
            outbox.push(Bytes::from(vec![number]));
        }
        assert!(
            take(&mut batches).is_pending(),
            "nothing before the welcome"
        );
        assert_eq!(series.dropped.get(), 256 - QUEUE_MESSAGES_DOWN as u64);
        outbox.open();
        let Poll::Ready(Some(batch)) = take(&mut batches) else {
            panic!("a batch");
        };
        assert_eq!(batch.messages.first(), Some(&Bytes::from(vec![192])));
        assert_eq!(batch.messages.last(), Some(&Bytes::from(vec![255])));
    }

    #[test]
    fn a_stream_of_before_takes_nothing() {
        let (outbox, _) = outbox();
        let mut old = stream(&outbox, 1);
        outbox.open();
        outbox.push(Bytes::from_static(b"lost"));
        outbox.close();
        let mut new = stream(&outbox, 2);
        assert!(matches!(take(&mut old), Poll::Ready(None)));
        outbox.open();
        outbox.push(Bytes::from_static(b"kept"));
        assert!(matches!(take(&mut old), Poll::Ready(None)));
        let Poll::Ready(Some(batch)) = take(&mut new) else {
            panic!("a batch");
        };
        assert_eq!(batch.messages, [Bytes::from_static(b"kept")]);
    }

    #[test]
    fn only_the_probe_under_way_is_measured() {
        let (outbox, _) = outbox();
        let mut batches = stream(&outbox, 1);
        outbox.open();
        outbox.push(Bytes::from_static(b"x"));
        let Poll::Ready(Some(batch)) = take(&mut batches) else {
            panic!("a batch");
        };
        assert!(batch.probe != 0);
        assert_eq!(outbox.probe_returned(batch.probe + 1), None);
        assert_eq!(outbox.probe_returned(0), None);
        assert!(outbox.probe_returned(batch.probe).is_some());
        assert_eq!(outbox.probe_returned(batch.probe), None);
    }
}
