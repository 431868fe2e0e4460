//! The machine, which applies entries between the hub's rounds and in the middle of them.

use super::replica::{received, replica};
use bytes::Bytes;
use holdfast_auth::{Caller, Denied, KeyRange};
use holdfast_storage::lease::Millis;
use holdfast_storage::{LogPosition, Revision, Row, TenantId};
use holdfast_tenant::watch::History;
use holdfast_tenant::{Command, Machine, Outcome, Tenants};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

pub(crate) type Entry = Vec<(Caller, Command)>;

/// What the machine is to do.
pub(crate) enum Planned {
    Apply(Entry),
    /// See [`Applier::install`].
    Install(Vec<Entry>, bool),
}

/// A received state took the place of the one before.
pub(crate) struct Gap {
    /// Counts with entries and requests: when what lies in the gap began, and when the state was replaced.
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The revision before it.
    pub(crate) before: i64,
    /// Whether users or roles were changed in it.
    pub(crate) auth_changed: bool,
}

/// An entry with its answers.
pub(crate) struct Applied {
    /// Counts entries and requests.
    pub(crate) at: u64,
    pub(crate) commands: Entry,
    pub(crate) outcomes: Vec<Outcome>,
}

/// Stands between the hub and the state, and knows how often the hub has asked.
pub(crate) struct Applier {
    pub(crate) machine: Mutex<Machine>,
    pub(crate) tenants: Arc<Tenants>,
    compacted: Arc<AtomicI64>,
    index: AtomicU64,
    time: AtomicU64,
    /// After how many questions which entry is applied.
    planned: Mutex<Option<(usize, Planned)>>,
    applied: Mutex<Vec<Applied>>,
    gaps: Mutex<Vec<Gap>>,
}

impl Applier {
    pub(crate) fn new(machine: Machine, compacted: Arc<AtomicI64>) -> Applier {
        Applier {
            tenants: machine.tenants().clone(),
            machine: Mutex::new(machine),
            compacted,
            index: AtomicU64::new(1),
            time: AtomicU64::new(0),
            planned: Mutex::default(),
            applied: Mutex::default(),
            gaps: Mutex::default(),
        }
    }

    pub(crate) fn next_position(&self) -> LogPosition {
        LogPosition {
            index: self.index.fetch_add(1, Ordering::SeqCst) + 1,
            term: 1,
        }
    }

    pub(crate) fn next_time(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn apply(&self, commands: &[(Caller, Command)]) {
        let mut machine = self.machine.lock();
        self.apply_to(&mut machine, commands);
        self.note_compacted();
    }

    fn apply_to(&self, machine: &mut Machine, commands: &[(Caller, Command)]) {
        let mut entry = Vec::new();
        for (caller, command) in commands {
            command.encode(TenantId::DEFAULT, caller, &mut entry);
        }
        let (at, position) = (self.next_time(), self.next_position());
        let mut outcomes = Vec::new();
        let entry = Bytes::from(entry);
        machine
            .apply(position, entry, Millis(0), &mut outcomes)
            .unwrap();
        let commands = commands.to_vec();
        self.applied.lock().push(Applied {
            at,
            commands,
            outcomes,
        });
    }

    fn note_compacted(&self) {
        let tenant = self.tenants.get(TenantId::DEFAULT).unwrap();
        self.compacted.store(tenant.compacted(), Ordering::SeqCst);
    }

    /// Another member applies the entries, and perhaps removes what they compacted; the machine gets its state from there.
    pub(crate) fn install(&self, entries: &[Entry], prune: bool) {
        let mut machine = self.machine.lock();
        let tenant = self.tenants.get(TenantId::DEFAULT).unwrap();
        let auth_version = || (tenant.auth().is_enabled(), tenant.auth().revision());
        let (from, before, auth) = (self.next_time(), tenant.revision(), auth_version());
        let mut ahead = replica(&machine);
        // An entry of raft's own, so that it is ahead in any case.
        let position = self.next_position();
        ahead
            .apply(position, Bytes::new(), Millis(0), &mut Vec::new())
            .unwrap();
        for entry in entries {
            self.apply_to(&mut ahead, entry);
        }
        let theirs = ahead.tenants().get(TenantId::DEFAULT).unwrap();
        if prune {
            let (dropped, _) = theirs.prune(usize::MAX);
            ahead.drop_rows(&theirs, dropped, 0);
        }
        let incoming = received(self.tenants.store(), ahead.tenants().store());
        machine.install(incoming, Millis(0)).unwrap();
        self.note_compacted();
        let auth_changed = auth_version() != auth;
        self.gaps.lock().push(Gap {
            from,
            to: self.next_time(),
            before,
            auth_changed,
        });
    }

    fn carry_out(&self, planned: Planned) {
        match planned {
            Planned::Apply(entry) => self.apply(&entry),
            Planned::Install(entries, prune) => self.install(&entries, prune),
        }
    }

    pub(crate) fn plan(&self, after: usize, what: Planned) {
        let before = self.planned.lock().replace((after, what));
        if let Some((_, before)) = before {
            self.carry_out(before);
        }
    }

    /// Applies what is planned if it was not yet. Whether anything was applied in the middle of the round.
    pub(crate) fn finish_plan(&self) -> bool {
        let left = self.planned.lock().take();
        if let Some((_, planned)) = left {
            self.carry_out(planned);
        }
        !self.applied.lock().is_empty() || !self.gaps.lock().is_empty()
    }

    pub(crate) fn take_gaps(&self) -> Vec<Gap> {
        std::mem::take(&mut self.gaps.lock())
    }

    pub(crate) fn take_applied(&self) -> Vec<Applied> {
        std::mem::take(&mut self.applied.lock())
    }

    fn asked(&self) {
        let due = {
            let mut planned = self.planned.lock();
            match planned.as_mut() {
                Some((after @ 1.., _)) => {
                    *after -= 1;
                    None
                }
                _ => planned.take(),
            }
        };
        if let Some((_, planned)) = due {
            self.carry_out(planned);
        }
    }
}

impl History for Applier {
    fn revision(&self, tenant: TenantId) -> i64 {
        self.asked();
        self.tenants.revision(tenant)
    }

    fn compacted(&self, tenant: TenantId) -> i64 {
        self.asked();
        self.tenants.compacted(tenant)
    }

    fn published(&self, tenant: TenantId) -> i64 {
        self.asked();
        self.tenants.published(tenant)
    }

    fn scan(
        &self,
        tenant: TenantId,
        from: i64,
        through: i64,
        visit: &mut dyn FnMut(Row) -> bool,
    ) -> Result<(), String> {
        self.asked();
        self.tenants.scan(tenant, from, through, visit)
    }

    fn before(&self, tenant: TenantId, key: &[u8], main: i64) -> Option<Row> {
        self.asked();
        self.tenants.before(tenant, key, main)
    }

    fn may_watch(&self, tenant: TenantId, caller: &Caller, keys: &KeyRange) -> Result<(), Denied> {
        self.asked();
        self.tenants.may_watch(tenant, caller, keys)
    }

    fn row(&self, tenant: TenantId, revision: Revision) -> Option<Row> {
        self.asked();
        self.tenants.row(tenant, revision)
    }
}
