//! A whole cluster in one thread, from one seed.
//!
//! Each member is the real code: the raft driver over the real log, the real state machine over the real store, the real watch hub. What is
//! under them is not: the disk loses what was not synced and tears what was being written, the network loses, delays and reorders, clocks run
//! at different speeds, processes are killed, held up, replaced. Clients write, read, watch, hold leases and lose permissions meanwhile, and
//! every answer is judged at once.
//!
//! * `Truth` is every entry that anybody applied, and `Model` a plain etcd that says what each must come to.
//! * A seed decides everything: the same seed, build and number of steps give the same run. [`run`] is a run.

mod chance;
mod clients;
mod counters;
mod death;
mod faults;
mod members;
mod model;
mod network;
mod node;
mod plan;
mod settle;
mod travel;
mod truth;
mod upkeep;
mod watch;
mod watchers;
mod work;
mod workload;
mod world;

pub use counters::Counters;

use world::World;

/// How a run went.
#[derive(Clone, Debug)]
pub struct Report {
    /// What happened, how often.
    pub counters: Counters,
    /// The first thing that must not happen.
    pub violation: Option<String>,
}

/// Runs a seed for so many events and lets it settle. With `trace`, what happens is printed.
pub fn run(seed: u64, steps: u64, trace: bool) -> Report {
    let mut world = World::new(seed, trace);
    let mut alive = true;
    for _ in 0..steps {
        alive = world.step();
        if !alive {
            break;
        }
    }
    if alive {
        world.settle();
    }
    let now = world.now;
    let mut rounds = 0;
    for node in &world.nodes {
        if let Some(process) = &node.process {
            rounds += process.core.status().read_rounds();
        }
    }
    let mut truth = world.truth();
    truth.counters.virtual_ms = now / 1000;
    truth.counters.read_rounds += rounds;
    Report {
        counters: truth.counters.clone(),
        violation: truth.violation.clone(),
    }
}
