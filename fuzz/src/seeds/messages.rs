//! What clients send.

use super::short;
use holdfast_proto::authpb;
use holdfast_proto::etcdserverpb as pb;
use prost::Message;

fn message(kind: u8, message: &impl Message) -> Vec<u8> {
    [vec![kind], message.encode_to_vec()].concat()
}

pub(super) fn grpc() -> Vec<(&'static str, Vec<u8>)> {
    use pb::request_op::Request;
    let range = |key: &'static str, end: &'static str| pb::RangeRequest {
        key: key.into(),
        range_end: end.into(),
        ..pb::RangeRequest::default()
    };
    let put = |key: &'static str| pb::PutRequest {
        key: key.into(),
        value: "v".into(),
        prev_kv: true,
        ..pb::PutRequest::default()
    };
    let delete = |key: &'static str, end: &'static str| pb::DeleteRangeRequest {
        key: key.into(),
        range_end: end.into(),
        prev_kv: true,
    };
    let op = |request| pb::RequestOp {
        request: Some(request),
    };
    let compare = pb::Compare {
        result: 0,
        target: 3,
        key: "a".into(),
        range_end: "b".into(),
        target_union: Some(pb::compare::TargetUnion::Value("v".into())),
    };
    let inner = pb::TxnRequest {
        compare: vec![compare.clone()],
        success: vec![op(Request::RequestPut(put("b")))],
        failure: vec![op(Request::RequestDeleteRange(delete("b", "c")))],
    };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![
            op(Request::RequestRange(range("a", "c"))),
            op(Request::RequestTxn(inner)),
        ],
        failure: vec![op(Request::RequestRange(range("k", "l")))],
    };
    let watch = |key: &'static str, end: &'static str| pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(
            pb::WatchCreateRequest {
                key: key.into(),
                range_end: end.into(),
                filters: vec![0, 1],
                prev_kv: true,
                ..pb::WatchCreateRequest::default()
            },
        )),
    };
    let sorted = pb::RangeRequest {
        limit: 3,
        revision: 7,
        sort_order: 2,
        sort_target: 3,
        max_mod_revision: 9,
        ..range("a", "c")
    };
    let text = str::to_owned;
    let permission = authpb::Permission {
        perm_type: 2,
        key: "p".into(),
        range_end: "q".into(),
    };
    vec![
        ("range", message(0, &range("a", "c"))),
        ("range_sorted", message(0, &sorted)),
        ("range_two_points", message(0, &range("k", "k\0\0"))),
        ("range_open", message(0, &range("z", "\0"))),
        ("range_all", message(0, &range("\0", "\0"))),
        ("put", message(1, &put("b"))),
        ("delete", message(2, &delete("b", "c"))),
        ("delete_open", message(2, &delete("y", "\0"))),
        ("txn", message(3, &txn)),
        ("watch", message(4, &watch("x/", "x0"))),
        ("watch_all", message(4, &watch("", "\0"))),
        (
            "compact",
            message(
                5,
                &pb::CompactionRequest {
                    revision: 9,
                    physical: true,
                },
            ),
        ),
        (
            "lease_grant",
            message(6, &pb::LeaseGrantRequest { ttl: 60, id: 5 }),
        ),
        (
            "grant_permission",
            message(
                14,
                &pb::AuthRoleGrantPermissionRequest {
                    name: text("narrow"),
                    perm: Some(permission),
                },
            ),
        ),
        (
            "user_add",
            message(
                8,
                &pb::AuthUserAddRequest {
                    name: text("new"),
                    ..pb::AuthUserAddRequest::default()
                },
            ),
        ),
        (
            "grant_root",
            message(
                10,
                &pb::AuthUserGrantRoleRequest {
                    user: text("narrow"),
                    role: text("root"),
                },
            ),
        ),
        (
            "own_password",
            message(
                16,
                &pb::AuthUserChangePasswordRequest {
                    name: text("narrow"),
                    ..pb::AuthUserChangePasswordRequest::default()
                },
            ),
        ),
    ]
}

pub(super) fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let mut stream = Vec::new();
    for length in [3_u8, 0, 200, 1] {
        stream.extend([0, 0, 0, 0, length]);
        stream.extend(vec![9; usize::from(length)]);
    }
    let cut = |sizes: &[u8]| [short(sizes), stream.clone()].concat();
    vec![
        ("whole", cut(&[255])),
        ("in_bytes", cut(&[1])),
        ("in_pieces", cut(&[4, 6, 3, 100])),
    ]
}

pub(super) fn headers() -> Vec<(&'static str, Vec<u8>)> {
    let request = |uri: &str, headers: &[(u8, &str)]| {
        let mut out = short(uri.as_bytes());
        for (name, value) in headers {
            out.extend([vec![*name], short(value.as_bytes())].concat());
        }
        out
    };
    vec![
        ("health", request("/health", &[(0, "db.example:2379")])),
        (
            "check",
            request(
                "/readyz/non_learner",
                &[(0, "[::1]:2379"), (1, "https://ui.example")],
            ),
        ),
        (
            "absolute",
            request("http://db.example:80/version", &[(0, "10.0.0.1")]),
        ),
        ("bare_address", request("/metrics", &[(0, "::1")])),
        (
            "rebound",
            request("/version", &[(0, "[db.example].evil.example")]),
        ),
        (
            "two_hosts",
            request("/version", &[(0, "db.example"), (0, "evil.example")]),
        ),
        (
            "token",
            request("/", &[(2, "e30.e30.e30"), (3, "Bearer other"), (4, "3.7")]),
        ),
        (
            "bearer",
            request("/", &[(3, "Bearer e30.e30.e30"), (4, "3.7.1"), (5, "true")]),
        ),
    ]
}
