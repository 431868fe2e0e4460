//! What is known to be true: every entry that any member applied, and what it must have done.
//!
//! The first member that applies an entry fixes it for all: its term, its bytes and its outcomes, which must be those of the model. Whoever
//! applies it later must agree. What was answered to clients is judged by the places of their commands in this list.

use crate::counters::Counters;
use crate::model::{Model, ModelAuth};
use crate::plan::Micros;
use bytes::Bytes;
use holdfast_auth::Caller;
use holdfast_storage::LogPosition;
use holdfast_tenant::{Command, KvHash, Outcome, Refusal};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

/// An entry as the first member applied it.
pub(crate) struct Fixed {
    pub(crate) term: u64,
    data: u64,
    pub(crate) outcomes: Vec<Outcome>,
    /// The revision after it.
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    hashes: Option<(KvHash, u32)>,
}

/// Users and roles after a change.
pub(crate) struct AuthPoint {
    pub(crate) index: u64,
    pub(crate) revision: i64,
    pub(crate) auth: Arc<ModelAuth>,
}

/// A lease's time as clients may count on it.
struct LeaseClock {
    ttl: Micros,
    /// The last time from which the whole of it was promised.
    from: Micros,
}

/// See the module's text.
pub(crate) struct Truth {
    pub(crate) now: Micros,
    pub(crate) model: Model,
    /// Entry `n` at `n - 1`. The first is the founding, which no member applies.
    entries: Vec<Fixed>,
    /// Where each command stands, by the hash of its bytes.
    places: HashMap<u64, Vec<(u64, u32)>>,
    /// Commands that nobody proposes twice.
    unique: HashSet<u64>,
    pub(crate) auth_log: Vec<AuthPoint>,
    /// Which entries members passed over with a snapshot: member, before, after.
    pub(crate) jumps: Vec<(u64, u64, u64)>,
    leases: BTreeMap<i64, LeaseClock>,
    skew_permille: u64,
    /// Who leads each term.
    leaders: BTreeMap<u64, u64>,
    /// At which entry members were removed.
    pub(crate) removed: BTreeMap<u64, u64>,
    pub(crate) counters: Counters,
    pub(crate) violation: Option<String>,
}

/// Members count leases in milliseconds.
const CLOCK_GRAIN: Micros = 2_000;

pub(crate) fn hash_of(bytes: &[u8]) -> u64 {
    // Always with the same keys.
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

impl Truth {
    pub(crate) fn new(founders: Vec<u64>, skew_permille: u64) -> Truth {
        let founding = Fixed {
            term: 1,
            data: 0,
            outcomes: Vec::new(),
            revision: 1,
            compacted: -1,
            hashes: None,
        };
        let model = Model::new(founders);
        Truth {
            now: 0,
            auth_log: vec![AuthPoint {
                index: 0,
                revision: 1,
                auth: model.auth.clone(),
            }],
            model,
            entries: vec![founding],
            places: HashMap::new(),
            unique: HashSet::new(),
            jumps: Vec::new(),
            leases: BTreeMap::new(),
            skew_permille,
            leaders: BTreeMap::new(),
            removed: BTreeMap::new(),
            counters: Counters::default(),
            violation: None,
        }
    }

    /// Notes the first violation.
    pub(crate) fn violated(&mut self, text: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(text());
        }
    }

    pub(crate) fn entry(&self, index: u64) -> Option<&Fixed> {
        self.entries
            .get(usize::try_from(index.checked_sub(1)?).ok()?)
    }

    /// The last entry that anybody applied.
    pub(crate) fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    /// A command that must not be applied more than once.
    pub(crate) fn expect_once(&mut self, command: u64) {
        self.unique.insert(command);
    }

    /// Where a command stands in the log.
    pub(crate) fn places(&self, command: u64) -> &[(u64, u32)] {
        self.places.get(&command).map_or(&[], Vec::as_slice)
    }

    /// Users and roles as at an entry.
    pub(crate) fn auth_at(&self, index: u64) -> &AuthPoint {
        let after = self.auth_log.partition_point(|point| point.index <= index);
        &self.auth_log[after - 1]
    }

    /// A member applied an entry.
    pub(crate) fn applied(
        &mut self,
        member: u64,
        at: LogPosition,
        data: &Bytes,
        outcomes: &[Outcome],
    ) {
        self.counters.applied += 1;
        let hash = hash_of(data);
        let Some(fixed) = self.entry(at.index) else {
            return self.first(member, at, data, hash, outcomes);
        };
        if (fixed.term, fixed.data) != (at.term, hash) {
            let fixed = fixed.term;
            self.violated(|| {
                format!(
                    "member {member} applied another entry {} of term {}: others applied one of term {fixed}",
                    at.index, at.term
                )
            });
        } else if fixed.outcomes != outcomes {
            let expected = format!("{:?}", fixed.outcomes);
            self.violated(|| {
                format!(
                    "entry {} came to {outcomes:?} on member {member}, and to {expected} on another",
                    at.index
                )
            });
        }
    }

    fn first(
        &mut self,
        member: u64,
        at: LogPosition,
        data: &Bytes,
        hash: u64,
        outcomes: &[Outcome],
    ) {
        if at.index != self.last() + 1 {
            let last = self.last();
            self.violated(|| {
                format!(
                    "member {member} applied entry {} when {last} was the last",
                    at.index
                )
            });
            return;
        }
        if let Some(last) = self.entries.last()
            && last.term > at.term
        {
            let last = last.term;
            self.violated(|| {
                format!(
                    "entry {} of term {} follows one of {last}",
                    at.index, at.term
                )
            });
        }
        self.counters.entries += 1;
        let mut rest = data.clone();
        let mut place = 0;
        loop {
            let all = rest.clone();
            let (caller, command) = match Command::decode_next(&mut rest) {
                Ok(None) => break,
                Ok(Some((_, caller, command))) => (caller, command),
                Err(error) => {
                    self.violated(|| format!("entry {}: {error}", at.index));
                    break;
                }
            };
            let bytes = &all[..all.len() - rest.len()];
            self.command(at.index, place, hash_of(bytes), &caller, &command, outcomes);
            place += 1;
        }
        if outcomes.len() != place as usize {
            self.violated(|| {
                format!(
                    "entry {}: {place} commands, {} outcomes",
                    at.index,
                    outcomes.len()
                )
            });
        }
        self.entries.push(Fixed {
            term: at.term,
            data: hash,
            outcomes: outcomes.to_vec(),
            revision: self.model.revision,
            compacted: self.model.compacted,
            hashes: None,
        });
    }

    fn command(
        &mut self,
        index: u64,
        place: u32,
        hash: u64,
        caller: &Caller,
        command: &Command,
        outcomes: &[Outcome],
    ) {
        let places = self.places.entry(hash).or_default();
        places.push((index, place));
        if places.len() > 1 && self.unique.contains(&hash) {
            let places = format!("{places:?}");
            self.violated(|| {
                format!("a command was applied more than once, at {places}: {command:?}")
            });
        }
        if let (Command::LeaseRevoke { id }, Caller::Server) = (command, caller) {
            self.check_expiry(*id);
        }
        let auth = self.model.auth.clone();
        let expected = self.model.apply(caller, command);
        let outcome = outcomes.get(place as usize);
        if !outcome.is_some_and(|outcome| expected.fits(outcome)) {
            self.violated(|| {
                format!(
                    "entry {index}, command {place} came to {outcome:?}, and should come to {expected:?}: {caller:?} {command:?}"
                )
            });
        }
        if let Some(Err(Refusal::Denied(_))) = outcome {
            self.counters.denied_in_log += 1;
        }
        let done = matches!(outcome, Some(Ok(_)));
        match command {
            Command::Auth(_) if !Arc::ptr_eq(&auth, &self.model.auth) => {
                self.counters.auth_changes += 1;
                self.auth_log.push(AuthPoint {
                    index,
                    revision: self.model.revision,
                    auth: self.model.auth.clone(),
                });
            }
            Command::Compact { .. } if done => self.counters.compactions += 1,
            Command::LeaseGrant { id, ttl } if done => {
                self.counters.leases_granted += 1;
                let clock = LeaseClock {
                    ttl: *ttl as u64 * crate::plan::SECOND,
                    from: self.now,
                };
                self.leases.insert(*id, clock);
            }
            Command::LeaseRevoke { id } if done => {
                self.leases.remove(id);
            }
            Command::MemberRemove { id } if done => {
                self.counters.member_changes += 1;
                self.removed.insert(*id, index);
            }
            Command::MemberAdd { .. } | Command::MemberPromote { .. } if done => {
                self.counters.member_changes += 1;
            }
            _ => {}
        }
    }

    /// The cluster ends a lease by itself.
    fn check_expiry(&mut self, id: i64) {
        let Some(clock) = self.leases.get(&id) else {
            return;
        };
        self.counters.leases_expired += 1;
        let lived = self.now - clock.from;
        // A clock that runs fast lets the time pass sooner, and one that runs slow told the time of the last promise.
        let least = clock.ttl * 1000 / (1000 + self.skew_permille);
        if lived + CLOCK_GRAIN < least {
            let ttl = clock.ttl;
            self.violated(|| {
                format!("lease {id} of {ttl} us ended {lived} us after its last renewal")
            });
        }
    }

    /// A renewal that began at `from` was answered.
    pub(crate) fn renewed(&mut self, id: i64, from: Micros) {
        if let Some(clock) = self.leases.get_mut(&id) {
            clock.from = clock.from.max(from);
        }
    }

    /// A member's state after an entry.
    pub(crate) fn hashed(&mut self, member: u64, index: u64, hashes: (KvHash, u32)) {
        self.counters.hashes += 1;
        let Some(fixed) = index
            .checked_sub(1)
            .and_then(|at| self.entries.get_mut(at as usize))
        else {
            return self
                .violated(|| format!("member {member} is at entry {index}, which nobody applied"));
        };
        let known = *fixed.hashes.get_or_insert(hashes);
        if known != hashes {
            self.violated(|| {
                format!(
                    "after entry {index} member {member} has {hashes:?}, and another had {known:?}"
                )
            });
        }
    }

    /// A member believes that `leader` leads a term.
    pub(crate) fn leads(&mut self, member: u64, term: u64, leader: u64) {
        let known = *self.leaders.entry(term).or_insert_with(|| {
            self.counters.elections += 1;
            leader
        });
        if known != leader {
            self.violated(|| {
                format!(
                    "member {member} has {leader} as leader of term {term}, which {known} leads"
                )
            });
        }
    }
}
