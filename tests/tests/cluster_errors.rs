//! What clients are told while there is no leader, and how alarms go through the cluster.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::health::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use holdfast_tests::{
    PATIENCE, Raw, RawWatch, SmallDisk,
    cluster::{Cluster, ClusterOptions},
    eventually, holdfast_only, http_get, refused, watch_key, watch_prefix,
    wire::{IntoOp, always, del, get, put, values},
    within,
};
use std::time::Duration;
use tonic::{Code, Status};

/// The server's own limit is 7 s with the default election time-out.
const TIMEOUT: Duration = Duration::from_secs(12);

fn three() -> Cluster {
    Cluster::start(3, ClusterOptions::new())
}

/// A cluster of which one member is left, with that member.
async fn lone() -> (Cluster, usize, Raw) {
    let mut cluster = three();
    let last = cluster.leader().await;
    let raw = cluster.raw(last);
    raw.put(put("k", "v")).await.unwrap();
    for other in (0..3).filter(|index| *index != last) {
        cluster.kill(other);
    }
    (cluster, last, raw)
}

async fn no_leader(raw: &Raw) -> pb::StatusResponse {
    eventually(PATIENCE, "the member knows no leader", async || {
        let status = raw.status().await.unwrap();
        (status.leader == 0).then_some(status)
    })
    .await
}

/// One of the ways to say that it took too long, or that there is nobody to ask.
#[track_caller]
fn timed_out<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.expect_err("there is no quorum");
    let texts = [
        "etcdserver: request timed out",
        "etcdserver: request timed out, possibly due to previous leader failure",
        "etcdserver: request timed out, possibly due to connection lost",
        "etcdserver: leader changed",
        "etcdserver: no leader",
    ];
    let known = match status.code() {
        Code::Unavailable => texts.contains(&status.message()),
        // etcd's proposals that found no leader from the beginning.
        Code::DeadlineExceeded => status.message() == "context deadline exceeded",
        _ => false,
    };
    assert!(known, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_local_reads_go_on() {
    let (mut cluster, last, raw) = lone().await;
    let write = within(TIMEOUT, "a refused write", raw.put(put("k", "lost")));
    let read = within(TIMEOUT, "a refused read", raw.range(get("k")));
    let (write, read) = tokio::join!(write, read);
    timed_out(write);
    timed_out(read);
    let status = no_leader(&raw).await;
    assert!(
        status.errors.contains(&"etcdserver: no leader".to_owned()),
        "{status:?}"
    );
    let local = pb::RangeRequest {
        serializable: true,
        ..get("k")
    };
    assert_eq!(values(&raw.range(local).await.unwrap()), ["v"]);
    let hash = within(PATIENCE, "a hash", raw.hash_kv(0)).await.unwrap();
    assert_eq!(hash.hash_revision, 2);
    let calls = (
        within(
            TIMEOUT,
            "a refused grant",
            raw.grant(pb::LeaseGrantRequest { ttl: 60, id: 5 }),
        ),
        within(TIMEOUT, "a refused compaction", raw.compact(2)),
        within(TIMEOUT, "a refused delete", raw.delete(del("k"))),
        within(
            TIMEOUT,
            "a refused txn",
            raw.txn(always(vec![put("k", "lost").op()])),
        ),
        within(
            TIMEOUT,
            "a refused user",
            raw.user_add("u", "a long password"),
        ),
        within(TIMEOUT, "a refused member list", raw.member_list()),
    );
    let (grant, compact, delete, txn, user, members) =
        tokio::join!(calls.0, calls.1, calls.2, calls.3, calls.4, calls.5);
    timed_out(grant);
    timed_out(compact);
    timed_out(delete);
    timed_out(txn);
    timed_out(user);
    timed_out(members);
    let others: Vec<_> = (0..3).filter(|index| *index != last).collect();
    cluster.restart_all(&others);
    cluster.wait_healthy().await;
    raw.put(put("k", "after")).await.unwrap();
    for index in 0..3 {
        let found = cluster.raw(index).range(get("k")).await.unwrap();
        assert_eq!(values(&found), ["after"]);
    }
    cluster.same_hash().await;
}

/// Clients are to go to the other members, who can do without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_log_finds_no_room_sends_clients_to_others() {
    // etcd's process ends.
    holdfast_only!();
    let Some(disk) = SmallDisk::mount("400m") else {
        eprintln!("skipped: no permission to mount a small disk");
        return;
    };
    let cluster = Cluster::start(3, ClusterOptions::new().data(2, disk.data()));
    if cluster.leader().await == 2 {
        cluster.lead(0).await;
    }
    let (full, other) = (cluster.raw(2), cluster.raw(0));
    let mut health = HealthClient::new(full.channel.clone());
    let mut watched = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    let first = watched.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    disk.fill();
    let value = "v".repeat(500_000);
    let no_room = "etcdserver: no space left on the log's disk";
    within(Duration::from_secs(60), "the log is full", async {
        while !full
            .status()
            .await
            .unwrap()
            .errors
            .iter()
            .any(|error| error == no_room)
        {
            other.put(put("k", &value)).await.unwrap();
        }
    })
    .await;
    refused(full.range(get("k")).await, Code::Unavailable, no_room);
    refused(full.put(put("k", "v")).await, Code::Unavailable, no_room);
    let next = within(PATIENCE, "health tells", watched.message()).await;
    assert_eq!(next.unwrap().unwrap().status(), ServingStatus::NotServing);
    other.put(put("k", "after")).await.unwrap();
    assert_eq!(values(&other.range(get("k")).await.unwrap()), ["after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_pages_tell_of_a_lost_quorum() {
    let (cluster, last, raw) = lone().await;
    no_leader(&raw).await;
    let port = cluster.member(last).port();
    let page = http_get(port, "/health").await;
    assert_eq!(page.status, 503, "{}", page.body);
    assert!(page.body.contains(r#""health":"false""#), "{}", page.body);
    let local = http_get(port, "/health?serializable=true").await;
    assert_eq!(local.status, 200, "{}", local.body);
    assert_eq!(http_get(port, "/livez").await.status, 200);
    assert_eq!(http_get(port, "/readyz").await.status, 503);
}

/// A client that has lost the leader comes to another member at once, and takes `no leader` for the end of its watch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_need_a_leader_wait_for_the_next_one() {
    let mut cluster = three();
    let leader = cluster.leader().await;
    let followers: Vec<Raw> = (0..3)
        .filter(|index| *index != leader)
        .map(|index| cluster.raw(index).with_metadata(&[("hasleader", "true")]))
        .collect();
    let old = cluster.id(leader).await;
    cluster.kill(leader);
    let mut watches = Vec::new();
    within(PATIENCE, "the next leader", async {
        let mut now = old;
        while now == old || now == 0 {
            for raw in &followers {
                let watch = RawWatch::open(raw);
                watch.request(watch_prefix("k")).await;
                watches.push(watch);
            }
            now = followers[0].status().await.unwrap().leader;
        }
    })
    .await;
    for watch in &mut watches {
        assert!(watch.next().await.created);
    }
    followers[0].put(put("k", "v")).await.unwrap();
    for watch in &mut watches {
        assert_eq!(watch.events(1).await.len(), 1);
    }
}

/// Watches, keep-alives and reads that want a leader say so, and are told when there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_need_a_leader_end_without_one() {
    let mut cluster = three();
    let last = cluster.leader().await;
    let raw = cluster.raw(last);
    let needs = raw.with_metadata(&[("hasleader", "true")]);
    let (mut watch, _) = RawWatch::on(&needs, watch_prefix("k")).await;
    let (mut patient, _) = RawWatch::on(&raw, watch_prefix("k")).await;
    raw.put(put("k", "v")).await.unwrap();
    assert_eq!(watch.events(1).await.len(), 1);
    for other in (0..3).filter(|index| *index != last) {
        cluster.kill(other);
    }
    let ended = within(PATIENCE, "the watch ends", watch.message()).await;
    refused(ended, Code::Unavailable, "etcdserver: no leader");
    no_leader(&raw).await;
    let mut again = RawWatch::open(&needs);
    again.request(watch_key("k")).await;
    refused(
        again.message().await,
        Code::Unavailable,
        "etcdserver: no leader",
    );
    refused(
        needs.put(put("k", "v")).await,
        Code::Unavailable,
        "etcdserver: no leader",
    );
    let others: Vec<_> = (0..3).filter(|index| *index != last).collect();
    cluster.restart_all(&others);
    cluster.wait_healthy().await;
    // Who asked for nothing like this has waited.
    assert_eq!(patient.events(1).await.len(), 1);
    raw.put(put("k", "after")).await.unwrap();
    assert_eq!(patient.events(1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_of_one_member_stops_writes_on_all() {
    let cluster = three();
    let members: Vec<_> = (0..3).map(|index| cluster.raw(index)).collect();
    let of = cluster.id(1).await;
    let change = |action: pb::alarm_request::AlarmAction| pb::AlarmRequest {
        action: action.into(),
        member_id: of,
        alarm: pb::AlarmType::Nospace.into(),
    };
    members[0]
        .alarm(change(pb::alarm_request::AlarmAction::Activate))
        .await
        .unwrap();
    for member in &members {
        // Linearizable, so that the alarm was applied there.
        member.range(get("k")).await.unwrap();
        let text = "etcdserver: mvcc: database space exceeded";
        refused(
            member.put(put("k", "v")).await,
            Code::ResourceExhausted,
            text,
        );
        member.delete(del("k")).await.unwrap();
        let alarms = member
            .alarm(pb::AlarmRequest::default())
            .await
            .unwrap()
            .alarms;
        let found: Vec<_> = alarms
            .iter()
            .map(|alarm| (alarm.member_id, alarm.alarm))
            .collect();
        assert_eq!(found, [(of, pb::AlarmType::Nospace.into())]);
    }
    members[2]
        .alarm(change(pb::alarm_request::AlarmAction::Deactivate))
        .await
        .unwrap();
    for member in &members {
        member.range(get("k")).await.unwrap();
        member.put(put("k", "v")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_that_is_full_stops_writes_on_all() {
    let mut cluster = three();
    let full = cluster.follower().await;
    cluster.kill(full);
    // The quota of this member alone: what is started later has it.
    cluster.add_flag("--quota-backend-bytes=3000000");
    cluster.restart(full);
    cluster.wait_healthy().await;
    let raw = cluster.raw(full);
    let value = "v".repeat(100_000);
    let mut refusal = None;
    for index in 0..60 {
        if let Err(status) = raw.put(put(&format!("k/{index}"), &value)).await {
            refusal = Some(status);
            break;
        }
    }
    let text = "etcdserver: mvcc: database space exceeded";
    refused::<()>(Err(refusal.unwrap()), Code::ResourceExhausted, text);
    for index in 0..3 {
        let member = cluster.raw(index);
        let refusing = async || member.put(put("k", "v")).await.err();
        let status = eventually(PATIENCE, "all refuse", refusing).await;
        refused::<()>(Err(status), Code::ResourceExhausted, text);
    }
    let alarms = raw.alarm(pb::AlarmRequest::default()).await.unwrap().alarms;
    assert_eq!(alarms.len(), 1);
    assert_eq!(alarms[0].member_id, cluster.id(full).await);
}
