//! Crashes and full disks of the store in memory.

use super::*;

/// Opens a store of transactions 2 to 40, a batch each, checkpointed at 20; dropped, as by the death of the process.
fn died(memory: &MemoryStore) {
    let (store, _) = Store::in_memory(memory, small()).unwrap();
    for main in 2..=40 {
        stage(&store, main..=main);
        store.persist().unwrap();
        if main == 20 {
            assert_eq!(store.checkpoint().unwrap(), at(20));
        }
    }
    stage(&store, 41..=45);
}

#[test]
fn the_death_of_the_process_loses_what_was_staged_and_no_more() {
    let memory = MemoryStore::default();
    died(&memory);
    let (store, opened) = Store::in_memory(&memory, small()).unwrap();
    assert_eq!(opened.applied, at(40));
    check(&store, 40);
}

#[test]
fn a_power_cut_keeps_a_prefix_of_the_batches_since_the_checkpoint() {
    for kept in 0..=20 {
        let memory = MemoryStore::default();
        died(&memory);
        assert_eq!(memory.unsynced_batches(), 20);
        let mut asked = Vec::new();
        memory.crash(&mut |n| {
            asked.push(n);
            kept
        });
        assert_eq!(asked, [21]);
        let (store, opened) = Store::in_memory(&memory, small()).unwrap();
        assert_eq!(opened.applied, at(20 + kept));
        check(&store, 20 + kept as i64);
        // What survived is durable now, also through the next one.
        stage(&store, 21 + kept as i64..=50);
        store.persist().unwrap();
        memory.crash(&mut |_| 0);
        let (store, opened) = Store::in_memory(&memory, small()).unwrap();
        assert_eq!(opened.applied, at(20 + kept));
        check(&store, 20 + kept as i64);
    }
}

#[test]
fn who_had_it_open_in_the_power_cut_reads_on_but_writes_nothing() {
    let memory = MemoryStore::default();
    let (old, _) = Store::in_memory(&memory, small()).unwrap();
    assert!(matches!(
        Store::in_memory(&memory.clone(), small()),
        Err(OpenError::Locked { .. })
    ));
    stage(&old, 2..=10);
    old.persist().unwrap();
    memory.crash(&mut |_| 0);
    let (new, opened) = Store::in_memory(&memory, small()).unwrap();
    assert_eq!(opened, Opened::default());
    stage(&old, 11..=12);
    assert!(matches!(old.persist(), Err(PersistError::Stopped { .. })));
    assert!(matches!(
        old.checkpoint(),
        Err(PersistError::Stopped { .. })
    ));
    check(&old, 12);
    stage(&new, 2..=5);
    new.persist().unwrap();
    new.checkpoint().unwrap();
    drop((old, new));
    let (store, _) = Store::in_memory(&memory, small()).unwrap();
    check(&store, 5);
}

#[test]
fn injected_failures_leave_everything_staged_and_a_retry_succeeds() {
    let memory = MemoryStore::default();
    let (store, _) = Store::in_memory(&memory, small()).unwrap();
    stage(&store, 2..=30);
    let no_space = |result: Result<LogPosition, PersistError>| {
        assert!(matches!(result, Err(PersistError::NoSpace { .. })));
    };
    memory.set_full(true);
    no_space(store.persist().map(|p| p.position));
    no_space(store.checkpoint());
    assert!(store.staged_bytes() > 0);
    memory.set_full(false);
    memory.fail_persist(1);
    no_space(store.persist().map(|p| p.position));
    check(&store, 30);
    assert_eq!(store.persist().unwrap().position, at(30));
    memory.fail_checkpoint(2);
    assert_eq!(store.checkpoint().unwrap(), at(30));
    stage(&store, 31..=32);
    store.persist().unwrap();
    no_space(store.checkpoint());
    assert_eq!(memory.unsynced_batches(), 1);
    assert_eq!(store.checkpoint().unwrap(), at(32));
    memory.crash(&mut |_| 0);
    let (store, _) = Store::in_memory(&memory, small()).unwrap();
    check(&store, 32);
}
