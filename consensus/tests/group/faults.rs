//! Disks that fail or are full: everybody who waits hears of it.

use crate::{Collector, DEADLINE, check_outcomes, group, hold, options, spawn, submission};
use holdfast_consensus::{CoreError, Failure, GroupOptions, Submission, Ticket};
use holdfast_storage::disk::MemDisk;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

#[test]
fn a_fault_ends_the_group_and_fails_what_waits() {
    for inline in [true, false] {
        let disk = MemDisk::new();
        let collector = Arc::new(Collector::default());
        let options = GroupOptions {
            inline_commands: if inline { 16 } else { 0 },
            ..options()
        };
        let group = group(&disk, collector.clone(), options);
        let runner = spawn(&group);
        group.submit(submission(0, 0..1)).unwrap();
        collector.wait_for(1);
        let (release, holder) = hold(&group);
        for n in 1..5 {
            group.submit(submission(0, n..n + 1)).unwrap();
        }
        disk.fail_sync(1);
        release.send(()).unwrap();
        holder.join().unwrap();
        assert!(matches!(runner.join().unwrap(), Err(CoreError::Log(_))));
        let done = collector.wait_for(5);
        check_outcomes(&done, 5);
        assert!(
            done[1..]
                .iter()
                .all(|(_, outcome)| *outcome == Err(Failure::Stopped))
        );
        assert_eq!(group.submit(submission(1, 0..1)), Err(Failure::Stopped));
        assert_eq!(group.pending(), 0);
    }
}

#[test]
fn a_fault_met_by_a_submitter_ends_the_group() {
    let disk = MemDisk::new();
    let collector = Arc::new(Collector::default());
    let group = group(&disk, collector.clone(), options());
    group.submit(submission(0, 0..1)).unwrap();
    disk.fail_sync(1);
    // Taken, and failed like everything else that is on its way.
    let _ = group.submit(submission(0, 1..3));
    let runner = spawn(&group);
    assert!(matches!(runner.join().unwrap(), Err(CoreError::Log(_))));
    let done = collector.wait_for(3);
    check_outcomes(&done, 3);
    assert!(
        done[1..]
            .iter()
            .all(|(_, outcome)| *outcome == Err(Failure::Stopped))
    );
    assert_eq!(group.submit(submission(1, 0..1)), Err(Failure::Stopped));
}

#[test]
fn a_full_disk_fails_commands_at_once() {
    let disk = MemDisk::new();
    let collector = Arc::new(Collector::default());
    let group = group(&disk, collector.clone(), options());
    let runner = spawn(&group);
    group.submit(submission(0, 0..1)).unwrap();
    collector.wait_for(1);
    disk.set_capacity(Some(0));
    let mut taken = 1;
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "the disk never fills up");
        let large = Submission {
            data: vec![0; 4 * 4000],
            tickets: (0..4000)
                .map(|slot| Ticket {
                    mailbox: taken,
                    slot,
                    turn: 0,
                })
                .collect(),
        };
        match group.submit(large) {
            Ok(()) => taken += 1,
            Err(Failure::DiskFull) => break,
            Err(Failure::Overloaded) => thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
    }
    let read = Ticket {
        mailbox: 0,
        slot: 9,
        turn: 0,
    };
    assert_eq!(group.read(&[read]), Err(Failure::DiskFull));
    let done = collector.wait_for((taken as usize - 1) * 4000 + 1);
    assert!(
        done.iter()
            .any(|(_, outcome)| *outcome == Err(Failure::DiskFull))
    );
    assert_eq!(group.pending(), 0);
    group.stop();
    runner.join().unwrap().unwrap();
}
