//! The engine of the request loads: N requests in flight, each worker sends its next request when its last was answered.

use super::{
    LoadError, Settings,
    stage::{Lane, Stage, histogram},
};
use crate::{
    grpc::{CallError, Connection},
    process::Process,
    progress::Progress,
    report::{Measured, ServerUse},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How often the coordinator looks up: the progress bar, and whether the workers have ended.
const TICK: Duration = Duration::from_millis(20);

/// Where a worker sits.
pub(super) struct Seat {
    pub(super) connection: Connection,
    /// Its number among all workers of the run.
    pub(super) worker: usize,
    pub(super) workers: usize,
    /// Counts what the workers take in turn.
    pub(super) sequence: Arc<AtomicU64>,
    pub(super) settings: Settings,
}

/// A worker: prepared before the run, then asked for one request at a time.
pub(super) trait Work: Send + Sized + 'static {
    fn prepare(seat: Seat) -> impl Future<Output = Result<Self, CallError>> + Send;
    fn step(&mut self) -> impl Future<Output = Result<(), CallError>> + Send;
}

/// Runs `in_flight` workers to the end of the measurement.
pub(super) fn drive<W: Work>(
    settings: &Settings,
    stage: &Arc<Stage>,
    progress: Progress,
    title: &str,
) -> Result<Measured, LoadError> {
    let threads = settings.threads.clamp(1, settings.connections.max(1));
    stage.alive.store(settings.in_flight, Ordering::Release);
    let (go, _) = watch::channel(false);
    let (ready, readiness) = mpsc::channel();
    let sequence = Arc::new(AtomicU64::new(0));
    let mut lanes = Vec::new();
    let mut handles = Vec::new();
    for number in 0..threads {
        let lane = Lane::new()?;
        lanes.push(Arc::clone(&lane));
        let crew = Crew {
            number,
            threads,
            lane,
            stage: Arc::clone(stage),
            sequence: Arc::clone(&sequence),
            settings: settings.clone(),
        };
        let ready = ready.clone();
        let started = go.subscribe();
        let handle = thread::Builder::new()
            .name(format!("load-{number}"))
            .spawn(move || crew.run::<W>(&ready, started))
            .map_err(|source| LoadError::Io {
                context: "start a thread",
                source,
            })?;
        handles.push(handle);
    }
    drop(ready);
    for _ in 0..threads {
        readiness.recv().map_err(|_| LoadError::Thread)??;
    }

    let bar = progress.bar(title, settings);
    if settings.requests.is_none() {
        go.send_replace(true);
        thread::sleep(settings.warmup);
    }
    let before = Usage::of(settings)?;
    let begin = Instant::now();
    stage.measure();
    go.send_replace(true);
    loop {
        thread::sleep(TICK);
        let elapsed = begin.elapsed();
        bar.update(elapsed, || lanes.iter().map(|lane| lane.count()).sum());
        let timed_out = settings.requests.is_none() && elapsed >= settings.duration;
        if timed_out || stage.alive.load(Ordering::Acquire) == 0 {
            break;
        }
    }
    let elapsed = begin.elapsed();
    let after = Usage::of(settings)?;
    stage.stop();
    bar.finish();
    for handle in handles {
        handle.join().map_err(|_| LoadError::Thread)?;
    }

    let mut latency = histogram()?;
    for lane in &lanes {
        lane.add_to(&mut latency);
    }
    let (errors, first_error) = stage.errors();
    Ok(Measured {
        elapsed,
        latency,
        errors,
        first_error,
        client_cpu: after.client.saturating_sub(before.client),
        server: after
            .server
            .zip(before.server)
            .map(|(after, before)| ServerUse {
                cpu: after.0.saturating_sub(before.0),
                memory: after.1,
            }),
    })
}

/// What both sides have used at one moment.
struct Usage {
    client: Duration,
    server: Option<(Duration, crate::process::Memory)>,
}

impl Usage {
    fn of(settings: &Settings) -> Result<Self, LoadError> {
        let failed = |pid| move |source| LoadError::Process { pid, source };
        let mut server = None;
        for pid in &settings.pids {
            let process = Process::of(*pid);
            let memory = process.memory().map_err(failed(*pid))?;
            let cpu = process.cpu().map_err(failed(*pid))?;
            server = Some(match server {
                None => (cpu, memory),
                Some((all_cpu, all_memory)) => (cpu + all_cpu, memory + all_memory),
            });
        }
        let client = Process::own().cpu().map_err(failed(std::process::id()))?;
        Ok(Self { client, server })
    }
}

/// The workers of one thread.
struct Crew {
    number: usize,
    threads: usize,
    lane: Arc<Lane>,
    stage: Arc<Stage>,
    sequence: Arc<AtomicU64>,
    settings: Settings,
}

impl Crew {
    fn run<W: Work>(
        self,
        ready: &mpsc::Sender<Result<(), LoadError>>,
        mut started: watch::Receiver<bool>,
    ) {
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(source) => {
                let context = "start a runtime";
                let _ = ready.send(Err(LoadError::Io { context, source }));
                return;
            }
        };
        runtime.block_on(async {
            let workers = match self.prepare::<W>().await {
                Ok(workers) => workers,
                Err(error) => {
                    let _ = ready.send(Err(LoadError::Setup(error)));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            if started.wait_for(|go| *go).await.is_err() {
                return;
            }
            let tasks: Vec<_> = workers
                .into_iter()
                .map(|worker| {
                    tokio::spawn(work(
                        worker,
                        Arc::clone(&self.lane),
                        Arc::clone(&self.stage),
                    ))
                })
                .collect();
            tokio::select! {
                () = async { for task in tasks { let _ = task.await; } } => {}
                () = self.stage.abandoned() => {}
            }
        });
    }

    /// Opens this thread's connections, and on them its workers, dealt round.
    async fn prepare<W: Work>(&self) -> Result<Vec<W>, CallError> {
        let mut workers = Vec::new();
        for connection in (self.number..self.settings.connections).step_by(self.threads) {
            let shared = Connection::open(self.settings.dialer_of(connection)).await?;
            for worker in (connection..self.settings.in_flight).step_by(self.settings.connections) {
                workers.push(
                    W::prepare(Seat {
                        connection: shared.clone(),
                        worker,
                        workers: self.settings.in_flight,
                        sequence: Arc::clone(&self.sequence),
                        settings: self.settings.clone(),
                    })
                    .await?,
                );
            }
        }
        Ok(workers)
    }
}

async fn work<W: Work>(mut worker: W, lane: Arc<Lane>, stage: Arc<Stage>) {
    while let Some(begin) = stage.admit().await {
        match worker.step().await {
            Ok(()) if stage.measuring() => lane.record(begin.elapsed()),
            Ok(()) => {}
            Err(error) => {
                stage.fail(&error);
                // Any other error is the connection's end, and would come back at once for ever.
                if !matches!(error, CallError::Status { .. } | CallError::Wrong(_)) {
                    break;
                }
            }
        }
    }
    stage.alive.fetch_sub(1, Ordering::AcqRel);
}
