//! The hub: one thread that fans transactions out to watches and brings those that are behind up to date.

mod catch_up;
mod fan_out;
mod progress;
mod register;
mod revoke;

use super::intervals::Intervals;
use super::{EncodeEvent, History, Inbox, Message, SharedSink, StreamId, Wake, WatchRequest};
use bytes::Bytes;
use holdfast_auth::Caller;
use holdfast_storage::TenantId;
use holdfast_storage::planted::{Defect, is_planted};
use revoke::Holder;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The hub's bounds.
#[derive(Clone, Copy, Debug)]
pub struct HubLimits {
    /// Most watches on one stream.
    pub watches_per_stream: usize,
    /// A larger answer is split for watches that ask for it. etcd: `max-request-bytes` + 512 KiB.
    pub fragment_bytes: usize,
    /// How often idle watches that ask for it are told the revision.
    pub progress_interval: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Fed by the inbox.
    Current,
    /// Waits for a catch-up round.
    Behind,
    /// Behind, and its stream has no room.
    Stalled,
}

struct Watch {
    stream: StreamId,
    tenant: TenantId,
    request: WatchRequest,
    caller: Caller,
    /// The next revision to deliver: everything before it was delivered or did not concern the watch.
    next: i64,
    state: State,
    /// Whether something was delivered since the last progress tick.
    active: bool,
    sink: SharedSink,
    /// See [`TenantWatches::turns`].
    turn: u64,
    /// Its place among the watches of its key, if it watches one.
    place: u32,
    /// Which events of the transaction in hand concern the watch; empty between transactions.
    matched: Vec<u32>,
}

struct Stream {
    tenant: TenantId,
    sink: SharedSink,
    /// In the order of their ids, so that the same requests give the same answers in the same order.
    watches: BTreeMap<i64, u32>,
    next_id: i64,
    /// A progress request that waits until everything up to this revision was fanned out.
    progress_at: Option<i64>,
}

#[derive(Default)]
struct TenantWatches {
    points: HashMap<Bytes, Vec<u32>>,
    ranges: Intervals,
    /// All watches, by whom they belong to.
    holders: BTreeSet<(Holder, u32)>,
    /// Everything up to here was fanned out.
    fanned_out: i64,
    /// How far catch-up may read: what was published before the inbox was taken. Whatever ends watches at a revision up to here has
    /// been handled, so that nobody is given from the store what came after the end of their permission.
    readable: i64,
    /// Up to here the store alone may know what happened: the inbox forgot it, or did not collect it since nobody watched.
    unfed: i64,
    behind: BTreeSet<(i64, u32)>,
    /// The same by the turn that each was given when it was last served: whoever is far behind cannot keep the others waiting.
    turns: BTreeSet<(u64, u32)>,
    next_turn: u64,
}

/// The hub. [`Hub::run`] drives it on a thread; [`Hub::step`] does one round, for tests and simulation.
pub struct Hub {
    inbox: Arc<Inbox>,
    history: Arc<dyn History>,
    wake: Arc<dyn Wake>,
    encode: EncodeEvent,
    limits: HubLimits,
    watches: Vec<Option<Watch>>,
    free: Vec<u32>,
    streams: HashMap<StreamId, Stream>,
    tenants: HashMap<TenantId, TenantWatches>,
    touched: Vec<u32>,
    /// Streams with a progress request that waits.
    asking: Vec<StreamId>,
    /// What the watches take, bytes.
    bytes: usize,
    next_tick: Instant,
    stopped: bool,
}

impl TenantWatches {
    /// Lines a watch up for the catch-up rounds.
    fn wait(&mut self, watch: &mut Watch, index: u32) {
        watch.turn = self.next_turn;
        self.next_turn += 1;
        self.behind.insert((watch.next, index));
        self.turns.insert((watch.turn, index));
    }
}

impl Hub {
    /// A hub without watches.
    pub fn new(
        inbox: Arc<Inbox>,
        history: Arc<dyn History>,
        wake: Arc<dyn Wake>,
        encode: EncodeEvent,
        limits: HubLimits,
        now: Instant,
    ) -> Hub {
        Hub {
            inbox,
            history,
            wake,
            encode,
            limits,
            watches: Vec::new(),
            free: Vec::new(),
            streams: HashMap::new(),
            tenants: HashMap::new(),
            touched: Vec::new(),
            asking: Vec::new(),
            bytes: 0,
            next_tick: now + limits.progress_interval,
            stopped: false,
        }
    }

    /// Serves until [`Message::Stop`].
    pub fn run(mut self) {
        while !self.stopped {
            let more = self.step(Instant::now());
            if !more && !self.stopped {
                self.inbox.wait(self.next_tick);
            }
        }
    }

    /// Handles what is in the inbox and one catch-up round. Returns whether there is more to do right away.
    pub fn step(&mut self, now: Instant) -> bool {
        // Read before the inbox is taken: everything published by then is in what is taken.
        let published: Vec<(TenantId, i64)> = self
            .tenants
            .keys()
            .map(|tenant| (*tenant, self.history.published(*tenant)))
            .collect();
        let taken = self.inbox.take(
            self.watches.len() - self.free.len(),
            self.tenants
                .values()
                .map(|watches| watches.behind.len())
                .sum(),
        );
        if taken.overflowed {
            self.all_fall_behind();
        }
        for message in taken.messages {
            self.handle(message);
        }
        for (tenant, revision) in published {
            if let Some(watches) = self.tenants.get_mut(&tenant) {
                watches.fanned_out = watches.fanned_out.max(revision);
                watches.readable = revision;
            }
        }
        let mut more = self.catch_up();
        more |= self.answer_progress();
        if now >= self.next_tick {
            self.tick();
            self.next_tick = now + self.limits.progress_interval;
        }
        self.wake.wake();
        more
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Applied(transactions) => {
                for transaction in transactions {
                    self.fan_out(&transaction);
                }
            }
            Message::Open {
                stream,
                tenant,
                sink,
            } => {
                self.tenants.entry(tenant).or_default();
                self.streams.insert(
                    stream,
                    Stream {
                        tenant,
                        sink,
                        watches: BTreeMap::new(),
                        next_id: 0,
                        progress_at: None,
                    },
                );
            }
            Message::Auth(notice) => self.revoke(&notice),
            Message::Installed { .. } if is_planted(Defect::InstallNotToldToHub) => {}
            Message::Installed { tenant, revision } => self.installed(tenant, revision),
            Message::Create {
                stream,
                request,
                caller,
            } => {
                self.create(stream, request, caller);
                self.handled(stream);
            }
            Message::Cancel { stream, watch_id } => {
                self.cancel(stream, watch_id);
                self.handled(stream);
            }
            Message::Progress { stream } => {
                if let Some(entry) = self.streams.get_mut(&stream)
                    && !entry.watches.is_empty()
                {
                    let revision = self.history.revision(entry.tenant);
                    if entry.progress_at.replace(revision).is_none() {
                        self.asking.push(stream);
                    }
                }
                self.handled(stream);
            }
            Message::Room { stream } => self.unstall(stream),
            Message::Close { stream } => {
                if let Some(stream) = self.streams.remove(&stream) {
                    for watch in stream.watches.into_values() {
                        self.remove(watch);
                    }
                }
            }
            Message::Stop => self.stopped = true,
        }
    }

    fn handled(&self, stream: StreamId) {
        if let Some(stream) = self.streams.get(&stream) {
            stream.sink.handled();
        }
    }

    fn fall_behind(&mut self, index: u32, next: i64) {
        let Some(watch) = &mut self.watches[index as usize] else {
            return;
        };
        watch.next = next;
        watch.state = if watch.sink.has_room() {
            State::Behind
        } else {
            State::Stalled
        };
        if watch.state == State::Behind
            && let Some(watches) = self.tenants.get_mut(&watch.tenant)
        {
            watches.wait(watch, index);
        }
    }

    /// Transactions were lost on the way here: whatever came after the last one that was fanned out is read from the store.
    fn all_fall_behind(&mut self) {
        for (tenant, watches) in &mut self.tenants {
            watches.unfed = self.history.revision(*tenant);
        }
        self.unfed_fall_behind();
    }

    /// A received state took the place of another one: what it has up to `revision`, beyond what was fanned out, never comes through the
    /// inbox.
    fn installed(&mut self, tenant: TenantId, revision: i64) {
        if let Some(watches) = self.tenants.get_mut(&tenant) {
            watches.unfed = watches.unfed.max(revision);
            self.unfed_fall_behind();
        }
    }

    /// Watches that are current, but lack what only the store has.
    fn unfed_fall_behind(&mut self) {
        for index in 0..self.watches.len() {
            if let Some(watch) = &self.watches[index]
                && watch.state == State::Current
            {
                let (fanned_out, unfed) = self
                    .tenants
                    .get(&watch.tenant)
                    .map_or((0, 0), |watches| (watches.fanned_out, watches.unfed));
                let next = watch.next.max(fanned_out + 1);
                if next <= unfed {
                    self.fall_behind(index as u32, next);
                }
            }
        }
    }

    fn unstall(&mut self, stream: StreamId) {
        let Some(stream) = self.streams.get(&stream) else {
            return;
        };
        for index in stream.watches.values() {
            if let Some(watch) = &mut self.watches[*index as usize]
                && watch.state == State::Stalled
            {
                watch.state = State::Behind;
                if let Some(watches) = self.tenants.get_mut(&watch.tenant) {
                    watches.wait(watch, *index);
                }
            }
        }
    }
}
