//! Three members on disks in memory. Their state is a list of numbers and the members: a command is a number (u32 LE), whose bits 28 and
//! 29 say what it is: a number, a voter to be added, a learner, a member to be removed.

use super::wire::Near;
use bytes::Bytes;
use holdfast_consensus::{
    Completed, Core, CoreError, CoreOptions, Io, Members, Observer, Outgoing, StateMachine, Ticket,
};
use holdfast_storage::LogPosition;
use holdfast_storage::disk::MemDisk;
use holdfast_storage::log::{LogOptions, RaftLog};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A state, also as it comes with a snapshot.
#[derive(Clone, Default)]
pub(super) struct Contents {
    position: LogPosition,
    numbers: Vec<u32>,
    members: Members,
}

impl Contents {
    pub(super) fn new(index: u64, term: u64, voters: &[u64]) -> Contents {
        Contents {
            position: LogPosition { index, term },
            numbers: vec![7],
            members: Members {
                voters: voters.to_vec(),
                learners: Vec::new(),
            },
        }
    }
}

/// Not the one of the consensus crate's tests, which stops at an entry that makes no sense: here the rogue writes the log, so any bytes have
/// a meaning and the run goes on, and what may never be asked of a machine is asserted.
struct Machine {
    state: Contents,
}

impl StateMachine for Machine {
    type Outcome = u32;
    type View = Contents;
    type Incoming = Contents;

    fn apply(
        &mut self,
        position: LogPosition,
        data: Bytes,
        outcomes: &mut Vec<u32>,
    ) -> Result<(), String> {
        assert!(position.index > self.state.position.index, "applied twice");
        assert!(position.term >= self.state.position.term);
        for chunk in data.chunks_exact(4) {
            let number = u32::from_le_bytes(chunk.try_into().expect("four bytes"));
            outcomes.push(number);
            let members = &mut self.state.members;
            let id = u64::from(number & 7);
            let kind = number >> 28 & 3;
            let is_last = kind == 3 && members.voters == [id];
            if kind == 0 || id == 0 || is_last {
                self.state.numbers.push(number);
                continue;
            }
            members.voters.retain(|voter| *voter != id);
            members.learners.retain(|learner| *learner != id);
            match kind {
                1 => members.voters.push(id),
                2 if !members.voters.is_empty() => members.learners.push(id),
                // The last voter stays one.
                2 => members.voters.push(id),
                _ => {}
            }
            members.voters.sort_unstable();
            members.learners.sort_unstable();
        }
        self.state.position = position;
        Ok(())
    }

    fn check(&self, data: &Bytes) -> Result<(), String> {
        let mut numbers = data.chunks_exact(4).map(|chunk| chunk[3] >> 4 & 3);
        if data.len().is_multiple_of(4) && numbers.all(|kind| kind == 0) {
            Ok(())
        } else {
            Err("half a number, or a change of members".to_owned())
        }
    }

    fn describe(incoming: &Contents) -> (LogPosition, Members) {
        (incoming.position, incoming.members.clone())
    }

    fn members(&self) -> Members {
        self.state.members.clone()
    }

    fn view(&mut self) -> Result<Contents, String> {
        Ok(self.state.clone())
    }

    fn install(&mut self, position: LogPosition, incoming: Contents) -> Result<(), String> {
        assert_eq!(
            incoming.position, position,
            "another snapshot than its message's"
        );
        assert!(
            position.index > self.state.position.index,
            "an old snapshot"
        );
        self.state = incoming;
        Ok(())
    }

    fn recorded(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn lead(&mut self) {}

    fn follow(&mut self) {}
}

struct Quiet;

impl Observer for Quiet {
    fn synced(&self, _: Duration) {}
    fn appended(&self, _: usize) {}
}

enum Packet {
    Message(Bytes),
    Snapshot(Bytes, Contents),
}

struct Member {
    core: Core<Machine, MemDisk>,
    done: Completed<Machine>,
    /// It has given up.
    ended: bool,
}

/// Members 1 to 3; 1 leads at first. What 3 sends beside its own messages is the input's.
pub(super) struct Group {
    members: BTreeMap<u64, Member>,
    links: BTreeMap<(u64, u64), VecDeque<Packet>>,
    tickets: u32,
}

fn open(id: u64) -> Member {
    let log_options = LogOptions {
        segment_bytes: 4096,
        recycle: 0,
        sync: true,
        cache_bytes: 4096,
        seed: Some(7),
    };
    let (log, _) = RaftLog::open(MemDisk::new(), log_options).expect("an empty disk");
    let machine = Machine {
        state: Contents {
            members: Members {
                voters: vec![1, 2, 3],
                learners: Vec::new(),
            },
            ..Contents::default()
        },
    };
    let options = CoreOptions {
        member: id,
        incarnation: id,
        election_ticks: 10,
        heartbeat_ticks: 1,
        pre_vote: true,
        advance_first_election: false,
        patience_ticks: 100,
        keep_entries: 1,
        keep_bytes: 1 << 20,
        seed: 3,
    };
    let applied = LogPosition::default();
    let core = Core::new(log, machine, applied, false, options, Arc::new(Quiet));
    Member {
        core: core.expect("a new member"),
        done: Vec::new(),
        ended: false,
    }
}

impl Group {
    /// Bit 0: entries that only the leader has; bit 1: short logs; bit 2: the follower knows of no leader; bit 3: reads under way;
    /// bit 4: leadership is being handed over; bit 5: a change of members under way.
    pub(super) fn begin(situation: u8) -> Group {
        let mut group = Group {
            members: (1..=3).map(|id| (id, open(id))).collect(),
            links: BTreeMap::new(),
            tickets: 0,
        };
        // Long enough for the first one, short enough for nobody else.
        group.tick(1, 25);
        group.work(1);
        group.carry(u8::MAX);
        assert!(group.members[&1].core.status().leads(), "no leader");
        for number in 0..4 {
            group.propose(1, number);
            group.work(1);
            group.carry(u8::MAX);
        }
        let bit = |place: u8| situation >> place & 1 == 1;
        if bit(1) {
            for member in group.members.values_mut() {
                let position = member.core.machine().state.position;
                member.core.compact_log(position).expect("a log to be cut");
            }
        }
        if bit(2) {
            group.member(2).core.gone(1);
        }
        if bit(3) {
            group.read(1);
            group.read(2);
        }
        if bit(0) {
            group.propose(1, 100);
            group.propose(1, 101);
            group.work(1);
        }
        if bit(5) {
            let ticket = group.ticket();
            let leader = group.member(1);
            let change = holdfast_consensus::MemberChange::Learner(4);
            let command = (2_u32 << 28 | 4).to_le_bytes();
            let done = &mut leader.done;
            leader.core.propose_change(change, &command, ticket, done);
            group.work(1);
        }
        if bit(4) {
            // It may come to nothing, which is as good.
            let _ = group.member(1).core.transfer_leader(2);
        }
        group
    }

    fn member(&mut self, id: u64) -> &mut Member {
        self.members.get_mut(&id).expect("a member")
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket {
            mailbox: 0,
            slot: self.tickets,
            turn: 0,
        }
    }

    pub(super) fn near(&self, id: u64) -> Near {
        let status = self.members[&id].core.status();
        Near {
            id,
            term: status.term(),
            committed: status.committed(),
        }
    }

    /// Whether the message was taken.
    pub(super) fn receive(&mut self, to: u64, from: u64, message: Vec<u8>) -> bool {
        let member = self.member(to);
        let refused = member.core.status().refused_messages();
        let taken = member
            .core
            .receive(from, message.into(), &mut member.done)
            .is_ok();
        let counted = member.core.status().refused_messages() - refused;
        assert_eq!(counted, u64::from(!taken), "what is refused is counted");
        taken
    }

    pub(super) fn receive_snapshot(
        &mut self,
        to: u64,
        from: u64,
        message: Vec<u8>,
        contents: Contents,
    ) -> bool {
        let message = Bytes::from(message);
        let core = &mut self.member(to).core;
        if !core.wants(from, message.clone()).unwrap_or(false) {
            return false;
        }
        core.receive_snapshot(from, message, contents).is_ok()
    }

    pub(super) fn propose(&mut self, id: u64, number: u32) {
        let ticket = self.ticket();
        let member = self.member(id);
        let data = number.to_le_bytes().to_vec();
        member.core.propose(data, vec![ticket], &mut member.done);
    }

    pub(super) fn read(&mut self, id: u64) {
        let ticket = self.ticket();
        self.member(id).core.read(vec![ticket]);
    }

    pub(super) fn tick(&mut self, id: u64, times: u8) {
        let member = self.member(id);
        for _ in 0..times.min(30) {
            member.core.tick(&mut member.done);
        }
    }

    /// The connection between the two was lost.
    pub(super) fn lose(&mut self, id: u64, other: u64) {
        let member = self.member(id);
        member.core.unreachable(other);
    }

    /// Lets a member do its work. `false` if it has given up.
    pub(super) fn work(&mut self, id: u64) -> bool {
        let links = &mut self.links;
        let member = self.members.get_mut(&id).expect("a member");
        if member.ended {
            return false;
        }
        let result = member.core.advance(&mut Io {
            done: &mut member.done,
            send: &mut |outgoing| {
                for packet in outgoing.drain(..) {
                    let (to, packet) = match packet {
                        Outgoing::Message { to, bytes } => (to, Packet::Message(bytes)),
                        Outgoing::Snapshot {
                            to, message, view, ..
                        } => (to, Packet::Snapshot(message, view)),
                    };
                    links.entry((id, to)).or_default().push_back(packet);
                }
            },
        });
        member.done.clear();
        match result {
            Ok(()) => {}
            // A leader may put anything into the log, and take the log for longer than it is; a member that believes it goes no further.
            Err(CoreError::Apply { .. } | CoreError::LostData { .. }) => member.ended = true,
            Err(error) => panic!("a message brought a member to an end: {error}"),
        }
        !member.ended
    }

    /// Carries messages until none is left, or that many have been.
    pub(super) fn carry(&mut self, most: u8) {
        for _ in 0..most {
            let waiting = self.links.iter_mut().find_map(|(link, packets)| {
                let packet = packets.pop_front()?;
                Some((*link, packet))
            });
            let Some(((from, to), packet)) = waiting else {
                return;
            };
            let Some(member) = self.members.get_mut(&to).filter(|member| !member.ended) else {
                continue;
            };
            match packet {
                Packet::Message(message) => {
                    // After what the rogue did, members may well disagree.
                    let _ = member.core.receive(from, message, &mut member.done);
                }
                Packet::Snapshot(message, contents) => {
                    let wanted = member.core.wants(from, message.clone()).unwrap_or(false);
                    let taken = wanted
                        && member
                            .core
                            .receive_snapshot(from, message, contents)
                            .is_ok();
                    self.member(from).core.snapshot_sent(to, taken);
                    self.work(from);
                }
            }
            self.work(to);
        }
    }

    /// What follows: elections, heartbeats, proposals.
    pub(super) fn settle(&mut self) {
        for round in 0..6 {
            for id in 1..=3 {
                self.tick(id, 5);
                if round == 2 {
                    self.propose(id, 9);
                    self.read(id);
                }
                self.work(id);
            }
            self.carry(60);
        }
    }
}
