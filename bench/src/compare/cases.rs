//! What is compared: the loads of the comparison and the figures each has to reach.

use crate::{
    load::{Load, Settings},
    report::Report,
    tls::Dialer,
};

/// A figure of one run. All but [`Figure::Throughput`] and [`Figure::EventsPerSecond`] are costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    Throughput,
    ServerCpu,
    P50,
    P99,
    EventsPerSecond,
    CpuPerEvent,
    DeliveryP99,
    ScanP99Ratio,
    /// Of the server after the keys were put.
    Rss,
    /// Milliseconds from start to readiness over the keys.
    Restart,
}

impl Figure {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Throughput => "requests/s",
            Self::ServerCpu => "server CPU µs/request",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::EventsPerSecond => "events/s",
            Self::CpuPerEvent => "server CPU µs/event",
            Self::DeliveryP99 => "delivery p99 µs",
            Self::ScanP99Ratio => "put p99, scan / calm",
            Self::Rss => "RSS MiB",
            Self::Restart => "restart to ready ms",
        }
    }

    /// Its value in a report; the last two are not in any.
    pub(crate) fn of(self, report: &Report) -> Option<f64> {
        let events = report.events.as_ref();
        match self {
            Self::Throughput => Some(report.throughput_per_second),
            Self::ServerCpu => report.server_cpu_us_per_request,
            Self::P50 => Some(report.latency_us.p50),
            Self::P99 => Some(report.latency_us.p99),
            Self::EventsPerSecond => events.map(|events| events.per_second),
            Self::CpuPerEvent => events.and_then(|events| events.server_cpu_us_per_event),
            Self::DeliveryP99 => events.map(|events| events.delivery_us.p99),
            Self::ScanP99Ratio => report.scan.as_ref().map(|scan| scan.p99_ratio),
            Self::Rss | Self::Restart => None,
        }
    }
}

/// What Holdfast's figure is measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    Etcd,
    Noop,
    /// Its own figure without TLS.
    OwnPlain,
    /// A fixed number.
    Nothing,
}

/// Which side of the bound is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    AtLeast,
    AtMost,
}

/// One target. A mode without a bound has no target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) figure: Figure,
    pub(crate) against: Against,
    pub(crate) bound: Bound,
    pub(crate) plain: Option<f64>,
    pub(crate) mtls: Option<f64>,
}

const fn at_least(figure: Figure, against: Against, plain: f64, mtls: f64) -> Target {
    Target {
        figure,
        against,
        bound: Bound::AtLeast,
        plain: Some(plain),
        mtls: Some(mtls),
    }
}

const fn at_most(figure: Figure, against: Against, plain: f64, mtls: f64) -> Target {
    Target {
        figure,
        against,
        bound: Bound::AtMost,
        plain: Some(plain),
        mtls: Some(mtls),
    }
}

const fn only_plain(target: Target) -> Target {
    Target {
        mtls: None,
        ..target
    }
}

const fn only_mtls(target: Target) -> Target {
    Target {
        plain: None,
        ..target
    }
}

/// A load of the comparison.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) load: Load,
    /// Requests in flight; one means one connection.
    pub(crate) in_flight: usize,
    pub(crate) rate: Option<f64>,
    /// Whether the do-nothing server can answer it.
    pub(crate) noop: bool,
    pub(crate) shown: &'static [Figure],
    pub(crate) targets: &'static [Target],
}

impl Case {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        CASES.iter().find(|case| case.name == name)
    }

    pub(crate) fn settings(&self, dialer: Dialer) -> Settings {
        let defaults = Settings::new(self.load, dialer);
        Settings {
            connections: if self.in_flight == 1 { 1 } else { 4 },
            in_flight: self.in_flight,
            rate: self.rate,
            ..defaults
        }
    }
}

use Against::{Etcd, Noop, Nothing, OwnPlain};
use Figure::{
    CpuPerEvent, DeliveryP99, EventsPerSecond, P50, P99, Restart, Rss, ScanP99Ratio, ServerCpu,
    Throughput,
};

const REQUEST_FIGURES: &[Figure] = &[Throughput, ServerCpu, P50, P99];
const EVENT_FIGURES: &[Figure] = &[EventsPerSecond, CpuPerEvent, DeliveryP99, Throughput];

/// Every load with its targets, in the order of the table that sets them.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "put-1",
        load: Load::Put,
        in_flight: 1,
        rate: None,
        noop: true,
        shown: REQUEST_FIGURES,
        targets: &[
            at_most(ServerCpu, Etcd, 0.6, 0.4),
            at_most(P50, Etcd, 1.1, 0.75),
        ],
    },
    Case {
        name: "put-100",
        load: Load::Put,
        in_flight: 100,
        rate: None,
        noop: true,
        shown: REQUEST_FIGURES,
        targets: &[
            at_least(Throughput, Etcd, 2.5, 4.0),
            at_most(ServerCpu, Etcd, 0.35, 0.2),
            only_plain(at_most(P99, Etcd, 0.5, 0.5)),
            only_plain(at_least(Throughput, Noop, 0.65, 0.65)),
            only_mtls(at_least(Throughput, OwnPlain, 0.8, 0.8)),
        ],
    },
    Case {
        name: "txn-100",
        load: Load::Txn,
        in_flight: 100,
        rate: None,
        noop: true,
        shown: REQUEST_FIGURES,
        targets: &[
            at_least(Throughput, Etcd, 2.5, 4.0),
            at_most(ServerCpu, Etcd, 0.35, 0.35),
        ],
    },
    Case {
        name: "get-100",
        load: Load::Get,
        in_flight: 100,
        rate: None,
        noop: true,
        shown: REQUEST_FIGURES,
        targets: &[
            at_least(Throughput, Etcd, 1.6, 4.0),
            at_most(ServerCpu, Etcd, 0.4, 0.4),
            at_least(Throughput, Noop, 0.85, 0.85),
        ],
    },
    Case {
        name: "range-100",
        load: Load::Range,
        in_flight: 100,
        rate: None,
        noop: true,
        shown: REQUEST_FIGURES,
        targets: &[
            at_least(Throughput, Etcd, 3.0, 3.0),
            at_most(ServerCpu, Etcd, 0.3, 0.3),
        ],
    },
    Case {
        name: "lease-grant-100",
        load: Load::LeaseGrant,
        in_flight: 100,
        rate: None,
        noop: true,
        shown: REQUEST_FIGURES,
        targets: &[
            at_least(Throughput, Etcd, 5.0, 5.0),
            at_most(ServerCpu, Etcd, 0.15, 0.15),
        ],
    },
    Case {
        name: "lease-keep-alive-100",
        load: Load::LeaseKeepAlive,
        in_flight: 100,
        rate: None,
        noop: true,
        shown: REQUEST_FIGURES,
        targets: &[at_least(Throughput, Etcd, 1.0, 1.0)],
    },
    Case {
        name: "watch-prefix",
        load: Load::WatchPrefix,
        in_flight: 100,
        rate: None,
        noop: false,
        shown: EVENT_FIGURES,
        targets: &[
            at_least(EventsPerSecond, Etcd, 1.5, 1.5),
            at_most(CpuPerEvent, Etcd, 0.6, 0.6),
        ],
    },
    Case {
        name: "watch-prefix-paced",
        load: Load::WatchPrefix,
        in_flight: 100,
        rate: Some(200.0),
        noop: false,
        shown: EVENT_FIGURES,
        targets: &[at_most(DeliveryP99, Etcd, 1.0, 1.0)],
    },
    Case {
        name: "watch-keys",
        load: Load::WatchKeys,
        in_flight: 100,
        rate: None,
        noop: false,
        shown: &[Throughput, ServerCpu, P50, DeliveryP99],
        targets: &[
            at_least(Throughput, Etcd, 1.1, 1.1),
            at_most(ServerCpu, Etcd, 0.5, 0.5),
        ],
    },
    Case {
        name: MILLION_KEYS,
        load: Load::Put,
        in_flight: 100,
        rate: None,
        noop: false,
        shown: &[Throughput, Rss, Restart],
        targets: &[
            only_plain(at_most(Rss, Etcd, 0.5, 0.5)),
            only_plain(at_most(Restart, Etcd, 0.5, 0.5)),
        ],
    },
    Case {
        name: "million-keys-count",
        load: Load::Count,
        in_flight: 1,
        rate: None,
        noop: false,
        shown: &[P50, P99],
        targets: &[at_most(P50, Nothing, 1_000.0, 1_000.0)],
    },
    Case {
        name: "million-keys-scan",
        load: Load::Scan,
        in_flight: 100,
        rate: Some(500.0),
        noop: false,
        shown: &[ScanP99Ratio, P99],
        targets: &[at_most(ScanP99Ratio, Nothing, 3.0, 3.0)],
    },
];

/// The case that fills the servers with `--million` keys; those that follow it by name use what it left.
pub(crate) const MILLION_KEYS: &str = "million-keys";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_targets_are_shown() {
        for (index, case) in CASES.iter().enumerate() {
            assert!(CASES[..index].iter().all(|other| other.name != case.name));
            for target in case.targets {
                assert!(case.shown.contains(&target.figure), "{}", case.name);
            }
        }
    }
}
