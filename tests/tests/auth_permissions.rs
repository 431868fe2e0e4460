//! Which permission each call on keys needs, and that nothing less will do (behaviour §3.13).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::etcdserverpb::{self as pb, compare::CompareResult};
use holdfast_tests::{
    Call, Guarded,
    Kind::{Read, Readwrite, Write},
    Permission, denied, holdfast_only, watch_key, watch_prefix, watch_range,
    wire::{
        Against, IntoOp, always, b, cmp, del, del_range, everything, exists, get, keys, put, range,
        txn, values,
    },
};

/// A call and exactly what it needs. Spans are of plain letters before `z`.
struct Case {
    name: &'static str,
    call: Call,
    needs: Vec<Permission<'static>>,
}

fn case(name: &'static str, call: Call, needs: &[Permission<'static>]) -> Case {
    let needs = needs.to_vec();
    Case { name, call, needs }
}

fn put_prev(key: &str) -> pb::PutRequest {
    pb::PutRequest {
        prev_kv: true,
        ..put(key, "new")
    }
}

fn put_ignoring_value(key: &str) -> pb::PutRequest {
    pb::PutRequest {
        ignore_value: true,
        ..put(key, "")
    }
}

fn with_prev(request: pb::DeleteRangeRequest) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        prev_kv: true,
        ..request
    }
}

fn ranges() -> Vec<Case> {
    let options = pb::RangeRequest {
        serializable: true,
        revision: 2,
        limit: 1,
        ..range("c", "f")
    };
    let count = pb::RangeRequest {
        count_only: true,
        ..range("c", "f")
    };
    let keys_only = pb::RangeRequest {
        keys_only: true,
        ..range("c", "f")
    };
    vec![
        case("one key", Call::Range(get("c")), &[(Read, "c", "")]),
        case("a missing key", Call::Range(get("q")), &[(Read, "q", "")]),
        case("a span", Call::Range(range("c", "f")), &[(Read, "c", "f")]),
        case(
            "an old local page",
            Call::Range(options),
            &[(Read, "c", "f")],
        ),
        case("a count", Call::Range(count), &[(Read, "c", "f")]),
        case("only keys", Call::Range(keys_only), &[(Read, "c", "f")]),
        case(
            "from a key on",
            Call::Range(range("c", "\0")),
            &[(Read, "c", "\0")],
        ),
        case(
            "everything",
            Call::Range(everything()),
            &[(Read, "\0", "\0")],
        ),
        case(
            "one key, streamed",
            Call::Stream(get("c")),
            &[(Read, "c", "")],
        ),
        case(
            "a span, streamed",
            Call::Stream(range("c", "f")),
            &[(Read, "c", "f")],
        ),
        case(
            "from a key on, streamed",
            Call::Stream(range("c", "\0")),
            &[(Read, "c", "\0")],
        ),
    ]
}

fn writes() -> Vec<Case> {
    vec![
        case("put", Call::Put(put("c", "1")), &[(Write, "c", "")]),
        case(
            "put of the same value",
            Call::Put(put_ignoring_value("c")),
            &[(Write, "c", "")],
        ),
        case(
            "put with the previous value",
            Call::Put(put_prev("c")),
            &[(Readwrite, "c", "")],
        ),
        case("delete", Call::Delete(del("c")), &[(Write, "c", "")]),
        case(
            "delete of a span",
            Call::Delete(del_range("c", "f")),
            &[(Write, "c", "f")],
        ),
        case(
            "delete from a key on",
            Call::Delete(del_range("c", "\0")),
            &[(Write, "c", "\0")],
        ),
        case(
            "delete with previous values",
            Call::Delete(with_prev(del_range("c", "f"))),
            &[(Readwrite, "c", "f")],
        ),
    ]
}

fn transactions() -> Vec<Case> {
    let on_span = pb::Compare {
        range_end: b("f"),
        ..exists("c")
    };
    let on_value = cmp("c", CompareResult::Less, Against::Value(b("zzz")));
    let never = || exists("missing");
    let nested = always(vec![
        txn(vec![exists("d")], vec![put("e", "1").op()], vec![]).op(),
    ]);
    let deep = txn(
        vec![],
        vec![],
        vec![
            txn(
                vec![],
                vec![always(vec![get("c").op()]).op()],
                vec![always(vec![del("d").op()]).op()],
            )
            .op(),
        ],
    );
    vec![
        case(
            "compare",
            Call::Txn(txn(vec![exists("c")], vec![], vec![])),
            &[(Read, "c", "")],
        ),
        case(
            "compare of a value",
            Call::Txn(txn(vec![on_value], vec![], vec![])),
            &[(Read, "c", "")],
        ),
        case(
            "compare of a span",
            Call::Txn(txn(vec![on_span], vec![], vec![])),
            &[(Read, "c", "f")],
        ),
        case(
            "both compares, though the first fails",
            Call::Txn(txn(vec![never(), exists("d")], vec![], vec![])),
            &[(Read, "d", ""), (Read, "missing", "")],
        ),
        case(
            "reads only",
            Call::Txn(always(vec![get("c").op(), range("d", "f").op()])),
            &[(Read, "c", ""), (Read, "d", "f")],
        ),
        case(
            "the arm that is not taken",
            Call::Txn(txn(
                vec![never()],
                vec![put("c", "1").op()],
                vec![get("d").op()],
            )),
            &[(Read, "missing", ""), (Write, "c", ""), (Read, "d", "")],
        ),
        case(
            "reads in the arm that is not taken",
            Call::Txn(txn(
                vec![never()],
                vec![range("c", "f").op()],
                vec![put("g", "1").op()],
            )),
            &[(Read, "missing", ""), (Read, "c", "f"), (Write, "g", "")],
        ),
        case(
            "put with the previous value, within",
            Call::Txn(always(vec![put_prev("c").op()])),
            &[(Readwrite, "c", "")],
        ),
        case(
            "delete with previous values, within",
            Call::Txn(always(vec![with_prev(del_range("c", "f")).op()])),
            &[(Readwrite, "c", "f")],
        ),
        case(
            "delete from a key on, within",
            Call::Txn(always(vec![del_range("c", "\0").op()])),
            &[(Write, "c", "\0")],
        ),
        case(
            "nested",
            Call::Txn(nested),
            &[(Read, "d", ""), (Write, "e", "")],
        ),
        case(
            "nested in the arm that is not taken",
            Call::Txn(deep),
            &[(Read, "c", ""), (Write, "d", "")],
        ),
        case(
            "a read of an old revision",
            Call::Txn(always(vec![
                pb::RangeRequest {
                    revision: 2,
                    ..get("c")
                }
                .op(),
                put("d", "1").op(),
            ])),
            &[(Read, "c", ""), (Write, "d", "")],
        ),
    ]
}

fn watches() -> Vec<Case> {
    let options = pb::WatchCreateRequest {
        prev_kv: true,
        progress_notify: true,
        start_revision: 2,
        filters: vec![0, 1],
        fragment: true,
        watch_id: 7,
        ..watch_range("c", "f")
    };
    vec![
        case(
            "watch of a key",
            Call::Watch(watch_key("c")),
            &[(Read, "c", "")],
        ),
        case(
            "watch of a span",
            Call::Watch(watch_range("c", "f")),
            &[(Read, "c", "f")],
        ),
        case(
            "watch of a prefix",
            Call::Watch(watch_prefix("c")),
            &[(Read, "c", "d")],
        ),
        case(
            "watch with options",
            Call::Watch(options),
            &[(Read, "c", "f")],
        ),
        case(
            "watch from a key on",
            Call::Watch(watch_range("c", "\0")),
            &[(Read, "c", "\0")],
        ),
        case(
            "watch of everything",
            Call::Watch(watch_range("\0", "\0")),
            &[(Read, "\0", "\0")],
        ),
        case(
            "watch of everything, said otherwise",
            Call::Watch(watch_range("", "\0")),
            &[(Read, "\0", "\0")],
        ),
    ]
}

/// What comes next after a key: the narrowest step into a range that starts there.
fn after(key: &str) -> &'static str {
    match key {
        "\0" => "\0\0",
        "c" => "c\0",
        "d" => "d\0",
        other => panic!("no case starts at {other:?}"),
    }
}

/// All ways to grant a little less than `need`.
fn a_little_less((kind, key, end): Permission<'static>) -> Vec<Permission<'static>> {
    let mut less = match end {
        "" => vec![(kind, "b", ""), (kind, "b", key), (kind, "x", "\0")],
        "\0" => vec![
            (kind, after(key), "\0"),
            (kind, key, "zzzz"),
            (kind, key, ""),
        ],
        "f" => vec![
            (kind, after(key), "f"),
            (kind, key, "e~"),
            (kind, "f", "\0"),
        ],
        "d" => vec![(kind, "c\0", "d"), (kind, "c", "c~"), (kind, "c", "")],
        other => panic!("no case ends at {other:?}"),
    };
    match kind {
        Read => less.push((Write, key, end)),
        Write => less.push((Read, key, end)),
        Readwrite => less.extend([(Read, key, end), (Write, key, end)]),
    }
    less
}

/// Goes through the cases: with what a call needs it is permitted, with anything less it is not.
async fn check(cases: Vec<Case>) {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[]).await;
    let restore = always(
        ["c", "d", "e", "g"]
            .map(|key| put(key, "value").op())
            .to_vec(),
    );
    for Case { name, call, needs } in cases {
        root.txn(restore.clone()).await.unwrap();
        denied(call.by(&user).await);
        for missing in 0..needs.len() {
            let mut less = needs.clone();
            let need = less.remove(missing);
            root.role_set("u", &less).await;
            eprintln!("{name}, with {less:?}");
            denied(call.by(&user).await);
            for instead in a_little_less(need) {
                root.role_grant("u", instead).await.unwrap();
                eprintln!("{name}, with {instead:?} instead of {need:?}");
                denied(call.by(&user).await);
                root.role_revoke("u", instead.1, instead.2).await.unwrap();
            }
        }
        for enough in [&needs[..], &[(Readwrite, "\0", "\0")]] {
            root.txn(restore.clone()).await.unwrap();
            root.role_set("u", enough).await;
            eprintln!("{name}, with {enough:?}");
            call.by(&user).await.unwrap();
        }
        root.role_set("u", &[]).await;
        denied(call.by(&user).await);
    }
}

#[tokio::test]
async fn reading_needs_read_on_all_of_the_range() {
    check(ranges()).await;
}

#[tokio::test]
async fn writing_needs_write_and_previous_values_need_read_as_well() {
    check(writes()).await;
}

#[tokio::test]
async fn a_txn_needs_what_its_compares_and_all_operations_of_both_arms_need() {
    check(transactions()).await;
}

#[tokio::test]
async fn watching_needs_read_on_all_of_the_range() {
    check(watches()).await;
}

/// GHSA-xg4h-6gfc-h4m8: the range end of an open-ended watch was rewritten before it was checked.
#[tokio::test]
async fn cve_2026_73499_an_open_end_is_not_read_as_one_key() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    root.put(put("c", "mine")).await.unwrap();
    root.put(put("z", "secret")).await.unwrap();
    let open = |key: &str| {
        [
            Call::Watch(watch_range(key, "\0")),
            Call::Range(range(key, "\0")),
            Call::Stream(range(key, "\0")),
            Call::Delete(del_range(key, "\0")),
            Call::Txn(always(vec![range(key, "\0").op()])),
            Call::Txn(always(vec![del_range(key, "\0").op()])),
            Call::Txn(txn(
                vec![pb::Compare {
                    range_end: b("\0"),
                    ..exists(key)
                }],
                vec![],
                vec![],
            )),
        ]
    };
    let user = guarded.user("u", &[]).await;
    for grants in [
        [(Readwrite, "c", "")],
        [(Readwrite, "c", "c\0")],
        [(Readwrite, "c", "z")],
        [(Readwrite, "\0", "c~")],
        [(Readwrite, "d", "\0")],
    ] {
        root.role_set("u", &grants).await;
        for call in open("c").into_iter().chain(open("\0")) {
            eprintln!("{call:?} with {grants:?}");
            denied(call.by(&user).await);
        }
        denied(Call::Watch(watch_range("", "\0")).by(&user).await);
    }
    let answer = root.range(everything()).await.unwrap();
    assert_eq!(values(&answer), ["mine", "secret"]);
    // The same calls, for who may.
    root.role_set("u", &[(Readwrite, "c", "\0")]).await;
    for call in open("c") {
        call.by(&user).await.unwrap();
    }
}

#[tokio::test]
async fn an_end_at_or_before_the_key_shows_nothing() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    for key in ["a", "b", "c"] {
        root.put(put(key, "1")).await.unwrap();
    }
    let user = guarded.user("u", &[]).await;
    for (key, end) in [("b", "a"), ("b", "b"), ("c", "\0\0")] {
        let answer = user.range(range(key, end)).await;
        assert!(answer.is_ok_and(|answer| answer.kvs.is_empty() && answer.count == 0));
        let answer = user.delete(with_prev(del_range(key, end))).await;
        assert!(answer.is_ok_and(|answer| answer.deleted == 0));
    }
    assert_eq!(root.revision().await, 4);
}

#[tokio::test]
async fn what_touches_or_overlaps_is_one_range() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[]).await;
    let reads = [
        Call::Range(range("b", "h")),
        Call::Stream(range("b", "h")),
        Call::Watch(watch_range("b", "h")),
        Call::Txn(always(vec![range("b", "h").op()])),
    ];
    let together: [&[Permission<'_>]; 7] = [
        &[(Read, "b", "d"), (Read, "d", "h")],
        &[(Read, "d", "h"), (Readwrite, "b", "d")],
        &[(Read, "a", "e"), (Read, "c", "f"), (Readwrite, "e", "z")],
        &[(Read, "b", "d"), (Read, "d", ""), (Read, "d\0", "h")],
        &[(Read, "b", ""), (Read, "b\0", "g~"), (Read, "g~", "\0")],
        &[(Read, "b", "c"), (Write, "b", "c~"), (Read, "c", "h")],
        &[(Read, "\0", "\0"), (Write, "c", "d")],
    ];
    for grants in together {
        root.role_set("u", grants).await;
        for call in &reads {
            eprintln!("{call:?} with {grants:?}");
            call.by(&user).await.unwrap();
        }
        denied(user.put(put("zz", "1")).await);
    }
    let apart: [&[Permission<'_>]; 6] = [
        &[(Read, "b", "d"), (Read, "d\0", "h")],
        &[(Read, "b", "d"), (Write, "d", "e"), (Read, "e", "h")],
        &[(Read, "b", "d"), (Read, "e", "h")],
        &[(Read, "b\0", "h"), (Write, "b", "")],
        &[(Read, "b", ""), (Read, "c", "h")],
        &[(Read, "b", "g"), (Read, "g", "")],
    ];
    for grants in apart {
        root.role_set("u", grants).await;
        for call in &reads {
            eprintln!("{call:?} with {grants:?}");
            denied(call.by(&user).await);
        }
    }
}

#[tokio::test]
async fn the_roles_of_a_user_count_together() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    guarded.add_user("u", &[(Read, "b", "d")]).await;
    guarded.add_user("v", &[(Readwrite, "d", "h")]).await;
    root.user_grant_role("u", "v").await.unwrap();
    let user = guarded.login("u").await;
    user.range(range("b", "h")).await.unwrap();
    user.put(put("d", "1")).await.unwrap();
    denied(user.put(put("c", "1")).await);
    let other = guarded.login("v").await;
    denied(other.range(range("b", "h")).await);
    other.range(range("d", "h")).await.unwrap();

    // What is left after one role is gone.
    root.user_revoke_role("u", "v").await.unwrap();
    let user = guarded.login("u").await;
    denied(user.range(range("b", "h")).await);
    user.range(range("b", "d")).await.unwrap();
    // A role counts for all its holders.
    root.role_grant("u", (Read, "d", "h")).await.unwrap();
    user.range(range("b", "h")).await.unwrap();
}

#[tokio::test]
async fn keys_are_bytes_not_text() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    root.role_add("bytes").await.unwrap();
    let permission = holdfast_proto::authpb::Permission {
        perm_type: Readwrite.into(),
        key: bytes::Bytes::from_static(b"\xfe\x00"),
        range_end: bytes::Bytes::from_static(b"\xff\x80"),
    };
    let grant = pb::AuthRoleGrantPermissionRequest {
        name: "bytes".to_owned(),
        perm: Some(permission.clone()),
    };
    root.role_grant_call(grant).await.unwrap();
    assert_eq!(root.role_get("bytes").await.unwrap(), [permission]);
    root.user_add("u", "a long password").await.unwrap();
    root.user_grant_role("u", "bytes").await.unwrap();
    let user = root.login("u", "a long password").await.unwrap();
    let at = |key: &'static [u8]| pb::PutRequest {
        key: bytes::Bytes::from_static(key),
        ..Default::default()
    };
    for inside in [&b"\xfe\x00"[..], b"\xfe\x00\x00", b"\xff", b"\xff\x7f\xff"] {
        user.put(at(inside)).await.unwrap();
    }
    for outside in [
        &b"\xfe"[..],
        b"\xfd\xff\xff",
        b"\xff\x80",
        b"\xff\xff",
        b"a",
    ] {
        denied(user.put(at(outside)).await);
    }
}

#[tokio::test]
async fn a_refused_call_changes_nothing_and_shows_nothing() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    root.put(put("secret", "value")).await.unwrap();
    let user = guarded.user("u", &[(Readwrite, "u", "")]).await;
    // What a request is refused for must not depend on what is there.
    for key in ["secret", "nothing"] {
        for call in [
            Call::Range(get(key)),
            Call::Put(put_ignoring_value(key)),
            Call::Put(put_prev(key)),
            Call::Delete(with_prev(del(key))),
            Call::Txn(txn(
                vec![exists(key)],
                vec![put("u", "1").op()],
                vec![put("u", "2").op()],
            )),
            Call::Txn(always(vec![put("u", "1").op(), put_prev(key).op()])),
            Call::Range(pb::RangeRequest {
                revision: 99,
                ..get(key)
            }),
            Call::Put(pb::PutRequest {
                lease: 404,
                ..put(key, "1")
            }),
            Call::Watch(pb::WatchCreateRequest {
                start_revision: 99,
                ..watch_key(key)
            }),
        ] {
            eprintln!("{call:?}");
            denied(call.by(&user).await);
        }
    }
    assert_eq!(root.revision().await, 2);
    let answer = root.range(everything()).await.unwrap();
    assert_eq!(
        (keys(&answer), values(&answer)),
        (vec!["secret".into()], vec!["value".into()])
    );
}
