//! The network between the members of a cluster, with its faults.
//!
//! Every member advertises a port of its own here, from which connections go on to the port on which it really listens. Who
//! dialled is found by [`super::dialer`]; so each direction between each two members can fail alone, whoever made the
//! connection, and with TLS.

use super::dialer;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

/// What is read at once; small enough for a bandwidth to be even.
const PIECE: usize = 16 * 1024;
/// Pieces on their way in one direction of a connection; with more the sender waits.
const UNDER_WAY: usize = 256;

/// One direction between two members. The default is as good as loopback is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Nothing arrives. What was sent is kept and arrives when this ends, as TCP does it.
    pub cut: bool,
    /// Connections end with a reset, and new ones, too.
    pub refused: bool,
    /// How long everything takes.
    pub delay: Duration,
    /// The bandwidth of each connection.
    pub bytes_per_second: Option<u64>,
}

type Links = Vec<Vec<Link>>;

/// Proxies in front of all members. Stops on drop.
pub struct Network {
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
    runtime: tokio::runtime::Handle,
}

struct Shared {
    /// From whom to whom.
    links: watch::Sender<Links>,
    processes: Mutex<Vec<Option<u32>>>,
}

impl Network {
    pub(super) fn new() -> Self {
        let shared = Arc::new(Shared {
            links: watch::Sender::default(),
            processes: Mutex::default(),
        });
        let runtime: Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        // Of its own: the test's runtime may be waiting for a member to start.
        thread::spawn(move || {
            // The error is that of a dropped sender, which is the signal.
            runtime.block_on(async { drop(stopped.await) });
        });
        Self {
            shared,
            _stop: stop,
            runtime: handle,
        }
    }

    /// Puts a proxy before one more member, which listens on `target`; gives the proxy's port.
    pub(super) fn add(&self, target: u16) -> u16 {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket option");
        let port = listener.local_addr().expect("it is bound").port();
        let to = {
            let mut processes = self.shared.processes.lock().expect("no panic with it");
            processes.push(None);
            processes.len() - 1
        };
        self.change(|links| {
            for row in links.iter_mut() {
                row.push(Link::default());
            }
            links.push(vec![Link::default(); to + 1]);
        });
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, source)) = listener.accept().await {
                tokio::spawn(serve(shared.clone(), stream, source, port, to, target));
            }
        });
        port
    }

    /// Who the process of a member is now.
    pub(super) fn is_process(&self, member: usize, id: Option<u32>) {
        self.shared.processes.lock().expect("no panic with it")[member] = id;
    }

    fn change(&self, change: impl FnOnce(&mut Links)) {
        self.shared.links.send_modify(change);
    }

    /// Sets one direction.
    pub fn set(&self, from: usize, to: usize, link: Link) {
        self.change(|links| links[from][to] = link);
    }

    /// Sets both directions between a member and all others.
    pub fn surround(&self, member: usize, link: Link) {
        self.change(|links| {
            for other in (0..links.len()).filter(|other| *other != member) {
                links[member][other] = link;
                links[other][member] = link;
            }
        });
    }

    /// Lets nothing through between a member and all others.
    pub fn isolate(&self, member: usize) {
        let cut = Link {
            cut: true,
            ..Link::default()
        };
        self.surround(member, cut);
    }

    /// Lets nothing through that a member sends.
    pub fn mute(&self, member: usize) {
        self.change(|links| {
            for other in (0..links.len()).filter(|other| *other != member) {
                links[member][other].cut = true;
            }
        });
    }

    /// Lets nothing through that is sent to a member.
    pub fn deafen(&self, member: usize) {
        self.change(|links| {
            for other in (0..links.len()).filter(|other| *other != member) {
                links[other][member].cut = true;
            }
        });
    }

    /// Makes everything good again.
    pub fn heal(&self) {
        self.change(|links| {
            for row in links.iter_mut() {
                row.fill(Link::default());
            }
        });
    }
}

/// One connection, from whoever dialled to member `to`.
async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    source: SocketAddr,
    port: u16,
    to: usize,
    target: u16,
) {
    let Some(from) = who(&shared, source.port(), port).await else {
        return;
    };
    let mut links = shared.links.subscribe();
    let passes = links.wait_for(|links| !links[from][to].cut);
    if passes.await.is_err() {
        return;
    }
    let refused = |links: &Links| links[from][to].refused || links[to][from].refused;
    if refused(&links.borrow()) {
        reset(&stream);
        return;
    }
    let Ok(onward) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else {
        reset(&stream);
        return;
    };
    // Small messages are waited for. An error here is one of the connection, which the first read shows.
    let _ = stream.set_nodelay(true);
    let _ = onward.set_nodelay(true);
    let (near_read, near_write) = stream.into_split();
    let (far_read, far_write) = onward.into_split();
    let there = carry(near_read, far_write, shared.links.subscribe(), from, to);
    let back = carry(far_read, near_write, shared.links.subscribe(), to, from);
    let ending = links.wait_for(refused);
    tokio::select! {
        // Where one direction fails the connection is gone; where it ends, the other may go on.
        result = async { tokio::try_join!(there, back) } => drop(result),
        _ = ending => {}
    }
}

/// Who dialled. A process that was just started may be noted a moment later.
async fn who(shared: &Shared, source: u16, port: u16) -> Option<usize> {
    for _ in 0..20 {
        let processes = shared.processes.lock().expect("no panic with it").clone();
        if let Some(found) = dialer::of(source, port, &processes) {
            return Some(found);
        }
        sleep(Duration::from_millis(10)).await;
    }
    None
}

/// Makes the other side see a reset instead of an orderly end.
fn reset(stream: &TcpStream) {
    // Without it the connection ends all the same.
    let _ = stream.set_zero_linger();
}

/// One direction of a connection until its end.
async fn carry(
    mut reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
    mut links: watch::Receiver<Links>,
    from: usize,
    to: usize,
) -> std::io::Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let delays = links.clone();
    let reading = async move {
        loop {
            let mut piece = vec![0; PIECE];
            let length = reader.read(&mut piece).await?;
            piece.truncate(length);
            let due = Instant::now() + delays.borrow()[from][to].delay;
            // An empty piece is the end, which takes its time as everything does.
            if sender.send((due, piece)).await.is_err() || length == 0 {
                return Ok(());
            }
        }
    };
    let writing = async move {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            if links.wait_for(|links| !links[from][to].cut).await.is_err() {
                break;
            }
            if piece.is_empty() {
                break;
            }
            let rate = links.borrow()[from][to].bytes_per_second;
            if let Some(rate) = rate {
                let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                let takes = Duration::from_micros(length * 1_000_000 / rate.max(1));
                // A better link begins at once.
                let _ = timeout(
                    takes,
                    links.wait_for(|links| links[from][to].bytes_per_second != Some(rate)),
                )
                .await;
            }
            writer.write_all(&piece).await?;
        }
        writer.shutdown().await
    };
    tokio::try_join!(reading, writing).map(|_| ())
}
