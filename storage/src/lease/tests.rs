//! The table against a naive model, and its edges one by one.

use super::*;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const EVERY: Millis = Millis(300_000);
const EXTEND: Millis = Millis(1_000);
const RETRY_MS: u64 = 3_000;

#[derive(Clone, Debug)]
enum Step {
    Grant(i64, i64, Option<Vec<u8>>),
    Revoke(i64),
    Attach(i64, u8),
    Detach(i64, u8),
    Renew(i64),
    Wait(u64),
    Expired(usize),
    /// Ask for due checkpoints and put them into the log.
    Checkpoints(usize),
    /// Apply this many entries of the log.
    Apply(usize),
    /// A new leader; what was not applied is lost.
    Promote,
    /// Another member leads from now on, until [`Step::Promote`].
    Demote,
    /// The same, after a restart.
    Reload,
}

fn id() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 1..6i64, 1 => Just(-1i64), 1 => Just(i64::MAX)]
}

fn owner() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        2 => Just(None),
        2 => vec(any::<u8>(), 1..4).prop_map(Some),
        1 => Just(Some(vec![7; 512])),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ttl = prop_oneof![1..20i64, 290..310i64, 1_000..4_000i64];
    let wait = prop_oneof![0..3_000u64, 4_000..60_000u64, 290_000..700_000u64];
    prop_oneof![
        4 => (id(), ttl, owner()).prop_map(|(id, ttl, owner)| Step::Grant(id, ttl, owner)),
        1 => id().prop_map(Step::Revoke),
        2 => (id(), any::<u8>()).prop_map(|(id, key)| Step::Attach(id, key % 8)),
        2 => (id(), any::<u8>()).prop_map(|(id, key)| Step::Detach(id, key % 8)),
        6 => id().prop_map(Step::Renew),
        6 => wait.prop_map(Step::Wait),
        3 => prop_oneof![0..4usize, Just(usize::MAX)].prop_map(Step::Expired),
        3 => prop_oneof![0..4usize, Just(usize::MAX)].prop_map(Step::Checkpoints),
        2 => (0..4usize).prop_map(Step::Apply),
        2 => Just(Step::Promote),
        1 => Just(Step::Demote),
        1 => Just(Step::Reload),
    ]
}

#[derive(Clone)]
struct Plain {
    ttl: i64,
    /// What a new leader counts from.
    effective: i64,
    deadline: u64,
    quiet_until: u64,
    keys: BTreeSet<Vec<u8>>,
    owner: Option<Vec<u8>>,
}

struct Run {
    table: LeaseTable,
    model: BTreeMap<i64, Plain>,
    log: VecDeque<(i64, i64)>,
    now: u64,
    primary: bool,
}

impl Run {
    fn promote(&mut self) {
        self.log.clear();
        self.primary = true;
        self.table.promote(Millis(self.now), EXTEND);
        for lease in self.model.values_mut() {
            lease.deadline = self.now + lease.effective as u64 * 1000 + EXTEND.0;
            lease.quiet_until = 0;
        }
    }

    fn apply(&mut self, count: usize) {
        for (id, secs) in self.log.drain(..count.min(self.log.len())) {
            assert!(self.table.checkpoint(id, secs));
            let lease = self
                .model
                .get_mut(&id)
                .expect("entries of revoked leases were removed");
            lease.effective = if secs > 0 && secs < lease.ttl {
                secs
            } else {
                lease.ttl
            };
        }
    }

    fn checkpoints(&mut self, max: usize) {
        let due = self.table.due_checkpoints(Millis(self.now), max);
        assert!(due.len() <= max);
        assert!(self.primary || due.is_empty());
        for (id, secs) in due {
            let lease = &self.model[&id];
            let remaining = lease.deadline.saturating_sub(self.now);
            assert!(remaining > 0, "an expired lease needs no checkpoint");
            assert!(secs == 0 || secs == remaining.div_ceil(1000) as i64);
            self.log.push_back((id, secs));
        }
    }

    fn step(&mut self, step: &Step) {
        let now = Millis(self.now);
        match *step {
            Step::Grant(id, ttl, ref owner) => {
                let known = owner.as_deref().map(|bytes| Owner::new(bytes).unwrap());
                let granted = self.table.grant(id, ttl, known, now);
                assert_eq!(granted.is_err(), self.model.contains_key(&id));
                let deadline = self.now + ttl as u64 * 1000;
                let keys = BTreeSet::new();
                self.model.entry(id).or_insert(Plain {
                    ttl,
                    effective: ttl,
                    deadline,
                    quiet_until: 0,
                    keys,
                    owner: owner.clone(),
                });
            }
            Step::Revoke(id) => {
                let keys = self
                    .model
                    .remove(&id)
                    .map(|lease| lease.keys.into_iter().map(Bytes::from).collect());
                assert_eq!(self.table.revoke(id), keys);
                self.log.retain(|(other, _)| *other != id);
            }
            Step::Attach(id, key) => {
                let lease = self.model.get_mut(&id);
                assert_eq!(self.table.attach(id, &[key; 3]), lease.is_some());
                lease.map(|lease| lease.keys.insert(vec![key; 3]));
            }
            Step::Detach(id, key) => {
                self.table.detach(id, &[key; 3]);
                self.model
                    .get_mut(&id)
                    .map(|lease| lease.keys.remove([key; 3].as_slice()));
            }
            Step::Renew(id) => {
                let renewal = self.table.renew(id, now);
                assert_eq!(renewal.is_ok(), self.primary);
                let Ok(renewal) = renewal else {
                    return;
                };
                let lease = self
                    .model
                    .get_mut(&id)
                    .filter(|lease| lease.deadline > self.now);
                assert_eq!(
                    renewal.map(|renewal| renewal.ttl_secs),
                    lease.as_ref().map(|lease| lease.ttl)
                );
                if let Some(lease) = lease {
                    lease.deadline = self.now + lease.ttl as u64 * 1000;
                }
                if renewal.is_some_and(|renewal| renewal.clear_checkpoint) {
                    self.log.push_back((id, 0));
                }
            }
            Step::Wait(millis) => self.now += millis,
            Step::Expired(max) => {
                let expected: BTreeSet<i64> = (self.model.iter())
                    .filter(|(_, lease)| {
                        self.primary && lease.deadline <= self.now && lease.quiet_until <= self.now
                    })
                    .map(|(id, _)| *id)
                    .collect();
                let expired = self.table.expired(now, max);
                assert_eq!(
                    expired.len(),
                    max.min(expected.len()),
                    "{expired:?} of {expected:?}"
                );
                let turns = expired.iter().map(|id| {
                    let lease = &self.model[id];
                    lease.quiet_until.max(lease.deadline)
                });
                assert!(
                    turns.is_sorted(),
                    "a lease is named before one that ended earlier"
                );
                for id in expired {
                    assert!(expected.contains(&id));
                    self.model.get_mut(&id).expect("known").quiet_until = self.now + RETRY_MS;
                }
            }
            Step::Checkpoints(max) => self.checkpoints(max),
            Step::Apply(count) => self.apply(count),
            Step::Promote => self.promote(),
            Step::Demote => {
                self.log.clear();
                self.table.demote();
                self.primary = false;
            }
            Step::Reload => {
                let mut table = LeaseTable::new(EVERY);
                for (id, lease) in &self.model {
                    let record = self.table.encode(*id).expect("known");
                    table.decode(*id, &record, now).expect("a record of ours");
                    lease
                        .keys
                        .iter()
                        .for_each(|key| assert!(table.attach(*id, key)));
                }
                self.table = table;
                self.promote();
            }
        }
    }

    fn compare(&self) {
        assert_eq!(self.table.len(), self.model.len());
        assert_eq!(self.table.is_empty(), self.model.is_empty());
        for id in [-1, 0, 1, 2, 3, 4, 5, i64::MAX] {
            let lease = self.model.get(&id);
            assert_eq!(self.table.contains(id), lease.is_some());
            let owner = lease.and_then(|lease| lease.owner.as_deref());
            assert_eq!(self.table.owner(id), owner);
            let life = lease.map(|lease| TimeToLive {
                granted_secs: lease.ttl,
                remaining: Millis(lease.deadline.saturating_sub(self.now)),
            });
            assert_eq!(self.table.time_to_live(id, Millis(self.now)), life);
            assert_eq!(self.table.is_primary(), self.primary);
            assert!(
                self.table.keys(id).eq(lease
                    .into_iter()
                    .flat_map(|lease| lease.keys.iter().map(Vec::as_slice)))
            );
        }
        let mut list: Vec<_> = self
            .model
            .iter()
            .map(|(id, lease)| (lease.deadline, *id))
            .collect();
        list.sort_unstable();
        assert!(
            self.table
                .list()
                .into_iter()
                .eq(list.into_iter().map(|(_, id)| id))
        );
    }

    /// With every due checkpoint applied, a restart now would be wrong by no more than one interval, and never in the direction
    /// that lets a lease expire early.
    fn settle(&mut self) {
        if !self.primary {
            assert_eq!(self.table.queued(), 0);
            return;
        }
        self.checkpoints(usize::MAX);
        self.apply(usize::MAX);
        for (id, lease) in self
            .model
            .iter()
            .filter(|(_, lease)| lease.deadline > self.now)
        {
            let remaining = (lease.deadline - self.now) as i64;
            let late = lease.effective * 1000 - remaining;
            assert!(
                late >= -(EXTEND.0 as i64),
                "lease {id} would expire {} ms early",
                -late
            );
            assert!(
                late <= EVERY.0 as i64 + 1000,
                "lease {id} would live {late} ms longer"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]
    #[test]
    fn random_programs_agree_with_the_model(steps in vec(step(), 1..80)) {
        let (table, model, log) = (LeaseTable::new(EVERY), BTreeMap::new(), VecDeque::new());
        let mut run = Run { table, model, log, now: 5_000, primary: false };
        run.promote();
        for (number, step) in steps.iter().enumerate() {
            run.step(step);
            run.compare();
            if number % 7 == 6 {
                run.settle();
            }
        }
        run.settle();
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(format in 0..4u8, tail in vec(any::<u8>(), 0..24)) {
        // Numbers that are none of their own make most of the rest a number out of bounds.
        let small = |at: usize| tail.get(at).copied().unwrap_or(1);
        let mut bytes = vec![format, small(0), 1, 0, 0, 0, 0, 0, 0, small(1), 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(&tail[tail.len().min(2)..]);
        bytes.truncate(17 + tail.len().saturating_sub(3));
        let mut table = LeaseTable::new(EVERY);
        if table.decode(1, &bytes, Millis(0)).is_ok() {
            prop_assert_eq!(table.encode(1).expect("known"), bytes);
        }
    }
}

#[test]
fn records_are_checked_field_by_field() {
    let record = |ttl: i64, checkpoint: i64| {
        let mut bytes = vec![1];
        bytes.extend_from_slice(&ttl.to_le_bytes());
        bytes.extend_from_slice(&checkpoint.to_le_bytes());
        bytes
    };
    let mut table = LeaseTable::new(EVERY);
    let mut decode = |id, bytes: &[u8]| table.decode(id, bytes, Millis(0));
    let checkpoint = |checkpoint_secs, ttl_secs| {
        Err(RecordError::Checkpoint {
            checkpoint_secs,
            ttl_secs,
        })
    };
    assert_eq!(decode(1, &[]), Err(RecordError::Length(0)));
    assert_eq!(decode(1, &record(9, 0)[..16]), Err(RecordError::Length(16)));
    assert_eq!(
        decode(1, &[record(9, 0), vec![0]].concat()),
        Err(RecordError::Length(18))
    );
    assert_eq!(decode(1, &[3; 17]), Err(RecordError::Format(3)));
    assert_eq!(decode(1, &record(0, 0)), Err(RecordError::Ttl(0)));
    assert_eq!(
        decode(1, &record(9_000_000_001, 0)),
        Err(RecordError::Ttl(9_000_000_001))
    );
    assert_eq!(decode(1, &record(9, 9)), checkpoint(9, 9));
    assert_eq!(decode(1, &record(9, -1)), checkpoint(-1, 9));
    assert_eq!(decode(0, &record(9, 0)), Err(RecordError::Id(0)));
    assert_eq!(decode(1, &record(9, 8)), Ok(()));
    assert_eq!(decode(1, &record(9, 8)), Err(RecordError::Id(1)));
}

#[test]
fn a_record_with_an_owner_has_a_format_of_its_own() {
    let record = |format: u8, owner: &[u8]| {
        let mut bytes = vec![format];
        bytes.extend_from_slice(&9i64.to_le_bytes());
        bytes.extend_from_slice(&0i64.to_le_bytes());
        bytes.extend_from_slice(owner);
        bytes
    };
    let mut table = LeaseTable::new(EVERY);
    let mut decode = |id, bytes: &[u8]| table.decode(id, bytes, Millis(0));
    // An owner of no bytes is none, and then the format would be another.
    assert_eq!(decode(1, &record(2, b"")), Err(RecordError::Length(17)));
    let long = [7; 513];
    assert_eq!(decode(1, &record(2, &long)), Err(RecordError::Length(530)));
    assert_eq!(decode(1, &record(1, b"me")), Err(RecordError::Length(19)));
    assert_eq!(decode(1, &record(1, b"")), Ok(()));
    assert_eq!(decode(2, &record(2, b"me")), Ok(()));
    assert_eq!(decode(3, &record(2, &long[1..])), Ok(()));
    assert_eq!(table.owner(1), None);
    assert_eq!(table.owner(2), Some(&b"me"[..]));
    assert_eq!(table.owner(3), Some(&long[1..]));
    assert_eq!(table.encode(1).expect("known"), record(1, b""));
    assert_eq!(table.encode(2).expect("known"), record(2, b"me"));
    assert_eq!(Owner::new(b""), None);
    assert_eq!(Owner::new(&long), None);
}

#[test]
fn granting_and_revoking_for_ever_takes_no_memory() {
    let mut table = leading();
    for _ in 0..50_000 {
        table.grant(1, 9_000_000_000, None, Millis(0)).unwrap();
        table.revoke(1).unwrap();
        assert!(table.queued() < 4_096);
    }
}

#[test]
fn renewals_do_not_grow_the_queues() {
    let mut table = leading();
    table.grant(1, 10, None, Millis(0)).unwrap();
    for second in 1..10_000 {
        let now = Millis(second * 1000);
        assert!(table.renew(1, now).unwrap().is_some());
        assert!(table.expired(now, 10).is_empty());
        assert!(table.queued() <= 1);
    }
    assert_eq!(table.expired(Millis(10_008_999), 10), []);
    assert_eq!(table.expired(Millis(10_009_000), 10), [1]);
}

fn leading() -> LeaseTable {
    let mut table = LeaseTable::new(EVERY);
    table.promote(Millis(0), Millis(0));
    table
}

fn secs(secs: u64) -> Millis {
    Millis(secs * 1000)
}

#[test]
fn who_does_not_lead_ends_nothing_and_promises_nothing() {
    let mut table = LeaseTable::new(EVERY);
    table.grant(1, 10, None, secs(0)).unwrap();
    table.grant(2, 1_000, None, secs(0)).unwrap();
    for round in 0..2 {
        assert_eq!(table.expired(secs(5_000), 10), []);
        assert_eq!(table.due_checkpoints(secs(5_000), 10), []);
        assert_eq!(table.renew(1, secs(1)), Err(NotPrimary), "round {round}");
        assert_eq!(table.renew(7, secs(1)), Err(NotPrimary));
        table.promote(secs(5_000), secs(1));
        assert_eq!(table.expired(secs(5_010), 10), []);
        assert_eq!(table.expired(secs(5_011), 10), [1]);
        table.demote();
    }
}

#[test]
fn leases_end_in_the_order_of_their_times_also_if_some_were_renewed() {
    let mut table = leading();
    table.grant(1, 10, None, secs(0)).unwrap();
    table.grant(2, 30, None, secs(0)).unwrap();
    table.grant(3, 40, None, secs(0)).unwrap();
    for second in [5, 14, 23] {
        table.renew(1, secs(second)).unwrap().unwrap();
    }
    // The first ended at 33.
    assert_eq!(table.expired(secs(60), 1), [2]);
    assert_eq!(table.expired(secs(60), 1), [1]);
    assert_eq!(table.expired(secs(60), 1), [3]);
}

#[test]
fn a_checkpoint_from_before_a_renewal_is_cleared_at_once() {
    let mut table = leading();
    table.grant(1, 3_600, None, secs(0)).unwrap();
    assert_eq!(table.due_checkpoints(secs(3_000), 10), [(1, 600)]);
    // While that is on its way through the log, the client renews; what clears it comes before it.
    let renewal = table.renew(1, secs(3_000)).unwrap().unwrap();
    assert!(renewal.clear_checkpoint);
    assert!(table.checkpoint(1, 0));
    assert_eq!(table.due_checkpoints(secs(3_000), 10), []);
    assert!(table.checkpoint(1, 600));
    assert_eq!(table.due_checkpoints(secs(3_001), 10), [(1, 0)]);
    // Should that get lost, it is asked for again.
    assert_eq!(table.due_checkpoints(secs(3_002), 10), []);
    assert_eq!(table.due_checkpoints(secs(3_004), 10), [(1, 0)]);
    assert!(table.checkpoint(1, 0));
    assert_eq!(table.due_checkpoints(secs(3_299), 10), []);
    assert_eq!(table.due_checkpoints(secs(3_300), 10), [(1, 3_300)]);
}

#[test]
fn a_checkpoint_of_the_leader_before_is_cleared_at_once() {
    let mut table = LeaseTable::new(EVERY);
    table.grant(1, 3_600, None, secs(0)).unwrap();
    table.promote(secs(3_000), EXTEND);
    // The leader before had asked for it, and it was forwarded to this one.
    assert!(table.checkpoint(1, 600));
    assert_eq!(table.due_checkpoints(secs(3_000), 10), [(1, 0)]);
    assert!(table.checkpoint(1, 0));
    table.demote();
    table.promote(secs(3_001), EXTEND);
    let life = table.time_to_live(1, secs(3_001)).unwrap();
    assert_eq!(life.remaining, Millis(3_601_000));
}

#[test]
fn leases_that_end_together_after_a_promotion_are_spread() {
    const LEASES: i64 = 10_000;
    let mut table = LeaseTable::new(EVERY);
    for id in 1..=LEASES {
        // Some end earlier than the crowd, and some later.
        let ttl = match id % 10 {
            0 => 5,
            1 => 40,
            _ => 10,
        };
        table.grant(id, ttl, None, Millis(0)).unwrap();
    }
    table.promote(secs(100), secs(1));
    let mut ends = BTreeMap::new();
    for id in 1..=LEASES {
        let life = table.time_to_live(id, secs(100)).unwrap();
        let promised = Millis::from_secs(life.granted_secs).plus(secs(1));
        assert!(life.remaining >= promised, "{id} ends too early");
        if id % 10 == 0 {
            // Only a thousand are in front of them.
            assert!(life.remaining <= promised.plus(secs(1)), "{id} ends late");
        }
        *ends.entry(life.remaining.0 / 1000).or_insert(0) += 1;
    }
    let most = ends.values().max().unwrap();
    assert!(*most <= 750, "{most} leases end in one second");
    // Not later than it takes.
    assert!(*ends.keys().last().unwrap() <= 41 + 2);

    let mut ended = 0;
    for half in 0..100 {
        let expired = table.expired(Millis(100_000 + half * 500), 500);
        expired.iter().for_each(|id| {
            table.revoke(*id).unwrap();
        });
        ended += expired.len();
    }
    assert_eq!(ended, LEASES as usize);
}

#[test]
#[ignore = "tells how long it takes; run it with --release --nocapture"]
fn how_long_a_hundred_thousand_leases_take() {
    const LEASES: i64 = 100_000;
    let time = |what: &str, run: &mut dyn FnMut()| {
        let begun = std::time::Instant::now();
        run();
        println!("{what}: {:?}", begun.elapsed());
    };
    let mut table = LeaseTable::new(EVERY);
    for id in 1..=LEASES {
        table
            .grant(
                id.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64),
                3_600,
                None,
                Millis(0),
            )
            .unwrap();
    }
    time("promote", &mut || table.promote(secs(0), secs(1)));
    let ids = table.list();
    for id in &ids {
        table.renew(*id, secs(1_000)).unwrap().unwrap();
    }
    time("an interval's checkpoints, 1,000", &mut || {
        assert!(table.due_checkpoints(secs(1_001), 1_000).len() <= 1_000);
    });
    time("look for ends, all were renewed", &mut || {
        assert!(table.expired(secs(4_000), 500).is_empty());
    });
    let (mut looks, mut longest) = (0, std::time::Duration::ZERO);
    loop {
        let begun = std::time::Instant::now();
        let expired = table.expired(secs(9_000), 500);
        longest = longest.max(begun.elapsed());
        looks += 1;
        for id in &expired {
            table.revoke(*id).unwrap();
        }
        if table.is_empty() {
            break;
        }
    }
    println!("all end: {looks} looks, the longest {longest:?}");
    time("demote", &mut || table.demote());
}
