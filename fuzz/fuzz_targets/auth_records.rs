//! libFuzzer for the target `auth_records`.
#![no_main]

holdfast_fuzz::program!("auth_records");
