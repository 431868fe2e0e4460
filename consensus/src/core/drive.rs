//! Doing what raft asks for: send, append, sync, apply.

use super::propose::to_conf_change;
use super::{Core, Io, fail};
use crate::conf_state;
use crate::failure::{CoreError, Failure};
use crate::log_storage::{from_raft_entry, from_raft_state};
use crate::machine::{Done, MemberChange, Members, Outgoing, StateMachine};
use crate::message::{self, PeerMessage};
use crate::proposals::Origin;
use holdfast_storage::LogPosition;
use holdfast_storage::disk::Disk;
use holdfast_storage::log::{Entry, HardState, LogBatch, LogError};
use holdfast_storage::planted::{Defect, is_planted};
use raft::eraftpb::{Entry as RaftEntry, EntryType, Message, MessageType};
use raft::{SnapshotStatus, StateRole};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Rounds of work that raft may ask for in one go; far more than it does.
const ROUNDS_MAX: usize = 10_000;

impl<M: StateMachine, D: Disk> Core<M, D> {
    /// Does everything that raft asks for: send, append, one sync, apply.
    ///
    /// # Errors
    /// [`CoreError`]: the process must stop.
    pub fn advance(&mut self, io: &mut Io<'_, M>) -> Result<(), CoreError> {
        if let Some(known) = self.lost_data {
            return Err(CoreError::LostData {
                known,
                last: self.node.raft.raft_log.last_index(),
            });
        }
        if self.status.disk_full() {
            // What was taken in the moment when it filled up.
            self.fail_in_flight(Failure::DiskFull, io.done);
            return Ok(());
        }
        self.answered.clear();
        self.begin_work(io);
        let mut rounds = 0;
        while !self.status.disk_full() && self.node.has_ready() && rounds < ROUNDS_MAX {
            rounds += 1;
            self.round(io)?;
            self.begin_work(io);
        }
        self.prepare_snapshot()?;
        self.flush(io);
        Ok(())
    }

    /// Starts what waits for a leader, or for an earlier round.
    pub(super) fn begin_work(&mut self, io: &mut Io<'_, M>) {
        let raft = &self.node.raft;
        let (term, leader) = (raft.term, raft.leader_id);
        if leader != 0 && raft.lead_transferee.is_none() && self.proposals.has_parked() {
            // Those that are refused meanwhile wait for the next time.
            let mut all = Vec::new();
            while let Some(parked) = self.proposals.unpark() {
                all.push(parked);
            }
            for parked in all {
                self.send_or_park(parked.data, parked.tickets, io.done);
            }
        }
        // A follower asks again when half an election time-out brought no answer.
        let deadline = self
            .now
            .saturating_sub((self.options.election_ticks as u64 / 2).max(1));
        // A leader that has not committed anything in its term does not answer; then it is not asked.
        let leader = if self.node.raft.commit_to_current_term() {
            leader
        } else {
            0
        };
        if let Some(context) = self.reads.begin(term, leader, self.now, deadline) {
            self.status.read_rounds.fetch_add(1, Ordering::Relaxed);
            self.node.read_index(context);
        }
    }

    pub(super) fn round(&mut self, io: &mut Io<'_, M>) -> Result<(), CoreError> {
        let mut ready = self.node.ready();
        let messages = ready.take_messages();
        self.post(messages);
        self.flush(io);
        for state in ready.take_read_states() {
            self.reads.confirm(&state.request_ctx, state.index);
        }
        if ready.snapshot().get_metadata().index != 0 {
            self.install(ready.snapshot(), ready.hs().map(from_raft_state), io)?;
        }
        let mut committed = ready.take_committed_entries();
        if committed.iter().all(is_plain) {
            // Before the sync: they are answered that much sooner.
            self.apply(std::mem::take(&mut committed), io)?;
        }
        let entries: Vec<Entry> = ready.entries().iter().map(from_raft_entry).collect();
        let hard_state = ready.hs().map(from_raft_state);
        let must_sync = ready.must_sync();
        if !self.persist(&entries, hard_state, must_sync)? {
            self.fail_in_flight(Failure::DiskFull, io.done);
            return Ok(());
        }
        let messages = ready.take_persisted_messages();
        self.post(messages);
        self.flush(io);
        let mut light = self.node.advance_append(ready);
        if let Some(commit) = light.commit_index() {
            self.status.committed.store(commit, Ordering::Relaxed);
        }
        let messages = light.take_messages();
        self.post(messages);
        self.flush(io);
        committed.extend(light.take_committed_entries());
        let changes_members = !committed.iter().all(is_plain);
        self.apply(committed, io)?;
        self.node.advance_apply();
        if changes_members && !self.settle_members()? {
            self.fail_in_flight(Failure::DiskFull, io.done);
            return Ok(());
        }
        self.publish();
        let applied = self.node.raft.raft_log.applied;
        let readable = self.reads.readable(applied);
        io.done
            .extend(readable.into_iter().map(|t| (t, Ok(Done::Readable))));
        Ok(())
    }

    /// Puts raft's messages into the outbox.
    pub(super) fn post(&mut self, messages: Vec<Message>) {
        for message in messages {
            let to = message.to;
            if message.msg_type != MessageType::MsgSnapshot {
                let bytes = message::encode(&PeerMessage::Raft(message));
                self.outbox.push(Outgoing::Message { to, bytes });
                continue;
            }
            let metadata = message.get_snapshot().get_metadata();
            let position = LogPosition {
                index: metadata.index,
                term: metadata.term,
            };
            match self.prepared.take_if(|prepared| prepared.to == to) {
                Some(prepared) => {
                    self.node.store().wanted().offer = None;
                    self.transfers.begin(to, position.index);
                    self.outbox.push(Outgoing::Snapshot {
                        to,
                        position,
                        message: message::encode(&PeerMessage::Raft(message)),
                        view: prepared.view,
                    });
                }
                // The view is gone; raft asks again.
                None => self.node.report_snapshot(to, SnapshotStatus::Failure),
            }
        }
    }

    pub(super) fn flush(&mut self, io: &mut Io<'_, M>) {
        if !self.outbox.is_empty() {
            (io.send)(&mut self.outbox);
            self.outbox.clear();
        }
    }

    /// Appends and syncs. `false` when the disk is full: the member then takes no more writes.
    pub(super) fn persist(
        &mut self,
        entries: &[Entry],
        hard_state: Option<HardState>,
        must_sync: bool,
    ) -> Result<bool, CoreError> {
        let hard_state = hard_state.map(|state| HardState {
            term: state.term - u64::from(is_planted(Defect::TermNotKept)),
            vote: if is_planted(Defect::VoteNotKept) {
                0
            } else {
                state.vote
            },
            ..state
        });
        let log = &mut self.node.mut_store().log;
        let appended = log.append(LogBatch {
            entries,
            hard_state,
        });
        match appended {
            Ok(()) => {}
            Err(error @ LogError::NoSpace { .. }) => {
                tracing::error!(%error, "the raft log's disk is full: no more writes until a restart with space");
                self.status.disk_full.store(true, Ordering::Relaxed);
                if self.members.len() > 1 {
                    // It takes no more part: the others find themselves another leader.
                    self.status.leads.store(false, Ordering::Release);
                    self.status.leader.store(0, Ordering::Release);
                    self.machine.follow();
                }
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        self.observer
            .appended(entries.iter().map(|entry| entry.data.len()).sum());
        if must_sync && !is_planted(Defect::AckBeforeSync) {
            let begun = Instant::now();
            log.sync()?;
            self.observer.synced(begun.elapsed());
        }
        Ok(true)
    }

    pub(super) fn apply(
        &mut self,
        entries: Vec<RaftEntry>,
        io: &mut Io<'_, M>,
    ) -> Result<(), CoreError> {
        for entry in entries {
            let position = LogPosition {
                index: entry.index,
                term: entry.term,
            };
            let fault = |reason: String| CoreError::Apply {
                index: position.index,
                reason,
            };
            // What an earlier term did not bring, it will not bring any more.
            let outlived = self.proposals.outlived(position.term);
            fail(outlived, Failure::LeaderChanged, io.done);
            let origin = Origin::decode(&entry.context);
            let changes_members = entry.entry_type != EntryType::EntryNormal;
            let data = match (changes_members, &origin) {
                (false, _) => entry.data,
                (true, Some((_, command))) => command.clone(),
                (true, None) => {
                    return Err(fault("a change of members without its command".into()));
                }
            };
            self.machine
                .apply(position, data, &mut self.outcomes)
                .map_err(fault)?;
            if changes_members {
                self.follow_members().map_err(fault)?;
            }
            self.complete(position, origin.map(|(origin, _)| origin), io.done)?;
            self.status.applied.store(position.index, Ordering::Release);
        }
        Ok(())
    }

    /// After a change of members, when raft has the round behind it. `false` when the disk is full.
    pub(super) fn settle_members(&mut self) -> Result<bool, CoreError> {
        let raft = &mut self.node.raft;
        if self.status.removed() && raft.state == StateRole::Leader {
            // Raft keeps no account of a leader that is no member, and must not be asked for it.
            let term = raft.term;
            raft.become_follower(term, 0);
        }
        // That the change is committed must outlive a power cut: by the old configuration this member might wait for votes of one that has
        // been taken away since.
        let hard_state = from_raft_state(&raft.hard_state());
        self.persist(&[], Some(hard_state), true)
    }

    /// Tells raft what an entry changed in the members.
    pub(super) fn follow_members(&mut self) -> Result<(), String> {
        let after = self.machine.members();
        let changes = differences(&self.members, &after);
        match changes[..] {
            [] => return Ok(()),
            [MemberChange::Remove(_)] if is_planted(Defect::RemovedVotes) => {}
            [change] => {
                let state = self
                    .node
                    .apply_conf_change(&to_conf_change(change))
                    .map_err(|error| error.to_string())?;
                if conf_state::members(&state) != after {
                    return Err("raft's configuration is not that of the members".into());
                }
            }
            _ => return Err("it changes more than one member".into()),
        }
        let me = self.options.member;
        if self.members.contains(me) && !after.contains(me) {
            self.status.removed.store(true, Ordering::Release);
        }
        self.node.mut_store().members = after.clone();
        self.members = after;
        Ok(())
    }
}

/// Whether an entry changes no members.
pub(super) fn is_plain(entry: &RaftEntry) -> bool {
    entry.entry_type == EntryType::EntryNormal
}

/// What leads from one set of members to another.
pub(super) fn differences(before: &Members, after: &Members) -> Vec<MemberChange> {
    let voters = after
        .voters
        .iter()
        .filter(|id| !before.voters.contains(id))
        .map(|id| MemberChange::Voter(*id));
    let learners = after
        .learners
        .iter()
        .filter(|id| !before.learners.contains(id))
        .map(|id| MemberChange::Learner(*id));
    let removed = before
        .voters
        .iter()
        .chain(&before.learners)
        .filter(|id| !after.contains(**id))
        .map(|id| MemberChange::Remove(*id));
    voters.chain(learners).chain(removed).collect()
}
