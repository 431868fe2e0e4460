//! What a round trip of a message costs. By hand: `cargo test -p holdfast-server --release -- --ignored --nocapture cost`.

use super::*;
use rustix::time::{ClockId, clock_gettime};

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).expect("positive"),
        u32::try_from(time.tv_nsec).expect("nanoseconds"),
    )
}

/// Sends what it gets back, on the thread that got it.
struct Echo {
    net: PeerNet,
    inner: Arc<Recorder>,
    left: Mutex<u64>,
    done: Mutex<Sender<()>>,
}

impl PeerHandler for Echo {
    fn check(&self, hello: &Hello) -> Result<Known, Refusal> {
        self.inner.check(hello)
    }
    fn receive(&self, from: u64, messages: Vec<Bytes>) {
        let mut left = self.left.lock();
        *left = left.saturating_sub(1);
        if *left == 0 {
            let _ = self.done.lock().send(());
            return;
        }
        self.net
            .send(messages.into_iter().map(|message| (from, message)));
    }
    fn connected(&self, peer: u64) {
        self.inner.connected(peer);
    }
    fn lost(&self, peer: u64) {
        self.inner.lost(peer);
    }
    fn refused(&self, peer: u64, refusal: Refusal) {
        self.inner.refused(peer, refusal);
    }
    fn gone(&self, peer: u64) {
        self.inner.gone(peer);
    }
    fn snapshot_sent(&self, to: u64, ok: bool) {
        self.inner.snapshot_sent(to, ok);
    }
    fn begin_snapshot(&self, from: u64, message: Bytes) -> Result<Box<dyn SnapshotSink>, Status> {
        self.inner.begin_snapshot(from, message)
    }
    fn keep_alive(&self, from: u64, request: KeepAlive) -> Reply<'_, Vec<i64>> {
        self.inner.keep_alive(from, request)
    }
    fn time_to_live(&self, from: u64, request: TimeToLive) -> Reply<'_, Option<LeaseTimes>> {
        self.inner.time_to_live(from, request)
    }
    fn change_members(&self, from: u64, request: ChangeMembers) -> Reply<'_, u64> {
        self.inner.change_members(from, request)
    }
    fn hash(&self, from: u64, at: HashAt) -> Reply<'_, Hashes> {
        self.inner.hash(from, at)
    }
    fn describe(&self) -> Description {
        self.inner.describe()
    }
}

fn ping_pong(length: usize, there: &Security, here: &Security) {
    const MESSAGES: u64 = 40_000;
    let (done, ended) = channel();
    let nodes = [(1, there), (2, here)].map(|(id, security)| {
        let (told, events) = channel();
        let inner = Arc::new(Recorder {
            told: Mutex::new(told),
            check: Mutex::new(Box::new(|hello| {
                Ok(Known {
                    name: Some(name(hello.from).to_owned()),
                    named_elsewhere: false,
                })
            })),
            begin: Mutex::new(Arc::new(nobody)),
            gate: Mutex::default(),
        });
        let net = PeerNet::new(PeerOptions {
            me: me(id),
            security: security.clone(),
            read_timeout: SOON,
            write_timeout: SOON,
            metrics: PeerMetrics::detached(),
        })
        .expect("a net");
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        socket.set_nonblocking(true).expect("not blocking");
        let address = socket.local_addr().expect("address");
        let tls = security.tls.is_some();
        let handler = Arc::new(Echo {
            net: net.clone(),
            inner,
            left: Mutex::new(MESSAGES / 2),
            done: Mutex::new(done.clone()),
        });
        let listener = PeerListener { socket, tls };
        net.run(vec![listener], handler).expect("a thread");
        let scheme = if tls { "https" } else { "http" };
        let urls = vec![format!("{scheme}://{address}")];
        (net, events, PeerAddress { id, urls })
    });
    let [one, two] = &nodes;
    one.0.set_members(std::slice::from_ref(&two.2));
    two.0.set_members(std::slice::from_ref(&one.2));
    for (node, peer) in [(one, 2), (two, 1)] {
        let told = node.1.recv_timeout(SOON).expect("told");
        assert_eq!(told, Told::Connected(peer));
    }
    let (begun, used) = (Instant::now(), cpu());
    one.0.send([(2, Bytes::from(vec![1; length]))]);
    ended.recv_timeout(6 * SOON).expect("the end");
    let (took, used) = (begun.elapsed(), cpu().saturating_sub(used));
    println!(
        "{length:>8} bytes, tls {}: {:.0} round trips/s, {:.1} µs of CPU for each message",
        one.2.urls[0].starts_with("https"),
        (MESSAGES / 2) as f64 / took.as_secs_f64(),
        used.as_secs_f64() * 1e6 / MESSAGES as f64,
    );
    one.0.stop();
    two.0.stop();
}

#[test]
#[ignore = "measures"]
fn cost_of_a_message() {
    for length in [100, 25 << 10, 256 << 10] {
        ping_pong(length, &plain(), &plain());
    }
    let dir = tempfile::tempdir().expect("directory");
    let peers = TestPeers::new(dir.path(), &["one", "two"]).expect("certificates");
    let (there, here) = (strict(&peers, "one"), strict(&peers, "two"));
    ping_pong(25 << 10, &there, &here);
}
