//! What the cluster must do: one etcd, written as plainly as possible and independent of the code that it judges.
//!
//! It is given each committed entry once, in the order of the log, and says what each command must answer. It keeps everything that was ever
//! written, so that it can say what any key range held at any revision.

mod auth;
mod permit;

pub(crate) use auth::ModelAuth;

use bytes::Bytes;
use holdfast_auth::{Caller, KeyRange};
use holdfast_storage::{Revision, Row};
use holdfast_tenant::request::{
    Compare, DeleteRange, Op, Operand, Order, Put, Range, Relation, Txn,
};
use holdfast_tenant::{
    Alarm, AlarmKind, Answer, Command, DeleteAnswer, Outcome, PutAnswer, RangeAnswer, Refusal,
    StepAnswer, TxnAnswer,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// See the module's text.
pub(crate) struct Model {
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    /// All rows ever written, in order.
    pub(crate) rows: Vec<Row>,
    /// For each row, the place of the row of that key before it.
    pub(crate) before: Vec<Option<u32>>,
    /// The places of each key's rows.
    keys: BTreeMap<Bytes, Vec<u32>>,
    /// The keys attached to each lease.
    pub(crate) leases: BTreeMap<i64, BTreeSet<Bytes>>,
    alarms: BTreeSet<Alarm>,
    pub(crate) auth: Arc<ModelAuth>,
    /// Members by id, and whether each is a learner.
    pub(crate) members: BTreeMap<u64, bool>,
    removed: BTreeSet<u64>,
}

/// What a command must come to.
#[derive(Debug)]
pub(crate) enum Expected {
    /// Exactly this.
    Outcome(Outcome),
    /// These members, by id, and whether each is a learner.
    Members(BTreeMap<u64, bool>),
}

impl Expected {
    pub(crate) fn fits(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Expected::Outcome(expected), outcome) => expected == outcome,
            (Expected::Members(expected), Ok(Answer::Members(members))) => {
                let found = members.iter().map(|member| (member.id, member.is_learner));
                found.eq(expected.iter().map(|(id, learner)| (*id, *learner)))
            }
            _ => false,
        }
    }
}

impl Model {
    pub(crate) fn new(founders: Vec<u64>) -> Model {
        Model {
            members: founders.into_iter().map(|id| (id, false)).collect(),
            removed: BTreeSet::new(),
            revision: 1,
            compacted: -1,
            rows: Vec::new(),
            before: Vec::new(),
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            alarms: BTreeSet::new(),
            auth: Arc::new(ModelAuth::new()),
        }
    }

    /// Applies a command.
    pub(crate) fn apply(&mut self, caller: &Caller, command: &Command) -> Expected {
        if let Err(denied) = self.permit(caller, command) {
            return Expected::Outcome(Err(Refusal::Denied(denied)));
        }
        if let Some(refusal) = self.alarmed(command) {
            return Expected::Outcome(Err(refusal));
        }
        if command.is_of_members() {
            return match self.change_members(command) {
                Ok(()) => Expected::Members(self.members.clone()),
                Err(refusal) => Expected::Outcome(Err(refusal)),
            };
        }
        Expected::Outcome(self.carry_out(command))
    }

    fn change_members(&mut self, command: &Command) -> Result<(), Refusal> {
        match command {
            Command::MemberAdd {
                id,
                is_learner,
                max_learners,
                ..
            } => {
                if self.removed.contains(id) {
                    return Err(Refusal::MemberNotFound);
                }
                if self.members.contains_key(id) {
                    return Err(Refusal::MemberExists);
                }
                let learners = self.members.values().filter(|learner| **learner).count();
                if *is_learner && learners >= *max_learners as usize {
                    return Err(Refusal::TooManyLearners);
                }
                self.members.insert(*id, *is_learner);
            }
            Command::MemberPromote { id } => {
                let learner = self.members.get_mut(id).ok_or(Refusal::MemberNotFound)?;
                if !std::mem::take(learner) {
                    return Err(Refusal::NotLearner);
                }
            }
            Command::MemberRemove { id } => {
                if !self.members.contains_key(id) {
                    return Err(Refusal::MemberNotFound);
                }
                if !self
                    .members
                    .iter()
                    .any(|(other, learner)| other != id && !learner)
                {
                    return Err(Refusal::NotEnoughStarted);
                }
                self.members.remove(id);
                self.removed.insert(*id);
                self.alarms.retain(|alarm| alarm.member != *id);
            }
            Command::MemberUpdate { id, .. } | Command::MemberPublish { id, .. }
                if !self.members.contains_key(id) =>
            {
                return Err(Refusal::MemberNotFound);
            }
            _ => {}
        }
        Ok(())
    }

    fn carry_out(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Put(put) => match self.check_put(put) {
                Some(refusal) => Err(refusal),
                None => {
                    let main = self.revision + 1;
                    let previous = self.put(put, main);
                    Ok(Answer::Put(PutAnswer {
                        revision: main,
                        previous: previous.filter(|_| put.previous),
                    }))
                }
            },
            Command::DeleteRange(delete) => {
                let main = self.revision + 1;
                Ok(Answer::Delete(self.delete(delete, main)))
            }
            Command::Txn(txn) => self.txn(txn).map(Answer::Txn),
            Command::Compact { revision } => {
                if *revision <= self.compacted {
                    Err(Refusal::Compacted)
                } else if *revision > self.revision {
                    Err(Refusal::FutureRevision)
                } else {
                    self.compacted = *revision;
                    Ok(Answer::Compacted {
                        revision: self.revision,
                    })
                }
            }
            Command::LeaseGrant { id, ttl } => {
                if self.leases.contains_key(id) {
                    Err(Refusal::LeaseExists)
                } else {
                    self.leases.insert(*id, BTreeSet::new());
                    Ok(Answer::LeaseGranted {
                        id: *id,
                        ttl: *ttl,
                        revision: self.revision,
                    })
                }
            }
            Command::LeaseRevoke { id } => match self.leases.remove(id) {
                None => Err(Refusal::LeaseNotFound),
                Some(keys) => {
                    let main = self.revision + 1;
                    for key in keys {
                        self.write(key, main, None);
                    }
                    Ok(Answer::LeaseRevoked {
                        revision: self.revision,
                    })
                }
            },
            Command::LeaseCheckpoint(_) => Ok(self.done(Vec::new())),
            Command::RaiseAlarm(alarm) => {
                if self.removed.contains(&alarm.member) {
                    return Err(Refusal::MemberNotFound);
                }
                self.alarms.insert(*alarm);
                Ok(self.done(vec![*alarm]))
            }
            Command::ClearAlarm(alarm) => {
                let cleared = self.alarms.remove(alarm);
                Ok(self.done(cleared.then_some(*alarm).into_iter().collect()))
            }
            Command::Auth(change) => {
                let mut auth = ModelAuth::clone(&self.auth);
                auth.apply(change).map_err(Refusal::Auth)?;
                self.auth = Arc::new(auth);
                Ok(self.done(Vec::new()))
            }
            _ => Err(Refusal::Malformed("the simulator does not ask for it")),
        }
    }

    fn done(&self, alarms: Vec<Alarm>) -> Answer {
        Answer::Done {
            alarms,
            revision: self.revision,
        }
    }

    fn alarmed(&self, command: &Command) -> Option<Refusal> {
        let raised = |kind| self.alarms.iter().any(|alarm| alarm.kind == kind);
        let grows = match command {
            Command::Put(_) | Command::LeaseGrant { .. } => true,
            Command::Txn(txn) => txn.arms().any(|op| matches!(op, Op::Put(_))),
            _ => false,
        };
        (grows && raised(AlarmKind::NoSpace)).then_some(Refusal::NoSpace)
    }

    /// Whether an alarm about space is raised, and by which members.
    pub(crate) fn alarms(&self) -> impl Iterator<Item = &Alarm> {
        self.alarms.iter()
    }

    /// The row of `key` as it is now.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Row> {
        let place = *self.keys.get(key)?.last()?;
        Some(&self.rows[place as usize]).filter(|row| !row.tombstone)
    }

    fn get_at(&self, places: &[u32], at: i64) -> Option<&Row> {
        let count = places.partition_point(|place| self.rows[*place as usize].revision.main <= at);
        let row = &self.rows[*places[..count].last()? as usize];
        Some(row).filter(|row| !row.tombstone)
    }

    /// The rows of a range as they were at a revision, in key order.
    fn select(&self, keys: &KeyRange, at: i64) -> Vec<&Row> {
        if let KeyRange::Point(key) = keys {
            let places = self.keys.get(key);
            return places
                .and_then(|places| self.get_at(places, at))
                .into_iter()
                .collect();
        }
        if keys.is_empty() {
            return Vec::new();
        }
        self.keys
            .range::<[u8], _>(keys.bounds())
            .filter_map(|(_, places)| self.get_at(places, at))
            .collect()
    }

    /// What a range that is in the order of the keys must answer when the store is at revision `current`.
    pub(crate) fn range(&self, range: &Range, current: i64) -> RangeAnswer {
        debug_assert!(range.order == Order::Natural && !range.filter.is_set());
        let at = if range.revision > 0 {
            range.revision
        } else {
            current
        };
        let all = self.select(&range.keys, at);
        let mut answer = RangeAnswer {
            revision: current,
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
        answer.more = all.len() > limit;
        answer.rows = all.into_iter().take(limit).cloned().collect();
        if range.keys_only {
            for row in &mut answer.rows {
                row.value = Bytes::new();
                row.lease = 0;
            }
        }
        answer
    }

    fn check_put(&self, put: &Put) -> Option<Refusal> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Some(Refusal::LeaseNotFound);
        }
        ((put.keep_value || put.keep_lease) && self.get(&put.key).is_none())
            .then_some(Refusal::KeyNotFound)
    }

    /// Writes a row of transaction `main`: a put with `(value, lease)`, else a delete.
    fn write(&mut self, key: Bytes, main: i64, put: Option<(Bytes, i64)>) {
        let before = self.get(&key).cloned();
        let sub = match self.rows.last() {
            Some(row) if row.revision.main == main => row.revision.sub + 1,
            _ => 0,
        };
        if let Some(before) = &before
            && let Some(keys) = self.leases.get_mut(&before.lease)
        {
            keys.remove(&key);
        }
        let tombstone = put.is_none();
        let (value, lease) = put.unwrap_or_default();
        if let Some(keys) = self.leases.get_mut(&lease) {
            keys.insert(key.clone());
        }
        let (create_revision, version) = match &before {
            _ if tombstone => (0, 0),
            Some(before) => (before.create_revision, before.version + 1),
            None => (main, 1),
        };
        let place = self.rows.len() as u32;
        let places = self.keys.entry(key.clone()).or_default();
        self.before.push(places.last().copied());
        places.push(place);
        self.revision = main;
        self.rows.push(Row {
            revision: Revision { main, sub },
            key,
            value,
            create_revision,
            version,
            lease,
            tombstone,
        });
    }

    fn put(&mut self, put: &Put, main: i64) -> Option<Row> {
        let before = self.get(&put.key).cloned();
        let value = match &before {
            Some(before) if put.keep_value => before.value.clone(),
            _ => put.value.clone(),
        };
        let lease = match &before {
            Some(before) if put.keep_lease => before.lease,
            _ => put.lease,
        };
        self.write(put.key.clone(), main, Some((value, lease)));
        before
    }

    fn delete(&mut self, delete: &DeleteRange, main: i64) -> DeleteAnswer {
        let gone: Vec<Row> = self
            .select(&delete.keys, i64::MAX)
            .into_iter()
            .cloned()
            .collect();
        for row in &gone {
            self.write(row.key.clone(), main, None);
        }
        DeleteAnswer {
            revision: self.revision,
            deleted: gone.len() as u64,
            previous: if delete.previous { gone } else { Vec::new() },
        }
    }

    fn txn(&mut self, txn: &Txn) -> Result<TxnAnswer, Refusal> {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let arm = if succeeded {
            &txn.success
        } else {
            &txn.failure
        };
        for op in arm {
            if let Op::Put(put) = op
                && let Some(refusal) = self.check_put(put)
            {
                return Err(refusal);
            }
        }
        let main = self.revision + 1;
        let mut steps = Vec::new();
        for op in arm {
            steps.push(match op {
                Op::Range(range) => StepAnswer::Range(self.range(range, self.revision)),
                Op::Put(put) => {
                    let previous = self.put(put, main).filter(|_| put.previous);
                    StepAnswer::Put(PutAnswer {
                        revision: main,
                        previous,
                    })
                }
                Op::DeleteRange(delete) => StepAnswer::Delete(self.delete(delete, main)),
                Op::Txn(_) => {
                    return Err(Refusal::Malformed("the simulator nests no transactions"));
                }
            });
        }
        Ok(TxnAnswer {
            revision: self.revision,
            succeeded,
            steps,
        })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let relates = |ordering: std::cmp::Ordering| match compare.relation {
            Relation::Equal => ordering.is_eq(),
            Relation::NotEqual => ordering.is_ne(),
            Relation::Greater => ordering.is_gt(),
            Relation::Less => ordering.is_lt(),
        };
        let found = self.select(&compare.keys, i64::MAX);
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
}
