//! A sink: a thread, a bounded queue, a deadline, and a place that lines are written to.
//!
//! The collector never waits for a sink. What a sink has not taken within its deadline is dropped and counted, and while one write hangs
//! nothing more is queued for it. A sink that fails rests for a while, and then tries again by itself.

mod file;
pub(crate) mod private_file;
mod resume;
mod stream;
mod syslog;

use parking_lot::{Condvar, Mutex};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

pub(crate) use file::{Disk, FileSink, FileSinkConfig, RealDisk, all_files};
pub(crate) use stream::StreamSink;
pub(crate) use syslog::SyslogSink;

use crate::{
    SinkConfig, SinkStats,
    block::{Block, NotTaken},
    config::Notice,
};

/// Where lines go. Called by one thread, which may be held up here for as long as it takes.
pub(crate) trait Sink: Send {
    /// Takes all lines of a block, after saying that `lost` records are missing before it.
    fn take(&mut self, block: &Block, lost: u64) -> Result<(), Refused>;

    /// When [`Sink::tick`] should be called, if nothing comes.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Does what is due by the clock.
    fn tick(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Nothing comes any more.
    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Takes over what may change while the place stays the same.
    fn configure(&mut self, _config: &SinkConfig) {}
}

/// A block was not taken, or not whole.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Lines that were written all the same.
    pub(crate) taken: u64,
    /// What failed; the message is for the log.
    pub(crate) error: io::Error,
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self { taken: 0, error }
    }
}

/// The collector's side of a sink.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) config: Mutex<SinkConfig>,
    queue: Mutex<Queue>,
    changed: Condvar,
    limit_bytes: usize,
    retry_after: Duration,
    notices: Notices,
}

/// What the operator should hear, until somebody asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notices(Arc<Mutex<Vec<Notice>>>);

impl Notices {
    pub(crate) fn push(&self, notice: Notice) {
        // Nobody asks: the first ones say what began it.
        const MAX: usize = 100;
        let mut all = self.0.lock();
        if all.len() < MAX {
            all.push(notice);
        }
    }

    pub(crate) fn take(&self) -> Vec<Notice> {
        std::mem::take(&mut *self.0.lock())
    }
}

#[derive(Debug, Default)]
struct Queue {
    blocks: VecDeque<(Instant, Arc<Block>)>,
    bytes: usize,
    /// Since when the thread is busy.
    busy_since: Option<Instant>,
    is_hanging: bool,
    is_closing: bool,
    /// The last thing it did failed.
    is_failing: bool,
    new_config: Option<SinkConfig>,
    written: u64,
    lost: u64,
    errors: u64,
    /// Lost records that no line says yet.
    unsaid: u64,
    /// Told when the thread ends.
    closed: Vec<mpsc::Sender<()>>,
}

impl Queue {
    fn drop_block(&mut self, block: &Block) {
        let count = block.records + block.lost;
        self.lost += count;
        self.unsaid += count;
    }

    fn pop(&mut self) -> Option<(Instant, Arc<Block>)> {
        let popped = self.blocks.pop_front()?;
        self.bytes -= popped.1.lines.len();
        Some(popped)
    }
}

impl Handle {
    /// Starts the sink's thread.
    pub(crate) fn start(
        config: SinkConfig,
        sink: Box<dyn Sink>,
        limit_bytes: usize,
        retry_after: Duration,
        notices: Notices,
    ) -> io::Result<Arc<Self>> {
        let handle = Arc::new(Self {
            config: Mutex::new(config),
            queue: Mutex::default(),
            changed: Condvar::new(),
            limit_bytes,
            retry_after,
            notices,
        });
        let own = Arc::clone(&handle);
        thread::Builder::new()
            .name("hf-audit-sink".to_owned())
            .spawn(move || own.run(sink))?;
        Ok(handle)
    }

    /// Gives the sink a block, unless it hangs or has too much to do already.
    pub(crate) fn push(&self, block: &Arc<Block>) {
        let mut queue = self.queue.lock();
        let bytes = block.lines.len();
        let is_full = !queue.blocks.is_empty() && queue.bytes + bytes > self.limit_bytes;
        if queue.is_hanging || queue.is_closing || is_full {
            return queue.drop_block(block);
        }
        queue.bytes += bytes;
        queue.blocks.push_back((Instant::now(), Arc::clone(block)));
        self.changed.notify_one();
    }

    /// Drops what has waited for longer than the deadline. Returns whether anything still waits.
    pub(crate) fn expire(&self, deadline: Duration) -> bool {
        let mut dropped = Vec::new();
        let mut queue = self.queue.lock();
        let is_over = |since: Instant| since.elapsed() > deadline;
        queue.is_hanging = queue.busy_since.is_some_and(is_over);
        while let Some((since, _)) = queue.blocks.front() {
            if !queue.is_hanging && !is_over(*since) {
                break;
            }
            if let Some((_, block)) = queue.pop() {
                queue.drop_block(&block);
                dropped.push(block);
            }
        }
        let is_waiting = queue.busy_since.is_some() || !queue.blocks.is_empty();
        // Those who wait for the last reference are told outside the lock.
        drop(queue);
        drop(dropped);
        is_waiting
    }

    /// Takes over changed settings of the same place.
    pub(crate) fn configure(&self, config: SinkConfig) {
        *self.config.lock() = config.clone();
        self.queue.lock().new_config = Some(config);
        self.changed.notify_one();
    }

    /// Lets the thread finish what it has. The receiver's other end is closed when the thread has ended.
    pub(crate) fn close(&self) -> mpsc::Receiver<()> {
        let (sender, receiver) = mpsc::channel();
        let mut queue = self.queue.lock();
        queue.is_closing = true;
        queue.closed.push(sender);
        self.changed.notify_one();
        receiver
    }

    pub(crate) fn stats(&self) -> SinkStats {
        let name = self.config.lock().to_string();
        let queue = self.queue.lock();
        SinkStats {
            name,
            written: queue.written,
            lost: queue.lost,
            errors: queue.errors,
            queue_bytes: queue.bytes as u64,
            hanging: queue.is_hanging,
        }
    }

    fn run(&self, mut sink: Box<dyn Sink>) {
        let mut rest_until: Option<Instant> = None;
        loop {
            let work = self.next(sink.due(), rest_until);
            if rest_until.is_some_and(|until| until <= Instant::now()) {
                rest_until = None;
            }
            let result = match &work {
                Work::Block { block, .. } if rest_until.is_some() => {
                    self.refuse(block, 0);
                    self.done();
                    continue;
                }
                Work::Block { block, unsaid } => {
                    let result = sink.take(block, unsaid + block.lost);
                    match &result {
                        Ok(()) => self.taken(block, *unsaid),
                        Err(refused) => self.refuse(block, refused.taken),
                    }
                    result.map_err(|refused| refused.error)
                }
                Work::Tick => sink.tick(),
                Work::Configure(config) => {
                    sink.configure(config);
                    Ok(())
                }
                Work::Close => sink.close(),
            };
            let is_closed = matches!(work, Work::Close);
            let is_refused = result.is_err() && matches!(work, Work::Block { .. });
            if let Err(error) = result {
                self.failed(&error);
            }
            // Those who wait for the block go on when its last reference is gone: by then all is counted.
            drop(work);
            // What is due by the clock has a time of its own for the next try, and does not keep blocks from being written.
            if is_refused {
                rest_until = Some(Instant::now() + self.retry_after);
            }
            self.done();
            if is_closed {
                // The file is free for others before anybody hears that this is over.
                drop(sink);
                self.queue.lock().closed.clear();
                return;
            }
        }
    }

    /// Waits for something to do.
    fn next(&self, due: Option<Instant>, rest_until: Option<Instant>) -> Work {
        let mut queue = self.queue.lock();
        loop {
            let now = Instant::now();
            let is_resting = rest_until.is_some_and(|until| now < until);
            let unsaid = queue.unsaid;
            let work = if let Some(config) = queue.new_config.take() {
                Work::Configure(config)
            } else if !is_resting && due.is_some_and(|due| due <= now) {
                // Before blocks: under load there always is one.
                Work::Tick
            } else if let Some((_, block)) = queue.pop() {
                Work::Block { block, unsaid }
            } else if !is_resting && unsaid > 0 {
                // Even if no request comes, the log says what it lost – and finds out whether it can be written again.
                let block = Arc::new(Block::default());
                Work::Block { block, unsaid }
            } else if queue.is_closing {
                Work::Close
            } else {
                let until = if is_resting { rest_until } else { due };
                match until {
                    Some(until) => drop(self.changed.wait_until(&mut queue, until)),
                    None => self.changed.wait(&mut queue),
                }
                continue;
            };
            queue.busy_since = Some(now);
            return work;
        }
    }

    fn taken(&self, block: &Block, said: u64) {
        let mut queue = self.queue.lock();
        queue.written += block.records;
        queue.lost += block.lost;
        queue.unsaid -= said;
        let was_failing = std::mem::take(&mut queue.is_failing);
        drop(queue);
        block.settle(Ok(()));
        if was_failing {
            let sink = self.config.lock().to_string();
            self.notices.push(Notice::Recovered { sink });
        }
    }

    fn refuse(&self, block: &Block, taken: u64) {
        let taken = taken.min(block.records);
        let count = block.records - taken + block.lost;
        let mut queue = self.queue.lock();
        queue.written += taken;
        queue.lost += count;
        queue.unsaid += count;
    }

    /// Counts a failure; the first one after all was well is said.
    fn failed(&self, error: &io::Error) {
        let sink = self.config.lock().to_string();
        let mut queue = self.queue.lock();
        queue.errors += 1;
        let was_failing = std::mem::replace(&mut queue.is_failing, true);
        drop(queue);
        if !was_failing {
            let error = error.to_string();
            self.notices.push(Notice::Failed { sink, error });
        }
    }

    fn done(&self) {
        let mut queue = self.queue.lock();
        queue.busy_since = None;
        queue.is_hanging = false;
    }
}

enum Work {
    Block { block: Arc<Block>, unsaid: u64 },
    Tick,
    Configure(SinkConfig),
    Close,
}

/// Tells those who wait for a block that its time is over.
pub(crate) fn over(block: &Block) {
    block.settle(Err(NotTaken::Deadline));
}
