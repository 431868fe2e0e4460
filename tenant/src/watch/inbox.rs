//! What reaches the hub: transactions from the state machine, requests from streams, in one order.

use super::{AuthNotice, Rights, SharedSink, StreamId, Transaction, WatchRequest};
use holdfast_auth::Caller;
use holdfast_storage::TenantId;
use parking_lot::{Condvar, Mutex};
use std::collections::HashSet;
use std::time::Instant;

/// A message to the hub.
pub enum Message {
    /// Changes that were applied.
    Applied(Vec<Transaction>),
    /// Users or roles were changed.
    Auth(AuthNotice),
    /// The state was replaced by that of a received snapshot. What the hub was not given up to here, the store has. A notice with
    /// [`Rights::Replaced`] comes before it.
    Installed {
        /// Whose.
        tenant: TenantId,
        /// The revision of the state that is in place now.
        revision: i64,
    },
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
        /// Who wants to. The hub asks once more whether they may.
        caller: Caller,
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
/// Users and roles in the changes that may wait for the hub: some ten megabytes. Such a change must not be forgotten; beyond this, the
/// watches whom it may concern all end.
const RIGHTS_MAX: usize = 100_000;

/// The hub's queue. Transactions are bounded by [`BACKLOG_MAX`] and [`BACKLOG_BYTES_MAX`]; a stream's requests are read only while its sink has room.
/// Changes of users and roles are never dropped and keep their place; they are bounded by [`RIGHTS_MAX`].
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
    /// See [`RIGHTS_MAX`].
    rights: usize,
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
    /// Users and roles in the changes that wait to be looked at.
    pub rights: usize,
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
        self.push_all([message]);
    }

    /// Adds messages, with none in between, and wakes the hub.
    pub fn push_all(&self, messages: impl IntoIterator<Item = Message>) {
        let mut queue = self.queue.lock();
        let was_empty = queue.messages.is_empty();
        for message in messages {
            queue.push(message);
        }
        let wake = was_empty && !queue.messages.is_empty();
        drop(queue);
        if wake {
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
            rights: queue.rights,
        }
    }

    /// Takes everything that is there. The hub tells how many watches it has, and how many of them are behind.
    pub(super) fn take(&self, watches: usize, behind: usize) -> Taken {
        let mut queue = self.queue.lock();
        queue.watches = watches;
        queue.behind = behind;
        queue.transactions = 0;
        queue.bytes = 0;
        queue.rights = 0;
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

impl Queue {
    fn push(&mut self, message: Message) {
        match &message {
            Message::Applied(transactions) => {
                if self.transactions > BACKLOG_MAX || self.bytes > BACKLOG_BYTES_MAX {
                    self.messages.retain(|m| !matches!(m, Message::Applied(_)));
                    self.transactions = 0;
                    self.bytes = 0;
                    self.overflowed = true;
                }
                let events = transactions.iter().flat_map(|t| &t.events);
                let bytes = events.map(|event| event.row.key.len() + event.row.value.len());
                self.transactions += transactions.len();
                self.bytes += bytes.sum::<usize>();
            }
            Message::Auth(notice) => {
                self.rights += notice.weight();
                if self.rights > RIGHTS_MAX {
                    self.messages.push(message);
                    self.forget_rights();
                    return;
                }
            }
            _ => {}
        }
        self.messages.push(message);
    }

    /// Leaves of each tenant's notices the first, which then stands for all of them: it ends all watches there are at that place.
    /// Those made behind it are asked about in the state of that time, which is after all of these changes.
    fn forget_rights(&mut self) {
        let mut seen: HashSet<TenantId> = HashSet::new();
        self.messages.retain_mut(|message| match message {
            Message::Auth(notice) => {
                notice.rights = Rights::Unknown;
                seen.insert(notice.tenant)
            }
            _ => true,
        });
        self.rights = seen.len();
    }
}
