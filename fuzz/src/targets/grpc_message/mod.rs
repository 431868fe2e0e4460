//! Messages of clients: decoding, lowering, and the decision.
//!
//! Input: which message (one byte), and the message.
//!
//! * Decoding and lowering return; a decoded message encodes and decodes to itself.
//! * For users with a few grants the decision is exactly that of `rights`, which reads the keys out of the wire message by itself and
//!   looks at single keys.
//! * A command that is granted can be read back from the log, and there asks for the same.
//! * None of them may do what administrators do.

mod rights;

use crate::input::Input;
use crate::lower;
use bytes::Bytes;
use holdfast_auth::{
    AuthChange, AuthState, Caller, Demands, Denied, KeyRange, Permission, PermissionKind, UserId,
    Verb, policy,
};
use holdfast_proto::etcdserverpb as pb;
use holdfast_storage::TenantId;
use holdfast_tenant::Command;
use prost::Message;
use rights::{Rights, Wish};
use std::sync::{Arc, LazyLock};

const KV: &str = "/etcdserverpb.KV/";
const AUTH: &str = "/etcdserverpb.Auth/";
const MAX_TXN_OPS: usize = 128;

pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let kind = input.u8();
    let message = Bytes::copy_from_slice(input.rest());
    match kind {
        0 => range(message),
        1 => put(message),
        2 => delete(message),
        3 => txn(message),
        4 => watch(message),
        5 => with(message, |wire: pb::CompactionRequest| {
            for_administrators(
                "/etcdserverpb.KV/Compact",
                Command::Compact {
                    revision: wire.revision,
                },
            );
        }),
        6 => with(message, |wire: pb::LeaseGrantRequest| {
            let command = Command::LeaseGrant {
                id: wire.id,
                ttl: wire.ttl,
            };
            comes_back(&command);
        }),
        7 => with(message, |wire: pb::LeaseRevokeRequest| {
            comes_back(&Command::LeaseRevoke { id: wire.id });
        }),
        8..=16 => auth_change(kind, message),
        17 => with(message, |_: pb::AuthenticateRequest| {}),
        18 => with(message, |_: pb::AlarmRequest| {}),
        19 => with(message, |_: pb::LeaseKeepAliveRequest| {}),
        20 => with(message, |_: pb::LeaseTimeToLiveRequest| {}),
        21 => with(message, |_: pb::HashKvRequest| {}),
        22 => with(message, |_: pb::DowngradeRequest| {}),
        23 => with(message, |_: pb::MemberListRequest| {}),
        24 => with(message, |_: pb::MoveLeaderRequest| {}),
        25 => with(message, |_: pb::AuthUserGetRequest| {}),
        26 => with(message, |_: pb::AuthRoleGetRequest| {}),
        _ => false,
    }
}

/// Decodes a message, sees that it is the same when it is encoded and decoded again, and goes on with it.
fn with<M: Message + Default + PartialEq>(message: Bytes, then: impl FnOnce(M)) -> bool {
    let Ok(wire) = M::decode(message) else {
        return false;
    };
    let again = M::decode(wire.encode_to_vec().as_slice());
    assert!(again.as_ref() == Ok(&wire), "it became another message");
    then(wire);
    true
}

fn range(message: Bytes) -> bool {
    with(message, |wire: pb::RangeRequest| {
        let mut wishes = Vec::new();
        rights::of_range(&wire, &mut wishes);
        if let Ok(range) = lower::range(wire) {
            decided("Range", &range, &wishes);
        }
    })
}

fn put(message: Bytes) -> bool {
    with(message, |wire: pb::PutRequest| {
        let mut wishes = Vec::new();
        rights::of_put(&wire, &mut wishes);
        let command = Command::Put(lower::put(wire));
        decided("Put", &command, &wishes);
        comes_back(&command);
    })
}

fn delete(message: Bytes) -> bool {
    with(message, |wire: pb::DeleteRangeRequest| {
        let mut wishes = Vec::new();
        rights::of_delete(&wire, &mut wishes);
        if let Ok(delete) = lower::delete(wire) {
            let command = Command::DeleteRange(delete);
            decided("DeleteRange", &command, &wishes);
            comes_back(&command);
        }
    })
}

fn txn(message: Bytes) -> bool {
    with(message, |wire: pb::TxnRequest| {
        let mut wishes = Vec::new();
        rights::of_txn(&wire, &mut wishes);
        let has_put = lower::has_put(&wire);
        if let Ok(txn) = lower::txn(wire, MAX_TXN_OPS) {
            assert_eq!(txn.has_put(), has_put);
            let command = Command::Txn(txn);
            decided("Txn", &command, &wishes);
            comes_back(&command);
        }
    })
}

struct Watched(KeyRange);

impl Demands for Watched {
    fn demands(&self, demand: &mut dyn FnMut(Verb, &KeyRange)) {
        demand(Verb::Read, &self.0);
    }
}

fn watch(message: Bytes) -> bool {
    with(message, |wire: pb::WatchRequest| {
        let Some(pb::watch_request::RequestUnion::CreateRequest(wire)) = wire.request_union else {
            return;
        };
        let wish = Wish::of_watch(&wire);
        let request = lower::watch(wire);
        decided_by("/etcdserverpb.Watch/Watch", &Watched(request.keys), &[wish]);
    })
}

/// Changes of users and roles: only for administrators, and applied to a state of their own they are an answer or a refusal.
fn auth_change(kind: u8, message: Bytes) -> bool {
    let change = match kind {
        8 => decode(message, |wire: pb::AuthUserAddRequest| {
            AuthChange::UserAdd {
                name: wire.name,
                password: None,
            }
        }),
        9 => decode(message, |wire: pb::AuthUserDeleteRequest| {
            AuthChange::UserDelete { name: wire.name }
        }),
        10 => decode(message, |wire: pb::AuthUserGrantRoleRequest| {
            AuthChange::UserGrantRole {
                user: wire.user,
                role: wire.role,
            }
        }),
        11 => decode(message, |wire: pb::AuthUserRevokeRoleRequest| {
            AuthChange::UserRevokeRole {
                user: wire.name,
                role: wire.role,
            }
        }),
        12 => decode(message, |wire: pb::AuthRoleAddRequest| {
            AuthChange::RoleAdd { name: wire.name }
        }),
        13 => decode(message, |wire: pb::AuthRoleDeleteRequest| {
            AuthChange::RoleDelete { name: wire.role }
        }),
        14 => decode(message, |wire: pb::AuthRoleGrantPermissionRequest| {
            let permission = wire.perm.and_then(|perm| {
                let kind = match perm.perm_type {
                    0 => PermissionKind::Read,
                    1 => PermissionKind::Write,
                    _ => PermissionKind::ReadWrite,
                };
                Permission::from_pair(perm.key, perm.range_end, kind).ok()
            });
            AuthChange::RoleGrantPermission {
                role: wire.name,
                permission,
            }
        }),
        15 => decode(message, |wire: pb::AuthRoleRevokePermissionRequest| {
            AuthChange::RoleRevokePermission {
                role: wire.role,
                keys: KeyRange::from_pair(wire.key, wire.range_end),
            }
        }),
        _ => decode(message, |wire: pb::AuthUserChangePasswordRequest| {
            AuthChange::UserChangePassword {
                name: wire.name,
                password: None,
            }
        }),
    };
    let Some(change) = change else { return false };
    if let AuthChange::UserChangePassword { name, .. } = &change {
        let path = format!("{AUTH}UserChangePassword");
        for caller in &USERS.callers {
            let own = USERS.name_of(&caller.caller) == Some(name);
            assert_eq!(USERS.grants(caller, &path, &change), own);
        }
    } else {
        for_administrators(&format!("{AUTH}UserAdd"), Command::Auth(change.clone()));
        assert!(
            !USERS.callers.iter().any(|caller| USERS.grants(
                caller,
                &format!("{AUTH}UserGet"),
                &change
            )),
            "the policy alone keeps {change:?} from users"
        );
    }
    let mut state = USERS.state.clone();
    let before = USERS.state.clone();
    if state.apply(&change).is_err() {
        assert!(state == before, "a refused change changed something");
    }
    comes_back(&Command::Auth(change));
    true
}

fn decode<M: Message + Default + PartialEq>(
    message: Bytes,
    lower: impl FnOnce(M) -> AuthChange,
) -> Option<AuthChange> {
    let mut change = None;
    with(message, |wire| change = Some(lower(wire)));
    change
}

fn for_administrators(path: &str, command: Command) {
    for caller in &USERS.callers {
        assert!(!USERS.grants(caller, path, &command), "{command:?}");
    }
    assert!(USERS.grants(&USERS.root, path, &command));
    comes_back(&command);
}

/// What goes into the log is read back from it: a member that cannot read an entry stops.
fn comes_back(command: &Command) {
    let mut entry = Vec::new();
    let caller = &USERS.callers[0].caller;
    command.encode(TenantId(1), caller, &mut entry);
    let mut entry = Bytes::from(entry);
    match Command::decode_next(&mut entry) {
        Ok(Some((TenantId(1), by, again))) => {
            assert_eq!(by, *caller);
            assert_eq!(again, *command);
        }
        other => panic!("{command:?} came back as {other:?}"),
    }
    assert!(entry.is_empty());
}

fn decided(rpc: &str, request: &impl Demands, wishes: &[Wish]) {
    decided_by(&format!("{KV}{rpc}"), request, wishes);
}

/// The decision for everybody is the one that the keys of the wire message call for.
fn decided_by(path: &str, request: &impl Demands, wishes: &[Wish]) {
    for caller in &USERS.callers {
        let granted = USERS.grants(caller, path, request);
        let covered = wishes.iter().all(|wish| caller.rights.cover(wish));
        assert_eq!(granted, covered, "{:?}: {wishes:?}", caller.caller);
    }
    assert!(USERS.grants(&USERS.root, path, request));
    let nobody = USERS.decide(&Caller::Anonymous, path, request);
    assert_eq!(nobody, Err(Denied::Unidentified));
    let unknown = Caller::User {
        id: UserId(u64::MAX),
        token: None,
    };
    let unknown = USERS.decide(&unknown, path, request);
    assert_eq!(unknown, Err(Denied::NotPermitted));
}

/// A caller, and what it may do.
struct Known {
    caller: Caller,
    rights: Rights,
}

struct Users {
    state: AuthState,
    callers: Vec<Known>,
    root: Known,
}

impl Users {
    fn decide(
        &self,
        caller: &Caller,
        path: &str,
        request: &(impl Demands + ?Sized),
    ) -> Result<(), Denied> {
        let policy = policy(path).expect("an RPC with a policy");
        self.state.access(caller)?.permits(policy, request)
    }

    fn grants(&self, caller: &Known, path: &str, request: &(impl Demands + ?Sized)) -> bool {
        self.decide(&caller.caller, path, request).is_ok()
    }

    fn name_of(&self, caller: &Caller) -> Option<&String> {
        static NAMES: LazyLock<[String; 2]> =
            LazyLock::new(|| ["narrow".to_owned(), "tail".to_owned()]);
        NAMES.iter().find(|name| {
            let user = self.state.user(name).expect("a user");
            matches!(caller, Caller::User { id, .. } if *id == user.id)
        })
    }
}

/// `narrow` holds a role of the same name, `tail` that and another; somebody of another issuer claims both, and to be root.
static USERS: LazyLock<Users> = LazyLock::new(|| {
    let mut state = AuthState::new();
    let mut apply = |change| state.apply(&change).map(drop).expect("a change");
    let text = str::to_owned;
    for role in ["narrow", "tail"] {
        apply(AuthChange::RoleAdd { name: text(role) });
    }
    for (role, kind, key, end) in rights::GRANTS {
        let permission = Permission::from_pair((*key).into(), (*end).into(), *kind);
        apply(AuthChange::RoleGrantPermission {
            role: text(role),
            permission: Some(permission.expect("a permission")),
        });
    }
    for (user, role) in [
        ("root", "root"),
        ("narrow", "narrow"),
        ("tail", "narrow"),
        ("tail", "tail"),
    ] {
        if !(user == "tail" && role == "tail") {
            apply(AuthChange::UserAdd {
                name: text(user),
                password: None,
            });
        }
        apply(AuthChange::UserGrantRole {
            user: text(user),
            role: text(role),
        });
    }
    apply(AuthChange::Enable);
    let user = |name: &str, roles: &[&str]| Known {
        caller: Caller::User {
            id: state.user(name).expect("a user").id,
            token: None,
        },
        rights: Rights::of(roles),
    };
    let claimed = ["narrow", "tail", "root", "missing"].map(Arc::from);
    let external = Known {
        caller: Caller::External {
            subject: "somebody".into(),
            roles: Arc::new(claimed),
        },
        rights: Rights::of(&["narrow", "tail"]),
    };
    let callers = vec![
        user("narrow", &["narrow"]),
        user("tail", &["narrow", "tail"]),
        external,
    ];
    let root = user("root", &[]);
    Users {
        state,
        callers,
        root,
    }
});
