//! Transactions: compares, arms and what their operations see (behaviour §3.5).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse};
use holdfast_proto::etcdserverpb::{self as pb, compare::CompareResult};
use holdfast_tests::{
    Raw, RawWatch, Server, event_text, refused, watch_prefix,
    wire::{
        Against, IntoOp, always, b, cmp, del, del_range, deleted, everything, exists, get, keys,
        nested, put, put_leased, range, ranged, revision, txn, values, was_put,
    },
};
use tonic::Code;

const RESULTS: [CompareResult; 4] = [
    CompareResult::Equal,
    CompareResult::Greater,
    CompareResult::Less,
    CompareResult::NotEqual,
];

/// Whether a txn with these compares takes its success arm.
async fn holds(raw: &Raw, compare: Vec<pb::Compare>) -> bool {
    raw.txn(txn(compare, vec![], vec![]))
        .await
        .unwrap()
        .succeeded
}

fn expected<T: Ord>(result: CompareResult, left: &T, right: &T) -> bool {
    match result {
        CompareResult::Equal => left == right,
        CompareResult::Greater => left > right,
        CompareResult::Less => left < right,
        CompareResult::NotEqual => left != right,
    }
}

#[tokio::test]
async fn the_compare_chooses_the_arm() {
    let server = Server::start();
    let mut client = server.client().await;
    let create = || {
        Txn::new()
            .when([Compare::mod_revision("lock", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("lock", "mine", None)])
            .or_else([TxnOp::get("lock", None)])
    };
    let first = client.txn(create()).await.unwrap();
    assert!(first.succeeded());
    assert_eq!(first.header().unwrap().revision(), 2);
    let second = client.txn(create()).await.unwrap();
    assert!(!second.succeeded());
    assert_eq!(second.header().unwrap().revision(), 2);
    match &second.op_responses()[..] {
        [TxnOpResponse::Get(answer)] => assert_eq!(answer.kvs()[0].value(), b"mine"),
        other => panic!("{other:?}"),
    }
    // The way Kubernetes updates.
    let update = Txn::new()
        .when([Compare::mod_revision("lock", CompareOp::Equal, 2)])
        .and_then([TxnOp::put(
            "lock",
            "yours",
            Some(PutOptions::new().with_prev_key()),
        )])
        .or_else([TxnOp::get("lock", None)]);
    let updated = client.txn(update).await.unwrap();
    match &updated.op_responses()[..] {
        [TxnOpResponse::Put(answer)] => assert_eq!(answer.prev_key().unwrap().value(), b"mine"),
        other => panic!("{other:?}"),
    }
    let nested = Txn::new().and_then([TxnOp::txn(
        Txn::new().and_then([TxnOp::get("", Some(GetOptions::new().with_all_keys()))]),
    )]);
    match &client.txn(nested).await.unwrap().op_responses()[..] {
        [TxnOpResponse::Txn(inner)] => assert_eq!(inner.op_responses().len(), 1),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_compare_of_every_target() {
    let server = Server::start();
    let raw = server.raw().await;
    let lease = raw
        .grant(pb::LeaseGrantRequest { ttl: 600, id: 50 })
        .await
        .unwrap()
        .id;
    raw.put(put("pad", "")).await.unwrap();
    raw.put(put("a", "x")).await.unwrap();
    raw.put(put_leased("a", "m", lease)).await.unwrap();
    // a: create 3, mod 4, version 2, lease 50, value m
    for result in RESULTS {
        for delta in [-1, 0, 1] {
            for (against, real, given) in [
                (Against::Version(2 + delta), 2, 2 + delta),
                (Against::Create(3 + delta), 3, 3 + delta),
                (Against::Mod(4 + delta), 4, 4 + delta),
                (Against::Lease(50 + delta), 50, 50 + delta),
            ] {
                let compare = cmp("a", result, against.clone());
                assert_eq!(
                    holds(&raw, vec![compare]).await,
                    expected(result, &real, &given),
                    "{result:?} {against:?}"
                );
            }
        }
        for value in ["", "l", "m", "mm", "n"] {
            assert_eq!(
                holds(&raw, vec![cmp("a", result, Against::Value(b(value)))]).await,
                expected(result, &"m", &value),
                "{result:?} {value}"
            );
        }
    }
}

#[tokio::test]
async fn compares_of_a_missing_key() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("gone", "v")).await.unwrap();
    raw.delete(del("gone")).await.unwrap();
    for key in ["never", "gone"] {
        for result in RESULTS {
            for value in ["", "v"] {
                assert!(
                    !holds(&raw, vec![cmp(key, result, Against::Value(b(value)))]).await,
                    "a compare of a missing key's value is false, even {result:?}"
                );
            }
            for given in [-1, 0, 1] {
                for against in [
                    Against::Version(given),
                    Against::Create(given),
                    Against::Mod(given),
                    Against::Lease(given),
                ] {
                    assert_eq!(
                        holds(&raw, vec![cmp(key, result, against.clone())]).await,
                        expected(result, &0, &given),
                        "{result:?} {against:?}: the rest compares with 0"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn a_compare_without_a_value_compares_with_zero() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("a", "")).await.unwrap();
    let bare = |key: &str, target: pb::compare::CompareTarget| pb::Compare {
        key: b(key),
        target: target.into(),
        ..Default::default()
    };
    use pb::compare::CompareTarget::{Create, Lease, Mod, Value, Version};
    for target in [Version, Create, Mod, Lease] {
        assert!(
            holds(&raw, vec![bare("missing", target)]).await,
            "{target:?}"
        );
    }
    assert!(!holds(&raw, vec![bare("a", Version)]).await);
    assert!(holds(&raw, vec![bare("a", Lease)]).await);
    assert!(holds(&raw, vec![bare("a", Value)]).await, "the empty value");
}

#[tokio::test]
async fn a_compare_of_a_range_must_hold_for_every_key() {
    let server = Server::start();
    let raw = server.raw().await;
    for key in ["p1", "p2", "p3"] {
        raw.put(put(key, "v")).await.unwrap();
    }
    raw.put(put("p2", "v")).await.unwrap();
    let over = |compare: pb::Compare, end: &str| pb::Compare {
        range_end: b(end),
        ..compare
    };
    use CompareResult::{Equal, Greater, Less, NotEqual};
    let value = |result, text: &str| cmp("p", result, Against::Value(b(text)));
    assert!(holds(&raw, vec![over(value(Equal, "v"), "q")]).await);
    assert!(!holds(&raw, vec![over(value(NotEqual, "v"), "q")]).await);
    assert!(!holds(&raw, vec![over(cmp("p", Equal, Against::Version(1)), "q")]).await);
    assert!(holds(&raw, vec![over(cmp("p", Less, Against::Version(3)), "q")]).await);
    assert!(
        holds(
            &raw,
            vec![over(cmp("p", Greater, Against::Create(1)), "\0")]
        )
        .await
    );
    assert!(
        !holds(
            &raw,
            vec![over(cmp("p", Greater, Against::Create(2)), "\0")]
        )
        .await
    );
    // A range without keys is like a missing key.
    assert!(holds(&raw, vec![over(cmp("x", Equal, Against::Create(0)), "y")]).await);
    assert!(!holds(&raw, vec![over(cmp("x", Greater, Against::Create(0)), "y")]).await);
    assert!(
        !holds(
            &raw,
            vec![over(cmp("x", Equal, Against::Value(b(""))), "y")]
        )
        .await
    );
    assert!(
        !holds(
            &raw,
            vec![over(cmp("x", NotEqual, Against::Value(b("a"))), "y")]
        )
        .await
    );
}

#[tokio::test]
async fn all_compares_must_hold() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("a", "1")).await.unwrap();
    let missing = || cmp("b", CompareResult::Equal, Against::Create(0));
    assert!(holds(&raw, vec![exists("a"), missing()]).await);
    assert!(!holds(&raw, vec![exists("a"), exists("b"), missing()]).await);
    assert!(holds(&raw, vec![]).await, "no compare holds");
}

#[tokio::test]
async fn reads_inside_a_txn_see_its_earlier_writes() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("a", "old")).await.unwrap();
    let answer = raw
        .txn(always(vec![
            get("a").op(),
            del("missing").op(),
            put("b", "new").op(),
            get("b").op(),
            del("missing").op(),
            del("a").op(),
            get("a").op(),
            everything().op(),
            pb::PutRequest {
                prev_kv: true,
                ..put("c", "1")
            }
            .op(),
        ]))
        .await
        .unwrap();
    assert_eq!(revision(&answer.header), 3);
    assert_eq!(values(ranged(&answer, 0)), ["old"]);
    assert_eq!(
        revision(&ranged(&answer, 0).header),
        2,
        "before the first write"
    );
    assert_eq!(
        revision(&deleted(&answer, 1).header),
        2,
        "nothing changed yet"
    );
    assert_eq!(revision(&was_put(&answer, 2).header), 3);
    assert_eq!(values(ranged(&answer, 3)), ["new"]);
    assert_eq!(ranged(&answer, 3).kvs[0].mod_revision, 3);
    assert_eq!(revision(&ranged(&answer, 3).header), 3);
    assert_eq!(
        revision(&deleted(&answer, 4).header),
        3,
        "something changed before"
    );
    assert_eq!(deleted(&answer, 5).deleted, 1);
    assert_eq!(ranged(&answer, 6).count, 0);
    assert_eq!(keys(ranged(&answer, 7)), ["b"]);
    assert!(was_put(&answer, 8).prev_kv.is_none());
    for response in [&was_put(&answer, 2).header, &ranged(&answer, 3).header] {
        let header = response.as_ref().unwrap();
        assert_eq!(
            (header.cluster_id, header.member_id, header.raft_term),
            (0, 0, 0),
            "inner headers carry the revision only"
        );
    }
}

#[tokio::test]
async fn nested_compares_are_all_evaluated_before_anything_is_applied() {
    let server = Server::start();
    let raw = server.raw().await;
    let inner = txn(
        vec![exists("a")],
        vec![put("seen", "yes").op()],
        vec![put("seen", "no").op()],
    );
    let answer = raw
        .txn(always(vec![put("a", "1").op(), inner.clone().op()]))
        .await
        .unwrap();
    let inner_answer = nested(&answer, 1);
    assert!(
        !inner_answer.succeeded,
        "against the state before the whole txn"
    );
    let header = inner_answer.header.unwrap_or_default();
    assert_eq!(
        header,
        pb::ResponseHeader::default(),
        "a nested header is empty"
    );
    assert_eq!(values(&raw.range(get("seen")).await.unwrap()), ["no"]);
    let again = raw
        .txn(always(vec![del("a").op(), always(vec![inner.op()]).op()]))
        .await
        .unwrap();
    assert!(nested(nested(&again, 1), 0).succeeded, "a still was there");
    assert_eq!(revision(&again.header), 3, "all levels make one revision");
}

#[tokio::test]
async fn events_of_a_txn_keep_the_order_of_its_operations() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("k/x", "0")).await.unwrap();
    raw.put(put("k/y", "0")).await.unwrap();
    let (mut watch, _) = RawWatch::on(&raw, watch_prefix("k/")).await;
    raw.txn(always(vec![
        put("k/c", "1").op(),
        always(vec![put("k/b", "2").op(), del_range("k/x", "k/z").op()]).op(),
        put("k/a", "3").op(),
    ]))
    .await
    .unwrap();
    let answer = watch.next().await;
    let events: Vec<_> = answer.events.iter().map(event_text).collect();
    assert_eq!(
        events,
        ["+k/c=1@4", "+k/b=2@4", "-k/x@4", "-k/y@4", "+k/a=3@4"]
    );
}

#[tokio::test]
async fn ranges_at_a_revision_inside_a_write() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("a", "1")).await.unwrap();
    raw.put(put("a", "2")).await.unwrap();
    let at = |revision| {
        pb::RangeRequest {
            revision,
            ..get("a")
        }
        .op()
    };
    let answer = raw
        .txn(always(vec![put("a", "3").op(), at(2), at(3), at(0)]))
        .await
        .unwrap();
    assert_eq!(values(ranged(&answer, 1)), ["1"]);
    assert_eq!(values(ranged(&answer, 2)), ["2"]);
    assert_eq!(values(ranged(&answer, 3)), ["3"]);
    refused(
        raw.txn(always(vec![put("a", "4").op(), at(6)])).await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
}

#[tokio::test]
async fn txn_without_writes_is_a_read() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.put(put("a", "1")).await.unwrap();
    let local = pb::RangeRequest {
        serializable: true,
        ..get("a")
    };
    let answer = raw
        .txn(txn(
            vec![exists("a")],
            vec![get("a").op(), local.op(), range("a", "b").op()],
            vec![],
        ))
        .await
        .unwrap();
    assert_eq!((answer.succeeded, revision(&answer.header)), (true, 2));
    assert_eq!(answer.responses.len(), 3);
    for index in 0..3 {
        assert_eq!(values(ranged(&answer, index)), ["1"]);
    }
    let future = pb::RangeRequest {
        revision: 9,
        ..get("a")
    };
    refused(
        raw.txn(always(vec![future.op()])).await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
}

#[tokio::test]
async fn kubernetes_compaction_and_guaranteed_update_shapes() {
    let server = Server::start();
    let raw = server.raw().await;
    // The guarded compaction key: put when the version is as expected, else read.
    let guard = |version: i64, value: &str| {
        txn(
            vec![cmp(
                "compact_rev_key",
                CompareResult::Equal,
                Against::Version(version),
            )],
            vec![put("compact_rev_key", value).op()],
            vec![get("compact_rev_key").op()],
        )
    };
    assert!(raw.txn(guard(0, "0")).await.unwrap().succeeded);
    let lost = raw.txn(guard(0, "9")).await.unwrap();
    assert_eq!(ranged(&lost, 0).kvs[0].version, 1);
    // Delete when unchanged, else read.
    let created = raw
        .txn(txn(
            vec![cmp(
                "/registry/pods/a",
                CompareResult::Equal,
                Against::Mod(0),
            )],
            vec![put("/registry/pods/a", "pod").op()],
            vec![get("/registry/pods/a").op()],
        ))
        .await
        .unwrap();
    let at = revision(&created.header);
    let remove = |revision| {
        txn(
            vec![cmp(
                "/registry/pods/a",
                CompareResult::Equal,
                Against::Mod(revision),
            )],
            vec![del("/registry/pods/a").op()],
            vec![get("/registry/pods/a").op()],
        )
    };
    let stale = raw.txn(remove(at - 1)).await.unwrap();
    assert_eq!(values(ranged(&stale, 0)), ["pod"]);
    let removed = raw.txn(remove(at)).await.unwrap();
    assert_eq!(deleted(&removed, 0).deleted, 1);
    let missing = raw.txn(remove(at)).await.unwrap();
    assert_eq!((missing.succeeded, ranged(&missing, 0).count), (false, 0));
}
