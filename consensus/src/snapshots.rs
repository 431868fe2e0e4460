//! Snapshots for members that the log no longer reaches, and what the log must keep for them meanwhile.

use crate::machine::Members;
use holdfast_storage::LogPosition;
use std::collections::{BTreeMap, BTreeSet};

/// A view that was taken for a member, not yet sent.
pub(crate) struct Prepared<V> {
    pub(crate) to: u64,
    pub(crate) view: V,
    /// The tick at which it was taken.
    pub(crate) since: u64,
}

/// What raft's storage is asked for while raft works, and is told between.
#[derive(Default)]
pub(crate) struct Wanted {
    /// Who needs a snapshot.
    pub(crate) by: BTreeSet<u64>,
    /// What may be offered, and to whom.
    pub(crate) offer: Option<(u64, LogPosition, Members)>,
}

/// Snapshots on their way: where each begins, from where on the log is needed.
#[derive(Default)]
pub(crate) struct Transfers {
    on_the_way: BTreeMap<u64, u64>,
}

impl Transfers {
    pub(crate) fn begin(&mut self, to: u64, index: u64) {
        self.on_the_way.insert(to, index);
    }

    pub(crate) fn end(&mut self, to: u64) {
        self.on_the_way.remove(&to);
    }

    /// Forgets those that `keep` says no to.
    pub(crate) fn retain(&mut self, keep: impl Fn(u64, u64) -> bool) {
        self.on_the_way.retain(|to, index| keep(*to, *index));
    }

    /// The entry behind which the log must not be cut.
    pub(crate) fn least(&self) -> u64 {
        self.on_the_way.values().copied().min().unwrap_or(u64::MAX)
    }
}
