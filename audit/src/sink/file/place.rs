//! Where a file is: opening, continuing, rotating, setting aside.

use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Instant,
};

use super::{FileSink, Open, names};
use crate::{
    Notice, SyncPolicy,
    chain::{self, Chain, Identity, Position},
    sink::{
        private_file,
        resume::{self, Known, Tail},
    },
};

/// A file that was made and has its first name.
struct Next {
    open: Open,
    known: Known,
}

impl FileSink {
    /// Continues the file, or begins one.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.open = None;
        self.looked_at = Instant::now();
        let path = self.config.file.path.clone();
        private_file::make_folder(&path)?;
        let opened = private_file::open(&path, OpenOptions::new().read(true).append(true));
        match opened {
            Ok(file) if file.metadata()?.len() > 0 => self.continue_file(file),
            Ok(_) => self.begin(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.begin(),
            Err(error) => Err(error),
        }
    }

    /// Whether the path still leads to the file that is open, and nobody else changed its length.
    pub(super) fn is_still_ours(&mut self) -> bool {
        self.looked_at = Instant::now();
        let Some(open) = &self.open else {
            return false;
        };
        let there = fs::symlink_metadata(&self.config.file.path);
        let (Ok(there), Ok(ours)) = (there, open.file.metadata()) else {
            return false;
        };
        (there.dev(), there.ino(), there.len()) == (ours.dev(), ours.ino(), open.bytes)
    }

    /// Begins a file where there is none.
    fn begin(&mut self) -> io::Result<()> {
        let position = match self.known {
            Some(known) => known.position,
            None => self.end_of_rotated()?,
        };
        let next = self.make(position)?;
        self.enter(next)
    }

    /// Where the newest rotated file ends, if there is one.
    fn end_of_rotated(&self) -> io::Result<Position> {
        let Some(newest) = names::all_rotated(&self.config.file.path)?.pop() else {
            return Ok(Position::default());
        };
        let mut file = private_file::open(&newest, OpenOptions::new().read(true))?;
        let header = resume::header(&mut file)?;
        let tail = resume::tail(&mut file, &header, None)?;
        Ok(tail.chain.position())
    }

    /// Makes the next file under its first name: with its header, sealed and signed, or not at all.
    fn make(&self, position: Position) -> io::Result<Next> {
        let unfinished = names::unfinished(&self.config.file.path);
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        lock(&file)?;
        let mut open = Open {
            file,
            bytes: 0,
            chain: Chain::at(position),
            first: position,
            has_blocks: false,
            is_checkpoint_due: false,
            checkpoint_at: Instant::now(),
        };
        let header = chain::header(&self.config.identity, position);
        let known = self.seal_with(&mut open, b"", &header)?;
        Ok(Next { open, known })
    }

    /// Appends a line of the chain's own as a block, and a checkpoint. `end` ends a torn line before it.
    fn seal_with(&self, open: &mut Open, end: &[u8], line: &[u8]) -> io::Result<Known> {
        open.chain.add(line);
        let seal = open.chain.seal();
        let checkpoint = chain::checkpoint(open.chain.position(), &self.config.key);
        open.chain.add(&checkpoint);
        self.append(open, &[end, line, &seal, &checkpoint])?;
        if self.config.file.sync != SyncPolicy::None {
            self.config.disk.sync(&mut open.file)?;
        }
        open.is_checkpoint_due = false;
        open.checkpoint_at = Instant::now();
        Ok(Known {
            position: open.chain.position(),
            offset: open.bytes - checkpoint.len() as u64,
        })
    }

    /// Gives a file that was made its name.
    fn enter(&mut self, next: Next) -> io::Result<()> {
        let path = &self.config.file.path;
        fs::rename(names::unfinished(path), path)?;
        self.open = Some(next.open);
        self.known = Some(next.known);
        private_file::sync_folder(path)
    }

    fn continue_file(&mut self, mut file: File) -> io::Result<()> {
        let path = self.config.file.path.clone();
        lock(&file)?;
        let header = resume::header(&mut file)?;
        let mode = private_file::mode(&file)?;
        if mode & 0o177 != 0 {
            file.set_permissions(Permissions::from_mode(0o600))?;
            self.config
                .notices
                .push(Notice::PermissionsRepaired { path, found: mode });
        }
        let tail = resume::tail(&mut file, &header, self.known)?;
        let why = match tail.wrong.clone() {
            Some(wrong) => Some(wrong),
            None if !is_same(&header.identity, &self.config.identity) => {
                Some("it was written by another node, cluster or key".to_owned())
            }
            None => None,
        };
        match why {
            Some(why) => self.set_aside(header.position, tail.chain.position(), why),
            None => self.resume(file, header.position, tail),
        }
    }

    /// Says how the file was found, and seals what had no seal.
    fn resume(&mut self, file: File, first: Position, tail: Tail) -> io::Result<()> {
        if !tail.was_stopped {
            self.config.notices.push(Notice::Resumed {
                path: self.config.file.path.clone(),
                unsealed_lines: tail.unsealed_lines,
                torn_bytes: tail.torn_bytes,
            });
        }
        let mut open = Open {
            file,
            bytes: tail.bytes,
            chain: tail.chain,
            first,
            has_blocks: false,
            is_checkpoint_due: false,
            checkpoint_at: Instant::now(),
        };
        let line = chain::resumed(tail.was_stopped, tail.unsealed_lines, tail.torn_bytes);
        // The walk through the tail has counted this newline already.
        let end: &[u8] = if tail.torn_bytes > 0 { b"\n" } else { b"" };
        self.known = Some(self.seal_with(&mut open, end, &line)?);
        self.open = Some(open);
        Ok(())
    }

    /// Keeps a file that cannot be continued under another name, and begins the next one where it ends – or where we know that it ended.
    fn set_aside(&mut self, first: Position, end: Position, why: String) -> io::Result<()> {
        let path = self.config.file.path.clone();
        let position = self.known.map_or(end, |known| known.position);
        let next = self.make(position)?;
        let to = names::rotated(&path, first.seq)?;
        fs::rename(&path, &to)?;
        self.enter(next)?;
        self.config.notices.push(Notice::SetAside { path, to, why });
        Ok(())
    }

    /// Ends the file with a checkpoint and begins the next one.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        self.checkpoint()?;
        let Some(open) = &self.open else {
            return Ok(());
        };
        let path = self.config.file.path.clone();
        let (first, end) = (open.first, open.chain.position());
        // Until it is made, the old file is as good as before.
        let next = self.make(end)?;
        let to = names::rotated(&path, first.seq)?;
        // From here on an error leaves it open which file is where: it is looked at before the next write.
        let old = self.open.take();
        fs::rename(&path, &to)?;
        self.enter(next)?;
        drop(old);
        self.prune(&path)
    }

    fn prune(&self, path: &Path) -> io::Result<()> {
        let files = names::all_rotated(path)?;
        let surplus = files.len().saturating_sub(self.config.file.keep);
        for file in &files[..surplus] {
            fs::remove_file(file)?;
        }
        Ok(())
    }
}

/// The version may change while a file goes on.
fn is_same(one: &Identity, two: &Identity) -> bool {
    (&one.node, &one.cluster, &one.public) == (&two.node, &two.cluster, &two.public)
}

/// Two processes that append to one file would break each other's chain.
fn lock(file: &File) -> io::Result<()> {
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        if error == rustix::io::Errno::WOULDBLOCK {
            io::Error::other("another process writes to it")
        } else {
            error.into()
        }
    })
}
