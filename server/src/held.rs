//! What one connection makes the server hold: requests that are not done, and answers that are not sent.
//!
//! HTTP/2 lets a client open thousands of streams and read none. Without a count one connection holds gigabytes: the answers to
//! 2,000 gets of one 1 MiB value took 4 GiB. So every connection has an account. Where it is full, new work of this connection
//! waits until its client has read; a client that does not read for long is cut off. Other connections feel nothing of it.

use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes of answers of one connection that may wait to be sent before its next calls wait.
const UNSENT_MAX: usize = 16 << 20;
/// The same while all connections together are beyond the budget.
const UNSENT_CROWDED: usize = 1 << 20;
/// Bytes of answers to long reads of one connection before its next long reads wait. They are bounded by the budget of all besides.
const LONG_UNSENT_MAX: usize = 64 << 20;
/// Bytes of requests of one connection that may be in progress; more are refused. A hundred of the largest by default fit.
const INBOUND_MAX: usize = 192 << 20;
/// The same while all connections together are beyond the budget.
const INBOUND_CROWDED: usize = 4 << 20;

/// Commands of one connection that return rows and may be on their way together: their answers are made where nobody waits.
const TURNS: usize = 128;

/// How often connections are asked whether their clients read.
pub(crate) const LOOK: Duration = Duration::from_secs(30);
/// A client is left in peace while it has less than this to read.
const STALLED_MIN: usize = 8 << 20;
/// The part of what it had to read that a client must have taken between two looks.
const STALLED_PART: u64 = 32;

/// Answers are handed out in pieces, so that what a client has read is known while it reads.
const PIECE: usize = 256 << 10;
/// Pieces below this are not counted: at most twenty megabytes of them can come together on one connection.
const COUNTED_MIN: usize = 1 << 10;

/// What all connections hold together.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: usize,
    unsent: AtomicUsize,
    inbound: AtomicUsize,
}

impl Budget {
    /// Beyond `bytes` each connection may hold less.
    pub(crate) fn new(bytes: u64) -> Arc<Budget> {
        Arc::new(Budget {
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            unsent: AtomicUsize::new(0),
            inbound: AtomicUsize::new(0),
        })
    }
}

/// One connection's account.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    unsent: AtomicUsize,
    long: AtomicUsize,
    inbound: AtomicUsize,
    /// Bytes that the client has taken so far.
    taken: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
    /// Turns of commands that return rows.
    turns: Semaphore,
}

/// What a client had to read at the last look.
#[derive(Debug, Default)]
pub(crate) struct Look {
    had: usize,
    taken: u64,
}

/// Which kind of answer bytes belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Short,
    /// It has a share of the budget of long reads.
    Long,
}

impl Held {
    pub(crate) fn new(budget: Arc<Budget>) -> Arc<Held> {
        Arc::new(Held {
            budget,
            unsent: AtomicUsize::new(0),
            long: AtomicUsize::new(0),
            inbound: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            waiting: Mutex::default(),
            turns: Semaphore::new(TURNS),
        })
    }

    /// Whether the connection may make another answer of this kind.
    pub(crate) fn has_room(&self, kind: Kind) -> bool {
        match kind {
            Kind::Short => self.unsent.load(Ordering::Relaxed) < self.unsent_max(),
            Kind::Long => self.long.load(Ordering::Relaxed) < LONG_UNSENT_MAX,
        }
    }

    /// Waits until it may; the waker is called then.
    pub(crate) fn poll_room(&self, kind: Kind, waker: &Waker) -> Poll<()> {
        if self.has_room(kind) {
            return Poll::Ready(());
        }
        self.waiting.lock().push(waker.clone());
        // What was taken between the look and the lock wakes nobody.
        if self.has_room(kind) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Waits until the connection may make another answer of this kind.
    pub(crate) async fn room(&self, kind: Kind) {
        std::future::poll_fn(|context| self.poll_room(kind, context.waker())).await;
    }

    /// Waits for a turn to send a command that returns rows. Nobody closes the semaphore: there is always a turn to come.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    fn unsent_max(&self) -> usize {
        if self.budget.unsent.load(Ordering::Relaxed) > self.budget.bytes {
            UNSENT_CROWDED
        } else {
            UNSENT_MAX
        }
    }

    fn to_send(&self, kind: Kind, bytes: usize) {
        match kind {
            Kind::Short => {
                self.unsent.fetch_add(bytes, Ordering::Relaxed);
                self.budget.unsent.fetch_add(bytes, Ordering::Relaxed);
            }
            Kind::Long => {
                self.long.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }

    fn sent(&self, kind: Kind, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
        let left = match kind {
            Kind::Short => {
                self.budget.unsent.fetch_sub(bytes, Ordering::Relaxed);
                self.unsent.fetch_sub(bytes, Ordering::Relaxed) - bytes
            }
            Kind::Long => self.long.fetch_sub(bytes, Ordering::Relaxed) - bytes,
        };
        // Thousands may wait: they are woken when there is room for many, not for each piece.
        let enough = match kind {
            Kind::Short => self.unsent_max() / 2,
            Kind::Long => LONG_UNSENT_MAX / 2,
        };
        if left <= enough {
            let waiting = std::mem::take(&mut *self.waiting.lock());
            for waker in waiting {
                waker.wake();
            }
        }
    }

    /// Whether the client has stopped to read, as far as it had something to read at the last look.
    pub(crate) fn is_stalled(&self, last: &mut Look) -> bool {
        let taken = self.taken.load(Ordering::Relaxed);
        let wanted = (PIECE as u64).max(last.had as u64 / STALLED_PART);
        let stalled = last.had >= STALLED_MIN && taken - last.taken < wanted;
        *last = Look {
            had: self.unsent.load(Ordering::Relaxed) + self.long.load(Ordering::Relaxed),
            taken,
        };
        stalled
    }
}

/// An answer's bytes on their way through HTTP/2: counted until the last reference is dropped, which is when they are written.
struct Piece {
    bytes: Bytes,
    kind: Kind,
    held: Arc<Held>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.held.sent(self.kind, self.bytes.len());
    }
}

/// Bytes of an answer that are handed out piece by piece.
pub(crate) struct Unsent {
    held: Arc<Held>,
    kind: Kind,
    rest: Bytes,
}

impl Unsent {
    pub(crate) fn new(held: Arc<Held>, kind: Kind) -> Unsent {
        Unsent {
            held,
            kind,
            rest: Bytes::new(),
        }
    }

    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes a frame's bytes and gives the first piece.
    pub(crate) fn begin(&mut self, bytes: Bytes) -> Bytes {
        if bytes.len() < COUNTED_MIN {
            return bytes;
        }
        self.held.to_send(self.kind, bytes.len());
        self.rest = bytes;
        self.next().unwrap_or_default()
    }

    /// The next piece of what was begun.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        if self.rest.is_empty() {
            return None;
        }
        let bytes = self.rest.split_to(PIECE.min(self.rest.len()));
        Some(Bytes::from_owner(Piece {
            bytes,
            kind: self.kind,
            held: self.held.clone(),
        }))
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if !self.rest.is_empty() {
            self.held.sent(self.kind, self.rest.len());
        }
    }
}

/// The bytes of one request, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Inbound {
    held: Arc<Held>,
    bytes: AtomicUsize,
}

impl Inbound {
    pub(crate) fn new(held: Arc<Held>) -> Inbound {
        Inbound {
            held,
            bytes: AtomicUsize::new(0),
        }
    }

    /// Counts more; `false` when the connection holds too much already.
    #[must_use]
    pub(crate) fn add(&self, bytes: usize) -> bool {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let all = self.held.budget.inbound.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let own = self.held.inbound.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let most = if all > self.held.budget.bytes {
            INBOUND_CROWDED
        } else {
            INBOUND_MAX
        };
        own <= most
    }

    /// A message of the request is complete: what follows is the next one.
    pub(crate) fn reset(&self) {
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        self.held.inbound.fetch_sub(bytes, Ordering::Relaxed);
        self.held.budget.inbound.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Flag>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn calls_wait_until_the_client_has_read() {
        let held = Held::new(Budget::new(1 << 30));
        let mut unsent = Unsent::new(held.clone(), Kind::Short);
        let mut pieces = vec![unsent.begin(vec![0; UNSENT_MAX].into())];
        while let Some(piece) = unsent.next() {
            pieces.push(piece);
        }
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(flag.clone());
        assert!(held.poll_room(Kind::Short, &waker).is_pending());
        assert!(held.has_room(Kind::Long));
        pieces.truncate(pieces.len() / 2 + 1);
        assert!(!flag.0.load(Ordering::Relaxed));
        pieces.clear();
        assert!(flag.0.load(Ordering::Relaxed));
        assert!(held.has_room(Kind::Short));
    }

    #[test]
    fn an_answer_that_is_given_up_is_no_longer_counted() {
        let budget = Budget::new(1 << 30);
        let held = Held::new(budget.clone());
        let mut unsent = Unsent::new(held.clone(), Kind::Short);
        let piece = unsent.begin(vec![0; 3 * PIECE].into());
        assert_eq!(piece.len(), PIECE);
        assert_eq!(budget.unsent.load(Ordering::Relaxed), 3 * PIECE);
        drop(unsent);
        drop(piece);
        assert_eq!(budget.unsent.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_does_not_read_is_stalled_and_who_reads_slowly_is_not() {
        let held = Held::new(Budget::new(1 << 30));
        let mut unsent = Unsent::new(held.clone(), Kind::Long);
        let first = unsent.begin(vec![0; 32 << 20].into());
        let mut look = Look::default();
        assert!(
            !held.is_stalled(&mut look),
            "nothing to read at the look before"
        );
        assert!(held.is_stalled(&mut look));
        drop(first);
        for _ in 0..3 {
            drop(unsent.next());
        }
        assert!(!held.is_stalled(&mut look));
    }

    #[test]
    fn a_crowd_leaves_less_for_each() {
        let budget = Budget::new(10 << 20);
        let one = Inbound::new(Held::new(budget.clone()));
        assert!(one.add(9 << 20));
        let two = Inbound::new(Held::new(budget.clone()));
        assert!(two.add(3 << 20));
        assert!(!two.add(2 << 20));
        drop(one);
        assert!(two.add(1 << 20));
        two.reset();
        assert_eq!(budget.inbound.load(Ordering::Relaxed), 0);
    }
}
