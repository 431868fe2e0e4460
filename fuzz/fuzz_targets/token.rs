//! libFuzzer for the target `token`.
#![no_main]

holdfast_fuzz::program!("token");
