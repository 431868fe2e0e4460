//! Several members on disks in memory, joined by queues that a test may cut. The simulator goes further; this shows each part by itself.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod machine;

use bytes::Bytes;
use holdfast_consensus::{
    Completed, Core, CoreError, CoreOptions, Done, Failure, Io, MemberChange, Outgoing, Ticket,
};
use holdfast_storage::disk::MemDisk;
use holdfast_storage::log::{LogOptions, RaftLog};
use machine::{Counter, LEARNER, REMOVE, State, VOTER, core_options};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// The outcome of a command is its number.
type Machine = machine::Machine<u32>;

struct Member {
    core: Core<Machine, MemDisk>,
    disk: MemDisk,
    /// As a store would have it after a restart.
    state: Arc<Mutex<State>>,
    done: Completed<Machine>,
}

enum Packet {
    Message(Bytes),
    Snapshot(Bytes, State),
}

#[derive(Default)]
struct Cluster {
    members: BTreeMap<u64, Member>,
    links: BTreeMap<(u64, u64), VecDeque<Packet>>,
    cut: BTreeSet<u64>,
    incarnations: u64,
    snapshots: usize,
}

fn open(
    id: u64,
    incarnation: u64,
    disk: &MemDisk,
    state: &Arc<Mutex<State>>,
) -> Result<Core<Machine, MemDisk>, CoreError> {
    let log_options = LogOptions {
        segment_bytes: 16 * 1024,
        recycle: 0,
        seed: Some(7),
        ..LogOptions::default()
    };
    let (log, _) = RaftLog::open(disk.clone(), log_options)?;
    let applied = state.lock().position();
    let machine = Machine::new(state, |_, number| number);
    let options = CoreOptions {
        member: id,
        incarnation,
        patience_ticks: 200,
        keep_entries: 5,
        keep_bytes: 1 << 20,
        seed: 3,
        ..core_options()
    };
    Core::new(
        log,
        machine,
        applied,
        false,
        options,
        Arc::new(Counter::default()),
    )
}

impl Cluster {
    fn of(ids: &[u64]) -> Cluster {
        let mut cluster = Cluster::default();
        for id in ids {
            cluster.add(*id, ids);
        }
        cluster
    }

    fn add(&mut self, id: u64, voters: &[u64]) {
        let state = State::of(voters);
        let disk = MemDisk::new();
        self.incarnations += 1;
        let core = open(id, self.incarnations, &disk, &state).unwrap();
        let done = Vec::new();
        self.members.insert(
            id,
            Member {
                core,
                disk,
                state,
                done,
            },
        );
    }

    /// Ends a member's process and starts it again from its disk.
    fn restart(&mut self, id: u64) {
        let member = self.members.remove(&id).unwrap();
        drop(member.core);
        self.links.retain(|(from, to), _| *from != id && *to != id);
        self.incarnations += 1;
        let core = open(id, self.incarnations, &member.disk, &member.state).unwrap();
        self.members.insert(id, Member { core, ..member });
    }

    fn work(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        let links = &mut self.links;
        let cut = &self.cut;
        member
            .core
            .advance(&mut Io {
                done: &mut member.done,
                send: &mut |outgoing| {
                    for packet in outgoing.drain(..) {
                        let (to, packet) = match packet {
                            Outgoing::Message { to, bytes } => (to, Packet::Message(bytes)),
                            Outgoing::Snapshot {
                                to, message, view, ..
                            } => (to, Packet::Snapshot(message, view)),
                        };
                        if !cut.contains(&id) && !cut.contains(&to) {
                            links.entry((id, to)).or_default().push_back(packet);
                        }
                    }
                },
            })
            .unwrap();
    }

    /// Carries one packet over each link.
    fn carry(&mut self) -> bool {
        let mut carried = false;
        let links: Vec<(u64, u64)> = self.links.keys().copied().collect();
        for (from, to) in links {
            let Some(packet) = self
                .links
                .get_mut(&(from, to))
                .and_then(VecDeque::pop_front)
            else {
                continue;
            };
            carried = true;
            let Some(member) = self.members.get_mut(&to) else {
                continue;
            };
            match packet {
                Packet::Message(bytes) => {
                    member.core.receive(from, bytes, &mut member.done).unwrap();
                    self.work(to);
                }
                Packet::Snapshot(message, view) => {
                    self.snapshots += 1;
                    assert!(member.core.wants(from, message.clone()).unwrap());
                    assert!(member.core.receive_snapshot(from, message, view).unwrap());
                    self.work(to);
                    if let Some(sender) = self.members.get_mut(&from) {
                        sender.core.snapshot_sent(to, true);
                        self.work(from);
                    }
                }
            }
        }
        carried
    }

    fn settle(&mut self) {
        for id in self.ids() {
            self.work(id);
        }
        while self.carry() {}
    }

    fn ids(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }

    fn tick(&mut self) {
        for id in self.ids() {
            let member = self.members.get_mut(&id).unwrap();
            member.core.tick(&mut member.done);
        }
        self.settle();
    }

    fn leader(&mut self) -> u64 {
        for _ in 0..200 {
            self.tick();
            let cut = self.cut.clone();
            let leader = self
                .members
                .iter()
                .find(|(id, member)| !cut.contains(id) && member.core.status().leads());
            if let Some((id, _)) = leader {
                return *id;
            }
        }
        panic!("no leader in 200 ticks");
    }

    fn propose(&mut self, at: u64, number: u32) {
        let member = self.members.get_mut(&at).unwrap();
        let data = number.to_le_bytes().to_vec();
        member
            .core
            .propose(data, vec![ticket(number)], &mut member.done);
    }

    fn change(&mut self, change: MemberChange, number: u32) {
        let leader = self.leader();
        self.take(leader);
        let member = self.members.get_mut(&leader).unwrap();
        let data = number.to_le_bytes();
        member
            .core
            .propose_change(change, &data, ticket(number), &mut member.done);
        self.settle();
        self.tick();
        assert_eq!(
            self.take(leader),
            [(ticket(number), Ok(Done::Applied(number)))]
        );
    }

    fn take(&mut self, id: u64) -> Completed<Machine> {
        std::mem::take(&mut self.members.get_mut(&id).unwrap().done)
    }

    fn numbers(&mut self, id: u64) -> Vec<u32> {
        let member = self.members.get_mut(&id).unwrap();
        member.core.machine().state.lock().numbers()
    }
}

fn ticket(number: u32) -> Ticket {
    Ticket {
        mailbox: 0,
        slot: number,
        turn: 0,
    }
}

#[test]
fn commands_are_taken_at_every_member_and_answered_there() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    cluster.leader();
    for id in [1, 2, 3] {
        cluster.propose(id, id as u32);
        cluster.settle();
        cluster.tick();
        let number = id as u32;
        assert_eq!(
            cluster.take(id),
            [(ticket(number), Ok(Done::Applied(number)))]
        );
    }
    for id in [1, 2, 3] {
        assert_eq!(cluster.numbers(id), [1, 2, 3]);
    }
}

#[test]
fn what_is_asked_for_before_there_is_a_leader_waits_for_one() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    for id in [1, 2, 3] {
        cluster.propose(id, id as u32);
        let member = cluster.members.get_mut(&id).unwrap();
        member.core.read(vec![ticket(100 + id as u32)]);
    }
    cluster.leader();
    cluster.tick();
    cluster.tick();
    for id in [1, 2, 3] {
        let mut done = cluster.take(id);
        done.sort_by_key(|(ticket, _)| ticket.slot);
        let number = id as u32;
        assert_eq!(
            done,
            [
                (ticket(number), Ok(Done::Applied(number))),
                (ticket(100 + number), Ok(Done::Readable)),
            ]
        );
    }
}

#[test]
fn patience_ends() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    cluster.cut.extend([1, 2, 3]);
    cluster.propose(1, 1);
    cluster
        .members
        .get_mut(&1)
        .unwrap()
        .core
        .read(vec![ticket(2)]);
    for _ in 0..210 {
        cluster.tick();
    }
    let done = cluster.take(1);
    assert_eq!(
        done,
        [
            (ticket(1), Err(Failure::NoLeader)),
            (ticket(2), Err(Failure::NoLeader))
        ]
    );
}

#[test]
fn a_leader_that_is_cut_off_answers_no_reads_and_steps_down() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    let old = cluster.leader();
    cluster.cut.insert(old);
    let member = cluster.members.get_mut(&old).unwrap();
    member.core.read(vec![ticket(9)]);
    cluster.propose(old, 1);
    cluster.settle();
    let new = cluster.leader();
    assert_ne!(new, old);
    cluster.propose(new, 2);
    cluster.settle();
    assert_eq!(cluster.take(new), [(ticket(2), Ok(Done::Applied(2)))]);
    for _ in 0..20 {
        cluster.tick();
    }
    assert_eq!(cluster.take(old), []);
    assert!(!cluster.members[&old].core.status().leads());

    cluster.cut.clear();
    for _ in 0..30 {
        cluster.tick();
    }
    let done = cluster.take(old);
    // The read was only late; whether the command went through nobody could tell until now.
    assert_eq!(
        done,
        [
            (ticket(1), Err(Failure::LeaderChanged)),
            (ticket(9), Ok(Done::Readable)),
        ]
    );
    assert_eq!(cluster.numbers(old), [2]);
}

#[test]
fn a_member_that_the_log_does_not_reach_gets_a_snapshot_and_goes_on() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    let leader = cluster.leader();
    let away = if leader == 3 { 2 } else { 3 };
    cluster.cut.insert(away);
    for number in 0..40 {
        cluster.propose(leader, number);
        cluster.settle();
    }
    let position = cluster.members[&leader].state.lock().position();
    let member = cluster.members.get_mut(&leader).unwrap();
    member.core.compact_log(position).unwrap();
    cluster.cut.clear();
    for _ in 0..10 {
        cluster.tick();
    }
    assert_eq!(cluster.snapshots, 1);
    assert_eq!(cluster.numbers(away), (0..40).collect::<Vec<_>>());
    cluster.propose(away, 40);
    cluster.settle();
    cluster.tick();
    assert_eq!(cluster.take(away), [(ticket(40), Ok(Done::Applied(40)))]);
    cluster.restart(away);
    cluster.propose(leader, 41);
    for _ in 0..10 {
        cluster.tick();
    }
    assert_eq!(cluster.numbers(away), (0..42).collect::<Vec<_>>());
}

#[test]
fn members_come_learn_vote_and_go() {
    let mut cluster = Cluster::of(&[1]);
    cluster.propose(1, 7);
    cluster.tick();
    cluster.take(1);
    cluster.add(2, &[]);
    cluster.change(MemberChange::Learner(2), LEARNER | 2);
    for _ in 0..10 {
        cluster.tick();
    }
    assert_eq!(cluster.numbers(2), [7], "by a snapshot");
    assert_eq!(cluster.members[&2].core.status().leader(), 1);
    cluster.change(MemberChange::Voter(2), VOTER | 2);
    cluster.add(3, &[]);
    cluster.change(MemberChange::Voter(3), VOTER | 3);
    for _ in 0..10 {
        cluster.tick();
    }
    cluster.propose(3, 8);
    cluster.settle();
    cluster.tick();
    for id in [1, 2, 3] {
        assert_eq!(cluster.numbers(id), [7, 8], "at {id}");
    }
    let leader = cluster.leader();
    let next = if leader == 3 { 2 } else { 3 };
    let member = cluster.members.get_mut(&leader).unwrap();
    member.core.transfer_leader(next).unwrap();
    cluster.settle();
    for _ in 0..3 {
        cluster.tick();
    }
    assert_eq!(cluster.leader(), next);
    cluster.change(MemberChange::Remove(1), REMOVE | 1);
    assert_eq!(cluster.members[&next].core.progress().len(), 2);
    cluster.restart(2);
    cluster.restart(3);
    let leader = cluster.leader();
    assert_ne!(leader, 1);
    cluster.propose(leader, 9);
    cluster.tick();
    assert_eq!(cluster.numbers(leader), [7, 8, 9]);
}

#[test]
fn when_the_leaders_process_is_gone_the_others_do_not_wait_long() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    let leader = cluster.leader();
    cluster.members.remove(&leader);
    for id in cluster.ids() {
        cluster.members.get_mut(&id).unwrap().core.gone(leader);
    }
    let mut ticks = 0;
    while !cluster.members.values().any(|m| m.core.status().leads()) {
        cluster.tick();
        ticks += 1;
        assert!(ticks < 10, "an election time-out has 10 to 20");
    }
}

#[test]
fn nonsense_of_another_member_is_refused_and_counted() {
    let mut cluster = Cluster::of(&[1, 2, 3]);
    let leader = cluster.leader();
    let other = if leader == 1 { 2 } else { 1 };
    let member = cluster.members.get_mut(&other).unwrap();
    let mut refused = 0;
    for length in 0..200usize {
        for byte in [0u8, 1, 2, 3, 0xff] {
            let message = Bytes::from(vec![byte; length]);
            refused += u64::from(
                member
                    .core
                    .receive(leader, message, &mut member.done)
                    .is_err(),
            );
        }
    }
    assert_eq!(member.core.status().refused_messages(), refused);
    assert!(refused > 900);
    cluster.propose(other, 1);
    cluster.tick();
    assert_eq!(cluster.take(other), [(ticket(1), Ok(Done::Applied(1)))]);
}
