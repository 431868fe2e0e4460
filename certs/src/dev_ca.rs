//! The development CA of the quick start: a CA, a certificate for this machine, one for the user `root`, and one for users who
//! log in with a password.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams,
    SerialNumber,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage};

use crate::{
    client_trust::unix_time,
    durable_file::{self, PRIVATE, PUBLIC},
    error::{IssueError, TlsError, Warning},
    issue::{Issued, LeafRequest, YEAR, generate, issue, new_key, set_validity, unhex},
    key_material::{self, Side, certificates, parse, system_time},
    provider::{hex, provider, sha256},
    source_file::{Kind, SourceFile},
};

const CA_CERT: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const SERVER: (&str, &str) = ("server.crt", "server.key");
const CLIENT: (&str, &str) = ("client-root.crt", "client-root.key");
const ANYONE: (&str, &str) = ("client-anyone.crt", "client-anyone.key");

const CA_VALIDITY: Duration = YEAR.saturating_mul(10);
/// Leaves are renewed when less than this is left.
const RENEW_BEFORE_END: Duration = Duration::from_secs(30 * 24 * 3600);

/// A CA in a directory of its own. For trying things out and for tests: its key lies unencrypted beside the certificates.
pub struct DevCa {
    dir: PathBuf,
    cert: CertificateDer<'static>,
    not_after: SystemTime,
    /// Absent when the user took it away after the leaves were made, which is a good thing to do.
    key: Option<KeyPair>,
    warnings: Vec<Warning>,
}

/// Where the files of a [`DevCa`] are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DevCaFiles {
    /// The CA certificate.
    pub ca_cert: PathBuf,
    /// The CA's key.
    pub ca_key: PathBuf,
    /// Certificate for localhost, 127.0.0.1 and ::1.
    pub server_cert: PathBuf,
    /// Its key.
    pub server_key: PathBuf,
    /// Client certificate for the user `root`.
    pub client_cert: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
    /// Client certificate that names nobody: it opens the connection, and users log in with their passwords.
    pub anyone_cert: PathBuf,
    /// Its key.
    pub anyone_key: PathBuf,
}

/// One of the certificates that are kept in the directory.
struct Leaf {
    files: (&'static str, &'static str),
    side: Side,
    request: LeafRequest,
}

impl DevCa {
    /// Opens the CA in `dir`, makes what is missing and renews the leaves that end within 30 days. The CA itself is made
    /// once (ECDSA P-256, 10 years) and then kept.
    ///
    /// Every file is replaced atomically. A crash between a key and its certificate is found at the next opening and the
    /// pair is made again.
    ///
    /// # Errors
    ///
    /// The directory cannot be used; the CA is damaged or has expired; a leaf is not from this CA (somebody put it there,
    /// so it is not overwritten); something has to be issued but the CA's key is gone.
    pub fn open_or_create(dir: &Path) -> Result<Self, IssueError> {
        let now = SystemTime::now();
        let mut warnings = Vec::new();
        durable_file::private_dir(dir, &mut warnings)?;
        durable_file::remove_leftovers(
            dir,
            &[
                CA_CERT, CA_KEY, SERVER.0, SERVER.1, CLIENT.0, CLIENT.1, ANYONE.0, ANYONE.1,
            ],
        )?;
        let cert_file = dir.join(CA_CERT);
        let key_file = dir.join(CA_KEY);
        let mut key = read_key(&key_file)?;
        if !cert_file.exists() {
            let orphan = [SERVER.0, CLIENT.0, ANYONE.0]
                .map(|name| dir.join(name))
                .into_iter()
                .find(|leaf| leaf.exists());
            // With the CA's key the old leaves fit the CA made now; without it they would belong to nobody.
            if let (None, Some(leaf)) = (&key, orphan) {
                return Err(IssueError::Request(format!(
                    "{} exists but its CA ({}) does not; move it away to start anew",
                    leaf.display(),
                    cert_file.display()
                )));
            }
            // The key first: a certificate whose key was never written would be of no use.
            let ca_key = match key.take() {
                Some(found) => found,
                None => {
                    let made = new_key()?;
                    durable_file::write(dir, CA_KEY, made.serialize_pem().as_bytes(), PRIVATE)?;
                    made
                }
            };
            let made = ca_params(&ca_key, now)?
                .self_signed(&ca_key)
                .map_err(generate)?;
            durable_file::write(dir, CA_CERT, made.pem().as_bytes(), PUBLIC)?;
            key = Some(ca_key);
        }
        let (cert, not_after) = read_ca(&cert_file, &key_file, key.as_ref(), now)?;
        let ca = Self {
            dir: dir.to_owned(),
            cert,
            not_after,
            key,
            warnings,
        };
        ca.renew()?;
        ca.narrow_keys()
    }

    /// Where the files are.
    pub fn files(&self) -> DevCaFiles {
        DevCaFiles {
            ca_cert: self.dir.join(CA_CERT),
            ca_key: self.dir.join(CA_KEY),
            server_cert: self.dir.join(SERVER.0),
            server_key: self.dir.join(SERVER.1),
            client_cert: self.dir.join(CLIENT.0),
            client_key: self.dir.join(CLIENT.1),
            anyone_cert: self.dir.join(ANYONE.0),
            anyone_key: self.dir.join(ANYONE.1),
        }
    }

    /// What was found amiss and repaired at opening.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Makes the leaves again that are missing, damaged or end within 30 days, and says which (certificate files). A
    /// server that runs for months calls this now and then; its reload picks the files up.
    ///
    /// # Errors
    ///
    /// As for [`Self::open_or_create`].
    pub fn renew(&self) -> Result<Vec<PathBuf>, IssueError> {
        let now = SystemTime::now();
        let mut renewed = Vec::new();
        for leaf in leaves() {
            if !self.is_good(&leaf, now)? {
                self.issue(&leaf.request)?
                    .write_as(&self.dir, leaf.files.0, leaf.files.1)?;
                renewed.push(self.dir.join(leaf.files.0));
            }
        }
        Ok(renewed)
    }

    /// Issues a client certificate for `common_name`. Nothing is written.
    ///
    /// # Errors
    ///
    /// The CA's key is gone, or the name is impossible.
    pub fn issue_client(&self, common_name: &str) -> Result<Issued, IssueError> {
        self.issue(&LeafRequest::client(common_name))
    }

    /// Issues a server certificate for `hosts` (DNS names and addresses). Nothing is written.
    ///
    /// # Errors
    ///
    /// The CA's key is gone, or a host is impossible.
    pub fn issue_server(&self, hosts: &[&str]) -> Result<Issued, IssueError> {
        self.issue(&LeafRequest::server(hosts.iter().copied()))
    }

    /// Issues any leaf. Nothing is written.
    ///
    /// # Errors
    ///
    /// The CA's key is gone, or the request is impossible.
    pub fn issue(&self, request: &LeafRequest) -> Result<Issued, IssueError> {
        let mut params = request.params(SystemTime::now())?;
        params.not_after = params.not_after.min(OffsetDateTime::from(self.not_after));
        params.use_authority_key_identifier_extension = true;
        issue(&params, Some(&self.issuer()?))
    }

    /// Makes a revocation list in PEM, number `number`, that revokes these serial numbers (hexadecimal, as in
    /// [`Issued::serial_hex`]) and is due for replacement after `validity`.
    ///
    /// # Errors
    ///
    /// The CA's key is gone, or a serial number is not hexadecimal.
    pub fn revocation_list(
        &self,
        serials_hex: &[&str],
        number: u64,
        validity: Duration,
    ) -> Result<String, IssueError> {
        let now = SystemTime::now();
        let mut bounds = CertificateParams::default();
        set_validity(&mut bounds, now, validity)?;
        let revoked_certs = serials_hex
            .iter()
            .map(|serial| {
                Ok(RevokedCertParams {
                    serial_number: SerialNumber::from_slice(&unhex(serial)?),
                    revocation_time: OffsetDateTime::from(now),
                    reason_code: None,
                    invalidity_date: None,
                })
            })
            .collect::<Result<_, IssueError>>()?;
        CertificateRevocationListParams {
            this_update: bounds.not_before,
            next_update: bounds.not_after,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer()?)
        .and_then(|list| list.pem())
        .map_err(generate)
    }

    fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, IssueError> {
        let key = self.key.as_ref().ok_or_else(|| IssueError::NoCaKey {
            path: self.dir.join(CA_KEY),
        })?;
        Issuer::from_ca_cert_der(&self.cert, key).map_err(generate)
    }

    /// Whether a leaf on disk can be used for a while. What a crash of ours can leave behind is not good; what only
    /// somebody else can have done is an error.
    fn is_good(&self, leaf: &Leaf, now: SystemTime) -> Result<bool, IssueError> {
        let (cert_file, key_file) = (self.dir.join(leaf.files.0), self.dir.join(leaf.files.1));
        if !cert_file.exists() || !key_file.exists() {
            return Ok(false);
        }
        let cert = SourceFile::read(&cert_file, Kind::Certificates)?;
        let key = SourceFile::read(&key_file, Kind::PrivateKey)?;
        let at = unix_time(now);
        let material = match key_material::load(&cert, &key, leaf.side, now, &mut Vec::new()) {
            Ok(material) => material,
            Err(TlsError::Read { path, source }) => {
                return Err(TlsError::Read { path, source }.into());
            }
            Err(_) => return Ok(false),
        };
        match self.verify(&material.certified.cert, leaf.side, at) {
            Ok(()) => {}
            Err(webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) => {
                return Ok(false);
            }
            Err(_) => {
                return Err(IssueError::Request(format!(
                    "{} was not issued by the CA in {}; move it away to get a new one",
                    cert_file.display(),
                    self.dir.join(CA_CERT).display()
                )));
            }
        }
        // A CA near its own end cannot give more than it has; renewing every time would help nobody.
        let wanted =
            RENEW_BEFORE_END.min(self.not_after.duration_since(now).unwrap_or(Duration::ZERO));
        let left = material
            .not_after
            .duration_since(now)
            .unwrap_or(Duration::ZERO);
        Ok(left + Duration::from_secs(1) >= wanted)
    }

    fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        side: Side,
        at: UnixTime,
    ) -> Result<(), webpki::Error> {
        let leaf = chain.first().ok_or(webpki::Error::BadDer)?;
        EndEntityCert::try_from(leaf)?
            .verify_for_usage(
                provider().signature_verification_algorithms.all,
                &[webpki::anchor_from_trusted_cert(&self.cert)?],
                &[],
                at,
                match side {
                    Side::Server => KeyUsage::server_auth(),
                    Side::Client => KeyUsage::client_auth(),
                },
                None,
                None,
            )
            .map(|_| ())
    }

    fn narrow_keys(mut self) -> Result<Self, IssueError> {
        for name in [CA_KEY, SERVER.1, CLIENT.1, ANYONE.1] {
            let path = self.dir.join(name);
            if path.exists() {
                durable_file::narrow(&path, PRIVATE, &mut self.warnings)?;
            }
        }
        Ok(self)
    }
}

impl fmt::Debug for DevCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevCa")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

fn leaves() -> [Leaf; 3] {
    [
        Leaf {
            files: SERVER,
            side: Side::Server,
            request: LeafRequest::server(["localhost", "127.0.0.1", "::1"]),
        },
        Leaf {
            files: CLIENT,
            side: Side::Client,
            request: LeafRequest::client("root"),
        },
        Leaf {
            files: ANYONE,
            side: Side::Client,
            request: LeafRequest::client(""),
        },
    ]
}

fn ca_params(key: &KeyPair, now: SystemTime) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Part of the key's digest in the name: two development CAs on one machine are then "unknown issuer" to each other
    // and not "bad signature".
    let digest = hex(sha256(&key.subject_public_key_info()).as_ref());
    params.distinguished_name.push(
        DnType::CommonName,
        format!("Holdfast development CA {}", &digest[..8]),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    set_validity(&mut params, now, CA_VALIDITY)?;
    Ok(params)
}

fn read_key(path: &Path) -> Result<Option<KeyPair>, IssueError> {
    if !path.exists() {
        return Ok(None);
    }
    let file = SourceFile::read(path, Kind::PrivateKey)?;
    let bad = |reason: String| TlsError::BadKey {
        path: path.to_owned(),
        reason,
    };
    let text = std::str::from_utf8(&file.bytes).map_err(|_| bad("it is not PEM".to_owned()))?;
    let key = KeyPair::from_pem(text).map_err(|error| bad(error.to_string()))?;
    Ok(Some(key))
}

fn read_ca(
    cert_file: &Path,
    key_file: &Path,
    key: Option<&KeyPair>,
    now: SystemTime,
) -> Result<(CertificateDer<'static>, SystemTime), IssueError> {
    let file = SourceFile::read(cert_file, Kind::Certificates)?;
    let mut found = certificates(&file, "PEM CA certificate")?;
    let der = found.swap_remove(0);
    let cert = parse(&der).map_err(|reason| TlsError::BadCertificate {
        path: cert_file.to_owned(),
        number: 1,
        reason,
    })?;
    if !cert.is_ca() {
        return Err(IssueError::Request(format!(
            "{} is not a CA certificate",
            cert_file.display()
        )));
    }
    let not_after = system_time(cert.validity().not_after);
    if not_after <= now {
        return Err(IssueError::CaExpired {
            path: cert_file.to_owned(),
            not_after,
        });
    }
    if key.is_some_and(|key| key.subject_public_key_info() != cert.public_key().raw) {
        return Err(TlsError::KeyMismatch {
            cert: cert_file.to_owned(),
            key: key_file.to_owned(),
        }
        .into());
    }
    Ok((der.clone(), not_after))
}
