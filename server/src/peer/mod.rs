//! The peer protocol: messages, snapshots and calls between the members of a cluster, over HTTP/2.
//!
//! This module knows nothing of raft, tenants or leases: it carries bytes, and a [`PeerHandler`] makes sense of them. One thread,
//! `hf-peer`, serves the peer listeners and keeps a stream of messages to each other member, so that clients who keep the node busy
//! delay no heartbeat. Every stream and call begins with a [`Hello`], which is checked on both sides – version, cluster, members, data
//! directory, certificate – before anything else is looked at. All that another member can make this one hold is bounded
//! (`bounds.rs`); what it sends is an error at worst, never a panic.

mod bounds;
mod dial;
mod doors;
mod frames;
mod handler;
mod hello;
mod inbound;
mod link;
mod net;
mod notices;
mod outbox;
mod security;
mod serve;
mod snapshot;

pub(crate) use dial::CallError;
pub(crate) use handler::{
    ChangeMembers, DescribedMember, Description, HashAt, Hashes, KeepAlive, LeaseTimes,
    MembershipChange, PeerHandler, Reply, SnapshotSink, TimeToLive,
};
pub(crate) use hello::{Hello, Known, Me, PeerVersion, Refusal};
pub(crate) use net::{PeerAddress, PeerListener, PeerNet, PeerOptions, describe};
pub(crate) use security::Security;
pub(crate) use snapshot::SnapshotPieces;

#[cfg(test)]
mod tests;
