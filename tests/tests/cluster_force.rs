//! `--force-new-cluster`: one member goes on alone, whatever its log says that nobody had carried out yet.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_tests::{
    PATIENCE, Raw,
    cluster::{Cluster, ClusterOptions, Link},
    eventually, free_port, holdfast_only, http_get,
    wire::{get, put, values},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::time::Duration;

const FORCE: &str = "--force-new-cluster";
/// The last one counts.
const NO_FORCE: &str = "--force-new-cluster=false";
/// What the log says when it can no longer be undone.
const FORCED: &str = "this member is now the only one of its cluster";

/// For how long nobody hears what the last member has in its log: in this time all of them are killed.
const UNHEARD: Duration = Duration::from_secs(2);

/// A change that stands in the log of the last member, and that nobody knows to be committed.
#[derive(Clone, Copy, Debug)]
enum Pending {
    /// A member that nobody will ever start.
    Add,
    /// The last member itself goes.
    Remove,
    /// The last member itself, a learner, gets a vote.
    Promote,
}

/// A cluster of which nothing runs any more, and the index and id of the member that has the pending change.
struct Lost {
    cluster: Cluster,
    last: usize,
    id: u64,
}

/// Loses a cluster in the moment in which one member has a change of members in its log, and before the leader knows that it has. Key `k`
/// was acknowledged.
async fn lost(pending: Pending) -> Lost {
    // Heartbeats are answered late, too: nobody may take that for a leader that is gone.
    let options = ClusterOptions::new()
        .links()
        .flag("--heartbeat-interval=100")
        .flag("--election-timeout=5000")
        .flag("--strict-reconfig-check=false");
    let is_learner = matches!(pending, Pending::Promote);
    let mut cluster = Cluster::start(if is_learner { 2 } else { 3 }, options);
    let leader = cluster.leader().await;
    let (last, unheard) = if is_learner {
        let (learner, _) = cluster.add(true).await;
        (learner, 1 - leader)
    } else {
        // Without the third nothing is committed but with the last one's help.
        let mut followers = (0..3).filter(|index| *index != leader);
        let (last, third) = (followers.next().unwrap(), followers.next().unwrap());
        cluster.kill(third);
        (last, last)
    };
    let id = cluster.id(last).await;
    let raw = cluster.raw(leader);
    raw.put(put("k", "v")).await.unwrap();
    let at_last = cluster.raw(last);
    eventually(PATIENCE, "the last member has everything", async || {
        let mut request = get("k");
        request.serializable = true;
        let found = at_last.range(request).await.ok()?;
        (values(&found) == ["v"]).then_some(())
    })
    .await;
    let before = syncs(&cluster, last).await;
    let late = Link {
        delay: UNHEARD,
        ..Link::default()
    };
    cluster.network().set(unheard, leader, late);
    let asked = tokio::spawn(async move { change(&raw, pending, id).await });
    eventually(PATIENCE, "the change is in its log", async || {
        (syncs(&cluster, last).await > before).then_some(())
    })
    .await;
    for index in cluster.running() {
        cluster.kill(index);
    }
    assert!(
        asked.await.unwrap().is_err(),
        "nobody was told of {pending:?}"
    );
    Lost { cluster, last, id }
}

async fn change(raw: &Raw, pending: Pending, id: u64) -> Result<(), tonic::Status> {
    let url = format!("http://127.0.0.1:{}", free_port());
    match pending {
        Pending::Add => raw.member_add(&[&url], false).await.map(drop),
        Pending::Remove => raw.member_remove(id).await.map(drop),
        Pending::Promote => raw.member_promote(id).await.map(drop),
    }
}

/// How often a member has synced its log.
async fn syncs(cluster: &Cluster, index: usize) -> u64 {
    let page = http_get(cluster.member(index).port(), "/metrics")
        .await
        .body;
    let count = "etcd_disk_wal_fsync_duration_seconds_count ";
    let line = page.lines().find_map(|line| line.strip_prefix(count));
    line.expect("the count of syncs").parse().unwrap()
}

/// The member serves alone, with a vote, has what was acknowledged and takes more.
async fn serves_alone(lost: &Lost) {
    lost.cluster.wait_healthy().await;
    let raw = lost.cluster.raw(lost.last);
    let listed = raw.member_list().await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0].id, lost.id);
    assert!(!listed[0].is_learner);
    assert_eq!(values(&raw.range(get("k")).await.unwrap()), ["v"]);
    raw.put(put("more", "w")).await.unwrap();
}

/// The flag may stay over several starts; without it everything is as it was, and the cluster grows again.
async fn goes_on(mut lost: Lost) {
    let last = lost.last;
    lost.cluster.kill(last);
    lost.cluster.restart(last);
    serves_alone(&lost).await;
    lost.cluster.kill(last);
    lost.cluster.add_flag(NO_FORCE);
    lost.cluster.restart(last);
    serves_alone(&lost).await;
    let (added, _) = lost.cluster.add(false).await;
    let raw = lost.cluster.raw(added);
    assert_eq!(raw.member_list().await.unwrap().len(), 2);
    assert_eq!(values(&raw.range(get("k")).await.unwrap()), ["v"]);
    // What is added now stays, whatever was void before.
    lost.cluster.kill(added);
    lost.cluster.kill(last);
    lost.cluster.restart_all(&[last, added]);
    assert_eq!(raw.member_list().await.unwrap().len(), 2);
    lost.cluster.same_hash().await;
}

async fn survives(pending: Pending) {
    let mut lost = lost(pending).await;
    lost.cluster.add_flag(FORCE);
    lost.cluster.restart(lost.last);
    serves_alone(&lost).await;
    goes_on(lost).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_to_be_added_does_not_block_the_new_cluster() {
    holdfast_only!();
    survives(Pending::Add).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_to_be_removed_goes_on() {
    holdfast_only!();
    survives(Pending::Remove).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_was_to_be_promoted_goes_on() {
    holdfast_only!();
    survives(Pending::Promote).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_just_added_does_not_block_the_new_cluster() {
    // As above, but committed and acknowledged: the last of the log is applied again at a start.
    holdfast_only!();
    let mut cluster = Cluster::start(
        3,
        ClusterOptions::new().flag("--strict-reconfig-check=false"),
    );
    let leader = cluster.leader().await;
    let last = cluster.follower().await;
    let id = cluster.id(last).await;
    let raw = cluster.raw(leader);
    raw.put(put("k", "v")).await.unwrap();
    change(&cluster.raw(last), Pending::Add, id).await.unwrap();
    for index in 0..3 {
        cluster.kill(index);
    }
    cluster.add_flag(FORCE);
    cluster.restart(last);
    let lost = Lost { cluster, last, id };
    serves_alone(&lost).await;
    goes_on(lost).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forced_start_may_be_killed_at_any_moment() {
    holdfast_only!();
    let mut lost = lost(Pending::Add).await;
    let last = lost.last;
    lost.cluster.add_flag(FORCE);
    let mut random = StdRng::seed_from_u64(4);
    for line in 0..12 {
        let log = lost.cluster.member(last).log().clone();
        let mark = log.len();
        lost.cluster.launch(last);
        // Some way into the start: so many lines, or so long where there are fewer.
        let limit = Duration::from_millis(random.random_range(1..150));
        tokio::task::block_in_place(|| log.wait_after(mark + line, "", limit));
        lost.cluster.kill(last);
    }
    // Once it has said so, the flag is no longer needed.
    let mark = lost.cluster.member(last).log().len();
    lost.cluster.launch(last);
    let log = lost.cluster.member(last).log().clone();
    let said = tokio::task::block_in_place(|| log.wait_after(mark, FORCED, PATIENCE));
    said.expect("it says that it is alone");
    lost.cluster.kill(last);
    lost.cluster.add_flag(NO_FORCE);
    lost.cluster.restart(last);
    serves_alone(&lost).await;
    goes_on(lost).await;
}
