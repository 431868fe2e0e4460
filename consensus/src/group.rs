//! A raft group shared between threads: grouped submission, grouped completion, group commit without timers.
//!
//! Whoever submits puts commands into a queue. The group's thread drains it into as few entries as possible, which one sync makes
//! durable; what arrives meanwhile is the next batch. When little is waiting and nobody drives the core, the submitting thread drives
//! it itself: a lone client then waits for no other thread.

use crate::core::{Core, CoreError, Failure, StateMachine, Status};
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

/// Takes the outcomes of commands, many at a time.
pub trait Completions<O>: Send + Sync + 'static {
    /// Takes all of `done`, leaving it empty.
    fn complete(&self, done: &mut Vec<(Ticket, Result<O, Failure>)>);
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

#[derive(Default)]
struct Queue {
    waiting: Vec<Submission>,
    bytes: usize,
    commands: usize,
    stopped: bool,
}

/// See the module's text.
pub struct Group<M: StateMachine, D: Disk> {
    core: Mutex<Core<M, D>>,
    queue: Mutex<Queue>,
    arrived: Condvar,
    status: Arc<Status>,
    completions: Arc<dyn Completions<M::Outcome>>,
    options: GroupOptions,
    /// Smoothed duration of driving the core once, nanoseconds.
    drive_nanos: AtomicU64,
    pending: AtomicUsize,
    failed: AtomicBool,
    fault: Mutex<Option<CoreError>>,
}

impl<M: StateMachine, D: Disk> Group<M, D> {
    /// Shares a core.
    pub fn new(
        core: Core<M, D>,
        completions: Arc<dyn Completions<M::Outcome>>,
        options: GroupOptions,
    ) -> Group<M, D> {
        Group {
            status: core.status().clone(),
            core: Mutex::new(core),
            queue: Mutex::default(),
            arrived: Condvar::new(),
            completions,
            options,
            drive_nanos: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            fault: Mutex::new(None),
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
        let quick =
            self.drive_nanos.load(Ordering::Relaxed) < self.options.inline_sync.as_nanos() as u64;
        if commands <= self.options.inline_commands
            && quick
            && let Some(mut core) = self.core.try_lock()
        {
            // One round: what others submit meanwhile is for the group's thread, or it would keep this one from its own work.
            let result = self.drive(&mut core);
            if let Err(error) = result {
                self.fail(&mut core, error);
            }
            drop(core);
            if self.queue.lock().waiting.is_empty() {
                return Ok(());
            }
        }
        self.arrived.notify_one();
        Ok(())
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
                while queue.waiting.is_empty()
                    && !queue.stopped
                    && !self.failed.load(Ordering::Relaxed)
                {
                    if self.arrived.wait_until(&mut queue, next_tick).timed_out() {
                        break;
                    }
                }
                queue.stopped && queue.waiting.is_empty()
            };
            let mut core = self.core.lock();
            if let Some(error) = self.fault.lock().take() {
                return Err(error);
            }
            let mut ticks = 0;
            let now = Instant::now();
            while next_tick <= now && ticks < 16 {
                core.tick();
                next_tick += self.options.tick;
                ticks += 1;
            }
            if next_tick <= now {
                // The process was held up for long; ticks that nobody saw are not made up for.
                next_tick = now + self.options.tick;
            }
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
        let waiting = {
            let mut queue = self.queue.lock();
            // Under the queue's lock: whoever submits sees it, or is in what is taken here.
            self.failed.store(true, Ordering::Relaxed);
            queue.bytes = 0;
            queue.commands = 0;
            std::mem::take(&mut queue.waiting)
        };
        let tickets = waiting.into_iter().flat_map(|waiting| waiting.tickets);
        done.extend(tickets.map(|ticket| (ticket, Err(Failure::Stopped))));
        self.hand_over(&mut done);
    }

    /// Serves what waits, up to [`ROUND_BYTES`] of it.
    fn drive(&self, core: &mut Core<M, D>) -> Result<(), CoreError> {
        let mut done = Vec::new();
        let round = self.take_round();
        let begun = Instant::now();
        let took_any = !round.is_empty();
        for entry in pack(round) {
            core.propose(entry.data, entry.tickets, &mut done);
        }
        let result = core.advance(&mut done);
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

    fn hand_over(&self, done: &mut Vec<(Ticket, Result<M::Outcome, Failure>)>) {
        if !done.is_empty() {
            self.pending.fetch_sub(done.len(), Ordering::Relaxed);
            self.completions.complete(done);
        }
    }

    fn take_round(&self) -> Vec<Submission> {
        let mut queue = self.queue.lock();
        if queue.bytes <= ROUND_BYTES {
            queue.bytes = 0;
            queue.commands = 0;
            return std::mem::take(&mut queue.waiting);
        }
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
