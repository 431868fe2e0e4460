//! Maintenance, the member list and health (behaviour §1.7, §1.8, §1.11, §3.12).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::{
    etcdserverpb as pb,
    health::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    },
};
use holdfast_tests::{
    Raw, RawWatch, Server, ServerOptions, eventually,
    history::History,
    refused, soon, watch_prefix,
    wire::{IntoOp, always, del, del_range, everything, get, put, put_leased, revision},
};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tonic::Code;

#[tokio::test]
async fn status_tells_what_tools_read() {
    let server = Server::start();
    let raw = server.raw().await;
    let before = raw.status().await.unwrap();
    assert_eq!(before.version, "3.7.1");
    assert_eq!(before.storage_version, "3.7.0");
    assert_eq!(
        before.db_size_quota,
        2 << 30,
        "what a quota of 0 stands for"
    );
    assert!(!before.is_learner && before.errors.is_empty());
    let header = before.header.unwrap();
    assert_eq!(
        (before.leader, before.raft_term),
        (header.member_id, header.raft_term)
    );
    assert_eq!(header.revision, 1);
    assert!(
        before
            .downgrade_info
            .is_none_or(|info| !info.enabled && info.target_version.is_empty())
    );
    assert!((0..=before.db_size).contains(&before.db_size_in_use));
    for _ in 0..100 {
        raw.put(put("k", &"v".repeat(10_000))).await.unwrap();
    }
    // etcd tells the size of the last commit of its backend, which follows within 100 ms.
    let after = eventually(Duration::from_secs(10), "the size grows", || async {
        let after = raw.status().await.unwrap();
        (after.db_size >= before.db_size + 500_000).then_some(after)
    })
    .await;
    assert!(after.raft_index > before.raft_index);
    assert!(after.raft_applied_index <= after.raft_index);
    assert!(after.raft_applied_index > before.raft_applied_index);
    assert_eq!(after.header.unwrap().revision, 101);
}

#[tokio::test]
async fn status_shows_the_quota_that_was_given() {
    let server = Server::start_with(ServerOptions::new().flag("--quota-backend-bytes=12345678"));
    let status = server.raw().await.status().await.unwrap();
    assert_eq!(status.db_size_quota, 12_345_678);
}

#[tokio::test]
async fn the_member_list_has_one_member() {
    let server = Server::start();
    let raw = server.raw().await;
    let me = raw.status().await.unwrap().header.unwrap().member_id;
    for linearizable in [false, true] {
        let request = pb::MemberListRequest { linearizable };
        let answer = raw
            .cluster
            .clone()
            .member_list(request)
            .await
            .unwrap()
            .into_inner();
        let header = answer.header.unwrap();
        assert_eq!(
            (header.revision, header.member_id),
            (0, me),
            "the revision is left out"
        );
        let [member] = &answer.members[..] else {
            panic!("{:?}", answer.members)
        };
        assert_eq!(
            (member.id, member.name.as_str(), member.is_learner),
            (me, "default", false)
        );
        assert_eq!(member.client_ur_ls, [server.endpoint()]);
        assert_eq!(member.peer_ur_ls.len(), 1);
        assert!(member.peer_ur_ls[0].starts_with("http://127.0.0.1:"));
    }
}

#[tokio::test]
async fn identity_survives_a_restart() {
    let mut server = Server::start();
    let before = server.raw().await.status().await.unwrap();
    assert!(server.terminate().status.is_some());
    server.restart();
    let after = server.raw().await.status().await.unwrap();
    let (before, after) = (before.header.unwrap(), after.header.unwrap());
    assert_eq!(
        (before.cluster_id, before.member_id),
        (after.cluster_id, after.member_id)
    );
    assert!(after.raft_term > before.raft_term);
}

#[tokio::test]
async fn health_serves_the_empty_service_only() {
    let server = Server::start();
    let raw = server.raw().await;
    let mut health = HealthClient::new(raw.channel.clone());
    let of = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = health.check(of("")).await.unwrap().into_inner();
    assert_eq!(answer.status, i32::from(ServingStatus::Serving));
    let unknown = health.check(of("etcdserverpb.KV")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut stream = health.watch(of("")).await.unwrap().into_inner();
    let first = soon("the state", stream.message()).await.unwrap().unwrap();
    assert_eq!(first.status, i32::from(ServingStatus::Serving));
    let mut stream = health.watch(of("nobody")).await.unwrap().into_inner();
    let first = soon("the state", stream.message()).await.unwrap().unwrap();
    assert_eq!(first.status, i32::from(ServingStatus::ServiceUnknown));
}

#[tokio::test]
async fn defragment_and_move_leader_answer_without_a_header() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("a", "1")).await.unwrap();
    let mut maintenance = raw.maintenance.clone();
    let answer = maintenance
        .defragment(pb::DefragmentRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(answer.header.is_none());
    let me = raw.status().await.unwrap().leader;
    let answer = maintenance
        .move_leader(pb::MoveLeaderRequest { target_id: me })
        .await
        .unwrap();
    assert!(answer.into_inner().header.is_none());
    assert_eq!(raw.range(get("a")).await.unwrap().count, 1);
}

#[tokio::test]
async fn snapshots_end_with_their_checksum() {
    let server = Server::start();
    let raw = server.raw().await;
    for index in 0..200 {
        raw.put(put(&format!("k{index}"), &"v".repeat(5_000)))
            .await
            .unwrap();
    }
    let mut stream = raw
        .maintenance
        .clone()
        .snapshot(pb::SnapshotRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut bytes = Vec::new();
    let mut remaining = u64::MAX;
    let mut chunks = 0;
    let mut version = String::new();
    while let Some(chunk) = soon("a chunk", stream.message()).await.unwrap() {
        chunks += 1;
        assert!(chunk.header.is_none());
        assert!(
            chunk.remaining_bytes <= remaining,
            "what remains does not grow"
        );
        remaining = chunk.remaining_bytes;
        version = chunk.version;
        bytes.extend_from_slice(&chunk.blob);
    }
    assert!(chunks > 1 && remaining == 0);
    assert_eq!(version, "3.7.0", "the storage version");
    assert_eq!(bytes.len() % 512, 32, "what clientv3 checks");
    assert!(bytes.len() > 200 * 5_000);
    let (body, sum) = bytes.split_at(bytes.len() - 32);
    assert_eq!(Sha256::digest(body)[..], *sum);
}

/// Changes of every kind; gives the history that a watch from the first revision sees.
async fn changes(raw: &Raw) -> History {
    raw.grant(pb::LeaseGrantRequest { ttl: 600, id: 7 })
        .await
        .unwrap();
    for index in 0..40 {
        raw.put(put(&format!("k{}", index % 6), &index.to_string()))
            .await
            .unwrap();
    }
    raw.put(put_leased("k1", "leased", 7)).await.unwrap();
    raw.put(put("empty", "")).await.unwrap();
    raw.delete(del("k2")).await.unwrap();
    raw.txn(always(vec![
        put("x", "1").op(),
        del_range("k3", "k5").op(),
        put("y", "2").op(),
    ]))
    .await
    .unwrap();
    raw.put(put("k2", "again")).await.unwrap();
    raw.delete(del("x")).await.unwrap();
    raw.revoke(7).await.unwrap();
    history(raw).await
}

async fn history(raw: &Raw) -> History {
    let mut history = History::default();
    let last = raw.revision().await;
    let request = pb::WatchCreateRequest {
        start_revision: 1,
        ..watch_prefix("")
    };
    let request = pb::WatchCreateRequest {
        range_end: "\0".into(),
        ..request
    };
    let (mut watch, _) = RawWatch::on(raw, request).await;
    while history.last_revision() < last {
        history.extend(watch.next().await.events);
    }
    history
}

#[tokio::test]
async fn hash_kv_is_that_of_the_model() {
    let server = Server::start();
    let raw = server.raw().await;
    let empty = raw.hash_kv(0).await.unwrap();
    assert_eq!(empty.hash, History::default().hash_kv(1, -1));
    assert_eq!((empty.compact_revision, empty.hash_revision), (-1, 1));
    let history = changes(&raw).await;
    let last = history.last_revision();
    let now = raw.hash_kv(0).await.unwrap();
    assert_eq!(
        (
            revision(&now.header),
            now.hash_revision,
            now.compact_revision
        ),
        (last, last, -1)
    );
    assert_eq!(now.hash, history.hash_kv(last, -1));
    for at in [2, 10, last - 3, last] {
        let answer = raw.hash_kv(at).await.unwrap();
        assert_eq!(
            (answer.hash, answer.hash_revision),
            (history.hash_kv(at, -1), at),
            "at {at}"
        );
    }
    refused(
        raw.hash_kv(last + 1).await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
    // Each kind of row at the edge: an old put, the tombstone of k2, one inside the txn, a later put. (For a revision at or
    // below the last compaction but the first, etcd answers with a hash that it kept from that compaction.)
    for compacted in [5, last - 5, last - 4, last - 3, last - 2, last] {
        raw.compaction(pb::CompactionRequest {
            revision: compacted,
            physical: true,
        })
        .await
        .unwrap();
        let answer = raw.hash_kv(0).await.unwrap();
        assert_eq!(answer.compact_revision, compacted);
        assert_eq!(
            answer.hash,
            history.hash_kv(last, compacted),
            "compacted at {compacted}"
        );
        if compacted == 5 {
            refused(
                raw.hash_kv(4).await,
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
            );
        }
    }
}

#[tokio::test]
async fn hash_kv_of_a_store_that_was_emptied() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("a", "1")).await.unwrap();
    raw.put(put("b", "1")).await.unwrap();
    raw.delete(del("b")).await.unwrap();
    raw.delete(del("a")).await.unwrap();
    let history = history(&raw).await;
    for compacted in [2, 3, 4, 5] {
        raw.compaction(pb::CompactionRequest {
            revision: compacted,
            physical: true,
        })
        .await
        .unwrap();
        let answer = raw.hash_kv(0).await.unwrap();
        assert_eq!(
            answer.hash,
            history.hash_kv(5, compacted),
            "compacted at {compacted}"
        );
    }
}

#[tokio::test]
async fn hash_kv_is_the_same_on_another_server_and_after_a_restart() {
    let (mut one, two) = (Server::start(), Server::start());
    let (raw_one, raw_two) = (one.raw().await, two.raw().await);
    changes(&raw_one).await;
    changes(&raw_two).await;
    let hash =
        |answer: pb::HashKvResponse| (answer.hash, answer.hash_revision, answer.compact_revision);
    let first = hash(raw_one.hash_kv(0).await.unwrap());
    assert_eq!(first, hash(raw_two.hash_kv(0).await.unwrap()));
    raw_two.put(put("more", "")).await.unwrap();
    assert_ne!(first.0, raw_two.hash_kv(0).await.unwrap().hash);
    one.kill();
    one.restart();
    let raw_one = one.raw().await;
    assert_eq!(first, hash(raw_one.hash_kv(0).await.unwrap()));
}

#[tokio::test]
async fn hash_changes_with_the_content() {
    let server = Server::start();
    let raw = server.raw().await;
    let ask = || async {
        raw.maintenance
            .clone()
            .hash(pb::HashRequest {})
            .await
            .unwrap()
            .into_inner()
    };
    let before = ask().await;
    raw.put(put("a", "1")).await.unwrap();
    let after = ask().await;
    assert_ne!(before.hash, after.hash);
    assert_eq!(revision(&after.header), 2);
}

#[tokio::test]
async fn defragmentation_and_compaction_shrink_the_reported_size() {
    let server = Server::start();
    let raw = server.raw().await;
    for _ in 0..200 {
        raw.put(put("k", &"v".repeat(10_000))).await.unwrap();
    }
    let full = eventually(Duration::from_secs(10), "a large size", || async {
        let size = raw.status().await.unwrap().db_size;
        (size > 1_500_000).then_some(size)
    })
    .await;
    let last = raw.revision().await;
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
    eventually(Duration::from_secs(10), "a small size", || async {
        (raw.status().await.unwrap().db_size < full / 4).then_some(())
    })
    .await;
    assert_eq!(raw.range(everything()).await.unwrap().kvs[0].version, 200);
}
