//! The KV service.

use super::call::Call;
use super::pages::Pages;
use super::work::{Work, returns_rows};
use super::{Connection, Session, StreamGuard, errors, lower, off_runtime, raise};
use crate::body::Prepared;
use crate::held;
use crate::metrics::Rpc;
use crate::node::READ_BUDGET_UNIT_BYTES;
use holdfast_auth::{Authorized, Demands, Policy};
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

/// The store's revision that an answer tells.
fn revision_of(answer: &Answer) -> i64 {
    match answer {
        Answer::Put(answer) => answer.revision,
        Answer::Delete(answer) => answer.revision,
        Answer::Txn(answer) => answer.revision,
        Answer::Compacted { revision }
        | Answer::LeaseGranted { revision, .. }
        | Answer::LeaseRevoked { revision }
        | Answer::Done { revision, .. } => *revision,
        // The members have no revision.
        Answer::Members(_) => 0,
    }
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
        let (mut call, wire) = self.begin(Rpc::Range, request);
        let serializable = wire.serializable;
        if serializable {
            call.reads_locally();
        }
        call.run(async {
            let range = call.authorize(lower::range(wire).map_err(refuse)?).await?;
            if !serializable {
                self.linearizable().await?;
            }
            self.read(range).await
        })
        .await
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let (call, wire) = self.begin(Rpc::Put, request);
        call.run(async {
            let put = lower::put(wire);
            let cost = put_cost(&put);
            let valid = validate_put(&put);
            // Who may not write learns nothing of the quota, and cannot raise its alarm.
            let command = call.authorize(Command::Put(put)).await?;
            self.admit(cost).await?;
            valid.map_err(refuse)?;
            match self.commit(&call, command).await? {
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
        let (call, wire) = self.begin(Rpc::DeleteRange, request);
        call.run(async {
            let delete = lower::delete(wire).map_err(refuse)?;
            let command = call.authorize(Command::DeleteRange(delete)).await?;
            match self.commit(&call, command).await? {
                Answer::Delete(answer) => Ok(pb::DeleteRangeResponse {
                    header: Some(self.header_at(answer.revision)),
                    deleted: answer.deleted as i64,
                    prev_kvs: answer.previous.into_iter().map(raise::key_value).collect(),
                }),
                _ => Err(unexpected()),
            }
        })
        .await
        .map(Response::new)
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let (call, wire) = self.begin(Rpc::Txn, request);
        call.run(async {
            // A transaction without steps counts as serializable, like one whose reads all are (behaviour §3.5).
            let needs_space = lower::has_put(&wire);
            let serializable = wire.success.iter().chain(&wire.failure).all(|op| {
                matches!(&op.request, Some(pb::request_op::Request::RequestRange(range)) if range.serializable)
            });
            let txn = match lower::txn(wire, self.node().config.max_txn_ops) {
                Ok(txn) => txn,
                Err(refusal) => {
                    // As in etcd a tenant without space hears of that first; but not whoever might not write there.
                    if needs_space && !self.tenant.auth().is_enabled() {
                        self.admit(0).await?;
                    }
                    return Err(refuse(refusal));
                }
            };
            let valid = validate_txn(&txn);
            if txn.is_read_only() {
                let txn = call.authorize(txn).await?;
                valid.map_err(refuse)?;
                if !serializable {
                    self.linearizable().await?;
                }
                return self.read_txn(txn).await;
            }
            let cost = txn_cost(&txn);
            let command = call.authorize(Command::Txn(txn)).await?;
            if needs_space {
                self.admit(cost).await?;
            }
            valid.map_err(refuse)?;
            match self.commit(&call, command).await? {
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
        let (call, wire) = self.begin(Rpc::Compact, request);
        call.run(async {
            let command = Command::Compact {
                revision: wire.revision,
            };
            let command = call.authorize(command).await?;
            let Answer::Compacted { revision } = self.commit(&call, command).await? else {
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
        })
        .await
        .map(Response::new)
    }

    type RangeStreamStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let call = self.begin_stream(Rpc::RangeStream, &request);
        let mut guard = StreamGuard::new(self.0.clone(), Rpc::RangeStream);
        let wire = request.into_inner();
        let opened = call.open(self.open_range_stream(&call, wire)).await;
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
                        Err(status) => {
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
        let answer = tenants.read_txn(&self.tenant, txn.request());
        self.recheck(txn)?;
        let answer = answer.map_err(refuse)?;
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
        self.recheck(range)?;
        let answer = answer.map_err(refuse)?;
        let header = self.header_at(answer.revision);
        Ok(raise::range(answer, header))
    }

    /// Judges a read again once it is done: it may have waited, and read what was written after its caller lost the permission. The
    /// state machine changes permissions before what is ordered after them, so they are at least as recent as what was read.
    fn recheck<T: Demands>(&self, read: &Authorized<T>) -> Result<(), Status> {
        self.tenant
            .auth()
            .access(read.caller())
            .and_then(|access| access.permits(Policy::KeyScoped, read.request()))
            .map_err(errors::denied)
    }

    /// Sends a command through the log and waits for what it came to.
    ///
    /// # Errors
    /// The refusal, or why there is no answer.
    pub(super) async fn commit(
        &self,
        call: &Call<'_>,
        command: Authorized<Command>,
    ) -> Result<Answer, Status> {
        // The answers of calls that return rows are as long as the rows are: not too many at a time.
        let _turn = if returns_rows(command.request()) {
            let turn = self.held.turn().await;
            self.held.room(held::Kind::Short).await;
            Some(turn)
        } else {
            None
        };
        let answer = self
            .worker
            .propose(&self.tenant, command)
            .await
            .map_err(|error| self.unanswered(error))?;
        call.entry().revision(revision_of(&answer));
        Ok(answer)
    }

    async fn open_range_stream(
        self: &Arc<Self>,
        call: &Call<'_>,
        wire: pb::RangeRequest,
    ) -> Result<Pages, Status> {
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
        let range = call.authorize(range).await?;
        if !serializable {
            self.linearizable().await?;
        }
        let caller = range.caller().clone();
        Pages::open(self.clone(), range, caller).map_err(refuse)
    }
}
