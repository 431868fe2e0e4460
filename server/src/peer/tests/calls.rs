use super::*;
use crate::peer::hello::PROTOCOL_VERSION;
use holdfast_proto::peer as pb;

#[test]
fn calls_are_answered() {
    let [one, _two] = pair([plain(), plain()]);
    let net = &one.net;
    client(async {
        let request = KeepAlive {
            tenant: 0,
            caller: Bytes::from_static(b"caller"),
            leases: vec![10, 20],
        };
        let ttls = net.keep_alive(2, request.clone(), SOON).await;
        assert_eq!(ttls.expect("an answer"), [11, 21]);
        // The other's own words come through.
        let denied = KeepAlive {
            tenant: 9,
            ..request.clone()
        };
        match net.keep_alive(2, denied, SOON).await {
            Err(CallError::Answered(status)) => {
                assert_eq!(status.code(), tonic::Code::PermissionDenied);
                assert_eq!(status.message(), "etcdserver: permission denied");
            }
            other => panic!("{other:?}"),
        }
        let none = KeepAlive {
            leases: Vec::new(),
            ..request
        };
        assert!(net.keep_alive(2, none, SOON).await.is_err());
        for (lease, expected) in [(5, Some(42)), (6, None)] {
            let request = TimeToLive {
                tenant: 0,
                caller: Bytes::new(),
                lease,
            };
            let times = net.time_to_live(2, request, SOON).await.expect("an answer");
            assert_eq!(times.map(|times| times.remaining_secs), expected);
        }
        let change = ChangeMembers {
            change: MembershipChange::Learner,
            member: 40,
            command: Bytes::from_static(b"ab"),
        };
        assert_eq!(
            net.change_members(2, change, SOON)
                .await
                .expect("an answer"),
            42
        );
        let at = HashAt {
            tenant: 0,
            revision: 17,
        };
        let hashes = net.hash(2, at, SOON).await.expect("an answer");
        assert_eq!((hashes.hash_revision, hashes.applied_index), (17, 9));
    });
}

#[test]
fn a_call_has_a_deadline_and_a_member() {
    let [one, _two] = pair([plain(), plain()]);
    let soon = Duration::from_millis(100);
    let at = |tenant| HashAt {
        tenant,
        revision: 17,
    };
    client(async {
        let silent = one.net.hash(2, at(NO_ANSWER), soon).await;
        assert!(matches!(silent, Err(CallError::Deadline)));
        let nobody = one.net.hash(5, at(0), soon).await;
        assert!(matches!(nobody, Err(CallError::Unreachable(_))));
        // One that cannot be reached.
        let urls = vec!["http://127.0.0.1:1".to_owned()];
        one.net.set_members(&[PeerAddress { id: 3, urls }]);
        let away = one.net.hash(3, at(0), soon).await;
        assert!(matches!(away, Err(CallError::Deadline)));
    });
}

#[test]
fn requests_out_of_bounds_are_refused() {
    let one = Node::new(me(1), plain());
    let hello = Some(me(2).hello(1));
    client(async {
        let mut connection = connect(&one).await;
        macro_rules! refused {
            ($method:literal, $answer:ty, $request:expr) => {
                let answer: Result<$answer, _> = connection
                    .requests
                    .call($method, &$request, |_| Ok(()))
                    .await;
                match answer {
                    Err(CallError::Answered(status)) => {
                        assert_eq!(status.code(), tonic::Code::InvalidArgument, $method)
                    }
                    other => panic!("{}: {other:?}", $method),
                }
            };
        }
        let leases = pb::KeepAliveRequest {
            hello: hello.clone(),
            lease_ids: vec![1; 1_025],
            ..pb::KeepAliveRequest::default()
        };
        refused!("KeepAlive", pb::KeepAliveResponse, leases);
        for (change, member, command) in [
            (0, 1, 0),
            (4, 1, 0),
            (-1, 1, 0),
            (1, 0, 0),
            (1, 1, (1 << 20) + 1),
        ] {
            let request = pb::ChangeMembersRequest {
                hello: hello.clone(),
                change,
                member,
                command: Bytes::from(vec![0; command]),
            };
            refused!("ChangeMembers", pb::ChangeMembersResponse, request);
        }
        let request = pb::HashRequest {
            hello: hello.clone(),
            tenant: 0,
            revision: -1,
        };
        refused!("Hash", pb::HashResponse, request);
    });
}

#[test]
fn a_new_member_asks_who_is_there() {
    let one = Node::new(me(1), plain());
    let closed = "http://127.0.0.1:1".to_owned();
    let description = describe(&[closed.clone(), one.url()], &plain(), SOON).expect("an answer");
    assert_eq!(description, one.handler.describe());
    assert!(describe(&[closed], &plain(), SOON).is_err());
    assert!(describe(&[], &plain(), SOON).is_err());
}

#[test]
fn descriptions_are_bounded() {
    let good = pb::DescribeResponse {
        protocol: PROTOCOL_VERSION,
        cluster_id: 7,
        member_id: 1,
        ..pb::DescribeResponse::default()
    };
    assert!(Description::from_wire(good.clone()).is_ok());
    let member = |id| pb::Member {
        id,
        ..pb::Member::default()
    };
    let bad: [fn(&mut pb::DescribeResponse); 5] = [
        |d| d.protocol = 2,
        |d| d.cluster_id = 0,
        |d| d.member_id = 0,
        |d| d.name = "a\u{7}".to_owned(),
        |d| d.name = "a".repeat(256),
    ];
    for change in bad {
        let mut description = good.clone();
        change(&mut description);
        assert!(
            Description::from_wire(description.clone()).is_err(),
            "{description:?}"
        );
    }
    let with = |members| pb::DescribeResponse {
        members,
        ..good.clone()
    };
    let url = |url: String| pb::Member {
        client_urls: vec![url],
        ..member(1)
    };
    assert!(Description::from_wire(with((1..=64).map(member).collect())).is_ok());
    for members in [
        (1..=65).map(member).collect(),
        vec![member(0)],
        vec![member(1), member(1)],
        vec![url("x".repeat(2_049))],
        vec![url("http://a\nb".to_owned())],
        vec![pb::Member {
            peer_urls: vec!["http://a".to_owned(); 33],
            ..member(1)
        }],
    ] {
        assert!(Description::from_wire(with(members)).is_err());
    }
}
