//! libFuzzer for the target `framing`.
#![no_main]

holdfast_fuzz::program!("framing");
