//! What goes over the network.

use crate::network::{Fate, Packet, Travelling};
use crate::node::Input;
use crate::plan::MILLISECOND;
use crate::world::{Event, World};
use bytes::Bytes;

impl World {
    pub(crate) fn send(&mut self, from: usize, to: u64, mut packet: Packet) {
        let Some(to) = self.place_of(to) else {
            return;
        };
        if let Packet::Snapshot { chunks, .. } = &mut packet {
            self.truth().counters.snapshots_sent += 1;
            self.trace(|world| {
                let (from, to) = (world.nodes[from].id, world.nodes[to].id);
                format!("member {from} sends a snapshot to member {to}")
            });
            if !self.calm && self.chance.percent(6) {
                self.spoil(chunks);
            }
        }
        let (id, peer) = (self.nodes[from].id, self.nodes[to].id);
        let is_snapshot = matches!(packet, Packet::Snapshot { .. });
        let is_answer = matches!(packet, Packet::SnapshotSent { .. });
        match self
            .network
            .send(from, to, packet, self.now, &mut self.chance)
        {
            Fate::Arrives(at, travelling) => {
                let delay = at - self.now;
                self.schedule(delay, Event::Arrive(travelling));
            }
            Fate::Lost => {
                self.truth().counters.lost_messages += 1;
                if is_snapshot {
                    self.lost_snapshot(from, peer);
                } else if is_answer {
                    self.lost_snapshot(to, id);
                } else if self.chance.percent(10) {
                    self.tell(from, Input::Unreachable(peer));
                }
            }
        }
    }

    /// Cuts a snapshot short, or changes one of its bytes.
    fn spoil(&mut self, chunks: &mut Vec<Bytes>) {
        if self.chance.percent(50) || chunks.is_empty() {
            chunks.pop();
            return;
        }
        let at = self.chance.below(chunks.len() as u64) as usize;
        let mut bytes = chunks[at].to_vec();
        if !bytes.is_empty() {
            let byte = self.chance.below(bytes.len() as u64) as usize;
            bytes[byte] ^= 1 << self.chance.below(8);
            chunks[at] = bytes.into();
        }
    }

    pub(crate) fn lost_snapshot(&mut self, from: usize, to: u64) {
        self.truth().counters.snapshots_broken += 1;
        let packet = Packet::SnapshotSent { ok: false };
        self.tell(from, Input::Packet { from: to, packet });
    }

    /// Tells a member something of its own connections, a moment later.
    pub(crate) fn tell(&mut self, place: usize, input: Input) {
        let delay = self.chance.around(5 * MILLISECOND);
        self.schedule(delay, Event::Tell { place, input });
    }

    pub(crate) fn arrive(&mut self, travelling: Travelling) {
        let arrives = self.network.arrives(&travelling);
        let Travelling {
            from, to, packet, ..
        } = travelling;
        if !arrives || !self.nodes[to].runs() {
            self.truth().counters.lost_messages += 1;
            // Whoever sends a snapshot hears of its end in any case: of the connection's, if of nothing else.
            match packet {
                Packet::Snapshot { .. } => self.lost_snapshot(from, self.nodes[to].id),
                Packet::SnapshotSent { .. } => self.lost_snapshot(to, self.nodes[from].id),
                _ => {}
            }
            return;
        }
        self.truth().counters.messages += 1;
        let from = self.nodes[from].id;
        self.give(to, Input::Packet { from, packet });
    }
}
