//! How processes end.

use crate::network::Packet;
use crate::node::{Input, Waiting};
use crate::plan::SECOND;
use crate::world::{Event, World};

impl World {
    /// The process met an error and ends.
    pub(crate) fn failed(&mut self, place: usize, error: &str) {
        let node = &self.nodes[place];
        let id = node.id;
        self.trace(|_| format!("member {id} ends: {error}"));
        if node.faults == 0 {
            return self.violated(|| format!("member {id} ended: {error}"));
        }
        self.nodes[place].faults -= 1;
        self.truth().counters.disk_failures += 1;
        let power = self.chance.percent(50);
        self.end_process(place, power);
        let delay = self.chance.around(SECOND);
        self.schedule(delay, Event::Start(place));
    }

    /// A member that has applied its own removal ends for good, once all others know of it: the last of them may need its vote.
    pub(crate) fn leave(&mut self, place: usize) {
        let id = self.nodes[place].id;
        let known = self.nodes.iter().all(|node| match &node.process {
            Some(process) => process.tenants.members().get(id).is_none(),
            None => node.retired || node.incarnation == 0,
        });
        if known {
            self.trace(|_| format!("member {id} has left"));
            self.end_process(place, false);
            self.nodes[place].retired = true;
        } else {
            self.schedule(SECOND, Event::Leave(place));
        }
    }

    /// Ends a process, with the power or without. Its disk stays.
    pub(crate) fn end_process(&mut self, place: usize, power: bool) {
        let node = &mut self.nodes[place];
        let Some(process) = node.process.take() else {
            return;
        };
        let unread = std::mem::take(&mut node.inbox);
        node.tick_generation += 1;
        node.busy_until = 0;
        let waiting: Vec<u64> = process
            .waiting
            .values()
            .filter_map(|waiting| match waiting {
                Waiting::Request(request) => Some(*request),
                _ => None,
            })
            .collect();
        drop(process);
        if power {
            let chance = &mut self.chance;
            node.disk.crash(&mut |n| chance.below(n));
            node.store.crash(&mut |n| chance.below(n));
            self.truth().counters.power_cuts += 1;
        } else {
            self.truth().counters.kills += 1;
        }
        // Whoever sent a snapshot sees that the connection is gone.
        let id = self.nodes[place].id;
        for input in unread {
            if let Input::Packet {
                from,
                packet: Packet::Snapshot { .. },
            } = input
                && let Some(sender) = self.place_of(from)
            {
                self.lost_snapshot(sender, id);
            }
        }
        // Nobody tells the clients what became of it.
        let mut waiting = waiting;
        waiting.sort_unstable();
        for request in waiting {
            self.lost_request(request);
        }
        for other in 0..self.nodes.len() {
            self.network.break_link(place, other);
            self.network.break_link(other, place);
            if other != place && !self.network.is_blocked(other, place) {
                if self.chance.percent(70) {
                    self.tell(other, Input::Unreachable(id));
                }
                if !power && self.chance.percent(50) {
                    self.tell(other, Input::Gone(id));
                }
            }
        }
    }
}
