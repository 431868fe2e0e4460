//! Files changed behind the log's back. Each ends in the whole log, or in a refusal that names the file and a place at or
//! before the change; where the crash took the evidence too, in a cut of the last batch.

use crate::view::{Chance, View, at, batch, entries, hard_state, open, segment_names};
use bytes::Bytes;
use holdfast_storage::disk::{Disk, MemDisk};
use holdfast_storage::log::{HeaderFault, LogBatch, LogError, scan_segment};

const NOTE: &str = "synced";

/// A log of several segments and runs, each batch synced, and what it said after each batch.
fn sample() -> (MemDisk, Vec<View>) {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk).expect("open");
    let mut views = vec![View::of(&log)];
    for round in 0..14 {
        let first = 1 + 3 * round;
        log.append(LogBatch {
            entries: &entries(first..first + 3, 1 + round, 200),
            hard_state: (round % 2 == 0).then(|| hard_state(1 + round, round, first)),
        })
        .expect("append");
        log.sync().expect("sync");
        views.push(View::of(&log));
        if round == 7 {
            log.compact_to(at(5, 2), Bytes::from_static(b"members"))
                .expect("compact");
            views.push(View::of(&log));
        }
        if round % 5 == 2 {
            // A restart leaves a barrier between the batches.
            drop(log);
            (log, _) = open(&disk).expect("open again");
        }
    }
    drop(log);
    assert!(segment_names(&disk).len() >= 3);
    (disk, views)
}

/// Opens a copy of the disk on which `change` was done to one file, and checks how that ends. `allowed` are the views that may be
/// found, the whole log among them; a refusal must name the file and a place not behind `at` (but for the padding of a batch).
fn opens_or_refuses(
    disk: &MemDisk,
    name: &str,
    at: usize,
    changed: Vec<u8>,
    allowed: &[View],
) -> bool {
    let copy = disk.fork();
    copy.replace(name, changed.clone());
    match open(&copy) {
        Ok((log, recovered)) => {
            let view = View::of(&log);
            assert!(allowed.contains(&view), "{name} at {at}: silent loss");
            if Some(&view) != allowed.last() {
                let cut = recovered.tail_cut.expect("a loss is reported");
                assert_eq!(cut.file.to_str(), Some(name));
                assert!(cut.offset <= at.next_multiple_of(8) as u64);
            }
            true
        }
        Err(LogError::Damaged {
            file,
            offset,
            reason,
        }) => {
            assert_eq!(file.to_str(), Some(name), "{at}: {reason}");
            assert!(
                offset <= at.next_multiple_of(8) as u64,
                "{name} at {at}: named {offset}: {reason}"
            );
            assert!(
                copy.contents(name).expect("kept") == changed,
                "a refusal changes nothing"
            );
            assert_eq!(copy.list().expect("list"), disk.list().expect("list"));
            false
        }
        Err(error) => panic!("{name} at {at}: {error}"),
    }
}

#[test]
fn any_changed_byte_is_harmless_or_refused() {
    let (disk, views) = sample();
    let whole = views.last().expect("some").clone();
    let mut refusals = 0;
    let names = segment_names(&disk);
    for name in &names {
        let bytes = disk.contents(name).expect("there");
        for at in 0..bytes.len() {
            for flip in [0x01, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                refusals += usize::from(!opens_or_refuses(
                    &disk,
                    name,
                    at,
                    changed,
                    std::slice::from_ref(&whole),
                ));
            }
        }
    }
    // 14 batches of 3 entries of 230 bytes, each byte twice: nearly all of it must have been noticed.
    assert!(refusals > 14 * 690 * 2, "{refusals}");
}

#[test]
fn without_the_note_damage_costs_at_most_the_last_batch() {
    let (disk, views) = sample();
    disk.remove(NOTE).expect("the power cut took the note");
    let names = segment_names(&disk);
    for name in &names {
        let allowed = match name == names.last().expect("some") {
            true => &views[views.len() - 2..],
            false => &views[views.len() - 1..],
        };
        let bytes = disk.contents(name).expect("there");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            opens_or_refuses(&disk, name, at, changed, allowed);
        }
    }
}

#[test]
fn a_changed_note_is_no_evidence_and_does_no_harm() {
    let (disk, views) = sample();
    let bytes = disk.contents(NOTE).expect("there");
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0xff;
        assert!(opens_or_refuses(
            &disk,
            NOTE,
            at,
            changed,
            &views[views.len() - 1..]
        ));
        assert!(opens_or_refuses(
            &disk,
            NOTE,
            at,
            bytes[..at].to_vec(),
            &views[views.len() - 1..]
        ));
    }
}

#[test]
fn any_shortened_file_is_refused() {
    let (disk, views) = sample();
    for name in segment_names(&disk) {
        let bytes = disk.contents(&name).expect("there");
        for length in 0..bytes.len() {
            let opened = opens_or_refuses(
                &disk,
                &name,
                length,
                bytes[..length].to_vec(),
                &views[views.len() - 1..],
            );
            assert!(!opened, "a segment never has another length");
        }
    }
}

#[test]
fn the_last_records_cut_at_any_byte_are_cut_or_refused() {
    let (disk, views) = sample();
    let name = segment_names(&disk).pop().expect("newest");
    let bytes = disk.contents(&name).expect("there");
    let end = scan_segment(&bytes, |_| {}).expect("whole").end as usize;
    let last_batch = end - (40 + 3 * 230_usize).next_multiple_of(8);
    for at in last_batch - 700..end {
        let mut changed = bytes.clone();
        changed[at..].fill(0);
        // A barrier ends in zeros, and is as it was without them.
        let pairs = || changed.iter().zip(&bytes);
        let first = pairs().position(|(changed, byte)| changed != byte);
        let opened = opens_or_refuses(
            &disk,
            &name,
            first.unwrap_or(at),
            changed.clone(),
            &views[views.len() - 1..],
        );
        assert_eq!(
            opened,
            changed == bytes,
            "{at}: the note knows that it was synced"
        );
    }
    // Without the note, only what a later batch vouches for is known to have been there. (A batch of which no byte is left
    // looks as if it had never been.)
    disk.remove(NOTE).expect("remove");
    for at in last_batch + 1..end {
        let mut changed = bytes.clone();
        changed[at..].fill(0);
        assert!(opens_or_refuses(
            &disk,
            &name,
            at,
            changed,
            &views[views.len() - 2..]
        ));
    }
}

#[test]
fn damaged_sectors_and_random_scribbles_are_refused() {
    let (disk, views) = sample();
    let whole = &views[views.len() - 1..];
    let names = segment_names(&disk);
    let mut chance = Chance(11);
    for name in &names {
        let bytes = disk.contents(name).expect("there");
        for sector in (0..bytes.len()).step_by(512) {
            let mut changed = bytes.clone();
            changed[sector..sector + 512].fill(0);
            opens_or_refuses(&disk, name, sector + 511, changed, whole);
        }
    }
    for _ in 0..2000 {
        let name = &names[chance.below(names.len() as u64) as usize];
        let mut changed = disk.contents(name).expect("there");
        let from = chance.below(changed.len() as u64) as usize;
        let bytes = 1 + chance.below(600) as usize;
        let to = changed.len().min(from + bytes);
        for byte in &mut changed[from..to] {
            *byte = chance.below(256) as u8;
        }
        opens_or_refuses(&disk, name, to, changed, whole);
    }
}

#[test]
fn batches_swapped_or_doubled_are_refused() {
    let (disk, views) = sample();
    let name = &segment_names(&disk)[0];
    let bytes = disk.contents(name).expect("there");
    let mut starts = Vec::new();
    scan_segment(&bytes, |placed| starts.push(placed.placement)).expect("whole");
    // All batches of three entries without hard state have the same length.
    let size = (40 + 3 * 230_usize).next_multiple_of(8);
    let first = 64
        + bytes[64..]
            .windows(4)
            .position(|four| four == [31, 0, 0, 0])
            .expect("a batch");
    for (from, to) in [
        (first, first + size),
        (first + size, first),
        (first, first + 2 * size),
    ] {
        let mut changed = bytes.clone();
        changed.copy_within(from..from + size, to);
        opens_or_refuses(&disk, name, bytes.len(), changed, &views[views.len() - 1..]);
    }
    assert!(starts.len() > 6);
}

#[test]
fn a_missing_segment_is_refused() {
    let (disk, views) = sample();
    let names = segment_names(&disk);
    for (missing, name) in names.iter().enumerate() {
        let copy = disk.fork();
        copy.remove(name).expect("remove");
        match open(&copy) {
            Err(LogError::Damaged { file, reason, .. }) => {
                let last = missing + 1 == names.len();
                let named = if last { name } else { &names[missing + 1] };
                assert_eq!(file.to_str(), Some(named.as_str()), "{reason}");
                assert!(reason.contains("missing"), "{reason}");
            }
            Ok((log, _)) => assert_eq!(
                View::of(&log),
                *views.last().expect("some"),
                "{name} was not needed"
            ),
            Err(error) => panic!("{error}"),
        }
    }
    for name in &names {
        disk.remove(name).expect("remove");
    }
    assert!(
        matches!(open(&disk), Err(LogError::Damaged { .. })),
        "a log that lost all its segments is not a new one"
    );
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let (disk, _) = sample();
    let name = segment_names(&disk).pop().expect("newest");
    let mut bytes = disk.contents(&name).expect("there");
    bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(scan_segment(&bytes, |_| {}), Err(HeaderFault::Newer(2)));
    disk.replace(&name, bytes);
    let error = open(&disk).expect_err("newer");
    assert!(matches!(
        error,
        LogError::Newer {
            found: 2,
            supported: 1,
            ..
        }
    ));
    assert!(error.to_string().contains(&name), "{error}");
}

#[test]
fn an_entry_damaged_while_the_log_is_open_is_not_served() {
    let disk = MemDisk::new();
    let (mut log, _) = open(&disk).expect("open");
    log.append(batch(&entries(1..4, 1, 100))).expect("append");
    let name = segment_names(&disk).pop().expect("one");
    let file = disk.open(&name).expect("open");
    let mut bytes = disk.contents(&name).expect("there");
    let at = bytes.len()
        - bytes
            .iter()
            .rev()
            .position(|&byte| byte != 0)
            .expect("records")
        - 1;
    bytes[at] ^= 1;
    holdfast_storage::disk::DiskFile::write_at(&file, &bytes, 0).expect("damage");
    assert_eq!(log.entries(1, 3, u64::MAX).expect("the others").len(), 2);
    let error = log.entries(1, 4, u64::MAX).expect_err("damaged");
    assert!(matches!(error, LogError::Damaged { .. }), "{error}");
}

#[test]
fn scanning_any_bytes_ends_without_panic() {
    let (disk, _) = sample();
    let name = segment_names(&disk).pop().expect("newest");
    let bytes = disk.contents(&name).expect("there");
    let mut chance = Chance(5);
    for _ in 0..3000 {
        let mut changed = bytes.clone();
        for _ in 0..chance.below(6) {
            let at = chance.below(changed.len() as u64 - 8) as usize;
            let absurd = [0, 1, 0x7fff_ffff, u32::MAX, 4096, 31][chance.below(6) as usize];
            changed[at..at + 4].copy_from_slice(&absurd.to_le_bytes());
        }
        changed.truncate(chance.below(2 * changed.len() as u64) as usize);
        // A scan that gets past the header is what is asked here, so that one is made right again.
        if changed.len() >= 64 {
            let length = changed.len() as u32;
            changed[12..16].copy_from_slice(&length.to_le_bytes());
            let crc = crc32c::crc32c(&changed[..60]);
            changed[60..64].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(scan) = scan_segment(&changed, |_| {}) {
            assert!(scan.end as usize <= changed.len());
        }
    }
}
