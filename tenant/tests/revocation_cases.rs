//! Single cases of revocation, one for each way to lose the right to a watch.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod model;
mod world;

use holdfast_auth::{
    Affected, AuthChange, AuthState, Caller, KeyRange, Permission, PermissionKind, UserId,
};
use holdfast_storage::TenantId;
use holdfast_tenant::Command;
use holdfast_tenant::watch::{AuthNotice, DeliveryKind, Inbox, Message, Rights};
use std::sync::Arc;
use world::{World, main_of, put, span, watch};

const DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
const INVALID: &str = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
const NAMELESS: &str = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";

fn user_add(name: &str) -> Command {
    Command::Auth(AuthChange::UserAdd {
        name: name.into(),
        password: None,
    })
}

fn grant_role(user: &str, role: &str) -> Command {
    Command::Auth(AuthChange::UserGrantRole {
        user: user.into(),
        role: role.into(),
    })
}

fn revoke_role(user: &str, role: &str) -> Command {
    Command::Auth(AuthChange::UserRevokeRole {
        user: user.into(),
        role: role.into(),
    })
}

fn grant(role: &str, keys: KeyRange) -> Command {
    Command::Auth(AuthChange::RoleGrantPermission {
        role: role.into(),
        permission: Some(Permission {
            keys,
            kind: PermissionKind::Read,
        }),
    })
}

fn revoke(role: &str, keys: KeyRange) -> Command {
    Command::Auth(AuthChange::RoleRevokePermission {
        role: role.into(),
        keys,
    })
}

/// Users root and ann; ann has role r, which reads [a, c). Not yet in force.
fn world() -> World {
    let mut world = World::new(1);
    let role = Command::Auth(AuthChange::RoleAdd { name: "r".into() });
    world.apply(&[
        user_add("root"),
        grant_role("root", "root"),
        user_add("ann"),
        role,
        grant("r", span("a", "c")),
        grant_role("ann", "r"),
    ]);
    world
}

fn enabled() -> World {
    let mut world = world();
    world.apply(&[Command::Auth(AuthChange::Enable)]);
    world
}

fn ann(world: &World, with_token: bool) -> Caller {
    world.model.auth.user("ann", with_token).unwrap()
}

/// What came of events and ends, as text, watch by watch.
fn told(world: &World) -> Vec<String> {
    let deliveries = world.streams[0].history.iter();
    let told = deliveries.filter_map(|delivery| match &delivery.kind {
        DeliveryKind::Events { events, .. } => {
            let texts = events.iter().map(|event| String::from_utf8_lossy(event));
            let mains: Vec<_> = texts.map(|text| main_of(&text).to_string()).collect();
            Some(format!("{}: {}", delivery.watch_id, mains.join(" ")))
        }
        DeliveryKind::Canceled { reason, .. } => Some(format!(
            "{}: ends at {}: {reason}",
            delivery.watch_id, delivery.revision
        )),
        DeliveryKind::Rejected { reason } => Some(format!("rejected: {reason}")),
        DeliveryKind::Created | DeliveryKind::Progress => None,
    });
    let mut told: Vec<String> = told.collect();
    // In which order the watches of one event get it is nobody's business.
    told.sort_by_key(|text| text.split(':').next().map(str::to_owned));
    told
}

/// The order of an entry's commands is the order of what the hub is told: what is due before the change is delivered, what comes
/// after it is not, and what is given back does not bring the watch back.
#[test]
fn within_one_entry_the_end_stands_between_the_events() {
    let mut world = enabled();
    let caller = ann(&world, true);
    world.create_by(0, watch(KeyRange::Point("a".into())), caller);
    world.create_by(0, watch(KeyRange::Point("a".into())), Caller::Server);
    world.step();
    world.apply(&[
        put("a", "before"),
        revoke("r", span("a", "c")),
        put("a", "after"),
        grant("r", span("a", "c")),
        put("a", "given back"),
    ]);
    world.check_all();
    let ended = format!("0: ends at 2: {DENIED}");
    assert_eq!(told(&world), ["0: 2", &ended, "1: 2", "1: 3", "1: 4"]);
}

#[test]
fn a_deleted_user_watches_nothing_and_its_name_made_anew_is_somebody_else() {
    let mut world = enabled();
    let caller = ann(&world, false);
    world.create_by(0, watch(span("a", "b")), caller.clone());
    world.step();
    let delete = Command::Auth(AuthChange::UserDelete { name: "ann".into() });
    world.apply(&[
        delete,
        user_add("ann"),
        grant_role("ann", "r"),
        put("a", "x"),
    ]);
    world.create_by(0, watch(span("a", "b")), caller);
    world.check_all();
    let expected = [
        format!("0: ends at 1: {DENIED}"),
        format!("rejected: {DENIED}"),
    ];
    assert_eq!(told(&world), expected);
}

/// The password ends what was opened with a token, not what was opened with a certificate; other roles end neither while they grant
/// the keys.
#[test]
fn a_new_password_ends_the_watches_of_older_tokens() {
    let mut world = enabled();
    for with_token in [true, false] {
        let caller = ann(&world, with_token);
        world.create_by(0, watch(span("a", "b")), caller);
    }
    world.step();
    let role = Command::Auth(AuthChange::RoleAdd {
        name: "other".into(),
    });
    world.apply(&[role, grant_role("ann", "other"), put("a", "x")]);
    world.step();
    let change = AuthChange::UserChangePassword {
        name: "ann".into(),
        password: None,
    };
    world.apply(&[Command::Auth(change), put("a", "y")]);
    world.check_all();
    let ended = format!("0: ends at 2: {INVALID}");
    assert_eq!(told(&world), ["0: 2", &ended, "1: 2", "1: 3"]);
}

#[test]
fn a_role_that_is_taken_away_ends_what_only_it_granted() {
    let mut world = enabled();
    let role = Command::Auth(AuthChange::RoleAdd { name: "s".into() });
    world.apply(&[role, grant("s", span("b", "d")), grant_role("ann", "s")]);
    let caller = ann(&world, true);
    // By both, by the one, by the other.
    for keys in [span("a", "d"), span("a", "bb"), span("bb", "d")] {
        world.create_by(0, watch(keys), caller.clone());
    }
    world.step();
    world.apply(&[revoke_role("ann", "s"), put("bb", "x"), put("b", "x")]);
    world.check_all();
    let ends = |id| format!("{id}: ends at 1: {DENIED}");
    assert_eq!(told(&world), [ends(0), "1: 3".to_owned(), ends(2)]);
}

#[test]
fn switching_authentication_on_ends_what_nobody_opened() {
    let mut world = world();
    world.create(0, watch(KeyRange::Point("a".into())));
    world.step();
    world.apply(&[
        put("a", "x"),
        Command::Auth(AuthChange::Enable),
        put("a", "y"),
    ]);
    world.create(0, watch(KeyRange::Point("a".into())));
    world.check_all();
    let expected = [
        "0: 2".to_owned(),
        format!("0: ends at 2: {NAMELESS}"),
        format!("rejected: {NAMELESS}"),
    ];
    assert_eq!(told(&world), expected);
    // And off again: everybody may, and a token from before is worth nothing once it is on again.
    let caller = ann(&world, true);
    world.apply(&[Command::Auth(AuthChange::Disable)]);
    world.create(0, watch(KeyRange::All));
    world.create_by(0, watch(KeyRange::Point("a".into())), caller);
    world.step();
    world.apply(&[put("b", "z")]);
    world.step();
    world.apply(&[Command::Auth(AuthChange::Enable)]);
    world.check_all();
    let expected = [
        "0: 2".to_owned(),
        format!("0: ends at 2: {NAMELESS}"),
        "1: 4".to_owned(),
        format!("1: ends at 4: {NAMELESS}"),
        format!("2: ends at 4: {INVALID}"),
        format!("rejected: {NAMELESS}"),
    ];
    assert_eq!(told(&world), expected);
}

/// A caller whom another issuer vouches for has no record: a change of the roles that it names is looked for all the same.
#[test]
fn a_change_of_a_role_reaches_those_who_hold_it_by_their_token() {
    let mut world = enabled();
    let caller = |roles: &[&str]| Caller::External {
        subject: "ext".into(),
        roles: roles.iter().map(|role| Arc::from(*role)).collect(),
    };
    world.create_by(0, watch(span("a", "b")), caller(&["r", "root"]));
    world.create_by(0, watch(span("a", "b")), caller(&["root"]));
    world.step();
    world.apply(&[put("a", "x"), revoke("r", span("a", "c")), put("a", "y")]);
    world.check_all();
    let expected = [
        "0: 2".to_owned(),
        format!("0: ends at 2: {DENIED}"),
        format!("rejected: {DENIED}"),
    ];
    assert_eq!(told(&world), expected);
}

/// A stream without room owes its watches events from before the change. They are not paid from the store after it.
#[test]
fn a_slow_stream_gets_nothing_from_after_the_end() {
    let mut world = enabled();
    let caller = ann(&world, true);
    world.create_by(0, watch(KeyRange::Point("a".into())), caller);
    world.step();
    world.streams[0].sink.give_room(0);
    world.apply(&[put("a", "owed")]);
    world.step();
    // The stream has room again, and in the middle of the round that serves it the right is lost and the secret is written.
    for after in 0..6 {
        let again = [
            Command::Auth(AuthChange::RoleDelete { name: "r".into() }),
            put("a", "secret"),
        ];
        world.apply_within(
            after,
            again.map(|command| (Caller::Server, command)).to_vec(),
        );
        world.streams[0].sink.give_room(usize::MAX);
        world.check_all();
        let told = told(&world);
        let ends = told.iter().filter(|text| text.contains(DENIED)).count();
        assert_eq!(ends, after + 1, "{told:?}");
        // Once more from the beginning.
        let role = Command::Auth(AuthChange::RoleAdd { name: "r".into() });
        world.apply(&[role, grant("r", span("a", "c")), grant_role("ann", "r")]);
        let caller = ann(&world, true);
        world.create_by(0, watch(KeyRange::Point("a".into())), caller);
        world.step();
        world.streams[0].sink.give_room(0);
        world.apply(&[put("a", "owed")]);
        world.step();
    }
    world.check_all();
}

/// Changes that wait for the hub are bounded. Beyond the bound nobody knows any more whom they concerned: all watches end.
#[test]
fn more_changes_than_can_wait_end_all_watches() {
    let mut world = enabled();
    let caller = ann(&world, false);
    world.create_by(0, watch(span("a", "b")), caller.clone());
    world.step();
    let many = Command::Auth(AuthChange::UserChangePassword {
        name: "root".into(),
        password: None,
    });
    // Each counts for the users and roles that it keeps in memory.
    world.model.overflowed = true;
    for _ in 0..70 {
        world.apply(&vec![many.clone(); 400]);
    }
    world.apply(&[put("a", "x")]);
    world.create_by(0, watch(span("a", "b")), caller);
    world.settle();
    let lost = "rpc error: code = ResourceExhausted desc = etcdserver: too many requests";
    let ended = format!("0: ends at 1: {lost}");
    assert_eq!(told(&world), std::slice::from_ref(&ended));
    // What was asked for behind the changes goes on.
    world.apply(&[put("a", "y")]);
    world.settle();
    assert_eq!(told(&world), [ended, "1: 3".to_owned()]);
}

#[test]
fn what_waits_of_changes_is_bounded_and_keeps_its_place() {
    let inbox = Inbox::default();
    let notice = |revision| {
        Message::Auth(AuthNotice {
            tenant: TenantId::DEFAULT,
            revision,
            rights: Rights::Changed {
                affected: Affected::Some {
                    users: vec![(UserId(2), None); 1_000],
                    roles: Vec::new(),
                },
                state: Arc::new(AuthState::new()),
            },
        })
    };
    for revision in 1..1_000 {
        inbox.push(notice(revision));
        assert!(
            inbox.load().rights <= 100_000,
            "{} wait",
            inbox.load().rights
        );
    }
    assert!(inbox.load().rights > 0);
}
