//! Tests of what happens when sinks fail, fill up or hang.

use parking_lot::Mutex;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, Read},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};
use tempfile::TempDir;

use crate::{
    Auditor, AuditorConfig, AuthMethod, End, FileConfig, Keys, NodeKey, NotTaken, Notice, Outcome,
    Plan, Record, Rules, SinkConfig, Subject, SyncPolicy, Writer,
    bell::Bell,
    block::Block,
    read::{self, VerifyOptions},
    sink::{Disk, Handle, Notices, RealDisk, Refused, Sink, StreamSink},
    writer::Buffer,
};

const LONG: Duration = Duration::from_secs(20);
const DEADLINE: Duration = Duration::from_millis(100);
/// Beyond its deadline, what threads may need to be scheduled on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

/// A disk with so much room.
struct SmallDisk {
    room: AtomicU64,
    syncs_fail: Mutex<bool>,
}

impl SmallDisk {
    fn new(room: u64) -> Arc<Self> {
        Arc::new(Self {
            room: AtomicU64::new(room),
            syncs_fail: Mutex::new(false),
        })
    }
}

impl Disk for SmallDisk {
    /// Like the real one, writes what there is room for.
    fn append(&self, file: &mut File, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
        let room = self.room.load(Ordering::SeqCst);
        let fits = bytes.len().min(room as usize);
        self.room.fetch_sub(fits as u64, Ordering::SeqCst);
        RealDisk.append(file, &mut [IoSlice::new(&bytes[..fits])])?;
        if fits < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync(&self, _: &mut File) -> io::Result<()> {
        if *self.syncs_fail.lock() {
            return Err(io::Error::other("sync failed"));
        }
        Ok(())
    }
}

struct Log {
    folder: TempDir,
    path: PathBuf,
    config: AuditorConfig,
}

fn log(rules: &str) -> Log {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let key = NodeKey::from_seed([7; 32]).unwrap();
    let config = AuditorConfig {
        rules: Rules::parse(rules).unwrap(),
        sinks: vec![SinkConfig::File(FileConfig {
            sync: SyncPolicy::None,
            ..FileConfig::new(&path)
        })],
        deadline: DEADLINE,
        retry_after: Duration::from_millis(10),
        ..AuditorConfig::new("node-1", "cluster-1", "0.1.0", key)
    };
    Log {
        folder,
        path,
        config,
    }
}

const BEST_EFFORT: &str = "rules: [{level: metadata}]";
const STRICT: &str = "rules: [{level: metadata, delivery: strict}]";

impl Log {
    #[track_caller]
    fn assert_intact(&self) -> read::Report {
        let options = VerifyOptions {
            trusted: vec![self.config.key.public()],
            closed: true,
            expect: None,
        };
        let files = read::files(&self.path).unwrap();
        let report = read::verify(&files, &options).unwrap();
        assert!(report.is_intact(), "{:#?}", report.problems);
        report
    }
}

fn plan(auditor: &Auditor) -> Plan {
    let subject = Subject {
        tenant: "default",
        principal: Some("alice"),
        auth: AuthMethod::Token,
        source: None,
    };
    auditor.plan(&subject, "KV/Put")
}

fn record(keys: &Keys) -> Record<'_> {
    Record {
        time: SystemTime::now(),
        id: 1,
        keys,
        object: None,
        request_bytes: 1,
    }
}

fn end(writer: &Writer, plan: &Plan) {
    let end = End {
        outcome: Outcome::Ok,
        revision: None,
        duration: Duration::ZERO,
    };
    writer.end(plan, &record(&Keys::none()), &end);
}

/// Asks for a strict record and waits for what becomes of it, and for how long that takes.
fn begin(auditor: &Auditor, plan: &Plan) -> (Result<(), NotTaken>, Duration) {
    let (sender, receiver) = mpsc::channel();
    let start = Instant::now();
    let told = move |taken| sender.send(taken).unwrap();
    auditor.submit_strict(plan, &record(&Keys::none()), Box::new(told));
    (receiver.recv_timeout(LONG).unwrap(), start.elapsed())
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "not in time: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_full_disk_loses_best_effort_records_says_so_and_recovers() {
    // Every amount of room, so that the disk fills up inside of records, of seals, and between blocks.
    for room in (1300..4000).step_by(61) {
        let log = log(BEST_EFFORT);
        let disk = SmallDisk::new(room);
        let (auditor, _) = Auditor::start_on(log.config.clone(), disk.clone()).unwrap();
        let (writer, plan) = (auditor.writer(), plan(&auditor));
        for _ in 0..20 {
            end(&writer, &plan);
            assert!(auditor.flush(LONG));
        }
        let stats = auditor.stats();
        assert_eq!(stats.records, 20);
        let sink = &stats.sinks[0];
        assert_eq!(sink.written + sink.lost, 20, "{stats:?}");
        assert!(sink.lost > 0 && sink.errors > 0, "{room}: {stats:?}");
        let notices = auditor.notices();
        assert!(
            matches!(notices.first(), Some(Notice::Failed { .. })),
            "{notices:?}"
        );

        disk.room.store(1 << 20, Ordering::SeqCst);
        // Nothing more is recorded: the sink comes back by itself, to say what is missing.
        until("what is missing is said", || {
            std::fs::read_to_string(&log.path)
                .unwrap()
                .contains(r#""type":"lost""#)
        });
        end(&writer, &plan);
        auditor.stop(LONG);
        let report = log.assert_intact();
        // Lines of a write that failed half-way may be there, though they count as lost.
        assert!(report.records + report.lost >= 21, "{room}: {report:?}");
        assert!(report.lost == auditor.stats().sinks[0].lost, "{report:?}");
        let notices = auditor.notices();
        assert!(
            notices
                .iter()
                .any(|notice| matches!(notice, Notice::Recovered { .. })),
            "{notices:?}"
        );
    }
}

#[test]
fn a_full_disk_refuses_strict_requests_at_once() {
    let log = log(STRICT);
    let disk = SmallDisk::new(3000);
    let (auditor, _) = Auditor::start_on(log.config.clone(), disk.clone()).unwrap();
    let plan = plan(&auditor);
    assert_eq!(begin(&auditor, &plan).0, Ok(()));
    disk.room.store(10, Ordering::SeqCst);
    for count in 1..4 {
        let (taken, time) = begin(&auditor, &plan);
        assert_eq!(taken, Err(NotTaken::Failed));
        assert!(time < DEADLINE + SLACK, "{time:?}");
        assert_eq!(auditor.stats().strict_refused, count);
    }
    disk.room.store(1 << 20, Ordering::SeqCst);
    until("strict requests pass again", || {
        begin(&auditor, &plan).0.is_ok()
    });
    auditor.stop(LONG);
    assert_eq!(begin(&auditor, &plan).0, Err(NotTaken::Stopped));
    log.assert_intact();
}

#[test]
fn a_strict_record_counts_as_taken_when_it_is_synced_if_so_configured() {
    let mut log = log(STRICT);
    log.config.sinks = vec![SinkConfig::File(FileConfig {
        sync: SyncPolicy::Block,
        ..FileConfig::new(&log.path)
    })];
    let disk = SmallDisk::new(1 << 20);
    let (auditor, _) = Auditor::start_on(log.config.clone(), disk.clone()).unwrap();
    let plan = plan(&auditor);
    assert_eq!(begin(&auditor, &plan).0, Ok(()));
    *disk.syncs_fail.lock() = true;
    assert_eq!(begin(&auditor, &plan).0, Err(NotTaken::Failed));
    *disk.syncs_fail.lock() = false;
    until("strict requests pass again", || {
        begin(&auditor, &plan).0.is_ok()
    });
    auditor.stop(LONG);
    log.assert_intact();
}

/// A pipe that nobody reads: both ends are open, and it is full.
fn full_pipe(log: &Log) -> (File, File) {
    let path = log.folder.path().join("pipe");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // Open for both, so that opening waits for nobody.
    let reader = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let writer = OpenOptions::new().write(true).open(&path).unwrap();
    let filler = rustix::io::dup(&writer).unwrap();
    let flags = rustix::fs::fcntl_getfl(&filler).unwrap();
    rustix::fs::fcntl_setfl(&filler, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&filler, &[b'x'; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&filler, flags).unwrap();
    (reader, writer)
}

#[test]
fn a_pipe_that_nobody_reads_holds_up_nobody() {
    let mut log = log(STRICT);
    log.config.sinks.clear();
    log.config.rules = Rules::default();
    let (auditor, _) = Auditor::start(log.config.clone()).unwrap();
    let (mut reader, writer) = full_pipe(&log);
    auditor.add_sink(Box::new(StreamSink::new(writer)));
    let strict = Rules::parse(STRICT).unwrap();
    let subject = Subject {
        tenant: "default",
        principal: None,
        auth: AuthMethod::None,
        source: None,
    };
    let plan = Plan::new(
        &strict,
        1,
        b"",
        log.config.key.hashing(),
        &subject,
        "KV/Put",
    );

    // The first waits for the write that hangs, the others for nothing.
    for round in 0..3 {
        let (taken, time) = begin(&auditor, &plan);
        let expected = if round == 0 {
            NotTaken::Deadline
        } else {
            NotTaken::Failed
        };
        assert_eq!(taken, Err(expected));
        assert!(time < DEADLINE + SLACK, "{time:?}");
        assert!(round > 0 || time >= DEADLINE, "{time:?}");
    }
    let recorder = auditor.writer();
    let start = Instant::now();
    for _ in 0..1000 {
        end(&recorder, &plan);
    }
    assert!(start.elapsed() < SLACK);
    until("its backlog is dropped", || {
        let stats = auditor.stats();
        stats.sinks[0].hanging && stats.sinks[0].lost >= 1002 && stats.queue_bytes == 0
    });

    // Somebody reads again.
    let (sender, received) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length) = reader.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(r#""type":"lost""#) {
        text.extend(received.recv_timeout(LONG).unwrap());
    }
    until("strict requests pass again", || {
        begin(&auditor, &plan).0.is_ok()
    });
    assert!(!auditor.stats().sinks[0].hanging);
}

#[test]
fn one_good_sink_is_enough_for_a_strict_request() {
    let log = log(STRICT);
    let (auditor, _) = Auditor::start(log.config.clone()).unwrap();
    let (_reader, writer) = full_pipe(&log);
    auditor.add_sink(Box::new(StreamSink::new(writer)));
    let plan = plan(&auditor);
    for _ in 0..10 {
        let (taken, _) = begin(&auditor, &plan);
        assert_eq!(taken, Ok(()));
    }
    // Nor does stopping wait for the other.
    let start = Instant::now();
    auditor.stop(DEADLINE);
    assert!(start.elapsed() < DEADLINE * 2 + SLACK);
    until("the file is closed", || {
        let written = auditor.stats().sinks[0].written;
        written == 10
    });
}

#[test]
fn a_full_writer_loses_best_effort_records_and_refuses_strict_ones() {
    let log = log(STRICT);
    let (auditor, _) = Auditor::start(log.config.clone()).unwrap();
    let strict = plan(&auditor);
    let mut config = log.config.clone();
    config.rules = Rules::parse(BEST_EFFORT).unwrap();
    auditor.reload(config).unwrap();
    let best_effort = plan(&auditor);

    // A buffer that nobody collects.
    let refused = Arc::new(AtomicU64::new(0));
    let buffer = Arc::new(Buffer::new(
        1000,
        Arc::clone(&refused),
        Arc::new(Bell::default()),
    ));
    let writer = Writer::new(Some(Arc::clone(&buffer)));
    for _ in 0..100 {
        end(&writer, &best_effort);
    }
    let (bytes, records, lost) = buffer.figures();
    assert!((1000..1500).contains(&bytes), "{bytes}");
    assert_eq!(records + lost, 100);
    assert!(lost > 90, "{lost}");
    let (sender, receiver) = mpsc::channel();
    let told = move |taken| sender.send(taken).unwrap();
    writer.begin(&strict, &record(&Keys::none()), Box::new(told));
    assert_eq!(receiver.try_recv(), Ok(Err(NotTaken::Full)));
    assert_eq!(refused.load(Ordering::Relaxed), 1);
    // What a strict rule let begin still finds room for its end.
    end(&writer, &strict);
    assert_eq!(buffer.figures().1, records + 1);

    // What is collected makes room, and the loss goes with it.
    let taken = buffer.take(Vec::new());
    assert_eq!((taken.records, taken.lost), (records + 1, lost));
    end(&writer, &best_effort);
    assert_eq!(buffer.figures().1, 1);
    auditor.stop(LONG);
}

/// Takes nothing until it is let.
struct Gate(mpsc::Receiver<()>);

impl Sink for Gate {
    fn take(&mut self, _: &Block, _: u64) -> Result<(), Refused> {
        self.0.recv().map_err(io::Error::other)?;
        Ok(())
    }
}

#[test]
fn a_queue_is_bounded_and_what_waits_too_long_is_dropped() {
    let (open, gate) = mpsc::channel();
    let handle = Handle::start(
        SinkConfig::Stdout,
        Box::new(Gate(gate)),
        100,
        Duration::ZERO,
        Notices::default(),
    )
    .unwrap();
    let block = |bytes: usize| {
        Arc::new(Block {
            lines: vec![b'\n'; bytes],
            records: 1,
            ..Block::default()
        })
    };
    handle.push(&block(1));
    until("it is busy", || handle.stats().queue_bytes == 0);
    // Longer than the limit, but alone.
    handle.push(&block(150));
    handle.push(&block(1));
    let stats = handle.stats();
    assert_eq!((stats.queue_bytes, stats.lost), (150, 1));
    assert!(handle.expire(LONG));
    assert_eq!(handle.stats().queue_bytes, 150);
    assert!(!handle.stats().hanging);
    thread::sleep(Duration::from_millis(2));
    assert!(handle.expire(Duration::from_millis(1)));
    let stats = handle.stats();
    assert_eq!((stats.queue_bytes, stats.lost, stats.hanging), (0, 2, true));
    // While it hangs, nothing is queued.
    handle.push(&block(1));
    assert_eq!(handle.stats().lost, 3);
    open.send(()).unwrap();
    until("it is done", || handle.stats().written == 1);
    // It has three to tell of, and is let.
    open.send(()).unwrap();
    until("it is idle", || !handle.expire(LONG));
    handle.push(&block(1));
    open.send(()).unwrap();
    until("it works again", || handle.stats().written == 2);
    let closed = handle.close();
    assert!(closed.recv_timeout(LONG).is_err());
}
