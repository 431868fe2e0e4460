//! Rows that no index could have written are refused.

use crate::Revision;
use crate::mvcc::{KeySpan, Mvcc, RestoreError, RowHeader};

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

#[test]
fn long_histories_come_back_as_they_were() {
    let mut mvcc = Mvcc::new();
    let mut rows = Vec::new();
    for round in 0..3_000i64 {
        let key =
            [b"hot", b"hit", b"hat"][usize::from(round % 3 != 0) + usize::from(round % 50 == 7)];
        if round % 41 == 40 {
            for deleted in mvcc.begin().delete_range(KeySpan::point(key)) {
                rows.push(tombstone(deleted.revision.main, key));
            }
        } else {
            let lease = [0, 0, 0, round, i64::MAX - round][usize::from(round as u8 % 5)];
            let written = mvcc.begin().put(key, lease);
            rows.push(RowHeader {
                lease,
                ..put(
                    written.revision.main,
                    key,
                    written.create_revision,
                    written.version,
                )
            });
        }
    }
    let mut restored = restore(&rows, mvcc.revision(), -1).unwrap();
    restored.root.check();
    for at in 0..=mvcc.revision() {
        for key in [b"hot", b"hit", b"hat"] {
            assert_eq!(restored.view().get_at(key, at), mvcc.view().get_at(key, at));
        }
    }
    for (mark, limit) in [(700, 100), (1_500, 7), (2_900, usize::MAX)] {
        for mvcc in [&mut mvcc, &mut restored] {
            mvcc.compact(mark).unwrap();
        }
        loop {
            let pruned = mvcc.prune(limit);
            assert_eq!(restored.prune(limit), pruned);
            if pruned.done {
                break;
            }
        }
        restored.root.check();
        assert!(
            restored
                .view()
                .history_at_compaction(i64::MAX)
                .eq(mvcc.view().history_at_compaction(i64::MAX))
        );
    }
}
