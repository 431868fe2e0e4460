//! Leases on three members: every call on each member, and no lease ends early because a leader did.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    PATIENCE, Raw, RawWatch,
    cluster::{Cluster, ClusterOptions, Stop},
    event_text, eventually, holdfast_only, refused, watch_prefix,
    wire::{get, keys, put_leased, revision},
    within,
};
use std::time::{Duration, Instant};
use tonic::Code;

const GONE: &str = "etcdserver: requested lease not found";

fn three() -> (Cluster, Vec<Raw>) {
    let cluster = Cluster::start(3, ClusterOptions::new());
    let members = (0..3).map(|index| cluster.raw(index)).collect();
    (cluster, members)
}

fn grant(ttl: i64, id: i64) -> pb::LeaseGrantRequest {
    pb::LeaseGrantRequest { ttl, id }
}

async fn ttl(member: &Raw, id: i64) -> pb::LeaseTimeToLiveResponse {
    let request = pb::LeaseTimeToLiveRequest { id, keys: true };
    member.time_to_live(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_lease_call_works_on_each_member() {
    let (_cluster, members) = three();
    for (index, member) in members.iter().enumerate() {
        let id = 100 + i64::try_from(index).unwrap();
        assert_eq!(member.grant(grant(600, id)).await.unwrap().ttl, 600);
        let taken = "etcdserver: lease already exists";
        for other in &members {
            refused(
                other.grant(grant(600, id)).await,
                Code::FailedPrecondition,
                taken,
            );
        }
        let key = format!("l/{index}");
        members[(index + 1) % 3]
            .put(put_leased(&key, "v", id))
            .await
            .unwrap();
        for other in &members {
            // Lists and times to live are of what the member has applied; a linearizable read waits for that.
            other.range(get("l")).await.unwrap();
            assert_eq!(other.keep_alive(id).await.unwrap(), 600);
            let found = ttl(other, id).await;
            assert_eq!(
                (found.granted_ttl, &found.keys),
                (600, &vec![key.clone().into()])
            );
            assert!((598..=600).contains(&found.ttl), "{found:?}");
            assert!(other.leases().await.unwrap().contains(&id));
        }
        members[(index + 2) % 3].revoke(id).await.unwrap();
        for other in &members {
            assert_eq!(keys(&other.range(get(&key)).await.unwrap()), [""; 0]);
            assert_eq!(other.keep_alive(id).await.unwrap(), 0);
            assert_eq!(ttl(other, id).await.ttl, -1);
            refused(other.revoke(id).await, Code::NotFound, GONE);
            refused(
                other.put(put_leased(&key, "v", id)).await,
                Code::NotFound,
                GONE,
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_ends_once_and_on_all_members() {
    let (_cluster, members) = three();
    let mut watches = Vec::new();
    for member in &members {
        watches.push(RawWatch::on(member, watch_prefix("l/")).await.0);
    }
    members[0].grant(grant(2, 7)).await.unwrap();
    let granted = Instant::now();
    let at = revision(
        &members[1]
            .put(put_leased("l/a", "v", 7))
            .await
            .unwrap()
            .header,
    );
    for watch in &mut watches {
        let events: Vec<_> = watch.events(2).await.iter().map(event_text).collect();
        assert_eq!(events, [format!("+l/a=v@{at}"), format!("-l/a@{}", at + 1)]);
        assert!(granted.elapsed() >= Duration::from_millis(1_900));
    }
    for member in &members {
        let gone = async || member.leases().await.unwrap().is_empty().then_some(());
        eventually(PATIENCE, "the lease is gone", gone).await;
    }
}

/// Ends the leader while clients keep leases through the others.
async fn kept_through(stop: Stop) {
    let (mut cluster, members) = three();
    let leader = cluster.leader().await;
    let others: Vec<_> = (0..3).filter(|index| *index != leader).collect();
    // What is kept alive, and what is not.
    members[leader].grant(grant(3, 1)).await.unwrap();
    members[leader]
        .put(put_leased("l/kept", "v", 1))
        .await
        .unwrap();
    members[leader].grant(grant(5, 2)).await.unwrap();
    let left = Instant::now();
    members[leader]
        .put(put_leased("l/left", "v", 2))
        .await
        .unwrap();
    // Linearizable, so that the watch begins after what was put.
    members[others[0]].range(get("l")).await.unwrap();
    let (mut watch, _) = RawWatch::on(&members[others[0]], watch_prefix("l/")).await;
    let keeper = {
        let stubs: Vec<_> = others.iter().map(|index| members[*index].clone()).collect();
        tokio::spawn(async move {
            let mut answered = 0;
            for round in 0..80_usize {
                let call = stubs[round % 2].keep_alive(1);
                if let Ok(Ok(ttl)) = tokio::time::timeout(Duration::from_millis(500), call).await {
                    assert_eq!(ttl, 3, "the lease ended although it was kept");
                    answered += 1;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            answered
        })
    };
    match stop {
        Stop::Kill => cluster.kill(leader),
        Stop::Terminate => {
            tokio::task::block_in_place(|| cluster.terminate(leader));
        }
    }
    let event = within(Duration::from_secs(30), "a lease ends", watch.events(1)).await;
    assert!(event_text(&event[0]).starts_with("-l/left@"), "{event:?}");
    assert!(
        left.elapsed() >= Duration::from_millis(4_900),
        "{:?}",
        left.elapsed()
    );
    assert!(keeper.await.unwrap() > 20);
    let event = within(Duration::from_secs(30), "the other ends", watch.events(1)).await;
    assert!(event_text(&event[0]).starts_with("-l/kept@"), "{event:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_takes_no_lease_with_it() {
    kept_through(Stop::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_leaves_takes_no_lease_with_it() {
    kept_through(Stop::Terminate).await;
}

/// A leader that slept must not end leases that were kept at its successor meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_slept_ends_no_lease_that_was_kept() {
    let (mut cluster, members) = three();
    let leader = cluster.leader().await;
    members[leader].grant(grant(3, 1)).await.unwrap();
    members[leader]
        .put(put_leased("l/kept", "v", 1))
        .await
        .unwrap();
    cluster.pause(leader);
    let other = cluster.leader().await;
    let keep = async |rounds: u32| {
        for _ in 0..rounds {
            assert_eq!(members[other].keep_alive(1).await.unwrap(), 3);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    keep(50).await;
    cluster.resume(leader);
    keep(20).await;
    cluster.wait_healthy().await;
    for member in &members {
        assert_eq!(
            keys(&member.range(get("l/kept")).await.unwrap()),
            ["l/kept"]
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hangs_holds_up_no_keep_alive_once_there_is_another() {
    // etcd asks the old one until the request times out.
    holdfast_only!();
    let (mut cluster, members) = three();
    let leader = cluster.leader().await;
    let old = cluster.id(leader).await;
    let asked = members[(leader + 1) % 3].clone();
    asked.grant(grant(600, 1)).await.unwrap();
    cluster.pause(leader);
    let kept = tokio::spawn({
        let asked = asked.clone();
        async move { asked.keep_alive(1).await }
    });
    eventually(PATIENCE, "another leader", async || {
        let now = asked.status().await.unwrap().leader;
        (now != 0 && now != old).then_some(())
    })
    .await;
    let kept = within(Duration::from_millis(1500), "the keep-alive", kept).await;
    assert_eq!(kept.unwrap().unwrap(), 600);
    cluster.resume(leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_survive_the_restart_of_all() {
    let (mut cluster, members) = three();
    members[1].grant(grant(600, 9)).await.unwrap();
    members[2].put(put_leased("l/a", "v", 9)).await.unwrap();
    for index in 0..3 {
        cluster.kill(index);
    }
    cluster.restart_all(&[0, 1, 2]);
    cluster.wait_healthy().await;
    for index in 0..3 {
        let member = cluster.raw(index);
        let found = eventually(PATIENCE, "a time to live", async || {
            let request = pb::LeaseTimeToLiveRequest { id: 9, keys: true };
            member.time_to_live(request).await.ok()
        });
        let found = found.await;
        assert_eq!(found.granted_ttl, 600);
        assert!(found.ttl > 500, "{found:?}");
        assert_eq!(found.keys, ["l/a"]);
        assert_eq!(member.keep_alive(9).await.unwrap(), 600);
    }
}
