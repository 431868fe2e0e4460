//! The clients: what they ask for, and what they may be answered.

use crate::chance::Chance;
use crate::network::{Fate, Packet};
use crate::node::{Input, Process, Waiting};
use crate::plan::{Micros, Plan, SECOND};
use crate::truth::hash_of;
use crate::world::{Event, World};
use bytes::Bytes;
use holdfast_auth::{Caller, Denied, KeyRange, Policy, TokenEpochs};
use holdfast_consensus::{Done, Failure};
use holdfast_storage::TenantId;
use holdfast_tenant::request::{Order, Range, RevisionFilter};
use holdfast_tenant::{Command, Outcome, Refusal};
use std::collections::VecDeque;

/// A client: one request at a time, to one member for a while.
pub(crate) struct Client {
    place: usize,
    pub(crate) user: &'static str,
    by_certificate: bool,
    pub(crate) waiting: Option<u64>,
    /// When it gives up, or goes on.
    until: Micros,
    pub(crate) sequence: u64,
    pub(crate) leases: Vec<i64>,
    /// What must be asked for before anything else.
    script: VecDeque<Command>,
}

/// A request that has no answer yet.
pub(crate) struct Request {
    client: usize,
    kind: RequestKind,
    /// What was known to be applied when it was made.
    floor: u64,
}

enum RequestKind {
    Command { hash: u64 },
    Read { range: Range, caller: Caller },
    KeepAlive,
}

pub(crate) const USERS: [&str; 4] = ["root", "ann", "ben", "cay"];

const PATIENCE: Micros = 4 * SECOND;

impl Client {
    pub(crate) fn new(at: usize, places: usize, chance: &mut Chance, plan: &Plan) -> Client {
        let mut script = VecDeque::new();
        if at == 0 && plan.auth {
            script = crate::workload::founding_users(plan.keys);
        }
        Client {
            place: chance.below(places as u64) as usize,
            user: USERS[if plan.auth { at % USERS.len() } else { 0 }],
            by_certificate: chance.percent(40),
            waiting: None,
            until: 0,
            sequence: 0,
            leases: Vec::new(),
            script,
        }
    }
}

impl World {
    /// A client goes on: asks for something, or gives up waiting.
    pub(crate) fn client(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if client.until > self.now {
            return;
        }
        if let Some(request) = client.waiting.take() {
            self.requests.remove(&request);
            self.truth().counters.unknown += 1;
            return self.rest(at, true);
        }
        if self.calm {
            return;
        }
        let place = self.clients[at].place;
        if !self.nodes[place].runs() || self.nodes[place].retired {
            return self.rest(at, true);
        }
        let scripted = self.clients[at].script.pop_front();
        match scripted {
            Some(command) => self.ask(at, &command),
            None => self.ask_something(at),
        }
        if self.clients[at].waiting.is_none() {
            self.rest(at, false);
        }
    }

    /// Pauses before the next request, which may go to another member.
    fn rest(&mut self, at: usize, moves: bool) {
        if moves || self.chance.percent(10) {
            self.clients[at].place = self.chance.below(self.nodes.len() as u64) as usize;
        }
        let delay = self.chance.around(self.plan.think);
        self.clients[at].until = self.now + delay;
        self.schedule(delay, Event::Client(at));
    }

    /// Who a client is on a member, as that member knows its user.
    pub(crate) fn log_in(&self, place: usize, user: &str, by_certificate: bool) -> Caller {
        let Some(process) = &self.nodes[place].process else {
            return Caller::Anonymous;
        };
        let auth = process.tenant.auth();
        match auth.user(user) {
            Some(user) => {
                let TokenEpochs { epoch, credential } = auth.epochs(user);
                let token = TokenEpochs { epoch, credential };
                Caller::User {
                    id: user.id,
                    token: (!by_certificate).then_some(token),
                }
            }
            None => Caller::Anonymous,
        }
    }

    pub(crate) fn some_caller(&mut self, place: usize) -> Caller {
        let user = *self.chance.pick(&USERS);
        let by_certificate = self.chance.percent(50);
        self.log_in(place, user, by_certificate)
    }

    pub(crate) fn place_and_caller(&self, at: usize) -> (usize, Caller) {
        let client = &self.clients[at];
        let caller = self.log_in(client.place, client.user, client.by_certificate);
        (client.place, caller)
    }

    fn request(&mut self, at: usize, kind: RequestKind) -> u64 {
        let id = self.next_request;
        self.next_request += 1;
        let request = Request {
            client: at,
            kind,
            floor: self.floor,
        };
        self.requests.insert(id, request);
        let client = &mut self.clients[at];
        client.waiting = Some(id);
        client.until = self.now + PATIENCE;
        self.schedule(PATIENCE, Event::Client(at));
        id
    }

    /// Asks for a command, as the server would carry it out: authorized here first.
    pub(crate) fn ask(&mut self, at: usize, command: &Command) {
        let (place, caller) = self.place_and_caller(at);
        let Some(process) = &self.nodes[place].process else {
            return;
        };
        let authorized =
            process
                .tenant
                .auth()
                .authorize(&caller, Some(Policy::Authenticated), command.clone());
        // Now and then a request was let in long ago, before what has changed since: the log must judge it all the same.
        if authorized.is_err() && !self.chance.percent(25) {
            self.truth().counters.denied_at_edge += 1;
            return;
        }
        let mut data = Vec::new();
        command.encode(TenantId::DEFAULT, &caller, &mut data);
        let hash = hash_of(&data);
        if is_unique(command) {
            self.truth().expect_once(hash);
        }
        let request = self.request(at, RequestKind::Command { hash });
        self.trace(|world| {
            format!(
                "client {at} asks member {} for {command:?}, request {request}",
                world.nodes[place].id
            )
        });
        self.propose(place, data, Waiting::Request(request));
    }

    pub(crate) fn propose(&mut self, place: usize, data: Vec<u8>, waiting: Waiting) {
        let Some(process) = &mut self.nodes[place].process else {
            return;
        };
        let tickets = vec![process.ticket(waiting)];
        self.give(place, Input::Propose { data, tickets });
    }

    /// Asks to read a range as it is now, from whichever member.
    pub(crate) fn ask_range(&mut self, at: usize, range: Range) {
        let (place, caller) = self.place_and_caller(at);
        let request = self.request(at, RequestKind::Read { range, caller });
        self.trace(|world| {
            format!(
                "client {at} reads on member {}, request {request}",
                world.nodes[place].id
            )
        });
        let Some(process) = &mut self.nodes[place].process else {
            return;
        };
        let ticket = process.ticket(Waiting::Request(request));
        self.give(place, Input::Read(ticket));
    }

    /// Reads what a member has, whether others have more or not.
    pub(crate) fn read_here(&mut self, at: usize, range: &Range) {
        let (place, caller) = self.place_and_caller(at);
        if self.nodes[place].busy_until > self.now {
            return;
        }
        let Some(mut process) = self.nodes[place].process.take() else {
            return;
        };
        self.read(place, &mut process, range, &caller);
        self.truth().counters.serializable_reads += 1;
        self.nodes[place].process = Some(process);
    }

    /// Asks the leader to keep a lease alive.
    pub(crate) fn ask_keep_alive(&mut self, at: usize, lease: i64) {
        let place = self.clients[at].place;
        let request = self.request(at, RequestKind::KeepAlive);
        let node = &self.nodes[place];
        let leader = node
            .process
            .as_ref()
            .map_or(0, |p| p.core.status().leader());
        let Some(to) = self.place_of(leader) else {
            return;
        };
        let packet = Packet::KeepAlive { lease, request };
        if to == place {
            let from = leader;
            return self.give(place, Input::Packet { from, packet });
        }
        let fate = self
            .network
            .send(place, to, packet, self.now, &mut self.chance);
        if let Fate::Arrives(at, travelling) = fate {
            self.schedule(at - self.now, Event::Arrive(travelling));
        }
    }

    /// A member completed what a request waited for.
    pub(crate) fn completed(
        &mut self,
        place: usize,
        process: &mut Process,
        id: u64,
        result: Result<Done<Outcome>, Failure>,
    ) {
        let member = self.nodes[place].id;
        // Given up by its client meanwhile, it is judged all the same.
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        self.trace(|_| format!("member {member} answers request {id}: {}", brief(&result)));
        let ok = result.is_ok();
        match (request.kind, result) {
            (RequestKind::Command { hash }, Ok(Done::Applied(outcome))) => {
                self.acknowledged(member, hash, request.floor, &outcome);
            }
            (RequestKind::Read { range, caller }, Ok(Done::Readable)) => {
                let applied = process.applied();
                if applied < request.floor {
                    let floor = request.floor;
                    self.violated(|| {
                        format!(
                            "a linearizable read on member {member} saw entry {applied}, when {floor} was answered before"
                        )
                    });
                }
                self.read(place, process, &range, &caller);
                self.floor = self.floor.max(applied);
                self.truth().counters.linearizable_reads += 1;
            }
            (_, Ok(_)) => self.violated(|| format!("request {id} got an answer to another kind")),
            (_, Err(_)) => self.truth().counters.unknown += 1,
        }
        self.truth().counters.answered += u64::from(ok);
        self.clients[request.client].waiting = None;
        self.rest(request.client, !ok);
    }

    /// A client was told what its command came to.
    fn acknowledged(&mut self, member: u64, hash: u64, floor: u64, outcome: &Outcome) {
        let mut truth = self.truth.lock();
        let place = truth.places(hash).iter().copied().find(|(index, at)| {
            let fixed = truth.entry(*index);
            *index > floor && fixed.is_some_and(|f| f.outcomes.get(*at as usize) == Some(outcome))
        });
        let Some((index, _)) = place else {
            let places = format!("{:?}", truth.places(hash));
            return truth.violated(|| {
                format!(
                    "member {member} answered {outcome:?} to a command that is in the log at {places}, asked for after entry {floor}"
                )
            });
        };
        drop(truth);
        self.floor = self.floor.max(index);
    }

    /// Reads a range in a member's state and judges the answer.
    fn read(&self, place: usize, process: &mut Process, range: &Range, caller: &Caller) {
        let member = self.nodes[place].id;
        let applied = process.applied();
        let auth = process.tenant.auth().clone();
        let authorized = auth.authorize(caller, Some(Policy::KeyScoped), range.clone());
        let answer = match authorized {
            Ok(authorized) => process.tenants.range(&process.tenant, authorized.request()),
            Err(denied) => Err(Refusal::Denied(denied)),
        };
        let mut truth = self.truth.lock();
        let Some(fixed) = truth.entry(applied.max(1)) else {
            return;
        };
        let (revision, compacted) = (fixed.revision, fixed.compacted);
        let rights = &truth.auth_at(applied).auth;
        let expected = match rights.rights(caller, false) {
            Err(denied) => Err(Refusal::Denied(denied)),
            Ok(rights) if !rights.allows(holdfast_auth::Verb::Read, &range.keys) => {
                Err(Refusal::Denied(Denied::NotPermitted))
            }
            Ok(_) if range.revision > revision => Err(Refusal::FutureRevision),
            Ok(_) if range.revision > 0 && range.revision < compacted => Err(Refusal::Compacted),
            Ok(_) => Ok(truth.model.range(range, revision)),
        };
        truth.counters.old_reads += u64::from(range.revision > 0);
        if answer != expected {
            truth.violated(|| {
                format!(
                    "member {member} at entry {applied} reads {answer:?} for {range:?}, and should read {expected:?}"
                )
            });
        }
    }

    /// Nobody will answer a request any more.
    pub(crate) fn lost_request(&mut self, id: u64) {
        if let Some(request) = self.requests.remove(&id) {
            self.truth().counters.unknown += 1;
            self.clients[request.client].waiting = None;
            self.rest(request.client, true);
        }
    }

    /// A request is answered, and there is nothing to judge.
    pub(crate) fn end_request(&mut self, id: u64) {
        if let Some(request) = self.requests.remove(&id) {
            self.truth().counters.answered += 1;
            self.clients[request.client].waiting = None;
            self.rest(request.client, false);
        }
    }
}

fn brief(result: &Result<Done<Outcome>, Failure>) -> String {
    match result {
        Ok(Done::Applied(outcome)) => format!("{outcome:?}"),
        Ok(Done::Readable) => "may read".to_owned(),
        Err(failure) => failure.to_string(),
    }
}

/// Whether no other command is the same: one that is in the log twice was put there twice.
fn is_unique(command: &Command) -> bool {
    matches!(
        command,
        Command::Put(_) | Command::Txn(_) | Command::LeaseGrant { .. }
    )
}

/// A plain read.
pub(crate) fn range(keys: KeyRange) -> Range {
    Range {
        keys,
        limit: 0,
        revision: 0,
        order: Order::Natural,
        keys_only: false,
        count_only: false,
        filter: RevisionFilter::default(),
    }
}

pub(crate) fn key(number: u64) -> Bytes {
    format!("k{number:02}").into()
}
