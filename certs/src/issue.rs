//! Making certificates: the parameters that the development CA and the automatic certificate share.

use std::{
    fmt,
    net::IpAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use time::OffsetDateTime;

use crate::{durable_file, error::IssueError, identity::LeafNames};

/// Certificates start this much in the past, for clients whose clock is behind.
pub(crate) const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// One year.
pub(crate) const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a leaf certificate should say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafRequest {
    /// The subject's common name; may be empty. Without any other name the certificate identifies nobody.
    pub common_name: String,
    /// DNS names and addresses for the alternative names.
    pub hosts: Vec<String>,
    /// URIs for the alternative names, such as SPIFFE ids.
    pub uris: Vec<String>,
    /// Extended key usage serverAuth.
    pub server_auth: bool,
    /// Extended key usage clientAuth.
    pub client_auth: bool,
    /// From now; the certificate starts five minutes ago and never outlives its CA.
    pub validity: Duration,
}

impl LeafRequest {
    /// A client certificate for `common_name`, valid for a year.
    pub fn client(common_name: impl Into<String>) -> Self {
        Self {
            common_name: common_name.into(),
            hosts: Vec::new(),
            uris: Vec::new(),
            server_auth: false,
            client_auth: true,
            validity: YEAR,
        }
    }

    /// A server certificate for `hosts`, valid for a year.
    pub fn server<H: Into<String>>(hosts: impl IntoIterator<Item = H>) -> Self {
        Self {
            common_name: "holdfast".to_owned(),
            hosts: hosts.into_iter().map(Into::into).collect(),
            uris: Vec::new(),
            server_auth: true,
            client_auth: false,
            validity: YEAR,
        }
    }

    pub(crate) fn params(&self, now: SystemTime) -> Result<CertificateParams, IssueError> {
        if self.server_auth && self.hosts.is_empty() {
            return Err(IssueError::Request(
                "a server certificate needs at least one host".to_owned(),
            ));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if !self.common_name.is_empty() {
            params
                .distinguished_name
                .push(DnType::CommonName, self.common_name.as_str());
        } else if self.hosts.is_empty() && self.uris.is_empty() {
            // A subject may be empty only beside alternative names (RFC 5280 §4.1.2.6). This one names no user.
            params
                .distinguished_name
                .push(DnType::OrganizationName, "Holdfast");
        }
        for host in &self.hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(
                    host.as_str()
                        .try_into()
                        .map_err(|_| not_a_name("host", host))?,
                ),
            });
        }
        for uri in &self.uris {
            let name = uri
                .as_str()
                .try_into()
                .map_err(|_| not_a_name("URI", uri))?;
            params.subject_alt_names.push(SanType::URI(name));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = [
            (self.server_auth, ExtendedKeyUsagePurpose::ServerAuth),
            (self.client_auth, ExtendedKeyUsagePurpose::ClientAuth),
        ]
        .into_iter()
        .filter_map(|(wanted, usage)| wanted.then_some(usage))
        .collect();
        set_validity(&mut params, now, self.validity)?;
        Ok(params)
    }
}

/// A fresh certificate with its private key.
#[derive(Clone)]
#[non_exhaustive]
pub struct Issued {
    /// The certificate in PEM.
    pub cert_pem: String,
    /// The private key in PEM (PKCS #8).
    pub key_pem: String,
    /// Serial number in lower-case hexadecimal without leading zeros.
    pub serial_hex: String,
    /// End of validity.
    pub not_after: SystemTime,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("serial_hex", &self.serial_hex)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Issued {
    /// Writes `<name>.crt` and `<name>.key` (mode 0600) into `dir`, each atomically, the key first.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn write(&self, dir: &Path, name: &str) -> Result<(), IssueError> {
        self.write_as(dir, &format!("{name}.crt"), &format!("{name}.key"))
    }

    pub(crate) fn write_as(&self, dir: &Path, cert: &str, key: &str) -> Result<(), IssueError> {
        durable_file::write(dir, key, self.key_pem.as_bytes(), durable_file::PRIVATE)?;
        durable_file::write(dir, cert, self.cert_pem.as_bytes(), durable_file::PUBLIC)
    }

    pub(crate) fn new(cert: &rcgen::Certificate, key: &KeyPair) -> Result<Self, IssueError> {
        let names = LeafNames::parse(cert.der())
            .map_err(|invalid| IssueError::Request(invalid.to_string()))?;
        Ok(Self {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
            serial_hex: names.serial_hex,
            not_after: names.not_after,
        })
    }
}

/// A new key. P-256 because every TLS stack in use knows it (Ed25519 fails with older Java and with FIPS builds of Go).
pub(crate) fn new_key() -> Result<KeyPair, IssueError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(generate)
}

/// Signs with `issuer`, or with the certificate's own key if there is none.
pub(crate) fn issue(
    params: &CertificateParams,
    issuer: Option<&Issuer<'_, &KeyPair>>,
) -> Result<Issued, IssueError> {
    let key = new_key()?;
    let cert = match issuer {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    }
    .map_err(generate)?;
    Issued::new(&cert, &key)
}

pub(crate) fn set_validity(
    params: &mut CertificateParams,
    now: SystemTime,
    validity: Duration,
) -> Result<(), IssueError> {
    /// Beyond this, somebody mistook the unit. It also keeps the end within what X.509 can write.
    const LONGEST: Duration = YEAR.saturating_mul(100);
    if validity.is_zero() || validity > LONGEST {
        return Err(IssueError::Request(
            "the validity of a certificate must be between 1 second and 100 years".to_owned(),
        ));
    }
    let start = now.checked_sub(BACKDATE);
    let end = now.checked_add(validity);
    let (Some(start), Some(end)) = (start, end) else {
        return Err(IssueError::Request(
            "the system's clock is out of range".to_owned(),
        ));
    };
    params.not_before = OffsetDateTime::from(start);
    params.not_after = OffsetDateTime::from(end);
    Ok(())
}

pub(crate) fn generate(error: rcgen::Error) -> IssueError {
    IssueError::Generate(error.to_string())
}

pub(crate) fn not_a_name(what: &str, name: &str) -> IssueError {
    IssueError::Request(format!(
        "{what} {:?} cannot stand in a certificate",
        name.chars().take(200).collect::<String>()
    ))
}

/// The bytes of a serial number in hexadecimal.
pub(crate) fn unhex(text: &str) -> Result<Vec<u8>, IssueError> {
    let bad = || IssueError::Request(format!("serial number {text:?} is not hexadecimal"));
    if text.is_empty() || text.len() > 40 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let even = if text.len().is_multiple_of(2) {
        text.to_owned()
    } else {
        format!("0{text}")
    };
    (0..even.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&even[at..at + 2], 16).map_err(|_| bad()))
        .collect()
}
