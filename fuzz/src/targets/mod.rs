//! The targets, one file each.

pub(crate) mod auth_records;
pub(crate) mod command;
pub(crate) mod framing;
pub(crate) mod grpc_message;
pub(crate) mod headers;
pub(crate) mod jwks;
pub(crate) mod peer_frames;
pub(crate) mod peer_messages;
pub(crate) mod raft_log;
pub(crate) mod snapshot;
pub(crate) mod tls_chain;
pub(crate) mod tls_identity;
pub(crate) mod token;
