//! libFuzzer for the target `grpc_message`.
#![no_main]

holdfast_fuzz::program!("grpc_message");
