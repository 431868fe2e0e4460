//! The KV service.

use super::{Connection, Session, StreamGuard, errors, lower, off_runtime, raise};
use crate::metrics::Rpc;
use crate::node::READ_BUDGET_UNIT_BYTES;
use holdfast_auth::{Authorized, KeyRange};
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::servers::etcdserverpb::kv_server::Kv;
use holdfast_tenant::request::{Order, Range};
use holdfast_tenant::{Answer, Command, Refusal, put_cost, txn_cost, validate_put, validate_txn};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

/// Ranges of more keys than this are read and encoded off the connections' runtime: they take milliseconds.
const LONG_RANGE_KEYS: u64 = 2_000;

/// An answer that does not fit the request: a defect of ours, told as such.
pub(super) fn unexpected() -> Status {
    Status::internal("etcdserver: unexpected answer of the state machine")
}

pub(super) fn refuse(refusal: Refusal) -> Status {
    errors::refused(&refusal)
}

#[tonic::async_trait]
impl Kv for Session {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        self.unary(Rpc::Range, request, async |wire: pb::RangeRequest| {
            let serializable = wire.serializable;
            let range = self.authorize(Rpc::Range, lower::range(wire).map_err(refuse)?)?;
            if !serializable {
                self.linearizable()?;
            }
            self.read(range).await
        })
        .await
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        self.unary(Rpc::Put, request, async |wire: pb::PutRequest| {
            let put = lower::put(wire);
            self.admit(put_cost(&put)).await?;
            validate_put(&put).map_err(refuse)?;
            let command = self.authorize(Rpc::Put, Command::Put(put))?;
            match self.commit(command).await? {
                Answer::Put(answer) => Ok(pb::PutResponse {
                    header: Some(self.header_at(answer.revision)),
                    prev_kv: answer.previous.map(raise::key_value),
                }),
                _ => Err(unexpected()),
            }
        })
        .await
        .map(Response::new)
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        self.unary(
            Rpc::DeleteRange,
            request,
            async |wire: pb::DeleteRangeRequest| {
                let delete = lower::delete(wire).map_err(refuse)?;
                let command = self.authorize(Rpc::DeleteRange, Command::DeleteRange(delete))?;
                match self.commit(command).await? {
                    Answer::Delete(answer) => Ok(pb::DeleteRangeResponse {
                        header: Some(self.header_at(answer.revision)),
                        deleted: answer.deleted as i64,
                        prev_kvs: answer.previous.into_iter().map(raise::key_value).collect(),
                    }),
                    _ => Err(unexpected()),
                }
            },
        )
        .await
        .map(Response::new)
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        self.unary(Rpc::Txn, request, async |wire: pb::TxnRequest| {
            // A transaction without steps counts as serializable, like one whose reads all are (behaviour §3.5).
            let serializable = wire.success.iter().chain(&wire.failure).all(|op| {
                matches!(&op.request, Some(pb::request_op::Request::RequestRange(range)) if range.serializable)
            });
            let needs_space = lower::has_put(&wire);
            if needs_space {
                self.admit(0).await?;
            }
            let txn = lower::txn(wire, self.node().config.max_txn_ops).map_err(refuse)?;
            if needs_space {
                self.admit(txn_cost(&txn)).await?;
            }
            validate_txn(&txn).map_err(refuse)?;
            let answer = if txn.is_read_only() {
                let txn = self.authorize(Rpc::Txn, txn)?;
                if !serializable {
                    self.linearizable()?;
                }
                self.node()
                    .tenants
                    .read_txn(&self.tenant, txn.request())
                    .map_err(refuse)?
            } else {
                let command = self.authorize(Rpc::Txn, Command::Txn(txn))?;
                match self.commit(command).await? {
                    Answer::Txn(answer) => answer,
                    _ => return Err(unexpected()),
                }
            };
            let header = self.header_at(answer.revision);
            Ok(raise::txn(answer, header))
        })
        .await
        .map(Response::new)
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        self.unary(
            Rpc::Compact,
            request,
            async |wire: pb::CompactionRequest| {
                let command = Command::Compact {
                    revision: wire.revision,
                };
                let command = self.authorize(Rpc::Compact, command)?;
                let Answer::Compacted { revision } = self.commit(command).await? else {
                    return Err(unexpected());
                };
                self.node().compaction.requested();
                if wire.physical {
                    self.node()
                        .compaction
                        .wait_until_removed(&self.tenant, wire.revision)
                        .await;
                }
                Ok(pb::CompactionResponse {
                    header: Some(self.header_at(revision)),
                })
            },
        )
        .await
        .map(Response::new)
    }

    type RangeStreamStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        self.streaming(Rpc::RangeStream, &request)?;
        let mut guard = StreamGuard::new(self.0.clone(), Rpc::RangeStream);
        let opened = self.open_range_stream(request.into_inner());
        match opened {
            Ok(pages) => {
                let stream = futures::stream::unfold(Some((pages, guard)), |state| async move {
                    let (mut pages, mut guard) = state?;
                    match pages.next_page() {
                        Ok(Some(page)) => Some((Ok(page), Some((pages, guard)))),
                        Ok(None) => {
                            guard.code = Code::Ok;
                            None
                        }
                        Err(refusal) => {
                            let status = refuse(refusal);
                            guard.code = status.code();
                            Some((Err(status), None))
                        }
                    }
                });
                Ok(Response::new(Box::pin(stream)))
            }
            Err(status) => {
                guard.code = status.code();
                Err(status)
            }
        }
    }
}

impl Connection {
    async fn read(
        self: &Arc<Self>,
        range: Authorized<Range>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        if !self.is_long(range.request()) {
            return self.read_now(&range).map(Response::new);
        }
        let held = self.hold_memory(range.request()).await?;
        let connection = self.clone();
        let answer = off_runtime(move || connection.read_now(&range)).await??;
        let mut response = Response::new(answer);
        response.extensions_mut().insert(Arc::new(held));
        Ok(response)
    }

    /// Waits until the answer's estimated size fits into the budget that long answers share. One that is larger than the whole
    /// budget waits until it is alone.
    async fn hold_memory(&self, range: &Range) -> Result<OwnedSemaphorePermit, Status> {
        let node = self.node();
        let keys = self.tenant.keys().max(1) as u64;
        let rows = if range.limit == 0 {
            keys
        } else {
            keys.min(range.limit)
        };
        let bytes = self.tenant.size_bytes() / keys * rows;
        let units = (bytes / READ_BUDGET_UNIT_BYTES).clamp(1, u64::from(node.read_budget_units));
        node.read_budget
            .clone()
            .acquire_many_owned(units as u32)
            .await
            .map_err(|_| errors::failed(holdfast_consensus::Failure::Stopped))
    }

    fn read_now(&self, range: &Authorized<Range>) -> Result<pb::RangeResponse, Status> {
        let begun = Instant::now();
        let node = self.node();
        let answer = node.tenants.range(&self.tenant, range.request());
        node.metrics.ranged(begun.elapsed(), answer.is_ok());
        let answer = answer.map_err(refuse)?;
        let header = self.header_at(answer.revision);
        Ok(raise::range(answer, header))
    }

    /// Whether a range may take long: it reads many rows, or sorts or filters many keys.
    fn is_long(&self, range: &Range) -> bool {
        if range.count_only || matches!(range.keys, KeyRange::Point(_)) {
            return false;
        }
        let bounded_by_limit = range.order == Order::Natural && !range.filter.is_set();
        if bounded_by_limit && (1..=LONG_RANGE_KEYS).contains(&range.limit) {
            return false;
        }
        self.tenant.keys() as u64 > LONG_RANGE_KEYS
    }

    pub(super) async fn commit(&self, command: Authorized<Command>) -> Result<Answer, Status> {
        self.worker
            .propose(&self.tenant, command)
            .await
            .map_err(errors::unanswered)
    }

    fn open_range_stream(self: &Arc<Self>, wire: pb::RangeRequest) -> Result<Pages, Status> {
        let serializable = wire.serializable;
        let mut range = lower::range(wire).map_err(refuse)?;
        // Without an order the target does not matter (etcd 3.7).
        let unordered = matches!(range.order, Order::Natural | Order::SortedPrefix(_));
        range.order = Order::Natural;
        if !unordered {
            return Err(Status::unimplemented(
                "RangeStream does not support custom sort orders",
            ));
        }
        if range.filter.is_set() {
            return Err(Status::unimplemented(
                "RangeStream does not support revision filters",
            ));
        }
        let range = self.authorize(Rpc::RangeStream, range)?;
        if !serializable {
            self.linearizable()?;
        }
        Pages::open(self.clone(), range).map_err(refuse)
    }
}

/// Keys in the first message of a RangeStream (etcd's).
const FIRST_PAGE_KEYS: u64 = 10;
/// Most keys in one message, so that a page of small values does not hold up the runtime.
const PAGE_KEYS_MAX: u64 = LONG_RANGE_KEYS;

/// A range that is read piece by piece at one revision.
struct Pages {
    connection: Arc<Connection>,
    snapshot: holdfast_storage::mvcc::Snapshot,
    /// What is left to read; the revision is pinned.
    rest: Option<Range>,
    page_keys: u64,
    /// Keys that may still be sent; `None` without a limit.
    left: Option<u64>,
    total: u64,
}

impl Pages {
    fn open(connection: Arc<Connection>, range: Authorized<Range>) -> Result<Pages, Refusal> {
        let mut range = range.into_request();
        let node = connection.node();
        let snapshot = node.tenants.snapshot(&connection.tenant);
        let count = Range {
            count_only: true,
            ..range.clone()
        };
        let total = node
            .tenants
            .range_in(connection.tenant.id, &snapshot, &count)?
            .count;
        if range.revision <= 0 {
            range.revision = snapshot.revision();
        }
        Ok(Pages {
            snapshot,
            left: (range.limit != 0).then_some(range.limit),
            rest: Some(range),
            page_keys: FIRST_PAGE_KEYS,
            total,
            connection,
        })
    }

    fn next_page(&mut self) -> Result<Option<pb::RangeStreamResponse>, Refusal> {
        let Some(mut range) = self.rest.take() else {
            return Ok(None);
        };
        let connection = self.connection.clone();
        let tenants = &connection.node().tenants;
        let header = Some(connection.header_at(self.snapshot.revision()));
        if range.count_only {
            return Ok(Some(page(pb::RangeResponse {
                header,
                count: self.total as i64,
                ..pb::RangeResponse::default()
            })));
        }
        if connection.tenant.compacted() > range.revision {
            return Err(Refusal::Compacted);
        }
        range.limit = self
            .left
            .map_or(self.page_keys, |left| left.min(self.page_keys));
        let answer = tenants.range_in(connection.tenant.id, &self.snapshot, &range)?;
        let sent = answer.rows.len() as u64;
        if let Some(left) = &mut self.left {
            *left -= sent;
        }
        let bytes: usize = answer
            .rows
            .iter()
            .map(|row| row.key.len() + row.value.len())
            .sum();
        let target = connection.node().config.max_request_bytes;
        if bytes < target / 2 {
            self.page_keys = (self.page_keys * 2).min(PAGE_KEYS_MAX);
        } else if bytes > target {
            self.page_keys = (self.page_keys / 2).max(1);
        }
        let is_last = !answer.more || self.left == Some(0);
        let mut response = pb::RangeResponse {
            kvs: Vec::new(),
            more: false,
            header: None,
            count: 0,
        };
        if is_last {
            response.header = header;
            response.more = answer.more;
            response.count = self.total as i64;
        } else if let Some(last) = answer.rows.last() {
            let mut next = last.key.to_vec();
            next.push(0);
            range.keys = after(&range.keys, next.into());
            self.rest = Some(range);
        }
        response.kvs = answer.rows.into_iter().map(raise::key_value).collect();
        Ok(Some(page(response)))
    }
}

fn page(response: pb::RangeResponse) -> pb::RangeStreamResponse {
    pb::RangeStreamResponse {
        range_response: Some(response),
    }
}

/// The part of a range from `next` on. It is inside what was authorized: it only moves the start up.
fn after(keys: &KeyRange, next: bytes::Bytes) -> KeyRange {
    match keys {
        KeyRange::Span { end, .. } => KeyRange::Span {
            start: next,
            end: end.clone(),
        },
        KeyRange::From(_) | KeyRange::All => KeyRange::From(next),
        // One key has no second page.
        KeyRange::Point(key) => KeyRange::Span {
            start: next,
            end: key.clone(),
        },
    }
}
