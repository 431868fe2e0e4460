//! Snapshots: taken for members that the log no longer reaches, and put in place here.

use super::{Core, Io, encoded, fail, snapshot_fault};
use crate::conf_state;
use crate::failure::{CoreError, Failure};
use crate::machine::StateMachine;
use crate::message::{self, MessageFault, PeerMessage};
use crate::sense;
use crate::snapshots::Prepared;
use bytes::Bytes;
use holdfast_storage::LogPosition;
use holdfast_storage::disk::Disk;
use holdfast_storage::log::HardState;
use holdfast_storage::planted::{Defect, is_planted};
use raft::eraftpb::{Message, MessageType, Snapshot};
use raft::{SnapshotStatus, StateRole};
use std::sync::atomic::Ordering;

impl<M: StateMachine, D: Disk> Core<M, D> {
    /// Whether this member has use for the snapshot that a leader's message is about: asked before its content is received.
    ///
    /// # Errors
    /// [`MessageFault`]: what is wrong with the message.
    pub fn wants(&self, from: u64, message: Bytes) -> Result<bool, MessageFault> {
        match self.snapshot_message(from, message) {
            Ok((message, position)) => {
                let raft = &self.node.raft;
                Ok(message.term >= raft.term && position.index > raft.raft_log.committed)
            }
            Err(fault) => {
                self.status.refused_messages.fetch_add(1, Ordering::Relaxed);
                Err(fault)
            }
        }
    }

    pub(super) fn snapshot_message(
        &self,
        from: u64,
        bytes: Bytes,
    ) -> Result<(Message, LogPosition), MessageFault> {
        let PeerMessage::Raft(message) = message::decode(bytes)? else {
            return Err(MessageFault::Senseless("it is about no snapshot"));
        };
        if message.msg_type != MessageType::MsgSnapshot {
            return Err(MessageFault::Senseless("it is about no snapshot"));
        }
        sense::check(&self.node, from, &message)?;
        let metadata = message.get_snapshot().get_metadata();
        let position = LogPosition {
            index: metadata.index,
            term: metadata.term,
        };
        Ok((message, position))
    }

    /// Takes a snapshot that was received whole, with the message that came with it, and says whether it will come into use. One that will
    /// not is dropped.
    ///
    /// # Errors
    /// [`MessageFault`]: what is wrong with the message, or that the snapshot is not what it says.
    pub fn receive_snapshot(
        &mut self,
        from: u64,
        message: Bytes,
        incoming: M::Incoming,
    ) -> Result<bool, MessageFault> {
        let taken = self.take_snapshot(from, message, incoming);
        if taken.is_err() {
            self.status.refused_messages.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    fn take_snapshot(
        &mut self,
        from: u64,
        message: Bytes,
        incoming: M::Incoming,
    ) -> Result<bool, MessageFault> {
        let (message, position) = self.snapshot_message(from, message)?;
        let state = message.get_snapshot().get_metadata().get_conf_state();
        // Before anything is replaced.
        if M::describe(&incoming) != (position, conf_state::members(state)) {
            return Err(MessageFault::Senseless("its snapshot is another one"));
        }
        let raft = &self.node.raft;
        if message.term < raft.term || position.index <= raft.raft_log.committed {
            // Old, or this member has those entries by now.
            return Ok(false);
        }
        let before = self.incoming.replace((position, incoming));
        self.step(from, message)?;
        let pending = self.node.snap().map(|snapshot| {
            let metadata = snapshot.get_metadata();
            (metadata.index, metadata.term)
        });
        if pending == Some((position.index, position.term)) {
            return Ok(true);
        }
        // Raft goes on with what it has.
        self.incoming = before;
        Ok(false)
    }

    /// What became of a snapshot that was sent.
    pub fn snapshot_sent(&mut self, to: u64, installed: bool) {
        if !installed {
            self.transfers.end(to);
        }
        let status = if installed {
            SnapshotStatus::Finish
        } else {
            SnapshotStatus::Failure
        };
        self.node.report_snapshot(to, status);
    }

    /// Takes a view for the next member that the log does not reach.
    pub(super) fn prepare_snapshot(&mut self) -> Result<(), CoreError> {
        let raft = &self.node.raft;
        let mut wanted = self.node.store().wanted();
        let by = std::mem::take(&mut wanted.by);
        if self.prepared.is_some() || raft.state != StateRole::Leader {
            return Ok(());
        }
        let Some(to) = by.into_iter().find(|to| self.members.contains(*to)) else {
            return Ok(());
        };
        let index = raft.raft_log.applied;
        let Ok(term) = raft.raft_log.term(index) else {
            return Ok(());
        };
        let position = LogPosition { index, term };
        let mut members = self.members.clone();
        if is_planted(Defect::SnapshotWithOldMembers)
            && let Some(state) = conf_state::decode(self.node.store().log.conf_state())
        {
            members = conf_state::members(&state);
        }
        wanted.offer = Some((to, position, members));
        drop(wanted);
        let view = self
            .machine
            .view()
            .map_err(|reason| snapshot_fault(position, reason))?;
        self.prepared = Some(Prepared {
            to,
            view,
            since: self.now,
        });
        Ok(())
    }

    /// Puts a received snapshot in the place of state and log.
    pub(super) fn install(
        &mut self,
        snapshot: &Snapshot,
        hard_state: Option<HardState>,
        io: &mut Io<'_, M>,
    ) -> Result<(), CoreError> {
        let metadata = snapshot.get_metadata();
        let position = LogPosition {
            index: metadata.index,
            term: metadata.term,
        };
        let Some((_, incoming)) = self.incoming.take_if(|(at, _)| *at == position) else {
            return Err(snapshot_fault(position, "its content is missing".into()));
        };
        self.machine
            .install(position, incoming)
            .map_err(|reason| snapshot_fault(position, reason))?;
        self.members = self.machine.members();
        if conf_state::of(&self.members) != *metadata.get_conf_state() {
            return Err(snapshot_fault(
                position,
                "its members are not those of its message".into(),
            ));
        }
        if is_planted(Defect::InstallNoteForgotten) {
            self.machine
                .recorded()
                .map_err(|reason| snapshot_fault(position, reason))?;
        }
        let log = &mut self.node.mut_store().log;
        let mut hard_state = hard_state.unwrap_or_else(|| log.hard_state());
        // Entries behind the snapshot may be committed already; they come into the log with the next batch.
        hard_state.commit = position.index;
        log.install_snapshot(position, encoded(&self.members), hard_state)?;
        self.machine
            .recorded()
            .map_err(|reason| snapshot_fault(position, reason))?;
        self.node.mut_store().members = self.members.clone();
        self.status.installed.fetch_add(1, Ordering::Relaxed);
        self.status.applied.store(position.index, Ordering::Release);
        // What was on its way may be in the snapshot, or not: nobody can tell.
        fail(
            self.proposals.take_waiting(),
            Failure::LeaderChanged,
            io.done,
        );
        Ok(())
    }
}
