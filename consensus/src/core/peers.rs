//! What comes from other members, and what is heard of them.

use super::{Completed, Core, HURRIED_CAMPAIGNS, Hurry, fail};
use crate::failure::Failure;
use crate::machine::{Outgoing, StateMachine};
use crate::message::{self, Forwarded, MessageFault, PeerMessage};
use crate::proposals::Origin;
use crate::sense::{self, Verdict};
use bytes::Bytes;
use holdfast_storage::disk::Disk;
use holdfast_storage::planted::{Defect, is_planted};
use raft::StateRole;
use raft::eraftpb::{Message, MessageType};
use std::sync::atomic::Ordering;

impl<M: StateMachine, D: Disk> Core<M, D> {
    /// Takes a message of another member. One that is not taken is counted and has changed nothing.
    ///
    /// # Errors
    /// [`MessageFault`]: what is wrong with it.
    pub fn receive(
        &mut self,
        from: u64,
        bytes: Bytes,
        done: &mut Completed<M>,
    ) -> Result<(), MessageFault> {
        let result = match message::decode(bytes) {
            Ok(PeerMessage::Raft(message)) if message.msg_type == MessageType::MsgSnapshot => {
                Err(MessageFault::Senseless("a snapshot without its content"))
            }
            Ok(PeerMessage::Raft(message)) => self.step(from, message),
            Ok(PeerMessage::Forward {
                incarnation,
                term,
                proposals,
            }) => self.take_forwarded(from, incarnation, term, proposals),
            Ok(PeerMessage::Refused {
                incarnation,
                overloaded,
                sequences,
            }) => {
                if incarnation == self.proposals.incarnation() {
                    self.take_refusal(from, overloaded, &sequences, done);
                }
                Ok(())
            }
            Err(fault) => Err(fault),
        };
        self.count(result)
    }

    pub(super) fn count(&self, result: Result<(), MessageFault>) -> Result<(), MessageFault> {
        if result.is_err() {
            self.status.refused_messages.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    pub(super) fn step(&mut self, from: u64, message: Message) -> Result<(), MessageFault> {
        if self.status.disk_full() {
            return Ok(());
        }
        if message.msg_type == MessageType::MsgReadIndex
            && self.node.raft.state != StateRole::Leader
        {
            // Raft would pass it on in the other's name. Who asked asks again.
            return Ok(());
        }
        if makes_leader_send(&message) {
            if self.answered.contains(&from) {
                // Each makes a leader send a megabyte again to a member that lags; one in a round is as good as many.
                return Ok(());
            }
            self.answered.push(from);
        }
        match sense::check(&self.node, from, &message)? {
            Verdict::Sound => {}
            Verdict::Late => return Ok(()),
            Verdict::LostData { known } => {
                self.lost_data = Some(known);
                return Ok(());
            }
        }
        // An error says that raft has no use for it.
        if let Err(error) = self.node.step(message) {
            tracing::debug!(%error, from, "a message came to nothing");
        }
        Ok(())
    }

    /// The connection to a member was lost, with what was on its way: what it was to propose is given up if no other leader comes soon.
    pub fn unreachable(&mut self, member: u64) {
        self.node.report_unreachable(member);
        self.proposals.lost(member, self.now);
    }

    /// A member's process is known to have ended. If it led, the others need not wait for the whole election time-out.
    pub fn gone(&mut self, member: u64) {
        let raft = &mut self.node.raft;
        // Without the question before it, each early election would disturb those that can win one.
        if raft.leader_id == member && member != raft.id && self.options.pre_vote {
            let term = raft.term;
            raft.become_follower(term, 0);
            self.hurry = Some(Hurry {
                campaign: 0,
                left: HURRIED_CAMPAIGNS,
            });
        }
    }

    /// Puts another member's proposals into the log, or says that they are not.
    pub(super) fn take_forwarded(
        &mut self,
        from: u64,
        incarnation: u64,
        term: u64,
        proposals: Vec<Forwarded>,
    ) -> Result<(), MessageFault> {
        let mut senseless = false;
        let mut refused = Vec::new();
        let mut overloaded = Vec::new();
        for Forwarded { sequence, data } in proposals {
            let raft = &self.node.raft;
            let leads = raft.state == StateRole::Leader
                && raft.term == term
                && raft.lead_transferee.is_none();
            if !leads {
                refused.push(sequence);
                continue;
            }
            if let Err(reason) = self.machine.check(&data) {
                // The log has a line for the message; there may be thousands in it.
                tracing::debug!(
                    member = format!("{from:x}"),
                    reason,
                    "a proposal of another member was refused"
                );
                senseless = true;
                overloaded.push(sequence);
                continue;
            }
            let origin = Origin {
                member: from,
                incarnation,
                sequence,
            };
            if self.status.disk_full() || self.node.propose(origin.encode(), data.into()).is_err() {
                overloaded.push(sequence);
            } else if is_planted(Defect::ForwardTakenAndRefused) {
                refused.push(sequence);
            }
        }
        for (overloaded, sequences) in [(false, refused), (true, overloaded)] {
            if !sequences.is_empty() {
                let message = PeerMessage::Refused {
                    incarnation,
                    overloaded,
                    sequences,
                };
                self.outbox.push(Outgoing::Message {
                    to: from,
                    bytes: message::encode(&message),
                });
            }
        }
        if senseless {
            return Err(MessageFault::Senseless("a proposal that cannot be applied"));
        }
        Ok(())
    }

    pub(super) fn take_refusal(
        &mut self,
        from: u64,
        overloaded: bool,
        sequences: &[u64],
        done: &mut Completed<M>,
    ) {
        for &sequence in sequences {
            if overloaded {
                fail(
                    self.proposals.overloaded(sequence, from),
                    Failure::Overloaded,
                    done,
                );
            } else if let Err(tickets) = self.proposals.refused(sequence, from, self.now) {
                fail(tickets, Failure::Overloaded, done);
            }
        }
    }
}

/// Whether a message is an answer that changes nothing but what the leader sends next.
fn makes_leader_send(message: &Message) -> bool {
    match message.msg_type {
        MessageType::MsgHeartbeatResponse => message.context.is_empty(),
        MessageType::MsgAppendResponse => message.reject,
        _ => false,
    }
}
