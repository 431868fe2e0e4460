//! What strangers, impostors and thieves of a member's key can do at the peer port: nothing that ends a member, or that the others believe.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

mod attacker;
mod changes;
mod introductions;
mod messages;
#[path = "../security/mod.rs"]
mod security;
mod snapshots;
mod strangers;
/// The messages in bytes: the fuzz target has the same need of wrong ones.
#[path = "../../../fuzz/src/targets/peer_messages/wire.rs"]
#[expect(dead_code, reason = "the fuzz target makes more of it")]
mod wire;
