//! HTTP/2 abuse, against the real binary: the server stays up, its memory is bounded, and a good client is served meanwhile.

mod support;

use holdfast_proto::etcdserverpb as pb;
use std::time::Duration;
use support::frames::{
    ACK, Attacker, CONTINUATION, END_HEADERS, HEADERS, INITIAL_WINDOW_SIZE, PING, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, call_headers, data, field, frame, grpc, unary,
};
use support::{MIB, PATH_RANGE, Server, TOLERABLE, bounded, range, within};

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
    assert!(within(attack).await.unwrap(), "nobody cut the attacker off");
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

/// Answers that go back in headers alone are held back by no window.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_paths_never_read() {
    let mut server = Server::start(&[]);
    let good = server.client().await;
    let before = server.rss();
    let path = format!("/{}", "%".repeat(15_000));
    let mut bad = Attacker::connect(server.port, &[]).await;
    for call in 0..4_000u32 {
        let bytes = unary(call * 2 + 1, &path, &range(b"a", b""));
        if !bad.send(&bytes, Duration::from_millis(500)).await {
            break;
        }
    }
    assert!(good.slowest(10).await < TOLERABLE);
    bounded(&mut server, before, 96 * MIB);
}

/// Many requests that are almost there, on one connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_requests() {
    let mut server = Server::start(&[]);
    let good = server.client().await;
    let before = server.rss();
    let mut held = Vec::new();
    for path in ["/etcdserverpb.KV/Put", "/etcdserverpb.Watch/Watch"] {
        let mut bad = Attacker::connect(server.port, &[]).await.paced().await;
        let put = grpc(&pb::PutRequest {
            key: b"k".to_vec().into(),
            value: vec![7; 1_500_000].into(),
            ..pb::PutRequest::default()
        });
        let almost = &put[..put.len() - 1];
        for call in 0..600u32 {
            let stream = call * 2 + 1;
            let begin = frame(HEADERS, END_HEADERS, stream, &call_headers(path));
            bad.send(&begin, Duration::from_millis(500)).await;
            bad.data(stream, almost, Duration::from_millis(200)).await;
            if bad.is_closed() {
                break;
            }
        }
        held.push(bad);
        assert!(good.slowest(10).await < TOLERABLE);
    }
    // Two connections with 192 MiB each, and what the allocator needs for buffers that grow.
    bounded(&mut server, before, 800 * MIB);
}
