//! A second opinion that trusts no revision: keys that are only put, read and deleted one by one are registers, each
//! linearizable for itself.

use super::{
    Operation, Outcome, Request,
    linear::{Call, linearizable},
};
use crate::history::History;
use bytes::Bytes;
use std::collections::{BTreeMap, HashSet};

#[derive(Debug)]
enum Op {
    Set(Option<Bytes>),
    Get(Option<Bytes>),
}

/// Checks the keys that start with `prefix`. `history` only tells which calls without an answer had no effect.
pub fn check_registers(operations: &[Operation], history: &History, prefix: &[u8]) -> Vec<String> {
    let values = history
        .events()
        .iter()
        .filter_map(|event| event.kv.as_ref());
    let written: HashSet<_> = values.map(|kv| kv.value.clone()).collect();
    let mut keys: BTreeMap<Bytes, Vec<Call<Op>>> = BTreeMap::new();
    for operation in operations {
        let Some((key, op)) = register(operation) else {
            continue;
        };
        let unknown = matches!(operation.outcome, Outcome::Unknown);
        if unknown && matches!(&op, Op::Set(Some(value)) if !written.contains(value)) {
            continue;
        }
        if key.starts_with(prefix) {
            let returned = (!unknown).then_some(operation.returned);
            keys.entry(key)
                .or_default()
                .push(Call::new(operation.called, returned, op));
        }
    }
    let step = |state: &Option<Bytes>, op: &Op| match op {
        Op::Set(value) => Some(value.clone()),
        Op::Get(value) => (value == state).then(|| value.clone()),
    };
    let wrong = keys
        .iter()
        .filter(|(_, calls)| !linearizable(calls, None, step));
    wrong
        .map(|(key, calls)| format!("not linearizable: {key:?}, {} calls", calls.len()))
        .collect()
}

fn register(operation: &Operation) -> Option<(Bytes, Op)> {
    match (&operation.request, &operation.outcome) {
        (Request::Put(put), Outcome::Put(_) | Outcome::Unknown) => {
            Some((put.key.clone(), Op::Set(Some(put.value.clone()))))
        }
        (Request::Delete(delete), Outcome::Delete(_) | Outcome::Unknown)
            if delete.range_end.is_empty() =>
        {
            Some((delete.key.clone(), Op::Set(None)))
        }
        (Request::Range(range), Outcome::Range(answer))
            if range.range_end.is_empty() && range.revision == 0 && !range.serializable =>
        {
            let value = answer.kvs.first().map(|kv| kv.value.clone());
            Some((range.key.clone(), Op::Get(value)))
        }
        _ => None,
    }
}
