//! One version of one key.

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

/// The least compaction mark at which `oldest`, the oldest version of its key, is garbage, where the next one was written at
/// `next`.
///
/// A version is garbage once a newer one is at or below the mark; a tombstone once it is itself below the mark. One that
/// stands exactly at the mark is kept, so that a watch that starts there still sees it (behaviour §3.6).
pub(super) fn due(oldest: &Version, next: i64) -> i64 {
    if oldest.alive() {
        next
    } else {
        next.min(oldest.modified.main.saturating_add(1))
    }
}
