//! The real binary under attack: a server process, a good client, and HTTP/2 frames written by hand.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code shared by test binaries: a panic is the report of a failure"
)]

pub(crate) mod frames;

use holdfast_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

pub(crate) const MIB: u64 = 1 << 20;
/// Longest that anything healthy takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// A plaintext server on loopback; killed and removed on drop.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    log: Arc<Mutex<Vec<String>>>,
    _folder: TempDir,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Server {
        for _ in 0..5 {
            if let Some(server) = Server::try_start(arguments) {
                return server;
            }
        }
        panic!("the server did not start");
    }

    fn try_start(arguments: &[&str]) -> Option<Server> {
        let folder = tempfile::tempdir().unwrap();
        let (port, peer) = (free_port(), free_port());
        let client = format!("http://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{peer}");
        let mut child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .env_clear()
            .arg("--name=default")
            .arg(format!("--data-dir={}", folder.path().join("d").display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=default={peer}"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.contains("ready to serve client requests") {
                    let _ = ready.send(());
                }
                kept.lock().unwrap().push(line);
            }
        });
        if is_ready.recv_timeout(Duration::from_secs(30)).is_err() {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        Some(Server {
            child,
            port,
            log,
            _folder: folder,
        })
    }

    /// A client that behaves, with a connection of its own.
    pub(crate) async fn client(&self) -> Client {
        let channel = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port))
            .unwrap()
            .connect_timeout(PATIENCE)
            .connect()
            .await
            .unwrap();
        Client {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            channel,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident bytes now.
    pub(crate) fn rss(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most bytes that were ever resident.
    pub(crate) fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.unwrap().split_whitespace().next().unwrap();
        kib.parse::<u64>().unwrap() * 1024
    }

    /// Waits until the process has hardly used the processor for a while.
    pub(crate) fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut before = self.ticks();
        let mut calm = 0;
        while calm < 3 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
            let now = self.ticks();
            calm = if now - before <= 1 { calm + 1 } else { 0 };
            before = now;
        }
    }

    /// Processor time used so far, in hundredths of a second (`proc_pid_stat(5)`).
    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Whether the process still runs. A panic anywhere in it would have ended it.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn log_has(&self, text: &str) -> bool {
        let log = self.log.lock().unwrap();
        log.iter().any(|line| line.contains(text))
    }

    /// Asks it to stop, as supervisors do, and tells how and how fast it ended.
    pub(crate) fn terminate(mut self) -> (ExitStatus, Duration) {
        use rustix::process::{Pid, Signal, kill_process};
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        let begun = Instant::now();
        kill_process(pid, Signal::TERM).unwrap();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, begun.elapsed());
            }
            assert!(begun.elapsed() < PATIENCE, "it does not stop");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log.lock().unwrap();
            for line in log.iter().rev().take(20).rev() {
                eprintln!("{line}");
            }
        }
    }
}

/// Below the range that the kernel takes outgoing ports from.
fn free_port() -> u16 {
    loop {
        let port = 10_000 + rand::random::<u16>() % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) kv: KvClient<Channel>,
    pub(crate) channel: Channel,
}

impl Client {
    pub(crate) async fn put(&self, key: &str, value: Vec<u8>) {
        let request = pb::PutRequest {
            key: key.to_owned().into(),
            value: value.into(),
            ..pb::PutRequest::default()
        };
        let put = self.kv.clone();
        within(async move { put.clone().put(request).await })
            .await
            .unwrap();
    }

    pub(crate) async fn get(&self, key: &str) -> pb::RangeResponse {
        let request = pb::RangeRequest {
            key: key.to_owned().into(),
            ..pb::RangeRequest::default()
        };
        let mut kv = self.kv.clone();
        within(async move { kv.range(request).await })
            .await
            .unwrap()
            .into_inner()
    }

    /// The longest of some put and get pairs.
    pub(crate) async fn slowest(&self, count: usize) -> Duration {
        let mut slowest = Duration::ZERO;
        for _ in 0..count {
            let begun = Instant::now();
            self.put("good", b"good".to_vec()).await;
            assert_eq!(self.get("good").await.kvs.len(), 1);
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    }
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("it takes too long")
}

/// What a good client may wait at worst while a bad one is at work, on a busy machine with a debug build.
pub(crate) const TOLERABLE: Duration = Duration::from_secs(3);

pub(crate) fn range(key: &[u8], end: &[u8]) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_vec().into(),
        range_end: end.to_vec().into(),
        ..pb::RangeRequest::default()
    }
}

/// Waits until the server has done with what was sent to it, and weighs what it has come to.
#[track_caller]
pub(crate) fn bounded(server: &mut Server, before: u64, limit: u64) {
    server.settle();
    assert!(server.runs(), "the server is gone");
    let grown = server.peak().saturating_sub(before);
    eprintln!("{} MiB more than before", grown / MIB);
    assert!(
        grown <= limit,
        "{} MiB more than before, allowed are {}",
        grown / MIB,
        limit / MIB
    );
}

pub(crate) const PATH_RANGE: &str = "/etcdserverpb.KV/Range";
