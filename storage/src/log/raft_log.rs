//! The log as raft sees it.

use super::cache::Cache;
use super::format::{Record, decode_frame};
use super::spares::SparePool;
use super::state::{LogState, Place};
use super::writer::Writer;
use super::{Entry, HardState, LogBatch, LogError, MAX_CONF_STATE_BYTES};
use crate::LogPosition;
use crate::disk::{Disk, DiskFile, RealDisk};
use bytes::Bytes;
use std::sync::Arc;

/// How much is read from a segment at once. An entry returned keeps as much in memory.
const READ_BYTES: usize = 1024 * 1024;

/// A raft log in a directory of its own. Entries are readable as soon as they are appended, durable after the next
/// [`RaftLog::sync`].
///
/// After an error other than `NoSpace` from a write or sync all further calls fail with [`LogError::Poisoned`]: the process
/// must stop.
#[derive(Debug)]
pub struct RaftLog<D: Disk = RealDisk> {
    pub(super) state: LogState,
    pub(super) cache: Cache,
    pub(super) writer: Writer<D>,
    pub(super) sync: bool,
}

impl<D: Disk> RaftLog<D> {
    /// Appends entries and hard state with one write, without waiting for the medium. The entries are consecutive, begin
    /// above the compaction mark and at most one behind the end, and their terms do not fall; the first one replaces
    /// the entry of its index and all after it.
    pub fn append(&mut self, batch: LogBatch<'_>) -> Result<(), LogError> {
        self.writer.check()?;
        self.check_entries(batch.entries)?;
        if batch.entries.is_empty() && batch.hard_state.is_none() {
            return Ok(());
        }
        let hard_state = batch.hard_state.map(Record::HardState);
        let entries = batch.entries.iter().map(Record::from);
        self.writer
            .write(hard_state.into_iter().chain(entries), &self.state)?;

        if let Some(hard_state) = batch.hard_state {
            self.state.hard_state = hard_state;
        }
        if let Some(first) = batch.entries.first() {
            self.cache.truncate(first.index);
        }
        let sequence = self.writer.newest.sequence;
        for (entry, &placement) in batch.entries.iter().zip(&self.writer.placed) {
            self.state.put_entry(
                entry.index,
                Place {
                    term: entry.term,
                    sequence,
                    placement,
                },
            );
            self.cache.push(entry.clone());
        }
        Ok(())
    }

    /// Makes all appends durable with one `fdatasync` (none if nothing was appended since). Does nothing with
    /// [`super::LogOptions::sync`] off.
    pub fn sync(&mut self) -> Result<(), LogError> {
        if self.sync {
            self.writer.sync()
        } else {
            self.writer.check()
        }
    }

    /// Replaces the whole log by a snapshot installed at `position`: hard state, mark and cut are one record with one
    /// sync, durable when this returns. Also how a new group gets its first configuration. Fails with `Compacted` for a position
    /// before the mark.
    pub fn install_snapshot(
        &mut self,
        position: LogPosition,
        conf_state: Bytes,
        hard_state: HardState,
    ) -> Result<(), LogError> {
        self.writer.check()?;
        check_conf_state(&conf_state)?;
        if position.index < self.state.mark.index {
            return Err(self.compacted(position.index));
        }
        check_index(position.index)?;
        let record = Record::Snapshot {
            position,
            hard_state,
            conf_state: &conf_state,
        };
        self.writer.write(std::iter::once(record), &self.state)?;
        self.writer.sync()?;
        self.cache.truncate(0);
        self.state.put_snapshot(position, hard_state, conf_state);
        self.retire_segments();
        Ok(())
    }

    /// Forgets the entries up to `position`, keeping its term and the configuration there. The mark is durable when this
    /// returns; only then are the segments that hold nothing else handed to the [`SparePool`]. A position before the mark changes nothing.
    pub fn compact_to(&mut self, position: LogPosition, conf_state: Bytes) -> Result<(), LogError> {
        self.writer.check()?;
        check_conf_state(&conf_state)?;
        if position.index < self.state.mark.index {
            return Ok(());
        }
        match self.state.term(position.index) {
            Some(term) if term == position.term => {}
            Some(term) => {
                return Err(LogError::TermMismatch {
                    index: position.index,
                    term,
                    found: position.term,
                });
            }
            None => return Err(self.unavailable(position.index)),
        }
        if position == self.state.mark && conf_state == self.state.conf_state {
            return Ok(());
        }
        let record = Record::Mark {
            position,
            conf_state: &conf_state,
        };
        self.writer.write(std::iter::once(record), &self.state)?;
        self.writer.sync()?;
        self.cache.drop_to(position.index);
        self.state.put_mark(position, conf_state);
        self.retire_segments();
        Ok(())
    }

    /// Syncs everything, and the note that it was, whatever [`super::LogOptions::sync`] says.
    pub fn close(mut self) -> Result<(), LogError> {
        self.seal()
    }

    /// As [`RaftLog::close`], for a log whose owner cannot give it up.
    pub fn seal(&mut self) -> Result<(), LogError> {
        self.writer.sync()?;
        self.writer.note.sync(&*self.writer.disk)
    }

    /// The spare segments; for a thread that keeps them ready.
    pub fn spares(&self) -> Arc<SparePool<D>> {
        Arc::clone(&self.writer.spares)
    }

    /// The last position compacted away; what a snapshot must reach at least.
    pub fn mark(&self) -> LogPosition {
        self.state.mark
    }

    /// The configuration given with the last mark or snapshot; empty in a new log.
    pub fn conf_state(&self) -> &Bytes {
        &self.state.conf_state
    }

    /// The newest hard state appended.
    pub fn hard_state(&self) -> HardState {
        self.state.hard_state
    }

    /// The index of the first entry: one behind the mark, whether it exists yet or not.
    pub fn first_index(&self) -> u64 {
        self.state.mark.index + 1
    }

    /// The index of the last entry, or of the mark if there is none.
    pub fn last_index(&self) -> u64 {
        self.state.next_index() - 1
    }

    /// The term of an entry, or of the mark. `None` behind the last entry, `Compacted` before the mark.
    pub fn term(&self, index: u64) -> Result<Option<u64>, LogError> {
        self.writer.check()?;
        if index < self.state.mark.index {
            return Err(self.compacted(index));
        }
        Ok(self.state.term(index))
    }

    /// The index before the oldest of the last entries up to `index` that are at most `entries` and together at most `bytes` long: what
    /// remains when the log is cut there.
    pub fn reach_back(&self, index: u64, entries: u64, bytes: u64) -> u64 {
        let mut at = index;
        let mut total = 0;
        while index - at < entries
            && let Some(place) = self.state.place(at)
        {
            total += u64::from(place.placement.bytes);
            if total > bytes {
                break;
            }
            at -= 1;
        }
        at
    }

    /// The entries `low..high`, as many as fit `max_bytes` (context, data and 30 bytes each) but at least one. `Compacted` or
    /// `Unavailable` if not all of the range is in the log. What is read from disk is verified again; `Damaged` if it changed.
    pub fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, LogError> {
        self.writer.check()?;
        if low < self.first_index() {
            return Err(self.compacted(low));
        }
        if high > self.state.next_index() {
            return Err(self.unavailable(high - 1));
        }
        let mut end = low;
        let mut bytes = 0;
        while let (true, Some(place)) = (end < high, self.state.place(end)) {
            bytes += u64::from(place.placement.bytes);
            if bytes > max_bytes && end > low {
                break;
            }
            end += 1;
        }
        let cached = self
            .cache
            .first_index()
            .unwrap_or(end)
            .clamp(low, end.max(low));
        let mut entries = Vec::with_capacity(end.saturating_sub(low) as usize);
        let mut next = low;
        while next < cached {
            self.read_run(next, cached, &mut entries)?;
            next = low + entries.len() as u64;
        }
        entries.extend(self.cache.range(cached, end).cloned());
        Ok(entries)
    }

    /// Reads entry `low`, and those after it (before `high`) that one read covers.
    fn read_run(&self, low: u64, high: u64, entries: &mut Vec<Entry>) -> Result<(), LogError> {
        let Some(&Place {
            sequence,
            placement: first,
            ..
        }) = self.state.place(low)
        else {
            return Err(self.unavailable(low));
        };
        let Some(segment) = self.writer.segment(sequence) else {
            return Err(self.unavailable(low));
        };
        let places = (low..high).map_while(|index| {
            let place = self.state.place(index)?;
            // Within a segment, entries lie in the order of their indexes.
            let start = place.placement.offset.checked_sub(first.offset)? as usize;
            let reach = start + place.placement.bytes as usize;
            let together = place.sequence == sequence && (index == low || reach <= READ_BYTES);
            together.then_some((index, place, reach))
        });
        let bytes = places.clone().map(|(.., reach)| reach).max().unwrap_or(0);
        let mut bytes = vec![0; bytes];
        let file = || self.writer.disk.path(&segment.name);
        segment
            .file
            .read_at(&mut bytes, first.offset.into())
            .map_err(|source| LogError::io(file(), "read", source))?;
        let bytes = Bytes::from(bytes);
        for (index, place, reach) in places {
            let start = reach - place.placement.bytes as usize;
            match decode_frame(&bytes[start..reach], place.placement.seed) {
                Ok((
                    Record::Entry {
                        index: found,
                        term,
                        kind,
                        context,
                        data,
                    },
                    ..,
                )) if found == index && term == place.term => {
                    entries.push(Entry {
                        index,
                        term,
                        kind,
                        data: bytes.slice_ref(data),
                        context: bytes.slice_ref(context),
                    });
                }
                _ => {
                    return Err(LogError::Damaged {
                        file: file(),
                        offset: place.placement.offset.into(),
                        reason: format!("entry {index} is not what was written"),
                    });
                }
            }
        }
        Ok(())
    }

    fn check_entries(&self, entries: &[Entry]) -> Result<(), LogError> {
        let Some(first) = entries.first() else {
            return Ok(());
        };
        if first.index <= self.state.mark.index {
            return Err(self.compacted(first.index));
        }
        let expected = self.state.next_index().min(first.index);
        let mut previous = self.state.term(expected - 1).unwrap_or(0);
        for (expected, &Entry { index, term, .. }) in (expected..=u64::MAX).zip(entries) {
            if index != expected {
                return Err(LogError::Gap {
                    expected,
                    found: index,
                });
            }
            if term < previous {
                return Err(LogError::TermRegression {
                    index,
                    previous,
                    found: term,
                });
            }
            check_index(index)?;
            previous = term;
        }
        Ok(())
    }

    fn retire_segments(&mut self) {
        let needed = self.state.oldest_sequence();
        self.writer
            .retire_before(needed.unwrap_or(self.writer.newest.sequence));
    }

    fn compacted(&self, index: u64) -> LogError {
        LogError::Compacted {
            index,
            first: self.first_index(),
        }
    }

    fn unavailable(&self, index: u64) -> LogError {
        LogError::Unavailable {
            index,
            last: self.last_index(),
        }
    }
}

impl<'a> From<&'a Entry> for Record<'a> {
    fn from(entry: &'a Entry) -> Record<'a> {
        Record::Entry {
            index: entry.index,
            term: entry.term,
            kind: entry.kind,
            context: &entry.context,
            data: &entry.data,
        }
    }
}

/// The last index stays free, so that "one behind" always exists.
fn check_index(index: u64) -> Result<(), LogError> {
    if index == u64::MAX {
        return Err(LogError::Gap {
            expected: u64::MAX - 1,
            found: index,
        });
    }
    Ok(())
}

fn check_conf_state(conf_state: &Bytes) -> Result<(), LogError> {
    if conf_state.len() > MAX_CONF_STATE_BYTES {
        return Err(LogError::TooLarge {
            bytes: conf_state.len() as u64,
            limit: MAX_CONF_STATE_BYTES as u64,
        });
    }
    Ok(())
}
