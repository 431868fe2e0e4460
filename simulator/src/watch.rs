//! Clients that watch, and judge each delivery by what was written.

use crate::truth::{AuthPoint, Truth};
use bytes::{BufMut, Bytes};
use holdfast_auth::{Caller, KeyRange};
use holdfast_storage::Row;
use holdfast_tenant::watch::{
    Delivery, DeliveryKind, Inbox, Message, StreamId, WatchRequest, WatchSink,
};
use parking_lot::Mutex;
use std::sync::Arc;

/// An event as watchers get it: the row, and behind it the revision and value of what it replaced.
pub(crate) fn encode(row: &Row, replaced: Option<&Row>) -> Bytes {
    let mut out = Vec::with_capacity(64 + row.key.len() + row.value.len());
    out.put_i64(row.revision.main);
    out.put_u32(row.revision.sub);
    out.put_u8(u8::from(row.tombstone));
    out.put_i64(row.create_revision);
    out.put_i64(row.version);
    out.put_i64(row.lease);
    out.put_u32(row.key.len() as u32);
    out.put_slice(&row.key);
    out.put_u32(row.value.len() as u32);
    out.put_slice(&row.value);
    if let Some(replaced) = replaced {
        out.put_i64(replaced.revision.main);
        out.put_u32(replaced.revision.sub);
        out.put_slice(&replaced.value);
    }
    out.into()
}

fn main_of(event: &[u8]) -> i64 {
    event
        .first_chunk::<8>()
        .map_or(0, |bytes| i64::from_be_bytes(*bytes))
}

/// The receiving end of a stream on a member.
pub(crate) struct Sink {
    pub(crate) stream: StreamId,
    pub(crate) inbox: Arc<Inbox>,
    state: Mutex<SinkState>,
}

struct SinkState {
    deliveries: Vec<Delivery>,
    room: usize,
    starved: bool,
}

impl Sink {
    pub(crate) fn new(stream: StreamId, inbox: Arc<Inbox>) -> Sink {
        Sink {
            stream,
            inbox,
            state: Mutex::new(SinkState {
                deliveries: Vec::new(),
                room: usize::MAX,
                starved: false,
            }),
        }
    }

    /// Takes what came.
    pub(crate) fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut self.state.lock().deliveries)
    }

    /// How many answers with events the client has room for.
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

impl WatchSink for Sink {
    fn push(&self, delivery: Delivery) {
        let mut state = self.state.lock();
        if matches!(
            delivery.kind,
            DeliveryKind::Events {
                fragment: false,
                ..
            }
        ) {
            state.room = state.room.saturating_sub(1);
        }
        state.deliveries.push(delivery);
    }

    fn has_room(&self) -> bool {
        let mut state = self.state.lock();
        let room = state.room > 0;
        state.starved |= !room;
        room
    }
}

/// A watch as its client sees it.
pub(crate) struct Watch {
    pub(crate) request: WatchRequest,
    pub(crate) caller: Caller,
    /// What the member had applied when it was asked.
    asked_at: u64,
    pub(crate) id: Option<i64>,
    /// The next revision that is owed.
    pub(crate) next: i64,
    /// The first row of the truth that was not looked at.
    cursor: usize,
    /// Parts of an answer that goes on.
    open_parts: usize,
    pub(crate) ended: Option<Ended>,
}

/// How a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Compacted(i64),
    Denied,
    /// It must be made again: nobody knows whether it was permitted all the time.
    Unsure,
}

impl Watch {
    pub(crate) fn new(request: WatchRequest, caller: Caller, asked_at: u64) -> Watch {
        Watch {
            next: request.start,
            request,
            caller,
            asked_at,
            id: None,
            cursor: 0,
            open_parts: 0,
            ended: None,
        }
    }

    fn wants(&self, row: &Row) -> bool {
        self.request.keys.contains(&row.key)
            && !(if row.tombstone {
                self.request.no_delete
            } else {
                self.request.no_put
            })
    }

    /// The next row that it must get.
    fn due(&mut self, truth: &Truth) -> Option<usize> {
        let rows = &truth.model.rows;
        while let Some(row) = rows.get(self.cursor) {
            if row.revision.main >= self.next && self.wants(row) {
                return Some(self.cursor);
            }
            self.cursor += 1;
        }
        None
    }

    /// The first revision from which on nothing may be delivered, since users and roles ended it: after this one.
    fn revoked(&self, truth: &Truth, member: u64) -> Option<i64> {
        let after = truth.auth_log.partition_point(|p| p.index <= self.asked_at);
        let points = &truth.auth_log[after..];
        // A right that it did not have when it was asked for, and got before it was made, is none that it lost.
        let permitted = |point: &AuthPoint| point.auth.may_watch(&self.caller, &self.request.keys);
        let mut before = permitted(truth.auth_at(self.asked_at));
        points.iter().enumerate().find_map(|(at, point)| {
            let now = permitted(point);
            if std::mem::replace(&mut before, now) <= now {
                return None;
            }
            // A snapshot that passes over a revocation and what took it back again shows neither.
            let passed = truth.jumps.iter().any(|(who, from, to)| {
                let next = points.get(at + 1);
                *who == member
                    && (*from + 1..=*to).contains(&point.index)
                    && next.is_some_and(|next| next.index <= *to)
            });
            (!passed).then_some(point.revision)
        })
    }

    /// Takes a delivery. `member` has applied the entries up to `applied`, and compacted to `compacted`.
    pub(crate) fn take(
        &mut self,
        delivery: &Delivery,
        truth: &mut Truth,
        member: u64,
        applied: u64,
        compacted: i64,
    ) -> Result<(), String> {
        match &delivery.kind {
            DeliveryKind::Created => {
                self.id = Some(delivery.watch_id);
                if self.request.start == 0 {
                    self.next = delivery.revision + 1;
                }
                truth.counters.watches += 1;
                Ok(())
            }
            DeliveryKind::Rejected { reason } => {
                let denied = truth.auth_log.iter().any(|point| {
                    point.index <= applied
                        && !point.auth.may_watch(&self.caller, &self.request.keys)
                });
                if !denied || !reason.starts_with("rpc error") {
                    return Err(format!("was rejected: {reason}"));
                }
                self.ended = Some(Ended::Denied);
                Ok(())
            }
            DeliveryKind::Canceled {
                compacted: mark,
                reason,
            } => self.canceled(*mark, reason, truth, member, compacted),
            DeliveryKind::Events { events, fragment } => self.events(
                delivery.revision,
                events,
                *fragment,
                truth,
                member,
                compacted,
            ),
            DeliveryKind::Progress => self.progress(delivery.revision, truth),
        }
    }

    fn canceled(
        &mut self,
        mark: i64,
        reason: &str,
        truth: &mut Truth,
        member: u64,
        compacted: i64,
    ) -> Result<(), String> {
        if mark != 0 {
            if mark != compacted || self.next >= mark {
                return Err(format!(
                    "ended as compacted at {mark}, when it owed {} and the mark was {compacted}",
                    self.next
                ));
            }
            truth.counters.watches_compacted += 1;
            self.ended = Some(Ended::Compacted(mark));
            return Ok(());
        }
        if reason.contains("code = Unavailable") {
            // A snapshot passed over changes of users and roles.
            let passed = truth.jumps.iter().any(|(who, from, to)| {
                let changed = |point: &AuthPoint| (*from + 1..=*to).contains(&point.index);
                *who == member && *to > self.asked_at && truth.auth_log.iter().any(changed)
            });
            if !passed {
                return Err(format!(
                    "ended though no snapshot passed over a change: {reason}"
                ));
            }
            self.ended = Some(Ended::Unsure);
            return Ok(());
        }
        let denies = |point: &AuthPoint| {
            point.index > self.asked_at && !point.auth.may_watch(&self.caller, &self.request.keys)
        };
        if !truth.auth_log.iter().any(denies) {
            return Err(format!("ended though nobody revoked it: {reason}"));
        }
        truth.counters.watches_revoked += 1;
        self.ended = Some(Ended::Denied);
        Ok(())
    }

    fn events(
        &mut self,
        revision: i64,
        events: &[Bytes],
        fragment: bool,
        truth: &mut Truth,
        member: u64,
        compacted: i64,
    ) -> Result<(), String> {
        let last = events.last().map_or(0, |event| main_of(event));
        if events.is_empty() || revision < last {
            return Err(format!(
                "{} events up to {last} at {revision}",
                events.len()
            ));
        }
        if let Some(end) = self.revoked(truth, member)
            && last > end
        {
            return Err(format!(
                "of {:?}, asked for at entry {}, got revision {last} after its end at {end}, jumps {:?}",
                self.caller, self.asked_at, truth.jumps
            ));
        }
        for event in events {
            let main = main_of(event);
            let Some(at) = self.due(truth) else {
                return Err(format!(
                    "got an event of revision {main} that was never written"
                ));
            };
            let row = &truth.model.rows[at];
            // As it was before the transaction; a creation replaces nothing.
            let created = !row.tombstone && row.create_revision == row.revision.main;
            let before = truth.model.before[at]
                .map(|before| &truth.model.rows[before as usize])
                .filter(|before| self.request.previous && !created && !before.tombstone);
            let plain = encode(row, None);
            if *event != encode(row, before) && !(*event == plain && main <= compacted) {
                let (main, sub) = (row.revision.main, row.revision.sub);
                let text = String::from_utf8_lossy(event).into_owned();
                let due = String::from_utf8_lossy(&encode(row, before)).into_owned();
                return Err(format!("got {text:?} where {main}.{sub} was due: {due:?}"));
            }
            self.cursor += 1;
            truth.counters.watch_events += 1;
        }
        self.open_parts = if fragment { self.open_parts + 1 } else { 0 };
        if !fragment {
            if let Some(at) = self.due(truth)
                && truth.model.rows[at].revision.main == last
            {
                return Err(format!("got a part of revision {last}"));
            }
            self.next = last + 1;
        }
        Ok(())
    }

    fn progress(&mut self, revision: i64, truth: &Truth) -> Result<(), String> {
        if let Some(at) = self.due(truth)
            && truth.model.rows[at].revision.main <= revision
        {
            let due = truth.model.rows[at].revision.main;
            return Err(format!(
                "was told that {revision} is reached, but is owed {due}"
            ));
        }
        Ok(())
    }

    /// Whether it has everything, at rest.
    pub(crate) fn check_complete(&mut self, truth: &Truth, member: u64) -> Result<(), String> {
        if let Some(at) = self.due(truth) {
            return Err(format!("never got {:?}", truth.model.rows[at].revision));
        }
        if let Some(end) = self.revoked(truth, member) {
            return Err(format!(
                "of {:?}, asked for at entry {}, goes on after its end at {end}, jumps {:?}",
                self.caller, self.asked_at, truth.jumps
            ));
        }
        Ok(())
    }
}

/// What to watch.
pub(crate) fn request(keys: KeyRange, start: i64) -> WatchRequest {
    WatchRequest {
        id: 0,
        keys,
        start,
        progress: false,
        no_put: false,
        no_delete: false,
        previous: false,
        fragment: false,
    }
}
