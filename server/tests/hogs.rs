//! Clients that ask for much, of what the protocol allows: they hold up nobody, and what they hold is bounded.

mod support;

use futures::StreamExt;
use holdfast_proto::etcdserverpb as pb;
use std::time::{Duration, Instant};
use support::frames::{
    Attacker, END_HEADERS, HEADERS, INITIAL_WINDOW_SIZE, call_headers, frame, grpc, unary,
};
use support::{MIB, PATH_RANGE, Server, TOLERABLE, bounded, range, within};

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
    let mut maintenance = pb::maintenance_client::MaintenanceClient::new(good.channel.clone());
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
        request_union: Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})),
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
        let mut bad = Attacker::connect(server.port, &[]).await.paced().await;
        let begin = frame(
            HEADERS,
            END_HEADERS,
            1,
            &call_headers("/etcdserverpb.Watch/Watch"),
        );
        assert!(bad.send(&begin, Duration::from_secs(1)).await);
        for _ in 0..600 {
            if !bad.data(1, &storm, Duration::from_millis(300)).await {
                break;
            }
        }
        held.push(bad);
        assert!(good.slowest(5).await < TOLERABLE);
    }
    // All watches together may have 512 MiB.
    bounded(&mut server, before, 640 * MIB);
}

/// Many watches of one key end together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_many_watches_holds_up_nobody() {
    use pb::watch_request::RequestUnion;
    const WATCHES: usize = 100_000;
    let mut server = Server::start(&[]);
    let good = server.client().await;
    let create = |key: &str| pb::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(pb::WatchCreateRequest {
            key: key.to_owned().into(),
            ..pb::WatchCreateRequest::default()
        })),
    };
    let mut watch = pb::watch_client::WatchClient::new(good.channel.clone());
    let mine = futures::stream::iter([create("mine")]).chain(futures::stream::pending());
    let mut mine = within(watch.watch(mine)).await.unwrap().into_inner();
    assert!(within(mine.message()).await.unwrap().unwrap().created);

    let bad = server.client().await;
    let mut watch = pb::watch_client::WatchClient::new(bad.channel.clone());
    let many = futures::stream::iter((0..WATCHES).map(move |_| create("theirs")));
    let mut many = within(watch.watch(many.chain(futures::stream::pending())))
        .await
        .unwrap()
        .into_inner();
    within(async {
        for _ in 0..WATCHES {
            assert!(many.message().await.unwrap().unwrap().created);
        }
    })
    .await;
    drop(many);
    drop((watch, bad));
    let begun = Instant::now();
    for _ in 0..20 {
        good.put("mine", b"v".to_vec()).await;
        assert_eq!(
            within(mine.message()).await.unwrap().unwrap().events.len(),
            1
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        begun.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        begun.elapsed()
    );
    assert!(server.runs());
}

/// A stream that is read slowly is of one revision, however long ago that was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_range_stream_is_of_one_revision() {
    const KEYS: usize = 600;
    let server = Server::start(&[]);
    let good = server.client().await;
    for n in 0..KEYS {
        good.put(&format!("k{n:04}"), vec![b'a'; 8_000]).await;
    }
    let mut kv = good.kv.clone();
    let mut stream = within(kv.range_stream(range(b"k", b"l")))
        .await
        .unwrap()
        .into_inner();
    for n in 0..KEYS {
        good.put(&format!("k{n:04}"), vec![b'b'; 8_000]).await;
        good.put(&format!("k{n:04}-"), vec![b'b'; 10]).await;
    }
    // Longer than the server keeps the state that it began with.
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    let mut keys = 0;
    while let Some(page) = within(stream.message()).await.unwrap() {
        let page = page.range_response.unwrap();
        keys += page.kvs.len();
        assert!(page.kvs.iter().all(|kv| kv.value[0] == b'a'));
        if let Some(header) = page.header {
            assert_eq!(
                (header.revision, page.count),
                (KEYS as i64 + 1, KEYS as i64)
            );
        }
    }
    assert_eq!(keys, KEYS);
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
