//! The KV service.

use super::pages::Pages;
use super::work::{Work, returns_rows};
use super::{Connection, Session, StreamGuard, errors, lower, off_runtime, raise};
use crate::body::Prepared;
use crate::held;
use crate::metrics::Rpc;
use crate::node::READ_BUDGET_UNIT_BYTES;
use holdfast_auth::Authorized;
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::servers::etcdserverpb::kv_server::Kv;
use holdfast_tenant::request::{Order, Range, Txn};
use holdfast_tenant::{Answer, Command, Refusal, put_cost, txn_cost, validate_put, validate_txn};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

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
            if txn.is_read_only() {
                let txn = self.authorize(Rpc::Txn, txn)?;
                if !serializable {
                    self.linearizable()?;
                }
                return self.read_txn(txn).await;
            }
            let command = self.authorize(Rpc::Txn, Command::Txn(txn))?;
            match self.commit(command).await? {
                Answer::Txn(answer) => {
                    let header = self.header_at(answer.revision);
                    Ok(Response::new(raise::txn(answer, header)))
                }
                _ => Err(unexpected()),
            }
        })
        .await
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
        let work = self.work(range.request());
        if !work.is_long() {
            return self.read_now(&range).map(Response::new);
        }
        let held = self.hold_memory(work).await?;
        let connection = self.clone();
        // Encoded there, too: that takes as long as reading.
        let prepared =
            off_runtime(move || connection.read_now(&range).map(Prepared::new)).await??;
        let mut response = Response::new(pb::RangeResponse::default());
        response.extensions_mut().insert(Arc::new(held));
        response.extensions_mut().insert(prepared);
        Ok(response)
    }

    async fn read_txn(
        self: &Arc<Self>,
        txn: Authorized<Txn>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let work = self.work_of_txn(txn.request());
        if !work.is_long() {
            return self.read_txn_now(&txn).map(Response::new);
        }
        let held = self.hold_memory(work).await?;
        let connection = self.clone();
        let answer = off_runtime(move || connection.read_txn_now(&txn)).await??;
        let mut response = Response::new(answer);
        response.extensions_mut().insert(Arc::new(held));
        Ok(response)
    }

    fn read_txn_now(&self, txn: &Authorized<Txn>) -> Result<pb::TxnResponse, Status> {
        let tenants = &self.node().tenants;
        let answer = tenants
            .read_txn(&self.tenant, txn.request())
            .map_err(refuse)?;
        let header = self.header_at(answer.revision);
        Ok(raise::txn(answer, header))
    }

    /// Waits until the answer's estimated size fits into the budget that long answers share. One that is larger than the whole
    /// budget waits until it is alone. A client with much to read waits until it has read it.
    async fn hold_memory(&self, work: Work) -> Result<OwnedSemaphorePermit, Status> {
        self.held.room(held::Kind::Long).await;
        let node = self.node();
        let units =
            (work.bytes / READ_BUDGET_UNIT_BYTES).clamp(1, u64::from(node.read_budget_units));
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

    pub(super) async fn commit(&self, command: Authorized<Command>) -> Result<Answer, Status> {
        // The answers of calls that return rows are as long as the rows are: not too many at a time.
        let _turn = if returns_rows(command.request()) {
            let turn = self.held.turn().await;
            self.held.room(held::Kind::Short).await;
            Some(turn)
        } else {
            None
        };
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
