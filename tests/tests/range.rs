//! Range (behaviour §3.2).

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use bytes::Bytes;
use etcd_client::{GetOptions, GetResponse, PutOptions, SortOrder, SortTarget};
use holdfast_proto::{
    etcdserverpb::{self as pb, range_request as order},
    mvccpb::KeyValue,
};
use holdfast_tests::{
    Raw, Server, refused,
    wire::{b, del_range, everything, keys, put, revision, values},
};
use tonic::Code;

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";

fn keys_of(answer: &GetResponse) -> Vec<String> {
    answer
        .kvs()
        .iter()
        .map(|kv| kv.key_str().unwrap().to_owned())
        .collect()
}

async fn fill(raw: &Raw, pairs: &[(&str, &str)]) {
    for (key, value) in pairs {
        raw.put(put(key, value)).await.unwrap();
    }
}

#[tokio::test]
async fn ranges_cover_what_key_and_end_say() {
    let server = Server::start();
    let raw = server.raw().await;
    for key in ["a", "aa", "ab", "b", "c"] {
        raw.put(put(key, "v")).await.unwrap();
    }
    let last = Bytes::from_static(b"\xff\xff");
    for key in [&b"\xff\xfe"[..], b"\xff\xff", b"\xff\xffz"] {
        let key = Bytes::from_static(key);
        raw.put(pb::PutRequest {
            key,
            ..put("", "v")
        })
        .await
        .unwrap();
    }
    let count = |key: &'static [u8], end: &'static [u8]| {
        let raw = raw.clone();
        async move {
            let request = pb::RangeRequest {
                key: Bytes::from_static(key),
                range_end: Bytes::from_static(end),
                ..Default::default()
            };
            let answer = raw.range(request).await.unwrap();
            assert_eq!(answer.count as usize, answer.kvs.len());
            assert!(answer.kvs.is_sorted_by(|left, right| left.key < right.key));
            answer.count
        }
    };
    assert_eq!(count(b"a", b"").await, 1, "one key");
    assert_eq!(count(b"a", b"b").await, 3, "a prefix");
    assert_eq!(count(b"a", b"c").await, 4, "the end is not part of it");
    assert_eq!(count(b"b", b"\0").await, 5, "from a key on");
    assert_eq!(count(b"\0", b"\0").await, 8, "everything");
    assert_eq!(count(b"a\0", b"b").await, 2, "after a key");
    assert_eq!(count(b"b", b"a").await, 0, "the end lies before");
    assert_eq!(count(b"b", b"b").await, 0, "the end is the key");
    assert_eq!(
        count(b"\xff\xff", b"\0").await,
        2,
        "the prefix of the last key"
    );
    let from_last = pb::DeleteRangeRequest {
        key: last,
        range_end: b("\0"),
        ..Default::default()
    };
    assert_eq!(raw.delete(from_last).await.unwrap().deleted, 2);
    assert_eq!(raw.delete(del_range("b", "a")).await.unwrap().deleted, 0);
    assert_eq!(raw.delete(del_range("a", "b")).await.unwrap().deleted, 3);
    assert_eq!(raw.delete(del_range("\0", "\0")).await.unwrap().deleted, 3);
    let nothing = raw.delete(del_range("\0", "\0")).await.unwrap();
    assert_eq!((nothing.deleted, revision(&nothing.header)), (0, 12));
}

#[tokio::test]
async fn past_revisions_are_readable_and_future_ones_are_not() {
    let server = Server::start();
    let raw = server.raw().await;
    fill(&raw, &[("a", "1"), ("a", "2"), ("b", "1")]).await;
    let at = |revision: i64| pb::RangeRequest {
        revision,
        ..everything()
    };
    assert_eq!(values(&raw.range(at(2)).await.unwrap()), ["1"]);
    assert_eq!(values(&raw.range(at(3)).await.unwrap()), ["2"]);
    assert_eq!(values(&raw.range(at(4)).await.unwrap()), ["2", "1"]);
    for current in [0, -1, i64::MIN] {
        assert_eq!(values(&raw.range(at(current)).await.unwrap()), ["2", "1"]);
    }
    refused(raw.range(at(5)).await, Code::OutOfRange, FUTURE);
    refused(raw.range(at(i64::MAX)).await, Code::OutOfRange, FUTURE);
    raw.compact(3).await.unwrap();
    refused(raw.range(at(2)).await, Code::OutOfRange, COMPACTED);
    assert_eq!(
        values(&raw.range(at(3)).await.unwrap()),
        ["2"],
        "the compacted revision itself"
    );
    assert_eq!(values(&raw.range(at(-1)).await.unwrap()), ["2", "1"]);
}

#[tokio::test]
async fn limit_cuts_the_rows_but_not_the_count() {
    let server = Server::start();
    let mut client = server.client().await;
    for key in ["a", "b", "c", "d"] {
        client.put(key, "v", None).await.unwrap();
    }
    let limited = |limit| Some(GetOptions::new().with_all_keys().with_limit(limit));
    for (limit, rows, more) in [
        (1, 1, true),
        (3, 3, true),
        (4, 4, false),
        (9, 4, false),
        (0, 4, false),
        (-1, 4, false),
    ] {
        let answer = client.get("", limited(limit)).await.unwrap();
        assert_eq!(
            (answer.kvs().len(), answer.more(), answer.count()),
            (rows, more, 4),
            "limit {limit}"
        );
    }
    // How Kubernetes pages: the next page starts behind the last key, at the revision of the first page.
    let first = client.get("", limited(3)).await.unwrap();
    let pinned = first.header().unwrap().revision();
    client.put("aa", "later", None).await.unwrap();
    client.put("e", "later", None).await.unwrap();
    let mut next = first.kvs().last().unwrap().key().to_vec();
    next.push(0);
    let rest = GetOptions::new()
        .with_from_key()
        .with_limit(3)
        .with_revision(pinned);
    let second = client.get(next, Some(rest)).await.unwrap();
    assert_eq!(
        (keys_of(&second), second.more(), second.count()),
        (vec!["d".into()], false, 1)
    );
}

#[tokio::test]
async fn filters_are_inclusive_and_leave_the_count_alone() {
    let server = Server::start();
    let raw = server.raw().await;
    // a: create 2, mod 6; b: 3, 3; c: 4, 7; d: 5, 5
    fill(
        &raw,
        &[
            ("a", "1"),
            ("b", "1"),
            ("c", "1"),
            ("d", "1"),
            ("a", "2"),
            ("c", "2"),
        ],
    )
    .await;
    let cases: [(i64, i64, i64, i64, &[&str]); 9] = [
        (6, 0, 0, 0, &["a", "c"]),
        (0, 5, 0, 0, &["b", "d"]),
        (5, 6, 0, 0, &["a", "d"]),
        (0, 0, 4, 0, &["c", "d"]),
        (0, 0, 0, 3, &["a", "b"]),
        (0, 0, 3, 4, &["b", "c"]),
        (6, 6, 2, 2, &["a"]),
        (9, 0, 0, 0, &[]),
        (6, 5, 0, 0, &[]),
    ];
    for (min_mod, max_mod, min_create, max_create, expected) in cases {
        let request = pb::RangeRequest {
            min_mod_revision: min_mod,
            max_mod_revision: max_mod,
            min_create_revision: min_create,
            max_create_revision: max_create,
            ..everything()
        };
        let answer = raw.range(request.clone()).await.unwrap();
        assert_eq!(keys(&answer), expected, "{request:?}");
        assert_eq!((answer.count, answer.more), (4, false), "{request:?}");
    }
    let limited = pb::RangeRequest {
        min_mod_revision: 5,
        limit: 2,
        ..everything()
    };
    let answer = raw.range(limited).await.unwrap();
    assert_eq!(
        (keys(&answer), answer.more, answer.count),
        (vec!["a".into(), "c".into()], true, 4)
    );
    let exact = pb::RangeRequest {
        max_mod_revision: 5,
        limit: 2,
        ..everything()
    };
    let answer = raw.range(exact).await.unwrap();
    assert_eq!(
        (keys(&answer), answer.more),
        (vec!["b".into(), "d".into()], false)
    );
}

#[tokio::test]
async fn every_sort_order_of_every_target() {
    let server = Server::start();
    let raw = server.raw().await;
    // No two keys agree in anything, so every order is total.
    for (key, value, puts) in [
        ("a", "3", 2),
        ("b", "9", 5),
        ("c", "1", 1),
        ("d", "5", 3),
        ("e", "7", 4),
    ] {
        for _ in 0..puts {
            raw.put(put(key, value)).await.unwrap();
        }
    }
    raw.put(put("a", "3")).await.unwrap();
    raw.put(put("a", "3")).await.unwrap();
    raw.put(put("a", "3")).await.unwrap();
    raw.put(put("a", "3")).await.unwrap();
    let all = raw.range(everything()).await.unwrap().kvs;
    let field = |target: order::SortTarget, kv: &KeyValue| match target {
        order::SortTarget::Key => kv.key.to_vec(),
        order::SortTarget::Version => kv.version.to_be_bytes().to_vec(),
        order::SortTarget::Create => kv.create_revision.to_be_bytes().to_vec(),
        order::SortTarget::Mod => kv.mod_revision.to_be_bytes().to_vec(),
        order::SortTarget::Value => kv.value.to_vec(),
    };
    use order::{SortOrder as Order, SortTarget as Target};
    for target in [
        Target::Key,
        Target::Version,
        Target::Create,
        Target::Mod,
        Target::Value,
    ] {
        for sort_order in [Order::Ascend, Order::Descend] {
            for limit in [0, 2] {
                let mut expected = all.clone();
                expected.sort_by_key(|kv| field(target, kv));
                if sort_order == Order::Descend {
                    expected.reverse();
                }
                expected.truncate(if limit == 0 { 5 } else { 2 });
                let request = pb::RangeRequest {
                    sort_order: sort_order.into(),
                    sort_target: target.into(),
                    limit,
                    ..everything()
                };
                let answer = raw.range(request).await.unwrap();
                assert_eq!(answer.kvs, expected, "{target:?} {sort_order:?} {limit}");
                assert_eq!((answer.count, answer.more), (5, limit == 2));
            }
        }
    }
}

#[tokio::test]
async fn a_target_without_an_order_sorts_only_what_the_limit_left() {
    let server = Server::start();
    let raw = server.raw().await;
    // The smallest mod revision is that of d, the last key.
    fill(&raw, &[("d", "1"), ("c", "1"), ("b", "1"), ("a", "1")]).await;
    let request = |limit, sort_order: order::SortOrder| pb::RangeRequest {
        limit,
        sort_order: sort_order.into(),
        sort_target: order::SortTarget::Mod.into(),
        ..everything()
    };
    let unordered = raw.range(request(0, order::SortOrder::None)).await.unwrap();
    assert_eq!(keys(&unordered), ["d", "c", "b", "a"], "ascending");
    // limit + 1 rows were scanned in key order, sorted, and cut.
    let trap = raw.range(request(1, order::SortOrder::None)).await.unwrap();
    assert_eq!(
        (keys(&trap), trap.more, trap.count),
        (vec!["b".into()], true, 4)
    );
    let explicit = raw
        .range(request(1, order::SortOrder::Ascend))
        .await
        .unwrap();
    assert_eq!(keys(&explicit), ["d"]);
}

#[tokio::test]
async fn keys_only_leaves_out_values() {
    let server = Server::start();
    let mut client = server.client().await;
    let lease = client.lease_grant(600, None).await.unwrap().id();
    let leased = PutOptions::new().with_lease(lease);
    client.put("a", "value", Some(leased)).await.unwrap();
    let options = GetOptions::new().with_keys_only();
    let answer = client.get("a", Some(options.clone())).await.unwrap();
    let kv = &answer.kvs()[0];
    assert!(kv.value().is_empty());
    assert_eq!(
        (kv.create_revision(), kv.mod_revision(), kv.version()),
        (2, 2, 1)
    );
    assert_eq!(kv.lease(), 0, "[3.7+] answered from the index");
    let sorted = options.with_sort(SortTarget::Value, SortOrder::Ascend);
    let answer = client.get("a", Some(sorted)).await.unwrap();
    assert!(answer.kvs()[0].value().is_empty());
    assert_eq!(
        answer.kvs()[0].lease(),
        lease,
        "the rows were read for the sort"
    );
}

#[tokio::test]
async fn count_only_answers_with_nothing_but_the_count() {
    let server = Server::start();
    let mut client = server.client().await;
    for key in ["a", "b", "c"] {
        client.put(key, "v", None).await.unwrap();
    }
    for limit in [0, 1] {
        let options = GetOptions::new()
            .with_all_keys()
            .with_count_only()
            .with_limit(limit);
        let answer = client.get("", Some(options)).await.unwrap();
        assert_eq!(
            (answer.count(), answer.kvs().len(), answer.more()),
            (3, 0, false)
        );
    }
    let past = GetOptions::new()
        .with_all_keys()
        .with_count_only()
        .with_revision(3);
    assert_eq!(client.get("", Some(past)).await.unwrap().count(), 2);
}

#[tokio::test]
async fn rows_that_are_equal_to_a_sort_stay_in_key_order() {
    let server = Server::start();
    let raw = server.raw().await;
    fill(&raw, &[("b", "1"), ("a", "1"), ("c", "1"), ("c", "1")]).await;
    use order::{SortOrder as Order, SortTarget as Target};
    let sorted = |sort_order: Order, sort_target: Target| pb::RangeRequest {
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        ..everything()
    };
    // etcd's sort is not stable, but for up to twelve rows it is, in both directions.
    for (order, target, expected) in [
        (Order::Ascend, Target::Version, ["a", "b", "c"]),
        (Order::Descend, Target::Version, ["c", "a", "b"]),
        (Order::Ascend, Target::Value, ["a", "b", "c"]),
        (Order::Descend, Target::Value, ["a", "b", "c"]),
    ] {
        let answer = raw.range(sorted(order, target)).await.unwrap();
        assert_eq!(keys(&answer), expected, "{order:?} {target:?}");
    }
}
