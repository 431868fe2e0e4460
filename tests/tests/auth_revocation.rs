//! Revocation at once: what is taken away at one revision shows nothing of later ones, on streams as on calls.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::{etcdserverpb as pb, mvccpb};
use holdfast_tests::{
    Guarded,
    Kind::{Read, Readwrite, Write},
    Raw, RawWatch, Server, denied, eventually, full_size, holdfast_only, is_reference, reason,
    soon, turned_away, unidentified, watch_key, watch_range,
    wire::{b, everything, put, revision},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

/// How a user loses what a watch of its own needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Permission,
    KindOfPermission,
    Role,
    DeletedRole,
    User,
    Password,
}

const LOSSES: [Loss; 6] = [
    Loss::Permission,
    Loss::KindOfPermission,
    Loss::Role,
    Loss::DeletedRole,
    Loss::User,
    Loss::Password,
];

impl Loss {
    /// Takes it from the user `u`; gives the revision that the change answered with.
    async fn happen(self, root: &Raw) -> i64 {
        let header = match self {
            Self::Permission => root.role_revoke("u", "a", "b").await.unwrap().header,
            Self::KindOfPermission => {
                let write = (Write, "a", "b");
                root.role_grant("u", write).await.unwrap().header
            }
            Self::Role => root.user_revoke_role("u", "u").await.unwrap().header,
            Self::DeletedRole => root.role_delete("u").await.unwrap().header,
            Self::User => root.user_delete("u").await.unwrap().header,
            Self::Password => {
                let changed = root.change_password("u", "another long password").await;
                changed.unwrap().header
            }
        };
        revision(&header)
    }

    /// Checks why the watch ended.
    #[track_caller]
    fn check(self, status: Status) {
        match self {
            Self::User | Self::Password => turned_away::<()>(Err(status)),
            _ => denied::<()>(Err(status)),
        }
    }
}

/// Callers that write keys below `a` without pause, until they are told to stop or refused.
struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Written>>,
}

/// What one writer did: the revisions of its puts, and why it could not go on.
#[derive(Debug)]
struct Written {
    revisions: Vec<i64>,
    refusal: Option<Status>,
}

impl Load {
    fn start(by: &Raw, value_bytes: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let value = "v".repeat(value_bytes);
        let write = |writer: usize| {
            let (by, stop, value) = (by.clone(), Arc::clone(&stop), value.clone());
            tokio::spawn(async move {
                let mut written = Written {
                    revisions: Vec::new(),
                    refusal: None,
                };
                while !stop.load(Ordering::Relaxed) {
                    match by.put(put(&format!("a{writer}"), &value)).await {
                        Ok(answer) => written.revisions.push(revision(&answer.header)),
                        Err(status) => {
                            written.refusal = Some(status);
                            break;
                        }
                    }
                }
                written
            })
        };
        let writers = (0..4).map(write).collect();
        Self { stop, writers }
    }

    /// Waits until every writer was refused.
    async fn refused(self) -> Vec<Written> {
        let mut all = Vec::new();
        for writer in self.writers {
            let written = soon("a refusal of the writer", writer).await.unwrap();
            assert!(written.refusal.is_some());
            all.push(written);
        }
        all
    }

    /// Ends it, when nobody should have refused anything.
    async fn stop_unrefused(self) {
        for written in self.stop().await {
            assert!(written.refusal.is_none(), "{:?}", written.refusal);
        }
    }

    async fn stop(self) -> Vec<Written> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for writer in self.writers {
            all.push(writer.await.unwrap());
        }
        all
    }
}

/// Reads a watch to its end: the revisions of its events and the status in its reason.
async fn to_the_end(watch: &mut RawWatch) -> (Vec<i64>, Status) {
    let mut seen = Vec::new();
    loop {
        let answer = watch.next().await;
        seen.extend(answer.events.iter().map(mod_revision));
        if answer.canceled {
            assert!(answer.events.is_empty(), "{answer:?}");
            assert_eq!(answer.compact_revision, 0);
            return (seen, reason(&answer.cancel_reason));
        }
    }
}

fn mod_revision(event: &mvccpb::Event) -> i64 {
    event.kv.as_ref().unwrap().mod_revision
}

/// The events of a watch that every put of the load concerns: one after the other up to some revision, none beyond `last`.
#[track_caller]
fn check_events(seen: &[i64], last: i64) {
    for pair in seen.windows(2) {
        assert_eq!(pair[0] + 1, pair[1], "a gap or a repetition");
    }
    let end = seen.last().copied().unwrap_or_default();
    assert!(end <= last, "an event of {end}, but revoked at {last}");
}

/// Waits until the store has reached `revision`.
async fn reach(root: &Raw, revision: i64) {
    eventually(Duration::from_secs(60), "puts go through", || async {
        (root.revision().await >= revision).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_at_the_revision_that_revoked_it() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let elsewhere = guarded.server.raw().await;
    for round in 0..if full_size() { 20 } else { 2 } {
        for loss in LOSSES {
            let user = guarded.user("u", &[(Readwrite, "a", "b")]).await;
            let mut watch = RawWatch::open(&elsewhere.with_metadata(&[(
                "token",
                &user.authenticate("u", "the password of u").await.unwrap(),
            )]));
            let created = watch.create(watch_range("a", "b")).await;
            assert!(!created.canceled, "{created:?}");
            let load = Load::start(root, 100);
            let reader = tokio::spawn(async move {
                let (seen, status) = to_the_end(&mut watch).await;
                // Whatever is still to come of the watch would come before the answer to this.
                let fence = watch.create(watch_range("a", "b")).await;
                let again = loss == Loss::Password && !fence.canceled;
                assert!(fence.canceled || again, "{fence:?}");
                (seen, status)
            });
            reach(root, root.revision().await + 50).await;
            let last = loss.happen(root).await;
            reach(root, last + 50).await;
            let (seen, status) = soon("the watch ends", reader).await.unwrap();
            load.stop_unrefused().await;
            eprintln!("round {round}, {loss:?} at {last}: {} events", seen.len());
            assert!(!seen.is_empty());
            check_events(&seen, last);
            loss.check(status);
            // Start over.
            if loss != Loss::User {
                root.user_delete("u").await.unwrap();
            }
            if loss != Loss::DeletedRole {
                root.role_delete("u").await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_is_behind_catches_up_no_further_than_its_revocation() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    for loss in [Loss::Permission, Loss::User, Loss::Password] {
        let user = guarded.user("u", &[(Readwrite, "a", "b")]).await;
        let token = user.authenticate("u", "the password of u").await.unwrap();
        let elsewhere = guarded.server.raw().await.with_token(&token);
        let first = root.revision().await + 1;
        let from_first = pb::WatchCreateRequest {
            start_revision: first,
            ..watch_range("a", "b")
        };
        let (mut watch, _) = RawWatch::on(&elsewhere, from_first).await;
        // Nobody reads: more than the server and the connection hold ahead of a reader.
        let load = Load::start(root, 20_000);
        reach(root, first + 400).await;
        let last = loss.happen(root).await;
        reach(root, last + 400).await;
        let (seen, status) = soon("the watch ends", to_the_end(&mut watch)).await;
        load.stop_unrefused().await;
        eprintln!("{loss:?} at {last}: {} events", seen.len());
        check_events(&seen, last);
        loss.check(status);
        if loss != Loss::User {
            root.user_delete("u").await.unwrap();
        }
        root.role_delete("u").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anonymous_watches_end_when_auth_is_enabled() {
    holdfast_only!();
    let server = Server::start();
    let raw = server.raw().await;
    raw.user_add("root", "root's long password").await.unwrap();
    raw.user_grant_role("root", "root").await.unwrap();
    let (mut watch, _) = RawWatch::on(&raw, watch_range("a", "b")).await;
    let (mut unseen, _) = RawWatch::on(&raw, watch_key("z")).await;
    let load = Load::start(&raw, 100);
    reach(&raw, 50).await;
    let last = revision(&raw.enable_auth().await.unwrap().header);
    let (seen, status) = soon("the watch ends", to_the_end(&mut watch)).await;
    check_events(&seen, last);
    unidentified::<()>(Err(status));
    let (_, status) = soon("the watch ends", to_the_end(&mut unseen)).await;
    unidentified::<()>(Err(status));
    for written in load.refused().await {
        let refusal = written.refusal.expect("a writer without identity");
        unidentified::<()>(Err(refusal));
        let newest = written.revisions.last().copied().unwrap_or_default();
        assert!(
            newest <= last,
            "a put of {newest}, but auth is on since {last}"
        );
    }
}

/// No call that is ordered after the change is carried out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_put_gets_in_after_the_change_that_forbids_it() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let losses = [
        Loss::Permission,
        Loss::Role,
        Loss::DeletedRole,
        Loss::User,
        Loss::Password,
    ];
    for loss in losses {
        let user = guarded.user("u", &[(Readwrite, "a", "b")]).await;
        let token = user.authenticate("u", "the password of u").await.unwrap();
        let elsewhere = guarded.server.raw().await.with_token(&token);
        let load = Load::start(&elsewhere, 100);
        reach(root, root.revision().await + 50).await;
        let last = loss.happen(root).await;
        turned_away(user.put(put("a", "1")).await);
        let mut newest = 0;
        for written in load.refused().await {
            turned_away::<()>(Err(written.refusal.expect("a refusal")));
            newest = newest.max(written.revisions.last().copied().unwrap_or_default());
        }
        assert!(newest <= last, "{loss:?} at {last}, but a put of {newest}");
        assert!(newest > 0);
        assert_eq!(root.revision().await, last, "{loss:?}");
        if loss != Loss::User {
            root.user_delete("u").await.unwrap();
        }
        if loss != Loss::DeletedRole {
            root.role_delete("u").await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_loss_ends_only_the_watches_that_need_what_was_lost() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded
        .user("u", &[(Read, "a", "b"), (Read, "k", ""), (Read, "x", "\0")])
        .await;
    let mut watch = RawWatch::open(&user);
    let mut ids = Vec::new();
    for request in [
        watch_key("k"),
        watch_key("a1"),
        watch_range("a", "b"),
        watch_range("y", "\0"),
    ] {
        let created = watch.create(request).await;
        assert!(!created.canceled);
        ids.push(created.watch_id);
    }
    root.role_revoke("u", "a", "b").await.unwrap();
    let mut ended = Vec::new();
    for _ in 0..2 {
        let answer = watch.next().await;
        assert!(answer.canceled, "{answer:?}");
        denied::<()>(Err(reason(&answer.cancel_reason)));
        ended.push(answer.watch_id);
    }
    ended.sort_unstable();
    assert_eq!(ended, ids[1..3]);
    for key in ["a1", "k", "z"] {
        root.put(put(key, "1")).await.unwrap();
    }
    let seen: Vec<_> = [watch.next().await, watch.next().await]
        .iter()
        .map(|answer| (answer.watch_id, mod_revision(&answer.events[0])))
        .collect();
    assert!(
        seen.contains(&(ids[0], 3)) && seen.contains(&(ids[3], 4)),
        "{seen:?}"
    );
}

#[tokio::test]
async fn watches_outlive_changes_that_leave_them_permitted() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    guarded.add_user("other", &[(Readwrite, "a", "")]).await;
    let user = guarded.user("u", &[(Read, "a", "b")]).await;
    let (mut watch, _) = RawWatch::on(&user, watch_range("a", "b")).await;
    let mut expected = 1;
    macro_rules! lives {
        ($change:expr) => {
            $change.await.unwrap();
            expected += 1;
            root.put(put("a", "1")).await.unwrap();
            let answer = watch.next().await;
            assert!(!answer.canceled, "{}: {answer:?}", stringify!($change));
            assert_eq!(mod_revision(&answer.events[0]), expected);
        };
    }
    lives!(root.user_add("another", "a long password"));
    lives!(root.change_password("another", "another long password"));
    lives!(root.change_password("other", "another long password"));
    lives!(root.user_revoke_role("other", "other"));
    lives!(root.user_delete("another"));
    lives!(root.role_grant("u", (Read, "a", "c")));
    lives!(root.role_revoke("u", "a", "b"));
    lives!(root.role_grant("u", (Readwrite, "a", "c")));
    lives!(root.role_add("more"));
    // The token does not outlive these two, the watch does.
    lives!(root.user_grant_role("u", "more"));
    lives!(root.user_revoke_role("u", "more"));
    lives!(root.role_delete("other"));
    lives!(root.compact(1));
    lives!(root.disable_auth());
}

/// A keep-alive stream that has had one answer.
async fn kept_alive(
    by: &Raw,
    id: i64,
) -> (
    mpsc::Sender<pb::LeaseKeepAliveRequest>,
    tonic::Streaming<pb::LeaseKeepAliveResponse>,
) {
    let (sender, receiver) = mpsc::channel(8);
    sender.send(pb::LeaseKeepAliveRequest { id }).await.unwrap();
    let requests = ReceiverStream::new(receiver);
    let answer = by.lease.clone().lease_keep_alive(requests).await;
    let mut answers = answer.unwrap().into_inner();
    let first = soon("a keep-alive", answers.message()).await.unwrap();
    assert_eq!(first.unwrap().ttl, 600);
    (sender, answers)
}

#[tokio::test]
async fn keep_alive_streams_end_with_their_user() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    for loss in [Loss::User, Loss::Password] {
        let user = guarded.user("u", &[(Readwrite, "a", "b")]).await;
        let request = pb::LeaseGrantRequest { ttl: 600, id: 10 };
        user.grant(request).await.unwrap();
        let (sender, mut answers) = kept_alive(&user, 10).await;
        loss.happen(root).await;
        // By itself, without another request.
        let end = soon("the stream ends", answers.message()).await;
        turned_away(end);
        drop(sender);
        root.revoke(10).await.unwrap();
        if loss != Loss::User {
            root.user_delete("u").await.unwrap();
        }
        root.role_delete("u").await.unwrap();
    }
}

#[tokio::test]
async fn nobody_keeps_a_lease_alive_after_a_loss() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    for loss in LOSSES {
        // WRITE is what a keep-alive needs. In etcd the stream also goes on after a change of the password.
        if loss == Loss::KindOfPermission || is_reference() && loss == Loss::Password {
            continue;
        }
        let user = guarded.user("u", &[(Readwrite, "a", "b")]).await;
        let request = pb::LeaseGrantRequest { ttl: 600, id: 10 };
        user.grant(request).await.unwrap();
        let leased = pb::PutRequest {
            lease: 10,
            ..put("a", "1")
        };
        root.put(leased).await.unwrap();
        let (sender, mut answers) = kept_alive(&user, 10).await;
        loss.happen(root).await;
        // The stream may have ended already.
        let _ = sender.send(pb::LeaseKeepAliveRequest { id: 10 }).await;
        eprintln!("{loss:?}");
        turned_away(soon("a refusal", answers.message()).await);
        root.revoke(10).await.unwrap();
        if loss != Loss::User {
            root.user_delete("u").await.unwrap();
        }
        if loss != Loss::DeletedRole {
            root.role_delete("u").await.unwrap();
        }
    }
}

#[tokio::test]
async fn keep_alive_streams_end_when_auth_is_enabled() {
    holdfast_only!();
    let server = Server::start();
    let raw = server.raw().await;
    raw.user_add("root", "root's long password").await.unwrap();
    raw.user_grant_role("root", "root").await.unwrap();
    let request = pb::LeaseGrantRequest { ttl: 600, id: 10 };
    raw.grant(request).await.unwrap();
    let (sender, mut answers) = kept_alive(&raw, 10).await;
    raw.enable_auth().await.unwrap();
    unidentified(soon("the stream ends", answers.message()).await);
    drop(sender);
}

#[tokio::test]
async fn a_range_stream_in_flight_ends_with_its_permission() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let (count, value) = (2_000_usize, "v".repeat(20_000));
    for key in 0..count {
        let key = format!("a{key:05}");
        root.put(put(&key, &value)).await.unwrap();
    }
    for loss in LOSSES {
        let user = guarded.user("u", &[(Readwrite, "a", "b")]).await;
        let token = user.authenticate("u", "the password of u").await.unwrap();
        let elsewhere = guarded.server.raw().await.with_token(&token);
        let request = pb::RangeRequest {
            key: b("a"),
            range_end: b("b"),
            ..Default::default()
        };
        let mut stream = elsewhere.range_stream(request).await.unwrap();
        let first = stream.message().await.unwrap().unwrap();
        let mut seen = first.range_response.unwrap().kvs.len();
        loss.happen(root).await;
        let end = loop {
            match soon("the rest", stream.message()).await {
                Ok(Some(chunk)) => seen += chunk.range_response.unwrap().kvs.len(),
                Ok(None) => panic!("{loss:?}: all {seen} keys were sent"),
                Err(status) => break status,
            }
        };
        eprintln!("{loss:?}: {seen} of {count} keys, then {end:?}");
        assert!(seen < count, "{loss:?}");
        loss.check(end);
        if loss != Loss::User {
            root.user_delete("u").await.unwrap();
        }
        if loss != Loss::DeletedRole {
            root.role_delete("u").await.unwrap();
        }
    }
    assert_eq!(root.range(everything()).await.unwrap().count, 2_000);
}

#[tokio::test]
async fn an_unread_stream_of_watches_ends_with_the_user_too() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[(Read, "a", "b")]).await;
    let mut watch = RawWatch::open(&user);
    for _ in 0..20 {
        watch.request(watch_range("a", "b")).await;
    }
    for _ in 0..20 {
        assert!(!watch.next().await.canceled);
    }
    root.user_delete("u").await.unwrap();
    root.put(put("a", "1")).await.unwrap();
    for _ in 0..20 {
        let answer = watch.next().await;
        assert!(answer.canceled && answer.events.is_empty(), "{answer:?}");
        let status = reason(&answer.cancel_reason);
        assert!(matches!(
            status.code(),
            Code::PermissionDenied | Code::Unauthenticated
        ));
    }
}
