//! Who says to be somebody else, or of elsewhere.

use crate::attacker::{Line, Target, frame, framed};
use holdfast_proto::peer as pb;
use holdfast_tests::{PATIENCE, cluster::ClusterOptions, eventually, holdfast_only};
use prost::Message;
use std::time::{SystemTime, UNIX_EPOCH};

fn first(hello: pb::Hello) -> pb::MessageBatch {
    pb::MessageBatch {
        hello: Some(hello),
        ..pb::MessageBatch::default()
    }
}

/// The same Hello in every call; each is refused for this reason, counted and, the first time, logged.
async fn refused_in_all(target: &Target, line: &mut Line, hello: &pb::Hello, reason: &str) {
    let before = target.refused(0, reason).await;
    let hello = Some(hello.clone());
    let requests = [
        ("Messages", frame(&first(hello.clone().unwrap()))),
        (
            "InstallSnapshot",
            frame(&pb::SnapshotPiece {
                hello: hello.clone(),
                message: b"message".as_slice().into(),
                ..pb::SnapshotPiece::default()
            }),
        ),
        (
            "KeepAlive",
            frame(&pb::KeepAliveRequest {
                hello: hello.clone(),
                lease_ids: vec![1],
                ..pb::KeepAliveRequest::default()
            }),
        ),
        (
            "TimeToLive",
            frame(&pb::TimeToLiveRequest {
                hello: hello.clone(),
                ..pb::TimeToLiveRequest::default()
            }),
        ),
        (
            "ChangeMembers",
            frame(&pb::ChangeMembersRequest {
                hello: hello.clone(),
                change: 3,
                member: target.ids[1],
                ..pb::ChangeMembersRequest::default()
            }),
        ),
        (
            "Hash",
            frame(&pb::HashRequest {
                hello,
                ..pb::HashRequest::default()
            }),
        ),
    ];
    let calls = requests.len();
    for (method, body) in requests {
        let answer = line.call(method, body).await.unwrap();
        assert_eq!(
            answer.refusal.as_deref(),
            Some(reason),
            "{method}: {answer:?}"
        );
        assert_eq!(answer.code, 9, "{method}: {answer:?}");
    }
    let counted = target.refused(0, reason).await - before;
    assert!(counted >= calls as f64, "{reason}: counted {counted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_speaks_for_the_member_that_it_names() {
    holdfast_only!();
    let mut target = Target::start().await;
    target.cluster.kill(2);
    let (one, two) = (target.member_certificate(1), target.member_certificate(2));
    // Another's id and name; another's id under the own name; the own id under another's name.
    let as_two = target.hello(2, 0);
    let mixed = pb::Hello {
        from_name: "m1".to_owned(),
        ..as_two.clone()
    };
    let mut line = target.line(0, &one).await.unwrap();
    refused_in_all(&target, &mut line, &as_two, "certificate").await;
    refused_in_all(&target, &mut line, &mixed, "certificate").await;
    let mut line = target.line(0, &two).await.unwrap();
    let as_one = target.hello(1, 0);
    refused_in_all(&target, &mut line, &as_one, "certificate").await;
    let nameless = pb::Hello {
        from_name: String::new(),
        ..as_two.clone()
    };
    refused_in_all(&target, &mut line, &nameless, "certificate").await;
    // The names of nobody are no better.
    for name in ["m7", "M2", "m22", "root"] {
        let named = target.cluster.certificates().peer(name);
        let mut line = target.line(0, &named).await.unwrap();
        let hello = pb::Hello {
            from_name: name.to_owned(),
            ..as_two.clone()
        };
        let answer = line.ask("Messages", &first(hello)).await;
        assert_eq!(answer.refusal.as_deref(), Some("certificate"), "{name:?}");
    }
    let log = target.cluster.member(0).log();
    assert!(log.contains("rejected a member on peer endpoint"));
    target.serves("other names").await;
    target.cluster.restart(2);
    target.serves("the return of the right one").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_introduction_that_does_not_fit_is_refused() {
    holdfast_only!();
    let mut target = Target::start().await;
    target.cluster.kill(2);
    let two = target.member_certificate(2);
    let right = target.hello(2, 0);
    let with = |change: &dyn Fn(&mut pb::Hello)| {
        let mut hello = right.clone();
        change(&mut hello);
        hello
    };
    let id = target.ids[0];
    let wrong = [
        ("other_cluster", with(&|h| h.cluster_id ^= 1)),
        ("other_member", with(&|h| h.to_member ^= 1)),
        ("wiped", with(&|h| h.from_instance ^= 1)),
        ("unknown_member", with(&|h| h.from_member ^= 1)),
        ("protocol", with(&|h| h.protocol = 2)),
        ("protocol", with(&|h| h.protocol = 0)),
        ("malformed", with(&|h| h.from_member = 0)),
        ("malformed", with(&|h| h.from_member = id)),
        ("malformed", with(&|h| h.from_instance = 0)),
        ("malformed", with(&|h| h.from_name = "m2\nm2".to_owned())),
        ("malformed", with(&|h| h.from_name = "m".repeat(256))),
        (
            "malformed",
            with(&|h| {
                h.version = Some(pb::Version {
                    level: 1,
                    text: "v".repeat(65),
                });
            }),
        ),
    ];
    let mut line = target.line(0, &two).await.unwrap();
    for (reason, hello) in &wrong {
        refused_in_all(&target, &mut line, hello, reason).await;
    }
    let log = target.cluster.member(0).log();
    assert!(log.contains("rejected a member on peer endpoint"));
    // No Hello, bytes that are none, one that is too long, two, and messages before the answer.
    let long = with(&|h| h.from_name = "m".repeat(8 << 10));
    let eager = pb::MessageBatch {
        messages: vec![b"message".as_slice().into()],
        ..first(right.clone())
    };
    let bodies = [
        ("none", frame(&pb::MessageBatch::default()), 9),
        ("nothing", Vec::new(), 3),
        ("bytes", framed(b"\xff\xff\xff"), 3),
        ("group", framed(b"\x0b\x0c"), 3),
        ("cut off", frame(&first(right.clone()))[..20].to_vec(), 3),
        ("too long", frame(&first(long)), 8),
        ("claimed", vec![0, 0xff, 0xff, 0xff, 0xff], 8),
        (
            "compressed",
            [&[1], &frame(&first(right.clone()))[1..]].concat(),
            3,
        ),
        ("eager", frame(&eager), 9),
    ];
    for (what, body, code) in bodies {
        let mut line = target.line(0, &two).await.unwrap();
        let answer = line.call("Messages", body).await.unwrap();
        assert_eq!(answer.code, code, "{what}: {answer:?}");
    }
    // One connection speaks for one member, even if the second Hello is as good as the first.
    let mut line = target.line(0, &two).await.unwrap();
    let hash = pb::HashRequest {
        hello: Some(right.clone()),
        tenant: 1,
        revision: 0,
    };
    line.ask("Hash", &hash).await.message::<pb::HashResponse>();
    let answer = line.ask("Messages", &first(target.hello(1, 0))).await;
    assert!(answer.refusal.is_some(), "{answer:?}");
    target.serves("bad introductions").await;
    target.cluster.restart(2);
    target.serves("the return of the right one").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_removed_or_belongs_to_another_cluster_is_refused() {
    holdfast_only!();
    let mut target = Target::start().await;
    let other = Target::with(ClusterOptions::new()).await;
    let two = target.member_certificate(2);
    // A member of another cluster, even with a certificate of this one's CA.
    let hello = pb::Hello {
        to_member: target.ids[0],
        ..other.hello(2, 0)
    };
    let mut line = target.line(0, &two).await.unwrap();
    refused_in_all(&target, &mut line, &hello, "other_cluster").await;
    drop(other);
    // An open stream ends with the membership, and no new one begins.
    target.cluster.kill(2);
    let mut stream = target.welcomed(2, 0).await;
    let id = target.ids[2];
    target.cluster.remove(2, id).await;
    let ended = tokio::time::timeout(PATIENCE, stream.end()).await;
    assert!(ended.is_ok(), "the stream of a removed member goes on");
    eventually(PATIENCE, "the removal is applied", async || {
        let mut line = target.line(0, &two).await.ok()?;
        let answer = line.ask("Messages", &first(target.hello(2, 0))).await;
        (answer.refusal.as_deref() == Some("removed")).then_some(())
    })
    .await;
    let mut line = target.line(0, &two).await.unwrap();
    let hello = target.hello(2, 0);
    refused_in_all(&target, &mut line, &hello, "removed").await;
    target.serves("the removal").await;
}

/// The real program on the right data with the key of another member: as the one who dials, and as the one who is dialled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_impostor_is_neither_heard_nor_spoken_with() {
    holdfast_only!();
    let mut target = Target::start().await;
    let right = target.member_certificate(2);
    let folder = target.cluster.member(2).data_dir().parent().unwrap();
    let folder = folder.to_owned();
    target.cluster.kill(2);
    let marks = [0, 1].map(|index| target.cluster.member(index).log().len());
    let wrong = target.member_certificate(1);
    wrong.write(&folder, "peer-m2").unwrap();
    target.cluster.launch(2);
    for (index, mark) in marks.into_iter().enumerate() {
        let log = target.cluster.member(index).log().clone();
        for said in [
            "rejected a member on peer endpoint",
            "this member refuses it",
        ] {
            let wait = move |log: holdfast_tests::Log| log.wait_after(mark, said, PATIENCE);
            let log = log.clone();
            let line = tokio::task::spawn_blocking(move || wait(log))
                .await
                .unwrap();
            let line = line.unwrap_or_else(|| panic!("m{index} does not say {said:?}"));
            assert!(line.contains("certificate"), "{line}");
        }
        assert!(target.refused(index, "certificate").await >= 2.0);
    }
    target.cluster.kill(2);
    target.serves("an impostor").await;
    right.write(&folder, "peer-m2").unwrap();
    target.cluster.restart(2);
    target.serves("the return of the right one").await;
}

/// A Hello as long as its bound permits is no reason for another outcome than a short one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_nobody_knows_are_passed_over() {
    holdfast_only!();
    let mut target = Target::start().await;
    target.cluster.kill(2);
    let two = target.member_certificate(2);
    let mut bytes = first(target.hello(2, 0)).encode_to_vec();
    // Field 1000, three bytes.
    bytes.extend([0xc2, 0x3e, 3, 1, 2, 3]);
    let mut line = target.line(0, &two).await.unwrap();
    let mut talk = line.begin("Messages").await.unwrap();
    talk.say(framed(&bytes)).await.unwrap();
    assert!(talk.hear().await.unwrap().is_some());
    target.serves("an unknown field").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_shows_from_its_start_when_its_certificates_end() {
    holdfast_only!();
    let target = Target::start().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    for certificate in ["server", "client", "ca"] {
        let series =
            format!("holdfast_peer_certificate_not_after_seconds{{certificate=\"{certificate}\"}}");
        let ends = target.sample(0, &series).await;
        assert!(ends > now.as_secs_f64(), "{certificate}: {ends}");
    }
}
