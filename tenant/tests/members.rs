//! Members in single cases: where they come from, who may change them, and what goes with one that is removed.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod group;

use bytes::Bytes;
use group::{Group, add, founder, publish};
use holdfast_auth::{AuthChange, Caller, Denied, UserId};
use holdfast_storage::{Change, TenantId};
use holdfast_tenant::request::Put;
use holdfast_tenant::{
    Alarm, AlarmKind, Answer, Command, Member, MembershipFault, Refusal, RestoreError,
    TokenKeyRecord,
};

const OTHER: TenantId = TenantId(7);

fn revision_record(tenant: TenantId) -> Change {
    let key = [&[b'r'][..], &tenant.0.to_be_bytes()].concat();
    Change::PutMeta(key.into(), Bytes::copy_from_slice(&1i64.to_le_bytes()))
}

fn record(kind: u8, id: &[u8], value: &[u8]) -> Change {
    let key = [&[kind][..], id].concat();
    Change::PutMeta(key.into(), Bytes::copy_from_slice(value))
}

fn has_member_record(changes: &[Change], id: u64) -> bool {
    let wanted = [&[b'm'][..], &id.to_be_bytes()].concat();
    changes
        .iter()
        .any(|change| matches!(change, Change::PutMeta(key, _) if *key == wanted))
}

/// A snapshot taken before the first entry tells the members, and so does the store of the next start.
#[test]
fn the_founding_members_are_in_the_store_from_the_beginning() {
    let mut group = Group::found(&[founder(1), founder(2), founder(3)]);
    assert_eq!(group.members().voters(), [1, 2, 3]);
    let snapshot = group.snapshot();
    assert!((1..=3).all(|id| has_member_record(&snapshot, id)));
    group.restart(&[]);
    assert_eq!(group.members().voters(), [1, 2, 3]);
    assert_eq!(group.members().get(2), Some(&founder(2)));
}

#[test]
fn a_data_directory_from_before_gets_its_member() {
    let old = [revision_record(TenantId::DEFAULT), revision_record(OTHER)];
    let mut group = Group::with_store(&old, &[founder(1)]).unwrap();
    assert_eq!(group.members().voters(), [1]);
    assert!(has_member_record(&group.snapshot(), 1));
    assert!(group.apply(&publish(1, 5)).is_ok());
    group.restart(&[founder(1)]);
    assert_eq!(group.members().get(1).unwrap().instance, 5);
}

/// It knows nobody until a snapshot tells it.
#[test]
fn a_member_that_joins_begins_without_members() {
    let mut joiner = Group::found(&[]);
    assert!(joiner.members().is_empty());
    joiner.restart(&[]);
    assert!(joiner.members().is_empty());
    assert_eq!(joiner.members().version(), None);
}

#[test]
fn records_that_are_no_members_stop_the_start() {
    let member = {
        let group = Group::found(&[founder(1)]);
        let found = group
            .snapshot()
            .into_iter()
            .find_map(|change| match change {
                Change::PutMeta(key, value) if key[0] == b'm' => Some(value),
                _ => None,
            });
        found.unwrap()
    };
    let check = |changes: &[Change], expected: &str| {
        let failed = match Group::with_store(changes, &[founder(1)]) {
            Ok(group) => panic!("restored {:?}", group.members()),
            Err(failed) => failed.to_string(),
        };
        assert!(failed.contains(expected), "{failed}");
    };
    let id = 1u64.to_be_bytes();
    check(&[record(b'm', &id, &[])], "ends early");
    check(
        &[record(b'm', &id, &member[..member.len() - 1])],
        "ends early",
    );
    check(
        &[record(b'm', &id, &[&[2], &member[1..]].concat())],
        "unknown format 2",
    );
    check(&[record(b'm', &id[1..], &member)], "no member id");
    check(&[record(b'm', &[0; 8], &member)], "member 0: id 0");
    check(
        &[record(b'd', &id, &[9]), record(b'm', &id, &member)],
        "unknown format",
    );
    check(
        &[record(b'd', &id, &[1]), record(b'm', &id, &member)],
        "and was removed",
    );
    check(&[record(b'd', &id, &[1])], "no member has a vote");
    let again = record(b'm', &2u64.to_be_bytes(), &member);
    check(
        &[record(b'm', &id, &member), again],
        "a peer URL of another",
    );
}

#[test]
fn who_cannot_found_a_group_stops_the_start() {
    let learner = Member {
        is_learner: true,
        ..founder(1)
    };
    let failed = Group::with_store(&[], &[learner]).map(|_| ());
    assert!(matches!(
        failed,
        Err(RestoreError::Founding(MembershipFault::NoVoter))
    ));
}

/// The first data directory that a member ran on is its only one.
#[test]
fn a_wiped_member_does_not_come_back_under_its_id() {
    let mut group = Group::found(&[founder(1), founder(2)]);
    assert!(group.apply(&publish(2, 8)).is_ok());
    let as_it_was = group.members();
    assert_eq!(group.apply(&publish(2, 9)), Err(Refusal::MemberInstance));
    assert_eq!(group.apply(&publish(2, 8)), Ok(Answer::Members(as_it_was)));
    assert!(group.apply(&Command::MemberRemove { id: 2 }).is_ok());
    assert_eq!(group.apply(&publish(2, 8)), Err(Refusal::MemberNotFound));
    assert_eq!(
        group.apply(&add(2, "http://x", false)),
        Err(Refusal::MemberNotFound)
    );
    assert!(
        group.apply(&add(3, "https://m2:2380", true)).is_ok(),
        "its URLs are free"
    );
    assert!(group.apply(&publish(3, 9)).is_ok());
    assert_eq!(group.apply(&publish(77, 1)), Err(Refusal::MemberNotFound));
}

fn alarm(member: u64, kind: AlarmKind) -> Alarm {
    Alarm { member, kind }
}

fn token_key(kid: &str, member: u64) -> Command {
    Command::PublishTokenKey {
        key: TokenKeyRecord {
            kid: kid.into(),
            public_key: [member as u8; 32],
            made_at: 1,
            member,
            retires_at: None,
        },
        retire_older_at: None,
    }
}

/// Nobody could mend its disk any more, and its disk has the keys.
#[test]
fn alarms_and_token_keys_go_with_their_member() {
    let mut group =
        Group::with_store(&[revision_record(OTHER)], &[founder(1), founder(2)]).unwrap();
    for kid in [
        token_key("one", 1),
        token_key("two", 2),
        token_key("too", 2),
    ] {
        assert!(group.apply(&kid).is_ok());
    }
    for (tenant, alarm) in [
        (TenantId::DEFAULT, alarm(1, AlarmKind::NoSpace)),
        (TenantId::DEFAULT, alarm(2, AlarmKind::NoSpace)),
        (OTHER, alarm(2, AlarmKind::Corrupt)),
    ] {
        let raised = group.apply_by(tenant, &Caller::Server, &Command::RaiseAlarm(alarm));
        assert!(raised.is_ok());
    }
    assert!(group.apply(&Command::MemberRemove { id: 2 }).is_ok());
    for restarted in [false, true] {
        if restarted {
            group.restart(&[]);
        }
        let tenants = group.machine().tenants().clone();
        let of_default = tenants.get(TenantId::DEFAULT).unwrap();
        assert_eq!(of_default.alarms(), [alarm(1, AlarmKind::NoSpace)]);
        assert!(of_default.is_alarmed(AlarmKind::NoSpace));
        let of_other = tenants.get(OTHER).unwrap();
        assert_eq!(of_other.alarms(), []);
        assert!(!of_other.is_alarmed(AlarmKind::Corrupt));
        let keys: Vec<_> = tenants
            .token_keys()
            .iter()
            .map(|key| key.kid.clone())
            .collect();
        assert_eq!(keys, ["one"]);
        // What it proposed before it heard that it is removed.
        let late = Command::RaiseAlarm(alarm(2, AlarmKind::Corrupt));
        assert_eq!(group.apply(&late), Err(Refusal::MemberNotFound));
        assert_eq!(
            group.apply(&token_key("new", 2)),
            Err(Refusal::MemberNotFound)
        );
    }
}

/// To remove the member that is wrong is the repair.
#[test]
fn alarms_do_not_keep_members_from_being_changed() {
    let mut group = Group::found(&[founder(1), founder(2)]);
    for kind in [AlarmKind::NoSpace, AlarmKind::Corrupt] {
        assert!(group.apply(&Command::RaiseAlarm(alarm(2, kind))).is_ok());
    }
    let put = Command::Put(Put {
        key: "k".into(),
        value: "v".into(),
        lease: 0,
        previous: false,
        keep_value: false,
        keep_lease: false,
    });
    assert_eq!(group.apply(&put), Err(Refusal::Corrupt));
    assert!(group.apply(&publish(1, 1)).is_ok());
    assert!(group.apply(&add(3, "http://c", true)).is_ok());
    assert!(group.apply(&Command::MemberPromote { id: 3 }).is_ok());
    assert!(group.apply(&Command::MemberRemove { id: 2 }).is_ok());
    assert!(group.apply(&put).is_ok(), "its alarms are gone");
}

/// Judged where the command stands in the log, as everything else is.
#[test]
fn only_root_of_tenant_default_changes_members() {
    let mut group =
        Group::with_store(&[revision_record(OTHER)], &[founder(1), founder(2)]).unwrap();
    let user = |id| Caller::User {
        id: UserId(id),
        token: None,
    };
    let changes = [
        add(3, "http://c", true),
        Command::MemberPromote { id: 3 },
        Command::MemberUpdate {
            id: 3,
            peer_urls: vec!["http://d".into()],
        },
        Command::MemberRemove { id: 3 },
    ];
    for tenant in [TenantId::DEFAULT, OTHER] {
        let name = |name: &str| name.to_owned();
        for change in [
            AuthChange::UserAdd {
                name: name("root"),
                password: None,
            },
            AuthChange::UserAdd {
                name: name("ann"),
                password: None,
            },
            AuthChange::RoleAdd { name: name("root") },
            AuthChange::UserGrantRole {
                user: name("root"),
                role: name("root"),
            },
            AuthChange::Enable,
        ] {
            let outcome = group.apply_by(tenant, &Caller::Server, &Command::Auth(change));
            // A cluster may begin with the role.
            assert!(
                outcome.is_ok()
                    || outcome == Err(Refusal::Auth(holdfast_auth::AuthError::RoleExists)),
                "{outcome:?}"
            );
        }
    }
    let id_of = |group: &mut Group, tenant, name: &str| {
        let tenant = group.machine().tenants().get(tenant).unwrap();
        let auth = tenant.auth();
        auth.user(name).unwrap().id.0
    };
    let denied = Err(Refusal::Denied(Denied::NotPermitted));
    let ann = user(id_of(&mut group, TenantId::DEFAULT, "ann"));
    let root = user(id_of(&mut group, TenantId::DEFAULT, "root"));
    let root_of_other = user(id_of(&mut group, OTHER, "root"));
    for change in &changes {
        assert_eq!(group.apply_by(TenantId::DEFAULT, &ann, change), denied);
        assert!(
            group
                .apply_by(TenantId::DEFAULT, &Caller::Anonymous, change)
                .is_err()
        );
        assert_eq!(group.apply_by(OTHER, &root_of_other, change), denied);
        assert_eq!(group.apply_by(OTHER, &Caller::Server, change), denied);
        let by_root = group.apply_by(TenantId::DEFAULT, &root, change);
        assert!(by_root.is_ok(), "{change:?}: {by_root:?}");
    }
    assert_eq!(
        group.apply_by(TenantId::DEFAULT, &root, &publish(1, 4)),
        denied
    );
    assert_eq!(group.members().get(1).unwrap().instance, 0);
    assert!(group.apply(&publish(1, 4)).is_ok());
}
