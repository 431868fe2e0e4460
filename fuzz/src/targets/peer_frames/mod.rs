//! The peer port's gRPC as the server reads it: who introduces itself, batches of messages, requests, and what a new member is told of
//! the cluster. Input: what the stream is of (one byte), sizes of the pieces in which it arrives (u8 length), and the stream.
//!
//! * However the stream is cut, the same messages come out, none longer than permitted, and a claimed length costs nothing.
//! * What is taken is within its bounds: messages in a batch, pieces, leases, commands, names, addresses.
//! * A Hello that is taken is to this member, from another one of this cluster, and has a name that breaks no line.
//! * A batch is written as it was read.

#[expect(dead_code, reason = "bounds of more than what is here")]
#[path = "../../../../server/src/peer/bounds.rs"]
mod bounds;
#[path = "../../../../server/src/peer/frames.rs"]
#[expect(dead_code, reason = "the server writes, too")]
mod frames;
#[path = "../../../../server/src/peer/handler.rs"]
#[expect(dead_code, reason = "what the server does with what it has read")]
mod handler;
#[path = "../../../../server/src/peer/hello.rs"]
mod hello;
pub(crate) mod seeds;

use crate::input::Input;
use bounds::{
    BATCH_MESSAGES_MAX, COMMAND_BYTES_MAX, FRAME_BYTES_MAX, HELLO_BYTES_MAX, LEASES_MAX,
    MEMBERS_MAX, NAME_BYTES_MAX, REQUEST_BYTES_MAX, SNAPSHOT_MESSAGE_BYTES_MAX, URL_BYTES_MAX,
    URLS_MAX, VERSION_BYTES_MAX,
};
use bytes::Bytes;
use frames::{FrameError, Frames};
use futures::FutureExt;
use handler::{ChangeMembers, Description, HashAt, KeepAlive, TimeToLive, snapshot_message};
use hello::{Me, PeerVersion, Refusal};
use holdfast_proto::peer as pb;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message;
use std::io;

/// The member that reads.
fn me() -> Me {
    Me {
        cluster: 0xc1,
        member: 1,
        name: "m1".to_owned(),
        instance: 11,
        version: PeerVersion::default(),
    }
}

pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let kind = input.u8() % 9;
    let most = match kind {
        0 => HELLO_BYTES_MAX,
        1 => SNAPSHOT_MESSAGE_BYTES_MAX + HELLO_BYTES_MAX,
        2 => FRAME_BYTES_MAX,
        _ => REQUEST_BYTES_MAX,
    };
    let sizes = input.short();
    let stream = input.rest();
    let (whole, end) = read(&[], stream, most);
    let (pieces, same_end) = read(sizes, stream, most);
    assert_eq!(whole, pieces, "cut otherwise, read otherwise");
    assert_eq!(end, same_end);
    let bytes: usize = whole.iter().map(|message| message.len() + 5).sum();
    assert!(bytes <= stream.len() && whole.iter().all(|message| message.len() <= most));
    let mut taken = false;
    for (place, message) in whole.into_iter().enumerate() {
        taken |= match kind {
            0 => messages(place, message),
            1 => snapshot(place, message),
            2 => batch(message),
            _ => request(kind, message),
        };
    }
    taken
}

/// The messages in a stream, and how it ended.
fn read(sizes: &[u8], mut stream: &[u8], most: usize) -> (Vec<Bytes>, Option<String>) {
    let mut pieces: Vec<Result<Frame<Bytes>, io::Error>> = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while !stream.is_empty() {
        let size = sizes
            .next()
            .map_or(stream.len(), |size| usize::from(*size).min(stream.len()));
        // A size of 0 is an empty piece; a stream of those only would never end.
        let (piece, rest) = match stream.split_at(size) {
            ([], _) if pieces.len() > 4_096 => (stream, &[][..]),
            parts => parts,
        };
        stream = rest;
        pieces.push(Ok(Frame::data(Bytes::copy_from_slice(piece))));
    }
    let mut frames = Frames::new(StreamBody::new(futures::stream::iter(pieces)), most);
    let mut messages = Vec::new();
    loop {
        let next = frames.next().now_or_never();
        match next.expect("all of the stream is there") {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, None),
            Err(error) => {
                let status = error.status();
                assert!(!matches!(error, FrameError::Broken(_)), "{status:?}");
                return (messages, Some(error.to_string()));
            }
        }
    }
}

/// The beginning of a stream of messages.
fn messages(place: usize, bytes: Bytes) -> bool {
    match frames::batch(bytes) {
        Ok(batch) if place == 0 => introduced(batch.hello),
        Ok(batch) => batch.hello.is_none(),
        Err(_) => false,
    }
}

fn batch(bytes: Bytes) -> bool {
    let Ok(batch) = frames::batch(bytes.clone()) else {
        return false;
    };
    assert!(batch.messages.len() <= BATCH_MESSAGES_MAX);
    assert!(!batch.messages.iter().any(Bytes::is_empty));
    let read: usize = batch.messages.iter().map(Bytes::len).sum();
    assert!(read <= bytes.len());
    if batch.hello.is_none() {
        let framed = frames::frame_batch(&batch.messages, batch.probe);
        assert_eq!(framed, frames::frame(&batch));
        let again = frames::batch(framed.slice(5..)).expect("what was read is written");
        assert_eq!(again, batch);
    }
    true
}

fn introduced(hello: Option<pb::Hello>) -> bool {
    let me = me();
    match me.read(hello) {
        Ok(hello) => {
            assert_eq!((hello.cluster, hello.to), (me.cluster, me.member));
            assert!(hello.from != me.member && hello.from != 0 && hello.instance != 0);
            assert!(hello.name.len() <= NAME_BYTES_MAX);
            assert!(hello.version.text.len() <= VERSION_BYTES_MAX);
            let texts = [hello.name, hello.version.text].concat();
            assert!(!texts.contains(char::is_control));
            true
        }
        Err((refusal, detail)) => {
            let status = refusal.status(&detail);
            assert_eq!(Refusal::of(&status), Some(refusal));
            assert!(!detail.contains(char::is_control) && detail.len() < 100);
            false
        }
    }
}

fn snapshot(place: usize, bytes: Bytes) -> bool {
    let Ok(piece) = pb::SnapshotPiece::decode(bytes) else {
        return false;
    };
    if place > 0 {
        return piece.hello.is_none() && piece.message.is_empty();
    }
    if snapshot_message(&piece.message).is_ok() {
        assert!((1..=SNAPSHOT_MESSAGE_BYTES_MAX).contains(&piece.message.len()));
    }
    introduced(piece.hello)
}

fn request(kind: u8, bytes: Bytes) -> bool {
    match kind {
        3 => pb::KeepAliveRequest::decode(bytes).is_ok_and(|wire| {
            KeepAlive::from_wire(wire).is_ok_and(|request| {
                assert!((1..=LEASES_MAX).contains(&request.leases.len()));
                assert!(request.caller.len() <= COMMAND_BYTES_MAX);
                true
            })
        }),
        4 => pb::TimeToLiveRequest::decode(bytes)
            .is_ok_and(|wire| TimeToLive::from_wire(wire).is_ok()),
        5 => pb::ChangeMembersRequest::decode(bytes).is_ok_and(|wire| {
            let given = wire.change;
            ChangeMembers::from_wire(wire).is_ok_and(|request| {
                assert!(request.member != 0 && request.command.len() <= COMMAND_BYTES_MAX);
                assert_eq!(request.wire_change(), given);
                true
            })
        }),
        6 => pb::HashRequest::decode(bytes).is_ok_and(|wire| HashAt::from_wire(&wire).is_ok()),
        7 => pb::MessageBatch::decode(bytes).is_ok_and(|batch| introduced(batch.hello)),
        _ => pb::DescribeResponse::decode(bytes).is_ok_and(description),
    }
}

fn description(wire: pb::DescribeResponse) -> bool {
    let Ok(description) = Description::from_wire(wire) else {
        return false;
    };
    assert!(description.members.len() <= MEMBERS_MAX);
    for member in &description.members {
        assert!(member.id != 0 && member.name.len() <= NAME_BYTES_MAX);
        for urls in [&member.peer_urls, &member.client_urls] {
            assert!(urls.len() <= URLS_MAX);
            let is_url =
                |url: &String| url.len() <= URL_BYTES_MAX && !url.contains(char::is_control);
            assert!(urls.iter().all(is_url));
        }
    }
    let again = Description::from_wire(description.to_wire());
    assert_eq!(again.as_ref().ok(), Some(&description), "told on otherwise");
    true
}
