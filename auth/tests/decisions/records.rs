//! The records of a state: what changes say to write comes to the whole state, the whole state is read back, and damage is an error.

use crate::generate::Generator;
use crate::model::Model;
use bytes::Bytes;
use holdfast_auth::{AuthState, RecordChange, RecordError};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Records = BTreeMap<Bytes, Bytes>;

/// A random history, applied; what it wrote.
fn written(seed: u64, changes: usize) -> (AuthState, Records) {
    let mut generator = Generator::new(seed);
    let mut steps = generator.opening();
    steps.extend((0..changes).map(|_| generator.change_later()));
    steps.truncate(changes);
    let (mut state, mut model, mut records) = (AuthState::new(), Model::new(), Records::new());
    for step in steps {
        let change = step.make(&model);
        // The model only tells which permissions and users there are.
        let _ = model.apply(&change);
        let before = state.clone();
        match state.apply(&change) {
            Ok(applied) => {
                for record in applied.records {
                    match record {
                        RecordChange::Put(key, value) => records.insert(key, value),
                        RecordChange::Drop(key) => records.remove(&key),
                    };
                }
            }
            Err(_) => assert_eq!(state, before, "{change:?}"),
        }
    }
    (state, records)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn what_was_written_is_read_back(seed: u64, changes in 0_usize..160) {
        let (state, records) = written(seed, changes);
        let restored = AuthState::restore(records.clone().into_iter());
        prop_assert_eq!(restored.as_ref(), Ok(&state));
        // A state in which nothing happened has written nothing yet, and writes its settings in a snapshot.
        if !records.is_empty() {
            let whole: Records = state.records().collect();
            prop_assert_eq!(&whole, &records);
        }
        let again = AuthState::restore(state.records());
        prop_assert_eq!(again.as_ref(), Ok(&state));
    }

    #[test]
    fn damaged_records_are_no_panic(
        seed: u64,
        which: prop::sample::Index,
        place: prop::sample::Index,
        damage in 0_u8..5,
        byte: u8,
    ) {
        let (_, records) = written(seed, 60);
        let mut list: Vec<(Bytes, Bytes)> = records.into_iter().collect();
        let at = which.index(list.len());
        let (key, value) = list[at].clone();
        let mut bytes = value.to_vec();
        let spot = place.index(bytes.len());
        match damage {
            0 => bytes[spot] ^= byte,
            1 => bytes.truncate(spot),
            2 => bytes.push(byte),
            3 => bytes.insert(spot, byte),
            _ => {
                let mut key = key.to_vec();
                let spot = place.index(key.len());
                key[spot] = byte;
                list[at].0 = key.into();
            }
        }
        list[at].1 = bytes.into();
        let restored = AuthState::restore(list.into_iter());
        match damage {
            // Whatever is accepted is a state of its own that is written and read like any other.
            0 | 3 | 4 => {
                if let Ok(state) = restored {
                    prop_assert_eq!(AuthState::restore(state.records()), Ok(state));
                }
            }
            _ => prop_assert!(restored.is_err()),
        }
    }

    #[test]
    fn any_bytes_are_no_panic(
        kind in prop::sample::select(&b"surx"[..]),
        name in prop::collection::vec(any::<u8>(), 0..6),
        value in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut key = vec![kind];
        key.extend(name);
        let value = [&[1][..], &value].concat();
        let _ = AuthState::restore([(key.into(), value.into())].into_iter());
    }
}

#[track_caller]
fn refused(records: &[(&'static [u8], Vec<u8>)], expected: RecordError) {
    let records = records
        .iter()
        .map(|(key, value)| (Bytes::from_static(key), Bytes::from(value.clone())));
    assert_eq!(AuthState::restore(records), Err(expected));
}

fn settings(enabled: u8, revision: u64) -> Vec<u8> {
    settings_since(enabled, revision, 0)
}

fn settings_since(enabled: u8, revision: u64, tokens_since: u64) -> Vec<u8> {
    [
        &[1, enabled][..],
        &revision.to_le_bytes(),
        &tokens_since.to_le_bytes(),
    ]
    .concat()
}

fn user(id: u64, credential: u64, epoch: u64, roles: &[&str]) -> Vec<u8> {
    let mut record = vec![1];
    for number in [id, epoch, credential] {
        record.extend(number.to_le_bytes());
    }
    record.extend([0, 0]);
    record.extend((roles.len() as u16).to_le_bytes());
    for role in roles {
        record.extend((role.len() as u16).to_le_bytes());
        record.extend(role.as_bytes());
    }
    record
}

#[test]
fn records_that_do_not_fit_together_are_refused() {
    let good = [(&b"s"[..], settings(0, 5)), (b"uada", user(2, 2, 3, &[]))];
    let read = good
        .iter()
        .map(|(key, value)| (Bytes::from_static(key), Bytes::from(value.clone())));
    assert_eq!(AuthState::restore(read).unwrap().revision(), 5);

    refused(&good[1..], RecordError::Without("settings"));
    refused(
        &[(b"s", settings(1, 5))],
        RecordError::Without("the root that being enabled needs"),
    );
    refused(
        &[(b"s", settings(0, 5)), (b"s", settings(0, 5))],
        RecordError::Twice("record"),
    );
    refused(&[(b"s", settings(2, 5))], RecordError::Field("switch"));
    refused(&[(b"s", settings(0, 0))], RecordError::Field("revision"));
    refused(
        &[(b"s", settings(0, u64::MAX))],
        RecordError::Field("revision"),
    );
    refused(
        &[(b"s", settings_since(0, 5, 6))],
        RecordError::Field("epoch"),
    );
    for (id, credential, epoch) in [(1, 1, 1), (3, 2, 3), (2, 3, 2), (2, 2, 6)] {
        refused(
            &[
                (b"s", settings(0, 5)),
                (b"uada", user(id, credential, epoch, &[])),
            ],
            RecordError::Field("epoch"),
        );
    }
    refused(
        &[
            (b"s", settings(0, 5)),
            (b"uada", user(2, 2, 2, &[])),
            (b"ubob", user(2, 2, 2, &[])),
        ],
        RecordError::Twice("user id"),
    );
    refused(
        &[(b"s", settings(0, 5)), (b"uada", user(2, 2, 2, &["gone"]))],
        RecordError::Without("a role that a user holds"),
    );
    refused(
        &[
            (b"s", settings(0, 5)),
            (b"uada", user(2, 2, 2, &["root", "root"])),
        ],
        RecordError::Field("order of roles"),
    );
    for name in [&b"u"[..], b"ua\nb", b"u\xff"] {
        refused(
            &[(b"s", settings(0, 5)), (name, user(2, 2, 2, &[]))],
            RecordError::Name,
        );
    }
    refused(&[(b"", settings(0, 5))], RecordError::Kind);
    refused(&[(b"s", vec![2])], RecordError::Format(2));
}

#[test]
fn absurd_counts_and_lengths_are_refused() {
    let mut roles = user(2, 2, 2, &[]);
    let end = roles.len();
    roles[end - 2..].copy_from_slice(&u16::MAX.to_le_bytes());
    refused(
        &[(b"s", settings(0, 5)), (b"uada", roles)],
        RecordError::TooMany("roles of a user"),
    );
    refused(
        &[(b"rr", vec![1, 0xff, 0xff])],
        RecordError::TooMany("permissions in a role"),
    );
    let mut long = vec![1, 1, 0, 1];
    long.extend(u32::MAX.to_le_bytes());
    long.extend(b"a");
    refused(&[(b"rr", long)], RecordError::Truncated);
}
