//! Raft's view of the log.

use crate::conf_state;
use crate::machine::Members;
use crate::message::{entry_kind, entry_type};
use crate::snapshots::Wanted;
use holdfast_storage::disk::Disk;
use holdfast_storage::log::{Entry, HardState, LogError, RaftLog};
use raft::eraftpb::{Entry as RaftEntry, HardState as RaftHardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::{RefCell, RefMut};

pub(crate) struct LogStorage<D: Disk> {
    pub(crate) log: RaftLog<D>,
    /// What the state machine had applied at the start, at least the log's mark.
    pub(crate) applied: u64,
    /// The members as at what is applied.
    pub(crate) members: Members,
    wanted: RefCell<Wanted>,
}

impl<D: Disk> LogStorage<D> {
    pub(crate) fn new(log: RaftLog<D>, applied: u64, members: Members) -> LogStorage<D> {
        LogStorage {
            log,
            applied,
            members,
            wanted: RefCell::default(),
        }
    }

    /// What raft asked for, and what it is offered. Not held while raft works.
    pub(crate) fn wanted(&self) -> RefMut<'_, Wanted> {
        self.wanted.borrow_mut()
    }
}

impl<D: Disk> Storage for LogStorage<D> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut hard_state = self.log.hard_state();
        // The log does not sync each step of the commit index: a stored one is old, and raft refuses one before what is applied.
        // What is applied was committed.
        hard_state.commit = hard_state.commit.max(self.applied);
        let conf_state = conf_state::of(&self.members);
        Ok(RaftState::new(to_raft_state(hard_state), conf_state))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<RaftEntry>> {
        let max_bytes = max_size.into().unwrap_or(u64::MAX);
        let entries = self.log.entries(low, high, max_bytes).map_err(lower)?;
        entries.into_iter().map(to_raft_entry).collect()
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.log
            .term(index)
            .map_err(lower)?
            .ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.log.first_index())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.log.last_index())
    }

    fn snapshot(&self, least: u64, to: u64) -> raft::Result<Snapshot> {
        let mut wanted = self.wanted();
        match &wanted.offer {
            Some((member, position, members)) if *member == to && position.index >= least => {
                let mut snapshot = Snapshot::default();
                let metadata = snapshot.mut_metadata();
                metadata.index = position.index;
                metadata.term = position.term;
                metadata.set_conf_state(conf_state::of(members));
                Ok(snapshot)
            }
            _ => {
                // A view is taken between two rounds; raft asks again.
                wanted.by.insert(to);
                Err(StorageError::SnapshotTemporarilyUnavailable.into())
            }
        }
    }
}

fn lower(error: LogError) -> raft::Error {
    match error {
        LogError::Compacted { .. } => StorageError::Compacted.into(),
        LogError::Unavailable { .. } => StorageError::Unavailable.into(),
        other => StorageError::Other(Box::new(other)).into(),
    }
}

fn unreadable(reason: &str) -> raft::Error {
    StorageError::Other(reason.into()).into()
}

pub(crate) fn to_raft_state(state: HardState) -> RaftHardState {
    RaftHardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
        ..RaftHardState::default()
    }
}

pub(crate) fn from_raft_state(state: &RaftHardState) -> HardState {
    HardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
    }
}

fn to_raft_entry(entry: Entry) -> raft::Result<RaftEntry> {
    Ok(RaftEntry {
        entry_type: entry_type(entry.kind)
            .ok_or_else(|| unreadable("an entry of unknown kind stands in the log"))?,
        term: entry.term,
        index: entry.index,
        data: entry.data,
        context: entry.context,
        ..RaftEntry::default()
    })
}

pub(crate) fn from_raft_entry(entry: &RaftEntry) -> Entry {
    Entry {
        index: entry.index,
        term: entry.term,
        kind: entry_kind(entry.entry_type),
        data: entry.data.clone(),
        context: entry.context.clone(),
    }
}
