//! The store as its callers see it.

mod damage;
mod memory;
mod replacing;
mod threads;

use super::*;
use crate::types::{LogPosition, Revision};
use keys::{FORMAT_KEY, row_key};

pub(super) const T1: TenantId = TenantId(1);
pub(super) const T2: TenantId = TenantId(2);

/// What a store is kept on: every engine behaves the same.
pub(super) enum Ground {
    Directory(tempfile::TempDir),
    Memory(MemoryStore),
}

impl Ground {
    pub(super) fn both() -> [Ground; 2] {
        [
            Ground::Directory(tempfile::tempdir().unwrap()),
            Ground::Memory(MemoryStore::default()),
        ]
    }

    pub(super) fn try_open(&self, options: StoreOptions) -> Result<(Store, Opened), OpenError> {
        match self {
            Ground::Directory(dir) => Store::open(&dir.path().join("deep").join("store"), options),
            Ground::Memory(memory) => Store::in_memory(memory, options),
        }
    }

    pub(super) fn open(&self) -> (Store, Opened) {
        self.try_open(small()).unwrap()
    }
}

pub(super) fn fjall(store: &Store) -> Arc<engine::FjallEngine> {
    match store.staged.engine() {
        Engine::Fjall(engine) => engine,
        Engine::Memory(_) => panic!("not fjall"),
    }
}

pub(super) fn small() -> StoreOptions {
    StoreOptions {
        cache_bytes: 1 << 20,
        block_cache_bytes: 1 << 20,
        memtable_bytes: 1 << 20,
        max_batch_bytes: 64 << 10,
        reserve_bytes: 0,
        ..StoreOptions::default()
    }
}

pub(super) fn at(index: u64) -> LogPosition {
    LogPosition { index, term: 3 }
}

pub(super) fn rev(main: i64) -> Revision {
    Revision::first(main)
}

/// A row whose whole content follows from its revision.
pub(super) fn row(main: i64) -> Row {
    Row {
        revision: rev(main),
        key: Bytes::from(format!("key-{:04}", main % 50)),
        value: Bytes::from(format!("value {main} ").repeat(20)),
        create_revision: main - 1,
        version: 2,
        lease: main % 7,
        tombstone: false,
    }
}

pub(super) fn put(tenant: TenantId, main: i64) -> Change {
    Change::PutRow(tenant, row(main))
}

/// Stages transaction `main` of both tenants at log index `main`.
pub(super) fn stage(store: &Store, mains: std::ops::RangeInclusive<i64>) {
    for main in mains {
        let meta = Change::PutMeta(
            Bytes::from_static(b"consistent"),
            Bytes::from(main.to_string()),
        );
        store.stage(at(main as u64), vec![put(T1, main), put(T2, main), meta]);
    }
}

/// Checks that the store holds what [`stage`] made of transactions 2 to `last`, and nothing else.
pub(super) fn check(store: &Store, last: i64) {
    for tenant in [T1, T2] {
        let rows: Vec<Row> = store
            .scan(tenant, rev(0), i64::MAX)
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(rows, (2..=last).map(row).collect::<Vec<_>>());
        let headers: Vec<RowHeader> = store.row_headers(tenant).collect::<Result<_, _>>().unwrap();
        assert_eq!(headers, rows.iter().map(RowHeader::of).collect::<Vec<_>>());
    }
    for main in [2, last / 2, last] {
        assert_eq!(store.get(T1, rev(main)).unwrap(), Some(row(main)));
    }
    assert_eq!(store.get(T1, rev(last + 1)).unwrap(), None);
    assert_eq!(
        store.meta(b"").unwrap(),
        [(
            Bytes::from_static(b"consistent"),
            Bytes::from(last.to_string())
        )]
    );
    assert_eq!(store.tenants().unwrap(), [T1, T2]);
}

#[test]
fn what_was_persisted_is_there_after_a_restart() {
    for ground in Ground::both() {
        let (store, opened) = ground.open();
        assert_eq!(opened, Opened::default());
        stage(&store, 2..=300);
        let moved = store.persist().unwrap();
        assert_eq!(moved.position, at(300));
        assert_eq!(moved.rows, 2 * 299);
        assert_eq!(store.staged_bytes(), 0);
        check(&store, 300);
        assert_eq!(store.checkpoint().unwrap(), at(300));
        let bytes = store.disk_bytes();
        match ground {
            Ground::Directory(_) => assert!(bytes > 100_000 && bytes < 2_000_000),
            Ground::Memory(_) => assert_eq!(bytes, 0),
        }
        // Staged only: gone with the process, and not counted as applied.
        stage(&store, 301..=310);
        check(&store, 310);
        drop(store);

        let (store, opened) = ground.open();
        assert_eq!(
            opened,
            Opened {
                applied: at(300),
                ..Opened::default()
            }
        );
        check(&store, 300);
        stage(&store, 301..=310);
        store.persist().unwrap();
        check(&store, 310);
    }
}

#[test]
fn staged_changes_are_visible_at_once_and_overlay_the_disk() {
    for ground in Ground::both() {
        let (store, _) = ground.open();
        assert_eq!(store.tenants().unwrap(), []);
        stage(&store, 2..=40);
        check(&store, 40);
        store.persist().unwrap();
        stage(&store, 41..=60);
        check(&store, 60);
        let mains = |from: i64, through: i64| -> Vec<i64> {
            store
                .scan(T2, rev(from), through)
                .map(|r| r.unwrap().revision.main)
                .collect()
        };
        assert_eq!(mains(39, 42), [39, 40, 41, 42]);
        assert_eq!(mains(42, 39), []);
        assert_eq!(mains(61, i64::MAX), []);

        // Compaction of persisted and of staged rows, and a record removed.
        let drops = [10, 45].map(|m| Change::DropRow(T2, rev(m))).to_vec();
        store.stage(at(61), drops);
        store.stage(
            at(62),
            vec![Change::DropMeta(Bytes::from_static(b"consistent"))],
        );
        for _ in 0..2 {
            assert_eq!(mains(9, 11), [9, 11]);
            assert_eq!(mains(44, 46), [44, 46]);
            assert_eq!(store.get(T2, rev(10)).unwrap(), None);
            assert_eq!(store.get(T2, rev(45)).unwrap(), None);
            assert_eq!(store.get(T1, rev(45)).unwrap(), Some(row(45)));
            assert_eq!(store.meta(b"con").unwrap(), []);
            assert_eq!(store.persist().unwrap().position, at(62));
        }
        // A tenant that loses its last row has none.
        let drops = (2..=60).map(|m| Change::DropRow(T2, rev(m))).collect();
        store.stage(at(63), drops);
        assert_eq!(store.tenants().unwrap(), [T1]);
        store.persist().unwrap();
        assert_eq!(store.tenants().unwrap(), [T1]);
    }
}

#[test]
fn several_rows_of_a_transaction_and_many_at_once() {
    for ground in Ground::both() {
        let (store, _) = ground.open();
        let sub = |main, sub| Row {
            revision: Revision { main, sub },
            ..row(main)
        };
        for main in 2..20 {
            let rows = (0..3).map(|s| Change::PutRow(T1, sub(main, s))).collect();
            store.stage(at(main as u64), rows);
            if main == 10 {
                store.persist().unwrap();
            }
        }
        let all: Vec<Revision> = (2..20)
            .flat_map(|main| (0..3).map(move |sub| Revision { main, sub }))
            .collect();
        let found: Vec<Revision> = store
            .scan(T1, rev(0), i64::MAX)
            .map(|r| r.unwrap().revision)
            .collect();
        assert_eq!(found, all);
        let from = Revision { main: 10, sub: 2 };
        assert_eq!(store.scan(T1, from, 11).count(), 4);

        let mut asked = all.clone();
        asked.insert(1, rev(500));
        let mut out = vec![None];
        store.get_many(T1, &asked, &mut out).unwrap();
        let expected: Vec<Option<Row>> = asked
            .iter()
            .map(|r| (r.main < 20).then(|| sub(r.main, r.sub)))
            .collect();
        assert_eq!(out, expected);
    }
}

#[test]
fn a_full_disk_leaves_everything_staged_and_a_retry_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        reserve_bytes: u64::MAX,
        ..small()
    };
    let (mut store, _) = Store::open(&dir.path().join("s"), options).unwrap();
    stage(&store, 2..=30);
    let before = store.staged_bytes();
    assert!(before > 0);
    assert!(matches!(store.persist(), Err(PersistError::NoSpace { .. })));
    assert_eq!(store.staged_bytes(), before);
    assert!(!store.wait_until_staged_below(before - 1, Duration::ZERO));
    assert!(store.wait_until_staged_below(before, Duration::ZERO));
    check(&store, 30);
    assert_eq!(store.checkpoint().unwrap(), LogPosition::default());
    store.options.reserve_bytes = 0;
    assert_eq!(store.persist().unwrap().position, at(30));
    assert!(store.wait_until_staged_below(0, Duration::ZERO));
    check(&store, 30);
}

#[test]
fn positions_advance_without_changes() {
    for ground in Ground::both() {
        let (store, _) = ground.open();
        store.stage(at(5), Vec::new());
        assert_eq!(store.staged_position(), at(5));
        assert_eq!(store.persist().unwrap().position, at(5));
        assert_eq!(store.persist().unwrap().rows, 0);
        drop(store);
        assert_eq!(ground.open().1.applied, at(5));
    }
}

#[test]
fn a_record_that_is_no_row_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&dir.path().join("s"), small()).unwrap();
    stage(&store, 2..=4);
    store.persist().unwrap();
    let bad = rev(7);
    fjall(&store).rows.insert(row_key(T1, bad), [9, 9]).unwrap();
    let error = store.get(T1, bad).unwrap_err();
    assert_eq!(
        error.to_string(),
        "row 7/0 of tenant 1 is damaged: unknown record version"
    );
    assert_eq!(store.scan(T1, rev(0), 6).filter(Result::is_ok).count(), 3);
    let all: Vec<bool> = store
        .scan(T1, rev(0), i64::MAX)
        .map(|r| r.is_ok())
        .collect();
    assert_eq!(all, [true, true, true, false]);
    assert!(store.row_headers(T1).any(|h| h.is_err()));
}

#[test]
fn a_second_opener_and_a_newer_format_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let (store, _) = Store::open(&path, small()).unwrap();
    assert!(matches!(
        Store::open(&path, small()),
        Err(OpenError::Locked { .. })
    ));
    fjall(&store)
        .meta
        .insert(FORMAT_KEY, 2u32.to_be_bytes())
        .unwrap();
    drop(store);
    assert!(matches!(
        Store::open(&path, small()),
        Err(OpenError::NewerFormat {
            found: 2,
            supported: 1,
            ..
        })
    ));
}

#[test]
fn the_cache_is_bounded_and_may_be_off() {
    for (cache_bytes, ground) in [0, 64 << 10]
        .into_iter()
        .flat_map(|bytes| Ground::both().map(|ground| (bytes, ground)))
    {
        let options = StoreOptions {
            cache_bytes,
            ..small()
        };
        let (store, _) = ground.try_open(options).unwrap();
        stage(&store, 2..=1000);
        store.persist().unwrap();
        assert!(store.cache.bytes() <= cache_bytes);
        assert_eq!(store.cache.bytes() > 0, cache_bytes > 0);
        check(&store, 1000);
        assert!(store.cache.bytes() <= cache_bytes);
    }
}

#[test]
fn a_large_value_has_a_place_in_a_small_cache() {
    let options = StoreOptions {
        cache_bytes: 1 << 20,
        ..small()
    };
    for ground in Ground::both() {
        let (store, _) = ground.try_open(options.clone()).unwrap();
        let mut large = row(2);
        large.value = vec![7; 300 << 10].into();
        store.stage(at(2), vec![Change::PutRow(T1, large.clone())]);
        store.persist().unwrap();
        let generation = store.staged.generation();
        assert_eq!(store.cache.get(generation, T1, rev(2)), Some(large));
    }
}
