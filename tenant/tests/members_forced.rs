//! One member made the only one of its group, and what the log still has of the group before.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod group;

use bytes::Bytes;
use group::{Group, add, founder, publish};
use holdfast_storage::Change;
use holdfast_tenant::request::Put;
use holdfast_tenant::{Alarm, AlarmKind, Command, Refusal, TokenKeyRecord};

/// Members 1 to 3, of which 1 goes on alone; the log has entries up to term 4, and none of them is applied.
fn forced() -> Group {
    let mut group = Group::found(&[founder(1), founder(2), founder(3)]);
    group.term = 4;
    group.machine().force_sole_member(1, 4).unwrap();
    group
}

fn is_alone(group: &Group) {
    let members = group.members();
    assert_eq!(members.voters(), [1]);
    assert_eq!(members.len(), 1);
}

/// The store's key of the record that says so.
fn is_noted(group: &Group) -> bool {
    let is_note = |change: &Change| matches!(change, Change::PutMeta(key, _) if key[..] == *b"f");
    group.snapshot().iter().any(is_note)
}

#[test]
fn what_the_log_says_of_members_brings_nobody_back() {
    for restarts in [false, true] {
        let mut group = forced();
        let apply = |group: &mut Group, command: &Command| {
            if restarts {
                group.restart(&[]);
            }
            let outcome = group.apply(command);
            is_alone(group);
            outcome
        };
        let group = &mut group;
        let _ = apply(group, &add(4, "http://d", false));
        let _ = apply(group, &add(5, "http://e", true));
        // At the URL that it would have had when this one had gone.
        let own_url = founder(1).peer_urls.remove(0);
        assert!(apply(group, &Command::MemberRemove { id: 1 }).is_err());
        let _ = apply(group, &add(6, &own_url, false));
        for id in 1..=6 {
            assert!(apply(group, &Command::MemberPromote { id }).is_err());
        }
        for id in 2..=6 {
            assert!(apply(group, &publish(id, id)).is_err());
            assert!(apply(group, &add(id, "http://x", false)).is_err());
            assert!(apply(group, &Command::MemberRemove { id }).is_err());
            assert!(group.members().is_removed(id), "{id:x} is refused");
        }
    }
}

#[test]
fn what_it_says_of_anything_else_holds() {
    let mut group = forced();
    let put = Command::Put(Put {
        key: "k".into(),
        value: "v".into(),
        lease: 0,
        previous: false,
        keep_value: false,
        keep_lease: false,
    });
    assert!(group.apply(&put).is_ok());
    assert!(group.apply(&publish(1, 7)).is_ok());
    let moved = Command::MemberUpdate {
        id: 1,
        peer_urls: vec!["http://elsewhere".into()],
    };
    assert!(group.apply(&moved).is_ok());
    let members = group.members();
    let own = members.get(1).unwrap();
    assert_eq!(own.instance, 7);
    assert_eq!(own.peer_urls, ["http://elsewhere"]);
}

/// As with one that was removed.
#[test]
fn who_was_to_be_added_leaves_nothing_behind() {
    let mut group = forced();
    let _ = group.apply(&add(4, "http://d", false));
    for member in [2, 4] {
        let alarm = Alarm {
            member,
            kind: AlarmKind::NoSpace,
        };
        let raised = group.apply(&Command::RaiseAlarm(alarm));
        assert_eq!(raised, Err(Refusal::MemberNotFound));
        let key = Command::PublishTokenKey {
            key: TokenKeyRecord {
                kid: format!("k{member}"),
                public_key: [9; 32],
                made_at: 1,
                member,
                retires_at: None,
            },
            retire_older_at: None,
        };
        assert_eq!(group.apply(&key), Err(Refusal::MemberNotFound));
    }
}

#[test]
fn changes_of_its_own_come_into_force() {
    let mut group = forced();
    let _ = group.apply(&add(4, "http://d", false));
    group.term = 5;
    assert!(group.apply(&add(7, "http://g", false)).is_ok());
    assert_eq!(group.members().voters(), [1, 7]);
    assert!(!is_noted(&group));
    group.restart(&[]);
    assert!(group.apply(&add(8, "http://h", true)).is_ok());
    assert_eq!(group.members().learners(), [8]);
    let removed: Vec<_> = group.members().removed().collect();
    assert_eq!(removed, [2, 3, 4]);
}

#[test]
fn the_flag_may_stay() {
    let mut group = forced();
    let _ = group.apply(&add(4, "http://d", false));
    group.restart(&[]);
    group.machine().force_sole_member(1, 4).unwrap();
    let _ = group.apply(&add(5, "http://e", false));
    is_alone(&group);
    group.term = 5;
    assert!(group.apply(&add(7, "http://g", false)).is_ok());
    // Added since, and still in the log when it is forced once more.
    group.restart(&[]);
    group.machine().force_sole_member(1, 5).unwrap();
    let _ = group.apply(&add(8, "http://h", false));
    is_alone(&group);
}

/// It has a vote from then on, and needs no other.
#[test]
fn a_learner_may_go_on_alone() {
    let mut group = Group::found(&[founder(2)]);
    assert!(group.apply(&add(1, "http://a", true)).is_ok());
    group.machine().force_sole_member(1, 1).unwrap();
    is_alone(&group);
    let promoted = group.apply(&Command::MemberPromote { id: 1 });
    assert_eq!(promoted, Err(Refusal::NotLearner));
    is_alone(&group);
}

#[test]
fn who_is_no_member_goes_nowhere() {
    let mut group = Group::found(&[founder(1), founder(2)]);
    assert!(group.apply(&Command::MemberRemove { id: 2 }).is_ok());
    for id in [2, 9] {
        let forced = group.machine().force_sole_member(id, 1);
        assert_eq!(forced, Err(Refusal::MemberNotFound));
        assert!(!is_noted(&group));
    }
}

#[test]
fn a_damaged_note_stops_the_start() {
    for (value, expected) in [
        (&[][..], "unknown format"),
        (&[2, 0, 0, 0, 0, 0, 0, 0, 0], "unknown format"),
        (&[1, 0, 0], "no term"),
    ] {
        let note = Change::PutMeta(Bytes::from_static(b"f"), Bytes::copy_from_slice(value));
        let Err(failed) = Group::with_store(&[note], &[founder(1)]) else {
            panic!("restored {value:?}");
        };
        assert!(failed.to_string().contains(expected), "{failed}");
    }
}
