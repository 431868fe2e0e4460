//! What is submitted here: proposed, sent to the leader, or kept until there is one.

use super::{Completed, Core, fail};
use crate::failure::{CoreError, Failure};
use crate::group::Ticket;
use crate::machine::{Done, MemberChange, Outgoing, StateMachine};
use crate::message::{self, Forwarded, PeerMessage, context_fits};
use crate::proposals::{CONTEXT_BYTES, Origin};
use bytes::Bytes;
use holdfast_storage::LogPosition;
use holdfast_storage::disk::Disk;
use raft::StateRole;
use raft::eraftpb::{ConfChange, ConfChangeType};

impl<M: StateMachine, D: Disk> Core<M, D> {
    /// Proposes one entry. Its tickets are completed when it is applied here, whoever leads, or when it cannot be.
    pub fn propose(&mut self, data: Vec<u8>, tickets: Vec<Ticket>, done: &mut Completed<M>) {
        if self.status.disk_full() {
            return fail(tickets, Failure::DiskFull, done);
        }
        self.send_or_park(data.into(), tickets, done);
    }

    /// As [`Core::propose`], if this member leads in `term`, and not at all otherwise: for what only the leader of that time may decide.
    pub fn propose_in_term(
        &mut self,
        term: u64,
        data: Vec<u8>,
        tickets: Vec<Ticket>,
        done: &mut Completed<M>,
    ) {
        let raft = &self.node.raft;
        let leads = raft.state == StateRole::Leader && raft.term == term;
        if !leads || raft.lead_transferee.is_some() {
            return fail(tickets, Failure::NotLeader, done);
        }
        self.propose(data, tickets, done);
    }

    pub(super) fn send_or_park(
        &mut self,
        data: Bytes,
        tickets: Vec<Ticket>,
        done: &mut Completed<M>,
    ) {
        let raft = &self.node.raft;
        let (term, leader, now) = (raft.term, raft.leader_id, self.now);
        if raft.state == StateRole::Leader && raft.lead_transferee.is_none() {
            let sequence = self.proposals.next();
            let origin = self.origin(sequence);
            match self.node.propose(origin.encode(), data.into()) {
                Ok(()) => self.proposals.wait(sequence, term, tickets, now),
                Err(raft::Error::ProposalDropped) => fail(tickets, Failure::Overloaded, done),
                Err(_) => fail(tickets, Failure::NoLeader, done),
            }
        } else if leader != 0 && leader != raft.id {
            if !self.proposals.may_forward(data.len()) {
                return fail(tickets, Failure::Overloaded, done);
            }
            let sequence = self.proposals.next();
            let message = PeerMessage::Forward {
                incarnation: self.proposals.incarnation(),
                term,
                proposals: vec![Forwarded {
                    sequence,
                    data: data.clone(),
                }],
            };
            self.proposals
                .wait_for(sequence, term, tickets, leader, data, now);
            self.outbox.push(Outgoing::Message {
                to: leader,
                bytes: message::encode(&message),
            });
        } else if let Err((tickets, failure)) = self.proposals.park(data, tickets, self.now) {
            fail(tickets, failure, done);
        }
    }

    pub(super) fn origin(&self, sequence: u64) -> Origin {
        Origin {
            member: self.options.member,
            incarnation: self.proposals.incarnation(),
            sequence,
        }
    }

    /// Proposes an entry that changes the members, on the leader. The command in `data` must make the same change.
    pub fn propose_change(
        &mut self,
        change: MemberChange,
        data: &[u8],
        ticket: Ticket,
        done: &mut Completed<M>,
    ) {
        let raft = &self.node.raft;
        let failure = if self.status.disk_full() {
            Some(Failure::DiskFull)
        } else if raft.state != StateRole::Leader || raft.lead_transferee.is_some() {
            Some(Failure::NotLeader)
        } else if raft.has_pending_conf() {
            // Raft would put an empty entry in its place.
            Some(Failure::ChangePending)
        } else {
            None
        };
        if let Some(failure) = failure {
            return fail(vec![ticket], failure, done);
        }
        let term = raft.term;
        let sequence = self.proposals.next();
        let mut context = self.origin(sequence).encode();
        context.extend_from_slice(data);
        if !context_fits(context.len()) {
            return fail(vec![ticket], Failure::Overloaded, done);
        }
        match self
            .node
            .propose_conf_change(context, to_conf_change(change))
        {
            Ok(()) => self.proposals.wait(sequence, term, vec![ticket], self.now),
            Err(_) => fail(vec![ticket], Failure::Overloaded, done),
        }
    }

    pub(super) fn complete(
        &mut self,
        position: LogPosition,
        origin: Option<Origin>,
        done: &mut Completed<M>,
    ) -> Result<(), CoreError> {
        let me = self.options.member;
        if let Some(tickets) = origin.and_then(|origin| self.proposals.applied(origin, me)) {
            if tickets.len() != self.outcomes.len() {
                return Err(CoreError::Apply {
                    index: position.index,
                    reason: format!(
                        "{} commands were submitted, {} were applied",
                        tickets.len(),
                        self.outcomes.len()
                    ),
                });
            }
            let outcomes = self.outcomes.drain(..).map(|done| Ok(Done::Applied(done)));
            done.extend(tickets.into_iter().zip(outcomes));
        }
        self.outcomes.clear();
        Ok(())
    }
}

pub(super) fn to_conf_change(change: MemberChange) -> ConfChange {
    let (kind, id) = match change {
        MemberChange::Voter(id) => (ConfChangeType::AddNode, id),
        MemberChange::Learner(id) => (ConfChangeType::AddLearnerNode, id),
        MemberChange::Remove(id) => (ConfChangeType::RemoveNode, id),
    };
    ConfChange {
        change_type: kind,
        node_id: id,
        ..ConfChange::default()
    }
}

const _: () = assert!(CONTEXT_BYTES < u16::MAX as usize);
