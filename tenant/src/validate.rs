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
    /// Adds a put, unless the key is put or deleted already. `other_arm` has the puts that exclude this one.
    fn put(&mut self, key: &Bytes, other_arm: Option<&BTreeSet<Bytes>>) -> Result<(), Refusal> {
        let excluded = other_arm.is_some_and(|puts| puts.contains(key));
        if (self.puts.contains(key) && !excluded) || self.deletes(key) {
            return Err(Refusal::DuplicateKey);
        }
        self.puts.insert(key.clone());
        Ok(())
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

    fn delete_keys(&mut self, keys: &KeyRange) {
        match keys {
            KeyRange::Point(key) => {
                let mut end = key.to_vec();
                end.push(0);
                self.delete(key.clone(), end.into());
            }
            KeyRange::Span { start, end } if start < end => {
                self.delete(start.clone(), end.clone());
            }
            KeyRange::Span { .. } => {}
            // etcd does not see a delete without an upper bound when it looks for duplicates; programs that rely on it exist.
            KeyRange::From(_) | KeyRange::All => {}
        }
    }
}

/// Looks at an arm in etcd's order, which decides what is seen: the arm's own deletes, then nested transactions one after the other,
/// then its own puts. A put in a nested transaction and a delete in a later one are thus not a duplicate.
fn changes_of(arm: &[Op]) -> Result<Changes, Refusal> {
    let mut all = Changes::default();
    for op in arm {
        if let Op::DeleteRange(delete) = op {
            all.delete_keys(&delete.keys);
        }
    }
    for op in arm {
        if let Op::Txn(inner) = op {
            let success = changes_of(&inner.success)?;
            let failure = changes_of(&inner.failure)?;
            for key in &success.puts {
                all.put(key, None)?;
            }
            for key in &failure.puts {
                all.put(key, Some(&success.puts))?;
            }
            for (start, end) in success.deletes.into_iter().chain(failure.deletes) {
                all.delete(start, end);
            }
        }
    }
    for op in arm {
        if let Op::Put(put) = op {
            all.put(&put.key, None)?;
        }
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
        let writes = Op::Txn(arms(vec![put("b")], vec![]));
        let removes = Op::Txn(arms(vec![delete("b", "c")], vec![]));
        check(vec![removes.clone(), writes.clone()], duplicate.clone());
        check(vec![writes, removes], Ok(()));
        check(vec![nested, put("a")], duplicate);
    }
}
