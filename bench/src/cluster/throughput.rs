//! The same loads against three members of each server, interleaved in rounds.
//!
//! All six members run all the time and one cluster is loaded at once; what the other one uses meanwhile is measured and printed.

use super::{
    Arena, ClusterError, mebibytes,
    members::{Cluster, Leader, MEMBERS},
    table::{self, Row},
    verdict::Floor,
};
use crate::{
    compare::Mode,
    load::{self, Load, Settings},
    report::Report,
    server_process::Kind,
};
use serde_json::{Value, json};
use std::{
    thread,
    time::{Duration, Instant},
};

/// What is asked.
pub(crate) struct Throughput {
    pub(crate) arena: Arena,
    pub(crate) rounds: usize,
    pub(crate) duration: Duration,
    pub(crate) warmup: Duration,
    /// Puts before memory is read.
    pub(crate) puts: u64,
    pub(crate) connections: usize,
}

/// Keys of all loads, unless there are fewer puts.
const KEYS: u64 = 100_000;

/// What a store gets to write behind and collect garbage before its memory is read.
const SETTLE: Duration = Duration::from_secs(5);

/// Which members a load talks to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Leader,
    All,
    Followers,
}

struct Case {
    name: &'static str,
    load: Load,
    target: Target,
    figures: &'static [Figure],
}

/// A figure of a run with its floor in each mode.
struct Figure {
    name: &'static str,
    of: fn(&Run) -> f64,
    plain: Option<Floor>,
    mtls: Option<Floor>,
}

/// One load on one cluster.
struct Run {
    report: Report,
    /// Processors that the other cluster kept busy meanwhile, in hundredths.
    others_cpu_percent: f64,
}

const fn shown(name: &'static str, of: fn(&Run) -> f64) -> Figure {
    Figure {
        name,
        of,
        plain: None,
        mtls: None,
    }
}

const fn floor(name: &'static str, of: fn(&Run) -> f64, plain: Floor, mtls: Floor) -> Figure {
    Figure {
        name,
        of,
        plain: Some(plain),
        mtls: Some(mtls),
    }
}

fn rate(run: &Run) -> f64 {
    run.report.throughput_per_second
}

fn cpu(run: &Run) -> f64 {
    run.report.server_cpu_us_per_request.unwrap_or(f64::NAN)
}

fn resident(run: &Run) -> f64 {
    run.report.server_rss_bytes.map_or(f64::NAN, mebibytes)
}

fn peak(run: &Run) -> f64 {
    run.report.server_peak_rss_bytes.map_or(f64::NAN, mebibytes)
}

const RATE: &str = "requests/s";
const CPU: &str = "CPU µs/request, all members";

const PUT_FIGURES: &[Figure] = &[
    floor(RATE, rate, Floor::AtLeast(2.5), Floor::AtLeast(4.0)),
    shown("p50 µs", |run| run.report.latency_us.p50),
    floor(
        "p99 µs",
        |run| run.report.latency_us.p99,
        Floor::AtMost(0.5),
        Floor::AtMost(0.5),
    ),
    floor(CPU, cpu, Floor::AtMost(0.4), Floor::AtMost(0.4)),
    shown("RSS MiB, all members, at the end", resident),
    shown("peak RSS MiB since the start", peak),
    shown("the other cluster's CPU %", |run| run.others_cpu_percent),
];

const GET_FIGURES: &[Figure] = &[
    floor(RATE, rate, Floor::AtLeast(2.0), Floor::AtLeast(2.0)),
    shown("p50 µs", |run| run.report.latency_us.p50),
    shown("p99 µs", |run| run.report.latency_us.p99),
    shown(CPU, cpu),
    shown("the other cluster's CPU %", |run| run.others_cpu_percent),
];

const CASES: &[Case] = &[
    Case {
        name: "put-100 to the leader",
        load: Load::Put,
        target: Target::Leader,
        figures: PUT_FIGURES,
    },
    Case {
        name: "put-100 over all members",
        load: Load::Put,
        target: Target::All,
        figures: PUT_FIGURES,
    },
    Case {
        name: "get-100 from followers, linearizable",
        load: Load::Get,
        target: Target::Followers,
        figures: GET_FIGURES,
    },
];

impl Throughput {
    /// Runs everything and prints figures and verdicts. True if every floor held and every request was answered.
    pub(crate) fn run(&self) -> Result<bool, ClusterError> {
        let scratch = self.arena.open()?;
        println!(
            "medians of {} rounds of {} s, interleaved; 256-byte values, 100 in flight on {} connections",
            self.rounds,
            self.duration.as_secs_f64(),
            self.connections
        );
        let mut good = true;
        let mut documents = Vec::new();
        for mode in &self.arena.modes {
            let mut clusters = self.arena.clusters(&scratch, *mode)?;
            documents.push(self.memory(*mode, &mut clusters, &mut good)?);
            for case in CASES {
                documents.push(self.case(case, *mode, &mut clusters, &mut good)?);
            }
            for cluster in clusters {
                cluster.discard();
            }
        }
        self.arena.write(&json!({ "cluster": documents }))?;
        Ok(good)
    }

    /// Memory after the same puts everywhere, before the rounds give the faster server more to keep.
    fn memory(
        &self,
        mode: Mode,
        clusters: &mut [Cluster],
        good: &mut bool,
    ) -> Result<Value, ClusterError> {
        let title = format!("{} puts, {}", self.puts, mode.name());
        let mut rows = [
            ("RSS MiB, all members, 5 s after", Some(Floor::AtMost(0.5))),
            ("peak RSS MiB, all members", None),
        ]
        .map(|(name, floor)| Row {
            name,
            etcd: Vec::new(),
            holdfast: Vec::new(),
            floor,
        });
        for cluster in clusters {
            let leader = cluster.await_health()?;
            eprintln!("{title}: {}", cluster.kind().name());
            let settings = Settings {
                requests: Some(self.puts),
                sequential: true,
                ..self.settings(Load::Put, Target::All, cluster, leader)
            };
            let report = load::run(Load::Put, &settings, self.arena.progress)?;
            failures(&title, cluster, &report, good);
            thread::sleep(SETTLE);
            let (mut resident, mut peak) = (0, 0);
            for member in 0..MEMBERS {
                let memory = cluster.memory(member)?;
                resident += memory.resident;
                peak += memory.peak;
            }
            for (row, bytes) in rows.iter_mut().zip([resident, peak]) {
                row.add(cluster.kind(), mebibytes(bytes));
            }
        }
        println!("{}", table::head(&title));
        for row in &rows {
            println!("{}", row.line(good));
        }
        println!("  VmRSS counts the pages of mapped files: etcd's database is one.");
        Ok(document(&title, &rows))
    }

    fn case(
        &self,
        case: &Case,
        mode: Mode,
        clusters: &mut [Cluster],
        good: &mut bool,
    ) -> Result<Value, ClusterError> {
        let title = format!("{}, {}", case.name, mode.name());
        let mut rows: Vec<_> = case
            .figures
            .iter()
            .map(|figure| Row {
                name: figure.name,
                etcd: Vec::new(),
                holdfast: Vec::new(),
                floor: match mode {
                    Mode::Plain => figure.plain,
                    Mode::Mtls => figure.mtls,
                },
            })
            .collect();
        for round in 0..self.rounds {
            let count = clusters.len();
            for at in 0..count {
                let at = if round % 2 == 1 { count - 1 - at } else { at };
                let idle = others_cpu(clusters, at)?;
                let begin = Instant::now();
                let Some(cluster) = clusters.get_mut(at) else {
                    continue;
                };
                let kind = cluster.kind();
                eprintln!(
                    "{title}, round {}/{}: {}",
                    round + 1,
                    self.rounds,
                    kind.name()
                );
                let report = self.load(&title, case, cluster, good)?;
                let used = others_cpu(clusters, at)?.saturating_sub(idle);
                let run = Run {
                    report,
                    others_cpu_percent: 100.0 * used.as_secs_f64() / begin.elapsed().as_secs_f64(),
                };
                for (row, figure) in rows.iter_mut().zip(case.figures) {
                    row.add(kind, (figure.of)(&run));
                }
            }
        }
        println!("{}", table::head(&title));
        for row in &rows {
            println!("{}", row.line(good));
        }
        Ok(document(&title, &rows))
    }

    fn load(
        &self,
        title: &str,
        case: &Case,
        cluster: &mut Cluster,
        good: &mut bool,
    ) -> Result<Report, ClusterError> {
        let leader = cluster.await_health()?;
        let settings = self.settings(case.load, case.target, cluster, leader);
        let report = load::run(case.load, &settings, self.arena.progress)?;
        failures(title, cluster, &report, good);
        let after = cluster.await_health()?;
        if after != leader {
            println!(
                "{title}, {}: the leader changed during a run ({leader:?}, {after:?})",
                cluster.kind().name()
            );
        }
        Ok(report)
    }

    fn settings(&self, load: Load, target: Target, cluster: &Cluster, leader: Leader) -> Settings {
        let mut dialers = cluster.dialers();
        match target {
            Target::All => {}
            Target::Leader => dialers = dialers.into_iter().skip(leader.index).take(1).collect(),
            Target::Followers => {
                if leader.index < dialers.len() {
                    dialers.remove(leader.index);
                }
            }
        }
        // A cluster has three members, so one is left in any case.
        let first = dialers.remove(0);
        Settings {
            other_dialers: dialers,
            pids: cluster.pids(),
            connections: self.connections,
            in_flight: 100,
            keys: self.puts.min(KEYS),
            duration: self.duration,
            warmup: self.warmup,
            // The puts before the memory was read were of every key.
            skip_setup: true,
            ..Settings::new(load, first)
        }
    }
}

impl Row {
    fn add(&mut self, kind: Kind, value: f64) {
        match kind {
            Kind::Etcd => self.etcd.push(value),
            Kind::Holdfast | Kind::Noop => self.holdfast.push(value),
        }
    }
}

/// CPU time of all clusters but one.
fn others_cpu(clusters: &[Cluster], but: usize) -> Result<Duration, ClusterError> {
    let mut sum = Duration::ZERO;
    for (at, cluster) in clusters.iter().enumerate() {
        if at != but {
            sum += cluster.cpu()?;
        }
    }
    Ok(sum)
}

fn failures(title: &str, cluster: &Cluster, report: &Report, good: &mut bool) {
    if let Some(error) = &report.first_error {
        println!(
            "FAILED: {title}, {}: {} errors, first: {error}",
            cluster.kind().name(),
            report.errors
        );
        *good = false;
    }
}

fn document(title: &str, rows: &[Row]) -> Value {
    let figures: Vec<_> = rows.iter().map(Row::document).collect();
    json!({ "load": title, "figures": figures })
}
