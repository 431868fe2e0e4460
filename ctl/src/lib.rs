//! `holdfastctl`: etcdctl's grammar and output formats over the etcd v3 API.
//!
//! The way of a command is one direction: [`cli`] turns the command line and the environment into an invocation, `commands`
//! turns that into requests, `connect` finds an endpoint that answers, [`output`] prints what came back.
//! This crate must not know the server: it speaks the wire types of `holdfast-proto`, reads audit files with `holdfast-audit`, and
//! starts the server's program (`dev_cluster`) with flags alone.

pub mod cli;
mod commands;
mod connect;
mod dev_cluster;
mod failure;
mod go_syntax;
mod login;
pub mod output;
mod terminal;
pub mod txn;

use std::{
    io::{self, Write},
    os::unix::ffi::OsStringExt,
    process::ExitCode,
};

pub use failure::{Exit, Failure};

/// Runs the program with the arguments and the environment of this process and returns its exit code.
///
/// Errors are written to stderr as `Error: <text>`, as etcdctl does.
pub fn main() -> ExitCode {
    let arguments: Vec<Vec<u8>> = std::env::args_os()
        .skip(1)
        .map(OsStringExt::into_vec)
        .collect();
    let outcome = match arguments.split_first() {
        Some((first, rest)) if first == dev_cluster::BECOME_MEMBER => {
            Err(dev_cluster::become_member(rest))
        }
        _ => run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.text() {
                // A closed stderr leaves nobody to tell; the exit code still says it.
                let _ = writeln!(io::stderr(), "Error: {text}");
            }
            ExitCode::from(failure.exit() as u8)
        }
    }
}

fn run(arguments: &[Vec<u8>]) -> Result<(), Failure> {
    let invocation = match cli::parse(arguments)? {
        cli::Parsed::Help(text) => return output::write_stdout(text.as_bytes()),
        cli::Parsed::Run(invocation) => invocation,
    };
    // One thread is enough: a command has one request in flight, and a watch one stream.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Error, format!("cannot start: {error}")))?
        .block_on(commands::run(&invocation))
}
