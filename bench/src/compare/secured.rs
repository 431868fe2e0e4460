//! What security costs: the same loads without and with certificates, users and an audit log, interleaved.
//!
//! The users' way is the one of control planes: a client certificate whose common name is a user, who has a role with read and write on the
//! keys of the load, and is not root.

use super::{
    CompareError, failed,
    server::{Recipe, Secured, Server},
};
use crate::{
    load::{self, Load, Settings},
    progress::Progress,
    report::Report,
    server_process::{self, Kind},
};
use holdfast_certs::DevCa;
use std::{fs, path::PathBuf, time::Duration};

/// What is asked.
pub(crate) struct Cost {
    pub(crate) etcd: Option<PathBuf>,
    pub(crate) holdfast: PathBuf,
    pub(crate) rounds: usize,
    pub(crate) duration: Duration,
    pub(crate) warmup: Duration,
    pub(crate) directory: PathBuf,
    pub(crate) progress: Progress,
}

/// The user that the load runs as.
const USER: &str = "bench";

/// The loads, and how many requests are in flight.
const LOADS: &[(&str, Load, usize)] = &[
    ("put-1", Load::Put, 1),
    ("put-100", Load::Put, 100),
    ("get-100", Load::Get, 100),
    ("range-100", Load::Range, 100),
];

/// One server in one state.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    EtcdPlain,
    EtcdSecured,
    HoldfastMtls,
    HoldfastSecured,
}

impl Variant {
    const ALL: [Self; 4] = [
        Self::EtcdPlain,
        Self::EtcdSecured,
        Self::HoldfastMtls,
        Self::HoldfastSecured,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::EtcdPlain => "etcd, plain, no users",
            Self::EtcdSecured => "etcd, mTLS, users",
            Self::HoldfastMtls => "holdfast, mTLS, no users",
            Self::HoldfastSecured => "holdfast, mTLS, users, audit",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::EtcdPlain | Self::EtcdSecured => Kind::Etcd,
            Self::HoldfastMtls | Self::HoldfastSecured => Kind::Holdfast,
        }
    }
}

/// A floor for the ratio of one variant's throughput to another's, on one load.
struct Floor {
    load: &'static str,
    of: Variant,
    to: Variant,
    least: f64,
}

const fn floor(load: &'static str, to: Variant, least: f64) -> Floor {
    Floor {
        load,
        of: Variant::HoldfastSecured,
        to,
        least,
    }
}

const FLOORS: &[Floor] = &[
    floor("put-1", Variant::HoldfastMtls, 0.85),
    floor("put-100", Variant::HoldfastMtls, 0.85),
    floor("get-100", Variant::HoldfastMtls, 0.85),
    floor("range-100", Variant::HoldfastMtls, 0.85),
    floor("put-100", Variant::EtcdPlain, 2.0),
];

impl Cost {
    /// Runs everything and prints medians and ratios. True if every floor held and every request was answered.
    pub(crate) fn run(&self) -> Result<bool, CompareError> {
        fs::create_dir_all(&self.directory)
            .map_err(failed(format!("create {}", self.directory.display())))?;
        let scratch = tempfile::Builder::new()
            .prefix("secured-")
            .tempdir_in(&self.directory)
            .map_err(failed("create a scratch directory"))?;
        server_process::end_servers_on_signals(scratch.path())?;
        let certs = scratch.path().join("certs");
        let ca = DevCa::open_or_create(&certs)?;
        ca.issue_client(USER)?.write(&certs, USER)?;
        let secured = Secured {
            user: USER,
            cert: certs.join(format!("{USER}.crt")),
            key: certs.join(format!("{USER}.key")),
        };
        let mut good = true;
        for (name, load, in_flight) in LOADS {
            let mut servers = Vec::new();
            for variant in Variant::ALL {
                let binary = match variant.kind() {
                    Kind::Etcd => self.etcd.clone(),
                    _ => Some(self.holdfast.clone()),
                };
                let Some(binary) = binary else { continue };
                let is_secured = matches!(variant, Variant::EtcdSecured | Variant::HoldfastSecured);
                let server = Server::start(Recipe {
                    kind: variant.kind(),
                    binary,
                    directory: scratch.path().join(format!("{name}-{}", servers.len())),
                    certs: (variant != Variant::EtcdPlain).then(|| ca.files()),
                    secured: is_secured.then(|| secured.clone()),
                })?;
                servers.push((variant, server, Vec::new()));
            }
            for round in 0..self.rounds {
                let count = servers.len();
                for at in 0..count {
                    let at = if round % 2 == 1 { count - 1 - at } else { at };
                    let Some((variant, server, reports)) = servers.get_mut(at) else {
                        continue;
                    };
                    eprintln!(
                        "{name} round {}/{}: {}",
                        round + 1,
                        self.rounds,
                        variant.name()
                    );
                    let settings = Settings {
                        pids: server.pid().into_iter().collect(),
                        connections: if *in_flight == 1 { 1 } else { 4 },
                        in_flight: *in_flight,
                        duration: self.duration,
                        warmup: self.warmup,
                        skip_setup: round > 0,
                        ..Settings::new(*load, server.dialer.clone())
                    };
                    let report = load::run(*load, &settings, self.progress)?;
                    if let Some(error) = &report.first_error {
                        println!("FAILED: {name}, {}: {error}", variant.name());
                        good = false;
                    }
                    reports.push(report);
                }
            }
            good &= print(name, &servers);
            for (_, server, _) in servers {
                server.discard();
            }
        }
        Ok(good)
    }
}

type Measured = (Variant, Server, Vec<Report>);

/// Prints the medians of one load, with ratios taken within rounds; whether its floors held.
fn print(load: &str, servers: &[Measured]) -> bool {
    println!(
        "\n{:<32}{:>12}{:>12}{:>12}{:>12}",
        load, "requests/s", "p50 µs", "p99 µs", "CPU µs"
    );
    for (variant, _, reports) in servers {
        let column = |figure: fn(&Report) -> f64| median(reports.iter().map(figure).collect());
        println!(
            "{:<32}{:>12.0}{:>12.0}{:>12.0}{:>12.2}",
            variant.name(),
            column(|report| report.throughput_per_second),
            column(|report| report.latency_us.p50),
            column(|report| report.latency_us.p99),
            column(|report| report.server_cpu_us_per_request.unwrap_or(f64::NAN)),
        );
    }
    let of = |wanted: Variant| {
        let found = servers.iter().find(|(variant, ..)| *variant == wanted)?;
        Some(&found.2)
    };
    let mut good = true;
    for to in [
        Variant::HoldfastMtls,
        Variant::EtcdPlain,
        Variant::EtcdSecured,
    ] {
        let (Some(own), Some(others)) = (of(Variant::HoldfastSecured), of(to)) else {
            continue;
        };
        let ratios = own
            .iter()
            .zip(others)
            .map(|(own, other)| own.throughput_per_second / other.throughput_per_second);
        let ratio = median(ratios.collect());
        let floor = FLOORS
            .iter()
            .find(|floor| (floor.load, floor.of, floor.to) == (load, Variant::HoldfastSecured, to));
        let verdict = match floor {
            None => String::new(),
            Some(floor) if ratio >= floor.least => format!("pass (at least {:.2}×)", floor.least),
            Some(floor) => {
                good = false;
                format!("MISS (at least {:.2}×)", floor.least)
            }
        };
        println!(
            "  throughput with users and audit to {}: {ratio:.2}× {verdict}",
            to.name()
        );
    }
    good
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.get(values.len() / 2) {
        Some(value) => *value,
        None => f64::NAN,
    }
}
