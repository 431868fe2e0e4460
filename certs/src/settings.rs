//! The settings from which TLS configurations are built. Plain values: the server fills them from its flags.

use std::path::PathBuf;

/// A TLS protocol version. Older ones do not exist here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246), with AEAD suites and forward secrecy only.
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// Who may connect to a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// Anybody; no certificate is asked for.
    None,
    /// Only holders of a certificate issued by one of these CAs.
    Required {
        /// PEM files with CA certificates; at least one certificate in total.
        ca_files: Vec<PathBuf>,
    },
}

/// What to do when a revocation list is older than its own `nextUpdate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CrlExpiry {
    /// Refuse every certificate it would have to answer for: an attacker who can stop the list's delivery must not win.
    #[default]
    Enforce,
    /// Go on using it (etcd's behaviour), with a warning at load.
    Ignore,
}

/// What to do with a certificate for whose issuer there is no revocation list although lists are configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CrlUnknown {
    /// Refuse it: a list of the wrong issuer must not silently mean "nothing is revoked".
    #[default]
    Refuse,
    /// Accept it (etcd's behaviour).
    Accept,
}

/// How the extended key usage of client certificates is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EkuPolicy {
    /// The leaf must carry the extension and it must contain clientAuth.
    #[default]
    Required,
    /// A leaf without the extension passes (RFC 5280 calls it unrestricted; etcd's behaviour). One with the extension
    /// must contain clientAuth.
    IfPresent,
}

/// Everything that decides the TLS configuration of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTlsSettings {
    /// PEM file: the server's certificate first, then its intermediates.
    pub cert_file: PathBuf,
    /// PEM file: the private key (PKCS #8, SEC 1 or PKCS #1).
    pub key_file: PathBuf,
    /// Whether client certificates are required, and whose.
    pub client_auth: ClientAuth,
    /// File with revocation lists: one or more in PEM, or in DER one after the other.
    pub crl_file: Option<PathBuf>,
    /// See [`CrlExpiry`].
    pub crl_expiry: CrlExpiry,
    /// See [`CrlUnknown`].
    pub crl_unknown: CrlUnknown,
    /// See [`EkuPolicy`].
    pub client_eku: EkuPolicy,
    /// Oldest version that is negotiated.
    pub min_version: TlsVersion,
    /// Newest version that is negotiated.
    pub max_version: TlsVersion,
    /// IANA or Go names; they choose among the TLS 1.2 suites. Empty: all that are offered.
    pub cipher_suites: Vec<String>,
    /// If not empty, the client certificate's common name must be one of these.
    pub allowed_common_names: Vec<String>,
    /// If not empty, the client certificate must be valid for one of these host names or addresses (wildcards in the
    /// certificate count). Not together with `allowed_common_names`, as in etcd.
    pub allowed_hostnames: Vec<String>,
    /// Application protocols in order of preference.
    pub alpn: Vec<String>,
}

impl ServerTlsSettings {
    /// TLS 1.3 only, no client certificates, HTTP/2 preferred over HTTP/1.1, every policy at its strict end.
    pub fn new(cert_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        Self {
            cert_file: cert_file.into(),
            key_file: key_file.into(),
            client_auth: ClientAuth::None,
            crl_file: None,
            crl_expiry: CrlExpiry::default(),
            crl_unknown: CrlUnknown::default(),
            client_eku: EkuPolicy::default(),
            min_version: TlsVersion::Tls13,
            max_version: TlsVersion::Tls13,
            cipher_suites: Vec::new(),
            allowed_common_names: Vec::new(),
            allowed_hostnames: Vec::new(),
            alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
        }
    }

    /// The same, but with a certificate of one of these CAs required.
    #[must_use]
    pub fn with_client_ca(mut self, ca_file: impl Into<PathBuf>) -> Self {
        self.client_auth = ClientAuth::Required {
            ca_files: vec![ca_file.into()],
        };
        self
    }
}

/// Everything that decides how a client talks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTlsSettings {
    /// PEM file with the CAs that may have issued the server's certificate; `None` uses the system's bundle.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client's certificate chain. Together with `key_file` or not at all.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the client's private key.
    pub key_file: Option<PathBuf>,
    /// Accept any server certificate. The handshake is still encrypted and signed, but by whom is unknown.
    pub insecure_skip_verify: bool,
    /// Name to verify and to send as SNI instead of the host dialled.
    pub server_name: Option<String>,
    /// Oldest version that is negotiated.
    pub min_version: TlsVersion,
    /// Application protocols in order of preference. If `h2` is the only one, the server has to agree to it.
    pub alpn: Vec<String>,
}

impl Default for ClientTlsSettings {
    /// TLS 1.3 and HTTP/2 only, system CAs, no client certificate.
    fn default() -> Self {
        Self {
            ca_file: None,
            cert_file: None,
            key_file: None,
            insecure_skip_verify: false,
            server_name: None,
            min_version: TlsVersion::Tls13,
            alpn: vec!["h2".to_owned()],
        }
    }
}
