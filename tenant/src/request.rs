//! Requests in domain terms. The server lowers the wire message once; from there on nothing sees the wire types.

use bytes::Bytes;
use holdfast_auth::{Demands, KeyRange, Verb};

/// What to sort a range by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortTarget {
    /// The key.
    Key,
    /// The key's version.
    Version,
    /// The create revision.
    Create,
    /// The modification revision.
    Mod,
    /// The value.
    Value,
}

/// How a range is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Keys ascending, as they stand in the index.
    Natural,
    /// Fetched in key order up to the limit, and only then sorted: etcd's answer to a sort target without an order.
    SortedPrefix(SortTarget),
    /// Everything is sorted, then cut by the limit.
    Sorted {
        /// What to sort by.
        target: SortTarget,
        /// Greatest first.
        descending: bool,
    },
}

/// Bounds on revisions, inclusive; 0 is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevisionFilter {
    /// Least modification revision.
    pub min_mod: i64,
    /// Greatest modification revision.
    pub max_mod: i64,
    /// Least create revision.
    pub min_create: i64,
    /// Greatest create revision.
    pub max_create: i64,
}

impl RevisionFilter {
    /// Whether anything is bounded.
    pub fn is_set(&self) -> bool {
        *self != RevisionFilter::default()
    }

    /// Whether a key-value with these revisions passes.
    pub fn admits(&self, modified: i64, created: i64) -> bool {
        let within = |least: i64, value: i64, greatest: i64| {
            (least == 0 || value >= least) && (greatest == 0 || value <= greatest)
        };
        within(self.min_mod, modified, self.max_mod)
            && within(self.min_create, created, self.max_create)
    }
}

/// Reads keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Which keys.
    pub keys: KeyRange,
    /// Most key-values to answer; 0 is all.
    pub limit: u64,
    /// The revision to read at; 0 or less is the current one.
    pub revision: i64,
    /// In which order.
    pub order: Order,
    /// Leave the values out.
    pub keys_only: bool,
    /// Answer only how many there are.
    pub count_only: bool,
    /// Which revisions to keep.
    pub filter: RevisionFilter,
}

/// Writes a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key; not empty.
    pub key: Bytes,
    /// The value; empty with `keep_value`.
    pub value: Bytes,
    /// The lease to attach to; 0 is none.
    pub lease: i64,
    /// Answer what was there before.
    pub previous: bool,
    /// Keep the present value.
    pub keep_value: bool,
    /// Keep the present lease.
    pub keep_lease: bool,
}

/// Deletes keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRange {
    /// Which keys.
    pub keys: KeyRange,
    /// Answer what was deleted.
    pub previous: bool,
}

/// How a compared quantity must relate to the operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same.
    Equal,
    /// More than the operand.
    Greater,
    /// Less than the operand.
    Less,
    /// Not the same.
    NotEqual,
}

/// The compared quantity and its operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The key's version.
    Version(i64),
    /// The create revision.
    Create(i64),
    /// The modification revision.
    Mod(i64),
    /// The value.
    Value(Bytes),
    /// The lease.
    Lease(i64),
}

/// A condition of a transaction: it must hold for every key in the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which keys.
    pub keys: KeyRange,
    /// How it must relate.
    pub relation: Relation,
    /// What is compared, with what.
    pub operand: Operand,
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read.
    Range(Range),
    /// Write.
    Put(Put),
    /// Delete.
    DeleteRange(DeleteRange),
    /// A transaction inside.
    Txn(Txn),
}

/// A transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold for the success arm to be taken.
    pub compares: Vec<Compare>,
    /// Taken when all compares hold.
    pub success: Vec<Op>,
    /// Taken otherwise.
    pub failure: Vec<Op>,
}

impl Txn {
    /// Both arms.
    pub fn arms(&self) -> impl Iterator<Item = &Op> {
        self.success.iter().chain(&self.failure)
    }

    /// Whether every step is a plain read, so that the transaction need not go through the log. A nested transaction makes it a write.
    pub fn is_read_only(&self) -> bool {
        self.arms().all(|op| matches!(op, Op::Range(_)))
    }

    /// Whether a put stands in any arm at any depth: such a transaction needs space.
    pub fn has_put(&self) -> bool {
        self.arms().any(|op| match op {
            Op::Put(_) => true,
            Op::Txn(txn) => txn.has_put(),
            Op::Range(_) | Op::DeleteRange(_) => false,
        })
    }
}

impl Demands for Range {
    fn demands(&self, demand: &mut dyn FnMut(Verb, &KeyRange)) {
        demand(Verb::Read, &self.keys);
    }
}

impl Demands for Put {
    fn demands(&self, demand: &mut dyn FnMut(Verb, &KeyRange)) {
        let key = KeyRange::Point(self.key.clone());
        demand(Verb::Write, &key);
        if self.previous {
            demand(Verb::Read, &key);
        }
    }
}

impl Demands for DeleteRange {
    fn demands(&self, demand: &mut dyn FnMut(Verb, &KeyRange)) {
        demand(Verb::Write, &self.keys);
        if self.previous {
            demand(Verb::Read, &self.keys);
        }
    }
}

impl Demands for Txn {
    fn demands(&self, demand: &mut dyn FnMut(Verb, &KeyRange)) {
        for compare in &self.compares {
            demand(Verb::Read, &compare.keys);
        }
        for op in self.arms() {
            match op {
                Op::Range(range) => range.demands(demand),
                Op::Put(put) => put.demands(demand),
                Op::DeleteRange(delete) => delete.demands(demand),
                Op::Txn(txn) => txn.demands(demand),
            }
        }
    }
}
