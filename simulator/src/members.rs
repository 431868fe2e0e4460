//! The operator, who adds, promotes and removes members.

use crate::node::{Input, Waiting};
use crate::plan::SECOND;
use crate::world::{Event, World, server_command};
use holdfast_consensus::MemberChange;
use holdfast_tenant::Command;

/// See the module's text.
pub(crate) struct Admin {
    next_id: u64,
    /// When the last change was asked for.
    pub(crate) changed_at: u64,
}

impl Admin {
    pub(crate) fn new(next_id: u64) -> Admin {
        Admin {
            next_id,
            changed_at: 0,
        }
    }
}

/// Most members at a time.
const MEMBERS_MAX: usize = 6;
/// Most members that a run ever has.
const NODES_MAX: usize = 20;
/// Entries that a learner may lack when it is promoted.
const LAG_MAX: u64 = 10;

impl World {
    pub(crate) fn administrate(&mut self) {
        let delay = self.chance.around(SECOND);
        self.schedule(delay, Event::Admin);
        let Some(leader) = self.leader() else {
            return;
        };
        let Some(process) = &self.nodes[leader].process else {
            return;
        };
        let members = process.tenants.members();
        let progress = process.core.progress();
        let matched = |id: u64| {
            progress
                .iter()
                .find(|p| p.id == id)
                .map_or(0, |p| p.matched)
        };
        let mine = matched(self.nodes[leader].id);
        // Whoever was added is started.
        let absent: Vec<u64> = members
            .iter()
            .map(|member| member.id)
            .filter(|id| {
                self.place_of(*id)
                    .is_some_and(|place| self.nodes[place].incarnation == 0)
            })
            .collect();
        let lost = members.iter().map(|member| member.id).find(|id| {
            self.place_of(*id)
                .is_some_and(|place| self.nodes[place].retired)
        });
        let learners = members.learners();
        let voters = members.voters();
        let ready = learners
            .iter()
            .copied()
            .find(|id| matched(*id) + LAG_MAX >= mine && members.may_promote(*id));
        for id in absent {
            if let Some(place) = self.place_of(id) {
                self.start(place);
            }
        }
        let (change, command) = if let Some(id) = lost {
            (MemberChange::Remove(id), Command::MemberRemove { id })
        } else if let Some(id) = ready
            && self.chance.percent(70)
        {
            (MemberChange::Voter(id), Command::MemberPromote { id })
        } else if self.calm {
            return;
        } else if members.len() > 1 && self.chance.percent(40) {
            let all: Vec<u64> = members.iter().map(|member| member.id).collect();
            let id = *self.chance.pick(&all);
            if voters == [id] || !members.may_remove(id) {
                return;
            }
            (MemberChange::Remove(id), Command::MemberRemove { id })
        } else if members.len() < MEMBERS_MAX && self.nodes.len() < NODES_MAX {
            let id = self.admin.next_id;
            self.admin.next_id += 1;
            self.add_node(id, Vec::new());
            let is_learner = self.chance.percent(80) || !members.may_add_voter();
            let command = Command::MemberAdd {
                id,
                peer_urls: vec![format!("http://m{id}")],
                is_learner,
                max_learners: 2,
            };
            if is_learner {
                (MemberChange::Learner(id), command)
            } else {
                (MemberChange::Voter(id), command)
            }
        } else {
            return;
        };
        self.admin.changed_at = self.now;
        self.trace(|_| format!("the operator wants {change:?}"));
        let Some(process) = &mut self.nodes[leader].process else {
            return;
        };
        let ticket = process.ticket(Waiting::Internal);
        let data = server_command(&command);
        self.give(
            leader,
            Input::Change {
                change,
                data,
                ticket,
            },
        );
    }

    /// A member that leads, as far as it knows; of several, the one that has heard of the latest term.
    pub(crate) fn leader(&self) -> Option<usize> {
        let term = |place: usize| {
            let status = self.nodes[place].process.as_ref()?.core.status();
            status.leads().then(|| status.term())
        };
        let leaders = (0..self.nodes.len()).filter_map(|place| Some((term(place)?, place)));
        leaders.max().map(|(_, place)| place)
    }
}
