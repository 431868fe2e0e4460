//! libFuzzer for the target `raft_log`.
#![no_main]

holdfast_fuzz::program!("raft_log");
