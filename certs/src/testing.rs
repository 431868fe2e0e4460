//! A CA for tests, which also issues what no honest CA would: expired, for the wrong purpose, with contradicting names. Only
//! with the feature `testing`. Nothing is written but where a caller says so.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::{
    anchors::Anchors,
    durable_file::{self, PUBLIC},
    error::{Invalid, IssueError, TlsError},
    identity::{LeafNames, PeerIdentity},
    issue::{Issued, generate, new_key, not_a_name, unhex},
    provider::{hex, provider},
    settings::ServerTlsSettings,
    source_file::SourceFile,
    trust::{Role, Trust, unix_time},
};

mod peers;

pub use peers::TestPeers;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A CA in memory (ECDSA P-256).
pub struct TestCa {
    key: KeyPair,
    params: CertificateParams,
    cert_pem: String,
    /// What has to be presented behind a certificate of this CA; empty for one that is trusted itself.
    chain_pem: String,
}

/// What a certificate should say. Nothing is checked or added: what is empty is absent.
#[derive(Debug, Clone)]
pub struct TestLeaf {
    /// The subject's common name.
    pub common_name: String,
    /// A second one, as a confused CA would issue it.
    pub second_common_name: String,
    /// URI alternative names (ASCII).
    pub uris: Vec<String>,
    /// DNS names and addresses for the alternative names.
    pub hosts: Vec<String>,
    /// Extended key usage clientAuth. With neither this nor `server_auth` there is no such extension.
    pub client_auth: bool,
    /// Extended key usage serverAuth.
    pub server_auth: bool,
    /// Start of validity, to the second.
    pub not_before: SystemTime,
    /// End of validity, to the second.
    pub not_after: SystemTime,
    /// Mark it as a CA.
    pub is_ca: bool,
    /// Private key in PEM (PKCS #8) to use instead of a new one, such as [`Issued::key_pem`] of another certificate.
    pub key_pem: Option<String>,
}

impl TestLeaf {
    /// A sound client certificate with this common name (none if empty) and no alternative names.
    #[must_use]
    pub fn client(common_name: &str) -> Self {
        let now = SystemTime::now();
        Self {
            common_name: common_name.to_owned(),
            second_common_name: String::new(),
            uris: Vec::new(),
            hosts: Vec::new(),
            client_auth: true,
            server_auth: false,
            not_before: earlier(now, HOUR),
            not_after: later(now, DAY),
            is_ca: false,
            key_pem: None,
        }
    }

    /// A sound client certificate with this one URI and no common name.
    #[must_use]
    pub fn client_uri(uri: &str) -> Self {
        Self {
            uris: vec![uri.to_owned()],
            ..Self::client("")
        }
    }

    /// A sound server certificate for these DNS names and addresses.
    #[must_use]
    pub fn server(hosts: &[&str]) -> Self {
        Self {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            client_auth: false,
            server_auth: true,
            ..Self::client("server")
        }
    }

    /// A sound certificate of the member `name`, for both directions on this machine: the common name and the URI
    /// `spiffe://holdfast/member/<name>` name it.
    #[must_use]
    pub fn member(name: &str) -> Self {
        Self {
            uris: vec![format!("spiffe://holdfast/member/{name}")],
            hosts: ["localhost", "127.0.0.1", "::1"]
                .map(str::to_owned)
                .to_vec(),
            server_auth: true,
            ..Self::client(name)
        }
    }

    /// The same, past its end by an hour.
    #[must_use]
    pub fn expired(self) -> Self {
        let now = SystemTime::now();
        Self {
            not_before: earlier(now, DAY),
            not_after: earlier(now, HOUR),
            ..self
        }
    }

    /// The same, not valid for another hour.
    #[must_use]
    pub fn not_yet_valid(self) -> Self {
        let now = SystemTime::now();
        Self {
            not_before: later(now, HOUR),
            not_after: later(now, DAY),
            ..self
        }
    }
}

/// What a client certificate (DER) says of its holder, without anybody having verified it: for the fuzz target of what reads it.
///
/// # Errors
///
/// The certificate is not readable, or names what no certificate may.
pub fn unverified_identity(leaf: &[u8]) -> Result<PeerIdentity, Invalid> {
    let chain = [CertificateDer::from(leaf)];
    let names = LeafNames::parse(leaf)?;
    Ok(names.into_identity(&chain, later(SystemTime::now(), DAY), String::new()))
}

/// A listener's verdict on client certificates without its listener: for the fuzz target of what strangers may present.
#[derive(Debug)]
pub struct Judge(Trust);

impl Judge {
    /// Trusts the CAs of this PEM text. Every policy is at its strict end; there are no revocation lists.
    ///
    /// # Errors
    ///
    /// The text is not PEM, or holds what cannot be a CA.
    pub fn of(ca_pem: &str) -> Result<Self, TlsError> {
        let file = SourceFile {
            path: PathBuf::from("ca.crt"),
            bytes: ca_pem.as_bytes().to_vec(),
            mode: 0o600,
        };
        let mut cas = Anchors::default();
        cas.add(&file, SystemTime::now(), &mut Vec::new())?;
        let settings = ServerTlsSettings::new("", "");
        Trust::new(&settings, None, cas, None, &mut Vec::new()).map(Self)
    }

    /// The verdict of a handshake at this time on certificates (DER), leaf first.
    ///
    /// # Errors
    ///
    /// The handshake would be refused.
    pub fn verdict(&self, chain: &[Vec<u8>], now: SystemTime) -> Result<PeerIdentity, Invalid> {
        let chain: Vec<_> = chain
            .iter()
            .map(|der| CertificateDer::from(der.as_slice()))
            .collect();
        self.0.verify(&chain, Role::Client, unix_time(now))
    }
}

/// What a revocation list should say.
#[derive(Debug, Clone)]
pub struct TestCrl {
    /// Serial numbers as in [`Issued::serial_hex`].
    pub revoked: Vec<String>,
    /// Number of the list.
    pub number: u64,
    /// When it was made. Of several lists of one CA in a file the newest counts.
    pub this_update: SystemTime,
    /// When it is due for replacement.
    pub next_update: SystemTime,
}

impl TestCrl {
    /// A list made just now and good for a day.
    #[must_use]
    pub fn of(revoked: &[&Issued]) -> Self {
        let now = SystemTime::now();
        Self {
            revoked: revoked.iter().map(|leaf| leaf.serial_hex.clone()).collect(),
            number: 1,
            this_update: now,
            next_update: later(now, DAY),
        }
    }

    /// The same, due for replacement an hour ago.
    #[must_use]
    pub fn outdated(self) -> Self {
        let now = SystemTime::now();
        Self {
            this_update: earlier(now, DAY),
            next_update: earlier(now, HOUR),
            ..self
        }
    }
}

impl TestCa {
    /// A new CA with a key of its own, valid from a day ago for ten years.
    ///
    /// # Errors
    ///
    /// The library cannot make it.
    pub fn new(common_name: &str) -> Result<Self, IssueError> {
        let now = SystemTime::now();
        Self::valid_between(common_name, earlier(now, DAY), later(now, 3650 * DAY))
    }

    /// A new CA with a validity of its own.
    ///
    /// # Errors
    ///
    /// The library cannot make it.
    pub fn valid_between(
        common_name: &str,
        not_before: SystemTime,
        not_after: SystemTime,
    ) -> Result<Self, IssueError> {
        let params = ca_params(common_name, date(not_before)?, date(not_after)?)?;
        let key = new_key()?;
        let cert_pem = params.self_signed(&key).map_err(generate)?.pem();
        Ok(Self {
            key,
            params,
            cert_pem,
            chain_pem: String::new(),
        })
    }

    /// A CA below this one, with its validity. The certificates that it issues come with its own behind them, so that
    /// they are complete chains.
    ///
    /// # Errors
    ///
    /// The library cannot make it.
    pub fn intermediate(&self, common_name: &str) -> Result<Self, IssueError> {
        let params = ca_params(common_name, self.params.not_before, self.params.not_after)?;
        let key = new_key()?;
        let cert = params.signed_by(&key, &self.issuer()).map_err(generate)?;
        Ok(Self {
            key,
            params,
            cert_pem: cert.pem(),
            chain_pem: format!("{}{}", cert.pem(), self.chain_pem),
        })
    }

    /// The CA's own certificate in PEM.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The CA's own certificate and key, as something to present.
    #[must_use]
    pub fn itself(&self) -> Issued {
        issued(self.cert_pem.clone(), &self.key, &self.params)
    }

    /// Writes the CA's certificate into `dir` as `<name>.crt`, atomically, and returns its path.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write_cert(&self, dir: &Path, name: &str) -> Result<PathBuf, IssueError> {
        write(dir, &format!("{name}.crt"), &self.cert_pem)
    }

    /// Issues a certificate. [`Issued::write`] puts it on disk.
    ///
    /// # Errors
    ///
    /// A URI is not ASCII, a host is not a name or an address, or the key is none.
    pub fn issue(&self, leaf: &TestLeaf) -> Result<Issued, IssueError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.use_authority_key_identifier_extension = true;
        params.not_before = date(leaf.not_before)?;
        params.not_after = date(leaf.not_after)?;
        params.is_ca = match leaf.is_ca {
            true => IsCa::Ca(BasicConstraints::Unconstrained),
            false => IsCa::ExplicitNoCa,
        };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = [
            (leaf.server_auth, ExtendedKeyUsagePurpose::ServerAuth),
            (leaf.client_auth, ExtendedKeyUsagePurpose::ClientAuth),
        ]
        .into_iter()
        .filter_map(|(wanted, usage)| wanted.then_some(usage))
        .collect();
        for uri in &leaf.uris {
            let name = uri.as_str().try_into();
            let name = name.map_err(|_| not_a_name("URI", uri))?;
            params.subject_alt_names.push(SanType::URI(name));
        }
        for host in &leaf.hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => {
                    let name = host.as_str().try_into();
                    SanType::DnsName(name.map_err(|_| not_a_name("host", host))?)
                }
            });
        }
        let key = match &leaf.key_pem {
            Some(pem) => KeyPair::from_pem(pem).map_err(generate)?,
            None => new_key()?,
        };
        params.serial_number = Some(new_serial()?);
        // The library keeps one value for each type, so the second common name goes by its number.
        for (name, kind) in [
            (&leaf.common_name, DnType::CommonName),
            (
                &leaf.second_common_name,
                DnType::CustomDnType(vec![2, 5, 4, 3]),
            ),
        ] {
            if !name.is_empty() {
                params.distinguished_name.push(kind, name.as_str());
            }
        }
        let cert = params.signed_by(&key, &self.issuer()).map_err(generate)?;
        let pem = format!("{}{}", cert.pem(), self.chain_pem);
        Ok(issued(pem, &key, &params))
    }

    /// Makes a revocation list in PEM.
    ///
    /// # Errors
    ///
    /// A serial number is not hexadecimal, or the times are in the wrong order.
    pub fn revocation_list(&self, list: &TestCrl) -> Result<String, IssueError> {
        let revoked_certs = list
            .revoked
            .iter()
            .map(|serial| {
                Ok(RevokedCertParams {
                    serial_number: SerialNumber::from_slice(&unhex(serial)?),
                    revocation_time: date(list.this_update)?,
                    reason_code: None,
                    invalidity_date: None,
                })
            })
            .collect::<Result<_, IssueError>>()?;
        CertificateRevocationListParams {
            this_update: date(list.this_update)?,
            next_update: date(list.next_update)?,
            crl_number: SerialNumber::from(list.number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer())
        .and_then(|list| list.pem())
        .map_err(generate)
    }

    /// Writes a revocation list into `dir` as `<name>.crl`, atomically, and returns its path.
    ///
    /// # Errors
    ///
    /// As for [`Self::revocation_list`], or the file cannot be written.
    pub fn write_revocation_list(
        &self,
        dir: &Path,
        name: &str,
        list: &TestCrl,
    ) -> Result<PathBuf, IssueError> {
        write(dir, &format!("{name}.crl"), &self.revocation_list(list)?)
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

impl fmt::Debug for TestCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestCa")
            .field("subject", &self.params.distinguished_name)
            .finish_non_exhaustive()
    }
}

fn ca_params(
    common_name: &str,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.serial_number = Some(new_serial()?);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = not_before;
    params.not_after = not_after;
    Ok(params)
}

/// Not what [`Issued::new`] does: that refuses certificates whose names deceive.
fn issued(cert_pem: String, key: &KeyPair, params: &CertificateParams) -> Issued {
    let serial = params.serial_number.as_ref();
    let serial_hex = hex(&serial.map(SerialNumber::to_bytes).unwrap_or_default());
    Issued {
        cert_pem,
        key_pem: key.serialize_pem(),
        serial_hex: serial_hex.trim_start_matches('0').to_owned(),
        not_after: params.not_after.into(),
    }
}

/// Random, so that certificates with one key differ too.
fn new_serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; 16];
    provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| IssueError::Generate("no random numbers".to_owned()))?;
    // Positive and of one length.
    bytes[0] = 0x40 | (bytes[0] & 0x3f);
    Ok(SerialNumber::from_slice(&bytes))
}

fn date(at: SystemTime) -> Result<OffsetDateTime, IssueError> {
    let seconds = match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).ok(),
        Err(before) => i64::try_from(before.duration().as_secs()).ok().map(|s| -s),
    };
    seconds
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or_else(|| IssueError::Request("a time that no certificate can carry".to_owned()))
}

fn earlier(at: SystemTime, by: Duration) -> SystemTime {
    at.checked_sub(by).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn later(at: SystemTime, by: Duration) -> SystemTime {
    at.checked_add(by).unwrap_or(at)
}

fn write(dir: &Path, name: &str, pem: &str) -> Result<PathBuf, IssueError> {
    durable_file::write(dir, name, pem.as_bytes(), PUBLIC)?;
    Ok(dir.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ClientTls, ClientTlsSettings, HandshakeError, Invalid, PeerIdentity, ServerTls,
        ServerTlsSettings, accept, connect,
    };

    struct Site {
        dir: tempfile::TempDir,
        ca: TestCa,
    }

    impl Site {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let ca = TestCa::new("test CA").unwrap();
            ca.write_cert(dir.path(), "ca").unwrap();
            let server = ca.issue(&TestLeaf::server(&["localhost"])).unwrap();
            server.write(dir.path(), "server").unwrap();
            Self { dir, ca }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn settings(&self) -> ServerTlsSettings {
            ServerTlsSettings::new(self.path("server.crt"), self.path("server.key"))
                .with_client_ca(self.path("ca.crt"))
        }

        /// What the server makes of this certificate.
        async fn judge(
            &self,
            settings: ServerTlsSettings,
            client: &Issued,
        ) -> Result<PeerIdentity, Invalid> {
            client.write(self.dir.path(), "client").unwrap();
            let tls = ServerTls::load(settings).unwrap();
            let client = ClientTls::load(&ClientTlsSettings {
                ca_file: Some(self.path("ca.crt")),
                cert_file: Some(self.path("client.crt")),
                key_file: Some(self.path("client.key")),
                ..ClientTlsSettings::default()
            })
            .unwrap();
            let (near, far) = tokio::io::duplex(1 << 16);
            let dial = async { connect(&client, near, "localhost").await.map(drop) };
            match tokio::join!(accept(&tls, far), dial).0 {
                Ok((_, peer)) => Ok(peer.unwrap()),
                Err(HandshakeError::Certificate(invalid)) => Err(invalid),
                Err(other) => panic!("{other}"),
            }
        }

        async fn judge_leaf(&self, leaf: &TestLeaf) -> Result<PeerIdentity, Invalid> {
            let leaf = self.ca.issue(leaf).unwrap();
            self.judge(self.settings(), &leaf).await
        }
    }

    #[tokio::test]
    async fn good_certificates_are_good_and_bad_ones_bad_for_their_reason() {
        let site = Site::new();
        let alice = TestLeaf::client("alice");
        let peer = site.judge_leaf(&alice).await.unwrap();
        assert_eq!(peer.common_name.as_deref(), Some("alice"));
        let uri = "spiffe://td/tenant/a/user/b";
        let peer = site.judge_leaf(&TestLeaf::client_uri(uri)).await.unwrap();
        assert_eq!((peer.common_name, peer.uri_sans), (None, vec![uri.into()]));
        let below = site.ca.intermediate("below").unwrap();
        let leaf = below.issue(&alice).unwrap();
        site.judge(site.settings(), &leaf).await.unwrap();
        let deep = below.intermediate("deep").unwrap().issue(&alice).unwrap();
        site.judge(site.settings(), &deep).await.unwrap();

        let ca = TestLeaf {
            is_ca: true,
            ..alice.clone()
        };
        let server_only = TestLeaf {
            client_auth: false,
            server_auth: true,
            ..alice.clone()
        };
        let no_usage = TestLeaf {
            client_auth: false,
            ..alice.clone()
        };
        let two_uris = TestLeaf {
            uris: vec![uri.to_owned(), "spiffe://td/x".to_owned()],
            ..alice.clone()
        };
        let two_names = TestLeaf {
            second_common_name: "root".to_owned(),
            ..alice.clone()
        };
        for (leaf, label) in [
            (alice.clone().expired(), "expired"),
            (alice.clone().not_yet_valid(), "not_yet_valid"),
            (ca, "ca_as_leaf"),
            (server_only, "wrong_purpose"),
            (no_usage, "wrong_purpose"),
            (two_uris, "several_uris"),
            (two_names, "malformed"),
        ] {
            let refused = site.judge_leaf(&leaf).await.map(drop);
            assert_eq!(refused.map_err(|invalid| invalid.label()), Err(label));
        }
        for (stranger, expected) in [
            ("another CA", Invalid::UnknownIssuer),
            ("test CA", Invalid::BadSignature),
        ] {
            let stranger = TestCa::new(stranger).unwrap().issue(&alice).unwrap();
            let refused = site.judge(site.settings(), &stranger).await.map(drop);
            assert_eq!(refused, Err(expected));
        }
        let refused = site.judge(site.settings(), &site.ca.itself()).await;
        assert_eq!(refused.map(drop), Err(Invalid::CaAsLeaf));
    }

    #[tokio::test]
    async fn revocation_lists_revoke_and_grow_old() {
        let site = Site::new();
        let first = site.ca.issue(&TestLeaf::client("alice")).unwrap();
        // The same holder with the same key: only the certificate is revoked.
        let second = TestLeaf {
            key_pem: Some(first.key_pem.clone()),
            ..TestLeaf::client("alice")
        };
        let second = site.ca.issue(&second).unwrap();
        assert_ne!(first.serial_hex, second.serial_hex);
        let mut settings = site.settings();
        let list = TestCrl::of(&[&first]);
        let file = site
            .ca
            .write_revocation_list(site.dir.path(), "list", &list);
        settings.crl_file = Some(file.unwrap());
        let refused = site.judge(settings.clone(), &first).await.map(drop);
        assert_eq!(refused, Err(Invalid::Revoked));
        let peer = site.judge(settings.clone(), &second).await.unwrap();
        assert_eq!(peer.serial_hex, second.serial_hex);
        let list = list.outdated();
        let file = site
            .ca
            .write_revocation_list(site.dir.path(), "list", &list);
        assert_eq!(settings.crl_file, Some(file.unwrap()));
        assert!(matches!(
            site.judge(settings, &second).await,
            Err(Invalid::CrlExpired { .. })
        ));
    }
}
