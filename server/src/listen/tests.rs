use super::bind::{ListenError, Options, bind_with};
use super::permit::Permit;
use super::stream::Socket;
use super::*;
use crate::metrics::{Gauges, Metrics};
use holdfast_certs::{ClientTls, ClientTlsSettings, DevCa, ServerTls, ServerTlsSettings, connect};
use holdfast_config::{Host, ListenUrl, Place, Scheme};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn tcp(host: Host) -> ListenUrl {
    ListenUrl {
        scheme: Scheme::Http,
        place: Place::Tcp { host, port: 0 },
    }
}

fn loopback() -> ListenUrl {
    tcp(Host::Ip([127, 0, 0, 1].into()))
}

fn unix(path: &Path) -> ListenUrl {
    ListenUrl {
        scheme: Scheme::Unix,
        place: Place::Socket {
            path: path.to_owned(),
        },
    }
}

fn options(workers: usize, max_connections: usize) -> AcceptorOptions {
    AcceptorOptions {
        workers,
        max_connections,
        max_per_source: None,
    }
}

fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = metrics.render(&Gauges::default());
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().expect("number"))
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// An acceptor on a port of its own that hands everything to a channel.
struct Desk {
    acceptor: Acceptor,
    address: SocketAddr,
    arrivals: mpsc::Receiver<(usize, Incoming)>,
    metrics: Arc<Metrics>,
}

impl Desk {
    fn new(options: AcceptorOptions) -> Desk {
        let metrics = Metrics::new(false);
        let bound = bind_with(&loopback(), Options::default()).expect("bind");
        let address = bound.local_addrs()[0];
        let (dealer, arrivals) = mpsc::channel();
        let deal = move |worker, incoming| dealer.send((worker, incoming)).expect("receiver");
        let acceptor = Acceptor::start(vec![bound], options, metrics.clone(), deal).expect("start");
        Desk {
            acceptor,
            address,
            arrivals,
            metrics,
        }
    }

    fn next(&self) -> (usize, Incoming) {
        self.arrivals.recv_timeout(PATIENCE).expect("arrival")
    }

    fn client(&self) -> std::net::TcpStream {
        let client = std::net::TcpStream::connect(self.address).expect("connect");
        client.set_read_timeout(Some(PATIENCE)).expect("timeout");
        client
    }
}

#[test]
fn connections_are_dealt_evenly() {
    let desk = Desk::new(options(2, 100));
    let clients: Vec<_> = (0..6).map(|_| desk.client()).collect();
    let arrivals: Vec<_> = clients.iter().map(|_| desk.next()).collect();
    let workers: Vec<_> = arrivals.iter().map(|(worker, _)| *worker).collect();
    assert_eq!(workers, [0, 1, 0, 1, 0, 1]);
    for (_, incoming) in &arrivals {
        assert_eq!(incoming.listener, 0);
        let Socket::Tcp(stream) = &incoming.stream else {
            panic!("not TCP");
        };
        assert!(stream.nodelay().expect("nodelay"));
        let error = (&*stream).read(&mut [0]).expect_err("must not block");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(
            clients
                .iter()
                .any(|client| client.local_addr().ok() == incoming.peer)
        );
    }
    assert_eq!(value(&desk.metrics, "holdfast_connections_open"), Some(6.0));
    drop(arrivals);
    assert_eq!(value(&desk.metrics, "holdfast_connections_open"), Some(0.0));
}

#[test]
fn connections_beyond_the_cap_are_closed_at_once() {
    let desk = Desk::new(options(1, 2));
    let _clients = [desk.client(), desk.client()];
    let (first, _second) = (desk.next(), desk.next());
    for _ in 0..3 {
        let read = desk.client().read(&mut [0]);
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    let refused = r#"holdfast_connections_refused_total{reason="too_many"}"#;
    assert_eq!(value(&desk.metrics, refused), Some(3.0));
    drop(first);
    let _client = desk.client();
    desk.next();
}

#[test]
fn a_stopped_acceptor_lets_go_of_its_port() {
    let desk = Desk::new(options(1, 10));
    let client = desk.client();
    let arrival = desk.next();
    let address = desk.address;
    let begin = Instant::now();
    desk.acceptor.stop();
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(std::net::TcpStream::connect(address).is_err());
    // What was accepted lives on.
    let Socket::Tcp(mut stream) = arrival.1.stream else {
        panic!("not TCP");
    };
    stream.write_all(b"x").expect("write");
    (&client).read_exact(&mut [0]).expect("read");
    // The connection keeps the port in use for TCP, but not for a new listener.
    let url = ListenUrl {
        scheme: Scheme::Http,
        place: Place::Tcp {
            host: Host::Ip(address.ip()),
            port: address.port(),
        },
    };
    bind_with(&url, Options::default()).expect("bind again");
}

#[test]
fn localhost_is_both_families_on_one_port() {
    let bound =
        bind_with(&tcp(Host::Name("localhost".to_owned())), Options::default()).expect("bind");
    let addresses = bound.local_addrs();
    assert_eq!(addresses[0].ip().to_string(), "127.0.0.1");
    if let Some(v6) = addresses.get(1) {
        assert_eq!(v6.ip().to_string(), "::1");
        assert_eq!(v6.port(), addresses[0].port());
    }
    let name = tcp(Host::Name("example.com".to_owned()));
    let error = bind_with(&name, Options::default()).expect_err("a name");
    assert!(matches!(error, ListenError::HostName { .. }));
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    let bound = bind_with(&loopback(), Options::default()).expect("bind");
    let mut url = loopback();
    if let Place::Tcp { port, .. } = &mut url.place {
        *port = bound.local_addrs()[0].port();
    }
    let error = bind_with(&url, Options::default()).expect_err("taken");
    assert!(error.to_string().contains(&url.to_string()), "{error}");
    let shared = Options { reuse_port: true };
    let one = bind_with(&loopback(), shared).expect("bind");
    if let Place::Tcp { port, .. } = &mut url.place {
        *port = one.local_addrs()[0].port();
    }
    bind_with(&url, shared).expect("SO_REUSEPORT");
}

#[test]
fn unix_sockets_are_private_and_stale_ones_are_replaced() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("socket");
    let url = unix(&path);
    // Left behind by a process that is gone.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
    let bound = bind_with(&url, Options::default()).expect("replaces the stale one");
    let found = std::fs::metadata(&path).expect("socket");
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    let error = bind_with(&url, Options::default()).expect_err("in use");
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    let (dealer, arrivals) = mpsc::channel();
    let deal = move |worker, incoming| dealer.send((worker, incoming)).expect("receiver");
    let acceptor =
        Acceptor::start(vec![bound], options(1, 10), Metrics::new(false), deal).expect("start");
    let _client = std::os::unix::net::UnixStream::connect(&path).expect("connect");
    let (_, incoming): (usize, Incoming) = arrivals.recv_timeout(PATIENCE).expect("arrival");
    assert!(matches!(incoming.stream, Socket::Unix(_)) && incoming.peer.is_none());
    acceptor.stop();
    assert!(!path.exists());

    std::fs::write(&path, "precious").expect("write");
    let error = bind_with(&url, Options::default()).expect_err("a file");
    assert!(matches!(error, ListenError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), "precious");
}

#[test]
fn a_socket_of_another_process_is_not_removed() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("socket");
    let bound = bind_with(&unix(&path), Options::default()).expect("bind");
    std::fs::remove_file(&path).expect("remove");
    let _other = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    drop(bound);
    assert!(path.exists());
}

/// A server and a client of a development CA.
struct Tls {
    server: ServerTls,
    client: ClientTls,
    _dir: tempfile::TempDir,
}

fn tls() -> Tls {
    let dir = tempfile::tempdir().expect("dir");
    let files = DevCa::open_or_create(dir.path()).expect("CA").files();
    let server = ServerTlsSettings::new(&files.server_cert, &files.server_key)
        .with_client_ca(&files.ca_cert);
    let client = ClientTlsSettings {
        ca_file: Some(files.ca_cert),
        cert_file: Some(files.client_cert),
        key_file: Some(files.client_key),
        ..ClientTlsSettings::default()
    };
    Tls {
        server: ServerTls::load(server).expect("server"),
        client: ClientTls::load(&client).expect("client"),
        _dir: dir,
    }
}

type Established = Option<(Stream, Option<holdfast_certs::PeerIdentity>, Permit)>;

/// A worker that establishes what is dealt to it, on a thread and a runtime of its own, until the desk is gone.
fn worker(
    desk: &Desk,
    tls: Option<ServerTls>,
    deadline: Duration,
    pending: PendingHandshakes,
) -> (mpsc::Sender<Incoming>, mpsc::Receiver<Established>) {
    let metrics = desk.metrics.clone();
    let (sender, jobs) = mpsc::channel::<Incoming>();
    let (done, results) = mpsc::channel();
    let (bridge, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while let Ok(job) = jobs.recv() {
            if bridge.send(job).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        let tls = tls.map(Arc::new);
        runtime.block_on(async {
            let mut tasks = Vec::new();
            while let Some(incoming) = arrivals.recv().await {
                let (tls, pending) = (tls.clone(), pending.clone());
                let (metrics, done) = (metrics.clone(), done.clone());
                tasks.push(tokio::spawn(async move {
                    let established =
                        establish(incoming, tls.as_deref(), deadline, &pending, &metrics).await;
                    // The test may have ended.
                    let _ = done.send(established);
                }));
            }
            for task in tasks {
                let _ = task.await;
            }
        });
    });
    (sender, results)
}

fn client_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
}

fn failed(metrics: &Metrics, reason: &str) -> f64 {
    let series = format!("holdfast_handshakes_failed_total{{reason=\"{reason}\"}}");
    value(metrics, &series).unwrap_or(0.0)
}

/// Many clients that never send a ClientHello do not hold up a good one, nor do they stay.
#[test]
fn cve_2026_73500_silent_sockets_do_not_delay_a_good_client() {
    const SILENT: usize = 200;
    const MOST: usize = 16;
    let desk = Desk::new(options(1, 1000));
    let Tls {
        server,
        client,
        _dir,
    } = tls();
    let pending = PendingHandshakes::new(MOST);
    let (jobs, results) = worker(&desk, Some(server), Duration::from_secs(600), pending);
    let silent: Vec<_> = (0..SILENT).map(|_| desk.client()).collect();
    for _ in &silent {
        jobs.send(desk.next().1).expect("worker");
    }
    // All but the last have given way, well before their deadline.
    for _ in 0..SILENT - MOST {
        assert!(results.recv_timeout(PATIENCE).expect("result").is_none());
    }
    assert_eq!(failed(&desk.metrics, "gave_way"), (SILENT - MOST) as f64);
    assert_eq!(
        value(&desk.metrics, "holdfast_handshakes_pending"),
        Some(MOST as f64)
    );

    let address = desk.address;
    let good = std::thread::spawn(move || {
        client_runtime().block_on(async {
            let stream = TcpStream::connect(address).await.expect("connect");
            let mut stream = connect(&client, stream, "localhost")
                .await
                .expect("handshake");
            let mut byte = [0];
            stream.read_exact(&mut byte).await.expect("read");
            byte[0]
        })
    });
    let begin = Instant::now();
    jobs.send(desk.next().1).expect("worker");
    let (stream, identity, _permit) = loop {
        // The oldest silent one gives way to it first.
        if let Some(established) = results.recv_timeout(PATIENCE).expect("result") {
            break established;
        }
    };
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert!(stream.is_tls());
    let identity = identity.expect("certificate");
    assert_eq!(identity.common_name.as_deref(), Some("root"));
    // The stream belongs to the worker's runtime, which drives it from any thread.
    client_runtime().block_on(async {
        let mut stream = stream;
        stream.write_all(b"k").await.expect("write");
        stream.flush().await.expect("flush");
    });
    assert_eq!(good.join().expect("client"), b'k');
    drop(silent);
}

#[test]
fn a_silent_client_is_dropped_at_the_deadline() {
    for server in [Some(tls()), None] {
        let desk = Desk::new(options(1, 10));
        let (server, _dir) = match server {
            Some(tls) => (Some(tls.server), Some(tls._dir)),
            None => (None, None),
        };
        let pending = PendingHandshakes::new(10);
        let (jobs, results) = worker(&desk, server, Duration::from_millis(50), pending);
        let mut client = desk.client();
        jobs.send(desk.next().1).expect("worker");
        assert!(results.recv_timeout(PATIENCE).expect("result").is_none());
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
        assert_eq!(failed(&desk.metrics, "timeout"), 1.0);
        wait_for("the connection is given back", || {
            value(&desk.metrics, "holdfast_connections_open") == Some(0.0)
                && value(&desk.metrics, "holdfast_handshakes_pending") == Some(0.0)
        });
    }
}

#[test]
fn the_wrong_language_is_recognised() {
    let Tls {
        server,
        client,
        _dir,
    } = tls();
    // Plain HTTP where TLS is spoken.
    let desk = Desk::new(options(1, 10));
    let (jobs, results) = worker(&desk, Some(server), PATIENCE, PendingHandshakes::new(10));
    let mut plain = desk.client();
    plain
        .write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("write");
    jobs.send(desk.next().1).expect("worker");
    assert!(results.recv_timeout(PATIENCE).expect("result").is_none());
    assert_eq!(failed(&desk.metrics, "not_tls"), 1.0);

    // TLS where plain HTTP is spoken.
    let desk = Desk::new(options(1, 10));
    let (jobs, results) = worker(&desk, None, PATIENCE, PendingHandshakes::new(10));
    let address = desk.address;
    let confused = std::thread::spawn(move || {
        client_runtime().block_on(async {
            let stream = TcpStream::connect(address).await.expect("connect");
            connect(&client, stream, "localhost").await.map(drop)
        })
    });
    jobs.send(desk.next().1).expect("worker");
    assert!(results.recv_timeout(PATIENCE).expect("result").is_none());
    assert_eq!(failed(&desk.metrics, "unexpected_tls"), 1.0);
    assert!(confused.join().expect("client").is_err());

    // The right one, of which nothing is lost.
    let mut plain = desk.client();
    plain.write_all(b"PRI").expect("write");
    jobs.send(desk.next().1).expect("worker");
    let (mut stream, identity, _permit) = results
        .recv_timeout(PATIENCE)
        .expect("result")
        .expect("connection");
    assert!(!stream.is_tls() && identity.is_none());
    let mut read = [0; 3];
    client_runtime()
        .block_on(stream.read_exact(&mut read))
        .expect("read");
    assert_eq!(&read, b"PRI");
}
