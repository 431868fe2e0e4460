//! The hub on its thread, beside writers, slow readers and watches that come at any time.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use bytes::Bytes;
use holdfast_auth::{Caller, KeyRange};
use holdfast_storage::backend::{Store, StoreOptions};
use holdfast_storage::lease::Millis;
use holdfast_storage::{LogPosition, Revision, Row, TenantId};
use holdfast_tenant::request::Put;
use holdfast_tenant::watch::{
    Delivery, DeliveryKind, Hub, HubLimits, Inbox, Message, StreamId, Wake, WatchRequest, WatchSink,
};
use holdfast_tenant::{Command, Machine, MachineOptions};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);
const WRITES: u64 = 6_000;
const STREAMS: u64 = 3;
/// Deliveries that a stream holds before it has no more room.
const ROOM: usize = 8;

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Delivery>,
    starved: bool,
}

struct Sink {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

impl WatchSink for Sink {
    fn push(&self, delivery: Delivery) {
        self.queue.lock().waiting.push_back(delivery);
        self.arrived.notify_one();
    }

    fn has_room(&self) -> bool {
        let mut queue = self.queue.lock();
        let room = queue.waiting.len() < ROOM;
        queue.starved |= !room;
        room
    }
}

impl Sink {
    /// The next delivery, `None` at the deadline.
    fn next(&self, stream: StreamId, inbox: &Inbox, deadline: Instant) -> Option<Delivery> {
        let mut queue = self.queue.lock();
        while queue.waiting.is_empty() {
            if self.arrived.wait_until(&mut queue, deadline).timed_out() {
                return None;
            }
        }
        let delivery = queue.waiting.pop_front();
        if queue.starved && queue.waiting.len() < ROOM / 2 {
            queue.starved = false;
            drop(queue);
            inbox.push(Message::Room { stream });
        }
        delivery
    }
}

struct Silent;

impl Wake for Silent {
    fn wake(&self) {}
}

/// The event's revision, as text.
fn encode(row: &Row, _: Option<&Row>) -> Bytes {
    format!(
        "{} {}",
        row.revision.main,
        String::from_utf8_lossy(&row.key)
    )
    .into()
}

fn request(keys: KeyRange, start: i64) -> WatchRequest {
    WatchRequest {
        id: 0,
        keys,
        start,
        progress: false,
        no_put: false,
        no_delete: false,
        previous: false,
        fragment: false,
    }
}

struct Watch {
    keys: KeyRange,
    start: i64,
    events: Vec<(i64, String)>,
}

/// Reads a stream until each of its watches has seen the last write.
fn read(
    stream: StreamId,
    sink: &Sink,
    inbox: &Inbox,
    mut requests: VecDeque<WatchRequest>,
    rows: &Mutex<Vec<(i64, String)>>,
    last: i64,
) -> HashMap<i64, Watch> {
    let deadline = Instant::now() + DEADLINE;
    let mut watches: HashMap<i64, Watch> = HashMap::new();
    // A watch that was made after the last write has nothing to wait for.
    let is_done = |watches: &HashMap<i64, Watch>| {
        watches.values().all(|watch| {
            let seen = watch.events.last().map(|(main, _)| *main);
            watch.start > last || seen == Some(last)
        })
    };
    while !requests.is_empty() || !is_done(&watches) {
        let Some(delivery) = sink.next(stream, inbox, deadline) else {
            let lagging: Vec<_> = watches
                .values()
                .map(|watch| (&watch.keys, watch.start, watch.events.last()))
                .collect();
            panic!(
                "{stream:?} waits for ever: {} to create, {lagging:?}",
                requests.len()
            );
        };
        let id = delivery.watch_id;
        match delivery.kind {
            DeliveryKind::Created => {
                let request = requests.pop_front().unwrap();
                let start = if request.start == 0 {
                    delivery.revision + 1
                } else {
                    request.start
                };
                let watch = Watch {
                    keys: request.keys,
                    start,
                    events: Vec::new(),
                };
                watches.insert(id, watch);
            }
            DeliveryKind::Events { events, .. } => {
                let events = events.iter().map(|event| {
                    let text = String::from_utf8(event.to_vec()).unwrap();
                    let (main, key) = text.split_once(' ').unwrap();
                    (main.parse().unwrap(), key.to_owned())
                });
                watches.get_mut(&id).unwrap().events.extend(events);
            }
            DeliveryKind::Progress => {
                let rows = rows.lock();
                for watch in watches.values() {
                    let due =
                        expected(&rows, watch).take_while(|(main, _)| *main <= delivery.revision);
                    assert!(
                        watch.events.len() >= due.count(),
                        "progress {} came early",
                        delivery.revision
                    );
                }
            }
            other => panic!("{other:?}"),
        }
    }
    watches
}

fn expected<'a>(
    rows: &'a [(i64, String)],
    watch: &'a Watch,
) -> impl Iterator<Item = &'a (i64, String)> {
    rows.iter()
        .filter(|(main, key)| *main >= watch.start && watch.keys.contains(key.as_bytes()))
}

#[test]
fn nothing_is_lost_or_doubled_whatever_the_timing() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        reserve_bytes: 0,
        ..StoreOptions::default()
    };
    let (store, opened) = Store::open(dir.path(), options).unwrap();
    let options = MachineOptions {
        quota_bytes: None,
        lease_checkpoint_interval: Millis(300_000),
        lease_ownership: false,
        founding: Vec::new(),
    };
    let mut machine =
        Machine::restore(Arc::new(store), opened.applied, options, Millis(0)).unwrap();
    let tenants = machine.tenants().clone();
    let tenant = tenants.get(TenantId::DEFAULT).unwrap();
    let inbox = tenants.inbox().clone();
    let limits = HubLimits {
        watches_per_stream: 1000,
        fragment_bytes: 1 << 20,
        progress_interval: Duration::from_secs(600),
    };
    let hub = Hub::new(
        inbox.clone(),
        tenants.clone(),
        Arc::new(Silent),
        encode,
        limits,
        Instant::now(),
    );
    let hub = thread::spawn(move || hub.run());

    // What is written, known before it can be seen.
    let rows: Mutex<Vec<(i64, String)>> = Mutex::new(Vec::new());
    let last_revision = 1 + WRITES as i64;
    let writing = AtomicBool::new(true);
    thread::scope(|scope| {
        let mut readers = Vec::new();
        for number in 1..=STREAMS {
            let stream = StreamId(number);
            let sink = Arc::new(Sink {
                queue: Mutex::default(),
                arrived: Condvar::new(),
            });
            tenant.watch_stream_opened();
            inbox.push(Message::Open {
                stream,
                tenant: TenantId::DEFAULT,
                sink: sink.clone(),
            });
            let (rows, inbox, tenant, writing) = (&rows, &inbox, &tenant, &writing);
            let keys = [
                KeyRange::All,
                KeyRange::From("l".into()),
                KeyRange::Point("last".into()),
                KeyRange::Span {
                    start: "k1".into(),
                    end: "m".into(),
                },
            ];
            // The starts are fixed before the watches are made, so that some are past and some are future by then.
            let requests: VecDeque<_> = (0..40i64)
                .map(|n| {
                    let keys = keys[n as usize % keys.len()].clone();
                    request(
                        keys,
                        if n % 3 == 0 {
                            0
                        } else {
                            n * last_revision / 45 + 1
                        },
                    )
                })
                .collect();
            let creator = requests.clone();
            scope.spawn(move || {
                for (n, request) in creator.into_iter().enumerate() {
                    let wait_for = n as i64 * last_revision / 50;
                    while tenant.revision() < wait_for {
                        thread::yield_now();
                    }
                    let caller = Caller::Anonymous;
                    inbox.push(Message::Create {
                        stream,
                        request,
                        caller,
                    });
                    inbox.push(Message::Progress { stream });
                }
                while writing.load(Ordering::Relaxed) {
                    inbox.push(Message::Progress { stream });
                    thread::yield_now();
                }
            });
            readers.push(
                scope.spawn(move || read(stream, &sink, inbox, requests, rows, last_revision)),
            );
        }
        for n in 0..WRITES {
            let main = n as i64 + 2;
            let key = if n + 1 == WRITES {
                "last".to_owned()
            } else {
                format!("k{}", n % 5)
            };
            rows.lock().push((main, key.clone()));
            let put = Command::Put(Put {
                key: key.into(),
                value: vec![b'v'; 1000].into(),
                lease: 0,
                previous: false,
                keep_value: false,
                keep_lease: false,
            });
            let mut entry = Vec::new();
            put.encode(TenantId::DEFAULT, &Caller::Server, &mut entry);
            let position = LogPosition {
                index: n + 2,
                term: 1,
            };
            machine
                .apply(position, entry.into(), Millis(0), &mut Vec::new())
                .unwrap();
            if n % 1500 == 0 {
                tenants.store().persist().unwrap();
            }
            if readers.iter().any(|reader| reader.is_finished()) && n + 1 < WRITES {
                break;
            }
        }
        writing.store(false, Ordering::Relaxed);
        let rows = &rows;
        for reader in readers {
            for watch in reader.join().unwrap().into_values() {
                let rows = rows.lock();
                let expected: Vec<_> = expected(&rows, &watch).collect();
                assert_eq!(
                    watch.events.iter().collect::<Vec<_>>(),
                    expected,
                    "{:?}",
                    watch.keys
                );
            }
        }
    });
    let stored = tenants
        .store()
        .scan(TenantId::DEFAULT, Revision::first(0), i64::MAX)
        .count();
    assert_eq!(stored as u64, WRITES);
    inbox.push(Message::Stop);
    hub.join().unwrap();
}
