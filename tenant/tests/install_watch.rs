//! Watches while a received state takes the place of the machine's, case by case. `revocation.rs` has what chance brings about.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod model;
mod world;

use holdfast_auth::{AuthChange, Caller, KeyRange, Permission, PermissionKind};
use holdfast_tenant::Command;
use holdfast_tenant::watch::{DeliveryKind, Message, WatchRequest};
use world::{World, delete, put, watch};

const DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
const UNSURE: &str =
    "rpc error: code = Unavailable desc = etcdserver: permissions may have changed, watch again";

fn auth(change: AuthChange) -> Command {
    Command::Auth(change)
}

fn add(name: &str) -> Command {
    auth(AuthChange::UserAdd {
        name: name.into(),
        password: None,
    })
}

fn grant(user: &str, role: &str) -> Command {
    auth(AuthChange::UserGrantRole {
        user: user.into(),
        role: role.into(),
    })
}

fn revoke(user: &str, role: &str) -> Command {
    auth(AuthChange::UserRevokeRole {
        user: user.into(),
        role: role.into(),
    })
}

/// Users root, and ann, who has role r, which reads everything; in force.
fn world() -> World {
    let mut world = World::new(1);
    let reads = AuthChange::RoleGrantPermission {
        role: "r".into(),
        permission: Some(Permission {
            keys: KeyRange::All,
            kind: PermissionKind::Read,
        }),
    };
    world.apply(&[
        add("root"),
        grant("root", "root"),
        add("ann"),
        auth(AuthChange::RoleAdd { name: "r".into() }),
        auth(reads),
        grant("ann", "r"),
        auth(AuthChange::Enable),
    ]);
    world
}

fn user(world: &World, name: &str) -> Caller {
    world.model.auth.user(name, true).unwrap()
}

fn install(world: &mut World, commands: &[Command]) {
    let entry = |command: &Command| vec![(Caller::Server, command.clone())];
    let entries: Vec<_> = commands.iter().map(entry).collect();
    world.install(&entries, true);
}

/// What came since the creation, as text, watch by watch.
fn told(world: &World) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for delivery in &world.streams[0].history {
        let id = delivery.watch_id;
        match &delivery.kind {
            DeliveryKind::Events { events, .. } => {
                let texts = events.iter().map(|event| String::from_utf8_lossy(event));
                told.extend(texts.map(|text| format!("{id}: {text}")));
            }
            DeliveryKind::Canceled { compacted, reason } => told.push(format!(
                "{id}: ends at {}, compacted {compacted}: {reason}",
                delivery.revision
            )),
            DeliveryKind::Progress => told.push(format!("{id}: {}", delivery.revision)),
            DeliveryKind::Created => {}
            DeliveryKind::Rejected { reason } => panic!("{reason}"),
        }
    }
    told.sort_by_key(|text| text.split(':').next().map(str::to_owned));
    told
}

/// What waits in the inbox comes first, then what the store has of the gap, then what is applied after it.
#[test]
fn what_lies_in_the_gap_comes_once_and_in_its_place() {
    let mut world = World::new(1);
    world.apply(&[put("a", "1")]);
    // One that is current, and one that is behind when it happens.
    world.create(0, watch(KeyRange::All));
    world.step();
    let past = WatchRequest {
        start: 2,
        previous: true,
        ..watch(KeyRange::All)
    };
    world.create(0, past);
    world.apply(&[put("a", "2")]);
    install(
        &mut world,
        &[put("a", "3"), delete(KeyRange::All), put("b", "4")],
    );
    world.apply(&[put("b", "5")]);
    world.check_all();
    assert_eq!(
        told(&world),
        [
            "0: 3.0 P a=2|none",
            "0: 4.0 P a=3|none",
            "0: 5.0 D a=|none",
            "0: 6.0 P b=4|none",
            "0: 7.0 P b=5|none",
            "1: 2.0 P a=1|none",
            "1: 3.0 P a=2|2.0 1",
            "1: 4.0 P a=3|3.0 2",
            "1: 5.0 D a=|4.0 3",
            "1: 6.0 P b=4|none",
            "1: 7.0 P b=5|6.0 4",
        ]
    );
    let stream = world.streams[0].id;
    world.inbox().push(Message::Progress { stream });
    world.check_all();
    assert!(told(&world).contains(&"-1: 7".to_owned()));
}

/// A watch that had everything up to the gap goes on, whatever was compacted of what it had; one that lacks what was compacted ends.
#[test]
fn only_who_lacks_what_was_compacted_in_the_gap_ends() {
    let mut world = World::new(1);
    world.create(0, watch(KeyRange::Point("idle".into())));
    world.step();
    for _ in 0..5 {
        world.apply(&[put("a", "1")]);
    }
    world.step();
    let past = WatchRequest {
        start: 3,
        ..watch(KeyRange::All)
    };
    world.create(0, past.clone());
    install(
        &mut world,
        &[
            put("idle", "2"),
            Command::Compact { revision: 6 },
            put("idle", "3"),
        ],
    );
    world.check_all();
    let expected = [
        "0: 7.0 P idle=2|none",
        "0: 8.0 P idle=3|none",
        "1: ends at 0, compacted 6: ",
    ];
    assert_eq!(told(&world), expected);
    // And with the mark beyond what the first had.
    install(
        &mut world,
        &[
            put("idle", "4"),
            put("idle", "5"),
            Command::Compact { revision: 10 },
        ],
    );
    world.check_all();
    let told = told(&world);
    assert!(
        told.contains(&"0: ends at 0, compacted 10: ".to_owned()),
        "{told:?}"
    );
}

#[test]
fn who_may_no_longer_watch_gets_nothing_of_the_gap() {
    let mut world = world();
    let (ann, root) = (user(&world, "ann"), user(&world, "root"));
    world.create_by(0, watch(KeyRange::All), ann);
    world.create_by(0, watch(KeyRange::All), root);
    world.step();
    world.apply(&[put("a", "1")]);
    world.step();
    install(
        &mut world,
        &[put("a", "2"), revoke("ann", "r"), put("a", "3")],
    );
    world.apply(&[put("a", "4")]);
    world.check_all();
    assert_eq!(
        told(&world),
        [
            "0: 2.0 P a=1|none".to_owned(),
            format!("0: ends at 2, compacted 0: {DENIED}"),
            "1: 2.0 P a=1|none".to_owned(),
            "1: 3.0 P a=2|none".to_owned(),
            "1: 4.0 P a=3|none".to_owned(),
            "1: 5.0 P a=4|none".to_owned(),
        ]
    );
}

/// Elsewhere the watch has ended at the revision where the permission was taken away. Where it was cannot be seen here.
#[test]
fn a_permission_that_was_taken_and_given_back_in_the_gap_ends_the_watch() {
    let mut world = world();
    let (ann, root) = (user(&world, "ann"), user(&world, "root"));
    world.create_by(0, watch(KeyRange::All), ann.clone());
    world.create_by(0, watch(KeyRange::All), root);
    world.step();
    world.apply(&[put("a", "1")]);
    install(
        &mut world,
        &[
            revoke("ann", "r"),
            put("a", "2"),
            grant("ann", "r"),
            put("a", "3"),
        ],
    );
    world.check_all();
    assert_eq!(
        told(&world),
        [
            "0: 2.0 P a=1|none".to_owned(),
            format!("0: ends at 2, compacted 0: {UNSURE}"),
            "1: 2.0 P a=1|none".to_owned(),
            "1: 3.0 P a=2|none".to_owned(),
            "1: 4.0 P a=3|none".to_owned(),
        ]
    );
    // It is made again where it ended: now it is permitted.
    let again = WatchRequest {
        id: 7,
        start: 3,
        ..watch(KeyRange::All)
    };
    world.create_by(0, again, ann);
    world.check_all();
    let told = told(&world);
    assert!(told.ends_with(&[
        "7: 3.0 P a=2|none".to_owned(),
        "7: 4.0 P a=3|none".to_owned()
    ]));
}

#[test]
fn without_a_change_of_users_and_roles_nobody_is_ended() {
    let mut world = world();
    let ann = user(&world, "ann");
    world.create_by(0, watch(KeyRange::All), ann);
    world.step();
    install(&mut world, &[put("a", "1")]);
    world.apply(&[put("a", "2")]);
    world.check_all();
    assert_eq!(told(&world), ["0: 2.0 P a=1|none", "0: 3.0 P a=2|none"]);
}
