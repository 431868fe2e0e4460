//! Who is in the cluster: list, add, learners, promotion, removal, other URLs, other leaders, restarts in turn.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    PATIENCE, Raw, RawWatch,
    cluster::{Cluster, ClusterOptions},
    copy_folder, eventually, holdfast_only, is_reference, refused, watch_key,
    wire::{del, get, put, revision, values},
};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tonic::{Code, Status};

const NOT_FOUND: &str = "etcdserver: member not found";
const UNHEALTHY: &str = "etcdserver: unhealthy cluster";
const NOT_FOR_LEARNERS: &str = "etcdserver: rpc not supported for learner";
const TOO_FEW: &str = "etcdserver: re-configuration failed due to not enough started members";

/// A member takes others for connected, and strict checks let changes pass, after this.
const SETTLED: Duration = Duration::from_secs(30);

fn three() -> Cluster {
    Cluster::start(3, ClusterOptions::new())
}

/// Refused because the cluster would be in danger: the code is Unknown in etcd, whatever its table says.
#[track_caller]
fn too_few<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.expect_err("the cluster would be in danger");
    assert_eq!(status.message(), TOO_FEW);
    assert!(
        matches!(status.code(), Code::Unknown | Code::FailedPrecondition),
        "{status:?}"
    );
}

/// Asks until the answer is not that members were only just connected.
async fn settled<T>(call: impl AsyncFn() -> Result<T, Status>) -> Result<T, Status> {
    eventually(SETTLED, "the members are taken for connected", async || {
        let answer = call().await;
        let waits = matches!(&answer, Err(status) if status.message() == UNHEALTHY);
        (!waits).then_some(answer)
    })
    .await
}

fn ids(members: &[pb::Member]) -> BTreeSet<u64> {
    members.iter().map(|member| member.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_lists_all_members() {
    let cluster = three();
    for asked in 0..3 {
        let found = eventually(PATIENCE, "all are published", async || {
            let found = cluster.raw(asked).member_list().await.unwrap();
            found
                .iter()
                .all(|member| !member.name.is_empty())
                .then_some(found)
        })
        .await;
        assert_eq!(found.len(), 3);
        for index in 0..3 {
            let id = cluster.id(index).await;
            let member = found.iter().find(|member| member.id == id).unwrap();
            assert_eq!(member.name, cluster.member(index).name());
            assert_eq!(member.peer_ur_ls, [cluster.member(index).peer_url()]);
            assert_eq!(member.client_ur_ls, [cluster.member(index).endpoint()]);
            assert!(!member.is_learner);
        }
        let local = pb::MemberListRequest {
            linearizable: false,
        };
        let local = cluster.raw(asked).member_list_call(local).await.unwrap();
        assert_eq!(ids(&local.members), ids(&found));
        assert_eq!(revision(&local.header), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_added_and_removed() {
    let mut cluster = three();
    for index in 0..100 {
        cluster
            .raw(0)
            .put(put(&format!("k/{index}"), "v"))
            .await
            .unwrap();
    }
    let (fourth, id) = cluster.add(false).await;
    cluster.wait_healthy().await;
    let raw = cluster.raw(fourth);
    assert_eq!(values(&raw.range(get("k/99")).await.unwrap()), ["v"]);
    raw.put(put("k/100", "by the fourth")).await.unwrap();
    for index in cluster.all() {
        let raw = cluster.raw(index);
        assert_eq!(raw.member_list().await.unwrap().len(), 4);
        assert_eq!(
            values(&raw.range(get("k/100")).await.unwrap()),
            ["by the fourth"]
        );
    }
    cluster.same_hash().await;
    let follower = cluster.follower().await;
    let url = cluster.member(fourth).peer_url();
    let again = settled(async || cluster.raw(follower).member_add(&[&url], false).await).await;
    let text = match &again {
        // etcd's ids are made of URLs and seconds: within the same second it is the id that is taken.
        Err(status) if is_reference() && status.message().contains("member ID") => {
            "etcdserver: member ID already exist"
        }
        _ => "etcdserver: Peer URLs already exists",
    };
    refused(again, Code::FailedPrecondition, text);
    cluster.remove(fourth, id).await;
    for index in cluster.all() {
        let raw = cluster.raw(index);
        assert_eq!(raw.member_list().await.unwrap().len(), 3);
        for id in [id, 0] {
            refused(raw.member_remove(id).await, Code::NotFound, NOT_FOUND);
            refused(
                raw.member_update(id, &["http://127.0.0.1:1"]).await,
                Code::NotFound,
                NOT_FOUND,
            );
            refused(raw.member_promote(id).await, Code::NotFound, NOT_FOUND);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_ends_and_stays_out() {
    let mut cluster = three();
    let out = cluster.follower().await;
    let id = cluster.id(out).await;
    let by = cluster.raw(cluster.leader().await);
    settled(async || by.member_remove(id).await).await.unwrap();
    assert!(
        cluster.wait_exit(out, PATIENCE),
        "a removed member ends by itself"
    );
    let exit = cluster.try_restart(out).unwrap_err();
    assert!(exit.says("removed"), "{exit:#?}");
    assert_eq!(by.member_list().await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_tells_who_asked_it_for_its_own_removal() {
    for of_leader in [false, true] {
        let mut cluster = three();
        let out = match of_leader {
            true => cluster.leader().await,
            false => cluster.follower().await,
        };
        let id = cluster.id(out).await;
        let itself = cluster.raw(out);
        let removed = settled(async || itself.member_remove(id).await).await;
        let left = removed.unwrap().members;
        assert!(left.len() == 2 && left.iter().all(|member| member.id != id));
        assert!(
            cluster.wait_exit(out, PATIENCE),
            "a removed member ends by itself"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_can_be_removed() {
    let mut cluster = three();
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let id = cluster.id(leader).await;
    let by = cluster.raw(follower);
    settled(async || by.member_remove(id).await).await.unwrap();
    assert!(
        cluster.wait_exit(leader, PATIENCE),
        "a removed member ends by itself"
    );
    cluster.wait_healthy().await;
    by.put(put("k", "v")).await.unwrap();
    assert_eq!(by.member_list().await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urls_are_changed_and_checked() {
    let cluster = three();
    let raw = cluster.raw(cluster.follower().await);
    for urls in [
        &[][..],
        &["nonsense"],
        &["http://127.0.0.1"],
        &["http://127.0.0.1:0"],
        &["ftp://127.0.0.1:1"],
        &["http://127.0.0.1:1/path"],
    ] {
        let text = "etcdserver: given member URLs are invalid";
        refused(
            raw.member_add(urls, false).await,
            Code::InvalidArgument,
            text,
        );
        raw.member_update(5, urls).await.unwrap_err();
    }
    refused(
        raw.member_update(5, &["http://127.0.0.1:1"]).await,
        Code::NotFound,
        NOT_FOUND,
    );
    let id = cluster.id(2).await;
    let taken = cluster.member(1).peer_url();
    let text = "etcdserver: Peer URLs already exists";
    refused(
        raw.member_update(id, &[&taken]).await,
        Code::FailedPrecondition,
        text,
    );
    let (own, second) = (cluster.member(2).peer_url(), "http://127.0.0.1:9");
    let answer = raw.member_update(id, &[&own, second]).await.unwrap();
    let changed = answer
        .members
        .iter()
        .find(|member| member.id == id)
        .unwrap();
    let wanted: BTreeSet<_> = [own.as_str(), second].into_iter().collect();
    assert_eq!(
        changed
            .peer_ur_ls
            .iter()
            .map(String::as_str)
            .collect::<BTreeSet<_>>(),
        wanted
    );
    for index in 0..3 {
        let found = cluster.raw(index).member_list().await.unwrap();
        let found = found.iter().find(|member| member.id == id).unwrap();
        assert_eq!(found.peer_ur_ls, changed.peer_ur_ls);
    }
    raw.put(put("k", "v")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_endanger_the_quorum_are_refused() {
    let mut cluster = three();
    let raw = cluster.raw(0);
    for url in ["http://127.0.0.1:1", "http://127.0.0.1:2"] {
        let added = settled(async || raw.member_add(&[url], false).await).await;
        added.unwrap();
    }
    // Three of five run. Of six that would be no majority.
    too_few(raw.member_add(&["http://127.0.0.1:3"], false).await);
    let follower = cluster.follower().await;
    let listed = raw.member_list().await.unwrap();
    let unstarted = listed.iter().filter(|member| member.name.is_empty());
    let unstarted: Vec<_> = unstarted.collect();
    assert_eq!(unstarted.len(), 2);
    for member in unstarted {
        assert!(member.client_ur_ls.is_empty());
        raw.member_remove(member.id).await.unwrap();
    }
    let leader = cluster.leader().await;
    let raw = cluster.raw(leader);
    let running = (0..3)
        .find(|index| *index != leader && *index != follower)
        .unwrap();
    let (down, running) = (cluster.id(follower).await, cluster.id(running).await);
    cluster.kill(follower);
    let waiting = eventually(PATIENCE, "the loss is seen", async || {
        raw.member_add(&["http://127.0.0.1:3"], false).await.err()
    });
    refused::<()>(Err(waiting.await), Code::Unavailable, UNHEALTHY);
    // Two of three run. Without one of these, one of two would.
    let status = raw.member_remove(running).await.unwrap_err();
    assert!(
        [TOO_FEW, UNHEALTHY].contains(&status.message()),
        "{status:?}"
    );
    raw.member_remove(down).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_member_stays() {
    let cluster = Cluster::start(1, ClusterOptions::new());
    let raw = cluster.raw(0);
    too_few(raw.member_remove(cluster.id(0).await).await);
    assert_eq!(raw.member_list().await.unwrap().len(), 1);
}

/// Every call that a learner refuses; Status, local ranges and snapshots it serves.
async fn check_learner(raw: &Raw) {
    let code = Code::FailedPrecondition;
    // tonic cannot tell a refusal of a stream from one of its first answer.
    let any_code = |status: &Status| assert_eq!(status.message(), NOT_FOR_LEARNERS, "{status:?}");
    refused(raw.put(put("k", "v")).await, code, NOT_FOR_LEARNERS);
    refused(raw.range(get("k")).await, code, NOT_FOR_LEARNERS);
    refused(raw.delete(del("k")).await, code, NOT_FOR_LEARNERS);
    refused(raw.compact(2).await, code, NOT_FOR_LEARNERS);
    refused(
        raw.grant(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await,
        code,
        NOT_FOR_LEARNERS,
    );
    refused(raw.leases().await, code, NOT_FOR_LEARNERS);
    refused(raw.member_list().await, code, NOT_FOR_LEARNERS);
    refused(raw.user_list().await, code, NOT_FOR_LEARNERS);
    refused(
        raw.alarm(pb::AlarmRequest::default()).await,
        code,
        NOT_FOR_LEARNERS,
    );
    refused(raw.hash_kv(0).await, code, NOT_FOR_LEARNERS);
    any_code(&raw.keep_alive(5).await.unwrap_err());
    any_code(&raw.range_chunks(get("k")).await.unwrap_err());
    let mut watch = RawWatch::open(raw);
    watch.request(watch_key("k")).await;
    any_code(&watch.message().await.unwrap_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_serves_little_until_it_is_promoted() {
    let mut cluster = three();
    let leader = cluster.raw(cluster.leader().await);
    for index in 0..50 {
        leader.put(put(&format!("k/{index}"), "v")).await.unwrap();
    }
    let (learner, id) = cluster.add_unstarted(true).await;
    let text = "etcdserver: can only promote a learner member which is in sync with leader";
    refused(
        leader.member_promote(id).await,
        Code::FailedPrecondition,
        text,
    );
    let follower = cluster.raw(cluster.follower().await);
    refused(
        follower.member_promote(id).await,
        Code::FailedPrecondition,
        text,
    );
    let voter = cluster.id(0).await;
    let not_learner = "etcdserver: can only promote a learner member";
    refused(
        leader.member_promote(voter).await,
        Code::FailedPrecondition,
        not_learner,
    );
    refused(leader.member_promote(7).await, Code::NotFound, NOT_FOUND);
    let too_many = "etcdserver: too many learner members in cluster";
    let second = settled(async || leader.member_add(&["http://127.0.0.1:1"], true).await).await;
    refused(second, Code::FailedPrecondition, too_many);
    let listed = leader.member_list().await.unwrap();
    let listed = listed.iter().find(|member| member.id == id).unwrap();
    assert_eq!((listed.is_learner, listed.name.as_str()), (true, ""));
    let bad = "etcdserver: bad leader transferee";
    refused(leader.move_leader(id).await, Code::FailedPrecondition, bad);

    cluster.restart(learner);
    let raw = cluster.raw(learner);
    check_learner(&raw).await;
    let status = raw.status().await.unwrap();
    assert!(status.is_learner);
    let local = pb::RangeRequest {
        serializable: true,
        ..get("k/49")
    };
    eventually(PATIENCE, "the learner catches up", async || {
        let found = raw.range(local.clone()).await.unwrap();
        (found.kvs.len() == 1).then_some(())
    })
    .await;
    let mut snapshot = raw
        .maintenance
        .clone()
        .snapshot(pb::SnapshotRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(snapshot.message().await.unwrap().is_some());
    drop(snapshot);
    // It is no part of the quorum: two of three voters go on without it.
    let refused_leader = leader.move_leader(id).await;
    refused(refused_leader, Code::FailedPrecondition, bad);
    cluster.promote(id).await;
    cluster.wait_healthy().await;
    raw.put(put("k", "by the new voter")).await.unwrap();
    let listed = raw.member_list().await.unwrap();
    assert!(listed.iter().all(|member| !member.is_learner));
    cluster.lead(learner).await;
    raw.put(put("k", "by the new leader")).await.unwrap();
    cluster.same_hash().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_disk_is_replaced_under_a_new_id() {
    let mut cluster = three();
    for index in 0..200 {
        cluster
            .raw(0)
            .put(put(&format!("k/{index}"), "v"))
            .await
            .unwrap();
    }
    for lost in 0..3 {
        let old = cluster.id(lost).await;
        let new = cluster.replace(lost).await;
        assert_ne!(old, new);
        cluster.wait_healthy().await;
        let raw = cluster.raw(lost);
        assert_eq!(cluster.id(lost).await, new);
        assert_eq!(values(&raw.range(get("k/199")).await.unwrap()), ["v"]);
        raw.put(put("by", &lost.to_string())).await.unwrap();
        let listed = raw.member_list().await.unwrap();
        assert_eq!(listed.len(), 3);
        assert!(listed.iter().any(|member| member.id == new));
    }
    cluster.same_hash().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_is_refused_under_its_old_id() {
    // etcd lets it in, and its votes and acknowledgements are forgotten with its disk.
    holdfast_only!();
    let mut cluster = three();
    let wiped = cluster.follower().await;
    let id = cluster.id(wiped).await;
    cluster.raw(0).put(put("k", "v")).await.unwrap();
    cluster.kill(wiped);
    cluster.wipe(wiped);
    let exit = cluster.try_restart(wiped).unwrap_err();
    assert!(
        exit.says("add it again") || exit.says("remove"),
        "{exit:#?}"
    );
    cluster.leader().await;
    let by = cluster.raw(cluster.running()[0]);
    by.put(put("k", "w")).await.unwrap();
    assert!(
        by.member_list()
            .await
            .unwrap()
            .iter()
            .any(|member| member.id == id)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_on_an_old_copy_of_its_data_says_so_and_stops() {
    // etcd goes on, having forgotten what it acknowledged.
    holdfast_only!();
    let mut cluster = three();
    let old = cluster.follower().await;
    cluster.terminate(old);
    let data = cluster.member(old).data_dir().to_owned();
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&data, copy.path());
    cluster.restart(old);
    cluster.wait_healthy().await;
    for n in 0..50 {
        cluster
            .raw(old)
            .put(put("k", &n.to_string()))
            .await
            .unwrap();
    }
    cluster.terminate(old);
    cluster.wipe(old);
    copy_folder(copy.path(), &data);
    let exit = cluster.try_restart(old).unwrap_err();
    assert!(exit.says("its disk lost data"), "{exit:#?}");
    assert!(exit.log.len() < 200, "{} lines", exit.log.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_can_begin_a_new_cluster_with_what_it_has() {
    let mut cluster = three();
    let last = cluster.follower().await;
    let raw = cluster.raw(last);
    raw.put(put("k", "v")).await.unwrap();
    // That an entry is committed is written down with those that follow; what is in doubt is left out (etcd).
    for index in 0..5 {
        raw.put(put("later", &index.to_string())).await.unwrap();
    }
    for index in 0..3 {
        cluster.kill(index);
    }
    cluster.add_flag("--force-new-cluster");
    cluster.restart(last);
    cluster.wait_healthy().await;
    assert_eq!(values(&raw.range(get("k")).await.unwrap()), ["v"]);
    raw.put(put("k", "w")).await.unwrap();
    assert_eq!(raw.member_list().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_when_asked() {
    let cluster = three();
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let (own, other) = (cluster.id(leader).await, cluster.id(follower).await);
    let text = "etcdserver: not leader";
    refused(
        cluster.raw(follower).move_leader(other).await,
        Code::FailedPrecondition,
        text,
    );
    let text = "etcdserver: bad leader transferee";
    refused(
        cluster.raw(leader).move_leader(99).await,
        Code::FailedPrecondition,
        text,
    );
    refused(
        cluster.raw(leader).move_leader(0).await,
        Code::FailedPrecondition,
        text,
    );
    cluster.raw(leader).move_leader(own).await.unwrap();
    assert_eq!(cluster.leader().await, leader);
    let term = cluster.raw(leader).status().await.unwrap().raft_term;
    cluster.raw(leader).move_leader(other).await.unwrap();
    assert_eq!(cluster.leader().await, follower);
    assert_eq!(
        cluster.raw(leader).status().await.unwrap().raft_term,
        term + 1
    );
    cluster.raw(leader).put(put("k", "v")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_hands_over() {
    let mut cluster = three();
    let leader = cluster.leader().await;
    let term = cluster.raw(leader).status().await.unwrap().raft_term;
    let exit = tokio::task::block_in_place(|| cluster.terminate(leader));
    assert!(exit.status.is_some(), "it ended in time");
    let limit = if is_reference() { 10_000 } else { 1_500 };
    assert!(
        exit.took < Duration::from_millis(limit),
        "it took {:?}",
        exit.took
    );
    let began = Instant::now();
    let next = cluster.leader().await;
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        cluster.raw(next).status().await.unwrap().raft_term,
        term + 1
    );
}

/// Writes to whoever answers, each value above the last; gives the last that was acknowledged.
async fn writer(stubs: Vec<Raw>, done: Arc<AtomicBool>) -> (u64, Duration) {
    let (mut at, mut last, mut value) = (0, 0, 0);
    let (mut since, mut longest) = (Instant::now(), Duration::ZERO);
    while !done.load(Ordering::Relaxed) {
        value += 1;
        let text = value.to_string();
        let write = stubs[at % stubs.len()].put(put("rolling", &text));
        match tokio::time::timeout(Duration::from_millis(500), write).await {
            Ok(Ok(_)) => {
                last = value;
                longest = longest.max(since.elapsed());
                since = Instant::now();
            }
            _ => {
                at += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    (last, longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_in_turn_lose_nothing() {
    let mut cluster = three();
    let stubs: Vec<_> = (0..3).map(|index| cluster.raw(index)).collect();
    let done = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(writer(stubs, done.clone()));
    for index in 0..3 {
        tokio::task::block_in_place(|| {
            cluster.terminate(index);
            cluster.restart(index);
        });
        cluster.wait_healthy().await;
    }
    done.store(true, Ordering::Relaxed);
    let (last, longest) = writing.await.unwrap();
    eprintln!("{last} writes, the longest gap {longest:?}");
    for index in 0..3 {
        let found = cluster.raw(index).range(get("rolling")).await.unwrap();
        let found: u64 = values(&found)[0].parse().unwrap();
        assert!(found >= last, "{found} after {last} was acknowledged");
    }
    cluster.same_hash().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_under_tls_come_back_after_all_were_killed() {
    let options = ClusterOptions::new().tls();
    let mut cluster = Cluster::start(3, options);
    cluster.enable_auth(&[("worker", "k/")]).await;
    let worker = cluster.raw_as(1, "worker");
    worker.put(put("k/a", "v")).await.unwrap();
    let text = "etcdserver: permission denied";
    refused(
        worker.put(put("other", "v")).await,
        Code::PermissionDenied,
        text,
    );
    for index in 0..3 {
        cluster.kill(index);
    }
    cluster.restart_all(&[0, 1, 2]);
    cluster.wait_healthy().await;
    for index in 0..3 {
        let worker = cluster.raw_as(index, "worker");
        assert_eq!(values(&worker.range(get("k/a")).await.unwrap()), ["v"]);
        refused(
            worker.put(put("other", "v")).await,
            Code::PermissionDenied,
            text,
        );
    }
    cluster.same_hash().await;
}
