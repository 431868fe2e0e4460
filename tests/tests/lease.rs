//! Leases (behaviour §3.8).

use etcd_client::{LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions};
use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    Raw, RawWatch, Server, event_text, eventually, holdfast_only, refused, refused_by, soon,
    watch_prefix,
    wire::{IntoOp, always, everything, get, keys, put, put_leased, revision},
};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

const NOT_FOUND: &str = "etcdserver: requested lease not found";

fn grant(ttl: i64, id: i64) -> pb::LeaseGrantRequest {
    pb::LeaseGrantRequest { ttl, id }
}

#[tokio::test]
async fn grants() {
    let server = Server::start();
    let mut client = server.client().await;
    let lease = client.lease_grant(60, None).await.unwrap();
    assert!(lease.id() > 0, "a random positive id");
    assert_eq!((lease.ttl(), lease.error()), (60, ""));
    let other = client.lease_grant(60, None).await.unwrap();
    assert_ne!(lease.id(), other.id());
    let named = client
        .lease_grant(60, Some(LeaseGrantOptions::new().with_id(42)))
        .await
        .unwrap();
    assert_eq!(named.id(), 42);
    let taken = client
        .lease_grant(60, Some(LeaseGrantOptions::new().with_id(42)))
        .await;
    refused_by(
        taken,
        Code::FailedPrecondition,
        "etcdserver: lease already exists",
    );
    refused_by(
        client.lease_grant(9_000_000_001, None).await,
        Code::OutOfRange,
        "etcdserver: too large lease TTL",
    );
    let longest = client.lease_grant(9_000_000_000, None).await.unwrap();
    assert_eq!(longest.ttl(), 9_000_000_000);
    let mut listed: Vec<_> = client
        .leases()
        .await
        .unwrap()
        .leases()
        .iter()
        .map(|lease| lease.id())
        .collect();
    let mut expected = vec![lease.id(), other.id(), 42, longest.id()];
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_ttl_below_the_minimum_is_raised() {
    let server = Server::start();
    let raw = server.raw().await;
    for ttl in [1, 0, -1, i64::MIN] {
        assert_eq!(raw.grant(grant(ttl, 0)).await.unwrap().ttl, 2, "of {ttl}");
    }
    assert_eq!(raw.grant(grant(3, 0)).await.unwrap().ttl, 3);
}

#[tokio::test]
async fn leases_are_listed_by_remaining_time() {
    let server = Server::start();
    let raw = server.raw().await;
    for (ttl, id) in [(500, 1), (100, 2), (900, 3), (300, 4)] {
        raw.grant(grant(ttl, id)).await.unwrap();
    }
    assert_eq!(raw.leases().await.unwrap(), [2, 4, 1, 3]);
}

#[tokio::test]
async fn revoking_deletes_the_keys_in_one_revision() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.grant(grant(600, 5)).await.unwrap();
    let (mut watch, _) = RawWatch::on(&raw, watch_prefix("k/")).await;
    for key in ["k/c", "k/a", "k/b"] {
        raw.put(put_leased(key, "v", 5)).await.unwrap();
    }
    raw.put(put("k/stays", "v")).await.unwrap();
    watch.events(4).await;
    let revoked = raw.revoke(5).await.unwrap();
    assert_eq!(revision(&revoked.header), 6);
    let answer = watch.next().await;
    let events: Vec<_> = answer.events.iter().map(event_text).collect();
    assert_eq!(events, ["-k/a@6", "-k/b@6", "-k/c@6"]);
    assert_eq!(keys(&raw.range(everything()).await.unwrap()), ["k/stays"]);
    refused(raw.revoke(5).await, Code::NotFound, NOT_FOUND);
    refused(raw.revoke(0).await, Code::NotFound, NOT_FOUND);
    refused(
        raw.put(put_leased("k/x", "v", 5)).await,
        Code::NotFound,
        NOT_FOUND,
    );
    assert!(raw.leases().await.unwrap().is_empty());
    raw.grant(grant(600, 5)).await.unwrap();
    assert_eq!(
        raw.range(everything()).await.unwrap().count,
        1,
        "the id is free again"
    );
}

#[tokio::test]
async fn time_to_live() {
    let server = Server::start();
    let mut client = server.client().await;
    let id = client.lease_grant(600, None).await.unwrap().id();
    for key in ["b", "a"] {
        client
            .put(key, "v", Some(PutOptions::new().with_lease(id)))
            .await
            .unwrap();
    }
    let plain = client.lease_time_to_live(id, None).await.unwrap();
    assert_eq!(
        (plain.id(), plain.granted_ttl(), plain.keys().len()),
        (id, 600, 0)
    );
    assert!((590..=600).contains(&plain.ttl()), "{}", plain.ttl());
    let with_keys = Some(LeaseTimeToLiveOptions::new().with_keys());
    let full = client
        .lease_time_to_live(id, with_keys.clone())
        .await
        .unwrap();
    let mut attached = full.keys().to_vec();
    attached.sort();
    assert_eq!(attached, [b"a", b"b"]);
    client.delete("a", None).await.unwrap();
    let less = client
        .lease_time_to_live(id, with_keys.clone())
        .await
        .unwrap();
    assert_eq!(less.keys(), [b"b"], "a deleted key is not attached");
    client.put("b", "w", None).await.unwrap();
    let none = client.lease_time_to_live(id, with_keys).await.unwrap();
    assert!(none.keys().is_empty(), "a put without the lease detaches");
    let raw = server.raw().await;
    for keys in [false, true] {
        let unknown = raw
            .time_to_live(pb::LeaseTimeToLiveRequest { id: 404, keys })
            .await
            .unwrap();
        assert_eq!(
            (unknown.id, unknown.ttl, unknown.granted_ttl),
            (404, -1, 0),
            "no error"
        );
    }
}

#[tokio::test]
async fn keep_alive_answers_in_order() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.grant(grant(600, 1)).await.unwrap();
    raw.grant(grant(300, 2)).await.unwrap();
    let (sender, requests) = mpsc::channel(64);
    let ids = [1, 2, 404, 2, 1, 0, 1];
    for id in ids {
        sender.send(pb::LeaseKeepAliveRequest { id }).await.unwrap();
    }
    let mut answers = raw
        .lease
        .clone()
        .lease_keep_alive(ReceiverStream::new(requests))
        .await
        .unwrap()
        .into_inner();
    for id in ids {
        let answer = soon("an answer", answers.message()).await.unwrap().unwrap();
        let ttl = match id {
            1 => 600,
            2 => 300,
            _ => 0,
        };
        assert_eq!(
            (answer.id, answer.ttl),
            (id, ttl),
            "an unknown lease has TTL 0, no error"
        );
        assert!(answer.header.is_some());
    }
    drop(sender);
    assert!(soon("the end", answers.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn an_expired_lease_deletes_its_keys() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.grant(grant(2, 7)).await.unwrap();
    let granted = Instant::now();
    let (mut watch, _) = RawWatch::on(&raw, watch_prefix("k/")).await;
    raw.put(put_leased("k/a", "v", 7)).await.unwrap();
    raw.put(put_leased("k/b", "v", 7)).await.unwrap();
    watch.events(2).await;
    let answer = watch.next().await;
    let took = granted.elapsed();
    let events: Vec<_> = answer.events.iter().map(event_text).collect();
    assert_eq!(events, ["-k/a@4", "-k/b@4"]);
    assert!(took >= Duration::from_millis(1_900), "too early: {took:?}");
    assert!(took < Duration::from_secs(6), "too late: {took:?}");
    let ttl = raw
        .time_to_live(pb::LeaseTimeToLiveRequest { id: 7, keys: false })
        .await
        .unwrap();
    assert_eq!(ttl.ttl, -1);
    refused(raw.revoke(7).await, Code::NotFound, NOT_FOUND);
}

#[tokio::test]
async fn keep_alive_keeps_alive() {
    let server = Server::start();
    let mut client = server.client().await;
    let kept = client.lease_grant(2, None).await.unwrap().id();
    let left = client.lease_grant(2, None).await.unwrap().id();
    for (key, lease) in [("kept", kept), ("left", left)] {
        client
            .put(key, "v", Some(PutOptions::new().with_lease(lease)))
            .await
            .unwrap();
    }
    let (mut keeper, mut answers) = client.lease_keep_alive(kept).await.unwrap();
    // Until the one that is not kept is gone, and twice as long again.
    let started = Instant::now();
    let mut gone = None;
    while gone.is_none_or(|gone: Duration| started.elapsed() < gone * 2) {
        keeper.keep_alive().await.unwrap();
        let answer = soon("an answer", answers.message()).await.unwrap().unwrap();
        assert_eq!((answer.id(), answer.ttl()), (kept, 2));
        if gone.is_none() && client.get("left", None).await.unwrap().count() == 0 {
            gone = Some(started.elapsed());
        }
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "the other one never expired"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(client.get("kept", None).await.unwrap().count(), 1);
}

#[tokio::test]
async fn leases_of_txns() {
    let server = Server::start();
    let raw = server.raw().await;
    raw.grant(grant(600, 1)).await.unwrap();
    raw.grant(grant(600, 2)).await.unwrap();
    raw.txn(always(vec![
        put_leased("a", "v", 1).op(),
        always(vec![put_leased("b", "v", 2).op()]).op(),
    ]))
    .await
    .unwrap();
    raw.put(put_leased("a", "w", 2)).await.unwrap();
    raw.revoke(1).await.unwrap();
    assert_eq!(
        keys(&raw.range(everything()).await.unwrap()),
        ["a", "b"],
        "moved to the other lease"
    );
    raw.revoke(2).await.unwrap();
    assert_eq!(raw.range(everything()).await.unwrap().count, 0);
}

#[tokio::test]
async fn leases_and_their_keys_survive_a_restart() {
    let mut server = Server::start();
    let raw = server.raw().await;
    raw.grant(grant(600, 1)).await.unwrap();
    raw.grant(grant(4, 2)).await.unwrap();
    raw.grant(grant(600, 3)).await.unwrap();
    raw.put(put_leased("long", "v", 1)).await.unwrap();
    raw.put(put_leased("short", "v", 2)).await.unwrap();
    raw.revoke(3).await.unwrap();
    server.kill();
    server.restart();
    let raw = server.raw().await;
    let mut leases = raw.leases().await.unwrap();
    leases.sort_unstable();
    assert_eq!(leases, [1, 2]);
    assert_eq!(raw.range(get("long")).await.unwrap().kvs[0].lease, 1);
    let ttl = raw
        .time_to_live(pb::LeaseTimeToLiveRequest { id: 1, keys: true })
        .await
        .unwrap();
    assert_eq!((ttl.granted_ttl, ttl.keys.len()), (600, 1));
    assert!(ttl.ttl > 580 && ttl.ttl <= 602, "{}", ttl.ttl);
    eventually(
        Duration::from_secs(15),
        "the short lease expires",
        || async { (raw.range(get("short")).await.unwrap().count == 0).then_some(()) },
    )
    .await;
    raw.revoke(1).await.unwrap();
    assert_eq!(raw.range(everything()).await.unwrap().count, 0);
}

#[tokio::test]
async fn many_leases_expire_together() {
    const LEASES: i64 = 300;
    let server = Server::start();
    let raw = server.raw().await;
    let mut grants = tokio::task::JoinSet::new();
    for id in 1..=LEASES {
        let raw = raw.clone();
        grants.spawn(async move {
            raw.grant(grant(2, id)).await.unwrap();
            // The lease may have expired before the put where the machine is slow: the key is not there then either.
            let _ = raw.put(put_leased(&format!("k{id}"), "v", id)).await;
        });
    }
    grants.join_all().await;
    eventually(Duration::from_secs(20), "all are gone", || async {
        let left = raw.range(everything()).await.unwrap().count;
        (left == 0 && raw.leases().await.unwrap().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_remaining_time_survives_a_restart() {
    // A real etcd starts each lease anew (unless a gate is on).
    holdfast_only!();
    let mut server = Server::start();
    let raw = server.raw().await;
    raw.grant(grant(60, 1)).await.unwrap();
    let remaining = |raw: Raw| async move {
        let request = pb::LeaseTimeToLiveRequest { id: 1, keys: false };
        raw.time_to_live(request).await.unwrap().ttl
    };
    // The checkpoints are some seconds apart.
    eventually(Duration::from_secs(30), "15 seconds pass", || async {
        (remaining(raw.clone()).await <= 45).then_some(())
    })
    .await;
    server.kill();
    server.restart();
    let after = remaining(server.raw().await).await;
    assert!((30..=56).contains(&after), "{after} seconds of 60 remain");
}
