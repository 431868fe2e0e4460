//! The network between members: streams that break, or datagrams that get lost; slow links, and partitions of every shape.

use crate::chance::Chance;
use crate::plan::{MILLISECOND, Micros, Plan};
use bytes::Bytes;

/// What travels.
pub(crate) enum Packet {
    Message(Bytes),
    Snapshot {
        message: Bytes,
        chunks: Vec<Bytes>,
    },
    /// What became of a snapshot that the receiver was sent.
    SnapshotSent {
        ok: bool,
    },
    /// Asks the leader to renew a lease; which request at the asking member it is for.
    KeepAlive {
        lease: i64,
        request: u64,
    },
}

/// A packet with its way.
pub(crate) struct Travelling {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// The connection's; another one in the meantime has lost it.
    connection: u64,
    pub(crate) packet: Packet,
}

#[derive(Clone, Default)]
struct Link {
    connection: u64,
    /// What was sent last arrives then.
    last_arrival: Micros,
    blocked: bool,
    extra_latency: Micros,
}

/// See the module's text. Members are named by their place.
pub(crate) struct Network {
    places: usize,
    links: Vec<Link>,
    datagrams: bool,
    drop_permille: u64,
    latency: Micros,
}

/// What is to be done with a packet that was sent.
pub(crate) enum Fate {
    Arrives(Micros, Travelling),
    Lost,
}

/// More members than any run has.
const PLACES_MAX: usize = 32;

impl Network {
    pub(crate) fn new(plan: &Plan) -> Network {
        Network {
            places: PLACES_MAX,
            links: vec![Link::default(); PLACES_MAX * PLACES_MAX],
            datagrams: plan.datagrams,
            drop_permille: plan.drop_permille,
            latency: plan.latency,
        }
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.places + to]
    }

    /// Sends a packet.
    pub(crate) fn send(
        &mut self,
        from: usize,
        to: usize,
        packet: Packet,
        now: Micros,
        chance: &mut Chance,
    ) -> Fate {
        let (datagrams, drop_permille, latency) =
            (self.datagrams, self.drop_permille, self.latency);
        let link = self.link(from, to);
        if link.blocked || (datagrams && chance.permille(drop_permille)) {
            return Fate::Lost;
        }
        let is_long = matches!(packet, Packet::Snapshot { .. });
        let mut takes = latency / 2 + chance.around(latency) + link.extra_latency;
        if is_long {
            takes += chance.around(50 * MILLISECOND);
        }
        let mut arrival = now + takes;
        if datagrams {
            if chance.percent(5) {
                arrival += chance.around(500 * MILLISECOND);
            }
        } else if !is_long {
            // Snapshots have connections of their own.
            arrival = arrival.max(link.last_arrival + 1);
            link.last_arrival = arrival;
        }
        let travelling = Travelling {
            from,
            to,
            connection: link.connection,
            packet,
        };
        Fate::Arrives(arrival, travelling)
    }

    /// Whether a packet that arrives now is still awaited.
    pub(crate) fn arrives(&mut self, travelling: &Travelling) -> bool {
        let datagrams = self.datagrams;
        let link = self.link(travelling.from, travelling.to);
        !link.blocked && (datagrams || link.connection == travelling.connection)
    }

    /// Loses what is on its way from one member to another.
    pub(crate) fn break_link(&mut self, from: usize, to: usize) {
        let link = self.link(from, to);
        link.connection += 1;
        link.last_arrival = 0;
    }

    /// Lets nothing through from now on, or everything again.
    pub(crate) fn block(&mut self, from: usize, to: usize, blocked: bool) {
        self.link(from, to).blocked = blocked;
        if blocked {
            self.break_link(from, to);
        }
    }

    pub(crate) fn is_blocked(&mut self, from: usize, to: usize) -> bool {
        self.link(from, to).blocked
    }

    pub(crate) fn slow_down(&mut self, from: usize, to: usize, by: Micros) {
        self.link(from, to).extra_latency = by;
    }

    /// Everything works again, and nothing is lost any more.
    pub(crate) fn heal(&mut self) {
        for link in &mut self.links {
            link.blocked = false;
            link.extra_latency = 0;
        }
        self.drop_permille = 0;
    }

    /// Ends what keeps members apart; what gets lost now and then still does.
    pub(crate) fn reunite(&mut self) {
        for link in &mut self.links {
            link.blocked = false;
            link.extra_latency = 0;
        }
    }
}
