//! Commands of a raft entry: decoding returns, takes only what encoding writes, and encoding gives the same bytes again.

use bytes::Bytes;
use holdfast_auth::Demands;
use holdfast_tenant::Command;

pub(crate) fn run(data: &[u8]) -> bool {
    let mut entry = Bytes::copy_from_slice(data);
    let mut again = Vec::new();
    let mut read = 0;
    while let Ok(Some((tenant, caller, command))) = Command::decode_next(&mut entry) {
        let before = read;
        read = data.len() - entry.len();
        again.clear();
        command.encode(tenant, &caller, &mut again);
        assert_eq!(again, data[before..read], "{command:?} by {caller:?}");
        // What every member asks of a command before it applies it.
        let mut demands = 0_usize;
        command.demands(&mut |_, keys| demands += usize::from(!keys.is_empty()));
        let _ = command.standing();
        assert!(demands <= read - before, "more demands than bytes");
    }
    read > 0 && entry.is_empty()
}
