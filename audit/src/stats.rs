//! Figures for metrics.

/// What auditing has done since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records accepted from requests.
    pub records: u64,
    /// Records that were dropped before any sink saw them, because their writer was full or auditing had stopped.
    pub lost: u64,
    /// Strict records that no sink took.
    pub strict_refused: u64,
    /// Bytes waiting in writers and in the queues of sinks.
    pub queue_bytes: u64,
    /// Each sink's part.
    pub sinks: Vec<SinkStats>,
}

/// What one sink has done since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkStats {
    /// As it is configured: `file:/var/log/holdfast/audit.log`.
    pub name: String,
    /// Records written.
    pub written: u64,
    /// Records that this sink did not take, with those that were lost before any sink saw them. An upper bound: a write that failed may
    /// have reached the disk in part.
    pub lost: u64,
    /// Writes, opens, rotations and checkpoints that failed.
    pub errors: u64,
    /// Bytes waiting.
    pub queue_bytes: u64,
    /// It has been busy with one write for longer than the deadline.
    pub hanging: bool,
}
