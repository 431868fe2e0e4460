//! Logins: what a failed one tells, what passwords may be.

mod security;

use holdfast_tests::{
    Guarded, ROOT_PASSWORD, Raw, ServerOptions, holdfast_only, refused,
    wire::{get, put},
};
use security::Dial;
use std::time::{Duration, Instant};
use tonic::Code;

const FAILED: &str = "etcdserver: authentication failed, invalid user ID or password";

/// A login that must fail, and how long that took.
async fn failed_login(raw: &Raw, user: &str, password: &str) -> Duration {
    let started = Instant::now();
    let answer = raw.authenticate(user, password).await;
    let took = started.elapsed();
    refused(answer, Code::InvalidArgument, FAILED);
    took
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Each attempt is of another user and comes from another address, so that no guess is slowed down by those before it; the kinds
/// take turns, so that the machine is as busy for one as for the other.
#[tokio::test]
async fn an_unknown_user_takes_as_long_as_a_wrong_password() {
    holdfast_only!();
    const ROUNDS: usize = 15;
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    for number in 0..ROUNDS {
        root.user_add(&format!("known{number}"), "a long password")
            .await
            .unwrap();
        root.user_add_without_password(&format!("without{number}"))
            .await
            .unwrap();
    }
    let dial = Dial::plain(guarded.server.port());
    let (mut wrong, mut unknown, mut without) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..ROUNDS {
        let guess = format!("a wrong password {number}");
        let kinds = [
            ("known", &mut wrong),
            ("nobody", &mut unknown),
            ("without", &mut without),
        ];
        for (kind, (name, times)) in kinds.into_iter().enumerate() {
            let source = [
                127,
                1,
                u8::try_from(kind).unwrap(),
                u8::try_from(number + 1).unwrap(),
            ];
            let raw = dial.clone().from(source).raw().await.unwrap();
            // The first call on a connection pays for its beginning.
            raw.auth_status().await.unwrap();
            times.push(failed_login(&raw, &format!("{name}{number}"), &guess).await);
        }
    }
    eprintln!("wrong {wrong:?}\nunknown {unknown:?}\nwithout {without:?}");
    let wrong = median(wrong);
    for (what, other) in [
        ("an unknown user", median(unknown)),
        ("a user without password", median(without)),
    ] {
        let (shorter, longer) = (wrong.min(other), wrong.max(other));
        // A hash is some hundred times what else a login costs.
        assert!(
            longer < shorter * 2,
            "{what}: {other:?}, a wrong password: {wrong:?}"
        );
    }
}

#[tokio::test]
async fn passwords_are_any_text_up_to_4_kib() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let longest = "p".repeat(4_096);
    for (number, password) in [longest.as_str(), "πάσσwörd 密码 \n\0\u{7f}", " "]
        .into_iter()
        .enumerate()
    {
        let user = format!("u{number}");
        root.user_add(&user, password).await.unwrap();
        root.authenticate(&user, password).await.unwrap();
    }
    // To its last byte, unlike bcrypt's 72.
    let almost = format!("{}q", &longest[..4_095]);
    failed_login(root, "u0", &almost).await;
    let before = root.auth_revision().await;
    for length in [4_097, 100_000, 1_500_000] {
        let long = "p".repeat(length);
        for status in [
            root.user_add("long", &long).await.unwrap_err(),
            root.change_password("u1", &long).await.unwrap_err(),
            root.authenticate("u0", &long).await.unwrap_err(),
        ] {
            assert!(
                matches!(
                    status.code(),
                    Code::InvalidArgument | Code::ResourceExhausted
                ),
                "{length}: {status:?}"
            );
        }
    }
    assert_eq!(root.auth_revision().await, before);
}

#[tokio::test]
async fn a_password_of_10_mib_is_refused_early() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let raw = guarded.server.raw().await;
    let huge = "p".repeat(10 << 20);
    let status = raw.authenticate("root", &huge).await.unwrap_err();
    assert!(
        matches!(
            status.code(),
            Code::InvalidArgument | Code::ResourceExhausted
        ),
        "{status:?}"
    );
    raw.authenticate("root", ROOT_PASSWORD).await.unwrap();
}

#[tokio::test]
async fn strict_passwords_have_12_bytes_at_least() {
    holdfast_only!();
    let strict = ServerOptions::new()
        .flag("--profile=strict")
        .flag("--initial-auth=false");
    let guarded = Guarded::start_with(strict).await;
    let root = &guarded.root;
    root.user_add("u", "twelve bytes").await.unwrap();
    for short in ["", "p", "eleven byte"] {
        for status in [
            root.user_add("short", short).await.unwrap_err(),
            root.change_password("u", short).await.unwrap_err(),
        ] {
            assert_eq!(status.code(), Code::InvalidArgument, "{short}: {status:?}");
        }
        // A user cannot choose one for itself either.
        let user = root.login("u", "twelve bytes").await.unwrap();
        user.change_password("u", short).await.unwrap_err();
    }
    root.user_add_without_password("w").await.unwrap();
    assert_eq!(root.user_list().await.unwrap(), ["root", "u", "w"]);
    root.authenticate("u", "twelve bytes").await.unwrap();
}

#[tokio::test]
async fn short_passwords_are_taken_as_in_etcd() {
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    root.user_add("u", "p").await.unwrap();
    let user = root.login("u", "p").await.unwrap();
    holdfast_tests::denied(user.range(get("a")).await);
    root.put(put("a", "1")).await.unwrap();
}

/// etcd hashed under a lock: some logins a second stopped everybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_9713_calls_are_answered_while_passwords_are_hashed() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let root = &guarded.root;
    let flood: Vec<_> = (0..30)
        .map(|number| {
            let raw = guarded.anonymous();
            let user = format!("u{number}");
            tokio::spawn(async move { raw.authenticate(&user, "a long password").await })
        })
        .collect();
    let mut during = 0;
    while flood.iter().any(|login| !login.is_finished()) {
        root.put(put("a", "1")).await.unwrap();
        root.range(get("a")).await.unwrap();
        during += 1;
    }
    eprintln!("{during} puts and reads beside 30 logins");
    assert!(during >= 30, "{during}");
    for login in flood {
        login.await.unwrap().unwrap_err();
    }
}
