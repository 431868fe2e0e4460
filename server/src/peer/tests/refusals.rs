use super::*;
use crate::peer::bounds::HELLO_DEADLINE;
use crate::peer::dial::SERVICE;
use holdfast_certs::testing::TestLeaf;
use holdfast_proto::peer as pb;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Member 2 wants to speak to member 1, which refuses.
fn refused(
    two: Me,
    at_one: impl Fn(&Hello) -> Result<Known, Refusal> + Send + Sync + 'static,
    expected: Refusal,
) {
    let one = Node::new(me(1), plain());
    *one.handler.check.lock() = Box::new(at_one);
    let two = Node::new(two, plain());
    two.net.set_members(&[one.peer()]);
    two.wait_for(&Told::Refused(1, expected));
    assert!(one.metrics.refusals(expected.label()) > 0);
    // Retries go on, but nobody is told again of what has not changed.
    let deadline = Instant::now() + SOON;
    while one.metrics.refusals(expected.label()) < 3 {
        assert!(Instant::now() < deadline, "no retries");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(two.told.try_recv().is_err());
    assert!(two.net.connected().is_empty());
}

fn anybody(_: &Hello) -> Result<Known, Refusal> {
    Ok(Known::default())
}

#[test]
fn another_cluster() {
    let two = Me {
        cluster: 8,
        ..me(2)
    };
    refused(two, anybody, Refusal::OtherCluster);
}

#[test]
fn another_data_directory() {
    let two = Me {
        instance: 999,
        ..me(2)
    };
    let check = |hello: &Hello| match hello.instance {
        102 => Ok(Known::default()),
        _ => Err(Refusal::Wiped),
    };
    refused(two, check, Refusal::Wiped);
}

#[test]
fn a_member_that_was_removed() {
    refused(me(2), |_| Err(Refusal::Removed), Refusal::Removed);
}

#[test]
fn a_member_that_nobody_knows() {
    refused(
        me(2),
        |_| Err(Refusal::UnknownMember),
        Refusal::UnknownMember,
    );
}

#[test]
fn another_member_at_the_address() {
    let one = Node::new(me(1), plain());
    let two = Node::new(me(2), plain());
    let urls = vec![one.url()];
    two.net.set_members(&[PeerAddress { id: 3, urls }]);
    two.wait_for(&Told::Refused(3, Refusal::OtherMember));
}

#[test]
fn the_one_who_dials_judges_as_well() {
    let one = Node::new(me(1), plain());
    let two = Node::new(me(2), plain());
    *two.handler.check.lock() = Box::new(|_| Err(Refusal::Wiped));
    two.net.set_members(&[one.peer()]);
    let deadline = Instant::now() + SOON;
    while two.metrics.refusals("wiped") == 0 {
        assert!(Instant::now() < deadline, "never judged");
        std::thread::sleep(Duration::from_millis(10));
    }
    two.net.send([(1, Bytes::from_static(b"not for you"))]);
    assert!(two.net.connected().is_empty());
    assert!(one.told.try_recv().is_err() && two.told.try_recv().is_err());
}

#[test]
fn another_protocol_in_every_call() {
    let one = Node::new(me(1), plain());
    let hello = Some(pb::Hello {
        protocol: 2,
        ..me(2).hello(1)
    });
    client(async {
        let mut connection = connect(&one).await;
        macro_rules! refused {
            ($method:literal, $request:ident, $answer:ty) => {
                let request = pb::$request {
                    hello: hello.clone(),
                    ..pb::$request::default()
                };
                let answer: Result<$answer, _> = connection.requests.call($method, &request, |_| Ok(())).await;
                let refusal = Refusal::Protocol;
                assert!(matches!(answer.err(), Some(CallError::Refused(why)) if why == refusal), $method);
            };
        }
        refused!("Messages", MessageBatch, pb::Ack);
        refused!("InstallSnapshot", SnapshotPiece, pb::SnapshotResult);
        refused!("KeepAlive", KeepAliveRequest, pb::KeepAliveResponse);
        refused!("TimeToLive", TimeToLiveRequest, pb::TimeToLiveResponse);
        refused!(
            "ChangeMembers",
            ChangeMembersRequest,
            pb::ChangeMembersResponse
        );
        refused!("Hash", HashRequest, pb::HashResponse);
        let request = pb::DescribeRequest { protocol: 2 };
        let answer: Result<pb::DescribeResponse, _> = connection
            .requests
            .call("Describe", &request, |_| Ok(()))
            .await;
        assert!(matches!(
            answer.err(),
            Some(CallError::Refused(Refusal::Protocol))
        ));
    });
}

/// The calls above are all that there are.
#[test]
fn every_call_of_the_protocol_is_served() {
    let set = prost_types::FileDescriptorSet::decode(holdfast_proto::PEER_FILE_DESCRIPTOR_SET);
    let set = set.expect("descriptors");
    let service = &set.file[0].service[0];
    assert_eq!(
        format!("/{}.{}/", set.file[0].package(), service.name()),
        SERVICE
    );
    let one = Node::new(me(1), plain());
    client(async {
        for method in &service.method {
            let method: &'static str = method.name().to_owned().leak();
            let mut connection = connect(&one).await;
            let answer: Result<pb::Ack, _> = connection
                .requests
                .call(method, &pb::Ack::default(), |_| Ok(()))
                .await;
            let unknown = matches!(&answer, Err(CallError::Answered(status)) if status.code() == tonic::Code::Unimplemented);
            assert!(answer.is_err() && !unknown, "{method}: {answer:?}");
        }
    });
}

use prost::Message;

#[test]
fn a_certificate_speaks_for_its_member_alone() {
    let dir = tempfile::tempdir().expect("directory");
    let peers = TestPeers::new(dir.path(), &["one", "two", "three"]).expect("certificates");
    let one = Node::new(me(1), strict(&peers, "one"));
    // The certificate of three says that it is two.
    let three = Node::new(me(2), strict(&peers, "three"));
    three.net.set_members(&[one.peer()]);
    three.wait_for(&Told::Refused(1, Refusal::Certificate));
    assert!(one.metrics.refusals("certificate") > 0);
    // Neither is it spoken to.
    one.net.set_members(&[three.peer()]);
    let deadline = Instant::now() + SOON;
    let refused = one.metrics.refusals("certificate");
    while one.metrics.refusals("certificate") < refused + 10 {
        assert!(Instant::now() < deadline, "never dialled");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(one.net.connected().is_empty());
}

#[test]
fn strangers_do_not_come_in() {
    let dir = tempfile::tempdir().expect("directory");
    let peers = TestPeers::new(dir.path(), &["one", "two"]).expect("certificates");
    let leaf = TestLeaf::client("two");
    peers.add("user", &leaf).expect("a client's certificate");
    let one = Node::new(me(1), strict(&peers, "one"));
    let ask = |security: &Security| describe(&[one.url()], security, SOON);
    assert_eq!(ask(&strict(&peers, "two")).expect("an answer").cluster, 7);
    // No TLS, a certificate of a client, and a CA that is not the cluster's.
    assert!(ask(&plain()).is_err());
    let dir = tempfile::tempdir().expect("directory");
    let others = TestPeers::new(dir.path(), &["two"]).expect("certificates");
    assert!(ask(&strict(&others, "two")).is_err());
    let mut settings = peers.settings("two");
    settings.cert_file = settings.cert_file.with_file_name("peer-user.crt");
    settings.key_file = settings.key_file.with_file_name("peer-user.key");
    if let Ok(tls) = PeerTls::load(settings) {
        let security = Security {
            tls: Some(Arc::new(tls)),
            plaintext: false,
        };
        assert!(ask(&security).is_err());
        assert!(one.metrics.refusals("handshake") >= 2);
    }
    // Plaintext is not dialled either.
    let url = format!("http://{}", one.address);
    let refused = describe(&[url], &strict(&peers, "two"), SOON);
    assert!(matches!(refused, Err(CallError::Unreachable(why)) if why.contains("plaintext")));
}

#[test]
fn garbage_and_silence_are_cut_off() {
    let one = Node::new(me(1), plain());
    let begun = Instant::now();
    let mut silent = TcpStream::connect(one.address).expect("a connection");
    for garbage in [
        &b"GET /version HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        &[22, 3, 1, 0, 0],
    ] {
        let mut stream = TcpStream::connect(one.address).expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("a deadline");
        // It may be cut before all is written.
        let _ = stream.write_all(garbage);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    silent.set_read_timeout(Some(SOON)).expect("a deadline");
    let _ = silent.read_to_end(&mut Vec::new()).expect("the end");
    assert!(begun.elapsed() >= HELLO_DEADLINE);
    assert!(one.metrics.refusals("timeout") >= 1);
    // Others are served.
    assert!(describe(&[one.url()], &plain(), SOON).is_ok());
}
