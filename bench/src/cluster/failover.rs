//! How long nobody is served when the leader goes: killed, and stopped in order.

use super::{
    Arena, ClusterError,
    members::{Cluster, Leader, member_name},
    verdict::{Floor, largest, median},
    windows::longest_gap,
    writers::{ATTEMPT, WRITERS, Writers},
};
use crate::{compare::Mode, server_process::Kind};
use serde_json::{Value, json};
use std::{
    thread,
    time::{Duration, Instant},
};

/// What is asked.
pub(crate) struct Failover {
    pub(crate) arena: Arena,
    pub(crate) kills: usize,
    /// Stops in order.
    pub(crate) stops: usize,
}

/// Writes before the leader goes.
const CALM: Duration = Duration::from_secs(1);

/// Least time of observation after it.
const OBSERVE: Duration = Duration::from_secs(3);

/// The observation ends when writes have gone on for so long without a pause of [`ATTEMPT`].
const STEADY: Duration = Duration::from_secs(1);

/// A cluster that does not serve any more by then is broken.
const SERVED_WITHIN: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(20);

/// One leader gone.
struct Strike {
    /// Seconds without an acknowledged write of any client.
    gap: f64,
    /// Seconds of the write that took longest, with all its attempts.
    slowest: f64,
    failed: u64,
    /// Who led before and after.
    leaders: (Leader, Leader),
}

impl Failover {
    /// Runs everything and prints gaps and verdicts. True if every floor held.
    pub(crate) fn run(&self) -> Result<bool, ClusterError> {
        let scratch = self.arena.open()?;
        println!(
            "{WRITERS} clients write every {0} s in turn, and ask the next member after {0} s; seconds without an acknowledged write",
            ATTEMPT.as_secs_f64()
        );
        let mut good = true;
        let mut documents = Vec::new();
        for mode in &self.arena.modes {
            let mut clusters = self.arena.clusters(&scratch, *mode)?;
            for (graceful, count) in [(false, self.kills), (true, self.stops)] {
                if count > 0 {
                    let document = self.series(*mode, graceful, count, &mut clusters, &mut good)?;
                    documents.push(document);
                }
            }
            for cluster in clusters {
                cluster.discard();
            }
        }
        self.arena.write(&json!({ "failover": documents }))?;
        Ok(good)
    }

    fn series(
        &self,
        mode: Mode,
        graceful: bool,
        count: usize,
        clusters: &mut [Cluster],
        good: &mut bool,
    ) -> Result<Value, ClusterError> {
        let what = if graceful { "SIGTERM" } else { "kill -9" };
        let title = format!("{what} of the leader, {}", mode.name());
        let mut strikes: Vec<Vec<Strike>> = clusters.iter().map(|_| Vec::new()).collect();
        for round in 0..count {
            for at in 0..clusters.len() {
                let at = if round % 2 == 1 {
                    clusters.len() - 1 - at
                } else {
                    at
                };
                let (Some(cluster), Some(strikes)) = (clusters.get_mut(at), strikes.get_mut(at))
                else {
                    continue;
                };
                let strike = strike(cluster, graceful)?;
                eprintln!(
                    "{title}, {}/{count}: {}: {:.3} s",
                    round + 1,
                    cluster.kind().name(),
                    strike.gap
                );
                strikes.push(strike);
            }
        }
        println!("\n{title}");
        for (cluster, strikes) in clusters.iter().zip(&strikes) {
            print(cluster.kind(), strikes);
        }
        let all: Vec<_> = clusters.iter().map(Cluster::kind).zip(strikes).collect();
        judge(graceful, &all, good);
        Ok(document(&title, &all))
    }
}

/// Takes the leader away under load and brings it back.
fn strike(cluster: &mut Cluster, graceful: bool) -> Result<Strike, ClusterError> {
    let before = cluster.await_health()?;
    let name = cluster.kind().name();
    let unhealthy = |what: &str| ClusterError::Unhealthy {
        name,
        what: what.to_owned(),
    };
    let writers = Writers::start(&cluster.dialers())?;
    let begin = Instant::now();
    while writers.acknowledged().is_empty() {
        if begin.elapsed() > SERVED_WITHIN {
            return Err(unhealthy("no write is acknowledged"));
        }
        thread::sleep(POLL);
    }
    thread::sleep(CALM);
    let event = Instant::now();
    cluster.strike(before.index, graceful);
    let end = loop {
        thread::sleep(POLL);
        let now = Instant::now();
        let since = now.checked_sub(STEADY).unwrap_or(event);
        if now > event + OBSERVE && longest_gap(&writers.acknowledged(), since, now) < ATTEMPT {
            break now;
        }
        if now > event + SERVED_WITHIN {
            return Err(unhealthy("no writes any more after the leader has gone"));
        }
    };
    let record = writers.stop();
    let during = record
        .writes
        .iter()
        .filter(|write| write.acknowledged > event);
    let lengths: Vec<_> = during
        .map(|write| (write.acknowledged - write.begin).as_secs_f64())
        .collect();
    cluster.restart(before.index)?;
    let after = cluster.await_health()?;
    if after.term == before.term {
        return Err(unhealthy("the term did not change: was it the leader?"));
    }
    Ok(Strike {
        gap: longest_gap(&record.acknowledged(), event, end).as_secs_f64(),
        slowest: largest(&lengths),
        failed: record.failed,
        leaders: (before, after),
    })
}

fn gaps(strikes: &[Strike]) -> Vec<f64> {
    strikes.iter().map(|strike| strike.gap).collect()
}

fn print(kind: Kind, strikes: &[Strike]) {
    let gaps = gaps(strikes);
    let slowest: Vec<_> = strikes.iter().map(|strike| strike.slowest).collect();
    let each: Vec<_> = gaps.iter().map(|gap| format!("{gap:.3}")).collect();
    let failed: u64 = strikes.iter().map(|strike| strike.failed).sum();
    println!("  {:<10} {}", kind.name(), each.join(" "));
    println!(
        "  {:<10} median {:.3}  max {:.3}; the write that took longest: median {:.3}  max {:.3}; {failed} attempts failed",
        "",
        median(&gaps),
        largest(&gaps),
        median(&slowest),
        largest(&slowest)
    );
}

fn judge(graceful: bool, all: &[(Kind, Vec<Strike>)], good: &mut bool) {
    let of = |wanted: Kind| {
        let found = all.iter().find(|(kind, _)| *kind == wanted)?;
        Some(gaps(&found.1))
    };
    let Some(own) = of(Kind::Holdfast) else {
        return;
    };
    let (middle, longest) = (median(&own), largest(&own));
    if graceful {
        let floor = Floor::AtMost(0.3);
        println!(
            "  median {middle:.3} s: {}",
            floor.verdict(middle, " s", good)
        );
        println!(
            "  max    {longest:.3} s: {}",
            floor.verdict(longest, " s", good)
        );
        return;
    }
    let floor = Floor::AtMost(1.5);
    println!(
        "  median {middle:.3} s: {}",
        floor.verdict(middle, " s", good)
    );
    if let Some(etcd) = of(Kind::Etcd) {
        let ratio = middle / median(&etcd);
        println!(
            "  median {ratio:.2}× etcd's: {}",
            Floor::AtMost(1.0).verdict(ratio, "×", good)
        );
    }
}

fn document(title: &str, all: &[(Kind, Vec<Strike>)]) -> Value {
    let servers: serde_json::Map<_, _> = all
        .iter()
        .map(|(kind, strikes)| {
            let strikes: Vec<_> = strikes
                .iter()
                .map(|strike| {
                    let (before, after) = strike.leaders;
                    json!({
                        "gap_seconds": strike.gap,
                        "longest_write_seconds": strike.slowest,
                        "failed_attempts": strike.failed,
                        "leader": member_name(before.index),
                        "next_leader": member_name(after.index),
                        "terms": after.term.saturating_sub(before.term),
                    })
                })
                .collect();
            (kind.name().to_owned(), Value::from(strikes))
        })
        .collect();
    json!({ "event": title, "servers": servers })
}
