//! libFuzzer for the target `command`.
#![no_main]

holdfast_fuzz::program!("command");
