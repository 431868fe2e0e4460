//! The end of a log, and what comes after it.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use super::{Entry, ReadError};
use crate::lines::{Lines, Shape};

/// Time between looks at a file that is followed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Entries that can be asked for; they are held in memory.
const MAX_ENTRIES: usize = 1_000_000;
/// Bytes of a file's end that are looked through first.
const WINDOW_BYTES: u64 = 1 << 20;

/// The last `count` entries of a log (at most a million), over its rotated files; with `follow`, also all that come later, through rotations.
///
/// # Errors
///
/// A file cannot be read; with `follow`, there must be a current file.
pub fn tail(current: &Path, count: usize, follow: bool) -> Result<Tail, ReadError> {
    let count = count.min(MAX_ENTRIES);
    // Opened before the others are listed: a rotation in between is then seen when this file ends.
    let file = match super::open(current) {
        Ok(file) => Some(file),
        Err(error) if !follow && error.source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut ready = VecDeque::new();
    let mut end = 0;
    let own = match &file {
        Some(file) => {
            let own = identity(file).map_err(ReadError::at(current))?;
            let (last, offset) = last_entries(current, file, count)?;
            (ready, end) = (last.into(), offset);
            Some(own)
        }
        None => None,
    };
    let files = super::files(current).map_err(ReadError::at(current))?;
    for path in files.iter().rev() {
        if ready.len() >= count {
            break;
        }
        let older = super::open(path)?;
        if Some(identity(&older).map_err(ReadError::at(path))?) == own {
            continue;
        }
        let (last, _) = last_entries(path, &older, count - ready.len())?;
        for entry in last.into_iter().rev() {
            ready.push_front(entry);
        }
    }
    let following = match file {
        Some(file) if follow => Some(Following::at(current, file, end)?),
        _ => None,
    };
    Ok(Tail {
        current: current.to_owned(),
        ready,
        following,
    })
}

/// The iterator of [`tail`].
pub struct Tail {
    current: PathBuf,
    ready: VecDeque<Entry>,
    following: Option<Following>,
}

impl Tail {
    /// The next entry that is there already.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or has become shorter.
    pub fn poll(&mut self) -> Result<Option<Entry>, ReadError> {
        if let Some(entry) = self.ready.pop_front() {
            return Ok(Some(entry));
        }
        match &mut self.following {
            Some(following) => following.next(&self.current),
            None => Ok(None),
        }
    }
}

impl Iterator for Tail {
    type Item = Result<Entry, ReadError>;

    /// With `follow`, waits for the next entry.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.poll() {
                Ok(Some(entry)) => return Some(Ok(entry)),
                Ok(None) if self.following.is_some() => thread::sleep(LOOK_EVERY),
                Ok(None) => return None,
                Err(error) => {
                    self.following = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// A file that may grow.
struct Following {
    path: Arc<Path>,
    own: (u64, u64),
    lines: Lines<File>,
    /// A second look at the old name's file, which could still get lines before the rotation.
    is_last_look: bool,
}

impl Following {
    fn at(path: &Path, mut file: File, offset: u64) -> Result<Self, ReadError> {
        let failed = ReadError::at(path);
        file.seek(SeekFrom::Start(offset)).map_err(&failed)?;
        Ok(Self {
            path: path.into(),
            own: identity(&file).map_err(&failed)?,
            lines: Lines::new(file, offset),
            is_last_look: false,
        })
    }

    fn next(&mut self, current: &Path) -> Result<Option<Entry>, ReadError> {
        loop {
            let path = Arc::clone(&self.path);
            let failed = ReadError::at(&path);
            match self.lines.next().map_err(&failed)? {
                Some(line) if line.shape == Shape::Torn => {
                    // Its end is on the way.
                    let offset = line.offset;
                    self.lines.seek(offset).map_err(&failed)?;
                }
                Some(line) => {
                    let text = line.bytes.strip_suffix(b"\n").unwrap_or(line.bytes);
                    match Entry::read(&path, text) {
                        Some(entry) => return Ok(Some(entry)),
                        None => continue,
                    }
                }
                None => {}
            }
            let length = self.lines.get_ref().metadata().map_err(&failed)?.len();
            if length < self.lines.offset() {
                return Err(failed(io::Error::other("the file has become shorter")));
            }
            let is_current = std::fs::metadata(current)
                .is_ok_and(|found| (found.dev(), found.ino()) == self.own);
            if is_current {
                return Ok(None);
            }
            if !std::mem::replace(&mut self.is_last_look, true) {
                continue;
            }
            match self.successor(current)? {
                Some(next) => *self = next,
                None => return Ok(None),
            }
        }
    }

    /// The file after this one.
    fn successor(&self, current: &Path) -> Result<Option<Self>, ReadError> {
        let files = super::files(current).map_err(ReadError::at(current))?;
        let mut after = false;
        let mut first = None;
        for path in &files {
            let file = super::open(path)?;
            let own = identity(&file).map_err(ReadError::at(path))?;
            if after {
                return Self::at(path, file, 0).map(Some);
            }
            after = own == self.own;
            first.get_or_insert((path, file));
        }
        match first {
            // Ours was deleted.
            Some((path, file)) if !after => Self::at(path, file, 0).map(Some),
            _ => Ok(None),
        }
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let found = file.metadata()?;
    Ok((found.dev(), found.ino()))
}

/// The last entries of one file, and where its last whole line ends.
fn last_entries(path: &Path, file: &File, count: usize) -> Result<(Vec<Entry>, u64), ReadError> {
    let failed = ReadError::at(path);
    let length = file.metadata().map_err(&failed)?.len();
    let shared: Arc<Path> = path.into();
    let mut window = WINDOW_BYTES;
    loop {
        let start = length.saturating_sub(window);
        let mut reader = file;
        reader.seek(SeekFrom::Start(start)).map_err(&failed)?;
        let mut lines = Lines::new(reader, start);
        let mut found = VecDeque::new();
        let mut end = start;
        if start > 0 {
            // It began before.
            lines.next().map_err(&failed)?;
        }
        while let Some(line) = lines.next().map_err(&failed)? {
            if line.shape != Shape::Whole {
                continue;
            }
            end = line.offset + line.bytes.len() as u64;
            let text = line.bytes.strip_suffix(b"\n").unwrap_or(line.bytes);
            if count > 0
                && let Some(entry) = Entry::read(&shared, text)
            {
                if found.len() == count {
                    found.pop_front();
                }
                found.push_back(entry);
            }
        }
        if start == 0 || found.len() >= count {
            return Ok((found.into(), end));
        }
        window = window.saturating_mul(4);
    }
}
