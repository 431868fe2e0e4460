//! Linearizable reads: one round of ReadIndex serves all that wait when it begins.
//!
//! A round's context is never used twice: raft ignores one that it has already, silently, and a late answer to an earlier round must not
//! pass for one to this. A round that is lost – with its messages, its leader or its term – is begun again under a new context: to the
//! reads it makes no difference, their point in time only moves on.

use crate::group::Ticket;
use bytes::BufMut;
use holdfast_storage::planted::{Defect, is_planted};
use std::collections::VecDeque;

struct Round {
    context: Vec<u8>,
    tickets: Vec<Ticket>,
    /// The tick at which it was begun.
    since: u64,
    /// The tick at which its oldest read was taken.
    oldest: u64,
    term: u64,
    leader: u64,
}

/// Reads that are answered once so much is applied.
struct Confirmed {
    index: u64,
    /// The tick at which the oldest of them was taken.
    oldest: u64,
    tickets: Vec<Ticket>,
}

pub(crate) struct Reads {
    member: u64,
    incarnation: u64,
    rounds: u64,
    waiting: Vec<Ticket>,
    /// The tick at which the oldest of them was taken.
    oldest: u64,
    round: Option<Round>,
    /// What may be read once that much is applied, in order.
    confirmed: VecDeque<Confirmed>,
}

impl Reads {
    pub(crate) fn new(member: u64, incarnation: u64) -> Reads {
        Reads {
            member,
            incarnation,
            rounds: 0,
            waiting: Vec::new(),
            oldest: u64::MAX,
            round: None,
            confirmed: VecDeque::new(),
        }
    }

    pub(crate) fn add(&mut self, tickets: Vec<Ticket>, now: u64) {
        self.oldest = self.oldest.min(now);
        self.waiting.extend(tickets);
    }

    /// Takes out what waits for a round, or for one's answer, if some of it was taken before a tick.
    pub(crate) fn take_before(&mut self, tick: u64) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        if self.oldest < tick {
            self.oldest = u64::MAX;
            tickets.append(&mut self.waiting);
        }
        if let Some(mut round) = self.round.take_if(|round| round.oldest < tick) {
            tickets.append(&mut round.tickets);
        }
        while let Some(round) = self.confirmed.pop_front_if(|round| round.oldest < tick) {
            tickets.extend(round.tickets);
        }
        tickets
    }

    /// The context of a round to begin now, if reads wait and none is under way, or the one under way was lost: its term or leader is gone,
    /// or it has been waiting for an answer since before `deadline`.
    pub(crate) fn begin(
        &mut self,
        term: u64,
        leader: u64,
        now: u64,
        deadline: u64,
    ) -> Option<Vec<u8>> {
        if let Some(round) = &self.round
            && (round.term != term || round.leader != leader || round.since < deadline)
            && let Some(lost) = self.round.take()
        {
            self.oldest = self.oldest.min(lost.oldest);
            self.waiting.extend(lost.tickets);
        }
        if is_planted(Defect::ReadWithoutRound) && !self.waiting.is_empty() {
            self.confirmed.push_back(Confirmed {
                index: 0,
                oldest: std::mem::replace(&mut self.oldest, u64::MAX),
                tickets: std::mem::take(&mut self.waiting),
            });
        }
        if leader == 0 || self.round.is_some() || self.waiting.is_empty() {
            return None;
        }
        if !is_planted(Defect::ReusedReadContext) {
            self.rounds += 1;
        }
        let mut context = Vec::with_capacity(32);
        for number in [self.member, self.incarnation, term, self.rounds] {
            context.put_u64_le(number);
        }
        self.round = Some(Round {
            context: context.clone(),
            tickets: std::mem::take(&mut self.waiting),
            since: now,
            oldest: std::mem::replace(&mut self.oldest, u64::MAX),
            term,
            leader,
        });
        Some(context)
    }

    /// A round's answer: everything up to `index` was committed when it was asked for.
    pub(crate) fn confirm(&mut self, context: &[u8], index: u64) {
        if self
            .round
            .as_ref()
            .is_some_and(|round| round.context == context)
            && let Some(round) = self.round.take()
        {
            self.confirmed.push_back(Confirmed {
                index,
                oldest: round.oldest,
                tickets: round.tickets,
            });
        }
    }

    /// The reads that what is applied is enough for.
    pub(crate) fn readable(&mut self, applied: u64) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        // A later round's answer is no smaller: the commit index does not fall.
        while let Some(round) = self
            .confirmed
            .pop_front_if(|round| round.index <= applied || is_planted(Defect::ReadBeforeApplied))
        {
            tickets.extend(round.tickets);
        }
        tickets
    }

    /// Takes out all.
    pub(crate) fn take_all(&mut self) -> Vec<Ticket> {
        self.oldest = u64::MAX;
        let mut tickets = std::mem::take(&mut self.waiting);
        tickets.extend(
            self.round
                .take()
                .into_iter()
                .flat_map(|round| round.tickets),
        );
        tickets.extend(self.confirmed.drain(..).flat_map(|round| round.tickets));
        tickets
    }
}
