//! The queue between the hub and one watch stream.

use crate::mailbox::Mailbox;
use holdfast_tenant::watch::{Delivery, Inbox, Message, StreamId, WatchSink};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Bytes that a stream's queue holds before its watches are left to catch up from the store. One delivery may exceed it: the events of
/// one transaction stay together.
const ROOM_BYTES: usize = 1 << 20;

/// Requests of a stream that may wait for the hub: with a slow hub a client could otherwise fill the memory with them.
const AHEAD_MAX: usize = 1024;

#[derive(Default)]
struct Queue {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    /// The hub was told that there is no room and waits to be told otherwise.
    starved: bool,
    /// Requests that the hub has not dealt with.
    ahead: usize,
    /// The stream takes no requests until the hub has dealt with some.
    too_far: bool,
    waker: Option<std::task::Waker>,
}

pub(super) struct Sink {
    stream: StreamId,
    inbox: Arc<Inbox>,
    mailbox: Arc<Mailbox>,
    queue: Mutex<Queue>,
}

impl Sink {
    pub(super) fn new(stream: StreamId, inbox: Arc<Inbox>, mailbox: Arc<Mailbox>) -> Sink {
        Sink {
            stream,
            inbox,
            mailbox,
            queue: Mutex::default(),
        }
    }

    /// Takes the next delivery, or leaves the task's waker.
    pub(super) fn poll_next(&self, context: &Context<'_>) -> Poll<Delivery> {
        let mut queue = self.queue.lock();
        let Some(delivery) = queue.deliveries.pop_front() else {
            if queue.too_far && queue.ahead < AHEAD_MAX {
                // The hub was quicker than this task on its way to sleep.
                context.waker().wake_by_ref();
            }
            queue.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        queue.bytes -= delivery.weight();
        if queue.starved && queue.bytes < ROOM_BYTES / 2 {
            queue.starved = false;
            drop(queue);
            self.inbox.push(Message::Room {
                stream: self.stream,
            });
        }
        Poll::Ready(delivery)
    }

    /// Whether the stream may take more requests: their answers need room, too.
    pub(super) fn takes_requests(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.too_far = queue.ahead >= AHEAD_MAX;
        queue.bytes < ROOM_BYTES && !queue.too_far
    }

    /// A request goes to the hub.
    pub(super) fn asked(&self) {
        self.queue.lock().ahead += 1;
    }
}

impl WatchSink for Sink {
    fn push(&self, delivery: Delivery) {
        let mut queue = self.queue.lock();
        queue.bytes += delivery.weight();
        queue.deliveries.push_back(delivery);
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            self.mailbox.ready(waker);
        }
    }

    fn has_room(&self) -> bool {
        let mut queue = self.queue.lock();
        let room = queue.bytes < ROOM_BYTES;
        queue.starved |= !room;
        room
    }

    fn handled(&self) {
        let mut queue = self.queue.lock();
        queue.ahead = queue.ahead.saturating_sub(1);
        if !queue.too_far || queue.ahead > AHEAD_MAX / 2 {
            return;
        }
        queue.too_far = false;
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            self.mailbox.ready(waker);
        }
    }
}
