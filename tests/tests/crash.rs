//! Load, SIGKILL at a random moment, restart: nothing acknowledged is lost, nothing half-done shows.
//!
//! `HOLDFAST_CRASH_ROUNDS` sets the number of rounds (20; 200 with `HOLDFAST_FULL=1`), `HOLDFAST_SEED` repeats the moments.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::{etcdserverpb as pb, mvccpb::Event};
use holdfast_tests::{
    Raw, RawWatch, Server, event_text, full_size,
    history::{History, mod_revision},
    watch_key,
    wire::{IntoOp, always, b, del_range, everything, put, put_leased, revision},
    within,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const WRITERS: usize = 6;
/// How many puts a txn of the load makes: all of them show at its revision, or none.
const TXN_PUTS: usize = 4;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// What a writer was told: the revision, and the events that it must have, as text.
type Acknowledged = Arc<Mutex<Vec<(i64, Vec<String>)>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_sigkill() {
    let rounds = number("HOLDFAST_CRASH_ROUNDS").unwrap_or(if full_size() { 200 } else { 20 });
    let seed = number("HOLDFAST_SEED").unwrap_or_else(|| rand::rng().random());
    eprintln!("HOLDFAST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::start();
    let mut history = History::default();
    let mut compacted = -1;
    let tag = Arc::new(AtomicU64::new(0));
    for round in 0..rounds {
        let acknowledged = Acknowledged::default();
        let (load, seen) = start_load(&server, &acknowledged, &tag, history.last_revision()).await;
        if round % 4 == 3 {
            // In the middle of the load, up to what was checked already.
            let raw = server.raw().await;
            let revision = (history.last_revision() - random.random_range(0..20)).max(1);
            if raw.compact(revision).await.is_ok() {
                compacted = compacted.max(revision);
            }
        }
        let moment = Duration::from_micros(random.random_range(1_000..400_000));
        tokio::time::sleep(moment).await;
        server.kill();
        for task in load {
            task.await.unwrap();
        }
        let seen = seen.await.unwrap();
        server.restart();

        let raw = server.raw().await;
        let last = raw.revision().await;
        let from = history.last_revision() + 1;
        history.extend(replay(&raw, from, last).await);
        check_acknowledged(&history, &acknowledged.lock().unwrap(), from);
        check_whole(&history, from);
        check_seen(&history, &seen, from);
        check_state(&raw, &history, compacted).await;
        eprintln!(
            "round {round}: killed after {moment:?}, {} writes acknowledged, revision {last}",
            acknowledged.lock().unwrap().len()
        );
    }
}

/// Starts writers and a watcher; each ends when the server is gone.
async fn start_load(
    server: &Server,
    acknowledged: &Acknowledged,
    tag: &Arc<AtomicU64>,
    known: i64,
) -> (
    Vec<tokio::task::JoinHandle<()>>,
    tokio::task::JoinHandle<Vec<Event>>,
) {
    let watcher = server.raw().await;
    let seen = tokio::spawn(async move {
        let mut watch = RawWatch::open(&watcher);
        watch
            .request(pb::WatchCreateRequest {
                range_end: b("\0"),
                start_revision: known + 1,
                ..watch_key("\0")
            })
            .await;
        let mut events = Vec::new();
        while let Ok(Some(answer)) = watch.message().await {
            events.extend(answer.events);
        }
        events
    });
    let mut load = Vec::new();
    for writer in 0..WRITERS {
        let raw = server.raw().await;
        let (acknowledged, tag) = (acknowledged.clone(), tag.clone());
        load.push(tokio::spawn(async move {
            while let Some(answer) =
                one_write(&raw, writer, tag.fetch_add(1, Ordering::Relaxed)).await
            {
                acknowledged.lock().unwrap().push(answer);
            }
        }));
    }
    (load, seen)
}

/// One write; `None` when the server is gone.
async fn one_write(raw: &Raw, writer: usize, tag: u64) -> Option<(i64, Vec<String>)> {
    let value = format!("{tag}");
    match tag % 7 {
        0 | 1 => {
            let ops = (0..TXN_PUTS).map(|index| put(&format!("t/{writer}/{index}"), &value).op());
            let answer = raw.txn(always(ops.collect())).await.ok()?;
            let at = revision(&answer.header);
            let events = (0..TXN_PUTS).map(|index| format!("+t/{writer}/{index}={value}@{at}"));
            Some((at, events.collect()))
        }
        2 => {
            // Its own keys only, so that it is known what goes.
            let key = format!("d/{writer}/{tag}");
            let first = raw.put(put(&key, &value)).await.ok()?;
            let answer = raw
                .delete(del_range(&format!("d/{writer}/"), &format!("d/{writer}0")))
                .await
                .ok()?;
            let at = revision(&answer.header);
            assert!(at > revision(&first.header));
            Some((at, vec![format!("-{key}@{at}")]))
        }
        3 => {
            let id = i64::try_from(tag).unwrap() + 1_000;
            raw.grant(pb::LeaseGrantRequest { ttl: 6_000, id })
                .await
                .ok()?;
            let key = format!("l/{writer}");
            let answer = raw.put(put_leased(&key, &value, id)).await.ok()?;
            let at = revision(&answer.header);
            Some((at, vec![format!("+{key}={value}@{at}")]))
        }
        _ => {
            let key = format!("p/{}", tag % 50);
            // Now and then a value of many pages.
            let value = if tag % 31 == 4 {
                value.repeat(5_000)
            } else {
                value
            };
            let answer = raw.put(put(&key, &value)).await.ok()?;
            let at = revision(&answer.header);
            Some((at, vec![format!("+{key}={value}@{at}")]))
        }
    }
}

/// The events of a watch from `from` up to `last`.
async fn replay(raw: &Raw, from: i64, last: i64) -> Vec<Event> {
    if from > last {
        return Vec::new();
    }
    let request = pb::WatchCreateRequest {
        range_end: b("\0"),
        start_revision: from,
        ..watch_key("\0")
    };
    let (mut watch, _) = RawWatch::on(raw, request).await;
    let mut events: Vec<Event> = Vec::new();
    while events.last().is_none_or(|event| mod_revision(event) < last) {
        let answer = watch.next().await;
        assert!(!answer.canceled, "{answer:?}");
        events.extend(answer.events);
    }
    events
}

/// Every acknowledged write is there, at its revision. (A delete of several leftovers has more events than its own.)
fn check_acknowledged(history: &History, acknowledged: &[(i64, Vec<String>)], from: i64) {
    for (at, expected) in acknowledged {
        assert!(*at >= from, "revision {at} was given before");
        let found: Vec<_> = history.at(*at).iter().map(event_text).collect();
        for event in expected {
            assert!(
                found.contains(event),
                "acknowledged {event}, found at {at}: {found:?}"
            );
        }
    }
}

/// A txn of the load is whole wherever any of it shows.
fn check_whole(history: &History, from: i64) {
    for at in from..=history.last_revision() {
        let events = history.at(at);
        assert!(!events.is_empty(), "revision {at} is empty");
        let of_txn = |event: &&Event| event.kv.as_ref().unwrap().key.starts_with(b"t/");
        let parts: Vec<_> = events.iter().filter(of_txn).collect();
        if !parts.is_empty() {
            assert_eq!(
                (parts.len(), events.len()),
                (TXN_PUTS, TXN_PUTS),
                "revision {at} in part"
            );
            let value = &parts[0].kv.as_ref().unwrap().value;
            assert!(
                parts
                    .iter()
                    .all(|event| event.kv.as_ref().unwrap().value == value)
            );
        }
    }
}

/// What a watcher saw before the kill was durable: it is in the history, in order, from its first event on.
fn check_seen(history: &History, seen: &[Event], from: i64) {
    let texts = |events: &[Event]| -> Vec<String> { events.iter().map(event_text).collect() };
    let since: Vec<_> = (from..=history.last_revision())
        .flat_map(|at| texts(history.at(at)))
        .collect();
    let seen = texts(seen);
    assert!(seen.len() <= since.len(), "more was seen than there is");
    assert_eq!(seen, since[..seen.len()], "what was seen is how it is");
}

/// The current state and its hash are those of the model.
async fn check_state(raw: &Raw, history: &History, compacted: i64) {
    let last = history.last_revision();
    let all = within(Duration::from_secs(60), "a range", raw.range(everything()))
        .await
        .unwrap();
    assert_eq!(revision(&all.header), last);
    let state: Vec<_> = history.state_at(last).into_values().collect();
    assert!(all.kvs == state, "the state is not what the events make");
    let hash = raw.hash_kv(0).await.unwrap();
    assert!(
        hash.compact_revision >= compacted,
        "an acknowledged compaction is gone"
    );
    assert_eq!(
        hash.hash,
        history.hash_kv(last, hash.compact_revision),
        "HashKV"
    );
}
