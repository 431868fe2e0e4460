//! Random programs with crashes, kills and failing disks in between: what was synced is there, what was not is there up to
//! some append, and never anything else.

use crate::view::{Chance, View, at, batch, blank_entry, entry, hard_state, open};
use bytes::Bytes;
use holdfast_storage::disk::MemDisk;
use holdfast_storage::log::{Entry, LogBatch, LogError, RaftLog};
use proptest::prelude::*;
use std::io::ErrorKind;

#[derive(Clone, Debug)]
enum Step {
    /// Append `count` entries, the first of them `back` before the end.
    Append {
        back: u64,
        count: u64,
        bytes: usize,
        /// All data is zeros, as is what the disk has where nothing was written.
        blank: bool,
        with_hard_state: bool,
    },
    Sync,
    /// Compact to this share of the entries, in 256ths.
    Compact(u64),
    /// Install a snapshot so far ahead of the end.
    Snapshot(u64),
    /// Install a snapshot that ends so far behind the mark, among entries that it has nothing to do with.
    SnapshotInside(u64),
    /// Let the spare pool work.
    Spares,
    /// The process dies, the machine does not.
    Kill,
    /// The power fails; the number decides what survives.
    Crash(u64),
    /// The nth sync from now fails, and the process dies of it.
    FailSync(u64),
    /// The nth write from now fails half-way.
    FailWrite(u64, bool),
    /// The disk takes so many bytes more than nothing, or has space again.
    Capacity(Option<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    let append = (
        0..4_u64,
        0..5_u64,
        prop_oneof![9 => 0..700_usize, 1 => 3000..6000_usize],
        prop::bool::weighted(0.3),
        any::<bool>(),
    );
    prop_oneof![
        30 => append.prop_map(|(back, count, bytes, blank, with_hard_state)| {
            Step::Append { back: back.saturating_sub(1), count, bytes, blank, with_hard_state }
        }),
        10 => Just(Step::Sync),
        4 => (0..256_u64).prop_map(Step::Compact),
        2 => (0..50_u64).prop_map(Step::Snapshot),
        2 => (1..50_u64).prop_map(Step::SnapshotInside),
        3 => Just(Step::Spares),
        3 => Just(Step::Kill),
        6 => any::<u64>().prop_map(Step::Crash),
        3 => (1..4_u64).prop_map(Step::FailSync),
        3 => (1..5_u64, any::<bool>()).prop_map(|(nth, full)| Step::FailWrite(nth, full)),
        3 => proptest::option::of(4096..30_000_u64).prop_map(Step::Capacity),
    ]
}

/// A log and all that it may say after a crash: the state at the last sync, and that after each append since.
struct Run {
    disk: MemDisk,
    log: RaftLog<MemDisk>,
    allowed: Vec<View>,
    term: u64,
}

impl Run {
    fn new() -> Run {
        let disk = MemDisk::new();
        let (log, _) = open(&disk).expect("open");
        Run {
            disk,
            log,
            allowed: vec![View::default()],
            term: 1,
        }
    }

    fn now(&self) -> View {
        self.allowed.last().cloned().expect("never empty")
    }

    /// The process dies with nothing in flight, and starts again on the running machine.
    fn kill(&mut self) {
        let now = self.now();
        self.reopen(None);
        assert_eq!(self.now(), now, "without a power cut nothing is lost");
    }

    /// The process stops over a failed operation; every other time the power fails too.
    fn stop(&mut self) {
        let seed = self.disk.writes();
        self.reopen(seed.is_multiple_of(2).then_some(seed));
    }

    /// Opens the log again, after a power cut if `crash` says so, and checks what it says.
    fn reopen(&mut self, crash: Option<u64>) {
        self.disk.set_capacity(None);
        if let Some(seed) = crash {
            let mut chance = Chance(seed);
            self.disk.crash(&mut |bound| chance.below(bound));
        }
        // A fault may be waiting still and hit the recovery; then that dies too.
        let (log, _) = (0..3)
            .find_map(|attempt| match open(&self.disk) {
                Ok(opened) => Some(opened),
                Err(LogError::Io { .. } | LogError::NoSpace { .. }) if attempt < 2 => {
                    if let Some(seed) = crash {
                        let mut chance = Chance(seed ^ 1);
                        self.disk.crash(&mut |bound| chance.below(bound));
                    }
                    None
                }
                Err(error) => panic!("an honest disk is never damaged: {error}"),
            })
            .expect("at most two faults wait");
        self.log = log;
        let view = View::of(&self.log);
        assert!(
            self.allowed.contains(&view),
            "found {view:?}\nwhere one of these was allowed: {:?}",
            self.allowed
        );
        // Recovery made durable what it found.
        self.allowed = vec![view];
    }

    /// Takes the outcome of a change to `view`; `durable` if success means that it is synced.
    fn settle(&mut self, outcome: Result<(), LogError>, view: View, durable: bool) {
        match outcome {
            Ok(()) if durable => self.allowed = vec![view],
            Ok(()) => self.allowed.push(view),
            Err(LogError::NoSpace { .. }) => {}
            Err(LogError::Io { .. }) => {
                // The process stops. The change may have reached the medium whole, in part or not at all.
                self.allowed.push(view);
                self.stop();
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn step(&mut self, step: &Step) {
        let mut view = self.now();
        match *step {
            Step::Append {
                back,
                count,
                bytes,
                blank,
                with_hard_state,
            } => {
                self.term += u64::from(back > 0);
                let first = view
                    .next_index()
                    .saturating_sub(back)
                    .max(view.mark.index + 1);
                let entries: Vec<Entry> = (first..first + count)
                    .map(|index| match blank {
                        true => blank_entry(index, self.term, bytes),
                        false => entry(index, self.term, bytes),
                    })
                    .collect();
                let hard_state = with_hard_state.then(|| hard_state(self.term, back, first));
                view.put(&entries);
                view.hard_state = hard_state.unwrap_or(view.hard_state);
                let appended = self.log.append(LogBatch {
                    entries: &entries,
                    hard_state,
                });
                self.settle(appended, view, false);
            }
            Step::Sync => {
                let synced = self.log.sync();
                self.settle(synced, view, true);
            }
            Step::Compact(share) => {
                let drop = (view.entries.len() as u64 * share).div_ceil(256) as usize;
                let Some(last) = view.entries.drain(..drop).last() else {
                    return;
                };
                view.mark = at(last.index, last.term);
                view.conf_state = Bytes::from(vec![share as u8; share as usize]);
                let compacted = self.log.compact_to(view.mark, view.conf_state.clone());
                self.settle(compacted, view, true);
            }
            Step::Snapshot(_) | Step::SnapshotInside(_) => {
                let index = match *step {
                    Step::Snapshot(ahead) => view.next_index() - 1 + ahead,
                    Step::SnapshotInside(behind) => view.mark.index + behind,
                    _ => return,
                };
                // Of a later term than the mark; the entries that go may be of still later ones.
                view.mark = at(index, view.mark.term + 1 + index % 3);
                view.conf_state = Bytes::from_static(b"snapshot");
                view.hard_state = hard_state(view.mark.term, 0, index);
                view.entries.clear();
                let installed =
                    self.log
                        .install_snapshot(view.mark, view.conf_state.clone(), view.hard_state);
                self.settle(installed, view, true);
                let now = self.now();
                self.term = now.entries.last().map_or(now.mark.term, |e| e.term).max(1);
            }
            Step::Spares => match self.log.spares().work() {
                Ok(()) | Err(LogError::NoSpace { .. }) => {}
                Err(_) => self.stop(),
            },
            Step::Kill => self.kill(),
            Step::Crash(seed) => self.reopen(Some(seed)),
            Step::FailSync(nth) => self.disk.fail_sync(nth),
            Step::FailWrite(nth, full) => {
                let kind = if full {
                    ErrorKind::StorageFull
                } else {
                    ErrorKind::Other
                };
                self.disk.fail_write(nth, kind);
            }
            Step::Capacity(bytes) => self.disk.set_capacity(bytes),
        }
        assert_eq!(View::of(&self.log), self.now());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_takes_nothing_that_was_synced(steps in prop::collection::vec(step(), 1..80), last in any::<u64>()) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
        }
        run.reopen(Some(last));
    }
}

#[test]
fn a_failed_sync_and_a_restart_do_not_make_lost_pages_look_durable() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk).expect("open");
    log.append(batch(&[entry(1, 1, 100)])).expect("append");
    disk.fail_sync(1);
    log.sync().expect_err("injected");
    // The page is still in memory and counts as clean. The next process finds the entry and may build on it, so it must
    // be on the medium from then on.
    let (mut log, _) = open(&disk).expect("open");
    assert_eq!(View::of(&log).entries, [entry(1, 1, 100)]);
    log.append(batch(&[entry(2, 1, 100)])).expect("append");
    log.sync().expect("sync");
    disk.crash(&mut |_| 0);
    let (log, _) = open(&disk).expect("open");
    assert_eq!(View::of(&log).entries, [entry(1, 1, 100), entry(2, 1, 100)]);
}

#[test]
fn a_torn_append_is_cut_and_reported() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk).expect("open");
    log.append(batch(&[entry(1, 1, 100)])).expect("append");
    log.sync().expect("sync");
    log.append(batch(&[entry(2, 1, 100), entry(3, 1, 100)]))
        .expect("append");
    log.append(batch(&[entry(4, 1, 100)])).expect("append");
    // No names to drop. Of the first unsynced write "a prefix", of 200 bytes; the second is whole.
    let mut picks = [0, 1, 200].into_iter();
    disk.crash(&mut |bound| picks.next().unwrap_or(3).min(bound - 1));
    let (log, recovered) = open(&disk).expect("open");
    assert_eq!(View::of(&log).entries, [entry(1, 1, 100)]);
    let cut = recovered.tail_cut.expect("reported");
    assert_eq!(
        (cut.file.to_str(), cut.bytes),
        (Some("0000000000000001.log"), 304 + 176)
    );
    assert!(cut.reason.contains("checksum"), "{}", cut.reason);
    drop(log);
    assert_eq!(open(&disk).expect("open").1.tail_cut, None, "cut once");
}
