//! Lines on their way from the writers to the sinks, and those who wait for them.

use parking_lot::Mutex;
use std::{fmt, sync::mpsc};

/// Called once with what became of a strict record: on an audit thread, or at once if the record is refused. It must be quick and must not block.
pub type OnTaken = Box<dyn FnOnce(Result<(), NotTaken>) + Send>;

/// Why no sink took a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Too much is waiting to be written.
    #[error("the audit log cannot keep up")]
    Full,
    /// Every sink failed.
    #[error("the audit log cannot be written")]
    Failed,
    /// No sink was done in time.
    #[error("the audit log was not written in time")]
    Deadline,
    /// Auditing has stopped.
    #[error("the audit log is closed")]
    Stopped,
}

/// Somebody who waits for a record to be taken; told exactly once.
pub(crate) struct Ticket(Mutex<Option<OnTaken>>);

impl Ticket {
    pub(crate) fn new(on_taken: OnTaken) -> Self {
        Self(Mutex::new(Some(on_taken)))
    }

    pub(crate) fn settle(&self, result: Result<(), NotTaken>) {
        let waiting = self.0.lock().take();
        if let Some(on_taken) = waiting {
            on_taken(result);
        }
    }
}

impl Drop for Ticket {
    /// The last sink let go of the record without taking it.
    fn drop(&mut self) {
        self.settle(Err(NotTaken::Failed));
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

/// What was collected from the writers in one round.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// Whole lines.
    pub(crate) lines: Vec<u8>,
    /// How many of them count as records.
    pub(crate) records: u64,
    /// Records that did not even get here.
    pub(crate) lost: u64,
    pub(crate) tickets: Vec<Ticket>,
    /// Closed when all sinks have let go of the block.
    pub(crate) flushed: Vec<mpsc::Sender<()>>,
}

impl Block {
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.lost == 0 && self.flushed.is_empty()
    }

    pub(crate) fn settle(&self, result: Result<(), NotTaken>) {
        for ticket in &self.tickets {
            ticket.settle(result);
        }
    }
}
