//! Transactions: first which steps run is decided, at every level, on the state before; then all of them are checked; then they
//! run. What is refused has changed nothing.

use crate::answer::{DeleteAnswer, PutAnswer, RangeAnswer, Refusal, StepAnswer, TxnAnswer};
use crate::read::{self, Rows};
use crate::request::{Compare, DeleteRange, Op, Operand, Put, Relation, Txn};
use crate::watch::Event;
use bytes::Bytes;
use holdfast_auth::KeyRange;
use holdfast_storage::backend::Store;
use holdfast_storage::lease::LeaseTable;
use holdfast_storage::mvcc::{Version, View, WriteTxn};
use holdfast_storage::{Revision, Row, TenantId};

/// Which arms run: a transaction's verdict, and those of the transactions nested in the arm that it takes, in order.
pub(crate) struct Verdict {
    succeeded: bool,
    nested: Vec<Verdict>,
}

impl Verdict {
    fn arm<'t>(&self, txn: &'t Txn) -> &'t [Op] {
        if self.succeeded {
            &txn.success
        } else {
            &txn.failure
        }
    }
}

/// Evaluates all compares, at every level, on one state.
pub(crate) fn judge(view: View<'_>, rows: &dyn Rows, txn: &Txn) -> Result<Verdict, Refusal> {
    let mut verdict = Verdict {
        succeeded: true,
        nested: Vec::new(),
    };
    for compare in &txn.compares {
        if !holds(view, rows, compare)? {
            verdict.succeeded = false;
            break;
        }
    }
    for op in verdict.arm(txn) {
        if let Op::Txn(inner) = op {
            verdict.nested.push(judge(view, rows, inner)?);
        }
    }
    Ok(verdict)
}

fn holds(view: View<'_>, rows: &dyn Rows, compare: &Compare) -> Result<bool, Refusal> {
    let mut seen = false;
    if let KeyRange::Point(key) = &compare.keys {
        if let Some(version) = view.get(key) {
            return version_holds(rows, compare, &version);
        }
    } else {
        for (_, version) in view.range_at(read::span(&compare.keys), view.revision()) {
            seen = true;
            if !version_holds(rows, compare, &version)? {
                return Ok(false);
            }
        }
    }
    if seen {
        return Ok(true);
    }
    // A missing key has no value to compare, not even to differ from; every other quantity is 0.
    Ok(match compare.operand {
        Operand::Value(_) => false,
        Operand::Version(n) | Operand::Create(n) | Operand::Mod(n) | Operand::Lease(n) => {
            relates(compare.relation, &0, &n)
        }
    })
}

fn version_holds(rows: &dyn Rows, compare: &Compare, version: &Version) -> Result<bool, Refusal> {
    Ok(match &compare.operand {
        Operand::Version(n) => relates(compare.relation, &version.version, n),
        Operand::Create(n) => relates(compare.relation, &version.create_revision, n),
        Operand::Mod(n) => relates(compare.relation, &version.modified.main, n),
        Operand::Lease(n) => relates(compare.relation, &version.lease, n),
        Operand::Value(value) => {
            let found = rows.fetch(&[version.modified])?;
            found
                .first()
                .is_some_and(|row| relates(compare.relation, &row.value, value))
        }
    })
}

fn relates<T: Ord>(relation: Relation, found: &T, operand: &T) -> bool {
    match relation {
        Relation::Equal => found == operand,
        Relation::NotEqual => found != operand,
        Relation::Greater => found > operand,
        Relation::Less => found < operand,
    }
}

/// Checks every step that will run. `lease_exists` is asked for leases that puts attach to.
pub(crate) fn check(
    view: View<'_>,
    txn: &Txn,
    verdict: &Verdict,
    lease_exists: &dyn Fn(i64) -> bool,
) -> Result<(), Refusal> {
    let mut nested = verdict.nested.iter();
    for op in verdict.arm(txn) {
        match op {
            Op::Range(range) if range.revision != 0 => {
                read::check_revision(range.revision, view)?;
            }
            Op::Range(_) | Op::DeleteRange(_) => {}
            Op::Put(put) => check_put(view, put, lease_exists)?,
            Op::Txn(inner) => {
                if let Some(verdict) = nested.next() {
                    check(view, inner, verdict, lease_exists)?;
                }
            }
        }
    }
    Ok(())
}

pub(crate) fn check_put(
    view: View<'_>,
    put: &Put,
    lease_exists: &dyn Fn(i64) -> bool,
) -> Result<(), Refusal> {
    if put.key.is_empty() {
        // Refused at the edge. Here as well, because a row without a key could not be restored.
        return Err(Refusal::EmptyKey);
    }
    if put.lease != 0 && !lease_exists(put.lease) {
        return Err(Refusal::LeaseNotFound);
    }
    if (put.keep_value || put.keep_lease) && view.get(&put.key).is_none() {
        return Err(Refusal::KeyNotFound);
    }
    Ok(())
}

/// Runs a transaction of reads on a state.
pub(crate) fn read_only(view: View<'_>, rows: &dyn Rows, txn: &Txn) -> Result<TxnAnswer, Refusal> {
    let verdict = judge(view, rows, txn)?;
    check(view, txn, &verdict, &|_| false)?;
    let mut steps = Vec::new();
    for op in verdict.arm(txn) {
        if let Op::Range(range) = op {
            steps.push(StepAnswer::Range(read_step(view, rows, range)?));
        }
    }
    Ok(TxnAnswer {
        revision: view.revision(),
        succeeded: verdict.succeeded,
        steps,
    })
}

fn read_step(
    view: View<'_>,
    rows: &dyn Rows,
    range: &crate::request::Range,
) -> Result<RangeAnswer, Refusal> {
    let at = if range.revision <= 0 {
        view.revision()
    } else {
        range.revision
    };
    read::range(view, rows, range, at)
}

/// Rows written by the raft entry that is being applied; they reach the store when the entry is done.
pub(crate) struct PendingRows<'a> {
    pub(crate) store: &'a Store,
    pub(crate) tenant: TenantId,
    /// In revision order.
    pub(crate) rows: &'a [Row],
}

impl Rows for PendingRows<'_> {
    fn fetch(&self, revisions: &[Revision]) -> Result<Vec<Row>, Refusal> {
        revisions
            .iter()
            .map(|revision| {
                if let Ok(at) = self.rows.binary_search_by_key(revision, |row| row.revision) {
                    return Ok(self.rows[at].clone());
                }
                match self.store.get(self.tenant, *revision) {
                    Ok(Some(row)) => Ok(row),
                    Ok(None) => Err(missing(*revision)),
                    Err(error) => Err(Refusal::Storage(error.to_string())),
                }
            })
            .collect()
    }
}

/// A row that the index knows and the store does not have.
pub(crate) fn missing(revision: Revision) -> Refusal {
    Refusal::Storage(format!(
        "the row of revision {}.{} is missing",
        revision.main, revision.sub
    ))
}

/// A transaction that writes, in progress.
pub(crate) struct Execution<'a> {
    pub(crate) txn: WriteTxn<'a>,
    pub(crate) store: &'a Store,
    pub(crate) tenant: TenantId,
    pub(crate) rows: &'a mut Vec<Row>,
    /// Collected only when somebody watches.
    pub(crate) events: Option<&'a mut Vec<Event>>,
    pub(crate) leases: &'a mut LeaseTable,
}

impl Execution<'_> {
    fn pending(&self) -> PendingRows<'_> {
        PendingRows {
            store: self.store,
            tenant: self.tenant,
            rows: self.rows,
        }
    }

    pub(crate) fn run(&mut self, txn: &Txn, verdict: &Verdict) -> Result<TxnAnswer, Refusal> {
        let mut steps = Vec::with_capacity(verdict.arm(txn).len());
        let mut nested = verdict.nested.iter();
        for op in verdict.arm(txn) {
            steps.push(match op {
                Op::Range(range) => {
                    StepAnswer::Range(read_step(self.txn.view(), &self.pending(), range)?)
                }
                Op::Put(put) => StepAnswer::Put(self.put(put)?),
                Op::DeleteRange(delete) => StepAnswer::Delete(self.delete(delete)?),
                Op::Txn(inner) => match nested.next() {
                    Some(verdict) => StepAnswer::Txn(self.run(inner, verdict)?),
                    None => continue,
                },
            });
        }
        Ok(TxnAnswer {
            revision: self.txn.revision(),
            succeeded: verdict.succeeded,
            steps,
        })
    }

    pub(crate) fn put(&mut self, put: &Put) -> Result<PutAnswer, Refusal> {
        let mut before = None;
        if (put.previous || put.keep_value)
            && let Some(version) = self.txn.get(&put.key)
        {
            before = self.pending().fetch(&[version.modified])?.pop();
        }
        let lease = if put.keep_lease {
            self.txn.get(&put.key).map_or(0, |version| version.lease)
        } else {
            put.lease
        };
        let value = match &before {
            Some(row) if put.keep_value => row.value.clone(),
            // A slice of the raft entry. The store detaches it when it keeps the row for longer than it takes to persist it.
            _ => put.value.clone(),
        };
        let done = self.txn.put(&put.key, lease);
        let old_lease = done.previous.map_or(0, |version| version.lease);
        if old_lease != lease {
            if old_lease != 0 {
                self.leases.detach(old_lease, &put.key);
            }
            if lease != 0 {
                self.leases.attach(lease, &done.key);
            }
        }
        self.write(
            Row {
                revision: done.revision,
                key: done.key,
                value,
                create_revision: done.create_revision,
                version: done.version,
                lease,
                tombstone: false,
            },
            done.previous.map(|version| version.modified),
        );
        Ok(PutAnswer {
            revision: self.txn.revision(),
            previous: before.filter(|_| put.previous),
        })
    }

    pub(crate) fn delete(&mut self, delete: &DeleteRange) -> Result<DeleteAnswer, Refusal> {
        let deleted = self.txn.delete_range(read::span(&delete.keys));
        let mut previous = Vec::new();
        if delete.previous {
            let revisions: Vec<Revision> =
                deleted.iter().map(|item| item.previous.modified).collect();
            previous = self.pending().fetch(&revisions)?;
        }
        let count = deleted.len() as u64;
        for item in deleted {
            if item.previous.lease != 0 {
                self.leases.detach(item.previous.lease, &item.key);
            }
            self.write(
                Row {
                    revision: item.revision,
                    key: item.key,
                    value: Bytes::new(),
                    create_revision: 0,
                    version: 0,
                    lease: 0,
                    tombstone: true,
                },
                Some(item.previous.modified),
            );
        }
        Ok(DeleteAnswer {
            revision: self.txn.revision(),
            deleted: count,
            previous,
        })
    }

    fn write(&mut self, row: Row, replaced: Option<Revision>) {
        if let Some(events) = &mut self.events {
            events.push(Event {
                row: row.clone(),
                replaced,
            });
        }
        self.rows.push(row);
    }
}
