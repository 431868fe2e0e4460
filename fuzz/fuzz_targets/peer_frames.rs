//! libFuzzer for the target `peer_frames`.
#![no_main]

holdfast_fuzz::program!("peer_frames");
