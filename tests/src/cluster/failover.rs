//! How long a cluster acknowledges no write when its leader goes.

use super::{Cluster, State};
use crate::{Raw, wire};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How clients behave: a write that takes longer is tried again on the next member.
const RETRY: Duration = Duration::from_millis(500);

/// How the leader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
}

/// What was seen around the end of a leader.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    /// The longest time in which no write was acknowledged to anybody.
    pub longest: Duration,
    /// From the signal to the first acknowledgement that came after the longest gap.
    pub recovered: Duration,
    /// Writes that were acknowledged, before and after.
    pub acknowledged: usize,
}

/// Lets `clients` write without pause, ends the leader after `before`, goes on for `after`, and gives the longest time
/// without an acknowledgement that ended after the signal. The member is started again, and all are healthy, when this
/// returns. Each client writes to one member until a write fails or takes 0.5 s, then to the next.
pub async fn failover_gap(
    cluster: &mut Cluster,
    stop: Stop,
    clients: usize,
    before: Duration,
    after: Duration,
) -> Gap {
    let leader = cluster.leader().await;
    let members = cluster.running();
    let done = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut writers = Vec::new();
    for client in 0..clients {
        let stubs: Vec<_> = members.iter().map(|index| cluster.raw(*index)).collect();
        let writer = write(client, stubs, done.clone(), acknowledged.clone());
        writers.push(tokio::spawn(writer));
    }
    tokio::time::sleep(before).await;
    let at = Instant::now();
    if stop == Stop::Kill {
        cluster.kill(leader);
    } else {
        // Waits for the process on this thread; the writers have others.
        tokio::task::block_in_place(|| cluster.terminate(leader));
    }
    tokio::time::sleep(after.saturating_sub(at.elapsed())).await;
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("a writer");
    }
    assert_eq!(cluster.member(leader).state(), State::Down);
    tokio::task::block_in_place(|| cluster.restart(leader));
    cluster.wait_healthy().await;
    let mut times = acknowledged.lock().expect("no panic with it").clone();
    times.sort_unstable();
    gap(&times, at)
}

fn gap(times: &[Instant], at: Instant) -> Gap {
    assert!(
        times.last().is_some_and(|last| *last > at),
        "no write was acknowledged after the leader went"
    );
    let around = times.windows(2).filter(|pair| pair[1] > at);
    let longest = around.max_by_key(|pair| pair[1] - pair[0]);
    let longest = longest.expect("writes before and after");
    Gap {
        longest: longest[1] - longest[0],
        recovered: longest[1] - at,
        acknowledged: times.len(),
    }
}

async fn write(
    client: usize,
    stubs: Vec<Raw>,
    done: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<Instant>>>,
) {
    let mut at = client;
    let mut count = 0_u64;
    while !done.load(Ordering::Relaxed) {
        let put = wire::put(&format!("failover/{client}"), &count.to_string());
        let write = stubs[at % stubs.len()].put(put);
        match tokio::time::timeout(RETRY, write).await {
            Ok(Ok(_)) => {
                count += 1;
                acknowledged
                    .lock()
                    .expect("no panic with it")
                    .push(Instant::now());
            }
            refused_or_late => {
                at += 1;
                if matches!(refused_or_late, Ok(Err(_))) {
                    // A dead member refuses at once; asking all of them without pause would only burn time of the others.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}
