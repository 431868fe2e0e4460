//! libFuzzer for the target `headers`.
#![no_main]

holdfast_fuzz::program!("headers");
