//! Clients that work.

use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    Raw,
    cluster::Cluster,
    observed::{Observer, Outcome, Recorder, Request},
    wire::{Against, IntoOp, b, cmp, del, get, prefix_end, put, put_leased, ranged, txn},
};
use pb::compare::CompareResult::{Equal, Greater};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

const CLIENTS: usize = 5;
/// How long a client waits for an answer.
const LIMIT: Duration = Duration::from_secs(2);
/// How long a set of registers is in use: calls whose outcome stays unknown make checks of a key costly.
const EPOCH: Duration = Duration::from_secs(3);

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Puts, gets, deletes, transactions, leases.
    Plain,
    /// What an API server does: guarded creates, updates and deletes, lists in pages, keys with leases.
    Kubernetes,
}

impl Kind {
    /// Where most of the keys are that it writes to.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Plain => "k/r/",
            Self::Kubernetes => "k/pods/",
        }
    }
}

/// Clients at work, and compactions behind them.
pub(crate) struct Load {
    pub(crate) recorder: Recorder,
    stubs: Vec<Raw>,
    values: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    compactor: JoinHandle<()>,
    compacting: Arc<AtomicBool>,
    compacted: Arc<AtomicI64>,
    slowest: JoinHandle<()>,
}

struct Client {
    number: usize,
    stubs: Vec<Raw>,
    at: usize,
    recorder: Recorder,
    values: Arc<AtomicU64>,
    random: StdRng,
    began: Instant,
    /// Where a key was last, as far as this client knows.
    known: HashMap<String, i64>,
    guarded: bool,
}

impl Load {
    pub(crate) fn start(
        cluster: &Cluster,
        kind: Kind,
        auth: bool,
        observers: &[Observer],
        seed: u64,
    ) -> Self {
        let recorder = Recorder::default();
        let done = Arc::new(AtomicBool::new(false));
        let values = Arc::new(AtomicU64::new(0));
        let workers = cluster.all().into_iter();
        let stubs: Vec<_> = workers
            .map(|index| cluster.raw_as(index, "worker"))
            .collect();
        let client = |number: usize| Client {
            number,
            stubs: stubs.clone(),
            at: number,
            recorder: recorder.clone(),
            values: values.clone(),
            random: StdRng::seed_from_u64(seed.wrapping_add(u64::try_from(number).unwrap())),
            began: Instant::now(),
            known: HashMap::new(),
            guarded: auth,
        };
        let clients =
            (0..CLIENTS).map(|number| tokio::spawn(client(number).work(kind, done.clone())));
        let clients = clients.collect();
        let compacted = Arc::new(AtomicI64::new(0));
        let compacting = Arc::new(AtomicBool::new(true));
        let floor = Arc::new(AtomicI64::new(0));
        let lasts: Vec<_> = observers.iter().map(Observer::progress).collect();
        let slowest = tokio::spawn({
            let floor = floor.clone();
            async move {
                loop {
                    let slowest = lasts.iter().map(|last| last()).min();
                    floor.store(slowest.unwrap_or(0), Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        let roots: Vec<_> = cluster
            .all()
            .into_iter()
            .map(|index| cluster.raw(index))
            .collect();
        let compactor = tokio::spawn(compact(roots, floor, compacted.clone(), compacting.clone()));
        Self {
            stubs,
            values,
            recorder,
            done,
            clients,
            compactor,
            compacting,
            compacted,
            slowest,
        }
    }

    /// Writes values of 32 KiB until this many bytes were taken or refused.
    pub(crate) async fn write_much(&self, bytes: usize) {
        let large = "v".repeat(32_768);
        for index in 0..bytes / large.len() {
            let at = index % self.stubs.len();
            let number = self.values.fetch_add(1, Ordering::Relaxed);
            let request = put(
                &format!("k/much/{}", index % 8),
                &format!("{number}{large}"),
            );
            let member = (at, &self.stubs[at]);
            self.recorder
                .call(CLIENTS, member, Request::Put(request), LIMIT)
                .await;
        }
    }

    /// Ends the compactions; gives the highest revision that one was asked for.
    pub(crate) async fn stop_compactions(&self) -> i64 {
        self.compacting.store(false, Ordering::Relaxed);
        while !self.compactor.is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.slowest.abort();
        self.compacted.load(Ordering::Relaxed)
    }

    /// Ends the clients; gives what they saw.
    pub(crate) async fn stop(self) -> Recorder {
        self.done.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        self.recorder
    }
}

/// Compacts now and then, behind all watchers: each of them has to see everything.
async fn compact(
    roots: Vec<Raw>,
    floor: Arc<AtomicI64>,
    compacted: Arc<AtomicI64>,
    going: Arc<AtomicBool>,
) {
    for round in 0_usize.. {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if !going.load(Ordering::Relaxed) {
                return;
            }
        }
        let revision = floor.load(Ordering::Relaxed) - 20;
        if revision > compacted.load(Ordering::Relaxed) {
            // Before the call: it may be done without being answered.
            compacted.store(revision, Ordering::Relaxed);
            let call = roots[round % roots.len()].compact(revision);
            let _ = tokio::time::timeout(LIMIT, call).await;
        }
    }
}

impl Client {
    async fn work(mut self, kind: Kind, done: Arc<AtomicBool>) {
        while !done.load(Ordering::Relaxed) {
            let outcome = match kind {
                Kind::Plain => self.plain().await,
                Kind::Kubernetes => self.kubernetes().await,
            };
            if matches!(outcome, Outcome::Unknown) {
                self.at += 1;
                tokio::time::sleep(Duration::from_millis(40)).await;
            } else if self.random.random_ratio(1, 10) {
                self.at += 1;
            }
            // The checks want many situations, not many calls.
            let pause = self.random.random_range(1..8);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// A value that nobody else puts.
    fn value(&self) -> String {
        let next = self.values.fetch_add(1, Ordering::Relaxed);
        format!("{}-{next}", self.number)
    }

    async fn call(&mut self, request: Request) -> Outcome {
        let at = self.at % self.stubs.len();
        let member = (at, &self.stubs[at]);
        self.recorder
            .call(self.number, member, request, LIMIT)
            .await
    }

    async fn plain(&mut self) -> Outcome {
        let epoch = self.began.elapsed().as_secs() / EPOCH.as_secs();
        let register = format!("k/r/{epoch}/{}", self.random.random_range(0..3));
        let value = self.value();
        match self.random.random_range(0..40) {
            0..9 => self.call(Request::Put(put(&register, &value))).await,
            9..18 => self.call(Request::Range(get(&register))).await,
            18..20 => self.call(Request::Delete(del(&register))).await,
            20..23 => {
                let request = pb::PutRequest {
                    prev_kv: true,
                    ..put(&format!("k/p/{}", self.random.random_range(0..8)), &value)
                };
                self.call(Request::Put(request)).await
            }
            23..26 => {
                // All three, or none.
                let ops = (0..3).map(|index| put(&format!("k/t/{index}"), &value).op());
                let read = vec![get("k/t/0").op()];
                let compare = cmp("k/p/0", Greater, Against::Version(0));
                self.call(Request::Txn(txn(vec![compare], ops.collect(), read)))
                    .await
            }
            26 => {
                let ops = vec![
                    del("k/t/1").op(),
                    put("k/t/1", &value).op(),
                    get("k/t/1").op(),
                ];
                // A key may be changed once in a transaction, so this one is refused whole.
                self.call(Request::Txn(txn(vec![], ops, vec![]))).await
            }
            27..29 => {
                let request = pb::DeleteRangeRequest {
                    prev_kv: true,
                    range_end: prefix_end(b"k/p/"),
                    ..del("k/p/")
                };
                self.call(Request::Delete(request)).await
            }
            29..34 => self.list("k/p/", true).await,
            34..38 => self.list("k/", false).await,
            38 => self.lease().await,
            _ => self.forbidden(&value).await,
        }
    }

    /// A range in key order.
    async fn list(&mut self, prefix: &str, local: bool) -> Outcome {
        let request = pb::RangeRequest {
            range_end: prefix_end(prefix.as_bytes()),
            serializable: local,
            limit: self.random.random_range(0..6),
            ..get(prefix)
        };
        self.call(Request::Range(request)).await
    }

    /// A key that ends with its lease, whether it is kept for a while, revoked or forgotten.
    async fn lease(&mut self) -> Outcome {
        let id = i64::try_from(self.values.fetch_add(1, Ordering::Relaxed)).unwrap() + 1;
        let ttl = self.random.random_range(2..4);
        let granted = self
            .call(Request::Grant(pb::LeaseGrantRequest { ttl, id }))
            .await;
        if !matches!(granted, Outcome::Lease(_)) {
            return granted;
        }
        let (key, value) = (format!("k/l/{id}"), self.value());
        let mut outcome = self.call(Request::Put(put_leased(&key, &value, id))).await;
        let fate = self.random.random_range(0..3);
        if fate == 0 {
            outcome = self.call(Request::Revoke(id)).await;
        } else if fate == 1 {
            for _ in 0..6 {
                tokio::time::sleep(Duration::from_millis(500)).await;
                outcome = self.call(Request::Renew(id)).await;
                if matches!(outcome, Outcome::Unknown) {
                    self.at += 1;
                }
            }
        }
        outcome
    }

    /// A put that nobody may make.
    async fn forbidden(&mut self, value: &str) -> Outcome {
        if !self.guarded {
            return self.list("k/r/", false).await;
        }
        let outcome = self.call(Request::Put(put("forbidden", value))).await;
        assert!(
            !matches!(outcome, Outcome::Put(_)),
            "a forbidden put was done"
        );
        outcome
    }

    async fn kubernetes(&mut self) -> Outcome {
        let pod = format!(
            "k/pods/ns{}/p{}",
            self.random.random_range(0..3),
            self.random.random_range(0..5)
        );
        match self.random.random_range(0..48) {
            0..10 => self.guarded_put(&pod, 0).await,
            10..25 => match self.known.get(&pod).copied() {
                Some(at) => self.guarded_put(&pod, at).await,
                None => self.read(&pod).await,
            },
            25..31 => match self.known.remove(&pod) {
                Some(at) => self.guarded_delete(&pod, at).await,
                None => self.read(&pod).await,
            },
            31..37 => self.read(&pod).await,
            37..45 => self.pages("k/pods/").await,
            45 => self.lease().await,
            _ => {
                let value = self.value();
                self.forbidden(&value).await
            }
        }
    }

    async fn read(&mut self, pod: &str) -> Outcome {
        let outcome = self.call(Request::Range(get(pod))).await;
        if let Outcome::Range(answer) = &outcome {
            self.learn(pod, answer);
        }
        outcome
    }

    fn learn(&mut self, pod: &str, answer: &pb::RangeResponse) {
        match answer.kvs.first() {
            Some(kv) => self.known.insert(pod.to_owned(), kv.mod_revision),
            None => self.known.remove(pod),
        };
    }

    /// Creates (at 0) or updates what was last seen at a revision; reads what is there otherwise.
    async fn guarded_put(&mut self, pod: &str, at: i64) -> Outcome {
        let write = vec![put(pod, &self.value()).op()];
        self.guarded(pod, at, write).await
    }

    async fn guarded_delete(&mut self, pod: &str, at: i64) -> Outcome {
        self.guarded(pod, at, vec![del(pod).op()]).await
    }

    async fn guarded(&mut self, pod: &str, at: i64, write: Vec<pb::RequestOp>) -> Outcome {
        let compare = cmp(pod, Equal, Against::Mod(at));
        let deletes = write.iter().any(|op| {
            matches!(
                op.request,
                Some(pb::request_op::Request::RequestDeleteRange(_))
            )
        });
        let outcome = self
            .call(Request::Txn(txn(vec![compare], write, vec![get(pod).op()])))
            .await;
        match &outcome {
            Outcome::Txn(answer) if !answer.succeeded => {
                let found = ranged(answer, 0).clone();
                self.learn(pod, &found);
            }
            Outcome::Txn(answer) if !deletes => {
                let at = answer.header.as_ref().unwrap().revision;
                self.known.insert(pod.to_owned(), at);
            }
            _ => {
                self.known.remove(pod);
            }
        }
        outcome
    }

    /// A list of several pages, all at the revision of the first.
    async fn pages(&mut self, prefix: &str) -> Outcome {
        let mut request = pb::RangeRequest {
            range_end: prefix_end(prefix.as_bytes()),
            limit: 4,
            ..get(prefix)
        };
        loop {
            let outcome = self.call(Request::Range(request.clone())).await;
            let Outcome::Range(answer) = &outcome else {
                return outcome;
            };
            let Some(last) = answer.kvs.last().filter(|_| answer.more) else {
                return outcome;
            };
            if request.revision == 0 {
                request.revision = answer.header.as_ref().unwrap().revision;
            }
            request.key = [&last.key[..], b"\0"].concat().into();
            assert!(request.key < request.range_end && b(prefix) < request.key);
        }
    }
}
