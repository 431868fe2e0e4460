//! Streams: whole, in pieces, damaged.

use super::*;
use crate::{
    backend::{Store, StoreOptions, StoreView},
    types::{Change, LogPosition, Revision, Row, TenantId},
};
use bytes::Bytes;
use std::{convert::Infallible, fs, path::Path};

const CLUSTER: u64 = 0xabcd;

fn options() -> StoreOptions {
    StoreOptions {
        reserve_bytes: 0,
        ..StoreOptions::default()
    }
}

fn row(main: i64, value_len: usize) -> Row {
    Row {
        revision: Revision::first(main),
        key: Bytes::from(format!("k{main}")),
        value: (0..value_len).map(|i| (i as i64 * main) as u8).collect(),
        create_revision: main,
        version: 1,
        lease: 0,
        tombstone: false,
    }
}

/// A store of two tenants, partly persisted and partly staged, one value larger than two chunks.
fn source(dir: &Path) -> Store {
    let (store, _) = Store::open(dir, options()).unwrap();
    for main in 2..=400i64 {
        let len = if main == 100 { 600_000 } else { 700 };
        let mut changes = vec![Change::PutRow(TenantId(1), row(main, len))];
        if main % 4 == 0 {
            changes.push(Change::PutRow(TenantId(7), row(main, 10)));
        }
        changes.push(Change::PutMeta(
            Bytes::from(format!("{}/m{}", main % 3, main % 10)),
            Bytes::from(vec![main as u8; 9]),
        ));
        store.stage(
            LogPosition {
                index: main as u64,
                term: 2,
            },
            changes,
        );
        if main == 200 {
            store.persist().unwrap();
        }
    }
    store
}

type Contents = (Vec<(TenantId, Vec<Row>)>, Vec<(Bytes, Bytes)>);

fn contents(view: &StoreView) -> Contents {
    let rows = |t| {
        view.scan(t, Revision::first(0), i64::MAX)
            .collect::<Result<_, _>>()
            .unwrap()
    };
    let tenants = view.tenants().unwrap();
    (
        tenants.into_iter().map(|t| (t, rows(t))).collect(),
        view.meta(b"").unwrap(),
    )
}

fn chunks(store: &Store, scope: &SnapshotScope) -> Vec<Bytes> {
    SnapshotReader::new(store.view(), CLUSTER, scope)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

fn pieces(stream: &[u8], size: usize) -> impl Iterator<Item = Result<&[u8], Infallible>> {
    stream.chunks(size).map(Ok)
}

#[test]
fn a_snapshot_is_of_its_moment_and_installs_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = source(&dir.path().join("from"));
    let view = store.view();
    let expected = contents(&view);
    let mut reader = SnapshotReader::new(view, CLUSTER, &SnapshotScope::All).unwrap();
    let first = reader.next().unwrap().unwrap();
    // What happens from now on is not in it.
    let later = vec![
        Change::PutRow(TenantId(9), row(401, 5)),
        Change::DropRow(TenantId(1), Revision::first(3)),
        Change::PutMeta(Bytes::from_static(b"0/m1"), Bytes::new()),
    ];
    store.stage(
        LogPosition {
            index: 401,
            term: 2,
        },
        later,
    );
    store.persist().unwrap();
    let mut stream = first.to_vec();
    for chunk in reader {
        let chunk = chunk.unwrap();
        assert!(chunk.len() <= 256 * 1024);
        stream.extend_from_slice(&chunk);
    }

    let target = dir.path().join("to");
    for size in [1000, 256 * 1024, stream.len()] {
        let info = install(pieces(&stream, size), &target, Some(CLUSTER), &options()).unwrap();
        assert_eq!(
            info.position,
            LogPosition {
                index: 400,
                term: 2
            }
        );
        assert_eq!(info.tenants, [TenantId(1), TenantId(7)]);
        assert_eq!(info.rows, 399 + 100);
        let (installed, opened) = Store::open(&target, options()).unwrap();
        assert_eq!(opened.applied, info.position);
        assert_eq!((opened.recovered, opened.set_aside), (None, None));
        assert_eq!(contents(&installed.view()), expected);
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn one_tenants_snapshot_has_nothing_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = source(&dir.path().join("from"));
    let scope = SnapshotScope::Tenant {
        tenant: TenantId(7),
        meta_prefixes: vec![Bytes::from_static(b"1/"), Bytes::from_static(b"1/m")],
    };
    let target = dir.path().join("to");
    let stream = chunks(&store, &scope);
    let info = install(
        stream.into_iter().map(Ok::<_, Infallible>),
        &target,
        None,
        &options(),
    )
    .unwrap();
    assert_eq!(
        (info.tenants, info.rows, info.meta_records),
        (vec![TenantId(7)], 100, 10)
    );
    let (installed, _) = Store::open(&target, options()).unwrap();
    let (rows, meta) = contents(&installed.view());
    assert_eq!(rows.len(), 1);
    assert!(meta.iter().all(|(k, _)| k.starts_with(b"1/")));
}

#[test]
fn every_damage_is_found_and_leaves_the_present_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = source(&dir.path().join("from"));
    let blocks = chunks(&store, &SnapshotScope::All);
    let stream = blocks.concat();
    assert_eq!(verify(pieces(&stream, 5000)).unwrap().cluster_id, CLUSTER);
    let refused = |stream: &[u8], case: &str| {
        assert!(
            matches!(
                verify(pieces(stream, 100_000)),
                Err(InstallError::Snapshot(_))
            ),
            "{case}"
        );
    };
    for at in (0..stream.len()).step_by(stream.len() / 150).chain(0..60) {
        refused(&stream[..at], &format!("cut at {at}"));
        let mut bad = stream.clone();
        bad[at] ^= 0x04;
        refused(&bad, &format!("flip at {at}"));
    }
    refused(&[&stream[..], &[0]].concat(), "longer");
    refused(&[&stream[..], &stream[8..]].concat(), "twice");
    let mut swapped = blocks.clone();
    swapped.swap(1, 2);
    refused(&swapped.concat(), "swapped");
    let mut without = blocks.clone();
    without.remove(1);
    refused(&without.concat(), "left out");
    let mut newer = stream.clone();
    newer[7] = 9;
    assert_eq!(
        verify(pieces(&newer, 9)).unwrap_err().to_string(),
        "snapshot has version 9, this program knows versions up to 1"
    );

    let target = dir.path().join("to");
    let (present, _) = Store::open(&target, options()).unwrap();
    let position = LogPosition { index: 5, term: 1 };
    present.stage(position, vec![Change::PutRow(TenantId(1), row(2, 3))]);
    present.persist().unwrap();
    drop(present);
    let cut = &stream[..stream.len() - 1];
    assert!(install(pieces(cut, 70_000), &target, None, &options()).is_err());
    assert!(matches!(
        install(pieces(&stream, 70_000), &target, Some(1), &options()),
        Err(InstallError::OtherCluster { found: CLUSTER, .. })
    ));
    let (_, opened) = Store::open(&target, options()).unwrap();
    assert_eq!(opened.applied, position);
}

#[test]
fn an_empty_store_has_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&dir.path().join("s"), options()).unwrap();
    let stream = chunks(&store, &SnapshotScope::All);
    let info = verify(stream.into_iter().map(Ok::<_, Infallible>)).unwrap();
    assert_eq!((info.rows, info.position), (0, LogPosition::default()));
}
