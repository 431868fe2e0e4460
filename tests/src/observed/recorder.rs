//! Calls of clients with the time at which each was made and answered.

use crate::Raw;
use holdfast_proto::etcdserverpb as pb;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tonic::{Code, Status};

/// A call whose effects can be told from those of others: each value that is put is put by one call only.
#[derive(Clone, Debug)]
pub enum Request {
    /// KV.Range.
    Range(pb::RangeRequest),
    /// KV.Put.
    Put(pb::PutRequest),
    /// KV.DeleteRange.
    Delete(pb::DeleteRangeRequest),
    /// KV.Txn.
    Txn(pb::TxnRequest),
    /// Lease.LeaseGrant.
    Grant(pb::LeaseGrantRequest),
    /// Lease.LeaseKeepAlive, once.
    Renew(i64),
    /// Lease.LeaseRevoke.
    Revoke(i64),
}

/// What a call came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The answer of a range.
    Range(pb::RangeResponse),
    /// The answer of a put.
    Put(pb::PutResponse),
    /// The answer of a delete.
    Delete(pb::DeleteRangeResponse),
    /// The answer of a txn.
    Txn(pb::TxnResponse),
    /// The lease lives this long, in seconds, from some moment of the call; 0: there is none.
    Lease(i64),
    /// The lease was revoked.
    Revoked,
    /// It was refused, and has no effect.
    Refused(Status),
    /// It may have had its effect, or may have it yet.
    Unknown,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Which client made it.
    pub client: usize,
    /// Which member was asked.
    pub member: usize,
    /// When it was made.
    pub called: Instant,
    /// When the answer was there, or the client gave up.
    pub returned: Instant,
    /// What was asked.
    pub request: Request,
    /// What came of it.
    pub outcome: Outcome,
}

impl Operation {
    /// The revision of the answer, and whether the call made that revision.
    pub(super) fn place(&self) -> Option<(i64, bool)> {
        let at =
            |header: &Option<pb::ResponseHeader>| header.as_ref().map(|header| header.revision);
        match &self.outcome {
            Outcome::Range(answer) => Some((at(&answer.header)?, false)),
            Outcome::Put(answer) => Some((at(&answer.header)?, true)),
            Outcome::Delete(answer) => Some((at(&answer.header)?, answer.deleted > 0)),
            Outcome::Txn(answer) => Some((at(&answer.header)?, wrote(answer))),
            _ => None,
        }
    }

    /// Whether its answer may be older than the cluster's state.
    pub(super) fn is_local(&self) -> bool {
        matches!(&self.request, Request::Range(range) if range.serializable)
    }
}

fn wrote(answer: &pb::TxnResponse) -> bool {
    use pb::response_op::Response;
    answer
        .responses
        .iter()
        .any(|response| match &response.response {
            Some(Response::ResponsePut(_)) => true,
            Some(Response::ResponseDeleteRange(delete)) => delete.deleted > 0,
            Some(Response::ResponseTxn(txn)) => wrote(txn),
            _ => false,
        })
}

/// Makes calls and keeps them. Clones share the record.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Operation>>>);

impl Recorder {
    /// Makes a call, waiting at most `limit` for the answer.
    pub async fn call(
        &self,
        client: usize,
        (member, raw): (usize, &Raw),
        request: Request,
        limit: Duration,
    ) -> Outcome {
        let called = Instant::now();
        let answer = tokio::time::timeout(limit, make(raw, request.clone())).await;
        let outcome = match answer {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(status)) if is_refusal(&status) => Outcome::Refused(status),
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        };
        let operation = Operation {
            client,
            member,
            called,
            returned: Instant::now(),
            request,
            outcome: outcome.clone(),
        };
        self.0.lock().expect("no panic with it").push(operation);
        outcome
    }

    /// All calls so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.0.lock().expect("no panic with it").clone()
    }

    /// How many were answered.
    pub fn answered(&self) -> usize {
        let operations = self.0.lock().expect("no panic with it");
        let answered = |operation: &&Operation| !matches!(operation.outcome, Outcome::Unknown);
        operations.iter().filter(answered).count()
    }
}

async fn make(raw: &Raw, request: Request) -> Result<Outcome, Status> {
    Ok(match request {
        Request::Range(request) => Outcome::Range(raw.range(request).await?),
        Request::Put(request) => Outcome::Put(raw.put(request).await?),
        Request::Delete(request) => Outcome::Delete(raw.delete(request).await?),
        Request::Txn(request) => Outcome::Txn(raw.txn(request).await?),
        Request::Grant(request) => Outcome::Lease(raw.grant(request).await?.ttl),
        Request::Renew(id) => Outcome::Lease(raw.keep_alive(id).await?),
        Request::Revoke(id) => {
            raw.revoke(id).await?;
            Outcome::Revoked
        }
    })
}

/// Whether a status promises that nothing was done and nothing will be.
fn is_refusal(status: &Status) -> bool {
    let codes = [
        Code::InvalidArgument,
        Code::OutOfRange,
        Code::NotFound,
        Code::FailedPrecondition,
        Code::PermissionDenied,
        Code::Unauthenticated,
        Code::ResourceExhausted,
    ];
    codes.contains(&status.code()) && status.message().starts_with("etcdserver: ")
}
