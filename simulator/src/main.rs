//! Runs seeds: one with a trace, or many on several threads.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks on both"
)]

use holdfast_simulator::{Counters, run};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

const HELP: &str = "\
holdfast-simulator: a cluster in one thread, from one seed

  --seed N            run one seed
  --seeds A..B        run many; the first violation ends it
  --steps N           events of a run before it settles (default 2000)
  --jobs N            threads (default 1)
  --trace             with --seed: tell what happens
  --keep-going        with --seeds: go on after a violation
";

struct Arguments {
    seeds: std::ops::Range<u64>,
    steps: u64,
    jobs: usize,
    trace: bool,
    keep_going: bool,
}

fn parse() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        seeds: 0..0,
        steps: 2_000,
        jobs: 1,
        trace: false,
        keep_going: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().ok_or(format!("{word} needs a value"))?;
            Ok::<String, String>(value)
        };
        match word.as_str() {
            "--seed" => {
                let seed = parse_number(&number()?)?;
                arguments.seeds = seed..seed.checked_add(1).ok_or("the seed is too large")?;
            }
            "--seeds" => {
                let value = number()?;
                let (from, to) = value.split_once("..").ok_or("--seeds needs A..B")?;
                arguments.seeds = parse_number(from)?..parse_number(to)?;
            }
            "--steps" => arguments.steps = parse_number(&number()?)?,
            "--jobs" => arguments.jobs = parse_number(&number()?)?.clamp(1, 256) as usize,
            "--trace" => arguments.trace = true,
            "--keep-going" => arguments.keep_going = true,
            "--help" | "-h" => return Err(String::new()),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    if arguments.seeds.is_empty() {
        return Err("which seeds?".to_owned());
    }
    arguments.trace &= arguments.seeds.end - arguments.seeds.start == 1;
    Ok(arguments)
}

fn parse_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

thread_local! {
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn main() -> ExitCode {
    let arguments = match parse() {
        Ok(arguments) => arguments,
        Err(error) if error.is_empty() => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        eprintln!("seed {} panicked", SEED.get());
        hook(info);
    }));
    let begun = Instant::now();
    let next = AtomicU64::new(arguments.seeds.start);
    let (runs, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let total = Mutex::new((Counters::default(), Vec::<(u64, String)>::new()));
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let stop = failed.load(Ordering::Relaxed) && !arguments.keep_going;
                    if seed >= arguments.seeds.end || stop {
                        return;
                    }
                    SEED.set(seed);
                    let report = run(seed, arguments.steps, arguments.trace);
                    runs.fetch_add(1, Ordering::Relaxed);
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    total.0.add(&report.counters);
                    if let Some(violation) = report.violation {
                        failed.store(true, Ordering::Relaxed);
                        println!("seed {seed}: {violation}");
                        total.1.push((seed, violation));
                    }
                }
            });
        }
    });
    let took = begun.elapsed().as_secs_f64();
    let (counters, violations) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    let runs = runs.into_inner();
    println!(
        "{runs} seeds in {took:.1} s, {:.1} seeds/s",
        runs as f64 / took
    );
    for (name, value) in counters.list() {
        println!("{value:>14}  {name}");
    }
    println!("{} violations", violations.len());
    if violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
