//! TLS for every listener and every client of Holdfast: configurations, hot reload of certificates, CAs and CRLs, the
//! identity behind a client certificate, the automatic self-signed certificate and the development CA.
//!
//! This is the only crate that names rustls; the provider is always aws-lc-rs. Others see [`ServerTls`], [`accept`],
//! [`ClientTls`], [`TlsConnector`] and the stream types behind [`ServerStream`] and [`ClientStream`].
//!
//! # Invariants
//!
//! * **No resumption, ever.** A resumed session skips the verification of the client certificate, so a certificate that
//!   was revoked in between would pass. No tickets, no session cache, no early data, on either side.
//! * **One way in.** [`ServerTls`] builds every listener's configuration; there is no second constructor that could
//!   forget the CRL (CVE-2026-59818).
//! * **One verdict.** The handshake and the later re-check of a live connection ([`ServerTls::still_valid`]) run the
//!   same function on the same trust material.
//! * **A bad file changes nothing.** A reload that fails leaves the configuration in use untouched.
//! * **Bounded input.** Files, chains, names and SAN lists have limits; what exceeds them is an error, never a panic.
//!
//! # What this crate must not know
//!
//! Which tenants and users there are (it only reads names out of certificates), flags, gRPC, metrics. It reports warnings,
//! errors and counters-to-be as values; the server logs them.

mod accept;
mod anchors;
mod auto_tls;
mod cipher_suites;
mod client;
mod client_trust;
mod connector;
mod crl;
mod dev_ca;
mod durable_file;
mod error;
mod identity;
mod issue;
mod key_material;
mod named_user;
mod provider;
mod server;
mod settings;
mod source_file;
mod target;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use accept::{HandshakeError, ServerStream, accept};
pub use auto_tls::{SelfSigned, self_signed};
pub use client::{ClientStream, ClientTls, ConnectError, connect};
pub use connector::{ClientIo, TlsConnector};
pub use dev_ca::{DevCa, DevCaFiles};
pub use error::{Invalid, IssueError, TlsError, Warning};
pub use identity::PeerIdentity;
pub use issue::{Issued, LeafRequest};
pub use named_user::{IdentityError, NameSource, NamedUser};
pub use server::{Polled, Reloaded, ServerTls};
pub use settings::{
    ClientAuth, ClientTlsSettings, CrlExpiry, CrlUnknown, EkuPolicy, ServerTlsSettings, TlsVersion,
};
pub use target::{Target, TargetError};
