//! The command lines of the three measurements.

use super::{Arena, catchup::Catchup, failover::Failover, throughput::Throughput};
use crate::{
    commands::CommandError,
    compare::Mode,
    flag_tables,
    flags::{FlagError, Flags, Group, help},
    progress::Progress,
};
use std::{path::PathBuf, process::ExitCode, time::Duration};

const COUNT: &str = "a number of at least 1";

/// `holdfast-bench cluster`.
pub(crate) fn run_cluster(arguments: Vec<String>) -> Result<ExitCode, CommandError> {
    let Some(flags) = parse("cluster", arguments, flag_tables::CLUSTER)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let throughput = Throughput {
        arena: arena(&flags)?,
        rounds: flags.number("rounds", 1, COUNT)?,
        duration: seconds(&flags, "seconds", 0.1)?,
        warmup: seconds(&flags, "warmup", 0.0)?,
        puts: flags.number("puts", 1, COUNT)?,
        connections: flags.number("connections", 1, COUNT)?,
    };
    Ok(code(throughput.run()?))
}

/// `holdfast-bench failover`.
pub(crate) fn run_failover(arguments: Vec<String>) -> Result<ExitCode, CommandError> {
    let Some(flags) = parse("failover", arguments, flag_tables::FAILOVER)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let kills = flags.number("kills", 0, "a number")?;
    let failover = Failover {
        arena: arena(&flags)?,
        kills,
        stops: match flags.optional("stops") {
            Some(_) => flags.number("stops", 0, "a number")?,
            None => kills,
        },
    };
    Ok(code(failover.run()?))
}

/// `holdfast-bench catchup`.
pub(crate) fn run_catchup(arguments: Vec<String>) -> Result<ExitCode, CommandError> {
    let Some(flags) = parse("catchup", arguments, flag_tables::CATCHUP)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let catchup = Catchup {
        arena: arena(&flags)?,
        writes: flags.number("writes", 1, COUNT)?,
        keys: flags.number("keys", 1, COUNT)?,
        rate: flags.number("rate", 1.0, "a rate of at least 1")?,
        base: seconds(&flags, "seconds", 1.0)?,
    };
    Ok(code(catchup.run()?))
}

/// Nothing if help was asked for and given.
fn parse(
    command: &str,
    arguments: Vec<String>,
    groups: &'static [Group],
) -> Result<Option<Flags>, CommandError> {
    let flags = Flags::parse(arguments, groups, 0)?;
    if flags.switch("help") {
        print!(
            "Usage: holdfast-bench {command} --holdfast PATH [--etcd PATH] [flags]\n{}\n\
             Exit status: 0 every floor held, 1 some missed or requests failed, 2 not done.\n",
            help(groups),
        );
        return Ok(None);
    }
    Ok(Some(flags))
}

fn arena(flags: &Flags) -> Result<Arena, FlagError> {
    let Some(holdfast) = flags.optional("holdfast") else {
        return Err(FlagError::Invalid {
            name: "holdfast",
            value: String::new(),
            expected: "the path of the binary",
        });
    };
    Ok(Arena {
        etcd: flags.optional("etcd").map(PathBuf::from),
        holdfast: PathBuf::from(holdfast),
        modes: Mode::parse(flags.text("tls"))?,
        directory: PathBuf::from(flags.text("dir")),
        output: flags.optional("out").map(PathBuf::from),
        progress: Progress {
            visible: !flags.switch("quiet"),
        },
    })
}

fn seconds(flags: &Flags, name: &'static str, least: f64) -> Result<Duration, FlagError> {
    let seconds: f64 = flags.number(name, least, "a number of seconds")?;
    Ok(Duration::from_secs_f64(seconds.min(86_400.0)))
}

fn code(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}
