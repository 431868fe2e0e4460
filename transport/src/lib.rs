//! Byte streams between clients, servers and peers: what both ends of an HTTP/2 connection have in common.
//!
//! This crate must not know about TLS, HTTP, messages or metrics.

mod coalesce;

pub use coalesce::Coalesce;
