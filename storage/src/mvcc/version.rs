//! One key's versions: the current one, and those before it.

use super::history::History;
use crate::Revision;

/// One put of one key, without its value (the value is the row at `modified`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// `main` of the first put since the key was last deleted.
    pub create_revision: i64,
    /// When this version was written; also the key of its row.
    pub modified: Revision,
    /// Puts since the key was last deleted, from 1.
    pub version: i64,
    /// The lease the key is attached to, 0 for none.
    pub lease: i64,
}

impl Version {
    /// Inside the index a deletion is a version too; it is told by its `version` of 0, which no put has.
    pub(super) const fn tombstone(modified: Revision) -> Version {
        Version {
            create_revision: 0,
            modified,
            version: 0,
            lease: 0,
        }
    }

    pub(super) const fn alive(&self) -> bool {
        self.version != 0
    }

    /// The put that follows `before`, the key's newest version so far if it has one.
    pub(super) fn following(before: Option<&Version>, modified: Revision, lease: i64) -> Version {
        match before.filter(|before| before.alive()) {
            Some(before) => Version {
                create_revision: before.create_revision,
                modified,
                version: before.version + 1,
                lease,
            },
            None => Version {
                create_revision: modified.main,
                modified,
                version: 1,
                lease,
            },
        }
    }

    pub(super) fn if_alive(self) -> Option<Version> {
        self.alive().then_some(self)
    }
}

/// All that the index knows of one key. The key itself stands in the leaf.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) current: Version,
    /// Older versions; `None` for the great majority of keys, which then cost no allocation of their own.
    history: Option<History>,
}

impl Entry {
    pub(super) const fn new(current: Version) -> Entry {
        Entry {
            current,
            history: None,
        }
    }

    /// Makes `new` the current version. Gives a bound on [`Entry::due`] that, together with the value before, is exact: only the
    /// first superseded version changes it. (Asking for it would fetch the oldest version into the cache for nothing.)
    pub(super) fn supersede(&mut self, new: Version) -> i64 {
        let old = std::mem::replace(&mut self.current, new);
        match &mut self.history {
            Some(history) => {
                history.push(old);
                i64::MAX
            }
            None => {
                self.history = Some(History::of(old));
                self.due()
            }
        }
    }

    /// What a reader at revision `at` sees.
    pub(super) fn at(&self, at: i64) -> Option<Version> {
        self.newest_at(at).and_then(Version::if_alive)
    }

    /// The newest version written at or before revision `at`, tombstones included.
    pub(super) fn newest_at(&self, at: i64) -> Option<Version> {
        if self.current.modified.main <= at {
            return Some(self.current);
        }
        self.history.as_ref()?.newest_at(at)
    }

    /// The oldest version written after `revision`, tombstones included.
    pub(super) fn first_after(&self, revision: Revision) -> Option<Version> {
        self.history
            .as_ref()
            .and_then(|history| history.first_after(revision))
            .or_else(|| (self.current.modified > revision).then_some(self.current))
    }

    /// The least compaction mark at which the oldest version is garbage, `i64::MAX` if none can make it so.
    ///
    /// A version is garbage once a newer one is at or below the mark; a tombstone once it is itself below the mark. One that
    /// stands exactly at the mark is kept, so that a watch that starts there still sees it (behaviour §3.6).
    pub(super) fn due(&self) -> i64 {
        let Some(history) = &self.history else {
            return if self.current.alive() {
                i64::MAX
            } else {
                self.current.modified.main + 1
            };
        };
        let oldest = history.oldest();
        let next = history.first_after(oldest.modified).unwrap_or(self.current);
        if oldest.alive() {
            next.modified.main
        } else {
            next.modified.main.min(oldest.modified.main + 1)
        }
    }

    /// Removes versions that are garbage at `mark`, oldest first, until `dropped` holds `limit` of them. True if nothing of
    /// the key remains.
    pub(super) fn prune(&mut self, mark: i64, limit: usize, dropped: &mut Vec<Revision>) -> bool {
        while dropped.len() < limit && self.due() <= mark {
            let Some(history) = &mut self.history else {
                dropped.push(self.current.modified);
                return true;
            };
            let (oldest, emptied) = history.pop_oldest();
            dropped.push(oldest.modified);
            if emptied {
                self.history = None;
            }
        }
        false
    }

    #[cfg(test)]
    pub(super) fn check(&self) -> usize {
        self.history.as_ref().map_or(0, |history| {
            let (newest, len) = history.check();
            assert!(newest < self.current.modified);
            len
        })
    }
}
