//! A small PKI on disk and one handshake over loopback.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod peers;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use holdfast_certs::{
    ClientTls, ClientTlsSettings, HandshakeError, Invalid, PeerIdentity, ServerTls,
    ServerTlsSettings, accept, connect,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Everything in these tests happens on loopback within milliseconds; this only ends a hang.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) struct Ca {
    pub(crate) key: KeyPair,
    pub(crate) params: CertificateParams,
    pub(crate) pem: String,
}

pub(crate) struct Leaf {
    pub(crate) key: KeyPair,
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) serial: SerialNumber,
}

pub(crate) fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(crate) fn leaf_params(
    common_name: &str,
    usage: &[ExtendedKeyUsagePurpose],
) -> CertificateParams {
    let mut params =
        CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.extended_key_usages = usage.to_vec();
    params.serial_number = Some(SerialNumber::from(
        u64::from(std::process::id()) << 32 | u64::from(next()),
    ));
    params
}

fn next() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        Self::from_params(ca_params(name))
    }

    pub(crate) fn from_params(params: CertificateParams) -> Self {
        Self::with_key(params, KeyPair::generate().unwrap())
    }

    pub(crate) fn with_key(params: CertificateParams, key: KeyPair) -> Self {
        let pem = params.self_signed(&key).unwrap().pem();
        Self { key, params, pem }
    }

    pub(crate) fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// A CA below this one.
    pub(crate) fn intermediate(&self, name: &str, serial: u64) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params(name);
        params.serial_number = Some(serial.into());
        let pem = params.signed_by(&key, &self.issuer()).unwrap().pem();
        Self { key, params, pem }
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer()).unwrap();
        Leaf {
            key,
            pem: cert.pem(),
            der: cert.der().clone(),
            serial: params.serial_number.clone().unwrap(),
        }
    }

    pub(crate) fn server(&self) -> Leaf {
        self.sign(&leaf_params(
            "server",
            &[ExtendedKeyUsagePurpose::ServerAuth],
        ))
    }

    pub(crate) fn client(&self, common_name: &str) -> Leaf {
        self.sign(&leaf_params(
            common_name,
            &[ExtendedKeyUsagePurpose::ClientAuth],
        ))
    }

    pub(crate) fn crl(&self, revoked: &[&SerialNumber]) -> rcgen::CertificateRevocationList {
        self.crl_between(revoked, -HOUR.as_secs().cast_signed(), 3600)
    }

    /// Times in seconds from now.
    pub(crate) fn crl_between(
        &self,
        revoked: &[&SerialNumber],
        from: i64,
        until: i64,
    ) -> rcgen::CertificateRevocationList {
        let at = |seconds| OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
        CertificateRevocationListParams {
            this_update: at(from),
            next_update: at(until),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: (*serial).clone(),
                    revocation_time: at(from),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer())
        .unwrap()
    }
}

/// Validity from and until so many seconds from now.
pub(crate) fn valid_between(
    mut params: CertificateParams,
    from: i64,
    until: i64,
) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    params.not_before = now + time::Duration::seconds(from);
    params.not_after = now + time::Duration::seconds(until);
    params
}

/// A server CA and a client CA with the files of one listener.
pub(crate) struct Pki {
    pub(crate) dir: TempDir,
    pub(crate) server_ca: Ca,
    pub(crate) client_ca: Ca,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let pki = Self {
            dir: tempfile::tempdir().unwrap(),
            server_ca: Ca::new("server CA"),
            client_ca: Ca::new("client CA"),
        };
        pki.write("server-ca.crt", &pki.server_ca.pem);
        pki.write("client-ca.crt", &pki.client_ca.pem);
        pki.write_pair("server", &pki.server_ca.server());
        pki
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        write_private(&self.path(name), content.as_ref());
        self.path(name)
    }

    pub(crate) fn write_pair(&self, name: &str, leaf: &Leaf) {
        self.write(&format!("{name}.crt"), &leaf.pem);
        self.write(&format!("{name}.key"), leaf.key.serialize_pem());
    }

    /// Client certificates of the client CA required, nothing else unusual.
    pub(crate) fn settings(&self) -> ServerTlsSettings {
        ServerTlsSettings::new(self.path("server.crt"), self.path("server.key"))
            .with_client_ca(self.path("client-ca.crt"))
    }

    pub(crate) fn server(&self) -> ServerTls {
        ServerTls::load(self.settings()).unwrap()
    }

    pub(crate) fn client_settings(&self) -> ClientTlsSettings {
        ClientTlsSettings {
            ca_file: Some(self.path("server-ca.crt")),
            ..ClientTlsSettings::default()
        }
    }

    /// A client that trusts the server CA and presents `leaf`.
    pub(crate) fn client_with(&self, leaf: &Leaf) -> ClientTls {
        let name = format!("client-{}", next());
        self.write_pair(&name, leaf);
        ClientTls::load(&ClientTlsSettings {
            cert_file: Some(self.path(&format!("{name}.crt"))),
            key_file: Some(self.path(&format!("{name}.key"))),
            ..self.client_settings()
        })
        .unwrap()
    }

    pub(crate) fn anonymous(&self) -> ClientTls {
        ClientTls::load(&self.client_settings()).unwrap()
    }

    pub(crate) fn good_client(&self) -> ClientTls {
        self.client_with(&self.client_ca.client("alice"))
    }
}

pub(crate) fn write_private(path: &Path, content: &[u8]) {
    // A new inode each time, as every certificate tool does it.
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, content).unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&temporary, path).unwrap();
}

/// A client of the TLS library itself, for what [`ClientTls`] refuses to do.
pub(crate) fn raw_client(
    pki: &Pki,
    leaf: &Leaf,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let ca = pki
        .server_ca
        .params
        .self_signed(&pki.server_ca.key)
        .unwrap();
    roots.add(ca.der().clone()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![leaf.der.clone()],
            PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap(),
        )
        .unwrap()
}

pub(crate) type Accepted = Result<Option<PeerIdentity>, HandshakeError>;

/// What a client saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) kind: HandshakeKind,
    pub(crate) version: ProtocolVersion,
    pub(crate) suite: rustls::CipherSuite,
    pub(crate) server_cert: CertificateDer<'static>,
    pub(crate) tickets: u32,
}

async fn serve(tls: &ServerTls, listener: &TcpListener) -> Accepted {
    let (tcp, _) = listener.accept().await.unwrap();
    let (mut stream, identity) = accept(tls, tcp).await?;
    // A client that does not like what it sees may be gone; its side of the test says whether it should.
    let _ = stream.write_all(b"ok").await;
    let _ = stream.shutdown().await;
    // Until the client is done, so that nothing it sent is answered with a reset.
    let _ = stream.read(&mut [0; 1]).await;
    Ok(identity)
}

/// One connection; both ends' views.
pub(crate) async fn handshake(
    tls: &ServerTls,
    client: &ClientTls,
) -> (Accepted, Result<(), String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let dial = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let mut stream = connect(client, tcp, "localhost")
            .await
            .map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .await
            .map_err(|error| error.to_string())?;
        assert_eq!(answer, b"ok");
        Ok(())
    };
    tokio::time::timeout(DEADLINE, async {
        tokio::join!(serve(tls, &listener), dial)
    })
    .await
    .unwrap()
}

/// The same with a client of the TLS library.
pub(crate) async fn raw_handshake(
    tls: &ServerTls,
    client: Arc<ClientConfig>,
) -> (Accepted, Result<Seen, String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let dial = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(client)
            .connect(ServerName::try_from("localhost").unwrap(), tcp)
            .await
            .map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .await
            .map_err(|error| error.to_string())?;
        assert_eq!(answer, b"ok");
        let connection = stream.get_ref().1;
        Ok(Seen {
            kind: connection.handshake_kind().unwrap(),
            version: connection.protocol_version().unwrap(),
            suite: connection.negotiated_cipher_suite().unwrap().suite(),
            server_cert: connection.peer_certificates().unwrap()[0]
                .clone()
                .into_owned(),
            tickets: connection.tls13_tickets_received(),
        })
    };
    tokio::time::timeout(DEADLINE, async {
        tokio::join!(serve(tls, &listener), dial)
    })
    .await
    .unwrap()
}

/// Performs a handshake that has to succeed.
pub(crate) async fn identity_of(tls: &ServerTls, client: &ClientTls) -> PeerIdentity {
    let (accepted, seen) = handshake(tls, client).await;
    seen.unwrap();
    accepted.unwrap().unwrap()
}

/// Performs a handshake that the server has to refuse because of the certificate, on both ends.
pub(crate) async fn refusal(tls: &ServerTls, client: &ClientTls) -> Invalid {
    let (accepted, seen) = handshake(tls, client).await;
    assert!(seen.is_err(), "the client believes that it is connected");
    match accepted {
        Err(HandshakeError::Certificate(invalid)) => invalid,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn in_future(by: Duration) -> SystemTime {
    SystemTime::now() + by
}
