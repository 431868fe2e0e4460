//! Who may try a password now. Pure: the clock is passed in.
//!
//! Failures are counted three ways. For a *pair* of user and source, and for a *source* whatever users it names, a few failures are
//! free; then each doubles the wait, up to a minute. For a *user*, a budget over all sources together bounds guessing from many
//! addresses. Sources from which the user logged in lately are known: neither the budget nor the source's own wait holds for
//! them, only that of the pair. So an attacker elsewhere cannot lock the owner out, and one client with an old password
//! does not lock out the others behind the same address.
//!
//! A name is counted in the same way whether a user has it or not: what is refused here says nothing about who exists. The one
//! exception is a source from which a user logged in: who shares its address can tell by the waits that somebody did.
//!
//! Each table is bounded. Entries are made only by attempts that are hashed, never by refused ones, so that filling a table costs as
//! many hashes as it has entries; when one is full, those go first that would soonest be forgiven anyway. Eviction is therefore no
//! way around a wait. A pair with one failure is remembered for a minute and one that waits for at least five, so an attacker who
//! wants to push out the latter must keep the table full of others that last as long: hundreds of hashes in each second, each from
//! a source that is not blocked, to win five guesses. A user with one failure is remembered for six seconds: ten thousand hashes a
//! second would be needed to push out a spent budget, and users with known sources go last.
//!
//! Counts are of this member and this process: a restart forgives, and each member of a cluster counts for itself.

use holdfast_storage::TenantId;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Entries of each table: some 4 MiB in each.
pub(super) const MOST_ENTRIES: usize = 65_536;
/// The longest wait between two guesses.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Enough for a person's typing errors.
pub(super) const PAIR: Rule = Rule { free: 5 };
/// Enough for a few people, or programs with an old password, behind one address.
pub(super) const SOURCE: Rule = Rule { free: 20 };
/// One failure is forgiven in this time. Not less than [`LONGEST_WAIT`], or waiting for forgiveness would allow more guesses than waiting
/// does.
pub(super) const FORGIVEN_IN: Duration = Duration::from_secs(60);

/// Failures of a user over all unknown sources …
pub(super) const BUDGET: u32 = 100;
/// … with one given back in this time: a hundred in ten minutes.
pub(super) const BUDGET_BACK_IN: Duration = Duration::from_secs(6);

/// How long a source is known by a right password: long enough that a client with a job each night stays known.
pub(super) const KNOWN_FOR: Duration = Duration::from_secs(36 * 3_600);
/// Known sources of a user; the one whose last login is longest ago makes room.
pub(super) const MOST_KNOWN: usize = 64;

/// Where an attempt comes from: an address that one party holds. An IPv6 host has a whole /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    V4([u8; 4]),
    V6([u16; 4]),
    /// A unix socket; who may connect there is a matter of its mode.
    Local,
}

impl Source {
    pub(super) fn of(peer: Option<SocketAddr>) -> Source {
        let Some(peer) = peer else {
            return Self::Local;
        };
        match peer.ip().to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// What was tried too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockedBy {
    /// This user: from this source, or from everywhere.
    User,
    /// This source, whatever user it names.
    Source,
}

/// Whether an attempt may be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    /// Others of its kind are being hashed, and their failure would block it.
    Later,
    Blocked(BlockedBy),
}

/// An attempt, by the keys it is counted under. Names are not kept: a keyed hash has the same length for all of them, and nobody
/// outside can choose names that collide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pair: u64,
    user: u64,
    source: u64,
}

/// How a count of failures becomes a wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// The failure of this number is the first that is followed by a wait.
    pub(super) free: u32,
}

impl Rule {
    /// Failures that are counted; more would only lengthen the time until they are forgiven.
    const fn most(self) -> u32 {
        // 2^6 s is the first doubling beyond the longest wait.
        self.free + 6
    }

    fn wait(self, failures: u32) -> Duration {
        match failures.checked_sub(self.free) {
            None => Duration::ZERO,
            Some(doublings) => Duration::from_secs(1 << doublings.min(6)).min(LONGEST_WAIT),
        }
    }
}

/// Failures that are forgiven one after the other as time passes.
#[derive(Debug)]
struct Debt {
    until: Instant,
}

impl Debt {
    /// Failures not forgiven yet.
    fn count(&self, now: Instant, each: Duration) -> u32 {
        let left = self.until.saturating_duration_since(now);
        u32::try_from(left.as_nanos().div_ceil(each.as_nanos())).unwrap_or(u32::MAX)
    }

    fn add(&mut self, now: Instant, each: Duration, most: u32) {
        self.until = (self.until.max(now) + each).min(now + each * most);
    }
}

/// A pair or a source.
#[derive(Debug)]
struct Level {
    debt: Debt,
    blocked_until: Instant,
    /// Attempts that are being hashed. Until they end they count as failures, so that guesses made at once are no more than those
    /// made in turn.
    pending: u32,
}

impl Level {
    fn verdict(&self, now: Instant, rule: Rule, by: BlockedBy) -> Verdict {
        if now < self.blocked_until {
            return Verdict::Blocked(by);
        }
        let failures = self.debt.count(now, FORGIVEN_IN);
        if self.pending == 0 || failures.saturating_add(self.pending) < rule.free {
            Verdict::Go
        } else {
            Verdict::Later
        }
    }

    fn failed(&mut self, now: Instant, rule: Rule) {
        self.pending = self.pending.saturating_sub(1);
        self.debt.add(now, FORGIVEN_IN, rule.most());
        let wait = rule.wait(self.debt.count(now, FORGIVEN_IN));
        self.blocked_until = self.blocked_until.max(now + wait);
    }
}

/// A user name, over all sources.
#[derive(Debug)]
struct User {
    debt: Debt,
    pending: u32,
    /// Sources of right passwords, and when the last of each was.
    known: Vec<(u64, Instant)>,
}

impl User {
    fn verdict(&self, now: Instant) -> Verdict {
        let failures = self.debt.count(now, BUDGET_BACK_IN);
        if failures >= BUDGET {
            Verdict::Blocked(BlockedBy::User)
        } else if failures.saturating_add(self.pending) < BUDGET {
            Verdict::Go
        } else {
            Verdict::Later
        }
    }

    fn knows(&self, source: u64, now: Instant) -> bool {
        self.known
            .iter()
            .any(|(known, at)| *known == source && is_recent(*at, now))
    }

    fn learn(&mut self, source: u64, now: Instant) {
        self.known
            .retain(|(known, at)| *known != source && is_recent(*at, now));
        if self.known.len() >= MOST_KNOWN {
            // In order of their last logins.
            self.known.remove(0);
        }
        self.known.push((source, now));
    }
}

fn is_recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < KNOWN_FOR
}

/// What a table holds.
trait Entry {
    fn new(now: Instant) -> Self;
    /// Until when it says anything.
    fn kept_until(&self) -> Instant;
    fn pending(&mut self) -> &mut u32;
}

impl Entry for Level {
    fn new(now: Instant) -> Level {
        Level {
            debt: Debt { until: now },
            blocked_until: now,
            pending: 0,
        }
    }

    fn kept_until(&self) -> Instant {
        // A block is never longer than the debt that made it.
        self.debt.until
    }

    fn pending(&mut self) -> &mut u32 {
        &mut self.pending
    }
}

impl Entry for User {
    fn new(now: Instant) -> User {
        User {
            debt: Debt { until: now },
            pending: 0,
            known: Vec::new(),
        }
    }

    fn kept_until(&self) -> Instant {
        match self.known.last() {
            Some((_, at)) => self.debt.until.max(*at + KNOWN_FOR),
            None => self.debt.until,
        }
    }

    fn pending(&mut self) -> &mut u32 {
        &mut self.pending
    }
}

/// A bounded number of entries.
#[derive(Debug)]
struct Table<E> {
    entries: HashMap<u64, E>,
    most: usize,
}

impl<E: Entry> Table<E> {
    fn new(most: usize) -> Table<E> {
        Table {
            entries: HashMap::new(),
            most,
        }
    }

    fn get(&self, key: u64) -> Option<&E> {
        self.entries.get(&key)
    }

    fn entry(&mut self, key: u64, now: Instant) -> &mut E {
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            self.make_room(now);
        }
        self.entries.entry(key).or_insert_with(|| E::new(now))
    }

    /// Drops what says nothing any more; if that is not enough, also a sixteenth of the table, of what says least. At once, because
    /// finding it means looking at all entries.
    fn make_room(&mut self, now: Instant) {
        self.entries
            .retain(|_, entry| *entry.pending() > 0 || entry.kept_until() > now);
        let Some(excess) = (self.entries.len() + 1).checked_sub(self.most) else {
            return;
        };
        let mut order: Vec<(Instant, u64)> = self
            .entries
            .iter_mut()
            .filter_map(|(key, entry)| (*entry.pending() == 0).then(|| (entry.kept_until(), *key)))
            .collect();
        let dropped = excess.max(self.most / 16).min(order.len());
        if dropped < order.len() {
            order.select_nth_unstable(dropped);
        }
        for (_, key) in &order[..dropped] {
            self.entries.remove(key);
        }
    }
}

/// Counts failures, and says who has to wait.
#[derive(Debug)]
pub(super) struct Backoff {
    keys: RandomState,
    pairs: Table<Level>,
    sources: Table<Level>,
    users: Table<User>,
}

impl Backoff {
    /// Each table has at most so many entries.
    pub(super) fn new(most_entries: usize) -> Backoff {
        Backoff {
            keys: RandomState::new(),
            pairs: Table::new(most_entries),
            sources: Table::new(most_entries),
            users: Table::new(most_entries),
        }
    }

    /// An attempt to log in. Nothing is counted yet.
    pub(super) fn attempt(&self, tenant: TenantId, user: &str, source: Source) -> Attempt {
        Attempt {
            pair: self.keys.hash_one((tenant, user, source)),
            user: self.keys.hash_one((tenant, user)),
            source: self.keys.hash_one(source),
        }
    }

    /// Whether the attempt may be made now.
    pub(super) fn verdict(&self, attempt: &Attempt, now: Instant) -> Verdict {
        let pair = self
            .pairs
            .get(attempt.pair)
            .map_or(Verdict::Go, |pair| pair.verdict(now, PAIR, BlockedBy::User));
        let others = if self.is_known(attempt, now) {
            [Verdict::Go; 2]
        } else {
            let user = self.users.get(attempt.user);
            [
                user.map_or(Verdict::Go, |user| user.verdict(now)),
                self.sources
                    .get(attempt.source)
                    .map_or(Verdict::Go, |source| {
                        source.verdict(now, SOURCE, BlockedBy::Source)
                    }),
            ]
        };
        let verdicts = [pair, others[0], others[1]];
        let blocked = verdicts
            .iter()
            .find(|verdict| matches!(verdict, Verdict::Blocked(_)));
        match blocked {
            Some(blocked) => *blocked,
            None if verdicts.contains(&Verdict::Later) => Verdict::Later,
            None => Verdict::Go,
        }
    }

    /// Whether this user logged in from this source lately.
    pub(super) fn is_known(&self, attempt: &Attempt, now: Instant) -> bool {
        let user = self.users.get(attempt.user);
        user.is_some_and(|user| user.knows(attempt.source, now))
    }

    /// As [`Backoff::verdict`]; after `Go` the attempt counts as a failure until [`Backoff::failed`] or [`Backoff::succeeded`] ends it.
    pub(super) fn begin(&mut self, attempt: &Attempt, now: Instant) -> Verdict {
        let verdict = self.verdict(attempt, now);
        if verdict == Verdict::Go {
            *self.pairs.entry(attempt.pair, now).pending() += 1;
            *self.users.entry(attempt.user, now).pending() += 1;
            *self.sources.entry(attempt.source, now).pending() += 1;
        }
        verdict
    }

    /// The password was wrong, or there is no such user.
    pub(super) fn failed(&mut self, attempt: &Attempt, now: Instant) {
        self.pairs.entry(attempt.pair, now).failed(now, PAIR);
        self.sources.entry(attempt.source, now).failed(now, SOURCE);
        let user = self.users.entry(attempt.user, now);
        user.pending = user.pending.saturating_sub(1);
        if !user.knows(attempt.source, now) {
            user.debt.add(now, BUDGET_BACK_IN, BUDGET);
        }
    }

    /// The password was right: the pair is forgiven everything, and the source is known. The source's own failures stay, or an attacker
    /// with one account could use it to go on with others.
    pub(super) fn succeeded(&mut self, attempt: &Attempt, now: Instant) {
        let pair = self.pairs.entry(attempt.pair, now);
        pair.pending = pair.pending.saturating_sub(1);
        pair.debt.until = now;
        pair.blocked_until = now;
        let source = self.sources.entry(attempt.source, now);
        source.pending = source.pending.saturating_sub(1);
        let user = self.users.entry(attempt.user, now);
        user.pending = user.pending.saturating_sub(1);
        user.learn(attempt.source, now);
    }

    /// Entries of the largest table.
    pub(super) fn entries(&self) -> usize {
        self.pairs
            .entries
            .len()
            .max(self.users.entries.len())
            .max(self.sources.entries.len())
    }
}
