//! The error catalogue (behaviour §2): every row that a single node can produce, produced through a client.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

mod catalogue;

use catalogue::{CATALOGUE, How};
use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    Guarded, Kind, ROOT_PASSWORD, Raw, RawWatch, Server, ServerOptions, holdfast_only, refused,
    watch_key,
    wire::{IntoOp, always, b, del, get, put, put_leased},
};
use std::collections::BTreeSet;
use tonic::{Code, Status, metadata::AsciiMetadataValue};
use tonic_prost::ProstCodec;

/// What the calls of all cases were refused with.
#[derive(Default)]
struct Produced(BTreeSet<(i32, String)>);

impl Produced {
    /// Takes the answer to the call `what`, which must be a refusal of the catalogue.
    #[track_caller]
    fn take<T: std::fmt::Debug>(&mut self, what: &str, expected: &str, answer: Result<T, Status>) {
        let status = match answer {
            Ok(answer) => panic!("{what}: accepted: {answer:?}"),
            Err(status) => status,
        };
        let text = status.message().strip_prefix("etcdserver: ");
        let text = text.unwrap_or_else(|| panic!("{what}: no prefix: {status:?}"));
        assert_eq!(text, expected, "{what}");
        let row = CATALOGUE.iter().find(|row| row.text == text);
        let row = row.unwrap_or_else(|| panic!("{what}: not in the catalogue: {text}"));
        assert_eq!(status.code(), row.code, "{what}: {text}");
        self.0.insert((status.code().into(), text.to_owned()));
    }
}

#[tokio::test]
async fn every_row_that_a_single_node_can_produce() {
    let mut produced = Produced::default();
    kv(&mut produced).await;
    txn(&mut produced).await;
    leases(&mut produced).await;
    maintenance(&mut produced).await;
    auth(&mut produced).await;
    for row in CATALOGUE {
        let key = (i32::from(row.code), row.text.to_owned());
        let expected = matches!(row.how, How::Here);
        assert_eq!(produced.0.contains(&key), expected, "{}", row.text);
    }
}

async fn kv(produced: &mut Produced) {
    let server = Server::start();
    let raw = server.raw().await;
    let empty = "key is not provided";
    produced.take("range", empty, raw.range(get("")).await);
    produced.take("range stream", empty, raw.range_chunks(get("")).await);
    produced.take("put", empty, raw.put(put("", "v")).await);
    produced.take("delete", empty, raw.delete(del("")).await);
    for (sort_order, sort_target) in [(3, 0), (-1, 0), (0, 5), (1, -1), (99, 99)] {
        let request = pb::RangeRequest {
            sort_order,
            sort_target,
            ..get("a")
        };
        produced.take("range", "invalid sort option", raw.range(request).await);
    }
    let with_value = pb::PutRequest {
        ignore_value: true,
        ..put("a", "v")
    };
    produced.take("put", "value is provided", raw.put(with_value).await);
    let with_lease = pb::PutRequest {
        ignore_lease: true,
        ..put_leased("a", "v", 1)
    };
    produced.take("put", "lease is provided", raw.put(with_lease).await);
    let no_value = pb::PutRequest {
        ignore_value: true,
        ..put("a", "")
    };
    produced.take("put", "key not found", raw.put(no_value).await);
    let no_lease = pb::PutRequest {
        ignore_lease: true,
        ..put("a", "v")
    };
    produced.take("put", "key not found", raw.put(no_lease).await);
    produced.take(
        "put",
        "requested lease not found",
        raw.put(put_leased("a", "v", 9)).await,
    );
    let large = "v".repeat(1_600_000);
    produced.take(
        "put",
        "request is too large",
        raw.put(put("a", &large)).await,
    );
    let half = put("b", &large[..900_000]).op();
    let large = always(vec![put("a", &large[..900_000]).op(), half]);
    produced.take("txn", "request is too large", raw.txn(large).await);

    let future = "mvcc: required revision is a future revision";
    let compacted = "mvcc: required revision has been compacted";
    for value in ["1", "2", "3"] {
        raw.put(put("a", value)).await.unwrap();
    }
    let at = |revision| pb::RangeRequest {
        revision,
        ..get("a")
    };
    produced.take("range", future, raw.range(at(5)).await);
    produced.take("range stream", future, raw.range_chunks(at(5)).await);
    produced.take("hash", future, raw.hash_kv(5).await);
    produced.take("compact", future, raw.compact(5).await);
    raw.compact(3).await.unwrap();
    produced.take("range", compacted, raw.range(at(2)).await);
    produced.take("range stream", compacted, raw.range_chunks(at(2)).await);
    produced.take("compact", compacted, raw.compact(3).await);
    produced.take("hash", compacted, raw.hash_kv(2).await);

    let mut request = tonic::Request::new(get("a"));
    let bytes = AsciiMetadataValue::try_from(&b"3.6\xff"[..]).unwrap();
    request.metadata_mut().insert("client-api-version", bytes);
    let answer = raw.kv.clone().range(request).await;
    produced.take("range", "invalid client api version", answer);
}

async fn txn(produced: &mut Produced) {
    let server = Server::start();
    let raw = server.raw().await;
    let too_many = always(vec![get("a").op(); 129]);
    produced.take(
        "txn",
        "too many operations in txn request",
        raw.txn(too_many).await,
    );
    let twice = always(vec![put("a", "1").op(), put("a", "2").op()]);
    produced.take(
        "txn",
        "duplicate key given in txn request",
        raw.txn(twice).await,
    );
    let cases = [
        (pb::RequestOp { request: None }, "key not found"),
        (get("").op(), "key is not provided"),
        (put("", "").op(), "key is not provided"),
        (del("").op(), "key is not provided"),
        (put_leased("a", "v", 9).op(), "requested lease not found"),
        (
            pb::RangeRequest {
                sort_order: 7,
                ..get("a")
            }
            .op(),
            "invalid sort option",
        ),
        (
            pb::RangeRequest {
                revision: 7,
                ..get("a")
            }
            .op(),
            "mvcc: required revision is a future revision",
        ),
        (
            pb::PutRequest {
                ignore_value: true,
                ..put("a", "")
            }
            .op(),
            "key not found",
        ),
    ];
    for (op, expected) in cases {
        produced.take("txn", expected, raw.txn(always(vec![op])).await);
    }
    let compare = pb::Compare::default();
    let request = holdfast_tests::wire::txn(vec![compare], vec![], vec![]);
    produced.take("compare", "key is not provided", raw.txn(request).await);
}

async fn leases(produced: &mut Produced) {
    let server = Server::start();
    let raw = server.raw().await;
    let grant = |ttl, id| pb::LeaseGrantRequest { ttl, id };
    raw.grant(grant(60, 1)).await.unwrap();
    produced.take(
        "grant",
        "lease already exists",
        raw.grant(grant(60, 1)).await,
    );
    produced.take(
        "grant",
        "too large lease TTL",
        raw.grant(grant(9_000_000_001, 0)).await,
    );
    produced.take(
        "grant",
        "too large lease TTL",
        raw.grant(grant(i64::MAX, 2)).await,
    );
    produced.take("revoke", "requested lease not found", raw.revoke(2).await);
    produced.take("revoke", "requested lease not found", raw.revoke(0).await);
}

async fn maintenance(produced: &mut Produced) {
    let server = Server::start();
    let raw = server.raw().await;
    let mut maintenance = raw.maintenance.clone();
    let target = pb::MoveLeaderRequest { target_id: 404 };
    produced.take(
        "move leader",
        "bad leader transferee",
        maintenance.move_leader(target).await,
    );
    let me = raw.status().await.unwrap().leader;
    let raise = |alarm: pb::AlarmType, action: pb::alarm_request::AlarmAction| pb::AlarmRequest {
        action: action.into(),
        member_id: me,
        alarm: alarm.into(),
    };
    use pb::{
        AlarmType::{Corrupt, Nospace},
        alarm_request::AlarmAction::{Activate, Deactivate},
    };
    raw.alarm(raise(Nospace, Activate)).await.unwrap();
    produced.take(
        "put",
        "mvcc: database space exceeded",
        raw.put(put("a", "v")).await,
    );
    raw.alarm(raise(Nospace, Deactivate)).await.unwrap();
    raw.alarm(raise(Corrupt, Activate)).await.unwrap();
    produced.take("put", "corrupt cluster", raw.put(put("a", "v")).await);
    raw.alarm(raise(Corrupt, Deactivate)).await.unwrap();
    let validate = |version: &str| pb::DowngradeRequest {
        action: pb::downgrade_request::DowngradeAction::Validate.into(),
        version: version.to_owned(),
    };
    for (version, expected) in [
        ("three", "wrong downgrade target version format"),
        ("", "wrong downgrade target version format"),
        ("3.5", "invalid downgrade target version"),
        ("3.5.0", "invalid downgrade target version"),
        ("3.7.0", "invalid downgrade target version"),
        ("4.0.0", "invalid downgrade target version"),
    ] {
        let answer = maintenance.downgrade(validate(version)).await;
        produced.take(version, expected, answer);
    }
}

async fn auth(produced: &mut Produced) {
    let server = Server::start_with(Guarded::options(ServerOptions::new()));
    let raw = server.raw().await;
    let off = "authentication is not enabled";
    produced.take("login", off, raw.authenticate("root", ROOT_PASSWORD).await);
    let enable = raw.enable_auth().await;
    produced.take("enable", "root user does not exist", enable);
    raw.user_add("root", ROOT_PASSWORD).await.unwrap();
    let enable = raw.enable_auth().await;
    produced.take("enable", "root user does not have root role", enable);

    let nameless = raw.user_add("", ROOT_PASSWORD).await;
    produced.take("user", "user name is empty", nameless);
    let again = raw.user_add("root", ROOT_PASSWORD).await;
    produced.take("user", "user name already exists", again);
    let delete = raw.user_delete("nobody").await;
    produced.take("user", "user name not found", delete);
    let nameless = raw.role_add("").await;
    produced.take("role", "role name is empty", nameless);
    raw.role_add("r").await.unwrap();
    let again = raw.role_add("r").await;
    produced.take("role", "role name already exists", again);
    let delete = raw.role_delete("nobody").await;
    produced.take("role", "role name not found", delete);
    let revoke = raw.user_revoke_role("root", "r").await;
    produced.take("user", "role is not granted to the user", revoke);
    let revoke = raw.role_revoke("r", "a", "").await;
    produced.take("role", "permission is not granted to the role", revoke);
    let nothing = pb::AuthRoleGrantPermissionRequest {
        name: "r".to_owned(),
        perm: None,
    };
    let grant = raw.role_grant_call(nothing).await;
    produced.take("role", "permission not given", grant);
    let backwards = raw.role_grant("r", (Kind::Read, "b", "a")).await;
    produced.take("role", "invalid auth management", backwards);

    raw.user_grant_role("root", "root").await.unwrap();
    raw.user_add("u", "a long password").await.unwrap();
    raw.enable_auth().await.unwrap();
    produced.take("nobody", "user name is empty", raw.range(get("a")).await);
    let garbage = raw.with_token("garbage").range(get("a")).await;
    produced.take("bad token", "invalid auth token", garbage);
    let failed = "authentication failed, invalid user ID or password";
    produced.take("login", failed, raw.authenticate("u", "guess").await);
    let user = raw.login("u", "a long password").await.unwrap();
    produced.take("user", "permission denied", user.range(get("a")).await);
}

#[tokio::test]
async fn a_message_above_the_receive_limit_is_refused_with_grpcs_text() {
    let server = Server::start();
    let raw = server.raw().await;
    let value = "v".repeat(2_200_000);
    let status = raw.put(put("a", &value)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let size = prost::Message::encoded_len(&put("a", &value));
    let limit = 1_572_864 + 512 * 1024;
    let expected = format!("grpc: received message larger than max ({size} vs. {limit})");
    assert_eq!(status.message(), expected);
    assert_eq!(raw.revision().await, 1, "the connection goes on");
}

#[tokio::test]
async fn the_request_limit_is_a_flag() {
    let server = Server::start_with(ServerOptions::new().flag("--max-request-bytes=20000"));
    let raw = server.raw().await;
    raw.put(put("a", &"v".repeat(15_000))).await.unwrap();
    refused(
        raw.put(put("a", &"v".repeat(20_000))).await,
        Code::InvalidArgument,
        "etcdserver: request is too large",
    );
    let huge = raw.put(put("a", &"v".repeat(600_000))).await.unwrap_err();
    assert_eq!(huge.code(), Code::ResourceExhausted);
    assert!(
        huge.message().ends_with("vs. 544288)"),
        "{}",
        huge.message()
    );
}

/// Calls a method by its path.
async fn call(raw: &Raw, path: &'static str) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(raw.channel.clone());
    client.ready().await.unwrap();
    let codec = ProstCodec::<pb::StatusRequest, pb::StatusResponse>::default();
    let path = http::uri::PathAndQuery::from_static(path);
    client
        .unary(tonic::Request::new(pb::StatusRequest {}), path, codec)
        .await
        .map(|_| ())
}

#[tokio::test]
async fn unknown_calls_are_unimplemented() {
    let server = Server::start();
    let raw = server.raw().await;
    for path in [
        "/etcdserverpb.KV/Nothing",
        "/etcdserverpb.Nobody/Nothing",
        "/etcdserverpb.Maintenance/DowngradeInfo",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        let status = call(&raw, path).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }
    call(&raw, "/etcdserverpb.Maintenance/Status")
        .await
        .unwrap();
}

#[tokio::test]
async fn calls_that_come_later_are_unimplemented_until_then() {
    holdfast_only!();
    let server = Server::start();
    let raw = server.raw().await;
    for path in [
        "/v3lockpb.Lock/Lock",
        "/v3lockpb.Lock/Unlock",
        "/v3electionpb.Election/Campaign",
        "/v3electionpb.Election/Proclaim",
        "/v3electionpb.Election/Leader",
        "/v3electionpb.Election/Resign",
    ] {
        let status = call(&raw, path).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn a_refused_call_leaves_the_connection_and_its_streams_alone() {
    let server = Server::start();
    let raw = server.raw().await;
    let (mut watch, _) = RawWatch::on(&raw, watch_key("a")).await;
    for _ in 0..50 {
        refused(
            raw.put(put("", "v")).await,
            Code::InvalidArgument,
            "etcdserver: key is not provided",
        );
    }
    let bad_watch = watch
        .create(pb::WatchCreateRequest {
            range_end: b("a"),
            ..watch_key("b")
        })
        .await;
    assert!(bad_watch.canceled);
    raw.put(put("a", "v")).await.unwrap();
    assert_eq!(watch.events(1).await.len(), 1);
}

#[tokio::test]
async fn garbage_in_a_message_is_refused() {
    let server = Server::start();
    let raw = server.raw().await;
    // A field of the wrong wire type, sent through a message type that holds any bytes there.
    let mut client = tonic::client::Grpc::new(raw.channel.clone());
    client.ready().await.unwrap();
    let codec = ProstCodec::<pb::HashKvRequest, pb::RangeResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Range");
    let request = tonic::Request::new(pb::HashKvRequest { revision: 5 });
    let status = client.unary(request, path, codec).await.unwrap_err();
    // To Go's decoder a field of another type is an unknown one, so etcd finds the key missing instead.
    assert!(
        matches!(status.code(), Code::Internal | Code::InvalidArgument),
        "{status:?}"
    );
    assert_eq!(raw.revision().await, 1);
}
