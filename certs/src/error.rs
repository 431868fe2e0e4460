//! What can be wrong with TLS material ([`TlsError`]), with a peer's certificate ([`Invalid`]), with issuing one
//! ([`IssueError`]), and what is merely suspicious ([`Warning`]).

use std::{fmt, io, path::PathBuf, time::SystemTime};

use time::OffsetDateTime;

/// Why a TLS configuration could not be built. Each variant names the file and the reason.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file could not be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The path is a directory, a pipe or a device. A pipe would block the reader for ever.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// The file is larger than anything of its kind can sensibly be.
    #[error("{} is larger than {limit_bytes} bytes, the limit for {what}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What it should contain.
        what: &'static str,
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// No item of the wanted kind in the file.
    #[error("{} contains no {wanted}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// The PEM text is damaged, for example cut off.
    #[error("{} is not valid PEM: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The private key is protected by a passphrase; a server cannot ask for one.
    #[error("{} holds an encrypted private key; decrypt it, there is nobody to ask for the passphrase", path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// A certificate in the file cannot be used.
    #[error("{}, certificate {number}: {reason}", path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// Position in the file, counted from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The private key cannot be used.
    #[error("{}: unusable private key: {reason}", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key are both fine but do not belong together.
    #[error("the private key in {} does not match the certificate in {}", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// A revocation list in the file cannot be used.
    #[error("{}, revocation list {number}: {reason}", path.display())]
    BadCrl {
        /// The file.
        path: PathBuf,
        /// Position in the file, counted from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The settings contradict each other.
    #[error("TLS settings: {0}")]
    Settings(String),
    /// A cipher suite name that neither IANA nor Go knows.
    #[error("unknown cipher suite {name:?}; known for TLS 1.2: {known}")]
    UnknownCipherSuite {
        /// The name as given.
        name: String,
        /// The names that would have an effect.
        known: String,
    },
    /// The TLS library refused the configuration.
    #[error("TLS configuration: {0}")]
    Config(String),
}

impl TlsError {
    /// True when another attempt on the same file contents may succeed (the file was not readable).
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Read { .. })
    }
}

/// Something about the loaded material that works but that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// A certificate of ours, or a CA, is past its end.
    Expired {
        /// The file.
        path: PathBuf,
        /// Subject of the certificate.
        subject: String,
        /// The end of its validity.
        not_after: SystemTime,
    },
    /// A certificate of ours, or a CA, is not valid yet.
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// Subject of the certificate.
        subject: String,
        /// The start of its validity.
        not_before: SystemTime,
    },
    /// The certificate that we present is a CA certificate; rustls-based and other strict clients refuse it.
    CaAsLeaf {
        /// The file.
        path: PathBuf,
    },
    /// The certificate that we present lacks the serverAuth (or, for a client, clientAuth) extended key usage.
    WrongPurpose {
        /// The file.
        path: PathBuf,
        /// The missing usage.
        missing: &'static str,
    },
    /// A certificate in the chain is not the issuer of the one before it, so clients may fail to build a path.
    ChainOrder {
        /// The file.
        path: PathBuf,
        /// Position of the first certificate that does not fit, counted from 1.
        number: usize,
    },
    /// The private key may be read by every user of the machine.
    KeyWorldReadable {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A certificate among the CAs is not marked as a CA.
    NotACa {
        /// The file.
        path: PathBuf,
        /// Subject of the certificate.
        subject: String,
    },
    /// A revocation list is past its `nextUpdate`.
    CrlExpired {
        /// The file.
        path: PathBuf,
        /// Issuer of the list.
        issuer: String,
        /// When the next list should have been there.
        next_update: SystemTime,
    },
    /// No revocation list covers this CA: with [`crate::CrlUnknown::Refuse`] its certificates are refused.
    CaWithoutCrl {
        /// Subject of the CA.
        subject: String,
    },
    /// A cipher suite that Go knows but that is too weak to be offered here.
    CipherSuiteNotOffered {
        /// The name as given.
        name: String,
    },
    /// Cipher suites were given, but only TLS 1.3 is enabled, whose suites cannot be chosen.
    CipherSuitesWithoutEffect,
    /// The server certificate is not verified at all.
    VerificationOff,
    /// The certificate that we present to other members does not name this member, so they refuse it.
    NamesAnotherMember {
        /// The file.
        path: PathBuf,
        /// The name that it should carry.
        member: String,
        /// What it says instead.
        found: String,
    },
    /// Permissions of a file or directory of the development CA were too wide and have been narrowed.
    PermissionsRepaired {
        /// The file or directory.
        path: PathBuf,
        /// The permission bits found.
        found: u32,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired {
                path,
                subject,
                not_after,
            } => write!(
                f,
                "{}: certificate {subject:?} expired on {}",
                path.display(),
                utc(*not_after)
            ),
            Self::NotYetValid {
                path,
                subject,
                not_before,
            } => write!(
                f,
                "{}: certificate {subject:?} is not valid before {}",
                path.display(),
                utc(*not_before)
            ),
            Self::CaAsLeaf { path } => write!(
                f,
                "{}: a CA certificate is used as server or client certificate; strict peers refuse it",
                path.display()
            ),
            Self::WrongPurpose { path, missing } => write!(
                f,
                "{}: the certificate's extended key usage lacks {missing}; peers will refuse it",
                path.display()
            ),
            Self::ChainOrder { path, number } => write!(
                f,
                "{}: certificate {number} is not the issuer of the one before it",
                path.display()
            ),
            Self::KeyWorldReadable { path, mode } => write!(
                f,
                "{}: the private key is open to every user of this machine (mode {mode:03o})",
                path.display()
            ),
            Self::NotACa { path, subject } => write!(
                f,
                "{}: {subject:?} is trusted as a CA but is not marked as one",
                path.display()
            ),
            Self::CrlExpired {
                path,
                issuer,
                next_update,
            } => write!(
                f,
                "{}: the revocation list of {issuer:?} should have been replaced by {}",
                path.display(),
                utc(*next_update)
            ),
            Self::CaWithoutCrl { subject } => {
                write!(f, "no revocation list covers the CA {subject:?}")
            }
            Self::CipherSuiteNotOffered { name } => {
                write!(f, "cipher suite {name} is too weak and is not offered")
            }
            Self::CipherSuitesWithoutEffect => {
                f.write_str("cipher suites have no effect: only TLS 1.3 is enabled")
            }
            Self::VerificationOff => f.write_str(
                "the server certificate is not verified: anyone on the path can read and change everything",
            ),
            Self::NamesAnotherMember {
                path,
                member,
                found,
            } => write!(
                f,
                "{}: the certificate should name the member {member:?} but {found}; other members will refuse it",
                path.display()
            ),
            Self::PermissionsRepaired { path, found } => write!(
                f,
                "{}: permissions were {found:03o}, narrowed to the owner",
                path.display()
            ),
        }
    }
}

/// Why the certificate of a client or of another member is refused, at the handshake or later on a live connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// The certificate, one of its issuers or its CA is past its end.
    #[error("certificate expired on {}", utc(*not_after))]
    Expired {
        /// The end of its validity.
        not_after: SystemTime,
    },
    /// The certificate, one of its issuers or its CA is not valid yet.
    #[error("certificate is not valid before {}", utc(*not_before))]
    NotYetValid {
        /// The start of its validity.
        not_before: SystemTime,
    },
    /// No path to a CA that is trusted (any more).
    #[error("certificate was not issued by a trusted CA")]
    UnknownIssuer,
    /// The name of the issuer is known, but the signature was not made with its key.
    #[error("certificate has a wrong signature, or its CA's key has changed")]
    BadSignature,
    /// A revocation list names it, or one of its issuers.
    #[error("certificate or one of its issuers is revoked")]
    Revoked,
    /// Revocation lists are configured, but none covers every issuer in the path.
    #[error("no revocation list covers an issuer of the certificate")]
    RevocationUnknown,
    /// The revocation list is too old to prove anything.
    #[error("the revocation list should have been replaced by {}", utc(*next_update))]
    CrlExpired {
        /// When the next list should have been there.
        next_update: SystemTime,
    },
    /// The revocation list is not signed by the issuer that it names.
    #[error("the revocation list is not signed by the issuer of the certificate")]
    CrlNotTrusted,
    /// The extended key usage does not allow client authentication.
    #[error("certificate is not for client authentication (extended key usage)")]
    WrongPurpose,
    /// The extended key usage of a member that we connected to does not allow server authentication.
    #[error("certificate is not for server authentication (extended key usage)")]
    NotForServers,
    /// A CA certificate was presented as the holder's own.
    #[error("a CA certificate was presented as client certificate")]
    CaAsLeaf,
    /// The certificate of a member that we connected to is for other hosts.
    #[error("certificate is not valid for {0:?}")]
    WrongHost(String),
    /// A certificate for clients was presented by what should be a member.
    #[error("certificate is for clients, not for members: {0}")]
    ForClients(&'static str),
    /// A member's certificate has to name it, and this one cannot.
    #[error("certificate names no member: {0}")]
    NamesNoMember(String),
    /// The chain is fine but its name is not on the list.
    #[error("{0}")]
    NotAllowed(String),
    /// The certificate carries more than one URI name, which would be more than one user.
    #[error("certificate has several URI names")]
    SeveralUris,
    /// The certificate is damaged, or carries names that cannot be an identity.
    #[error("malformed certificate: {0}")]
    Malformed(String),
    /// A rule of path building was broken (name constraints, path length, too complex).
    #[error("certificate path refused: {0}")]
    Path(String),
    /// The listener no longer authenticates clients by certificate.
    #[error("this listener does not accept client certificates")]
    NoClientAuth,
}

impl Invalid {
    /// A short fixed word for metric labels and audit records.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::UnknownIssuer => "unknown_issuer",
            Self::BadSignature => "bad_signature",
            Self::Revoked => "revoked",
            Self::RevocationUnknown => "revocation_unknown",
            Self::CrlExpired { .. } => "crl_expired",
            Self::CrlNotTrusted => "crl_not_trusted",
            Self::WrongPurpose => "wrong_purpose",
            Self::NotForServers => "not_for_servers",
            Self::CaAsLeaf => "ca_as_leaf",
            Self::WrongHost(_) => "wrong_host",
            Self::ForClients(_) => "for_clients",
            Self::NamesNoMember(_) => "names_no_member",
            Self::NotAllowed(_) => "not_allowed",
            Self::SeveralUris => "several_uris",
            Self::Malformed(_) => "malformed",
            Self::Path(_) => "path",
            Self::NoClientAuth => "no_client_auth",
        }
    }
}

/// Why a certificate could not be issued or stored.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Reading back what is on disk failed.
    #[error(transparent)]
    Material(#[from] TlsError),
    /// A file or directory could not be created or written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A certificate has to be issued but the CA's key is not there.
    #[error("{} is missing: without the CA's key no certificate can be issued or renewed", path.display())]
    NoCaKey {
        /// Where the key should be.
        path: PathBuf,
    },
    /// The CA itself is past its end.
    #[error("the CA in {} expired on {}; move the directory away to get a new one", path.display(), utc(*not_after))]
    CaExpired {
        /// The CA certificate.
        path: PathBuf,
        /// The end of its validity.
        not_after: SystemTime,
    },
    /// The request makes no sense (no host, an impossible validity, an invalid name).
    #[error("{0}")]
    Request(String),
    /// The certificate library failed.
    #[error("cannot make the certificate: {0}")]
    Generate(String),
}

/// RFC 3339 in UTC, to the second; raw seconds for times no calendar has.
pub(crate) fn utc(at: SystemTime) -> String {
    let format =
        time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let seconds = match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
    };
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|date| date.format(&format).ok())
        .unwrap_or_else(|| format!("@{seconds}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_in_utc_and_never_panic() {
        assert_eq!(utc(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(utc(before), "1969-12-31T23:59:59Z");
        let absurd = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 60);
        assert_eq!(utc(absurd), format!("@{}", 1_u64 << 60));
    }
}
