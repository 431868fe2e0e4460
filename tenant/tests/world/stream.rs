//! A stream's client, which checks each delivery as it comes.

use super::seen::Seen;
use super::sink::Sink;
use super::{FRAGMENT_BYTES, Truth, WATCHES_PER_STREAM, main_of};
use crate::model::AuthModel;
use bytes::Bytes;
use holdfast_auth::Caller;
use holdfast_tenant::watch::{Delivery, DeliveryKind, StreamId, WatchRequest, denial_reason};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) sink: Arc<Sink>,
    /// With the caller, and when.
    pub(crate) requested: VecDeque<(WatchRequest, Caller, u64)>,
    pub(crate) active: HashMap<i64, usize>,
    pub(crate) history: Vec<Delivery>,
    pub(crate) was_starved: bool,
    /// How much had come at the last tick.
    pub(crate) ticked: usize,
    pub(crate) watches: Vec<Seen>,
}

impl Stream {
    /// Looks at what came since the last time.
    pub(crate) fn observe(&mut self, model: &Truth) {
        let new: Vec<(Delivery, i64)> = {
            let state = self.sink.state.lock();
            self.was_starved = state.was_starved;
            state.deliveries[self.history.len()..].to_vec()
        };
        for (delivery, compacted) in new {
            self.take(&delivery, compacted, model);
            self.history.push(delivery);
        }
    }

    pub(crate) fn take(&mut self, delivery: &Delivery, compacted: i64, model: &Truth) {
        let id = delivery.watch_id;
        assert!(
            delivery.revision <= model.revision,
            "{delivery:?} is from the future"
        );
        match &delivery.kind {
            DeliveryKind::Created => {
                let (request, caller, asked_at) = self.requested.pop_front().unwrap();
                assert_eq!(self.refusal(&request), None, "{request:?}");
                let permitted = model.auth.may_watch(&caller, &request.keys);
                assert!(permitted.is_ok() || model.moved, "{caller:?}: {request:?}");
                if request.id == 0 {
                    assert!(id >= 0);
                } else {
                    assert_eq!(id, request.id);
                }
                let start = if request.start == 0 {
                    delivery.revision + 1
                } else {
                    request.start
                };
                let taken = self.active.insert(id, self.watches.len());
                assert_eq!(taken, None, "watch id {id} was in use");
                self.watches.push(Seen {
                    request,
                    caller,
                    asked_at,
                    start,
                    events: Vec::new(),
                    answered: 0,
                    open_parts: 0,
                    created_at: delivery.revision,
                    ended: None,
                });
            }
            DeliveryKind::Rejected { reason } => {
                assert_eq!(id, -1);
                let (request, caller, asked_at) = self.requested.pop_front().unwrap();
                let denial = |auth: &AuthModel| {
                    let denied = auth.may_watch(&caller, &request.keys).err();
                    denied.map(denial_reason)
                };
                let now = denial(&model.auth);
                if reason.starts_with("rpc error") {
                    let mut since = model.auth_log.iter().filter(|point| point.at > asked_at);
                    let denied = now.as_ref() == Some(reason)
                        || model.moved
                            && since.any(|point| denial(&point.auth).as_ref() == Some(reason));
                    assert!(denied, "{caller:?} may have {request:?}, not {reason}");
                } else {
                    assert!(
                        now.is_none() || model.moved,
                        "it was not permitted first of all"
                    );
                    assert_eq!(Some(reason.as_str()), self.refusal(&request), "{request:?}");
                }
            }
            DeliveryKind::Canceled {
                compacted: mark,
                reason,
            } => {
                let watch = &mut self.watches[self.active.remove(&id).unwrap()];
                watch.ended = Some(*mark);
                assert_eq!(watch.open_parts, 0);
                if reason.contains("ResourceExhausted") {
                    assert!(model.overflowed, "nothing was forgotten");
                } else if !reason.is_empty() {
                    assert_eq!(*mark, 0);
                    let ends = watch.ends(model);
                    let end = (delivery.revision, reason.clone());
                    assert!(ends.contains(&end), "{end:?} is none of {ends:?}");
                }
                if *mark != 0 {
                    assert_eq!(delivery.revision, 0);
                    assert_eq!(*mark, compacted);
                    assert!(
                        watch.start.max(watch.answered + 1) < *mark,
                        "nothing of it was compacted"
                    );
                    let late = watch.start <= watch.created_at;
                    let fell = self.was_starved || model.overflowed;
                    assert!(late || fell, "it was never behind");
                }
            }
            DeliveryKind::Events { events, fragment } => {
                let watch = &mut self.watches[self.active[&id]];
                assert!(!events.is_empty());
                let texts: Vec<String> = events
                    .iter()
                    .map(|event| String::from_utf8(event.to_vec()).unwrap())
                    .collect();
                let last = main_of(texts.last().unwrap());
                assert!(delivery.revision >= last);
                if let Some((revision, _)) = watch.revoked(model) {
                    assert!(
                        last <= revision,
                        "{last} was delivered after the end at {revision}: {:?}",
                        watch.request
                    );
                }
                if watch.open_parts == 0 {
                    assert!(
                        main_of(&texts[0]) > watch.answered,
                        "a transaction was torn, or came twice"
                    );
                }
                let bytes: usize = events.iter().map(Bytes::len).sum();
                if watch.request.fragment {
                    assert!(
                        bytes < FRAGMENT_BYTES || events.len() == 1,
                        "a part of {bytes} bytes"
                    );
                } else {
                    assert!(!fragment);
                }
                watch.answered = main_of(texts.last().unwrap());
                watch.open_parts = if *fragment { watch.open_parts + 1 } else { 0 };
                watch
                    .events
                    .extend(texts.into_iter().map(|text| (text, compacted)));
            }
            DeliveryKind::Progress if id == -1 => {
                assert!(
                    !self.active.is_empty(),
                    "progress of a stream without watches"
                );
                for at in self.active.values() {
                    self.watches[*at].check_progress(delivery.revision, model);
                }
            }
            DeliveryKind::Progress => {
                let watch = &self.watches[self.active[&id]];
                assert!(watch.request.progress);
                watch.check_progress(delivery.revision, model);
                let busy = self.history[self.ticked..].iter().any(|other| {
                    other.watch_id == id && matches!(other.kind, DeliveryKind::Events { .. })
                });
                assert!(!busy, "it had events since the last tick");
            }
        }
    }

    pub(crate) fn refusal(&self, request: &WatchRequest) -> Option<&'static str> {
        if self.active.len() >= WATCHES_PER_STREAM {
            Some("etcdserver: too many watches on the stream")
        } else if request.start < 0 {
            Some("etcdserver: mvcc: required revision has been compacted")
        } else if request.keys.is_empty() {
            Some("mvcc: watcher range is empty")
        } else if request.id < 0 {
            Some("etcdserver: watch ID is negative")
        } else if request.id != 0 && self.active.contains_key(&request.id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream")
        } else {
            None
        }
    }
}
