//! libFuzzer for the target `peer_messages`.
#![no_main]

holdfast_fuzz::program!("peer_messages");
