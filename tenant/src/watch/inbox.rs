//! What reaches the hub: transactions from the state machine, requests from streams, in one order.

use super::{SharedSink, StreamId, Transaction, WatchRequest};
use holdfast_storage::TenantId;
use parking_lot::{Condvar, Mutex};
use std::time::Instant;

/// A message to the hub.
pub enum Message {
    /// Changes that were applied.
    Applied(Vec<Transaction>),
    /// A stream was opened.
    Open {
        /// Its number.
        stream: StreamId,
        /// Whose keys it watches.
        tenant: TenantId,
        /// Where deliveries go.
        sink: SharedSink,
    },
    /// Make a watch.
    Create {
        /// On which stream.
        stream: StreamId,
        /// What to watch.
        request: WatchRequest,
    },
    /// End a watch.
    Cancel {
        /// On which stream.
        stream: StreamId,
        /// Its id.
        watch_id: i64,
    },
    /// The client wants to know how far the stream's watches are.
    Progress {
        /// Which stream.
        stream: StreamId,
    },
    /// A sink that had no room has room again.
    Room {
        /// Which stream.
        stream: StreamId,
    },
    /// The stream is gone.
    Close {
        /// Its number.
        stream: StreamId,
    },
    /// End the hub's thread.
    Stop,
}

/// Transactions that may wait for the hub. Beyond it they are forgotten here, and the watches catch up from the store: a burst of
/// writes costs neither memory nor the writers' time.
const BACKLOG_MAX: usize = 16_384;
/// Bytes of changes that may wait for the hub: a few large values hold as much memory as many small ones.
const BACKLOG_BYTES_MAX: usize = 64 << 20;

/// The hub's queue. Transactions are bounded by [`BACKLOG_MAX`] and [`BACKLOG_BYTES_MAX`]; a stream's requests are read only while its sink has room.
#[derive(Default)]
pub struct Inbox {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    messages: Vec<Message>,
    transactions: usize,
    bytes: usize,
    overflowed: bool,
    watches: usize,
    behind: usize,
}

/// What the hub has to do, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubLoad {
    /// Watches that exist.
    pub watches: usize,
    /// Watches that are being brought up to date from the store.
    pub behind: usize,
    /// Transactions that wait to be fanned out.
    pub transactions: usize,
}

/// What the hub took from its [`Inbox`].
pub(super) struct Taken {
    /// In the order in which they were pushed.
    pub(super) messages: Vec<Message>,
    /// Transactions were forgotten. Those in `messages` came after them.
    pub(super) overflowed: bool,
}

impl Inbox {
    /// Adds a message and wakes the hub.
    pub fn push(&self, message: Message) {
        let (count, bytes) = match &message {
            Message::Applied(transactions) => {
                let events = transactions.iter().flat_map(|t| &t.events);
                let bytes = events.map(|event| event.row.key.len() + event.row.value.len());
                (transactions.len(), bytes.sum())
            }
            _ => (0, 0),
        };
        let mut queue = self.queue.lock();
        if count > 0 {
            if queue.transactions > BACKLOG_MAX || queue.bytes > BACKLOG_BYTES_MAX {
                queue.messages.retain(|m| !matches!(m, Message::Applied(_)));
                queue.transactions = 0;
                queue.bytes = 0;
                queue.overflowed = true;
            }
            queue.transactions += count;
            queue.bytes += bytes;
        }
        let was_empty = queue.messages.is_empty();
        queue.messages.push(message);
        drop(queue);
        if was_empty {
            self.arrived.notify_one();
        }
    }

    /// What the hub has to do.
    pub fn load(&self) -> HubLoad {
        let queue = self.queue.lock();
        HubLoad {
            watches: queue.watches,
            behind: queue.behind,
            transactions: queue.transactions,
        }
    }

    /// Takes everything that is there. The hub tells how many watches it has, and how many of them are behind.
    pub(super) fn take(&self, watches: usize, behind: usize) -> Taken {
        let mut queue = self.queue.lock();
        queue.watches = watches;
        queue.behind = behind;
        queue.transactions = 0;
        queue.bytes = 0;
        Taken {
            messages: std::mem::take(&mut queue.messages),
            overflowed: std::mem::take(&mut queue.overflowed),
        }
    }

    /// Waits until something is there or `deadline` has passed.
    pub fn wait(&self, deadline: Instant) {
        let mut queue = self.queue.lock();
        while queue.messages.is_empty() {
            if self.arrived.wait_until(&mut queue, deadline).timed_out() {
                return;
            }
        }
    }
}
