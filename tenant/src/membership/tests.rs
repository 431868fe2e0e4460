//! What a membership says of itself, and its records.

use super::*;
use crate::answer::Refusal;
use crate::command::Command;
use proptest::prelude::*;

fn member(id: u64) -> Member {
    Member {
        id,
        name: format!("m{id}"),
        peer_urls: vec![format!("https://10.0.0.{id}:2380")],
        ..Member::default()
    }
}

fn version(level: u32, text: &str) -> MemberVersion {
    MemberVersion {
        level,
        text: text.into(),
    }
}

fn group(members: impl IntoIterator<Item = Member>) -> Membership {
    Membership::assemble(members, []).unwrap()
}

#[test]
fn the_clusters_version_is_the_lowest_that_was_published() {
    let check = |published: &[(u32, &str, bool)], expected: Option<(u32, &str)>| {
        let members = published
            .iter()
            .zip(1..)
            .map(|((level, text, learner), id)| Member {
                instance: id,
                version: version(*level, text),
                is_learner: *learner,
                ..member(id)
            });
        // The last one has not been heard of and counts for nothing.
        let group = group(members.chain([member(60)]));
        let expected = expected.map(|(level, text)| version(level, text));
        assert_eq!(group.version(), expected.as_ref());
    };
    check(&[], None);
    check(&[(1, "3.7.1", false)], Some((1, "3.7.1")));
    check(
        &[(1, "3.10.0", false), (1, "3.9.9", false)],
        Some((1, "3.9.9")),
    );
    check(
        &[(1, "3.6.0", false), (0, "3.7.0", false)],
        Some((0, "3.7.0")),
    );
    check(
        &[(2, "3.7.0", false), (1, "3.7.0", true)],
        Some((1, "3.7.0")),
    );
    check(&[(1, "3.7", false), (1, "3.7.0", false)], Some((1, "3.7")));
    check(&[(1, "", false), (1, "x", false)], Some((1, "")));
    check(
        &[(1, "99999999999999999999.1", false), (1, "4", true)],
        Some((1, "4")),
    );
}

/// etcd's rules for `--strict-reconfig-check`: voters, how many of them have started, and whether a voter may be added, a learner be
/// promoted, a voter that has started be removed, and one that has not.
#[test]
fn a_majority_of_those_that_have_started_must_be_left() {
    let check = |voters: u64, started: u64, add: bool, promote: bool, remove: [Option<bool>; 2]| {
        let voter = |id: u64| Member {
            name: if id <= started {
                "m".into()
            } else {
                String::new()
            },
            ..member(id)
        };
        let learner = Member {
            is_learner: true,
            ..member(50)
        };
        let group = group((1..=voters).map(voter).chain([learner]));
        assert_eq!(group.may_add_voter(), add, "add to {started} of {voters}");
        assert_eq!(
            group.may_promote(50),
            promote,
            "promote in {started} of {voters}"
        );
        assert!(group.may_remove(50), "a learner may go");
        let may_remove = |id: u64| (1..=voters).contains(&id).then(|| group.may_remove(id));
        let first = may_remove(if started == 0 { 0 } else { 1 });
        let last = may_remove(if started == voters { 0 } else { voters });
        assert_eq!([first, last], remove, "remove from {started} of {voters}");
    };
    check(1, 1, true, true, [Some(false), None]);
    check(1, 0, false, false, [None, Some(false)]);
    check(2, 2, true, true, [Some(true), None]);
    check(2, 1, false, true, [Some(false), Some(true)]);
    check(3, 3, true, true, [Some(true), None]);
    check(3, 2, false, true, [Some(false), Some(true)]);
    check(3, 1, false, false, [Some(false), Some(false)]);
    check(4, 3, true, true, [Some(true), Some(true)]);
    check(5, 3, false, true, [Some(false), Some(true)]);
}

#[test]
fn what_makes_no_group_is_refused() {
    let check = |members: &[Member], removed: &[u64], expected: MembershipFault| {
        let assembled = Membership::assemble(members.iter().cloned(), removed.iter().copied());
        assert_eq!(assembled, Err(expected));
    };
    assert_eq!(Membership::assemble([], []), Ok(Membership::default()));
    let learner = Member {
        is_learner: true,
        ..member(1)
    };
    check(
        std::slice::from_ref(&learner),
        &[],
        MembershipFault::NoVoter,
    );
    check(&[], &[1], MembershipFault::NoVoter);
    check(&[member(1)], &[1], MembershipFault::Removed(1));
    let same_id = Member {
        peer_urls: vec!["http://b".into()],
        ..member(1)
    };
    check(&[member(1), same_id], &[], MembershipFault::Twice(1));
    let same_url = Member { id: 2, ..member(1) };
    check(&[member(1), same_url], &[], MembershipFault::SharedUrl(2));
    check(
        &(1..=65).map(member).collect::<Vec<_>>(),
        &[],
        MembershipFault::TooMany,
    );
    assert!(Membership::assemble((1..=64).map(member), []).is_ok());
    let impossible = |reason, change: &dyn Fn(&mut Member)| {
        let mut one = member(1);
        change(&mut one);
        check(
            std::slice::from_ref(&one),
            &[],
            MembershipFault::Member { id: one.id, reason },
        );
    };
    impossible("id 0", &|member| member.id = 0);
    impossible("impossible peer URLs", &|member| member.peer_urls.clear());
    impossible("impossible peer URLs", &|member| {
        member.peer_urls[0].clear()
    });
    impossible("impossible peer URLs", &|member| {
        member.peer_urls[0].push('\n')
    });
    impossible("impossible client URLs", &|member| {
        member.client_urls = vec!["x".into(); 33];
    });
    impossible("impossible client URLs", &|member| {
        member.client_urls = vec!["x".repeat(2_049)];
    });
    impossible("impossible name", &|member| member.name = "x".repeat(256));
    impossible("impossible version", &|member| {
        member.version.text = "x".repeat(33);
    });
}

/// Everything that is kept has a bound, whatever is asked for.
#[test]
fn commands_beyond_the_bounds_are_refused() {
    let base = group([member(1), member(2)]);
    let add = |id: u64, peer_urls: Vec<String>| Command::MemberAdd {
        id,
        peer_urls,
        is_learner: false,
        max_learners: 1,
    };
    let urls = |count: usize, bytes: usize| (0..count).map(|n| format!("{n:0bytes$}")).collect();
    let invalid = Err(Refusal::MemberUrlsInvalid);
    assert_eq!(base.after(&add(3, vec![])), invalid);
    assert_eq!(base.after(&add(3, vec![String::new()])), invalid);
    assert_eq!(base.after(&add(3, vec!["http://a b".into()])), invalid);
    assert_eq!(base.after(&add(3, urls(33, 9))), invalid);
    assert_eq!(base.after(&add(3, urls(1, 2_049))), invalid);
    assert!(base.after(&add(3, urls(32, 2_048))).is_ok());
    assert_eq!(
        base.after(&add(0, urls(1, 9))),
        Err(Refusal::Malformed("member id 0"))
    );
    let update = |peer_urls| Command::MemberUpdate { id: 1, peer_urls };
    assert_eq!(base.after(&update(vec![])), invalid);
    assert_eq!(base.after(&update(urls(33, 9))), invalid);

    let publish =
        |name: &str, client_urls: Vec<String>, instance, text: &str| Command::MemberPublish {
            id: 1,
            name: name.into(),
            client_urls,
            instance,
            version: version(1, text),
        };
    assert_eq!(base.after(&publish("", urls(33, 9), 7, "")), invalid);
    for (command, what) in [
        (publish("", vec![], 0, ""), "member instance 0"),
        (publish(&"x".repeat(256), vec![], 7, ""), "member name"),
        (publish("a\nb", vec![], 7, ""), "member name"),
        (publish("", vec![], 7, &"1".repeat(33)), "member version"),
        (publish("", vec![], 7, "3 7"), "member version"),
    ] {
        assert_eq!(base.after(&command), Err(Refusal::Malformed(what)));
    }
    assert!(
        base.after(&publish(
            &"x".repeat(255),
            urls(32, 2_048),
            7,
            &"1".repeat(32)
        ))
        .is_ok()
    );

    let full = group((1..=64).map(member));
    assert_eq!(
        full.after(&add(65, urls(1, 9))),
        Err(Refusal::TooManyMembers)
    );
    let worn = Membership::assemble([member(1)], 2..=16_384).unwrap();
    assert_eq!(
        worn.after(&add(20_000, urls(1, 9))),
        Err(Refusal::TooManyMembers)
    );
    let learner = Command::MemberAdd {
        id: 1,
        peer_urls: urls(1, 9),
        is_learner: true,
        max_learners: 1,
    };
    assert_eq!(
        Membership::default().after(&learner),
        Err(Refusal::NotEnoughStarted)
    );
}

#[test]
fn the_texts_are_etcds() {
    for (refusal, text) in [
        (Refusal::MemberExists, "member ID already exist"),
        (Refusal::PeerUrlExists, "Peer URLs already exists"),
        (Refusal::MemberNotFound, "member not found"),
        (Refusal::MemberUrlsInvalid, "given member URLs are invalid"),
        (Refusal::NotLearner, "can only promote a learner member"),
        (
            Refusal::LearnerNotReady,
            "can only promote a learner member which is in sync with leader",
        ),
        (
            Refusal::TooManyLearners,
            "too many learner members in cluster",
        ),
        (
            Refusal::NotEnoughStarted,
            "re-configuration failed due to not enough started members",
        ),
        (Refusal::UnhealthyCluster, "unhealthy cluster"),
    ] {
        assert_eq!(refusal.to_string(), format!("etcdserver: {text}"));
    }
}

fn any_member() -> impl Strategy<Value = Member> {
    let text = || "[ -~é]{0,9}";
    let urls = || proptest::collection::vec(text(), 0..4);
    (
        any::<(u64, u64, u32, bool)>(),
        text(),
        text(),
        urls(),
        urls(),
    )
        .prop_map(
            |((id, instance, level, is_learner), name, text, peer_urls, client_urls)| Member {
                id,
                name,
                peer_urls,
                client_urls,
                is_learner,
                instance,
                version: MemberVersion { level, text },
            },
        )
}

proptest! {
    #[test]
    fn records_come_back_as_they_went(member in any_member()) {
        let record = member.encode();
        prop_assert_eq!(Member::decode(member.id, &record), Ok(member.clone()));
        for cut in 0..record.len() {
            prop_assert!(Member::decode(member.id, &record[..cut]).is_err(), "cut at {}", cut);
        }
        let longer = [&record[..], &[0]].concat();
        prop_assert!(Member::decode(member.id, &longer).is_err());
    }

    /// Whatever is damaged, what is read is written again as it was: no two records are of one member.
    #[test]
    fn damaged_records_are_other_members_or_errors(
        member in any_member(),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let mut record = member.encode().to_vec();
        let at = at.index(record.len());
        record[at] ^= flip;
        if let Ok(other) = Member::decode(member.id, &record) {
            prop_assert_ne!(&other, &member);
            prop_assert_eq!(other.encode(), record);
        }
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut record = bytes;
        if let Some(format) = record.first_mut() {
            *format %= 3;
        }
        if let Ok(member) = Member::decode(1, &record) {
            prop_assert_eq!(member.encode(), record);
        }
    }

    #[test]
    fn versions_are_in_one_order(versions in proptest::collection::vec((0..2u32, "[0-9.a]{0,4}"), 3)) {
        let [a, b, c] = [0, 1, 2].map(|at: usize| version(versions[at].0, &versions[at].1));
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!(a == b, a.cmp(&b).is_eq());
        if a <= b && b <= c {
            prop_assert!(a <= c);
        }
    }
}
