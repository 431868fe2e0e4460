//! The world: members, network, clients and time, driven event by event by one seed.

use crate::chance::Chance;
use crate::clients::{Client, Request};
use crate::members::Admin;
use crate::network::{Network, Travelling};
use crate::node::{Input, Node};
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
