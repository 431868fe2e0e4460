//! Clients that write all the time and go to the next member when one does not answer.

use super::ClusterError;
use crate::{
    answer::Answer,
    grpc::{CallError, Connection},
    server_process::failed,
    tls::Dialer,
};
use bytes::Bytes;
use holdfast_proto::etcdserverpb as pb;
use parking_lot::Mutex;
use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::{sync::watch, time::MissedTickBehavior};

/// With [`CADENCE`], one write every 10 ms, which is how finely a gap can be seen.
pub(crate) const WRITERS: u32 = 50;

/// After it a client takes its attempt for lost and asks the next member.
pub(crate) const ATTEMPT: Duration = Duration::from_millis(500);

/// How often each client writes, in turn with the others. It is the length of an attempt, so that clients without an answer keep their
/// turns: if all wrote as fast as they can, all would be stuck at the same moment, time out together again and again, and gaps would come
/// in steps of half a second.
const CADENCE: Duration = ATTEMPT;

/// After an attempt that was refused at once.
const PAUSE: Duration = Duration::from_millis(5);

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    /// When its first attempt began.
    pub(crate) begin: Instant,
    pub(crate) acknowledged: Instant,
}

/// What was acknowledged, and how many attempts were not.
#[derive(Default)]
pub(crate) struct Record {
    /// In the order of the acknowledgements.
    pub(crate) writes: Vec<Write>,
    pub(crate) failed: u64,
}

impl Record {
    /// The acknowledgements, in order.
    pub(crate) fn acknowledged(&self) -> Vec<Instant> {
        self.writes.iter().map(|write| write.acknowledged).collect()
    }
}

/// The clients at work, on a thread of their own.
pub(crate) struct Writers {
    stop: watch::Sender<bool>,
    record: Arc<Mutex<Record>>,
    handle: JoinHandle<()>,
}

impl Writers {
    /// Clients begin at the members in turn, and have connections to all.
    pub(crate) fn start(dialers: &[Dialer]) -> Result<Self, ClusterError> {
        let (stop, stopped) = watch::channel(false);
        let record = Arc::new(Mutex::new(Record::default()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed("start a runtime"))?;
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| Writer {
                number,
                members: dialers
                    .iter()
                    .map(|dialer| (dialer.clone(), None))
                    .collect(),
                record: Arc::clone(&record),
                stopped: stopped.clone(),
            })
            .collect();
        let handle = thread::Builder::new()
            .name("writers".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let writers = writers.into_iter().map(|writer| tokio::spawn(writer.run()));
                    for writer in writers.collect::<Vec<_>>() {
                        let _ = writer.await;
                    }
                });
            })
            .map_err(failed("start a thread"))?;
        Ok(Self {
            stop,
            record,
            handle,
        })
    }

    /// The acknowledgements so far, in order.
    pub(crate) fn acknowledged(&self) -> Vec<Instant> {
        self.record.lock().acknowledged()
    }

    /// Ends all clients.
    pub(crate) fn stop(self) -> Record {
        self.stop.send_replace(true);
        // A thread that died has left what it recorded.
        let _ = self.handle.join();
        std::mem::take(&mut *self.record.lock())
    }
}

struct Writer {
    number: u32,
    members: Vec<(Dialer, Option<Connection>)>,
    record: Arc<Mutex<Record>>,
    stopped: watch::Receiver<bool>,
}

impl Writer {
    async fn run(mut self) {
        let request = pb::PutRequest {
            key: Bytes::from(format!("/failover/{}", self.number)),
            value: Bytes::from(vec![b'x'; 256]),
            ..Default::default()
        };
        for (dialer, slot) in &mut self.members {
            // One that cannot be had now is tried again when it is its turn.
            *slot = Connection::open(dialer).await.ok();
        }
        let count = self.members.len().max(1);
        let mut at = usize::try_from(self.number).unwrap_or(0) % count;
        let mut turns = tokio::time::interval_at(
            (Instant::now() + CADENCE * self.number / WRITERS).into(),
            CADENCE,
        );
        // A turn that was missed while there was no answer is not made up for.
        turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            turns.tick().await;
            let begin = Instant::now();
            loop {
                if *self.stopped.borrow() {
                    return;
                }
                let Some(member) = self.members.get_mut(at) else {
                    return;
                };
                if attempt(member, &request).await {
                    break;
                }
                self.record.lock().failed += 1;
                at = (at + 1) % count;
            }
            let acknowledged = Instant::now();
            self.record.lock().writes.push(Write {
                begin,
                acknowledged,
            });
        }
    }
}

/// One attempt at one member; whether it was acknowledged in time.
async fn attempt(
    (dialer, slot): &mut (Dialer, Option<Connection>),
    request: &pb::PutRequest,
) -> bool {
    match tokio::time::timeout(ATTEMPT, put(dialer, slot, request)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            // What the server refused in good order came over a sound connection.
            if !matches!(error, CallError::Status { .. }) {
                *slot = None;
            }
            tokio::time::sleep(PAUSE).await;
            false
        }
        Err(_) => false,
    }
}

async fn put(
    dialer: &Dialer,
    slot: &mut Option<Connection>,
    request: &pb::PutRequest,
) -> Result<(), CallError> {
    let connection = match slot {
        Some(connection) => connection,
        None => slot.insert(Connection::open(dialer).await?),
    };
    let rpc = connection.rpc("/etcdserverpb.KV/Put")?;
    let answer = connection.call(&rpc, request, Answer::scan).await?;
    if answer.revision == 0 {
        return Err(CallError::Wrong("a put without a revision"));
    }
    Ok(())
}
