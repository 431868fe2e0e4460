//! Measures how long a cluster of three acknowledges no write when its leader goes.
//!
//! `cargo run -p holdfast-tests --example failover -- <server binary> [kill|terminate] [rounds] [clients] [tls]`; both etcd and Holdfast
//! can be given. Prints each gap and, last, the median and the longest, in milliseconds.

#![expect(clippy::print_stdout, reason = "a program for the command line")]
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that fails has no result"
)]

use holdfast_tests::cluster::{Cluster, ClusterOptions, Stop, failover_gap};
use std::{env, time::Duration};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let binary = arguments.first().expect("the server's binary");
    let stop = match arguments.get(1).map(String::as_str) {
        None | Some("kill") => Stop::Kill,
        Some("terminate") => Stop::Terminate,
        Some(other) => panic!("kill or terminate, not {other}"),
    };
    let number = |index: usize, default| {
        arguments
            .get(index)
            .map_or(default, |text| text.parse().expect("a number"))
    };
    let (rounds, clients) = (number(2, 20), number(3, 10));
    let mut options = ClusterOptions::new().binary(binary.into());
    if arguments.get(4).is_some_and(|text| text == "tls") {
        options = options.tls();
    }
    let mut cluster = Cluster::start(3, options);
    let mut gaps = Vec::new();
    for round in 0..rounds {
        let (before, after) = (Duration::from_secs(1), Duration::from_secs(4));
        let gap = failover_gap(&mut cluster, stop, clients, before, after).await;
        println!(
            "{round}: {} ms, {} writes",
            gap.longest.as_millis(),
            gap.acknowledged
        );
        gaps.push(gap.longest);
    }
    gaps.sort_unstable();
    println!(
        "median {} ms, longest {} ms",
        gaps[gaps.len() / 2].as_millis(),
        gaps[gaps.len() - 1].as_millis()
    );
}
