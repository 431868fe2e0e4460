//! Fuzz targets: everything that reads bytes before it is known who sent them, and everything that reads bytes back from disk.
//!
//! A target is a function that takes any bytes and must return. It panics when what it tests broke a promise; the promises stand at each
//! target. libFuzzer runs them through the programs in `fuzz_targets/` (`README.md` says how); `tests/smoke.rs` runs them over the
//! committed inputs on every toolchain.

#![expect(clippy::expect_used, reason = "a target reports by panicking")]

mod certificate;
mod input;
mod targets;

#[path = "../../server/src/framing.rs"]
mod framing;
#[path = "../../server/src/headers.rs"]
mod headers;
#[path = "../../server/src/grpc/lower.rs"]
mod lower;

pub mod seeds;

/// A target: takes any bytes, and panics if a promise is broken. Says whether what it tests accepted them.
pub type Target = fn(&[u8]) -> bool;

/// All targets by name. Each has a program in `fuzz_targets/` and a folder in `corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("auth_records", targets::auth_records::run),
    ("command", targets::command::run),
    ("framing", targets::framing::run),
    ("grpc_message", targets::grpc_message::run),
    ("headers", targets::headers::run),
    ("jwks", targets::jwks::run),
    ("peer_frames", targets::peer_frames::run),
    ("peer_messages", targets::peer_messages::run),
    ("raft_log", targets::raft_log::run),
    ("snapshot", targets::snapshot::run),
    ("tls_chain", targets::tls_chain::run),
    ("tls_identity", targets::tls_identity::run),
    ("token", targets::token::run),
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, target)| *target)
}

/// The body of a program in `fuzz_targets/`: gives each input of libFuzzer to one target.
#[cfg(feature = "libfuzzer")]
#[macro_export]
macro_rules! program {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| {
            static TARGET: std::sync::LazyLock<$crate::Target> =
                std::sync::LazyLock::new(|| $crate::target($name).expect("a target of that name"));
            (*TARGET)(data);
        });
    };
}
