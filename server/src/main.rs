//! The `holdfast` server: listeners, gRPC services, HTTP pages, metrics and the node's life from start to stop.
//!
//! This crate joins the others and must not hold what they own: no MVCC rules, no raft, no rustls, no fjall. Wire types stop in
//! `grpc`.

mod audit;
mod body;
mod boot;
mod cluster;
mod compaction;
mod founding;
mod framing;
mod grpc;
mod headers;
mod held;
mod http;
mod identity;
mod life;
mod listen;
mod logging;
mod login;
mod mailbox;
mod metered;
mod metrics;
mod node;
mod notify;
mod peer;
mod probe;
mod quickstart;
mod router;
mod serve;
mod tls;
mod tokens;
mod upkeep;
mod version;

use holdfast_config::Outcome;
use std::io::Write;
use std::process::ExitCode;

/// Many small allocations of like sizes, freed on other threads, and memory that is given back when it is not used any more: its
/// settings stand in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let args: Result<Vec<String>, _> = std::env::args_os()
        .skip(1)
        .map(std::ffi::OsString::into_string)
        .collect();
    let args = match args {
        Ok(args) => args,
        Err(arg) => {
            complain(&format!("{:?} is not valid UTF-8", arg.to_string_lossy()));
            return ExitCode::FAILURE;
        }
    };
    match holdfast_config::load(args, std::env::vars_os(), |path| std::fs::read(path)) {
        Ok(Outcome::Help(text) | Outcome::PrintConfig(text)) => say(&text),
        Ok(Outcome::Version) => say(&version::text()),
        Ok(Outcome::Serve(config)) => life::live(*config),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Prints to stdout. A closed pipe is no failure of ours.
fn say(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Tells on stderr why there is no node; the log is not set up yet.
fn complain(text: &str) {
    // If stderr is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "holdfast: {text}");
}
