//! libFuzzer for the target `snapshot`.
#![no_main]

holdfast_fuzz::program!("snapshot");
