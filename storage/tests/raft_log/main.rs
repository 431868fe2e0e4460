//! The raft log from outside: what it keeps, what it refuses, what a crash may take from it.

#![expect(
    clippy::expect_used,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod crash;
mod damage;
mod disks;
mod log;
mod remains;
mod view;
