//! Threads that hash: few, of low priority, within a memory budget, behind a short queue in which sources take turns.

use super::LoginError;
use super::backoff::Source;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Niceness of the threads. Beside requests that want the whole processor a thread gets about a tenth of a core (the kernel's weights: 110
/// against 1,024): logins go on, and the requests hardly notice.
const NICENESS: i32 = 10;

/// One piece of hashing, and whoever waits for it.
pub(super) trait Work: Send {
    /// Whose turn it uses.
    fn turn(&self) -> Turn;
    /// Memory that it takes while it runs.
    fn memory_bytes(&self) -> u64;
    /// Whether anybody still waits for it.
    fn is_wanted(&self) -> bool;
    /// Asks whether it may run now. After [`Begin::Now`] it is run.
    fn begin(&mut self, now: Instant) -> Begin;
    /// Does it and answers. `waited` is its time in the queue.
    fn run(self: Box<Self>, waited: Duration);
    /// Answers without doing it.
    fn refuse(self: Box<Self>, why: LoginError);
}

/// Whose turn a piece of work uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) source: Source,
    /// It is for somebody who was let in before. Such work has a queue of its own that every other piece is taken from, so that a flood
    /// from more sources than a queue is long shuts out only those whom nobody knows yet.
    pub(super) trusted: bool,
}

/// What becomes of a piece of work whose turn it is.
pub(super) enum Begin {
    Now,
    /// Something that runs must end first.
    Later,
    Refused(LoginError),
}

/// What a pool may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolLimits {
    pub(super) threads: usize,
    /// Of all that runs. A piece that needs more than this by itself runs alone.
    pub(super) memory_bytes: u64,
    /// Pieces that wait, trusted ones and others each.
    pub(super) queue: usize,
    /// A piece that has waited so long is refused.
    pub(super) patience: Duration,
    /// Of a core, how much each thread may take in the long run. Niceness alone is not enough: hashing wants the memory and, of a
    /// processor with two threads, the other half, also while no request wants the core itself.
    pub(super) share: f64,
}

/// Processor time that a thread may use at once after a rest: some twenty logins.
const BURST: Duration = Duration::from_millis(250);

/// Processor time that a thread may use, and rests for.
pub(super) struct Allowance {
    share: f64,
    /// Seconds; below zero it rests.
    left: f64,
    at: Instant,
}

impl Allowance {
    pub(super) fn new(share: f64, now: Instant) -> Allowance {
        Allowance {
            share,
            left: BURST.as_secs_f64(),
            at: now,
        }
    }

    /// Takes what a piece used, and says until when to rest.
    pub(super) fn spend(&mut self, used: Duration, now: Instant) -> Instant {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.share;
        self.left = (self.left + gained).min(BURST.as_secs_f64()) - used.as_secs_f64();
        self.at = now;
        // A share of next to nothing must not become a rest without end.
        let rest = (-self.left / self.share.max(0.01)).clamp(0.0, 60.0);
        now + Duration::from_secs_f64(rest)
    }
}

/// What this thread has used of the processor.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// What a pool uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolUse {
    pub(super) waiting: usize,
    pub(super) running: usize,
    pub(super) memory_bytes: u64,
}

/// The threads. They end when the pool is stopped or dropped, after what they are at.
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    limits: PoolLimits,
    state: Mutex<State>,
    /// Something came, ended, or the pool stops.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Work that is not trusted, and work that is.
    classes: [Class; 2],
    /// The class whose turn it is.
    class: usize,
    running: usize,
    running_memory_bytes: u64,
    stopped: bool,
}

#[derive(Default)]
struct Class {
    /// Sources with waiting work; the first one is next.
    lanes: VecDeque<Lane>,
    /// Pieces in all of them.
    waiting: usize,
}

/// What waits for one source, the oldest first. Never empty between two calls.
struct Lane {
    source: Source,
    work: VecDeque<Waiting>,
}

struct Waiting {
    work: Box<dyn Work>,
    since: Instant,
}

enum Next {
    Piece(Waiting),
    Nothing,
    NoMemory,
}

/// Work to be answered when the lock is released.
type Refused = Vec<(Box<dyn Work>, LoginError)>;

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(limits: PoolLimits) -> io::Result<Pool> {
        let pool = Pool {
            shared: Arc::new(Shared {
                limits,
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
        };
        for number in 0..limits.threads {
            let shared = pool.shared.clone();
            std::thread::Builder::new()
                .name(format!("hf-login-{number}"))
                .spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Queues work, or refuses it at once. A full queue takes from the source with the most in it for one that has less: a source that
    /// floods pushes out only its own.
    pub(super) fn submit(&self, work: Box<dyn Work>) {
        let mut refused = Refused::new();
        {
            let mut state = self.shared.state.lock();
            if state.stopped {
                refused.push((work, LoginError::Stopping));
            } else {
                let waiting = Waiting {
                    work,
                    since: Instant::now(),
                };
                state.queue(waiting, &self.shared.limits, &mut refused);
            }
        }
        self.shared.changed.notify_one();
        answer(refused);
    }

    /// What is in use.
    pub(super) fn usage(&self) -> PoolUse {
        let state = self.shared.state.lock();
        PoolUse {
            waiting: state.classes.iter().map(|class| class.waiting).sum(),
            running: state.running,
            memory_bytes: state.running_memory_bytes,
        }
    }

    /// Refuses what waits and what comes. What runs is finished.
    pub(super) fn stop(&self) {
        let mut refused = Refused::new();
        {
            let mut state = self.shared.state.lock();
            state.stopped = true;
            let classes = std::mem::take(&mut state.classes);
            for lane in classes.into_iter().flat_map(|class| class.lanes) {
                let all = lane.work.into_iter();
                refused.extend(all.map(|waiting| (waiting.work, LoginError::Stopping)));
            }
        }
        self.shared.changed.notify_all();
        answer(refused);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}

fn answer(refused: Refused) {
    for (work, why) in refused {
        work.refuse(why);
    }
}

impl Shared {
    /// A thread's life.
    fn work(&self) {
        // On Linux niceness is a thread's own.
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            tracing::debug!(%error, "cannot lower a thread's priority");
        }
        let mut allowance = Allowance::new(self.limits.share, Instant::now());
        let mut rest_until = Instant::now();
        loop {
            let mut refused = Refused::new();
            let next = {
                let mut state = self.state.lock();
                loop {
                    if state.stopped {
                        return;
                    }
                    if Instant::now() < rest_until {
                        self.changed.wait_until(&mut state, rest_until);
                        continue;
                    }
                    let next = state.next(Instant::now(), &self.limits, &mut refused);
                    if next.is_some() || !refused.is_empty() {
                        break next;
                    }
                    self.changed.wait(&mut state);
                }
            };
            answer(refused);
            if let Some(Waiting { work, since }) = next {
                let memory_bytes = work.memory_bytes();
                let begun = thread_time();
                work.run(since.elapsed());
                let used = thread_time().saturating_sub(begun);
                rest_until = allowance.spend(used, Instant::now());
                let mut state = self.state.lock();
                state.running -= 1;
                state.running_memory_bytes -= memory_bytes;
                drop(state);
                self.changed.notify_all();
            }
        }
    }
}

impl State {
    fn queue(&mut self, waiting: Waiting, limits: &PoolLimits, refused: &mut Refused) {
        let now = waiting.since;
        let class = &mut self.classes[usize::from(waiting.work.turn().trusted)];
        if class.waiting >= limits.queue {
            class.sweep(now, limits, refused);
        }
        class.queue(waiting, limits, refused);
    }

    /// Takes the next piece that may run, and counts it as running. The classes take turns, and in each the sources.
    fn next(
        &mut self,
        now: Instant,
        limits: &PoolLimits,
        refused: &mut Refused,
    ) -> Option<Waiting> {
        for class in &mut self.classes {
            class.sweep(now, limits, refused);
        }
        let in_use = self.running_memory_bytes;
        for class in [self.class, 1 - self.class] {
            match self.classes[class].next(now, in_use, limits, refused) {
                Next::Piece(waiting) => {
                    self.class = 1 - class;
                    self.running += 1;
                    self.running_memory_bytes += waiting.work.memory_bytes();
                    return Some(waiting);
                }
                Next::Nothing => {}
                // Nobody overtakes it, or small pieces could keep a large one waiting for ever.
                Next::NoMemory => return None,
            }
        }
        None
    }
}

impl Class {
    fn queue(&mut self, waiting: Waiting, limits: &PoolLimits, refused: &mut Refused) {
        let source = waiting.work.turn().source;
        if self.waiting >= limits.queue && !self.push_out(source, refused) {
            refused.push((waiting.work, LoginError::Busy));
            return;
        }
        self.waiting += 1;
        match self.lanes.iter_mut().find(|lane| lane.source == source) {
            Some(lane) => lane.work.push_back(waiting),
            None => self.lanes.push_back(Lane {
                source,
                work: VecDeque::from([waiting]),
            }),
        }
    }

    /// Refuses the newest of the source with the most, if `source` has fewer even with one more.
    fn push_out(&mut self, source: Source, refused: &mut Refused) -> bool {
        let own = self.lanes.iter().find(|lane| lane.source == source);
        let own = own.map_or(0, |lane| lane.work.len());
        let longest = self.lanes.iter_mut().max_by_key(|lane| lane.work.len());
        let Some(longest) = longest.filter(|lane| lane.work.len() > own + 1) else {
            return false;
        };
        if let Some(newest) = longest.work.pop_back() {
            self.waiting -= 1;
            refused.push((newest.work, LoginError::Busy));
        }
        true
    }

    /// Removes what nobody waits for any more, and what has waited too long.
    fn sweep(&mut self, now: Instant, limits: &PoolLimits, refused: &mut Refused) {
        for lane in &mut self.lanes {
            let mut at = 0;
            while let Some(waiting) = lane.work.get(at) {
                let late = now.saturating_duration_since(waiting.since) >= limits.patience;
                if !late && waiting.work.is_wanted() {
                    at += 1;
                } else if let Some(waiting) = lane.work.remove(at) {
                    self.waiting -= 1;
                    refused.push((waiting.work, LoginError::Busy));
                }
            }
        }
        self.lanes.retain(|lane| !lane.work.is_empty());
    }

    /// Takes the next piece that may run beside what uses `in_use` bytes.
    fn next(
        &mut self,
        now: Instant,
        in_use: u64,
        limits: &PoolLimits,
        refused: &mut Refused,
    ) -> Next {
        let mut next = Next::Nothing;
        let mut served = None;
        'lanes: for (place, lane) in self.lanes.iter_mut().enumerate() {
            let mut at = 0;
            while let Some(waiting) = lane.work.get_mut(at) {
                let sum = in_use.saturating_add(waiting.work.memory_bytes());
                if in_use > 0 && sum > limits.memory_bytes {
                    next = Next::NoMemory;
                    break 'lanes;
                }
                let begin = waiting.work.begin(now);
                if matches!(begin, Begin::Later) {
                    at += 1;
                    continue;
                }
                let Some(waiting) = lane.work.remove(at) else {
                    break;
                };
                self.waiting -= 1;
                if let Begin::Refused(why) = begin {
                    refused.push((waiting.work, why));
                } else {
                    next = Next::Piece(waiting);
                    served = Some(place);
                    break 'lanes;
                }
            }
        }
        if let Some(place) = served {
            // Behind all others.
            let lane = self.lanes.remove(place);
            self.lanes.extend(lane);
        }
        self.lanes.retain(|lane| !lane.work.is_empty());
        next
    }
}
