use super::*;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

const PIECE: usize = 200 << 10;

/// Takes pieces, watching how far the reader is ahead.
struct Sink {
    taken: usize,
    read: Arc<AtomicUsize>,
    most_ahead: Arc<AtomicUsize>,
    end: Sender<Result<usize, &'static str>>,
    verdict: Result<(), Status>,
    finished: bool,
}

impl SnapshotSink for Sink {
    fn push(&mut self, piece: Bytes) -> Result<(), Status> {
        if self.taken == 0 {
            // The reader runs as far as it is let; what is looked for is where it stops.
            let deadline = Instant::now() + SOON;
            while self.read.load(Ordering::SeqCst) < 4 << 20 && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        self.taken += piece.len();
        let ahead = self.read.load(Ordering::SeqCst).saturating_sub(self.taken);
        self.most_ahead.fetch_max(ahead, Ordering::SeqCst);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), Status> {
        self.finished = true;
        let _ = self.end.send(Ok(self.taken));
        self.verdict.clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.end.send(Err("broken off"));
        }
    }
}

struct Transfer {
    nodes: [Node; 2],
    read: Arc<AtomicUsize>,
    most_ahead: Arc<AtomicUsize>,
    end: Receiver<Result<usize, &'static str>>,
}

/// Member 1 can send snapshots to member 2, which says `verdict` in the end.
fn transfer(verdict: Result<(), Status>) -> Transfer {
    let nodes = pair([plain(), plain()]);
    let read = Arc::new(AtomicUsize::new(0));
    let most_ahead = Arc::new(AtomicUsize::new(0));
    let (sender, end) = channel();
    let (at_sink, ahead) = (read.clone(), most_ahead.clone());
    *nodes[1].handler.begin.lock() = Arc::new(move |from, message| {
        assert_eq!((from, &message[..]), (1, &b"message"[..]));
        Ok(Box::new(Sink {
            taken: 0,
            read: at_sink.clone(),
            most_ahead: ahead.clone(),
            end: sender.clone(),
            verdict: verdict.clone(),
            finished: false,
        }))
    });
    Transfer {
        nodes,
        read,
        most_ahead,
        end,
    }
}

impl Transfer {
    fn pieces(&self, count: usize) -> impl Iterator<Item = io::Result<Bytes>> + Send + use<> {
        let read = self.read.clone();
        (0..count).map(move |_| {
            read.fetch_add(PIECE, Ordering::SeqCst);
            Ok(Bytes::from(vec![5; PIECE]))
        })
    }

    fn send(&self, pieces: impl Iterator<Item = io::Result<Bytes>> + Send + 'static) {
        let message = Bytes::from_static(b"message");
        self.nodes[0]
            .net
            .send_snapshot(2, message, Box::new(pieces));
    }

    fn sent(&self, ok: bool) {
        let told = |told| match told {
            Told::SnapshotSent(2, ok) => Some(ok),
            _ => None,
        };
        assert_eq!(self.nodes[0].wait("what came of a snapshot", told), ok);
    }

    fn end(&self) -> Result<usize, &'static str> {
        self.end.recv_timeout(SOON).expect("an end")
    }
}

#[test]
fn a_snapshot_is_read_no_faster_than_it_is_taken() {
    let transfer = transfer(Ok(()));
    let pieces = 400;
    transfer.send(transfer.pieces(pieces));
    assert_eq!(transfer.end(), Ok(pieces * PIECE));
    transfer.sent(true);
    let ahead = transfer.most_ahead.load(Ordering::SeqCst);
    assert!((4 << 20..12 << 20).contains(&ahead), "{ahead}");
}

#[test]
fn messages_go_on_beside_a_snapshot() {
    let transfer = transfer(Ok(()));
    transfer.send(transfer.pieces(400));
    let [one, two] = &transfer.nodes;
    for _ in 0..20 {
        one.net.send([(2, Bytes::from_static(b"heartbeat"))]);
        two.received(1, 1);
    }
    transfer.sent(true);
}

#[test]
fn pieces_of_any_size_arrive() {
    let transfer = transfer(Ok(()));
    transfer.read.store(4 << 20, Ordering::SeqCst);
    let sizes = [1, 0, (256 << 10) + 1, 3 << 20, 0];
    transfer.send(sizes.into_iter().map(|size| Ok(Bytes::from(vec![1; size]))));
    assert_eq!(transfer.end(), Ok(sizes.iter().sum()));
    transfer.sent(true);
}

#[test]
fn a_reader_that_fails_breaks_the_snapshot_off() {
    let transfer = transfer(Ok(()));
    let pieces = transfer.pieces(30);
    transfer.send(pieces.chain([Err(io::Error::other("bad sector"))]));
    assert_eq!(transfer.end(), Err("broken off"));
    transfer.sent(false);
    // The next one goes through.
    transfer.send(transfer.pieces(3));
    assert_eq!(transfer.end(), Ok(3 * PIECE));
    transfer.sent(true);
}

#[test]
fn a_snapshot_that_cannot_be_used_is_told() {
    let transfer = transfer(Err(Status::data_loss("checksum")));
    transfer.read.store(4 << 20, Ordering::SeqCst);
    transfer.send(transfer.pieces(3));
    assert_eq!(transfer.end(), Ok(3 * PIECE));
    transfer.sent(false);
}

#[test]
fn a_receiver_that_wants_none_is_told_of_at_once() {
    let transfer = transfer(Ok(()));
    *transfer.nodes[1].handler.begin.lock() = Arc::new(nobody);
    transfer.send(transfer.pieces(1_000));
    transfer.sent(false);
    transfer.nodes[0]
        .net
        .send_snapshot(9, Bytes::from_static(b"m"), Box::new(std::iter::empty()));
    transfer.nodes[0].wait_for(&Told::SnapshotSent(9, false));
}

#[test]
fn a_member_gets_one_snapshot_at_a_time() {
    let transfer = transfer(Ok(()));
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    // The first is held open by its reader.
    let held = transfer.pieces(1).inspect(move |_| {
        let _ = wait.lock().recv_timeout(SOON);
    });
    transfer.send(held);
    transfer.send(transfer.pieces(1));
    transfer.sent(false);
    // Of the second, nothing was even read.
    assert!(transfer.read.load(Ordering::SeqCst) <= PIECE);
    transfer.read.store(4 << 20, Ordering::SeqCst);
    let _ = go.send(());
    transfer.sent(true);
    assert_eq!(transfer.end(), Ok(PIECE));
}

#[test]
fn a_sender_that_goes_away_leaves_nothing_behind() {
    let transfer = transfer(Ok(()));
    transfer.read.store(4 << 20, Ordering::SeqCst);
    let (_go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let pieces = transfer.pieces(2).chain(std::iter::once_with(move || {
        let _ = wait.lock().recv_timeout(SOON);
        Err(io::Error::other("too late"))
    }));
    transfer.send(pieces);
    let deadline = Instant::now() + SOON;
    while transfer.most_ahead.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline, "nothing arrived");
        std::thread::sleep(Duration::from_millis(5));
    }
    transfer.nodes[0].net.stop();
    assert_eq!(transfer.end(), Err("broken off"));
}
