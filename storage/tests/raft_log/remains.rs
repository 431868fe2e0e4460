//! What stays on the medium of batches that are not in the log – refused, or lost with a crash – must never become a batch
//! again, whatever is written over it and however that is torn.

use crate::view::{View, batch, blank_entry, entry, hard_state, open, options, segment_names};
use bytes::Bytes;
use holdfast_storage::disk::{Disk, DiskFile, MemDisk, MemFile};
use holdfast_storage::log::{HardState, LogBatch, LogError, RaftLog};
use parking_lot::Mutex;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

fn only_hard_state(hard_state: HardState) -> LogBatch<'static> {
    LogBatch {
        entries: &[],
        hard_state: Some(hard_state),
    }
}

/// The power fails. All names survive; of the unsynced writes those, in order, whose bit is set.
fn crash_keeping(disk: &MemDisk, mut writes: u32) {
    let mut names = true;
    disk.crash(&mut |bound| {
        if std::mem::take(&mut names) {
            return bound - 1;
        }
        let kept = writes & 1;
        writes >>= 1;
        if kept == 1 { 3 } else { 0 }
    });
}

/// The power fails. Of each unsynced write those sectors survive whose bit is set, in the order of the writes.
fn crash_keeping_sectors(disk: &MemDisk, mut sectors: u32) {
    let mut names = true;
    disk.crash(&mut |bound| {
        if std::mem::take(&mut names) {
            return bound - 1;
        }
        if bound == 4 {
            return 2;
        }
        let kept = sectors & 1;
        sectors >>= 1;
        kept.into()
    });
}

#[test]
fn a_refused_append_does_not_come_back_with_a_power_cut() {
    for kept in 0..16 {
        let disk = MemDisk::new();
        let (mut log, _) = open(&disk).expect("open");
        log.append(batch(&[entry(1, 1, 100)])).expect("append");
        log.sync().expect("sync");
        disk.fail_write(1, ErrorKind::StorageFull);
        let full = log.append(batch(&[blank_entry(2, 1, 200)]));
        assert!(matches!(full, Err(LogError::NoSpace { .. })));
        crash_keeping(&disk, kept);
        let (log, _) = open(&disk).expect("open");
        assert_eq!(
            View::of(&log).entries,
            [entry(1, 1, 100)],
            "writes kept: {kept:04b}"
        );
    }
}

#[test]
fn a_refused_append_at_the_end_of_a_segment_is_not_taken_for_damage_later() {
    for kept in 0..16 {
        let disk = MemDisk::new();
        let (mut log, _) = open(&disk).expect("open");
        log.append(batch(&[entry(1, 1, 100)])).expect("append");
        log.sync().expect("sync");
        disk.fail_write(1, ErrorKind::StorageFull);
        let full = log.append(batch(&[blank_entry(2, 1, 200)]));
        assert!(matches!(full, Err(LogError::NoSpace { .. })));
        // Too long for what the segment has left: the next one says where this one ended.
        log.append(batch(&[entry(2, 1, 3900)])).expect("append");
        assert_eq!(segment_names(&disk).len(), 2);
        crash_keeping(&disk, kept);
        let (log, _) = open(&disk).expect("an honest disk is not damaged");
        let entries = View::of(&log).entries;
        let both = [entry(1, 1, 100), entry(2, 1, 3900)];
        assert!(
            entries == both || entries == both[..1],
            "writes kept: {kept:04b}"
        );
    }
}

/// Two power cuts: the first leaves the end of a batch and not its beginning, the second the beginning of its successor
/// in the same place and not the end. Both begin with the same bytes.
#[test]
fn a_lost_batch_is_not_completed_by_the_beginning_of_another() {
    let (lost, successor) = (hard_state(5, 2, 1), hard_state(5, 3, 1));
    // Some of these lengths put the border of two sectors behind what both batches begin with.
    for bytes in (180..300).step_by(8) {
        for (first, second) in (0..16).flat_map(|first| (0..16).map(move |second| (first, second)))
        {
            let disk = MemDisk::new();
            let (mut log, _) = open(&disk).expect("open");
            log.append(batch(&[entry(1, 1, bytes)])).expect("append");
            log.sync().expect("sync");
            log.append(only_hard_state(lost)).expect("append");
            crash_keeping_sectors(&disk, first);
            let (mut log, _) = open(&disk).expect("open");
            let found = log.hard_state();
            assert!([HardState::default(), lost].contains(&found));
            log.append(only_hard_state(successor)).expect("append");
            crash_keeping_sectors(&disk, second);
            let (log, _) = open(&disk).expect("open");
            assert!(
                [found, successor].contains(&log.hard_state()),
                "{:?} where {found:?} was, or {successor:?}; {bytes} bytes before, sectors kept: {first:04b}, {second:04b}",
                log.hard_state()
            );
        }
    }
}

/// The same without a first power cut: what the refused append left is not completed by the append after it.
#[test]
fn a_refused_batch_is_not_completed_by_the_beginning_of_another() {
    for bytes in (180..300).step_by(8) {
        for kept in 0..16 {
            let disk = MemDisk::new();
            let (mut log, _) = open(&disk).expect("open");
            log.append(batch(&[entry(1, 1, bytes)])).expect("append");
            log.sync().expect("sync");
            disk.fail_write(1, ErrorKind::StorageFull);
            let full = log.append(batch(&[blank_entry(2, 1, 600)]));
            assert!(matches!(full, Err(LogError::NoSpace { .. })));
            let mut other = blank_entry(2, 1, 600);
            other.data = Bytes::from([vec![0; 599], vec![1]].concat());
            log.append(batch(std::slice::from_ref(&other)))
                .expect("append");
            crash_keeping_sectors(&disk, kept);
            let (log, _) = open(&disk).expect("open");
            let entries = View::of(&log).entries;
            let both = [entry(1, 1, bytes), other];
            assert!(
                entries == both || entries == both[..1],
                "{bytes} bytes before, sectors kept: {kept:04b}"
            );
        }
    }
}

/// A disk where writing over what is there takes space too, as where files are copied on write.
#[derive(Clone, Debug)]
struct CopyOnWrite {
    disk: MemDisk,
    /// How many bytes can still be written.
    free: Arc<Mutex<Option<usize>>>,
}

#[derive(Debug)]
struct CopyOnWriteFile {
    file: MemFile,
    free: Arc<Mutex<Option<usize>>>,
}

impl CopyOnWrite {
    fn opened(&self, file: MemFile) -> CopyOnWriteFile {
        CopyOnWriteFile {
            file,
            free: Arc::clone(&self.free),
        }
    }
}

impl Disk for CopyOnWrite {
    type File = CopyOnWriteFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<CopyOnWriteFile> {
        self.disk.open(name).map(|file| self.opened(file))
    }

    fn create(&self, name: &str) -> io::Result<CopyOnWriteFile> {
        self.disk.create(name).map(|file| self.opened(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.disk.exists(name)
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Disk::len(&self.disk, name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }
}

impl DiskFile for CopyOnWriteFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut free = self.free.lock();
        let fits = free.map_or(bytes.len(), |free| free.min(bytes.len()));
        *free = free.map(|free| free - fits);
        if fits > 0 {
            self.file.write_at(&bytes[..fits], offset)?;
        }
        if fits < bytes.len() {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

fn copy_on_write() -> (CopyOnWrite, RaftLog<CopyOnWrite>) {
    let disk = CopyOnWrite {
        disk: MemDisk::new(),
        free: Arc::default(),
    };
    let (mut log, _) = RaftLog::open(disk.clone(), options()).expect("open");
    log.append(batch(&[entry(1, 1, 100)])).expect("append");
    log.sync().expect("sync");
    (disk, log)
}

#[test]
fn a_full_disk_that_takes_nothing_leaves_the_log_usable() {
    let (disk, mut log) = copy_on_write();
    *disk.free.lock() = Some(0);
    for _ in 0..2 {
        let full = log.append(batch(&[blank_entry(2, 1, 200)]));
        assert!(matches!(full, Err(LogError::NoSpace { .. })));
    }
    assert_eq!(View::of(&log).entries, [entry(1, 1, 100)]);
    log.sync().expect("nothing to sync");
    *disk.free.lock() = None;
    log.append(batch(&[entry(2, 1, 50)])).expect("space again");
    log.sync().expect("sync");
    disk.disk.crash(&mut |_| 0);
    let (log, _) = open(&disk.disk).expect("open");
    assert_eq!(View::of(&log).entries, [entry(1, 1, 100), entry(2, 1, 50)]);
}

#[test]
fn a_batch_that_may_be_on_a_full_disk_stops_the_log() {
    let (disk, mut log) = copy_on_write();
    // More than the half that matters; then there is no space for anything that would make it void.
    *disk.free.lock() = Some(120);
    let error = log
        .append(batch(&[blank_entry(2, 1, 200)]))
        .expect_err("no space left");
    assert!(matches!(error, LogError::Io { .. }), "{error}");
    assert!(matches!(log.sync(), Err(LogError::Poisoned)));
}
