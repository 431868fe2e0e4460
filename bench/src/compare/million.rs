//! The cases over a million keys: they share one fill, because it takes long.

use super::{
    Site,
    cases::{Case, Figure, MILLION_KEYS},
    results::{Results, Run},
    server::Server,
    table,
};
use crate::{load, process::Process};
use std::{thread, time::Duration};

/// What a store gets to write behind and collect garbage before its memory is read; etcd's collector runs every two minutes at
/// the latest, but after a burst within seconds.
const SETTLE: Duration = Duration::from_secs(5);

pub(super) fn run(site: &Site<'_>, results: &mut Results) {
    let comparison = site.comparison;
    let followers: Vec<_> = comparison
        .cases
        .iter()
        .filter(|case| case.name.starts_with(MILLION_KEYS))
        .collect();
    let Some(fill) = Case::named(MILLION_KEYS).filter(|_| !followers.is_empty()) else {
        return;
    };
    let mut servers = site.servers(fill, results);
    for server in &servers {
        put_all(site, fill, server, results);
    }
    thread::sleep(SETTLE);
    for server in &servers {
        memory(site, server, results);
    }
    for round in 0..comparison.rounds {
        if followers.iter().any(|case| case.name == MILLION_KEYS) {
            for server in &mut servers {
                restart(site, round, server, results);
            }
        }
    }
    if followers.iter().any(|case| case.name == MILLION_KEYS) {
        print!("{}", table::case(results, fill, site.mode));
    }
    for case in followers {
        if case.name != MILLION_KEYS {
            for round in 0..comparison.rounds {
                site.round(case, round, &servers, true, results);
            }
            print!("{}", table::case(results, case, site.mode));
        }
    }
    for server in servers {
        server.discard();
    }
}

/// Puts every key once.
fn put_all(site: &Site<'_>, case: &'static Case, server: &Server, results: &mut Results) {
    let name = server.kind().name();
    eprintln!("{}: filling {name}", case.name);
    let settings = load::Settings {
        pids: server.pid().into_iter().collect(),
        sequential: true,
        requests: Some(site.comparison.million),
        ..site.settings(case, server)
    };
    match load::run(case.load, &settings, site.comparison.progress) {
        Ok(report) => results.add(Run {
            case: case.name,
            mode: site.mode,
            server: server.kind(),
            round: 0,
            report,
        }),
        Err(error) => results.fail(format!("filling {name}: {error}")),
    }
}

fn memory(site: &Site<'_>, server: &Server, results: &mut Results) {
    let read = server.pid().map(|pid| Process::of(pid).memory());
    match read {
        Some(Ok(memory)) => results.measure(
            MILLION_KEYS,
            site.mode,
            server.kind(),
            Figure::Rss,
            load::to_float(memory.resident) / f64::from(1 << 20),
        ),
        Some(Err(error)) => results.fail(format!("memory of {}: {error}", server.kind().name())),
        None => {}
    }
    eprintln!(
        "{} holds {} MiB on disk",
        server.kind().name(),
        server.disk_bytes() >> 20
    );
}

fn restart(site: &Site<'_>, round: usize, server: &mut Server, results: &mut Results) {
    let name = server.kind().name();
    eprintln!("{MILLION_KEYS}: restart {} of {name}", round + 1);
    match server.restart() {
        Ok(time) => results.measure(
            MILLION_KEYS,
            site.mode,
            server.kind(),
            Figure::Restart,
            time.as_secs_f64() * 1e3,
        ),
        Err(error) => results.fail(format!("restart of {name}: {error}")),
    }
}
