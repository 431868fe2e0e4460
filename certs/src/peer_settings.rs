//! The settings of TLS between members.

use std::path::PathBuf;

use crate::{
    error::TlsError,
    settings::{ClientAuth, CrlExpiry, CrlUnknown, EkuPolicy, ServerTlsSettings, TlsVersion},
};

/// Whom a member takes for another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerPolicy {
    /// Profile `strict`: whose certificate names the member that it speaks for.
    Named {
        /// The name of this member. A certificate of ours that does not carry it is worth a warning.
        own_name: String,
        /// If given, URIs of other trust domains name nobody.
        trust_domain: Option<String>,
    },
    /// Profile `etcd`: whoever has a certificate of the CA, unless it is one for clients.
    AnyOfCa {
        /// If not empty, the certificate's common name must be one of these.
        allowed_common_names: Vec<String>,
        /// If not empty, the certificate must be valid for one of these host names or addresses. Not together with
        /// `allowed_common_names`, as in etcd.
        allowed_hostnames: Vec<String>,
        /// Do not compare the certificate with the address that it is used from.
        skip_address_check: bool,
    },
    /// etcd's `--peer-auto-tls`: anybody. The connection is encrypted, but to whom is unknown: it keeps out who listens, not who
    /// takes part.
    Unverified,
}

/// Everything that decides how a member talks TLS with others, in both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTlsSettings {
    /// PEM file: the certificate to serve with, then its intermediates.
    pub cert_file: PathBuf,
    /// PEM file: its private key.
    pub key_file: PathBuf,
    /// PEM file: the certificate for connections that we make, if it is another one. Together with `client_key_file` or not at all.
    pub client_cert_file: Option<PathBuf>,
    /// PEM file: its private key.
    pub client_key_file: Option<PathBuf>,
    /// PEM files with the CAs of members; none exactly with [`PeerPolicy::Unverified`].
    pub ca_files: Vec<PathBuf>,
    /// File with revocation lists: one or more in PEM, or in DER one after the other.
    pub crl_file: Option<PathBuf>,
    /// See [`CrlExpiry`].
    pub crl_expiry: CrlExpiry,
    /// See [`CrlUnknown`].
    pub crl_unknown: CrlUnknown,
    /// See [`EkuPolicy`]; of a member that we connect to it asks for serverAuth.
    pub eku: EkuPolicy,
    /// Oldest version that is negotiated.
    pub min_version: TlsVersion,
    /// Newest version that is negotiated.
    pub max_version: TlsVersion,
    /// IANA or Go names; they choose among the TLS 1.2 suites. Empty: all that are offered.
    pub cipher_suites: Vec<String>,
    /// See [`PeerPolicy`].
    pub policy: PeerPolicy,
}

impl PeerTlsSettings {
    /// Certificates name their members; TLS 1.3 only, every policy at its strict end.
    pub fn named(
        cert_file: impl Into<PathBuf>,
        key_file: impl Into<PathBuf>,
        ca_file: impl Into<PathBuf>,
        own_name: impl Into<String>,
    ) -> Self {
        let policy = PeerPolicy::Named {
            own_name: own_name.into(),
            trust_domain: None,
        };
        Self::new(cert_file, key_file, vec![ca_file.into()], policy)
    }

    /// Any certificate of the CA serves; as lenient as etcd about extended key usage and old revocation lists. TLS 1.3 only.
    pub fn any_of_ca(
        cert_file: impl Into<PathBuf>,
        key_file: impl Into<PathBuf>,
        ca_file: impl Into<PathBuf>,
    ) -> Self {
        let policy = PeerPolicy::AnyOfCa {
            allowed_common_names: Vec::new(),
            allowed_hostnames: Vec::new(),
            skip_address_check: false,
        };
        Self {
            crl_expiry: CrlExpiry::Ignore,
            crl_unknown: CrlUnknown::Accept,
            eku: EkuPolicy::IfPresent,
            ..Self::new(cert_file, key_file, vec![ca_file.into()], policy)
        }
    }

    /// Nobody is verified; see [`PeerPolicy::Unverified`]. TLS 1.3 only.
    pub fn unverified(cert_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        Self::new(cert_file, key_file, Vec::new(), PeerPolicy::Unverified)
    }

    fn new(
        cert_file: impl Into<PathBuf>,
        key_file: impl Into<PathBuf>,
        ca_files: Vec<PathBuf>,
        policy: PeerPolicy,
    ) -> Self {
        Self {
            cert_file: cert_file.into(),
            key_file: key_file.into(),
            client_cert_file: None,
            client_key_file: None,
            ca_files,
            crl_file: None,
            crl_expiry: CrlExpiry::default(),
            crl_unknown: CrlUnknown::default(),
            eku: EkuPolicy::default(),
            min_version: TlsVersion::Tls13,
            max_version: TlsVersion::Tls13,
            cipher_suites: Vec::new(),
            policy,
        }
    }

    /// The pair for connections that we make, if it is a separate one.
    pub(crate) fn separate_pair(&self) -> Result<Option<(PathBuf, PathBuf)>, TlsError> {
        match (&self.client_cert_file, &self.client_key_file) {
            (Some(cert), Some(key)) => Ok(Some((cert.clone(), key.clone()))),
            (None, None) => Ok(None),
            _ => Err(TlsError::Settings(
                "a certificate for connections to members and its key must be given together"
                    .to_owned(),
            )),
        }
    }

    /// As the listener's constructor takes them.
    pub(crate) fn listener(&self) -> Result<ServerTlsSettings, TlsError> {
        let refuse = |reason: &str| Err(TlsError::Settings(reason.to_owned()));
        match (&self.policy, self.ca_files.is_empty()) {
            (PeerPolicy::Unverified, false) => {
                return refuse("members are not verified but a CA file for them is given");
            }
            (PeerPolicy::Named { .. } | PeerPolicy::AnyOfCa { .. }, true) => {
                return refuse("members are verified but no CA file for them is given");
            }
            (PeerPolicy::Named { own_name, .. }, false) if own_name.is_empty() => {
                return refuse("certificates name members but this one has no name");
            }
            _ => {}
        }
        let mut settings = ServerTlsSettings::new(&self.cert_file, &self.key_file);
        if !self.ca_files.is_empty() {
            settings.client_auth = ClientAuth::Required {
                ca_files: self.ca_files.clone(),
            };
        }
        if let PeerPolicy::AnyOfCa {
            allowed_common_names,
            allowed_hostnames,
            ..
        } = &self.policy
        {
            settings
                .allowed_common_names
                .clone_from(allowed_common_names);
            settings.allowed_hostnames.clone_from(allowed_hostnames);
        }
        settings.crl_file.clone_from(&self.crl_file);
        settings.crl_expiry = self.crl_expiry;
        settings.crl_unknown = self.crl_unknown;
        settings.client_eku = self.eku;
        settings.min_version = self.min_version;
        settings.max_version = self.max_version;
        settings.cipher_suites.clone_from(&self.cipher_suites);
        settings.alpn = vec!["h2".to_owned()];
        Ok(settings)
    }
}
