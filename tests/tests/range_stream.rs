//! RangeStream (behaviour §3.3).

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use etcd_client::GetOptions;
use holdfast_proto::etcdserverpb::{self as pb, range_request as order};
use holdfast_tests::{
    Raw, Server, refused,
    wire::{IntoOp, always, everything, get, keys, put, range, revision},
};
use tonic::Code;

/// What the chunks of a stream merge into.
fn merged(chunks: Vec<pb::RangeResponse>) -> pb::RangeResponse {
    let mut whole = pb::RangeResponse::default();
    for chunk in chunks {
        whole.kvs.extend(chunk.kvs);
        whole.header = chunk.header.or(whole.header);
        whole.more |= chunk.more;
        whole.count += chunk.count;
    }
    whole
}

async fn fill(raw: &Raw, count: usize) {
    let indexes: Vec<_> = (0..count).collect();
    for part in indexes.chunks(100) {
        let ops = part
            .iter()
            .map(|index| put(&format!("k/{index:05}"), "v").op());
        raw.txn(always(ops.collect())).await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_is_the_range_in_pieces() {
    let server = Server::start();
    let raw = server.raw().await;
    fill(&raw, 2_500).await;
    let past = raw.revision().await;
    raw.put(put("k/00000", "changed")).await.unwrap();
    raw.put(put("l", "v")).await.unwrap();
    for request in [
        get("k/00007"),
        get("missing"),
        range("k/", "k0"),
        range("k/", "\0"),
        everything(),
        pb::RangeRequest {
            limit: 10,
            ..everything()
        },
        pb::RangeRequest {
            limit: 1_234,
            ..everything()
        },
        pb::RangeRequest {
            limit: 9_999,
            ..everything()
        },
        pb::RangeRequest {
            keys_only: true,
            ..everything()
        },
        pb::RangeRequest {
            count_only: true,
            ..everything()
        },
        pb::RangeRequest {
            revision: past,
            ..everything()
        },
        pb::RangeRequest {
            serializable: true,
            ..everything()
        },
        range("l", "k"),
    ] {
        let expected = raw.range(request.clone()).await.unwrap();
        let chunks = raw.range_chunks(request.clone()).await.unwrap();
        if request.count_only {
            assert_eq!(chunks.len(), 1);
        }
        if expected.kvs.len() > 100 {
            assert!(chunks.len() > 2, "{} chunks", chunks.len());
            assert_eq!(chunks[0].kvs.len(), 10, "the first chunk is small");
        }
        let last = chunks.last().unwrap();
        assert_eq!(
            revision(&last.header),
            past + 2,
            "the last chunk carries the header"
        );
        assert_eq!((last.more, last.count), (expected.more, expected.count));
        let whole = merged(chunks);
        assert_eq!(whole.kvs, expected.kvs, "{request:?}");
        assert_eq!(
            (whole.more, whole.count),
            (expected.more, expected.count),
            "{request:?}"
        );
        let header = whole.header.unwrap();
        assert_eq!(header.member_id, expected.header.unwrap().member_id);
    }
}

#[tokio::test]
async fn large_values_come_in_bounded_messages() {
    let server = Server::start();
    let raw = server.raw().await;
    for index in 0..64 {
        raw.put(put(&format!("k{index:02}"), &"v".repeat(200_000)))
            .await
            .unwrap();
    }
    let chunks = raw.range_chunks(everything()).await.unwrap();
    // Ten keys, then the size adapts to about one request; no key count fits both, so a few times that is the bound.
    let largest = chunks
        .iter()
        .map(prost::Message::encoded_len)
        .max()
        .unwrap();
    assert!(largest < 6 * 1_572_864, "a message of {largest} bytes");
    assert_eq!(merged(chunks).kvs.len(), 64);
}

#[tokio::test]
async fn the_revision_is_pinned_when_the_stream_opens() {
    let server = Server::start();
    let raw = server.raw().await;
    fill(&raw, 3_000).await;
    let before = raw.revision().await;
    let mut stream = raw.range_stream(everything()).await.unwrap();
    let first = stream
        .message()
        .await
        .unwrap()
        .unwrap()
        .range_response
        .unwrap();
    for index in 0..3_000 {
        if index % 500 == 0 {
            raw.put(put(&format!("k/{index:05}"), "changed"))
                .await
                .unwrap();
        }
    }
    let mut all = first.kvs;
    while let Some(chunk) = stream.message().await.unwrap() {
        all.extend(chunk.range_response.unwrap().kvs);
    }
    assert_eq!(all.len(), 3_000);
    assert!(
        all.iter().all(|kv| kv.mod_revision <= before),
        "nothing newer than the opening"
    );
}

#[tokio::test]
async fn what_a_stream_refuses() {
    let server = Server::start();
    let raw = server.raw().await;
    fill(&raw, 10).await;
    const SORT: &str = "RangeStream does not support custom sort orders";
    const FILTER: &str = "RangeStream does not support revision filters";
    let asks = |request| {
        let raw = raw.clone();
        async move {
            raw.range_chunks(request)
                .await
                .map(|chunks| keys(&merged(chunks)))
        }
    };
    let sorted = |sort_order: order::SortOrder, sort_target: order::SortTarget| pb::RangeRequest {
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        ..everything()
    };
    use order::{
        SortOrder::{Ascend, Descend, None},
        SortTarget::{Key, Mod, Value},
    };
    // Without an order the target is not looked at, and keys ascend anyway.
    for plain in [sorted(Ascend, Key), sorted(None, Value), sorted(None, Mod)] {
        assert_eq!(asks(plain).await.unwrap().len(), 10);
    }
    for custom in [
        sorted(Descend, Key),
        sorted(Ascend, Mod),
        sorted(Descend, Value),
    ] {
        refused(asks(custom).await, Code::Unimplemented, SORT);
    }
    for request in [
        pb::RangeRequest {
            min_mod_revision: 1,
            ..everything()
        },
        pb::RangeRequest {
            max_mod_revision: 1,
            ..everything()
        },
        pb::RangeRequest {
            min_create_revision: 1,
            ..everything()
        },
        pb::RangeRequest {
            max_create_revision: 1,
            ..everything()
        },
    ] {
        refused(asks(request).await, Code::Unimplemented, FILTER);
    }
    refused(
        asks(get("")).await,
        Code::InvalidArgument,
        "etcdserver: key is not provided",
    );
    let at = |revision| pb::RangeRequest {
        revision,
        ..everything()
    };
    refused(
        asks(at(99)).await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
    raw.put(put("a", "1")).await.unwrap();
    raw.compact(3).await.unwrap();
    refused(
        asks(at(2)).await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision has been compacted",
    );
}

#[tokio::test]
async fn etcd_client_streams() {
    let server = Server::start();
    fill(&server.raw().await, 500).await;
    let mut client = server.client().await;
    let options = GetOptions::new().with_all_keys();
    let mut stream = client
        .kv_client()
        .get_stream("", Some(options))
        .await
        .unwrap();
    let mut seen = 0;
    while let Some(chunk) = stream.message().await.unwrap() {
        seen += chunk.kvs().len();
    }
    assert_eq!(seen, 500);
    assert_eq!(client.get("k/00000", None).await.unwrap().count(), 1);
}
