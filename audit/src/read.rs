//! Reading audit files: verifying, following, searching.

mod entry;
mod grep;
mod tail;
mod verify;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

pub use crate::chain::{Position, PositionError};
pub use entry::{Entry, Kind, Text};
pub use grep::{Filter, FilterError, Grep, NamePattern, OutcomeFilter, TimePrefix, grep};
pub use tail::{Tail, tail};
pub use verify::{Problem, Report, VerifyOptions, verify};

/// The files of a log in the order of its chain: those it was rotated to, and the current one if it is there.
///
/// # Errors
///
/// The folder cannot be read.
pub fn files(current: &Path) -> io::Result<Vec<PathBuf>> {
    crate::sink::all_files(current)
}

/// A file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("audit file {}: {source}", path.display())]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What failed.
    pub source: io::Error,
}

impl ReadError {
    fn at(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self {
            path: path.to_owned(),
            source,
        }
    }
}

fn open(path: &Path) -> Result<File, ReadError> {
    File::open(path).map_err(ReadError::at(path))
}
