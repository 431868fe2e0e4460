//! Plants each known defect and sees the simulator find it: `cargo test -p holdfast-simulator --features planted --test planted`.

use holdfast_simulator::run;
use holdfast_storage::planted::{DEFECTS, Defect, plant};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Seeds that a defect may need. Without a defect no seed finds anything.
const SEEDS: u64 = 10_000;
const STEPS: u64 = 2_000;

/// What is wrong with a seed's run, with a defect or without.
fn violation(seed: u64, defect: Option<Defect>) -> Option<String> {
    plant(defect);
    let report = catch_unwind(AssertUnwindSafe(|| run(seed, STEPS, false)));
    plant(None);
    report.map_or(Some("a panic".to_owned()), |report| report.violation)
}

/// The first seed that finds a defect, and what it says. What a seed finds without the defect, too, does not count.
fn find(defect: Defect) -> Option<(u64, String)> {
    (0..SEEDS).find_map(|seed| {
        let found = violation(seed, Some(defect))?;
        violation(seed, None).is_none().then_some((seed, found))
    })
}

#[test]
fn every_planted_defect_is_found() {
    let next = AtomicUsize::new(0);
    let missed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(defect) = DEFECTS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match find(*defect) {
                        Some((seed, violation)) => {
                            println!("{defect:?}: seed {seed}: {violation:.300}");
                        }
                        None => missed.lock().unwrap().push(*defect),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
