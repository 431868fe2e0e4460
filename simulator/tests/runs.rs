//! A fixed number of seeds on each build; many more are a command (`cargo run -p holdfast-simulator --release -- --seeds 0..20000`).

use holdfast_simulator::{Counters, run};

#[test]
fn no_seed_violates_anything() {
    let mut total = Counters::default();
    for seed in 0..400 {
        let report = run(seed, 2_000, false);
        assert_eq!(report.violation, None, "seed {seed}");
        total.add(&report.counters);
    }
    // A simulator that reaches nothing finds nothing.
    let reached = [
        total.elections,
        total.snapshots_installed,
        total.member_changes,
        total.power_cuts,
        total.torn_tails,
        total.forwards,
        total.linearizable_reads,
        total.watch_events,
        total.watches_resumed,
        total.leases_expired,
        total.keep_alives,
        total.denied_in_log,
    ];
    assert!(reached.iter().all(|count| *count > 0), "{total:?}");
}

#[test]
fn a_seed_repeats_its_run() {
    for seed in 0..100 {
        let (first, second) = (run(seed, 1_000, false), run(seed, 1_000, false));
        assert_eq!(first.counters, second.counters, "seed {seed}");
        assert_eq!(first.violation, second.violation, "seed {seed}");
    }
}
