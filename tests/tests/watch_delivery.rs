//! Watches: which events come, in which order and in which answers (behaviour §3.7).

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::{
    etcdserverpb::{self as pb, watch_create_request::FilterType},
    mvccpb::Event,
};
use holdfast_tests::{
    Raw, RawWatch, Server, event_text, eventually, watch_key, watch_prefix,
    wire::{IntoOp, always, b, del, del_range, get, put, put_leased, revision},
};
use std::{collections::BTreeMap, time::Duration};

fn texts(events: &[Event]) -> Vec<String> {
    events.iter().map(event_text).collect()
}

async fn put_all(raw: &Raw, pairs: &[(&str, &str)]) {
    for (key, value) in pairs {
        raw.put(put(key, value)).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_sent_when_filters_leave_nothing() {
    let server = Server::start();
    let raw = server.raw().await;
    let filtered = |filters: &[FilterType]| pb::WatchCreateRequest {
        filters: filters.iter().map(|filter| i32::from(*filter)).collect(),
        ..watch_prefix("k/")
    };
    let (mut no_put, _) = RawWatch::on(&raw, filtered(&[FilterType::Noput])).await;
    let (mut no_delete, _) = RawWatch::on(&raw, filtered(&[FilterType::Nodelete])).await;
    let both = [FilterType::Noput, FilterType::Nodelete];
    let (mut nothing, _) = RawWatch::on(&raw, filtered(&both)).await;
    raw.put(put("k/a", "1")).await.unwrap();
    raw.txn(always(vec![put("k/b", "1").op(), del("k/a").op()]))
        .await
        .unwrap();
    raw.put(put("k/c", "1")).await.unwrap();
    raw.delete(del("k/b")).await.unwrap();
    assert_eq!(texts(&no_put.events(2).await), ["-k/a@3", "-k/b@5"]);
    assert_eq!(
        texts(&no_delete.events(3).await),
        ["+k/a=1@2", "+k/b=1@3", "+k/c=1@4"]
    );
    // Whatever it was owed would have come before the answer to this.
    let fence = nothing.create(watch_key("z")).await;
    assert_eq!(fence.watch_id, 1);
}

#[tokio::test]
async fn previous_values_are_those_of_the_revision_before() {
    let server = Server::start();
    let raw = server.raw().await;
    let request = |start_revision| pb::WatchCreateRequest {
        prev_kv: true,
        start_revision,
        ..watch_key("a")
    };
    let (mut live, _) = RawWatch::on(&raw, request(0)).await;
    put_all(&raw, &[("a", "1"), ("a", "2")]).await;
    raw.delete(del("a")).await.unwrap();
    raw.put(put("a", "3")).await.unwrap();
    let (mut replayed, _) = RawWatch::on(&raw, request(2)).await;
    for watch in [&mut live, &mut replayed] {
        let events = watch.events(4).await;
        let previous: Vec<_> = events
            .iter()
            .map(|event| {
                event
                    .prev_kv
                    .as_ref()
                    .map(|kv| (kv.value.clone(), kv.mod_revision, kv.version))
            })
            .collect();
        let expected = [None, Some((b("1"), 2, 1)), Some((b("2"), 3, 2)), None];
        assert_eq!(previous, expected);
    }
    // What was compacted away can not be told.
    raw.compaction(pb::CompactionRequest {
        revision: 4,
        physical: true,
    })
    .await
    .unwrap();
    let (mut late, _) = RawWatch::on(&raw, request(4)).await;
    let events = late.events(2).await;
    assert_eq!(texts(&events), ["-a@4", "+a=3@5"]);
    assert!(events[0].prev_kv.is_none());
}

#[tokio::test]
async fn all_events_of_a_revision_come_in_one_answer() {
    let server = Server::start();
    let raw = server.raw().await;
    let (mut live, _) = RawWatch::on(&raw, watch_prefix("k/")).await;
    let ops = |value: &str| {
        let ops = (0..100).map(|index| put(&format!("k/{index:03}"), value).op());
        always(ops.collect())
    };
    raw.txn(ops("1")).await.unwrap();
    raw.txn(ops("2")).await.unwrap();
    raw.delete(del_range("k/", "k0")).await.unwrap();
    let request = pb::WatchCreateRequest {
        start_revision: 2,
        ..watch_prefix("k/")
    };
    let (mut replayed, _) = RawWatch::on(&raw, request).await;
    for watch in [&mut live, &mut replayed] {
        let mut seen: BTreeMap<i64, usize> = BTreeMap::new();
        while seen.len() < 3 {
            let answer = watch.next().await;
            let mut here: BTreeMap<i64, usize> = BTreeMap::new();
            for event in &answer.events {
                *here
                    .entry(event.kv.as_ref().unwrap().mod_revision)
                    .or_default() += 1;
            }
            for (revision, count) in here {
                assert_eq!(count, 100, "revision {revision} in one piece");
                assert!(
                    seen.insert(revision, count).is_none(),
                    "revision {revision} twice"
                );
            }
        }
        assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [2, 3, 4]);
    }
}

#[tokio::test]
async fn catch_up_batches_tell_the_current_revision() {
    const WRITES: i64 = 2_500;
    let server = Server::start();
    let raw = server.raw().await;
    let mut puts = tokio::task::JoinSet::new();
    for lane in 0..25 {
        let raw = raw.clone();
        puts.spawn(async move {
            for _ in 0..WRITES / 25 {
                raw.put(put(&format!("k/{lane}"), "v")).await.unwrap();
            }
        });
    }
    puts.join_all().await;
    let current = raw.revision().await;
    assert_eq!(current, WRITES + 1);
    let request = pb::WatchCreateRequest {
        start_revision: 2,
        ..watch_prefix("k/")
    };
    let (mut watch, _) = RawWatch::on(&raw, request).await;
    let mut last = 1;
    while last < current {
        let answer = watch.next().await;
        let header = revision(&answer.header);
        assert!(
            answer.events.len() <= 1000,
            "{} revisions in one answer",
            answer.events.len()
        );
        for event in &answer.events {
            let at = event.kv.as_ref().unwrap().mod_revision;
            assert_eq!(at, last + 1, "in order, none missing, none twice");
            last = at;
        }
        assert_eq!(
            header, current,
            "a catch-up answer has the store's revision"
        );
    }
    raw.put(put("k/x", "v")).await.unwrap();
    let answer = watch.next().await;
    assert_eq!(
        revision(&answer.header),
        current + 1,
        "a synced one that of its events"
    );
}

#[tokio::test]
async fn fragments_split_large_answers_only_on_request() {
    const LIMIT: usize = 1_572_864 + 512 * 1024;
    let server = Server::start();
    let raw = server.raw().await;
    // With the values before, the events of the second revision are larger than any request.
    for letter in ["v", "w"] {
        let value = letter.repeat(350_000);
        let ops = (0..4).map(|index| put(&format!("k/{index}"), &value).op());
        raw.txn(always(ops.collect())).await.unwrap();
    }
    let request = |fragment| pb::WatchCreateRequest {
        fragment,
        start_revision: 3,
        prev_kv: true,
        ..watch_prefix("k/")
    };
    let (mut whole, _) = RawWatch::on(&raw, request(false)).await;
    let answer = whole.next().await;
    assert_eq!(answer.events.len(), 4, "a revision in one answer");
    assert!(!answer.fragment && prost::Message::encoded_len(&answer) > LIMIT);
    let (mut split, _) = RawWatch::on(&raw, request(true)).await;
    let mut events = Vec::new();
    let mut pieces = 0;
    loop {
        let answer = split.next().await;
        pieces += 1;
        let size = prost::Message::encoded_len(&answer);
        assert!(size < LIMIT, "a piece of {size} bytes");
        assert!(!answer.events.is_empty());
        events.extend(answer.events);
        if !answer.fragment {
            break;
        }
    }
    assert!(pieces > 1, "{pieces} pieces");
    let keys: Vec<_> = events
        .iter()
        .map(|event| event.kv.as_ref().unwrap().key.clone())
        .collect();
    assert_eq!(keys, ["k/0", "k/1", "k/2", "k/3"]);
    // A small answer is one piece, which is the last.
    raw.put(put("k/small", "v")).await.unwrap();
    let answer = split.next().await;
    assert!(!answer.fragment);
    assert_eq!(texts(&answer.events), ["+k/small=v@4"]);
}

#[tokio::test]
async fn leases_show_in_events() {
    let server = Server::start();
    let raw = server.raw().await;
    let lease = raw
        .grant(pb::LeaseGrantRequest { ttl: 600, id: 9 })
        .await
        .unwrap()
        .id;
    let (mut watch, _) = RawWatch::on(&raw, watch_prefix("k/")).await;
    raw.put(put_leased("k/b", "v", lease)).await.unwrap();
    raw.put(put_leased("k/a", "v", lease)).await.unwrap();
    raw.revoke(lease).await.unwrap();
    let events = watch.events(2).await;
    assert!(
        events
            .iter()
            .all(|event| event.kv.as_ref().unwrap().lease == 9)
    );
    let revoked = watch.next().await;
    assert_eq!(
        texts(&revoked.events),
        ["-k/a@4", "-k/b@4"],
        "sorted, in one revision"
    );
}

#[tokio::test]
async fn watches_of_one_stream_and_of_many_see_the_same() {
    let server = Server::start();
    let raw = server.raw().await;
    let mut one = RawWatch::open(&raw);
    for _ in 0..50 {
        one.create(watch_prefix("k/")).await;
    }
    let mut many = Vec::new();
    for _ in 0..20 {
        let raw = server.raw().await;
        many.push(RawWatch::on(&raw, watch_prefix("k/")).await.0);
    }
    for index in 0..30 {
        raw.put(put(&format!("k/{}", index % 7), &index.to_string()))
            .await
            .unwrap();
    }
    let expected: Vec<_> = (0..30)
        .map(|index| format!("+k/{}={index}@{}", index % 7, index + 2))
        .collect();
    for watch in &mut many {
        assert_eq!(texts(&watch.events(30).await), expected);
    }
    let mut seen: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    while seen.len() < 50 || seen.values().any(|events| events.len() < 30) {
        let answer = one.next().await;
        seen.entry(answer.watch_id)
            .or_default()
            .extend(texts(&answer.events));
    }
    assert!(seen.values().all(|events| *events == expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_starts_amid_writes_misses_nothing() {
    const WRITES: i64 = 1_000;
    let server = Server::start();
    let raw = server.raw().await;
    let writer = {
        let raw = server.raw().await;
        tokio::spawn(async move {
            for _ in 0..WRITES {
                raw.put(put("k", "v")).await.unwrap();
            }
        })
    };
    let mut readers = Vec::new();
    for round in 0..8 {
        // Wait for a point of the history, then watch from its start and from "now".
        let target = 1 + round * WRITES / 10;
        eventually(Duration::from_secs(30), "the writer goes on", || async {
            (raw.revision().await >= target).then_some(())
        })
        .await;
        for start_revision in [0, 2, target + 50] {
            let raw = server.raw().await;
            readers.push(tokio::spawn(async move {
                let request = pb::WatchCreateRequest {
                    start_revision,
                    ..watch_key("k")
                };
                let (mut watch, at) = RawWatch::on(&raw, request).await;
                let mut next = if start_revision == 0 {
                    at + 1
                } else {
                    start_revision
                };
                while next < WRITES + 2 {
                    for event in watch.next().await.events {
                        assert_eq!(
                            event.kv.unwrap().mod_revision,
                            next,
                            "from {start_revision}"
                        );
                        next += 1;
                    }
                }
            }));
        }
    }
    writer.await.unwrap();
    for reader in readers {
        holdfast_tests::within(Duration::from_secs(60), "a reader is complete", reader)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_slow_receiver_gets_everything_in_the_end() {
    const WRITES: usize = 600;
    let server = Server::start();
    let raw = server.raw().await;
    let slow = server.raw().await;
    let (mut watch, _) = RawWatch::on(&slow, watch_key("k")).await;
    let value = "v".repeat(40_000);
    for _ in 0..WRITES {
        raw.put(put("k", &value)).await.unwrap();
    }
    assert_eq!(
        raw.range(get("k")).await.unwrap().kvs[0].version as usize,
        WRITES,
        "nobody waited for it"
    );
    let events = watch.events(WRITES).await;
    let revisions: Vec<_> = events
        .iter()
        .map(|event| event.kv.as_ref().unwrap().mod_revision)
        .collect();
    assert_eq!(revisions, (2..2 + WRITES as i64).collect::<Vec<_>>());
}

#[tokio::test]
async fn resuming_after_a_restart_is_complete() {
    let mut server = Server::start();
    let raw = server.raw().await;
    put_all(&raw, &[("k/a", "1"), ("k/b", "1"), ("k/a", "2")]).await;
    let (mut watch, _) = RawWatch::on(
        &raw,
        pb::WatchCreateRequest {
            start_revision: 2,
            ..watch_prefix("k/")
        },
    )
    .await;
    let last = watch
        .events(2)
        .await
        .last()
        .unwrap()
        .kv
        .as_ref()
        .unwrap()
        .mod_revision;
    server.kill();
    server.restart();
    let raw = server.raw().await;
    raw.put(put("k/c", "1")).await.unwrap();
    let request = pb::WatchCreateRequest {
        start_revision: last + 1,
        ..watch_prefix("k/")
    };
    let (mut watch, _) = RawWatch::on(&raw, request).await;
    let expected = ["+k/a=1@2", "+k/b=1@3", "+k/a=2@4", "+k/c=1@5"];
    let missing = &expected[last as usize - 1..];
    assert_eq!(texts(&watch.events(missing.len()).await), missing);
}
