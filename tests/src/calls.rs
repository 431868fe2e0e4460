//! Calls on keys as values, so that tests can go through lists of them.

use crate::{Raw, RawWatch, watch_key, wire};
use holdfast_proto::etcdserverpb as pb;
use tonic::{Code, Status};

/// A call that needs permissions on keys.
#[derive(Clone, Debug)]
pub enum Call {
    /// KV.Range.
    Range(pb::RangeRequest),
    /// KV.RangeStream.
    Stream(pb::RangeRequest),
    /// KV.Put.
    Put(pb::PutRequest),
    /// KV.DeleteRange.
    Delete(pb::DeleteRangeRequest),
    /// KV.Txn.
    Txn(pb::TxnRequest),
    /// A watch on a stream of its own.
    Watch(pb::WatchCreateRequest),
}

impl Call {
    /// Makes the call; what it answers does not matter.
    pub async fn by(&self, raw: &Raw) -> Result<(), Status> {
        match self.clone() {
            Self::Range(request) => raw.range(request).await.map(drop),
            Self::Stream(request) => raw.range_chunks(request).await.map(drop),
            Self::Put(request) => raw.put(request).await.map(drop),
            Self::Delete(request) => raw.delete(request).await.map(drop),
            Self::Txn(request) => raw.txn(request).await.map(drop),
            Self::Watch(request) => watch_refusal(&RawWatch::open(raw).create(request).await),
        }
    }
}

/// A watch of `[key, end)`.
pub fn watch_range(key: &str, end: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        range_end: wire::b(end),
        ..watch_key(key)
    }
}

/// How a watch that could not be created was refused.
pub fn watch_refusal(answer: &pb::WatchResponse) -> Result<(), Status> {
    if !answer.canceled {
        return Ok(());
    }
    assert_eq!((answer.watch_id, answer.created), (-1, true), "{answer:?}");
    Err(reason(&answer.cancel_reason))
}

/// A status as the reason of a cancelled watch carries it: Go's text for it, which clients parse.
pub fn reason(text: &str) -> Status {
    let codes = [
        Code::InvalidArgument,
        Code::PermissionDenied,
        Code::Unauthenticated,
    ];
    let found = codes.into_iter().find_map(|code| {
        let start = format!("rpc error: code = {code:?} desc = ");
        Some(Status::new(code, text.strip_prefix(&start)?))
    });
    found.unwrap_or_else(|| panic!("not a reason: {text:?}"))
}
