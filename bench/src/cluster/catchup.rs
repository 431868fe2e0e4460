//! What it costs when a member comes back that was away for a million writes, while writes go on.

use super::{
    Arena, ClusterError, mebibytes,
    members::{Cluster, MEMBERS, member_name},
    plan,
    verdict::{Floor, largest, median, p99},
    windows::{latencies, p99_by_second},
};
use crate::{
    compare::Mode,
    load::{self, Load, LoadError, PacedPuts, Settings},
    server_process::Kind,
};
use serde_json::{Value, json};
use std::{
    thread,
    time::{Duration, Instant},
};

/// What is asked.
pub(crate) struct Catchup {
    pub(crate) arena: Arena,
    /// While the member is away.
    pub(crate) writes: u64,
    /// They are over so many keys: ten writes a key by default, so that there is a history to bring along.
    pub(crate) keys: u64,
    /// Puts per second to the leader before, during and after.
    pub(crate) rate: f64,
    /// How long latencies are taken before the member comes back.
    pub(crate) base: Duration,
}

/// Latencies and memory after the member has caught up.
const AFTER: Duration = Duration::from_secs(10);

/// Latencies while it catches up are taken for so long at least: what it costs may come a moment later, and a p99 needs its thousand puts.
const DURING: Duration = Duration::from_secs(3);

/// A member that is not back by then does not come back.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(900);

const POLL: Duration = Duration::from_millis(10);

/// Until the memory that the writes took is given back, and logs and stores have written behind.
const SETTLE: Duration = Duration::from_secs(5);

/// Memory that leader and follower may take beyond what they have anyway.
const MEMORY_MIB: f64 = 256.0;

/// `etcd_network_*`, counted by who sends and who receives.
const SENT: &str = "etcd_network_snapshot_send_success";
const RECEIVED: &str = "etcd_network_snapshot_receive_success";

/// Places of the members.
#[derive(Clone, Copy)]
struct Roles {
    leader: usize,
    away: usize,
    other: usize,
}

/// When what began.
struct Moments {
    base: Instant,
    restart: Instant,
    caught_up: Instant,
    end: Instant,
}

/// Memory of the three, in MiB.
struct Growth {
    leader_before: f64,
    leader_peak: f64,
    away_peak: f64,
    away_end: f64,
    other_peak: f64,
    other_end: f64,
}

impl Catchup {
    /// Runs everything and prints figures and verdicts. True if every floor held. etcd is measured, too, if it takes part, but has no floors.
    pub(crate) fn run(&self) -> Result<bool, ClusterError> {
        let scratch = self.arena.open()?;
        println!(
            "{} writes of 256 bytes over {} keys while a member is away; then {} writes/s to the leader",
            self.writes, self.keys, self.rate
        );
        let mut good = true;
        let mut documents = Vec::new();
        for mode in &self.arena.modes {
            for (kind, binary) in self.arena.kinds() {
                let cluster = Cluster::start(plan(&scratch, *mode, kind, binary))?;
                documents.push(self.measure(*mode, cluster, &mut good)?);
            }
        }
        self.arena.write(&json!({ "catchup": documents }))?;
        Ok(good)
    }

    fn measure(
        &self,
        mode: Mode,
        mut cluster: Cluster,
        good: &mut bool,
    ) -> Result<Value, ClusterError> {
        let kind = cluster.kind();
        let title = format!("catch-up, {}, {}", kind.name(), mode.name());
        println!("\n{title}");
        let leader = cluster.await_health()?;
        let roles = Roles {
            leader: leader.index,
            away: (leader.index + 1) % MEMBERS,
            other: (leader.index + 2) % MEMBERS,
        };
        cluster.stop(roles.away);
        let missed = self.write(&cluster, roles)?;
        thread::sleep(SETTLE);

        let sent_before = sent(&cluster, roles)?;
        let puts = PacedPuts::start(&self.settings(&cluster, roles)?)?;
        let base = Instant::now();
        // A window that begins with the connections' first requests would flatter what follows.
        thread::sleep(self.base);
        let leader_before = mebibytes(cluster.memory(roles.leader)?.resident);
        for member in [roles.leader, roles.other] {
            cluster.reset_peak(member)?;
        }
        let restart = cluster.launch(roles.away)?;
        let caught_up = await_catch_up(&mut cluster, roles, restart)?;
        thread::sleep(AFTER);
        let moments = Moments {
            base,
            restart,
            caught_up,
            end: Instant::now(),
        };
        let led = cluster.memory(roles.leader)?;
        let came_back = cluster.memory(roles.away)?;
        let stayed = cluster.memory(roles.other)?;
        let growth = Growth {
            leader_before,
            leader_peak: mebibytes(led.peak),
            away_peak: mebibytes(came_back.peak),
            away_end: mebibytes(came_back.resident),
            other_peak: mebibytes(stayed.peak),
            other_end: mebibytes(stayed.resident),
        };
        let paced = puts.stop()?;
        let after = cluster.await_health()?;
        if after != leader {
            println!("  the leader changed meanwhile: {leader:?}, {after:?}");
        }
        if let Some(error) = &paced.first_error {
            println!("  FAILED: {} errors of puts, first: {error}", paced.errors);
            *good = false;
        }
        let snapshots = (
            sent(&cluster, roles)? - sent_before,
            cluster.counter(roles.away, RECEIVED)?.unwrap_or(0.0),
        );
        // etcd's figures are there to compare with.
        let mut etcd_good = true;
        let good = match kind {
            Kind::Holdfast => good,
            Kind::Etcd | Kind::Noop => &mut etcd_good,
        };
        println!("  {} was away for {missed} writes", member_name(roles.away));
        let latency = self.print_latency(&paced.samples, &moments, good);
        print_memory(&growth, good);
        let by_snapshot = snapshots.0.max(snapshots.1);
        println!(
            "  snapshots: {} sent, {} received by {SENT}, {RECEIVED}: {}",
            snapshots.0,
            snapshots.1,
            Floor::AtLeast(1.0).verdict(by_snapshot, "", good)
        );
        cluster.discard();
        Ok(json!({
            "title": title,
            "missed_writes": missed,
            "catch_up_seconds": (moments.caught_up - moments.restart).as_secs_f64(),
            "latency": latency,
            "memory_mib": {
                "leader_before": growth.leader_before,
                "leader_peak": growth.leader_peak,
                "returned_peak": growth.away_peak,
                "returned_end": growth.away_end,
                "other_follower_peak": growth.other_peak,
                "other_follower_end": growth.other_end,
            },
            "snapshots_sent": snapshots.0,
            "snapshots_received": snapshots.1,
        }))
    }

    /// Writes what the member that is away misses; gives how much it was.
    fn write(&self, cluster: &Cluster, roles: Roles) -> Result<u64, ClusterError> {
        let settings = Settings {
            requests: Some(self.writes),
            rate: None,
            ..self.settings(cluster, roles)?
        };
        let report = load::run(Load::Put, &settings, self.arena.progress)?;
        println!(
            "  {} writes at {:.0}/s",
            report.requests, report.throughput_per_second
        );
        match report.first_error {
            Some(error) => Err(LoadError::Preload(error).into()),
            None => Ok(report.requests),
        }
    }

    fn settings(&self, cluster: &Cluster, roles: Roles) -> Result<Settings, ClusterError> {
        let mut dialers = cluster.dialers().into_iter();
        let leader = dialers
            .nth(roles.leader)
            .ok_or_else(|| ClusterError::Unhealthy {
                name: cluster.kind().name(),
                what: "there is no leader".to_owned(),
            })?;
        Ok(Settings {
            keys: self.keys,
            rate: Some(self.rate),
            skip_setup: true,
            ..Settings::new(Load::Put, leader)
        })
    }

    fn print_latency(&self, samples: &[load::Sample], moments: &Moments, good: &mut bool) -> Value {
        let catch_up = moments.caught_up - moments.restart;
        println!(
            "  caught up {:.2} s after its start",
            catch_up.as_secs_f64()
        );
        let during_end = moments.caught_up.max(moments.restart + DURING);
        let phases = [
            ("before", moments.base, moments.restart),
            ("catching up", moments.restart, during_end),
            ("after", during_end, moments.end),
        ];
        let mut whole = Vec::new();
        let mut documents = serde_json::Map::new();
        for (name, from, to) in phases {
            let all = latencies(samples, from, to);
            let windows = p99_by_second(samples, from, to);
            let rate = load::to_float(all.len() as u64) / (to - from).as_secs_f64();
            println!(
                "  {name:<12} {rate:>5.0} puts/s, p99 {:>7.0} µs; by second: median {:.0}, worst {:.0}",
                p99(&all),
                median(&windows),
                largest(&windows)
            );
            whole.push(p99(&all));
            documents.insert(
                name.to_owned(),
                json!({ "puts_per_second": rate, "p99_us": p99(&all), "p99_us_by_second": windows }),
            );
        }
        if let [before, during, ..] = whole[..] {
            let ratio = during / before;
            println!(
                "  p99 while catching up {ratio:.2}× that before: {}",
                Floor::AtMost(2.0).verdict(ratio, "×", good)
            );
        }
        documents.into()
    }
}

/// Snapshots that any member has sent so far; the one that is away has no say.
fn sent(cluster: &Cluster, roles: Roles) -> Result<f64, ClusterError> {
    let mut sum = 0.0;
    for member in [roles.leader, roles.other] {
        sum += cluster.counter(member, SENT)?.unwrap_or(0.0);
    }
    Ok(sum)
}

/// Waits until the member has applied what the leader had applied a moment before.
fn await_catch_up(
    cluster: &mut Cluster,
    roles: Roles,
    restart: Instant,
) -> Result<Instant, ClusterError> {
    loop {
        let leader = cluster.status(roles.leader);
        let away = cluster.status(roles.away);
        let now = Instant::now();
        if let (Some(leader), Some(away)) = (leader, away)
            && away.revision >= leader.revision
        {
            return Ok(now);
        }
        if now - restart > CAUGHT_UP_WITHIN {
            return Err(ClusterError::Unhealthy {
                name: cluster.kind().name(),
                what: format!("not caught up: {away:?}, leader {leader:?}"),
            });
        }
        thread::sleep(POLL);
    }
}

fn print_memory(growth: &Growth, good: &mut bool) {
    let leader = growth.leader_peak - growth.leader_before;
    println!(
        "  leader's RSS {:.0} MiB before, peak {:.0} MiB: {leader:+.0} MiB: {}",
        growth.leader_before,
        growth.leader_peak,
        Floor::AtMost(MEMORY_MIB).verdict(leader, " MiB", good)
    );
    let away = growth.away_peak - growth.other_end;
    println!(
        "  its own RSS peak {:.0} MiB, {:.0} MiB at the end; the other follower's {:.0} and {:.0} MiB: {away:+.0} MiB: {}",
        growth.away_peak,
        growth.away_end,
        growth.other_peak,
        growth.other_end,
        Floor::AtMost(MEMORY_MIB).verdict(away, " MiB", good)
    );
}
