//! Random programs run against the server under test and a real etcd, answers compared field by field.
//!
//! The etcd is `ETCD_BIN`, or `etcd` on `PATH`. Without one the test is skipped, except in CI (`CI=true`), where that is a
//! failure. `HOLDFAST_SEED` runs one program again; `HOLDFAST_DIFFERENTIAL_PROGRAMS` sets how many are run.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

mod interpreter;
mod program;

use holdfast_tests::{Server, ServerOptions, reference_etcd, skip_without};
use interpreter::{Mismatch, run};
use program::{Step, program};
use std::{env, path::Path};

const STEPS: usize = 300;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_programs_have_the_same_answers() {
    let Some(etcd) = reference_etcd() else {
        skip_without("etcd to compare with (ETCD_BIN, or `etcd` on PATH)");
        return;
    };
    let seeds: Vec<u64> = match number("HOLDFAST_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("HOLDFAST_DIFFERENTIAL_PROGRAMS").unwrap_or(6)).collect(),
    };
    for seed in seeds {
        let steps = program(seed, STEPS);
        if let Err(first) = on_fresh_servers(&etcd, &steps).await {
            // Some transactions end etcd 3.7.1 itself (ignore_lease on a key that the transaction has deleted): nothing to compare.
            if first.theirs.contains("transport error") {
                eprintln!("program {seed}: the real etcd died at step {}", first.step);
                continue;
            }
            let (steps, mismatch) = shrink(&etcd, steps, first).await;
            let listing: Vec<_> = steps.iter().map(|step| format!("  {step:?}")).collect();
            panic!(
                "HOLDFAST_SEED={seed}: after\n{}\nours:   {}\netcd's: {}",
                listing.join("\n"),
                mismatch.ours,
                mismatch.theirs
            );
        }
    }
}

async fn on_fresh_servers(etcd: &Path, steps: &[Step]) -> Result<(), Mismatch> {
    let ours = Server::start();
    let theirs = Server::start_with(ServerOptions::new().binary(etcd.to_owned()));
    run(&ours, &theirs, steps).await
}

/// Leaves out what the mismatch does not need: first everything behind it, then pieces of falling size.
async fn shrink(etcd: &Path, steps: Vec<Step>, first: Mismatch) -> (Vec<Step>, Mismatch) {
    const ATTEMPTS: usize = 60;
    let mut best = steps[..=first.step.min(steps.len() - 1)].to_vec();
    let mut mismatch = first;
    let mut attempts = 0;
    let mut size = best.len() / 2;
    while size > 0 {
        let mut from = 0;
        while from < best.len() && attempts < ATTEMPTS {
            attempts += 1;
            let mut fewer = best.clone();
            fewer.drain(from..(from + size).min(fewer.len()));
            match on_fresh_servers(etcd, &fewer).await {
                Err(found) => {
                    fewer.truncate(found.step + 1);
                    best = fewer;
                    mismatch = found;
                }
                Ok(()) => from += size,
            }
        }
        size /= 2;
    }
    (best, mismatch)
}
