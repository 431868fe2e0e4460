//! The hub over a real machine, with streams whose clients check each delivery as it comes.

#![allow(dead_code, reason = "each test uses a part of it")]

mod applier;
pub(crate) mod replica;
mod seen;
mod sink;
mod stream;

use crate::model::{AuthModel, Model};
use applier::{Applier, Entry, Gap, Planned};
use bytes::Bytes;
use holdfast_auth::{Caller, KeyRange};
use holdfast_storage::backend::{MemoryStore, Store};
use holdfast_storage::lease::Millis;
use holdfast_storage::{LogPosition, Row, TenantId};
use holdfast_tenant::request::{DeleteRange, Put};
use holdfast_tenant::watch::{Hub, HubLimits, Inbox, Message, StreamId, Wake, WatchRequest};
use holdfast_tenant::{Command, Machine, MachineOptions, ROW_OVERHEAD_BYTES, Tenant};
use parking_lot::{Mutex, MutexGuard};
use sink::{Sink, SinkState};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use stream::Stream;

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

#[derive(Default)]
pub(crate) struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
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
    /// When the state was replaced by a received one.
    pub(crate) gaps: Vec<Gap>,
    /// Something was applied while the hub was at work, so that it may have seen any state since.
    pub(crate) moved: bool,
    /// The inbox forgot transactions, or never had them, by which watches fell behind.
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
}

impl World {
    pub(crate) fn new(streams: usize) -> World {
        let options = replica::store_options();
        let (store, opened) = Store::in_memory(&MemoryStore::default(), options).unwrap();
        let options = MachineOptions {
            quota_bytes: None,
            lease_checkpoint_interval: Millis(300_000),
            lease_ownership: false,
            founding: Vec::new(),
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
                gaps: Vec::new(),
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
        self.applier.plan(after, Planned::Apply(commands));
        // What was planned before is applied at once.
        self.absorb();
    }

    /// Puts the state of a member that has applied these entries in the place of the machine's.
    pub(crate) fn install(&mut self, entries: &[Entry], prune: bool) {
        self.applier.install(entries, prune);
        self.absorb();
    }

    /// As [`World::install`], in the middle of the hub's next round.
    pub(crate) fn install_within(&mut self, after: usize, entries: Vec<Entry>, prune: bool) {
        self.applier.plan(after, Planned::Install(entries, prune));
        self.absorb();
    }

    /// The model does what the machine has done.
    fn absorb(&mut self) {
        let gaps = self.applier.take_gaps();
        self.model.overflowed |= !gaps.is_empty();
        self.model.gaps.extend(gaps);
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
