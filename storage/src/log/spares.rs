//! Segments at rest: those held ready for use, and those that the log has done with.

use super::LogError;
use super::segment::{SPARE_SUFFIX, TEMPORARY_SUFFIX, spare_name, zeroed_file};
use crate::disk::Disk;
use parking_lot::Mutex;
use std::sync::Arc;

/// Makes and recycles segments away from the append path. [`SparePool::work`] is meant for a thread of its own, to be called
/// when [`SparePool::has_work`] says so, after appends and compactions. Without such a thread the log still works: an append that
/// needs a new segment and finds none ready recycles or makes one itself (some 100 ms for 64 MiB).
#[derive(Debug)]
pub struct SparePool<D: Disk> {
    disk: Arc<D>,
    segment_bytes: u32,
    wanted: usize,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    /// Names of files of `segment_bytes`, synced, whose content does not matter.
    ready: Vec<String>,
    /// Names of files that hold nothing needed, with their length.
    retired: Vec<(String, u64)>,
    next_number: u64,
}

impl<D: Disk> SparePool<D> {
    pub(super) fn new(disk: Arc<D>, segment_bytes: u32, wanted: usize) -> SparePool<D> {
        SparePool {
            disk,
            segment_bytes,
            wanted,
            files: Mutex::default(),
        }
    }

    /// Whether [`SparePool::work`] would do anything.
    pub fn has_work(&self) -> bool {
        let files = self.files.lock();
        files.ready.len() < self.wanted || !files.retired.is_empty()
    }

    /// Recycles or removes the segments that the log has done with, and makes spare ones up to the wanted number. Takes no
    /// lock while it waits for the disk.
    ///
    /// An error leaves the log usable, but one that says it cannot sync is a failed sync like any other.
    pub fn work(&self) -> Result<(), LogError> {
        self.recycle()?;
        while self.files.lock().ready.len() < self.wanted {
            let number = self.next_number();
            let temporary = format!("spare-{number:08x}{TEMPORARY_SUFFIX}");
            let name = spare_name(number);
            zeroed_file(&*self.disk, &temporary, self.segment_bytes)?;
            self.disk
                .rename(&temporary, &name)
                .map_err(|source| LogError::io(self.disk.path(&name), "rename", source))?;
            self.files.lock().ready.push(name);
        }
        Ok(())
    }

    /// Takes over the files of an earlier run: spares, and what was left half made.
    pub(super) fn adopt(&self, name: &str) -> Result<(), LogError> {
        if let Some(number) = spare_number(name) {
            let mut files = self.files.lock();
            files.next_number = files.next_number.max(number.saturating_add(1));
            drop(files);
            let bytes = self
                .disk
                .len(name)
                .map_err(|source| LogError::io(self.disk.path(name), "read", source))?;
            let mut files = self.files.lock();
            if bytes == u64::from(self.segment_bytes) && files.ready.len() < self.wanted {
                files.ready.push(name.to_owned());
                return Ok(());
            }
        } else if !(name.starts_with("spare-") && name.ends_with(TEMPORARY_SUFFIX)) {
            return Ok(());
        }
        self.remove(name)
    }

    /// Hands over a segment that holds nothing needed any more.
    pub(super) fn retire(&self, name: String, bytes: u64) {
        self.files.lock().retired.push((name, bytes));
    }

    /// A file of `segment_bytes` with any content, if one is at hand.
    pub(super) fn take(&self) -> Result<Option<String>, LogError> {
        if let Some(name) = self.files.lock().ready.pop() {
            return Ok(Some(name));
        }
        self.recycle()?;
        Ok(self.files.lock().ready.pop())
    }

    /// A number that no spare file has.
    pub(super) fn next_number(&self) -> u64 {
        let mut files = self.files.lock();
        let number = files.next_number;
        files.next_number = number.wrapping_add(1);
        number
    }

    fn recycle(&self) -> Result<(), LogError> {
        let mut recycled = Vec::new();
        loop {
            let (name, bytes, ready) = {
                let mut files = self.files.lock();
                let ready = files.ready.len();
                match files.retired.pop() {
                    Some((name, bytes)) => (name, bytes, ready),
                    None => break,
                }
            };
            if bytes == u64::from(self.segment_bytes) && ready + recycled.len() < self.wanted {
                let spare = spare_name(self.next_number());
                self.disk
                    .rename(&name, &spare)
                    .map_err(|source| LogError::io(self.disk.path(&name), "rename", source))?;
                recycled.push(spare);
            } else {
                self.remove(&name)?;
            }
        }
        if !recycled.is_empty() {
            // Only now may the content be overwritten: under its old name the file would be a damaged segment.
            self.disk
                .sync_dir()
                .map_err(|source| LogError::io(self.disk.path(""), "sync", source))?;
            self.files.lock().ready.append(&mut recycled);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), LogError> {
        self.disk
            .remove(name)
            .map_err(|source| LogError::io(self.disk.path(name), "remove", source))
    }
}

fn spare_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("spare-")?.strip_suffix(SPARE_SUFFIX)?;
    u64::from_str_radix(digits, 16).ok()
}
