//! Fan-out: a transaction goes to the watches that are up to date.

use super::catch_up::replaced_by;
use super::{Hub, State, Watch};
use crate::watch::{
    Delivery, DeliveryKind, EncodeEvent, Event, History, Transaction, WatchRequest,
};
use bytes::Bytes;
use holdfast_storage::planted::{Defect, is_planted};
use holdfast_storage::{Row, TenantId};

impl Hub {
    pub(super) fn fan_out(&mut self, transaction: &Transaction) {
        let Some(watches) = self.tenants.get_mut(&transaction.tenant) else {
            return;
        };
        let mut touched = std::mem::take(&mut self.touched);
        for (at, event) in transaction.events.iter().enumerate() {
            let all = &mut self.watches;
            let mut matched = |index: u32| {
                if let Some(watch) = &mut all[index as usize]
                    && watch.state == State::Current
                    && watch.next <= transaction.main
                    && wants(&watch.request, &event.row)
                {
                    if watch.matched.is_empty() {
                        touched.push(index);
                    }
                    watch.matched.push(at as u32);
                }
            };
            if let Some(points) = watches.points.get(&event.row.key) {
                points.iter().copied().for_each(&mut matched);
            }
            watches.ranges.stab(&event.row.key, &mut matched);
        }
        watches.fanned_out = watches.fanned_out.max(transaction.main);

        // The order in which ranges are found is chance; who gets the last room of a stream is not.
        touched.sort_unstable();
        let mut plain = vec![None; transaction.events.len()];
        let mut with_previous = vec![None; transaction.events.len()];
        for index in touched.drain(..) {
            let Some(watch) = &mut self.watches[index as usize] else {
                continue;
            };
            let matched = std::mem::take(&mut watch.matched);
            if !watch.sink.has_room() {
                watch.next = transaction.main + i64::from(is_planted(Defect::EventWithoutRoomLost));
                watch.state = State::Stalled;
                continue;
            }
            let events = matched
                .iter()
                .map(|at| {
                    let event = &transaction.events[*at as usize];
                    let cached = if watch.request.previous {
                        &mut with_previous[*at as usize]
                    } else {
                        &mut plain[*at as usize]
                    };
                    cached
                        .get_or_insert_with(|| {
                            encode_applied(
                                &*self.history,
                                self.encode,
                                transaction.tenant,
                                event,
                                watch.request.previous,
                            )
                        })
                        .clone()
                })
                .collect();
            watch.next = transaction.main + 1;
            deliver(watch, events, transaction.main, self.limits.fragment_bytes);
        }
        self.touched = touched;
    }
}

pub(super) fn wants(request: &WatchRequest, row: &Row) -> bool {
    if row.tombstone {
        !request.no_delete
    } else {
        !request.no_put
    }
}

fn encode_applied(
    history: &dyn History,
    encode: EncodeEvent,
    tenant: TenantId,
    event: &Event,
    previous: bool,
) -> Bytes {
    let row = &event.row;
    let replaced = match event.replaced.filter(|_| previous) {
        // A put, and in the same transaction a delete without an upper bound.
        Some(revision) if revision.main == row.revision.main => replaced_by(history, tenant, row),
        Some(revision) => history.row(tenant, revision),
        None => None,
    };
    encode(row, replaced.as_ref())
}

pub(super) fn deliver(watch: &mut Watch, events: Vec<Bytes>, revision: i64, fragment_bytes: usize) {
    watch.active = true;
    let id = watch.request.id;
    let push = |events: Vec<Bytes>, fragment: bool| {
        watch.sink.push(Delivery {
            watch_id: id,
            revision,
            kind: DeliveryKind::Events { events, fragment },
        });
    };
    if !watch.request.fragment || events.iter().map(Bytes::len).sum::<usize>() < fragment_bytes {
        push(events, false);
        return;
    }
    let mut part = Vec::new();
    let mut size = 0;
    for event in events {
        if !part.is_empty() && size + event.len() >= fragment_bytes {
            push(std::mem::take(&mut part), true);
            size = 0;
        }
        size += event.len();
        part.push(event);
    }
    push(part, false);
}
