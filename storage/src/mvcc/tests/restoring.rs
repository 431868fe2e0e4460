//! Rows that no index could have written are refused.

use crate::Revision;
use crate::mvcc::{Mvcc, RestoreError, RowHeader};

const fn put(
    main: i64,
    key: &'static [u8],
    create_revision: i64,
    version: i64,
) -> RowHeader<'static> {
    RowHeader {
        revision: Revision::first(main),
        key,
        create_revision,
        version,
        lease: 0,
        tombstone: false,
    }
}

const fn tombstone(main: i64, key: &'static [u8]) -> RowHeader<'static> {
    RowHeader {
        revision: Revision::first(main),
        key,
        create_revision: 0,
        version: 0,
        lease: 0,
        tombstone: true,
    }
}

fn restore(rows: &[RowHeader<'_>], revision: i64, compacted: i64) -> Result<Mvcc, RestoreError> {
    let mut restore = Mvcc::restore(revision, compacted);
    for row in rows {
        restore.row(*row)?;
    }
    restore.finish()
}

#[test]
fn impossible_rows_are_refused() {
    let five = Revision::first(5);
    let cases: &[(&[RowHeader<'_>], RestoreError)] = &[
        (
            &[put(5, b"a", 5, 1), put(5, b"b", 5, 1)],
            RestoreError::Order(five),
        ),
        (
            &[put(6, b"a", 6, 1), put(5, b"b", 5, 1)],
            RestoreError::Order(five),
        ),
        (
            &[put(1, b"a", 1, 1)],
            RestoreError::OutOfBounds(Revision::first(1)),
        ),
        (
            &[put(11, b"a", 11, 1)],
            RestoreError::OutOfBounds(Revision::first(11)),
        ),
        (&[put(5, b"", 5, 1)], RestoreError::Malformed(five)),
        (&[put(5, b"a", 6, 1)], RestoreError::Malformed(five)),
        (&[put(5, b"a", 1, 1)], RestoreError::Malformed(five)),
        (&[put(5, b"a", 5, 0)], RestoreError::Malformed(five)),
        (&[put(5, b"a", 5, i64::MAX)], RestoreError::Malformed(five)),
        (
            &[RowHeader {
                tombstone: true,
                ..put(5, b"a", 5, 1)
            }],
            RestoreError::Malformed(five),
        ),
        (
            &[put(4, b"a", 4, 1), put(5, b"a", 5, 1)],
            RestoreError::Discontinuous(five),
        ),
        (
            &[put(4, b"a", 4, 1), put(5, b"a", 4, 3)],
            RestoreError::Discontinuous(five),
        ),
        (
            &[tombstone(4, b"a"), put(5, b"a", 4, 2)],
            RestoreError::Discontinuous(five),
        ),
        (
            &[tombstone(4, b"a"), tombstone(5, b"a")],
            RestoreError::Discontinuous(five),
        ),
    ];
    for (rows, error) in cases {
        assert_eq!(restore(rows, 10, -1).err(), Some(*error), "{rows:?}");
    }
}

#[test]
fn impossible_marks_are_refused() {
    for (revision, compacted) in [(0, -1), (-3, -1), (i64::MAX, -1), (10, 11), (10, -2)] {
        assert_eq!(
            restore(&[], revision, compacted).err(),
            Some(RestoreError::Marks {
                revision,
                compacted
            })
        );
    }
    assert!(restore(&[], 10, 10).is_ok());
}

#[test]
fn a_history_may_begin_anywhere() {
    let mut mvcc = restore(
        &[
            put(5, b"a", 2, 4),
            put(6, b"a", 2, 5),
            tombstone(7, b"b"),
            put(8, b"a", 2, 6),
        ],
        10,
        8,
    )
    .unwrap();
    assert_eq!(mvcc.get(b"a").map(|version| version.version), Some(6));
    let pruned = mvcc.prune(usize::MAX);
    assert!(
        pruned
            .dropped
            .iter()
            .map(|revision| revision.main)
            .eq([5, 6, 7]),
        "{pruned:?}"
    );
    assert!(pruned.done);
}
