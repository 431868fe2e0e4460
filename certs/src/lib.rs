//! TLS for every listener and every client of Holdfast: configurations, hot reload of certificates, CAs and CRLs, the
//! identity behind a certificate of a client or a member, the automatic self-signed certificate and the development CA.
//!
//! This is the only crate that names rustls; the provider is always aws-lc-rs. Others see [`ServerTls`], [`accept`],
//! [`ClientTls`], [`TlsConnector`], [`PeerTls`] and the stream types behind [`ServerStream`] and [`ClientStream`].
//!
//! # Invariants
//!
//! * **No resumption, ever.** A resumed session skips the verification of the client certificate, so a certificate that
//!   was revoked in between would pass. No tickets, no session cache, no early data, on either side.
//! * **One way in.** [`ServerTls`] builds every listener's configuration, that of [`PeerTls`] too; there is no second
//!   constructor that could forget the CRL (CVE-2026-59818).
//! * **One verdict.** The handshake and the later re-check of a live connection ([`ServerTls::still_valid`]) run the
//!   same function on the same trust material.
//! * **A bad file changes nothing.** A reload that fails leaves the configuration in use untouched.
//! * **Bounded input.** Files, chains, names and SAN lists have limits; what exceeds them is an error, never a panic.
//!
//! # What this crate must not know
//!
//! Which tenants, users and members there are (it only reads names out of certificates), flags, gRPC, metrics. It reports warnings,
//! errors and counters-to-be as values; the server logs them.

mod accept;
mod anchors;
mod auto_tls;
mod cipher_suites;
mod client;
mod connector;
mod crl;
mod dev_authority;
mod dev_ca;
mod dev_peers;
mod durable_file;
mod error;
mod identity;
mod issue;
mod key_material;
mod member;
mod named_user;
mod peer_connector;
mod peer_settings;
mod peer_tls;
mod provider;
mod server;
mod settings;
mod source_file;
mod sources;
mod target;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod trust;

pub use accept::{HandshakeError, ServerStream, accept};
pub use auto_tls::{SelfSigned, self_signed};
pub use client::{ClientStream, ClientTls, ConnectError, connect};
pub use connector::{ClientIo, TlsConnector};
pub use dev_ca::{DevCa, DevCaFiles};
pub use dev_peers::{DevMemberFiles, DevPeerCa};
pub use error::{Invalid, IssueError, TlsError, Warning};
pub use identity::PeerIdentity;
pub use issue::{Issued, LeafRequest};
pub use member::{MemberClaim, MemberRefused};
pub use named_user::{IdentityError, NameSource, NamedUser};
pub use peer_connector::PeerConnector;
pub use peer_settings::{PeerPolicy, PeerTlsSettings};
pub use peer_tls::PeerTls;
pub use server::{Polled, Reloaded, ServerTls};
pub use settings::{
    ClientAuth, ClientTlsSettings, CrlExpiry, CrlUnknown, EkuPolicy, ServerTlsSettings, TlsVersion,
};
pub use target::{Target, TargetError};
