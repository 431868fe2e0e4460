//! Clients that mean harm, against the real binary: the server stays up, its memory is bounded, and a good client is served
//! meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

mod support;

use holdfast_proto::etcdserverpb as pb;
use std::time::{Duration, Instant};
use support::frames::{
    ACK, Attacker, CONTINUATION, END_HEADERS, HEADERS, INITIAL_WINDOW_SIZE, PING, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, call_headers, data, field, frame, grpc, unary,
};
use support::{MIB, Server, within};

/// What a good client may wait at worst while a bad one is at work, on a busy machine with a debug build.
const TOLERABLE: Duration = Duration::from_secs(3);

fn range(key: &[u8], end: &[u8]) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_vec().into(),
        range_end: end.to_vec().into(),
        ..pb::RangeRequest::default()
    }
}

/// Waits until the server has done with what was sent to it, and weighs what it has come to.
#[track_caller]
fn bounded(server: &mut Server, before: u64, limit: u64) {
    server.settle();
    assert!(server.runs(), "the server is gone");
    let grown = server.peak().saturating_sub(before);
    eprintln!("{} MiB more than before", grown / MIB);
    assert!(
        grown <= limit,
        "{} MiB more than before, allowed are {}",
        grown / MIB,
        limit / MIB
    );
}

const PATH_RANGE: &str = "/etcdserverpb.KV/Range";

/// CVE-2023-44487.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_reset() {
    let mut server = Server::start(&[]);
    let good = server.client().await;
    let before = server.rss();
    let attacks: Vec<_> = (0..4)
        .map(|_| {
            let port = server.port;
            tokio::spawn(async move {
                let mut bad = Attacker::connect(port, &[]).await;
                for batch in 0..200u32 {
                    let mut bytes = Vec::new();
                    for call in 0..100 {
                        let stream = (batch * 100 + call) * 2 + 1;
                        bytes.extend(unary(stream, PATH_RANGE, &range(b"a", b"")));
                        bytes.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
                    }
                    if !bad.send(&bytes, Duration::from_secs(1)).await {
                        return true;
                    }
                }
                bad.closed_within(Duration::from_secs(2)).await
            })
        })
        .collect();
    assert!(good.slowest(50).await < TOLERABLE);
    for attack in attacks {
        assert!(within(attack).await.unwrap(), "nobody cut the attacker off");
    }
    assert!(good.slowest(5).await < TOLERABLE);
    bounded(&mut server, before, 64 * MIB);
}

/// VU#421644 (CONTINUATION flood).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuation_flood() {
    let mut server = Server::start(&[]);
    let good = server.client().await;
    let before = server.rss();
    let port = server.port;
    let attack = tokio::spawn(async move {
        let mut bad = Attacker::connect(port, &[]).await;
        let first = frame(HEADERS, 0, 1, &call_headers(PATH_RANGE));
        bad.send(&first, Duration::from_secs(1)).await;
        let more: Vec<u8> = (0..16)
            .flat_map(|n| field(&format!("x-{n}"), &"v".repeat(900)))
            .collect();
        let more = frame(CONTINUATION, 0, 1, &more);
        for _ in 0..8_000 {
            if !bad.send(&more, Duration::from_secs(1)).await {
                return true;
            }
        }
        bad.closed_within(Duration::from_secs(1)).await
    });
    assert!(good.slowest(50).await < TOLERABLE);
    assert!(
        within(attack).await.unwrap(),
        "nobody cut the attacker off"
    );
    bounded(&mut server, before, 48 * MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_headers() {
    let mut server = Server::start(&[]);
    let good = server.client().await;
    let before = server.rss();
    for stream in 0..200u32 {
        let mut bad = Attacker::connect(server.port, &[]).await;
        let mut block = call_headers(PATH_RANGE);
        for n in 0..40 {
            block.extend(field(&format!("x-{n}"), &"v".repeat(1_000)));
        }
        let mut bytes = Vec::new();
        let (head, rest) = block.split_at(16_000);
        bytes.extend(frame(HEADERS, 0, 1, head));
        let mut chunks = rest.chunks(16_000).peekable();
        while let Some(chunk) = chunks.next() {
            let flags = if chunks.peek().is_none() {
                END_HEADERS
            } else {
                0
            };
            bytes.extend(frame(CONTINUATION, flags, 1, chunk));
        }
        bytes.extend(data(1, &grpc(&range(b"a", b"")), true));
        bad.send(&bytes, Duration::from_secs(1)).await;
        if stream % 50 == 0 {
            assert!(good.slowest(1).await < TOLERABLE);
        }
    }
    assert!(good.slowest(5).await < TOLERABLE);
    bounded(&mut server, before, 64 * MIB);
}

/// Asks for large values again and again and takes none of the answers.
async fn never_read(settings: &[(u16, u32)], open_connection_window: bool) {
    const CALLS: u32 = 2_000;
    let mut server = Server::start(&[]);
    let good = server.client().await;
    good.put("large", vec![7; 1 << 20]).await;
    let before = server.rss();
    let mut bad = Attacker::connect(server.port, settings).await;
    if open_connection_window {
        let most = (i32::MAX as u32 - 65_535).to_be_bytes();
        let update = frame(WINDOW_UPDATE, 0, 0, &most);
        bad.send(&update, Duration::from_secs(1)).await;
    }
    for call in 0..CALLS {
        let bytes = unary(call * 2 + 1, PATH_RANGE, &range(b"large", b""));
        if !bad.send(&bytes, Duration::from_secs(1)).await {
            break;
        }
    }
    assert!(good.slowest(20).await < TOLERABLE);
    bounded(&mut server, before, 160 * MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zero_window_never_reader() {
    never_read(&[(INITIAL_WINDOW_SIZE, 0)], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn default_window_never_reader() {
    never_read(&[], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wide_window_never_reader() {
    never_read(&[(INITIAL_WINDOW_SIZE, i32::MAX as u32)], true).await;
}

/// Pings, and settings, whose acknowledgements nobody reads (CVE-2019-9512, CVE-2019-9515).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_flood() {
    let mut server = Server::start(&[]);
    let good = server.client().await;
    let before = server.rss();
    let floods = [
        frame(PING, 0, 0, &[1; 8]).repeat(1_000),
        frame(SETTINGS, 0, 0, &[]).repeat(1_000),
        frame(PING, ACK, 0, &[1; 8]).repeat(1_000),
    ];
    let attacks: Vec<_> = floods
        .into_iter()
        .map(|flood| {
            let port = server.port;
            tokio::spawn(async move {
                let mut bad = Attacker::connect(port, &[]).await;
                for _ in 0..500 {
                    if !bad.send(&flood, Duration::from_millis(500)).await {
                        break;
                    }
                }
                bad
            })
        })
        .collect();
    assert!(good.slowest(50).await < TOLERABLE);
    let mut held = Vec::new();
    for attack in attacks {
        held.push(within(attack).await.unwrap());
    }
    assert!(good.slowest(5).await < TOLERABLE);
    bounded(&mut server, before, 48 * MIB);
}

/// Many requests that are almost there, on one connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_requests() {
    let mut server = Server::start(&[]);
    let good = server.client().await;
    let before = server.rss();
    for path in ["/etcdserverpb.KV/Put", "/etcdserverpb.Watch/Watch"] {
        let mut bad = Attacker::connect(server.port, &[]).await;
        let put = grpc(&pb::PutRequest {
            key: b"k".to_vec().into(),
            value: vec![7; 1_500_000].into(),
            ..pb::PutRequest::default()
        });
        let almost = &put[..put.len() - 1];
        for call in 0..400u32 {
            let stream = call * 2 + 1;
            let mut bytes = frame(HEADERS, END_HEADERS, stream, &call_headers(path));
            bytes.extend(data(stream, almost, false));
            if !bad.send(&bytes, Duration::from_millis(500)).await {
                break;
            }
        }
        assert!(good.slowest(10).await < TOLERABLE);
        bounded(&mut server, before, 240 * MIB);
    }
}

/// Snapshots that nobody reads keep neither threads nor other clients' long work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_snapshots_do_not_hold_up_others() {
    let mut server = Server::start(&["--workers=1"]);
    let good = server.client().await;
    for n in 0..8 {
        good.put(&format!("k{n}"), vec![7; 1 << 20]).await;
    }
    let mut bad = Attacker::connect(server.port, &[]).await;
    for call in 0..12u32 {
        let path = "/etcdserverpb.Maintenance/Snapshot";
        let bytes = unary(call * 2 + 1, path, &pb::SnapshotRequest {});
        assert!(bad.send(&bytes, Duration::from_secs(1)).await);
    }
    // What was sent before is at work by then: one connection's calls begin in order.
    assert!(good.slowest(5).await < TOLERABLE);
    let mut maintenance =
        pb::maintenance_client::MaintenanceClient::new(good.channel.clone());
    let begun = Instant::now();
    within(maintenance.hash_kv(pb::HashKvRequest { revision: 0 }))
        .await
        .unwrap();
    assert!(begun.elapsed() < TOLERABLE);
    assert!(server.runs());
}

/// A transaction of reads may be as long as 128 ranges over everything: it must not stand in anybody's way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_read_transactions_do_not_hold_up_others() {
    const KEYS: usize = 6_000;
    let mut server = Server::start(&["--workers=1", "--memory-budget-bytes=67108864"]);
    let good = server.client().await;
    for batch in 0..KEYS / 100 {
        let success = (0..100)
            .map(|n| pb::RequestOp {
                request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
                    key: format!("k/{batch}/{n}").into(),
                    value: vec![7; 1_000].into(),
                    ..pb::PutRequest::default()
                })),
            })
            .collect();
        let txn = pb::TxnRequest {
            success,
            ..pb::TxnRequest::default()
        };
        within(good.kv.clone().txn(txn)).await.unwrap();
    }
    let before = server.rss();
    let everything = pb::TxnRequest {
        success: vec![
            pb::RequestOp {
                request: Some(pb::request_op::Request::RequestRange(range(b"\0", b"\0"))),
            };
            100
        ],
        ..pb::TxnRequest::default()
    };
    let mut bad = Attacker::connect(server.port, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    for call in 0..4u32 {
        let bytes = unary(call * 2 + 1, "/etcdserverpb.KV/Txn", &everything);
        assert!(bad.send(&bytes, Duration::from_secs(1)).await);
    }
    assert!(good.slowest(30).await < Duration::from_millis(500));
    // One answer, its encoding, and what is read for it: the others wait for the budget.
    bounded(&mut server, before, 2_100 * MIB);
}

/// Watches are made as fast as a client can ask, with long keys; nobody reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_create_storm() {
    use pb::watch_request::RequestUnion;
    let mut server = Server::start(&[]);
    let good = server.client().await;
    for n in 0..50 {
        good.put(&format!("k{n}"), vec![7; 1 << 10]).await;
    }
    let before = server.rss();
    let create = |key: Vec<u8>| {
        grpc(&pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(pb::WatchCreateRequest {
                key: key.into(),
                range_end: b"\0".to_vec().into(),
                start_revision: 1,
                prev_kv: true,
                ..pb::WatchCreateRequest::default()
            })),
        })
    };
    let progress = grpc(&pb::WatchRequest {
        request_union: Some(RequestUnion::ProgressRequest(
            pb::WatchProgressRequest {},
        )),
    });
    let cancel = grpc(&pb::WatchRequest {
        request_union: Some(RequestUnion::CancelRequest(pb::WatchCancelRequest {
            watch_id: i64::MIN,
        })),
    });
    let mut held = Vec::new();
    for storm in [
        create(b"k".to_vec()).repeat(200),
        create(vec![b'k'; 1_400_000]),
        progress.repeat(2_000),
        cancel.repeat(1_000),
    ] {
        let mut bad = Attacker::connect(server.port, &[]).await;
        let begin = frame(
            HEADERS,
            END_HEADERS,
            1,
            &call_headers("/etcdserverpb.Watch/Watch"),
        );
        assert!(bad.send(&begin, Duration::from_secs(1)).await);
        let bytes = data(1, &storm, false);
        for _ in 0..300 {
            if !bad.send(&bytes, Duration::from_millis(300)).await {
                break;
            }
        }
        held.push(bad);
        assert!(good.slowest(5).await < TOLERABLE);
        bounded(&mut server, before, 200 * MIB);
    }
}

/// Streams that never end, and clients that never read, do not hold up a stop (behaviour §6.1).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_nobody() {
    let server = Server::start(&[]);
    let good = server.client().await;
    good.put("large", vec![7; 1 << 20]).await;
    let mut bad = Attacker::connect(server.port, &[]).await;
    for (call, path) in [
        "/etcdserverpb.Watch/Watch",
        "/etcdserverpb.Lease/LeaseKeepAlive",
        "/etcdserverpb.Maintenance/Snapshot",
        "/etcdserverpb.KV/RangeStream",
        "/grpc.health.v1.Health/Watch",
        PATH_RANGE,
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = unary(call as u32 * 2 + 1, path, &range(b"large", b""));
        assert!(bad.send(&bytes, Duration::from_secs(1)).await);
    }
    assert!(good.slowest(5).await < TOLERABLE);
    let (status, took) = tokio::task::spawn_blocking(move || server.terminate())
        .await
        .unwrap();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_millis(1_500), "{took:?}");
}
