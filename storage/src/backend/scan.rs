//! Reads over many rows: what is staged and what is in the engine, merged.
//!
//! The engine's snapshot is taken while the staged changes are captured, and the persister unpins only what it has written before:
//! each row of the moment is in the capture, in the snapshot, or in both (then the staged one counts).

use super::{
    engine::{RowIter, Snapshot},
    errors::ReadError,
    record::{self, RowHeader},
    staged::{Capture, Segment},
};
use crate::types::{LogPosition, Revision, Row, TenantId};
use bytes::Bytes;
use std::{collections::BTreeSet, iter::Peekable, sync::Arc};

/// A row's place in the merge.
pub(super) enum Found {
    Staged(Arc<Segment>, usize),
    Persisted(Revision, Bytes),
}

/// One tenant's rows between two revisions, in order.
pub(super) struct Merge {
    tenant: TenantId,
    segments: Vec<Arc<Segment>>,
    staged: Peekable<std::vec::IntoIter<(Revision, u32, u32)>>,
    persisted: RowIter,
    /// The next persisted row, read ahead.
    ahead: Option<(Revision, Bytes)>,
    done: bool,
}

impl Merge {
    pub(super) fn new(
        snapshot: &Snapshot,
        capture: Capture,
        tenant: TenantId,
        from: Revision,
        through_main: i64,
    ) -> Merge {
        // Newer segments first, so that of equal revisions the newer one is kept.
        let mut order: Vec<(Revision, u32, u32)> = Vec::new();
        for (s, segment) in capture.segments.iter().enumerate().rev() {
            let range = segment.range(tenant, from, through_main);
            let Some(first) = range.first() else { continue };
            let offset = segment.rows.get(&tenant).map_or(0, |t| {
                t.rows.partition_point(|r| r.revision < first.revision)
            });
            order.extend(
                range
                    .iter()
                    .enumerate()
                    .map(|(i, row)| (row.revision, s as u32, (offset + i) as u32)),
            );
        }
        order.sort_by_key(|&(revision, segment, _)| (revision, std::cmp::Reverse(segment)));
        order.dedup_by_key(|&mut (revision, _, _)| revision);
        let through = Revision {
            main: through_main,
            sub: u32::MAX,
        };
        Merge {
            tenant,
            segments: capture.segments,
            staged: order.into_iter().peekable(),
            persisted: snapshot.rows(tenant, from, through),
            ahead: None,
            done: from > through,
        }
    }

    fn dropped(&self, revision: Revision) -> bool {
        self.segments
            .iter()
            .any(|s| !s.drops.is_empty() && s.drops.contains(&(self.tenant, revision)))
    }

    fn read_ahead(&mut self) -> Result<(), ReadError> {
        if self.ahead.is_none() {
            self.ahead = self.persisted.next(self.tenant)?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Option<(Revision, Found)>, ReadError> {
        loop {
            self.read_ahead()?;
            let staged = self.staged.peek().copied();
            let (revision, found) = match (staged, &self.ahead) {
                (None, None) => return Ok(None),
                (Some((revision, s, i)), ahead)
                    if ahead.as_ref().is_none_or(|(r, _)| revision <= *r) =>
                {
                    self.staged.next();
                    if ahead.as_ref().is_some_and(|(r, _)| *r == revision) {
                        self.ahead = None;
                    }
                    let Some(segment) = self.segments.get(s as usize) else {
                        continue;
                    };
                    (revision, Found::Staged(Arc::clone(segment), i as usize))
                }
                _ => match self.ahead.take() {
                    Some((revision, record)) => (revision, Found::Persisted(revision, record)),
                    None => return Ok(None),
                },
            };
            if !self.dropped(revision) {
                return Ok(Some((revision, found)));
            }
        }
    }

    fn advance<T>(
        &mut self,
        staged: impl FnOnce(&Row) -> T,
        persisted: impl FnOnce(Revision, &Bytes) -> Result<T, &'static str>,
    ) -> Option<Result<T, ReadError>> {
        if self.done {
            return None;
        }
        let result = match self.step() {
            Ok(None) => {
                self.done = true;
                return None;
            }
            Ok(Some((_, Found::Staged(segment, at)))) => segment
                .rows
                .get(&self.tenant)
                .and_then(|t| t.rows.get(at))
                .map(staged)
                .ok_or(ReadError::CorruptKey {
                    tenant: self.tenant,
                }),
            Ok(Some((_, Found::Persisted(revision, record)))) => persisted(revision, &record)
                .map_err(|reason| ReadError::Corrupt {
                    tenant: self.tenant,
                    revision,
                    reason,
                }),
            Err(error) => Err(error),
        };
        // After an error the order of what follows is not known.
        self.done = result.is_err();
        Some(result)
    }
}

/// The rows of a [`super::Store::scan`]. Ends after the first error.
pub struct RowScan(Merge);

impl RowScan {
    pub(super) fn new(merge: Merge) -> RowScan {
        RowScan(merge)
    }
}

impl Iterator for RowScan {
    type Item = Result<Row, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.advance(Row::clone, record::decode)
    }
}

/// The headers of a [`super::Store::row_headers`]. Ends after the first error.
pub struct RowHeaders(Merge);

impl RowHeaders {
    pub(super) fn new(merge: Merge) -> RowHeaders {
        RowHeaders(merge)
    }
}

impl Iterator for RowHeaders {
    type Item = Result<RowHeader, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.advance(RowHeader::of, |revision, record| {
            record::decode_header(revision, record)
        })
    }
}

/// Rows and state records as at one log position.
pub struct StoreView {
    snapshot: Snapshot,
    segments: Vec<Arc<Segment>>,
    position: LogPosition,
}

impl StoreView {
    pub(super) fn new(snapshot: Snapshot, capture: Capture) -> StoreView {
        StoreView {
            snapshot,
            segments: capture.segments,
            position: capture.position,
        }
    }

    /// The position of the view: all changes up to it, none behind it.
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// The headers of all rows of `tenant` in revision order: what an index is built from. Values are not decoded.
    pub fn row_headers(&self, tenant: TenantId) -> RowHeaders {
        RowHeaders::new(self.scan(tenant, Revision::first(0), i64::MAX).0)
    }

    /// The rows of `tenant` from `from` through transaction `through_main`, in revision order.
    pub fn scan(&self, tenant: TenantId, from: Revision, through_main: i64) -> RowScan {
        let capture = Capture {
            segments: self.segments.clone(),
            position: self.position,
        };
        RowScan(Merge::new(
            &self.snapshot,
            capture,
            tenant,
            from,
            through_main,
        ))
    }

    /// The state records whose key begins with `prefix`, in key order.
    ///
    /// # Errors
    /// [`ReadError::Engine`] if the store cannot be read.
    pub fn meta(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let mut found = self.snapshot.meta(prefix)?;
        for segment in &self.segments {
            for (key, value) in &segment.meta {
                if key.starts_with(prefix) {
                    match value {
                        Some(value) => found.insert(key.clone(), value.clone()),
                        None => found.remove(key),
                    };
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    /// The tenants that have rows, in order of their ids.
    ///
    /// # Errors
    /// [`ReadError::Engine`] if the store cannot be read.
    pub fn tenants(&self) -> Result<Vec<TenantId>, ReadError> {
        let mut tenants = BTreeSet::new();
        let mut from = Some(0u32);
        while let Some(id) = from {
            let Some(tenant) = self.snapshot.next_tenant(TenantId(id))? else {
                break;
            };
            tenants.insert(tenant);
            from = tenant.0.checked_add(1);
        }
        tenants.extend(self.segments.iter().flat_map(|s| s.rows.keys().copied()));
        if self.segments.iter().all(|s| s.drops.is_empty()) {
            return Ok(tenants.into_iter().collect());
        }
        // A tenant whose last rows are dropped but not yet from the disk has none.
        let mut with_rows = Vec::with_capacity(tenants.len());
        for tenant in tenants {
            if let Some(first) = self.scan(tenant, Revision::first(0), i64::MAX).next() {
                first?;
                with_rows.push(tenant);
            }
        }
        Ok(with_rows)
    }
}
