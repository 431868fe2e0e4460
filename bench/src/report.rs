//! What a run found: for people, and as JSON.

use crate::{
    load::{Load, Settings, to_float},
    process::Memory,
};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::{fmt, time::Duration};

/// What the engine hands over.
pub(crate) struct Measured {
    pub(crate) elapsed: Duration,
    /// Microseconds.
    pub(crate) latency: Histogram<u64>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) client_cpu: Duration,
    pub(crate) server: Option<ServerUse>,
}

/// What the server used during the measurement.
pub(crate) struct ServerUse {
    pub(crate) cpu: Duration,
    /// At its end.
    pub(crate) memory: Memory,
}

/// The settings that a reader needs to judge the figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Shape {
    pub(crate) load: &'static str,
    pub(crate) endpoint: String,
    pub(crate) tls: bool,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) threads: usize,
    pub(crate) seed: u64,
    pub(crate) value_bytes: usize,
    pub(crate) keys: u64,
    pub(crate) rate: Option<f64>,
    pub(crate) watchers: Option<usize>,
    pub(crate) limit: Option<i64>,
}

impl Shape {
    pub(crate) fn of(load: Load, settings: &Settings) -> Self {
        let watching = matches!(load, Load::WatchPrefix | Load::WatchKeys);
        Self {
            load: load.name(),
            endpoint: settings.endpoints(),
            tls: settings.dialer.is_tls(),
            connections: settings.connections,
            in_flight: if watching { 1 } else { settings.in_flight },
            threads: settings.threads,
            seed: settings.seed,
            value_bytes: settings.value_bytes,
            keys: settings.keys,
            rate: settings.rate,
            watchers: watching.then_some(settings.watchers),
            limit: (load == Load::Range).then_some(settings.limit),
        }
    }
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| to_float(histogram.value_at_quantile(quantile));
        Self {
            mean: histogram.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: to_float(histogram.max()),
        }
    }
}

/// What the watchers received.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Events {
    pub(crate) received: u64,
    pub(crate) per_second: f64,
    /// From before the put was sent to after the event was read, in microseconds.
    pub(crate) delivery_us: Latency,
    pub(crate) server_cpu_us_per_event: Option<f64>,
}

impl Events {
    pub(crate) fn new(
        delivery: &Histogram<u64>,
        seconds: f64,
        server_cpu_seconds: Option<f64>,
    ) -> Self {
        let received = delivery.len();
        Self {
            received,
            per_second: to_float(received) / seconds,
            delivery_us: Latency::of(delivery),
            server_cpu_us_per_event: per(server_cpu_seconds, received),
        }
    }
}

/// What the scan did to the puts beside it. `latency_us` of the report is that of the puts during the scan.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Scan {
    pub(crate) keys_per_second: f64,
    pub(crate) calm_latency_us: Latency,
    pub(crate) p99_ratio: f64,
}

/// The result of one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) shape: Shape,
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) throughput_per_second: f64,
    pub(crate) latency_us: Latency,
    pub(crate) events: Option<Events>,
    pub(crate) scan: Option<Scan>,
    pub(crate) server_cpu_us_per_request: Option<f64>,
    /// Server CPU over wall-clock time: 2 is two busy processors.
    pub(crate) server_cpu_load: Option<f64>,
    pub(crate) server_rss_bytes: Option<u64>,
    pub(crate) server_peak_rss_bytes: Option<u64>,
    pub(crate) client_cpu_us_per_request: Option<f64>,
}

/// Seconds over a count, in microseconds each.
fn per(seconds: Option<f64>, count: u64) -> Option<f64> {
    seconds
        .filter(|_| count > 0)
        .map(|seconds| seconds * 1e6 / to_float(count))
}

impl Report {
    pub(crate) fn new(shape: Shape, measured: Measured) -> Self {
        let seconds = measured.elapsed.as_secs_f64().max(1e-6);
        let requests = measured.latency.len();
        let server_cpu = measured.server.as_ref().map(|used| used.cpu.as_secs_f64());
        Self {
            shape,
            seconds,
            requests,
            errors: measured.errors,
            first_error: measured.first_error,
            throughput_per_second: to_float(requests) / seconds,
            latency_us: Latency::of(&measured.latency),
            events: None,
            scan: None,
            server_cpu_us_per_request: per(server_cpu, requests),
            server_cpu_load: server_cpu.map(|cpu| cpu / seconds),
            server_rss_bytes: measured.server.as_ref().map(|used| used.memory.resident),
            server_peak_rss_bytes: measured.server.as_ref().map(|used| used.memory.peak),
            client_cpu_us_per_request: per(Some(measured.client_cpu.as_secs_f64()), requests),
        }
    }

    pub(crate) fn set_events(&mut self, events: Events) {
        self.events = Some(events);
    }

    pub(crate) fn set_scan(&mut self, scan: Scan) {
        self.scan = Some(scan);
    }

    pub(crate) fn server_cpu_seconds(&self) -> Option<f64> {
        self.server_cpu_load.map(|load| load * self.seconds)
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "mean {:.0}  p50 {:.0}  p90 {:.0}  p99 {:.0}  p99.9 {:.0}  max {:.0} µs",
            self.mean, self.p50, self.p90, self.p99, self.p999, self.max
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = &self.shape;
        writeln!(
            out,
            "{} on {}: {} in flight on {} connections, {}-byte values, seed {}",
            shape.load,
            shape.endpoint,
            shape.in_flight,
            shape.connections,
            shape.value_bytes,
            shape.seed
        )?;
        writeln!(
            out,
            "  requests    {} in {:.2} s: {:.0}/s",
            self.requests, self.seconds, self.throughput_per_second
        )?;
        writeln!(out, "  latency     {}", self.latency_us)?;
        if let Some(events) = &self.events {
            writeln!(
                out,
                "  events      {}: {:.0}/s",
                events.received, events.per_second
            )?;
            writeln!(out, "  delivery    {}", events.delivery_us)?;
            if let Some(cpu) = events.server_cpu_us_per_event {
                writeln!(out, "  server CPU  {cpu:.2} µs per event")?;
            }
        }
        if let Some(scan) = &self.scan {
            writeln!(out, "  calm        {}", scan.calm_latency_us)?;
            writeln!(
                out,
                "  scan        {:.0} keys/s; p99 of the puts {:.2} × calm",
                scan.keys_per_second, scan.p99_ratio
            )?;
        }
        if let (Some(cpu), Some(load)) = (self.server_cpu_us_per_request, self.server_cpu_load) {
            writeln!(
                out,
                "  server CPU  {cpu:.2} µs per request, {load:.2} processors"
            )?;
        }
        if let (Some(rss), Some(peak)) = (self.server_rss_bytes, self.server_peak_rss_bytes) {
            writeln!(
                out,
                "  server RSS  {} MiB, peak {} MiB",
                rss >> 20,
                peak >> 20
            )?;
        }
        if let Some(cpu) = self.client_cpu_us_per_request {
            writeln!(out, "  client CPU  {cpu:.2} µs per request")?;
        }
        if let Some(error) = &self.first_error {
            writeln!(out, "  ERRORS      {}; first: {error}", self.errors)?;
        }
        Ok(())
    }
}
