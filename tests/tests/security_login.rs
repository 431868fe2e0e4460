//! Attacks on logins: finding names, guessing passwords, passwords of absurd length, floods; and hashes brought along from etcd.
//!
//! `HOLDFAST_FULL=1` measures the flood at full length and with the bound that is promised.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

mod security;

use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    Guarded,
    Kind::Readwrite,
    PATIENCE, ROOT_PASSWORD, Raw, Server, ServerOptions, eventually, full_size, holdfast_only,
    http_get, password_of, peak_rss_bytes, refused, rss_bytes,
    wire::{get, put},
};
use security::{Dial, holds, sample, snapshot};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tonic::{Code, Status};

const MIB: u64 = 1 << 20;
const FAILED: &str = "etcdserver: authentication failed, invalid user ID or password";
const TOO_MANY: &str = "etcdserver: too many requests";

/// A connection from an address of the loopback network.
async fn from(server: &Server, source: [u8; 4]) -> Raw {
    Dial::plain(server.port()).from(source).raw().await.unwrap()
}

/// Whether an attempt was looked at (and the password wrong), or turned away as one too many.
#[track_caller]
fn was_looked_at(answer: Result<String, Status>) -> bool {
    let status = answer.expect_err("a wrong password");
    match status.code() {
        Code::InvalidArgument => assert_eq!(status.message(), FAILED),
        Code::ResourceExhausted => assert_eq!(status.message(), TOO_MANY),
        _ => panic!("{status:?}"),
    }
    status.code() == Code::InvalidArgument
}

#[tokio::test]
async fn unknown_users_and_wrong_passwords_get_the_same_answer_in_the_same_time() {
    holdfast_only!();
    const ROUNDS: u8 = 25;
    let guarded = Guarded::start().await;
    guarded.add_user("known", &[]).await;
    guarded
        .root
        .user_add_without_password("bare")
        .await
        .unwrap();
    let names = ["known", "unknown", "bare"];
    let mut times = [vec![], vec![], vec![]];
    let mut answers = Vec::new();
    for round in 0..ROUNDS {
        for turn in 0..names.len() {
            // None is always the first, and each comes from an address of its own, so that nothing is slowed on purpose.
            let index = (turn + usize::from(round)) % names.len();
            let name = names[index];
            let raw = from(&guarded.server, [127, 1, index as u8, round + 1]).await;
            let started = Instant::now();
            let answer = raw.authenticate(name, "a wrong password").await;
            times[index].push(started.elapsed());
            let status = answer.unwrap_err();
            let mut metadata = status.metadata().clone().into_headers();
            metadata.remove("date");
            answers.push((
                status.code(),
                status.message().to_owned(),
                format!("{metadata:?}"),
            ));
        }
    }
    assert!(
        answers.iter().all(|answer| answer == &answers[0]),
        "{answers:?}"
    );
    assert_eq!(
        (answers[0].0, &*answers[0].1),
        (Code::InvalidArgument, FAILED)
    );
    // What else runs on the machine can only add time: the quickest tells what the work takes.
    let [known, unknown, bare] = times.map(|times| times.into_iter().min().unwrap());
    eprintln!("known {known:?}, unknown {unknown:?}, without a password {bare:?}");
    for other in [unknown, bare] {
        let apart = known.abs_diff(other);
        // Far more than noise; an answer without hashing would be ten times as quick.
        assert!(apart < known / 3, "{known:?} and {other:?}");
    }
}

/// Guesses until a guess is looked at, after which the next must wait for seconds.
async fn wait_begins(guesser: &Raw, user: &str) {
    let guess = || async {
        let answer = guesser.authenticate(user, "another guess").await;
        was_looked_at(answer).then_some(())
    };
    eventually(PATIENCE, "a guess that is looked at", guess).await;
}

#[tokio::test]
async fn a_thousand_guesses_are_slowed_and_the_owner_is_not_locked_out() {
    holdfast_only!();
    const GUESSES: usize = 1_000;
    let guarded = Guarded::start().await;
    let server = &guarded.server;
    guarded.add_user("u", &[(Readwrite, "a", "")]).await;
    guarded.add_user("v", &[]).await;
    let guesser = from(server, [127, 0, 0, 9]).await;
    let started = Instant::now();
    let mut looked_at = 0;
    for guess in 0..GUESSES {
        let answer = guesser.authenticate("u", &format!("guess {guess}")).await;
        looked_at += usize::from(was_looked_at(answer));
    }
    let took = started.elapsed();
    // A few errors are free; then the wait doubles each time: 1, 2, 4, … seconds.
    let most = 6 + (took.as_secs() + 1).ilog2() as usize;
    eprintln!("{looked_at} of {GUESSES} guesses were looked at in {took:?}");
    assert!((1..=most).contains(&looked_at), "{looked_at} in {took:?}");
    // Right after a wrong one even the right one is not looked at: no answer tells that it was right.
    wait_begins(&guesser, "u").await;
    let right = guesser.authenticate("u", &password_of("u")).await;
    refused(right, Code::ResourceExhausted, TOO_MANY);
    // Elsewhere the owner logs in, time and again.
    for source in [[127, 0, 0, 1], [127, 0, 0, 2], [127, 9, 9, 9]] {
        let owner = from(server, source).await;
        let owner = owner.login("u", &password_of("u")).await.unwrap();
        owner.put(put("a", "1")).await.unwrap();
    }
    // Others behind the guesser's address do, too.
    let other = from(server, [127, 0, 0, 9]).await;
    other.authenticate("v", &password_of("v")).await.unwrap();
    // The guesser's waiting is that of its address, and not of its connection.
    wait_begins(&guesser, "u").await;
    refused(
        other.authenticate("u", &password_of("u")).await,
        Code::ResourceExhausted,
        TOO_MANY,
    );
}

#[tokio::test]
async fn one_source_cannot_try_one_password_on_a_thousand_users() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let server = &guarded.server;
    guarded.add_user("u", &[]).await;
    let sprayer = from(server, [127, 0, 0, 9]).await;
    let started = Instant::now();
    let mut looked_at = 0;
    for index in 0..1_000 {
        let answer = sprayer
            .authenticate(&format!("user {index}"), "Spring2026!")
            .await;
        looked_at += usize::from(was_looked_at(answer));
    }
    let took = started.elapsed();
    let most = 21 + (took.as_secs() + 1).ilog2() as usize;
    eprintln!("{looked_at} of 1,000 users were tried in {took:?}");
    assert!((1..=most).contains(&looked_at), "{looked_at} in {took:?}");
    let elsewhere = from(server, [127, 0, 0, 8]).await;
    elsewhere
        .authenticate("u", &password_of("u"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sources_guessing_one_user_do_not_lock_out_its_known_ones() {
    holdfast_only!();
    const SOURCES: u8 = 150;
    let guarded = Guarded::start().await;
    let server = &guarded.server;
    guarded.add_user("u", &[(Readwrite, "a", "")]).await;
    let owner = from(server, [127, 0, 0, 2]).await;
    owner.authenticate("u", &password_of("u")).await.unwrap();
    let mut looked_at = 0;
    for source in 1..=SOURCES {
        let raw = from(server, [127, 2, 0, source]).await;
        let answer = raw.authenticate("u", "a guess").await;
        looked_at += usize::from(was_looked_at(answer));
    }
    eprintln!("{looked_at} guesses from {SOURCES} sources were looked at");
    assert!(looked_at < SOURCES as usize - 20, "{looked_at}");
    owner.authenticate("u", &password_of("u")).await.unwrap();
    let stranger = from(server, [127, 2, 1, 1]).await;
    refused(
        stranger.authenticate("u", "a guess").await,
        Code::ResourceExhausted,
        TOO_MANY,
    );
}

/// How many passwords were hashed so far, for whatever purpose.
async fn hashed(server: &Server) -> f64 {
    let page = http_get(server.port(), "/metrics").await.body;
    sample(&page, "holdfast_password_hashing_seconds_count").unwrap()
}

#[tokio::test]
async fn a_password_of_10_mib_is_refused_early() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    guarded.add_user("u", &[]).await;
    let raw = guarded.anonymous();
    let before = hashed(&guarded.server).await;
    let memory = rss_bytes(guarded.server.pid());
    for length in [5_000, 1 << 20, 10 << 20] {
        let long = "p".repeat(length);
        let started = Instant::now();
        for (user, password) in [
            ("u", &*long),
            ("nobody", &*long),
            (&*long, "p"),
            ("root", &*long),
        ] {
            let status = raw.authenticate(user, password).await.unwrap_err();
            let expected = [
                Code::InvalidArgument,
                Code::ResourceExhausted,
                Code::OutOfRange,
            ];
            assert!(expected.contains(&status.code()), "{status:?}");
            assert!(!status.message().contains("ppp"), "{status:?}");
        }
        for answer in [
            guarded.root.user_add("w", &long).await.map(drop),
            guarded.root.change_password("u", &long).await.map(drop),
        ] {
            let status = answer.unwrap_err();
            assert!(!status.message().contains("ppp"), "{status:?}");
        }
        let took = started.elapsed();
        assert!(took < Duration::from_secs(3), "{length} bytes: {took:?}");
    }
    assert_eq!(
        hashed(&guarded.server).await,
        before,
        "nothing of it was hashed"
    );
    let grown = peak_rss_bytes(guarded.server.pid()).saturating_sub(memory);
    assert!(grown < 96 * MIB, "{} MiB", grown / MIB);
    raw.authenticate("u", &password_of("u")).await.unwrap();
}

#[tokio::test]
async fn a_bcrypt_hash_from_etcd_is_used_once_and_replaced() {
    holdfast_only!();
    // Of the published test vectors of bcrypt.
    const HASH: &str = "$2a$06$.rCVZVOThsIa97pEDOxvGuRRgzG64bvtJ0938xuqzv18d3ZpQhstC";
    const PASSWORD: &str = "abcdefghijklmnopqrstuvwxyz";
    let mut guarded = Guarded::start().await;
    let add = |name: &str, hash: &str| pb::AuthUserAddRequest {
        name: name.to_owned(),
        hashed_password: hash.to_owned(),
        ..Default::default()
    };
    guarded.root.user_add_call(add("u", HASH)).await.unwrap();
    guarded
        .root
        .user_add_call(add("untouched", HASH))
        .await
        .unwrap();
    let before = guarded.root.auth_revision().await;
    let raw = guarded.anonymous();
    // The hash is no password.
    for wrong in [
        "",
        HASH,
        "abcdefghijklmnopqrstuvwxy",
        "Abcdefghijklmnopqrstuvwxyz",
    ] {
        refused(
            raw.authenticate("u", wrong).await,
            Code::InvalidArgument,
            FAILED,
        );
    }
    guarded.root.user_delete("untouched").await.unwrap();
    assert!(
        holds(&snapshot(&guarded.root).await, HASH.as_bytes()),
        "the store has the hash so far"
    );
    let token = raw.authenticate("u", PASSWORD).await.unwrap();
    let after = snapshot(&guarded.root).await;
    assert!(
        !holds(&after, HASH.as_bytes()) && !holds(&after, b"$2a$"),
        "the hash was replaced"
    );
    assert!(holds(&after, b"$argon2id$"));
    // Nothing else of the user changed: the token of the login is good, and so is the password, also after a restart.
    assert_eq!(
        guarded.root.auth_revision().await,
        before + 1,
        "only by the deletion"
    );
    raw.with_token(&token).user_get("u").await.unwrap();
    guarded.server.kill();
    guarded.server.restart();
    let raw = guarded.server.raw().await;
    raw.with_token(&token).user_get("u").await.unwrap();
    raw.authenticate("u", PASSWORD).await.unwrap();
    refused(
        raw.authenticate("u", HASH).await,
        Code::InvalidArgument,
        FAILED,
    );
}

#[tokio::test]
async fn hashes_of_absurd_cost_are_not_taken() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let salt = "c29tZXNhbHRzb21lc2FsdA";
    let tag = "A".repeat(43);
    let started = Instant::now();
    for hash in [
        "$2a$31$.rCVZVOThsIa97pEDOxvGuRRgzG64bvtJ0938xuqzv18d3ZpQhstC".to_owned(),
        "$2a$00$.rCVZVOThsIa97pEDOxvGuRRgzG64bvtJ0938xuqzv18d3ZpQhstC".to_owned(),
        "$2a$06$short".to_owned(),
        "plain text".to_owned(),
        "$".repeat(100_000),
        format!("$argon2id$v=19$m=4194304,t=3,p=1${salt}${tag}"),
        format!("$argon2id$v=19$m=19456,t=4294967295,p=1${salt}${tag}"),
        format!("$argon2id$v=19$m=19456,t=2,p=16777215${salt}${tag}"),
        format!("$argon2i$v=19$m=19456,t=2,p=1${salt}${tag}"),
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjlO/O817G3uBnIFNjnQJu".to_owned(),
    ] {
        let request = pb::AuthUserAddRequest {
            name: "u".to_owned(),
            hashed_password: hash.clone(),
            ..Default::default()
        };
        let status = guarded.root.user_add_call(request).await.expect_err(&hash);
        assert_eq!(status.code(), Code::InvalidArgument, "{hash}: {status:?}");
        assert!(!status.message().contains(&hash[1..]), "{status:?}");
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(guarded.root.user_list().await.unwrap(), ["root"]);
}

/// Puts for `time`, sixteen at once; gives how many there were in a second.
async fn put_rate(raw: &Raw, time: Duration) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + time;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..16 {
        let (raw, done) = (raw.clone(), done.clone());
        writers.spawn(async move {
            while Instant::now() < until {
                raw.put(put(&format!("w{writer}"), "v")).await.unwrap();
                done.fetch_add(1, Relaxed);
            }
        });
    }
    writers.join_all().await;
    done.load(Relaxed) as f64 / time.as_secs_f64()
}

/// What a flood is made of.
#[derive(Clone, Copy, PartialEq)]
enum Flood {
    Logins,
    /// Calls that cost next to nothing: what making them takes of the machine that client and server share.
    Trifles,
}

/// Makes 1,000 calls in a second until told to stop; gives how many were made and how many went well.
async fn flood(kind: Flood, clients: Vec<Raw>, users: usize, stop: Arc<AtomicBool>) -> (u64, u64) {
    let (mut attempted, right) = (0, Arc::new(AtomicU64::new(0)));
    let mut every = tokio::time::interval(Duration::from_millis(10));
    let mut running = tokio::task::JoinSet::new();
    while !stop.load(Relaxed) {
        every.tick().await;
        for _ in 0..10 {
            let index = attempted as usize;
            let raw = clients[index % clients.len()].clone();
            let (user, right) = (format!("u{}", index % users), right.clone());
            attempted += 1;
            running.spawn(async move {
                if kind == Flood::Trifles {
                    raw.auth_status().await.unwrap();
                    return;
                }
                match raw.authenticate(&user, &password_of(&user)).await {
                    Ok(_) => _ = right.fetch_add(1, Relaxed),
                    Err(status) => assert_eq!(status.message(), TOO_MANY),
                }
            });
        }
        while running.try_join_next().is_some() {}
    }
    running.join_all().await;
    (attempted, right.load(Relaxed))
}

/// Issues #9713 and #11735 of etcd: logins were hashed under a lock, some eighteen in a second, and nothing else went on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_9713_and_11735_a_flood_of_logins_slows_nobody_elses_puts() {
    holdfast_only!();
    const USERS: usize = 20;
    let (rounds, time, least) = if full_size() {
        (5, Duration::from_secs(6), 0.9)
    } else {
        // Clients, server and other tests share few cores here.
        (2, Duration::from_secs(2), 0.4)
    };
    let guarded = Guarded::start_with(ServerOptions::new()).await;
    let server = &guarded.server;
    guarded.add_user("writer", &[(Readwrite, "w", "x")]).await;
    for user in 0..USERS {
        let name = format!("u{user}");
        guarded
            .root
            .user_add(&name, &password_of(&name))
            .await
            .unwrap();
    }
    let writer = from(server, [127, 0, 0, 2]).await;
    let writer = writer
        .login("writer", &password_of("writer"))
        .await
        .unwrap();
    let mut clients = Vec::new();
    for source in 0..8 {
        clients.push(from(server, [127, 3, 0, source + 1]).await);
    }
    // Warm.
    put_rate(&writer, time / 2).await;
    let memory = rss_bytes(server.pid());
    let mut shares = Vec::new();
    let mut written = 0.0;
    for _ in 0..rounds {
        let beside = async |kind| {
            let stop = Arc::new(AtomicBool::new(false));
            let flooding = tokio::spawn(flood(kind, clients.clone(), USERS, stop.clone()));
            let rate = put_rate(&writer, time).await;
            stop.store(true, Relaxed);
            (rate, flooding.await.unwrap())
        };
        let (before, _) = beside(Flood::Trifles).await;
        let (during, (attempted, right)) = beside(Flood::Logins).await;
        let (after, _) = beside(Flood::Trifles).await;
        let calm = f64::midpoint(before, after);
        written += (before + during + after) * time.as_secs_f64();
        eprintln!(
            "{calm:.0} puts/s beside trifles, {during:.0} beside {attempted} logins ({right} right)"
        );
        assert!(
            attempted as f64 > 500.0 * time.as_secs_f64() && right > 0,
            "{attempted}, {right}"
        );
        shares.push(during / calm);
    }
    shares.sort_by(f64::total_cmp);
    let share = shares[shares.len() / 2];
    assert!(share >= least, "{share:.2} of the puts");
    // Hashes may take 64 MiB together; beside them what the puts left: they are not compacted, and the index keeps every version.
    let history = (written * 100.0) as u64;
    let grown = peak_rss_bytes(server.pid()).saturating_sub(memory);
    eprintln!("{} MiB more", grown / MIB);
    assert!(grown < 160 * MIB + history, "{} MiB", grown / MIB);
    guarded.root.range(get("w0")).await.unwrap();
    guarded
        .anonymous()
        .login("root", ROOT_PASSWORD)
        .await
        .unwrap();
}
