//! libFuzzer for the target `jwks`.
#![no_main]

holdfast_fuzz::program!("jwks");
