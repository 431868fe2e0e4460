//! A node: the store in a directory, the machine, and the log that outlives both.

#![allow(dead_code, reason = "each test uses a part of it")]

use bytes::Bytes;
use holdfast_auth::Caller;
use holdfast_storage::backend::{Store, StoreOptions};
use holdfast_storage::lease::Millis;
use holdfast_storage::{Change, LogPosition, Row, TenantId};
use holdfast_tenant::{Command, Machine, MachineOptions, Outcome, ROW_OVERHEAD_BYTES, Tenant};
use std::sync::Arc;

pub(crate) const TENANTS: [TenantId; 2] = [TenantId::DEFAULT, TenantId(7)];

pub(crate) fn store_options() -> StoreOptions {
    StoreOptions {
        cache_bytes: 16 << 10,
        reserve_bytes: 0,
        max_batch_bytes: 4 << 10,
        ..StoreOptions::default()
    }
}

pub(crate) fn machine_options(lease_ownership: bool) -> MachineOptions {
    MachineOptions {
        quota_bytes: None,
        lease_checkpoint_interval: Millis(300_000),
        lease_ownership,
        founding: Vec::new(),
    }
}

pub(crate) const NOW: Millis = Millis(1_000);

/// A node: the store in a directory, the machine, and the log that outlives both.
pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) machine: Option<Machine>,
    pub(crate) log: Vec<(Bytes, Vec<Outcome>)>,
    /// Tenants with rows that left the index and not the store. Rows go in order, so that no more may go before a restart.
    pub(crate) undropped: Vec<TenantId>,
    pub(crate) lease_ownership: bool,
}

impl Node {
    pub(crate) fn new() -> Node {
        Node::with_lease_ownership(false)
    }

    pub(crate) fn with_lease_ownership(lease_ownership: bool) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path(), store_options()).unwrap();
        // A tenant begins with its revision record.
        let mut key = vec![b'r'];
        key.extend(TENANTS[1].0.to_be_bytes());
        let record = Change::PutMeta(key.into(), Bytes::copy_from_slice(&1i64.to_le_bytes()));
        store.stage(LogPosition::default(), vec![record]);
        store.persist().unwrap();
        drop(store);
        let mut node = Node {
            dir,
            machine: None,
            log: Vec::new(),
            undropped: Vec::new(),
            lease_ownership,
        };
        node.restart();
        node
    }

    pub(crate) fn machine(&mut self) -> &mut Machine {
        self.machine.as_mut().unwrap()
    }

    pub(crate) fn tenant(&self, id: TenantId) -> Arc<Tenant> {
        self.machine.as_ref().unwrap().tenants().get(id).unwrap()
    }

    /// What the server does by itself.
    pub(crate) fn apply(&mut self, commands: &[(TenantId, Command)]) -> Vec<Outcome> {
        let by_server =
            |(id, command): &(TenantId, Command)| (*id, Caller::Server, command.clone());
        self.apply_by(&commands.iter().map(by_server).collect::<Vec<_>>())
    }

    pub(crate) fn apply_by(&mut self, commands: &[(TenantId, Caller, Command)]) -> Vec<Outcome> {
        let mut entry = Vec::new();
        for (tenant, caller, command) in commands {
            command.encode(*tenant, caller, &mut entry);
        }
        let entry = Bytes::from(entry);
        let position = position(self.log.len());
        let mut outcomes = Vec::new();
        self.machine()
            .apply(position, entry.clone(), NOW, &mut outcomes)
            .unwrap();
        self.log.push((entry, outcomes.clone()));
        outcomes
    }

    /// The process ends; what was not persisted is replayed from the log, with the same answers.
    pub(crate) fn restart(&mut self) {
        self.machine = None;
        self.undropped.clear();
        let (store, opened) = Store::open(self.dir.path(), store_options()).unwrap();
        assert_eq!(opened.recovered, None);
        let store = Arc::new(store);
        let mut machine = Machine::restore(
            store,
            opened.applied,
            machine_options(self.lease_ownership),
            NOW,
        )
        .unwrap();
        assert_eq!(machine.position(), opened.applied);
        for (at, (entry, expected)) in self.log.iter().enumerate() {
            if position(at) <= opened.applied {
                continue;
            }
            let mut outcomes = Vec::new();
            machine
                .apply(position(at), entry.clone(), NOW, &mut outcomes)
                .unwrap();
            assert_eq!(
                outcomes, *expected,
                "replay of entry {at} answers otherwise"
            );
        }
        self.machine = Some(machine);
    }

    pub(crate) fn prune(&mut self, id: TenantId, max: usize, drop_rows: bool) -> bool {
        let tenant = self.tenant(id);
        let (dropped, done) = tenant.prune(max);
        assert!(dropped.len() <= max);
        if !drop_rows {
            self.undropped.push(id);
        }
        if !self.undropped.contains(&id) && !dropped.is_empty() {
            let store = self.machine().tenants().store().clone();
            let mut rows = Vec::new();
            store.get_many(id, &dropped, &mut rows).unwrap();
            assert!(
                rows.iter().all(Option::is_some),
                "a pruned row was not there"
            );
            let bytes = rows.iter().flatten().map(row_bytes).sum();
            self.machine().drop_rows(&tenant, dropped, bytes);
        }
        done
    }
}

pub(crate) fn position(at: usize) -> LogPosition {
    LogPosition {
        index: at as u64 + 3,
        term: 1 + at as u64 / 20,
    }
}

pub(crate) fn row_bytes(row: &Row) -> u64 {
    ROW_OVERHEAD_BYTES + row.key.len() as u64 + row.value.len() as u64
}
