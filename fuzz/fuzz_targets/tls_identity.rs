//! libFuzzer for the target `tls_identity`.
#![no_main]

holdfast_fuzz::program!("tls_identity");
