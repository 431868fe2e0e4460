//! The scan load: what a reader of everything does to the writers beside it.

use super::{
    LoadError, Settings,
    closed_loop::drive,
    keyspace::Keyspace,
    stage::{Stage, to_float},
    unary,
};
use crate::{
    answer,
    grpc::{CallError, Connection, Rpc},
    progress::Progress,
    report::{Latency, Report, Scan, Shape},
};
use bytes::{BufMut, Bytes, BytesMut};
use holdfast_proto::etcdserverpb as pb;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};
use tokio::sync::watch;

pub(super) fn run(
    shape: Shape,
    settings: &Settings,
    progress: Progress,
) -> Result<Report, LoadError> {
    let stage = Stage::new(settings);
    let calm = drive::<unary::Put>(settings, &stage, progress, "puts, calm")?;

    let stage = Stage::new(settings);
    let scanner = Scanner::start(settings, &stage)?;
    let begin = Instant::now();
    let busy = drive::<unary::Put>(settings, &stage, progress, "puts, scanning")?;
    let elapsed = begin.elapsed();
    let keys = scanner.stop()?;

    let calm_errors = calm.errors;
    let calm_latency = Latency::of(&calm.latency);
    let mut report = Report::new(shape, busy);
    report.errors += calm_errors;
    report.first_error = calm.first_error.or(report.first_error);
    report.set_scan(Scan {
        keys_per_second: to_float(keys) / elapsed.as_secs_f64(),
        p99_ratio: report.latency_us.p99 / calm_latency.p99.max(1.0),
        calm_latency_us: calm_latency,
    });
    Ok(report)
}

/// A thread that reads all keys, page after page, over and over.
struct Scanner {
    stop: watch::Sender<bool>,
    keys: Arc<AtomicU64>,
    handle: thread::JoinHandle<()>,
}

impl Scanner {
    fn start(settings: &Settings, stage: &Arc<Stage>) -> Result<Self, LoadError> {
        let (stop, mut stopped) = watch::channel(false);
        let keys = Arc::new(AtomicU64::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| LoadError::Io {
                context: "start a runtime",
                source,
            })?;
        let handle = thread::Builder::new()
            .name("scan".to_owned())
            .spawn({
                let settings = settings.clone();
                let keys = Arc::clone(&keys);
                let stage = Arc::clone(stage);
                move || {
                    runtime.block_on(async {
                        tokio::select! {
                            outcome = scan(&settings, &keys) => {
                                if let Err(error) = outcome {
                                    stage.fail(&error);
                                }
                            }
                            _ = stopped.wait_for(|stop| *stop) => {}
                        }
                    });
                }
            })
            .map_err(|source| LoadError::Io {
                context: "start a thread",
                source,
            })?;
        Ok(Self { stop, keys, handle })
    }

    /// Ends the scan; gives the keys read.
    fn stop(self) -> Result<u64, LoadError> {
        self.stop.send_replace(true);
        self.handle.join().map_err(|_| LoadError::Thread)?;
        Ok(self.keys.load(Ordering::Acquire))
    }
}

async fn scan(settings: &Settings, keys: &AtomicU64) -> Result<(), CallError> {
    let mut connection = Connection::open(&settings.dialer).await?;
    let rpc = connection.rpc("/etcdserverpb.KV/Range")?;
    let space = unary::shared_keys(settings);
    loop {
        let mut from = space.prefix();
        while let Some(next) = page(&mut connection, &rpc, &space, settings, from, keys).await? {
            from = next;
        }
    }
}

/// Reads one page; gives where the next begins.
async fn page(
    connection: &mut Connection,
    rpc: &Rpc,
    space: &Keyspace,
    settings: &Settings,
    from: Bytes,
    keys: &AtomicU64,
) -> Result<Option<Bytes>, CallError> {
    let request = pb::RangeRequest {
        key: from,
        range_end: space.end(),
        limit: settings.page_keys,
        ..Default::default()
    };
    let (answer, last) = connection.call(rpc, &request, answer::last_key).await?;
    if answer.kvs == 0 {
        return Err(CallError::Wrong("an empty page in a scan"));
    }
    keys.fetch_add(answer.kvs, Ordering::AcqRel);
    Ok((answer.third != 0).then(|| {
        let mut next = BytesMut::with_capacity(last.len() + 1);
        next.put_slice(&last);
        next.put_u8(0);
        next.freeze()
    }))
}
