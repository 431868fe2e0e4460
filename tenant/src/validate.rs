//! What can be said of a request before any state is looked at.

use crate::answer::Refusal;
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

/// Checks that no path of a transaction changes a key twice. What can be wrong with single steps was refused when the request was
/// lowered, step by step.
///
/// # Errors
/// [`Refusal::DuplicateKey`].
pub fn validate_txn(txn: &Txn) -> Result<(), Refusal> {
    for arm in [&txn.success, &txn.failure] {
        changes_of(arm)?;
    }
    Ok(())
}

/// What one arm changes: the keys it puts and the ranges it deletes, nested arms included.
#[derive(Default)]
struct Changes {
    puts: BTreeSet<Bytes>,
    /// Start to end; disjoint, so that a lookup costs the same however many there are.
    deletes: BTreeMap<Bytes, Bytes>,
}

impl Changes {
    /// Whether `step` cannot run with what is here: two puts of a key, or a put inside a deleted range. Costs what `step` is long.
    fn collide(&self, step: &Changes) -> bool {
        step.puts
            .iter()
            .any(|key| self.puts.contains(key) || self.deletes(key))
            || step.deletes.iter().any(|(start, end)| {
                self.puts
                    .range::<[u8], _>((
                        Bound::Included(start.as_ref()),
                        Bound::Excluded(end.as_ref()),
                    ))
                    .next()
                    .is_some()
            })
    }

    fn deletes(&self, key: &[u8]) -> bool {
        self.deletes
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
            .is_some_and(|(_, end)| key < end)
    }

    fn delete(&mut self, mut start: Bytes, mut end: Bytes) {
        // Swallows every interval that touches the new one.
        while let Some((at, reach)) = self
            .deletes
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(end.as_ref())))
            .next_back()
            .map(|(at, reach)| (at.clone(), reach.clone()))
        {
            if reach < start {
                break;
            }
            self.deletes.remove(&at);
            start = start.min(at);
            end = end.max(reach);
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
                    step.delete(key.clone(), end.into());
                }
                KeyRange::Span { start, end } if start < end => {
                    step.delete(start.clone(), end.clone());
                }
                KeyRange::Span { .. } => {}
                // etcd does not see a delete without an upper bound when it looks for duplicates; programs that rely on it exist.
                KeyRange::From(_) | KeyRange::All => {}
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
        assert_eq!(validate_txn(&arms(success, vec![])), expected);
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
        check(vec![delete("b", "\0"), put("z")], Ok(()));
        check(vec![delete("\0", "\0"), put("z")], Ok(()));
        check(vec![delete("c", "a"), put("b")], Ok(()));
        let nested = Op::Txn(arms(vec![put("a")], vec![put("a")]));
        check(vec![nested.clone()], Ok(()));
        check(vec![put("a"), nested.clone()], duplicate.clone());
        check(vec![nested, put("a")], duplicate);
    }
}
