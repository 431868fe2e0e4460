//! A raft group shared between threads: grouped submission, grouped completion, group commit without timers.
//!
//! Whoever submits puts commands into a queue. The group's thread drains it into as few entries as possible, which one sync makes
//! durable; what arrives meanwhile is the next batch. When little is waiting and nobody drives the core, the submitting thread drives
//! it itself: a lone client then waits for no other thread.

use crate::core::{Completed, Core, Io};
use crate::failure::{CoreError, Failure};
use crate::machine::{Done, MemberChange, Outgoing, Progress, StateMachine};
use crate::message::MessageFault;
use crate::status::Status;
use bytes::Bytes;
use holdfast_storage::disk::Disk;
use holdfast_storage::log::SparePool;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Who waits for a command: a mailbox, a slot in it, and how often the slot was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Which mailbox.
    pub mailbox: u32,
    /// Which slot.
    pub slot: u32,
    /// The slot's use: an outcome for an earlier one is dropped.
    pub turn: u32,
}

/// Commands on their way to the log.
#[derive(Debug, Default)]
pub struct Submission {
    /// The encoded commands, one after the other.
    pub data: Vec<u8>,
    /// One ticket per command.
    pub tickets: Vec<Ticket>,
}

/// Takes the outcomes of commands and reads, many at a time.
pub trait Completions<O>: Send + Sync + 'static {
    /// Takes all of `done`, leaving it empty.
    fn complete(&self, done: &mut Vec<(Ticket, Result<Done<O>, Failure>)>);
}

/// Carries messages to other members: each at most once, and in order or not at all.
pub trait Peers<V>: Send + Sync + 'static {
    /// Takes all of `outgoing`, leaving it empty. Must not block: what does not fit is dropped.
    fn send(&self, outgoing: &mut Vec<Outgoing<V>>);
}

/// A group's bounds.
#[derive(Clone, Copy, Debug)]
pub struct GroupOptions {
    /// Time between raft's ticks.
    pub tick: Duration,
    /// Bytes of commands that may wait; more are refused.
    pub queue_bytes: usize,
    /// Most commands that a submitting thread drives itself.
    pub inline_commands: usize,
    /// Longest sync for which submitting threads drive the core: it blocks them.
    pub inline_sync: Duration,
}

/// Bytes of commands in one entry (DESIGN §3.6): many commands share raft's cost per entry.
const ENTRY_BYTES: usize = 256 << 10;
/// Bytes of commands taken from the queue at once: the time between two looks at ticks and the queue.
const ROUND_BYTES: usize = 4 << 20;

/// Bytes of other members' messages that may wait for the core; more are dropped, as a network drops them.
const INCOMING_BYTES_MAX: usize = 128 << 20;

/// Messages of other members after which what they bring about is done: it takes memory, and each may bring about a megabyte.
const TASKS_BETWEEN: usize = 128;
/// Least time between two log lines about refused messages.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

/// What else than commands waits for the core.
enum Task {
    Message(u64, Bytes),
    SnapshotSent(u64, bool),
    Unreachable(u64),
    Gone(u64),
    Change(MemberChange, Vec<u8>, Ticket),
    InTerm(u64, Vec<u8>, Vec<Ticket>),
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Submission>,
    bytes: usize,
    commands: usize,
    reads: Vec<Ticket>,
    tasks: Vec<Task>,
    task_bytes: usize,
    stopped: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.reads.is_empty() && self.tasks.is_empty()
    }
}

/// What is taken from the queue at once.
struct Round {
    submissions: Vec<Submission>,
    reads: Vec<Ticket>,
    tasks: Vec<Task>,
}

/// See the module's text.
pub struct Group<M: StateMachine, D: Disk> {
    core: Mutex<Core<M, D>>,
    queue: Mutex<Queue>,
    arrived: Condvar,
    status: Arc<Status>,
    completions: Arc<dyn Completions<M::Outcome>>,
    peers: Arc<dyn Peers<M::View>>,
    options: GroupOptions,
    /// Smoothed duration of driving the core once, nanoseconds.
    drive_nanos: AtomicU64,
    pending: AtomicUsize,
    failed: AtomicBool,
    fault: Mutex<Option<CoreError>>,
    /// When a refused message was last spoken of.
    complained: Mutex<Option<Instant>>,
}

impl<M: StateMachine, D: Disk> Group<M, D> {
    /// Shares a core.
    pub fn new(
        core: Core<M, D>,
        completions: Arc<dyn Completions<M::Outcome>>,
        peers: Arc<dyn Peers<M::View>>,
        options: GroupOptions,
    ) -> Group<M, D> {
        Group {
            status: core.status().clone(),
            core: Mutex::new(core),
            queue: Mutex::default(),
            arrived: Condvar::new(),
            completions,
            peers,
            options,
            drive_nanos: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            fault: Mutex::new(None),
            complained: Mutex::new(None),
        }
    }

    /// What the member is doing.
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Commands that were submitted and have no outcome yet.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Submits commands. Their outcomes come through [`Completions`].
    ///
    /// # Errors
    /// [`Failure`] when nothing of it was taken.
    pub fn submit(&self, submission: Submission) -> Result<(), Failure> {
        if self.status.disk_full() {
            return Err(Failure::DiskFull);
        }
        let commands = {
            let mut queue = self.queue.lock();
            if queue.stopped || self.failed.load(Ordering::Relaxed) {
                return Err(Failure::Stopped);
            }
            let bytes = submission.data.len();
            if queue.bytes > 0 && queue.bytes + bytes > self.options.queue_bytes {
                return Err(Failure::Overloaded);
            }
            self.pending
                .fetch_add(submission.tickets.len(), Ordering::Relaxed);
            queue.bytes += bytes;
            queue.commands += submission.tickets.len();
            queue.waiting.push(submission);
            queue.commands
        };
        self.drive_or_wake(commands <= self.options.inline_commands);
        Ok(())
    }

    /// Drives the core on the caller's thread, if that is quick and nobody else does; else the group's thread does.
    fn drive_or_wake(&self, is_small: bool) {
        let quick =
            self.drive_nanos.load(Ordering::Relaxed) < self.options.inline_sync.as_nanos() as u64;
        if is_small
            && quick
            && let Some(mut core) = self.core.try_lock()
        {
            // One round: what others submit meanwhile is for the group's thread, or it would keep this one from its own work.
            let result = self.drive(&mut core);
            if let Err(error) = result {
                self.fail(&mut core, error);
            }
            drop(core);
            if self.queue.lock().is_empty() {
                return;
            }
        }
        self.arrived.notify_one();
    }

    /// Asks to read the applied state; see [`Core::read`].
    ///
    /// # Errors
    /// [`Failure::Stopped`], and [`Failure::DiskFull`]: the member takes no part any more, so that no round would end.
    pub fn read(&self, tickets: &[Ticket]) -> Result<(), Failure> {
        if self.status.disk_full() {
            return Err(Failure::DiskFull);
        }
        {
            let mut queue = self.queue.lock();
            if queue.stopped || self.failed.load(Ordering::Relaxed) {
                return Err(Failure::Stopped);
            }
            self.pending.fetch_add(tickets.len(), Ordering::Relaxed);
            queue.reads.extend_from_slice(tickets);
        }
        self.drive_or_wake(true);
        Ok(())
    }

    /// Takes another member's messages, in order. May sync the log before it returns.
    pub fn deliver(&self, from: u64, messages: Vec<Bytes>) {
        {
            let mut queue = self.queue.lock();
            for message in messages {
                if queue.task_bytes + message.len() > INCOMING_BYTES_MAX {
                    break;
                }
                queue.task_bytes += message.len();
                queue.tasks.push(Task::Message(from, message));
            }
        }
        if let Some(mut core) = self.core.try_lock() {
            // Whoever carries messages has nothing better to do.
            if let Err(error) = self.drive(&mut core) {
                self.fail(&mut core, error);
            }
            drop(core);
            if self.queue.lock().is_empty() {
                return;
            }
        }
        self.arrived.notify_one();
    }

    /// Whether this member has use for a snapshot; see [`Core::wants`].
    ///
    /// # Errors
    /// As there.
    pub fn wants(&self, from: u64, message: Bytes) -> Result<bool, MessageFault> {
        self.core.lock().wants(from, message)
    }

    /// Takes a snapshot that was received whole, and puts it in place; see [`Core::receive_snapshot`].
    ///
    /// # Errors
    /// As there.
    pub fn deliver_snapshot(
        &self,
        from: u64,
        message: Bytes,
        incoming: M::Incoming,
    ) -> Result<bool, MessageFault> {
        let mut core = self.core.lock();
        let taken = core.receive_snapshot(from, message, incoming);
        if let Err(error) = self.drive(&mut core) {
            self.fail(&mut core, error);
        }
        taken
    }

    /// What became of a snapshot that was sent; see [`Core::snapshot_sent`].
    pub fn snapshot_sent(&self, to: u64, installed: bool) {
        self.task(Task::SnapshotSent(to, installed));
    }

    /// The connection to a member was lost; see [`Core::unreachable`].
    pub fn unreachable(&self, member: u64) {
        self.task(Task::Unreachable(member));
    }

    /// A member's process has ended; see [`Core::gone`].
    pub fn gone(&self, member: u64) {
        self.task(Task::Gone(member));
    }

    /// Proposes a change of members, on the leader; see [`Core::propose_change`].
    ///
    /// # Errors
    /// [`Failure::Stopped`].
    pub fn propose_change(
        &self,
        change: MemberChange,
        data: Vec<u8>,
        ticket: Ticket,
    ) -> Result<(), Failure> {
        self.awaited(Task::Change(change, data, ticket), 1)
    }

    /// Submits commands for this member's log alone, while it leads in `term`; see [`Core::propose_in_term`].
    ///
    /// # Errors
    /// [`Failure::Stopped`].
    pub fn submit_in_term(&self, term: u64, submission: Submission) -> Result<(), Failure> {
        let Submission { data, tickets } = submission;
        let count = tickets.len();
        self.awaited(Task::InTerm(term, data, tickets), count)
    }

    /// Takes a task that somebody waits for.
    fn awaited(&self, task: Task, tickets: usize) -> Result<(), Failure> {
        {
            let mut queue = self.queue.lock();
            if queue.stopped || self.failed.load(Ordering::Relaxed) {
                return Err(Failure::Stopped);
            }
            self.pending.fetch_add(tickets, Ordering::Relaxed);
            queue.tasks.push(task);
        }
        self.arrived.notify_one();
        Ok(())
    }

    fn task(&self, task: Task) {
        self.queue.lock().tasks.push(task);
        self.arrived.notify_one();
    }

    /// Hands leadership over; see [`Core::transfer_leader`].
    ///
    /// # Errors
    /// As there.
    pub fn transfer_leader(&self, to: u64) -> Result<(), Failure> {
        let result = self.core.lock().transfer_leader(to);
        self.arrived.notify_one();
        result
    }

    /// What this member, as the leader, knows of the others.
    pub fn progress(&self) -> Vec<Progress> {
        self.core.lock().progress()
    }

    /// Drives the group until it is stopped. On a thread of its own.
    ///
    /// # Errors
    /// The [`CoreError`] that ended the member, whichever thread met it.
    pub fn run(&self) -> Result<(), CoreError> {
        let mut next_tick = Instant::now() + self.options.tick;
        loop {
            let stopped = {
                let mut queue = self.queue.lock();
                while queue.is_empty() && !queue.stopped && !self.failed.load(Ordering::Relaxed) {
                    if self.arrived.wait_until(&mut queue, next_tick).timed_out() {
                        break;
                    }
                }
                queue.stopped && queue.is_empty()
            };
            let mut core = self.core.lock();
            if let Some(error) = self.fault.lock().take() {
                return Err(error);
            }
            let mut ticks = 0;
            let now = Instant::now();
            let mut done = Vec::new();
            while next_tick <= now && ticks < 16 {
                core.tick(&mut done);
                next_tick += self.options.tick;
                ticks += 1;
            }
            if next_tick <= now {
                // The process was held up for long; ticks that nobody saw are not made up for.
                next_tick = now + self.options.tick;
            }
            self.hand_over(&mut done);
            // One round, so that ticks are made and others get at the core while submissions never cease.
            if let Err(error) = self.drive(&mut core) {
                self.give_up(&mut core);
                return Err(error);
            }
            if stopped {
                let sealed = core.seal_log();
                self.give_up(&mut core);
                return Ok(sealed?);
            }
        }
    }

    /// Takes no more commands; [`Group::run`] ends when what was taken is done.
    pub fn stop(&self) {
        self.queue.lock().stopped = true;
        self.arrived.notify_one();
    }

    /// Works on the state machine between entries.
    pub fn with_machine<R>(&self, work: impl FnOnce(&mut M) -> R) -> R {
        work(self.core.lock().machine())
    }

    /// Forgets the log up to a position that the store has checkpointed.
    ///
    /// # Errors
    /// [`CoreError`]: the process must stop.
    pub fn compact_log(&self, position: holdfast_storage::LogPosition) -> Result<(), CoreError> {
        Ok(self.core.lock().compact_log(position)?)
    }

    /// The log's spare segments, for a thread that keeps them ready.
    pub fn spares(&self) -> Arc<SparePool<D>> {
        self.core.lock().spares()
    }

    fn fail(&self, core: &mut Core<M, D>, error: CoreError) {
        self.give_up(core);
        *self.fault.lock() = Some(error);
        self.arrived.notify_one();
    }

    /// Takes nothing more and fails all that is on its way: nobody waits for an answer that cannot come.
    fn give_up(&self, core: &mut Core<M, D>) {
        let mut done = Vec::new();
        core.fail_in_flight(Failure::Stopped, &mut done);
        let (waiting, reads, tasks) = {
            let mut queue = self.queue.lock();
            // Under the queue's lock: whoever submits sees it, or is in what is taken here.
            self.failed.store(true, Ordering::Relaxed);
            queue.bytes = 0;
            queue.commands = 0;
            queue.task_bytes = 0;
            (
                std::mem::take(&mut queue.waiting),
                std::mem::take(&mut queue.reads),
                std::mem::take(&mut queue.tasks),
            )
        };
        let others = tasks.into_iter().flat_map(|task| match task {
            Task::Change(_, _, ticket) => vec![ticket],
            Task::InTerm(_, _, tickets) => tickets,
            _ => Vec::new(),
        });
        let tickets = waiting
            .into_iter()
            .flat_map(|waiting| waiting.tickets)
            .chain(reads)
            .chain(others);
        done.extend(tickets.map(|ticket| (ticket, Err(Failure::Stopped))));
        self.hand_over(&mut done);
    }

    /// Serves what waits, up to [`ROUND_BYTES`] of commands.
    fn drive(&self, core: &mut Core<M, D>) -> Result<(), CoreError> {
        let mut done = Vec::new();
        let round = self.take_round();
        let begun = Instant::now();
        let took_any = !round.submissions.is_empty() || !round.tasks.is_empty();
        let peers = &self.peers;
        let advance = |core: &mut Core<M, D>, done: &mut Completed<M>| {
            core.advance(&mut Io {
                done,
                send: &mut |outgoing: &mut Vec<Outgoing<M::View>>| peers.send(outgoing),
            })
        };
        for (count, task) in round.tasks.into_iter().enumerate() {
            self.work(core, task, &mut done);
            if count % TASKS_BETWEEN == TASKS_BETWEEN - 1
                && let Err(error) = advance(core, &mut done)
            {
                self.hand_over(&mut done);
                return Err(error);
            }
        }
        if !round.reads.is_empty() {
            core.read(round.reads);
        }
        for entry in pack(round.submissions) {
            core.propose(entry.data, entry.tickets, &mut done);
        }
        let result = advance(core, &mut done);
        // Also after a failure: what was applied before it is durable.
        self.hand_over(&mut done);
        if took_any {
            let nanos = begun.elapsed().as_nanos() as u64;
            let before = self.drive_nanos.load(Ordering::Relaxed);
            self.drive_nanos
                .store(before - before / 8 + nanos / 8, Ordering::Relaxed);
        }
        result
    }

    fn work(&self, core: &mut Core<M, D>, task: Task, done: &mut Completed<M>) {
        let (from, taken) = match task {
            Task::Message(from, message) => (from, core.receive(from, message, done)),
            Task::SnapshotSent(to, installed) => return core.snapshot_sent(to, installed),
            Task::Unreachable(member) => return core.unreachable(member),
            Task::Gone(member) => return core.gone(member),
            Task::Change(change, data, ticket) => {
                return core.propose_change(change, &data, ticket, done);
            }
            Task::InTerm(term, data, tickets) => {
                return core.propose_in_term(term, data, tickets, done);
            }
        };
        if let Err(fault) = taken {
            self.complain(from, &fault);
        }
    }

    /// Says that a message was refused, now and then: there may be many, and the counter has them all.
    fn complain(&self, from: u64, fault: &MessageFault) {
        let mut said = self.complained.lock();
        if said.is_none_or(|at| at.elapsed() > COMPLAINT_INTERVAL) {
            *said = Some(Instant::now());
            tracing::warn!(member = format!("{from:x}"), %fault, "a message of another member was refused");
        }
    }

    fn hand_over(&self, done: &mut Completed<M>) {
        if !done.is_empty() {
            self.pending.fetch_sub(done.len(), Ordering::Relaxed);
            self.completions.complete(done);
        }
    }

    fn take_round(&self) -> Round {
        let mut queue = self.queue.lock();
        queue.task_bytes = 0;
        let reads = std::mem::take(&mut queue.reads);
        let tasks = std::mem::take(&mut queue.tasks);
        let submissions = if queue.bytes <= ROUND_BYTES {
            queue.bytes = 0;
            queue.commands = 0;
            std::mem::take(&mut queue.waiting)
        } else {
            let mut bytes = 0;
            let count = queue
                .waiting
                .iter()
                .take_while(|submission| {
                    let fits = bytes == 0 || bytes + submission.data.len() <= ROUND_BYTES;
                    bytes += submission.data.len();
                    fits
                })
                .count();
            let round: Vec<Submission> = queue.waiting.drain(..count).collect();
            queue.bytes -= round.iter().map(|s| s.data.len()).sum::<usize>();
            queue.commands -= round.iter().map(|s| s.tickets.len()).sum::<usize>();
            round
        };
        Round {
            submissions,
            reads,
            tasks,
        }
    }
}

/// Packs submissions into as few entries as [`ENTRY_BYTES`] allows.
fn pack(round: Vec<Submission>) -> Vec<Submission> {
    let mut entries: Vec<Submission> = Vec::new();
    for submission in round {
        match entries.last_mut() {
            Some(entry) if entry.data.len() + submission.data.len() <= ENTRY_BYTES => {
                entry.data.extend_from_slice(&submission.data);
                entry.tickets.extend_from_slice(&submission.tickets);
            }
            _ => entries.push(submission),
        }
    }
    entries
}
