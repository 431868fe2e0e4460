//! The client's side: configuration and handshake.

use std::{
    env, fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    accept::tls_error,
    anchors::Anchors,
    error::{Invalid, TlsError, Warning},
    key_material::{self, Side},
    provider::provider,
    settings::{ClientTlsSettings, TlsVersion},
    source_file::{Kind, SourceFile},
};

/// A TLS connection to a server over `T`.
pub type ClientStream<T> = tokio_rustls::client::TlsStream<T>;

/// Where Linux distributions and BSDs keep the bundle of public CAs; the first that exists is used.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How a client talks TLS. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    requires_h2: bool,
    warnings: Arc<[Warning]>,
}

/// Why there is no TLS connection to a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The host cannot be a name in a certificate.
    #[error("{0:?} is neither a DNS name nor an address")]
    Name(String),
    /// An `https` address, but no TLS settings.
    #[error("{0} needs TLS, which is not configured")]
    NoTls(String),
    /// The address cannot be used.
    #[error(transparent)]
    Target(#[from] crate::TargetError),
    /// The connection could not be made, or broke.
    #[error("cannot connect to {target}: {source}")]
    Io {
        /// Where to.
        target: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The handshake failed.
    #[error("TLS with {host}: {reason}")]
    Tls {
        /// The server.
        host: String,
        /// What is wrong, as precisely as is known.
        reason: String,
    },
    /// The certificate of a member is refused.
    #[error("certificate of {host} refused: {reason}")]
    Certificate {
        /// The member's host.
        host: String,
        /// Why.
        #[source]
        reason: Invalid,
    },
    /// The server agreed to no application protocol although HTTP/2 is the only one we speak.
    #[error("{0} does not offer HTTP/2 (ALPN h2)")]
    NoHttp2(String),
}

impl ClientTls {
    /// Reads the files and builds the configuration.
    ///
    /// # Errors
    ///
    /// A file that cannot be used, or settings that contradict each other.
    pub fn load(settings: &ClientTlsSettings) -> Result<Self, TlsError> {
        let mut warnings = Vec::new();
        let now = SystemTime::now();
        let versions: &[_] = match settings.min_version {
            TlsVersion::Tls13 => &[&TLS13],
            TlsVersion::Tls12 => &[&TLS13, &TLS12],
        };
        let verifier = verifier(settings, now, &mut warnings)?;
        let key = match (&settings.cert_file, &settings.key_file) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                let cert = SourceFile::read(cert, Kind::Certificates)?;
                let key = SourceFile::read(key, Kind::PrivateKey)?;
                let material = key_material::load(&cert, &key, Side::Client, now, &mut warnings)?;
                Some(SingleCertAndKey::from(material.certified))
            }
            _ => {
                return Err(TlsError::Settings(
                    "a client certificate and its key must be given together".to_owned(),
                ));
            }
        };
        let config = client_config(provider(), versions, verifier, key, &settings.alpn)?;
        let server_name = settings
            .server_name
            .as_ref()
            .map(|name| {
                ServerName::try_from(name.clone()).map_err(|_| {
                    TlsError::Settings(format!(
                        "server name {name:?} is neither a DNS name nor an address"
                    ))
                })
            })
            .transpose()?;
        Ok(Self {
            config: Arc::new(config),
            server_name,
            requires_h2: settings.alpn == ["h2"],
            warnings: warnings.into(),
        })
    }

    /// The configuration, for use with the TLS library itself.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// What a user should know about the material.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

impl fmt::Debug for ClientTls {
    /// Without the configuration, which holds a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// Performs the handshake with `host` (a DNS name or an address, without port) over a connection that is open already.
///
/// With TLS 1.3 the server judges our certificate after this returns: a refusal shows as an error of the first read.
///
/// # Errors
///
/// Why there is no connection.
pub async fn connect<T>(tls: &ClientTls, io: T, host: &str) -> Result<ClientStream<T>, ConnectError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let name = match &tls.server_name {
        Some(name) => name.clone(),
        None => server_name(host)?,
    };
    let stream = tokio_rustls::TlsConnector::from(tls.config.clone())
        .connect(name, io)
        .await
        .map_err(|error| ConnectError::handshake(host, error))?;
    if tls.requires_h2 && stream.get_ref().1.alpn_protocol() != Some(b"h2".as_slice()) {
        return Err(ConnectError::NoHttp2(host.to_owned()));
    }
    Ok(stream)
}

/// The one place where a client's configuration is made.
pub(crate) fn client_config(
    provider: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    verifier: Arc<dyn ServerCertVerifier>,
    key: Option<SingleCertAndKey>,
    alpn: &[String],
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| TlsError::Config(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match key {
        Some(key) => builder.with_client_cert_resolver(Arc::new(key)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    // A resumed session shows no certificate: the server could not verify ours again, nor we the server's.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The name to verify for a host of a URL.
pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, ConnectError> {
    // Brackets belong to the URI, not to the IPv6 address inside.
    ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|_| ConnectError::Name(host.to_owned()))
}

impl ConnectError {
    pub(crate) fn handshake(host: &str, error: io::Error) -> Self {
        match tls_error(&error) {
            Some(reason) => Self::Tls {
                host: host.to_owned(),
                reason: explain(reason),
            },
            None => Self::Io {
                target: host.to_owned(),
                source: error,
            },
        }
    }
}

fn explain(error: &rustls::Error) -> String {
    use rustls::{AlertDescription as A, CertificateError as C, Error as E, InvalidMessage as M};
    match error {
        E::InvalidCertificate(C::UnknownIssuer) => {
            "the server's certificate was not issued by a trusted CA (wrong or missing CA file?)"
                .to_owned()
        }
        E::InvalidMessage(M::InvalidContentType | M::UnknownProtocolVersion) => {
            "the server does not speak TLS on this port (https:// instead of http://?)".to_owned()
        }
        E::AlertReceived(A::ProtocolVersion) => {
            "the server does not speak a TLS version that is enabled here".to_owned()
        }
        other => other.to_string(),
    }
}

fn verifier(
    settings: &ClientTlsSettings,
    now: SystemTime,
    warnings: &mut Vec<Warning>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    if settings.insecure_skip_verify {
        warnings.push(Warning::VerificationOff);
        return Ok(any_server());
    }
    let roots = match &settings.ca_file {
        Some(path) => {
            let mut anchors = Anchors::default();
            let file = SourceFile::read(path, Kind::CaBundle)?;
            anchors.add(&file, now, warnings)?;
            // A self-signed server certificate is pinned by giving it as the CA; that it is no CA is intended then.
            warnings.retain(|warning| !matches!(warning, Warning::NotACa { .. }));
            RootCertStore {
                roots: anchors.anchors,
            }
        }
        None => system_roots()?,
    };
    let verifier: Arc<dyn ServerCertVerifier> =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| TlsError::Config(error.to_string()))?;
    Ok(verifier)
}

/// The system's bundle; single certificates in it that are damaged are left out, as nobody here put them there.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let path = match env::var_os("SSL_CERT_FILE") {
        Some(path) => PathBuf::from(path),
        None => SYSTEM_BUNDLES
            .iter()
            .map(Path::new)
            .find(|path| path.exists())
            .map(Path::to_owned)
            .ok_or_else(|| {
                TlsError::Settings(
                    "no CA file is given and this system has no bundle of CAs".to_owned(),
                )
            })?,
    };
    let file = SourceFile::read(&path, Kind::CaBundle)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&file.bytes).flatten());
    if roots.is_empty() {
        return Err(TlsError::Missing {
            path,
            wanted: "PEM CA certificate",
        });
    }
    Ok(roots)
}

/// See [`AnyServer`].
pub(crate) fn any_server() -> Arc<dyn ServerCertVerifier> {
    Arc::new(AnyServer(provider().signature_verification_algorithms))
}

/// Takes any certificate, but still insists that the server holds its key.
#[derive(Debug)]
struct AnyServer(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
