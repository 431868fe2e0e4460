//! One member: what survives its process, and the process.

use crate::network::Packet;
use crate::plan::{MILLISECOND, Micros, Plan};
use crate::truth::Truth;
use crate::watch::encode;
use bytes::Bytes;
use holdfast_consensus::{
    Completed, Core, CoreOptions, Io, MemberChange, Members, Observer, Outgoing, StateMachine,
    Ticket,
};
use holdfast_storage::backend::{MemoryStore, Store, StoreOptions, StoreView};
use holdfast_storage::disk::MemDisk;
use holdfast_storage::lease::Millis;
use holdfast_storage::log::{LogOptions, RaftLog};
use holdfast_storage::snapshot::{SnapshotReader, SnapshotScope};
use holdfast_storage::{LogPosition, TenantId};
use holdfast_tenant::watch::{Hub, HubLimits, Wake};
use holdfast_tenant::{
    Command, IncomingState, Machine, MachineOptions, Member, Membership, Outcome, Tenant, Tenants,
};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) const CLUSTER: u64 = 0x5175;

/// Joins the tenants' state machine to the raft driver, and tells the truth what it does.
pub(crate) struct Applier {
    pub(crate) machine: Machine,
    member: u64,
    /// The member's own time, milliseconds.
    clock: Arc<AtomicU64>,
    truth: Arc<Mutex<Truth>>,
    tenant: Arc<Tenant>,
    /// Longer than a leader without a majority goes on renewing leases.
    lease_extension: Millis,
}

/// Every so many entries the whole state is compared.
const HASH_EVERY: u64 = 24;

impl Applier {
    pub(crate) fn now(&self) -> Millis {
        Millis(self.clock.load(Ordering::Relaxed))
    }

    pub(crate) fn applied(&self) -> u64 {
        self.machine.position().index
    }

    /// Has the whole state compared with that of others at the same entry.
    pub(crate) fn compare(&self) {
        let index = self.applied();
        if index <= 1 {
            return;
        }
        let mut truth = self.truth.lock();
        match self.machine.tenants().hash_kv(&self.tenant, 0) {
            Ok(hash) => truth.hashed(self.member, index, (hash, self.tenant.auth_hash())),
            Err(error) => truth.violated(|| format!("member {}: hash: {error}", self.member)),
        }
    }
}

impl StateMachine for Applier {
    type Outcome = Outcome;
    type View = StoreView;
    type Incoming = IncomingState;

    fn apply(
        &mut self,
        position: LogPosition,
        data: Bytes,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), String> {
        let before = self.applied();
        if position.index != before + 1 && before != 0 {
            self.truth.lock().violated(|| {
                format!(
                    "member {} applies entry {} after entry {before}",
                    self.member, position.index
                )
            });
        }
        let first = outcomes.len();
        self.machine
            .apply(position, data.clone(), self.now(), outcomes)
            .map_err(|error| error.to_string())?;
        self.truth
            .lock()
            .applied(self.member, position, &data, &outcomes[first..]);
        if position.index.is_multiple_of(HASH_EVERY) {
            self.compare();
        }
        Ok(())
    }

    fn members(&self) -> Members {
        members(&self.machine.tenants().members())
    }

    fn view(&mut self) -> Result<StoreView, String> {
        self.compare();
        Ok(self.machine.tenants().store().view())
    }

    fn check(&self, data: &Bytes) -> Result<(), String> {
        let mut rest = data.clone();
        while let Some((_, _, command)) =
            Command::decode_next(&mut rest).map_err(|error| error.to_string())?
        {
            if matches!(
                command,
                Command::MemberAdd { .. }
                    | Command::MemberPromote { .. }
                    | Command::MemberRemove { .. }
            ) {
                return Err("a change of voters among other commands".to_owned());
            }
        }
        Ok(())
    }

    fn describe(incoming: &IncomingState) -> (LogPosition, Members) {
        (incoming.position(), members(incoming.members()))
    }

    fn install(&mut self, position: LogPosition, incoming: IncomingState) -> Result<(), String> {
        let before = self.applied();
        self.machine
            .install_state(incoming)
            .map_err(|error| error.to_string())?;
        let mut truth = self.truth.lock();
        truth.counters.snapshots_installed += 1;
        truth.jumps.push((self.member, before, position.index));
        if self.applied() != position.index {
            let applied = self.applied();
            truth.violated(|| format!("a snapshot of {} left {applied} applied", position.index));
        }
        drop(truth);
        self.compare();
        Ok(())
    }

    fn recorded(&mut self) -> Result<(), String> {
        let store = self.machine.tenants().store();
        store
            .installed_recorded()
            .map_err(|error| error.to_string())
    }

    fn lead(&mut self) {
        self.machine
            .promote_leases(self.now(), self.lease_extension);
    }

    fn follow(&mut self) {
        self.machine.demote_leases();
    }
}

fn members(members: &Membership) -> Members {
    Members {
        voters: members.voters(),
        learners: members.learners(),
    }
}

struct Silent;

impl Observer for Silent {
    fn synced(&self, _: Duration) {}
    fn appended(&self, _: usize) {}
}

impl Wake for Silent {
    fn wake(&self) {}
}

/// What a process is given to do.
pub(crate) enum Input {
    Packet {
        from: u64,
        packet: Packet,
    },
    Tick,
    /// What only the leader of that term may decide.
    ProposeInTerm {
        term: u64,
        data: Vec<u8>,
        ticket: Ticket,
    },
    Propose {
        data: Vec<u8>,
        tickets: Vec<Ticket>,
    },
    Read(Ticket),
    Change {
        change: MemberChange,
        data: Vec<u8>,
        ticket: Ticket,
    },
    Transfer(u64),
    Unreachable(u64),
    Gone(u64),
}

/// A member that runs.
pub(crate) struct Process {
    pub(crate) core: Core<Applier, MemDisk>,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) hub: Hub,
    clock: Arc<AtomicU64>,
    /// Who waits for which ticket.
    pub(crate) waiting: HashMap<u32, Waiting>,
    next_ticket: u32,
    pub(crate) incarnation: u64,
    pub(crate) hub_scheduled: bool,
    pub(crate) hub_epoch: Instant,
    /// The leader's requests to renew leases: what each still waits for.
    pub(crate) renewals: HashMap<u32, Renewal>,
    pub(crate) published: bool,
}

/// Who waits for a ticket.
pub(crate) enum Waiting {
    Request(u64),
    /// One of several answers that a renewal needs.
    Renewal(u32),
    Internal,
}

/// A lease that was renewed here, and what must come before the client hears of it.
pub(crate) struct Renewal {
    pub(crate) lease: i64,
    pub(crate) request: u64,
    pub(crate) began: Micros,
    /// The term in which it was renewed.
    pub(crate) term: u64,
    pub(crate) missing: u32,
}

impl Process {
    pub(crate) fn ticket(&mut self, waiting: Waiting) -> Ticket {
        self.next_ticket += 1;
        self.waiting.insert(self.next_ticket, waiting);
        Ticket {
            mailbox: 0,
            slot: self.next_ticket,
            turn: self.incarnation as u32,
        }
    }

    pub(crate) fn applied(&mut self) -> u64 {
        self.core.machine().applied()
    }

    pub(crate) fn number(&self) -> u64 {
        self.incarnation
    }

    pub(crate) fn set_clock(&self, millis: u64) {
        self.clock.store(millis, Ordering::Relaxed);
    }

    pub(crate) fn clock(&self) -> Millis {
        Millis(self.clock.load(Ordering::Relaxed))
    }

    /// Lets the core do what there is to do. What it sends goes to `sent`, also that before a failure.
    pub(crate) fn advance(
        &mut self,
        done: &mut Completed<Applier>,
        sent: &mut Vec<(u64, Packet)>,
    ) -> Result<(), String> {
        let mut failed = None;
        let mut send = |outgoing: &mut Vec<Outgoing<StoreView>>| {
            for outgoing in outgoing.drain(..) {
                match outgoing {
                    Outgoing::Message { to, bytes } => sent.push((to, Packet::Message(bytes))),
                    Outgoing::Snapshot {
                        to, message, view, ..
                    } => match read_view(view) {
                        Ok(chunks) => sent.push((to, Packet::Snapshot { message, chunks })),
                        Err(error) => failed = Some(error),
                    },
                }
            }
        };
        let result = self.core.advance(&mut Io {
            done,
            send: &mut send,
        });
        match failed {
            Some(error) => Err(error),
            None => result.map_err(|error| error.to_string()),
        }
    }
}

fn read_view(view: StoreView) -> Result<Vec<Bytes>, String> {
    let reader = SnapshotReader::new(view, CLUSTER, &SnapshotScope::All);
    let reader = reader.map_err(|error| error.to_string())?;
    reader
        .map(|chunk| chunk.map_err(|error| error.to_string()))
        .collect()
}

/// A member of the cluster, running or not.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) disk: MemDisk,
    pub(crate) store: MemoryStore,
    pub(crate) process: Option<Process>,
    pub(crate) founding: Vec<Member>,
    pub(crate) incarnation: u64,
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) run_scheduled: bool,
    /// It does nothing until then; the process is held up, or its disk is busy.
    pub(crate) busy_until: Micros,
    pub(crate) disk_delay: Micros,
    /// How fast its clock runs, permille of the right speed.
    pub(crate) rate: u64,
    /// Will never run again.
    pub(crate) retired: bool,
    /// The term in which it applied its own removal.
    pub(crate) last_term: Option<u64>,
    /// It is to end for good.
    pub(crate) leaving: bool,
    /// Its disk is gone.
    pub(crate) lost: bool,
    pub(crate) full_disk: bool,
    /// So often its disk was made to fail: its end is no surprise.
    pub(crate) faults: u32,
    /// Ticks that are due by the member's own clock since the last one that was made.
    pub(crate) tick_generation: u64,
}

impl Node {
    pub(crate) fn new(id: u64, founding: Vec<Member>, rate: u64) -> Node {
        Node {
            id,
            disk: MemDisk::new(),
            store: MemoryStore::default(),
            process: None,
            founding,
            incarnation: 0,
            inbox: VecDeque::new(),
            run_scheduled: false,
            busy_until: 0,
            disk_delay: 0,
            rate,
            retired: false,
            last_term: None,
            leaving: false,
            lost: false,
            full_disk: false,
            faults: 0,
            tick_generation: 0,
        }
    }

    /// What its clock shows, milliseconds.
    pub(crate) fn clock(&self, now: Micros) -> u64 {
        now * self.rate / 1000 / MILLISECOND
    }

    /// Starts the process on what the disk has. Says whether a torn tail was cut.
    pub(crate) fn start(
        &mut self,
        plan: &Plan,
        seed: u64,
        now: Micros,
        truth: &Arc<Mutex<Truth>>,
    ) -> Result<bool, String> {
        self.incarnation += 1;
        let clock = Arc::new(AtomicU64::new(self.clock(now)));
        let options = LogOptions {
            segment_bytes: SEGMENT_BYTES,
            recycle: 1,
            cache_bytes: 8 << 10,
            seed: Some(seed ^ (self.id << 32) ^ self.incarnation),
            ..LogOptions::default()
        };
        let (log, recovered) = RaftLog::open(self.disk.clone(), options)
            .map_err(|error| format!("the log cannot be opened: {error}"))?;
        let options = StoreOptions {
            cache_bytes: 16 << 10,
            max_batch_bytes: 2 << 10,
            reserve_bytes: 0,
            ..StoreOptions::default()
        };
        let (store, opened) = Store::in_memory(&self.store, options)
            .map_err(|error| format!("the store cannot be opened: {error}"))?;
        let options = MachineOptions {
            quota_bytes: None,
            lease_checkpoint_interval: Millis(1_500),
            lease_ownership: false,
            founding: self.founding.clone(),
        };
        let millis = Millis(clock.load(Ordering::Relaxed));
        let machine = Machine::restore(Arc::new(store), opened.applied, options, millis)
            .map_err(|error| format!("the state cannot be restored: {error}"))?;
        let tenants = machine.tenants().clone();
        let tenant = tenants
            .get(TenantId::DEFAULT)
            .ok_or("there is no default tenant")?;
        let applier = Applier {
            machine,
            member: self.id,
            clock: clock.clone(),
            truth: truth.clone(),
            tenant: tenant.clone(),
            lease_extension: Millis(
                plan.election_ticks as u64 * 2 * crate::plan::TICK / MILLISECOND,
            ),
        };
        let options = CoreOptions {
            member: self.id,
            incarnation: self.incarnation,
            election_ticks: plan.election_ticks,
            heartbeat_ticks: 1,
            pre_vote: plan.pre_vote,
            advance_first_election: false,
            patience_ticks: plan.election_ticks as u64 * 3,
            keep_entries: plan.keep_entries,
            keep_bytes: 1 << 20,
            seed,
        };
        let mut core = Core::new(
            log,
            applier,
            opened.applied,
            opened.installed,
            options,
            Arc::new(Silent),
        )
        .map_err(|error| format!("the member cannot start: {error}"))?;
        if opened.applied.index > 1 {
            core.machine().compare();
        }
        let epoch = Instant::now();
        let limits = HubLimits {
            watches_per_stream: 16,
            fragment_bytes: 2_000,
            progress_interval: Duration::from_secs(2),
        };
        let hub = Hub::new(
            tenants.inbox().clone(),
            tenants.clone(),
            Arc::new(Silent),
            encode,
            limits,
            epoch,
        );
        self.process = Some(Process {
            core,
            tenants,
            tenant,
            hub,
            clock,
            waiting: HashMap::new(),
            next_ticket: 0,
            incarnation: self.incarnation,
            hub_scheduled: false,
            hub_epoch: epoch,
            renewals: HashMap::new(),
            published: false,
        });
        Ok(recovered.tail_cut.is_some())
    }

    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }
}

/// Small, so that segments end often.
const SEGMENT_BYTES: u64 = 16 << 10;
