//! Clients work while members are killed, paused, cut off, slowed down, filled up and replaced; what all of them saw must fit
//! into one history.
//!
//! `HOLDFAST_FAULT_SECONDS` sets how long the faults of each test go on (12; 600 with `HOLDFAST_FULL=1`), in rounds of at most a
//! minute with a new cluster each. `HOLDFAST_SEED` repeats the choice of faults, `HOLDFAST_FAULT` makes all of them the one kind.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a panic is the report of a failure"
)]

mod churn;
mod faults;
mod traffic;

use faults::Fault;
use holdfast_proto::{authpb, etcdserverpb as pb};
use holdfast_tests::{
    PATIENCE, Raw, SmallDisk,
    cluster::{Cluster, ClusterOptions},
    eventually, full_size,
    history::History,
    is_reference,
    observed::{Model, Observer, check_order, check_registers, check_sightings, first_seen},
    watch_key, watch_prefix,
    wire::{everything, get, revision},
    within,
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::{
    collections::BTreeMap,
    env,
    time::{Duration, Instant},
};
use traffic::{Kind, Load};

/// One round; the checks read it whole.
const ROUND: Duration = Duration::from_secs(60);

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// What a test runs.
#[derive(Clone, Copy)]
struct Plan {
    members: usize,
    traffic: Kind,
    /// TLS between all, users by certificates.
    auth: bool,
    faults: &'static [Fault],
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_with_plain_traffic_and_users() {
    run(Plan {
        members: 3,
        traffic: Kind::Plain,
        auth: true,
        faults: Fault::ALL,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_with_the_traffic_of_kubernetes() {
    run(Plan {
        members: 3,
        traffic: Kind::Kubernetes,
        auth: true,
        faults: Fault::ALL,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_with_plain_traffic() {
    run(Plan {
        members: 1,
        traffic: Kind::Plain,
        auth: false,
        faults: Fault::OF_ONE,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_with_the_traffic_of_kubernetes_and_users() {
    run(Plan {
        members: 1,
        traffic: Kind::Kubernetes,
        auth: true,
        faults: Fault::OF_ONE,
    })
    .await;
}

async fn run(plan: Plan) {
    let seed = number("HOLDFAST_SEED").unwrap_or_else(|| rand::rng().random());
    eprintln!("HOLDFAST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let seconds = number("HOLDFAST_FAULT_SECONDS").unwrap_or(if full_size() { 600 } else { 12 });
    let mut left = Duration::from_secs(seconds);
    while !left.is_zero() {
        let round = left.min(ROUND);
        left -= round;
        play(plan, round, &mut random).await;
    }
}

/// One round on a new cluster.
async fn play(plan: Plan, length: Duration, random: &mut StdRng) {
    // In memory, so that it can be full; only root may mount it.
    let disk = (plan.members > 1)
        .then(|| SmallDisk::mount("600m"))
        .flatten();
    let mut options = ClusterOptions::new().links();
    // The default of ten minutes would never show.
    options = options.flag("--watch-progress-notify-interval=300ms");
    if random.random() {
        // Whoever was away for a moment gets a snapshot.
        let flags = ["--snapshot-count=50", "--snapshot-catchup-entries=10"];
        options = flags.into_iter().fold(options, ClusterOptions::flag);
    }
    if plan.auth {
        options = options.tls();
    }
    if let Some(disk) = &disk {
        options = options.data(plan.members - 1, disk.data());
    }
    let mut cluster = Cluster::start(plan.members, options);
    if plan.auth {
        cluster
            .enable_auth(&[("worker", "k/"), ("guest", "guest/")])
            .await;
    }
    let observers = observe(&cluster, plan.traffic.prefix());
    let load = Load::start(
        &cluster,
        plan.traffic,
        plan.auth,
        &observers,
        random.random(),
    );
    let churn = plan.auth.then(|| churn::Churn::start(&cluster));
    let deadline = Instant::now() + length;
    let mut queue = Vec::new();
    while Instant::now() < deadline {
        if queue.is_empty() {
            queue = plan.faults.to_vec();
            queue.shuffle(random);
        }
        let kind = Fault::wanted().unwrap_or_else(|| queue.pop().unwrap());
        let before = load.recorder.answered();
        let began = Instant::now();
        faults::inject(&mut cluster, kind, disk.as_ref(), &load, random).await;
        cluster.wait_healthy().await;
        let answered = load.recorder.answered() - before;
        eprintln!("{kind:?}: {:?}, {answered} calls answered", began.elapsed());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let guests = match churn {
        Some(churn) => churn.stop().await,
        None => Vec::new(),
    };
    let compacted = load.stop_compactions().await;
    let recorder = load.stop().await;
    let history = converge(&cluster, &observers).await;
    let operations = recorder.operations();
    let mut wrongs = check_order(&operations, &history, &first_seen(&observers));
    wrongs.extend(check_registers(
        &operations,
        &history,
        Kind::Plain.prefix().as_bytes(),
    ));
    for observer in &observers {
        wrongs.extend(check_sightings(observer, &history, compacted));
    }
    wrongs.extend(churn::check_guests(&guests));
    eprintln!(
        "{} calls, {} answered, {} revisions, compacted at {compacted}, {} snapshots, {} wrongs",
        operations.len(),
        recorder.answered(),
        history.last_revision(),
        snapshots(&cluster),
        wrongs.len()
    );
    assert!(
        wrongs.is_empty(),
        "{} wrongs:\n{}",
        wrongs.len(),
        wrongs[..wrongs.len().min(10)].join("\n")
    );
    compare_members(&cluster, &history, plan.auth).await;
}

/// How many snapshots members were sent and took.
fn snapshots(cluster: &Cluster) -> usize {
    let said = if is_reference() {
        "\"applied snapshot\""
    } else {
        "\"installed a snapshot\""
    };
    let logs = cluster
        .all()
        .into_iter()
        .flat_map(|index| cluster.member(index).log().lines());
    logs.filter(|line| line.contains(said)).count()
}

/// Watchers of everything and of a part, on every member.
fn observe(cluster: &Cluster, prefix: &str) -> Vec<Observer> {
    let mut observers = Vec::new();
    for member in cluster.all() {
        let all = pb::WatchCreateRequest {
            range_end: "\0".into(),
            start_revision: 1,
            prev_kv: true,
            ..watch_key("\0")
        };
        observers.push(Observer::start(member, cluster.raw(member), all));
        let part = pb::WatchCreateRequest {
            start_revision: 1,
            progress_notify: true,
            ..watch_prefix(prefix)
        };
        observers.push(Observer::start(member, cluster.raw(member), part));
    }
    observers
}

/// Waits until leases have ended and all watchers have seen all; gives all events.
async fn converge(cluster: &Cluster, observers: &[Observer]) -> History {
    cluster.wait_healthy().await;
    let raw = cluster.raw(cluster.running()[0]);
    eventually(
        Duration::from_secs(60),
        "leases end that nobody keeps",
        async || {
            let left = raw.leases().await.ok()?;
            left.is_empty().then_some(())
        },
    )
    .await;
    let last = raw.revision().await;
    for observer in observers {
        let what = format!("the watcher of m{} sees {last}", observer.member());
        let seen = async || (observer.last() >= last).then_some(());
        eventually(PATIENCE, &what, seen).await;
    }
    let mut history = History::default();
    history.extend(observers[0].events().into_iter().map(|mut event| {
        event.prev_kv = None;
        event
    }));
    assert_eq!(history.last_revision(), last);
    history
}

/// All members have what the events make, and the same users and roles.
async fn compare_members(cluster: &Cluster, history: &History, auth: bool) {
    let hash = cluster.same_hash().await;
    let expected = history.hash_kv(history.last_revision(), hash.compact_revision);
    assert_eq!(
        hash.hash, expected,
        "HashKV of all is not that of the events"
    );
    let mut model = Model::default();
    model.apply(history.events());
    let expected: Vec<_> = model.all().cloned().collect();
    let mut users = Vec::new();
    for index in cluster.running() {
        let raw = cluster.raw(index);
        raw.range(get("a")).await.unwrap();
        let local = pb::RangeRequest {
            serializable: true,
            ..everything()
        };
        let found = within(PATIENCE, "all keys", raw.range(local))
            .await
            .unwrap();
        assert_eq!(revision(&found.header), history.last_revision());
        assert!(
            found.kvs == expected,
            "the keys of m{index} are not what the events make"
        );
        if auth {
            users.push(auth_state(&raw).await);
        }
    }
    for state in &users {
        assert_eq!(state, &users[0], "members differ in users and roles");
    }
}

type AuthState = (
    bool,
    u64,
    BTreeMap<String, Vec<String>>,
    BTreeMap<String, Vec<authpb::Permission>>,
);

async fn auth_state(raw: &Raw) -> AuthState {
    let mut users = BTreeMap::new();
    for user in raw.user_list().await.unwrap() {
        let roles = raw.user_get(&user).await.unwrap();
        users.insert(user, roles);
    }
    let mut roles = BTreeMap::new();
    for role in raw.role_list().await.unwrap() {
        let permissions = raw.role_get(&role).await.unwrap();
        roles.insert(role, permissions);
    }
    let status = raw.auth_status().await.unwrap();
    (status.enabled, status.auth_revision, users, roles)
}
