//! A history of a log: what it may say after each restart is known. At the end up to three bytes of its files are changed, which must be
//! noticed unless they meant nothing.

use super::{View, goes_on, open};
use crate::input::Input;
use bytes::Bytes;
use holdfast_storage::LogPosition;
use holdfast_storage::disk::{Disk, MemDisk};
use holdfast_storage::log::{Entry, HardState, LogBatch, LogError, RaftLog};

/// More steps say nothing new, and cost time.
const MAX_STEPS: usize = 48;

pub(super) fn run(input: &mut Input<'_>) -> bool {
    let changes = input.u8() % 4;
    let changes: Vec<(u8, u16, u8)> = (0..changes)
        .map(|_| (input.u8(), input.u16(), input.u8()))
        .collect();
    let mut history = History::new();
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        history.step(input);
    }
    history.log.sync().expect("syncing");
    let view = history.now();
    let disk = history.disk;
    drop(history.log);
    // All of them, not the first that finds a byte.
    let damaged: Vec<bool> = changes.iter().map(|change| damage(&disk, change)).collect();
    if !damaged.contains(&true) {
        return true;
    }
    match open(&disk) {
        Ok((log, recovered)) => {
            assert_eq!(View::of(&log), view, "damage was read as something else");
            goes_on(&disk, log, &recovered);
            true
        }
        Err(LogError::Damaged { .. } | LogError::Newer { .. }) => false,
        Err(error) => panic!("damage is reported as {error}"),
    }
}

/// Changes one byte of a file, but for the note, which vouches for the rest. Whether there was one to change.
fn damage(disk: &MemDisk, &(file, at, flip): &(u8, u16, u8)) -> bool {
    let mut names = disk.list().expect("a disk in memory lists its files");
    names.retain(|name| name != "synced");
    let name = &names[usize::from(file) % names.len()];
    let mut bytes = disk.contents(name).unwrap_or_default();
    let Some(byte) = bytes.get_mut(usize::from(at)) else {
        return false;
    };
    *byte ^= flip;
    disk.replace(name, bytes);
    flip != 0
}

struct History {
    disk: MemDisk,
    log: RaftLog<MemDisk>,
    /// What may be found after a power cut: the state at the last sync and after each append since.
    allowed: Vec<View>,
    term: u64,
}

impl History {
    fn new() -> History {
        let disk = MemDisk::new();
        let (log, _) = open(&disk).expect("an empty directory");
        History {
            disk,
            log,
            allowed: vec![View::default()],
            term: 1,
        }
    }

    fn now(&self) -> View {
        self.allowed.last().cloned().unwrap_or_default()
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 8 {
            0..=2 => self.append(input),
            3 => {
                self.log.sync().expect("syncing");
                self.allowed = vec![self.now()];
            }
            4 => self.compact(input.u8()),
            5 => self.install(input.u8()),
            6 => {
                self.log.spares().work().expect("making spares");
            }
            _ => {
                let kind = input.u8();
                self.reopen(kind & 1 == 1, input);
            }
        }
    }

    fn append(&mut self, input: &mut Input<'_>) {
        let (shape, bytes) = (input.u8(), usize::from(input.u8()) * 8);
        let (back, count) = (u64::from(shape & 7), u64::from(shape >> 3 & 3));
        let mut view = self.now();
        self.term += u64::from(back > 0);
        let first = view
            .next_index()
            .saturating_sub(back)
            .max(view.mark.index + 1);
        let entries: Vec<Entry> = (first..first + count)
            .map(|index| Entry {
                index,
                term: self.term,
                kind: shape,
                data: Bytes::from(vec![index as u8; bytes]),
                context: Bytes::from(vec![!(index as u8); bytes % 5]),
            })
            .collect();
        if count > 0 {
            view.entries
                .truncate((first - view.mark.index - 1) as usize);
            view.entries.extend_from_slice(&entries);
        }
        let hard_state = (shape & 32 != 0).then_some(HardState {
            term: self.term,
            vote: back,
            commit: first,
        });
        view.hard_state = hard_state.unwrap_or(view.hard_state);
        self.log
            .append(LogBatch {
                entries: &entries,
                hard_state,
            })
            .expect("appending");
        self.allowed.push(view);
    }

    fn compact(&mut self, share: u8) {
        let mut view = self.now();
        let drop = (view.entries.len() * usize::from(share)).div_ceil(256);
        let Some(last) = view.entries.drain(..drop).next_back() else {
            return;
        };
        view.mark = LogPosition {
            index: last.index,
            term: last.term,
        };
        view.conf_state = Bytes::from(vec![share; usize::from(share)]);
        self.log
            .compact_to(view.mark, view.conf_state.clone())
            .expect("compacting");
        self.allowed = vec![view];
    }

    fn install(&mut self, ahead: u8) {
        let mut view = self.now();
        view.mark = LogPosition {
            index: view.next_index() - 1 + u64::from(ahead),
            term: self.term,
        };
        view.conf_state = Bytes::from_static(b"snapshot");
        view.hard_state = HardState {
            term: self.term,
            vote: 0,
            commit: view.mark.index,
        };
        view.entries.clear();
        self.log
            .install_snapshot(view.mark, view.conf_state.clone(), view.hard_state)
            .expect("installing");
        self.allowed = vec![view];
    }

    /// The process dies, and with a power cut the machine.
    fn reopen(&mut self, power_cut: bool, input: &mut Input<'_>) {
        let now = self.now();
        if power_cut {
            let mut chances = Input::new(input.short());
            self.disk
                .crash(&mut |bound| u64::from(chances.u8()) % bound.max(1));
        }
        let (log, _) = open(&self.disk).expect("an honest disk is never damaged");
        self.log = log;
        let view = View::of(&self.log);
        if power_cut {
            assert!(
                self.allowed.contains(&view),
                "found {view:?} where one of these was allowed: {:?}",
                self.allowed
            );
        } else {
            assert_eq!(view, now, "without a power cut nothing is lost");
        }
        self.allowed = vec![view];
    }
}
