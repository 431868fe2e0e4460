//! `holdfast-bench`: a load generator for any etcd endpoint, a do-nothing server as its ceiling, and a comparison of servers.
//!
//! This crate must not know anything of Holdfast's inside: it speaks the wire protocol and starts binaries.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool speaks on standard output"
)]

mod answer;
mod cluster;
mod commands;
mod compare;
mod flag_tables;
mod flags;
mod grpc;
mod load;
mod noop;
mod process;
mod progress;
mod report;
mod server_process;
mod tls;

use std::process::ExitCode;

/// The client's cost is part of what is measured; the system's allocator adds a tenth to it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next();
    match commands::run(command.as_deref(), arguments.collect()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("holdfast-bench: {error}");
            ExitCode::from(2)
        }
    }
}
