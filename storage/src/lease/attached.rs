//! The keys attached to one lease.

use bytes::Bytes;
use std::collections::BTreeSet;

/// Ordered, because revoking deletes them in that order. Most leases have no key or one, which then take no set.
#[derive(Clone, Debug, Default)]
pub(super) enum Attached {
    #[default]
    None,
    One(Box<[u8]>),
    #[expect(
        clippy::box_collection,
        reason = "keeps a lease small, of which there are a million without keys"
    )]
    Many(Box<BTreeSet<Box<[u8]>>>),
}

impl Attached {
    pub(super) fn insert(&mut self, key: &[u8]) {
        match self {
            Attached::None => *self = Attached::One(key.into()),
            Attached::One(one) if **one == *key => {}
            Attached::One(one) => {
                let set = BTreeSet::from([std::mem::take(one), key.into()]);
                *self = Attached::Many(Box::new(set));
            }
            Attached::Many(set) => {
                set.insert(key.into());
            }
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        match self {
            Attached::None => {}
            Attached::One(one) => {
                if **one == *key {
                    *self = Attached::None;
                }
            }
            Attached::Many(set) => {
                set.remove(key);
                if set.is_empty() {
                    *self = Attached::None;
                }
            }
        }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        let (one, many) = match self {
            Attached::None => (None, None),
            Attached::One(one) => (Some(one), None),
            Attached::Many(set) => (None, Some(set.iter())),
        };
        one.into_iter()
            .chain(many.into_iter().flatten())
            .map(|key| &**key)
    }

    pub(super) fn into_sorted(self) -> Vec<Bytes> {
        match self {
            Attached::None => Vec::new(),
            Attached::One(one) => vec![Bytes::from(one)],
            Attached::Many(set) => set.into_iter().map(Bytes::from).collect(),
        }
    }
}
