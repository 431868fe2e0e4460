//! The watch loads: watchers that count and time events, and one writer that makes them.

use super::{
    Load, LoadError, Settings,
    closed_loop::{Seat, Work, drive},
    keyspace::{Dice, Keyspace, Values, now_nanoseconds},
    stage::{Lane, Stage, histogram},
};
use crate::{
    answer,
    grpc::{CallError, Connection, Inbound, Outbound, Rpc},
    progress::Progress,
    report::{Events, Report, Shape},
};
use holdfast_proto::etcdserverpb as pb;
use std::{
    sync::{Arc, mpsc},
    thread,
};
use tokio::sync::watch;

const PREFIX_ROOM: &str = "watched";
const KEYS_ROOM: &str = "single";

pub(super) fn run(
    load: Load,
    shape: Shape,
    settings: &Settings,
    progress: Progress,
) -> Result<Report, LoadError> {
    let stage = Stage::new(settings);
    let writer = Settings {
        connections: 1,
        in_flight: 1,
        threads: 1,
        keys: match load {
            Load::WatchKeys => u64::try_from(settings.watchers).unwrap_or(u64::MAX),
            _ => settings.keys,
        },
        ..settings.clone()
    };
    let watchers = Watchers::start(load, settings, &stage)?;
    let measured = if load == Load::WatchKeys {
        drive::<Writer<true>>(&writer, &stage, progress, shape.load)?
    } else {
        drive::<Writer<false>>(&writer, &stage, progress, shape.load)?
    };
    let delivery = watchers.stop()?;
    let mut report = Report::new(shape, measured);
    report.set_events(Events::new(
        &delivery,
        report.seconds,
        report.server_cpu_seconds(),
    ));
    // A watcher that failed after the writer's last error was read is an error of the run all the same.
    (report.errors, report.first_error) = stage.errors();
    Ok(report)
}

/// The one writer. `KEYS`: over the keys that are watched singly, else over the watched prefix.
struct Writer<const KEYS: bool> {
    connection: Connection,
    rpc: Rpc,
    keys: Keyspace,
    values: Values,
    dice: Dice,
}

impl<const KEYS: bool> Work for Writer<KEYS> {
    async fn prepare(seat: Seat) -> Result<Self, CallError> {
        let mut dice = Dice::new(&seat.settings, seat.worker);
        let room = if KEYS { KEYS_ROOM } else { PREFIX_ROOM };
        Ok(Self {
            rpc: seat.connection.rpc("/etcdserverpb.KV/Put")?,
            connection: seat.connection,
            keys: Keyspace::new(&seat.settings, room, seat.settings.keys),
            values: Values::new(&seat.settings, &mut dice),
            dice,
        })
    }

    async fn step(&mut self) -> Result<(), CallError> {
        let request = pb::PutRequest {
            key: self.keys.key(self.dice.below(self.keys.keys)),
            value: self.values.stamped(&mut self.dice),
            ..Default::default()
        };
        self.connection
            .call(&self.rpc, &request, answer::Answer::scan)
            .await
            .map(drop)
    }
}

/// The threads that watch.
struct Watchers {
    stop: watch::Sender<bool>,
    lanes: Vec<Arc<Lane>>,
    handles: Vec<thread::JoinHandle<()>>,
}

impl Watchers {
    /// Returns when every watch was confirmed by the server.
    fn start(load: Load, settings: &Settings, stage: &Arc<Stage>) -> Result<Self, LoadError> {
        let threads = settings.threads.clamp(1, settings.connections.max(1));
        let (stop, _) = watch::channel(false);
        let (ready, readiness) = mpsc::channel();
        let mut watchers = Self {
            stop,
            lanes: Vec::new(),
            handles: Vec::new(),
        };
        for number in 0..threads {
            let post = Post {
                load,
                number,
                threads,
                settings: settings.clone(),
                lane: Lane::new()?,
                stage: Arc::clone(stage),
            };
            watchers.lanes.push(Arc::clone(&post.lane));
            let ready = ready.clone();
            let mut stopped = watchers.stop.subscribe();
            let handle = thread::Builder::new()
                .name(format!("watch-{number}"))
                .spawn(move || {
                    let built = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build();
                    let runtime = match built {
                        Ok(runtime) => runtime,
                        Err(source) => {
                            let context = "start a runtime";
                            let _ = ready.send(Err(LoadError::Io { context, source }));
                            return;
                        }
                    };
                    runtime.block_on(async {
                        let started = post.start().await.map_err(LoadError::Setup);
                        let _ = ready.send(started);
                        let _ = stopped.wait_for(|stop| *stop).await;
                    });
                })
                .map_err(|source| LoadError::Io {
                    context: "start a thread",
                    source,
                })?;
            watchers.handles.push(handle);
        }
        drop(ready);
        for _ in 0..threads {
            readiness.recv().map_err(|_| LoadError::Thread)??;
        }
        Ok(watchers)
    }

    /// Ends the watches and gives the delivery latencies of all events of the measurement.
    fn stop(mut self) -> Result<hdrhistogram::Histogram<u64>, LoadError> {
        self.stop.send_replace(true);
        for handle in self.handles.drain(..) {
            handle.join().map_err(|_| LoadError::Thread)?;
        }
        let mut delivery = histogram()?;
        for lane in &self.lanes {
            lane.add_to(&mut delivery);
        }
        Ok(delivery)
    }
}

/// The share of one thread.
struct Post {
    load: Load,
    number: usize,
    threads: usize,
    settings: Settings,
    lane: Arc<Lane>,
    stage: Arc<Stage>,
}

impl Post {
    /// Opens the streams, waits until every watch is created, and leaves a task per stream that receives.
    async fn start(&self) -> Result<(), CallError> {
        let settings = &self.settings;
        let per_stream = settings.watches_per_stream.max(1);
        let streams: Vec<_> = (0..settings.watchers).step_by(per_stream).collect();
        for connection in (self.number..settings.connections).step_by(self.threads) {
            let mut shared = Connection::open(settings.dialer_of(connection)).await?;
            let rpc = shared.rpc("/etcdserverpb.Watch/Watch")?;
            for first in streams
                .iter()
                .skip(connection)
                .step_by(settings.connections)
            {
                let last = (first + per_stream).min(settings.watchers);
                let (outbound, inbound) = self.subscribe(&mut shared, &rpc, *first..last).await?;
                drop(tokio::spawn(receive(
                    outbound,
                    inbound,
                    Arc::clone(&self.lane),
                    Arc::clone(&self.stage),
                )));
            }
        }
        Ok(())
    }

    async fn subscribe(
        &self,
        connection: &mut Connection,
        rpc: &Rpc,
        watches: std::ops::Range<usize>,
    ) -> Result<(Outbound, Inbound), CallError> {
        let mut stream = connection.open_stream(rpc).await?;
        for number in watches.clone() {
            stream.send(&self.create(number))?;
        }
        let (outbound, mut inbound) = stream.begin().await?;
        let mut created = 0;
        while created < watches.len() {
            let news = inbound
                .next(|message| answer::watch(message, |_| {}))
                .await?
                .ok_or(CallError::Closed)?;
            if news.canceled {
                return Err(CallError::Wrong("a watch that was refused"));
            }
            created += usize::from(news.created);
        }
        Ok((outbound, inbound))
    }

    fn create(&self, number: usize) -> pb::WatchRequest {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        let (key, range_end) = if self.load == Load::WatchKeys {
            let keys = Keyspace::new(&self.settings, KEYS_ROOM, self.settings.keys);
            (keys.key(number), bytes::Bytes::new())
        } else {
            let keys = Keyspace::new(&self.settings, PREFIX_ROOM, self.settings.keys);
            (keys.prefix(), keys.end())
        };
        pb::WatchRequest {
            request_union: Some(pb::watch_request::RequestUnion::CreateRequest(
                pb::WatchCreateRequest {
                    key,
                    range_end,
                    ..Default::default()
                },
            )),
        }
    }
}

/// Receives until the runtime ends. `_outbound` is held because dropping it would reset the stream.
async fn receive(_outbound: Outbound, mut inbound: Inbound, lane: Arc<Lane>, stage: Arc<Stage>) {
    loop {
        let news = inbound
            .next(|message| {
                let measuring = stage.measuring();
                answer::watch(message, |stamp| {
                    if measuring {
                        let nanoseconds = now_nanoseconds().saturating_sub(stamp);
                        lane.record_microseconds(nanoseconds / 1_000);
                    }
                })
            })
            .await;
        let error = match news {
            Ok(Some(news)) if !news.canceled => continue,
            Ok(Some(_)) => CallError::Wrong("a watch that was cancelled"),
            Ok(None) => CallError::Closed,
            Err(error) => error,
        };
        stage.fail(&error);
        return;
    }
}
