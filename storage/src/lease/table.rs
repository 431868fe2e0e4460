//! The table of leases.

use super::Millis;
use super::attached::Attached;
use super::record::{Owner, Record, RecordError, TTL_MAX_SECS};
use crate::planted::{Defect, is_planted};
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// An expired lease is named again after this time if it is still there: its revocation was proposed and got lost.
/// etcd waits as long.
const RETRY: Millis = Millis(3_000);

/// Most queue entries that one call looks at beyond those it returns, at about a microsecond each, while nothing can be applied. It matters
/// when very many leases that were kept alive come up at once; the rest comes up at the next call.
const EXAMINED_MAX: usize = 4_096;

/// A queue may hold this many stale entries (of revoked leases) for each lease, and [`STALE_FLOOR`] more, before it is rebuilt.
/// Without it a client that grants and revokes leases with a long TTL fills the memory.
const STALE_PER_LEASE: usize = 1;
const STALE_FLOOR: usize = 1_024;

/// Most leases that end in one second of those whose time starts anew with a promotion; the others get as much longer as that takes. Else a
/// million leases of the same TTL would end in the same moment, and a client that is a little late would find its lease over, if not yet
/// revoked. Below the thousand a second at which a leader revokes, so that leases that end for other reasons find room beside them.
const PROMOTED_PER_SEC: usize = 750;

/// No checkpoint is planned.
const NEVER: Millis = Millis(u64::MAX);

/// All leases of one tenant. A new one is not primary: it knows which leases there are, and ends none.
pub struct LeaseTable {
    /// A tree, not a hash table: its growth never stops the world, and a million leases take less.
    leases: BTreeMap<i64, Lease>,
    expiry: Queue,
    checkpoints: Queue,
    checkpoint_every: Millis,
    /// Whether this member leads, and so counts the time. Both queues are empty if not.
    primary: bool,
}

struct Lease {
    ttl_secs: i64,
    /// Remaining time at the last checkpoint, 0 for none (then it is the full TTL).
    checkpoint_secs: i64,
    /// The remaining time that was last given out to be recorded, 0 if there was a renewal since. What the log has beyond it is from before
    /// the renewal, or of a leader before this one.
    proposed_secs: i64,
    deadline: Millis,
    /// When the expiry queue names it. Never later than the deadline, except to retry; a renewal leaves it alone.
    expiry_at: Millis,
    /// When the checkpoint queue names it, or [`NEVER`].
    checkpoint_at: Millis,
    keys: Attached,
    owner: Option<Owner>,
}

/// Times at which to look at leases, earliest first. An entry whose time is not the one that the lease remembers is stale.
#[derive(Default)]
struct Queue(BinaryHeap<Reverse<(Millis, i64)>>);

/// The id is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lease already exists")]
pub struct AlreadyGranted;

/// This member does not lead: it knows neither how long leases live, nor may it promise anything. The leader does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("leases are not counted on this member")]
pub struct NotPrimary;

/// A lease was renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The granted TTL in seconds, which is also what remains now.
    pub ttl_secs: i64,
    /// The replicated state holds an older, shorter remaining time, from which a restart would count, or is about to. Propose
    /// [`LeaseTable::checkpoint`] with 0 before the renewal is answered. At most once per checkpoint interval.
    pub clear_checkpoint: bool,
}

/// How long a lease lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    /// The granted TTL in seconds.
    pub granted_secs: i64,
    /// What remains; 0 if it is expired and not yet revoked.
    pub remaining: Millis,
}

impl TimeToLive {
    /// Remaining whole seconds, truncated as in etcd.
    pub fn remaining_secs(&self) -> i64 {
        i64::try_from(self.remaining.0 / 1000).unwrap_or(i64::MAX)
    }
}

impl LeaseTable {
    /// An empty table. Leases that remain for longer than `checkpoint_every` get a checkpoint that often.
    pub fn new(checkpoint_every: Millis) -> LeaseTable {
        LeaseTable {
            leases: BTreeMap::new(),
            expiry: Queue::default(),
            checkpoints: Queue::default(),
            checkpoint_every: checkpoint_every.max(Millis(1)),
            primary: false,
        }
    }

    /// Creates a lease of `ttl_secs`, at least 1 and at most 9,000,000,000 (behaviour §3.8).
    ///
    /// # Errors
    /// [`AlreadyGranted`], and nothing has changed.
    pub fn grant(
        &mut self,
        id: i64,
        ttl_secs: i64,
        owner: Option<Owner>,
        now: Millis,
    ) -> Result<(), AlreadyGranted> {
        // What is outside would be refused when the record is read back.
        let ttl_secs = ttl_secs.clamp(1, TTL_MAX_SECS);
        self.insert(
            id,
            Record {
                ttl_secs,
                checkpoint_secs: 0,
                owner,
            },
            now,
        )
        .ok_or(AlreadyGranted)
    }

    fn insert(&mut self, id: i64, record: Record, now: Millis) -> Option<()> {
        let std::collections::btree_map::Entry::Vacant(vacant) = self.leases.entry(id) else {
            return None;
        };
        let mut lease = Lease {
            ttl_secs: record.ttl_secs,
            checkpoint_secs: record.checkpoint_secs,
            proposed_secs: 0,
            deadline: now,
            expiry_at: now,
            checkpoint_at: NEVER,
            keys: Attached::None,
            owner: record.owner,
        };
        lease.count_from(now, Millis(0), self.checkpoint_every);
        if self.primary {
            self.expiry.push(lease.expiry_at, id);
            self.checkpoints.push(lease.checkpoint_at, id);
        }
        vacant.insert(lease);
        Some(())
    }

    /// Removes a lease and gives its keys in order, for the caller to delete; `None` if there is no such lease.
    pub fn revoke(&mut self, id: i64) -> Option<Vec<Bytes>> {
        let lease = self.leases.remove(&id)?;
        if self.expiry.crowded(self.leases.len()) {
            self.expiry = self
                .leases
                .iter()
                .map(|(id, lease)| (lease.expiry_at, *id))
                .collect();
        }
        if self.checkpoints.crowded(self.leases.len()) {
            self.checkpoints = self
                .leases
                .iter()
                .map(|(id, lease)| (lease.checkpoint_at, *id))
                .collect();
        }
        Some(lease.keys.into_sorted())
    }

    /// Attaches a key; false if there is no such lease.
    pub fn attach(&mut self, id: i64, key: &[u8]) -> bool {
        let lease = self.leases.get_mut(&id);
        lease.map(|lease| lease.keys.insert(key)).is_some()
    }

    /// Detaches a key, if it is attached and the lease is there. The index knows which lease a key has.
    pub fn detach(&mut self, id: i64, key: &[u8]) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// Starts a lease's time anew. `None` if it is unknown, or expired and about to be revoked: that cannot be undone.
    ///
    /// # Errors
    /// [`NotPrimary`]: that says nothing about the lease, and nothing was promised.
    pub fn renew(&mut self, id: i64, now: Millis) -> Result<Option<Renewal>, NotPrimary> {
        if !self.primary {
            return Err(NotPrimary);
        }
        let lease = self
            .leases
            .get_mut(&id)
            .filter(|lease| lease.deadline > now);
        let Some(lease) = lease else {
            return Ok(None);
        };
        let ttl = Millis::from_secs(lease.ttl_secs);
        // Beyond one interval a checkpoint may be on its way through the log.
        let checkpointed = ttl.since(lease.deadline.since(now)) >= self.checkpoint_every;
        let clear_checkpoint = (lease.checkpoint_secs != 0 || checkpointed)
            && !is_planted(Defect::CheckpointNotCleared);
        // The queue keeps the earlier time and looks again then: renewals are far more frequent than expiries.
        lease.deadline = now.plus(ttl);
        lease.proposed_secs = 0;
        if lease.deadline < lease.expiry_at {
            // Only after an extended promotion: the granted time is less than what was left.
            lease.expiry_at = lease.deadline;
            self.expiry.push(lease.expiry_at, id);
        }
        if clear_checkpoint && lease.checkpoint_at > now {
            lease.checkpoint_at = now;
            self.checkpoints.push(now, id);
        }
        Ok(Some(Renewal {
            ttl_secs: lease.ttl_secs,
            clear_checkpoint,
        }))
    }

    /// How long a lease lives, `None` if it is unknown. What remains is true on the primary alone.
    pub fn time_to_live(&self, id: i64, now: Millis) -> Option<TimeToLive> {
        let lease = self.leases.get(&id)?;
        Some(TimeToLive {
            granted_secs: lease.ttl_secs,
            remaining: lease.deadline.since(now),
        })
    }

    /// The keys attached to a lease, in order; nothing if it is unknown.
    pub fn keys(&self, id: i64) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.leases
            .get(&id)
            .into_iter()
            .flat_map(|lease| lease.keys.iter())
    }

    /// Whose a lease is; `None` if it has no owner, and if there is no such lease.
    pub fn owner(&self, id: i64) -> Option<&[u8]> {
        let owner = self.leases.get(&id)?.owner.as_ref();
        owner.map(Owner::as_bytes)
    }

    /// Whether there is such a lease, expired or not.
    pub fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// All ids, those that expire first in front.
    pub fn list(&self) -> Vec<i64> {
        let mut all: Vec<_> = self
            .leases
            .iter()
            .map(|(id, lease)| (lease.deadline, *id))
            .collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// At most `max` leases whose time is over, for the leader to propose their revocation: those that ended first come first. One that is
    /// not revoked within a few seconds is named again, behind those that ended by then. Nothing unless this member is primary.
    pub fn expired(&mut self, now: Millis, max: usize) -> Vec<i64> {
        let mut expired = Vec::new();
        for _ in 0..max.saturating_add(EXAMINED_MAX) {
            if expired.len() >= max {
                break;
            }
            let Some((at, id)) = self.expiry.pop(now) else {
                break;
            };
            let Some(lease) = self
                .leases
                .get_mut(&id)
                .filter(|lease| lease.expiry_at == at)
            else {
                continue;
            };
            // One that was renewed takes its place by the time at which it ended.
            lease.expiry_at = if lease.deadline <= at {
                expired.push(id);
                now.plus(RETRY)
            } else {
                lease.deadline
            };
            self.expiry.push(lease.expiry_at, id);
        }
        expired
    }

    /// At most `max` leases whose remaining time is to be written down, with that time in whole seconds (rounded up; 0 for the
    /// full TTL), for the leader to propose. Nothing unless this member is primary.
    pub fn due_checkpoints(&mut self, now: Millis, max: usize) -> Vec<(i64, i64)> {
        let mut due = Vec::new();
        for _ in 0..max.saturating_add(EXAMINED_MAX) {
            if due.len() >= max {
                break;
            }
            let Some((at, id)) = self.checkpoints.pop(now) else {
                break;
            };
            let Some(lease) = self
                .leases
                .get_mut(&id)
                .filter(|lease| lease.checkpoint_at == at)
            else {
                continue;
            };
            let remaining = lease.deadline.since(now);
            let elapsed = Millis::from_secs(lease.ttl_secs).since(remaining);
            if remaining == Millis(0) {
                lease.checkpoint_at = NEVER;
                continue;
            }
            let secs = i64::try_from(remaining.0.div_ceil(1000)).unwrap_or(i64::MAX);
            if elapsed < self.checkpoint_every {
                // Renewed since it was queued: the full TTL is near enough.
                lease.checkpoint_at = now.plus(self.checkpoint_every.since(elapsed));
                if lease.checkpoint_secs != 0 {
                    due.push((id, 0));
                    // The proposal may get lost; and what it clears would cut the lease short.
                    lease.checkpoint_at = lease.checkpoint_at.min(now.plus(RETRY));
                }
            } else {
                due.push((id, secs));
                lease.proposed_secs = secs;
                lease.checkpoint_at = if remaining > self.checkpoint_every {
                    now.plus(self.checkpoint_every)
                } else {
                    NEVER
                };
            }
            self.checkpoints.push(lease.checkpoint_at, id);
        }
        due
    }

    /// Applies a checkpoint from the log: from now on a new leader counts from `remaining_secs`, or from the full TTL if that is 0 or
    /// not less. False if there is no such lease. Does not change when the lease expires here.
    pub fn checkpoint(&mut self, id: i64, remaining_secs: i64) -> bool {
        let Some(lease) = self.leases.get_mut(&id) else {
            return false;
        };
        lease.checkpoint_secs = if (1..lease.ttl_secs).contains(&remaining_secs) {
            remaining_secs
        } else {
            0
        };
        let is_outdated =
            lease.checkpoint_secs != 0 && lease.checkpoint_secs != lease.proposed_secs;
        if self.primary && is_outdated {
            // It comes from before a renewal, or from a leader before this one: the next leader must not count from it.
            lease.checkpoint_at = Millis(0);
            self.checkpoints.push(lease.checkpoint_at, id);
        }
        true
    }

    /// This member begins to lead: starts all times anew, from the last checkpoint or else the full TTL. `extend` is added to each:
    /// clients could not renew while there was no leader, and the leader before may have renewed leases until its own term ended, so that
    /// it must be at least as long as a leader can believe to lead behind a new one (the election time-out). When very many leases
    /// would end together, the later ones get more time; none gets less.
    pub fn promote(&mut self, now: Millis, extend: Millis) {
        self.primary = true;
        let mut all: Vec<(Millis, i64, &mut Lease)> = self
            .leases
            .iter_mut()
            .map(|(id, lease)| {
                if !is_planted(Defect::LeasesNotExtended) {
                    lease.count_from(now, extend, self.checkpoint_every);
                }
                (lease.deadline, *id, lease)
            })
            .collect();
        all.sort_unstable_by_key(|(end, id, _)| (*end, *id));
        for at in PROMOTED_PER_SEC..all.len() {
            let earliest = all[at - PROMOTED_PER_SEC].0.plus(Millis(1000));
            let (end, _, lease) = &mut all[at];
            if *end < earliest {
                *end = earliest;
                lease.deadline = earliest;
                lease.expiry_at = earliest;
            }
        }
        self.checkpoints = all
            .iter()
            .map(|(_, id, lease)| (lease.checkpoint_at, *id))
            .collect();
        self.expiry = all.iter().map(|(end, id, _)| (*end, *id)).collect();
    }

    /// This member leads no longer: it ends and records nothing until the next [`LeaseTable::promote`].
    pub fn demote(&mut self) {
        self.primary = false;
        self.expiry = Queue::default();
        self.checkpoints = Queue::default();
    }

    /// Whether this member counts the time.
    pub fn is_primary(&self) -> bool {
        self.primary
    }

    /// A lease's record for the backend, without its keys.
    pub fn encode(&self, id: i64) -> Option<Bytes> {
        let lease = self.leases.get(&id)?;
        Some(
            Record {
                ttl_secs: lease.ttl_secs,
                checkpoint_secs: lease.checkpoint_secs,
                owner: lease.owner.clone(),
            }
            .encode(),
        )
    }

    /// Takes back a lease from its record. Its keys are attached afterwards, from the index.
    pub fn decode(&mut self, id: i64, record: &[u8], now: Millis) -> Result<(), RecordError> {
        let record = Record::decode(record)?;
        if id == 0 {
            return Err(RecordError::Id(id));
        }
        self.insert(id, record, now).ok_or(RecordError::Id(id))
    }
}

impl Lease {
    fn count_from(&mut self, now: Millis, extend: Millis, checkpoint_every: Millis) {
        let remaining = Millis::from_secs(if self.checkpoint_secs == 0 {
            self.ttl_secs
        } else {
            self.checkpoint_secs
        })
        .plus(extend);
        self.proposed_secs = 0;
        self.deadline = now.plus(remaining);
        self.expiry_at = self.deadline;
        self.checkpoint_at = if remaining > checkpoint_every {
            now.plus(checkpoint_every)
        } else {
            NEVER
        };
    }
}

impl Queue {
    fn push(&mut self, at: Millis, id: i64) {
        if at != NEVER {
            self.0.push(Reverse((at, id)));
        }
    }

    /// The earliest entry that is due.
    fn pop(&mut self, now: Millis) -> Option<(Millis, i64)> {
        let Reverse((at, _)) = self.0.peek()?;
        if *at > now {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }

    fn crowded(&self, leases: usize) -> bool {
        self.0.len() > leases * (1 + STALE_PER_LEASE) + STALE_FLOOR
    }
}

impl FromIterator<(Millis, i64)> for Queue {
    fn from_iter<I: IntoIterator<Item = (Millis, i64)>>(entries: I) -> Queue {
        Queue(
            entries
                .into_iter()
                .filter(|(at, _)| *at != NEVER)
                .map(Reverse)
                .collect(),
        )
    }
}

#[cfg(test)]
impl LeaseTable {
    /// Entries of both queues, stale ones included.
    pub(super) fn queued(&self) -> usize {
        self.expiry.0.len() + self.checkpoints.0.len()
    }
}
