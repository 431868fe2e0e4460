//! The chained file: appended to, checkpointed, rotated, and continued after a restart or an error.

mod names;
mod place;

use std::{
    fs::File,
    io::{self, IoSlice, Write},
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use names::all as all_files;

use super::{Notices, Refused, Sink, resume::Known};
use crate::{
    FileConfig, NodeKey, SinkConfig, SyncPolicy,
    block::Block,
    chain::{self, Chain, Identity, Position},
    line,
};

/// The file operations that can fail in the middle.
pub(crate) trait Disk: Send + Sync {
    /// Appends all parts, or fails after some bytes.
    fn append(&self, file: &mut File, parts: &mut [IoSlice<'_>]) -> io::Result<()>;
    /// Makes durable what was appended.
    fn sync(&self, file: &mut File) -> io::Result<()>;
}

/// The operating system's.
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn append(&self, file: &mut File, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match file.write_vectored(parts) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut parts, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync(&self, file: &mut File) -> io::Result<()> {
        file.sync_data()
    }
}

/// What a file sink is made of.
pub(crate) struct FileSinkConfig {
    pub(crate) file: FileConfig,
    pub(crate) identity: Identity,
    pub(crate) key: NodeKey,
    pub(crate) checkpoint_every: Duration,
    /// Time between looks at whether the path still leads to the file as it was left, and between tries to rotate.
    pub(crate) retry_after: Duration,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) notices: Notices,
}

pub(crate) struct FileSink {
    config: FileSinkConfig,
    /// None after an error: what the file holds has to be looked at.
    open: Option<Open>,
    /// The last seal that was written for certain.
    known: Option<Known>,
    looked_at: Instant,
    /// A rotation that failed is not tried again before.
    rotate_after: Instant,
    /// The last line says that the node stops: it stays the last one.
    is_ended: bool,
}

/// A file that ends with a seal, or with a seal and a checkpoint.
struct Open {
    file: File,
    bytes: u64,
    chain: Chain,
    /// The position in the file's header.
    first: Position,
    /// A block was written since it was opened. Without, it is not full, however small a file may be.
    has_blocks: bool,
    is_checkpoint_due: bool,
    checkpoint_at: Instant,
}

impl FileSink {
    /// Opens or makes the file.
    pub(crate) fn open(config: FileSinkConfig) -> io::Result<Self> {
        let now = Instant::now();
        let mut sink = Self {
            config,
            open: None,
            known: None,
            looked_at: now,
            rotate_after: now,
            is_ended: false,
        };
        sink.reopen()?;
        Ok(sink)
    }

    /// Writes a block and its seal.
    fn write(&mut self, block: &Block, lost: u64) -> io::Result<()> {
        if block.lines.is_empty() && lost == 0 {
            return Ok(());
        }
        if self.looked_at.elapsed() >= self.config.retry_after && !self.is_still_ours() {
            self.open = None;
        }
        if self.open.is_none() {
            self.reopen()?;
        }
        let Some(mut open) = self.open.take() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let said = if lost > 0 {
            line::lost(lost)
        } else {
            Vec::new()
        };
        open.chain.add(&said);
        open.chain.add(&block.lines);
        let seal = open.chain.seal();
        self.append(&mut open, &[&said, &block.lines, &seal])?;
        self.known = Some(Known {
            position: open.chain.position(),
            offset: open.bytes,
        });
        open.has_blocks = true;
        open.is_checkpoint_due = true;
        self.is_ended = last_line(&block.lines).starts_with(chain::STOP);
        if self.config.file.sync == SyncPolicy::Block {
            self.config.disk.sync(&mut open.file)?;
        }
        // Not before: after an error nothing is taken for granted.
        self.open = Some(open);
        Ok(())
    }

    fn append(&self, open: &mut Open, parts: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        self.config.disk.append(&mut open.file, &mut slices)?;
        open.bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        Ok(())
    }

    /// Signs the last seal.
    fn checkpoint(&mut self) -> io::Result<()> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        if open.is_checkpoint_due {
            let line = chain::checkpoint(open.chain.position(), &self.config.key);
            open.chain.add(&line);
            self.append(&mut open, &[&line])?;
            open.is_checkpoint_due = false;
            open.checkpoint_at = Instant::now();
            if self.config.file.sync != SyncPolicy::None {
                self.config.disk.sync(&mut open.file)?;
            }
        }
        self.open = Some(open);
        Ok(())
    }

    fn is_full(&self) -> bool {
        let max = self.config.file.max_bytes;
        let open = self.open.as_ref();
        !self.is_ended && open.is_some_and(|open| open.has_blocks && open.bytes >= max)
    }
}

fn last_line(lines: &[u8]) -> &[u8] {
    let before = lines.strip_suffix(b"\n").unwrap_or(lines);
    let start = before.iter().rposition(|byte| *byte == b'\n');
    start.map_or(before, |end| &before[end + 1..])
}

impl Sink for FileSink {
    fn take(&mut self, block: &Block, lost: u64) -> Result<(), Refused> {
        Ok(self.write(block, lost)?)
    }

    fn due(&self) -> Option<Instant> {
        let open = self.open.as_ref()?;
        if self.is_full() {
            return Some(self.rotate_after);
        }
        open.is_checkpoint_due
            .then(|| open.checkpoint_at + self.config.checkpoint_every)
    }

    fn tick(&mut self) -> io::Result<()> {
        if self.is_full() {
            return self.rotate().inspect_err(|_| {
                self.rotate_after = Instant::now() + self.config.retry_after;
            });
        }
        self.checkpoint()
    }

    fn close(&mut self) -> io::Result<()> {
        self.checkpoint()
    }

    fn configure(&mut self, config: &SinkConfig) {
        if let SinkConfig::File(file) = config {
            self.config.file = file.clone();
        }
    }
}
