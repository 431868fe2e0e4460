//! Records of users and roles as a store or a snapshot gives them back, and changes on top.
//!
//! Input: number of records, each with key (u8 length) and value (u16 length); then an entry of commands (`command` has their form).
//! What is read back is exactly what was written: the state's own records are those of the input. After each change the records are what
//! the change said to write, and a refused change leaves everything as it was.

use crate::input::Input;
use bytes::Bytes;
use holdfast_auth::{AuthState, Caller, RecordChange, Verb};
use holdfast_tenant::Command;
use std::collections::BTreeMap;

type Records = BTreeMap<Bytes, Bytes>;

/// More changes say nothing new, and cost time.
const MAX_CHANGES: usize = 64;

pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let pairs: Vec<(Bytes, Bytes)> = (0..input.u8())
        .map(|_| {
            let key = Bytes::copy_from_slice(input.short());
            (key, Bytes::copy_from_slice(input.long()))
        })
        .collect();
    let mut records: Records = pairs.iter().cloned().collect();
    let doubled = records.len() != pairs.len();
    let Ok(mut state) = AuthState::restore(pairs.into_iter()) else {
        return false;
    };
    assert!(!doubled, "the same record twice");
    if records.is_empty() {
        records = state.records().collect();
    }
    same(&state, &records);
    let mut entry = Bytes::copy_from_slice(input.rest());
    for _ in 0..MAX_CHANGES {
        let Ok(Some((_, _, command))) = Command::decode_next(&mut entry) else {
            break;
        };
        let Command::Auth(change) = command else {
            continue;
        };
        let before = state.clone();
        match state.apply(&change) {
            Ok(applied) => {
                for record in applied.records {
                    match record {
                        RecordChange::Put(key, value) => records.insert(key, value),
                        RecordChange::Drop(key) => records.remove(&key),
                    };
                }
                same(&state, &records);
            }
            Err(_) => assert!(state == before, "a refused change changed something"),
        }
    }
    true
}

/// The state's records are these and are read back, and its decisions can be made.
fn same(state: &AuthState, records: &Records) {
    let own: Records = state.records().collect();
    assert_eq!(own, *records);
    let again = AuthState::restore(state.records());
    assert!(
        again.as_ref() == Ok(state),
        "what was written is not read back"
    );
    for user in state.users() {
        let caller = Caller::User {
            id: user.id,
            token: None,
        };
        let access = state.access(&caller).expect("a user may always ask");
        for role in user.roles.iter().filter_map(|role| state.role(role)) {
            for permission in role.permissions() {
                let granted = access.allows(Verb::Read, &permission.keys)
                    || access.allows(Verb::Write, &permission.keys);
                assert!(granted, "a permission that grants nothing");
            }
        }
    }
}
