//! Short ways to write wire messages in tests.

use bytes::Bytes;
use holdfast_proto::etcdserverpb as pb;
use pb::{compare, request_op, response_op};

/// The bytes of a text.
pub fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// The end of the range of all keys that start with `prefix` (behaviour §3.2, item 2).
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Bytes::from(end);
        }
    }
    Bytes::from_static(b"\0")
}

/// A range of one key.
pub fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: b(key),
        ..Default::default()
    }
}

/// A range over `[key, end)`.
pub fn range(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: b(key),
        range_end: b(end),
        ..Default::default()
    }
}

/// A range over all keys.
pub fn everything() -> pb::RangeRequest {
    range("\0", "\0")
}

/// A put without options.
pub fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: b(key),
        value: b(value),
        ..Default::default()
    }
}

/// A put with a lease.
pub fn put_leased(key: &str, value: &str, lease: i64) -> pb::PutRequest {
    pb::PutRequest {
        lease,
        ..put(key, value)
    }
}

/// The delete of one key.
pub fn del(key: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: b(key),
        ..Default::default()
    }
}

/// The delete of `[key, end)`.
pub fn del_range(key: &str, end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: b(key),
        range_end: b(end),
        ..Default::default()
    }
}

/// An operation of a txn.
pub trait IntoOp {
    /// The operation.
    fn op(self) -> pb::RequestOp;
}

macro_rules! into_op {
    ($request:ty, $variant:ident) => {
        impl IntoOp for $request {
            fn op(self) -> pb::RequestOp {
                pb::RequestOp {
                    request: Some(request_op::Request::$variant(self)),
                }
            }
        }
    };
}

into_op!(pb::RangeRequest, RequestRange);
into_op!(pb::PutRequest, RequestPut);
into_op!(pb::DeleteRangeRequest, RequestDeleteRange);
into_op!(pb::TxnRequest, RequestTxn);

impl IntoOp for pb::RequestOp {
    fn op(self) -> pb::RequestOp {
        self
    }
}

/// A txn of compares and both arms.
pub fn txn(
    compare: Vec<pb::Compare>,
    success: Vec<pb::RequestOp>,
    failure: Vec<pb::RequestOp>,
) -> pb::TxnRequest {
    pb::TxnRequest {
        compare,
        success,
        failure,
    }
}

/// A txn without compares: its success arm is always taken.
pub fn always(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    txn(vec![], success, vec![])
}

/// What a compare looks at, with the value that it compares with.
#[derive(Clone, Debug)]
pub enum Against {
    /// The version.
    Version(i64),
    /// The create revision.
    Create(i64),
    /// The mod revision.
    Mod(i64),
    /// The value.
    Value(Bytes),
    /// The lease.
    Lease(i64),
}

/// A compare of one key.
pub fn cmp(key: &str, result: compare::CompareResult, against: Against) -> pb::Compare {
    use compare::{CompareTarget as Target, TargetUnion as Union};
    let (target, union) = match against {
        Against::Version(version) => (Target::Version, Union::Version(version)),
        Against::Create(revision) => (Target::Create, Union::CreateRevision(revision)),
        Against::Mod(revision) => (Target::Mod, Union::ModRevision(revision)),
        Against::Value(value) => (Target::Value, Union::Value(value)),
        Against::Lease(lease) => (Target::Lease, Union::Lease(lease)),
    };
    pb::Compare {
        result: result.into(),
        target: target.into(),
        key: b(key),
        range_end: Bytes::new(),
        target_union: Some(union),
    }
}

/// A compare that holds when `key` exists.
pub fn exists(key: &str) -> pb::Compare {
    cmp(key, compare::CompareResult::Greater, Against::Version(0))
}

/// The range answer at `index` of a txn's answer.
#[track_caller]
pub fn ranged(answer: &pb::TxnResponse, index: usize) -> &pb::RangeResponse {
    match &answer.responses[index].response {
        Some(response_op::Response::ResponseRange(range)) => range,
        other => panic!("no range answer at {index}: {other:?}"),
    }
}

/// The put answer at `index` of a txn's answer.
#[track_caller]
pub fn was_put(answer: &pb::TxnResponse, index: usize) -> &pb::PutResponse {
    match &answer.responses[index].response {
        Some(response_op::Response::ResponsePut(put)) => put,
        other => panic!("no put answer at {index}: {other:?}"),
    }
}

/// The delete answer at `index` of a txn's answer.
#[track_caller]
pub fn deleted(answer: &pb::TxnResponse, index: usize) -> &pb::DeleteRangeResponse {
    match &answer.responses[index].response {
        Some(response_op::Response::ResponseDeleteRange(delete)) => delete,
        other => panic!("no delete answer at {index}: {other:?}"),
    }
}

/// The txn answer at `index` of a txn's answer.
#[track_caller]
pub fn nested(answer: &pb::TxnResponse, index: usize) -> &pb::TxnResponse {
    match &answer.responses[index].response {
        Some(response_op::Response::ResponseTxn(txn)) => txn,
        other => panic!("no txn answer at {index}: {other:?}"),
    }
}

/// The revision of a header, which must be there.
#[track_caller]
pub fn revision(header: &Option<pb::ResponseHeader>) -> i64 {
    header.as_ref().expect("a header").revision
}

/// The keys of an answer, as text.
pub fn keys(answer: &pb::RangeResponse) -> Vec<String> {
    answer
        .kvs
        .iter()
        .map(|kv| String::from_utf8_lossy(&kv.key).into_owned())
        .collect()
}

/// The values of an answer, as text.
pub fn values(answer: &pb::RangeResponse) -> Vec<String> {
    answer
        .kvs
        .iter()
        .map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
        .collect()
}
