//! Every method there is, called by nobody, by a bad token, by a user without rights, by a user with all keys, and by `root`.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use bytes::Bytes;
use holdfast_proto::{
    admin, authpb, etcdserverpb as pb, health, v3electionpb as election, v3lockpb as lock,
};
use holdfast_tests::{
    Guarded, Kind, Raw, all_methods, bad_token, denied, is_reference, reason, unidentified,
    watch_key,
    wire::{IntoOp, always, b, del, get, put},
};
use prost::Message;
use std::collections::BTreeSet;
use tonic::{Code, Status};

/// Who may call a method with the message of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Anybody.
    Nothing,
    /// Any user.
    User,
    /// A user with permissions on keys.
    Keys,
    /// Role `root`.
    Root,
}

struct Row {
    path: &'static str,
    need: Need,
    message: Bytes,
}

fn row(path: &'static str, need: Need, message: impl Message) -> Row {
    let message = message.encode_to_vec().into();
    Row {
        path,
        need,
        message,
    }
}

/// One valid message for every method; the one that ends all others comes last.
fn rows() -> Vec<Row> {
    use Need::{Keys, Nothing, Root, User};
    let name = || "somebody".to_owned();
    let create = pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(watch_key(
            "a",
        ))),
    };
    let leader = || election::LeaderKey {
        name: b("e"),
        key: b("e/1"),
        rev: 1,
        lease: 1,
    };
    let mut rows = vec![
        row("/etcdserverpb.KV/Range", Keys, get("a")),
        row("/etcdserverpb.KV/RangeStream", Keys, get("a")),
        row("/etcdserverpb.KV/Put", Keys, put("a", "1")),
        row("/etcdserverpb.KV/DeleteRange", Keys, del("a")),
        row("/etcdserverpb.KV/Txn", Keys, always(vec![get("a").op()])),
        row(
            "/etcdserverpb.KV/Compact",
            Root,
            pb::CompactionRequest {
                revision: 1,
                physical: false,
            },
        ),
        row("/etcdserverpb.Watch/Watch", Keys, create),
        row(
            "/etcdserverpb.Lease/LeaseGrant",
            User,
            pb::LeaseGrantRequest { ttl: 60, id: 0 },
        ),
        row(
            "/etcdserverpb.Lease/LeaseRevoke",
            User,
            pb::LeaseRevokeRequest { id: 404 },
        ),
        row(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            User,
            pb::LeaseKeepAliveRequest { id: 404 },
        ),
        row(
            "/etcdserverpb.Lease/LeaseTimeToLive",
            User,
            pb::LeaseTimeToLiveRequest {
                id: 404,
                keys: true,
            },
        ),
        row(
            "/etcdserverpb.Lease/LeaseLeases",
            User,
            pb::LeaseLeasesRequest {},
        ),
        row(
            "/etcdserverpb.Cluster/MemberAdd",
            Root,
            pb::MemberAddRequest {
                peer_ur_ls: vec!["http://127.0.0.1:1".to_owned()],
                is_learner: true,
            },
        ),
        row(
            "/etcdserverpb.Cluster/MemberRemove",
            Root,
            pb::MemberRemoveRequest { id: 404 },
        ),
        row(
            "/etcdserverpb.Cluster/MemberUpdate",
            Root,
            pb::MemberUpdateRequest {
                id: 404,
                peer_ur_ls: vec!["http://127.0.0.1:1".to_owned()],
            },
        ),
        row(
            "/etcdserverpb.Cluster/MemberList",
            User,
            pb::MemberListRequest { linearizable: true },
        ),
        row(
            "/etcdserverpb.Cluster/MemberPromote",
            Root,
            pb::MemberPromoteRequest { id: 404 },
        ),
        row(
            "/etcdserverpb.Maintenance/Alarm",
            User,
            pb::AlarmRequest {
                action: pb::alarm_request::AlarmAction::Get.into(),
                ..Default::default()
            },
        ),
        row(
            "/etcdserverpb.Maintenance/Status",
            User,
            pb::StatusRequest {},
        ),
        row(
            "/etcdserverpb.Maintenance/Defragment",
            Root,
            pb::DefragmentRequest {},
        ),
        row("/etcdserverpb.Maintenance/Hash", Root, pb::HashRequest {}),
        row(
            "/etcdserverpb.Maintenance/HashKV",
            Root,
            pb::HashKvRequest { revision: 0 },
        ),
        row(
            "/etcdserverpb.Maintenance/Snapshot",
            Root,
            pb::SnapshotRequest {},
        ),
        row(
            "/etcdserverpb.Maintenance/MoveLeader",
            Root,
            pb::MoveLeaderRequest { target_id: 404 },
        ),
        row(
            "/etcdserverpb.Maintenance/Downgrade",
            Root,
            pb::DowngradeRequest {
                action: pb::downgrade_request::DowngradeAction::Validate.into(),
                version: "3.6.0".to_owned(),
            },
        ),
        row(
            "/etcdserverpb.Auth/AuthEnable",
            Root,
            pb::AuthEnableRequest {},
        ),
        row(
            "/etcdserverpb.Auth/AuthStatus",
            Nothing,
            pb::AuthStatusRequest {},
        ),
        row(
            "/etcdserverpb.Auth/Authenticate",
            Nothing,
            pb::AuthenticateRequest {
                name: "u".to_owned(),
                password: holdfast_tests::password_of("u"),
            },
        ),
        row(
            "/etcdserverpb.Auth/UserAdd",
            Root,
            pb::AuthUserAddRequest {
                name: name(),
                password: "a long password".to_owned(),
                ..Default::default()
            },
        ),
        row(
            "/etcdserverpb.Auth/UserGet",
            Root,
            pb::AuthUserGetRequest { name: name() },
        ),
        row(
            "/etcdserverpb.Auth/UserList",
            Root,
            pb::AuthUserListRequest {},
        ),
        row(
            "/etcdserverpb.Auth/UserChangePassword",
            Root,
            pb::AuthUserChangePasswordRequest {
                name: name(),
                password: "another long password".to_owned(),
                ..Default::default()
            },
        ),
        row(
            "/etcdserverpb.Auth/RoleAdd",
            Root,
            pb::AuthRoleAddRequest { name: name() },
        ),
        row(
            "/etcdserverpb.Auth/RoleGet",
            Root,
            pb::AuthRoleGetRequest { role: name() },
        ),
        row(
            "/etcdserverpb.Auth/RoleList",
            Root,
            pb::AuthRoleListRequest {},
        ),
        row(
            "/etcdserverpb.Auth/UserGrantRole",
            Root,
            pb::AuthUserGrantRoleRequest {
                user: name(),
                role: name(),
            },
        ),
        row(
            "/etcdserverpb.Auth/UserRevokeRole",
            Root,
            pb::AuthUserRevokeRoleRequest {
                name: name(),
                role: name(),
            },
        ),
        row(
            "/etcdserverpb.Auth/RoleGrantPermission",
            Root,
            pb::AuthRoleGrantPermissionRequest {
                name: name(),
                perm: Some(authpb::Permission {
                    perm_type: Kind::Read.into(),
                    key: b("a"),
                    range_end: Bytes::new(),
                }),
            },
        ),
        row(
            "/etcdserverpb.Auth/RoleRevokePermission",
            Root,
            pb::AuthRoleRevokePermissionRequest {
                role: name(),
                key: b("a"),
                range_end: Bytes::new(),
            },
        ),
        row(
            "/etcdserverpb.Auth/RoleDelete",
            Root,
            pb::AuthRoleDeleteRequest { role: name() },
        ),
        row(
            "/etcdserverpb.Auth/UserDelete",
            Root,
            pb::AuthUserDeleteRequest { name: name() },
        ),
        row(
            "/v3lockpb.Lock/Lock",
            Keys,
            lock::LockRequest {
                name: b("l"),
                lease: 404,
            },
        ),
        row(
            "/v3lockpb.Lock/Unlock",
            Keys,
            lock::UnlockRequest { key: b("l") },
        ),
        row(
            "/v3electionpb.Election/Campaign",
            Keys,
            election::CampaignRequest {
                name: b("e"),
                lease: 404,
                value: b("v"),
            },
        ),
        row(
            "/v3electionpb.Election/Proclaim",
            Keys,
            election::ProclaimRequest {
                leader: Some(leader()),
                value: b("v"),
            },
        ),
        row(
            "/v3electionpb.Election/Leader",
            Keys,
            election::LeaderRequest { name: b("e") },
        ),
        row(
            "/v3electionpb.Election/Resign",
            Keys,
            election::ResignRequest {
                leader: Some(leader()),
            },
        ),
        row(
            "/grpc.health.v1.Health/Check",
            Nothing,
            health::HealthCheckRequest::default(),
        ),
        row(
            "/grpc.health.v1.Health/Watch",
            Nothing,
            health::HealthCheckRequest::default(),
        ),
    ];
    rows.push(row(
        "/holdfast.admin.v1.Admin/ListTokenKeys",
        Root,
        admin::ListTokenKeysRequest::default(),
    ));
    rows.push(row(
        "/holdfast.admin.v1.Admin/RotateTokenKey",
        Root,
        admin::RotateTokenKeyRequest::default(),
    ));
    rows.push(row(
        "/etcdserverpb.Auth/AuthDisable",
        Root,
        pb::AuthDisableRequest {},
    ));
    rows
}

/// A method whose call goes on without a message when it is permitted, so that only refusals of it can be asked for here.
fn observe() -> Row {
    let request = election::LeaderRequest { name: b("e") };
    row("/v3electionpb.Election/Observe", Need::Keys, request)
}

/// All rows whose calls come to an answer when they are refused. (etcd ends an Observe that it refuses without saying so.)
fn refusable() -> Vec<Row> {
    let mut rows = rows();
    rows.extend((!is_reference()).then(observe));
    rows
}

/// Makes the call of `row`. A watch that cannot be created counts as refused with the status of its reason.
async fn call(raw: &Raw, row: &Row) -> Result<(), Status> {
    let answer = raw.call_anything(row.path, row.message.clone()).await?;
    if row.path.ends_with("Watch/Watch") {
        let answer = pb::WatchResponse::decode(answer.unwrap()).unwrap();
        if answer.canceled {
            return Err(reason(&answer.cancel_reason));
        }
    }
    Ok(())
}

/// Whether the method is one that the server under test does not serve, and therefore refuses to everybody.
fn is_missing(row: &Row, answer: &Result<(), Status>) -> bool {
    let services: &[&str] = if is_reference() {
        &["/holdfast."]
    } else {
        &["/etcdserverpb.Cluster/", "/v3lockpb.", "/v3electionpb."]
    };
    let code = answer.as_ref().err().map(Status::code);
    code == Some(Code::Unimplemented)
        && services.iter().any(|service| row.path.starts_with(service))
}

/// The answer with the code that its text has elsewhere: etcd's locks and elections are clients of their own server, and lose
/// the code on the way.
fn with_code(row: &Row, answer: Result<(), Status>) -> Result<(), Status> {
    let recipe = row.path.starts_with("/v3lockpb.") || row.path.starts_with("/v3electionpb.");
    answer.map_err(|status| match status.message() {
        _ if !recipe || status.code() != Code::Unknown => status,
        "etcdserver: user name is empty" => Status::invalid_argument(status.message()),
        "etcdserver: permission denied" => Status::permission_denied(status.message()),
        "etcdserver: invalid auth token" => Status::unauthenticated(status.message()),
        _ => status,
    })
}

/// Whether who calls was the reason of a refusal.
fn is_about_the_caller(status: &Status) -> bool {
    let texts = ["permission denied", "user name is empty", "auth token"];
    matches!(
        status.code(),
        Code::PermissionDenied | Code::Unauthenticated
    ) || texts.iter().any(|text| status.message().contains(text))
}

/// The call got past all checks of the caller; `what` names it.
#[track_caller]
fn permitted(what: &str, answer: Result<(), Status>) {
    if let Err(status) = answer {
        assert!(!is_about_the_caller(&status), "{what}: {status:?}");
    }
}

#[test]
fn every_method_of_the_wire_protocol_has_a_row() {
    let mut rows = rows();
    rows.push(observe());
    let listed: BTreeSet<_> = rows.iter().map(|row| row.path.to_owned()).collect();
    assert_eq!(listed.len(), rows.len(), "a method with two rows");
    assert_eq!(listed, all_methods().into_iter().collect());
}

#[tokio::test]
async fn cve_2026_33413_nothing_but_the_public_calls_answers_without_identity() {
    let guarded = Guarded::start().await;
    guarded.add_user("u", &[]).await;
    let nobody = guarded.anonymous();
    let before = guarded.root.auth_revision().await;
    for row in refusable() {
        eprintln!("{}", row.path);
        let answer = call(&nobody, &row).await;
        if row.need == Need::Nothing {
            answer.unwrap();
        } else if !is_missing(&row, &answer) {
            unidentified(with_code(&row, answer));
        }
    }
    assert_eq!(guarded.root.auth_revision().await, before);
    assert_eq!(guarded.root.revision().await, 1);
}

#[tokio::test]
async fn a_bad_token_opens_nothing() {
    let guarded = Guarded::start().await;
    guarded.add_user("u", &[]).await;
    let raw = guarded.root.with_token("garbage");
    for row in refusable().iter().filter(|row| row.need != Need::Nothing) {
        eprintln!("{}", row.path);
        let answer = call(&raw, row).await;
        if !is_missing(row, &answer) {
            bad_token(with_code(row, answer));
        }
    }
    assert_eq!(guarded.root.revision().await, 1);
    // Who has a bad token must be able to get a good one.
    raw.authenticate("u", "the password of u").await.unwrap();
}

#[tokio::test]
async fn a_user_without_rights_gets_what_is_for_every_user() {
    let guarded = Guarded::start().await;
    let user = guarded.user("u", &[]).await;
    let before = guarded.root.auth_revision().await;
    for row in refusable() {
        eprintln!("{}", row.path);
        let answer = call(&user, &row).await;
        match row.need {
            Need::Nothing | Need::User => permitted(row.path, answer),
            Need::Keys | Need::Root if is_missing(&row, &answer) => {}
            Need::Keys | Need::Root => denied(with_code(&row, answer)),
        }
    }
    assert_eq!(guarded.root.auth_revision().await, before);
    assert_eq!(guarded.root.revision().await, 1);
}

#[tokio::test]
async fn all_keys_are_not_root() {
    let guarded = Guarded::start().await;
    let everything = [(Kind::Readwrite, "\0", "\0")];
    let user = guarded.user("u", &everything).await;
    let before = guarded.root.auth_revision().await;
    for row in rows() {
        eprintln!("{}", row.path);
        let answer = call(&user, &row).await;
        match row.need {
            Need::Nothing | Need::User | Need::Keys => permitted(row.path, answer),
            Need::Root if is_missing(&row, &answer) => {}
            Need::Root => denied(answer),
        }
    }
    assert_eq!(guarded.root.auth_revision().await, before);
}

#[tokio::test]
async fn root_may_call_everything() {
    let guarded = Guarded::start().await;
    guarded.add_user("u", &[]).await;
    for row in rows() {
        eprintln!("{}", row.path);
        permitted(row.path, call(&guarded.root, &row).await);
    }
    let status = guarded.root.auth_status().await.unwrap();
    assert!(!status.enabled, "root could not disable auth");
}

/// What the fix of CVE-2026-33413 took away in etcd and kube-apiserver needs.
#[tokio::test]
async fn issue_21466_status_alarms_and_members_are_for_any_user() {
    let guarded = Guarded::start().await;
    let user = guarded.user("u", &[]).await;
    assert!(user.status().await.unwrap().leader != 0);
    let get_alarms = pb::AlarmRequest::default();
    assert!(user.alarm(get_alarms).await.unwrap().alarms.is_empty());
    for linearizable in [true, false] {
        let request = pb::MemberListRequest { linearizable };
        let answer = user.cluster.clone().member_list(request).await.unwrap();
        assert_eq!(answer.into_inner().members.len(), 1);
    }
}

#[tokio::test]
async fn only_root_raises_and_clears_alarms() {
    use pb::alarm_request::AlarmAction::{Activate, Deactivate, Get};
    let guarded = Guarded::start().await;
    let everything = [(Kind::Readwrite, "\0", "\0")];
    let user = guarded.user("u", &everything).await;
    let request = |action: pb::alarm_request::AlarmAction| pb::AlarmRequest {
        action: action.into(),
        member_id: 0,
        alarm: pb::AlarmType::Nospace.into(),
    };
    for action in [Activate, Deactivate] {
        denied(user.alarm(request(action)).await);
        unidentified(guarded.anonymous().alarm(request(action)).await);
    }
    let alarms = user.alarm(request(Get)).await.unwrap().alarms;
    assert!(alarms.is_empty(), "{alarms:?}");
    guarded.root.alarm(request(Activate)).await.unwrap();
    let alarms = user.alarm(request(Get)).await.unwrap().alarms;
    assert_eq!(alarms.len(), 1);
    denied(user.alarm(request(Deactivate)).await);
    guarded.root.alarm(request(Deactivate)).await.unwrap();
}
