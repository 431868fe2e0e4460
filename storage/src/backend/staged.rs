//! Changes that are applied but not yet in fjall: pinned in memory, visible to every read at once.
//!
//! They are kept in segments. The newest one grows under the lock; when it has the size of a batch (or somebody needs a stable
//! view) it is sealed and never changes again, so the persister and long reads share it without holding the lock.
//!
//! The engine below stands under the same lock: whoever looks at both sees them as they belong together, also at the moment when a
//! received snapshot takes the place of everything.

use super::engine::{Engine, Snapshot};
use crate::types::{Change, LogPosition, Revision, Row, TenantId};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// What a staged row costs in memory besides its key and value.
const ROW_OVERHEAD_BYTES: usize = 144;
const DROP_OVERHEAD_BYTES: usize = 48;
/// Rows of the growing segment up to this number are copied for a scan; more of them seal the segment instead.
const COPY_ROWS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) position: LogPosition,
    pub(super) rows: TenantMap<TenantRows>,
    pub(super) drops: HashSet<(TenantId, Revision)>,
    /// `None` removes the record.
    pub(super) meta: BTreeMap<Bytes, Option<Bytes>>,
    pub(super) bytes: usize,
}

/// One tenant's rows of a segment, in revision order.
#[derive(Debug)]
pub(super) struct TenantRows {
    /// The bounds stand beside the map's key, so that a lookup passes over a segment without touching its rows.
    first: Revision,
    last: Revision,
    pub(super) rows: Vec<Row>,
}

pub(super) type TenantMap<T> = HashMap<TenantId, T, BuildHasherDefault<TenantHasher>>;

/// Tenant ids are small numbers given out by the server: nobody can choose colliding ones, and a lookup hashes once per segment.
#[derive(Default)]
pub(super) struct TenantHasher(u64);

impl Hasher for TenantHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        // The odd constant nearest to 2^64 / golden ratio spreads consecutive numbers over the high bits as well.
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// What the staged changes say about a row.
pub(super) enum Lookup {
    Found(Row),
    Dropped,
    Absent,
}

/// What is known of a row without reading the engine.
pub(super) enum Seen {
    /// The answer.
    Row(Option<Row>),
    /// Nothing: this engine knows.
    Ask(Engine),
}

impl Segment {
    fn push(&mut self, tenant: TenantId, row: Row) {
        if !self.drops.is_empty() {
            self.drops.remove(&(tenant, row.revision));
        }
        let revision = row.revision;
        let of_tenant = self.rows.entry(tenant).or_insert_with(|| TenantRows {
            first: revision,
            last: revision,
            rows: Vec::new(),
        });
        let rows = &mut of_tenant.rows;
        if rows.is_empty() || of_tenant.last < revision {
            rows.push(row);
        } else {
            match rows.binary_search_by_key(&revision, |r| r.revision) {
                Ok(at) => rows[at] = row,
                Err(at) => rows.insert(at, row),
            }
        }
        of_tenant.first = of_tenant.first.min(revision);
        of_tenant.last = of_tenant.last.max(revision);
    }

    fn find(&self, tenant: TenantId, revision: Revision) -> Lookup {
        if !self.drops.is_empty() && self.drops.contains(&(tenant, revision)) {
            return Lookup::Dropped;
        }
        match self.rows.get(&tenant).and_then(|t| t.locate(revision)) {
            Some(row) => Lookup::Found(row.clone()),
            None => Lookup::Absent,
        }
    }

    /// The rows of `tenant` from `from` through transaction `through_main`.
    pub(super) fn range(&self, tenant: TenantId, from: Revision, through_main: i64) -> &[Row] {
        let Some(TenantRows { rows, .. }) = self.rows.get(&tenant) else {
            return &[];
        };
        let start = rows.partition_point(|r| r.revision < from);
        let end = rows.partition_point(|r| r.revision.main <= through_main);
        rows.get(start..end).unwrap_or(&[])
    }
}

impl TenantRows {
    /// Finds a row. Most transactions write one row, so the distance in `main` is a good guess.
    fn locate(&self, revision: Revision) -> Option<&Row> {
        if revision < self.first || revision > self.last {
            return None;
        }
        let guess = usize::try_from(revision.main - self.first.main).ok()?;
        if let Some(row) = self.rows.get(guess)
            && row.revision == revision
        {
            return Some(row);
        }
        let at = self
            .rows
            .binary_search_by_key(&revision, |r| r.revision)
            .ok()?;
        self.rows.get(at)
    }
}

struct State {
    engine: Engine,
    sealed: Vec<Arc<Segment>>,
    active: Segment,
}

impl State {
    fn seal(&mut self) {
        let newest = self
            .sealed
            .last()
            .map_or(LogPosition::default(), |s| s.position);
        if self.active.bytes == 0 && self.active.position <= newest {
            return;
        }
        let active = std::mem::take(&mut self.active);
        self.active.position = active.position;
        self.sealed.push(Arc::new(active));
    }
}

pub(super) struct Staged {
    state: RwLock<State>,
    /// The engine's generation, for looks at the cache.
    generation: AtomicU64,
    bytes: AtomicUsize,
    seal_at_bytes: usize,
    lowered_lock: Mutex<()>,
    lowered: Condvar,
}

/// The staged changes as at a moment, oldest first.
pub(super) struct Capture {
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) position: LogPosition,
}

impl Staged {
    pub(super) fn new(engine: Engine, applied: LogPosition, seal_at_bytes: usize) -> Staged {
        Staged {
            generation: AtomicU64::new(engine.generation()),
            state: RwLock::new(State {
                engine,
                sealed: Vec::new(),
                active: Segment {
                    position: applied,
                    ..Segment::default()
                },
            }),
            bytes: AtomicUsize::new(0),
            seal_at_bytes,
            lowered_lock: Mutex::new(()),
            lowered: Condvar::new(),
        }
    }

    pub(super) fn stage(&self, position: LogPosition, changes: Vec<Change>) {
        let mut added = 0;
        let mut state = self.state.write();
        let active = &mut state.active;
        for change in changes {
            match change {
                Change::PutRow(tenant, row) => {
                    added += ROW_OVERHEAD_BYTES + row.key.len() + row.value.len();
                    active.push(tenant, row);
                }
                Change::DropRow(tenant, revision) => {
                    added += DROP_OVERHEAD_BYTES;
                    active.drops.insert((tenant, revision));
                }
                Change::PutMeta(key, value) => {
                    added += ROW_OVERHEAD_BYTES + key.len() + value.len();
                    active.meta.insert(key, Some(value));
                }
                Change::DropMeta(key) => {
                    added += ROW_OVERHEAD_BYTES + key.len();
                    active.meta.insert(key, None);
                }
            }
        }
        active.bytes += added;
        active.position = active.position.max(position);
        // Counted under the lock: the persister may unpin what it seals the moment the lock is free.
        self.bytes.fetch_add(added, Ordering::Relaxed);
        if active.bytes >= self.seal_at_bytes {
            state.seal();
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn position(&self) -> LogPosition {
        self.state.read().active.position
    }

    /// The generation of the engine in place. It may change at any moment; what is read under a lock carries its own.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The engine in place.
    pub(super) fn engine(&self) -> Engine {
        self.state.read().engine.clone()
    }

    pub(super) fn find(&self, tenant: TenantId, revision: Revision) -> Seen {
        let state = self.state.read();
        match find_in(&state, tenant, revision) {
            Lookup::Found(row) => Seen::Row(Some(row)),
            Lookup::Dropped => Seen::Row(None),
            Lookup::Absent => Seen::Ask(state.engine.clone()),
        }
    }

    /// [`Staged::find`] for many revisions under one lock: fills the empty places of `out`, and returns the engine to ask for
    /// those that are absent.
    pub(super) fn find_many(
        &self,
        tenant: TenantId,
        revisions: &[Revision],
        out: &mut [Option<Lookup>],
    ) -> Engine {
        let state = self.state.read();
        for (place, &revision) in out.iter_mut().zip(revisions) {
            if place.is_none() {
                *place = Some(find_in(&state, tenant, revision));
            }
        }
        state.engine.clone()
    }

    /// Puts another engine, which holds everything up to `position`, in place and forgets all that is staged. `at_that_moment`
    /// runs while nobody can look.
    pub(super) fn replace(
        &self,
        engine: Engine,
        position: LogPosition,
        at_that_moment: impl FnOnce(),
    ) {
        let active = Segment {
            position,
            ..Segment::default()
        };
        let gone = {
            let mut state = self.state.write();
            self.generation
                .store(engine.generation(), Ordering::Release);
            self.bytes.store(0, Ordering::Relaxed);
            at_that_moment();
            std::mem::replace(
                &mut *state,
                State {
                    engine,
                    sealed: Vec::new(),
                    active,
                },
            )
        };
        drop(self.lowered_lock.lock());
        self.lowered.notify_all();
        drop(gone);
    }

    /// Seals what is staged and returns all sealed segments, oldest first.
    pub(super) fn seal(&self) -> Vec<Arc<Segment>> {
        let mut state = self.state.write();
        state.seal();
        state.sealed.clone()
    }

    /// Everything staged at a moment, with a snapshot of the engine taken while nothing can be staged or unpinned: it holds
    /// nothing newer than the capture.
    pub(super) fn capture(&self) -> (Capture, Snapshot) {
        let mut state = self.state.write();
        state.seal();
        let capture = Capture {
            segments: state.sealed.clone(),
            position: state.active.position,
        };
        (capture, state.engine.snapshot())
    }

    /// As [`Staged::capture`], for one tenant's revision range: segments without any are left out, and a few rows of the
    /// growing segment are copied rather than sealing it.
    pub(super) fn capture_range(
        &self,
        tenant: TenantId,
        from: Revision,
        through_main: i64,
    ) -> (Capture, Snapshot) {
        let wanted = |segment: &Segment| {
            !segment.range(tenant, from, through_main).is_empty() || !segment.drops.is_empty()
        };
        {
            let state = self.state.read();
            let few = state.active.range(tenant, from, through_main);
            if few.len() <= COPY_ROWS_MAX && state.active.drops.len() <= COPY_ROWS_MAX {
                let mut segments: Vec<_> =
                    state.sealed.iter().filter(|s| wanted(s)).cloned().collect();
                if wanted(&state.active) {
                    segments.push(Arc::new(Segment {
                        position: state.active.position,
                        rows: few_rows(tenant, few),
                        drops: state.active.drops.clone(),
                        ..Segment::default()
                    }));
                }
                let capture = Capture {
                    segments,
                    position: state.active.position,
                };
                return (capture, state.engine.snapshot());
            }
        }
        let (mut capture, taken) = self.capture();
        capture.segments.retain(|s| wanted(s));
        (capture, taken)
    }

    /// Forgets the `count` oldest sealed segments, which are now in fjall.
    pub(super) fn unpin(&self, count: usize) {
        let gone: Vec<_> = {
            let mut state = self.state.write();
            let count = count.min(state.sealed.len());
            let gone: Vec<_> = state.sealed.drain(..count).collect();
            let bytes = gone.iter().map(|s| s.bytes).sum();
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            gone
        };
        drop(self.lowered_lock.lock());
        self.lowered.notify_all();
        // Freeing thousands of rows takes its time and must not happen under the lock.
        drop(gone);
    }

    pub(super) fn wait_below(&self, limit: usize, timeout: Duration) -> bool {
        if self.bytes() <= limit {
            return true;
        }
        let deadline = Instant::now() + timeout;
        let mut guard = self.lowered_lock.lock();
        while self.bytes() > limit {
            if self.lowered.wait_until(&mut guard, deadline).timed_out() {
                return self.bytes() <= limit;
            }
        }
        true
    }
}

fn few_rows(tenant: TenantId, rows: &[Row]) -> TenantMap<TenantRows> {
    let mut map = TenantMap::default();
    if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
        let rows = TenantRows {
            first: first.revision,
            last: last.revision,
            rows: rows.to_vec(),
        };
        map.insert(tenant, rows);
    }
    map
}

fn find_in(state: &State, tenant: TenantId, revision: Revision) -> Lookup {
    match state.active.find(tenant, revision) {
        Lookup::Absent => {}
        found => return found,
    }
    for segment in state.sealed.iter().rev() {
        match segment.find(tenant, revision) {
            Lookup::Absent => {}
            found => return found,
        }
    }
    Lookup::Absent
}
