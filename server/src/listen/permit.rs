//! How many connections there are: in all, from one source, and at each worker.

use crate::metrics::Metrics;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Counts connections against their caps.
pub(super) struct Connections {
    most: usize,
    most_per_source: Option<usize>,
    metrics: Arc<Metrics>,
    open: Mutex<Open>,
}

struct Open {
    total: usize,
    by_source: HashMap<Source, usize>,
    by_worker: Vec<usize>,
    /// Who is asked first, so that equals take turns.
    next: usize,
}

/// An address that one party holds: an IPv6 host has a whole /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4([u8; 4]),
    V6([u16; 4]),
}

impl Source {
    fn of(ip: IpAddr) -> Source {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

impl Connections {
    pub(super) fn new(
        workers: usize,
        most: usize,
        most_per_source: Option<usize>,
        metrics: Arc<Metrics>,
    ) -> Arc<Connections> {
        Arc::new(Connections {
            most,
            most_per_source,
            metrics,
            open: Mutex::new(Open {
                total: 0,
                by_source: HashMap::new(),
                by_worker: vec![0; workers.max(1)],
                next: 0,
            }),
        })
    }

    /// Takes a connection in and chooses its worker: the one with the fewest connections, and among equals the next in turn.
    ///
    /// # Errors
    ///
    /// The cap that it would exceed, as a word for the metric.
    pub(super) fn admit(self: &Arc<Self>, peer: Option<IpAddr>) -> Result<Permit, &'static str> {
        let mut open = self.open.lock();
        if open.total >= self.most {
            return Err("too_many");
        }
        // Unix sockets have no address; who may connect there is a matter of their mode.
        let source = match (self.most_per_source, peer) {
            (Some(most), Some(ip)) => {
                let source = Source::of(ip);
                let count = open.by_source.entry(source).or_default();
                if *count >= most {
                    return Err("too_many_from_source");
                }
                *count += 1;
                Some(source)
            }
            _ => None,
        };
        open.total += 1;
        let workers = open.by_worker.len();
        let worker = (open.next..open.next + workers)
            .map(|turn| turn % workers)
            .min_by_key(|worker| open.by_worker[*worker])
            .unwrap_or_default();
        open.by_worker[worker] += 1;
        open.next = (worker + 1) % workers;
        drop(open);
        self.metrics.connection_opened();
        Ok(Permit {
            connections: self.clone(),
            source,
            worker,
        })
    }
}

/// A connection's place among the permitted ones; given back when it is dropped.
pub(crate) struct Permit {
    connections: Arc<Connections>,
    source: Option<Source>,
    worker: usize,
}

impl Permit {
    /// The worker that was chosen.
    pub(super) fn worker(&self) -> usize {
        self.worker
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        open.total -= 1;
        open.by_worker[self.worker] -= 1;
        if let Some(source) = self.source
            && let Some(count) = open.by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                open.by_source.remove(&source);
            }
        }
        drop(open);
        self.connections.metrics.connection_closed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_the_fewest_are() {
        let connections = Connections::new(3, 100, None, Metrics::new(false));
        let mut permits: Vec<_> = (0..6)
            .map(|_| connections.admit(None).expect("room"))
            .collect();
        let workers: Vec<_> = permits.iter().map(Permit::worker).collect();
        assert_eq!(workers, [0, 1, 2, 0, 1, 2]);
        // Those of worker 1 end; the next ones go there.
        permits.retain(|permit| permit.worker != 1);
        let next: Vec<_> = (0..3)
            .map(|_| {
                let permit = connections.admit(None).expect("room");
                let worker = permit.worker();
                permits.push(permit);
                worker
            })
            .collect();
        assert_eq!(next, [1, 1, 2]);
    }

    #[test]
    fn caps_hold_and_are_given_back() {
        let connections = Connections::new(1, 3, Some(2), Metrics::new(false));
        let ip = |text: &str| Some(text.parse().expect("address"));
        let one = connections.admit(ip("2001:db8::1")).expect("room");
        let _two = connections.admit(ip("2001:db8::2")).expect("room");
        assert_eq!(
            connections.admit(ip("2001:db8::3")).err(),
            Some("too_many_from_source")
        );
        let _three = connections.admit(ip("10.0.0.1")).expect("room");
        assert_eq!(connections.admit(ip("10.0.0.2")).err(), Some("too_many"));
        drop(one);
        let _four = connections.admit(ip("2001:db8::3")).expect("room");
        assert_eq!(connections.open.lock().by_source.len(), 2);
    }

    #[test]
    fn a_mapped_address_is_the_same_source() {
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().expect("address");
        let plain: IpAddr = "10.0.0.1".parse().expect("address");
        assert_eq!(Source::of(mapped), Source::of(plain));
    }
}
