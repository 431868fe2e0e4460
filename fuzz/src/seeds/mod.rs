//! Valid inputs to start from: what random bytes would take long to become.

mod certificates;
mod files;
mod messages;
mod peers;
pub(crate) mod token;

use crate::TARGETS;

/// Valid inputs for a target, with names for their files. The same each time.
pub fn of(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    match target {
        "auth_records" => files::auth_records(),
        "command" => files::commands(),
        "peer_frames" => crate::targets::peer_frames::seeds::frames(),
        "peer_messages" => peers::messages(),
        "raft_log" => files::raft_logs(),
        "snapshot" => files::snapshots(),
        "grpc_message" => messages::grpc(),
        "framing" => messages::frames(),
        "headers" => messages::headers(),
        "tls_chain" => certificates::chains(),
        "tls_identity" => certificates::names(),
        "jwks" => token::key_sets(),
        "token" => token::tokens(),
        _ => Vec::new(),
    }
}

/// All valid inputs: target, name, bytes.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str, Vec<u8>)> {
    TARGETS.iter().flat_map(|(target, _)| {
        of(target)
            .into_iter()
            .map(move |(name, bytes)| (*target, name, bytes))
    })
}

/// A length (one byte), and the bytes.
pub(crate) fn short(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![u8::try_from(bytes.len()).expect("a short seed")];
    out.extend_from_slice(bytes);
    out
}

/// A length (two bytes), and the bytes.
fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a seed below 64 KiB");
    let mut out = length.to_le_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}
