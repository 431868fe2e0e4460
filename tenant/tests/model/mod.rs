//! One etcd, as naive as it gets: every row ever written stands in a list, and every question is answered by going through it.

#![allow(dead_code, reason = "each test uses a part of it")]

mod auth;
mod permission;

#[allow(unused_imports, reason = "each test uses a part of it")]
pub(crate) use auth::{AuthModel, all_keys};

use bytes::Bytes;
use holdfast_auth::{Caller, KeyRange};
use holdfast_storage::{Revision, Row};
use holdfast_tenant::request::{
    Compare, DeleteRange, Op, Operand, Order, Put, Range, Relation, SortTarget, Txn,
};
use holdfast_tenant::{
    Alarm, AlarmKind, Answer, Command, DeleteAnswer, Outcome, PutAnswer, RangeAnswer, Refusal,
    StepAnswer, TxnAnswer,
};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    /// All rows ever written, in order.
    pub(crate) rows: Vec<Row>,
    /// Every revision to which it was compacted.
    pub(crate) marks: BTreeSet<i64>,
    pub(crate) leases: BTreeMap<i64, i64>,
    /// Whose leases they are, those that are somebody's.
    pub(crate) owners: BTreeMap<i64, Bytes>,
    pub(crate) alarms: BTreeSet<Alarm>,
    pub(crate) auth: AuthModel,
    /// Leases belong to their creators.
    pub(crate) lease_ownership: bool,
}

type State<'a> = BTreeMap<&'a [u8], &'a Row>;

impl Model {
    pub(crate) fn new() -> Model {
        Model {
            revision: 1,
            compacted: -1,
            rows: Vec::new(),
            marks: BTreeSet::new(),
            leases: BTreeMap::new(),
            owners: BTreeMap::new(),
            alarms: BTreeSet::new(),
            auth: AuthModel::new(),
            lease_ownership: false,
        }
    }

    /// The keys that exist at revision `at`.
    pub(crate) fn at(&self, at: i64) -> State<'_> {
        let mut state = State::new();
        for row in self.rows.iter().filter(|row| row.revision.main <= at) {
            if row.tombstone {
                state.remove(row.key.as_ref());
            } else {
                state.insert(&row.key, row);
            }
        }
        state
    }

    pub(crate) fn now(&self) -> State<'_> {
        self.at(i64::MAX)
    }

    pub(crate) fn attached(&self, lease: i64) -> Vec<Vec<u8>> {
        let state = self.now();
        let with_lease = state.values().filter(|row| row.lease == lease);
        with_lease.map(|row| row.key.to_vec()).collect()
    }

    /// The rows that must be kept after the compaction (behaviour §3.6), in key order, each key's oldest first.
    pub(crate) fn kept(&self, until: i64) -> Vec<&Row> {
        let mut kept: Vec<&Row> = Vec::new();
        for row in self.rows.iter().filter(|row| row.revision.main <= until) {
            let replaced = self.rows.iter().any(|other| {
                other.key == row.key
                    && other.revision > row.revision
                    && other.revision.main <= self.compacted.min(until)
            });
            let main = row.revision.main;
            if main > self.compacted || !replaced && (!row.tombstone || main == self.compacted) {
                kept.push(row);
            }
        }
        kept.sort_by(|a, b| (&a.key, a.revision).cmp(&(&b.key, b.revision)));
        kept
    }

    /// What the server does by itself.
    pub(crate) fn apply(&mut self, command: &Command) -> Outcome {
        self.apply_by(&Caller::Server, command)
    }

    pub(crate) fn apply_by(&mut self, caller: &Caller, command: &Command) -> Outcome {
        self.permit(caller, command)?;
        let raised = |kind| self.alarms.iter().any(|alarm| alarm.kind == kind);
        let about_alarms = matches!(
            command,
            Command::RaiseAlarm(_)
                | Command::ClearAlarm(_)
                | Command::Auth(_)
                | Command::PublishTokenKey { .. }
        );
        let checkpoint = matches!(command, Command::LeaseCheckpoint(_));
        if raised(AlarmKind::Corrupt) && !about_alarms && !checkpoint {
            return Err(Refusal::Corrupt);
        }
        let grows = match command {
            Command::Put(_) | Command::LeaseGrant { .. } => true,
            Command::Txn(txn) => has_put(txn),
            _ => false,
        };
        if raised(AlarmKind::NoSpace) && grows {
            return Err(Refusal::NoSpace);
        }
        match command {
            Command::Put(put) => {
                self.check_put(put)?;
                let mut writer = Writer::new(self);
                Ok(Answer::Put(writer.put(put)))
            }
            Command::DeleteRange(delete) => {
                let mut writer = Writer::new(self);
                Ok(Answer::Delete(writer.delete(delete)))
            }
            Command::Txn(txn) => {
                let choice = self.choose(txn);
                self.check(txn, &choice)?;
                let mut writer = Writer::new(self);
                Ok(Answer::Txn(writer.txn(txn, &choice)))
            }
            Command::Compact { revision } => {
                if *revision <= self.compacted {
                    return Err(Refusal::Compacted);
                }
                if *revision > self.revision {
                    return Err(Refusal::FutureRevision);
                }
                self.compacted = *revision;
                self.marks.insert(*revision);
                Ok(Answer::Compacted {
                    revision: self.revision,
                })
            }
            Command::LeaseGrant { id, ttl } => {
                if self.leases.contains_key(id) {
                    return Err(Refusal::LeaseExists);
                }
                self.leases.insert(*id, *ttl);
                if let Some(owner) = caller.owner() {
                    self.owners.insert(*id, owner);
                }
                Ok(Answer::LeaseGranted {
                    id: *id,
                    ttl: *ttl,
                    revision: self.revision,
                })
            }
            Command::LeaseRevoke { id } => {
                self.leases.remove(id).ok_or(Refusal::LeaseNotFound)?;
                self.owners.remove(id);
                let keys = self.attached(*id);
                let mut writer = Writer::new(self);
                for key in keys {
                    writer.delete(&DeleteRange {
                        keys: KeyRange::Point(key.into()),
                        previous: false,
                    });
                }
                Ok(Answer::LeaseRevoked {
                    revision: self.revision,
                })
            }
            Command::Auth(change) => {
                self.auth.apply(change)?;
                Ok(Answer::Done {
                    alarms: vec![],
                    revision: self.revision,
                })
            }
            Command::LeaseCheckpoint(_) | Command::PublishTokenKey { .. } => Ok(Answer::Done {
                alarms: vec![],
                revision: self.revision,
            }),
            Command::RaiseAlarm(alarm) => {
                self.alarms.insert(*alarm);
                Ok(Answer::Done {
                    alarms: vec![*alarm],
                    revision: self.revision,
                })
            }
            Command::ClearAlarm(alarm) => Ok(Answer::Done {
                alarms: if self.alarms.remove(alarm) {
                    vec![*alarm]
                } else {
                    vec![]
                },
                revision: self.revision,
            }),
            // They are no tenant's: `membership.rs` has their model.
            Command::MemberAdd { .. }
            | Command::MemberPromote { .. }
            | Command::MemberRemove { .. }
            | Command::MemberUpdate { .. }
            | Command::MemberPublish { .. } => panic!("a command of the whole group: {command:?}"),
        }
    }

    /// Which arm is taken, and the same for the nested transactions in it, all judged on the present state.
    fn choose(&self, txn: &Txn) -> Choice {
        let success = txn.compares.iter().all(|compare| self.holds(compare));
        let arm = if success { &txn.success } else { &txn.failure };
        let nested = arm.iter().map(|op| match op {
            Op::Txn(inner) => Some(self.choose(inner)),
            _ => None,
        });
        Choice {
            success,
            nested: nested.collect(),
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let state = self.now();
        let found: Vec<&&Row> = state
            .values()
            .filter(|row| compare.keys.contains(&row.key))
            .collect();
        let relates = |ordering: std::cmp::Ordering| match compare.relation {
            Relation::Equal => ordering.is_eq(),
            Relation::NotEqual => ordering.is_ne(),
            Relation::Greater => ordering.is_gt(),
            Relation::Less => ordering.is_lt(),
        };
        if found.is_empty() {
            return match &compare.operand {
                Operand::Value(_) => false,
                Operand::Version(n) | Operand::Create(n) | Operand::Mod(n) | Operand::Lease(n) => {
                    relates(0.cmp(n))
                }
            };
        }
        found.iter().all(|row| {
            relates(match &compare.operand {
                Operand::Value(value) => row.value.cmp(value),
                Operand::Version(n) => row.version.cmp(n),
                Operand::Create(n) => row.create_revision.cmp(n),
                Operand::Mod(n) => row.revision.main.cmp(n),
                Operand::Lease(n) => row.lease.cmp(n),
            })
        })
    }

    fn check(&self, txn: &Txn, choice: &Choice) -> Result<(), Refusal> {
        for (op, nested) in choice.arm(txn).iter().zip(&choice.nested) {
            match op {
                Op::Range(range) if range.revision > self.revision => {
                    return Err(Refusal::FutureRevision);
                }
                Op::Range(range) if range.revision != 0 && range.revision < self.compacted => {
                    return Err(Refusal::Compacted);
                }
                Op::Range(_) | Op::DeleteRange(_) => {}
                Op::Put(put) => self.check_put(put)?,
                Op::Txn(inner) => self.check(inner, nested.as_ref().unwrap())?,
            }
        }
        Ok(())
    }

    fn check_put(&self, put: &Put) -> Result<(), Refusal> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        if (put.keep_value || put.keep_lease) && !self.now().contains_key(put.key.as_ref()) {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    /// A range outside of a transaction.
    pub(crate) fn range(&self, range: &Range) -> Result<RangeAnswer, Refusal> {
        if range.revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if range.revision > 0 && range.revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        Ok(self.read(range))
    }

    pub(crate) fn read_txn(&self, txn: &Txn) -> Result<TxnAnswer, Refusal> {
        let choice = self.choose(txn);
        self.check(txn, &choice)?;
        let steps = choice.arm(txn).iter().map(|op| match op {
            Op::Range(range) => StepAnswer::Range(self.read(range)),
            _ => unreachable!("only reads are read"),
        });
        Ok(TxnAnswer {
            revision: self.revision,
            succeeded: choice.success,
            steps: steps.collect(),
        })
    }

    fn read(&self, range: &Range) -> RangeAnswer {
        let at = if range.revision > 0 {
            range.revision
        } else {
            i64::MAX
        };
        let state = self.at(at);
        let all: Vec<&Row> = state
            .values()
            .filter(|row| range.keys.contains(&row.key))
            .copied()
            .collect();
        let mut answer = RangeAnswer {
            revision: self.revision,
            count: all.len() as u64,
            ..RangeAnswer::default()
        };
        if range.count_only {
            return answer;
        }
        let limit = if range.limit == 0 {
            usize::MAX
        } else {
            range.limit as usize
        };
        let filter = range.filter;
        let admits = |row: &Row| {
            (filter.min_mod == 0 || row.revision.main >= filter.min_mod)
                && (filter.max_mod == 0 || row.revision.main <= filter.max_mod)
                && (filter.min_create == 0 || row.create_revision >= filter.min_create)
                && (filter.max_create == 0 || row.create_revision <= filter.max_create)
        };
        let mut rows: Vec<Row> = all
            .iter()
            .copied()
            .filter(|row| admits(row))
            .cloned()
            .collect();
        let filtered = filter.is_set();
        let by = |rows: &mut Vec<Row>, target: SortTarget, descending: bool| {
            // etcd leaves the order of equals open; here they stay in the order of their keys, either way.
            rows.sort_by(|a, b| {
                let ordering = match target {
                    SortTarget::Key => a.key.cmp(&b.key),
                    SortTarget::Version => a.version.cmp(&b.version),
                    SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                    SortTarget::Mod => a.revision.main.cmp(&b.revision.main),
                    SortTarget::Value => a.value.cmp(&b.value),
                };
                if descending {
                    ordering.reverse()
                } else {
                    ordering
                }
            });
        };
        let mut by_value = false;
        match range.order {
            Order::Natural => {}
            Order::SortedPrefix(target) => {
                if !filtered {
                    rows.truncate(limit.saturating_add(1));
                }
                by(&mut rows, target, false);
                by_value = target == SortTarget::Value;
            }
            Order::Sorted { target, descending } => {
                by(&mut rows, target, descending);
                by_value = target == SortTarget::Value;
            }
        }
        answer.more = rows.len() > limit;
        rows.truncate(limit);
        if range.keys_only {
            for row in &mut rows {
                row.value = Bytes::new();
                if !by_value {
                    row.lease = 0;
                }
            }
        }
        answer.rows = rows;
        answer
    }
}

struct Choice {
    success: bool,
    /// One per step of the arm.
    nested: Vec<Option<Choice>>,
}

impl Choice {
    fn arm<'t>(&self, txn: &'t Txn) -> &'t [Op] {
        if self.success {
            &txn.success
        } else {
            &txn.failure
        }
    }
}

fn has_put(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Put(_) => true,
        Op::Txn(inner) => has_put(inner),
        _ => false,
    })
}

/// One transaction.
struct Writer<'m> {
    model: &'m mut Model,
    next: Revision,
}

impl Writer<'_> {
    fn new(model: &mut Model) -> Writer<'_> {
        let next = Revision {
            main: model.revision + 1,
            sub: 0,
        };
        Writer { model, next }
    }

    fn push(&mut self, mut row: Row) {
        row.revision = self.next;
        self.next.sub += 1;
        self.model.revision = self.next.main;
        self.model.rows.push(row);
    }

    fn put(&mut self, put: &Put) -> PutAnswer {
        let state = self.model.now();
        let before: Option<Row> = state.get(put.key.as_ref()).map(|row| (*row).clone());
        let row = Row {
            revision: self.next,
            key: put.key.clone(),
            value: match &before {
                Some(before) if put.keep_value => before.value.clone(),
                _ => put.value.clone(),
            },
            create_revision: before
                .as_ref()
                .map_or(self.next.main, |row| row.create_revision),
            version: before.as_ref().map_or(1, |row| row.version + 1),
            lease: match &before {
                Some(before) if put.keep_lease => before.lease,
                _ => put.lease,
            },
            tombstone: false,
        };
        self.push(row);
        PutAnswer {
            revision: self.model.revision,
            previous: before.filter(|_| put.previous),
        }
    }

    fn delete(&mut self, delete: &DeleteRange) -> DeleteAnswer {
        let state = self.model.now();
        let gone: Vec<Row> = state
            .values()
            .filter(|row| delete.keys.contains(&row.key))
            .map(|row| (*row).clone())
            .collect();
        for row in &gone {
            self.push(Row {
                revision: self.next,
                key: row.key.clone(),
                value: Bytes::new(),
                create_revision: 0,
                version: 0,
                lease: 0,
                tombstone: true,
            });
        }
        DeleteAnswer {
            revision: self.model.revision,
            deleted: gone.len() as u64,
            previous: if delete.previous { gone } else { vec![] },
        }
    }

    fn txn(&mut self, txn: &Txn, choice: &Choice) -> TxnAnswer {
        let steps = choice
            .arm(txn)
            .iter()
            .zip(&choice.nested)
            .map(|(op, nested)| match op {
                Op::Range(range) => StepAnswer::Range(self.model.read(range)),
                Op::Put(put) => StepAnswer::Put(self.put(put)),
                Op::DeleteRange(delete) => StepAnswer::Delete(self.delete(delete)),
                Op::Txn(inner) => StepAnswer::Txn(self.txn(inner, nested.as_ref().unwrap())),
            });
        let steps = steps.collect();
        TxnAnswer {
            revision: self.model.revision,
            succeeded: choice.success,
            steps,
        }
    }
}
