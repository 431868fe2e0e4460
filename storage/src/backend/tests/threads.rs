//! Reads while the persister moves what they read.

use super::*;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

#[test]
fn every_scan_sees_each_row_once_while_rows_are_staged_and_persisted() {
    for ground in Ground::both() {
        scan_while_rows_move(&ground);
    }
}

fn scan_while_rows_move(ground: &Ground) {
    const LAST: i64 = 6000;
    let options = StoreOptions {
        cache_bytes: 32 << 10,
        max_batch_bytes: 8 << 10,
        memtable_bytes: 256 << 10,
        ..small()
    };
    let (store, _) = ground.try_open(options).unwrap();
    let staged = AtomicI64::new(1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for main in 2..=LAST {
                store.stage(at(main as u64), vec![put(T1, main)]);
                staged.store(main, Ordering::Release);
                // Bounded lag, and the scans get something to do meanwhile.
                assert!(store.wait_until_staged_below(64 << 10, Duration::from_secs(60)));
            }
            done.store(true, Ordering::Release);
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                store.persist().unwrap();
                store.checkpoint().unwrap();
            }
        });
        let mut from = 2;
        while !done.load(Ordering::Acquire) {
            let least = staged.load(Ordering::Acquire);
            let seen: Vec<i64> = store
                .scan(T1, rev(from), i64::MAX)
                .map(|r| {
                    let r = r.unwrap();
                    assert_eq!(r, row(r.revision.main));
                    r.revision.main
                })
                .collect();
            let last = seen.last().copied().unwrap_or(from - 1);
            assert!(last >= least.max(from - 1));
            assert_eq!(seen, (from..=last).collect::<Vec<_>>());
            if least > 1 {
                let any = 2 + (least * 7919) % (least - 1).max(1);
                assert_eq!(store.get(T1, rev(any)).unwrap(), Some(row(any)));
            }
            // A view is of one moment: rows and position agree.
            let view = store.view();
            let rows = view.scan(T1, rev(0), i64::MAX).count() as u64;
            assert_eq!(view.position().index, if rows == 0 { 0 } else { rows + 1 });
            from = if from > LAST / 2 { 2 } else { from + 37 };
        }
    });
    store.persist().unwrap();
    assert_eq!(store.scan(T1, rev(0), i64::MAX).count() as i64, LAST - 1);
}
