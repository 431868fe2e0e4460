//! The commands and their flags.

use crate::{
    cluster::{self, ClusterError},
    compare::{self, CompareError, Comparison, Cost, Mode},
    flag_tables,
    flags::{FlagError, Flags, help},
    load::{self, Load, LoadError, Settings},
    noop::{self, NoopError, NoopSettings, ServerFiles},
    progress::Progress,
    tls::{ConnectError, Dialer, TlsFiles},
};
use holdfast_certs::{DevCa, IssueError};
use std::{fmt::Write, path::PathBuf, process::ExitCode, time::Duration};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Flag(#[from] FlagError),
    #[error("unknown command `{0}`; see --help")]
    Unknown(String),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Noop(#[from] NoopError),
    #[error(transparent)]
    Compare(#[from] CompareError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("make certificates: {0}")]
    Certificates(#[from] IssueError),
    #[error("make-certs needs a directory")]
    NoDirectory,
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Runs one command line, given without the program's name.
pub(crate) fn run(command: Option<&str>, arguments: Vec<String>) -> Result<ExitCode, CommandError> {
    match command {
        None | Some("--help" | "-h" | "help") => {
            print!("{}", overview());
            Ok(ExitCode::SUCCESS)
        }
        Some("--version") => {
            println!("holdfast-bench {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Some("noop-server") => noop_server(arguments),
        Some("make-certs") => make_certs(arguments),
        Some("compare") => run_comparison(arguments),
        Some("secured") => run_secured(arguments),
        Some("cluster") => cluster::run_cluster(arguments),
        Some("failover") => cluster::run_failover(arguments),
        Some("catchup") => cluster::run_catchup(arguments),
        Some(name) => match Load::named(name) {
            Some(load) => run_load(load, arguments),
            None => Err(CommandError::Unknown(name.to_owned())),
        },
    }
}

fn overview() -> String {
    let mut text = String::from(
        "holdfast-bench: a load generator for any etcd endpoint.\n\n\
         Usage: holdfast-bench LOAD [flags]\n       \
         holdfast-bench noop-server | make-certs DIR | compare | secured | cluster | failover | catchup [flags]   (each has its own --help)\n\n\
         Loads (a closed loop of --in-flight requests unless --rate paces it):\n",
    );
    for (_, name, line) in Load::ALL {
        let _ = writeln!(text, "  {name:<18} {line}");
    }
    text.push_str(
        "\nOther commands:\n  \
         noop-server        a tonic server that answers at once: the ceiling\n  \
         make-certs DIR     a CA with a server and a client certificate for loopback\n  \
         compare            the same loads against etcd, Holdfast and the do-nothing server, with ratios\n  \
         secured            what certificates, users and an audit log cost, with ratios\n  \
         cluster            three members of each: throughput, latency, CPU and memory, with ratios\n  \
         failover           how long nobody is served when the leader is killed or stopped\n  \
         catchup            what a member costs that comes back after a million writes\n",
    );
    text.push_str(&help(flag_tables::LOAD));
    text.push_str(
        "\nExit status: 0 done, 1 done but requests failed, 2 not done.\n\
         Example: holdfast-bench put --endpoint http://127.0.0.1:2379 --pid $(pidof etcd) --seconds 10\n",
    );
    text
}

fn run_load(load: Load, arguments: Vec<String>) -> Result<ExitCode, CommandError> {
    let flags = Flags::parse(arguments, flag_tables::LOAD, 0)?;
    if flags.switch("help") {
        print!("{}", overview());
        return Ok(ExitCode::SUCCESS);
    }
    let settings = settings(load, &flags)?;
    let progress = Progress {
        visible: !flags.switch("quiet"),
    };
    let report = load::run(load, &settings, progress)?;
    if flags.switch("json") {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.errors == 0 && report.requests > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn settings(load: Load, flags: &Flags) -> Result<Settings, CommandError> {
    const COUNT: &str = "a number of at least 1";
    const SIZE: &str = "a number";
    const SECONDS: &str = "a number of seconds";
    let files = TlsFiles {
        ca: flags.optional("cacert").map(PathBuf::from),
        cert: flags.optional("cert").map(PathBuf::from),
        key: flags.optional("key").map(PathBuf::from),
        skip_verify: flags.switch("insecure-skip-verify"),
        server_name: flags.optional("server-name").map(str::to_owned),
    };
    let given = |name| flags.optional(name).is_some();
    let seconds = |name, least| {
        flags
            .number(name, least, SECONDS)
            .map(|seconds: f64| Duration::from_secs_f64(seconds.min(86_400.0)))
    };
    let mut endpoints = flags.text("endpoint").split(',');
    let first = Dialer::new(endpoints.next().unwrap_or_default(), &files)?;
    let mut settings = Settings {
        connections: flags.number("connections", 1, COUNT)?,
        in_flight: flags.number("in-flight", 1, COUNT)?,
        threads: flags.number("threads", 1, COUNT)?,
        seed: flags.number("seed", 0, SIZE)?,
        value_bytes: flags.number("value-bytes", 0, SIZE)?,
        prefix: flags.text("prefix").to_owned(),
        sequential: flags.switch("sequential"),
        warmup: seconds("warmup", 0.0)?,
        duration: seconds("seconds", 0.01)?,
        limit: flags.number("limit", 0, SIZE)?,
        page_keys: flags.number("page-keys", 0, SIZE)?,
        watches_per_stream: flags.number("watches-per-stream", 1, COUNT)?,
        skip_setup: flags.switch("skip-setup"),
        ..Settings::new(load, first)
    };
    settings.other_dialers = endpoints
        .map(|endpoint| Dialer::new(endpoint, &files))
        .collect::<Result<_, _>>()?;
    settings.pids = pids(flags.text("pid"))?;
    if given("requests") {
        settings.requests = Some(flags.number("requests", 1, COUNT)?);
    }
    if given("rate") {
        settings.rate = Some(flags.number("rate", 0.001, "a rate above 0")?);
    }
    if given("keys") {
        settings.keys = flags.number("keys", 1, COUNT)?;
    }
    if given("watchers") {
        settings.watchers = flags.number("watchers", 1, COUNT)?;
    }
    Ok(settings)
}

/// The processes of a comma-separated list.
fn pids(list: &str) -> Result<Vec<u32>, FlagError> {
    list.split(',')
        .filter(|pid| !pid.is_empty())
        .map(|pid| match pid.parse() {
            Ok(pid) if pid > 0 => Ok(pid),
            _ => Err(FlagError::Invalid {
                name: "pid",
                value: pid.to_owned(),
                expected: "a process id",
            }),
        })
        .collect()
}

fn noop_server(arguments: Vec<String>) -> Result<ExitCode, CommandError> {
    let flags = Flags::parse(arguments, flag_tables::NOOP, 0)?;
    if flags.switch("help") {
        print!(
            "Usage: holdfast-bench noop-server [flags]\n{}",
            help(flag_tables::NOOP)
        );
        return Ok(ExitCode::SUCCESS);
    }
    let tls = flags.optional("cert-file").map(|cert| ServerFiles {
        cert: cert.into(),
        key: flags.text("key-file").into(),
        client_ca: flags.text("trusted-ca-file").into(),
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = NoopSettings {
        listen: flags
            .text("listen")
            .parse()
            .map_err(|_| FlagError::Invalid {
                name: "listen",
                value: flags.text("listen").to_owned(),
                expected: "IP:PORT",
            })?,
        threads: match flags.optional("threads") {
            Some(_) => flags.number("threads", 1, "a number of at least 1")?,
            None => cores,
        },
        value_bytes: flags.number("value-bytes", 0, "a number")?,
        tls,
    };
    match noop::serve(&settings, |address| {
        println!("ready to serve client requests on {address}");
    })? {}
}

fn make_certs(arguments: Vec<String>) -> Result<ExitCode, CommandError> {
    let flags = Flags::parse(arguments, flag_tables::CERTS, 1)?;
    if flags.switch("help") {
        println!("Usage: holdfast-bench make-certs DIR");
        return Ok(ExitCode::SUCCESS);
    }
    let directory = flags.positional.first().ok_or(CommandError::NoDirectory)?;
    let files = DevCa::open_or_create(directory.as_ref())?.files();
    println!(
        "server: --cert-file {} --key-file {} --trusted-ca-file {} --client-cert-auth",
        files.server_cert.display(),
        files.server_key.display(),
        files.ca_cert.display()
    );
    println!(
        "client: --cacert {} --cert {} --key {}",
        files.ca_cert.display(),
        files.client_cert.display(),
        files.client_key.display()
    );
    Ok(ExitCode::SUCCESS)
}

fn run_secured(arguments: Vec<String>) -> Result<ExitCode, CommandError> {
    let flags = Flags::parse(arguments, flag_tables::SECURED, 0)?;
    if flags.switch("help") {
        print!(
            "Usage: holdfast-bench secured --holdfast PATH [--etcd PATH] [flags]\n{}\n\
             Exit status: 0 every floor held, 1 some missed or requests failed, 2 not done.\n",
            help(flag_tables::SECURED),
        );
        return Ok(ExitCode::SUCCESS);
    }
    let seconds = |name, least| {
        flags
            .number(name, least, "a number of seconds")
            .map(|seconds: f64| Duration::from_secs_f64(seconds.min(86_400.0)))
    };
    let Some(holdfast) = flags.optional("holdfast") else {
        return Err(CommandError::Flag(FlagError::Invalid {
            name: "holdfast",
            value: String::new(),
            expected: "the path of the binary",
        }));
    };
    let cost = Cost {
        etcd: flags.optional("etcd").map(PathBuf::from),
        holdfast: PathBuf::from(holdfast),
        rounds: flags.number("rounds", 1, "a number of at least 1")?,
        duration: seconds("seconds", 0.1)?,
        warmup: seconds("warmup", 0.0)?,
        directory: PathBuf::from(flags.text("dir")),
        progress: Progress {
            visible: !flags.switch("quiet"),
        },
    };
    Ok(if cost.run()? {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn run_comparison(arguments: Vec<String>) -> Result<ExitCode, CommandError> {
    let flags = Flags::parse(arguments, flag_tables::COMPARE, 0)?;
    if flags.switch("help") {
        print!(
            "Usage: holdfast-bench compare --etcd PATH --holdfast PATH [flags]\n{}\nLoads:\n  {}\n\n\
             Exit status: 0 every target reached, 1 some missed or requests failed, 2 not done.\n",
            help(flag_tables::COMPARE),
            compare::names().join("\n  ")
        );
        return Ok(ExitCode::SUCCESS);
    }
    let seconds = |name, least| {
        flags
            .number(name, least, "a number of seconds")
            .map(|seconds: f64| Duration::from_secs_f64(seconds.min(86_400.0)))
    };
    let directory = PathBuf::from(flags.text("dir"));
    let comparison = Comparison {
        etcd: flags.optional("etcd").map(PathBuf::from),
        holdfast: flags.optional("holdfast").map(PathBuf::from),
        rounds: flags.number("rounds", 1, "a number of at least 1")?,
        duration: seconds("seconds", 0.1)?,
        warmup: seconds("warmup", 0.0)?,
        modes: Mode::parse(flags.text("tls"))?,
        cases: compare::select(flags.text("loads"))?,
        million: flags.number("million", 1, "a number of at least 1")?,
        output: flags
            .optional("out")
            .map_or_else(|| directory.join("compare.json"), PathBuf::from),
        directory,
        progress: Progress {
            visible: !flags.switch("quiet"),
        },
    };
    Ok(if comparison.run()? {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
