//! The phases of a run, shared by everything that takes part in it, and the places where results are gathered.

use super::{LoadError, Settings};
use crate::grpc::CallError;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::sleep_until;

const WARM_UP: u8 = 0;
const MEASURE: u8 = 1;
const STOP: u8 = 2;

/// A stop that has not ended the workers by then abandons what is in flight.
const PATIENCE: Duration = Duration::from_secs(10);

/// Latencies from one microsecond to a minute, three digits.
const LONGEST_MICROSECONDS: u64 = 60_000_000;

/// The state of a run.
pub(super) struct Stage {
    phase: AtomicU8,
    /// Requests left, if the run ends by count.
    tickets: Option<AtomicI64>,
    pace: Option<Pace>,
    errors: AtomicU64,
    first_error: Mutex<Option<String>>,
    /// Workers that have not ended.
    pub(super) alive: AtomicUsize,
}

/// An open loop: request `n` is due at `start + n × interval`, whether or not earlier ones were answered.
struct Pace {
    start: Mutex<Option<Instant>>,
    interval: Duration,
    next: AtomicU64,
}

impl Stage {
    pub(super) fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            phase: AtomicU8::new(WARM_UP),
            tickets: settings
                .requests
                .map(|requests| AtomicI64::new(i64::try_from(requests).unwrap_or(i64::MAX))),
            pace: settings.rate.map(|rate| Pace {
                start: Mutex::new(None),
                interval: Duration::from_secs_f64(1.0 / rate),
                next: AtomicU64::new(0),
            }),
            errors: AtomicU64::new(0),
            first_error: Mutex::new(None),
            alive: AtomicUsize::new(0),
        })
    }

    pub(super) fn measure(&self) {
        self.phase.store(MEASURE, Ordering::Release);
    }

    pub(super) fn stop(&self) {
        self.phase.store(STOP, Ordering::Release);
    }

    pub(super) fn measuring(&self) -> bool {
        self.phase.load(Ordering::Acquire) == MEASURE
    }

    fn stopped(&self) -> bool {
        self.phase.load(Ordering::Acquire) == STOP
    }

    /// Waits for the turn of the next request; gives the time from which its latency counts, or nothing at the end.
    ///
    /// A paced request that finds its time passed counts from when it was due, so that a stall of the server is not hidden by
    /// the requests it held back; one that had to wait counts from its waking, so that the timer's grain is not blamed on the server.
    pub(super) async fn admit(&self) -> Option<Instant> {
        if self.stopped() {
            return None;
        }
        if let Some(tickets) = &self.tickets
            && tickets.fetch_sub(1, Ordering::Relaxed) <= 0
        {
            return None;
        }
        let Some(pace) = &self.pace else {
            return Some(Instant::now());
        };
        let number = pace.next.fetch_add(1, Ordering::Relaxed);
        let start = *pace.start.lock().get_or_insert_with(Instant::now);
        let due = start + Duration::from_secs_f64(pace.interval.as_secs_f64() * to_float(number));
        if due <= Instant::now() {
            return Some(due);
        }
        sleep_until(due.into()).await;
        if self.stopped() {
            return None;
        }
        Some(Instant::now())
    }

    pub(super) fn fail(&self, error: &CallError) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.first_error
            .lock()
            .get_or_insert_with(|| error.to_string());
    }

    pub(super) fn errors(&self) -> (u64, Option<String>) {
        (
            self.errors.load(Ordering::Relaxed),
            self.first_error.lock().clone(),
        )
    }

    /// Returns when the run was stopped and its workers had time to end.
    pub(super) async fn abandoned(&self) {
        while !self.stopped() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(PATIENCE).await;
    }
}

/// Exact up to 2^53, beyond every count of a run.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(crate) fn to_float(count: u64) -> f64 {
    count as f64
}

/// The latencies of one thread. The lock is only contended while the progress bar reads.
pub(super) struct Lane(Mutex<Histogram<u64>>);

impl Lane {
    pub(super) fn new() -> Result<Arc<Self>, LoadError> {
        Ok(Arc::new(Self(Mutex::new(histogram()?))))
    }

    pub(super) fn record(&self, latency: Duration) {
        self.record_microseconds(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn record_microseconds(&self, microseconds: u64) {
        self.0.lock().saturating_record(microseconds);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.lock().len()
    }

    pub(super) fn add_to(&self, sum: &mut Histogram<u64>) {
        // The bounds are the same for all, so an addition cannot fail.
        let _ = sum.add(&*self.0.lock());
    }
}

pub(super) fn histogram() -> Result<Histogram<u64>, LoadError> {
    Ok(Histogram::new_with_bounds(1, LONGEST_MICROSECONDS, 3)?)
}
