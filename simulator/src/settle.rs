//! The end of a run: everything is mended, and the cluster must come to rest, all members in one state.

use crate::node::Input;
use crate::plan::{MILLISECOND, Micros, SECOND};
use crate::world::World;

/// Virtual time in which a mended cluster must be at rest.
const SETTLED_WITHIN: Micros = 90 * SECOND;
/// Longer than any lease lives, renewals of the last moment and slow clocks included.
const LEASES_END_WITHIN: Micros = 40 * SECOND;

impl World {
    /// Mends everything and waits until all members have the same.
    pub(crate) fn settle(&mut self) {
        self.calm = true;
        self.network.heal();
        for place in 0..self.nodes.len() {
            self.empty_disk(place);
            let node = &mut self.nodes[place];
            node.disk_delay = 0;
            node.busy_until = node.busy_until.min(self.now);
            node.store.set_full(false);
            if node.incarnation > 0 && !node.retired {
                self.start(place);
            }
            if self.nodes[place].retired {
                self.end_process(place, false);
            }
        }
        let deadline = self.now + SETTLED_WITHIN;
        let mut next_look = self.now;
        loop {
            if !self.step() {
                return;
            }
            if self.now < next_look {
                continue;
            }
            next_look = self.now + 200 * MILLISECOND;
            self.revive();
            if self.is_settled() {
                break;
            }
            if self.now > deadline {
                let report = self.describe();
                return self
                    .violated(|| format!("the mended cluster does not come to rest: {report}"));
            }
        }
        self.compare();
        if self.plan.leases && self.truth().violation.is_none() {
            self.outlive_leases();
        }
        self.finish_watchers();
    }

    /// Starts what has to run, and stops what does not belong to the cluster any more.
    fn revive(&mut self) {
        for place in 0..self.nodes.len() {
            let process = self.nodes[place].process.as_ref();
            if process.is_some_and(|process| process.core.status().disk_full()) {
                self.end_process(place, false);
                self.start(place);
            }
        }
        // Whoever was added has to run, whether its addition is known to the leader or not.
        for place in 0..self.nodes.len() {
            let id = self.nodes[place].id;
            let added = self.nodes.iter().any(|node| {
                let process = node.process.as_ref();
                process.is_some_and(|p| p.tenants.members().get(id).is_some())
            });
            if added {
                self.start(place);
            }
        }
        let Some(members) = self.leader().and_then(|leader| {
            let process = self.nodes[leader].process.as_ref()?;
            Some(process.tenants.members())
        }) else {
            return;
        };
        for place in 0..self.nodes.len() {
            let node = &self.nodes[place];
            let unaware = node.process.as_ref();
            if unaware.is_some_and(|p| p.tenants.members().get(node.id).is_some())
                && members.is_removed(node.id)
            {
                // Nobody will ever tell it.
                self.nodes[place].retired = true;
                self.end_process(place, false);
            }
        }
        // A lost member counts until it is removed.
        if !self.plan.members_change {
            return;
        }
        let lost = members.iter().any(|member| {
            self.place_of(member.id)
                .is_some_and(|place| self.nodes[place].retired)
        });
        if lost {
            self.administrate();
        }
    }

    fn is_settled(&self) -> bool {
        let Some(leader) = self.leader() else {
            return false;
        };
        let Some(process) = &self.nodes[leader].process else {
            return false;
        };
        let members = process.tenants.members();
        let applied = process.core.status().applied();
        let last = self.truth().last();
        members.iter().all(|member| {
            let place = self.place_of(member.id);
            let process = place.and_then(|place| self.nodes[place].process.as_ref());
            process.is_some_and(|process| {
                let status = process.core.status();
                status.applied() == applied && applied == last && status.leader() != 0
            })
        }) && self.requests.is_empty()
            && self.clients.iter().all(|client| client.waiting.is_none())
    }

    fn describe(&self) -> String {
        let mut text = format!(
            "last {}, requests {}",
            self.truth().last(),
            self.requests.len()
        );
        for node in &self.nodes {
            let state = match &node.process {
                Some(process) => {
                    let status = process.core.status();
                    format!(
                        "term {} leader {} applied {} committed {} members {:?}{}{}",
                        status.term(),
                        status.leader(),
                        status.applied(),
                        status.committed(),
                        process.tenants.members().voters(),
                        if status.disk_full() { " full" } else { "" },
                        if node.busy_until > self.now {
                            " busy"
                        } else {
                            ""
                        },
                    )
                }
                None => "down".to_owned(),
            };
            text += &format!("; member {}: {state}", node.id);
            if node.retired {
                text += " (gone)";
            }
        }
        text
    }

    /// All members have one state.
    fn compare(&mut self) {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                process.core.machine().compare();
            }
        }
    }

    /// Nobody renews any more: all leases end, and their keys with them.
    fn outlive_leases(&mut self) {
        let deadline = self.now + LEASES_END_WITHIN;
        while !self.truth().model.leases.is_empty() {
            if !self.step() {
                return;
            }
            if self.now > deadline {
                let left: Vec<i64> = self.truth().model.leases.keys().copied().collect();
                return self.violated(|| format!("leases {left:?} never end"));
            }
        }
    }

    /// Watchers take what is left for them.
    fn finish_watchers(&mut self) {
        let until = self.now + 2 * SECOND;
        while self.now < until {
            if !self.step() {
                return;
            }
        }
        // Whatever was applied meanwhile, all must have it.
        let deadline = self.now + 10 * SECOND;
        while !self.is_settled() && self.now < deadline {
            if !self.step() {
                return;
            }
        }
        self.make_room();
        for place in 0..self.nodes.len() {
            self.give(place, Input::Tick);
            let Some(process) = &mut self.nodes[place].process else {
                continue;
            };
            let incarnation = process.incarnation;
            for _ in 0..50 {
                self.hub(place, incarnation);
            }
        }
        self.compare();
        self.check_watchers();
    }
}
