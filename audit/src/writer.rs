//! Where requests leave their records: one buffer for each worker, so that workers do not wait for each other.

use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    Delivery, Level, Plan,
    bell::Bell,
    block::{NotTaken, OnTaken, Ticket},
    line,
    record::{End, Record},
    stamp::Stamp,
};

/// A buffer that holds so much is collected at once, so that it does not grow while the collector sleeps.
const ALERT_BYTES: usize = 256 << 10;

/// A worker's way into the audit log. One for each thread: sharing it costs waiting, and nothing else.
#[derive(Debug)]
pub struct Writer {
    buffer: Option<Arc<Buffer>>,
}

impl Writer {
    pub(crate) fn new(buffer: Option<Arc<Buffer>>) -> Self {
        Self { buffer }
    }

    /// Records that a request came in, and reports through `on_taken` whether a sink has it. For requests that [`Plan::is_strict`] speaks
    /// of; others are reported as taken without a record.
    pub fn begin(&self, plan: &Plan, record: &Record<'_>, on_taken: OnTaken) {
        match &self.buffer {
            Some(buffer) => buffer.begin(plan, record, on_taken),
            None => on_taken(Ok(())),
        }
    }

    /// Records how a request ended, if a rule wants it. Never waits, never fails: what finds no room is lost, and counted.
    pub fn end(&self, plan: &Plan, record: &Record<'_>, end: &End<'_>) {
        if let Some(buffer) = &self.buffer {
            buffer.end(plan, record, end);
        }
    }
}

/// Lines that wait for the collector.
#[derive(Debug)]
pub(crate) struct Buffer {
    waiting: Mutex<Waiting>,
    limit_bytes: usize,
    refused: Arc<AtomicU64>,
    bell: Arc<Bell>,
}

#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) lines: Vec<u8>,
    pub(crate) records: u64,
    pub(crate) lost: u64,
    pub(crate) tickets: Vec<Ticket>,
    stamp: Stamp,
    is_closed: bool,
}

impl Buffer {
    pub(crate) fn new(limit_bytes: usize, refused: Arc<AtomicU64>, bell: Arc<Bell>) -> Self {
        Self {
            waiting: Mutex::default(),
            limit_bytes,
            refused,
            bell,
        }
    }

    pub(crate) fn begin(&self, plan: &Plan, record: &Record<'_>, on_taken: OnTaken) {
        let Some(level) = plan.at_begin(record.keys) else {
            return on_taken(Ok(()));
        };
        let refusal = {
            let mut waiting = self.waiting.lock();
            if waiting.is_closed {
                NotTaken::Stopped
            } else if waiting.lines.len() >= self.limit_bytes {
                NotTaken::Full
            } else {
                waiting.push(plan, level, record, None);
                let refused = Arc::clone(&self.refused);
                waiting.tickets.push(Ticket::new(Box::new(move |result| {
                    refused.fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
                    on_taken(result);
                })));
                drop(waiting);
                return self.bell.ring();
            }
        };
        self.refused.fetch_add(1, Ordering::Relaxed);
        on_taken(Err(refusal));
    }

    pub(crate) fn end(&self, plan: &Plan, record: &Record<'_>, end: &End<'_>) {
        let Some((level, delivery)) = plan.at_end(record.keys, end.outcome.class()) else {
            return;
        };
        // The end of what a strict rule let begin has room when others have none.
        let limit = match delivery {
            Delivery::Strict => self.limit_bytes.saturating_mul(2),
            Delivery::BestEffort => self.limit_bytes,
        };
        let mut waiting = self.waiting.lock();
        if waiting.is_closed || waiting.lines.len() >= limit {
            waiting.lost += 1;
            return;
        }
        let before = waiting.lines.len();
        waiting.push(plan, level, record, Some(end));
        if before < ALERT_BYTES && waiting.lines.len() >= ALERT_BYTES {
            drop(waiting);
            self.bell.ring();
        }
    }

    /// Adds a line of the log's own, which is no record.
    pub(crate) fn push_line(&self, line: &[u8]) {
        let mut waiting = self.waiting.lock();
        if !waiting.is_closed {
            waiting.lines.extend_from_slice(line);
        }
    }

    /// Takes everything; `spare`, which must be empty, is what lines are put into next.
    pub(crate) fn take(&self, spare: Vec<u8>) -> Waiting {
        let mut waiting = self.waiting.lock();
        Waiting {
            lines: std::mem::replace(&mut waiting.lines, spare),
            records: std::mem::take(&mut waiting.records),
            lost: std::mem::take(&mut waiting.lost),
            tickets: std::mem::take(&mut waiting.tickets),
            ..Waiting::default()
        }
    }

    /// From now on everything is refused.
    pub(crate) fn close(&self) {
        self.waiting.lock().is_closed = true;
    }

    /// Bytes that wait, and records lost that were not collected yet.
    pub(crate) fn figures(&self) -> (usize, u64, u64) {
        let waiting = self.waiting.lock();
        (waiting.lines.len(), waiting.records, waiting.lost)
    }
}

impl Waiting {
    fn push(&mut self, plan: &Plan, level: Level, record: &Record<'_>, end: Option<&End<'_>>) {
        line::request(&mut self.lines, &mut self.stamp, plan, level, record, end);
        self.records += 1;
    }
}
