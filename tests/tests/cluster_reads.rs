//! Three members: every call works on each of them, and what one answered all others know.

use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    PATIENCE, Raw, RawWatch, bad_token,
    cluster::{Cluster, ClusterOptions},
    event_text, eventually, is_reference, refused, watch_prefix,
    wire::{
        Against, IntoOp, always, cmp, del, del_range, everything, get, keys, put, range, revision,
        txn, values, was_put,
    },
};
use pb::compare::CompareResult;
use tonic::Code;

fn three() -> (Cluster, Vec<Raw>) {
    let cluster = Cluster::start(3, ClusterOptions::new());
    let members = (0..3).map(|index| cluster.raw(index)).collect();
    (cluster, members)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_member_acknowledged_every_member_reads() {
    let (_cluster, members) = three();
    for round in 0..20 {
        for (writer, member) in members.iter().enumerate() {
            let value = format!("{round}/{writer}");
            let written = revision(&member.put(put("k", &value)).await.unwrap().header);
            for reader in &members {
                let found = reader.range(get("k")).await.unwrap();
                assert_eq!(values(&found), [value.as_str()]);
                assert!(revision(&found.header) >= written);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_key_value_call_works_on_each_member() {
    let (_cluster, members) = three();
    for (index, member) in members.iter().enumerate() {
        let key = |name: &str| format!("{index}/{name}");
        let first = revision(&member.put(put(&key("a"), "1")).await.unwrap().header);
        let request = pb::PutRequest {
            prev_kv: true,
            ..put(&key("a"), "2")
        };
        let answer = member.put(request).await.unwrap();
        assert_eq!(revision(&answer.header), first + 1);
        assert_eq!(&answer.prev_kv.unwrap().value[..], b"1");
        let unchanged = cmp(&key("a"), CompareResult::Equal, Against::Mod(first + 1));
        let both = vec![put(&key("b"), "3").op(), put(&key("c"), "4").op()];
        let answer = member
            .txn(txn(vec![unchanged.clone()], both, vec![]))
            .await
            .unwrap();
        assert!(answer.succeeded);
        assert_eq!(revision(&was_put(&answer, 1).header), first + 2);
        let changed = put(&key("a"), "5").op();
        let answer = member.txn(always(vec![changed])).await.unwrap();
        assert_eq!(revision(&answer.header), first + 3);
        let read = vec![get(&key("a")).op()];
        let answer = member
            .txn(txn(vec![unchanged], vec![], read))
            .await
            .unwrap();
        assert!(!answer.succeeded);
        let all = range(&key(""), &format!("{index}0"));
        let chunks = member.range_chunks(all.clone()).await.unwrap();
        let found: Vec<_> = chunks.iter().flat_map(values).collect();
        assert_eq!(found, ["5", "3", "4"]);
        let past = pb::RangeRequest {
            revision: first,
            ..all.clone()
        };
        assert_eq!(values(&member.range(past.clone()).await.unwrap()), ["1"]);
        let answer = member
            .delete(del_range(&key("b"), &key("d")))
            .await
            .unwrap();
        assert_eq!(answer.deleted, 2);
        assert_eq!(keys(&member.range(all).await.unwrap()), [key("a")]);
        assert_eq!(member.delete(del(&key("b"))).await.unwrap().deleted, 0);
        member.compact(first + 3).await.unwrap();
        let text = "etcdserver: mvcc: required revision has been compacted";
        for reader in &members {
            // Linearizable, so that the compaction was applied there.
            reader.range(get("a")).await.unwrap();
            refused(reader.range(past.clone()).await, Code::OutOfRange, text);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_tell_of_the_member_that_answers() {
    let (cluster, members) = three();
    let mut ids = Vec::new();
    let mut clusters = Vec::new();
    for (index, member) in members.iter().enumerate() {
        let header = member.put(put("k", "v")).await.unwrap().header.unwrap();
        assert_eq!(header.member_id, cluster.id(index).await);
        assert!(header.raft_term > 0);
        ids.push(header.member_id);
        clusters.push(header.cluster_id);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    clusters.dedup();
    assert_eq!(clusters.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_on_all_members_see_the_same() {
    let (_cluster, members) = three();
    let mut watches = Vec::new();
    for member in &members {
        let request = pb::WatchCreateRequest {
            prev_kv: true,
            start_revision: 1,
            ..watch_prefix("w/")
        };
        watches.push(RawWatch::on(member, request).await.0);
    }
    for round in 0..10 {
        for (index, member) in members.iter().enumerate() {
            member
                .put(put(&format!("w/{index}"), &round.to_string()))
                .await
                .unwrap();
        }
        let ops = (0..3)
            .map(|index| put(&format!("w/{index}"), "t").op())
            .collect();
        members[round % 3].txn(always(ops)).await.unwrap();
        members[round % 3].delete(del("w/1")).await.unwrap();
    }
    let mut seen = Vec::new();
    for watch in &mut watches {
        let events = watch.events(70).await;
        let with_previous = |event| {
            (
                event_text(event),
                event.prev_kv.as_ref().map(|kv| kv.value.clone()),
            )
        };
        seen.push(events.iter().map(with_previous).collect::<Vec<_>>());
    }
    assert_eq!(seen[0].len(), 70);
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_at_another_member() {
    let (mut cluster, members) = three();
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    for index in 0..20 {
        members[follower]
            .put(put(&format!("w/{index}"), "v"))
            .await
            .unwrap();
    }
    let (mut watch, _) = RawWatch::on(
        &members[leader],
        pb::WatchCreateRequest {
            start_revision: 2,
            ..watch_prefix("w/")
        },
    )
    .await;
    let mut events = watch.events(10).await;
    cluster.kill(leader);
    let next = events.last().unwrap().kv.as_ref().unwrap().mod_revision + 1;
    let request = pb::WatchCreateRequest {
        start_revision: next,
        ..watch_prefix("w/")
    };
    let (mut watch, _) = RawWatch::on(&members[follower], request).await;
    cluster.leader().await;
    let last = members[follower].put(put("w/last", "v")).await.unwrap();
    let wanted = usize::try_from(revision(&last.header)).unwrap() - 1 - events.len();
    events.extend(watch.events(wanted).await);
    let at: Vec<_> = events
        .iter()
        .map(|event| event.kv.as_ref().unwrap().mod_revision)
        .collect();
    assert_eq!(at, (2..=revision(&last.header)).collect::<Vec<_>>());
}

/// Progress says that everything up to its revision was sent: also on a member that is behind the one that was written to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_on_followers_is_true() {
    let (cluster, members) = three();
    let follower = cluster.follower().await;
    let (mut watch, _) = RawWatch::on(&members[follower], watch_prefix("w/")).await;
    let leader = members[cluster.leader().await].clone();
    let writing = tokio::spawn(async move {
        for index in 0..300 {
            leader.put(put("w/k", &index.to_string())).await.unwrap();
        }
    });
    let (mut last, mut told, mut events) = (1, 1, 0);
    while events < 300 {
        watch.progress().await;
        let answer = watch.next().await;
        if answer.events.is_empty() {
            told = revision(&answer.header).max(told);
            assert!(told >= last, "progress fell back to {told} after {last}");
        }
        for event in &answer.events {
            let at = event.kv.as_ref().unwrap().mod_revision;
            assert!(
                at > told,
                "an event at {at} after progress was told to be at {told}"
            );
            assert!(at > last, "an event at {at} after one at {last}");
            last = at;
            events += 1;
        }
    }
    writing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_have_the_same_hash() {
    let (cluster, members) = three();
    for index in 0..200 {
        let member = &members[index % 3];
        member
            .put(put(&format!("k/{}", index % 20), &index.to_string()))
            .await
            .unwrap();
        if index % 10 == 0 {
            member
                .delete(del(&format!("k/{}", index % 7)))
                .await
                .unwrap();
        }
        if index == 100 {
            member.compact(60).await.unwrap();
        }
    }
    let hash = cluster.same_hash().await;
    assert_eq!(hash.compact_revision, 60);
    assert_eq!(hash.hash_revision, members[0].revision().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_tokens_are_those_of_the_cluster() {
    let options = if is_reference() {
        ClusterOptions::new().flag("--bcrypt-cost=4")
    } else {
        ClusterOptions::new()
    };
    let cluster = Cluster::start(3, options);
    let members: Vec<_> = (0..3).map(|index| cluster.raw(index)).collect();
    let password = "a long password of root";
    members[0].user_add("root", password).await.unwrap();
    members[1].user_grant_role("root", "root").await.unwrap();
    members[2].enable_auth().await.unwrap();
    for member in &members {
        let status = eventually(PATIENCE, "auth is on", async || {
            let status = member.auth_status().await.unwrap();
            status.enabled.then_some(status)
        });
        assert_eq!(status.await.auth_revision, members[2].auth_revision().await);
    }
    for (index, member) in members.iter().enumerate() {
        let text = "etcdserver: user name is empty";
        refused(member.put(put("k", "v")).await, Code::InvalidArgument, text);
        bad_token(member.with_token("nonsense").put(put("k", "v")).await);
        let token = member.authenticate("root", password).await.unwrap();
        for other in &members {
            let root = other.with_token(&token);
            // etcd's tokens reach the other members through the log, a moment later.
            eventually(PATIENCE, "the token is known", async || {
                root.put(put("k", &index.to_string())).await.ok()
            })
            .await;
            assert_eq!(root.user_list().await.unwrap(), ["root"]);
        }
    }
}

/// Reads that say so are served from what the member has, and that is never what nobody wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_reads_catch_up() {
    let (_cluster, members) = three();
    let written = revision(&members[0].put(put("k", "v")).await.unwrap().header);
    for member in &members {
        let local = pb::RangeRequest {
            serializable: true,
            ..everything()
        };
        let found = eventually(PATIENCE, "the member has it", async || {
            let found = member.range(local.clone()).await.unwrap();
            (revision(&found.header) >= written).then_some(found)
        });
        assert_eq!(values(&found.await), ["v"]);
    }
}
