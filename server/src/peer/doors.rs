//! Connections that others have made: how many there are, of whom, and which gives way.

use super::bounds::{CONNECTIONS_PER_MEMBER, STRANGERS_MAX};
use crate::metrics::PeerMetrics;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::Notify;

/// Counts the connections on the peer listeners. Clones are the same.
#[derive(Clone)]
pub(super) struct Doors {
    shared: Arc<Shared>,
}

struct Shared {
    metrics: PeerMetrics,
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    next: u64,
    /// Who has not introduced itself, by age.
    strangers: BTreeMap<u64, Arc<Notify>>,
    /// The connections of each member, by age.
    members: HashMap<u64, BTreeMap<u64, Arc<Notify>>>,
}

/// A connection's place.
pub(super) struct Seat {
    shared: Arc<Shared>,
    number: u64,
    leave: Arc<Notify>,
    /// Whose connection it is, once it is known.
    member: Mutex<Option<u64>>,
}

impl Doors {
    pub(super) fn new(metrics: PeerMetrics) -> Doors {
        Doors {
            shared: Arc::new(Shared {
                metrics,
                seats: Mutex::default(),
            }),
        }
    }

    /// Takes a stranger in; the one that has been a stranger longest gives way if there are too many.
    pub(super) fn enter(&self) -> Seat {
        let leave = Arc::new(Notify::new());
        let mut seats = self.shared.seats.lock();
        let number = seats.next;
        seats.next += 1;
        if seats.strangers.len() >= STRANGERS_MAX
            && let Some((_, oldest)) = seats.strangers.pop_first()
        {
            oldest.notify_one();
        }
        seats.strangers.insert(number, leave.clone());
        drop(seats);
        self.shared.metrics.connection_opened();
        Seat {
            shared: self.shared.clone(),
            number,
            leave,
            member: Mutex::new(None),
        }
    }

    /// Ends all connections of a member.
    pub(super) fn kick(&self, member: u64) {
        let seats = self.shared.seats.lock();
        for leave in seats.members.get(&member).into_iter().flatten() {
            leave.1.notify_one();
        }
    }
}

impl Seat {
    /// The connection is that member's; its oldest gives way if it has too many. False if it is already another's: one connection
    /// speaks for one member.
    pub(super) fn greet(&self, member: u64) -> bool {
        let mut known = self.member.lock();
        if let Some(known) = *known {
            return known == member;
        }
        *known = Some(member);
        let mut seats = self.shared.seats.lock();
        seats.strangers.remove(&self.number);
        let own = seats.members.entry(member).or_default();
        if own.len() >= CONNECTIONS_PER_MEMBER
            && let Some((_, oldest)) = own.pop_first()
        {
            oldest.notify_one();
        }
        own.insert(self.number, self.leave.clone());
        true
    }

    /// Whether somebody has introduced itself here.
    pub(super) fn is_greeted(&self) -> bool {
        self.member.lock().is_some()
    }

    /// Waits until the connection is to end.
    pub(super) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.shared.seats.lock();
        seats.strangers.remove(&self.number);
        if let Some(member) = *self.member.get_mut()
            && let Some(own) = seats.members.get_mut(&member)
        {
            own.remove(&self.number);
            if own.is_empty() {
                seats.members.remove(&member);
            }
        }
        drop(seats);
        self.shared.metrics.connection_closed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn leaves(seat: &Seat) -> bool {
        seat.told_to_leave().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_give_way() {
        let doors = Doors::new(PeerMetrics::detached());
        let member = doors.enter();
        assert!(member.greet(7) && member.greet(7) && !member.greet(8));
        let strangers: Vec<_> = (0..=STRANGERS_MAX).map(|_| doors.enter()).collect();
        assert!(leaves(&strangers[0]));
        assert!(!strangers[1..].iter().any(leaves) && !leaves(&member));
        for stranger in &strangers[1..=CONNECTIONS_PER_MEMBER] {
            assert!(stranger.greet(7));
        }
        assert!(leaves(&member));
        drop(strangers);
        drop(member);
        let seats = doors.shared.seats.lock();
        assert!(seats.strangers.is_empty() && seats.members.is_empty());
    }

    #[test]
    fn a_member_can_be_shown_out() {
        let doors = Doors::new(PeerMetrics::detached());
        let (one, two) = (doors.enter(), doors.enter());
        assert!(one.greet(1) && two.greet(2));
        doors.kick(1);
        assert!(leaves(&one) && !leaves(&two));
    }
}
