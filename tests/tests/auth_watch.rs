//! Watches of users: what is checked when they are created (behaviour §3.7, §3.13).

use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    Guarded,
    Kind::{Read, Readwrite, Write},
    RawWatch, event_text, watch_key, watch_prefix, watch_range,
    wire::{b, put},
};

#[tokio::test]
async fn a_refusal_is_an_answer_on_the_stream_with_gos_text() {
    let guarded = Guarded::start().await;
    let user = guarded
        .user("u", &[(Write, "a", ""), (Read, "b", "")])
        .await;
    let raw = guarded.anonymous();
    for (caller, reason) in [
        (
            &user,
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
        ),
        (
            &raw,
            "rpc error: code = InvalidArgument desc = etcdserver: user name is empty",
        ),
        (
            &raw.with_token("garbage"),
            "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
        ),
    ] {
        let mut watch = RawWatch::open(caller);
        for _ in 0..3 {
            let answer = watch.create(watch_key("a")).await;
            assert!(answer.canceled);
            assert_eq!(answer.watch_id, -1);
            assert_eq!(answer.cancel_reason, reason);
            assert_eq!(answer.compact_revision, 0);
        }
    }
}

#[tokio::test]
async fn a_refused_watch_leaves_the_others_of_its_stream() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[(Readwrite, "u", "v")]).await;
    let (mut watch, _) = RawWatch::on(&user, watch_prefix("u")).await;
    for request in [watch_key("a"), watch_prefix("t"), watch_range("u", "\0")] {
        assert!(watch.create(request).await.canceled);
    }
    root.put(put("a", "1")).await.unwrap();
    root.put(put("u1", "1")).await.unwrap();
    let events = watch.events(1).await;
    assert_eq!(event_text(&events[0]), "+u1=1@3");
    let next = watch.create(watch_key("u2")).await;
    assert!(!next.canceled);
    assert_ne!(next.watch_id, -1);
}

#[tokio::test]
async fn history_and_previous_values_are_only_of_what_may_be_read() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    for key in ["s", "u", "s", "u"] {
        root.put(put(key, &format!("of {key}"))).await.unwrap();
    }
    let user = guarded.user("u", &[(Read, "u", "")]).await;
    let from_start = |key: &str, end: &str| pb::WatchCreateRequest {
        start_revision: 1,
        prev_kv: true,
        range_end: b(end),
        ..watch_key(key)
    };
    let mut watch = RawWatch::open(&user);
    for (key, end) in [("s", ""), ("s", "v"), ("u", "v"), ("u", "\0"), ("\0", "\0")] {
        assert!(watch.create(from_start(key, end)).await.canceled);
    }
    assert!(!watch.create(from_start("u", "")).await.canceled);
    let texts: Vec<_> = watch.events(2).await.iter().map(event_text).collect();
    assert_eq!(texts, ["+u=of u@3", "+u=of u@5"]);
}

#[tokio::test]
async fn root_watches_everything() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let (mut watch, _) = RawWatch::on(root, watch_range("\0", "\0")).await;
    root.put(put("a", "1")).await.unwrap();
    root.put(put("\u{7f}", "1")).await.unwrap();
    assert_eq!(watch.events(2).await.len(), 2);
}

#[tokio::test]
async fn what_is_granted_later_can_be_watched_then() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[]).await;
    let mut watch = RawWatch::open(&user);
    assert!(watch.create(watch_key("a")).await.canceled);
    root.role_grant("u", (Read, "a", "")).await.unwrap();
    assert!(!watch.create(watch_key("a")).await.canceled);
    root.role_revoke("u", "a", "").await.unwrap();
    let other = guarded.user("other", &[]).await;
    assert!(RawWatch::open(&other).create(watch_key("a")).await.canceled);
    let again = RawWatch::open(&user).create(watch_key("a")).await;
    assert!(again.canceled);
}
