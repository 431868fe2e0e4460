//! Nothing is unbounded: many watches, connections and sockets, slow readers, large ranges; the memory of the server is measured.
//!
//! `HOLDFAST_FULL=1` runs the full sizes. Each test prints the peak of the server's resident memory. A debug build is measured
//! by the same bounds: they are there to catch what grows without end, not to weigh bytes.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use bytes::Bytes;
use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    Raw, RawWatch, Server, eventually, full_size, http_get, is_reference, peak_rss_bytes,
    rss_bytes, watch_key, watch_prefix,
    wire::{IntoOp, always, everything, get, put},
    within,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

const MIB: u64 = 1 << 20;

/// Thousands of sockets need as many descriptors, here and in the server, which inherits the limit.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

fn report(what: &str, server: &Server, before: u64) -> u64 {
    let peak = peak_rss_bytes(server.pid());
    let grown = peak.saturating_sub(before);
    eprintln!(
        "{what}: peak RSS {} MiB, {} MiB more than before",
        peak / MIB,
        grown / MIB
    );
    grown
}

/// Growth is asserted for Holdfast only: a real etcd is run for the behaviour.
#[track_caller]
fn bounded(grown: u64, limit: u64) {
    assert!(
        is_reference() || grown <= limit,
        "{} MiB, allowed are {}",
        grown / MIB,
        limit / MIB
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_watches_on_one_connection() {
    const STREAMS: usize = 10;
    const WATCHES: usize = 1_000;
    let server = Server::start();
    let raw = server.raw().await;
    let before = rss_bytes(server.pid());
    let mut streams = Vec::new();
    for stream in 0..STREAMS {
        let mut watch = RawWatch::open(&raw);
        for index in 0..WATCHES {
            watch
                .request(watch_key(&format!("k/{stream}/{index}")))
                .await;
            // The answers must be read meanwhile: a server need not hold thousands of them.
            if index % 100 == 99 {
                for _ in 0..100 {
                    assert!(watch.next().await.created);
                }
            }
        }
        streams.push(watch);
    }
    for index in [0, 1, 500, 999] {
        for (stream, watch) in streams.iter_mut().enumerate() {
            let key = format!("k/{stream}/{index}");
            raw.put(put(&key, "v")).await.unwrap();
            let answer = watch.next().await;
            assert_eq!((answer.watch_id, answer.events.len()), (index as i64, 1));
            assert_eq!(answer.events[0].kv.as_ref().unwrap().key, key);
        }
    }
    // A put that nobody watches is not slowed down by those who watch something else.
    let started = Instant::now();
    for _ in 0..100 {
        raw.put(put("unwatched", "v")).await.unwrap();
    }
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    // 16 KiB for each watch is far beyond what one needs.
    bounded(
        report("10,000 watches", &server, before),
        (STREAMS * WATCHES) as u64 * 16 * 1024,
    );
}

/// Writes `total` bytes of events in values of 64 KiB, forgetting the old ones; gives the number of writes.
async fn write_events(raw: &Raw, total: usize) -> usize {
    const VALUE: usize = 64 * 1024;
    let value = Bytes::from(vec![b'v'; VALUE]);
    let count = total / VALUE;
    for index in 0..count {
        let request = pb::PutRequest {
            value: value.clone(),
            ..put("k", "")
        };
        raw.put(request).await.unwrap();
        if index % 256 == 255 {
            // Behind what the watcher needs, so that only it could keep the old values.
            raw.compact((index as i64 - 128).max(1)).await.unwrap();
        }
    }
    count
}

/// What writing took for a moment is given back, and what remains is small: the index, some buffers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_after_many_puts() {
    const KEYS: usize = 10_000;
    const CLIENTS: usize = 50;
    let server = Server::start();
    let puts = if full_size() { 500_000 } else { 50_000 };
    let raw = server.raw().await;
    let value = "v".repeat(256);
    let clients = (0..CLIENTS).map(|client| {
        let (raw, value) = (raw.clone(), value.clone());
        tokio::spawn(async move {
            for n in 0..puts / CLIENTS {
                let key = format!("k/{:06}", (client + n * 7919) % KEYS);
                raw.put(put(&key, &value)).await.unwrap();
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let limit = 64 * MIB;
    let small = async || (is_reference() || rss_bytes(server.pid()) <= limit).then_some(());
    let what = format!("at most {} MiB", limit / MIB);
    eventually(Duration::from_secs(20), &what, small).await;
    report("many puts", &server, 0);
    eprintln!("{} MiB after them", rss_bytes(server.pid()) / MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_never_reads() {
    let total = if full_size() { 1 << 30 } else { 64 << 20 };
    // What the writes alone take is measured on a server of its own.
    let control = Server::start();
    write_events(&control.raw().await, total).await;
    let alone = peak_rss_bytes(control.pid());
    drop(control);

    let server = Server::start();
    let raw = server.raw().await;
    let silent = server.raw().await;
    let (mut watch, _) = RawWatch::on(&silent, watch_key("k")).await;
    let (mut reader, _) = RawWatch::on(&server.raw().await, watch_key("k")).await;
    let reading = tokio::spawn(async move {
        let mut seen = 0;
        let mut last = 1;
        while let Some(answer) = reader.next_within(Duration::from_secs(10)).await {
            assert!(!answer.canceled, "one that reads is not cancelled");
            for event in answer.events {
                let at = event.kv.unwrap().mod_revision;
                assert_eq!(at, last + 1);
                last = at;
                seen += 1;
                if seen == total / (64 * 1024) {
                    return seen;
                }
            }
        }
        seen
    });
    let count = write_events(&raw, total).await;
    assert_eq!(reading.await.unwrap(), count, "others are served");
    let grown = report("a watcher that never reads", &server, alone);
    bounded(grown, 96 * MIB);
    // When it reads at last: all in order, or up to where it is told that the rest was compacted.
    let mut next = 2;
    while next < count as i64 + 2 {
        let answer = watch.next().await;
        if answer.canceled {
            assert!(answer.compact_revision >= next, "{answer:?}");
            break;
        }
        for event in answer.events {
            assert_eq!(event.kv.unwrap().mod_revision, next);
            next += 1;
        }
    }
    raw.put(put("k", "still there")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections() {
    const CONNECTIONS: usize = 1_000;
    raise_descriptor_limit();
    let server = Server::start();
    let before = rss_bytes(server.pid());
    let mut connections = Vec::new();
    for index in 0..CONNECTIONS {
        let raw = server.raw().await;
        raw.put(put(&format!("k{index}"), "v")).await.unwrap();
        connections.push(raw);
    }
    let mut reads = tokio::task::JoinSet::new();
    for (index, raw) in connections.iter().enumerate() {
        let raw = raw.clone();
        reads.spawn(async move { raw.range(get(&format!("k{index}"))).await.unwrap().count });
    }
    let counts = within(
        Duration::from_secs(60),
        "all are answered",
        reads.join_all(),
    )
    .await;
    assert_eq!(counts.into_iter().sum::<i64>(), CONNECTIONS as i64);
    // 128 KiB for each connection: HTTP/2 windows, buffers, a stream.
    bounded(
        report("1,000 connections", &server, before),
        CONNECTIONS as u64 * 128 * 1024,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_a_hundred_thousand_keys_without_a_limit() {
    const KEYS: usize = 100_000;
    let server = Server::start();
    let raw = server.raw().await;
    let value = "v".repeat(256);
    let indexes: Vec<_> = (0..KEYS).collect();
    for part in indexes.chunks(128) {
        let ops = part
            .iter()
            .map(|index| put(&format!("key/{index:06}"), &value).op());
        raw.txn(always(ops.collect())).await.unwrap();
    }
    let before = rss_bytes(server.pid());
    let mut size = 0;
    for _ in 0..3 {
        let answer = within(
            Duration::from_secs(60),
            "the range",
            raw.range(everything()),
        )
        .await
        .unwrap();
        assert_eq!(
            (answer.kvs.len(), answer.count, answer.more),
            (KEYS, KEYS as i64, false)
        );
        assert!(answer.kvs.is_sorted_by(|left, right| left.key < right.key));
        size = prost::Message::encoded_len(&answer) as u64;
    }
    // Four at once, while small requests go on.
    let mut large = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let raw = server.raw().await;
        large.spawn(async move { raw.range(everything()).await.unwrap().kvs.len() });
    }
    let small = server.raw().await;
    let mut slowest = Duration::ZERO;
    while large.try_join_next().is_none() {
        let started = Instant::now();
        small.put(put("small", "v")).await.unwrap();
        slowest = slowest.max(started.elapsed());
    }
    large.join_all().await;
    eprintln!(
        "the slowest put beside four ranges of {} MiB took {slowest:?}",
        size / MIB
    );
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    // Each answer exists as rows and as bytes at the same time, for four requests; not much more.
    bounded(report("ranges of 100,000 keys", &server, before), size * 16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_sockets_do_not_keep_others_out() {
    const SOCKETS: usize = 2_000;
    raise_descriptor_limit();
    let server = Server::start();
    let before = rss_bytes(server.pid());
    let mut silent = Vec::new();
    for _ in 0..SOCKETS {
        // A server may refuse some of them; none may cost others their place.
        let connecting = TcpStream::connect(("127.0.0.1", server.port()));
        if let Ok(Ok(socket)) = tokio::time::timeout(Duration::from_secs(2), connecting).await {
            silent.push(socket);
        }
    }
    assert!(silent.len() >= SOCKETS / 2, "{} sockets", silent.len());
    for round in 0..5 {
        let started = Instant::now();
        let raw = within(
            Duration::from_secs(5),
            "a good client connects",
            server.raw(),
        )
        .await;
        raw.put(put("a", &round.to_string())).await.unwrap();
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{:?}",
            started.elapsed()
        );
    }
    assert_eq!(http_get(server.port(), "/health").await.status, 200);
    bounded(
        report("2,000 silent sockets", &server, before),
        SOCKETS as u64 * 64 * 1024,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_watchers_of_one_prefix_all_get_everything() {
    const WATCHERS: usize = 100;
    const PUTS: usize = 200;
    let server = Server::start();
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..WATCHERS {
        let raw = server.raw().await;
        let (mut watch, _) = RawWatch::on(&raw, watch_prefix("k/")).await;
        watchers.spawn(async move {
            let events = watch.events(PUTS).await;
            let revisions = events
                .iter()
                .map(|event| event.kv.as_ref().unwrap().mod_revision);
            assert!(revisions.eq(2..2 + PUTS as i64));
        });
    }
    let raw = server.raw().await;
    for index in 0..PUTS {
        raw.put(put(&format!("k/{index}"), "v")).await.unwrap();
    }
    within(Duration::from_secs(60), "all watchers", watchers.join_all()).await;
}
