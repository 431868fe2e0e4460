//! Progress: how far a watch is, told when a client asks and from time to time.

use super::{Hub, State};
use crate::watch::{Delivery, DeliveryKind};

impl Hub {
    /// Answers progress requests whose revision was fanned out. Returns whether one still waits for the inbox.
    pub(super) fn answer_progress(&mut self) -> bool {
        let mut waiting = Vec::new();
        for id in std::mem::take(&mut self.asking) {
            // A stream may have ended since it asked.
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            let Some(at) = stream.progress_at else {
                continue;
            };
            let fanned_out = self
                .tenants
                .get(&stream.tenant)
                .map_or(0, |watches| watches.fanned_out);
            if fanned_out < at {
                // The transaction is applied, but its events are not in the inbox yet: they come within microseconds.
                waiting.push(id);
                continue;
            }
            stream.progress_at = None;
            let synced = !stream.watches.is_empty()
                && stream.watches.values().all(|index| {
                    self.watches[*index as usize].as_ref().is_some_and(|watch| {
                        watch.state == State::Current && watch.next <= fanned_out + 1
                    })
                });
            if synced {
                stream.sink.push(Delivery {
                    watch_id: -1,
                    revision: fanned_out,
                    kind: DeliveryKind::Progress,
                });
            }
        }
        self.asking = waiting;
        !self.asking.is_empty()
    }

    pub(super) fn tick(&mut self) {
        for watch in self.watches.iter_mut().flatten() {
            let idle = !std::mem::take(&mut watch.active);
            let fanned_out = self
                .tenants
                .get(&watch.tenant)
                .map_or(0, |watches| watches.fanned_out);
            if watch.request.progress
                && idle
                && watch.state == State::Current
                && watch.next <= fanned_out + 1
                && watch.sink.has_room()
            {
                watch.sink.push(Delivery {
                    watch_id: watch.request.id,
                    revision: fanned_out,
                    kind: DeliveryKind::Progress,
                });
            }
        }
    }
}
