//! The quota and the alarms (behaviour §3.10).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

use etcd_client::{AlarmAction, AlarmType};
use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    Raw, Server, ServerOptions, http_get, refused, refused_by,
    wire::{IntoOp, always, del, del_range, everything, exists, get, put, revision, txn},
};
use pb::alarm_request::AlarmAction as Action;
use tonic::Code;

const NOSPACE: &str = "etcdserver: mvcc: database space exceeded";
const CORRUPT: &str = "etcdserver: corrupt cluster";

fn alarm(action: Action, member_id: u64, alarm: pb::AlarmType) -> pb::AlarmRequest {
    pb::AlarmRequest {
        action: action.into(),
        member_id,
        alarm: alarm.into(),
    }
}

async fn alarms(raw: &Raw) -> Vec<(u64, i32)> {
    let answer = raw
        .alarm(alarm(Action::Get, 0, pb::AlarmType::None))
        .await
        .unwrap();
    answer
        .alarms
        .iter()
        .map(|alarm| (alarm.member_id, alarm.alarm))
        .collect()
}

/// Puts until the quota refuses.
async fn fill(raw: &Raw) {
    for index in 0..500 {
        match raw
            .put(put(&format!("fill/{index:04}"), &"v".repeat(2_000)))
            .await
        {
            Ok(_) => {}
            Err(status) => {
                assert_eq!(
                    (status.code(), status.message()),
                    (Code::ResourceExhausted, NOSPACE)
                );
                assert!(index > 3, "refused after {index} puts of 2 KB");
                return;
            }
        }
    }
    panic!("1 MB went into 52 KiB");
}

fn small() -> ServerOptions {
    // The smallest quota that harnesses use (behaviour §6.1): 13 pages.
    ServerOptions::new().flag("--quota-backend-bytes=53248")
}

#[tokio::test]
async fn a_full_store_raises_the_alarm_and_is_freed_by_hand() {
    let mut server = Server::start_with(small());
    let raw = server.raw().await;
    raw.grant(pb::LeaseGrantRequest { ttl: 600, id: 5 })
        .await
        .unwrap();
    assert!(alarms(&raw).await.is_empty());
    fill(&raw).await;
    let me = raw.status().await.unwrap().header.unwrap().member_id;
    assert_eq!(
        alarms(&raw).await,
        [(me, i32::from(pb::AlarmType::Nospace))]
    );
    let errors = raw.status().await.unwrap().errors;
    assert!(
        errors.iter().any(|error| error.contains("NOSPACE")),
        "{errors:?}"
    );

    // Refused: whatever may add rows. The quota is looked at before the request itself.
    refused(
        raw.put(put("small", "v")).await,
        Code::ResourceExhausted,
        NOSPACE,
    );
    refused(
        raw.put(put("", "v")).await,
        Code::ResourceExhausted,
        NOSPACE,
    );
    let request = pb::LeaseGrantRequest { ttl: 600, id: 0 };
    refused(raw.grant(request).await, Code::ResourceExhausted, NOSPACE);
    for request in [
        always(vec![put("small", "v").op()]),
        txn(
            vec![exists("nobody")],
            vec![put("small", "v").op()],
            vec![get("a").op()],
        ),
        txn(vec![], vec![get("a").op()], vec![put("small", "v").op()]),
        always(vec![always(vec![put("small", "v").op()]).op()]),
    ] {
        refused(raw.txn(request).await, Code::ResourceExhausted, NOSPACE);
    }

    // Allowed: reads, deletes, txns without puts, revokes, compaction, defragmentation.
    assert!(raw.range(everything()).await.unwrap().count > 3);
    raw.txn(always(vec![get("a").op(), del("fill/0000").op()]))
        .await
        .unwrap();
    raw.revoke(5).await.unwrap();
    let deleted = raw.delete(del_range("fill/", "fill0")).await.unwrap();
    assert!(deleted.deleted > 3);
    let last = revision(&deleted.header);
    raw.compaction(pb::CompactionRequest {
        revision: last,
        physical: true,
    })
    .await
    .unwrap();
    raw.maintenance
        .clone()
        .defragment(pb::DefragmentRequest {})
        .await
        .unwrap();
    refused(
        raw.put(put("a", "v")).await,
        Code::ResourceExhausted,
        NOSPACE,
    );

    // It lasts over a restart, until it is taken back by member and type.
    server.kill();
    server.restart();
    let raw = server.raw().await;
    assert_eq!(
        alarms(&raw).await,
        [(me, i32::from(pb::AlarmType::Nospace))]
    );
    refused(
        raw.put(put("a", "v")).await,
        Code::ResourceExhausted,
        NOSPACE,
    );
    raw.alarm(alarm(Action::Deactivate, 0, pb::AlarmType::Nospace))
        .await
        .unwrap();
    raw.alarm(alarm(Action::Deactivate, me, pb::AlarmType::Corrupt))
        .await
        .unwrap();
    assert_eq!(
        alarms(&raw).await.len(),
        1,
        "another member's or another alarm"
    );
    let gone = raw
        .alarm(alarm(Action::Deactivate, me, pb::AlarmType::Nospace))
        .await
        .unwrap();
    assert_eq!(gone.alarms.len(), 1, "names what it took back");
    assert!(alarms(&raw).await.is_empty());
    raw.put(put("a", "v")).await.unwrap();
    assert!(raw.status().await.unwrap().errors.is_empty());
}

#[tokio::test]
async fn etcd_client_lists_and_disarms() {
    let server = Server::start_with(small());
    fill(&server.raw().await).await;
    let mut client = server.client().await;
    let listed = client
        .alarm(AlarmAction::Get, AlarmType::None, None)
        .await
        .unwrap();
    assert_eq!(listed.alarms().len(), 1);
    assert_eq!(listed.alarms()[0].alarm(), AlarmType::Nospace);
    let member = listed.alarms()[0].member_id();
    refused_by(
        client.put("a", "v", None).await,
        Code::ResourceExhausted,
        NOSPACE,
    );
    let mut options = etcd_client::AlarmOptions::new();
    options.with_member(member);
    client
        .alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(options))
        .await
        .unwrap();
    let listed = client
        .alarm(AlarmAction::Get, AlarmType::None, None)
        .await
        .unwrap();
    assert!(listed.alarms().is_empty());
}

#[tokio::test]
async fn alarms_by_hand() {
    let server = Server::start();
    let raw = server.raw().await;
    let me = raw.status().await.unwrap().header.unwrap().member_id;
    let none = raw
        .alarm(alarm(Action::Activate, me, pb::AlarmType::None))
        .await
        .unwrap();
    assert!(none.alarms.is_empty(), "no alarm is none");
    let raised = raw
        .alarm(alarm(Action::Activate, me, pb::AlarmType::Nospace))
        .await
        .unwrap();
    assert_eq!(raised.alarms.len(), 1);
    assert!(raised.header.is_some());
    refused(
        raw.put(put("a", "v")).await,
        Code::ResourceExhausted,
        NOSPACE,
    );
    let of_type = raw
        .alarm(alarm(Action::Get, me, pb::AlarmType::Nospace))
        .await
        .unwrap();
    assert_eq!(of_type.alarms.len(), 1);
    let other_type = raw
        .alarm(alarm(Action::Get, me, pb::AlarmType::Corrupt))
        .await
        .unwrap();
    assert!(other_type.alarms.is_empty());
    raw.alarm(alarm(Action::Deactivate, me, pb::AlarmType::Nospace))
        .await
        .unwrap();
    raw.put(put("a", "v")).await.unwrap();
    let nothing = raw
        .alarm(alarm(Action::Deactivate, me, pb::AlarmType::Nospace))
        .await
        .unwrap();
    assert!(nothing.alarms.is_empty(), "taking back what is not there");
}

#[tokio::test]
async fn a_corrupt_member_takes_no_commands() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("a", "1")).await.unwrap();
    raw.grant(pb::LeaseGrantRequest { ttl: 600, id: 5 })
        .await
        .unwrap();
    let me = raw.status().await.unwrap().header.unwrap().member_id;
    raw.alarm(alarm(Action::Activate, me, pb::AlarmType::Corrupt))
        .await
        .unwrap();
    refused(raw.put(put("a", "2")).await, Code::DataLoss, CORRUPT);
    refused(raw.delete(del("a")).await, Code::DataLoss, CORRUPT);
    refused(
        raw.txn(always(vec![put("a", "2").op()])).await,
        Code::DataLoss,
        CORRUPT,
    );
    refused(raw.compact(2).await, Code::DataLoss, CORRUPT);
    refused(
        raw.grant(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await,
        Code::DataLoss,
        CORRUPT,
    );
    refused(raw.revoke(5).await, Code::DataLoss, CORRUPT);
    let local = pb::RangeRequest {
        serializable: true,
        ..get("a")
    };
    assert_eq!(
        raw.range(local).await.unwrap().count,
        1,
        "local reads go on"
    );
    let health = http_get(server.port(), "/health").await;
    assert_eq!(health.status, 503);
    assert!(health.body.contains("ALARM CORRUPT"), "{}", health.body);
    raw.alarm(alarm(Action::Deactivate, me, pb::AlarmType::Corrupt))
        .await
        .unwrap();
    raw.put(put("a", "2")).await.unwrap();
}

#[tokio::test]
async fn a_negative_quota_is_no_quota() {
    let server = Server::start_with(ServerOptions::new().flag("--quota-backend-bytes=-1"));
    let raw = server.raw().await;
    for index in 0..20 {
        raw.put(put(&format!("k{index}"), &"v".repeat(100_000)))
            .await
            .unwrap();
    }
    assert!(alarms(&raw).await.is_empty());
}

#[tokio::test]
async fn health_tells_of_nospace_unless_told_to_exclude_it() {
    let server = Server::start_with(small());
    let raw = server.raw().await;
    fill(&raw).await;
    let health = http_get(server.port(), "/health").await;
    assert_eq!(
        (health.status, health.body.trim()),
        (503, r#"{"health":"false","reason":"ALARM NOSPACE"}"#)
    );
    for path in [
        "/health?exclude=NOSPACE",
        "/health?exclude=NOSPACE&serializable=true",
        "/health?exclude=CORRUPT&exclude=NOSPACE",
        "/livez",
        "/readyz",
    ] {
        assert_eq!(http_get(server.port(), path).await.status, 200, "{path}");
    }
}
