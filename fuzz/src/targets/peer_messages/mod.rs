//! What a member of the group sends another one that runs: raft's messages, forwarded proposals, snapshots. The sender is a member whose
//! key was stolen (or whose program is wrong): it keeps no rule. The others are three members on disks in memory, with a leader.
//!
//! Input: the situation (one byte, bits of [`Group::begin`]), then steps until it ends: a message of any bytes, a message of a form that
//! is near to what fits, a snapshot, or time, messages and proposals of the others in between.
//!
//! * Nobody panics, whatever is sent and whatever follows from it.
//! * A member that gives up says that its log or its leader is at fault; snapshots are no reason, nor is raft's own refusal.
//! * No message moves a member's term so far that later ones have no place.

mod group;
mod wire;

use crate::input::Input;
use group::{Contents, Group};
use wire::{Entry, Near, Raft};

/// The member that keeps no rule.
const ROGUE: u64 = 3;
/// More steps say nothing new, and cost time.
const STEPS_MAX: usize = 48;
/// Terms stay below it: with one election each second it takes nine million years.
const TERM_MAX: u64 = 1 << 48;

pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let mut group = Group::begin(input.u8());
    let mut taken = false;
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let what = input.u8();
        let victim = 1 + u64::from(what >> 4) % 2;
        match what & 15 {
            0..=6 => {
                let message = raft(&mut input, &group.near(victim)).encode();
                taken |= group.receive(victim, ROGUE, message);
            }
            7 | 8 => {
                let message = forward(&mut input, &group.near(victim));
                taken |= group.receive(victim, ROGUE, message);
            }
            9 => {
                let message = input.long().to_vec();
                taken |= group.receive(victim, ROGUE, message);
            }
            10 => {
                let near = group.near(victim);
                let message = raft(&mut input, &near);
                let contents = contents(&mut input, &message);
                taken |= group.receive_snapshot(victim, ROGUE, message.encode(), contents);
            }
            11 => group.propose(victim, u32::from(input.u8())),
            12 => group.read(victim),
            13 => group.tick(victim, input.u8()),
            14 => group.lose(victim, ROGUE),
            _ => group.carry(input.u8()),
        }
        if !group.work(victim) {
            return taken;
        }
        assert!(
            group.near(victim).term < TERM_MAX,
            "a message took the member far into the future"
        );
    }
    group.settle();
    taken
}

/// A message of raft's, most of whose fields are near to what the receiver expects.
fn raft(input: &mut Input<'_>, near: &Near) -> Raft {
    let kind = input.u8();
    let flags = input.u8();
    let mut message = Raft {
        kind,
        reject: flags & 1,
        to: if flags & 2 == 0 { near.id } else { input.u64() },
        from: if flags & 4 == 0 { ROGUE } else { input.u64() },
        term: near.term_at(input.u8()),
        log_term: near.term_at(input.u8()),
        index: near.index_at(input.u8()),
        commit: near.index_at(input.u8()),
        commit_term: near.term_at(input.u8()),
        reject_hint: near.index_at(input.u8()),
        ..Raft::default()
    };
    if flags & 8 != 0 {
        message.context = match input.u8() {
            0 => b"CampaignTransfer".to_vec(),
            _ => input.short().to_vec(),
        };
    }
    if flags & 16 != 0 {
        let index = near.index_at(input.u8());
        let term = near.term_at(input.u8());
        message.snapshot = Some((index, term, configuration(input)));
    }
    for place in 0..u64::from(flags >> 5) {
        message.entries.push(entry(input, near, &message, place));
    }
    message
}

/// The next entry of a message.
fn entry(input: &mut Input<'_>, near: &Near, message: &Raft, place: u64) -> Entry {
    let what = input.u8();
    let index = if what & 4 == 0 {
        message.index.wrapping_add(place + 1)
    } else {
        near.index_at(input.u8())
    };
    let term = if what & 8 == 0 {
        message.term
    } else {
        near.term_at(input.u8())
    };
    let context = match what >> 4 & 3 {
        0 => Vec::new(),
        1 => wire::origin(ROGUE, 9, place),
        2 => [wire::origin(u64::from(what >> 6), 1, place), command(input)].concat(),
        _ => input.short().to_vec(),
    };
    let data = if what & 64 == 0 {
        command(input)
    } else {
        input.short().to_vec()
    };
    Entry {
        kind: what & 3,
        term,
        index,
        context,
        data,
    }
}

/// A command of the toy machine; see [`group`].
fn command(input: &mut Input<'_>) -> Vec<u8> {
    let kind = u32::from(input.u8() & 3) << 28;
    let number = u32::from(input.u8() & 7);
    (kind | number).to_le_bytes().to_vec()
}

/// Voters, learners, and what belongs to steps between two configurations.
fn configuration(input: &mut Input<'_>) -> Vec<u8> {
    match input.u8() {
        0 => wire::configuration(&[&[1, 2, 3], &[], &[], &[]]),
        1 => wire::configuration(&[&[1, 2], &[3], &[], &[]]),
        2 => wire::configuration(&[&[3, 2, 1], &[], &[], &[]]),
        3 => wire::configuration(&[&[3], &[1, 2], &[], &[]]),
        4 => wire::configuration(&[&[3], &[], &[], &[]]),
        5 => {
            let lists = [(); 4].map(|()| input.short().to_vec());
            let lists = lists.map(|ids| ids.into_iter().map(u64::from).collect::<Vec<_>>());
            wire::configuration(&lists.each_ref().map(Vec::as_slice))
        }
        _ => input.short().to_vec(),
    }
}

fn forward(input: &mut Input<'_>, near: &Near) -> Vec<u8> {
    let kind = input.u8();
    let incarnation = if kind & 2 == 0 { 9 } else { input.u64() };
    let count = u64::from(kind >> 5);
    if kind & 1 == 0 {
        let term = near.term_at(input.u8());
        let proposals = (0..count).map(|place| {
            let sequence = if kind & 4 == 0 { place } else { input.u64() };
            let data = match kind >> 3 & 3 {
                0 | 1 => command(input),
                _ => input.short().to_vec(),
            };
            (sequence, data)
        });
        wire::forward(incarnation, term, &proposals.collect::<Vec<_>>())
    } else {
        let sequences: Vec<u64> = (0..count).map(|_| u64::from(input.u8())).collect();
        wire::refused(incarnation, kind >> 3 & 3, &sequences)
    }
}

/// What comes with a snapshot's message: what it says, or something else.
fn contents(input: &mut Input<'_>, message: &Raft) -> Contents {
    let what = input.u8();
    let (mut index, mut term) = (0, 0);
    if let Some((of, at, _)) = &message.snapshot {
        (index, term) = (*of, *at);
    }
    if what & 1 != 0 {
        index = u64::from(input.u8());
    }
    let voters: &[u64] = match what >> 1 & 3 {
        0 => &[1, 2, 3],
        1 => &[1, 2],
        2 => &[],
        _ => &[3],
    };
    Contents::new(index, term, voters)
}
