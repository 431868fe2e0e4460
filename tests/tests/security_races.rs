//! What happens while something else does: reads that wait, calls that are given up, changes at the same time. And what the audit log
//! says of it.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

mod security;

use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    Guarded,
    Kind::{Read, Readwrite},
    PATIENCE, Raw, RawWatch, Server, ServerOptions, denied, holdfast_only, password_of, soon,
    turned_away, unidentified, watch_key, watch_prefix, watch_refusal,
    wire::{IntoOp, always, get, put, put_leased, range, revision},
    within,
};
use security::audit::Audited;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    pin::pin,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status, Streaming, client::Grpc, codegen::http::uri::PathAndQuery,
    transport::Endpoint,
};
use tonic_prost::ProstCodec;

/// How a user loses what a read of its own needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Permission,
    Role,
    User,
}

/// A long answer that nobody reads, beyond its head: it keeps its share of the memory of long answers until it is dropped.
async fn unread_answer(
    server: &Server,
    token: &str,
    request: pb::RangeRequest,
) -> Streaming<pb::RangeResponse> {
    let endpoint = Endpoint::from_shared(server.endpoint())
        .unwrap()
        .connect_timeout(PATIENCE)
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(65_535);
    let raw = Raw::over(endpoint.connect().await.unwrap()).with_token(token);
    let mut grpc = Grpc::new(raw.carrier).max_decoding_message_size(usize::MAX);
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    let codec = ProstCodec::<pb::RangeRequest, pb::RangeResponse>::default();
    let answer = grpc.server_streaming(Request::new(request), path, codec);
    soon("the head of a long answer", answer)
        .await
        .unwrap()
        .into_inner()
}

/// Puts `count` keys with this prefix, in transactions.
async fn fill(root: &Raw, prefix: &str, count: usize, value: &str) {
    let keys: Vec<_> = (0..count).map(|key| format!("{prefix}{key:05}")).collect();
    for some in keys.chunks(100) {
        let puts = some.iter().map(|key| put(key, value).op());
        root.txn(always(puts.collect())).await.unwrap();
    }
}

#[tokio::test]
async fn a_read_that_waited_is_judged_again() {
    holdfast_only!();
    let options = ServerOptions::new().flag("--memory-budget-bytes=16777216");
    let guarded = Guarded::start_with(options).await;
    let root = &guarded.root;
    // Both ranges are long ones, and together they do not fit.
    fill(root, "/app/", 2_600, &"v".repeat(8 << 10)).await;
    fill(root, "/secret/", 2_100, "old").await;
    for loss in [Loss::User, Loss::Role, Loss::Permission] {
        let permissions = [
            (Read, "/app/", "/app0"),
            (Read, "/secret/", "/secret0"),
            (Read, "a", ""),
        ];
        guarded.add_user("alice", &permissions).await;
        let login = root.authenticate("alice", &password_of("alice")).await;
        let token = login.unwrap();
        let unread = unread_answer(&guarded.server, &token, range("/app/", "/app0")).await;
        let alice = guarded.server.raw().await.with_token(&token);
        let waiting: [JoinHandle<Result<usize, Status>>; 2] = {
            let (one, other) = (alice.clone(), alice.clone());
            let wanted = range("/secret/", "/secret0");
            let txn = always(vec![wanted.clone().op()]);
            [
                tokio::spawn(async move { one.range(wanted).await.map(|answer| answer.kvs.len()) }),
                tokio::spawn(
                    async move { other.txn(txn).await.map(|answer| answer.responses.len()) },
                ),
            ]
        };
        // The calls of one connection begin in order.
        let fence = tokio::spawn(async move { alice.range(get("a")).await });
        soon("a short read goes on", fence).await.unwrap().unwrap();
        match loss {
            Loss::Permission => drop(
                root.role_revoke("alice", "/secret/", "/secret0")
                    .await
                    .unwrap(),
            ),
            Loss::Role => drop(root.user_revoke_role("alice", "alice").await.unwrap()),
            Loss::User => drop(root.user_delete("alice").await.unwrap()),
        }
        root.put(put("/secret/00000", "written afterwards"))
            .await
            .unwrap();
        for read in &waiting {
            assert!(!read.is_finished(), "{loss:?}: the read did not wait");
        }
        drop(unread);
        for read in waiting {
            let answer = soon("an answer when there is room", read).await.unwrap();
            eprintln!("{loss:?}: {answer:?}");
            turned_away(answer);
        }
        if loss != Loss::User {
            root.user_delete("alice").await.unwrap();
        }
        root.role_delete("alice").await.unwrap();
    }
}

/// Makes a call, and gives it up after this time, to the microsecond. `None` when it was given up.
async fn give_up<F: Future>(after: Duration, call: F) -> Option<F::Output> {
    let begun = Instant::now();
    let mut call = pin!(call);
    while begun.elapsed() < after {
        tokio::select! {
            biased;
            answer = &mut call => return Some(answer),
            () = tokio::task::yield_now() => {}
        }
    }
    None
}

/// How long such a call takes, about.
async fn time_of<F: Future<Output = Result<T, Status>>, T>(
    mut call: impl FnMut() -> F,
) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        assert!(call().await.is_ok());
        best = best.min(begun.elapsed());
    }
    best
}

#[tokio::test]
async fn a_call_that_its_client_gives_up_is_recorded() {
    holdfast_only!();
    let audited = Audited::start("rules:\n- level: keys\n", &[]).await;
    let (root, file) = (&audited.guarded.root, &audited.file);
    let usual = time_of(|| root.put(put("/usual", "v"))).await;
    let mut given_up = 0;
    for step in 0..200_u32 {
        let call = root.put(put(&format!("/put/{step:03}"), "v"));
        let answer = give_up(usual * step / 200, call).await;
        given_up += usize::from(answer.is_none());
    }
    // Behind them in the log, and in their connection.
    root.put(put("/last", "v")).await.unwrap();
    let stored = root.range(range("/put/", "/put0")).await.unwrap();
    let stored: BTreeSet<_> = holdfast_tests::wire::keys(&stored).into_iter().collect();
    eprintln!(
        "{given_up} given up after at most {usual:?}, {} carried out",
        stored.len()
    );
    let unrecorded = async || {
        let records = file.records();
        let puts = records.iter().filter(|record| record["rpc"] == "KV/Put");
        let told: BTreeSet<_> = puts
            .filter_map(|record| record["keys"][0][0].as_str().map(str::to_owned))
            .collect();
        stored.difference(&told).cloned().collect::<Vec<_>>()
    };
    recorded("every put that was carried out", unrecorded).await;

    root.role_add("r").await.unwrap();
    let users: Vec<_> = (0..60_u32).map(|user| format!("u{user}")).collect();
    for user in &users {
        root.user_add_without_password(user).await.unwrap();
    }
    for (step, user) in (0_u32..).zip(&users) {
        give_up(usual * step / 60, root.user_grant_role(user, "r")).await;
    }
    root.put(put("/last", "v")).await.unwrap();
    let mut granted = Vec::new();
    for user in &users {
        if !root.user_get(user).await.unwrap().is_empty() {
            granted.push(user.clone());
        }
    }
    eprintln!("{} of {} grants carried out", granted.len(), users.len());
    let unrecorded = async || {
        let records = file.records();
        let told = |user: &String| {
            let object = format!("{user}, role r");
            records
                .iter()
                .any(|record| record["rpc"] == "Auth/UserGrantRole" && record["object"] == *object)
        };
        let missing = granted.iter().filter(|user| !told(user));
        missing.cloned().collect::<Vec<_>>()
    };
    recorded("every grant that was carried out", unrecorded).await;
    let given_up = |record: &Value| record["outcome"] == "Canceled";
    assert!(
        file.records().iter().any(given_up),
        "none was given up in time"
    );
}

/// Waits until nothing is missing in the log.
async fn recorded(what: &str, missing: impl AsyncFn() -> Vec<String>) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let missing = missing().await;
        if missing.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{what}: no record of {missing:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_log_names_who_was_changed() {
    holdfast_only!();
    let audited = Audited::start("", &[]).await;
    let (root, file) = (&audited.guarded.root, &audited.file);
    root.user_add("alice", "a long password").await.unwrap();
    root.role_add("r").await.unwrap();
    root.role_grant("r", (Readwrite, "/k/", "/k0"))
        .await
        .unwrap();
    root.user_grant_role("alice", "r").await.unwrap();
    root.change_password("alice", "another long password")
        .await
        .unwrap();
    root.user_revoke_role("alice", "r").await.unwrap();
    root.role_revoke("r", "/k/", "/k0").await.unwrap();
    root.role_delete("r").await.unwrap();
    root.user_delete("alice").await.unwrap();
    // Of what was refused, too.
    root.user_delete("nobody").await.unwrap_err();
    root.alarm(pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Activate.into(),
        member_id: 0x2a,
        alarm: pb::AlarmType::Nospace.into(),
    })
    .await
    .unwrap();
    let expected = [
        ("Auth/UserAdd", "alice"),
        ("Auth/RoleAdd", "r"),
        ("Auth/RoleGrantPermission", "r, ReadWrite [/k/, /k0)"),
        ("Auth/UserGrantRole", "alice, role r"),
        ("Auth/UserChangePassword", "alice"),
        ("Auth/UserRevokeRole", "alice, role r"),
        ("Auth/RoleRevokePermission", "r, [/k/, /k0)"),
        ("Auth/RoleDelete", "r"),
        ("Auth/UserDelete", "alice"),
        ("Auth/UserDelete", "nobody"),
        ("Maintenance/Alarm", "2a, NoSpace"),
    ];
    let untold = async || {
        let records = file.records();
        let told = |rpc: &str, object: &str| {
            let mut of_root = records
                .iter()
                .filter(|record| record["principal"] == "root" && record["rpc"] == rpc);
            of_root.any(|record| record["object"] == object)
        };
        let untold = expected.iter().filter(|(rpc, object)| !told(rpc, object));
        untold
            .map(|(rpc, object)| format!("{rpc} of {object}"))
            .collect()
    };
    recorded("what was changed", untold).await;
}

#[tokio::test]
async fn the_log_names_the_lease_that_was_revoked() {
    holdfast_only!();
    let audited = Audited::start("", &[]).await;
    let (root, file) = (&audited.guarded.root, &audited.file);
    let request = pb::LeaseGrantRequest {
        ttl: 600,
        id: 0xbeef,
    };
    root.grant(request).await.unwrap();
    root.revoke(0xbeef).await.unwrap();
    let record = file.end_of("Lease/LeaseRevoke", "root").await;
    let object = record["object"].as_str().unwrap_or_default();
    assert_eq!(object.trim_start_matches('0'), "beef", "{record}");
}

#[tokio::test]
async fn one_change_of_a_password_at_a_time() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let alice = guarded.user("alice", &[(Readwrite, "a", "")]).await;
    let change = |turn: usize| {
        let alice = alice.clone();
        let password = format!("long password {turn}");
        tokio::spawn(async move { alice.change_password("alice", &password).await })
    };
    let changes: Vec<_> = (0..20).map(change).collect();
    // Others go on meanwhile.
    guarded.root.put(put("b", "1")).await.unwrap();
    let (mut refused, mut changed) = (0, Vec::new());
    for (turn, change) in changes.into_iter().enumerate() {
        match soon("an answer", change).await.unwrap() {
            Ok(_) => changed.push(turn),
            Err(status) if status.code() == Code::ResourceExhausted => {
                assert_eq!(status.message(), "etcdserver: too many requests");
                refused += 1;
            }
            // The first change has ended the token.
            status => turned_away(status),
        }
    }
    eprintln!("{refused} refused, changed by {changed:?}");
    assert!(refused > 0, "nobody was refused; changed by {changed:?}");
    let newest = changed.last().expect("one change went through");
    let password = format!("long password {newest}");
    let alice = guarded.root.login("alice", &password).await.unwrap();
    // The turn is free again, for any change.
    alice
        .change_password("alice", "the last password")
        .await
        .unwrap();
    let root = &guarded.root;
    root.change_password("alice", "by somebody else")
        .await
        .unwrap();
    root.user_delete("alice").await.unwrap();
}

#[tokio::test]
async fn nobody_is_told_how_much_was_written() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let (root, nobody) = (&guarded.root, guarded.anonymous());
    for _ in 0..3 {
        root.put(put("a", "1")).await.unwrap();
    }
    let open = nobody.auth_status().await.unwrap();
    assert!(open.enabled);
    assert_eq!(revision(&open.header), 0, "{open:?}");
    let refused = RawWatch::open(&nobody).create(watch_key("a")).await;
    unidentified(watch_refusal(&refused));
    assert_eq!(revision(&refused.header), 0, "{refused:?}");
    // Whoever is known is told.
    let told = root.auth_status().await.unwrap();
    assert_eq!(revision(&told.header), root.revision().await);
    let alice = guarded.user("alice", &[]).await;
    let refused = RawWatch::open(&alice).create(watch_key("a")).await;
    denied(watch_refusal(&refused));
    assert_eq!(revision(&refused.header), root.revision().await);
}

#[tokio::test]
async fn the_first_watch_of_a_process_gets_its_history() {
    holdfast_only!();
    let look = async |round: usize| {
        let started = tokio::task::spawn_blocking(Server::start).await;
        let server = started.unwrap();
        let raw = server.raw().await;
        for value in ["1", "2", "3"] {
            raw.put(put("/s/1", value)).await.unwrap();
        }
        let request = pb::WatchCreateRequest {
            start_revision: 1,
            ..watch_prefix("/s/")
        };
        let (mut watch, _) = RawWatch::on(&raw, request).await;
        let what = format!("the history, round {round}");
        let events = within(Duration::from_secs(5), &what, watch.events(3)).await;
        assert_eq!(events.len(), 3);
    };
    for round in 0..5 {
        let first = round * 3;
        tokio::join!(look(first), look(first + 1), look(first + 2));
    }
}

/// Opens a stream of keep-alives and asks for one.
async fn keep_alive(
    by: &Raw,
    id: i64,
) -> Result<
    (
        mpsc::Sender<pb::LeaseKeepAliveRequest>,
        Streaming<pb::LeaseKeepAliveResponse>,
    ),
    Status,
> {
    let (sender, receiver) = mpsc::channel(8);
    sender.send(pb::LeaseKeepAliveRequest { id }).await.unwrap();
    let requests = ReceiverStream::new(receiver);
    let answer = by.lease.clone().lease_keep_alive(requests).await?;
    Ok((sender, answer.into_inner()))
}

#[tokio::test]
async fn a_keep_alive_that_was_refused_is_recorded() {
    holdfast_only!();
    let audited = Audited::start("", &[]).await;
    let (guarded, file) = (&audited.guarded, &audited.file);
    let root = &guarded.root;
    let refused = async |who: &'static str| {
        let record = file
            .record("a refused keep-alive", |record| {
                record["rpc"] == "Lease/LeaseKeepAlive" && record["principal"] == who
            })
            .await;
        assert_eq!(record["class"], "denied", "{record}");
    };
    for id in [1, 2] {
        let request = pb::LeaseGrantRequest { ttl: 600, id };
        root.grant(request).await.unwrap();
    }
    root.put(put_leased("x", "1", 1)).await.unwrap();
    root.put(put_leased("a", "1", 2)).await.unwrap();
    // A lease with keys of others.
    let alice = guarded.user("alice", &[(Readwrite, "a", "")]).await;
    let (_open, mut answers) = keep_alive(&alice, 1).await.unwrap();
    denied(soon("a refusal", answers.message()).await);
    refused("alice").await;
    // A stream whose user goes away.
    let bob = guarded.user("bob", &[(Readwrite, "a", "")]).await;
    let (_open, mut answers) = keep_alive(&bob, 2).await.unwrap();
    let first = soon("a keep-alive", answers.message()).await.unwrap();
    assert_eq!(first.unwrap().ttl, 600);
    root.user_delete("bob").await.unwrap();
    turned_away(soon("the stream ends", answers.message()).await);
    refused("bob").await;
    // What is permitted is not told.
    let (_open, mut answers) = keep_alive(root, 2).await.unwrap();
    let first = soon("a keep-alive", answers.message()).await.unwrap();
    assert_eq!(first.unwrap().ttl, 600);
    root.put(put("mark", "1")).await.unwrap();
    file.end_of("KV/Put", "root").await;
    let of_root =
        |record: &Value| record["rpc"] == "Lease/LeaseKeepAlive" && record["principal"] == "root";
    assert!(!file.records().iter().any(of_root));
}
