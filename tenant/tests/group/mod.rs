//! A machine in a directory of its own, for what concerns the members.

#![allow(dead_code, reason = "each test uses a part of it")]

use bytes::Bytes;
use holdfast_auth::Caller;
use holdfast_storage::backend::{Store, StoreOptions};
use holdfast_storage::lease::Millis;
use holdfast_storage::snapshot::{SnapshotDecoder, SnapshotItem, SnapshotReader, SnapshotScope};
use holdfast_storage::{Change, LogPosition, TenantId};
use holdfast_tenant::{
    Command, Machine, MachineOptions, Member, MemberVersion, Membership, Outcome, RestoreError,
};
use std::path::Path;
use std::sync::Arc;

pub(crate) struct Group {
    dir: tempfile::TempDir,
    pub(crate) machine: Option<Machine>,
    /// Of what is applied.
    pub(crate) term: u64,
}

pub(crate) fn open(dir: &Path, founding: &[Member]) -> Result<Machine, RestoreError> {
    let options = StoreOptions {
        cache_bytes: 16 << 10,
        reserve_bytes: 0,
        ..StoreOptions::default()
    };
    let (store, opened) = Store::open(dir, options).unwrap();
    let options = MachineOptions {
        quota_bytes: None,
        lease_checkpoint_interval: Millis(300_000),
        lease_ownership: false,
        founding: founding.to_vec(),
    };
    Machine::restore(Arc::new(store), opened.applied, options, Millis(0))
}

impl Group {
    pub(crate) fn found(founding: &[Member]) -> Group {
        Group::with_store(&[], founding).unwrap()
    }

    /// Begins with what a store holds already.
    pub(crate) fn with_store(
        changes: &[Change],
        founding: &[Member],
    ) -> Result<Group, RestoreError> {
        let dir = tempfile::tempdir().unwrap();
        if !changes.is_empty() {
            let (store, _) = Store::open(dir.path(), StoreOptions::default()).unwrap();
            store.stage(LogPosition { index: 1, term: 1 }, changes.to_vec());
            store.persist().unwrap();
        }
        let machine = Some(open(dir.path(), founding)?);
        let term = 1;
        Ok(Group { dir, machine, term })
    }

    pub(crate) fn machine(&mut self) -> &mut Machine {
        self.machine.as_mut().unwrap()
    }

    pub(crate) fn members(&self) -> Arc<Membership> {
        self.machine.as_ref().unwrap().tenants().members()
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Outcome {
        self.apply_by(TenantId::DEFAULT, &Caller::Server, command)
    }

    pub(crate) fn apply_by(
        &mut self,
        tenant: TenantId,
        caller: &Caller,
        command: &Command,
    ) -> Outcome {
        let mut entry = Vec::new();
        command.encode(tenant, caller, &mut entry);
        let position = LogPosition {
            index: self.machine().position().index + 1,
            term: self.term,
        };
        let mut outcomes = Vec::new();
        self.machine()
            .apply(position, Bytes::from(entry), Millis(0), &mut outcomes)
            .unwrap();
        outcomes.pop().unwrap()
    }

    /// The process ends, with all in the store, and begins anew.
    pub(crate) fn restart(&mut self, founding: &[Member]) {
        self.machine().tenants().store().persist().unwrap();
        self.machine = None;
        self.machine = Some(open(self.dir.path(), founding).unwrap());
    }

    /// What a snapshot taken now holds.
    pub(crate) fn snapshot(&self) -> Vec<Change> {
        let store = self.machine.as_ref().unwrap().tenants().store();
        let mut decoder = SnapshotDecoder::new();
        let mut items = Vec::new();
        for piece in SnapshotReader::new(store.view(), 7, &SnapshotScope::All).unwrap() {
            decoder.push(&piece.unwrap(), &mut items).unwrap();
        }
        decoder.finish().unwrap();
        items
            .into_iter()
            .map(|item| match item {
                SnapshotItem::Meta(key, value) => Change::PutMeta(key, value),
                SnapshotItem::Row(tenant, row) => Change::PutRow(tenant, row),
            })
            .collect()
    }
}

pub(crate) fn founder(id: u64) -> Member {
    Member {
        id,
        name: format!("m{id}"),
        peer_urls: vec![format!("https://m{id}:2380")],
        ..Member::default()
    }
}

pub(crate) fn add(id: u64, url: &str, is_learner: bool) -> Command {
    Command::MemberAdd {
        id,
        peer_urls: vec![url.into()],
        is_learner,
        max_learners: 1,
    }
}

pub(crate) fn publish(id: u64, instance: u64) -> Command {
    Command::MemberPublish {
        id,
        name: format!("n{id}"),
        client_urls: vec![format!("https://n{id}:2379")],
        instance,
        version: MemberVersion {
            level: 1,
            text: "3.7.1".into(),
        },
    }
}
