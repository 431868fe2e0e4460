//! Every answer in every format, against reviewed files in `tests/golden`.
//!
//! The forms are those of etcdctl 3.7.1 for the same answers. `UPDATE_GOLDEN=1 cargo test` writes the files anew.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot do its part fails the test"
)]

use std::{fmt::Write, fs, path::Path};

use holdfast_ctl::output::{Answer, EndpointAnswer, EndpointHealth, Format, Style, render};
use holdfast_proto::{
    admin::{ListTokenKeysResponse, RotateTokenKeyResponse, TokenKey},
    authpb::Permission,
    etcdserverpb::*,
    mvccpb::{Event, KeyValue},
};

fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader {
        cluster_id: 15118495548433857066,
        member_id: 13668033151171901709,
        revision: 10,
        raft_term: 2,
    })
}

fn pair(key: &'static [u8], value: &'static [u8], lease: i64) -> KeyValue {
    KeyValue {
        key: key.into(),
        create_revision: 9,
        mod_revision: 10,
        version: 2,
        value: value.into(),
        lease,
    }
}

fn named(check: &mut dyn FnMut(&str, Answer<'_>)) {
    let odd = pair(
        b"b<a>&r\"\xff\x01",
        "é\t\u{a0}\n\\".as_bytes(),
        4111120120404231983,
    );
    let range = RangeResponse {
        header: header(),
        kvs: vec![pair(b"foo", b"bar", 0), odd.clone()],
        more: true,
        count: 3,
    };
    let put = PutResponse {
        header: header(),
        prev_kv: Some(pair(b"foo", b"", 0)),
    };
    let delete = DeleteRangeResponse {
        header: header(),
        deleted: 2,
        prev_kvs: vec![pair(b"foo", b"bar", 0)],
    };
    check("get", Answer::Get(&range));
    check(
        "get nothing",
        Answer::Get(&RangeResponse {
            header: header(),
            ..Default::default()
        }),
    );
    check("put", Answer::Put(&put));
    check(
        "put without previous",
        Answer::Put(&PutResponse {
            header: header(),
            prev_kv: None,
        }),
    );
    check("del", Answer::Delete(&delete));

    let inner = Some(ResponseHeader {
        revision: 10,
        ..Default::default()
    });
    let op = |response| ResponseOp {
        response: Some(response),
    };
    let txn = TxnResponse {
        header: header(),
        succeeded: true,
        responses: vec![
            op(response_op::Response::ResponseRange(RangeResponse {
                header: inner,
                ..range
            })),
            op(response_op::Response::ResponsePut(PutResponse {
                header: inner,
                ..put
            })),
            op(response_op::Response::ResponseDeleteRange(
                DeleteRangeResponse {
                    header: inner,
                    ..delete
                },
            )),
        ],
    };
    check("txn", Answer::Txn(&txn));
    check(
        "txn failed",
        Answer::Txn(&TxnResponse {
            header: header(),
            ..Default::default()
        }),
    );

    let event = |r#type, kv: KeyValue, prev_kv| Event {
        r#type,
        kv: Some(kv),
        prev_kv,
    };
    let deleted = KeyValue {
        key: "foo".into(),
        mod_revision: 11,
        ..Default::default()
    };
    let watch = WatchResponse {
        header: header(),
        events: vec![
            event(0, pair(b"foo", b"bar", 0), None),
            event(1, deleted, Some(pair(b"foo", b"bar", 0))),
        ],
        ..Default::default()
    };
    check("watch", Answer::Watch(&watch));
    let compacted = WatchResponse {
        header: header(),
        canceled: true,
        compact_revision: 3,
        ..Default::default()
    };
    check("watch compacted", Answer::Watch(&compacted));

    let id = 0x390da1f7c5a7c711;
    let grant = LeaseGrantResponse {
        header: header(),
        id,
        ttl: 100,
        error: String::new(),
    };
    check("lease grant", Answer::Grant(&grant));
    check(
        "lease revoke",
        Answer::Revoke(id, &LeaseRevokeResponse { header: header() }),
    );
    let renewed = LeaseKeepAliveResponse {
        header: header(),
        id,
        ttl: 100,
    };
    check("lease keep-alive", Answer::KeepAlive(&renewed));
    let alive = LeaseTimeToLiveResponse {
        header: header(),
        id: 0x99,
        ttl: 99,
        granted_ttl: 100,
        keys: vec!["lk".into(), "lk2".into()],
    };
    check(
        "lease timetolive --keys",
        Answer::TimeToLive {
            response: &alive,
            keys: true,
        },
    );
    let bare = LeaseTimeToLiveResponse {
        keys: Vec::new(),
        ..alive
    };
    check(
        "lease timetolive",
        Answer::TimeToLive {
            response: &bare,
            keys: false,
        },
    );
    let gone = LeaseTimeToLiveResponse {
        ttl: -1,
        granted_ttl: 0,
        ..bare
    };
    check(
        "lease timetolive expired",
        Answer::TimeToLive {
            response: &gone,
            keys: false,
        },
    );
    let leases = LeaseLeasesResponse {
        header: header(),
        leases: vec![LeaseStatus { id }, LeaseStatus { id: 1 }],
    };
    check("lease list", Answer::Leases(&leases));
    check(
        "lease list empty",
        Answer::Leases(&LeaseLeasesResponse {
            header: header(),
            leases: Vec::new(),
        }),
    );

    let member = Member {
        id: 13668033151171901709,
        name: "m1".to_owned(),
        peer_ur_ls: vec![
            "http://127.0.0.1:2380".to_owned(),
            "http://[::1]:2380".to_owned(),
        ],
        client_ur_ls: vec!["http://127.0.0.1:2379".to_owned()],
        is_learner: false,
    };
    let unstarted = Member {
        id: 1,
        is_learner: true,
        ..Default::default()
    };
    let members = MemberListResponse {
        header: header(),
        members: vec![member, unstarted],
    };
    check("member list", Answer::Members(&members));

    let alarm = AlarmMember {
        member_id: 13668033151171901709,
        alarm: 1,
    };
    let alarms = AlarmResponse {
        header: header(),
        alarms: vec![alarm],
    };
    check("alarm list", Answer::Alarms(&alarms));
    check(
        "alarm disarm nothing",
        Answer::Alarms(&AlarmResponse::default()),
    );

    let health = [
        EndpointHealth {
            endpoint: "127.0.0.1:2379".to_owned(),
            took: "3.267903ms".to_owned(),
            error: None,
        },
        EndpointHealth {
            endpoint: "b:1".to_owned(),
            took: "1.5s".to_owned(),
            error: Some("Active Alarm(s): NOSPACE ".to_owned()),
        },
    ];
    check("endpoint health", Answer::Health(&health));
    let status = StatusResponse {
        header: header(),
        version: "3.7.1".to_owned(),
        db_size: 20480,
        leader: 13668033151171901709,
        raft_index: 16,
        raft_term: 2,
        raft_applied_index: 15,
        errors: vec![
            "memberID:1 alarm:NOSPACE".to_owned(),
            "etcdserver: no leader".to_owned(),
        ],
        db_size_in_use: 16384,
        is_learner: false,
        storage_version: "3.7.0".to_owned(),
        db_size_quota: 2147483648,
        downgrade_info: Some(DowngradeInfo::default()),
    };
    let each = |endpoint: &str, response| EndpointAnswer {
        endpoint: endpoint.to_owned(),
        response,
    };
    let statuses = [
        each("127.0.0.1:2379", status),
        each("c:1", StatusResponse::default()),
    ];
    check("endpoint status", Answer::Status(&statuses));
    check("endpoint status of none", Answer::Status(&[]));
    let hash = HashKvResponse {
        header: header(),
        hash: 4221722301,
        compact_revision: -1,
        hash_revision: 8,
    };
    let hashes = [EndpointAnswer {
        endpoint: "127.0.0.1:2379".to_owned(),
        response: hash,
    }];
    check("endpoint hashkv", Answer::HashKv(&hashes));
    access(check);
}

/// Answers on users, roles and tokens.
fn access(check: &mut dyn FnMut(&str, Answer<'_>)) {
    check(
        "role add",
        Answer::Changed {
            header: header().as_ref(),
            said: b"Role r created\n",
        },
    );
    for (name, enabled) in [("auth status", true), ("auth status off", false)] {
        let status = AuthStatusResponse {
            header: header(),
            enabled,
            auth_revision: 7,
        };
        check(name, Answer::AuthStatus(&status));
    }
    let names = vec!["a".to_owned(), "b<\"".to_owned()];
    let user = AuthUserGetResponse {
        header: header(),
        roles: names.clone(),
    };
    let name = "u";
    check(
        "user get",
        Answer::User {
            name,
            response: &user,
        },
    );
    let bare = AuthUserGetResponse {
        header: header(),
        roles: Vec::new(),
    };
    check(
        "user get without roles",
        Answer::User {
            name,
            response: &bare,
        },
    );
    let users = AuthUserListResponse {
        header: header(),
        users: names.clone(),
    };
    check("user list", Answer::Users(&users));
    let roles = AuthRoleListResponse {
        header: header(),
        roles: names,
    };
    check("role list", Answer::Roles(&roles));
    check(
        "role list of none",
        Answer::Roles(&AuthRoleListResponse {
            header: header(),
            roles: Vec::new(),
        }),
    );
    let permission = |perm_type, key: &'static [u8], range_end: &'static [u8]| Permission {
        perm_type,
        key: key.into(),
        range_end: range_end.into(),
    };
    let role = AuthRoleGetResponse {
        header: header(),
        perm: vec![
            permission(2, b"", b"\0"),
            permission(1, b"\0", b""),
            permission(0, b"a", b"b"),
            permission(1, b"a", b"c"),
            permission(2, b"foo/", b"foo0"),
            permission(0, b"\xff\xfe", b"\xff\xff"),
            permission(1, b"f", b"\0"),
            permission(9, b"unknown", b""),
        ],
    };
    check(
        "role get",
        Answer::Role {
            name: "r",
            response: &role,
        },
    );
    let key = |id: &str, retires_at_unix| TokenKey {
        key_id: id.to_owned(),
        member_id: 13668033151171901709,
        made_at_unix: 1_767_225_600,
        retires_at_unix,
    };
    let keys = ListTokenKeysResponse {
        keys: vec![key("k1", 1_767_226_200), key("k2", 0)],
    };
    check("token-key list", Answer::TokenKeys(&keys));
    let rotated = RotateTokenKeyResponse {
        key_id: "k2".to_owned(),
        previous_retire_at_unix: 1_767_226_200,
    };
    check("token-key rotate", Answer::TokenKeyRotated(&rotated));
}

fn all(style: Style) -> String {
    let mut text = String::new();
    named(&mut |name, answer| {
        writeln!(text, "== {name}").unwrap();
        match render(style, answer) {
            Ok(printed) => {
                // Raw bytes are made readable, so that the file is text.
                let show = |bytes: &[u8]| {
                    let chunks = bytes.utf8_chunks();
                    let shown = chunks.map(|chunk| {
                        format!("{}{}", chunk.valid(), chunk.invalid().escape_ascii())
                    });
                    // With a zero byte, tools would take the file for none of text.
                    shown.collect::<String>().replace('\0', "\\x00")
                };
                text.push_str(&show(&printed.out));
                if !printed.err.is_empty() {
                    write!(text, "on stderr: {}", show(&printed.err)).unwrap();
                }
            }
            Err(failure) => writeln!(text, "exit {}: {failure}", failure.exit() as u8).unwrap(),
        }
    });
    text
}

#[track_caller]
fn golden(name: &str, format: Format, hex: bool, value_only: bool) {
    let text = all(Style {
        format,
        hex,
        value_only,
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    for (number, (line, expected)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(line, expected, "{name}.txt line {}", number + 1);
    }
    assert_eq!(text, expected);
}

#[test]
fn simple() {
    golden("simple", Format::Simple, false, false);
    golden("simple_hex", Format::Simple, true, false);
    golden("simple_values", Format::Simple, false, true);
}

#[test]
fn json() {
    golden("json", Format::Json, false, false);
    golden("json_hex", Format::Json, true, false);
}

#[test]
fn fields() {
    golden("fields", Format::Fields, false, false);
    golden("fields_hex", Format::Fields, true, false);
}

#[test]
fn table() {
    golden("table", Format::Table, false, false);
}

#[test]
fn unknown_formats_are_refused() {
    for name in ["protobuf", "yaml", ""] {
        let failure = Format::parse(name).unwrap_err();
        assert_eq!(failure.text(), Some("unsupported output format"));
    }
}
