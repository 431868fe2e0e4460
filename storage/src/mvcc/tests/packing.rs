//! The packed forms against plain lists of versions.

use crate::Revision;
use crate::mvcc::Version;
use crate::mvcc::entries::Entries;
use crate::mvcc::packed::{Chain, Head, LINK_MAX, ORIGIN, Scratch};
use proptest::collection::vec;
use proptest::prelude::*;

/// Numbers at which something may overflow or take another form.
fn number() -> impl Strategy<Value = i64> {
    const EDGES: [i64; 14] = [
        0,
        1,
        -1,
        2,
        63,
        64,
        1 << 31,
        (1 << 31) - 1,
        1 << 32,
        (1 << 32) - 1,
        i64::MAX,
        i64::MAX - 1,
        i64::MIN,
        i64::MIN + 1,
    ];
    prop_oneof![
        6 => 0..4i64,
        2 => proptest::sample::select(EDGES.to_vec()),
        1 => any::<i64>(),
    ]
}

fn sub() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(0), 2 => 0..4u32, 1 => any::<u32>(), 1 => Just(u32::MAX)]
}

fn version() -> impl Strategy<Value = Version> {
    (number(), number(), sub(), number(), number()).prop_map(
        |(create_revision, main, sub, version, lease)| Version {
            create_revision,
            modified: Revision { main, sub },
            version,
            lease,
        },
    )
}

/// What a key's next version is made of.
#[derive(Clone, Debug)]
enum Change {
    /// As a put or a deletion makes it, so many revisions later.
    Put(i64, u32, i64),
    Delete(i64, u32),
    /// Anything, at its own revision if that is a later one.
    Any(Version),
}

impl Change {
    /// `None` at the end of all revisions.
    fn after(&self, before: &Version) -> Option<Version> {
        let later = |by: i64, sub: u32| {
            let main = before.modified.main.saturating_add(by);
            let next = Revision { main, sub };
            if next > before.modified {
                Some(next)
            } else {
                let sub = before.modified.sub.checked_add(1)?;
                Some(Revision { main, sub })
            }
        };
        match self {
            Change::Put(by, sub, lease) => {
                let before = Some(before).filter(|before| before.version < i64::MAX);
                Some(Version::following(before, later(*by, *sub)?, *lease))
            }
            Change::Delete(by, sub) => Some(Version::tombstone(later(*by, *sub)?)),
            Change::Any(version) => {
                let modified = match version.modified > before.modified {
                    true => version.modified,
                    false => later(1, version.modified.sub)?,
                };
                Some(Version {
                    modified,
                    ..*version
                })
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (0..300_000i64, sub(), prop_oneof![Just(0), Just(7), number()])
            .prop_map(|(by, sub, lease)| Change::Put(by, sub, lease)),
        2 => (0..300i64, sub()).prop_map(|(by, sub)| Change::Delete(by, sub)),
        1 => version().prop_map(Change::Any),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Insert(usize, Version),
    /// The same key again and again.
    Supersede(usize, Vec<Change>),
    /// At a mark that is near one of the key's versions.
    Prune(usize, usize, i64, usize),
    /// Parts them and joins them again.
    Part(usize),
    Remove(usize),
    Hold,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..8usize, version()).prop_map(|(at, version)| Step::Insert(at, version)),
        6 => (0..8usize, vec(change(), 1..12)).prop_map(|(at, changes)| Step::Supersede(at, changes)),
        1 => (0..8usize, vec(change(), 50..150)).prop_map(|(at, changes)| Step::Supersede(at, changes)),
        2 => (0..8usize, 0..40usize, -1..2i64, prop_oneof![0..9usize, Just(usize::MAX)])
            .prop_map(|(at, nth, by, limit)| Step::Prune(at, nth, by, limit)),
        1 => (0..8usize).prop_map(Step::Part),
        1 => (0..8usize).prop_map(Step::Remove),
        1 => Just(Step::Hold),
    ]
}

/// When the oldest of a key's versions is garbage.
fn due(versions: &[Version]) -> i64 {
    let superseded = versions.get(1).map_or(i64::MAX, |next| next.modified.main);
    match versions[0].version {
        0 => superseded.min(versions[0].modified.main.saturating_add(1)),
        _ => superseded,
    }
}

fn compare(entries: &Entries, model: &[Vec<Version>]) {
    assert_eq!(entries.len(), model.len());
    entries.check();
    for (at, versions) in model.iter().enumerate() {
        let newest = versions[versions.len() - 1];
        assert_eq!(entries.versions(at), *versions);
        assert_eq!(entries.current(at), newest);
        assert_eq!(entries.alive(at), newest.version != 0);
        assert_eq!(entries.newest(at), newest.modified.main);
        assert_eq!(entries.due(at), due(versions));
        let mut found = Vec::new();
        for version in versions {
            let Revision { main, sub } = version.modified;
            for probe in [main.saturating_sub(1), main, main.saturating_add(1)] {
                let expected = versions
                    .iter()
                    .rfind(|version| version.modified.main <= probe)
                    .copied();
                assert_eq!(entries.newest_at(at, probe), expected, "at {probe}");
                assert_eq!(
                    entries.at(at, probe),
                    expected.filter(|version| version.version != 0)
                );
                let probe = Revision { main: probe, sub };
                entries.after(at, probe, &mut found);
                let mut expected = versions.iter().filter(|version| version.modified > probe);
                assert!(
                    found.iter().rev().eq(expected.by_ref().take(found.len())),
                    "the oldest after {probe:?}"
                );
                assert!(!found.is_empty() || expected.next().is_none());
            }
        }
    }
}

#[derive(Default)]
struct Run {
    entries: Entries,
    model: Vec<Vec<Version>>,
    held: Vec<(Entries, Vec<Vec<Version>>)>,
}

impl Run {
    fn prune(&mut self, at: usize, mark: i64, limit: usize) {
        let mut dropped = vec![Revision::first(0)];
        let limit = limit.saturating_add(1);
        let over = self.entries.prune(at, mark, limit, &mut dropped);
        let mut expected = vec![Revision::first(0)];
        let versions = &mut self.model[at];
        while expected.len() < limit && !versions.is_empty() && due(versions) <= mark {
            expected.push(versions.remove(0).modified);
        }
        assert_eq!(dropped, expected, "at mark {mark}, at most {limit}");
        assert_eq!(over, versions.is_empty());
        if over {
            self.entries.remove(at);
            self.model.remove(at);
        }
    }

    fn step(&mut self, step: &Step) {
        let len = self.model.len();
        match step {
            Step::Insert(at, version) if len < 8 => {
                let at = at % (len + 1);
                self.entries.insert(at, version);
                self.model.insert(at, vec![*version]);
            }
            Step::Supersede(at, changes) if len > 0 => {
                let at = at % len;
                for change in changes {
                    let versions = &mut self.model[at];
                    let old = versions[versions.len() - 1];
                    let Some(new) = change.after(&old) else {
                        break;
                    };
                    let before = due(versions);
                    versions.push(new);
                    let bound = self.entries.supersede(at, &old, &new);
                    assert_eq!(before.min(bound), due(versions));
                }
            }
            Step::Prune(at, nth, by, limit) if len > 0 => {
                let at = at % len;
                let versions = &self.model[at];
                let mark = versions[nth % versions.len()].modified.main;
                self.prune(at, mark.saturating_add(*by), *limit);
            }
            Step::Part(at) => {
                let at = at % (len + 1);
                let mut right = self.entries.split_off(at);
                compare(&self.entries, &self.model[..at]);
                compare(&right, &self.model[at..]);
                self.entries.append(&mut right);
            }
            Step::Remove(at) if len > 0 => {
                self.entries.remove(at % len);
                self.model.remove(at % len);
            }
            Step::Hold => self.held.push((self.entries.clone(), self.model.clone())),
            Step::Insert(..) | Step::Supersede(..) | Step::Prune(..) | Step::Remove(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn any_chain_comes_back(versions in vec(version(), 1..20)) {
        let mut bytes = Vec::new();
        let mut newer = ORIGIN;
        for version in &versions {
            let mut link = Scratch::new();
            link.link(&newer, version);
            prop_assert!((1..=LINK_MAX).contains(&link.len()));
            bytes.extend_from_slice(link.as_slice());
            newer = *version;
        }
        let mut chain = Chain::new(ORIGIN, &bytes);
        prop_assert!(chain.by_ref().eq(versions.iter().copied()));
        prop_assert!(chain.rest().is_empty());
    }

    #[test]
    fn any_current_version_comes_back(version in version()) {
        let mut rest = Scratch::new();
        let head = Head::pack(&version, &mut rest);
        prop_assert!(rest.len() <= LINK_MAX);
        let mut record = rest.as_slice().to_vec();
        record.extend([0xff; 3]);
        prop_assert_eq!(head.unpack(&record), (version, rest.len()));
        prop_assert_eq!((head.main(), head.alive(), head.more()),
            (version.modified.main, version.version != 0, rest.len() > 0));
        if !head.more() {
            prop_assert_eq!(head.plain(), version);
        }
    }

    /// What is damaged gives fewer versions or others, and no panic.
    #[test]
    fn a_chain_of_any_bytes_ends(bytes in vec(any::<u8>(), 0..100)) {
        prop_assert!(Chain::new(ORIGIN, &bytes).count() <= bytes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn entries_agree_with_lists(steps in vec(step(), 1..60)) {
        let mut run = Run::default();
        for (number, step) in steps.iter().enumerate() {
            run.step(step);
            if number % 8 == 7 || number + 1 == steps.len() {
                compare(&run.entries, &run.model);
            }
        }
        for (entries, model) in &run.held {
            compare(entries, model);
        }
    }
}

/// What most versions take.
#[test]
fn versions_that_follow_take_a_few_bytes() {
    let put = |before: Option<&Version>, main| Version::following(before, Revision::first(main), 0);
    let first = put(None, 1_000_000);
    let second = put(Some(&first), 2_000_000);
    let tombstone = Version::tombstone(Revision::first(2_000_060));
    let again = put(None, 2_000_070);
    let length = |newer: &Version, older: &Version| {
        let mut link = Scratch::new();
        link.link(newer, older);
        link.len()
    };
    assert_eq!(length(&second, &first), 3);
    assert_eq!(length(&again, &tombstone), 1);
    assert_eq!(
        length(&Version::tombstone(Revision::first(1_000_060)), &first),
        1
    );
    let mut rest = Scratch::new();
    for version in [first, second, tombstone, again] {
        Head::pack(&version, &mut rest);
    }
    assert_eq!(rest.len(), 0);
    assert_eq!(size_of::<Head>(), 16);
}
