//! What a stolen key of a member can do by calls: changes of the membership that are none, lists without end.

use crate::attacker::{Line, Target, frame};
use crate::messages::{command, varint};
use holdfast_proto::peer as pb;
use holdfast_tests::holdfast_only;

/// The member whose key was stolen.
const STOLEN: usize = 2;
const INVALID: u32 = 3;

async fn line(target: &Target, to: usize) -> Line {
    let certificate = target.member_certificate(STOLEN);
    target.line(to, &certificate).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_members_is_what_it_says() {
    holdfast_only!();
    let mut target = Target::start().await;
    target.cluster.kill(STOLEN);
    let leader = target.cluster.leader().await;
    let (own, other) = (target.ids[leader], target.ids[1 - leader]);
    let term = target.raw(leader).status().await.unwrap().raft_term;
    let url = [&[1, 21][..], b"http://127.0.0.1:1234"].concat();
    let remove = |id: u64| command(14, &varint(id));
    let update = |id: u64| command(15, &[varint(id), url.clone()].concat());
    let add = |id: u64| command(12, &[&varint(id)[..], &url, &[0, 1]].concat());
    let promote = |id: u64| command(13, &varint(id));
    // Id, name, no URLs, instance, level, version.
    let publish = |id: u64| command(16, &[&varint(id)[..], &[1, b'x', 0, 1, 1, 0]].concat());
    let put = command(1, b"body");
    let (voter, learner, removal) = (1, 2, 3);
    let changes = [
        ("garbage", removal, other, b"garbage".to_vec()),
        ("nothing", removal, other, Vec::new()),
        ("cut off", removal, other, remove(other)[..9].to_vec()),
        ("two", removal, other, remove(other).repeat(2)),
        ("a put", removal, other, put),
        ("an update", removal, other, update(other)),
        ("an update of the leader", removal, own, update(own)),
        ("a publication", voter, other, publish(other)),
        ("an addition as a removal", removal, other, add(77)),
        ("an addition as a learner's", learner, 77, add(77)),
        ("an addition of another", voter, 78, add(77)),
        ("a removal as an addition", voter, other, remove(other)),
        ("a removal of another", removal, own, remove(other)),
        ("a promotion as a removal", removal, other, promote(other)),
        ("no change", 0, other, remove(other)),
        ("an unknown change", 99, other, remove(other)),
        ("nobody", removal, 0, remove(0)),
    ];
    for (what, change, member, command) in changes {
        let request = pb::ChangeMembersRequest {
            hello: Some(target.hello(STOLEN, leader)),
            change,
            member,
            command: command.into(),
        };
        let answer = line(&target, leader)
            .await
            .ask("ChangeMembers", &request)
            .await;
        assert_eq!(answer.code, INVALID, "{what}: {answer:?}");
        target.serves(what).await;
        let listed = target.raw(leader).member_list().await.unwrap();
        assert_eq!(listed.len(), 3, "{what}");
        let status = target.raw(leader).status().await.unwrap();
        assert_eq!((status.leader, status.raft_term), (own, term), "{what}");
    }
    // What says the same as its command and is not possible is refused as a client's would be.
    for (change, member, command) in [(removal, 77, remove(77)), (voter, other, promote(other))] {
        let request = pb::ChangeMembersRequest {
            hello: Some(target.hello(STOLEN, leader)),
            change,
            member,
            command: command.into(),
        };
        let answer = line(&target, leader)
            .await
            .ask("ChangeMembers", &request)
            .await;
        assert_ne!(answer.code, 0, "{answer:?}");
    }
    target.cluster.kill(1 - leader);
    target.cluster.restart_all(&[1 - leader, STOLEN]);
    target.serves("a restart").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_bounded() {
    holdfast_only!();
    let mut target = Target::start().await;
    target.cluster.kill(STOLEN);
    let leader = target.cluster.leader().await;
    let hello = Some(target.hello(STOLEN, leader));
    let keep_alive = |tenant: u32, caller: &'static [u8], lease_ids: Vec<i64>| {
        let request = pb::KeepAliveRequest {
            hello: hello.clone(),
            tenant,
            caller: caller.into(),
            lease_ids,
        };
        ("KeepAlive", frame(&request))
    };
    let time_to_live = pb::TimeToLiveRequest {
        hello: hello.clone(),
        tenant: 99,
        ..pb::TimeToLiveRequest::default()
    };
    let hash = |tenant: u32, revision: i64| {
        let request = pb::HashRequest {
            hello: hello.clone(),
            tenant,
            revision,
        };
        ("Hash", frame(&request))
    };
    let change = pb::ChangeMembersRequest {
        hello: hello.clone(),
        change: 3,
        member: target.ids[1],
        command: vec![0; (1 << 20) + 1].into(),
    };
    let calls = [
        (keep_alive(1, b"", Vec::new()), &[3][..]),
        (keep_alive(1, b"", vec![1; 1_025]), &[3]),
        (keep_alive(1, b"", vec![i64::MIN; 1 << 17]), &[3, 8]),
        (keep_alive(1, b"", vec![i64::MIN; 1 << 20]), &[8]),
        (keep_alive(1, b"\xff\xff\xff", vec![1]), &[3]),
        (keep_alive(99, b"", vec![1]), &[5]),
        (("TimeToLive", frame(&time_to_live)), &[5]),
        (hash(1, -1), &[3]),
        (hash(99, 0), &[5]),
        (hash(1, i64::MAX), &[9, 11]),
        (("ChangeMembers", frame(&change)), &[3, 8]),
    ];
    for ((method, body), codes) in calls {
        let bytes = body.len();
        let answer = line(&target, leader)
            .await
            .call(method, body)
            .await
            .unwrap();
        assert!(
            codes.contains(&answer.code),
            "{method} of {bytes}: {answer:?}"
        );
    }
    // As many as may wait at once, of which each claims more than it sends.
    let mut line = line(&target, leader).await;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let Ok(mut talk) = line.begin("KeepAlive").await else {
            break;
        };
        let _ = talk.say(vec![0, 0, 15, 0, 0, 1, 2, 3]).await;
        waiting.push(talk);
    }
    target.serves("calls that never come to an end").await;
}
