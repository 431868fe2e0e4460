//! Another member's machine, and its state on the way to this one.

use holdfast_storage::backend::{IncomingStore, MemoryStore, Store, StoreOptions};
use holdfast_storage::lease::Millis;
use holdfast_storage::snapshot::{SnapshotReader, SnapshotScope};
use holdfast_tenant::Machine;
use std::sync::Arc;

const CLUSTER: u64 = 7;

pub(crate) fn store_options() -> StoreOptions {
    StoreOptions {
        cache_bytes: 4 << 10,
        reserve_bytes: 0,
        ..StoreOptions::default()
    }
}

/// A machine that has applied the same.
pub(crate) fn replica(machine: &Machine) -> Machine {
    let (store, _) = Store::in_memory(&MemoryStore::default(), store_options()).unwrap();
    store
        .install(received(&store, machine.tenants().store()))
        .unwrap();
    let options = machine.options().clone();
    let replica = Machine::restore(Arc::new(store), machine.position(), options, Millis(0));
    replica.unwrap()
}

/// What `from` holds, sent to the member of `to`.
pub(crate) fn received(to: &Store, from: &Store) -> IncomingStore {
    let mut installer = to.incoming(Some(CLUSTER)).unwrap();
    let stream = SnapshotReader::new(from.view(), CLUSTER, &SnapshotScope::All).unwrap();
    for piece in stream {
        installer.push(&piece.unwrap()).unwrap();
    }
    installer.finish().unwrap()
}
