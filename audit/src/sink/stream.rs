//! Standard output: lines as they are, without a chain, which could not be continued after a restart.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
};

use super::{Refused, Sink};
use crate::{block::Block, line};

/// Writes lines to something that takes bytes.
pub(crate) struct StreamSink<W>(W);

impl<W: Write + Send> StreamSink<W> {
    pub(crate) fn new(target: W) -> Self {
        Self(target)
    }
}

impl StreamSink<File> {
    /// Standard output, past the lock and the buffer that all of a process share: a hanging write here must not hold up others there.
    pub(crate) fn stdout() -> io::Result<Self> {
        let own = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::new(File::from(own)))
    }
}

impl<W: Write + Send> Sink for StreamSink<W> {
    fn take(&mut self, block: &Block, lost: u64) -> Result<(), Refused> {
        if lost > 0 {
            self.0.write_all(&line::lost(lost))?;
        }
        self.0.write_all(&block.lines)?;
        self.0.flush()?;
        Ok(())
    }
}
