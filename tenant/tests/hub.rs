//! The hub, driven by hand over a real machine: what each watch gets, whatever the interleaving.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod model;

use bytes::Bytes;
use holdfast_auth::KeyRange;
use holdfast_storage::backend::{Store, StoreOptions};
use holdfast_storage::lease::Millis;
use holdfast_storage::{LogPosition, Row, TenantId};
use holdfast_tenant::request::{DeleteRange, Op, Put, Txn};
use holdfast_tenant::watch::{
    Delivery, DeliveryKind, Event, Hub, HubLimits, Inbox, Message, StreamId, Transaction, Wake,
    WatchRequest, WatchSink,
};
use holdfast_tenant::{Command, Machine, MachineOptions, ROW_OVERHEAD_BYTES, Tenant};
use model::Model;
use parking_lot::Mutex;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const FRAGMENT_BYTES: usize = 60;
const WATCHES_PER_STREAM: usize = 6;
const INTERVAL: Duration = Duration::from_secs(600);

/// `main.sub P|D key=value` and, behind a bar, the revision of what it replaced.
fn encode(row: &Row, replaced: Option<&Row>) -> Bytes {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let kind = if row.tombstone { "D" } else { "P" };
    let (main, sub) = (row.revision.main, row.revision.sub);
    let previous = replaced.map_or("none".to_owned(), |row| {
        format!(
            "{}.{} {}",
            row.revision.main,
            row.revision.sub,
            text(&row.value)
        )
    });
    format!(
        "{main}.{sub} {kind} {}={}|{previous}",
        text(&row.key),
        text(&row.value)
    )
    .into()
}

fn main_of(event: &str) -> i64 {
    event.split('.').next().unwrap().parse().unwrap()
}

/// A stream's receiving end. It has room for so many answers with events.
struct Sink {
    stream: StreamId,
    inbox: Arc<Inbox>,
    compacted: Arc<AtomicI64>,
    state: Mutex<SinkState>,
}

struct SinkState {
    /// With the compacted revision at the time.
    deliveries: Vec<(Delivery, i64)>,
    room: usize,
    starved: bool,
    was_starved: bool,
}

impl WatchSink for Sink {
    fn push(&self, delivery: Delivery) {
        let mut state = self.state.lock();
        if let DeliveryKind::Events { fragment, .. } = &delivery.kind {
            if !fragment {
                state.room = state.room.saturating_sub(1);
            }
        }
        let compacted = self.compacted.load(Ordering::SeqCst);
        state.deliveries.push((delivery, compacted));
    }

    fn has_room(&self) -> bool {
        let mut state = self.state.lock();
        let room = state.room > 0;
        state.starved |= !room;
        state.was_starved |= !room;
        room
    }
}

impl Sink {
    fn give_room(&self, room: usize) {
        let mut state = self.state.lock();
        state.room = room;
        if room > 0 && std::mem::take(&mut state.starved) {
            drop(state);
            self.inbox.push(Message::Room {
                stream: self.stream,
            });
        }
    }
}

#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A watch as its client sees it.
struct Seen {
    request: WatchRequest,
    start: i64,
    /// Events with the compacted revision when they came.
    events: Vec<(String, i64)>,
    /// The greatest revision of the last whole answer.
    answered: i64,
    /// Parts of an answer that goes on.
    open_parts: usize,
    created_at: i64,
    ended: Option<i64>,
}

struct Stream {
    id: StreamId,
    sink: Arc<Sink>,
    requested: VecDeque<WatchRequest>,
    active: HashMap<i64, usize>,
    history: Vec<Delivery>,
    was_starved: bool,
    /// How much had come at the last tick.
    ticked: usize,
    watches: Vec<Seen>,
}

struct World {
    machine: Machine,
    tenant: Arc<Tenant>,
    model: Model,
    hub: Hub,
    bell: Arc<Bell>,
    compacted: Arc<AtomicI64>,
    streams: Vec<Stream>,
    gone: Vec<Stream>,
    next_stream: u64,
    applied: u64,
    now: Instant,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(streams: usize) -> World {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            cache_bytes: 4 << 10,
            reserve_bytes: 0,
            ..StoreOptions::default()
        };
        let (store, opened) = Store::open(dir.path(), options).unwrap();
        let options = MachineOptions {
            quota_bytes: None,
            lease_checkpoint_interval: Millis(300_000),
        };
        let machine =
            Machine::restore(Arc::new(store), opened.applied, options, Millis(0)).unwrap();
        let tenants = machine.tenants().clone();
        let bell = Arc::new(Bell::default());
        let now = Instant::now();
        let limits = HubLimits {
            watches_per_stream: WATCHES_PER_STREAM,
            fragment_bytes: FRAGMENT_BYTES,
            progress_interval: INTERVAL,
        };
        let inbox = tenants.inbox().clone();
        let hub = Hub::new(inbox, tenants.clone(), bell.clone(), encode, limits, now);
        let mut world = World {
            tenant: tenants.get(TenantId::DEFAULT).unwrap(),
            machine,
            model: Model::new(),
            hub,
            bell,
            compacted: Arc::new(AtomicI64::new(-1)),
            streams: Vec::new(),
            gone: Vec::new(),
            next_stream: 1,
            applied: 1,
            now,
            _dir: dir,
        };
        for _ in 0..streams {
            world.open();
        }
        world
    }

    fn inbox(&self) -> &Inbox {
        self.machine.tenants().inbox()
    }

    fn open(&mut self) {
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        let sink = Arc::new(Sink {
            stream: id,
            inbox: self.machine.tenants().inbox().clone(),
            compacted: self.compacted.clone(),
            state: Mutex::new(SinkState {
                deliveries: Vec::new(),
                room: usize::MAX,
                starved: false,
                was_starved: false,
            }),
        });
        self.tenant.watch_stream_opened();
        self.inbox().push(Message::Open {
            stream: id,
            tenant: TenantId::DEFAULT,
            sink: sink.clone(),
        });
        self.streams.push(Stream {
            id,
            sink,
            requested: VecDeque::new(),
            active: HashMap::new(),
            history: Vec::new(),
            was_starved: false,
            ticked: 0,
            watches: Vec::new(),
        });
    }

    fn close(&mut self, at: usize) {
        self.inbox().push(Message::Close {
            stream: self.streams[at].id,
        });
        self.step();
        self.tenant.watch_stream_closed();
        let stream = self.streams.remove(at);
        self.gone.push(stream);
        self.open();
    }

    fn apply(&mut self, commands: &[Command]) {
        let mut entry = Vec::new();
        for command in commands {
            command.encode(TenantId::DEFAULT, &mut entry);
        }
        let position = LogPosition {
            index: self.applied + 1,
            term: 1,
        };
        self.applied += 1;
        let mut outcomes = Vec::new();
        self.machine
            .apply(position, entry.into(), Millis(0), &mut outcomes)
            .unwrap();
        for (command, outcome) in commands.iter().zip(outcomes) {
            assert_eq!(outcome, self.model.apply(command));
        }
        self.compacted.store(self.model.compacted, Ordering::SeqCst);
    }

    fn prune(&mut self) {
        loop {
            let (dropped, done) = self.tenant.prune(5);
            let store = self.machine.tenants().store().clone();
            let mut rows = Vec::new();
            store
                .get_many(TenantId::DEFAULT, &dropped, &mut rows)
                .unwrap();
            let size = |row: &Row| ROW_OVERHEAD_BYTES + (row.key.len() + row.value.len()) as u64;
            let bytes = rows.iter().flatten().map(size).sum();
            let tenant = self.tenant.clone();
            self.machine.drop_rows(&tenant, dropped, bytes);
            if done {
                return;
            }
        }
    }

    fn create(&mut self, at: usize, request: WatchRequest) {
        let stream = &mut self.streams[at];
        stream.requested.push_back(request.clone());
        let message = Message::Create {
            stream: stream.id,
            request,
        };
        self.inbox().push(message);
    }

    fn step(&mut self) -> bool {
        let rings = self.bell.0.load(Ordering::SeqCst);
        let more = self.hub.step(self.now);
        assert!(
            self.bell.0.load(Ordering::SeqCst) > rings,
            "nobody was woken"
        );
        for stream in &mut self.streams {
            stream.observe(&self.model);
        }
        for stream in &self.gone {
            let total = stream.sink.state.lock().deliveries.len();
            assert_eq!(total, stream.history.len(), "a closed stream was served");
        }
        more
    }

    fn tick(&mut self) {
        self.now += INTERVAL;
        self.step();
        for stream in &mut self.streams {
            stream.ticked = stream.history.len();
        }
    }

    fn settle(&mut self) {
        for stream in &self.streams {
            stream.sink.give_room(usize::MAX);
        }
        for _ in 0..10_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the hub never comes to rest");
    }

    fn check_all(&mut self) {
        self.settle();
        for stream in self.streams.iter().chain(&self.gone) {
            let open = self.streams.iter().any(|other| other.id == stream.id);
            assert!(
                !open || stream.requested.is_empty(),
                "a request was not answered"
            );
            for watch in &stream.watches {
                watch.check(&self.model, open);
            }
        }
    }
}

impl Stream {
    /// Looks at what came since the last time.
    fn observe(&mut self, model: &Model) {
        let new: Vec<(Delivery, i64)> = {
            let state = self.sink.state.lock();
            self.was_starved = state.was_starved;
            state.deliveries[self.history.len()..].to_vec()
        };
        for (delivery, compacted) in new {
            self.take(&delivery, compacted, model);
            self.history.push(delivery);
        }
    }

    fn take(&mut self, delivery: &Delivery, compacted: i64, model: &Model) {
        let id = delivery.watch_id;
        assert!(
            delivery.revision <= model.revision,
            "{delivery:?} is from the future"
        );
        match &delivery.kind {
            DeliveryKind::Created => {
                let request = self.requested.pop_front().unwrap();
                assert_eq!(self.refusal(&request), None, "{request:?}");
                if request.id == 0 {
                    assert!(id >= 0);
                } else {
                    assert_eq!(id, request.id);
                }
                let start = if request.start == 0 {
                    delivery.revision + 1
                } else {
                    request.start
                };
                let taken = self.active.insert(id, self.watches.len());
                assert_eq!(taken, None, "watch id {id} was in use");
                self.watches.push(Seen {
                    request,
                    start,
                    events: Vec::new(),
                    answered: 0,
                    open_parts: 0,
                    created_at: delivery.revision,
                    ended: None,
                });
            }
            DeliveryKind::Rejected { reason } => {
                assert_eq!(id, -1);
                let request = self.requested.pop_front().unwrap();
                assert_eq!(Some(reason.as_str()), self.refusal(&request), "{request:?}");
            }
            DeliveryKind::Canceled { compacted: mark } => {
                let watch = &mut self.watches[self.active.remove(&id).unwrap()];
                watch.ended = Some(*mark);
                assert_eq!(watch.open_parts, 0);
                if *mark != 0 {
                    assert_eq!(delivery.revision, 0);
                    assert_eq!(*mark, compacted);
                    assert!(
                        watch.start.max(watch.answered + 1) < *mark,
                        "nothing of it was compacted"
                    );
                    let late = watch.start <= watch.created_at;
                    assert!(late || self.was_starved, "it was never behind");
                }
            }
            DeliveryKind::Events { events, fragment } => {
                let watch = &mut self.watches[self.active[&id]];
                assert!(!events.is_empty());
                let texts: Vec<String> = events
                    .iter()
                    .map(|event| String::from_utf8(event.to_vec()).unwrap())
                    .collect();
                assert!(delivery.revision >= main_of(texts.last().unwrap()));
                if watch.open_parts == 0 {
                    assert!(
                        main_of(&texts[0]) > watch.answered,
                        "a transaction was torn, or came twice"
                    );
                }
                let bytes: usize = events.iter().map(Bytes::len).sum();
                if watch.request.fragment {
                    assert!(
                        bytes < FRAGMENT_BYTES || events.len() == 1,
                        "a part of {bytes} bytes"
                    );
                } else {
                    assert!(!fragment);
                }
                watch.answered = main_of(texts.last().unwrap());
                watch.open_parts = if *fragment { watch.open_parts + 1 } else { 0 };
                watch
                    .events
                    .extend(texts.into_iter().map(|text| (text, compacted)));
            }
            DeliveryKind::Progress if id == -1 => {
                assert!(
                    !self.active.is_empty(),
                    "progress of a stream without watches"
                );
                for at in self.active.values() {
                    self.watches[*at].check_progress(delivery.revision, model);
                }
            }
            DeliveryKind::Progress => {
                let watch = &self.watches[self.active[&id]];
                assert!(watch.request.progress);
                watch.check_progress(delivery.revision, model);
                let busy = self.history[self.ticked..].iter().any(|other| {
                    other.watch_id == id && matches!(other.kind, DeliveryKind::Events { .. })
                });
                assert!(!busy, "it had events since the last tick");
            }
        }
    }

    fn refusal(&self, request: &WatchRequest) -> Option<&'static str> {
        if self.active.len() >= WATCHES_PER_STREAM {
            Some("etcdserver: too many watches on the stream")
        } else if request.start < 0 {
            Some("etcdserver: mvcc: required revision has been compacted")
        } else if request.keys.is_empty() {
            Some("mvcc: watcher range is empty")
        } else if request.id < 0 {
            Some("etcdserver: watch ID is negative")
        } else if request.id != 0 && self.active.contains_key(&request.id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream")
        } else {
            None
        }
    }
}

impl Seen {
    /// What it must get of everything that was written up to `until`: the event, and what it replaced.
    fn expected(&self, model: &Model, until: i64) -> Vec<(String, Option<String>)> {
        let rows = model.rows.iter().enumerate();
        rows.filter(|(_, row)| {
            row.revision.main >= self.start
                && row.revision.main <= until
                && self.request.keys.contains(&row.key)
                && !(row.tombstone && self.request.no_delete)
                && !(!row.tombstone && self.request.no_put)
        })
        .map(|(at, row)| {
            let before = model.rows[..at]
                .iter()
                .rev()
                .find(|other| other.key == row.key);
            let before = before.filter(|other| !other.tombstone && self.request.previous);
            let plain = String::from_utf8(encode(row, None).to_vec()).unwrap();
            let full =
                before.map(|before| String::from_utf8(encode(row, Some(before)).to_vec()).unwrap());
            (plain, full)
        })
        .collect()
    }

    fn check(&self, model: &Model, open: bool) {
        let expected = self.expected(model, i64::MAX);
        assert!(
            self.events.len() <= expected.len(),
            "{:?}: too many events",
            self.request
        );
        for ((found, compacted), (plain, full)) in self.events.iter().zip(&expected) {
            match full {
                Some(full) if found == full => {}
                // What was replaced may be gone by now, if the revision before the event was compacted.
                Some(_) => {
                    assert_eq!(found, plain, "{:?}", self.request);
                    assert!(
                        main_of(found) <= *compacted,
                        "{found}: what it replaced was not told"
                    );
                }
                None => assert_eq!(found, plain, "{:?}", self.request),
            }
        }
        if open && self.ended.is_none() {
            assert_eq!(
                self.events.len(),
                expected.len(),
                "{:?} lost events",
                self.request
            );
        }
    }

    /// A claim that everything up to `revision` was delivered.
    fn check_progress(&self, revision: i64, model: &Model) {
        assert!(
            revision + 1 >= self.start,
            "progress of a watch that has not begun"
        );
        assert_eq!(self.open_parts, 0);
        let due = self.expected(model, revision).len();
        assert!(
            self.events.len() >= due,
            "revision {revision} claimed before its events came"
        );
    }
}

fn put(key: &str, value: impl Into<String>) -> Command {
    Command::Put(put_of(key, value))
}

fn put_of(key: &str, value: impl Into<String>) -> Put {
    Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into().into(),
        lease: 0,
        previous: false,
        keep_value: false,
        keep_lease: false,
    }
}

fn delete(keys: KeyRange) -> Command {
    Command::DeleteRange(DeleteRange {
        keys,
        previous: false,
    })
}

fn watch(keys: KeyRange) -> WatchRequest {
    WatchRequest {
        id: 0,
        keys,
        start: 0,
        progress: false,
        no_put: false,
        no_delete: false,
        previous: false,
        fragment: false,
    }
}

fn span(start: &'static str, end: &'static str) -> KeyRange {
    KeyRange::Span {
        start: start.into(),
        end: end.into(),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<Command>),
    /// Compacts so many revisions before the present, and perhaps removes the rows.
    Compact(i64, bool),
    /// On a stream; the start is relative to the present if it is not 0.
    Create(usize, Option<i64>, WatchRequest),
    Cancel(usize, i64),
    Progress(usize),
    Room(usize, usize),
    Close(usize),
    Persist,
    Step,
    Tick,
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "d"])
}

fn keys() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => key().prop_map(|key| KeyRange::Point(key.into())),
        3 => (key(), key()).prop_map(|(a, b)| span(a, b)),
        1 => key().prop_map(|key| KeyRange::From(key.into())),
        2 => Just(KeyRange::All),
    ]
}

fn change() -> impl Strategy<Value = Command> {
    let value = || {
        prop::sample::select(vec![
            "",
            "x",
            "yyyy",
            "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
        ])
    };
    let txn = (value(), value(), any::<bool>()).prop_map(|(x, y, delete_c)| {
        let mut success = vec![Op::Put(put_of("a", x)), Op::Put(put_of("b", y))];
        if delete_c {
            success.insert(
                1,
                Op::DeleteRange(DeleteRange {
                    keys: span("c", "e"),
                    previous: true,
                }),
            );
        }
        Command::Txn(Txn {
            success,
            ..Txn::default()
        })
    });
    prop_oneof![
        6 => (key(), value()).prop_map(|(key, value)| put(key, value)),
        3 => keys().prop_map(delete),
        2 => txn,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let stream = || 0..2usize;
    let request = (
        keys(),
        prop_oneof![6 => Just(0i64), 3 => 1..4i64, 1 => -2..0i64],
        any::<[bool; 5]>(),
    )
        .prop_map(
            |(keys, id, [progress, no_put, no_delete, previous, fragment])| WatchRequest {
                id,
                keys,
                start: 0,
                progress,
                no_put: no_put && !no_delete,
                no_delete: no_delete && !progress,
                previous,
                fragment,
            },
        );
    let start = prop_oneof![2 => Just(None), 4 => (-25..4i64).prop_map(Some)];
    prop_oneof![
        12 => vec(change(), 1..4).prop_map(Step::Apply),
        2 => (0..8i64, any::<bool>()).prop_map(|(back, prune)| Step::Compact(back, prune)),
        6 => (stream(), start, request).prop_map(|(at, start, request)| Step::Create(at, start, request)),
        2 => (stream(), 0..5i64).prop_map(|(at, id)| Step::Cancel(at, id)),
        3 => stream().prop_map(Step::Progress),
        5 => (stream(), prop_oneof![2 => Just(0usize), 2 => 1..4usize, 2 => Just(usize::MAX)])
            .prop_map(|(at, room)| Step::Room(at, room)),
        1 => stream().prop_map(Step::Close),
        1 => Just(Step::Persist),
        10 => Just(Step::Step),
        2 => Just(Step::Tick),
    ]
}

fn run(steps: Vec<Step>) {
    let mut world = World::new(2);
    for step in steps {
        match step {
            Step::Apply(commands) => world.apply(&commands),
            Step::Compact(back, prune) => {
                let revision = world.model.revision - back;
                world.apply(&[Command::Compact { revision }]);
                if prune {
                    world.prune();
                }
            }
            Step::Create(at, start, mut request) => {
                request.start = start.map_or(0, |start| world.model.revision + start);
                world.create(at, request);
            }
            Step::Cancel(at, watch_id) => {
                let stream = world.streams[at].id;
                world.inbox().push(Message::Cancel { stream, watch_id });
            }
            Step::Progress(at) => {
                let stream = world.streams[at].id;
                world.inbox().push(Message::Progress { stream });
            }
            Step::Room(at, room) => world.streams[at].sink.give_room(room),
            Step::Close(at) => world.close(at),
            Step::Persist => {
                world.machine.tenants().store().persist().unwrap();
            }
            Step::Step => {
                world.step();
            }
            Step::Tick => world.tick(),
        }
    }
    world.check_all();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        rng_seed: RngSeed::Fixed(20_261_120),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_watch_gets_exactly_its_events(steps in vec(step(), 20..120)) {
        run(steps);
    }
}

fn kinds(world: &World, at: usize) -> Vec<(i64, i64, DeliveryKind)> {
    let deliveries = world.streams[at].history.iter();
    deliveries
        .map(|d| (d.watch_id, d.revision, d.kind.clone()))
        .collect()
}

#[test]
fn cancel_answers_for_known_watches_only_and_ids_are_given_out_again_only_when_asked() {
    let mut world = World::new(1);
    let stream = world.streams[0].id;
    let with_id = |id| WatchRequest {
        id,
        ..watch(KeyRange::All)
    };
    for id in [0, 1, 0, 1, -1, -7] {
        world.create(0, with_id(id));
    }
    for watch_id in [5, 1, 1, -1] {
        world.inbox().push(Message::Cancel { stream, watch_id });
    }
    world.create(0, with_id(1));
    world.create(0, with_id(0));
    world.step();
    let rejected = |reason: &str| DeliveryKind::Rejected {
        reason: reason.to_owned(),
    };
    let expected = [
        (0, DeliveryKind::Created),
        (1, DeliveryKind::Created),
        (2, DeliveryKind::Created),
        (
            -1,
            rejected("mvcc: duplicate watch ID provided on the WatchStream"),
        ),
        (-1, rejected("etcdserver: watch ID is negative")),
        (-1, rejected("etcdserver: watch ID is negative")),
        (1, DeliveryKind::Canceled { compacted: 0 }),
        (1, DeliveryKind::Created),
        (3, DeliveryKind::Created),
    ];
    let found: Vec<_> = kinds(&world, 0)
        .into_iter()
        .map(|(id, _, kind)| (id, kind))
        .collect();
    assert_eq!(found, expected);
    world.apply(&[put("a", "x")]);
    world.check_all();
    // Four watches live, each with one event; the canceled one got none.
    assert_eq!(world.streams[0].history.len(), expected.len() + 4);
}

#[test]
fn starts_at_the_edges_of_what_can_be_asked_for() {
    let mut world = World::new(1);
    for n in 0..5 {
        world.apply(&[put("a", n.to_string())]);
    }
    world.apply(&[Command::Compact { revision: 4 }]);
    world.prune();
    for start in [i64::MIN, -1, 1, 3, 4, i64::MAX] {
        world.create(
            0,
            WatchRequest {
                start,
                ..watch(KeyRange::All)
            },
        );
    }
    world.step();
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    let rejected = DeliveryKind::Rejected {
        reason: compacted.to_owned(),
    };
    let found = kinds(&world, 0);
    assert_eq!(found[..2], [(-1, 6, rejected.clone()), (-1, 6, rejected)]);
    let created: Vec<_> = (0..4).map(|id| (id, 6, DeliveryKind::Created)).collect();
    assert_eq!(found[2..6], created[..]);
    let canceled = DeliveryKind::Canceled { compacted: 4 };
    assert_eq!(found[6..8], [(0, 0, canceled.clone()), (1, 0, canceled)]);
    assert_eq!(found.len(), 9);
    assert!(matches!(&found[8], (2, 6, DeliveryKind::Events { events, .. }) if events.len() == 3));
    world.apply(&[put("a", "x"), delete(KeyRange::All)]);
    world.check_all();
    let stream = world.streams[0].id;
    world.inbox().push(Message::Progress { stream });
    world.settle();
    let progress = |world: &World| {
        let all = kinds(world, 0);
        all.into_iter()
            .filter(|(.., kind)| *kind == DeliveryKind::Progress)
            .map(|(id, at, _)| (id, at))
            .collect::<Vec<_>>()
    };
    assert_eq!(progress(&world), [], "one watch has not begun");
    world.inbox().push(Message::Cancel {
        stream,
        watch_id: 3,
    });
    world.inbox().push(Message::Progress { stream });
    world.settle();
    assert_eq!(progress(&world), [(-1, 8)]);
}

#[test]
fn progress_is_told_to_idle_watches_that_asked_and_to_synced_streams() {
    let mut world = World::new(1);
    let stream = world.streams[0].id;
    let progress = |world: &World| {
        let all = kinds(world, 0);
        all.into_iter()
            .filter(|(.., kind)| *kind == DeliveryKind::Progress)
            .map(|(id, at, _)| (id, at))
            .collect::<Vec<_>>()
    };
    world.inbox().push(Message::Progress { stream });
    world.settle();
    assert_eq!(progress(&world), [], "a stream without watches");
    world.create(
        0,
        WatchRequest {
            progress: true,
            ..watch(KeyRange::Point("a".into()))
        },
    );
    world.create(0, watch(KeyRange::Point("b".into())));
    world.apply(&[put("other", "x")]);
    world.tick();
    // The first one never had an event.
    assert_eq!(progress(&world), [(0, 2)]);
    world.apply(&[put("a", "x")]);
    world.tick();
    assert_eq!(progress(&world).len(), 1, "it was busy");
    world.apply(&[put("b", "x")]);
    world.tick();
    assert_eq!(progress(&world)[1..], [(0, 4)]);

    // Behind: a stream without room.
    world.streams[0].sink.give_room(0);
    world.apply(&[put("b", "y")]);
    world.inbox().push(Message::Progress { stream });
    world.settle_without_room();
    world.tick();
    assert_eq!(progress(&world).len(), 2);
    world.settle();
    world.inbox().push(Message::Progress { stream });
    world.settle();
    assert_eq!(progress(&world)[2..], [(-1, 5)]);
    world.check_all();
}

#[test]
fn a_large_answer_is_split_for_those_who_asked() {
    let mut world = World::new(1);
    world.create(
        0,
        WatchRequest {
            fragment: true,
            ..watch(KeyRange::All)
        },
    );
    world.create(0, watch(KeyRange::All));
    world.create(
        0,
        WatchRequest {
            fragment: true,
            start: 2,
            ..watch(KeyRange::All)
        },
    );
    world.step();
    let success = (0..9)
        .map(|n| Op::Put(put_of(&format!("k{n}"), "value")))
        .collect();
    world.apply(&[Command::Txn(Txn {
        success,
        ..Txn::default()
    })]);
    world.check_all();
    for id in [0, 2] {
        let parts: Vec<bool> = kinds(&world, 0)
            .into_iter()
            .filter(|(of, ..)| *of == id)
            .filter_map(|(_, revision, kind)| match kind {
                DeliveryKind::Events { fragment, .. } => {
                    assert_eq!(revision, 2);
                    Some(fragment)
                }
                _ => None,
            })
            .collect();
        assert!(parts.len() > 1);
        assert!(parts[..parts.len() - 1].iter().all(|fragment| *fragment));
        assert!(!parts[parts.len() - 1]);
    }
}

/// More transactions than wait for the hub: they are forgotten in the inbox, not for the watches.
#[test]
fn a_flooded_inbox_loses_no_event() {
    let mut world = World::new(2);
    world.create(0, watch(KeyRange::Point("a".into())));
    world.create(
        0,
        WatchRequest {
            previous: true,
            ..watch(span("b", "d"))
        },
    );
    world.create(1, watch(KeyRange::All));
    world.create(
        1,
        WatchRequest {
            start: 20_010,
            ..watch(KeyRange::All)
        },
    );
    world.step();
    world.apply(&[put("a", "first")]);
    world.step();
    world.streams[1].sink.give_room(0);
    world.create(
        0,
        WatchRequest {
            start: 1,
            ..watch(KeyRange::Point("c".into()))
        },
    );
    let flood = |world: &mut World| {
        for n in 0..42 {
            let entry: Vec<_> = (0..400)
                .map(|m| put(["a", "b", "c", "x"][m % 4], format!("{n} {m}")))
                .collect();
            // The naive model is too slow for this many.
            let mut bytes = Vec::new();
            for command in &entry {
                command.encode(TenantId::DEFAULT, &mut bytes);
            }
            world.applied += 1;
            let position = LogPosition {
                index: world.applied,
                term: 1,
            };
            world
                .machine
                .apply(position, bytes.into(), Millis(0), &mut Vec::new())
                .unwrap();
        }
    };
    flood(&mut world);
    let stream = world.streams[0].id;
    assert!(
        world.inbox().load().transactions < 16_800,
        "the inbox was not bounded"
    );
    // What stands in the queue at the time of the flood is served after it.
    world.create(0, watch(KeyRange::Point("a".into())));
    world.inbox().push(Message::Progress { stream });
    world.sync_model();
    world.step();
    flood(&mut world);
    world.sync_model();
    world.check_all();
    let seen: Vec<usize> = world.streams[1]
        .watches
        .iter()
        .map(|watch| watch.events.len())
        .collect();
    assert_eq!(seen[0], 2 * 42 * 400 + 1);
    assert!(seen[1] > 10_000);
}

/// A few large values weigh as much as many small ones.
#[test]
fn the_inbox_is_bounded_in_bytes() {
    let inbox = Inbox::default();
    let row = |main: i64| Row {
        revision: holdfast_storage::Revision::first(main),
        key: "k".into(),
        value: vec![0; 1 << 20].into(),
        create_revision: 2,
        version: 1,
        lease: 0,
        tombstone: false,
    };
    for main in 2..300 {
        let events = vec![Event {
            row: row(main),
            replaced: None,
        }];
        inbox.push(Message::Applied(vec![Transaction {
            tenant: TenantId::DEFAULT,
            main,
            events,
        }]));
        assert!(
            inbox.load().transactions <= 65,
            "{} MiB wait",
            inbox.load().transactions
        );
    }
    assert!(inbox.load().transactions > 0);
}

impl World {
    fn settle_without_room(&mut self) {
        for _ in 0..10 {
            self.step();
        }
    }

    /// Takes the rows that were written past the model from the store.
    fn sync_model(&mut self) {
        let store = self.machine.tenants().store();
        let first = holdfast_storage::Revision::first(0);
        self.model.rows = store
            .scan(TenantId::DEFAULT, first, i64::MAX)
            .map(|row| row.unwrap())
            .collect();
        self.model.revision = self.tenant.revision();
    }
}
