//! The hub: one thread that fans transactions out to watches and brings those that are behind up to date.

mod catch_up;

use super::intervals::Intervals;
use super::{
    Delivery, DeliveryKind, EncodeEvent, Event, History, Inbox, Message, SharedSink, StreamId,
    Transaction, Wake, WatchRequest,
};
use bytes::Bytes;
use catch_up::replaced_by;
use holdfast_auth::KeyRange;
use holdfast_storage::{Row, TenantId};
use std::collections::{BTreeSet, HashMap};
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

/// Bytes that all watches together may take. Each may have keys as long as a request: their number alone bounds nothing.
const WATCHES_BYTES_MAX: usize = 512 << 20;
/// Bytes that a watch takes besides its keys.
const WATCH_BYTES: usize = 400;

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
    watches: HashMap<i64, u32>,
    next_id: i64,
    /// A progress request that waits until everything up to this revision was fanned out.
    progress_at: Option<i64>,
}

#[derive(Default)]
struct TenantWatches {
    points: HashMap<Bytes, Vec<u32>>,
    ranges: Intervals,
    /// Everything up to here was fanned out.
    fanned_out: i64,
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
                        watches: HashMap::new(),
                        next_id: 0,
                        progress_at: None,
                    },
                );
            }
            Message::Create { stream, request } => {
                self.create(stream, request);
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

    fn create(&mut self, stream_id: StreamId, mut request: WatchRequest) {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        let current = self.history.revision(stream.tenant);
        let refusal = if stream.watches.len() >= self.limits.watches_per_stream {
            Some("etcdserver: too many watches on the stream".to_owned())
        } else if self.bytes + watch_bytes(&request.keys) > WATCHES_BYTES_MAX {
            Some("etcdserver: too many watches".to_owned())
        } else if request.start < 0 {
            Some("etcdserver: mvcc: required revision has been compacted".to_owned())
        } else if request.keys.is_empty() {
            Some("mvcc: watcher range is empty".to_owned())
        } else if request.id < 0 {
            Some("etcdserver: watch ID is negative".to_owned())
        } else if request.id != 0 && stream.watches.contains_key(&request.id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream".to_owned())
        } else {
            None
        };
        if let Some(reason) = refusal {
            stream.sink.push(Delivery {
                watch_id: -1,
                revision: current,
                kind: DeliveryKind::Rejected { reason },
            });
            return;
        }
        if request.id == 0 {
            while stream.watches.contains_key(&stream.next_id) {
                stream.next_id += 1;
            }
            request.id = stream.next_id;
            stream.next_id += 1;
        }
        stream.sink.push(Delivery {
            watch_id: request.id,
            revision: current,
            kind: DeliveryKind::Created,
        });
        let next = if request.start == 0 {
            current + 1
        } else {
            request.start
        };
        let index = self.free.pop().unwrap_or(self.watches.len() as u32);
        stream.watches.insert(request.id, index);
        let mut watch = Watch {
            stream: stream_id,
            tenant: stream.tenant,
            next,
            state: State::Current,
            active: false,
            sink: stream.sink.clone(),
            turn: 0,
            place: 0,
            matched: Vec::new(),
            request,
        };
        self.bytes += watch_bytes(&watch.request.keys);
        let watches = self.tenants.entry(watch.tenant).or_default();
        match &watch.request.keys {
            KeyRange::Point(key) => {
                let list = watches.points.entry(key.clone()).or_default();
                watch.place = list.len() as u32;
                list.push(index);
            }
            keys => watches.ranges.insert(keys, index),
        }
        let behind = next <= current;
        if index as usize == self.watches.len() {
            self.watches.push(Some(watch));
        } else {
            self.watches[index as usize] = Some(watch);
        }
        if behind {
            self.fall_behind(index, next);
        }
    }

    fn cancel(&mut self, stream_id: StreamId, watch_id: i64) {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        if let Some(index) = stream.watches.remove(&watch_id) {
            stream.sink.push(Delivery {
                watch_id,
                revision: self.history.revision(stream.tenant),
                kind: DeliveryKind::Canceled { compacted: 0 },
            });
            self.remove(index);
        }
    }

    /// Forgets a watch that its stream has forgotten already.
    fn remove(&mut self, index: u32) {
        let Some(watch) = self.watches[index as usize].take() else {
            return;
        };
        self.free.push(index);
        self.bytes -= watch_bytes(&watch.request.keys);
        if let Some(watches) = self.tenants.get_mut(&watch.tenant) {
            match &watch.request.keys {
                KeyRange::Point(key) => {
                    if let Some(list) = watches.points.get_mut(key)
                        && (watch.place as usize) < list.len()
                    {
                        // Thousands may watch one key, and end together.
                        list.swap_remove(watch.place as usize);
                        match list.get(watch.place as usize) {
                            Some(moved) => {
                                if let Some(moved) = &mut self.watches[*moved as usize] {
                                    moved.place = watch.place;
                                }
                            }
                            None if list.is_empty() => {
                                watches.points.remove(key);
                            }
                            None => {}
                        }
                    }
                }
                keys => watches.ranges.remove(keys, index),
            }
            watches.behind.remove(&(watch.next, index));
            watches.turns.remove(&(watch.turn, index));
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
        for index in 0..self.watches.len() {
            if let Some(watch) = &self.watches[index]
                && watch.state == State::Current
            {
                let fanned_out = self.tenants.get(&watch.tenant).map_or(0, |w| w.fanned_out);
                let next = watch.next.max(fanned_out + 1);
                if next <= self.history.revision(watch.tenant) {
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

    fn fan_out(&mut self, transaction: &Transaction) {
        let Some(watches) = self.tenants.get_mut(&transaction.tenant) else {
            return;
        };
        let mut touched = std::mem::take(&mut self.touched);
        for (at, event) in transaction.events.iter().enumerate() {
            let all = &mut self.watches;
            let mut matched = |index: u32| {
                if let Some(watch) = &mut all[index as usize]
                    && watch.state == State::Current
                    && watch.next <= transaction.main
                    && wants(&watch.request, &event.row)
                {
                    if watch.matched.is_empty() {
                        touched.push(index);
                    }
                    watch.matched.push(at as u32);
                }
            };
            if let Some(points) = watches.points.get(&event.row.key) {
                points.iter().copied().for_each(&mut matched);
            }
            watches.ranges.stab(&event.row.key, &mut matched);
        }
        watches.fanned_out = watches.fanned_out.max(transaction.main);

        let mut plain = vec![None; transaction.events.len()];
        let mut with_previous = vec![None; transaction.events.len()];
        for index in touched.drain(..) {
            let Some(watch) = &mut self.watches[index as usize] else {
                continue;
            };
            let matched = std::mem::take(&mut watch.matched);
            if !watch.sink.has_room() {
                watch.next = transaction.main;
                watch.state = State::Stalled;
                continue;
            }
            let events = matched
                .iter()
                .map(|at| {
                    let event = &transaction.events[*at as usize];
                    let cached = if watch.request.previous {
                        &mut with_previous[*at as usize]
                    } else {
                        &mut plain[*at as usize]
                    };
                    cached
                        .get_or_insert_with(|| {
                            encode_applied(
                                &*self.history,
                                self.encode,
                                transaction.tenant,
                                event,
                                watch.request.previous,
                            )
                        })
                        .clone()
                })
                .collect();
            watch.next = transaction.main + 1;
            deliver(watch, events, transaction.main, self.limits.fragment_bytes);
        }
        self.touched = touched;
    }

    fn end(&mut self, index: u32, compacted: i64) {
        let Some(watch) = &self.watches[index as usize] else {
            return;
        };
        watch.sink.push(Delivery {
            watch_id: watch.request.id,
            revision: 0,
            kind: DeliveryKind::Canceled { compacted },
        });
        let (stream, id) = (watch.stream, watch.request.id);
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.watches.remove(&id);
        }
        self.remove(index);
    }

    /// Answers progress requests whose revision was fanned out. Returns whether one still waits for the inbox.
    fn answer_progress(&mut self) -> bool {
        let mut waiting = Vec::new();
        for id in std::mem::take(&mut self.asking) {
            // A stream may have ended since it asked.
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            let Some(at) = stream.progress_at else {
                continue;
            };
            let fanned_out = self
                .tenants
                .get(&stream.tenant)
                .map_or(0, |watches| watches.fanned_out);
            if fanned_out < at {
                // The transaction is applied, but its events are not in the inbox yet: they come within microseconds.
                waiting.push(id);
                continue;
            }
            stream.progress_at = None;
            let synced = !stream.watches.is_empty()
                && stream.watches.values().all(|index| {
                    self.watches[*index as usize].as_ref().is_some_and(|watch| {
                        watch.state == State::Current && watch.next <= fanned_out + 1
                    })
                });
            if synced {
                stream.sink.push(Delivery {
                    watch_id: -1,
                    revision: fanned_out,
                    kind: DeliveryKind::Progress,
                });
            }
        }
        self.asking = waiting;
        !self.asking.is_empty()
    }

    fn tick(&mut self) {
        for watch in self.watches.iter_mut().flatten() {
            let idle = !std::mem::take(&mut watch.active);
            let fanned_out = self
                .tenants
                .get(&watch.tenant)
                .map_or(0, |watches| watches.fanned_out);
            if watch.request.progress
                && idle
                && watch.state == State::Current
                && watch.next <= fanned_out + 1
                && watch.sink.has_room()
            {
                watch.sink.push(Delivery {
                    watch_id: watch.request.id,
                    revision: fanned_out,
                    kind: DeliveryKind::Progress,
                });
            }
        }
    }
}

fn watch_bytes(keys: &KeyRange) -> usize {
    let keys = match keys {
        KeyRange::Point(key) => key.len(),
        KeyRange::Span { start, end } => start.len() + end.len(),
        KeyRange::From(start) => start.len(),
        KeyRange::All => 0,
    };
    WATCH_BYTES + keys
}

fn wants(request: &WatchRequest, row: &Row) -> bool {
    if row.tombstone {
        !request.no_delete
    } else {
        !request.no_put
    }
}

fn encode_applied(
    history: &dyn History,
    encode: EncodeEvent,
    tenant: TenantId,
    event: &Event,
    previous: bool,
) -> Bytes {
    let row = &event.row;
    let replaced = match event.replaced.filter(|_| previous) {
        // A put, and in the same transaction a delete without an upper bound.
        Some(revision) if revision.main == row.revision.main => replaced_by(history, tenant, row),
        Some(revision) => history.row(tenant, revision),
        None => None,
    };
    encode(row, replaced.as_ref())
}

fn deliver(watch: &mut Watch, events: Vec<Bytes>, revision: i64, fragment_bytes: usize) {
    watch.active = true;
    let id = watch.request.id;
    let push = |events: Vec<Bytes>, fragment: bool| {
        watch.sink.push(Delivery {
            watch_id: id,
            revision,
            kind: DeliveryKind::Events { events, fragment },
        });
    };
    if !watch.request.fragment || events.iter().map(Bytes::len).sum::<usize>() < fragment_bytes {
        push(events, false);
        return;
    }
    let mut part = Vec::new();
    let mut size = 0;
    for event in events {
        if !part.is_empty() && size + event.len() >= fragment_bytes {
            push(std::mem::take(&mut part), true);
            size = 0;
        }
        size += event.len();
        part.push(event);
    }
    push(part, false);
}
