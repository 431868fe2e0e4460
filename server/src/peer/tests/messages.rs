use super::*;
use crate::peer::bounds::QUEUE_BYTES_MAX;
use crate::peer::frames::{Frames, frame, frame_batch, whole};
use holdfast_proto::peer as pb;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use tokio_stream::wrappers::UnboundedReceiverStream;

fn exchange(security: [Security; 2]) {
    let nodes = pair(security);
    let [one, two] = &nodes;
    let text = |number: usize| Bytes::from(format!("message {number}"));
    let mut next = 0;
    for size in [1, 2, 300, 1_000] {
        let batch = || (next..next + size).map(text);
        one.net.send(batch().map(|message| (2, message)));
        two.net.send(batch().map(|message| (1, message)));
        assert!(two.received(1, size).into_iter().eq(batch()));
        assert!(one.received(2, size).into_iter().eq(batch()));
        next += size;
    }
    assert_eq!(one.net.connected(), [2]);
    let (received, broken) = two.metrics.from(1);
    let sent = one.metrics.to(2);
    // The prefix of a frame is sent, too.
    assert!(received.get() > 10_000 && sent.sent_bytes.get() > received.get());
    assert_eq!(
        (broken.get(), sent.failures.get(), sent.active.get()),
        (0, 0, 1)
    );
    // The first batch carried a probe; its way back may take until now.
    let deadline = Instant::now() + SOON;
    while sent.round_trip.get_sample_count() == 0 {
        assert!(Instant::now() < deadline, "no round trip was measured");
        std::thread::yield_now();
    }
}

#[test]
fn messages_arrive_in_order() {
    exchange([plain(), plain()]);
}

#[test]
fn messages_arrive_in_order_over_tls() {
    let dir = tempfile::tempdir().expect("directory");
    let peers = TestPeers::new(dir.path(), &["one", "two"]).expect("certificates");
    exchange([strict(&peers, "one"), strict(&peers, "two")]);
}

#[test]
fn large_messages_arrive_whole() {
    let [one, two] = pair([plain(), plain()]);
    // Below, at and above a batch, a frame of HTTP/2 and a window.
    for length in [1, 25 << 10, 1 << 20, (2 << 20) + 1, 9 << 20] {
        let message: Bytes = (0..length).map(|index| (index % 251) as u8).collect();
        one.net.send([(2, message.clone())]);
        assert!(two.received(1, 1) == [message], "{length}");
    }
}

#[test]
fn a_broken_stream_is_told_and_dialled_again() {
    let [one, two] = pair([plain(), plain()]);
    let address = two.address;
    drop(two);
    one.wait_for(&Told::Lost(2));
    assert!(one.net.connected().is_empty());
    // Its port is closed, so it has ended.
    one.wait_for(&Told::Gone(2));
    let two = Node::at(address, me(2), plain());
    one.wait_for(&Told::Connected(2));
    one.net.send([(2, Bytes::from_static(b"again"))]);
    assert_eq!(two.received(1, 1), [Bytes::from_static(b"again")]);
}

#[test]
fn the_url_that_answers_is_used() {
    let one = Node::new(me(1), plain());
    let two = Node::new(me(2), plain());
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let closed = closed.local_addr().expect("address");
    let urls = [
        "nonsense://x",
        "unix:///nowhere",
        &format!("http://{closed}"),
    ];
    let mut urls: Vec<String> = urls.map(str::to_owned).to_vec();
    urls.push(two.url());
    one.net.set_members(&[PeerAddress { id: 2, urls }]);
    one.wait_for(&Told::Connected(2));
}

#[test]
fn a_peer_that_does_not_read_overflows_and_loses() {
    let nodes = pair([plain(), plain()]);
    let [one, two] = &nodes;
    let gate = two.handler.gate.lock();
    let large = Bytes::from(vec![1; 1 << 20]);
    let count = 2 * QUEUE_BYTES_MAX / large.len();
    one.net.send((0..count).map(|_| (2, large.clone())));
    one.wait_for(&Told::Lost(2));
    let dropped = one.metrics.to(2).dropped.get();
    drop(gate);
    assert!(dropped > 20, "{dropped}");
    // What was taken comes without a gap, and then others do.
    two.received(1, count - usize::try_from(dropped).expect("few"));
    one.net.send([(2, Bytes::from_static(b"later"))]);
    let later = |told| match told {
        Told::Received(1, messages) => messages
            .contains(&Bytes::from_static(b"later"))
            .then_some(()),
        _ => None,
    };
    two.wait("the message after", later);
}

#[test]
fn a_member_that_is_removed_is_let_go() {
    let [one, two] = pair([plain(), plain()]);
    one.net.send([(2, Bytes::from_static(b"before"))]);
    two.received(1, 1);
    *one.handler.check.lock() = Box::new(|_| Err(Refusal::Removed));
    one.net.set_members(&[]);
    assert!(one.net.connected().is_empty());
    // What it has dialled is cut, and it is told why when it comes back.
    two.wait_for(&Told::Lost(1));
    two.wait_for(&Told::Refused(1, Refusal::Removed));
    one.net.send([(2, Bytes::from_static(b"after"))]);
    // It may come back, and then hears only what is sent from then on.
    *one.handler.check.lock() = Box::new(|_| Ok(Known::default()));
    two.wait_for(&Told::Connected(1));
    one.net.set_members(&[two.peer()]);
    one.wait_for(&Told::Connected(2));
    one.net.send([(2, Bytes::from_static(b"anew"))]);
    assert_eq!(two.received(1, 1), [Bytes::from_static(b"anew")]);
}

type Sender = tokio::sync::mpsc::UnboundedSender<Bytes>;

/// A stream as a member of the test opens it by hand; the body lives as long as the sender.
async fn open(
    connection: &mut Connection,
    hello: pb::Hello,
) -> Result<(Sender, Frames<Incoming>), CallError> {
    let (sender, waiting) = tokio::sync::mpsc::unbounded_channel();
    let first = pb::MessageBatch {
        hello: Some(hello),
        ..pb::MessageBatch::default()
    };
    let _ = sender.send(frame(&first));
    let body = UnboundedReceiverStream::new(waiting);
    let body = tokio_stream::StreamExt::map(body, |bytes| Ok(Frame::data(bytes)));
    let body = BodyExt::boxed_unsync(StreamBody::new(body));
    let mut answers = connection.requests.begin("Messages", body, 1 << 20).await?;
    let welcome = answers.next().await?.expect("a welcome");
    let welcome: pb::Ack = prost::Message::decode(welcome).expect("an ack");
    assert_eq!(welcome.welcome.expect("a hello").from_member, 1);
    Ok((sender, answers))
}

#[test]
fn a_newer_stream_takes_the_place_of_the_older() {
    let one = Node::new(me(1), plain());
    client(async {
        let mut first = connect(&one).await;
        let (old, mut old_answers) = open(&mut first, me(2).hello(1)).await.expect("welcome");
        let _ = old.send(frame_batch(&[Bytes::from_static(b"old")], 0));
        assert_eq!(one.received(2, 1), [Bytes::from_static(b"old")]);
        let mut second = connect(&one).await;
        let (new, _new_answers) = open(&mut second, me(2).hello(1)).await.expect("welcome");
        assert!(old_answers.next().await.expect("the end").is_none());
        assert_eq!(old_answers.status().code(), tonic::Code::Aborted);
        let _ = new.send(frame_batch(&[Bytes::from_static(b"new")], 0));
        assert_eq!(one.received(2, 1), [Bytes::from_static(b"new")]);
    });
}

/// Whatever comes after a good beginning ends that stream, and nothing else.
#[test]
fn nonsense_ends_a_stream_and_nothing_else() {
    let one = Node::new(me(1), plain());
    let twice = pb::MessageBatch {
        hello: Some(me(2).hello(1)),
        ..pb::MessageBatch::default()
    };
    let nonsense = [
        Bytes::from_static(&[0, 0, 0, 0, 2, 0xff, 0xff]),
        // An empty message, a compressed one, and one that claims 16 MiB and a byte.
        Bytes::from_static(&[0, 0, 0, 0, 2, 0x12, 0]),
        Bytes::from_static(&[1, 0, 0, 0, 0]),
        Bytes::from_static(&[0, 1, 0, 0, 1]),
        // A message that claims more than the batch has.
        Bytes::from_static(&[0, 0, 0, 0, 3, 0x12, 0x7f, 1]),
        frame_batch(&vec![Bytes::from_static(b"x"); 4_097], 0),
        frame(&twice),
    ];
    client(async {
        for bytes in nonsense {
            let mut connection = connect(&one).await;
            let (sender, mut answers) = open(&mut connection, me(2).hello(1))
                .await
                .expect("welcome");
            let _ = sender.send(bytes.clone());
            assert!(matches!(answers.next().await, Ok(None)), "{bytes:?}");
            assert_ne!(answers.status().code(), tonic::Code::Ok, "{bytes:?}");
            // The connection is still good.
            let (sender, _answers) = open(&mut connection, me(2).hello(1))
                .await
                .expect("welcome");
            let _ = sender.send(frame_batch(std::slice::from_ref(&bytes), 0));
            assert_eq!(one.received(2, 1), [bytes]);
        }
    });
}

#[test]
fn nonsense_instead_of_a_beginning_is_refused() {
    let one = Node::new(me(1), plain());
    client(async {
        let mut connection = connect(&one).await;
        for method in [
            "Messages",
            "InstallSnapshot",
            "KeepAlive",
            "Describe",
            "Nothing",
        ] {
            for garbage in [
                &b""[..],
                &[0],
                &[0, 0, 0, 0, 1, 0xff],
                &[9; 100],
                &[0, 255, 255, 255, 255],
            ] {
                let body = http_body_util::Full::new(Bytes::copy_from_slice(garbage));
                let body = body.map_err(|never| match never {}).boxed_unsync();
                let refused = connection.requests.begin(method, body, 1 << 20).await;
                assert!(refused.is_err(), "{method} {garbage:?}");
            }
        }
        let described: Result<pb::DescribeResponse, _> = connection
            .requests
            .call("Describe", &pb::DescribeRequest { protocol: 1 }, |_| Ok(()))
            .await;
        assert_eq!(described.expect("an answer").cluster_id, 7);
        let messages = pb::MessageBatch {
            hello: Some(me(2).hello(1)),
            messages: vec![Bytes::from_static(b"early")],
            probe: 0,
        };
        let early = connection
            .requests
            .begin("Messages", whole(&messages), 1 << 20);
        assert!(matches!(
            early.await.err(),
            Some(CallError::Refused(Refusal::Malformed))
        ));
    });
}
