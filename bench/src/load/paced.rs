//! Puts at a given rate beside something else, each with its time: an open loop that runs until it is stopped.

use super::{
    LoadError, Settings,
    closed_loop::{Seat, Work},
    stage::Stage,
    unary::Put,
};
use crate::grpc::{CallError, Connection};
use parking_lot::Mutex;
use std::{
    sync::{Arc, atomic::AtomicU64, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// One request that was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// When it was due, or sent if that was later by the grain of the timer.
    pub(crate) begin: Instant,
    pub(crate) latency: Duration,
}

/// What the puts came to.
pub(crate) struct Paced {
    /// In the order of the answers.
    pub(crate) samples: Vec<Sample>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

/// Puts at work, on a thread of their own.
pub(crate) struct PacedPuts {
    stage: Arc<Stage>,
    samples: Arc<Mutex<Vec<Sample>>>,
    handle: JoinHandle<()>,
}

impl PacedPuts {
    /// Starts them; `settings` has the rate, keys and values.
    pub(crate) fn start(settings: &Settings) -> Result<Self, LoadError> {
        let stage = Stage::new(settings);
        let samples = Arc::new(Mutex::new(Vec::new()));
        let (ready, readiness) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| LoadError::Io {
                context: "start a runtime",
                source,
            })?;
        let handle = thread::Builder::new()
            .name("paced".to_owned())
            .spawn({
                let (stage, samples) = (Arc::clone(&stage), Arc::clone(&samples));
                let settings = settings.clone();
                move || {
                    runtime.block_on(async {
                        let puts = match prepare(&settings).await {
                            Ok(puts) => puts,
                            Err(error) => {
                                let _ = ready.send(Err(LoadError::Setup(error)));
                                return;
                            }
                        };
                        let _ = ready.send(Ok(()));
                        run(puts, &stage, &samples).await;
                    });
                }
            })
            .map_err(|source| LoadError::Io {
                context: "start a thread",
                source,
            })?;
        readiness.recv().map_err(|_| LoadError::Thread)??;
        Ok(Self {
            stage,
            samples,
            handle,
        })
    }

    /// Ends them when what is in flight was answered.
    pub(crate) fn stop(self) -> Result<Paced, LoadError> {
        self.stage.stop();
        self.handle.join().map_err(|_| LoadError::Thread)?;
        let (errors, first_error) = self.stage.errors();
        Ok(Paced {
            samples: std::mem::take(&mut *self.samples.lock()),
            errors,
            first_error,
        })
    }
}

async fn prepare(settings: &Settings) -> Result<Vec<Put>, CallError> {
    let sequence = Arc::new(AtomicU64::new(0));
    let mut puts = Vec::new();
    for connection in 0..settings.connections {
        let shared = Connection::open(settings.dialer_of(connection)).await?;
        for worker in (connection..settings.in_flight).step_by(settings.connections) {
            let seat = Seat {
                connection: shared.clone(),
                worker,
                workers: settings.in_flight,
                sequence: Arc::clone(&sequence),
                settings: settings.clone(),
            };
            puts.push(Put::prepare(seat).await?);
        }
    }
    Ok(puts)
}

async fn run(puts: Vec<Put>, stage: &Arc<Stage>, samples: &Arc<Mutex<Vec<Sample>>>) {
    let tasks: Vec<_> = puts
        .into_iter()
        .map(|mut put| {
            let (stage, samples) = (Arc::clone(stage), Arc::clone(samples));
            tokio::spawn(async move {
                while let Some(begin) = stage.admit().await {
                    match put.step().await {
                        Ok(()) => {
                            let latency = begin.elapsed();
                            samples.lock().push(Sample { begin, latency });
                        }
                        Err(error) => {
                            stage.fail(&error);
                            if !matches!(error, CallError::Status { .. } | CallError::Wrong(_)) {
                                break;
                            }
                        }
                    }
                }
            })
        })
        .collect();
    tokio::select! {
        () = async { for task in tasks { let _ = task.await; } } => {}
        () = stage.abandoned() => {}
    }
}
