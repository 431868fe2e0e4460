//! Runs a program on two servers and compares what they answer.
//!
//! Left out of the comparison: member and cluster ids, terms, and the batching of watch answers. What releases of etcd before
//! 3.6 or 3.7 answer otherwise is listed in [`Era`].

use crate::program::{LEASES, Step, resolve, resolve_range, resolve_txn};
use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    Raw, RawWatch, Server, event_text,
    wire::{put, revision},
};
use pb::response_op::Response;
use std::{
    fmt::Debug,
    time::{Duration, Instant},
};
use tonic::Status;

/// Where the two servers part.
#[derive(Debug)]
pub(crate) struct Mismatch {
    pub(crate) step: usize,
    pub(crate) ours: String,
    pub(crate) theirs: String,
}

/// What the real etcd is too old for.
#[derive(Clone, Copy, Debug)]
struct Era {
    /// Before 3.7: a keys_only range still carries leases; there is no RangeStream.
    before_3_7: bool,
    /// Before 3.6: no hash_revision; rows at the compacted revision are hashed otherwise; a watch may start at a negative
    /// revision; progress may be told before the events; an unknown sort target ends the process.
    before_3_6: bool,
}

impl Era {
    fn of(version: &str) -> Self {
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0_u32));
        let release = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        Self {
            before_3_7: release < (3, 7),
            before_3_6: release < (3, 6),
        }
    }
}

struct Watching {
    stream: RawWatch,
    /// Whether events may still come, and progress can be asked for.
    live: bool,
    waits_for: i64,
    events: Vec<String>,
    controls: Vec<String>,
}

struct Side {
    raw: Raw,
    era: Era,
    watches: Vec<Watching>,
}

/// Runs the steps; the first difference ends it.
pub(crate) async fn run(ours: &Server, theirs: &Server, steps: &[Step]) -> Result<(), Mismatch> {
    let their_raw = theirs.raw().await;
    let era = Era::of(&their_raw.status().await.unwrap().version);
    let side = |raw| Side {
        raw,
        era,
        watches: Vec::new(),
    };
    let mut sides = (side(ours.raw().await), side(their_raw));
    let mut compacted = false;
    for (index, step) in steps.iter().enumerate() {
        if matches!(step, Step::Compact(_)) {
            settle(&mut sides, index).await?;
            compacted = true;
        }
        if !runs_in(era, step, compacted) {
            continue;
        }
        let current = sides.1.raw.revision().await;
        // After a compaction at 0 etcd 3.7.1 answers HashKV sometimes with the mark before it; compaction.rs has this case alone.
        if matches!(step, Step::Compact(relative) if resolve(*relative, current) == 0) {
            continue;
        }
        let answers = (
            sides.0.step(step.clone(), current).await,
            sides.1.step(step.clone(), current).await,
        );
        equal(index, answers)?;
    }
    // Watches of the future have their start behind them after these.
    for _ in 0..3 {
        sides.0.raw.put(put("zz", "")).await.unwrap();
        sides.1.raw.put(put("zz", "")).await.unwrap();
    }
    settle(&mut sides, steps.len().saturating_sub(1)).await
}

fn runs_in(era: Era, step: &Step, compacted: bool) -> bool {
    match step {
        // Without an order etcd sorts each message by the target, wherever it happens to cut; ours are in key order
        // (docs/DIFFERENCES.md).
        Step::RangeStream(request) => {
            let accident = request.sort_order == 0 && request.sort_target != 0;
            !era.before_3_7 && !accident
        }
        Step::HashKv => !(era.before_3_6 && compacted),
        Step::Watch(request) => !(era.before_3_6 && request.start_revision < 0),
        Step::Range(request) => !(era.before_3_6 && unknown_sort(request)),
        Step::Txn(request) => !(era.before_3_6 && sorts_unknown(request)),
        _ => true,
    }
}

fn unknown_sort(request: &pb::RangeRequest) -> bool {
    pb::range_request::SortTarget::try_from(request.sort_target).is_err()
}

fn sorts_unknown(txn: &pb::TxnRequest) -> bool {
    use pb::request_op::Request;
    txn.success
        .iter()
        .chain(&txn.failure)
        .any(|op| match &op.request {
            Some(Request::RequestRange(range)) => unknown_sort(range),
            Some(Request::RequestTxn(inner)) => sorts_unknown(inner),
            _ => false,
        })
}

fn equal(step: usize, (ours, theirs): (String, String)) -> Result<(), Mismatch> {
    if ours == theirs {
        return Ok(());
    }
    Err(Mismatch { step, ours, theirs })
}

/// Waits until the watches of both sides have told the same; a difference that stays is a mismatch.
async fn settle(sides: &mut (Side, Side), step: usize) -> Result<(), Mismatch> {
    sides.0.fence().await;
    sides.1.fence().await;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let views = (sides.0.view(), sides.1.view());
        if views.0 == views.1 {
            return Ok(());
        }
        if Instant::now() > deadline {
            let first = views
                .0
                .iter()
                .zip(&views.1)
                .find(|(left, right)| left != right);
            let (ours, theirs) = first.unwrap();
            return equal(step, (ours.clone(), theirs.clone()));
        }
        sides.0.read().await;
        sides.1.read().await;
    }
}

impl Side {
    async fn step(&mut self, step: Step, current: i64) -> String {
        let raw = self.raw.clone();
        match step {
            Step::Put(request) => text(raw.put(request).await, |answer| {
                plain(&mut answer.header);
            }),
            Step::Delete(request) => text(raw.delete(request).await, |answer| {
                plain(&mut answer.header);
            }),
            Step::Range(request) => {
                let request = resolve_range(request, current);
                let era = self.era;
                text(raw.range(request.clone()).await, |answer| {
                    plain_range(answer, &request, era);
                })
            }
            Step::RangeStream(request) => {
                let request = resolve_range(request, current);
                let mut merged = raw.range_chunks(request).await.map(|chunks| {
                    let last = chunks.last().cloned().unwrap_or_default();
                    let kvs = chunks.into_iter().flat_map(|chunk| chunk.kvs).collect();
                    pb::RangeResponse { kvs, ..last }
                });
                if let Ok(answer) = &mut merged {
                    plain(&mut answer.header);
                }
                text(merged, |_| {})
            }
            Step::Txn(request) => {
                let request = resolve_txn(request, current);
                let era = self.era;
                text(raw.txn(request.clone()).await, |answer| {
                    plain_txn(answer, &request, era);
                })
            }
            Step::Compact(relative) => {
                let request = pb::CompactionRequest {
                    revision: resolve(relative, current),
                    physical: true,
                };
                text(raw.compaction(request).await, |answer| {
                    plain(&mut answer.header)
                })
            }
            Step::Grant(id) => {
                let request = pb::LeaseGrantRequest { ttl: 3_000, id };
                text(raw.grant(request).await, |answer| plain(&mut answer.header))
            }
            Step::Revoke(id) => text(raw.revoke(id).await, |answer| plain(&mut answer.header)),
            Step::TimeToLive(id) => {
                let request = pb::LeaseTimeToLiveRequest { id, keys: true };
                text(raw.time_to_live(request).await, |answer| {
                    plain(&mut answer.header);
                    answer.keys.sort();
                    // A second may pass between the two.
                    answer.ttl = answer.ttl.signum();
                })
            }
            Step::Leases => text(raw.leases().await, |leases| {
                leases.sort_unstable();
                assert!(leases.iter().all(|lease| LEASES.contains(lease)));
            }),
            Step::HashKv => {
                let era = self.era;
                text(raw.hash_kv(0).await, |answer| {
                    plain(&mut answer.header);
                    if era.before_3_6 {
                        answer.hash_revision = 0;
                    }
                })
            }
            Step::Watch(request) => self.watch(request, current).await,
            Step::Cancel(number) => self.cancel(number).await,
        }
    }

    async fn watch(&mut self, mut request: pb::WatchCreateRequest, current: i64) -> String {
        request.start_revision = resolve(request.start_revision, current);
        let mut stream = RawWatch::open(&self.raw);
        stream.request(request.clone()).await;
        let mut created = stream.next().await;
        plain(&mut created.header);
        self.watches.push(Watching {
            stream,
            live: !created.canceled,
            waits_for: request.start_revision,
            events: Vec::new(),
            controls: Vec::new(),
        });
        format!("{created:?}")
    }

    async fn cancel(&mut self, number: usize) -> String {
        if self.watches.is_empty() {
            return String::new();
        }
        self.fence().await;
        let number = number % self.watches.len();
        let watch = &mut self.watches[number];
        if watch.live {
            watch.stream.cancel(0).await;
            while watch.live {
                let answer = watch.stream.next().await;
                watch.take(answer);
            }
        }
        format!("{:?}", watch.controls)
    }

    /// Reads until every watch that can be is told its progress up to the current revision. What is too old for that is given
    /// time instead: its watches catch up every 100 ms.
    async fn fence(&mut self) {
        if self.era.before_3_6 {
            let until = Instant::now() + Duration::from_millis(250);
            while !self.watches.is_empty() && Instant::now() < until {
                self.read().await;
            }
            return;
        }
        let current = self.raw.revision().await;
        let deadline = Instant::now() + Duration::from_secs(10);
        for watch in &mut self.watches {
            let mut told = false;
            while watch.live && watch.waits_for <= current && !told {
                assert!(
                    Instant::now() < deadline,
                    "a watch is not told its progress"
                );
                watch.stream.progress().await;
                while let Some(answer) = watch.stream.next_within(Duration::from_millis(150)).await
                {
                    if answer.watch_id == -1 && !answer.canceled {
                        told = revision(&answer.header) >= current;
                        break;
                    }
                    watch.take(answer);
                }
            }
        }
    }

    /// Takes what has come by now, and gives the rest a moment.
    async fn read(&mut self) {
        for watch in &mut self.watches {
            while watch.live
                && let Some(answer) = watch.stream.next_within(Duration::ZERO).await
            {
                watch.take(answer);
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    fn view(&self) -> Vec<String> {
        let views = self.watches.iter();
        views
            .map(|watch| format!("{:?} {:?}", watch.events, watch.controls))
            .collect()
    }
}

impl Watching {
    fn take(&mut self, answer: pb::WatchResponse) {
        for event in &answer.events {
            let previous = event.prev_kv.as_ref();
            let previous = previous.map(|kv| (kv.value.clone(), kv.mod_revision, kv.version));
            let kv = event.kv.as_ref().unwrap();
            let life = (kv.create_revision, kv.version, kv.lease);
            self.events
                .push(format!("{} {life:?} {previous:?}", event_text(event)));
        }
        if answer.canceled {
            self.live = false;
            self.controls.push(format!(
                "cancelled {} {:?}",
                answer.compact_revision, answer.cancel_reason
            ));
        }
    }
}

fn text<T: Debug>(answer: Result<T, Status>, plain: impl FnOnce(&mut T)) -> String {
    match answer {
        Ok(mut answer) => {
            plain(&mut answer);
            format!("{answer:?}")
        }
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

fn plain(header: &mut Option<pb::ResponseHeader>) {
    if let Some(header) = header {
        (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
    }
}

fn plain_range(answer: &mut pb::RangeResponse, request: &pb::RangeRequest, era: Era) {
    plain(&mut answer.header);
    if era.before_3_7 && request.keys_only {
        for kv in &mut answer.kvs {
            kv.lease = 0;
        }
    }
}

fn plain_txn(answer: &mut pb::TxnResponse, request: &pb::TxnRequest, era: Era) {
    use pb::request_op::Request;
    plain(&mut answer.header);
    let arm = if answer.succeeded {
        &request.success
    } else {
        &request.failure
    };
    for (response, op) in answer.responses.iter_mut().zip(arm) {
        match (&mut response.response, &op.request) {
            (Some(Response::ResponseRange(range)), Some(Request::RequestRange(asked))) => {
                plain_range(range, asked, era);
            }
            (Some(Response::ResponseTxn(txn)), Some(Request::RequestTxn(asked))) => {
                plain_txn(txn, asked, era);
            }
            _ => {}
        }
    }
}
