//! Values that no sane client sends: each is answered, and none ends the process.

mod support;

use holdfast_proto::etcdserverpb as pb;
use support::{Server, range, within};

/// Numbers at both ends of their range, wherever a client may write one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_at_the_ends_of_their_range() {
    use pb::watch_request::RequestUnion;
    const LAST: i64 = 77;
    let mut server = Server::start(&[]);
    let good = server.client().await;
    good.put("k", b"v".to_vec()).await;
    let mut kv = good.kv.clone();
    let mut lease = pb::lease_client::LeaseClient::new(good.channel.clone());
    let mut maintenance = pb::maintenance_client::MaintenanceClient::new(good.channel.clone());
    let mut watch = pb::watch_client::WatchClient::new(good.channel.clone());
    for number in [
        i64::MIN,
        i64::MIN + 1,
        -2,
        -1,
        0,
        1,
        2,
        i64::MAX - 1,
        i64::MAX,
    ] {
        let small = number as i32;
        // Whether each is refused is for other tests to say; here all must be answered.
        for end in [b"".as_slice(), b"\0"] {
            for (count_only, keys_only) in [(false, false), (true, false), (false, true)] {
                let request = pb::RangeRequest {
                    limit: number,
                    revision: number,
                    sort_order: small,
                    sort_target: small,
                    min_mod_revision: number,
                    max_mod_revision: number,
                    min_create_revision: number,
                    max_create_revision: number,
                    count_only,
                    keys_only,
                    ..range(b"k", end)
                };
                let _ = within(kv.range(request.clone())).await;
                let limit = pb::RangeRequest {
                    limit: number,
                    ..range(b"k", end)
                };
                within(kv.range(limit.clone())).await.unwrap();
                for request in [request, limit] {
                    if let Ok(stream) = within(kv.range_stream(request)).await {
                        let mut stream = stream.into_inner();
                        while let Ok(Some(_)) = within(stream.message()).await {}
                    }
                }
            }
        }
        let put = pb::PutRequest {
            key: b"k".to_vec().into(),
            lease: number,
            ..pb::PutRequest::default()
        };
        let _ = within(kv.put(put)).await;
        let txn = pb::TxnRequest {
            compare: vec![pb::Compare {
                key: b"k".to_vec().into(),
                target: small,
                result: small,
                target_union: Some(pb::compare::TargetUnion::ModRevision(number)),
                ..pb::Compare::default()
            }],
            success: vec![pb::RequestOp {
                request: Some(pb::request_op::Request::RequestRange(pb::RangeRequest {
                    revision: number,
                    limit: number,
                    ..range(b"k", b"\0")
                })),
            }],
            ..pb::TxnRequest::default()
        };
        let _ = within(kv.txn(txn)).await;
        for ttl in [number, 0] {
            let grant = pb::LeaseGrantRequest { ttl, id: number };
            let _ = within(lease.lease_grant(grant)).await;
        }
        let alive = futures::stream::iter([pb::LeaseKeepAliveRequest { id: number }]);
        let mut alive = within(lease.lease_keep_alive(alive))
            .await
            .unwrap()
            .into_inner();
        let _ = within(alive.message()).await;
        let time = pb::LeaseTimeToLiveRequest {
            id: number,
            keys: true,
        };
        within(lease.lease_time_to_live(time)).await.unwrap();
        let _ = within(lease.lease_revoke(pb::LeaseRevokeRequest { id: number })).await;
        let hash = pb::HashKvRequest { revision: number };
        let _ = within(maintenance.hash_kv(hash)).await;
        let alarm = pb::AlarmRequest {
            action: small,
            member_id: number as u64,
            alarm: small,
        };
        let _ = within(maintenance.alarm(alarm)).await;
        let disarm = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Deactivate as i32,
            member_id: number as u64,
            alarm: small,
        };
        let _ = within(maintenance.alarm(disarm)).await;
        let requests = [
            RequestUnion::CreateRequest(pb::WatchCreateRequest {
                key: b"k".to_vec().into(),
                start_revision: number,
                watch_id: number,
                filters: vec![small],
                prev_kv: true,
                ..pb::WatchCreateRequest::default()
            }),
            RequestUnion::ProgressRequest(pb::WatchProgressRequest {}),
            RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: number }),
            RequestUnion::CreateRequest(pb::WatchCreateRequest {
                key: b"k".to_vec().into(),
                watch_id: LAST,
                ..pb::WatchCreateRequest::default()
            }),
        ];
        let requests = requests.map(|request| pb::WatchRequest {
            request_union: Some(request),
        });
        let mut answers = within(watch.watch(futures::stream::iter(requests)))
            .await
            .unwrap()
            .into_inner();
        // The stream goes on without requests; the last watch that was asked for is the sign that all are done.
        while let Some(answer) = within(answers.message()).await.unwrap() {
            if answer.watch_id == LAST {
                break;
            }
        }
        good.put("k", b"v".to_vec()).await;
        if !(0..=2).contains(&number) {
            let compact = pb::CompactionRequest {
                revision: number,
                physical: true,
            };
            assert!(within(kv.compact(compact)).await.is_err());
        }
        assert!(server.runs(), "{number} ended it");
    }
    assert_eq!(good.get("k").await.kvs.len(), 1);
}
