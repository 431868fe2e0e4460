//! What a member does when it has time: it takes in what came, works, sends, and answers.

use crate::network::Packet;
use crate::node::{Applier, CLUSTER, Input, Process, Renewal, Waiting};
use crate::plan::SECOND;
use crate::world::{Event, World, server_command};
use bytes::Bytes;
use holdfast_consensus::Completed;
use holdfast_tenant::{Command, IncomingState, Tenants};

impl World {
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
        done: &mut Completed<Applier>,
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
                    let state = receive(&process.tenants, core.machine(), &chunks);
                    let ok = match state {
                        Ok(incoming) => match core.receive_snapshot(from, message, incoming) {
                            Ok(_) => true,
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
            // The queue of a process that ended is gone with it.
            Input::ProposeInTerm { ticket, .. } if ticket.turn != process.incarnation as u32 => {}
            Input::ProposeInTerm { term, data, ticket } => {
                core.propose_in_term(term, data, vec![ticket], done);
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
            Input::Unreachable(member) => core.unreachable(member),
            Input::Gone(member) => core.gone(member),
        }
    }

    fn refused(&self, place: usize, from: u64, fault: &str) {
        let id = self.nodes[place].id;
        self.truth().counters.refused_messages += 1;
        self.trace(|_| format!("member {id} refuses a message of {from}: {fault}"));
        // Every sender here keeps the rules; but who leads may be another when an answer comes.
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

    /// Renews a lease on the leader. The client hears of it when the leader is known to have led after the renewal, and the log has what the
    /// next leader must not count from.
    fn keep_alive(
        &self,
        process: &mut Process,
        lease: i64,
        request: u64,
        done: &mut Completed<Applier>,
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
            let command = Command::LeaseCheckpoint(vec![(lease, 0)]);
            let (term, data) = (process.core.status().term(), server_command(&command));
            process.core.propose_in_term(term, data, vec![ticket], done);
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
}

/// Takes a snapshot's stream beside the present store, and reads the state in it.
fn receive(
    tenants: &Tenants,
    applier: &Applier,
    chunks: &[Bytes],
) -> Result<IncomingState, String> {
    let installer = tenants.store().incoming(Some(CLUSTER));
    let incoming = installer.and_then(|mut installer| {
        for chunk in chunks {
            installer.push(chunk)?;
        }
        installer.finish()
    });
    let incoming = incoming.map_err(|error| error.to_string())?;
    IncomingState::read(incoming, applier.machine.options(), applier.now())
        .map_err(|error| error.to_string())
}
