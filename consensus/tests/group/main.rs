//! A group shared between threads that submit and a thread that drives.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod faults;
#[path = "../machine/mod.rs"]
mod machine;

use holdfast_consensus::{
    Completions, Core, CoreError, Done, Failure, Group, GroupOptions, Io, Outgoing, Peers,
    Submission, Ticket,
};
use holdfast_storage::LogPosition;
use holdfast_storage::disk::MemDisk;
use holdfast_storage::log::{LogOptions, RaftLog};
use machine::{Counter, Machine, State, core_options};
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);

/// The outcome of a command is its number and the thread that applied it.
type Echo = Machine<(u32, ThreadId)>;

/// A group of one has nobody to send to.
struct Nobody;

impl Peers<State> for Nobody {
    fn send(&self, outgoing: &mut Vec<Outgoing<State>>) {
        assert!(outgoing.is_empty());
    }
}

type Outcome = Result<(u32, ThreadId), Failure>;

fn plain(done: Result<Done<(u32, ThreadId)>, Failure>) -> Outcome {
    done.map(|done| match done {
        Done::Applied(outcome) => outcome,
        Done::Readable => panic!("nobody reads"),
    })
}

#[derive(Default)]
struct Collector {
    done: Mutex<Vec<(Ticket, Outcome)>>,
    more: Condvar,
}

impl Completions<(u32, ThreadId)> for Collector {
    fn complete(&self, done: &mut Vec<(Ticket, Result<Done<(u32, ThreadId)>, Failure>)>) {
        let done = done.drain(..).map(|(ticket, done)| (ticket, plain(done)));
        self.done.lock().extend(done);
        self.more.notify_all();
    }
}

impl Collector {
    /// Waits for `count` outcomes and a moment of silence is not needed: more than that fails the callers' checks.
    fn wait_for(&self, count: usize) -> Vec<(Ticket, Outcome)> {
        let deadline = Instant::now() + DEADLINE;
        let mut done = self.done.lock();
        while done.len() < count {
            assert!(
                !self.more.wait_until(&mut done, deadline).timed_out(),
                "{} of {count} tickets were completed",
                done.len()
            );
        }
        done.clone()
    }
}

type TestGroup = Group<Echo, MemDisk>;

fn options() -> GroupOptions {
    GroupOptions {
        tick: Duration::from_millis(5),
        queue_bytes: 1 << 20,
        inline_commands: 16,
        inline_sync: DEADLINE,
    }
}

fn group(
    disk: &MemDisk,
    completions: Arc<dyn Completions<(u32, ThreadId)>>,
    options: GroupOptions,
) -> Arc<TestGroup> {
    let log_options = LogOptions {
        segment_bytes: 1 << 20,
        recycle: 0,
        seed: Some(3),
        ..LogOptions::default()
    };
    let (log, _) = RaftLog::open(disk.clone(), log_options).unwrap();
    let machine = Machine::new(&State::of(&[1]), |_, number| {
        (number, thread::current().id())
    });
    let core = Core::new(
        log,
        machine,
        LogPosition::default(),
        false,
        core_options(),
        Arc::new(Counter::default()),
    )
    .unwrap();
    Arc::new(Group::new(core, completions, Arc::new(Nobody), options))
}

fn spawn(group: &Arc<TestGroup>) -> thread::JoinHandle<Result<(), CoreError>> {
    let group = group.clone();
    thread::spawn(move || group.run())
}

fn submission(mailbox: u32, commands: std::ops::Range<u32>) -> Submission {
    Submission {
        data: commands.clone().flat_map(u32::to_le_bytes).collect(),
        tickets: commands
            .map(|slot| Ticket {
                mailbox,
                slot,
                turn: mailbox ^ slot,
            })
            .collect(),
    }
}

/// Each ticket once, with the outcome of its command.
fn check_outcomes(done: &[(Ticket, Outcome)], expected: usize) {
    let mut seen: HashMap<Ticket, usize> = HashMap::new();
    for (ticket, outcome) in done {
        *seen.entry(*ticket).or_default() += 1;
        if let Ok((number, _)) = outcome {
            assert_eq!(*number, ticket.slot);
        }
    }
    assert!(
        seen.values().all(|count| *count == 1),
        "a ticket was completed twice"
    );
    assert_eq!(seen.len(), expected);
}

#[test]
fn every_ticket_of_many_threads_is_completed_once() {
    for inline_commands in [0, 2, 16] {
        let collector = Arc::new(Collector::default());
        let options = GroupOptions {
            inline_commands,
            ..options()
        };
        let group = group(&MemDisk::new(), collector.clone(), options);
        let runner = spawn(&group);
        let total: u32 = thread::scope(|scope| {
            let submitters: Vec<_> = (0..4)
                .map(|mailbox| {
                    let group = &group;
                    scope.spawn(move || {
                        let mut next = 0;
                        for round in 0..400 {
                            let count = 1 + (round * 7 + mailbox) % 3;
                            group
                                .submit(submission(mailbox, next..next + count))
                                .unwrap();
                            next += count;
                        }
                        next
                    })
                })
                .collect();
            submitters
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        let done = collector.wait_for(total as usize);
        check_outcomes(&done, total as usize);
        assert!(done.iter().all(|(_, outcome)| outcome.is_ok()));
        // What one thread submitted is applied in its order.
        for mailbox in 0..4 {
            let slots = done
                .iter()
                .filter(|(t, _)| t.mailbox == mailbox)
                .map(|(t, _)| t.slot);
            assert!(slots.is_sorted());
        }
        assert_eq!(group.pending(), 0);
        group.stop();
        runner.join().unwrap().unwrap();
    }
}

#[test]
fn a_stop_leaves_no_ticket_open() {
    for _ in 0..20 {
        let collector = Arc::new(Collector::default());
        let group = group(&MemDisk::new(), collector.clone(), options());
        let runner = spawn(&group);
        let accepted: u32 = thread::scope(|scope| {
            let submitters: Vec<_> = (0..3)
                .map(|mailbox| {
                    let group = &group;
                    scope.spawn(move || {
                        for next in 0.. {
                            while group.pending() > 1000 {
                                thread::yield_now();
                            }
                            match group.submit(submission(mailbox, next..next + 1)) {
                                Ok(()) => {}
                                // Nothing is taken any more; the ones before are counted.
                                Err(Failure::Stopped) => return next,
                                Err(failure) => panic!("{failure}"),
                            }
                        }
                        unreachable!("the group never stopped")
                    })
                })
                .collect();
            collector.wait_for(50);
            group.stop();
            submitters
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        runner.join().unwrap().unwrap();
        check_outcomes(&collector.done.lock(), accepted as usize);
        assert_eq!(group.pending(), 0);
        assert_eq!(group.submit(submission(9, 0..1)), Err(Failure::Stopped));
    }
}

#[test]
fn what_was_completed_is_there_after_a_restart() {
    let disk = MemDisk::new();
    let collector = Arc::new(Collector::default());
    let first = group(&disk, collector.clone(), options());
    let runner = spawn(&first);
    for n in 0..100 {
        first.submit(submission(0, n..n + 1)).unwrap();
    }
    first.stop();
    runner.join().unwrap().unwrap();
    check_outcomes(&collector.done.lock(), 100);
    drop(first);
    let state = State::of(&[1]);
    let (log, recovered) = RaftLog::open(
        disk,
        LogOptions {
            segment_bytes: 1 << 20,
            ..LogOptions::default()
        },
    )
    .unwrap();
    assert_eq!(recovered.tail_cut, None);
    let mut core = Core::new(
        log,
        Machine::new(&state, |_, _| ()),
        LogPosition::default(),
        false,
        core_options(),
        Arc::new(Counter::default()),
    )
    .unwrap();
    core.advance(&mut Io {
        done: &mut Vec::new(),
        send: &mut |outgoing| assert!(outgoing.is_empty()),
    })
    .unwrap();
    assert_eq!(state.lock().numbers(), (0..100).collect::<Vec<_>>());
}

/// Holds the core, as a thread does that works on the machine, until it is released.
fn hold(group: &Arc<TestGroup>) -> (mpsc::Sender<()>, thread::JoinHandle<()>) {
    let (release, released) = mpsc::channel::<()>();
    let (held, is_held) = mpsc::channel();
    let group = group.clone();
    let holder = thread::spawn(move || {
        group.with_machine(|_| {
            held.send(()).unwrap();
            let _ = released.recv_timeout(DEADLINE);
        });
    });
    is_held.recv_timeout(DEADLINE).unwrap();
    (release, holder)
}

#[test]
fn the_queue_is_bounded_and_what_was_taken_is_still_served() {
    let collector = Arc::new(Collector::default());
    let options = GroupOptions {
        queue_bytes: 40,
        ..options()
    };
    let group = group(&MemDisk::new(), collector.clone(), options);
    let runner = spawn(&group);
    // Let the first entry of the term pass, so that the runner has nothing in hand.
    group.submit(submission(0, 0..1)).unwrap();
    collector.wait_for(1);
    let (release, holder) = hold(&group);
    let taken = (1..100u32)
        .take_while(|n| match group.submit(submission(0, *n..*n + 1)) {
            Ok(()) => true,
            Err(failure) => {
                assert_eq!(failure, Failure::Overloaded);
                false
            }
        })
        .count();
    assert_eq!(taken, 10, "forty bytes are ten commands");
    assert_eq!(group.pending(), 10);
    release.send(()).unwrap();
    holder.join().unwrap();
    check_outcomes(&collector.wait_for(11), 11);
    // One submission that is larger than the bound alone is taken when nothing waits.
    group.submit(submission(1, 0..100)).unwrap();
    check_outcomes(&collector.wait_for(111), 111);
    group.stop();
    runner.join().unwrap().unwrap();
}

#[test]
fn a_lone_submitter_drives_the_core_itself() {
    let collector = Arc::new(Collector::default());
    let group = group(&MemDisk::new(), collector.clone(), options());
    // No thread runs the group: whatever is completed was completed here, before `submit` returned.
    for n in 0..20 {
        group.submit(submission(0, n..n + 1)).unwrap();
        let done = collector.done.lock();
        assert_eq!(done.len(), n as usize + 1);
        assert_eq!(done[n as usize].1, Ok((n, thread::current().id())));
    }
    // More commands than a submitter may drive wait for the group's thread.
    group.submit(submission(1, 0..17)).unwrap();
    assert_eq!(collector.done.lock().len(), 20);
    let runner = spawn(&group);
    let done = collector.wait_for(37);
    assert!(
        done[20..]
            .iter()
            .all(|(_, outcome)| outcome.unwrap().1 == runner.thread().id())
    );
    group.stop();
    runner.join().unwrap().unwrap();
}

#[test]
fn a_slow_disk_turns_the_inline_path_off() {
    let collector = Arc::new(Collector::default());
    let options = GroupOptions {
        inline_sync: Duration::ZERO,
        ..options()
    };
    let group = group(&MemDisk::new(), collector.clone(), options);
    group.submit(submission(0, 0..1)).unwrap();
    assert!(collector.done.lock().is_empty());
    let runner = spawn(&group);
    assert_eq!(collector.wait_for(1)[0].1, Ok((0, runner.thread().id())));
    group.stop();
    runner.join().unwrap().unwrap();
}

/// Submits one more command for each that is completed, as clients on other threads do.
struct Refill {
    group: OnceLock<Arc<TestGroup>>,
    submitter: ThreadId,
    /// Outcomes that the submitting thread produced.
    by_submitter: AtomicUsize,
    by_others: AtomicUsize,
    enough: AtomicBool,
}

impl Completions<(u32, ThreadId)> for Refill {
    fn complete(&self, done: &mut Vec<(Ticket, Result<Done<(u32, ThreadId)>, Failure>)>) {
        for (_, outcome) in done.drain(..) {
            let (number, thread) = plain(outcome).unwrap();
            let count = if thread == self.submitter {
                &self.by_submitter
            } else {
                &self.by_others
            };
            count.fetch_add(1, Ordering::Relaxed);
            if self.by_submitter.load(Ordering::Relaxed) < 1000
                && !self.enough.load(Ordering::Relaxed)
            {
                let group = self.group.get().unwrap();
                // Refused once the test is over.
                let _ = group.submit(submission(0, number + 1..number + 2));
            }
        }
    }
}

/// A submitting thread serves connections of its own: it must not be held by what others submit meanwhile.
#[test]
fn a_submitter_is_not_kept_busy_with_the_commands_of_others() {
    let refill = Arc::new(Refill {
        group: OnceLock::new(),
        submitter: thread::current().id(),
        by_submitter: AtomicUsize::new(0),
        by_others: AtomicUsize::new(0),
        enough: AtomicBool::new(false),
    });
    let group = group(&MemDisk::new(), refill.clone(), options());
    let _ = refill.group.set(group.clone());
    group.submit(submission(0, 0..1)).unwrap();
    assert_eq!(refill.by_submitter.load(Ordering::Relaxed), 1);
    let runner = spawn(&group);
    let deadline = Instant::now() + DEADLINE;
    while refill.by_others.load(Ordering::Relaxed) < 100 {
        assert!(
            Instant::now() < deadline,
            "the group's thread did not take over"
        );
        thread::yield_now();
    }
    refill.enough.store(true, Ordering::Relaxed);
    group.stop();
    runner.join().unwrap().unwrap();
}

/// Others get at the core while submissions never cease.
#[test]
fn the_machine_is_reachable_under_constant_load() {
    let refill = Arc::new(Refill {
        group: OnceLock::new(),
        submitter: thread::current().id(),
        by_submitter: AtomicUsize::new(0),
        by_others: AtomicUsize::new(0),
        enough: AtomicBool::new(false),
    });
    let group = group(
        &MemDisk::new(),
        refill.clone(),
        GroupOptions {
            inline_commands: 0,
            ..options()
        },
    );
    let _ = refill.group.set(group.clone());
    let runner = spawn(&group);
    group.submit(submission(0, 0..1)).unwrap();
    let deadline = Instant::now() + DEADLINE;
    while refill.by_others.load(Ordering::Relaxed) < 100 {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
    let (reached, is_reached) = mpsc::channel();
    let visitor = {
        let group = group.clone();
        thread::spawn(move || {
            group.with_machine(|_| ());
            reached.send(()).unwrap();
        })
    };
    is_reached
        .recv_timeout(Duration::from_secs(5))
        .expect("the core is never free under load");
    refill.enough.store(true, Ordering::Relaxed);
    group.stop();
    visitor.join().unwrap();
    runner.join().unwrap().unwrap();
}
