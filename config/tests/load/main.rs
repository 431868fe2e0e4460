//! What operators write, and what becomes of it.

use std::ffi::OsString;
use std::io;

use holdfast_config::{Config, ConfigError, Outcome, load};

mod cluster;
mod coverage;
mod deployments;
mod refusals;
mod sources;
mod users;

/// What the three sources hold; arguments are split at spaces, and variables are given as `NAME=value`.
#[derive(Default, Clone, Copy)]
struct Input<'a> {
    args: &'a str,
    env: &'a [&'a str],
    file: &'a str,
}

fn run(input: Input<'_>) -> Result<Outcome, ConfigError> {
    let args = input
        .args
        .split(' ')
        .filter(|arg| !arg.is_empty())
        .map(str::to_owned)
        .collect();
    let env = input.env.iter().map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (OsString::from(name), OsString::from(value))
    });
    load(args, env, |path| match path.to_str() {
        Some("/etc/etcd.yml") => Ok(input.file.as_bytes().to_vec()),
        _ => Err(io::ErrorKind::NotFound.into()),
    })
}

fn config(input: Input<'_>) -> Config {
    match run(input) {
        Ok(Outcome::Serve(config)) => *config,
        other => panic!("{}: {other:?}", input.args),
    }
}

/// Runs the input and compares what an operator sees: the lines of `--print-config` (with single spaces), or the error.
/// Each expectation must be contained; one that begins with `!` must not be.
#[track_caller]
fn check(input: Input<'_>, expected: &[&str]) {
    let text = match run(input) {
        Ok(Outcome::Serve(config)) => config.print(),
        Ok(Outcome::PrintConfig(text)) => format!("print-config\n{text}"),
        Ok(Outcome::Help(text)) => format!("help\n{text}"),
        Ok(Outcome::Version) => "version".to_owned(),
        Err(error) => format!("error: {error}"),
    };
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let text = format!("\n{}\n", lines.join("\n"));
    for expectation in expected {
        match expectation.strip_prefix('!') {
            Some(absent) => assert!(
                !text.contains(absent),
                "{}: unexpected {absent:?} in {text}",
                input.args
            ),
            None => assert!(
                text.contains(expectation),
                "{}: no {expectation:?} in {text}",
                input.args
            ),
        }
    }
}

#[track_caller]
fn check_args(args: &str, expected: &[&str]) {
    check(
        Input {
            args,
            ..Input::default()
        },
        expected,
    );
}

#[track_caller]
fn check_file(file: &str, expected: &[&str]) {
    check(
        Input {
            args: "--config-file=/etc/etcd.yml",
            file,
            ..Input::default()
        },
        expected,
    );
}
