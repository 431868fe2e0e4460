//! Nets on loopback that speak to each other, and to clients that do not behave.

mod calls;
mod cost;
mod messages;
mod refusals;
mod snapshots;

use super::dial::{Connection, KeepAlive as Pings};
use super::*;
use crate::metrics::PeerMetrics;
use bytes::Bytes;
use holdfast_certs::PeerTls;
use holdfast_certs::testing::TestPeers;
use parking_lot::Mutex;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use tonic::Status;

/// How long anything that must happen may take. Generous: debug binaries share two cores with others.
const SOON: Duration = Duration::from_secs(20);

/// The tenant for whose hash a member is asked in vain.
const NO_ANSWER: u32 = 8;

/// What a handler was told.
#[derive(Debug, PartialEq)]
enum Told {
    Received(u64, Vec<Bytes>),
    Connected(u64),
    Lost(u64),
    Gone(u64),
    Refused(u64, Refusal),
    SnapshotSent(u64, bool),
}

type Begin = dyn Fn(u64, Bytes) -> Result<Box<dyn SnapshotSink>, Status> + Send + Sync;
type Check = dyn Fn(&Hello) -> Result<Known, Refusal> + Send + Sync;

/// Writes down what it is told, and does as a test says.
struct Recorder {
    told: Mutex<Sender<Told>>,
    check: Mutex<Box<Check>>,
    begin: Mutex<Arc<Begin>>,
    /// Held by a test that wants messages to wait.
    gate: Mutex<()>,
}

impl PeerHandler for Recorder {
    fn check(&self, hello: &Hello) -> Result<Known, Refusal> {
        (self.check.lock())(hello)
    }

    fn receive(&self, from: u64, messages: Vec<Bytes>) {
        drop(self.gate.lock());
        self.tell(Told::Received(from, messages));
    }

    fn connected(&self, peer: u64) {
        self.tell(Told::Connected(peer));
    }

    fn lost(&self, peer: u64) {
        self.tell(Told::Lost(peer));
    }

    fn refused(&self, peer: u64, refusal: Refusal) {
        self.tell(Told::Refused(peer, refusal));
    }

    fn gone(&self, peer: u64) {
        self.tell(Told::Gone(peer));
    }

    fn snapshot_sent(&self, to: u64, ok: bool) {
        self.tell(Told::SnapshotSent(to, ok));
    }

    fn begin_snapshot(&self, from: u64, message: Bytes) -> Result<Box<dyn SnapshotSink>, Status> {
        let begin = self.begin.lock().clone();
        begin(from, message)
    }

    fn keep_alive(&self, from: u64, request: KeepAlive) -> Reply<'_, Vec<i64>> {
        Box::pin(async move {
            if request.tenant == 9 {
                return Err(Status::permission_denied("etcdserver: permission denied"));
            }
            let ttl = |lease: &i64| lease + i64::try_from(from).unwrap_or(0);
            Ok(request.leases.iter().map(ttl).collect())
        })
    }

    fn time_to_live(&self, _: u64, request: TimeToLive) -> Reply<'_, Option<LeaseTimes>> {
        Box::pin(async move {
            Ok((request.lease == 5).then_some(LeaseTimes {
                granted_secs: 60,
                remaining_secs: 42,
            }))
        })
    }

    fn change_members(&self, _: u64, request: ChangeMembers) -> Reply<'_, u64> {
        Box::pin(async move {
            assert_eq!(request.change, MembershipChange::Learner);
            Ok(request.member + request.command.len() as u64)
        })
    }

    fn hash(&self, _: u64, at: HashAt) -> Reply<'_, Hashes> {
        Box::pin(async move {
            if at.tenant == NO_ANSWER {
                std::future::pending::<()>().await;
            }
            Ok(Hashes {
                hash: 7,
                hash_revision: at.revision,
                compact_revision: 3,
                auth_hash: 8,
                applied_index: 9,
            })
        })
    }

    fn describe(&self) -> Description {
        Description {
            cluster: 7,
            member: 1,
            name: "one".to_owned(),
            instance: 101,
            version: PeerVersion::default(),
            strict: true,
            leader: 1,
            members: vec![DescribedMember {
                id: 1,
                name: "one".to_owned(),
                peer_urls: vec!["http://10.0.0.1:2380".to_owned()],
                ..DescribedMember::default()
            }],
        }
    }
}

impl Recorder {
    fn tell(&self, told: Told) {
        // A test that has ended listens no more.
        let _ = self.told.lock().send(told);
    }
}

/// A member of a test.
struct Node {
    net: PeerNet,
    handler: Arc<Recorder>,
    told: Receiver<Told>,
    metrics: PeerMetrics,
    address: SocketAddr,
    tls: bool,
    id: u64,
}

fn me(id: u64) -> Me {
    Me {
        cluster: 7,
        member: id,
        name: name(id).to_owned(),
        instance: 100 + id,
        version: PeerVersion {
            level: 1,
            text: "3.7.1".to_owned(),
        },
    }
}

fn name(id: u64) -> &'static str {
    match id {
        1 => "one",
        2 => "two",
        _ => "three",
    }
}

fn plain() -> Security {
    Security {
        tls: None,
        plaintext: true,
    }
}

fn strict(peers: &TestPeers, name: &str) -> Security {
    let tls = PeerTls::load(peers.settings(name)).expect("certificates");
    Security {
        tls: Some(Arc::new(tls)),
        plaintext: false,
    }
}

fn nobody(_: u64, _: Bytes) -> Result<Box<dyn SnapshotSink>, Status> {
    Err(Status::unimplemented("no snapshots here"))
}

impl Node {
    /// A member on any port.
    fn new(me: Me, security: Security) -> Node {
        Node::at("127.0.0.1:0".parse().expect("address"), me, security)
    }

    fn at(address: SocketAddr, me: Me, security: Security) -> Node {
        let socket = TcpListener::bind(address).expect("a port");
        socket.set_nonblocking(true).expect("not blocking");
        let address = socket.local_addr().expect("address");
        let tls = security.tls.is_some();
        let (sender, told) = channel();
        let handler = Arc::new(Recorder {
            told: Mutex::new(sender),
            check: Mutex::new(Box::new(|hello| {
                Ok(Known {
                    name: Some(name(hello.from).to_owned()),
                    named_elsewhere: false,
                })
            })),
            begin: Mutex::new(Arc::new(nobody)),
            gate: Mutex::default(),
        });
        let metrics = PeerMetrics::detached();
        let id = me.member;
        let net = PeerNet::new(PeerOptions {
            me,
            security,
            read_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(5),
            metrics: metrics.clone(),
        })
        .expect("a net");
        let listener = PeerListener { socket, tls };
        net.run(vec![listener], handler.clone()).expect("a thread");
        Node {
            net,
            handler,
            told,
            metrics,
            address,
            tls,
            id,
        }
    }

    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    fn peer(&self) -> PeerAddress {
        PeerAddress {
            id: self.id,
            urls: vec![self.url()],
        }
    }

    /// Waits until it is told something of which `wanted` makes something.
    fn wait<T>(&self, what: &str, mut wanted: impl FnMut(Told) -> Option<T>) -> T {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left) {
                Ok(told) => {
                    if let Some(wanted) = wanted(told) {
                        return wanted;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("member {} was never told: {what}", self.id)
                }
            }
        }
    }

    fn wait_for(&self, expected: &Told) {
        self.wait(&format!("{expected:?}"), |told| {
            (told == *expected).then_some(())
        });
    }

    /// Waits for so many messages of one member.
    fn received(&self, from: u64, count: usize) -> Vec<Bytes> {
        let mut all = Vec::new();
        self.wait(&format!("{count} messages of {from}"), |told| match told {
            Told::Received(sender, messages) if sender == from => {
                all.extend(messages);
                (all.len() >= count).then_some(())
            }
            _ => None,
        });
        all
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.net.stop();
    }
}

/// Two members that know each other.
fn pair(security: [Security; 2]) -> [Node; 2] {
    let [first, second] = security;
    let one = Node::new(me(1), first);
    let two = Node::new(me(2), second);
    one.net.set_members(&[two.peer()]);
    two.net.set_members(&[one.peer()]);
    one.wait_for(&Told::Connected(2));
    two.wait_for(&Told::Connected(1));
    [one, two]
}

/// Runs a client that is no net. Its connections have a thread of their own, so that it may wait for a member.
fn client<T>(client: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        tokio::time::timeout(SOON, client)
            .await
            .expect("the client ends")
    })
}

async fn connect(node: &Node) -> Connection {
    Connection::open(&plain(), &node.url(), Pings::within(SOON))
        .await
        .expect("a connection")
}
