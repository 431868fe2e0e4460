//! Damaged files: a server that is started on them recovers everything, or refuses and names the file and the place. (For the
//! tables of the store, which the engine beneath checks by itself, the place is the store's folder. Their loss is never silent.)
//!
//! After a known workload and a SIGKILL the data directory is copied and one file of the copy damaged: cut short, a byte changed,
//! a page zeroed. 60 damages, 1,000 with `HOLDFAST_FULL=1`; `HOLDFAST_SEED` repeats them.
//!
//! One loss can not be told from a write that never was acknowledged: that of the end of the log, when nothing valid follows
//! the damage. It is allowed only where the server says what it cut, and only of the last record unless the file was cut short.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_proto::mvccpb::Event;
use holdfast_tests::{
    Raw, RawWatch, Server, ServerOptions, copy_folder, full_size,
    history::History,
    holdfast_only, watch_key,
    wire::{IntoOp, always, b, del, everything, put, revision},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    env, fs,
    path::{Path, PathBuf},
};

#[derive(Clone, Copy, Debug)]
enum Damage {
    CutAt(u64),
    /// XORs the byte at an offset.
    Flip(u64, u8),
    /// Zeroes the page of 4 KiB at an offset.
    ZeroPage(u64),
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Recovered,
    Refused,
    /// The end of the log was cut, and said to be: how many revisions went.
    SaidCut(i64),
}

#[derive(Default, Debug)]
struct Tally {
    recovered: usize,
    refused: usize,
    said_cut: usize,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Recovered => self.recovered += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::SaidCut(_) => self.said_cut += 1,
        }
    }
}

/// Puts of several sizes, deletes and txns, each acknowledged before the next.
async fn workload(raw: &Raw) -> i64 {
    let mut last = 1;
    for index in 0..200 {
        let answer = match index % 10 {
            7 => {
                let answer = raw
                    .delete(del(&format!("k{}", (index - 3) % 20)))
                    .await
                    .unwrap();
                answer.header
            }
            9 => {
                let ops = (0..5).map(|part| put(&format!("t{part}"), &format!("{index}")).op());
                raw.txn(always(ops.collect())).await.unwrap().header
            }
            _ => {
                let value = format!("{index}-").repeat(1 + index % 40 * 8);
                raw.put(put(&format!("k{}", index % 20), &value))
                    .await
                    .unwrap()
                    .header
            }
        };
        last = revision(&answer);
    }
    last
}

async fn history(raw: &Raw) -> History {
    let last = raw.revision().await;
    let mut history = History::default();
    let request = holdfast_proto::etcdserverpb::WatchCreateRequest {
        range_end: b("\0"),
        start_revision: 1,
        ..watch_key("\0")
    };
    let (mut watch, _) = RawWatch::on(raw, request).await;
    while history.last_revision() < last {
        let events: Vec<Event> = watch.next().await.events;
        history.extend(events);
    }
    history
}

/// The files below a folder with anything in them.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if fs::metadata(&path).unwrap().len() > 0 {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Where the content of a file ends: behind it are only the zeros that were written ahead.
fn content_end(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap();
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    end as u64
}

fn damage(path: &Path, damage: Damage) -> bool {
    let mut bytes = fs::read(path).unwrap();
    let before = bytes.clone();
    match damage {
        Damage::CutAt(at) => bytes.truncate(at as usize),
        Damage::Flip(at, mask) => bytes[at as usize] ^= mask,
        Damage::ZeroPage(at) => {
            let from = at as usize / 4096 * 4096;
            let to = (from + 4096).min(bytes.len());
            bytes[from..to].fill(0);
        }
    }
    fs::write(path, &bytes).unwrap();
    bytes != before
}

fn any_damage(random: &mut StdRng, path: &Path) -> Damage {
    let end = content_end(path).max(1);
    match random.random_range(0..3) {
        0 => Damage::CutAt(random.random_range(0..end)),
        1 => Damage::Flip(random.random_range(0..end), random.random_range(1..=255)),
        _ => Damage::ZeroPage(random.random_range(0..end)),
    }
}

/// Whether a log line tells what is damaged.
fn names(line: &str, relative: &Path, exactly: bool) -> bool {
    let folder = relative.parent().unwrap().to_string_lossy();
    if exactly {
        line.contains(&*relative.to_string_lossy()) && line.contains("offset")
    } else {
        let top = folder.split('/').next().unwrap();
        line.contains(&format!("/{top}/")) || line.contains(&format!("/{top}:"))
    }
}

/// Starts a server on the damaged copy and judges what it does.
async fn outcome(
    copy: &Path,
    relative: &Path,
    exactly: bool,
    history: &History,
) -> Result<Outcome, String> {
    let last = history.last_revision();
    let server = match Server::try_start(ServerOptions::new().data(copy.to_owned())) {
        Ok(server) => server,
        Err(exit) => {
            if !exit.failed() || exit.says("panicked") {
                return Err(format!(
                    "it did not refuse in order: {:?} {:#?}",
                    exit.status, exit.log
                ));
            }
            if !exit.log.iter().any(|line| names(line, relative, exactly)) {
                return Err(format!(
                    "the refusal does not name the file and the offset: {:#?}",
                    exit.log
                ));
            }
            return Ok(Outcome::Refused);
        }
    };
    let raw = server.raw().await;
    let current = raw.revision().await;
    if current > last {
        return Err(format!("revision {current} of {last}"));
    }
    let state: Vec<_> = history.state_at(current).into_values().collect();
    let all = raw
        .range(everything())
        .await
        .map_err(|error| error.to_string())?;
    if all.kvs != state {
        return Err(format!(
            "the state at {current} is not that of the workload"
        ));
    }
    let hash = raw.hash_kv(0).await.map_err(|error| error.to_string())?;
    if hash.hash != history.hash_kv(current, hash.compact_revision) {
        return Err(format!(
            "the rows at {current} are not those of the workload"
        ));
    }
    // It must go on as a server does.
    raw.put(put("after", "v"))
        .await
        .map_err(|error| error.to_string())?;
    if current == last {
        return Ok(Outcome::Recovered);
    }
    let lines = server.log().lines();
    let said = lines.iter().any(|line| names(line, relative, true));
    if !said {
        return Err(format!("{} revisions are silently lost", last - current));
    }
    Ok(Outcome::SaidCut(last - current))
}

struct Original {
    server: Server,
    history: History,
}

impl Original {
    async fn make(restart: bool) -> Self {
        let mut server = Server::start();
        let raw = server.raw().await;
        let last = workload(&raw).await;
        let history = history(&raw).await;
        assert_eq!(history.last_revision(), last);
        if restart {
            // An orderly stop brings the rows from the log to the store.
            server.terminate();
            server.restart();
        }
        server.kill();
        Self { server, history }
    }

    async fn try_one(&self, relative: &Path, exactly: bool, with: Damage) -> Option<Outcome> {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        copy_folder(&self.server.data_dir(), &data);
        if !damage(&data.join(relative), with) {
            return None;
        }
        match outcome(&data, relative, exactly, &self.history).await {
            Ok(outcome) => {
                if let Outcome::SaidCut(lost) = outcome {
                    let cut = matches!(with, Damage::CutAt(_));
                    assert!(
                        cut || lost <= 1,
                        "{relative:?} {with:?}: {lost} revisions cut off"
                    );
                }
                Some(outcome)
            }
            Err(reason) => panic!("{} {with:?}: {reason}", relative.display()),
        }
    }

    fn in_folder(&self, folder: &str) -> Vec<PathBuf> {
        let root = self.server.data_dir();
        let found = files(&root.join(folder));
        assert!(!found.is_empty(), "no files in {folder}/");
        found
            .into_iter()
            .map(|path| path.strip_prefix(&root).unwrap().to_owned())
            .collect()
    }
}

fn seed() -> u64 {
    let given = env::var("HOLDFAST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| rand::rng().random());
    eprintln!("HOLDFAST_SEED={seed}");
    seed
}

/// Damages files of a folder that `chosen` takes, one at a time.
async fn damages(folder: &str, chosen: fn(&Path) -> bool, exactly: bool, count: usize) {
    let mut random = StdRng::seed_from_u64(seed());
    // With and without the rows in the store.
    for restart in [false, true] {
        let original = Original::make(restart).await;
        let root = original.server.data_dir();
        let mut files = original.in_folder(folder);
        files.retain(|path| chosen(path));
        assert!(!files.is_empty(), "no such file in {folder}/");
        let mut tally = Tally::default();
        for _ in 0..count / 2 {
            let relative = &files[random.random_range(0..files.len())];
            let with = any_damage(&mut random, &root.join(relative));
            if let Some(outcome) = original.try_one(relative, exactly, with).await {
                tally.add(&outcome);
            }
        }
        eprintln!("{folder}/ ({} files): {tally:?}", files.len());
    }
}

fn is_journal(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jnl")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_logs() {
    holdfast_only!();
    damages("log", |_| true, true, if full_size() { 400 } else { 20 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_store_journals() {
    holdfast_only!();
    damages(
        "store",
        is_journal,
        true,
        if full_size() { 300 } else { 16 },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_store_tables() {
    holdfast_only!();
    let count = if full_size() { 300 } else { 16 };
    damages("store", |path| !is_journal(path), false, count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_log_at_every_place() {
    holdfast_only!();
    let original = Original::make(false).await;
    let root = original.server.data_dir();
    let with_content = |path: &PathBuf| content_end(&root.join(path)) > 64;
    let log = original
        .in_folder("log")
        .into_iter()
        .rfind(with_content)
        .unwrap();
    let end = content_end(&root.join(&log));
    // The last record and what lies around it, byte by byte in the full run.
    let step = if full_size() { 1 } else { 29 };
    let mut tally = Tally::default();
    for at in (end.saturating_sub(400)..end + 8).step_by(step) {
        if let Some(outcome) = original.try_one(&log, true, Damage::CutAt(at)).await {
            tally.add(&outcome);
        }
    }
    eprintln!("cuts at the end of {}: {tally:?}", log.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_missing_are_named() {
    holdfast_only!();
    let original = Original::make(true).await;
    for relative in original.in_folder("log") {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        copy_folder(&original.server.data_dir(), &data);
        fs::remove_file(data.join(&relative)).unwrap();
        match Server::try_start(ServerOptions::new().data(data)) {
            Err(exit) => assert!(exit.failed() && !exit.says("panicked"), "{exit:#?}"),
            Ok(server) => {
                // A file that held nothing that is still needed (a spare segment) may go.
                let raw = server.raw().await;
                let last = original.history.last_revision();
                assert_eq!(raw.revision().await, last, "without {}", relative.display());
                let all = raw.range(everything()).await.unwrap();
                assert_eq!(all.kvs.len(), original.history.state_at(last).len());
            }
        }
    }
}
