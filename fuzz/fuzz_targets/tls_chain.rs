//! libFuzzer for the target `tls_chain`.
#![no_main]

holdfast_fuzz::program!("tls_chain");
