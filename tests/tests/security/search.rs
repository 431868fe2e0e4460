//! Bytes in which something is, or must not be.

use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::Raw;

/// The bytes of a snapshot.
pub(crate) async fn snapshot(raw: &Raw) -> Vec<u8> {
    let mut client = raw.maintenance.clone();
    let answer = client.snapshot(pb::SnapshotRequest {}).await;
    let mut stream = answer.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.message().await.unwrap() {
        bytes.extend_from_slice(&piece.blob);
    }
    bytes
}

/// Whether `form`, which is not empty, is somewhere in `bytes`.
pub(crate) fn holds(bytes: &[u8], form: &[u8]) -> bool {
    // Most bytes are not the first one.
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == form[0]) {
        let at = from + at;
        if bytes[at..].starts_with(form) {
            return true;
        }
        from = at + 1;
    }
    false
}
