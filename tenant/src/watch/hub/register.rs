//! Which watches there are: made, ended, found.

use super::{Holder, Hub, State, Watch};
use crate::watch::{Delivery, DeliveryKind, StreamId, WatchRequest, denial_reason};
use holdfast_auth::{Caller, KeyRange};

/// Bytes that all watches together may take. Each may have keys as long as a request: their number alone bounds nothing.
const WATCHES_BYTES_MAX: usize = 512 << 20;
/// Bytes that a watch takes besides its keys.
const WATCH_BYTES: usize = 500;

impl Hub {
    pub(super) fn create(
        &mut self,
        stream_id: StreamId,
        mut request: WatchRequest,
        caller: Caller,
    ) {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        let current = self.history.revision(stream.tenant);
        // Again, since the edge asked: a change that was applied meanwhile may have come through the inbox before this request did.
        let permission = self
            .history
            .may_watch(stream.tenant, &caller, &request.keys);
        let refusal = if let Err(denied) = permission {
            Some(denial_reason(denied))
        } else if stream.watches.len() >= self.limits.watches_per_stream {
            Some("etcdserver: too many watches on the stream".to_owned())
        } else if self.bytes + watch_bytes(&request.keys) > WATCHES_BYTES_MAX {
            Some("etcdserver: too many watches".to_owned())
        } else if request.start < 0 {
            Some("etcdserver: mvcc: required revision has been compacted".to_owned())
        } else if request.keys.is_empty() {
            Some("mvcc: watcher range is empty".to_owned())
        } else if request.id < 0 {
            Some("etcdserver: watch ID is negative".to_owned())
        } else if request.id != 0 && stream.watches.contains_key(&request.id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream".to_owned())
        } else {
            None
        };
        if let Some(reason) = refusal {
            stream.sink.push(Delivery {
                watch_id: -1,
                revision: current,
                kind: DeliveryKind::Rejected { reason },
            });
            return;
        }
        if request.id == 0 {
            while stream.watches.contains_key(&stream.next_id) {
                stream.next_id += 1;
            }
            request.id = stream.next_id;
            stream.next_id += 1;
        }
        stream.sink.push(Delivery {
            watch_id: request.id,
            revision: current,
            kind: DeliveryKind::Created,
        });
        let next = if request.start == 0 {
            current + 1
        } else {
            request.start
        };
        let index = self.free.pop().unwrap_or(self.watches.len() as u32);
        stream.watches.insert(request.id, index);
        let mut watch = Watch {
            stream: stream_id,
            tenant: stream.tenant,
            next,
            state: State::Current,
            active: false,
            sink: stream.sink.clone(),
            turn: 0,
            place: 0,
            matched: Vec::new(),
            request,
            caller,
        };
        self.bytes += watch_bytes(&watch.request.keys);
        let watches = self.tenants.entry(watch.tenant).or_default();
        watches.holders.insert((Holder::of(&watch.caller), index));
        match &watch.request.keys {
            KeyRange::Point(key) => {
                let list = watches.points.entry(key.clone()).or_default();
                watch.place = list.len() as u32;
                list.push(index);
            }
            keys => watches.ranges.insert(keys, index),
        }
        let behind = next <= current;
        if index as usize == self.watches.len() {
            self.watches.push(Some(watch));
        } else {
            self.watches[index as usize] = Some(watch);
        }
        if behind {
            watches.unfed = watches.unfed.max(current);
            self.fall_behind(index, next);
        }
    }

    pub(super) fn cancel(&mut self, stream_id: StreamId, watch_id: i64) {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        if let Some(index) = stream.watches.remove(&watch_id) {
            stream.sink.push(Delivery {
                watch_id,
                revision: self.history.revision(stream.tenant),
                kind: DeliveryKind::Canceled {
                    compacted: 0,
                    reason: String::new(),
                },
            });
            self.remove(index);
        }
    }

    /// Forgets a watch that its stream has forgotten already.
    pub(super) fn remove(&mut self, index: u32) {
        let Some(watch) = self.watches[index as usize].take() else {
            return;
        };
        self.free.push(index);
        self.bytes -= watch_bytes(&watch.request.keys);
        if let Some(watches) = self.tenants.get_mut(&watch.tenant) {
            match &watch.request.keys {
                KeyRange::Point(key) => {
                    if let Some(list) = watches.points.get_mut(key)
                        && (watch.place as usize) < list.len()
                    {
                        // Thousands may watch one key, and end together.
                        list.swap_remove(watch.place as usize);
                        match list.get(watch.place as usize) {
                            Some(moved) => {
                                if let Some(moved) = &mut self.watches[*moved as usize] {
                                    moved.place = watch.place;
                                }
                            }
                            None if list.is_empty() => {
                                watches.points.remove(key);
                            }
                            None => {}
                        }
                    }
                }
                keys => watches.ranges.remove(keys, index),
            }
            watches.holders.remove(&(Holder::of(&watch.caller), index));
            watches.behind.remove(&(watch.next, index));
            watches.turns.remove(&(watch.turn, index));
        }
    }

    /// Ends a watch that its client did not end.
    pub(super) fn end(&mut self, index: u32, revision: i64, compacted: i64, reason: String) {
        let Some(watch) = &self.watches[index as usize] else {
            return;
        };
        watch.sink.push(Delivery {
            watch_id: watch.request.id,
            revision,
            kind: DeliveryKind::Canceled { compacted, reason },
        });
        let (stream, id) = (watch.stream, watch.request.id);
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.watches.remove(&id);
        }
        self.remove(index);
    }
}

fn watch_bytes(keys: &KeyRange) -> usize {
    let keys = match keys {
        KeyRange::Point(key) => key.len(),
        KeyRange::Span { start, end } => start.len() + end.len(),
        KeyRange::From(start) => start.len(),
        KeyRange::All => 0,
    };
    WATCH_BYTES + keys
}
