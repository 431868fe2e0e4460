use super::super::pool::{Allowance, PoolUse};
use super::*;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// What a test sees of a piece of work.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Ran(&'static str),
    Refused(&'static str, LoginError),
}

/// Work that runs until the test lets it end.
struct Piece {
    name: &'static str,
    source: u32,
    memory_bytes: u64,
    trusted: bool,
    wanted: bool,
    /// Begins only when this is set.
    ready: Arc<AtomicBool>,
    seen: mpsc::Sender<Seen>,
    end: Option<mpsc::Receiver<()>>,
}

impl Work for Piece {
    fn turn(&self) -> Turn {
        Turn {
            source: Source::of(Some(address(self.source))),
            trusted: self.trusted,
        }
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    fn is_wanted(&self) -> bool {
        self.wanted
    }

    fn begin(&mut self, _: Instant) -> Begin {
        if self.ready.load(Ordering::SeqCst) {
            Begin::Now
        } else {
            Begin::Later
        }
    }

    fn run(self: Box<Self>, _: Duration) {
        self.seen.send(Seen::Ran(self.name)).unwrap();
        if let Some(end) = self.end {
            // An end that was dropped is an end.
            let _ = end.recv_timeout(LONG);
        }
    }

    fn refuse(self: Box<Self>, why: LoginError) {
        self.seen.send(Seen::Refused(self.name, why)).unwrap();
    }
}

/// A pool, and what it did.
struct Bench {
    pool: Pool,
    seen: mpsc::Receiver<Seen>,
    tell: mpsc::Sender<Seen>,
}

impl Bench {
    fn new(threads: usize, memory_bytes: u64, queue: usize, patience: Duration) -> Bench {
        let (tell, seen) = mpsc::channel();
        let limits = PoolLimits {
            threads,
            memory_bytes,
            queue,
            patience,
            share: 1.0,
        };
        let pool = Pool::start(limits).unwrap();
        Bench { pool, seen, tell }
    }

    fn piece(&self, name: &'static str, source: u32, memory_bytes: u64) -> Piece {
        Piece {
            name,
            source,
            memory_bytes,
            trusted: false,
            wanted: true,
            ready: Arc::new(AtomicBool::new(true)),
            seen: self.tell.clone(),
            end: None,
        }
    }

    fn submit(&self, name: &'static str, source: u32) {
        self.pool.submit(Box::new(self.piece(name, source, 1)));
    }

    /// Submits work that runs until what is returned is dropped.
    fn hold(&self, name: &'static str, source: u32, memory_bytes: u64) -> mpsc::Sender<()> {
        self.hold_piece(self.piece(name, source, memory_bytes))
    }

    fn hold_trusted(&self, name: &'static str, source: u32, memory_bytes: u64) -> mpsc::Sender<()> {
        let mut piece = self.piece(name, source, memory_bytes);
        piece.trusted = true;
        self.hold_piece(piece)
    }

    fn hold_piece(&self, mut piece: Piece) -> mpsc::Sender<()> {
        let (end, ended) = mpsc::channel();
        piece.end = Some(ended);
        self.pool.submit(Box::new(piece));
        end
    }

    fn next(&self) -> Seen {
        self.seen.recv_timeout(LONG).unwrap()
    }

    fn ran(&self) -> &'static str {
        match self.next() {
            Seen::Ran(name) => name,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn sources_take_turns() {
    let bench = Bench::new(1, 100, 64, LONG);
    let hold = bench.hold("first", 9, 1);
    assert_eq!(bench.ran(), "first");
    for name in ["a1", "a2", "a3"] {
        bench.submit(name, 1);
    }
    bench.submit("b1", 2);
    bench.submit("b2", 2);
    bench.submit("c1", 3);
    drop(hold);
    let order: Vec<_> = (0..6).map(|_| bench.ran()).collect();
    assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
}

#[test]
fn a_full_queue_takes_from_whoever_has_most() {
    let bench = Bench::new(1, 100, 4, LONG);
    let hold = bench.hold("first", 9, 1);
    assert_eq!(bench.ran(), "first");
    for name in ["a1", "a2", "a3", "a4", "a5"] {
        bench.submit(name, 1);
    }
    assert_eq!(bench.next(), Seen::Refused("a5", LoginError::Busy));
    bench.submit("b1", 2);
    assert_eq!(bench.next(), Seen::Refused("a4", LoginError::Busy));
    bench.submit("c1", 3);
    assert_eq!(bench.next(), Seen::Refused("a3", LoginError::Busy));
    // Nobody has two more than the newcomer would have.
    bench.submit("b2", 2);
    assert_eq!(bench.next(), Seen::Refused("b2", LoginError::Busy));
    assert_eq!(bench.pool.usage().waiting, 4);
    drop(hold);
    let order: Vec<_> = (0..4).map(|_| bench.ran()).collect();
    assert_eq!(order, ["a1", "b1", "c1", "a2"]);
}

#[test]
fn trusted_work_is_not_shut_out() {
    let bench = Bench::new(1, 100, 2, LONG);
    let hold = bench.hold("first", 9, 1);
    assert_eq!(bench.ran(), "first");
    for (name, source) in [("a", 1), ("b", 2), ("c", 3)] {
        bench.submit(name, source);
    }
    assert_eq!(bench.next(), Seen::Refused("c", LoginError::Busy));
    for (name, source) in [("x", 4), ("y", 5)] {
        let mut piece = bench.piece(name, source, 1);
        piece.trusted = true;
        bench.pool.submit(Box::new(piece));
    }
    drop(hold);
    let order: Vec<_> = (0..4).map(|_| bench.ran()).collect();
    assert_eq!(order, ["x", "a", "y", "b"]);
}

#[test]
fn memory_is_bounded_and_large_pieces_are_not_overtaken() {
    let bench = Bench::new(3, 100, 64, LONG);
    let small = bench.hold_trusted("small", 1, 40);
    assert_eq!(bench.ran(), "small");
    // Its turn is next, in whatever class the others are.
    let large = bench.hold("large", 2, 90);
    let after = bench.hold_trusted("after", 3, 40);
    let last = bench.hold("last", 4, 40);
    let used = PoolUse {
        waiting: 3,
        running: 1,
        memory_bytes: 40,
    };
    assert_eq!(bench.pool.usage(), used);
    drop(small);
    assert_eq!(bench.ran(), "large");
    assert_eq!(bench.pool.usage().memory_bytes, 90);
    drop(large);
    assert_eq!(bench.ran(), "after");
    assert_eq!(bench.ran(), "last");
    let used = PoolUse {
        waiting: 0,
        running: 2,
        memory_bytes: 80,
    };
    assert_eq!(bench.pool.usage(), used);
    let alone = bench.hold("alone", 5, 1_000);
    drop(after);
    drop(last);
    assert_eq!(bench.ran(), "alone", "more than all memory: by itself");
    assert_eq!(bench.pool.usage().running, 1);
    drop(alone);
}

#[test]
fn what_must_wait_lets_others_go_first() {
    let bench = Bench::new(1, 100, 64, LONG);
    let hold = bench.hold("first", 9, 1);
    assert_eq!(bench.ran(), "first");
    let mut later = bench.piece("later", 1, 1);
    let ready = Arc::new(AtomicBool::new(false));
    later.ready = ready.clone();
    bench.pool.submit(Box::new(later));
    bench.submit("same source", 1);
    let last = bench.hold("other source", 2, 1);
    drop(hold);
    assert_eq!(bench.ran(), "same source");
    assert_eq!(bench.ran(), "other source");
    // Looked at again when something ends.
    ready.store(true, Ordering::SeqCst);
    drop(last);
    assert_eq!(bench.ran(), "later");
}

#[test]
fn work_for_nobody_is_not_done() {
    let bench = Bench::new(1, 100, 64, LONG);
    let hold = bench.hold("first", 9, 1);
    assert_eq!(bench.ran(), "first");
    let mut gone = bench.piece("gone", 1, 1);
    gone.wanted = false;
    bench.pool.submit(Box::new(gone));
    bench.submit("wanted", 1);
    drop(hold);
    assert_eq!(bench.next(), Seen::Refused("gone", LoginError::Busy));
    assert_eq!(bench.ran(), "wanted");
    // Nobody waits for ever, either.
    let bench = Bench::new(1, 100, 64, Duration::ZERO);
    bench.submit("late", 1);
    assert_eq!(bench.next(), Seen::Refused("late", LoginError::Busy));
}

#[test]
fn a_stopped_pool_finishes_only_what_runs() {
    let bench = Bench::new(1, 100, 64, LONG);
    let hold = bench.hold("first", 9, 1);
    assert_eq!(bench.ran(), "first");
    bench.submit("waits", 1);
    bench.pool.stop();
    assert_eq!(bench.next(), Seen::Refused("waits", LoginError::Stopping));
    bench.submit("comes", 1);
    assert_eq!(bench.next(), Seen::Refused("comes", LoginError::Stopping));
    drop(hold);
}

/// Hashing as fast as a thread may takes its share in the long run, and a burst goes through at once.
#[test]
fn a_thread_rests_in_proportion_to_its_work() {
    let (begin, piece) = (Instant::now(), Duration::from_millis(25));
    let mut allowance = Allowance::new(0.2, begin);
    let (mut now, mut used, mut at_once) = (begin, Duration::ZERO, 0);
    while now < begin + Duration::from_secs(100) {
        now += piece;
        used += piece;
        let rest_until = allowance.spend(piece, now);
        if rest_until <= now && now < begin + Duration::from_secs(1) {
            at_once += 1;
        }
        now = now.max(rest_until);
    }
    let share = used.as_secs_f64() / 100.0;
    assert!((0.19..0.21).contains(&share), "{share}");
    assert!((10..20).contains(&at_once), "{at_once}");
    // Who has rested long has no more than a burst to use.
    now += Duration::from_secs(3600);
    let rest_until = allowance.spend(Duration::from_secs(1), now);
    assert!(rest_until > now + Duration::from_secs(2));
}
