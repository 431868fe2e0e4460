//! A change that is in the index and not yet in the store, at the moment when a stream's first watch is made.

use bytes::Bytes;
use holdfast_auth::{Caller, Denied, KeyRange};
use holdfast_storage::{Revision, Row, TenantId};
use holdfast_tenant::watch::{
    Delivery, DeliveryKind, History, Hub, HubLimits, Inbox, Message, StreamId, Wake, WatchRequest,
    WatchSink,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// One put at every revision up to 10. The last one was applied before anybody watched, so that the inbox never has it.
struct Puts {
    published: AtomicI64,
}

impl History for Puts {
    fn revision(&self, _: TenantId) -> i64 {
        10
    }

    fn compacted(&self, _: TenantId) -> i64 {
        -1
    }

    fn published(&self, _: TenantId) -> i64 {
        self.published.load(Ordering::SeqCst)
    }

    fn scan(
        &self,
        _: TenantId,
        from: i64,
        through: i64,
        visit: &mut dyn FnMut(Row) -> bool,
    ) -> Result<(), String> {
        assert!(through <= self.published.load(Ordering::SeqCst));
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
struct Sink(Mutex<Vec<Bytes>>);

impl WatchSink for Sink {
    fn push(&self, delivery: Delivery) {
        if let DeliveryKind::Events { events, .. } = delivery.kind {
            self.0.lock().extend(events);
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
fn what_is_applied_while_the_first_watch_is_made_is_not_lost() {
    let inbox = Arc::new(Inbox::default());
    let history = Arc::new(Puts {
        published: AtomicI64::new(9),
    });
    let limits = HubLimits {
        watches_per_stream: 10,
        fragment_bytes: 1 << 20,
        progress_interval: Duration::from_secs(600),
    };
    let now = Instant::now();
    let encode = |row: &Row, _: Option<&Row>| row.revision.main.to_string().into();
    let mut hub = Hub::new(
        inbox.clone(),
        history.clone(),
        Arc::new(Nobody),
        encode,
        limits,
        now,
    );
    let sink = Arc::new(Sink::default());
    let stream = StreamId(1);
    inbox.push(Message::Open {
        stream,
        tenant: TenantId::DEFAULT,
        sink: sink.clone(),
    });
    inbox.push(Message::Create {
        stream,
        request: WatchRequest {
            id: 0,
            keys: KeyRange::All,
            start: 8,
            progress: false,
            no_put: false,
            no_delete: false,
            previous: false,
            fragment: false,
        },
        caller: Caller::Anonymous,
    });
    for _ in 0..3 {
        assert!(hub.step(now), "the watch is not up to date");
    }
    assert_eq!(*sink.0.lock(), ["8", "9"]);
    history.published.store(10, Ordering::SeqCst);
    hub.step(now);
    assert!(!hub.step(now));
    assert_eq!(*sink.0.lock(), ["8", "9", "10"]);
}
