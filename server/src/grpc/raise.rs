//! Domain answers to wire answers.

use bytes::Bytes;
use holdfast_proto::{etcdserverpb as pb, mvccpb};
use holdfast_storage::Row;
use holdfast_tenant::{Alarm, AlarmKind, RangeAnswer, StepAnswer, TxnAnswer};
use prost::Message;

pub(super) fn key_value(row: Row) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: row.key,
        create_revision: row.create_revision,
        mod_revision: row.revision.main,
        version: row.version,
        value: row.value,
        lease: row.lease,
    }
}

/// Encodes an event for watchers. A tombstone has its key and revision only.
pub(crate) fn encode_event(row: &Row, replaced: Option<&Row>) -> Bytes {
    use mvccpb::event::EventType;
    let kind = if row.tombstone {
        EventType::Delete
    } else {
        EventType::Put
    };
    mvccpb::Event {
        r#type: kind as i32,
        kv: Some(key_value(row.clone())),
        prev_kv: replaced.map(|row| key_value(row.clone())),
    }
    .encode_to_vec()
    .into()
}

pub(super) fn range(answer: RangeAnswer, header: pb::ResponseHeader) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: answer.rows.into_iter().map(key_value).collect(),
        more: answer.more,
        count: answer.count as i64,
    }
}

/// A header inside a transaction's answer: the revision alone.
fn step_header(revision: i64) -> pb::ResponseHeader {
    pb::ResponseHeader {
        revision,
        ..pb::ResponseHeader::default()
    }
}

pub(super) fn txn(answer: TxnAnswer, header: pb::ResponseHeader) -> pb::TxnResponse {
    pb::TxnResponse {
        header: Some(header),
        succeeded: answer.succeeded,
        responses: answer.steps.into_iter().map(step).collect(),
    }
}

fn step(answer: StepAnswer) -> pb::ResponseOp {
    use pb::response_op::Response;
    let response = match answer {
        StepAnswer::Range(answer) => {
            let header = step_header(answer.revision);
            Response::ResponseRange(range(answer, header))
        }
        StepAnswer::Put(answer) => Response::ResponsePut(pb::PutResponse {
            header: Some(step_header(answer.revision)),
            prev_kv: answer.previous.map(key_value),
        }),
        StepAnswer::Delete(answer) => Response::ResponseDeleteRange(pb::DeleteRangeResponse {
            header: Some(step_header(answer.revision)),
            deleted: answer.deleted as i64,
            prev_kvs: answer.previous.into_iter().map(key_value).collect(),
        }),
        // A nested answer has an empty header (behaviour §1.3).
        StepAnswer::Txn(answer) => {
            Response::ResponseTxn(txn(answer, pb::ResponseHeader::default()))
        }
    };
    pb::ResponseOp {
        response: Some(response),
    }
}

pub(super) fn alarm(alarm: Alarm) -> pb::AlarmMember {
    pb::AlarmMember {
        member_id: alarm.member,
        alarm: match alarm.kind {
            AlarmKind::NoSpace => pb::AlarmType::Nospace,
            AlarmKind::Corrupt => pb::AlarmType::Corrupt,
        } as i32,
    }
}
