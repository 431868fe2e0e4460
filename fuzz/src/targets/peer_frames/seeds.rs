//! Streams and requests as a member sends them.

use super::frames::{frame, frame_batch};
use super::hello::{Me, PeerVersion};
use super::me;
use crate::seeds::short;
use holdfast_proto::peer as pb;

pub(crate) fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let other = Me {
        member: 2,
        name: "m2".to_owned(),
        instance: 22,
        version: PeerVersion {
            level: 1,
            text: "3.7.1".to_owned(),
        },
        ..me()
    };
    let hello = Some(other.hello(1));
    let first = pb::MessageBatch {
        hello: hello.clone(),
        ..pb::MessageBatch::default()
    };
    let stranger = pb::MessageBatch {
        hello: Some(pb::Hello {
            cluster_id: 0xc2,
            ..other.hello(1)
        }),
        ..pb::MessageBatch::default()
    };
    let two = [b"one".as_slice().into(), b"two".as_slice().into()];
    let pieces = [
        pb::SnapshotPiece {
            hello: hello.clone(),
            message: b"message".as_slice().into(),
            ..pb::SnapshotPiece::default()
        },
        pb::SnapshotPiece {
            chunk: b"chunk".as_slice().into(),
            ..pb::SnapshotPiece::default()
        },
        pb::SnapshotPiece {
            last: true,
            ..pb::SnapshotPiece::default()
        },
    ];
    let keep_alive = pb::KeepAliveRequest {
        hello: hello.clone(),
        tenant: 1,
        caller: b"caller".as_slice().into(),
        lease_ids: vec![1, -1, i64::MAX],
    };
    let time_to_live = pb::TimeToLiveRequest {
        hello: hello.clone(),
        tenant: 1,
        lease_id: 7,
        ..pb::TimeToLiveRequest::default()
    };
    let change = pb::ChangeMembersRequest {
        hello: hello.clone(),
        change: pb::MembershipChange::Remove.into(),
        member: 3,
        command: b"command".as_slice().into(),
    };
    let hash = pb::HashRequest {
        hello,
        tenant: 1,
        revision: 5,
    };
    let member = pb::Member {
        id: 2,
        name: "m2".to_owned(),
        peer_urls: vec!["https://127.0.0.1:2380".to_owned()],
        client_urls: vec!["https://127.0.0.1:2379".to_owned()],
        is_learner: true,
        instance: 22,
    };
    let description = pb::DescribeResponse {
        protocol: 1,
        cluster_id: 0xc1,
        member_id: 2,
        name: "m2".to_owned(),
        instance: 22,
        version: None,
        strict: true,
        leader_id: 2,
        members: vec![member],
    };
    let seed = |kind: u8, sizes: &[u8], stream: &[u8]| {
        [vec![kind], short(sizes), stream.to_vec()].concat()
    };
    let batches = [frame_batch(&two, 7), frame_batch(&[], 8)].concat();
    let snapshot = pieces.map(|piece| frame(&piece)).concat();
    vec![
        ("hello", seed(0, &[3], &frame(&first))),
        ("stranger", seed(0, &[], &frame(&stranger))),
        ("batches", seed(2, &[1, 9], &batches)),
        ("pieces", seed(1, &[40], &snapshot)),
        ("keep_alive", seed(3, &[], &frame(&keep_alive))),
        ("time_to_live", seed(4, &[], &frame(&time_to_live))),
        ("change", seed(5, &[], &frame(&change))),
        ("hash", seed(6, &[], &frame(&hash))),
        ("description", seed(8, &[], &frame(&description))),
    ]
}
