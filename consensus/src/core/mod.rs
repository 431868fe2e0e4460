//! One member of a raft group: a synchronous value that one thread at a time drives.

mod drive;
mod peers;
mod propose;
mod snapshot;
mod start;

use holdfast_storage::planted::{Defect, is_planted};
pub use start::founding_voters;

use crate::conf_state;
use crate::failure::{CoreError, Failure};
use crate::group::Ticket;
use crate::log_storage::LogStorage;
use crate::machine::{Done, Members, Observer, Outgoing, Progress, StateMachine};
use crate::proposals::Proposals;
use crate::raft_logger::raft_logger;
use crate::reads::Reads;
use crate::snapshots::{Prepared, Transfers};
use crate::status::Status;
use bytes::Bytes;
use holdfast_storage::LogPosition;
use holdfast_storage::disk::Disk;
use holdfast_storage::log::{HardState, LogError, RaftLog, SparePool};
use raft::{Config, RawNode, ReadOnlyOption, StateRole};
use start::{check_reach, record_installed};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How a member takes part.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// This member's id, not 0.
    pub member: u64,
    /// Another number at each start of the process, so that an answer to an earlier one is never taken for one to this.
    pub incarnation: u64,
    /// Ticks without a leader before an election, at least.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Whether to ask around before an election, so that a member which comes back does not disturb a group that works.
    pub pre_vote: bool,
    /// Whether a member that starts waits for less than an election time-out before its first election: nobody may lead, and if somebody
    /// does, its heartbeat comes sooner.
    pub advance_first_election: bool,
    /// Ticks that a command or read waits for a leader.
    pub patience_ticks: u64,
    /// Entries behind a checkpoint that the log keeps for members that lag, if there are others.
    pub keep_entries: u64,
    /// Most bytes of them.
    pub keep_bytes: u64,
    /// Where the randomness of election time-outs comes from.
    pub seed: u64,
}

/// Where the results of driving a core go.
pub struct Io<'a, M: StateMachine> {
    /// What is done, with whose ticket.
    pub done: &'a mut Completed<M>,
    /// Sends what is in the list, leaving it empty. Called before the log is synced, too: so followers work while this member's disk does.
    pub send: &'a mut (dyn FnMut(&mut Outbox<M>) + 'a),
}

/// What goes to other members.
pub type Outbox<M> = Vec<Outgoing<<M as StateMachine>::View>>;

/// The outcomes of commands and reads.
pub type Completed<M> = Vec<(Ticket, Result<Done<<M as StateMachine>::Outcome>, Failure>)>;

/// Elections that come sooner than by the time-out.
struct Hurry {
    /// The campaign from which on.
    campaign: u64,
    /// How many more.
    left: u8,
}

/// Enough for two that fall together by chance; more would be for ever, where nobody can win.
const HURRIED_CAMPAIGNS: u8 = 3;

/// See the module's text.
pub struct Core<M: StateMachine, D: Disk> {
    node: RawNode<LogStorage<D>>,
    machine: M,
    members: Members,
    proposals: Proposals,
    reads: Reads,
    prepared: Option<Prepared<M::View>>,
    transfers: Transfers,
    /// A snapshot whose message raft has not taken yet.
    incoming: Option<(LogPosition, M::Incoming)>,
    outbox: Vec<Outgoing<M::View>>,
    /// Who has asked to be sent more since the last round.
    answered: Vec<u64>,
    options: CoreOptions,
    status: Arc<Status>,
    observer: Arc<dyn Observer>,
    /// Ticks since the start.
    now: u64,
    campaigns: u64,
    /// Set while the leader's process is known to be gone: elections come sooner.
    hurry: Option<Hurry>,
    led_term: u64,
    lost_data: Option<u64>,
    outcomes: Vec<M::Outcome>,
}

/// The bytes of entries that may be proposed and not yet committed. Behind it, proposals are refused.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// The bytes of committed entries handed over at once: bounds the memory of a long replay.
const COMMITTED_BYTES_MAX: u64 = 16 << 20;
/// Bytes of entries in one message to a follower. 0, the default, would mean one entry each.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Messages of entries to one follower that it has not answered yet.
const IN_FLIGHT_MESSAGES_MAX: usize = 256;

impl<M: StateMachine, D: Disk> Core<M, D> {
    /// Starts a member on its log. `applied` is what `machine` has applied. A group of one is led at once.
    ///
    /// `installed` says that the machine's state is a snapshot of which the log may have no record: the process ended between the two.
    ///
    /// # Errors
    /// [`CoreError`] when log and state do not fit together.
    pub fn new(
        mut log: RaftLog<D>,
        mut machine: M,
        applied: LogPosition,
        installed: bool,
        options: CoreOptions,
        observer: Arc<dyn Observer>,
    ) -> Result<Core<M, D>, CoreError> {
        let members = machine.members();
        let is_new = log.conf_state().is_empty();
        if installed {
            record_installed(&mut log, &members, applied)?;
            machine
                .recorded()
                .map_err(|reason| snapshot_fault(applied, reason))?;
        } else if is_new && members.len() > 0 {
            if applied.index > 1 {
                return Err(CoreError::Ahead {
                    applied: applied.index,
                    last: 0,
                });
            }
            // Raft counts the first configuration as applied with entry 1, which no member has ever had to send.
            let position = LogPosition { index: 1, term: 1 };
            let state = HardState {
                term: 1,
                vote: 0,
                commit: 1,
            };
            log.install_snapshot(position, encoded(&members), state)?;
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
        let store = LogStorage::new(log, applied_index, members.clone());
        let config = Config {
            id: options.member,
            election_tick: options.election_ticks,
            heartbeat_tick: options.heartbeat_ticks,
            applied: applied_index,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: IN_FLIGHT_MESSAGES_MAX,
            check_quorum: true,
            pre_vote: options.pre_vote,
            read_only_option: if is_planted(Defect::ReadByLease) {
                ReadOnlyOption::LeaseBased
            } else {
                ReadOnlyOption::Safe
            },
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            ..Config::default()
        };
        let node = RawNode::new(&config, store, &raft_logger())?;
        let mut core = Core {
            proposals: Proposals::new(options.incarnation),
            reads: Reads::new(options.member, options.incarnation),
            node,
            machine,
            members,
            prepared: None,
            transfers: Transfers::default(),
            incoming: None,
            outbox: Vec::new(),
            answered: Vec::new(),
            options,
            status: Arc::new(Status::default()),
            observer,
            now: 0,
            campaigns: 0,
            hurry: None,
            led_term: 0,
            lost_data: None,
            outcomes: Vec::new(),
        };
        if core.is_sole_voter() {
            core.node.campaign()?;
        } else if core.options.advance_first_election {
            let left = (3 * core.options.heartbeat_ticks).min(core.options.election_ticks);
            core.node.raft.election_elapsed = core.options.election_ticks - left;
        }
        core.status
            .applied
            .store(core.node.raft.raft_log.applied, Ordering::Release);
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

    /// What this member, as the leader, knows of the others and of itself. Empty in any other role.
    pub fn progress(&self) -> Vec<Progress> {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return Vec::new();
        }
        let mut all: Vec<Progress> = raft
            .prs()
            .iter()
            .map(|(id, progress)| Progress {
                id: *id,
                matched: progress.matched,
                active: *id == raft.id || progress.recent_active,
                is_learner: self.members.learners.contains(id),
            })
            .collect();
        all.sort_by_key(|progress| progress.id);
        all
    }

    /// Lets one tick of time pass.
    pub fn tick(&mut self, done: &mut Completed<M>) {
        if self.status.disk_full() {
            // Raft is in the middle of something that this member cannot do.
            return;
        }
        self.now += 1;
        let raft = &mut self.node.raft;
        let (least, span) = (self.options.election_ticks, self.options.election_ticks);
        let random = mix(&[
            self.options.seed,
            self.options.member,
            raft.term,
            self.campaigns,
        ]);
        // Raft's own choice comes from the thread's randomness: with this one a seed repeats a whole cluster.
        raft.set_randomized_election_timeout(least + (random % span as u64) as usize);
        if raft.leader_id != 0 {
            self.hurry = None;
        } else if let Some(hurry) = &mut self.hurry
            && hurry.campaign <= self.campaigns
            && hurry.left > 0
        {
            // Long enough for one election, and different for each; should two fall together, the next ones are as soon.
            hurry.campaign = self.campaigns + 1;
            hurry.left -= 1;
            let soon = 1 + (random % (span * 3 / 10).max(4) as u64) as usize;
            let elapsed = raft.randomized_election_timeout().saturating_sub(soon);
            raft.election_elapsed = raft.election_elapsed.max(elapsed);
        }
        let before = raft.election_elapsed;
        self.node.tick();
        if self.node.raft.election_elapsed <= before {
            self.campaigns += 1;
        }
        let oldest = self.now.saturating_sub(self.options.patience_ticks);
        let given_up = self.proposals.take_before(oldest);
        fail(given_up, Failure::NoLeader, done);
        let lost = self.now.saturating_sub(2 * span as u64);
        fail(
            self.proposals.take_lost(lost),
            Failure::ConnectionLost,
            done,
        );
        fail(self.reads.take_before(oldest), Failure::NoLeader, done);
        if let Some(prepared) = self
            .prepared
            .take_if(|prepared| prepared.since + 4 * (least as u64) < self.now)
        {
            // Whoever needed it has gone.
            tracing::debug!(member = prepared.to, "a snapshot was not sent");
            self.node.store().wanted().offer = None;
        }
    }

    /// Asks to read the applied state as it is now or later: the tickets are completed with [`Done::Readable`].
    pub fn read(&mut self, tickets: Vec<Ticket>) {
        self.reads.add(tickets, self.now);
    }

    /// Hands leadership over to a voter. It takes effect, or not, within an election time-out.
    ///
    /// # Errors
    /// [`Failure::NotLeader`] on any other member; [`Failure::NoLeader`] if `to` cannot lead.
    pub fn transfer_leader(&mut self, to: u64) -> Result<(), Failure> {
        if self.node.raft.state != StateRole::Leader {
            return Err(Failure::NotLeader);
        }
        if !self.members.voters.contains(&to) {
            return Err(Failure::NoLeader);
        }
        if to != self.options.member {
            self.node.transfer_leader(to);
        }
        Ok(())
    }

    /// Fails everything that is on its way, reads included.
    pub fn fail_in_flight(&mut self, failure: Failure, done: &mut Completed<M>) {
        fail(self.proposals.take_all(), failure, done);
        fail(self.reads.take_all(), failure, done);
    }

    /// Forgets the log up to `checkpointed`, which the store has, but for what members that lag may still need.
    ///
    /// # Errors
    /// [`LogError`]; after a failed write or sync the process must stop.
    pub fn compact_log(&mut self, checkpointed: LogPosition) -> Result<(), LogError> {
        let raft = &self.node.raft;
        let applied = raft.raft_log.applied;
        if checkpointed.index > applied {
            return Ok(());
        }
        let matched = |id| raft.prs().get(id).map_or(0, |progress| progress.matched);
        let leads = raft.state == StateRole::Leader;
        self.transfers
            .retain(|to, index| leads && matched(to) < index);
        let log = &self.node.store().log;
        let mut index = checkpointed.index.min(self.transfers.least());
        if self.members.len() > 1 {
            let keep = log.reach_back(
                checkpointed.index,
                self.options.keep_entries,
                self.options.keep_bytes,
            );
            index = index.min(keep);
        }
        if index <= log.mark().index {
            return Ok(());
        }
        let Some(term) = log.term(index)? else {
            return Ok(());
        };
        // The configuration in the mark is only read where there is no state that names the members: it need not be of the mark.
        let conf_state = encoded(&self.members);
        let log = &mut self.node.mut_store().log;
        match log.compact_to(LogPosition { index, term }, conf_state) {
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
        self.members.voters.as_slice() == [self.options.member]
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
        let is_leader = raft.state == StateRole::Leader;
        let caught_up = is_leader
            && raft.commit_to_current_term()
            && raft.raft_log.applied == raft.raft_log.committed;
        if caught_up && self.led_term != raft.term {
            self.led_term = raft.term;
            self.machine.lead();
        }
        let leads = is_leader && self.led_term == raft.term;
        if !leads && status.leads() {
            self.machine.follow();
        }
        status.leads.store(leads, Ordering::Release);
        let alone = leads && self.is_sole_voter();
        status.leads_alone.store(alone, Ordering::Release);
    }
}

fn fail<O>(
    tickets: Vec<Ticket>,
    failure: Failure,
    done: &mut Vec<(Ticket, Result<Done<O>, Failure>)>,
) {
    done.extend(tickets.into_iter().map(|ticket| (ticket, Err(failure))));
}

fn snapshot_fault(position: LogPosition, reason: String) -> CoreError {
    CoreError::Snapshot {
        index: position.index,
        reason,
    }
}

fn encoded(members: &Members) -> Bytes {
    conf_state::encode(&conf_state::of(members)).into()
}

/// A number that looks random, of several (splitmix64).
fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |hash, part| {
        let mut z = (hash ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}
