//! The hub over a real machine, with streams whose clients check each delivery as it comes.

#![allow(dead_code, reason = "each test uses a part of it")]

mod applier;

use crate::model::{AuthModel, Model};
use applier::Applier;
use bytes::Bytes;
use holdfast_auth::{Caller, Denied, KeyRange};
use holdfast_storage::backend::{Store, StoreOptions};
use holdfast_storage::lease::Millis;
use holdfast_storage::{LogPosition, Row, TenantId};
use holdfast_tenant::request::{DeleteRange, Put};
use holdfast_tenant::watch::{
    Delivery, DeliveryKind, Hub, HubLimits, Inbox, Message, StreamId, Wake, WatchRequest,
    WatchSink, denial_reason,
};
use holdfast_tenant::{Command, Machine, MachineOptions, ROW_OVERHEAD_BYTES, Tenant};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) const FRAGMENT_BYTES: usize = 60;
pub(crate) const WATCHES_PER_STREAM: usize = 6;
pub(crate) const INTERVAL: Duration = Duration::from_secs(600);

/// `main.sub P|D key=value` and, behind a bar, the revision of what it replaced.
pub(crate) fn encode(row: &Row, replaced: Option<&Row>) -> Bytes {
    let text = |bytes: &Bytes| match bytes.len() {
        0..100 => String::from_utf8_lossy(bytes).into_owned(),
        long => format!("{long} bytes"),
    };
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

pub(crate) fn main_of(event: &str) -> i64 {
    event.split('.').next().unwrap().parse().unwrap()
}

/// A stream's receiving end. It has room for so many answers with events.
pub(crate) struct Sink {
    pub(crate) stream: StreamId,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) compacted: Arc<AtomicI64>,
    pub(crate) state: Mutex<SinkState>,
}

pub(crate) struct SinkState {
    /// With the compacted revision at the time.
    pub(crate) deliveries: Vec<(Delivery, i64)>,
    pub(crate) room: usize,
    pub(crate) starved: bool,
    pub(crate) was_starved: bool,
}

impl WatchSink for Sink {
    fn push(&self, delivery: Delivery) {
        let mut state = self.state.lock();
        if let DeliveryKind::Events {
            fragment: false, ..
        } = &delivery.kind
        {
            state.room = state.room.saturating_sub(1);
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
    pub(crate) fn give_room(&self, room: usize) {
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
pub(crate) struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A watch as its client sees it.
pub(crate) struct Seen {
    pub(crate) request: WatchRequest,
    pub(crate) caller: Caller,
    /// When it was asked for.
    pub(crate) asked_at: u64,
    pub(crate) start: i64,
    /// Events with the compacted revision when they came.
    pub(crate) events: Vec<(String, i64)>,
    /// The greatest revision of the last whole answer.
    pub(crate) answered: i64,
    /// Parts of an answer that goes on.
    pub(crate) open_parts: usize,
    pub(crate) created_at: i64,
    pub(crate) ended: Option<i64>,
}

pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) sink: Arc<Sink>,
    /// With the caller, and when.
    pub(crate) requested: VecDeque<(WatchRequest, Caller, u64)>,
    pub(crate) active: HashMap<i64, usize>,
    pub(crate) history: Vec<Delivery>,
    pub(crate) was_starved: bool,
    /// How much had come at the last tick.
    pub(crate) ticked: usize,
    pub(crate) watches: Vec<Seen>,
}

/// Users and roles after a change.
pub(crate) struct AuthPoint {
    /// When it was applied.
    pub(crate) at: u64,
    pub(crate) revision: i64,
    pub(crate) auth: AuthModel,
}

/// What a client can know: everything that was applied.
pub(crate) struct Truth {
    pub(crate) model: Model,
    pub(crate) auth_log: Vec<AuthPoint>,
    /// Something was applied while the hub was at work, so that it may have seen any state since.
    pub(crate) moved: bool,
    /// The inbox forgot transactions, by which watches fell behind.
    pub(crate) overflowed: bool,
}

impl std::ops::Deref for Truth {
    type Target = Model;

    fn deref(&self) -> &Model {
        &self.model
    }
}

impl std::ops::DerefMut for Truth {
    fn deref_mut(&mut self) -> &mut Model {
        &mut self.model
    }
}

pub(crate) struct World {
    applier: Arc<Applier>,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) model: Truth,
    pub(crate) hub: Hub,
    pub(crate) bell: Arc<Bell>,
    pub(crate) compacted: Arc<AtomicI64>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) gone: Vec<Stream>,
    pub(crate) next_stream: u64,
    pub(crate) now: Instant,
    pub(crate) _dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new(streams: usize) -> World {
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
            lease_ownership: false,
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
        let compacted = Arc::new(AtomicI64::new(-1));
        let applier = Arc::new(Applier::new(machine, compacted.clone()));
        let hub = Hub::new(inbox, applier.clone(), bell.clone(), encode, limits, now);
        let mut world = World {
            tenant: tenants.get(TenantId::DEFAULT).unwrap(),
            applier,
            model: Truth {
                model: Model::new(),
                auth_log: Vec::new(),
                moved: false,
                overflowed: false,
            },
            hub,
            bell,
            compacted,
            streams: Vec::new(),
            gone: Vec::new(),
            next_stream: 1,
            now,
            _dir: dir,
        };
        for _ in 0..streams {
            world.open();
        }
        world
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        self.applier.tenants.inbox()
    }

    pub(crate) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.applier.machine.lock()
    }

    pub(crate) fn next_position(&self) -> LogPosition {
        self.applier.next_position()
    }

    pub(crate) fn open(&mut self) {
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        let sink = Arc::new(Sink {
            stream: id,
            inbox: self.applier.tenants.inbox().clone(),
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

    pub(crate) fn close(&mut self, at: usize) {
        self.inbox().push(Message::Close {
            stream: self.streams[at].id,
        });
        self.step();
        self.tenant.watch_stream_closed();
        let stream = self.streams.remove(at);
        self.gone.push(stream);
        self.open();
    }

    /// One entry of what the server does by itself.
    pub(crate) fn apply(&mut self, commands: &[Command]) {
        let by_server = |command: &Command| (Caller::Server, command.clone());
        self.apply_by(&commands.iter().map(by_server).collect::<Vec<_>>());
    }

    /// One entry.
    pub(crate) fn apply_by(&mut self, commands: &[(Caller, Command)]) {
        self.applier.apply(commands);
        self.absorb();
    }

    /// Has an entry applied in the middle of the hub's next round: when it has asked `after` times for the state of the machine.
    pub(crate) fn apply_within(&mut self, after: usize, commands: Vec<(Caller, Command)>) {
        self.applier.plan(after, commands);
        // What was planned before is applied at once.
        self.absorb();
    }

    /// The model does what the machine has done.
    fn absorb(&mut self) {
        for applied in self.applier.take_applied() {
            for ((caller, command), outcome) in applied.commands.iter().zip(applied.outcomes) {
                let expected = self.model.apply_by(caller, command);
                assert_eq!(outcome, expected, "{caller:?}: {command:?}");
                if matches!(command, Command::Auth(_)) {
                    let point = AuthPoint {
                        at: applied.at,
                        revision: self.model.revision,
                        auth: self.model.auth.clone(),
                    };
                    self.model.auth_log.push(point);
                }
            }
        }
    }

    pub(crate) fn prune(&mut self) {
        loop {
            let (dropped, done) = self.tenant.prune(5);
            let store = self.applier.tenants.store().clone();
            let mut rows = Vec::new();
            store
                .get_many(TenantId::DEFAULT, &dropped, &mut rows)
                .unwrap();
            let size = |row: &Row| ROW_OVERHEAD_BYTES + (row.key.len() + row.value.len()) as u64;
            let bytes = rows.iter().flatten().map(size).sum();
            let tenant = self.tenant.clone();
            self.machine().drop_rows(&tenant, dropped, bytes);
            if done {
                return;
            }
        }
    }

    pub(crate) fn create(&mut self, at: usize, request: WatchRequest) {
        self.create_by(at, request, Caller::Anonymous);
    }

    pub(crate) fn create_by(&mut self, at: usize, request: WatchRequest, caller: Caller) {
        let asked_at = self.applier.next_time();
        let stream = &mut self.streams[at];
        stream
            .requested
            .push_back((request.clone(), caller.clone(), asked_at));
        let message = Message::Create {
            stream: stream.id,
            request,
            caller,
        };
        self.inbox().push(message);
    }

    pub(crate) fn step(&mut self) -> bool {
        let rings = self.bell.0.load(Ordering::SeqCst);
        let more = self.hub.step(self.now);
        self.model.moved = self.applier.finish_plan();
        self.absorb();
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

    pub(crate) fn tick(&mut self) {
        self.now += INTERVAL;
        self.step();
        for stream in &mut self.streams {
            stream.ticked = stream.history.len();
        }
    }

    pub(crate) fn settle(&mut self) {
        for stream in &self.streams {
            stream.sink.give_room(usize::MAX);
        }
        for _ in 0..10_000 {
            if !self.step() && !self.model.moved {
                return;
            }
        }
        panic!("the hub never comes to rest");
    }

    pub(crate) fn check_all(&mut self) {
        self.settle();
        for stream in self.streams.iter().chain(&self.gone) {
            let open = self.streams.iter().any(|other| other.id == stream.id);
            assert!(
                !open || stream.requested.is_empty(),
                "a request was not answered"
            );
            for watch in &stream.watches {
                watch.check(&self.model, open);
                let revoked = watch.revoked(&self.model);
                assert!(
                    !open || revoked.is_none() || watch.ended.is_some(),
                    "{revoked:?} did not end {:?}",
                    watch.request
                );
            }
        }
    }
}

impl Stream {
    /// Looks at what came since the last time.
    pub(crate) fn observe(&mut self, model: &Truth) {
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

    pub(crate) fn take(&mut self, delivery: &Delivery, compacted: i64, model: &Truth) {
        let id = delivery.watch_id;
        assert!(
            delivery.revision <= model.revision,
            "{delivery:?} is from the future"
        );
        match &delivery.kind {
            DeliveryKind::Created => {
                let (request, caller, asked_at) = self.requested.pop_front().unwrap();
                assert_eq!(self.refusal(&request), None, "{request:?}");
                let permitted = model.auth.may_watch(&caller, &request.keys);
                assert!(permitted.is_ok() || model.moved, "{caller:?}: {request:?}");
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
                    caller,
                    asked_at,
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
                let (request, caller, asked_at) = self.requested.pop_front().unwrap();
                let denial = |auth: &AuthModel| {
                    let denied = auth.may_watch(&caller, &request.keys).err();
                    denied.map(denial_reason)
                };
                let now = denial(&model.auth);
                if reason.starts_with("rpc error") {
                    let mut since = model.auth_log.iter().filter(|point| point.at > asked_at);
                    let denied = now.as_ref() == Some(reason)
                        || model.moved
                            && since.any(|point| denial(&point.auth).as_ref() == Some(reason));
                    assert!(denied, "{caller:?} may have {request:?}, not {reason}");
                } else {
                    assert!(
                        now.is_none() || model.moved,
                        "it was not permitted first of all"
                    );
                    assert_eq!(Some(reason.as_str()), self.refusal(&request), "{request:?}");
                }
            }
            DeliveryKind::Canceled {
                compacted: mark,
                reason,
            } => {
                let watch = &mut self.watches[self.active.remove(&id).unwrap()];
                watch.ended = Some(*mark);
                assert_eq!(watch.open_parts, 0);
                if !reason.is_empty() {
                    assert_eq!(*mark, 0);
                    let (revision, denied) = watch.revoked(model).expect("nobody revoked it");
                    assert_eq!(
                        (delivery.revision, reason),
                        (revision, &denial_reason(denied))
                    );
                }
                if *mark != 0 {
                    assert_eq!(delivery.revision, 0);
                    assert_eq!(*mark, compacted);
                    assert!(
                        watch.start.max(watch.answered + 1) < *mark,
                        "nothing of it was compacted"
                    );
                    let late = watch.start <= watch.created_at;
                    let fell = self.was_starved || model.overflowed;
                    assert!(late || fell, "it was never behind");
                }
            }
            DeliveryKind::Events { events, fragment } => {
                let watch = &mut self.watches[self.active[&id]];
                assert!(!events.is_empty());
                let texts: Vec<String> = events
                    .iter()
                    .map(|event| String::from_utf8(event.to_vec()).unwrap())
                    .collect();
                let last = main_of(texts.last().unwrap());
                assert!(delivery.revision >= last);
                if let Some((revision, _)) = watch.revoked(model) {
                    assert!(
                        last <= revision,
                        "{last} was delivered after the end at {revision}: {:?}",
                        watch.request
                    );
                }
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

    pub(crate) fn refusal(&self, request: &WatchRequest) -> Option<&'static str> {
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
    /// The first change since it was asked for that takes the right to it away.
    pub(crate) fn revoked(&self, model: &Truth) -> Option<(i64, Denied)> {
        let since = model
            .auth_log
            .iter()
            .filter(|point| point.at > self.asked_at);
        let mut denials = since.filter_map(|point| {
            let denied = point
                .auth
                .may_watch(&self.caller, &self.request.keys)
                .err()?;
            Some((point.revision, denied))
        });
        denials.next()
    }

    /// What it must get of everything that was written up to `until`: the event, and what it replaced.
    pub(crate) fn expected(&self, model: &Model, until: i64) -> Vec<Expected> {
        let rows = model.rows.iter().enumerate();
        rows.filter(|(_, row)| {
            row.revision.main >= self.start
                && row.revision.main <= until
                && self.request.keys.contains(&row.key)
                && !(if row.tombstone {
                    self.request.no_delete
                } else {
                    self.request.no_put
                })
        })
        .map(|(at, row)| {
            // As it was before the transaction; a creation replaces nothing.
            let created = !row.tombstone && row.create_revision == row.revision.main;
            let before = model.rows[..at]
                .iter()
                .rev()
                .find(|other| other.key == row.key && other.revision.main < row.revision.main);
            let before = before.filter(|other| !other.tombstone && !created);
            let before = before.filter(|_| self.request.previous);
            let plain = String::from_utf8(encode(row, None).to_vec()).unwrap();
            let full =
                before.map(|before| String::from_utf8(encode(row, Some(before)).to_vec()).unwrap());
            // Changed again in its own transaction, to which history was compacted: the row may be gone for a watch that is behind.
            let again = model.rows[at + 1..]
                .iter()
                .take_while(|other| other.revision.main == row.revision.main)
                .any(|other| other.key == row.key);
            Expected {
                plain,
                full,
                may_be_gone: again && model.marks.contains(&row.revision.main),
            }
        })
        .collect()
    }

    pub(crate) fn check(&self, model: &Model, open: bool) {
        let mut events = self.events.iter().peekable();
        for expected in self.expected(model, i64::MAX) {
            let Some((found, compacted)) =
                events.next_if(|(event, _)| base(event) == base(&expected.plain))
            else {
                if expected.may_be_gone {
                    continue;
                }
                assert_eq!(events.next(), None, "{:?}", self.request);
                let complete = open && self.ended.is_none();
                assert!(!complete, "{:?} lost {}", self.request, expected.plain);
                return;
            };
            match expected.full {
                Some(full) if *found == full => {}
                // What was replaced may be gone by now, if the revision before the event was compacted.
                Some(_) => {
                    assert_eq!(*found, expected.plain, "{:?}", self.request);
                    assert!(
                        main_of(found) <= *compacted,
                        "{found}: what it replaced was not told"
                    );
                }
                None => assert_eq!(*found, expected.plain, "{:?}", self.request),
            }
        }
        assert_eq!(events.next(), None, "{:?}: too many events", self.request);
    }

    /// A claim that everything up to `revision` was delivered.
    pub(crate) fn check_progress(&self, revision: i64, model: &Model) {
        assert!(
            revision + 1 >= self.start,
            "progress of a watch that has not begun"
        );
        assert_eq!(self.open_parts, 0);
        let came: HashSet<&str> = self.events.iter().map(|(event, _)| base(event)).collect();
        for due in self.expected(model, revision) {
            assert!(
                due.may_be_gone || came.contains(base(&due.plain)),
                "revision {revision} claimed before {} came",
                due.plain
            );
        }
    }
}

/// An event that a watch must get.
pub(crate) struct Expected {
    plain: String,
    /// With what it replaced, if that is to be told.
    full: Option<String>,
    may_be_gone: bool,
}

/// An event without what it replaced.
fn base(event: &str) -> &str {
    event.split('|').next().unwrap_or(event)
}

pub(crate) fn put(key: &str, value: impl Into<String>) -> Command {
    Command::Put(put_of(key, value))
}

pub(crate) fn put_of(key: &str, value: impl Into<String>) -> Put {
    Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into().into(),
        lease: 0,
        previous: false,
        keep_value: false,
        keep_lease: false,
    }
}

pub(crate) fn delete(keys: KeyRange) -> Command {
    Command::DeleteRange(DeleteRange {
        keys,
        previous: false,
    })
}

pub(crate) fn watch(keys: KeyRange) -> WatchRequest {
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

pub(crate) fn span(start: &'static str, end: &'static str) -> KeyRange {
    KeyRange::Span {
        start: start.into(),
        end: end.into(),
    }
}

impl World {
    pub(crate) fn settle_without_room(&mut self) {
        for _ in 0..10 {
            self.step();
        }
    }

    /// Takes the rows that were written past the model from the store.
    pub(crate) fn sync_model(&mut self) {
        let store = self.applier.tenants.store().clone();
        let first = holdfast_storage::Revision::first(0);
        self.model.rows = store
            .scan(TenantId::DEFAULT, first, i64::MAX)
            .map(|row| row.unwrap())
            .collect();
        self.model.revision = self.tenant.revision();
    }
}
