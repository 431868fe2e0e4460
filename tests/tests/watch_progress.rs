//! Progress of watches, asked for and by itself (behaviour §3.7), and the way Kubernetes watches (§6.3).

#![expect(
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    RawWatch, Server, ServerOptions, event_text, watch_key,
    wire::{Against, IntoOp, cmp, del, get, put, revision, txn},
};
use std::time::Duration;

/// Asks until an answer to a progress request comes; events that come before are given too.
async fn progress(watch: &mut RawWatch) -> (i64, Vec<String>) {
    let mut events = Vec::new();
    for _ in 0..200 {
        watch.progress().await;
        while let Some(answer) = watch.next_within(Duration::from_millis(200)).await {
            if answer.watch_id == -1 && answer.events.is_empty() && !answer.created {
                return (revision(&answer.header), events);
            }
            events.extend(answer.events.iter().map(event_text));
        }
    }
    panic!("no progress");
}

#[tokio::test]
async fn progress_on_request_tells_the_current_revision() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("other", "1")).await.unwrap();
    let (mut watch, _) = RawWatch::on(&raw, watch_key("k")).await;
    watch.create(watch_key("l")).await;
    raw.put(put("other", "2")).await.unwrap();
    let (at, events) = progress(&mut watch).await;
    assert_eq!(
        (at, events.len()),
        (3, 0),
        "writes that the watch does not see count too"
    );
    raw.put(put("k", "1")).await.unwrap();
    let (at, events) = progress(&mut watch).await;
    assert_eq!(
        (at, events),
        (4, vec!["+k=1@4".to_owned()]),
        "every event up to it was sent before"
    );
}

#[tokio::test]
async fn without_watches_there_is_no_progress() {
    let server = Server::start();
    let raw = server.raw().await;
    let mut watch = RawWatch::open(&raw);
    watch.progress().await;
    watch.progress().await;
    // The next answer belongs to the create behind the requests.
    let created = watch.create(watch_key("k")).await;
    assert!(created.created);
    watch.cancel(created.watch_id).await;
    assert!(watch.next().await.canceled);
    watch.progress().await;
    assert!(watch.create(watch_key("k")).await.created);
}

#[tokio::test]
async fn progress_waits_for_a_start_in_the_future() {
    let server = Server::start();
    let raw = server.raw().await;
    let request = pb::WatchCreateRequest {
        start_revision: 5,
        ..watch_key("k")
    };
    let (mut watch, _) = RawWatch::on(&raw, request).await;
    watch.progress().await;
    assert!(
        watch.create(watch_key("fence")).await.created,
        "nothing before it is reached"
    );
    for _ in 0..5 {
        raw.put(put("other", "v")).await.unwrap();
    }
    assert_eq!(progress(&mut watch).await.0, 6);
}

#[tokio::test]
async fn progress_never_overtakes_a_replay() {
    const WRITES: i64 = 3_000;
    let server = Server::start();
    let raw = server.raw().await;
    let mut puts = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let raw = raw.clone();
        puts.spawn(async move {
            for _ in 0..WRITES / 30 {
                raw.put(put("k", "v")).await.unwrap();
            }
        });
    }
    puts.join_all().await;
    for _ in 0..5 {
        let mut watch = RawWatch::open(&raw);
        watch
            .request(pb::WatchCreateRequest {
                start_revision: 2,
                ..watch_key("k")
            })
            .await;
        let mut last = 1;
        let mut told = 0;
        while told < WRITES + 1 {
            watch.progress().await;
            while let Some(answer) = watch.next_within(Duration::from_millis(100)).await {
                for event in &answer.events {
                    last = event.kv.as_ref().unwrap().mod_revision;
                }
                if answer.watch_id == -1 {
                    told = revision(&answer.header);
                    assert!(
                        last >= told,
                        "progress {told} was told when {last} was sent"
                    );
                    break;
                }
            }
        }
        assert_eq!(last, WRITES + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_true_amid_writes() {
    let server = Server::start();
    let raw = server.raw().await;
    let writer = {
        let raw = server.raw().await;
        tokio::spawn(async move {
            for index in 0..1_500 {
                let key = if index % 3 == 0 { "other" } else { "k" };
                raw.put(put(key, "v")).await.unwrap();
            }
        })
    };
    let (mut watch, _) = RawWatch::on(&raw, watch_key("k")).await;
    let mut told = 0;
    let mut answers = 0;
    while !writer.is_finished() {
        watch.progress().await;
        while let Some(answer) = watch.next_within(Duration::from_millis(20)).await {
            for event in &answer.events {
                let at = event.kv.as_ref().unwrap().mod_revision;
                assert!(at > told, "the event of {at} came after progress {told}");
            }
            if answer.watch_id == -1 {
                assert!(
                    revision(&answer.header) >= told,
                    "progress does not go back"
                );
                told = revision(&answer.header);
                answers += 1;
                break;
            }
        }
    }
    writer.await.unwrap();
    assert!(answers > 0, "a synced watch is told its progress");
}

#[tokio::test]
async fn periodic_progress_comes_to_watches_that_asked() {
    let options = ServerOptions::new().flag("--watch-progress-notify-interval=100ms");
    let server = Server::start_with(options);
    let raw = server.raw().await;
    let asked = pb::WatchCreateRequest {
        progress_notify: true,
        ..watch_key("k")
    };
    let mut watch = RawWatch::open(&raw);
    let id = watch.create(asked).await.watch_id;
    watch.create(watch_key("l")).await;
    raw.put(put("other", "1")).await.unwrap();
    let mut notified = 0;
    // A watch that never had an event is told too (etcd #17566).
    while notified < 3 {
        let answer = watch.next().await;
        assert!(answer.events.is_empty() && !answer.created && !answer.canceled);
        assert_eq!(answer.watch_id, id, "the other watch did not ask");
        let at = revision(&answer.header);
        assert!((1..=2).contains(&at));
        notified += i32::from(at == 2);
    }
    raw.put(put("k", "1")).await.unwrap();
    let event = loop {
        let answer = watch.next().await;
        if !answer.events.is_empty() {
            break answer;
        }
    };
    assert_eq!(
        (event.watch_id, event_text(&event.events[0])),
        (id, "+k=1@3".to_owned())
    );
}

#[tokio::test]
async fn the_way_kubernetes_watches() {
    let options = ServerOptions::new().flag("--watch-progress-notify-interval=200ms");
    let server = Server::start_with(options);
    let raw = server.raw().await;
    let prefix = "/registry/pods/";
    let create = |name: &str, value: &str| {
        let key = format!("{prefix}{name}");
        txn(
            vec![cmp(
                &key,
                pb::compare::CompareResult::Equal,
                Against::Mod(0),
            )],
            vec![put(&key, value).op()],
            vec![get(&key).op()],
        )
    };
    let update = |name: &str, at: i64, value: &str| {
        let key = format!("{prefix}{name}");
        txn(
            vec![cmp(
                &key,
                pb::compare::CompareResult::Equal,
                Against::Mod(at),
            )],
            vec![put(&key, value).op()],
            vec![get(&key).op()],
        )
    };
    for name in ["a", "b", "c"] {
        assert!(raw.txn(create(name, "1")).await.unwrap().succeeded);
    }
    let list = pb::RangeRequest {
        range_end: holdfast_tests::wire::prefix_end(prefix.as_bytes()),
        limit: 500,
        ..get(prefix)
    };
    let listed = raw.range(list).await.unwrap();
    let at = revision(&listed.header);
    assert_eq!((listed.count, at), (3, 4));
    let options = etcd_client::ConnectOptions::new().with_require_leader(true);
    let mut client = etcd_client::Client::connect([server.endpoint()], Some(options))
        .await
        .unwrap();
    let watch = etcd_client::WatchOptions::new()
        .with_prefix()
        .with_start_revision(at + 1)
        .with_prev_key()
        .with_progress_notify();
    let mut stream = client.watch(prefix, Some(watch)).await.unwrap();
    assert!(stream.message().await.unwrap().unwrap().created());
    assert!(raw.txn(update("a", 2, "2")).await.unwrap().succeeded);
    assert!(!raw.txn(update("a", 2, "3")).await.unwrap().succeeded);
    raw.delete(del(&format!("{prefix}b"))).await.unwrap();
    raw.put(put("/registry/leases/x", "unseen")).await.unwrap();
    let mut seen = Vec::new();
    let mut progressed = 0;
    while progressed < 7 {
        let answer = holdfast_tests::soon("an answer", stream.message())
            .await
            .unwrap()
            .unwrap();
        if answer.events().is_empty() {
            progressed = answer.header().unwrap().revision();
            stream.request_progress().await.unwrap();
        }
        for event in answer.events() {
            let kv = event.kv().unwrap();
            let previous = event.prev_kv().map(|kv| kv.mod_revision());
            seen.push((event.event_type(), kv.mod_revision(), previous));
        }
    }
    use etcd_client::EventType::{Delete, Put};
    assert_eq!(seen, [(Put, 5, Some(2)), (Delete, 6, Some(3))]);
    let version = raw.status().await.unwrap().version;
    let parts: Vec<u32> = version
        .split('.')
        .map(|part| part.parse().unwrap())
        .collect();
    assert!(
        parts >= vec![3, 5, 13],
        "Kubernetes asks this before it asks for progress: {version}"
    );
}
