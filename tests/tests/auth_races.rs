//! Changes of rights that race with the calls they concern.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::mvccpb::Event;
use holdfast_tests::{
    Guarded,
    Kind::{Read, Readwrite},
    Raw, RawWatch, bad_token, denied, full_size, holdfast_only, reason, watch_key, watch_refusal,
    wire::{get, put, revision},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::task::JoinHandle;

/// A flag that tells background tasks to end.
type Stop = Arc<AtomicBool>;

/// Puts the key `a` until told to stop.
fn keep_putting(by: &Raw, stop: &Stop) -> JoinHandle<()> {
    let (by, stop) = (by.clone(), Arc::clone(stop));
    tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            by.put(put("a", "1")).await.unwrap();
        }
    })
}

/// What one watch saw: the revision it began at and that of its last event.
#[derive(Debug)]
struct Seen {
    began: i64,
    last: i64,
}

/// Opens watch after watch on the key `a`, each until it is cancelled.
fn keep_watching(by: &Raw, stop: &Stop) -> JoinHandle<Vec<Seen>> {
    let (by, stop) = (by.clone(), Arc::clone(stop));
    tokio::spawn(async move {
        let mut all = Vec::new();
        let mut watch = RawWatch::open(&by);
        while !stop.load(Ordering::Relaxed) {
            let created = watch.create(watch_key("a")).await;
            if created.canceled {
                denied(watch_refusal(&created));
                continue;
            }
            let began = revision(&created.header);
            let mut last = began;
            loop {
                let answer = watch.next().await;
                let revisions = answer.events.iter().map(mod_revision);
                last = revisions.fold(last, i64::max);
                if answer.canceled {
                    denied::<()>(Err(reason(&answer.cancel_reason)));
                    break;
                }
            }
            all.push(Seen { began, last });
        }
        all
    })
}

fn mod_revision(event: &Event) -> i64 {
    event.kv.as_ref().unwrap().mod_revision
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_watch_slips_in_beside_a_revocation() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[]).await;
    let elsewhere = guarded.server.raw().await;
    let token = user.authenticate("u", "the password of u").await.unwrap();
    let user = elsewhere.with_token(&token);
    let stop = Stop::default();
    let putting = keep_putting(root, &stop);
    let watching: Vec<_> = (0..4).map(|_| keep_watching(&user, &stop)).collect();
    // Each permission was there between two revisions: not before the first, not after the second.
    let mut windows = Vec::new();
    let mut before = root.revision().await;
    for _ in 0..if full_size() { 500 } else { 60 } {
        root.role_grant("u", (Read, "a", "")).await.unwrap();
        for _ in 0..3 {
            root.range(get("a")).await.unwrap();
        }
        let revoked = root.role_revoke("u", "a", "").await.unwrap();
        let after = revision(&revoked.header);
        windows.push((before, after));
        before = after;
    }
    stop.store(true, Ordering::Relaxed);
    putting.await.unwrap();
    let mut count = 0;
    for watcher in watching {
        for seen in watcher.await.unwrap() {
            count += 1;
            let fits = |(from, to): &(i64, i64)| *from <= seen.began && seen.last <= *to;
            assert!(
                windows.iter().any(fits),
                "{seen:?} is in none of {windows:?}"
            );
        }
    }
    eprintln!("{count} watches in {} windows", windows.len());
    assert!(count >= 10, "{count} watches say little");
}

/// A login reads the password before it hashes for a long time; the token must not be better than what was read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_races_with_a_change_of_the_password_gets_no_living_token() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    guarded.add_user("u", &[(Readwrite, "a", "")]).await;
    let mut old = "the password of u".to_owned();
    let mut raced = 0;
    for round in 0..if full_size() { 50 } else { 6 } {
        let logins: Vec<_> = (0..3)
            .map(|_| {
                let (raw, password) = (guarded.anonymous(), old.clone());
                tokio::spawn(async move { raw.authenticate("u", &password).await })
            })
            .collect();
        old = format!("password number {round}");
        root.change_password("u", &old).await.unwrap();
        for login in logins {
            // One that was late is refused; one that was in time is of the past.
            if let Ok(token) = login.await.unwrap() {
                raced += 1;
                bad_token(root.with_token(&token).put(put("a", "1")).await);
            }
        }
        let user = root.login("u", &old).await.unwrap();
        user.put(put("a", "1")).await.unwrap();
    }
    eprintln!("{raced} tokens of an old password");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_those_of_one_moment_under_many_changes() {
    // etcd refuses a call that meets any change, and lets the client try again: `revision of auth store is old`.
    holdfast_only!();
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let user = guarded.user("u", &[(Readwrite, "u", "")]).await;
    let stop = Stop::default();
    let changing = {
        let (root, stop) = (root.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                root.role_grant("u", (Read, "v", "")).await.unwrap();
                root.role_revoke("u", "v", "").await.unwrap();
            }
        })
    };
    // What was granted all the time is granted all the time, what never was, never.
    for _ in 0..300 {
        user.put(put("u", "1")).await.unwrap();
        user.range(get("u")).await.unwrap();
        denied(user.put(put("v", "1")).await);
        denied(user.range(get("w")).await);
    }
    stop.store(true, Ordering::Relaxed);
    changing.await.unwrap();
}
