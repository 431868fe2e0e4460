//! What can be said of a request before any state is looked at.

use crate::answer::Refusal;
use crate::command::MAX_TXN_DEPTH;
use crate::request::{Op, Put, Txn};
use bytes::Bytes;
use holdfast_auth::KeyRange;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Checks a put.
///
/// # Errors
/// [`Refusal`] in etcd's order: empty key, value with `keep_value`, lease with `keep_lease`.
pub fn validate_put(put: &Put) -> Result<(), Refusal> {
    if put.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if put.keep_value && !put.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if put.keep_lease && put.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

/// Checks a transaction: its length at every level, each step, and that no path changes a key twice. Steps whose key is missing were
/// refused when the request was lowered.
///
/// # Errors
/// [`Refusal::TooManyOps`], [`Refusal::DuplicateKey`], or what is wrong with a put.
pub fn validate_txn(txn: &Txn, max_ops: usize) -> Result<(), Refusal> {
    validate_steps(txn, max_ops, 0)?;
    for arm in [&txn.success, &txn.failure] {
        changes_of(arm)?;
    }
    Ok(())
}

fn validate_steps(txn: &Txn, max_ops: usize, depth: usize) -> Result<(), Refusal> {
    let longest = txn
        .compares
        .len()
        .max(txn.success.len())
        .max(txn.failure.len());
    if longest > max_ops || depth >= MAX_TXN_DEPTH {
        return Err(Refusal::TooManyOps);
    }
    for op in txn.arms() {
        match op {
            Op::Put(put) => validate_put(put)?,
            Op::Txn(inner) => validate_steps(inner, max_ops - longest, depth + 1)?,
            Op::Range(_) | Op::DeleteRange(_) => {}
        }
    }
    Ok(())
}

/// What one arm changes: the keys it puts and the ranges it deletes, nested arms included.
#[derive(Default)]
struct Changes {
    puts: BTreeSet<Bytes>,
    /// Start to end, `None` for no end; disjoint, so that a lookup costs the same however many there are.
    deletes: BTreeMap<Bytes, Option<Bytes>>,
}

impl Changes {
    /// Whether `step` cannot run with what is here: two puts of a key, or a put inside a deleted range. Costs what `step` is long.
    fn collide(&self, step: &Changes) -> bool {
        step.puts
            .iter()
            .any(|key| self.puts.contains(key) || self.deletes(key))
            || step.deletes.iter().any(|(start, end)| {
                let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                self.puts
                    .range::<[u8], _>((Bound::Included(start.as_ref()), end))
                    .next()
                    .is_some()
            })
    }

    fn deletes(&self, key: &[u8]) -> bool {
        self.deletes
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
            .is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < end))
    }

    fn delete(&mut self, mut start: Bytes, mut end: Option<Bytes>) {
        // Swallows every interval that touches the new one.
        while let Some((at, reach)) = self
            .deletes
            .range::<[u8], _>((
                Bound::Unbounded,
                end.as_deref().map_or(Bound::Unbounded, Bound::Included),
            ))
            .next_back()
            .map(|(at, reach)| (at.clone(), reach.clone()))
        {
            if reach.as_ref().is_some_and(|reach| *reach < start) {
                break;
            }
            self.deletes.remove(&at);
            start = start.min(at);
            end = match (end, reach) {
                (Some(a), Some(b)) => Some(a.max(b)),
                _ => None,
            };
        }
        self.deletes.insert(start, end);
    }

    fn absorb(&mut self, step: Changes) {
        self.puts.extend(step.puts);
        for (start, end) in step.deletes {
            self.delete(start, end);
        }
    }
}

fn changes_of(arm: &[Op]) -> Result<Changes, Refusal> {
    let mut all = Changes::default();
    for op in arm {
        let mut step = Changes::default();
        match op {
            Op::Put(put) => {
                step.puts.insert(put.key.clone());
            }
            Op::DeleteRange(delete) => match &delete.keys {
                KeyRange::Point(key) => {
                    let mut end = key.to_vec();
                    end.push(0);
                    step.delete(key.clone(), Some(end.into()));
                }
                KeyRange::Span { start, end } if start < end => {
                    step.delete(start.clone(), Some(end.clone()));
                }
                KeyRange::Span { .. } => {}
                KeyRange::From(start) => step.delete(start.clone(), None),
                KeyRange::All => step.delete(Bytes::new(), None),
            },
            Op::Range(_) => {}
            Op::Txn(inner) => {
                // The arms of one nested transaction exclude each other, but each collides with what stands around it.
                let success = changes_of(&inner.success)?;
                let failure = changes_of(&inner.failure)?;
                if all.collide(&success) || all.collide(&failure) {
                    return Err(Refusal::DuplicateKey);
                }
                all.absorb(success);
                all.absorb(failure);
                continue;
            }
        }
        if all.collide(&step) {
            return Err(Refusal::DuplicateKey);
        }
        all.absorb(step);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::DeleteRange;

    fn put(key: &str) -> Op {
        Op::Put(Put {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::new(),
            lease: 0,
            previous: false,
            keep_value: false,
            keep_lease: false,
        })
    }

    fn delete(key: &str, end: &str) -> Op {
        Op::DeleteRange(DeleteRange {
            keys: KeyRange::from_pair(
                Bytes::copy_from_slice(key.as_bytes()),
                Bytes::copy_from_slice(end.as_bytes()),
            ),
            previous: false,
        })
    }

    fn arms(success: Vec<Op>, failure: Vec<Op>) -> Txn {
        Txn {
            compares: vec![],
            success,
            failure,
        }
    }

    #[track_caller]
    fn check(success: Vec<Op>, expected: Result<(), Refusal>) {
        assert_eq!(validate_txn(&arms(success, vec![]), 128), expected);
    }

    #[test]
    fn a_path_changes_a_key_once() {
        let duplicate = Err(Refusal::DuplicateKey);
        check(vec![put("a"), put("b")], Ok(()));
        check(vec![put("a"), put("a")], duplicate.clone());
        check(vec![put("b"), delete("a", "c")], duplicate.clone());
        check(vec![delete("a", "c"), put("b")], duplicate.clone());
        check(vec![delete("a", "c"), put("c")], Ok(()));
        check(
            vec![delete("a", "c"), delete("b", "d"), put("cc")],
            duplicate.clone(),
        );
        check(vec![delete("a", "b"), delete("c", "d"), put("b")], Ok(()));
        check(vec![delete("b", "\0"), put("z")], duplicate.clone());
        check(vec![delete("c", "a"), put("b")], Ok(()));
        let nested = Op::Txn(arms(vec![put("a")], vec![put("a")]));
        check(vec![nested.clone()], Ok(()));
        check(vec![put("a"), nested.clone()], duplicate.clone());
        check(vec![nested, put("a")], duplicate);
    }

    #[test]
    fn the_limit_counts_through_nesting() {
        let inner = arms((0..3).map(|n| put(&format!("k{n}"))).collect(), vec![]);
        let outer = arms(vec![Op::Txn(inner), put("x")], vec![]);
        assert_eq!(validate_txn(&outer, 5), Ok(()));
        assert_eq!(validate_txn(&outer, 4), Err(Refusal::TooManyOps));
    }
}
