//! Proposals on their way: which tickets wait for which entry.
//!
//! An entry's context says who proposed it: member, incarnation of its process, and a sequence number of that. Whoever applies the entry
//! and finds itself there has its answer; so a proposal may be made through another member. An entry of a later term in the log's order
//! proves that those of an earlier one which have not come will not come.

use crate::failure::Failure;
use crate::group::Ticket;
use bytes::{BufMut, Bytes};
use holdfast_storage::planted::{Defect, is_planted};
use std::collections::{BTreeMap, VecDeque};

/// Bytes of a context before a membership change's command.
pub(crate) const CONTEXT_BYTES: usize = 24;
/// Bytes of commands that may wait for a leader.
const PARKED_BYTES_MAX: usize = 16 << 20;
/// Bytes of commands that may be on their way to the leader.
const FORWARDED_BYTES_MAX: usize = 32 << 20;

/// Who proposed an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) member: u64,
    pub(crate) incarnation: u64,
    pub(crate) sequence: u64,
}

impl Origin {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(CONTEXT_BYTES);
        out.put_u64_le(self.member);
        out.put_u64_le(self.incarnation);
        out.put_u64_le(self.sequence);
        out
    }

    /// The origin, and what follows it. Entries of raft's own have none.
    pub(crate) fn decode(context: &Bytes) -> Option<(Origin, Bytes)> {
        let number = |at: usize| {
            let bytes = context.get(at..at + 8)?;
            Some(u64::from_le_bytes(<[u8; 8]>::try_from(bytes).ok()?))
        };
        let origin = Origin {
            member: number(0)?,
            incarnation: number(8)?,
            sequence: number(16)?,
        };
        Some((origin, context.slice(CONTEXT_BYTES..)))
    }
}

struct Waiting {
    /// The term in which the entry can have been made, and no other.
    term: u64,
    tickets: Vec<Ticket>,
    /// The tick at which it was taken.
    since: u64,
    /// The tick at which the connection was lost over which it was sent.
    lost: Option<u64>,
    /// To whom it was sent, with what; `None` if this member put it into its own log.
    forwarded: Option<(u64, Bytes)>,
}

impl Waiting {
    fn forwarded_bytes(&self) -> usize {
        self.forwarded.as_ref().map_or(0, |(_, data)| data.len())
    }
}

/// A proposal that waits for a leader.
pub(crate) struct Parked {
    pub(crate) data: Bytes,
    pub(crate) tickets: Vec<Ticket>,
    /// The tick at which it was taken.
    pub(crate) since: u64,
}

/// Those of this member's process.
pub(crate) struct Proposals {
    incarnation: u64,
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
    parked: VecDeque<Parked>,
    parked_bytes: usize,
    forwarded_bytes: usize,
    /// Whether some of them are to be given up if nothing is heard of them.
    some_lost: bool,
}

impl Proposals {
    pub(crate) fn new(incarnation: u64) -> Proposals {
        Proposals {
            incarnation,
            last: 0,
            waiting: BTreeMap::new(),
            parked: VecDeque::new(),
            parked_bytes: 0,
            forwarded_bytes: 0,
            some_lost: false,
        }
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The next sequence number.
    pub(crate) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Waits for an entry of this member's own log.
    pub(crate) fn wait(&mut self, sequence: u64, term: u64, tickets: Vec<Ticket>, now: u64) {
        let waiting = Waiting {
            term,
            tickets,
            since: now,
            lost: None,
            forwarded: None,
        };
        self.waiting.insert(sequence, waiting);
    }

    /// Whether that many more bytes may be on their way to the leader.
    pub(crate) fn may_forward(&self, bytes: usize) -> bool {
        self.forwarded_bytes == 0 || self.forwarded_bytes + bytes <= FORWARDED_BYTES_MAX
    }

    /// Waits for an entry that `leader` is asked to make.
    pub(crate) fn wait_for(
        &mut self,
        sequence: u64,
        term: u64,
        tickets: Vec<Ticket>,
        leader: u64,
        data: Bytes,
        now: u64,
    ) {
        self.forwarded_bytes += data.len();
        let waiting = Waiting {
            term,
            tickets,
            since: now,
            lost: None,
            forwarded: Some((leader, data)),
        };
        self.waiting.insert(sequence, waiting);
    }

    /// Whose tickets wait for an applied entry; `None` for another's, or one that was given up.
    pub(crate) fn applied(&mut self, origin: Origin, member: u64) -> Option<Vec<Ticket>> {
        let is_ours =
            origin.incarnation == self.incarnation || is_planted(Defect::IncarnationIgnored);
        if origin.member != member || !is_ours {
            return None;
        }
        Some(self.remove(origin.sequence)?.tickets)
    }

    /// Takes out those which can no longer be applied, since the log has come to `term`. Those that another member was to propose wait for
    /// the next leader: what they ask for has not been done, and will not be.
    pub(crate) fn outlived(&mut self, term: u64) -> Vec<Ticket> {
        let taken: Vec<Waiting> = self
            .waiting
            .extract_if(.., |_, waiting| waiting.term < term)
            .map(|(_, waiting)| waiting)
            .collect();
        let mut failed = Vec::new();
        for waiting in taken {
            self.forwarded_bytes -= waiting.forwarded_bytes();
            match waiting.forwarded {
                Some((_, data)) => {
                    if let Err((tickets, _)) = self.park(data, waiting.tickets, waiting.since) {
                        failed.extend(tickets);
                    }
                }
                None => failed.extend(waiting.tickets),
            }
        }
        failed
    }

    /// The connection to a member was lost, with or without what was sent to it. The next leader's first entry tells which; should none
    /// come, [`Proposals::take_lost`] does.
    pub(crate) fn lost(&mut self, member: u64, now: u64) {
        for waiting in self.waiting.values_mut() {
            if matches!(waiting.forwarded, Some((to, _)) if to == member) {
                self.some_lost = true;
                waiting.lost.get_or_insert(now);
            }
        }
    }

    /// Takes out those whose connection was lost before a tick.
    pub(crate) fn take_lost(&mut self, tick: u64) -> Vec<Ticket> {
        if !self.some_lost {
            return Vec::new();
        }
        let tickets = self.take(|waiting| waiting.lost.is_some_and(|lost| lost < tick));
        self.some_lost = self.waiting.values().any(|waiting| waiting.lost.is_some());
        tickets
    }

    /// Takes out all, those that wait for a leader included.
    pub(crate) fn take_all(&mut self) -> Vec<Ticket> {
        let mut tickets = self.take(|_| true);
        self.parked_bytes = 0;
        tickets.extend(self.parked.drain(..).flat_map(|parked| parked.tickets));
        tickets
    }

    /// Takes out what is in flight; what waits for a leader goes on waiting.
    pub(crate) fn take_waiting(&mut self) -> Vec<Ticket> {
        self.take(|_| true)
    }

    /// Takes out those that were taken before a tick.
    pub(crate) fn take_before(&mut self, tick: u64) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        // Both are in the order of time.
        while let Some((&sequence, waiting)) = self.waiting.first_key_value()
            && waiting.since < tick
        {
            tickets.extend(self.remove(sequence).into_iter().flat_map(|w| w.tickets));
        }
        while self
            .parked
            .front()
            .is_some_and(|parked| parked.since < tick)
        {
            tickets.extend(self.unpark().into_iter().flat_map(|parked| parked.tickets));
        }
        tickets
    }

    fn remove(&mut self, sequence: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&sequence)?;
        self.forwarded_bytes -= waiting.forwarded_bytes();
        Some(waiting)
    }

    fn take(&mut self, which: impl Fn(&Waiting) -> bool) -> Vec<Ticket> {
        let taken: Vec<Waiting> = self
            .waiting
            .extract_if(.., |_, waiting| which(waiting))
            .map(|(_, waiting)| waiting)
            .collect();
        self.forwarded_bytes -= taken.iter().map(Waiting::forwarded_bytes).sum::<usize>();
        taken.into_iter().flat_map(|w| w.tickets).collect()
    }

    /// A leader refused a proposal, so it is not in the log and will not be: it waits for the next leader.
    pub(crate) fn refused(&mut self, sequence: u64, by: u64, now: u64) -> Result<(), Vec<Ticket>> {
        let is_theirs = self
            .waiting
            .get(&sequence)
            .is_some_and(|waiting| matches!(waiting.forwarded, Some((to, _)) if to == by));
        if !is_theirs {
            return Ok(());
        }
        match self.remove(sequence) {
            Some(Waiting {
                tickets,
                forwarded: Some((_, data)),
                ..
            }) => self
                .park(data, tickets, now)
                .map_err(|(tickets, _)| tickets),
            _ => Ok(()),
        }
    }

    /// As [`Proposals::refused`], for good.
    pub(crate) fn overloaded(&mut self, sequence: u64, by: u64) -> Vec<Ticket> {
        let is_theirs = self
            .waiting
            .get(&sequence)
            .is_some_and(|waiting| matches!(waiting.forwarded, Some((to, _)) if to == by));
        let taken = is_theirs.then(|| self.remove(sequence)).flatten();
        taken.into_iter().flat_map(|w| w.tickets).collect()
    }

    /// Keeps a proposal until there is a leader.
    pub(crate) fn park(
        &mut self,
        data: Bytes,
        tickets: Vec<Ticket>,
        now: u64,
    ) -> Result<(), (Vec<Ticket>, Failure)> {
        if self.parked_bytes > 0 && self.parked_bytes + data.len() > PARKED_BYTES_MAX {
            return Err((tickets, Failure::Overloaded));
        }
        self.parked_bytes += data.len();
        self.parked.push_back(Parked {
            data,
            tickets,
            since: now,
        });
        Ok(())
    }

    pub(crate) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    pub(crate) fn unpark(&mut self) -> Option<Parked> {
        let parked = self.parked.pop_front()?;
        self.parked_bytes -= parked.data.len();
        Some(parked)
    }
}
