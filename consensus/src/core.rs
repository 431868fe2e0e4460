//! One member of a raft group: a synchronous value that one thread at a time drives.

use crate::group::Ticket;
use crate::log_storage::{LogStorage, from_raft_entry, from_raft_state};
use crate::{conf_state, raft_logger::raft_logger};
use bytes::Bytes;
use holdfast_storage::LogPosition;
use holdfast_storage::disk::Disk;
use holdfast_storage::log::{Entry, HardState, LogBatch, LogError, RaftLog, SparePool};
use raft::eraftpb::{ConfState, Entry as RaftEntry, EntryType};
use raft::{Config, RawNode, ReadOnlyOption, StateRole};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What committed entries are applied to.
pub trait StateMachine: Send + 'static {
    /// The result of one command.
    type Outcome: Send + 'static;

    /// Applies one entry and appends the outcome of each command in it, in order.
    ///
    /// # Errors
    /// A text for an entry that cannot be applied; the member stops.
    fn apply(
        &mut self,
        position: LogPosition,
        data: Bytes,
        outcomes: &mut Vec<Self::Outcome>,
    ) -> Result<(), String>;

    /// This member has become the leader, and everything committed before is applied.
    fn lead(&mut self);
}

/// Told what the log does, for metrics.
pub trait Observer: Send + Sync + 'static {
    /// A sync of the log took this long.
    fn synced(&self, duration: Duration);
    /// This many bytes were appended.
    fn appended(&self, bytes: usize);
}

/// Why a submitted command has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no leader to take it.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// Leadership changed before it was committed; whether it will be is not known.
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    /// Too much is waiting.
    #[error("etcdserver: too many requests")]
    Overloaded,
    /// The log's disk is full. The member takes no more writes until it is restarted with space.
    #[error("etcdserver: no space left on the log's disk")]
    DiskFull,
    /// The member is stopping.
    #[error("etcdserver: server stopped")]
    Stopped,
}

/// A member that cannot go on. The process must stop: nothing half-alive.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Raft refused its own state.
    #[error("raft: {0}")]
    Raft(#[from] raft::Error),
    /// An entry could not be applied.
    #[error("entry {index} cannot be applied: {reason}")]
    Apply {
        /// Its index.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// The applied state is older than the first entry that is left.
    #[error(
        "the store was applied up to entry {applied}, but the log begins after entry {mark}: entries between are missing"
    )]
    Gap {
        /// The store's position.
        applied: u64,
        /// The log's mark.
        mark: u64,
    },
    /// The applied state is newer than the log: it was replaced, or lost what was not synced. Entries that were proposed now would
    /// take places which the state counts as applied already.
    #[error("the store was applied up to entry {applied}, but the log ends with entry {last}")]
    Ahead {
        /// The store's position.
        applied: u64,
        /// The log's last entry.
        last: u64,
    },
    /// The applied state comes from another log.
    #[error(
        "the store applied entry {index} of term {applied}, but in the log it is of term {found}"
    )]
    Diverged {
        /// The store's position.
        index: u64,
        /// Its term there.
        applied: u64,
        /// Its term in the log.
        found: u64,
    },
}

/// How a member takes part.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// This member's id, not 0.
    pub member: u64,
    /// The first voters, when the log is new.
    pub voters: Vec<u64>,
    /// Ticks without a leader before an election.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
}

/// What others may know of a member at any time.
#[derive(Debug, Default)]
pub struct Status {
    term: AtomicU64,
    leader: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    leads_alone: AtomicBool,
    disk_full: AtomicBool,
    leader_changes: AtomicU64,
}

impl Status {
    /// The current term.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }
    /// The leader's id, 0 for none.
    pub fn leader(&self) -> u64 {
        self.leader.load(Ordering::Acquire)
    }
    /// The last committed entry.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }
    /// The last applied entry.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Relaxed)
    }
    /// Whether this member leads a group of which it is the only voter, and has applied all that was committed before it led. Then
    /// what it has applied is what is committed: a read of its state is linearizable without asking anybody.
    pub fn leads_alone(&self) -> bool {
        self.leads_alone.load(Ordering::Acquire)
    }
    /// Whether the log's disk ran full.
    pub fn disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }
    /// How often the leader changed.
    pub fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Ordering::Relaxed)
    }
}

/// An entry of ours that is on its way.
struct InFlight {
    position: LogPosition,
    tickets: Vec<Ticket>,
}

/// See the module's text.
pub struct Core<M: StateMachine, D: Disk> {
    node: RawNode<LogStorage<D>>,
    machine: M,
    in_flight: VecDeque<InFlight>,
    conf_state: ConfState,
    status: Arc<Status>,
    observer: Arc<dyn Observer>,
    led_term: u64,
    outcomes: Vec<M::Outcome>,
}

/// The bytes of entries that may be proposed and not yet committed. Behind it, proposals are refused.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// The bytes of committed entries handed over at once: bounds the memory of a long replay.
const COMMITTED_BYTES_MAX: u64 = 16 << 20;
/// Bytes of entries in one message to a follower. 0, the default, would mean one entry each.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

impl<M: StateMachine, D: Disk> Core<M, D> {
    /// Starts a member on its log. `applied` is what `machine` has applied. A group of one is led at once.
    ///
    /// # Errors
    /// [`CoreError`] when log and state do not fit together.
    pub fn new(
        mut log: RaftLog<D>,
        machine: M,
        applied: LogPosition,
        options: &CoreOptions,
        observer: Arc<dyn Observer>,
    ) -> Result<Core<M, D>, CoreError> {
        if log.conf_state().is_empty() {
            if applied.index > 1 {
                return Err(CoreError::Ahead {
                    applied: applied.index,
                    last: 0,
                });
            }
            let mut first = ConfState::default();
            first.set_voters(options.voters.clone());
            // Raft counts the first configuration as applied with entry 1, which no member has ever had to send.
            let position = LogPosition { index: 1, term: 1 };
            let state = HardState {
                term: 1,
                vote: 0,
                commit: 1,
            };
            log.install_snapshot(position, conf_state::encode(&first).into(), state)?;
        }
        let mark = log.mark();
        if applied.index < mark.index && mark.index > 1 {
            return Err(CoreError::Gap {
                applied: applied.index,
                mark: mark.index,
            });
        }
        check_reach(&log, applied)?;
        let applied_index = applied.index.max(mark.index);
        let store = LogStorage {
            log,
            applied: applied_index,
        };
        let conf_state = conf_state::decode(store.log.conf_state()).unwrap_or_default();
        let config = Config {
            id: options.member,
            election_tick: options.election_ticks,
            heartbeat_tick: options.heartbeat_ticks,
            applied: applied_index,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            ..Config::default()
        };
        let node = RawNode::new(&config, store, &raft_logger())?;
        let mut core = Core {
            node,
            machine,
            in_flight: VecDeque::new(),
            conf_state,
            status: Arc::new(Status::default()),
            observer,
            led_term: 0,
            outcomes: Vec::new(),
        };
        if core.is_sole_voter() {
            core.node.campaign()?;
        }
        core.publish();
        Ok(core)
    }

    /// What others may look at.
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// The state machine.
    pub fn machine(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Lets one tick of time pass.
    pub fn tick(&mut self) {
        self.node.tick();
    }

    /// Proposes one entry. Its tickets are completed when it is applied, or at once when it cannot be proposed.
    pub fn propose(
        &mut self,
        data: Vec<u8>,
        tickets: Vec<Ticket>,
        done: &mut Vec<(Ticket, Result<M::Outcome, Failure>)>,
    ) {
        let failure = if self.status.disk_full() {
            Some(Failure::DiskFull)
        } else if self.node.raft.state != StateRole::Leader {
            Some(Failure::NoLeader)
        } else {
            match self.node.propose(Vec::new(), data) {
                Ok(()) => None,
                Err(raft::Error::ProposalDropped) => Some(Failure::Overloaded),
                Err(_) => Some(Failure::NoLeader),
            }
        };
        match failure {
            Some(failure) => done.extend(tickets.into_iter().map(|t| (t, Err(failure)))),
            None => self.in_flight.push_back(InFlight {
                position: LogPosition {
                    index: self.node.raft.raft_log.last_index(),
                    term: self.node.raft.term,
                },
                tickets,
            }),
        }
    }

    /// Does everything that raft asks for: append, one sync, apply. Completed commands go to `done`.
    ///
    /// # Errors
    /// [`CoreError`]: the process must stop.
    pub fn advance(
        &mut self,
        done: &mut Vec<(Ticket, Result<M::Outcome, Failure>)>,
    ) -> Result<(), CoreError> {
        while !self.status.disk_full() && self.node.has_ready() {
            let mut ready = self.node.ready();
            self.apply(ready.take_committed_entries(), done)?;
            let entries: Vec<Entry> = ready.entries().iter().map(from_raft_entry).collect();
            let hard_state = ready.hs().map(from_raft_state);
            let must_sync = ready.must_sync();
            if !self.persist(&entries, hard_state, must_sync)? {
                self.fail_in_flight(Failure::DiskFull, done);
                return Ok(());
            }
            let mut light = self.node.advance(ready);
            if let Some(commit) = light.commit_index() {
                self.status.committed.store(commit, Ordering::Relaxed);
            }
            self.apply(light.take_committed_entries(), done)?;
            self.node.advance_apply();
            self.publish();
        }
        Ok(())
    }

    /// Appends and syncs. `false` when the disk is full: the member then takes no more writes.
    fn persist(
        &mut self,
        entries: &[Entry],
        hard_state: Option<HardState>,
        must_sync: bool,
    ) -> Result<bool, CoreError> {
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
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        self.observer
            .appended(entries.iter().map(|entry| entry.data.len()).sum());
        if must_sync {
            let begun = Instant::now();
            log.sync()?;
            self.observer.synced(begun.elapsed());
        }
        Ok(true)
    }

    fn apply(
        &mut self,
        entries: Vec<RaftEntry>,
        done: &mut Vec<(Ticket, Result<M::Outcome, Failure>)>,
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
            if entry.entry_type != EntryType::EntryNormal {
                return Err(fault(
                    "a membership change stands in the log of a group of one".into(),
                ));
            }
            self.machine
                .apply(position, entry.data, &mut self.outcomes)
                .map_err(fault)?;
            self.complete(position, done)?;
            self.status.applied.store(position.index, Ordering::Relaxed);
        }
        Ok(())
    }

    fn complete(
        &mut self,
        position: LogPosition,
        done: &mut Vec<(Ticket, Result<M::Outcome, Failure>)>,
    ) -> Result<(), CoreError> {
        while let Some(front) = self.in_flight.front() {
            if front.position.index > position.index {
                break;
            }
            let Some(front) = self.in_flight.pop_front() else {
                break;
            };
            if front.position != position {
                // Another leader's entry took the place of ours.
                let failed = front.tickets.into_iter();
                done.extend(failed.map(|ticket| (ticket, Err(Failure::LeaderChanged))));
                continue;
            }
            if front.tickets.len() != self.outcomes.len() {
                return Err(CoreError::Apply {
                    index: position.index,
                    reason: format!(
                        "{} commands were submitted, {} were applied",
                        front.tickets.len(),
                        self.outcomes.len()
                    ),
                });
            }
            let outcomes = self.outcomes.drain(..).map(Ok);
            done.extend(front.tickets.into_iter().zip(outcomes));
        }
        self.outcomes.clear();
        Ok(())
    }

    /// Fails everything that is on its way.
    pub fn fail_in_flight(
        &mut self,
        failure: Failure,
        done: &mut Vec<(Ticket, Result<M::Outcome, Failure>)>,
    ) {
        for entry in self.in_flight.drain(..) {
            done.extend(entry.tickets.into_iter().map(|t| (t, Err(failure))));
        }
    }

    /// Forgets the log up to `position`, which the store has checkpointed.
    ///
    /// # Errors
    /// [`LogError`]; after a failed write or sync the process must stop.
    pub fn compact_log(&mut self, position: LogPosition) -> Result<(), LogError> {
        let applied = self.node.raft.raft_log.applied;
        if position.index > applied {
            return Ok(());
        }
        let conf_state = conf_state::encode(&self.conf_state).into();
        let log = &mut self.node.mut_store().log;
        match log.compact_to(position, conf_state) {
            Err(error @ LogError::NoSpace { .. }) => {
                tracing::warn!(%error, "the raft log could not be cut");
                Ok(())
            }
            other => other,
        }
    }

    /// Before a stop: syncs everything, so that whatever is found damaged later is known to be.
    ///
    /// # Errors
    /// [`LogError`]; the process must stop.
    pub fn seal_log(&mut self) -> Result<(), LogError> {
        if self.status.disk_full() {
            return Ok(());
        }
        self.node.mut_store().log.seal()
    }

    /// The log's spare segments, for a thread that keeps them ready.
    pub fn spares(&self) -> Arc<SparePool<D>> {
        self.node.store().log.spares()
    }

    fn is_sole_voter(&self) -> bool {
        self.conf_state.voters_outgoing.is_empty()
            && self.conf_state.voters.as_slice() == [self.node.raft.id]
    }

    fn publish(&mut self) {
        let raft = &self.node.raft;
        let status = &self.status;
        status.term.store(raft.term, Ordering::Relaxed);
        if status.leader.swap(raft.leader_id, Ordering::AcqRel) != raft.leader_id
            && raft.leader_id != 0
        {
            status.leader_changes.fetch_add(1, Ordering::Relaxed);
        }
        status
            .committed
            .store(raft.raft_log.committed, Ordering::Relaxed);
        let leads = raft.state == StateRole::Leader
            && raft.commit_to_current_term()
            && raft.raft_log.applied == raft.raft_log.committed;
        if leads && self.led_term != raft.term {
            self.led_term = raft.term;
            self.machine.lead();
        }
        let alone = self.is_sole_voter() && raft.state == StateRole::Leader;
        let caught_up = leads || status.leads_alone();
        status
            .leads_alone
            .store(alone && caught_up, Ordering::Release);
    }
}

/// Checks that the entry which the state applied last stands in the log, or right before it.
fn check_reach<D: Disk>(log: &RaftLog<D>, applied: LogPosition) -> Result<(), CoreError> {
    let last = log.last_index();
    if applied.index > last {
        return Err(CoreError::Ahead {
            applied: applied.index,
            last,
        });
    }
    if applied.index < log.mark().index {
        return Ok(());
    }
    match log.term(applied.index)? {
        Some(found) if found != applied.term => Err(CoreError::Diverged {
            index: applied.index,
            applied: applied.term,
            found,
        }),
        _ => Ok(()),
    }
}
