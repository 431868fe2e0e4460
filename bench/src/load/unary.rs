//! The loads that are one request and one answer at a time.

use super::{
    closed_loop::{Seat, Work},
    keyspace::{Dice, Keyspace, Values},
};
use crate::{
    answer::{Answer, Pieces},
    grpc::{CallError, Connection, Inbound, Outbound, Rpc},
};
use holdfast_proto::etcdserverpb as pb;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The keys that put, get, count and scan share, so that one fill serves them all.
const SHARED_ROOM: &str = "k";
/// The prefix that the range load lists.
const LIST_ROOM: &str = "list";
const TXN_ROOM: &str = "txn";

/// Leases outlive every run: expiry is not what is measured.
const TTL_SECONDS: i64 = 3_600;

pub(super) fn shared_keys(settings: &super::Settings) -> Keyspace {
    Keyspace::new(settings, SHARED_ROOM, settings.keys)
}

fn scan(message: &mut Pieces) -> Result<Answer, crate::answer::Malformed> {
    Answer::scan(message)
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Which key a writer takes next.
enum Order {
    Random,
    /// All workers together take each key once.
    Sequential(Arc<AtomicU64>),
}

/// Puts over one keyspace.
struct Putter {
    connection: Connection,
    rpc: Rpc,
    keys: Keyspace,
    values: Values,
    dice: Dice,
    order: Order,
}

impl Putter {
    fn new(seat: Seat, room: &str) -> Result<Self, CallError> {
        let mut dice = Dice::new(&seat.settings, seat.worker);
        Ok(Self {
            rpc: seat.connection.rpc("/etcdserverpb.KV/Put")?,
            connection: seat.connection,
            keys: Keyspace::new(&seat.settings, room, seat.settings.keys),
            values: Values::new(&seat.settings, &mut dice),
            dice,
            order: if seat.settings.sequential {
                Order::Sequential(seat.sequence)
            } else {
                Order::Random
            },
        })
    }

    async fn step(&mut self) -> Result<(), CallError> {
        let key = match &self.order {
            Order::Random => self.dice.below(self.keys.keys),
            Order::Sequential(next) => next.fetch_add(1, Ordering::Relaxed) % self.keys.keys,
        };
        let request = pb::PutRequest {
            key: self.keys.key(key),
            value: self.values.pick(&mut self.dice),
            ..Default::default()
        };
        let answer = self.connection.call(&self.rpc, &request, scan).await?;
        if answer.revision == 0 {
            return Err(CallError::Wrong("a put without a revision"));
        }
        Ok(())
    }
}

/// Puts of the shared keys.
pub(super) struct Put(Putter);

impl Work for Put {
    async fn prepare(seat: Seat) -> Result<Self, CallError> {
        Putter::new(seat, SHARED_ROOM).map(Self)
    }

    async fn step(&mut self) -> Result<(), CallError> {
        self.0.step().await
    }
}

/// Puts of the keys that the range load lists.
pub(super) struct ListPut(Putter);

impl Work for ListPut {
    async fn prepare(seat: Seat) -> Result<Self, CallError> {
        Putter::new(seat, LIST_ROOM).map(Self)
    }

    async fn step(&mut self) -> Result<(), CallError> {
        self.0.step().await
    }
}

/// Linearizable gets of single keys.
pub(super) struct Get {
    connection: Connection,
    rpc: Rpc,
    keys: Keyspace,
    dice: Dice,
}

impl Work for Get {
    async fn prepare(seat: Seat) -> Result<Self, CallError> {
        Ok(Self {
            rpc: seat.connection.rpc("/etcdserverpb.KV/Range")?,
            connection: seat.connection,
            keys: shared_keys(&seat.settings),
            dice: Dice::new(&seat.settings, seat.worker),
        })
    }

    async fn step(&mut self) -> Result<(), CallError> {
        let request = pb::RangeRequest {
            key: self.keys.key(self.dice.below(self.keys.keys)),
            ..Default::default()
        };
        let answer = self.connection.call(&self.rpc, &request, scan).await?;
        if answer.kvs != 1 {
            return Err(CallError::Wrong("a get that did not find its key"));
        }
        Ok(())
    }
}

/// Ranges over the list prefix.
pub(super) struct List {
    connection: Connection,
    rpc: Rpc,
    request: pb::RangeRequest,
    expected: u64,
}

impl Work for List {
    async fn prepare(seat: Seat) -> Result<Self, CallError> {
        let keys = Keyspace::new(&seat.settings, LIST_ROOM, seat.settings.keys);
        let limit = seat.settings.limit;
        Ok(Self {
            rpc: seat.connection.rpc("/etcdserverpb.KV/Range")?,
            connection: seat.connection,
            request: pb::RangeRequest {
                key: keys.prefix(),
                range_end: keys.end(),
                limit,
                ..Default::default()
            },
            expected: match u64::try_from(limit) {
                Ok(limit) if limit > 0 => limit.min(keys.keys),
                _ => keys.keys,
            },
        })
    }

    async fn step(&mut self) -> Result<(), CallError> {
        let answer = self.connection.call(&self.rpc, &self.request, scan).await?;
        if answer.kvs != self.expected {
            return Err(CallError::Wrong("a range without all its keys"));
        }
        Ok(())
    }
}

/// `count_only` over all shared keys.
pub(super) struct Count {
    connection: Connection,
    rpc: Rpc,
    request: pb::RangeRequest,
    expected: u64,
}

impl Work for Count {
    async fn prepare(seat: Seat) -> Result<Self, CallError> {
        let keys = shared_keys(&seat.settings);
        Ok(Self {
            rpc: seat.connection.rpc("/etcdserverpb.KV/Range")?,
            connection: seat.connection,
            request: pb::RangeRequest {
                key: keys.prefix(),
                range_end: keys.end(),
                count_only: true,
                ..Default::default()
            },
            expected: keys.keys,
        })
    }

    async fn step(&mut self) -> Result<(), CallError> {
        let answer = self.connection.call(&self.rpc, &self.request, scan).await?;
        if answer.fourth < self.expected {
            return Err(CallError::Wrong("a count below the number of keys"));
        }
        Ok(())
    }
}

/// The write of a Kubernetes API server: `If mod_revision(key) = seen Then put Else range`. Each worker has keys of its own, so
/// that every comparison holds, as nearly all do in a cluster at work.
pub(super) struct CompareAndPut {
    connection: Connection,
    rpc: Rpc,
    keys: Keyspace,
    values: Values,
    dice: Dice,
    /// The number of the first key of this worker.
    first: u64,
    /// The last revision seen of each of its keys; 0 as long as the key is not known.
    revisions: Vec<i64>,
}

impl Work for CompareAndPut {
    async fn prepare(seat: Seat) -> Result<Self, CallError> {
        let mut dice = Dice::new(&seat.settings, seat.worker);
        let own = (seat.settings.keys / number(seat.workers)).max(1);
        let count = usize::try_from(own).unwrap_or(1);
        let mut worker = Self {
            rpc: seat.connection.rpc("/etcdserverpb.KV/Txn")?,
            connection: seat.connection,
            keys: Keyspace::new(&seat.settings, TXN_ROOM, seat.settings.keys),
            values: Values::new(&seat.settings, &mut dice),
            dice,
            first: number(seat.worker) * own,
            revisions: vec![0; count],
        };
        worker.learn().await?;
        Ok(worker)
    }

    async fn step(&mut self) -> Result<(), CallError> {
        let index = usize::try_from(self.dice.below(number(self.revisions.len()))).unwrap_or(0);
        let Some(seen) = self.revisions.get_mut(index) else {
            return Err(CallError::Wrong("a key that is not the worker's"));
        };
        let key = self.keys.key(self.first + number(index));
        let request = pb::TxnRequest {
            compare: vec![pb::Compare {
                result: pb::compare::CompareResult::Equal.into(),
                target: pb::compare::CompareTarget::Mod.into(),
                key: key.clone(),
                target_union: Some(pb::compare::TargetUnion::ModRevision(*seen)),
                ..Default::default()
            }],
            success: vec![pb::RequestOp {
                request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
                    key: key.clone(),
                    value: self.values.pick(&mut self.dice),
                    ..Default::default()
                })),
            }],
            failure: vec![pb::RequestOp {
                request: Some(pb::request_op::Request::RequestRange(pb::RangeRequest {
                    key,
                    ..Default::default()
                })),
            }],
        };
        let answer = self.connection.call(&self.rpc, &request, scan).await?;
        if answer.second == 0 {
            return Err(CallError::Wrong("a comparison that did not hold"));
        }
        *seen = answer.revision;
        Ok(())
    }
}

impl CompareAndPut {
    /// Reads what an earlier run left of this worker's keys.
    async fn learn(&mut self) -> Result<(), CallError> {
        use prost::Message;

        let rpc = self.connection.rpc("/etcdserverpb.KV/Range")?;
        let request = pb::RangeRequest {
            key: self.keys.key(self.first),
            range_end: self.keys.key(self.first + number(self.revisions.len())),
            ..Default::default()
        };
        let answer = self
            .connection
            .call(&rpc, &request, |message| {
                Ok(pb::RangeResponse::decode(message)?)
            })
            .await?;
        for kv in answer.kvs {
            let position = (0..number(self.revisions.len()))
                .zip(&mut self.revisions)
                .find(|(number, _)| self.keys.key(self.first + number) == kv.key);
            if let Some((_, seen)) = position {
                *seen = kv.mod_revision;
            }
        }
        Ok(())
    }
}

/// Lease grants; the server picks the ids.
pub(super) struct Grant {
    connection: Connection,
    rpc: Rpc,
}

impl Work for Grant {
    async fn prepare(seat: Seat) -> Result<Self, CallError> {
        Ok(Self {
            rpc: seat.connection.rpc("/etcdserverpb.Lease/LeaseGrant")?,
            connection: seat.connection,
        })
    }

    async fn step(&mut self) -> Result<(), CallError> {
        grant(&mut self.connection, &self.rpc).await.map(drop)
    }
}

async fn grant(connection: &mut Connection, rpc: &Rpc) -> Result<i64, CallError> {
    let request = pb::LeaseGrantRequest {
        ttl: TTL_SECONDS,
        id: 0,
    };
    let answer = connection.call(rpc, &request, scan).await?;
    if answer.second == 0 {
        return Err(CallError::Wrong("a lease without an id"));
    }
    Ok(answer.second.cast_signed())
}

/// Keep-alives of one lease on one stream, the next when the last was answered.
pub(super) struct KeepAlive {
    outbound: Outbound,
    inbound: Inbound,
    lease: i64,
}

impl Work for KeepAlive {
    async fn prepare(mut seat: Seat) -> Result<Self, CallError> {
        let rpc = seat.connection.rpc("/etcdserverpb.Lease/LeaseGrant")?;
        let lease = grant(&mut seat.connection, &rpc).await?;
        let rpc = seat.connection.rpc("/etcdserverpb.Lease/LeaseKeepAlive")?;
        let mut stream = seat.connection.open_stream(&rpc).await?;
        // The first request goes ahead of the answer's headers, which some servers send only with their first message.
        stream.send(&pb::LeaseKeepAliveRequest { id: lease })?;
        let (outbound, mut inbound) = stream.begin().await?;
        inbound.next(scan).await?.ok_or(CallError::Closed)?;
        Ok(Self {
            outbound,
            inbound,
            lease,
        })
    }

    async fn step(&mut self) -> Result<(), CallError> {
        self.outbound
            .send(&pb::LeaseKeepAliveRequest { id: self.lease })?;
        let answer = self.inbound.next(scan).await?.ok_or(CallError::Closed)?;
        if answer.third == 0 {
            return Err(CallError::Wrong("a lease that is gone"));
        }
        Ok(())
    }
}
