//! What goes wrong, and how long.

use crate::chance::Chance;
use crate::node::Input;
use crate::plan::{MILLISECOND, SECOND};
use crate::world::{Event, Undo, World};
use std::io;

enum Fault {
    Partition,
    BreakLink,
    SlowLink,
    Crash,
    CrashAll,
    BadDisk,
    FullDisk,
    SlowDisk,
    FullStore,
    Pause,
    Transfer,
    LoseDisk,
}

impl World {
    pub(crate) fn fault(&mut self) {
        if self.calm {
            return;
        }
        let delay = self.chance.around(self.plan.faults_every);
        self.schedule(delay, Event::Fault);
        let mut faults = vec![Fault::BreakLink, Fault::SlowLink];
        let plan = &self.plan;
        if plan.partitions {
            faults.extend([Fault::Partition, Fault::Partition]);
        }
        if plan.crashes {
            faults.extend([Fault::Crash, Fault::Crash, Fault::Crash]);
            faults.extend(self.chance.percent(30).then_some(Fault::CrashAll));
        }
        let plan = &self.plan;
        if plan.disk_faults {
            faults.extend([
                Fault::BadDisk,
                Fault::BadDisk,
                Fault::FullDisk,
                Fault::SlowDisk,
                Fault::FullStore,
            ]);
        }
        if plan.pauses {
            faults.extend([Fault::Pause, Fault::Pause]);
        }
        if plan.transfers {
            faults.extend([Fault::Transfer, Fault::Transfer]);
        }
        if plan.members_change && self.chance.percent(30) {
            faults.push(Fault::LoseDisk);
        }
        let at = self.chance.below(faults.len() as u64) as usize;
        let place = self.victim();
        match faults[at] {
            Fault::Partition => self.partition(),
            Fault::BreakLink => {
                let other = self.chance.below(self.nodes.len() as u64) as usize;
                self.truth().counters.broken_links += 1;
                self.network.break_link(place, other);
                let id = self.nodes[other].id;
                self.tell(place, Input::Unreachable(id));
            }
            Fault::SlowLink => {
                let other = self.chance.below(self.nodes.len() as u64) as usize;
                let by = self.chance.around(200 * MILLISECOND);
                self.network.slow_down(place, other, by);
                let delay = self.chance.around(2 * SECOND);
                self.schedule(delay, Event::Undo(Undo::SlowLink(place, other)));
            }
            Fault::Crash => self.crash(place),
            Fault::CrashAll => {
                for place in 0..self.nodes.len() {
                    self.crash(place);
                }
            }
            Fault::BadDisk => self.break_disk(place),
            Fault::FullDisk => {
                let id = self.nodes[place].id;
                self.trace(|_| format!("the disk of member {id} is full"));
                let node = &mut self.nodes[place];
                node.disk.set_capacity(Some(0));
                node.full_disk = true;
                self.truth().counters.full_disks += 1;
                let delay = self.chance.around(2 * SECOND);
                self.schedule(delay, Event::Undo(Undo::FullDisk(place)));
            }
            Fault::SlowDisk => {
                self.nodes[place].disk_delay = self.chance.around(200 * MILLISECOND);
                let delay = self.chance.around(2 * SECOND);
                self.schedule(delay, Event::Undo(Undo::SlowDisk(place)));
            }
            Fault::FullStore => {
                self.nodes[place].store.set_full(true);
                let delay = self.chance.around(2 * SECOND);
                self.schedule(delay, Event::Undo(Undo::FullStore(place)));
            }
            Fault::Pause => {
                let id = self.nodes[place].id;
                let pause = self.chance.around(2 * SECOND);
                self.trace(|_| format!("member {id} is held up for {pause} us"));
                self.nodes[place].busy_until = self.now + pause;
                self.truth().counters.pauses += 1;
                self.wake(place);
            }
            Fault::Transfer => {
                if let Some(leader) = self.leader() {
                    let to = self.nodes[place].id;
                    self.trace(|_| format!("leadership is to go to member {to}"));
                    self.give(leader, Input::Transfer(to));
                }
            }
            Fault::LoseDisk => self.lose_disk(place),
        }
    }

    /// Somebody; often the leader, with whom more goes wrong.
    fn victim(&mut self) -> usize {
        match self.leader() {
            Some(leader) if self.chance.percent(40) => leader,
            _ => self.chance.below(self.nodes.len() as u64) as usize,
        }
    }

    /// Keeps some members from others, in both directions or in one.
    fn partition(&mut self) {
        let places = self.nodes.len();
        let leader = self.leader();
        let alone = self.chance.percent(50);
        let side: Vec<bool> = match leader {
            Some(leader) if alone => (0..places).map(|place| place == leader).collect(),
            _ => (0..places).map(|_| self.chance.percent(50)).collect(),
        };
        let (out, back) =
            *self
                .chance
                .pick(&[(true, true), (true, true), (true, false), (false, true)]);
        self.trace(|_| format!("partition {side:?}, out {out}, in {back}"));
        for from in 0..places {
            for to in 0..places {
                if (side[from] && !side[to] && out) || (!side[from] && side[to] && back) {
                    self.network.block(from, to, true);
                }
            }
        }
        self.truth().counters.partitions += 1;
        let delay = self.chance.around(2 * SECOND);
        self.schedule(delay, Event::Undo(Undo::Partition));
    }

    fn crash(&mut self, place: usize) {
        if !self.nodes[place].runs() || self.nodes[place].retired {
            return;
        }
        let power = self.chance.percent(60);
        let id = self.nodes[place].id;
        self.trace(|_| format!("member {id} crashes, power {power}"));
        self.end_process(place, power);
        let delay = self.chance.around(SECOND);
        self.schedule(delay, Event::Start(place));
    }

    /// One of the next syncs or writes fails.
    fn break_disk(&mut self, place: usize) {
        let nth = 1 + self.chance.below(4);
        let node = &mut self.nodes[place];
        if !node.runs() {
            return;
        }
        node.faults += 1;
        if self.chance.percent(70) {
            node.disk.fail_sync(nth);
        } else {
            let kind: io::ErrorKind = *pick_kind(&mut self.chance);
            node.disk.fail_write(nth, kind);
        }
    }

    /// A member's disk is lost for good: it must be removed, and added again under another id. No more than a minority.
    fn lose_disk(&mut self, place: usize) {
        let Some(leader) = self.leader() else {
            return;
        };
        let Some(process) = &self.nodes[leader].process else {
            return;
        };
        // By the oldest configuration that anybody may still go by, one of three is no majority.
        let voters = process.tenants.members().voters();
        let lost = self.nodes.iter().any(|node| {
            node.lost
                && self
                    .nodes
                    .iter()
                    .filter_map(|other| other.process.as_ref())
                    .any(|process| process.tenants.members().get(node.id).is_some())
        });
        // A change that is on its way may yet take another voter out.
        let quiet = self.now > self.admin.changed_at + 5 * SECOND;
        let enough = voters.len() >= 5 || (voters.len() >= 3 && quiet);
        if lost || !enough || self.nodes[place].retired || place == leader {
            return;
        }
        let id = self.nodes[place].id;
        self.trace(|_| format!("member {id} loses its disk"));
        self.truth().counters.lost_disks += 1;
        self.end_process(place, true);
        self.nodes[place].retired = true;
        self.nodes[place].lost = true;
    }

    pub(crate) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Partition => self.network.reunite(),
            Undo::SlowDisk(place) => self.nodes[place].disk_delay = 0,
            Undo::SlowLink(from, to) => self.network.slow_down(from, to, 0),
            Undo::FullStore(place) => self.nodes[place].store.set_full(false),
            Undo::FullDisk(place) => self.empty_disk(place),
        }
    }

    /// Somebody made room, and started the member again.
    pub(crate) fn empty_disk(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if !std::mem::take(&mut node.full_disk) {
            return;
        }
        node.disk.set_capacity(None);
        let full = node
            .process
            .as_ref()
            .is_some_and(|p| p.core.status().disk_full());
        if full {
            self.end_process(place, false);
            let delay = self.chance.around(100 * MILLISECOND);
            self.schedule(delay, Event::Start(place));
        }
    }
}

fn pick_kind(chance: &mut Chance) -> &'static io::ErrorKind {
    const KINDS: [io::ErrorKind; 2] = [io::ErrorKind::Other, io::ErrorKind::StorageFull];
    &KINDS[chance.below(2) as usize]
}
