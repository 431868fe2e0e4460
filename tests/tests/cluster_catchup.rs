//! A member that was away for longer than the log is kept gets a snapshot, and whoever watches there must not notice more than
//! that it took a while.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    Kind, PATIENCE, RawWatch,
    cluster::{Cluster, ClusterOptions, Link},
    event_text, eventually, is_reference, watch_prefix,
    wire::{everything, get, put, put_leased, revision, values},
};
use std::time::Duration;

/// What is written while a member is away: much more than the log keeps.
const WRITES: i64 = 1_500;

fn options() -> ClusterOptions {
    ClusterOptions::new()
        .links()
        .flag("--snapshot-count=100")
        .flag("--snapshot-catchup-entries=50")
        .flag("--log-level=debug")
}

/// Waits until the leader's log no longer has what was written: only then does a member that lacks it get a snapshot. Etcd cuts the
/// log by the number of entries, we by time.
async fn cut(cluster: &Cluster, leader: usize) {
    if is_reference() {
        return;
    }
    let applied = cluster.raw(leader).status().await.unwrap();
    let applied = applied.raft_applied_index;
    let log = cluster.member(leader).log();
    eventually(PATIENCE, "the log is cut", async || {
        let saved = log.lines().into_iter().rev();
        let saved = saved.filter(|line| line.contains("\"saved snapshot\""));
        let index = saved.filter_map(|line| {
            let (_, rest) = line.split_once("\"index\":")?;
            rest.split(|c: char| !c.is_ascii_digit())
                .next()?
                .parse()
                .ok()
        });
        let index: u64 = index.take(1).next()?;
        // Behind the last row there may be a few entries without any.
        (index + 20 >= applied).then_some(())
    })
    .await;
}

/// Cuts a member off in such a way that nothing which is sent meanwhile arrives later.
fn lose(cluster: &Cluster, member: usize) {
    let refused = Link {
        refused: true,
        ..Link::default()
    };
    cluster.network().surround(member, refused);
}

/// A member was sent a snapshot, not just what it lacked of the log.
fn got_a_snapshot(cluster: &Cluster, member: usize) {
    let said = if is_reference() {
        "\"applied snapshot\""
    } else {
        "\"installed a snapshot\""
    };
    let said = cluster.member(member).log().wait_after(0, said, PATIENCE);
    assert!(said.is_some(), "m{member} did not get a snapshot");
}

/// Puts `w/<n>` for each `n` of the range through a member, several at a time.
async fn write(cluster: &Cluster, member: usize, numbers: std::ops::Range<i64>) {
    let mut tasks = Vec::new();
    for part in 0..8 {
        let raw = cluster.raw(member);
        let numbers = numbers.clone();
        tasks.push(tokio::spawn(async move {
            for number in numbers.filter(|number| number % 8 == part) {
                raw.put(put(&format!("w/{}", number % 50), &number.to_string()))
                    .await
                    .unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

async fn caught_up(cluster: &Cluster, member: usize, to: i64) {
    let raw = cluster.raw(member);
    let local = pb::RangeRequest {
        serializable: true,
        ..get("w")
    };
    eventually(
        Duration::from_secs(60),
        "the member catches up",
        async || {
            let found = raw.range(local.clone()).await.ok()?;
            (revision(&found.header) >= to).then_some(())
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_down_gets_everything() {
    let mut cluster = Cluster::start(3, options());
    let (leader, away) = (cluster.leader().await, cluster.follower().await);
    let raw = cluster.raw(leader);
    write(&cluster, leader, 0..100).await;
    cluster.kill(away);
    raw.grant(pb::LeaseGrantRequest { ttl: 600, id: 5 })
        .await
        .unwrap();
    raw.put(put_leased("leased", "v", 5)).await.unwrap();
    raw.user_add("somebody", "a long password").await.unwrap();
    raw.role_add("some").await.unwrap();
    raw.role_grant("some", (Kind::Read, "a", "b"))
        .await
        .unwrap();
    raw.user_grant_role("somebody", "some").await.unwrap();
    write(&cluster, leader, 100..WRITES).await;
    raw.compact(800).await.unwrap();
    cut(&cluster, leader).await;
    cluster.restart(away);
    let last = raw.revision().await;
    caught_up(&cluster, away, last).await;
    got_a_snapshot(&cluster, away);
    cluster.wait_healthy().await;
    // On its own, as far as it can be: it votes, leads and has all that the others have.
    cluster.lead(away).await;
    let raw = cluster.raw(away);
    assert_eq!(raw.user_get("somebody").await.unwrap(), ["some"]);
    assert_eq!(raw.role_get("some").await.unwrap().len(), 1);
    assert_eq!(raw.leases().await.unwrap(), [5]);
    assert_eq!(raw.keep_alive(5).await.unwrap(), 600);
    let request = pb::LeaseTimeToLiveRequest { id: 5, keys: true };
    assert_eq!(raw.time_to_live(request).await.unwrap().keys, ["leased"]);
    assert_eq!(raw.member_list().await.unwrap().len(), 3);
    let hash = cluster.same_hash().await;
    assert_eq!(hash.compact_revision, 800);
    // And after a restart it still has it.
    cluster.kill(away);
    cluster.restart(away);
    cluster.wait_healthy().await;
    assert_eq!(cluster.same_hash().await.hash, hash.hash);
    raw.revoke(5).await.unwrap();
    assert!(raw.range(get("leased")).await.unwrap().kvs.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_gets_everything_while_writes_go_on() {
    let mut cluster = Cluster::start(3, options());
    let (leader, away) = (cluster.leader().await, cluster.follower().await);
    cluster.kill(away);
    write(&cluster, leader, 0..WRITES).await;
    cut(&cluster, leader).await;
    cluster.launch(away);
    write(&cluster, leader, WRITES..2 * WRITES).await;
    let last = cluster.raw(leader).revision().await;
    caught_up(&cluster, away, last).await;
    got_a_snapshot(&cluster, away);
    cluster.wait_healthy().await;
    cluster.same_hash().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_go_on_over_a_snapshot() {
    let cluster = Cluster::start(3, options());
    let (leader, away) = (cluster.leader().await, cluster.follower().await);
    let request = pb::WatchCreateRequest {
        start_revision: 1,
        prev_kv: true,
        ..watch_prefix("w/")
    };
    let (mut watch, _) = RawWatch::on(&cluster.raw(away), request.clone()).await;
    write(&cluster, leader, 0..100).await;
    let mut events = watch.events(100).await;
    lose(&cluster, away);
    write(&cluster, leader, 100..WRITES).await;
    cut(&cluster, leader).await;
    cluster.network().heal();
    let wanted = usize::try_from(WRITES).unwrap() - events.len();
    events.extend(watch.events(wanted).await);
    got_a_snapshot(&cluster, away);
    let (mut other, _) = RawWatch::on(&cluster.raw(leader), request).await;
    let expected = other.events(events.len()).await;
    assert_eq!(events.len(), expected.len());
    for (event, expected) in events.iter().zip(&expected) {
        assert_eq!(event_text(event), event_text(expected));
        assert_eq!(event.prev_kv, expected.prev_kv);
    }
    cluster.wait_healthy().await;
    cluster.same_hash().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_needs_what_was_compacted_says_so() {
    let cluster = Cluster::start(3, options());
    let (leader, away) = (cluster.leader().await, cluster.follower().await);
    let (mut watch, _) = RawWatch::on(&cluster.raw(away), watch_prefix("w/")).await;
    write(&cluster, leader, 0..100).await;
    let seen = watch.events(100).await;
    let seen = seen.last().unwrap().kv.as_ref().unwrap().mod_revision;
    lose(&cluster, away);
    write(&cluster, leader, 100..WRITES).await;
    cluster.raw(leader).compact(WRITES / 2).await.unwrap();
    write(&cluster, leader, WRITES..WRITES + 200).await;
    cut(&cluster, leader).await;
    cluster.network().heal();
    // What it is sent is in order and without a gap up to the end.
    let mut last = seen;
    loop {
        let answer = watch.next().await;
        if answer.canceled {
            assert_eq!(answer.compact_revision, WRITES / 2);
            break;
        }
        for event in &answer.events {
            let at = event.kv.as_ref().unwrap().mod_revision;
            assert_eq!(at, last + 1);
            last = at;
        }
    }
    assert!(last < WRITES / 2);
    cluster.wait_healthy().await;
    cluster.same_hash().await;
}

/// Reads at a member that gets a snapshot meanwhile are of one revision each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_reads_over_a_snapshot_are_of_one_revision() {
    let cluster = Cluster::start(3, options());
    let (leader, away) = (cluster.leader().await, cluster.follower().await);
    write(&cluster, leader, 0..100).await;
    caught_up(&cluster, away, 101).await;
    cluster.network().isolate(away);
    // One at a time, so that the values tell the revision.
    let raw = cluster.raw(leader);
    let first = raw.revision().await + 1;
    for at in first..first + 600 {
        raw.put(put(&format!("o/{}", at % 7), &at.to_string()))
            .await
            .unwrap();
    }
    let reader = tokio::spawn({
        let raw = cluster.raw(away);
        async move {
            let all = pb::RangeRequest {
                serializable: true,
                ..everything()
            };
            let mut before = 0;
            loop {
                let found = raw.range(all.clone()).await.unwrap();
                let at = revision(&found.header);
                assert!(at >= before, "{at} after {before}");
                before = at;
                let latest = found.kvs.iter().map(|kv| kv.mod_revision).max().unwrap();
                assert_eq!(
                    latest, at,
                    "the newest key is of the revision of the answer"
                );
                if at >= first + 599 {
                    let newest = values(&found)
                        .into_iter()
                        .filter_map(|value| value.parse::<i64>().ok());
                    assert_eq!(newest.max(), Some(at));
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    cut(&cluster, leader).await;
    cluster.network().heal();
    tokio::time::timeout(PATIENCE * 2, reader)
        .await
        .unwrap()
        .unwrap();
    got_a_snapshot(&cluster, away);
}
