//! One member on a disk in memory that can lose power, fill up and fail to sync.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod machine;

use bytes::Bytes;
use holdfast_consensus::{Completed, Core, CoreError, Done, Failure, Io, Status, Ticket};
use holdfast_storage::LogPosition;
use holdfast_storage::disk::{Disk, MemDisk};
use holdfast_storage::log::{LogError, LogOptions, RaftLog};
use machine::{Counter, Machine, State, core_options, numbers};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The outcome of a command is the entry that it was applied with, and its number.
type Recorder = Machine<(u64, u32)>;

struct Member {
    core: Core<Recorder, MemDisk>,
    observer: Arc<Counter>,
    done: Completed<Recorder>,
}

const SEGMENT_BYTES: u64 = 16 * 1024;

fn start(disk: &MemDisk, applied: LogPosition) -> Result<Member, CoreError> {
    let options = LogOptions {
        segment_bytes: SEGMENT_BYTES,
        recycle: 0,
        cache_bytes: 4096,
        seed: Some(7),
        ..LogOptions::default()
    };
    let (log, _) = RaftLog::open(disk.clone(), options)?;
    let observer = Arc::new(Counter::default());
    // Empty, whatever it is said to have applied: a test sees what comes behind that.
    let machine = Machine::new(&State::of(&[1]), |at, number| (at.index, number));
    let core = Core::new(
        log,
        machine,
        applied,
        false,
        core_options(),
        observer.clone(),
    )?;
    Ok(Member {
        core,
        observer,
        done: Vec::new(),
    })
}

fn fresh(disk: &MemDisk) -> Member {
    let mut member = start(disk, LogPosition::default()).unwrap();
    member.advance().unwrap();
    member
}

fn ticket(number: u32) -> Ticket {
    Ticket {
        mailbox: 1,
        slot: number,
        turn: 2,
    }
}

impl Member {
    fn propose(&mut self, commands: impl Iterator<Item = u32> + Clone) {
        let data = commands.clone().flat_map(u32::to_le_bytes).collect();
        self.core
            .propose(data, commands.map(ticket).collect(), &mut self.done);
    }

    fn advance(&mut self) -> Result<(), CoreError> {
        self.core.advance(&mut Io {
            done: &mut self.done,
            send: &mut |outgoing| assert!(outgoing.is_empty(), "there is nobody else"),
        })
    }

    fn write(&mut self, commands: impl Iterator<Item = u32> + Clone) {
        self.propose(commands);
        self.advance().unwrap();
    }

    fn status(&self) -> Arc<Status> {
        self.core.status().clone()
    }

    fn applied(&mut self) -> Vec<(LogPosition, Bytes)> {
        self.core.machine().state.lock().entries.clone()
    }

    fn commands(&mut self) -> Vec<u32> {
        self.core.machine().state.lock().numbers()
    }

    fn position(&mut self) -> LogPosition {
        self.core.machine().state.lock().position()
    }

    fn completed(&self) -> Vec<u32> {
        self.done
            .iter()
            .filter_map(|(_, result)| match result {
                Ok(Done::Applied((_, number))) => Some(*number),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn outcomes_reach_their_tickets_in_order() {
    let mut member = fresh(&MemDisk::new());
    assert!(member.status().leads_alone());
    assert_eq!(member.status().leader(), 1);
    member.propose(0..1);
    member.propose(1..4);
    member.propose(4..6);
    assert!(member.done.is_empty(), "nothing is durable yet");
    member.advance().unwrap();

    let mut last = 0;
    for (number, (ticket_of, result)) in (0..).zip(&member.done) {
        let Ok(Done::Applied((index, found))) = *result else {
            panic!("{result:?}");
        };
        assert_eq!((*ticket_of, found), (ticket(number), number));
        assert!(index >= last);
        last = index;
    }
    assert_eq!(member.done.len(), 6);
    assert_eq!(member.commands(), (0..6).collect::<Vec<_>>());
    assert_eq!(member.status().applied(), last);
    assert_eq!(member.status().committed(), last);
    assert_eq!(member.core.machine().led, 1);
}

#[test]
fn entries_proposed_together_share_one_sync() {
    let mut member = fresh(&MemDisk::new());
    let before = member.observer.syncs.load(Ordering::Relaxed);
    for n in 0..50 {
        member.propose(n..n + 1);
    }
    member.advance().unwrap();
    assert_eq!(member.completed().len(), 50);
    assert_eq!(member.observer.syncs.load(Ordering::Relaxed) - before, 1);
    assert_eq!(member.observer.bytes.load(Ordering::Relaxed), 200);
}

#[test]
fn a_restart_replays_exactly_what_the_state_lacks() {
    let disk = MemDisk::new();
    let mut member = fresh(&disk);
    for n in 0..40 {
        member.write(n * 2..n * 2 + 2);
    }
    let log = member.applied();
    drop(member);

    let positions = [LogPosition::default()]
        .into_iter()
        .chain(log.iter().map(|(at, _)| *at));
    for applied in positions {
        // A fork each time: a start appends to the log.
        let mut again = start(&disk.fork(), applied).unwrap();
        again.advance().unwrap();
        let expected: Vec<_> = log
            .iter()
            .filter(|(at, _)| *at > applied)
            .cloned()
            .collect();
        let replayed = again.applied();
        assert_eq!(replayed[..expected.len()], expected[..], "from {applied:?}");
        // Behind them only the empty entry of the new term.
        assert_eq!(replayed.len(), expected.len() + 1);
        assert!(replayed.last().unwrap().1.is_empty());
        assert!(again.done.is_empty(), "replayed commands have no tickets");
        assert!(again.status().leads_alone());
        assert_eq!(again.core.machine().led, 1);
        again.write(1000..1001);
        assert_eq!(again.completed(), [1000]);
    }
}

#[test]
fn a_cut_log_goes_on_from_the_applied_position_and_refuses_an_older_one() {
    let disk = MemDisk::new();
    let mut member = fresh(&disk);
    for n in 0..600 {
        member.write(n * 10..n * 10 + 10);
    }
    let log = member.applied();
    let cut = log[400].0;
    member.core.compact_log(cut).unwrap();
    // A position that is not applied yet is not cut.
    let ahead = LogPosition {
        index: cut.index + 10_000,
        ..cut
    };
    member.core.compact_log(ahead).unwrap();
    member.write(9000..9001);
    drop(member);

    for applied in [cut, log[401].0, log[599].0] {
        let mut again = start(&disk.fork(), applied).unwrap();
        again.advance().unwrap();
        let expected: Vec<u32> = log
            .iter()
            .filter(|(at, _)| *at > applied)
            .flat_map(|(_, data)| numbers(data).collect::<Vec<_>>())
            .chain([9000])
            .collect();
        assert_eq!(again.commands(), expected);
    }
    for applied in [LogPosition::default(), log[0].0, log[399].0] {
        match start(&disk.fork(), applied).map(|_| ()) {
            Err(CoreError::Gap {
                applied: found,
                mark,
            }) => {
                assert_eq!((found, mark), (applied.index, cut.index));
            }
            other => panic!("{other:?} for {applied:?}"),
        }
    }
}

/// A log that was replaced, or that lost its tail with syncs turned off: entries proposed now would take the places of entries
/// that the state holds already, and would never be applied.
#[test]
fn a_state_that_the_log_does_not_reach_is_refused() {
    let disk = MemDisk::new();
    let mut member = fresh(&disk);
    member.write(0..3);
    let last = member.position();
    drop(member);
    let beyond = LogPosition {
        index: last.index + 1,
        ..last
    };
    assert!(matches!(
        start(&disk.fork(), beyond).map(|_| ()),
        Err(CoreError::Ahead { applied, last: end }) if applied == beyond.index && end == last.index
    ));
    let other_term = LogPosition {
        term: last.term + 1,
        ..last
    };
    assert!(matches!(
        start(&disk.fork(), other_term).map(|_| ()),
        Err(CoreError::Diverged { index, .. }) if index == last.index
    ));
    assert!(matches!(
        start(&MemDisk::new(), last).map(|_| ()),
        Err(CoreError::Ahead { .. })
    ));
}

/// A small generator, so that a failing seed can be run again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n.max(1)
    }
}

#[test]
fn a_crash_loses_no_completed_command() {
    for seed in 0..300 {
        crash_run(seed);
    }
}

fn crash_run(seed: u64) {
    let mut dice = Dice(seed);
    let disk = MemDisk::new();
    // The whole history as applied, and which commands were answered.
    let mut history: Vec<(LogPosition, Bytes)> = Vec::new();
    let mut answered: Vec<u32> = Vec::new();
    let mut next = 0u32;
    let mut mark = 0;
    for _ in 0..6 {
        // The store may be behind the log by any number of entries, but not behind the cut.
        let keep_from = history.partition_point(|(at, _)| at.index <= mark);
        let keep = keep_from + dice.below((history.len() - keep_from) as u64 + 1) as usize;
        let applied = history[..keep]
            .last()
            .map_or(LogPosition::default(), |(at, _)| *at);
        let mut member = start(&disk, applied).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        member.advance().unwrap();
        let replayed = member.applied();
        let known = &history[keep..];
        assert_eq!(
            &replayed[..known.len()],
            known,
            "seed {seed}: applied entries changed"
        );

        for _ in 0..dice.below(30) {
            let count = 1 + dice.below(5) as u32;
            let entries = 1 + dice.below(3);
            for _ in 0..entries {
                member.propose(next..next + count);
                next += count;
            }
            match dice.below(40) {
                0 => disk.fail_sync(1),
                1 => disk.fail_write(1, std::io::ErrorKind::Other),
                _ => {}
            }
            if member.advance().is_err() {
                break;
            }
            if dice.below(10) == 0 {
                let all = member.applied();
                let at = all[dice.below(all.len() as u64) as usize].0;
                if member.core.compact_log(at).is_err() {
                    break;
                }
                mark = mark.max(at.index);
            }
        }
        answered.extend(member.completed());
        history.truncate(keep);
        history.extend(member.applied());
        drop(member);
        disk.crash(&mut |n| dice.below(n));
    }
    let applied: Vec<u32> = history
        .iter()
        .flat_map(|(_, data)| numbers(data).collect::<Vec<_>>())
        .collect();
    assert!(
        applied.is_sorted_by(|a, b| a < b),
        "seed {seed}: order or repetition"
    );
    assert!(
        answered.is_sorted_by(|a, b| a < b),
        "seed {seed}: answers out of order"
    );
    for number in answered {
        assert!(
            applied.binary_search(&number).is_ok(),
            "seed {seed}: lost {number}"
        );
    }
}

fn used_bytes(disk: &MemDisk) -> u64 {
    let names = disk.list().unwrap();
    names
        .iter()
        .map(|name| Disk::len(disk, name).unwrap())
        .sum()
}

#[test]
fn a_full_disk_fails_writes_and_a_restart_with_space_goes_on() {
    let disk = MemDisk::new();
    let mut member = fresh(&disk);
    disk.set_capacity(Some(used_bytes(&disk)));
    let mut next = 0;
    while !member.status().disk_full() {
        member.write(next..next + 100);
        next += 100;
        assert!(next < 100_000, "the disk never fills up");
    }
    let failed: Vec<_> = member
        .done
        .iter()
        .filter(|(_, result)| result.is_err())
        .collect();
    assert_eq!(failed.len(), 100, "exactly the entry without space fails");
    assert!(
        failed
            .iter()
            .all(|(_, result)| *result == Err(Failure::DiskFull))
    );
    assert_eq!(member.done.len(), next as usize);
    let completed = member.completed();
    assert_eq!(completed, (0..next - 100).collect::<Vec<_>>());

    member.done.clear();
    member.write(7..8);
    assert_eq!(member.done, [(ticket(7), Err(Failure::DiskFull))]);
    member.core.tick(&mut member.done);
    member.advance().unwrap();
    member.core.seal_log().unwrap();
    drop(member);

    disk.set_capacity(None);
    let mut again = fresh(&disk);
    assert_eq!(again.commands(), completed);
    assert!(!again.status().disk_full());
    again.write(next..next + 1);
    assert_eq!(again.completed(), [next]);
}

#[test]
fn a_failed_sync_ends_the_member_without_an_answer() {
    let disk = MemDisk::new();
    let mut member = fresh(&disk);
    member.write(0..2);
    member.done.clear();
    member.propose(2..4);
    disk.fail_sync(1);
    let error = member.advance().unwrap_err();
    assert!(
        matches!(error, CoreError::Log(LogError::Io { .. })),
        "{error}"
    );
    assert!(member.completed().is_empty());
    assert_eq!(member.commands(), [0, 1]);
    assert!(
        member.core.seal_log().is_err(),
        "the log must not claim to be good"
    );
    drop(member);
    // Nobody knows whether the entry is there; whole it must be.
    let again = fresh(&disk).commands();
    assert!(again == [0, 1] || again == [0, 1, 2, 3], "{again:?}");
}

#[test]
fn an_entry_that_cannot_be_applied_ends_the_member() {
    let mut member = fresh(&MemDisk::new());
    member
        .core
        .propose(vec![1, 2, 3], vec![ticket(0)], &mut member.done);
    let error = member.advance().unwrap_err();
    assert!(matches!(error, CoreError::Apply { .. }), "{error}");

    let mut member = fresh(&MemDisk::new());
    member
        .core
        .propose(vec![0; 8], vec![ticket(0)], &mut member.done);
    let error = member.advance().unwrap_err();
    assert!(
        matches!(error, CoreError::Apply { .. }),
        "two outcomes, one ticket: {error}"
    );
}

#[test]
fn more_than_may_wait_uncommitted_is_refused_at_once() {
    let mut member = fresh(&MemDisk::new());
    let mut refused = 0;
    for n in 0..40 {
        let tickets = vec![ticket(n)];
        let data = vec![0; 4 << 20];
        member.core.propose(data, tickets, &mut member.done);
        refused = member.done.len();
    }
    assert!(refused > 0, "160 MiB were taken");
    assert!(
        member
            .done
            .iter()
            .all(|(_, result)| *result == Err(Failure::Overloaded))
    );
}
