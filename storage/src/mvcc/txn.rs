//! Writing.

use super::Mvcc;
use super::range::Range;
use super::version::Version;
use super::view::{KeySpan, View};
use crate::Revision;
use bytes::Bytes;

/// What a put did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// When: the key of the row to write.
    pub revision: Revision,
    /// For the row: `main` of the first put since the key was last deleted.
    pub create_revision: i64,
    /// For the row: puts since the key was last deleted, from 1.
    pub version: i64,
    /// The version before, `None` if the key did not exist.
    pub previous: Option<Version>,
    /// A copy of the key of its own, independent of the request's buffer.
    pub key: Bytes,
}

/// One key that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// A copy of the key of its own.
    pub key: Bytes,
    /// When: the key of the tombstone's row.
    pub revision: Revision,
    /// The version that was deleted.
    pub previous: Version,
}

/// One transaction: all its changes get the same `main` revision. It sees its own writes. There is nothing to roll back: the
/// caller checks everything before the first write, and dropping it keeps what was written.
pub struct WriteTxn<'a> {
    mvcc: &'a mut Mvcc,
    /// The revision of the next change.
    next: Revision,
}

impl<'a> WriteTxn<'a> {
    pub(super) fn new(mvcc: &'a mut Mvcc) -> WriteTxn<'a> {
        let next = Revision::first(mvcc.revision + 1);
        WriteTxn { mvcc, next }
    }

    /// The revision before the transaction, or one more once something changed.
    pub fn revision(&self) -> i64 {
        self.mvcc.revision
    }

    /// The revision that the next change will get.
    pub fn next_revision(&self) -> Revision {
        self.next
    }

    /// The state with the writes of this transaction so far. Its [`View::revision`] is [`WriteTxn::revision`].
    pub fn view(&self) -> View<'_> {
        self.mvcc.view()
    }

    /// The current version of a key.
    pub fn get(&self, key: &[u8]) -> Option<Version> {
        self.view().get(key)
    }

    /// The current keys of a span in key order.
    pub fn range(&self, span: KeySpan<'_>) -> Range<'_> {
        self.view().range_at(span, i64::MAX)
    }

    /// Writes a key, attached to `lease` (0 for none).
    pub fn put(&mut self, key: &[u8], lease: i64) -> Put {
        let inserted = self.mvcc.root.put(key, self.next, lease);
        if inserted.new_key {
            self.mvcc.key_bytes += key.len();
        } else {
            self.mvcc.superseded += 1;
        }
        self.next.sub += 1;
        self.mvcc.revision = self.next.main;
        Put {
            revision: inserted.version.modified,
            create_revision: inserted.version.create_revision,
            version: inserted.version.version,
            previous: inserted.previous,
            key: Bytes::copy_from_slice(key),
        }
    }

    /// Deletes every key of a span that exists; in key order. Changes nothing if there is none.
    pub fn delete_range(&mut self, span: KeySpan<'_>) -> Vec<Deleted> {
        let root = &mut self.mvcc.root;
        let ranks = span.ranks(root);
        let count = root.count(ranks.clone(), i64::MAX);
        let mut deleted = Vec::with_capacity(count);
        if count > 0 {
            root.delete(ranks, &mut self.next, &mut deleted);
            self.mvcc.superseded += count;
            self.mvcc.revision = self.next.main;
        }
        deleted
    }

    /// Ends the transaction; gives the revision after it.
    pub fn finish(self) -> i64 {
        self.mvcc.revision
    }
}
