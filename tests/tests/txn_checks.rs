//! What transactions refuse (behaviour §3.5).

#![expect(
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::etcdserverpb::{self as pb, compare::CompareResult};
use holdfast_tests::{
    RawWatch, Server, ServerOptions, event_text, refused, watch_prefix,
    wire::{
        Against, IntoOp, always, cmp, del, del_range, deleted, everything, exists, get, keys, put,
        put_leased, ranged, revision, txn, values,
    },
};
use tonic::Code;

const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";
const TOO_MANY: &str = "etcdserver: too many operations in txn request";

#[tokio::test]
async fn an_error_leaves_nothing_behind() {
    let server = Server::start();
    let raw = server.raw().await;
    for value in ["1", "2", "3"] {
        raw.put(put("a", value)).await.unwrap();
    }
    raw.compact(3).await.unwrap();
    let past = |revision| {
        pb::RangeRequest {
            revision,
            ..get("a")
        }
        .op()
    };
    let cases: [(pb::RequestOp, Code, &str); 6] = [
        (
            put_leased("b", "v", 404).op(),
            Code::NotFound,
            "requested lease not found",
        ),
        (
            past(2),
            Code::OutOfRange,
            "mvcc: required revision has been compacted",
        ),
        (
            past(6),
            Code::OutOfRange,
            "mvcc: required revision is a future revision",
        ),
        (
            past(-1),
            Code::OutOfRange,
            "mvcc: required revision has been compacted",
        ),
        (
            pb::PutRequest {
                ignore_value: true,
                ..put("b", "")
            }
            .op(),
            Code::InvalidArgument,
            "key not found",
        ),
        (
            pb::PutRequest {
                ignore_lease: true,
                ..put("b", "v")
            }
            .op(),
            Code::InvalidArgument,
            "key not found",
        ),
    ];
    for (bad, code, text) in cases {
        let text = format!("etcdserver: {text}");
        let flat = always(vec![put("c", "1").op(), del("a").op(), bad.clone()]);
        refused(raw.txn(flat).await, code, &text);
        let deep = always(vec![put("c", "1").op(), always(vec![bad.clone()]).op()]);
        refused(raw.txn(deep).await, code, &text);
        // Only the chosen path is checked.
        let unchosen = txn(vec![exists("missing")], vec![bad], vec![get("a").op()]);
        let answer = raw.txn(unchosen).await.unwrap();
        assert_eq!(values(ranged(&answer, 0)), ["3"]);
    }
    assert_eq!(raw.revision().await, 4);
    assert_eq!(keys(&raw.range(everything()).await.unwrap()), ["a"]);
}

#[tokio::test]
async fn a_negative_revision_in_a_txn_is_compacted_only_below_the_compacted_one() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("a", "1")).await.unwrap();
    let negative = || pb::RangeRequest {
        revision: -1,
        ..get("a")
    };
    // Nothing was compacted yet: the mark itself is -1, and -1 is not less.
    let fresh = raw
        .txn(always(vec![put("b", "1").op(), negative().op()]))
        .await
        .unwrap();
    assert_eq!(values(ranged(&fresh, 1)), ["1"]);
    raw.compact(2).await.unwrap();
    refused(
        raw.txn(always(vec![negative().op()])).await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision has been compacted",
    );
    assert_eq!(
        values(&raw.range(negative()).await.unwrap()),
        ["1"],
        "the plain path differs"
    );
}

#[tokio::test]
async fn one_path_must_not_touch_a_put_key_twice() {
    let server = Server::start();
    let raw = server.raw().await;
    let p = |key: &str| put(key, "v").op();
    let both = |left: Vec<pb::RequestOp>, right: Vec<pb::RequestOp>| {
        txn(vec![exists("missing")], left, right).op()
    };
    let duplicate: Vec<Vec<pb::RequestOp>> = vec![
        vec![p("a"), p("a")],
        vec![p("a"), p("b"), p("a")],
        vec![p("a"), del("a").op()],
        vec![del("a").op(), p("a")],
        vec![p("b"), del_range("a", "c").op()],
        vec![del_range("a", "c").op(), p("b")],
        vec![p("a"), always(vec![p("a")]).op()],
        vec![always(vec![p("a")]).op(), p("a")],
        vec![always(vec![p("a")]).op(), always(vec![p("a")]).op()],
        vec![both(vec![p("a")], vec![]), p("a")],
        vec![both(vec![], vec![p("a")]), p("a")],
        vec![always(vec![del("a").op()]).op(), p("a")],
        vec![always(vec![always(vec![p("a")]).op()]).op(), p("a")],
    ];
    for ops in duplicate {
        refused(
            raw.txn(always(ops.clone())).await,
            Code::InvalidArgument,
            DUPLICATE,
        );
        let in_failure = txn(vec![], vec![], ops);
        refused(raw.txn(in_failure).await, Code::InvalidArgument, DUPLICATE);
    }
    assert_eq!(raw.revision().await, 1);
    let fine: Vec<Vec<pb::RequestOp>> = vec![
        vec![del("a").op(), del("a").op()],
        vec![del_range("a", "c").op(), del_range("b", "d").op()],
        vec![p("c"), del_range("a", "c").op()],
        vec![del("a").op(), p("a\0")],
        vec![both(vec![p("a")], vec![p("a")])],
        vec![both(vec![p("a")], vec![del("a").op()])],
        vec![get("a").op(), p("a"), get("a").op()],
        vec![del_range("c", "a").op(), p("b")],
        // A delete from a key on is compared as an interval that ends at "\0", before every key: etcd sees no overlap.
        vec![del_range("a", "\0").op(), p("b")],
        vec![del_range("\0", "\0").op(), p("b")],
        vec![p("a"), both(vec![], vec![del_range("\0", "\0").op()])],
    ];
    for ops in fine {
        raw.txn(always(ops.clone()))
            .await
            .unwrap_or_else(|error| panic!("{ops:?}: {error}"));
    }
    let arms = txn(vec![], vec![p("a")], vec![p("a")]);
    assert!(raw.txn(arms).await.unwrap().succeeded);
}

#[tokio::test]
async fn a_key_put_and_deleted_by_one_txn_is_gone() {
    let server = Server::start();
    let raw = server.raw().await;
    let (mut watch, _) = RawWatch::on(&raw, watch_prefix("k")).await;
    let ops = vec![
        put("k1", "v").op(),
        del_range("k", "\0").op(),
        put("k2", "v").op(),
    ];
    let answer = raw.txn(always(ops)).await.unwrap();
    assert_eq!(deleted(&answer, 1).deleted, 1);
    assert_eq!(keys(&raw.range(everything()).await.unwrap()), ["k2"]);
    let events: Vec<_> = watch.events(3).await.iter().map(event_text).collect();
    assert_eq!(events, ["+k1=v@2", "-k1@2", "+k2=v@2"]);
    let again = raw.put(put("k1", "w")).await.unwrap();
    let kv = &raw.range(get("k1")).await.unwrap().kvs[0];
    assert_eq!(
        (revision(&again.header), kv.create_revision, kv.version),
        (3, 3, 1)
    );
}

#[tokio::test]
async fn every_operation_is_checked_like_a_plain_request() {
    let server = Server::start();
    let raw = server.raw().await;
    let cases: Vec<(pb::RequestOp, &str)> = vec![
        (put("", "v").op(), "key is not provided"),
        (get("").op(), "key is not provided"),
        (del("").op(), "key is not provided"),
        (pb::RequestOp { request: None }, "key not found"),
        (
            pb::PutRequest {
                ignore_value: true,
                ..put("a", "v")
            }
            .op(),
            "value is provided",
        ),
        (
            pb::PutRequest {
                ignore_lease: true,
                ..put_leased("a", "v", 3)
            }
            .op(),
            "lease is provided",
        ),
        (
            pb::RangeRequest {
                sort_order: 9,
                ..get("a")
            }
            .op(),
            "invalid sort option",
        ),
    ];
    for (bad, text) in cases {
        let text = format!("etcdserver: {text}");
        for request in [
            always(vec![bad.clone()]),
            txn(vec![], vec![], vec![bad.clone()]),
            always(vec![always(vec![bad.clone()]).op()]),
            txn(
                vec![exists("a")],
                vec![always(vec![bad.clone()]).op()],
                vec![],
            ),
        ] {
            refused(raw.txn(request).await, Code::InvalidArgument, &text);
        }
    }
    let compare = cmp("", CompareResult::Equal, Against::Version(0));
    refused(
        raw.txn(txn(vec![compare], vec![], vec![])).await,
        Code::InvalidArgument,
        "etcdserver: key is not provided",
    );
}

#[tokio::test]
async fn the_number_of_operations_is_limited_at_every_level() {
    let server = Server::start_with(ServerOptions::new().flag("--max-txn-ops=4"));
    let raw = server.raw().await;
    let gets = |count: usize| vec![get("a").op(); count];
    let compares = |count: usize| vec![cmp("a", CompareResult::Equal, Against::Version(0)); count];
    raw.txn(txn(compares(4), gets(4), gets(4))).await.unwrap();
    for request in [
        txn(compares(5), vec![], vec![]),
        always(gets(5)),
        txn(vec![], vec![], gets(5)),
    ] {
        refused(raw.txn(request).await, Code::InvalidArgument, TOO_MANY);
    }
    // A nested txn has what its parent left: 4 - 2.
    raw.txn(always(vec![get("a").op(), always(gets(2)).op()]))
        .await
        .unwrap();
    refused(
        raw.txn(always(vec![get("a").op(), always(gets(3)).op()]))
            .await,
        Code::InvalidArgument,
        TOO_MANY,
    );
}

#[tokio::test]
async fn the_default_limit_is_128_operations() {
    let server = Server::start();
    let raw = server.raw().await;
    let puts = |count: usize| {
        let ops = (0..count).map(|index| put(&format!("k{index}"), "v").op());
        always(ops.collect())
    };
    assert_eq!(revision(&raw.txn(puts(128)).await.unwrap().header), 2);
    refused(raw.txn(puts(129)).await, Code::InvalidArgument, TOO_MANY);
    let mut deep = always(vec![get("a").op()]);
    for _ in 0..20 {
        deep = always(vec![deep.op()]);
    }
    raw.txn(deep).await.unwrap();
}

#[tokio::test]
async fn the_first_operation_that_is_wrong_decides_the_refusal() {
    let server = Server::start();
    let raw = server.raw().await;
    let empty = || pb::RequestOp { request: None };
    let no_key = || put("", "v").op();
    let bad_sort = || {
        pb::RangeRequest {
            sort_order: 9,
            ..get("a")
        }
        .op()
    };
    let deep = |op: pb::RequestOp| always(vec![op]).op();
    let no_compare_key = cmp("", CompareResult::Equal, Against::Version(0));
    for (request, text) in [
        (
            txn(vec![], vec![no_key()], vec![empty()]),
            "key is not provided",
        ),
        (txn(vec![], vec![empty()], vec![no_key()]), "key not found"),
        (always(vec![deep(no_key()), empty()]), "key is not provided"),
        (
            always(vec![deep(no_key()), bad_sort()]),
            "key is not provided",
        ),
        (
            always(vec![deep(bad_sort()), no_key()]),
            "invalid sort option",
        ),
        (
            txn(vec![no_compare_key], vec![empty()], vec![]),
            "key is not provided",
        ),
        (
            always(vec![put("a", "1").op(), put("a", "2").op(), empty()]),
            "key not found",
        ),
    ] {
        let text = format!("etcdserver: {text}");
        refused(raw.txn(request).await, Code::InvalidArgument, &text);
    }
}
