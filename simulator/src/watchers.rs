//! The watching clients: each has one stream on one member, loses it, and goes on elsewhere.

use crate::node::Process;
use crate::plan::{MILLISECOND, SECOND};
use crate::watch::{Ended, Sink, Watch, request};
use crate::world::{Event, World};
use holdfast_auth::Caller;
use holdfast_storage::TenantId;
use holdfast_tenant::watch::{Delivery, DeliveryKind, Message, StreamId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// One client that watches.
#[derive(Default)]
pub(crate) struct Watcher {
    stream: Option<Stream>,
    watches: Vec<Watch>,
}

struct Stream {
    place: usize,
    incarnation: u64,
    sink: Arc<Sink>,
    /// Watches that were asked for and not answered, by their place in the list.
    asked: VecDeque<usize>,
}

const WATCHES: usize = 3;

impl World {
    /// A watching client does something.
    pub(crate) fn watcher(&mut self, at: usize) {
        let pause = if self.calm { 200 * MILLISECOND } else { SECOND };
        let delay = self.chance.around(pause);
        self.schedule(delay, Event::Watcher(at));
        let connected = self.watchers[at].stream.as_ref().is_some_and(|stream| {
            let process = &self.nodes[stream.place].process;
            process
                .as_ref()
                .is_some_and(|process| process.incarnation == stream.incarnation)
        });
        if !connected {
            self.watchers[at].stream = None;
            return self.connect(at);
        }
        if !self.calm && self.chance.percent(10) {
            self.disconnect(at);
            return self.connect(at);
        }
        let room = self.chance.below(4) as usize;
        let room = if self.calm || self.chance.percent(60) {
            usize::MAX
        } else {
            room
        };
        let Some(stream) = &self.watchers[at].stream else {
            return;
        };
        stream.sink.give_room(room);
        let (place, id) = (stream.place, stream.sink.stream);
        let inbox = stream.sink.inbox.clone();
        if self.chance.percent(30) {
            inbox.push(Message::Progress { stream: id });
        }
        if self.watchers[at].watches.len() < WATCHES && !self.calm {
            self.new_watch(at);
        }
        self.wake_hub(place);
    }

    fn disconnect(&mut self, at: usize) {
        let Some(stream) = self.watchers[at].stream.take() else {
            return;
        };
        let id = stream.sink.stream;
        stream.sink.inbox.push(Message::Close { stream: id });
        if let Some(process) = &self.nodes[stream.place].process {
            process.tenant.watch_stream_closed();
        }
        self.wake_hub(stream.place);
    }

    fn connect(&mut self, at: usize) {
        let place = self.chance.below(self.nodes.len() as u64) as usize;
        let node = &self.nodes[place];
        let Some(process) = node.process.as_ref().filter(|_| !node.retired) else {
            return;
        };
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        let inbox = process.tenants.inbox().clone();
        let sink = Arc::new(Sink::new(id, inbox.clone()));
        process.tenant.watch_stream_opened();
        inbox.push(Message::Open {
            stream: id,
            tenant: TenantId::DEFAULT,
            sink: sink.clone(),
        });
        let incarnation = process.incarnation;
        let watcher = &mut self.watchers[at];
        watcher.stream = Some(Stream {
            place,
            incarnation,
            sink,
            asked: VecDeque::new(),
        });
        // It goes on where it was.
        let old = std::mem::take(&mut watcher.watches);
        for watch in old {
            if watch.ended.is_none() && watch.next > 0 {
                self.truth().counters.watches_resumed += 1;
                let mut again = watch.request.clone();
                again.start = watch.next;
                self.create(at, again, watch.caller);
            }
        }
        if self.watchers[at].watches.is_empty() && !self.calm {
            self.new_watch(at);
        }
        self.wake_hub(place);
    }

    fn new_watch(&mut self, at: usize) {
        let keys = self.key_range();
        let current = self.truth().model.revision as u64;
        let start = match self.chance.below(3) {
            0 => 1 + self.chance.below(current + 3) as i64,
            _ => 0,
        };
        let mut wanted = request(keys, start);
        wanted.previous = self.chance.percent(40);
        wanted.fragment = self.chance.percent(20);
        wanted.no_put = self.chance.percent(8);
        wanted.no_delete = self.chance.percent(8);
        wanted.progress = self.chance.percent(30);
        let Some(stream) = &self.watchers[at].stream else {
            return;
        };
        let caller = self.some_caller(stream.place);
        self.create(at, wanted, caller);
    }

    fn create(&mut self, at: usize, wanted: holdfast_tenant::watch::WatchRequest, caller: Caller) {
        let Some(stream) = &mut self.watchers[at].stream else {
            return;
        };
        let Some(process) = &mut self.nodes[stream.place].process else {
            return;
        };
        let asked_at = process.applied();
        stream.sink.inbox.push(Message::Create {
            stream: stream.sink.stream,
            request: wanted.clone(),
            caller: caller.clone(),
        });
        let watcher = &mut self.watchers[at];
        if let Some(stream) = &mut watcher.stream {
            stream.asked.push_back(watcher.watches.len());
        }
        watcher.watches.push(Watch::new(wanted, caller, asked_at));
    }

    /// A round of a member's hub, and what its watchers got.
    pub(crate) fn hub(&mut self, place: usize, incarnation: u64) {
        let now = self.now;
        let node = &mut self.nodes[place];
        let busy_until = node.busy_until;
        let Some(process) = node
            .process
            .as_mut()
            .filter(|p| p.incarnation == incarnation)
        else {
            return;
        };
        if busy_until > now {
            return self.schedule(busy_until - now, Event::Hub { place, incarnation });
        }
        process.hub_scheduled = false;
        let more = process
            .hub
            .step(process.hub_epoch + Duration::from_micros(now));
        let (applied, compacted) = (process.applied(), process.tenant.compacted());
        let seen = Seen {
            place,
            incarnation,
            applied,
            compacted,
        };
        for at in 0..self.watchers.len() {
            self.observe(at, &seen);
        }
        if more {
            self.wake_hub(place);
        }
    }

    fn observe(&mut self, at: usize, seen: &Seen) {
        let id = self.nodes[seen.place].id;
        let watcher = &mut self.watchers[at];
        let Some(stream) = &mut watcher.stream else {
            return;
        };
        if (stream.place, stream.incarnation) != (seen.place, seen.incarnation) {
            return;
        }
        let mut truth = self.truth.lock();
        for delivery in stream.sink.take() {
            if self.tracing {
                crate::world::trace_line(self.now, &told(at, id, &delivery));
            }
            let new = matches!(
                delivery.kind,
                DeliveryKind::Created | DeliveryKind::Rejected { .. }
            );
            let concerned: Vec<usize> = if new {
                stream.asked.pop_front().into_iter().collect()
            } else {
                let all = watcher.watches.iter().enumerate();
                all.filter(|(_, watch)| {
                    watch.ended.is_none()
                        && watch.id.is_some()
                        && (delivery.watch_id == -1 || watch.id == Some(delivery.watch_id))
                })
                .map(|(at, _)| at)
                .collect()
            };
            if concerned.is_empty() {
                truth.violated(|| format!("member {id} delivered to no watch: {delivery:?}"));
            }
            for index in concerned {
                let watch = &mut watcher.watches[index];
                let taken = watch.take(&delivery, &mut truth, id, seen.applied, seen.compacted);
                if let Err(error) = taken {
                    let request = format!("{:?}", watch.request);
                    truth.violated(|| format!("a watch on member {id} {error}: {request}"));
                }
            }
        }
        drop(truth);
        self.go_on(at);
    }

    /// Begins again what a compaction ended, and forgets what was denied.
    fn go_on(&mut self, at: usize) {
        let watcher = &mut self.watchers[at];
        let waits = watcher
            .stream
            .as_ref()
            .is_some_and(|stream| !stream.asked.is_empty());
        if waits || watcher.watches.iter().all(|watch| watch.ended.is_none()) {
            return;
        }
        let (ended, rest): (Vec<Watch>, Vec<Watch>) = std::mem::take(&mut watcher.watches)
            .into_iter()
            .partition(|watch| watch.ended.is_some());
        watcher.watches = rest;
        for watch in ended {
            let start = match watch.ended {
                Some(Ended::Compacted(mark)) => mark,
                Some(Ended::Unsure) => watch.next,
                _ => continue,
            };
            let mut again = watch.request.clone();
            again.start = start;
            self.create(at, again, watch.caller);
        }
        if let Some(place) = self.watchers[at].stream.as_ref().map(|stream| stream.place) {
            self.wake_hub(place);
        }
    }

    /// All watching clients read what they are sent.
    pub(crate) fn make_room(&mut self) {
        for watcher in &self.watchers {
            if let Some(stream) = &watcher.stream {
                stream.sink.give_room(usize::MAX);
            }
        }
    }

    /// At rest: every watch has all that it was to get.
    pub(crate) fn check_watchers(&mut self) {
        let mut truth = self.truth.lock();
        for watcher in &mut self.watchers {
            let Some(stream) = &watcher.stream else {
                continue;
            };
            let node = &self.nodes[stream.place];
            let current = node.process.as_ref().map(Process::number);
            let applied = node.process.as_ref().map(|p| p.core.status().applied());
            // One that does not belong to the cluster any more is told nothing.
            if current != Some(stream.incarnation) || applied != Some(truth.last()) {
                continue;
            }
            if !stream.asked.is_empty() {
                truth.violated(|| format!("a watch on member {} was never answered", node.id));
            }
            for watch in watcher
                .watches
                .iter_mut()
                .filter(|watch| watch.ended.is_none())
            {
                if let Err(error) = watch.check_complete(&truth, node.id) {
                    let request = format!("{:?}", watch.request);
                    truth.violated(|| format!("a watch on member {} {error}: {request}", node.id));
                }
            }
        }
    }
}

fn told(watcher: usize, member: u64, delivery: &Delivery) -> String {
    let what = match &delivery.kind {
        DeliveryKind::Events { events, .. } => format!("{} events", events.len()),
        other => format!("{other:?}"),
    };
    let (id, revision) = (delivery.watch_id, delivery.revision);
    format!("watcher {watcher} is told by member {member}, watch {id}, revision {revision}: {what}")
}

/// Where and when the watchers look at what came.
struct Seen {
    place: usize,
    incarnation: u64,
    applied: u64,
    compacted: i64,
}
