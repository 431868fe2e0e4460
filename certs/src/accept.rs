//! The server's side of a handshake.

use std::{io, time::SystemTime};

use rustls::{AlertDescription, HandshakeKind, InvalidMessage, PeerIncompatible};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use crate::{
    error::Invalid,
    identity::PeerIdentity,
    server::ServerTls,
    trust::{Role, unix_time},
};

/// An accepted TLS connection over `T`.
pub type ServerStream<T> = tokio_rustls::server::TlsStream<T>;

/// Performs the handshake on an accepted connection and yields the stream with the identity of the client, which is
/// `None` exactly when the listener does not ask for certificates.
///
/// There is no deadline in here: a client may send nothing for ever (CVE-2026-73500). Put it into a timeout; dropping the
/// future closes the connection.
///
/// # Errors
///
/// Why there is no connection; the client has been told as far as the protocol allows it.
pub async fn accept<T>(
    tls: &ServerTls,
    io: T,
) -> Result<(ServerStream<T>, Option<PeerIdentity>), HandshakeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let loaded = tls.loaded();
    let stream = TlsAcceptor::from(loaded.config.clone())
        .accept(io)
        .await
        .map_err(HandshakeError::from_io)?;
    let connection = stream.get_ref().1;
    // The configuration rules it out; if it ever happened, the certificate below would be one of an earlier session.
    if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
        return Err(HandshakeError::Protocol("a session was resumed".to_owned()));
    }
    let identity = match &loaded.clients {
        None => None,
        Some(clients) => {
            let chain = connection
                .peer_certificates()
                .ok_or(HandshakeError::NoCertificate)?;
            // Verified in the handshake already, by the same trust; here for the identity that comes out of it.
            let identity = clients
                .verify(chain, Role::Client, unix_time(SystemTime::now()))
                .map_err(HandshakeError::Certificate)?;
            Some(identity)
        }
    };
    Ok((stream, identity))
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The client went away in the middle: a port scan, a health check, an impatient user.
    #[error("client closed the connection during the handshake")]
    Closed,
    /// The connection broke.
    #[error("connection failed during the handshake: {0}")]
    Io(#[source] io::Error),
    /// The first bytes are not TLS; most often plain HTTP sent to a TLS port.
    #[error("client does not speak TLS (http:// instead of https://?)")]
    NotTls,
    /// No common version, cipher suite, group or application protocol.
    #[error("no common ground with the client: {0}")]
    Incompatible(String),
    /// The client presented no certificate.
    #[error("client presented no certificate")]
    NoCertificate,
    /// The client's certificate is refused.
    #[error("client certificate refused: {0}")]
    Certificate(#[source] Invalid),
    /// The client ended the handshake; the usual reason is that it does not trust our certificate.
    #[error("client refused the connection with alert {0}")]
    Alert(String),
    /// The client broke the protocol.
    #[error("TLS protocol error: {0}")]
    Protocol(String),
}

impl HandshakeError {
    /// A short fixed word for metric labels.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Io(_) => "io",
            Self::NotTls => "not_tls",
            Self::Incompatible(_) => "incompatible",
            Self::NoCertificate => "no_certificate",
            Self::Certificate(_) => "certificate",
            Self::Alert(_) => "alert",
            Self::Protocol(_) => "protocol",
        }
    }

    fn from_io(error: io::Error) -> Self {
        if let Some(tls) = tls_error(&error) {
            return Self::from_tls(tls);
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }

    fn from_tls(error: &rustls::Error) -> Self {
        use rustls::Error as E;
        match error {
            E::InvalidCertificate(reason) => Self::Certificate(Invalid::from_rustls(reason)),
            E::NoCertificatesPresented => Self::NoCertificate,
            E::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::NotTls,
            E::PeerIncompatible(why) => Self::Incompatible(incompatibility(why)),
            E::NoApplicationProtocol => {
                Self::Incompatible("no common application protocol (ALPN)".to_owned())
            }
            E::AlertReceived(AlertDescription::CloseNotify) => Self::Closed,
            E::AlertReceived(alert) => Self::Alert(format!("{alert:?}")),
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// The TLS library's error inside an I/O error.
pub(crate) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn incompatibility(why: &PeerIncompatible) -> String {
    match why {
        PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls13RequiredForQuic
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => {
            "it offers no TLS version that is enabled here".to_owned()
        }
        PeerIncompatible::NoCipherSuitesInCommon => "no common cipher suite".to_owned(),
        other => format!("{other:?}"),
    }
}
