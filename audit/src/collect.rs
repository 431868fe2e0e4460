//! The collector: a thread that takes lines from the writers and gives them to the sinks. It never writes, so nothing can hold it up.

use parking_lot::Mutex;
use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    bell::Bell,
    block::Block,
    sink::{self, Handle},
    stats::Stats,
    writer::Buffer,
};

/// Time between rounds while records come, or somebody waits.
const BUSY_WAIT: Duration = Duration::from_millis(10);
/// The longest time between rounds when nothing comes.
const IDLE_WAIT: Duration = Duration::from_millis(160);
/// More than that much memory is not kept for a writer's next round.
const SPARE_BYTES: usize = 1 << 20;

/// What the collector shares with the rest.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) bell: Arc<Bell>,
    pub(crate) buffers: Mutex<Vec<Arc<Buffer>>>,
    /// Lines of the log's own, and strict records of those who have no writer.
    pub(crate) own: Arc<Buffer>,
    pub(crate) sinks: Mutex<Vec<Arc<Handle>>>,
    pub(crate) deadline: Mutex<Duration>,
    pub(crate) refused: Arc<AtomicU64>,
    pub(crate) is_stopped: AtomicBool,
    records: AtomicU64,
    lost: AtomicU64,
    writer_limit_bytes: usize,
}

impl Collected {
    pub(crate) fn new(writer_limit_bytes: usize, deadline: Duration) -> Self {
        let bell = Arc::new(Bell::default());
        let refused = Arc::new(AtomicU64::new(0));
        let own = Buffer::new(writer_limit_bytes, Arc::clone(&refused), Arc::clone(&bell));
        Self {
            bell,
            buffers: Mutex::default(),
            own: Arc::new(own),
            sinks: Mutex::default(),
            deadline: Mutex::new(deadline),
            refused,
            is_stopped: AtomicBool::new(false),
            records: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            writer_limit_bytes,
        }
    }

    /// A buffer that the collector visits until its writer is gone.
    pub(crate) fn buffer(&self) -> Arc<Buffer> {
        let buffer = Arc::new(Buffer::new(
            self.writer_limit_bytes,
            Arc::clone(&self.refused),
            Arc::clone(&self.bell),
        ));
        let mut buffers = self.buffers.lock();
        if self.is_stopped.load(Ordering::Acquire) {
            buffer.close();
        }
        buffers.push(Arc::clone(&buffer));
        buffer
    }

    /// Refuses everything from now on.
    pub(crate) fn close(&self) {
        let buffers = self.buffers.lock();
        self.is_stopped.store(true, Ordering::Release);
        for buffer in buffers.iter() {
            buffer.close();
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let sinks: Vec<_> = self.sinks.lock().iter().map(|sink| sink.stats()).collect();
        let mut stats = Stats {
            records: self.records.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            strict_refused: self.refused.load(Ordering::Relaxed),
            queue_bytes: sinks.iter().map(|sink| sink.queue_bytes).sum(),
            sinks,
        };
        let buffers = self.buffers.lock();
        for buffer in buffers.iter().chain([&self.own]) {
            let (bytes, records, lost) = buffer.figures();
            stats.queue_bytes += bytes as u64;
            stats.records += records;
            stats.lost += lost;
        }
        stats
    }

    /// Takes what all writers have. The start line begins a log, and the stop line ends it.
    fn gather(&self, spares: &mut Vec<Vec<u8>>) -> Block {
        let mut block = Block::default();
        let mut buffers = self.buffers.lock();
        let is_last = self.is_stopped.load(Ordering::Acquire);
        let first = (!is_last).then_some(&self.own);
        let last = is_last.then_some(&self.own);
        for buffer in first.into_iter().chain(buffers.iter()).chain(last) {
            let mut taken = buffer.take(spares.pop().unwrap_or_default());
            block.records += taken.records;
            block.lost += taken.lost;
            block.tickets.append(&mut taken.tickets);
            block.lines.extend_from_slice(&taken.lines);
            taken.lines.clear();
            if taken.lines.capacity() <= SPARE_BYTES {
                spares.push(taken.lines);
            }
        }
        // A writer that is gone leaves its buffer to us; it was emptied just now, and nobody fills it any more.
        buffers.retain(|buffer| Arc::strong_count(buffer) > 1);
        drop(buffers);
        self.records.fetch_add(block.records, Ordering::Relaxed);
        self.lost.fetch_add(block.lost, Ordering::Relaxed);
        block
    }

    /// Runs until it is told to stop and everything was handed on.
    pub(crate) fn run(&self) {
        let mut spares = Vec::new();
        let mut waiting: Vec<(Instant, Weak<Block>)> = Vec::new();
        let mut wait = BUSY_WAIT;
        loop {
            let rung = self.bell.wait(wait);
            let mut block = self.gather(&mut spares);
            block.flushed = rung.flushes;
            let is_busy = !block.is_empty();
            if is_busy {
                let block = Arc::new(block);
                if !block.tickets.is_empty() {
                    waiting.push((Instant::now(), Arc::downgrade(&block)));
                }
                for sink in self.sinks.lock().iter() {
                    sink.push(&block);
                }
            }
            let deadline = *self.deadline.lock();
            let mut is_pending = false;
            // Those who wait for a dropped block are told here; they may want the list, too.
            let sinks = self.sinks.lock().clone();
            for sink in &sinks {
                is_pending |= sink.expire(deadline);
            }
            waiting.retain(|(since, block)| {
                let is_over = since.elapsed() >= deadline;
                if is_over && let Some(block) = block.upgrade() {
                    sink::over(&block);
                }
                !is_over && block.strong_count() > 0
            });
            if rung.stop {
                return;
            }
            wait = if is_busy || is_pending || !waiting.is_empty() {
                BUSY_WAIT
            } else {
                (wait * 2).min(IDLE_WAIT)
            };
        }
    }
}
