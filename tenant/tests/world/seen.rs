//! A watch as its client sees it, and what it must get.

use super::{Gap, Truth, encode, main_of};
use crate::model::Model;
use holdfast_auth::{Caller, Denied};
use holdfast_tenant::watch::{WatchRequest, denial_reason};
use std::collections::HashSet;

const UNSURE: &str =
    "rpc error: code = Unavailable desc = etcdserver: permissions may have changed, watch again";

/// A watch as its client sees it.
pub(crate) struct Seen {
    pub(crate) request: WatchRequest,
    pub(crate) caller: Caller,
    /// When it was asked for.
    pub(crate) asked_at: u64,
    pub(crate) start: i64,
    /// Events with the compacted revision when they came.
    pub(crate) events: Vec<(String, i64)>,
    /// The greatest revision of the last whole answer.
    pub(crate) answered: i64,
    /// Parts of an answer that goes on.
    pub(crate) open_parts: usize,
    pub(crate) created_at: i64,
    pub(crate) ended: Option<i64>,
}

impl Seen {
    /// The first change since it was asked for that takes the right to it away.
    pub(crate) fn revoked(&self, model: &Truth) -> Option<(i64, Denied)> {
        let since = model
            .auth_log
            .iter()
            .filter(|point| point.at > self.asked_at);
        let mut denials = since.filter_map(|point| {
            let denied = point
                .auth
                .may_watch(&self.caller, &self.request.keys)
                .err()?;
            Some((point.revision, denied))
        });
        denials.next()
    }

    /// At which revisions and for which reasons it may have ended since its caller lost the right to it, or may have lost it: what
    /// happened in a gap is not known, so that only who is nobody else's to change goes on.
    pub(crate) fn ends(&self, model: &Truth) -> Vec<(i64, String)> {
        let mut ends = Vec::new();
        let (caller, keys) = (&self.caller, &self.request.keys);
        let mut points: Vec<(u64, i64, Option<Denied>, bool)> = Vec::new();
        for point in &model.auth_log {
            let seen = |gap: &Gap| gap.from <= point.at && point.at < gap.to;
            if !model.gaps.iter().any(seen) {
                let denied = point.auth.may_watch(caller, keys).err();
                points.push((point.at, point.revision, denied, false));
            }
        }
        for gap in model.gaps.iter().filter(|gap| gap.auth_changed) {
            let known = model.auth_log.iter().take_while(|point| point.at < gap.to);
            let denied = known
                .last()
                .and_then(|point| point.auth.may_watch(caller, keys).err());
            points.push((gap.to, gap.before, denied, true));
        }
        points.sort_by_key(|(at, ..)| *at);
        for (at, revision, denied, is_gap) in points {
            if at <= self.asked_at {
                continue;
            }
            if let Some(denied) = denied {
                ends.push((revision, denial_reason(denied)));
                return ends;
            }
            if is_gap {
                ends.push((revision, UNSURE.to_owned()));
            }
        }
        ends
    }

    /// What it must get of everything that was written up to `until`: the event, and what it replaced.
    pub(crate) fn expected(&self, model: &Model, until: i64) -> Vec<Expected> {
        let rows = model.rows.iter().enumerate();
        rows.filter(|(_, row)| {
            row.revision.main >= self.start
                && row.revision.main <= until
                && self.request.keys.contains(&row.key)
                && !(if row.tombstone {
                    self.request.no_delete
                } else {
                    self.request.no_put
                })
        })
        .map(|(at, row)| {
            // As it was before the transaction; a creation replaces nothing.
            let created = !row.tombstone && row.create_revision == row.revision.main;
            let before = model.rows[..at]
                .iter()
                .rev()
                .find(|other| other.key == row.key && other.revision.main < row.revision.main);
            let before = before.filter(|other| !other.tombstone && !created);
            let before = before.filter(|_| self.request.previous);
            let plain = String::from_utf8(encode(row, None).to_vec()).unwrap();
            let full =
                before.map(|before| String::from_utf8(encode(row, Some(before)).to_vec()).unwrap());
            // Changed again in its own transaction, to which history was compacted: the row may be gone for a watch that is behind.
            let again = model.rows[at + 1..]
                .iter()
                .take_while(|other| other.revision.main == row.revision.main)
                .any(|other| other.key == row.key);
            Expected {
                plain,
                full,
                may_be_gone: again && model.marks.contains(&row.revision.main),
            }
        })
        .collect()
    }

    pub(crate) fn check(&self, model: &Model, open: bool) {
        let mut events = self.events.iter().peekable();
        for expected in self.expected(model, i64::MAX) {
            let Some((found, compacted)) =
                events.next_if(|(event, _)| base(event) == base(&expected.plain))
            else {
                if expected.may_be_gone {
                    continue;
                }
                assert_eq!(events.next(), None, "{:?}", self.request);
                let complete = open && self.ended.is_none();
                assert!(!complete, "{:?} lost {}", self.request, expected.plain);
                return;
            };
            match expected.full {
                Some(full) if *found == full => {}
                // What was replaced may be gone by now, if the revision before the event was compacted.
                Some(_) => {
                    assert_eq!(*found, expected.plain, "{:?}", self.request);
                    assert!(
                        main_of(found) <= *compacted,
                        "{found}: what it replaced was not told"
                    );
                }
                None => assert_eq!(*found, expected.plain, "{:?}", self.request),
            }
        }
        assert_eq!(events.next(), None, "{:?}: too many events", self.request);
    }

    /// A claim that everything up to `revision` was delivered.
    pub(crate) fn check_progress(&self, revision: i64, model: &Model) {
        assert!(
            revision + 1 >= self.start,
            "progress of a watch that has not begun"
        );
        assert_eq!(self.open_parts, 0);
        let came: HashSet<&str> = self.events.iter().map(|(event, _)| base(event)).collect();
        for due in self.expected(model, revision) {
            assert!(
                due.may_be_gone || came.contains(base(&due.plain)),
                "revision {revision} claimed before {} came",
                due.plain
            );
        }
    }
}

/// An event that a watch must get.
pub(crate) struct Expected {
    plain: String,
    /// With what it replaced, if that is to be told.
    full: Option<String>,
    may_be_gone: bool,
}

/// An event without what it replaced.
fn base(event: &str) -> &str {
    event.split('|').next().unwrap_or(event)
}
