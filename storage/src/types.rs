//! The words every part of the store shares: tenants, revisions, rows, log positions.

use bytes::Bytes;
use std::fmt;

/// A tenant's fixed-width number, assigned by the server and never reused. It prefixes every row on disk and is part of every
/// command, index and waiter. [`TenantId::DEFAULT`] is the tenant that behaves as stock etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u32);

impl TenantId {
    /// The tenant `default`.
    pub const DEFAULT: TenantId = TenantId(1);
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in a tenant's history: `main` rises by one with each transaction that changes something, `sub` counts the changes
/// inside it from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The transaction. A fresh store is at 1, its first write gets 2.
    pub main: i64,
    /// The change inside the transaction.
    pub sub: u32,
}

impl Revision {
    /// The first change of transaction `main`.
    pub const fn first(main: i64) -> Revision {
        Revision { main, sub: 0 }
    }
}

/// One change of one key, as stored: the row `(tenant, revision)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// When it was written (the row's key in the store).
    pub revision: Revision,
    /// The changed key.
    pub key: Bytes,
    /// The new value; empty for a tombstone.
    pub value: Bytes,
    /// `main` of the first put since the key was last deleted; 0 for a tombstone.
    pub create_revision: i64,
    /// Puts since the key was last deleted, from 1; 0 for a tombstone.
    pub version: i64,
    /// The lease the key is attached to, 0 for none.
    pub lease: i64,
    /// Whether the change deleted the key.
    pub tombstone: bool,
}

/// A position in the raft log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// Entry index, from 1; 0 stands before the first entry.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
}

/// One change of the persisted state. The state machine stages them in log order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Write a row.
    PutRow(TenantId, Row),
    /// Remove a row (compaction).
    DropRow(TenantId, Revision),
    /// Write a small state record (leases, alarms, compaction marks, membership) under a key of the caller's choice.
    PutMeta(Bytes, Bytes),
    /// Remove a small state record.
    DropMeta(Bytes),
}
