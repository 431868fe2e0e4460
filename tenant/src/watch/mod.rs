//! Watches: every change, in order, to everybody who asked for it, without holding up the log or growing without bound.
//!
//! The state machine drops each transaction's events into the [`Inbox`]; the [`Hub`], on its own thread, fans them out to
//! streams. A watch is *current* (fed by the inbox) or *behind* (fed from history, because it starts in the past or because its
//! stream had no room). Nothing is queued for a stream without room: the watch falls behind and catches up from the store.
//!
//! A watch ends at the position in the log where its caller loses the right to it. The change of users or roles comes through the
//! same inbox as the events, between those before it and those after it, and catch-up reads no further than what the hub has been
//! told of: so nothing that is later reaches the watch, however slow its stream is.
//!
//! A member that lags far behind receives its state from another one. Then nobody has told the inbox what lies between the two
//! states: the watches fall behind and are fed from the store that was received, or end if that no longer has what they lack. Who could
//! watch what in the gap is not known either; a watch goes on only if the states before and after it prove that its permission was never
//! gone.

mod hub;
mod inbox;
mod intervals;
mod permission;

pub use hub::{Hub, HubLimits};
pub use inbox::{HubLoad, Inbox, Message};
pub(crate) use permission::may_watch;
pub use permission::{AuthNotice, Rights, denial_reason};

use bytes::Bytes;
use holdfast_auth::{Caller, Denied, KeyRange};
use holdfast_storage::{Revision, Row, TenantId};
use std::sync::Arc;

/// One change, as watchers see it.
#[derive(Clone, Debug)]
pub struct Event {
    /// The new row.
    pub row: Row,
    /// The row that it replaced; `None` for a creation.
    pub replaced: Option<Revision>,
}

/// All changes of one transaction, in order.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Whose.
    pub tenant: TenantId,
    /// Its revision.
    pub main: i64,
    /// The changes.
    pub events: Vec<Event>,
}

/// A stream's number, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// A watch as asked for.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// The id the client chose; 0 lets the hub choose.
    pub id: i64,
    /// Which keys.
    pub keys: KeyRange,
    /// The first revision of interest; 0 is the next one.
    pub start: i64,
    /// Whether idle watches are told the current revision now and then.
    pub progress: bool,
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletes out.
    pub no_delete: bool,
    /// Tell what each change replaced.
    pub previous: bool,
    /// Split answers that are larger than [`HubLimits::fragment_bytes`].
    pub fragment: bool,
}

/// What the hub sends to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The watch, or -1 for none or all.
    pub watch_id: i64,
    /// The revision for the header; 0 leaves it out.
    pub revision: i64,
    /// What happened.
    pub kind: DeliveryKind,
}

/// What a [`Delivery`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryKind {
    /// The watch exists from now on.
    Created,
    /// The watch was not made.
    Rejected {
        /// Why, in etcd's words.
        reason: String,
    },
    /// The watch has ended.
    Canceled {
        /// The compacted revision that ended it, or 0.
        compacted: i64,
        /// Why, in the words that clients parse; empty if the client wanted it, and for a compacted revision.
        reason: String,
    },
    /// Changes, each an encoded event.
    Events {
        /// In order.
        events: Vec<Bytes>,
        /// Whether more of the same answer follows.
        fragment: bool,
    },
    /// Nothing has happened up to the header's revision.
    Progress,
}

impl Delivery {
    /// Roughly what the delivery holds in memory, bytes.
    pub fn weight(&self) -> usize {
        let events = match &self.kind {
            DeliveryKind::Events { events, .. } => events.iter().map(Bytes::len).sum(),
            _ => 0,
        };
        events + size_of::<Delivery>()
    }
}

/// The receiving end of a watch stream.
pub trait WatchSink: Send + Sync {
    /// Queues a delivery. Wakes nobody: the hub calls [`Wake::wake`] when it is done with a batch.
    fn push(&self, delivery: Delivery);

    /// Whether events may be queued. A sink that answered no sends [`Message::Room`] once it has room again.
    fn has_room(&self) -> bool;

    /// One of the stream's requests ([`Message::Create`], [`Message::Cancel`], [`Message::Progress`]) was dealt with: the stream may
    /// bound how many it has sent ahead.
    fn handled(&self) {}
}

/// Wakes the readers of all sinks that were pushed to since the last call.
pub trait Wake: Send + Sync {
    /// Wakes them.
    fn wake(&self);
}

/// What the hub asks of the store.
pub trait History: Send + Sync {
    /// The tenant's current revision.
    fn revision(&self, tenant: TenantId) -> i64;
    /// The tenant's compacted revision, -1 for none.
    fn compacted(&self, tenant: TenantId) -> i64;
    /// The revision up to which the tenant's events were put into the inbox.
    fn published(&self, tenant: TenantId) -> i64;
    /// The rows from `from` on, in order, until `visit` says no more.
    ///
    /// # Errors
    /// A text when the store cannot be read.
    fn scan(
        &self,
        tenant: TenantId,
        from: i64,
        through: i64,
        visit: &mut dyn FnMut(Row) -> bool,
    ) -> Result<(), String>;
    /// The row of `key` before revision `main`, unless it is deleted, compacted or was never there.
    fn before(&self, tenant: TenantId, key: &[u8], main: i64) -> Option<Row>;
    /// Whether a caller may watch these keys, as of now.
    ///
    /// # Errors
    /// [`Denied`] if not.
    fn may_watch(&self, tenant: TenantId, caller: &Caller, keys: &KeyRange) -> Result<(), Denied>;
    /// The row at a revision, unless it was compacted.
    fn row(&self, tenant: TenantId, revision: Revision) -> Option<Row>;
}

/// Encodes an event for the wire, with what it replaced if that is to be told.
pub type EncodeEvent = fn(&Row, Option<&Row>) -> Bytes;

/// A sink that many watches share.
pub type SharedSink = Arc<dyn WatchSink>;
