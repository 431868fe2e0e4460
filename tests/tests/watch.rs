//! Watches: creation, replay and cancellation (behaviour §3.7).

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use bytes::Bytes;
use etcd_client::{EventType, WatchFilterType, WatchOptions};
use holdfast_proto::{
    etcdserverpb::{self as pb},
    mvccpb::Event,
};
use holdfast_tests::{
    Raw, RawWatch, Server, event_text, watch_key, watch_prefix,
    wire::{b, del, put, revision},
};

const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

fn texts(events: &[Event]) -> Vec<String> {
    events.iter().map(event_text).collect()
}

async fn put_all(raw: &Raw, pairs: &[(&str, &str)]) {
    for (key, value) in pairs {
        raw.put(put(key, value)).await.unwrap();
    }
}

#[tokio::test]
async fn the_first_answer_is_created_and_events_follow() {
    let server = Server::start();
    let mut client = server.client().await;
    client.put("a", "before", None).await.unwrap();
    let mut stream = client.watch("a", None).await.unwrap();
    let created = stream.message().await.unwrap().unwrap();
    assert!(created.created() && !created.canceled() && created.events().is_empty());
    assert_eq!(created.watch_id(), 0, "ids start at 0 on each stream");
    let header = created.header().unwrap();
    assert_eq!(header.revision(), 2);
    assert!(header.cluster_id() != 0 && header.member_id() != 0 && header.raft_term() > 0);
    client.put("a", "1", None).await.unwrap();
    client.put("b", "unseen", None).await.unwrap();
    client.delete("a", None).await.unwrap();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(
        first.header().unwrap().revision(),
        3,
        "the revision of the event"
    );
    let event = &first.events()[0];
    assert_eq!(event.event_type(), EventType::Put);
    let kv = event.kv().unwrap();
    assert_eq!(
        (
            kv.value(),
            kv.create_revision(),
            kv.mod_revision(),
            kv.version()
        ),
        (&b"1"[..], 2, 3, 2)
    );
    assert!(event.prev_kv().is_none(), "not asked for");
    let second = stream.message().await.unwrap().unwrap();
    assert_eq!(second.header().unwrap().revision(), 5);
    let event = &second.events()[0];
    assert_eq!(event.event_type(), EventType::Delete);
    let kv = event.kv().unwrap();
    assert_eq!((kv.key(), kv.mod_revision()), (&b"a"[..], 5));
    assert_eq!(
        (kv.value(), kv.create_revision(), kv.version(), kv.lease()),
        (&b""[..], 0, 0, 0),
        "a tombstone has its key and mod revision only"
    );
}

#[tokio::test]
async fn ids_come_from_a_counter_that_skips_used_ones() {
    let server = Server::start();
    let raw = server.raw().await;
    let mut watch = RawWatch::open(&raw);
    let with_id = |watch_id| pb::WatchCreateRequest {
        watch_id,
        ..watch_key("a")
    };
    assert_eq!(watch.create(with_id(0)).await.watch_id, 0);
    assert_eq!(watch.create(with_id(0)).await.watch_id, 1);
    assert_eq!(watch.create(with_id(2)).await.watch_id, 2);
    assert_eq!(watch.create(with_id(0)).await.watch_id, 3);
    assert_eq!(watch.create(with_id(70)).await.watch_id, 70);
    let refused = watch.create(with_id(70)).await;
    assert!(refused.canceled);
    assert_eq!(
        (refused.watch_id, refused.cancel_reason.as_str()),
        (-1, DUPLICATE_ID)
    );
    assert_eq!(
        watch.create(with_id(0)).await.watch_id,
        4,
        "the stream goes on"
    );
    raw.put(put("a", "1")).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..6 {
        let answer = watch.next().await;
        assert_eq!(texts(&answer.events), ["+a=1@2"]);
        seen.push(answer.watch_id);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 70], "each watch has the event once");
    watch.cancel(70).await;
    assert!(watch.next().await.canceled);
    assert!(
        !watch.create(with_id(70)).await.canceled,
        "a cancelled id is free again"
    );
}

#[tokio::test]
async fn what_can_not_be_created_is_cancelled_at_once() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("a", "1")).await.unwrap();
    let mut watch = RawWatch::open(&raw);
    let ended = |key: &str, end: &str| pb::WatchCreateRequest {
        range_end: b(end),
        ..watch_key(key)
    };
    for request in [ended("b", "a"), ended("b", "b")] {
        let answer = watch.create(request).await;
        assert!(answer.canceled);
        assert_eq!(
            (answer.watch_id, answer.cancel_reason.as_str()),
            (-1, EMPTY_RANGE)
        );
        assert_eq!(answer.compact_revision, 0);
    }
    for start_revision in [-1, i64::MIN] {
        let answer = watch
            .create(pb::WatchCreateRequest {
                start_revision,
                ..watch_key("a")
            })
            .await;
        assert!(answer.canceled, "start revision {start_revision}");
        assert_eq!(
            (answer.watch_id, answer.cancel_reason.as_str()),
            (-1, COMPACTED)
        );
    }
    let fine = watch.create(watch_key("a")).await;
    assert!(!fine.canceled);
    assert_eq!(fine.watch_id, 0, "a refused watch takes no id");
    raw.put(put("a", "2")).await.unwrap();
    assert_eq!(texts(&watch.events(1).await), ["+a=2@3"]);
}

#[tokio::test]
async fn ranges_of_watches() {
    let server = Server::start();
    let raw = server.raw().await;
    let cases: [(&str, &str, &[&str]); 6] = [
        ("b", "", &["b"]),
        ("b", "c", &["b", "bb"]),
        ("b", "\0", &["b", "bb", "c"]),
        ("\0", "\0", &["a", "b", "bb", "c"]),
        ("", "", &[]),
        ("", "\0", &["a", "b", "bb", "c"]),
    ];
    let mut watches = Vec::new();
    for (key, end, expected) in cases {
        let request = pb::WatchCreateRequest {
            range_end: b(end),
            ..watch_key(key)
        };
        watches.push((RawWatch::on(&raw, request).await.0, expected));
    }
    put_all(&raw, &[("a", "v"), ("b", "v"), ("bb", "v"), ("c", "v")]).await;
    // An empty key stands for "\0", here without an end: that one key.
    raw.put(pb::PutRequest {
        key: Bytes::from_static(b"\0"),
        ..put("", "v")
    })
    .await
    .unwrap();
    for (watch, expected) in &mut watches {
        if expected.is_empty() {
            assert_eq!(texts(&watch.events(1).await), ["+\0=v@6"]);
            continue;
        }
        let seen: Vec<_> = watch.events(expected.len()).await;
        let seen: Vec<_> = seen
            .iter()
            .map(|event| event.kv.as_ref().unwrap().key.clone())
            .collect();
        assert_eq!(seen, *expected);
    }
}

#[tokio::test]
async fn replay_starts_where_it_is_told() {
    let server = Server::start();
    let raw = server.raw().await;
    put_all(&raw, &[("k/a", "1"), ("k/b", "1"), ("k/a", "2")]).await;
    raw.delete(del("k/b")).await.unwrap();
    let all = ["+k/a=1@2", "+k/b=1@3", "+k/a=2@4", "-k/b@5"];
    for start in [1_usize, 2, 3, 4, 5] {
        let request = pb::WatchCreateRequest {
            start_revision: start as i64,
            ..watch_prefix("k/")
        };
        let (mut watch, at) = RawWatch::on(&raw, request).await;
        assert_eq!(at, 5, "created tells the current revision");
        let expected = &all[start.max(2) - 2..];
        assert_eq!(texts(&watch.events(expected.len()).await), expected);
    }
    // 0 is "from now on", and so is the next revision.
    for start_revision in [0, 7] {
        let request = pb::WatchCreateRequest {
            start_revision,
            ..watch_prefix("k/")
        };
        let (mut watch, _) = RawWatch::on(&raw, request).await;
        let next = raw.put(put("k/c", "new")).await.unwrap();
        let at = revision(&next.header);
        assert_eq!(texts(&watch.events(1).await), [format!("+k/c=new@{at}")]);
    }
}

#[tokio::test]
async fn a_future_start_is_silent_until_it_is_reached() {
    let server = Server::start();
    let raw = server.raw().await;
    let request = pb::WatchCreateRequest {
        start_revision: 4,
        ..watch_key("a")
    };
    let (mut watch, at) = RawWatch::on(&raw, request).await;
    assert_eq!(at, 1);
    put_all(&raw, &[("a", "2"), ("a", "3"), ("a", "4"), ("a", "5")]).await;
    assert_eq!(texts(&watch.events(2).await), ["+a=4@4", "+a=5@5"]);
}

#[tokio::test]
async fn a_start_below_the_compacted_revision_is_cancelled_with_it() {
    let server = Server::start();
    let raw = server.raw().await;
    put_all(&raw, &[("a", "1"), ("a", "2"), ("a", "3"), ("a", "4")]).await;
    raw.compact(4).await.unwrap();
    let mut watch = RawWatch::open(&raw);
    let from = |start_revision| pb::WatchCreateRequest {
        start_revision,
        ..watch_key("a")
    };
    for start in [1, 3] {
        let created = watch.create(from(start)).await;
        assert!(!created.canceled);
        let id = created.watch_id;
        let cancelled = watch.next().await;
        assert!(cancelled.canceled && !cancelled.created);
        assert_eq!((cancelled.watch_id, cancelled.compact_revision), (id, 4));
        assert_eq!(cancelled.cancel_reason, "");
        assert_eq!(revision(&cancelled.header), 0);
        assert!(cancelled.events.is_empty());
    }
    let created = watch.create(from(4)).await;
    assert!(!created.canceled, "the compacted revision itself is fine");
    assert_eq!(texts(&watch.events(2).await), ["+a=3@4", "+a=4@5"]);
}

#[tokio::test]
async fn cancelling() {
    let server = Server::start();
    let raw = server.raw().await;
    let mut watch = RawWatch::open(&raw);
    let id = watch.create(watch_key("a")).await.watch_id;
    // An unknown id has no answer: the next one is that of the create behind it.
    watch.cancel(12345).await;
    watch.cancel(-1).await;
    let other = watch.create(watch_key("b")).await.watch_id;
    watch.cancel(id).await;
    let cancelled = watch.next().await;
    assert!(cancelled.canceled && !cancelled.created);
    assert_eq!(cancelled.watch_id, id);
    assert_eq!(
        (cancelled.compact_revision, cancelled.cancel_reason.as_str()),
        (0, "")
    );
    watch.cancel(id).await;
    put_all(&raw, &[("a", "unseen"), ("b", "seen")]).await;
    let answer = watch.next().await;
    assert_eq!(
        (answer.watch_id, texts(&answer.events)),
        (other, vec!["+b=seen@3".to_owned()])
    );
}

#[tokio::test]
async fn a_frame_without_a_request_is_ignored() {
    let server = Server::start();
    let raw = server.raw().await;
    let mut watch = RawWatch::open(&raw);
    watch.create(watch_key("a")).await;
    watch.empty_frame().await;
    raw.put(put("a", "1")).await.unwrap();
    assert_eq!(texts(&watch.events(1).await), ["+a=1@2"]);
}

#[tokio::test]
async fn a_client_that_closes_its_side_still_gets_events() {
    let server = Server::start();
    let raw = server.raw().await;
    let (mut watch, _) = RawWatch::on(&raw, watch_key("a")).await;
    watch.close_requests();
    for value in ["1", "2"] {
        raw.put(put("a", value)).await.unwrap();
    }
    assert_eq!(texts(&watch.events(2).await), ["+a=1@2", "+a=2@3"]);
}

#[tokio::test]
async fn a_watch_of_etcd_client_filters() {
    let server = Server::start();
    let mut client = server.client().await;
    let only = |filter| {
        WatchOptions::new()
            .with_filters([filter])
            .with_start_revision(2)
    };
    client.put("a", "1", None).await.unwrap();
    client.delete("a", None).await.unwrap();
    client.put("a", "2", None).await.unwrap();
    let mut deletes = client
        .watch("a", Some(only(WatchFilterType::NoPut)))
        .await
        .unwrap();
    assert!(deletes.message().await.unwrap().unwrap().created());
    let answer = deletes.message().await.unwrap().unwrap();
    assert_eq!(answer.events().len(), 1);
    assert_eq!(answer.events()[0].event_type(), EventType::Delete);
    let mut puts = client
        .watch("a", Some(only(WatchFilterType::NoDelete)))
        .await
        .unwrap();
    assert!(puts.message().await.unwrap().unwrap().created());
    let answer = puts.message().await.unwrap().unwrap();
    let values: Vec<_> = answer
        .events()
        .iter()
        .map(|event| event.kv().unwrap().value())
        .collect();
    assert_eq!(values, [b"1", b"2"]);
}

#[tokio::test]
async fn a_stream_that_requires_a_leader_is_served_when_there_is_one() {
    let server = Server::start();
    let options = etcd_client::ConnectOptions::new().with_require_leader(true);
    let mut client = etcd_client::Client::connect([server.endpoint()], Some(options))
        .await
        .unwrap();
    let mut stream = client.watch("a", None).await.unwrap();
    assert!(stream.message().await.unwrap().unwrap().created());
    client.put("a", "1", None).await.unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap().events().len(), 1);
}
