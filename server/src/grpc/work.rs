//! What a read will cost, told before it, so that long ones go where they hold up nobody.

use super::Connection;
use holdfast_auth::KeyRange;
use holdfast_tenant::Command;
use holdfast_tenant::request::{Op, Order, Range, RevisionFilter, Txn};

/// Ranges of more keys than this are read and encoded off the connections' runtime: they take milliseconds.
pub(super) const LONG_RANGE_KEYS: u64 = 2_000;
/// And those of more bytes.
const LONG_RANGE_BYTES: u64 = 2 << 20;

/// What a read costs, as far as can be told before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    /// Keys that are looked at.
    pub(super) keys: u64,
    /// Bytes of the answer.
    pub(super) bytes: u64,
}

impl Work {
    pub(super) fn is_long(self) -> bool {
        self.keys > LONG_RANGE_KEYS || self.bytes > LONG_RANGE_BYTES
    }
}

/// Whether a command's answer holds keys and values.
pub(super) fn returns_rows(command: &Command) -> bool {
    fn any(txn: &Txn) -> bool {
        txn.arms().any(|op| match op {
            Op::Range(_) => true,
            Op::Put(put) => put.previous,
            Op::DeleteRange(delete) => delete.previous,
            Op::Txn(txn) => any(txn),
        })
    }
    match command {
        Command::Put(put) => put.previous,
        Command::DeleteRange(delete) => delete.previous,
        Command::Txn(txn) => any(txn),
        _ => false,
    }
}

impl Connection {
    /// Estimates what a range costs, by the number of keys in it and the mean size of the tenant's.
    pub(super) fn work(&self, range: &Range) -> Work {
        if matches!(range.keys, KeyRange::Point(_)) {
            return Work::default();
        }
        let of_the_past = range.revision > 0;
        if range.count_only && !of_the_past {
            return Work::default();
        }
        let keys = self.keys_in(&range.keys);
        let wanted = match range.limit {
            0 => keys,
            limit => keys.min(limit),
        };
        let bounded_by_limit =
            range.order == Order::Natural && !range.filter.is_set() && !of_the_past;
        let each = self.tenant.size_bytes() / self.tenant.keys().max(1) as u64;
        Work {
            keys: if bounded_by_limit { wanted } else { keys },
            bytes: if range.count_only || range.keys_only {
                0
            } else {
                wanted.saturating_mul(each)
            },
        }
    }

    pub(super) fn work_of_txn(&self, txn: &Txn) -> Work {
        let compares = txn.compares.iter().map(|compare| Work {
            keys: match &compare.keys {
                KeyRange::Point(_) => 1,
                keys => self.keys_in(keys),
            },
            bytes: 0,
        });
        let steps = txn.arms().map(|op| match op {
            Op::Range(range) => self.work(range),
            Op::Txn(txn) => self.work_of_txn(txn),
            Op::Put(_) | Op::DeleteRange(_) => Work::default(),
        });
        compares
            .chain(steps)
            .fold(Work::default(), |sum, work| Work {
                keys: sum.keys.saturating_add(work.keys),
                bytes: sum.bytes.saturating_add(work.bytes),
            })
    }

    /// How many keys a range holds now; the index knows without looking at them.
    fn keys_in(&self, keys: &KeyRange) -> u64 {
        let count = Range {
            keys: keys.clone(),
            limit: 0,
            revision: 0,
            order: Order::Natural,
            keys_only: false,
            count_only: true,
            filter: RevisionFilter::default(),
        };
        self.node()
            .tenants
            .range(&self.tenant, &count)
            .map_or(u64::MAX, |answer| answer.count)
    }
}
