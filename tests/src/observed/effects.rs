//! What requests do to a store: a model of the operations that the recorded clients make.

use super::Request;
use crate::history::is_delete;
use bytes::Bytes;
use holdfast_proto::{
    etcdserverpb as pb,
    mvccpb::{Event, KeyValue, event::EventType},
};
use pb::{
    compare::{CompareResult, TargetUnion},
    request_op::Request as Op,
    response_op::Response,
};
use std::{cmp::Ordering, collections::BTreeMap, ops::Bound};

/// The keys of a store at some revision.
#[derive(Clone, Debug, Default)]
pub struct Model {
    keys: BTreeMap<Bytes, KeyValue>,
}

/// What a request does to a model: the events that it makes, and its answer.
pub(super) struct Effect {
    pub(super) events: Vec<Event>,
    pub(super) answer: Option<Response>,
}

/// Whether `key` is in the range that a request names.
pub(super) fn covers(start: &[u8], end: &[u8], key: &[u8]) -> bool {
    match end {
        b"" => key == start,
        b"\0" => key >= start,
        end => key >= start && key < end,
    }
}

impl Model {
    /// Applies events, which are those of one revision.
    pub fn apply(&mut self, events: &[Event]) {
        for event in events {
            let kv = event.kv.clone().expect("an event has a key");
            if is_delete(event) {
                self.keys.remove(&kv.key);
            } else {
                self.keys.insert(kv.key.clone(), kv);
            }
        }
    }

    /// A key.
    pub fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        self.keys.get(key)
    }

    /// The keys of a lease.
    pub(super) fn leased(&self, lease: i64) -> impl Iterator<Item = &KeyValue> {
        self.keys.values().filter(move |kv| kv.lease == lease)
    }

    /// All keys in order.
    pub fn all(&self) -> impl Iterator<Item = &KeyValue> {
        self.keys.values()
    }

    fn within<'a>(&'a self, start: &'a [u8], end: &'a [u8]) -> impl Iterator<Item = &'a KeyValue> {
        let bounds = (Bound::Included(start), Bound::Unbounded);
        let from = self.keys.range::<[u8], _>(bounds);
        let kvs = from.map(|(_, kv)| kv);
        kvs.take_while(move |kv| kv.key == start || covers(start, end, &kv.key))
            .filter(move |kv| covers(start, end, &kv.key))
    }

    /// The answer of a range in key order, without its header.
    pub fn range(&self, request: &pb::RangeRequest) -> pb::RangeResponse {
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let found: Vec<_> = self.within(&request.key, &request.range_end).collect();
        let count = found.len();
        let shown = if limit == 0 { count } else { limit.min(count) };
        let shown = if request.count_only { 0 } else { shown };
        let strip = |kv: &&KeyValue| KeyValue {
            value: if request.keys_only {
                Bytes::new()
            } else {
                kv.value.clone()
            },
            ..(*kv).clone()
        };
        pb::RangeResponse {
            header: None,
            kvs: found.iter().take(shown).map(strip).collect(),
            more: !request.count_only && shown < count,
            count: i64::try_from(count).expect("a small store"),
        }
    }

    /// What a request does when it is executed as `revision` on this state. Leases are not looked at.
    pub(super) fn effect(&self, request: &Request, revision: i64) -> Effect {
        let op = match request.clone() {
            Request::Range(range) => Op::RequestRange(range),
            Request::Put(put) => Op::RequestPut(put),
            Request::Delete(delete) => Op::RequestDeleteRange(delete),
            Request::Txn(txn) => Op::RequestTxn(txn),
            Request::Grant(_) | Request::Renew(_) => {
                return Effect {
                    events: Vec::new(),
                    answer: None,
                };
            }
            Request::Revoke(lease) => {
                let events = self.leased(lease).map(|kv| deletion(&kv.key, revision));
                return Effect {
                    events: events.collect(),
                    answer: None,
                };
            }
        };
        let mut state = self.clone();
        let mut events = Vec::new();
        let answer = state.execute(&op, revision, &mut events);
        Effect {
            events,
            answer: Some(answer),
        }
    }

    fn execute(&mut self, op: &Op, revision: i64, events: &mut Vec<Event>) -> Response {
        match op {
            Op::RequestRange(range) => Response::ResponseRange(self.range(range)),
            Op::RequestPut(put) => {
                let previous = self.keys.get(&put.key).cloned();
                let kv = KeyValue {
                    key: put.key.clone(),
                    create_revision: previous.as_ref().map_or(revision, |kv| kv.create_revision),
                    mod_revision: revision,
                    version: previous.as_ref().map_or(0, |kv| kv.version) + 1,
                    value: put.value.clone(),
                    lease: put.lease,
                };
                let event = Event {
                    r#type: EventType::Put.into(),
                    kv: Some(kv),
                    prev_kv: None,
                };
                self.apply(std::slice::from_ref(&event));
                events.push(event);
                Response::ResponsePut(pb::PutResponse {
                    header: None,
                    prev_kv: previous.filter(|_| put.prev_kv),
                })
            }
            Op::RequestDeleteRange(delete) => {
                let gone: Vec<_> = self
                    .within(&delete.key, &delete.range_end)
                    .cloned()
                    .collect();
                let mut made: Vec<_> = gone.iter().map(|kv| deletion(&kv.key, revision)).collect();
                self.apply(&made);
                events.append(&mut made);
                Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                    header: None,
                    deleted: i64::try_from(gone.len()).expect("a small store"),
                    prev_kvs: if delete.prev_kv { gone } else { Vec::new() },
                })
            }
            Op::RequestTxn(txn) => {
                let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
                let ops = if succeeded {
                    &txn.success
                } else {
                    &txn.failure
                };
                let mut responses = Vec::new();
                for op in ops {
                    let op = op.request.as_ref().expect("an operation");
                    let response = Some(self.execute(op, revision, events));
                    responses.push(pb::ResponseOp { response });
                }
                Response::ResponseTxn(pb::TxnResponse {
                    header: None,
                    succeeded,
                    responses,
                })
            }
        }
    }

    /// Compares of single keys; a key that does not exist has zeros, and no value.
    fn holds(&self, compare: &pb::Compare) -> bool {
        assert!(
            compare.range_end.is_empty(),
            "the clients compare single keys"
        );
        let found = self.keys.get(&compare.key);
        let number = |of: fn(&KeyValue) -> i64, with: &i64| found.map_or(0, of).cmp(with);
        let ordering = match compare.target_union.as_ref().expect("a target") {
            TargetUnion::Version(with) => number(|kv| kv.version, with),
            TargetUnion::CreateRevision(with) => number(|kv| kv.create_revision, with),
            TargetUnion::ModRevision(with) => number(|kv| kv.mod_revision, with),
            TargetUnion::Lease(with) => number(|kv| kv.lease, with),
            TargetUnion::Value(with) => match found {
                Some(kv) => kv.value.cmp(with),
                None => return false,
            },
        };
        match compare.result() {
            CompareResult::Equal => ordering == Ordering::Equal,
            CompareResult::NotEqual => ordering != Ordering::Equal,
            CompareResult::Greater => ordering == Ordering::Greater,
            CompareResult::Less => ordering == Ordering::Less,
        }
    }
}

fn deletion(key: &Bytes, revision: i64) -> Event {
    Event {
        r#type: EventType::Delete.into(),
        kv: Some(KeyValue {
            key: key.clone(),
            mod_revision: revision,
            ..Default::default()
        }),
        prev_kv: None,
    }
}
