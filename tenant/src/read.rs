//! Ranges: which key-values answer a request, in which order. The same code reads a snapshot and the state inside a transaction.

use crate::answer::{RangeAnswer, Refusal};
use crate::request::{Order, Range, SortTarget};
use bytes::Bytes;
use holdfast_auth::KeyRange;
use holdfast_storage::mvcc::{KeySpan, Version, View};
use holdfast_storage::{Revision, Row};
use std::cmp::Ordering;

/// Where rows are read from.
pub(crate) trait Rows {
    /// The rows at these revisions, in this order. All of them exist.
    fn fetch(&self, revisions: &[Revision]) -> Result<Vec<Row>, Refusal>;
}

pub(crate) fn span(keys: &KeyRange) -> KeySpan<'_> {
    let (start, end) = keys.bounds();
    KeySpan { start, end }
}

/// Checks the revision of a range outside of a transaction and gives the one to read at. 0 and less is the current one.
pub(crate) fn revision_to_read(range: &Range, view: View<'_>) -> Result<i64, Refusal> {
    if range.revision <= 0 {
        return Ok(view.revision());
    }
    check_revision(range.revision, view)
}

pub(crate) fn check_revision(revision: i64, view: View<'_>) -> Result<i64, Refusal> {
    if revision > view.revision() {
        return Err(Refusal::FutureRevision);
    }
    if revision < view.compacted() {
        return Err(Refusal::Compacted);
    }
    Ok(revision)
}

/// What the index says of a range; the rows are read after it, without the index.
pub(crate) struct Selection {
    revision: i64,
    more: bool,
    count: u64,
    found: Found,
}

enum Found {
    /// The index knows all that is asked for.
    Bare(Vec<Row>),
    /// The rows to read, in order.
    Rows(Vec<Revision>),
    /// Rows that were read to be sorted by value.
    Sorted(Vec<Row>),
}

impl Selection {
    /// Reads the rows.
    pub(crate) fn fetch(self, rows: &dyn Rows, keys_only: bool) -> Result<RangeAnswer, Refusal> {
        let mut answer = match self.found {
            Found::Bare(rows) => rows,
            Found::Rows(revisions) if revisions.is_empty() => Vec::new(),
            Found::Rows(revisions) => rows.fetch(&revisions)?,
            Found::Sorted(rows) => rows,
        };
        if keys_only {
            for row in &mut answer {
                row.value = Bytes::new();
            }
        }
        Ok(RangeAnswer {
            revision: self.revision,
            rows: answer,
            more: self.more,
            count: self.count,
        })
    }

    /// The oldest revision of a row that is to be read.
    pub(crate) fn oldest(&self) -> Option<i64> {
        match &self.found {
            Found::Rows(revisions) => revisions.iter().map(|revision| revision.main).min(),
            Found::Bare(_) | Found::Sorted(_) => None,
        }
    }
}

/// Whether selecting needs rows: then it must not happen under the index's lock.
pub(crate) fn needs_rows(range: &Range) -> bool {
    matches!(
        range.order,
        Order::SortedPrefix(SortTarget::Value)
            | Order::Sorted {
                target: SortTarget::Value,
                ..
            }
    )
}

/// Reads a range at revision `at`, which was checked.
pub(crate) fn range(
    view: View<'_>,
    rows: &dyn Rows,
    range: &Range,
    at: i64,
) -> Result<RangeAnswer, Refusal> {
    select(view, rows, range, at)?.fetch(rows, range.keys_only)
}

/// Finds out which key-values answer a range. Reads rows only if it [`needs_rows`].
pub(crate) fn select(
    view: View<'_>,
    rows: &dyn Rows,
    range: &Range,
    at: i64,
) -> Result<Selection, Refusal> {
    let keys = span(&range.keys);
    let mut selection = Selection {
        revision: view.revision(),
        more: false,
        count: 0,
        found: Found::Bare(Vec::new()),
    };
    if range.count_only {
        selection.count = view.count_at(keys, at);
        return Ok(selection);
    }
    if let KeyRange::Point(key) = &range.keys {
        point(view, range, key, at, &mut selection);
        return Ok(selection);
    }
    let limit = match range.limit {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    // Without a sort or a filter nothing beyond the limit can be part of the answer.
    let fetched = match range.order {
        Order::Natural | Order::SortedPrefix(_) if !range.filter.is_set() => limit,
        _ => usize::MAX,
    };
    let scan = view.range_at(keys, at);
    let admitted = |(_, version): &(&[u8], Version)| {
        range
            .filter
            .admits(version.modified.main, version.create_revision)
    };
    let descending_keys = range.order
        == Order::Sorted {
            target: SortTarget::Key,
            descending: true,
        };
    let mut found: Vec<(&[u8], Version)> = Vec::new();
    if descending_keys {
        found.extend(scan.rev().filter(admitted).take(limit.saturating_add(1)));
    } else {
        found.extend(scan.filter(admitted).take(fetched.saturating_add(1)));
    }
    let mut values = None;
    match range.order {
        Order::Sorted { target, descending } if !descending_keys => {
            values = sort(rows, &mut found, target, descending)?;
        }
        Order::SortedPrefix(target) => values = sort(rows, &mut found, target, false)?,
        _ => {}
    }
    if found.len() > limit {
        found.truncate(limit);
        selection.more = true;
    }
    selection.count = if !selection.more && !range.filter.is_set() {
        found.len() as u64
    } else {
        view.count_at(keys, at)
    };
    selection.found = match values {
        Some(mut values) => {
            values.truncate(limit);
            Found::Sorted(values)
        }
        None if range.keys_only => Found::Bare(
            found
                .iter()
                .map(|(key, version)| bare(key, version))
                .collect(),
        ),
        None => Found::Rows(found.iter().map(|(_, version)| version.modified).collect()),
    };
    Ok(selection)
}

fn point(view: View<'_>, range: &Range, key: &[u8], at: i64, selection: &mut Selection) {
    let version = if at >= selection.revision {
        view.get(key)
    } else {
        view.get_at(key, at)
    };
    let Some(version) = version else {
        return;
    };
    selection.count = 1;
    if range
        .filter
        .admits(version.modified.main, version.create_revision)
    {
        // etcd takes keys alone from its index, too, but not where the order names the value.
        selection.found = if range.keys_only && !needs_rows(range) {
            Found::Bare(vec![bare(key, &version)])
        } else {
            Found::Rows(vec![version.modified])
        };
    }
}

/// A key-value as the index knows it. The lease is left out, as etcd 3.7 does.
fn bare(key: &[u8], version: &Version) -> Row {
    Row {
        revision: version.modified,
        key: Bytes::copy_from_slice(key),
        value: Bytes::new(),
        create_revision: version.create_revision,
        version: version.version,
        lease: 0,
        tombstone: false,
    }
}

/// Sorts, keeping the key order of equals, as etcd does; gives the rows where it had to read them.
fn sort(
    rows: &dyn Rows,
    found: &mut [(&[u8], Version)],
    target: SortTarget,
    descending: bool,
) -> Result<Option<Vec<Row>>, Refusal> {
    let direct = |order: Ordering| if descending { order.reverse() } else { order };
    let mut by = |number: fn(&Version) -> i64| {
        found.sort_by(|a, b| direct(number(&a.1).cmp(&number(&b.1))));
    };
    match target {
        SortTarget::Key => found.sort_by(|a, b| direct(a.0.cmp(b.0))),
        SortTarget::Version => by(|version| version.version),
        SortTarget::Create => by(|version| version.create_revision),
        SortTarget::Mod => by(|version| version.modified.main),
        SortTarget::Value => {
            let revisions: Vec<Revision> =
                found.iter().map(|(_, version)| version.modified).collect();
            let mut values = rows.fetch(&revisions)?;
            values.sort_by(|a, b| direct(a.value.cmp(&b.value)));
            return Ok(Some(values));
        }
    }
    Ok(None)
}
