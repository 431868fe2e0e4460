//! What TLS should be, in words: files and names. Making it so is the certs crate's part.

use std::path::PathBuf;

use crate::error::ConfigError;
use crate::profile::Profile;
use crate::settings::Settings;
use crate::spelling::nearest;
use crate::table::Key;

/// A certificate with its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, with its intermediates.
    pub cert_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
}

/// TLS towards clients, or towards other members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportSecurity {
    /// The server's certificate; absent with [`TransportSecurity::auto_tls`], in the quick start, or if nothing speaks TLS.
    pub certificate: Option<CertificateFiles>,
    /// For outgoing connections to other members, if not the same as `certificate`. Never set towards clients.
    pub outgoing_certificate: Option<CertificateFiles>,
    /// `--client-cert-auth`: require certificates, and take the user from the common name.
    pub client_cert_auth: bool,
    /// The CA of the certificates of those who connect.
    pub trusted_ca_file: Option<PathBuf>,
    /// Revocation list for them.
    pub crl_file: Option<PathBuf>,
    /// Common names of which a certificate must have one; empty allows all.
    pub allowed_cn: Vec<String>,
    /// Host names of which a certificate must carry one; empty allows all.
    pub allowed_hostname: Vec<String>,
    /// Do not compare a certificate's host names with the address it is used from.
    pub skip_client_san_verification: bool,
    /// Make a self-signed certificate at start if there is none.
    pub auto_tls: bool,
    /// Lowest version to accept.
    pub min_version: TlsVersion,
    /// Highest version to accept.
    pub max_version: TlsVersion,
    /// IANA names of the TLS 1.2 suites to offer; empty for all that are sound.
    pub cipher_suites: Vec<&'static str>,
    /// Validity of a self-signed certificate, in years.
    pub self_signed_cert_validity_years: u32,
}

impl TransportSecurity {
    /// Whether those who connect must present a certificate. As in etcd, naming a CA alone already requires one.
    #[must_use]
    pub fn requires_client_certificate(&self) -> bool {
        self.client_cert_auth || self.trusted_ca_file.is_some()
    }

    /// Whether there is, or will be, a certificate to serve TLS with.
    #[must_use]
    pub fn can_serve_tls(&self) -> bool {
        self.certificate.is_some() || self.auto_tls
    }
}

/// A TLS protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// The settings of one side.
struct Side {
    certificate: (Key, Key),
    outgoing: Option<(Key, Key)>,
    client_cert_auth: Key,
    trusted_ca_file: Key,
    crl_file: Key,
    allowed_cn: Key,
    allowed_hostname: Key,
    skip_san: Option<Key>,
    auto_tls: Key,
}

const CLIENT: Side = Side {
    certificate: (Key::CertFile, Key::CertKeyFile),
    outgoing: None,
    client_cert_auth: Key::ClientCertAuth,
    trusted_ca_file: Key::TrustedCaFile,
    crl_file: Key::ClientCrlFile,
    allowed_cn: Key::ClientCertAllowedCn,
    allowed_hostname: Key::ClientCertAllowedHostname,
    skip_san: None,
    auto_tls: Key::AutoTls,
};

const PEER: Side = Side {
    certificate: (Key::PeerCertFile, Key::PeerCertKeyFile),
    outgoing: Some((Key::PeerClientCertFile, Key::PeerClientKeyFile)),
    client_cert_auth: Key::PeerClientCertAuth,
    trusted_ca_file: Key::PeerTrustedCaFile,
    crl_file: Key::PeerCrlFile,
    allowed_cn: Key::PeerCertAllowedCn,
    allowed_hostname: Key::PeerCertAllowedHostname,
    skip_san: Some(Key::PeerSkipSan),
    auto_tls: Key::PeerAutoTls,
};

/// TLS towards clients and towards members.
///
/// In the quick start the files do not exist yet, so the demand for them is left to the server that makes them.
pub(crate) fn build(
    settings: &mut Settings,
    quick_start: bool,
    profile: Profile,
) -> Result<(TransportSecurity, TransportSecurity), ConfigError> {
    let (min_version, max_version) = versions(settings)?;
    let suites = cipher_suites(settings, min_version, max_version)?;
    let mut client = side(settings, &CLIENT, quick_start)?;
    let mut peer = side(settings, &PEER, quick_start)?;
    for tls in [&mut client, &mut peer] {
        tls.min_version = min_version;
        tls.max_version = max_version;
        tls.cipher_suites.clone_from(&suites);
    }
    if profile == Profile::Strict && peer.skip_client_san_verification {
        let name = Key::PeerSkipSan.row().name;
        return Err(ConfigError::Conflict(format!(
            "--{name} contradicts --profile=strict, which compares every member's certificate"
        )));
    }
    Ok((client, peer))
}

fn side(
    settings: &Settings,
    keys: &Side,
    quick_start: bool,
) -> Result<TransportSecurity, ConfigError> {
    let tls = TransportSecurity {
        certificate: pair(settings, keys.certificate)?,
        outgoing_certificate: keys
            .outgoing
            .map(|keys| pair(settings, keys))
            .transpose()?
            .flatten(),
        client_cert_auth: settings.boolean(keys.client_cert_auth)?,
        trusted_ca_file: settings.path(keys.trusted_ca_file),
        crl_file: settings.path(keys.crl_file),
        allowed_cn: settings.list(keys.allowed_cn),
        allowed_hostname: settings.list(keys.allowed_hostname),
        skip_client_san_verification: match keys.skip_san {
            Some(key) => settings.boolean(key)?,
            None => false,
        },
        auto_tls: settings.boolean(keys.auto_tls)?,
        min_version: TlsVersion::Tls13,
        max_version: TlsVersion::Tls13,
        cipher_suites: Vec::new(),
        self_signed_cert_validity_years: settings.number(Key::SelfSignedCertValidity)?,
    };
    if tls.trusted_ca_file.is_none() && !quick_start {
        let ca = keys.trusted_ca_file.row().name;
        let useless = [
            (tls.client_cert_auth, keys.client_cert_auth),
            (tls.crl_file.is_some(), keys.crl_file),
            (!tls.allowed_cn.is_empty(), keys.allowed_cn),
            (!tls.allowed_hostname.is_empty(), keys.allowed_hostname),
        ];
        if let Some((_, key)) = useless.into_iter().find(|(is_set, _)| *is_set) {
            return Err(ConfigError::Conflict(format!(
                "--{} ({}) needs --{ca}: without a CA no certificate can be verified",
                key.row().name,
                settings.origin(key),
            )));
        }
    }
    if !tls.allowed_cn.is_empty() && !tls.allowed_hostname.is_empty() {
        let [cn, hostname] = [keys.allowed_cn, keys.allowed_hostname].map(|key| key.row().name);
        return Err(ConfigError::Conflict(format!(
            "--{cn} and --{hostname} exclude each other"
        )));
    }
    Ok(tls)
}

fn pair(
    settings: &Settings,
    (cert, key): (Key, Key),
) -> Result<Option<CertificateFiles>, ConfigError> {
    match (settings.path(cert), settings.path(key)) {
        (Some(cert_file), Some(key_file)) => Ok(Some(CertificateFiles {
            cert_file,
            key_file,
        })),
        (None, None) => Ok(None),
        (given, _) => {
            let (present, absent) = if given.is_some() {
                (cert, key)
            } else {
                (key, cert)
            };
            Err(ConfigError::Conflict(format!(
                "--{} needs --{} too",
                present.row().name,
                absent.row().name
            )))
        }
    }
}

/// TLS 1.3 only, unless a version flag says otherwise; a given maximum of TLS 1.2 alone says so too.
fn versions(settings: &mut Settings) -> Result<(TlsVersion, TlsVersion), ConfigError> {
    let version = |settings: &Settings, key| match settings.text(key) {
        "TLS1.2" => Some(TlsVersion::Tls12),
        "TLS1.3" => Some(TlsVersion::Tls13),
        _ => None,
    };
    let max = version(settings, Key::TlsMaxVersion).unwrap_or(TlsVersion::Tls13);
    let given_min = settings
        .is_given(Key::TlsMinVersion)
        .then(|| version(settings, Key::TlsMinVersion))
        .flatten();
    let min = given_min.unwrap_or(max);
    if given_min.is_none() && max == TlsVersion::Tls12 {
        settings.derive(
            Key::TlsMinVersion,
            "TLS1.2".to_owned(),
            settings.origin(Key::TlsMaxVersion),
        );
    }
    if min > max {
        return Err(ConfigError::Conflict(
            "--tls-min-version is above --tls-max-version".to_owned(),
        ));
    }
    Ok((min, max))
}

/// The TLS 1.2 suites that are offered: forward secret and authenticated.
const SOUND_SUITES: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// Suites that etcd would take and that are not offered: no forward secrecy, CBC, RC4 or 3DES.
const UNSOUND_SUITES: [&str; 16] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// The suites of TLS 1.3, of which all are sound and always on.
const TLS13_SUITES: [&str; 3] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

fn cipher_suites(
    settings: &mut Settings,
    min: TlsVersion,
    max: TlsVersion,
) -> Result<Vec<&'static str>, ConfigError> {
    let names = settings.list(Key::CipherSuites);
    let mut sound = Vec::new();
    for given in &names {
        // Go's name of the ChaCha suites before the IANA had one.
        let legacy = given
            .ends_with("_CHACHA20_POLY1305")
            .then(|| format!("{given}_SHA256"));
        let name = legacy.as_deref().unwrap_or(given);
        if let Some(suite) = SOUND_SUITES.iter().find(|suite| **suite == name) {
            sound.push(*suite);
        } else if UNSOUND_SUITES.contains(&name) {
            settings.notice(format!(
                "--cipher-suites: {name} is unsound and will not be offered"
            ));
        } else if TLS13_SUITES.contains(&name) {
            settings.notice(format!(
                "--cipher-suites: {name} is a suite of TLS 1.3, where all are always on"
            ));
        } else {
            let known = SOUND_SUITES
                .into_iter()
                .chain(UNSOUND_SUITES)
                .chain(TLS13_SUITES);
            let reason = format!(
                "unknown cipher suite {name:?}; the nearest known one is {}",
                nearest(name, known)
            );
            return Err(settings.invalid(Key::CipherSuites, reason));
        }
    }
    if names.is_empty() || min == TlsVersion::Tls13 {
        if settings.is_given(Key::TlsMinVersion) && !names.is_empty() {
            return Err(ConfigError::Conflict(
                "--cipher-suites cannot be chosen when --tls-min-version is TLS1.3".to_owned(),
            ));
        }
        if !names.is_empty() {
            settings.notice("--cipher-suites has no effect: only TLS 1.3 is spoken unless --tls-min-version=TLS1.2 is given".to_owned());
        }
        return Ok(Vec::new());
    }
    if sound.is_empty() && max == TlsVersion::Tls12 {
        let reason = "no suite that will be offered is left for TLS 1.2".to_owned();
        return Err(settings.invalid(Key::CipherSuites, reason));
    }
    Ok(sound)
}
