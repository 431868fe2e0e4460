//! The receiving end of a stream.

use holdfast_tenant::watch::{Delivery, DeliveryKind, Inbox, Message, StreamId, WatchSink};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A stream's receiving end. It has room for so many answers with events.
pub(crate) struct Sink {
    pub(crate) stream: StreamId,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) compacted: Arc<AtomicI64>,
    pub(crate) state: Mutex<SinkState>,
}

pub(crate) struct SinkState {
    /// With the compacted revision at the time.
    pub(crate) deliveries: Vec<(Delivery, i64)>,
    pub(crate) room: usize,
    pub(crate) starved: bool,
    pub(crate) was_starved: bool,
}

impl WatchSink for Sink {
    fn push(&self, delivery: Delivery) {
        let mut state = self.state.lock();
        if let DeliveryKind::Events {
            fragment: false, ..
        } = &delivery.kind
        {
            state.room = state.room.saturating_sub(1);
        }
        let compacted = self.compacted.load(Ordering::SeqCst);
        state.deliveries.push((delivery, compacted));
    }

    fn has_room(&self) -> bool {
        let mut state = self.state.lock();
        let room = state.room > 0;
        state.starved |= !room;
        state.was_starved |= !room;
        room
    }
}

impl Sink {
    pub(crate) fn give_room(&self, room: usize) {
        let mut state = self.state.lock();
        state.room = room;
        if room > 0 && std::mem::take(&mut state.starved) {
            drop(state);
            self.inbox.push(Message::Room {
                stream: self.stream,
            });
        }
    }
}
