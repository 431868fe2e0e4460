//! Watches that are far behind do not keep those waiting that are almost up to date.

use bytes::Bytes;
use holdfast_auth::{Caller, Denied, KeyRange};
use holdfast_storage::{Revision, Row, TenantId};
use holdfast_tenant::watch::{
    Delivery, DeliveryKind, History, Hub, HubLimits, Inbox, Message, StreamId, Wake, WatchRequest,
    WatchSink,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

const REVISIONS: i64 = 50_000;

/// One put of the key `x` at every revision.
struct Puts;

impl History for Puts {
    fn revision(&self, _: TenantId) -> i64 {
        REVISIONS
    }

    fn compacted(&self, _: TenantId) -> i64 {
        -1
    }

    fn published(&self, _: TenantId) -> i64 {
        REVISIONS
    }

    fn scan(
        &self,
        _: TenantId,
        from: i64,
        through: i64,
        visit: &mut dyn FnMut(Row) -> bool,
    ) -> Result<(), String> {
        for main in from..=through {
            let row = Row {
                revision: Revision::first(main),
                key: Bytes::from_static(b"x"),
                value: Bytes::new(),
                create_revision: 1,
                version: main,
                lease: 0,
                tombstone: false,
            };
            if !visit(row) {
                break;
            }
        }
        Ok(())
    }

    fn before(&self, _: TenantId, _: &[u8], _: i64) -> Option<Row> {
        None
    }

    fn may_watch(&self, _: TenantId, _: &Caller, _: &KeyRange) -> Result<(), Denied> {
        Ok(())
    }

    fn row(&self, _: TenantId, _: Revision) -> Option<Row> {
        None
    }
}

#[derive(Default)]
struct Sink(Mutex<usize>);

impl WatchSink for Sink {
    fn push(&self, delivery: Delivery) {
        if let DeliveryKind::Events { events, .. } = delivery.kind {
            *self.0.lock() += events.len();
        }
    }

    fn has_room(&self) -> bool {
        true
    }
}

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

#[test]
fn who_is_far_behind_does_not_hold_up_who_is_not() {
    let inbox = Arc::new(Inbox::default());
    let now = Instant::now();
    let limits = HubLimits {
        watches_per_stream: 10_000,
        fragment_bytes: 1 << 20,
        progress_interval: Duration::from_secs(600),
    };
    let encode = |row: &Row, _: Option<&Row>| row.key.clone();
    let mut hub = Hub::new(
        inbox.clone(),
        Arc::new(Puts),
        Arc::new(Nobody),
        encode,
        limits,
        now,
    );
    let open = |stream: u64, watches: usize, key: &'static [u8], start: i64| {
        let sink = Arc::new(Sink::default());
        inbox.push(Message::Open {
            stream: StreamId(stream),
            tenant: TenantId::DEFAULT,
            sink: sink.clone(),
        });
        for _ in 0..watches {
            inbox.push(Message::Create {
                stream: StreamId(stream),
                request: WatchRequest {
                    id: 0,
                    keys: KeyRange::Point(Bytes::from_static(key)),
                    start,
                    progress: false,
                    no_put: false,
                    no_delete: false,
                    previous: false,
                    fragment: false,
                },
                caller: Caller::Anonymous,
            });
        }
        sink
    };
    // Ten rounds of them at each of the fifty pieces that history is read in.
    open(1, 5_120, b"nothing", 1);
    let almost = open(2, 1, b"x", REVISIONS - 9);
    let mut rounds = 0;
    while *almost.0.lock() < 10 {
        rounds += 1;
        assert!(rounds <= 60, "it still waits");
        hub.step(now);
    }
}
