//! Revisions, Put and DeleteRange (behaviour §3.1, §3.4).

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use etcd_client::{DeleteOptions, GetOptions, LeaseGrantOptions, PutOptions, Txn, TxnOp};
use holdfast_proto::etcdserverpb::{self as pb};
use holdfast_tests::{
    Raw, Server, refused,
    wire::{IntoOp, always, del, del_range, everything, get, keys, put, range, revision, values},
};
use tonic::Code;

async fn fill(raw: &Raw, pairs: &[(&str, &str)]) {
    for (key, value) in pairs {
        raw.put(put(key, value)).await.unwrap();
    }
}

#[tokio::test]
async fn a_fresh_store_is_at_revision_1_and_the_first_write_gets_2() {
    let server = Server::start();
    let mut client = server.client().await;
    let empty = client.get("a", None).await.unwrap();
    assert_eq!(empty.header().unwrap().revision(), 1);
    assert_eq!(
        (empty.count(), empty.kvs().len(), empty.more()),
        (0, 0, false)
    );
    let written = client.put("a", "1", None).await.unwrap();
    assert_eq!(written.header().unwrap().revision(), 2);
    assert!(written.prev_key().is_none());
    let before = GetOptions::new().with_revision(1);
    let at_1 = client.get("a", Some(before)).await.unwrap();
    assert_eq!(at_1.count(), 0);
    assert_eq!(at_1.header().unwrap().revision(), 2, "the current revision");
}

#[tokio::test]
async fn headers_name_cluster_member_and_term() {
    let server = Server::start();
    let raw = server.raw().await;
    let written = raw.put(put("a", "1")).await.unwrap().header.unwrap();
    let read = raw.range(get("a")).await.unwrap().header.unwrap();
    let serializable = pb::RangeRequest {
        serializable: true,
        ..get("a")
    };
    let local = raw.range(serializable).await.unwrap().header.unwrap();
    let deleted = raw.delete(del("a")).await.unwrap().header.unwrap();
    assert!(written.cluster_id != 0 && written.member_id != 0 && written.raft_term > 0);
    for header in [read, local, deleted] {
        assert_eq!(header.cluster_id, written.cluster_id);
        assert_eq!(header.member_id, written.member_id);
        assert_eq!(header.raft_term, written.raft_term);
    }
    assert_eq!(raw.status().await.unwrap().leader, written.member_id);
}

#[tokio::test]
async fn versions_and_create_revisions_follow_the_life_of_a_key() {
    let server = Server::start();
    let mut client = server.client().await;
    client.put("a", "1", None).await.unwrap();
    client.put("a", "1", None).await.unwrap();
    let kv = client.get("a", None).await.unwrap().take_kvs().remove(0);
    assert_eq!(
        (kv.create_revision(), kv.mod_revision(), kv.version()),
        (2, 3, 2),
        "an identical put is a change"
    );
    client.delete("a", None).await.unwrap();
    client.put("a", "2", None).await.unwrap();
    let kv = client.get("a", None).await.unwrap().take_kvs().remove(0);
    assert_eq!(
        (kv.create_revision(), kv.mod_revision(), kv.version()),
        (5, 5, 1),
        "a new life"
    );
    let old = client
        .get("a", Some(GetOptions::new().with_revision(3)))
        .await
        .unwrap();
    assert_eq!(old.kvs()[0].version(), 2);
    let gone = client
        .get("a", Some(GetOptions::new().with_revision(4)))
        .await
        .unwrap();
    assert_eq!(gone.count(), 0, "deleted at 4");
}

#[tokio::test]
async fn what_changes_nothing_does_not_raise_the_revision() {
    let server = Server::start();
    let mut client = server.client().await;
    client.put("a", "1", None).await.unwrap();
    let nothing = client.delete("missing", None).await.unwrap();
    assert_eq!(
        (nothing.deleted(), nothing.header().unwrap().revision()),
        (0, 2)
    );
    let reads = Txn::new().and_then([TxnOp::get("a", None), TxnOp::delete("missing", None)]);
    let reads = client.txn(reads).await.unwrap();
    assert_eq!(reads.header().unwrap().revision(), 2);
    let empty = client.txn(Txn::new()).await.unwrap();
    assert_eq!(empty.header().unwrap().revision(), 2);
    let lease = client.lease_grant(60, None).await.unwrap();
    assert_eq!(lease.header().unwrap().revision(), 2);
    let (mut keeper, mut answers) = client.lease_keep_alive(lease.id()).await.unwrap();
    keeper.keep_alive().await.unwrap();
    answers.message().await.unwrap().unwrap();
    let revoked = client.lease_revoke(lease.id()).await.unwrap();
    assert_eq!(
        revoked.header().unwrap().revision(),
        2,
        "no key was attached"
    );
    let compacted = client.compact(2, None).await.unwrap();
    assert_eq!(compacted.header().unwrap().revision(), 2);
    client.defragment().await.unwrap();
    client.status().await.unwrap();
    client.member_list().await.unwrap();
    let next = client.put("a", "1", None).await.unwrap();
    assert_eq!(next.header().unwrap().revision(), 3);
}

#[tokio::test]
async fn one_txn_one_revision() {
    let server = Server::start();
    let raw = server.raw().await;
    fill(&raw, &[("x", "1"), ("y", "1")]).await;
    let ops = vec![
        put("a", "1").op(),
        del_range("x", "z").op(),
        put("b", "1").op(),
    ];
    let answer = raw.txn(always(ops)).await.unwrap();
    assert_eq!(revision(&answer.header), 4);
    let all = raw.range(everything()).await.unwrap();
    let revisions: Vec<_> = all.kvs.iter().map(|kv| kv.mod_revision).collect();
    assert_eq!(
        (keys(&all), revisions),
        (vec!["a".into(), "b".into()], vec![4, 4])
    );
}

#[tokio::test]
async fn previous_values_come_on_request() {
    let server = Server::start();
    let mut client = server.client().await;
    let with_previous = || Some(PutOptions::new().with_prev_key());
    let first = client.put("b", "1", with_previous()).await.unwrap();
    assert!(first.prev_key().is_none(), "there was none");
    let second = client.put("b", "2", with_previous()).await.unwrap();
    let previous = second.prev_key().unwrap();
    assert_eq!(
        (
            previous.value(),
            previous.mod_revision(),
            previous.version()
        ),
        (&b"1"[..], 2, 1)
    );
    client.put("a", "0", None).await.unwrap();
    let silent = client
        .delete("c", Some(DeleteOptions::new().with_prev_key()))
        .await
        .unwrap();
    assert!(silent.prev_kvs().is_empty());
    let deleted = client
        .delete(
            "a",
            Some(DeleteOptions::new().with_from_key().with_prev_key()),
        )
        .await
        .unwrap();
    assert_eq!(deleted.deleted(), 2);
    let order: Vec<_> = deleted.prev_kvs().iter().map(|kv| kv.key()).collect();
    assert_eq!(order, [b"a", b"b"], "in the order of keys");
    assert_eq!(deleted.prev_kvs()[1].version(), 2);
}

#[tokio::test]
async fn a_serializable_read_of_a_sole_member_sees_acknowledged_writes() {
    let server = Server::start();
    let mut client = server.client().await;
    for round in 0..50 {
        client.put("a", round.to_string(), None).await.unwrap();
        let options = GetOptions::new().with_serializable();
        let answer = client.get("a", Some(options)).await.unwrap();
        assert_eq!(answer.kvs()[0].value_str().unwrap(), round.to_string());
    }
}

#[tokio::test]
async fn keys_and_values_are_any_bytes() {
    let server = Server::start();
    let mut client = server.client().await;
    let keys: [&[u8]; 6] = [
        b"\0",
        b"\0\0",
        b"a\0b",
        b"\x7f",
        b"\x80\xff",
        b"\xff\xff\xff",
    ];
    for key in keys {
        client.put(key, key, None).await.unwrap();
    }
    client.put("empty", "", None).await.unwrap();
    let all = client
        .get("", Some(GetOptions::new().with_all_keys()))
        .await
        .unwrap();
    assert_eq!(all.count(), 7);
    assert!(
        all.kvs()
            .is_sorted_by(|left, right| left.key() < right.key())
    );
    for kv in all.kvs().iter().filter(|kv| kv.key() != b"empty") {
        assert_eq!(kv.key(), kv.value());
    }
    let long = vec![b'k'; 70_000];
    let large = vec![7_u8; 1_000_000];
    client.put(long.clone(), large.clone(), None).await.unwrap();
    let answer = client.get(long, None).await.unwrap();
    assert_eq!(answer.kvs()[0].value(), large);
}

#[tokio::test]
async fn ignore_value_and_ignore_lease_keep_what_was_there() {
    let server = Server::start();
    let mut client = server.client().await;
    let one = client.lease_grant(600, None).await.unwrap().id();
    let two = client
        .lease_grant(600, Some(LeaseGrantOptions::new().with_id(77)))
        .await
        .unwrap()
        .id();
    assert_eq!(two, 77);
    client
        .put("a", "v", Some(PutOptions::new().with_lease(one)))
        .await
        .unwrap();
    let moved = PutOptions::new().with_ignore_value().with_lease(two);
    client.put("a", "", Some(moved)).await.unwrap();
    let kv = client.get("a", None).await.unwrap().take_kvs().remove(0);
    assert_eq!((kv.value(), kv.lease(), kv.version()), (&b"v"[..], two, 2));
    client
        .put("a", "w", Some(PutOptions::new().with_ignore_lease()))
        .await
        .unwrap();
    let kv = client.get("a", None).await.unwrap().take_kvs().remove(0);
    assert_eq!((kv.value(), kv.lease(), kv.version()), (&b"w"[..], two, 3));
    let both = PutOptions::new().with_ignore_lease().with_ignore_value();
    client.put("a", "", Some(both)).await.unwrap();
    let kv = client.get("a", None).await.unwrap().take_kvs().remove(0);
    assert_eq!((kv.value(), kv.lease(), kv.version()), (&b"w"[..], two, 4));
    client.lease_revoke(one).await.unwrap();
    assert_eq!(
        client.get("a", None).await.unwrap().count(),
        1,
        "the lease that it left"
    );
    client.put("a", "x", None).await.unwrap();
    let kv = client.get("a", None).await.unwrap().take_kvs().remove(0);
    assert_eq!(kv.lease(), 0, "a put without a lease detaches");
    client.lease_revoke(two).await.unwrap();
    assert_eq!(client.get("a", None).await.unwrap().count(), 1);
}

#[tokio::test]
async fn a_put_is_checked_in_etcds_order() {
    let server = Server::start();
    let raw = server.raw().await;
    let cases = [
        (put("", "v"), Code::InvalidArgument, "key is not provided"),
        (
            pb::PutRequest {
                ignore_value: true,
                lease: 5,
                ignore_lease: true,
                ..put("", "v")
            },
            Code::InvalidArgument,
            "key is not provided",
        ),
        (
            pb::PutRequest {
                ignore_value: true,
                lease: 5,
                ignore_lease: true,
                ..put("a", "v")
            },
            Code::InvalidArgument,
            "value is provided",
        ),
        (
            pb::PutRequest {
                lease: 5,
                ignore_lease: true,
                ..put("a", "v")
            },
            Code::InvalidArgument,
            "lease is provided",
        ),
        (
            pb::PutRequest {
                lease: 5,
                ..put("a", "v")
            },
            Code::NotFound,
            "requested lease not found",
        ),
        (
            pb::PutRequest {
                lease: -5,
                ..put("a", "v")
            },
            Code::NotFound,
            "requested lease not found",
        ),
        (
            pb::PutRequest {
                ignore_value: true,
                ..put("a", "")
            },
            Code::InvalidArgument,
            "key not found",
        ),
        (
            pb::PutRequest {
                ignore_lease: true,
                ..put("a", "v")
            },
            Code::InvalidArgument,
            "key not found",
        ),
    ];
    for (request, code, text) in cases {
        refused(raw.put(request).await, code, &format!("etcdserver: {text}"));
    }
    assert_eq!(raw.revision().await, 1, "a refused put changes nothing");
    assert_eq!(raw.range(everything()).await.unwrap().count, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_share_one_history() {
    const WRITERS: usize = 16;
    const PUTS: usize = 25;
    let server = Server::start();
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let raw = server.raw().await;
        writers.push(tokio::spawn(async move {
            let mut given = Vec::new();
            for round in 0..PUTS {
                let key = format!("k{}", (writer + round) % 5);
                let value = format!("{writer}-{round}");
                let answer = raw.put(put(&key, &value)).await.unwrap();
                given.push((revision(&answer.header), key, value));
            }
            assert!(given.is_sorted(), "a writer's own revisions rise");
            given
        }));
    }
    let mut history = Vec::new();
    for writer in writers {
        history.extend(writer.await.unwrap());
    }
    history.sort();
    let revisions: Vec<_> = history.iter().map(|(revision, ..)| *revision).collect();
    let expected: Vec<_> = (2..2 + (WRITERS * PUTS) as i64).collect();
    assert_eq!(revisions, expected, "one revision for each put, none twice");
    let raw = server.raw().await;
    for (revision, key, value) in history.iter().step_by(7) {
        let request = pb::RangeRequest {
            revision: *revision,
            ..get(key)
        };
        let answer = raw.range(request).await.unwrap();
        assert_eq!(values(&answer), *std::slice::from_ref(value));
        assert_eq!(answer.kvs[0].mod_revision, *revision);
    }
    let total: i64 = raw
        .range(range("k", "l"))
        .await
        .unwrap()
        .kvs
        .iter()
        .map(|kv| kv.version)
        .sum();
    assert_eq!(total as usize, WRITERS * PUTS);
}

#[tokio::test]
async fn a_read_after_a_write_sees_it_from_any_connection() {
    let server = Server::start();
    let (writer, reader) = (server.raw().await, server.raw().await);
    for round in 0..100 {
        writer.put(put("a", &round.to_string())).await.unwrap();
        let answer = reader.range(get("a")).await.unwrap();
        assert_eq!(values(&answer), [round.to_string()]);
    }
}
