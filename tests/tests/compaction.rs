//! Compaction (behaviour §3.6).

use etcd_client::{CompactionOptions, GetOptions, WatchOptions};
use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    RawWatch, Server, ServerOptions, event_text, eventually, refused, refused_by, watch_key,
    wire::{del, everything, get, keys, put, revision, values},
};
use std::time::Duration;
use tonic::Code;

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";

#[tokio::test]
async fn compaction_keeps_the_newest_version_of_each_key() {
    let server = Server::start();
    let mut client = server.client().await;
    for value in ["1", "2", "3"] {
        client.put("a", value, None).await.unwrap();
    }
    client.put("b", "1", None).await.unwrap();
    let answer = client.compact(4, None).await.unwrap();
    assert_eq!(
        answer.header().unwrap().revision(),
        5,
        "the current revision"
    );
    for past in [1, 2, 3] {
        let options = GetOptions::new().with_revision(past);
        refused_by(
            client.get("a", Some(options)).await,
            Code::OutOfRange,
            COMPACTED,
        );
    }
    let options = GetOptions::new().with_revision(4);
    let kept = client.get("a", Some(options)).await.unwrap();
    assert_eq!(
        kept.kvs()[0].value(),
        b"3",
        "= the compacted revision is readable"
    );
    assert_eq!(
        (kept.kvs()[0].version(), kept.kvs()[0].create_revision()),
        (3, 2)
    );
    let now = client.get("a", None).await.unwrap();
    assert_eq!(now.kvs()[0].version(), 3);
}

#[tokio::test]
async fn what_can_not_be_compacted() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("a", "1")).await.unwrap();
    raw.put(put("a", "2")).await.unwrap();
    refused(raw.compact(4).await, Code::OutOfRange, FUTURE);
    refused(raw.compact(-1).await, Code::OutOfRange, COMPACTED);
    raw.compact(2).await.unwrap();
    refused(raw.compact(2).await, Code::OutOfRange, COMPACTED);
    refused(raw.compact(1).await, Code::OutOfRange, COMPACTED);
    refused(raw.compact(0).await, Code::OutOfRange, COMPACTED);
    refused(raw.compact(-5).await, Code::OutOfRange, COMPACTED);
    raw.compact(3).await.unwrap();
    assert_eq!(raw.revision().await, 3);
}

#[tokio::test]
async fn compaction_at_0_succeeds_once_on_a_store_never_compacted() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("a", "1")).await.unwrap();
    raw.compact(0).await.unwrap();
    refused(raw.compact(0).await, Code::OutOfRange, COMPACTED);
    assert_eq!(values(&raw.range(get("a")).await.unwrap()), ["1"]);
    raw.compact(1).await.unwrap();
    raw.compact(2).await.unwrap();
}

#[tokio::test]
async fn a_tombstone_at_the_compacted_revision_is_kept_for_watches() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("a", "1")).await.unwrap(); // 2
    raw.put(put("b", "1")).await.unwrap(); // 3
    raw.delete(del("a")).await.unwrap(); // 4
    raw.put(put("b", "2")).await.unwrap(); // 5
    raw.compaction(pb::CompactionRequest {
        revision: 4,
        physical: true,
    })
    .await
    .unwrap();
    let request = pb::WatchCreateRequest {
        start_revision: 4,
        ..watch_key("a")
    };
    let (mut watch, _) = RawWatch::on(&raw, request).await;
    let events: Vec<_> = watch.events(1).await.iter().map(event_text).collect();
    assert_eq!(events, ["-a@4"]);
    let at_4 = pb::RangeRequest {
        revision: 4,
        ..everything()
    };
    assert_eq!(keys(&raw.range(at_4).await.unwrap()), ["b"]);
}

#[tokio::test]
async fn physical_compaction_gives_the_space_back() {
    let server = Server::start();
    let mut client = server.client().await;
    for _ in 0..300 {
        client.put("a", vec![7_u8; 4096], None).await.unwrap();
    }
    let before = client.status().await.unwrap().raft_used_db_size();
    let physical = CompactionOptions::new().with_physical();
    client.compact(301, Some(physical)).await.unwrap();
    let after = eventually(Duration::from_secs(20), "less space in use", || {
        let mut client = client.clone();
        async move {
            let used = client.status().await.unwrap().raft_used_db_size();
            (used < before / 4).then_some(used)
        }
    })
    .await;
    assert!(after > 0, "{after}");
    assert_eq!(client.get("a", None).await.unwrap().kvs()[0].version(), 300);
}

#[tokio::test]
async fn compaction_survives_a_restart() {
    let mut server = Server::start();
    let raw = server.raw().await;
    for value in ["1", "2", "3"] {
        raw.put(put("a", value)).await.unwrap();
    }
    raw.put(put("gone", "x")).await.unwrap();
    raw.delete(del("gone")).await.unwrap();
    raw.compact(4).await.unwrap();
    server.kill();
    server.restart();
    let raw = server.raw().await;
    let at = |revision| pb::RangeRequest {
        revision,
        ..everything()
    };
    refused(raw.range(at(3)).await, Code::OutOfRange, COMPACTED);
    refused(raw.compact(4).await, Code::OutOfRange, COMPACTED);
    assert_eq!(values(&raw.range(at(4)).await.unwrap()), ["3"]);
    assert_eq!(keys(&raw.range(at(5)).await.unwrap()), ["a", "gone"]);
    assert_eq!(raw.revision().await, 6);
    let hash = raw.hash_kv(0).await.unwrap();
    assert_eq!(hash.compact_revision, 4);
}

#[tokio::test]
async fn a_key_lives_on_through_many_compactions() {
    let server = Server::start();
    let raw = server.raw().await;
    for round in 0..30 {
        raw.put(put("steady", &round.to_string())).await.unwrap();
        raw.put(put("changing", "x")).await.unwrap();
        if round % 3 == 0 {
            raw.delete(del("changing")).await.unwrap();
        }
        let current = raw.revision().await;
        raw.compact(current).await.unwrap();
        let all = raw.range(everything()).await.unwrap();
        let expected: &[&str] = if round % 3 == 0 {
            &["steady"]
        } else {
            &["changing", "steady"]
        };
        assert_eq!(keys(&all), expected);
        let kv = all.kvs.last().unwrap();
        assert_eq!((kv.version, kv.create_revision), (round + 1, 2));
    }
}

#[tokio::test]
async fn periodic_auto_compaction_forgets_old_revisions() {
    let options = ServerOptions::new()
        .flag("--auto-compaction-mode=periodic")
        .flag("--auto-compaction-retention=1s");
    let server = Server::start_with(options);
    let raw = server.raw().await;
    raw.put(put("a", "first")).await.unwrap();
    eventually(
        Duration::from_secs(30),
        "revision 2 is compacted",
        || async {
            raw.put(put("a", "x")).await.unwrap();
            let past = pb::RangeRequest {
                revision: 2,
                ..get("a")
            };
            match raw.range(past).await {
                Ok(_) => None,
                Err(status) => {
                    assert_eq!(status.message(), COMPACTED);
                    Some(())
                }
            }
        },
    )
    .await;
    assert_eq!(values(&raw.range(get("a")).await.unwrap()), ["x"]);
}

#[tokio::test]
async fn finished_compactions_are_logged_for_tools() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("a", "1")).await.unwrap();
    raw.put(put("a", "2")).await.unwrap();
    let mark = server.log().len();
    let answer = raw
        .compaction(pb::CompactionRequest {
            revision: 3,
            physical: true,
        })
        .await
        .unwrap();
    assert_eq!(revision(&answer.header), 3);
    let line = server.log().wait_after(
        mark,
        "finished scheduled compaction",
        Duration::from_secs(20),
    );
    assert!(line.is_some());
}

#[tokio::test]
async fn a_watch_behind_the_compacted_revision_is_told_so() {
    let server = Server::start();
    let mut client = server.client().await;
    for value in ["1", "2", "3"] {
        client.put("a", value, None).await.unwrap();
    }
    client.compact(4, None).await.unwrap();
    let options = WatchOptions::new().with_start_revision(2);
    let mut stream = client.watch("a", Some(options)).await.unwrap();
    let created = stream.message().await.unwrap().unwrap();
    assert!(created.created() && !created.canceled());
    let cancelled = stream.message().await.unwrap().unwrap();
    assert!(cancelled.canceled());
    assert_eq!(
        (cancelled.compact_revision(), cancelled.cancel_reason()),
        (4, "")
    );
}
