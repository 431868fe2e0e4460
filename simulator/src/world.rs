//! The world: members, network, clients and time, driven event by event by one seed.

use crate::chance::Chance;
use crate::clients::{Client, Request};
use crate::members::Admin;
use crate::network::{Fate, Network, Packet, Travelling};
use crate::node::{Input, Node, Process, Renewal, Waiting};
use crate::plan::{MILLISECOND, Micros, Plan, SECOND, TICK};
use crate::truth::Truth;
use crate::watchers::Watcher;
use holdfast_tenant::Member;
use parking_lot::{Mutex, MutexGuard};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

/// What happens next.
pub(crate) enum Event {
    Tick {
        place: usize,
        generation: u64,
    },
    Run(usize),
    Arrive(Travelling),
    Client(usize),
    Watcher(usize),
    Hub {
        place: usize,
        incarnation: u64,
    },
    Upkeep {
        place: usize,
        incarnation: u64,
    },
    Fault,
    Undo(Undo),
    Admin,
    Start(usize),
    /// A member that was removed ends.
    Leave(usize),
    /// What a member hears of another's end.
    Tell {
        place: usize,
        input: Input,
    },
}

/// The end of a fault.
pub(crate) enum Undo {
    Partition,
    SlowDisk(usize),
    FullDisk(usize),
    SlowLink(usize, usize),
    FullStore(usize),
}

struct Scheduled {
    at: Micros,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> Ordering {
        // The queue gives the greatest first.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// See the module's text.
pub(crate) struct World {
    pub(crate) now: Micros,
    order: u64,
    queue: BinaryHeap<Scheduled>,
    pub(crate) seed: u64,
    pub(crate) chance: Chance,
    pub(crate) plan: Plan,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) truth: Arc<Mutex<Truth>>,
    pub(crate) clients: Vec<Client>,
    pub(crate) requests: BTreeMap<u64, Request>,
    pub(crate) next_request: u64,
    pub(crate) watchers: Vec<Watcher>,
    pub(crate) next_stream: u64,
    pub(crate) admin: Admin,
    /// What was answered last reached this entry: whatever begins now must see it.
    pub(crate) floor: u64,
    /// Faults are over; it settles.
    pub(crate) calm: bool,
    pub(crate) tracing: bool,
}

impl World {
    pub(crate) fn new(seed: u64, tracing: bool) -> World {
        let mut chance = Chance::new(seed);
        let plan = Plan::new(&mut chance);
        let ids: Vec<u64> = (1..=plan.voters as u64).collect();
        let truth = Arc::new(Mutex::new(Truth::new(ids.clone(), 2 * plan.skew_permille)));
        let mut world = World {
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            seed,
            network: Network::new(&plan),
            nodes: Vec::new(),
            clients: Vec::new(),
            requests: BTreeMap::new(),
            next_request: 1,
            watchers: Vec::new(),
            next_stream: 1,
            admin: Admin::new(plan.voters as u64 + 1),
            floor: 1,
            calm: false,
            tracing,
            truth,
            chance,
            plan,
        };
        world.trace(|world| format!("{:?}", world.plan));
        let founding: Vec<Member> = ids.iter().map(|id| member(*id)).collect();
        for id in ids {
            world.add_node(id, founding.clone());
        }
        for place in 0..world.nodes.len() {
            let at = world.chance.around(50 * MILLISECOND);
            world.schedule(at, Event::Start(place));
        }
        for at in 0..world.plan.clients {
            let client = Client::new(at, world.nodes.len(), &mut world.chance, &world.plan);
            world.clients.push(client);
            let delay = world.chance.around(world.plan.think);
            world.schedule(delay, Event::Client(at));
        }
        for at in 0..world.plan.watchers {
            world.watchers.push(Watcher::default());
            let delay = world.chance.around(500 * MILLISECOND);
            world.schedule(delay, Event::Watcher(at));
        }
        if world.plan.faults_every > 0 {
            world.schedule(SECOND, Event::Fault);
        }
        if world.plan.members_change {
            world.schedule(2 * SECOND, Event::Admin);
        }
        world
    }

    pub(crate) fn add_node(&mut self, id: u64, founding: Vec<Member>) -> usize {
        let skew = self.plan.skew_permille;
        let rate = self.chance.between(1000 - skew, 1000 + skew);
        self.nodes.push(Node::new(id, founding, rate));
        self.nodes.len() - 1
    }

    pub(crate) fn schedule(&mut self, delay: Micros, event: Event) {
        self.order += 1;
        self.queue.push(Scheduled {
            at: self.now + delay,
            order: self.order,
            event,
        });
    }

    pub(crate) fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock()
    }

    pub(crate) fn violated(&self, text: impl FnOnce() -> String) {
        self.truth().violated(text);
    }

    pub(crate) fn trace(&self, text: impl FnOnce(&World) -> String) {
        if self.tracing {
            trace_line(self.now, &text(self));
        }
    }

    pub(crate) fn place_of(&self, id: u64) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// Does the next thing. False at the first violation.
    pub(crate) fn step(&mut self) -> bool {
        let Some(Scheduled { at, event, .. }) = self.queue.pop() else {
            return false;
        };
        self.now = at;
        {
            let mut truth = self.truth();
            truth.now = at;
            truth.counters.steps += 1;
        }
        match event {
            Event::Tick { place, generation } => self.tick(place, generation),
            Event::Run(place) => {
                self.nodes[place].run_scheduled = false;
                self.run(place);
            }
            Event::Arrive(travelling) => self.arrive(travelling),
            Event::Client(client) => self.client(client),
            Event::Watcher(watcher) => self.watcher(watcher),
            Event::Hub { place, incarnation } => self.hub(place, incarnation),
            Event::Upkeep { place, incarnation } => self.upkeep(place, incarnation),
            Event::Fault => self.fault(),
            Event::Undo(undo) => self.undo(undo),
            Event::Admin => self.administrate(),
            Event::Start(place) => self.start(place),
            Event::Leave(place) => self.leave(place),
            Event::Tell { place, input } => self.give(place, input),
        }
        self.truth().violation.is_none()
    }

    /// Starts a member's process, unless it runs or never will again.
    pub(crate) fn start(&mut self, place: usize) {
        let (now, seed) = (self.now, self.seed);
        let node = &mut self.nodes[place];
        if node.runs() || node.retired {
            return;
        }
        let id = node.id;
        match node.start(&self.plan, seed, now, &self.truth) {
            Ok(torn) => self.truth().counters.torn_tails += u64::from(torn),
            Err(error) if node.faults > 0 => {
                self.trace(|_| format!("member {id} cannot start: {error}"));
                self.nodes[place].faults -= 1;
                return self.schedule(TICK, Event::Start(place));
            }
            // It has no room even for a segment of the log.
            Err(_) if node.full_disk => return self.schedule(TICK, Event::Start(place)),
            Err(error) => return self.violated(|| format!("member {id}: {error}")),
        }
        self.trace(|_| format!("member {id} starts"));
        let node = &mut self.nodes[place];
        node.tick_generation += 1;
        node.busy_until = 0;
        let (generation, incarnation) = (node.tick_generation, node.incarnation);
        let delay = self.chance.around(TICK / 2);
        self.schedule(delay, Event::Tick { place, generation });
        let delay = self.chance.around(self.plan.upkeep_every);
        self.schedule(delay, Event::Upkeep { place, incarnation });
        self.wake(place);
    }

    fn tick(&mut self, place: usize, generation: u64) {
        let node = &mut self.nodes[place];
        if node.tick_generation != generation || !node.runs() {
            return;
        }
        let delay = TICK * 1000 / node.rate;
        // A process that is held up makes up for some of its ticks, not for all.
        let ticks = node
            .inbox
            .iter()
            .filter(|input| matches!(input, Input::Tick));
        let enough = ticks.count() >= TICKS_MADE_UP;
        self.schedule(delay, Event::Tick { place, generation });
        if !enough {
            self.give(place, Input::Tick);
        }
    }

    /// Gives a member something to do: now, or when it has time.
    pub(crate) fn give(&mut self, place: usize, input: Input) {
        let node = &mut self.nodes[place];
        if !node.runs() {
            return;
        }
        node.inbox.push_back(input);
        if node.busy_until > self.now {
            self.wake(place);
        } else {
            self.run(place);
        }
    }

    /// Has a member run when it has time.
    pub(crate) fn wake(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if !std::mem::replace(&mut node.run_scheduled, true) {
            let delay = node.busy_until.saturating_sub(self.now);
            self.schedule(delay, Event::Run(place));
        }
    }

    pub(crate) fn run(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if node.busy_until > self.now {
            return self.wake(place);
        }
        let Some(mut process) = node.process.take() else {
            node.inbox.clear();
            return;
        };
        process.set_clock(node.clock(self.now));
        let inputs: Vec<Input> = node.inbox.drain(..).collect();
        let (id, applied_before) = (node.id, process.applied());
        let (mut done, mut sent) = (Vec::new(), Vec::new());
        for input in inputs {
            self.feed(place, &mut process, input, &mut done, &mut sent);
        }
        let result = process.advance(&mut done, &mut sent);
        let applied = process.applied();
        if result.is_ok() {
            self.look(place, &mut process);
        }
        for (to, packet) in sent {
            self.send(place, to, packet);
        }
        for (ticket, result) in done {
            if ticket.turn != process.incarnation as u32 {
                self.violated(|| {
                    format!("member {id}: a ticket of an earlier process was completed")
                });
                continue;
            }
            match process.waiting.remove(&ticket.slot) {
                Some(Waiting::Request(request)) => {
                    self.completed(place, &mut process, request, result);
                }
                Some(Waiting::Renewal(renewal)) => {
                    self.renewal_step(&mut process, renewal, result.is_ok())
                }
                Some(Waiting::Internal) => {}
                None => self.violated(|| {
                    format!("member {id}: ticket {} was completed twice", ticket.slot)
                }),
            }
        }
        let delay = self.nodes[place].disk_delay;
        if delay > 0 {
            self.nodes[place].busy_until = self.now + self.chance.around(delay);
        }
        self.nodes[place].process = Some(process);
        if let Err(error) = result {
            return self.failed(place, &error);
        }
        if applied != applied_before {
            self.wake_hub(place);
        }
        if self.nodes[place].last_term.is_some() && !self.nodes[place].leaving {
            self.nodes[place].leaving = true;
            let delay = self.chance.around(SECOND);
            self.schedule(delay, Event::Leave(place));
        }
    }

    /// One thing that a member's process is given.
    fn feed(
        &mut self,
        place: usize,
        process: &mut Process,
        input: Input,
        done: &mut holdfast_consensus::Completed<crate::node::Applier>,
        sent: &mut Vec<(u64, Packet)>,
    ) {
        let core = &mut process.core;
        match input {
            Input::Tick => core.tick(done),
            Input::Packet { from, packet } => match packet {
                Packet::Message(bytes) => {
                    if let Err(fault) = core.receive(from, bytes, done) {
                        self.refused(place, from, &fault.to_string());
                    }
                }
                Packet::Snapshot { message, chunks } => {
                    let incoming = process.tenants.store().incoming(Some(crate::node::CLUSTER));
                    let incoming = incoming.and_then(|mut installer| {
                        for chunk in &chunks {
                            installer.push(chunk)?;
                        }
                        installer.finish()
                    });
                    let ok = match incoming {
                        Ok(incoming) => match core.receive_snapshot(from, message, incoming) {
                            Ok(()) => true,
                            Err(fault) => {
                                self.refused(place, from, &fault.to_string());
                                false
                            }
                        },
                        Err(_) => {
                            self.truth().counters.snapshots_broken += 1;
                            false
                        }
                    };
                    let id = self.nodes[place].id;
                    self.trace(|_| format!("member {id} received a snapshot of {from}: {ok}"));
                    sent.push((from, Packet::SnapshotSent { ok }));
                }
                Packet::SnapshotSent { ok } => core.snapshot_sent(from, ok),
                Packet::KeepAlive { lease, request } => {
                    self.keep_alive(process, lease, request, done);
                }
            },
            Input::Propose { data, tickets } => {
                if !core.status().leads() {
                    self.truth().counters.forwards += 1;
                }
                core.propose(data, tickets, done);
            }
            Input::Read(ticket) => core.read(vec![ticket]),
            Input::Change {
                change,
                data,
                ticket,
            } => core.propose_change(change, &data, ticket, done),
            Input::Transfer(to) => {
                if core.transfer_leader(to).is_ok() {
                    self.truth().counters.transfers += 1;
                }
            }
            Input::Unreachable(member) => core.unreachable(member, done),
            Input::Gone(member) => core.gone(member),
        }
    }

    fn refused(&self, place: usize, from: u64, fault: &str) {
        let id = self.nodes[place].id;
        self.truth().counters.refused_messages += 1;
        self.trace(|_| format!("member {id} refuses a message of {from}: {fault}"));
        // Every sender here keeps the rules.
        if !self.plan.datagrams {
            self.violated(|| format!("member {id} refused a message of member {from}: {fault}"));
        }
    }

    /// What can be seen of a member at any time.
    fn look(&mut self, place: usize, process: &mut Process) {
        let id = self.nodes[place].id;
        let applied = process.applied();
        let status = process.core.status();
        let (term, leader) = (status.term(), status.leader());
        let mut truth = self.truth.lock();
        if leader != 0 {
            truth.leads(id, term, leader);
        }
        if status.applied() != applied && status.applied() > 1 {
            let told = status.applied();
            truth.violated(|| format!("member {id} has applied {applied} and says {told}"));
        }
        if truth.removed.get(&id).is_some_and(|at| *at <= applied) {
            let last = *self.nodes[place].last_term.get_or_insert(term);
            if leader == id && term > last {
                truth.violated(|| format!("member {id} leads term {term} after it was removed"));
            }
        }
    }

    pub(crate) fn send(&mut self, from: usize, to: u64, mut packet: Packet) {
        let Some(to) = self.place_of(to) else {
            return;
        };
        if let Packet::Snapshot { chunks, .. } = &mut packet {
            self.truth().counters.snapshots_sent += 1;
            self.trace(|world| {
                let (from, to) = (world.nodes[from].id, world.nodes[to].id);
                format!("member {from} sends a snapshot to member {to}")
            });
            if !self.calm && self.chance.percent(6) {
                self.spoil(chunks);
            }
        }
        let (id, peer) = (self.nodes[from].id, self.nodes[to].id);
        let is_snapshot = matches!(packet, Packet::Snapshot { .. });
        let is_answer = matches!(packet, Packet::SnapshotSent { .. });
        match self
            .network
            .send(from, to, packet, self.now, &mut self.chance)
        {
            Fate::Arrives(at, travelling) => {
                let delay = at - self.now;
                self.schedule(delay, Event::Arrive(travelling));
            }
            Fate::Lost => {
                self.truth().counters.lost_messages += 1;
                if is_snapshot {
                    self.lost_snapshot(from, peer);
                } else if is_answer {
                    self.lost_snapshot(to, id);
                } else if self.chance.percent(10) {
                    self.tell(from, Input::Unreachable(peer));
                }
            }
        }
    }

    /// Cuts a snapshot short, or changes one of its bytes.
    fn spoil(&mut self, chunks: &mut Vec<bytes::Bytes>) {
        if self.chance.percent(50) || chunks.is_empty() {
            chunks.pop();
            return;
        }
        let at = self.chance.below(chunks.len() as u64) as usize;
        let mut bytes = chunks[at].to_vec();
        if !bytes.is_empty() {
            let byte = self.chance.below(bytes.len() as u64) as usize;
            bytes[byte] ^= 1 << self.chance.below(8);
            chunks[at] = bytes.into();
        }
    }

    fn lost_snapshot(&mut self, from: usize, to: u64) {
        self.truth().counters.snapshots_broken += 1;
        let packet = Packet::SnapshotSent { ok: false };
        self.tell(from, Input::Packet { from: to, packet });
    }

    /// Tells a member something of its own connections, a moment later.
    pub(crate) fn tell(&mut self, place: usize, input: Input) {
        let delay = self.chance.around(5 * MILLISECOND);
        self.schedule(delay, Event::Tell { place, input });
    }

    fn arrive(&mut self, travelling: Travelling) {
        let arrives = self.network.arrives(&travelling);
        let Travelling {
            from, to, packet, ..
        } = travelling;
        if !arrives || !self.nodes[to].runs() {
            self.truth().counters.lost_messages += 1;
            // Whoever sends a snapshot hears of its end in any case: of the connection's, if of nothing else.
            match packet {
                Packet::Snapshot { .. } => self.lost_snapshot(from, self.nodes[to].id),
                Packet::SnapshotSent { .. } => self.lost_snapshot(to, self.nodes[from].id),
                _ => {}
            }
            return;
        }
        self.truth().counters.messages += 1;
        let from = self.nodes[from].id;
        self.give(to, Input::Packet { from, packet });
    }

    /// Renews a lease on the leader. The client hears of it when the leader is known to have led after the renewal, and the log has what the
    /// next leader must not count from.
    fn keep_alive(
        &self,
        process: &mut Process,
        lease: i64,
        request: u64,
        done: &mut holdfast_consensus::Completed<crate::node::Applier>,
    ) {
        let now = process.clock();
        let Ok(Some((_, clear))) = process.tenant.renew_lease(lease, now) else {
            return;
        };
        let key = request as u32;
        let ticket = process.ticket(Waiting::Renewal(key));
        process.core.read(vec![ticket]);
        let mut missing = 1;
        if clear {
            missing += 1;
            let ticket = process.ticket(Waiting::Renewal(key));
            let command = holdfast_tenant::Command::LeaseCheckpoint(vec![(lease, 0)]);
            process
                .core
                .propose(server_command(&command), vec![ticket], done);
        }
        let renewal = Renewal {
            lease,
            request,
            began: self.now,
            term: process.core.status().term(),
            missing,
        };
        process.renewals.insert(key, renewal);
    }

    fn renewal_step(&mut self, process: &mut Process, key: u32, ok: bool) {
        let Some(renewal) = process.renewals.get_mut(&key) else {
            return;
        };
        renewal.missing -= 1;
        let finished = renewal.missing == 0;
        // The confirmation may be another leader's.
        let status = process.core.status();
        let ok = ok && status.leads() && status.term() == renewal.term;
        if !ok {
            process.renewals.remove(&key);
        } else if finished && let Some(renewal) = process.renewals.remove(&key) {
            let mut truth = self.truth();
            truth.renewed(renewal.lease, renewal.began);
            truth.counters.keep_alives += 1;
            drop(truth);
            self.end_request(renewal.request);
        }
    }

    /// The process met an error and ends.
    pub(crate) fn failed(&mut self, place: usize, error: &str) {
        let node = &self.nodes[place];
        let id = node.id;
        self.trace(|_| format!("member {id} ends: {error}"));
        if node.faults == 0 {
            return self.violated(|| format!("member {id} ended: {error}"));
        }
        self.nodes[place].faults -= 1;
        self.truth().counters.disk_failures += 1;
        let power = self.chance.percent(50);
        self.end_process(place, power);
        let delay = self.chance.around(SECOND);
        self.schedule(delay, Event::Start(place));
    }

    /// A member that has applied its own removal ends for good, once all others know of it: the last of them may need its vote.
    fn leave(&mut self, place: usize) {
        let id = self.nodes[place].id;
        let known = self.nodes.iter().all(|node| match &node.process {
            Some(process) => process.tenants.members().get(id).is_none(),
            None => node.retired || node.incarnation == 0,
        });
        if known {
            self.trace(|_| format!("member {id} has left"));
            self.end_process(place, false);
            self.nodes[place].retired = true;
        } else {
            self.schedule(SECOND, Event::Leave(place));
        }
    }

    /// Ends a process, with the power or without. Its disk stays.
    pub(crate) fn end_process(&mut self, place: usize, power: bool) {
        let node = &mut self.nodes[place];
        let Some(process) = node.process.take() else {
            return;
        };
        node.inbox.clear();
        node.tick_generation += 1;
        node.busy_until = 0;
        let waiting: Vec<u64> = process
            .waiting
            .values()
            .filter_map(|waiting| match waiting {
                Waiting::Request(request) => Some(*request),
                _ => None,
            })
            .collect();
        drop(process);
        if power {
            let chance = &mut self.chance;
            node.disk.crash(&mut |n| chance.below(n));
            node.store.crash(&mut |n| chance.below(n));
            self.truth().counters.power_cuts += 1;
        } else {
            self.truth().counters.kills += 1;
        }
        // Nobody tells the clients what became of it.
        let mut waiting = waiting;
        waiting.sort_unstable();
        for request in waiting {
            self.lost_request(request);
        }
        let id = self.nodes[place].id;
        for other in 0..self.nodes.len() {
            self.network.break_link(place, other);
            self.network.break_link(other, place);
            if other != place && !self.network.is_blocked(other, place) {
                if self.chance.percent(70) {
                    self.tell(other, Input::Unreachable(id));
                }
                if !power && self.chance.percent(50) {
                    self.tell(other, Input::Gone(id));
                }
            }
        }
    }

    pub(crate) fn wake_hub(&mut self, place: usize) {
        let Some(process) = &mut self.nodes[place].process else {
            return;
        };
        if process.hub_scheduled {
            return;
        }
        process.hub_scheduled = true;
        let incarnation = process.incarnation;
        let mut delay = self.chance.around(3 * MILLISECOND);
        if self.chance.percent(8) {
            delay += self.chance.around(400 * MILLISECOND);
        }
        self.schedule(delay, Event::Hub { place, incarnation });
    }
}

/// Ticks that a process which was held up makes up for.
const TICKS_MADE_UP: usize = 16;

pub(crate) fn member(id: u64) -> Member {
    Member {
        id,
        name: format!("m{id}"),
        peer_urls: vec![format!("http://m{id}")],
        ..Member::default()
    }
}

/// A command of the server's own, as it goes into the log.
pub(crate) fn server_command(command: &holdfast_tenant::Command) -> Vec<u8> {
    let mut out = Vec::new();
    command.encode(
        holdfast_storage::TenantId::DEFAULT,
        &holdfast_auth::Caller::Server,
        &mut out,
    );
    out
}

#[expect(clippy::print_stdout, reason = "a trace is asked for to be read")]
pub(crate) fn trace_line(now: Micros, text: &str) {
    println!("{:>10.3} ms  {text}", now as f64 / 1000.0);
}
