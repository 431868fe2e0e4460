//! RangeStream: a range that is read piece by piece at one revision.

use super::work::LONG_RANGE_KEYS;
use super::{Connection, errors, raise};
use holdfast_auth::{Authorized, Caller, KeyRange, Policy};
use holdfast_proto::etcdserverpb as pb;
use holdfast_storage::mvcc::Snapshot;
use holdfast_tenant::Refusal;
use holdfast_tenant::request::Range;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

/// Keys in the first message of a RangeStream (etcd's).
const FIRST_PAGE_KEYS: u64 = 10;
/// Most keys in one message, so that a page of small values does not hold up the runtime.
const PAGE_KEYS_MAX: u64 = LONG_RANGE_KEYS;

/// How long a stream keeps the snapshot that it began with. As long the writer keeps what it replaces: a client that opens streams
/// and does not read them would fill the memory with old states of the index.
const SNAPSHOT_LIFE: Duration = Duration::from_secs(5);

/// A range that is read piece by piece at one revision.
pub(super) struct Pages {
    connection: Arc<Connection>,
    /// Given up after [`SNAPSHOT_LIFE`].
    snapshot: Arc<Mutex<Option<Snapshot>>>,
    /// The store's revision at the begin.
    revision: i64,
    /// What is left to read; the revision is pinned.
    rest: Option<Range>,
    page_keys: u64,
    /// Keys that may still be sent; `None` without a limit.
    left: Option<u64>,
    total: u64,
    /// Who reads: each page is judged anew.
    caller: Caller,
}

impl Pages {
    pub(super) fn open(
        connection: Arc<Connection>,
        range: Authorized<Range>,
        caller: Caller,
    ) -> Result<Pages, Refusal> {
        let mut range = range.into_request();
        let node = connection.node();
        let snapshot = node.tenants.snapshot(&connection.tenant);
        let count = Range {
            count_only: true,
            ..range.clone()
        };
        let total = node
            .tenants
            .range_in(connection.tenant.id, &snapshot, &count)?
            .count;
        if range.revision <= 0 {
            range.revision = snapshot.revision();
        }
        let revision = snapshot.revision();
        let snapshot = Arc::new(Mutex::new(Some(snapshot)));
        let kept = Arc::downgrade(&snapshot);
        tokio::spawn(async move {
            tokio::time::sleep(SNAPSHOT_LIFE).await;
            if let Some(kept) = kept.upgrade() {
                kept.lock().take();
            }
        });
        Ok(Pages {
            snapshot,
            revision,
            left: (range.limit != 0).then_some(range.limit),
            rest: Some(range),
            page_keys: FIRST_PAGE_KEYS,
            total,
            connection,
            caller,
        })
    }

    /// The next page, or `None` after the last.
    ///
    /// # Errors
    /// As for a range; and when the reader has lost the permission since the page before.
    pub(super) fn next_page(&mut self) -> Result<Option<pb::RangeStreamResponse>, Status> {
        let Some(range) = self.rest.take() else {
            return Ok(None);
        };
        let asked = range.clone();
        let page = self.read(range);
        // After the read: what it saw is not newer than the permissions that it is judged by.
        self.connection
            .tenant
            .auth()
            .stream_access(&self.caller)
            .and_then(|access| access.permits(Policy::KeyScoped, &asked))
            .map_err(errors::denied)?;
        page.map_err(|refusal| errors::refused(&refusal))
    }

    fn read(&mut self, mut range: Range) -> Result<Option<pb::RangeStreamResponse>, Refusal> {
        let connection = self.connection.clone();
        let tenants = &connection.node().tenants;
        let header = Some(connection.header_at(self.revision));
        if range.count_only {
            return Ok(Some(page(pb::RangeResponse {
                header,
                count: self.total as i64,
                ..pb::RangeResponse::default()
            })));
        }
        if connection.tenant.compacted() > range.revision {
            return Err(Refusal::Compacted);
        }
        range.limit = self
            .left
            .map_or(self.page_keys, |left| left.min(self.page_keys));
        // What has happened since the revision that is read is in the way of a newer snapshot, but does not change the answer.
        let kept = self.snapshot.lock().clone();
        let snapshot = kept.unwrap_or_else(|| tenants.snapshot(&connection.tenant));
        let answer = tenants.range_in(connection.tenant.id, &snapshot, &range)?;
        let sent = answer.rows.len() as u64;
        if let Some(left) = &mut self.left {
            *left -= sent;
        }
        let bytes: usize = answer
            .rows
            .iter()
            .map(|row| row.key.len() + row.value.len())
            .sum();
        let target = connection.node().config.max_request_bytes;
        if bytes < target / 2 {
            self.page_keys = (self.page_keys * 2).min(PAGE_KEYS_MAX);
        } else if bytes > target {
            self.page_keys = (self.page_keys / 2).max(1);
        }
        let is_last = !answer.more || self.left == Some(0);
        let mut response = pb::RangeResponse {
            kvs: Vec::new(),
            more: false,
            header: None,
            count: 0,
        };
        if is_last {
            response.header = header;
            response.more = answer.more;
            response.count = self.total as i64;
        } else if let Some(last) = answer.rows.last() {
            let mut next = last.key.to_vec();
            next.push(0);
            range.keys = after(&range.keys, next.into());
            self.rest = Some(range);
        }
        response.kvs = answer.rows.into_iter().map(raise::key_value).collect();
        Ok(Some(page(response)))
    }
}

fn page(response: pb::RangeResponse) -> pb::RangeStreamResponse {
    pb::RangeStreamResponse {
        range_response: Some(response),
    }
}

/// The part of a range from `next` on. It is inside what was authorized: it only moves the start up.
fn after(keys: &KeyRange, next: bytes::Bytes) -> KeyRange {
    match keys {
        KeyRange::Span { end, .. } => KeyRange::Span {
            start: next,
            end: end.clone(),
        },
        KeyRange::From(_) | KeyRange::All => KeyRange::From(next),
        // One key has no second page.
        KeyRange::Point(key) => KeyRange::Span {
            start: next,
            end: key.clone(),
        },
    }
}
