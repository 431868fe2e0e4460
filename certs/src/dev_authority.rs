//! A CA with its key in a directory: what the development CAs for clients and for members share.

use std::{
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
    durable_file::{self, PRIVATE, PUBLIC},
    error::{IssueError, TlsError, Warning},
    identity::LeafNames,
    issue::{Issued, LeafRequest, YEAR, generate, issue, new_key, set_validity, unhex},
    key_material::{self, Side, certificates, parse, system_time},
    provider::{hex, provider, sha256},
    source_file::{Kind, SourceFile},
    trust::unix_time,
};

const CA_VALIDITY: Duration = YEAR.saturating_mul(10);
/// Leaves are renewed when less than this is left.
const RENEW_BEFORE_END: Duration = Duration::from_secs(30 * 24 * 3600);

/// The files of a CA, and what its name begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CaFiles {
    pub(crate) cert: &'static str,
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
}

/// See the module.
pub(crate) struct Authority {
    pub(crate) dir: PathBuf,
    files: CaFiles,
    cert: CertificateDer<'static>,
    not_after: SystemTime,
    /// Absent when the user took it away after the leaves were made, which is a good thing to do.
    key: Option<KeyPair>,
}

impl Authority {
    /// Opens the CA in `dir` or makes it (ECDSA P-256, 10 years). Without CA and key there must be no certificate that it issued:
    /// `leaf` finds one.
    pub(crate) fn open_or_create(
        dir: &Path,
        files: CaFiles,
        leaf: impl FnOnce() -> Option<PathBuf>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, IssueError> {
        let now = SystemTime::now();
        durable_file::private_dir(dir, warnings)?;
        durable_file::remove_leftovers(dir, &[files.cert, files.key])?;
        let cert_file = dir.join(files.cert);
        let key_file = dir.join(files.key);
        let mut key = read_key(&key_file)?;
        if !cert_file.exists() {
            // With the CA's key the old leaves fit the CA made now; without it they would belong to nobody.
            if key.is_none()
                && let Some(leaf) = leaf()
            {
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
                    durable_file::write(dir, files.key, made.serialize_pem().as_bytes(), PRIVATE)?;
                    made
                }
            };
            let made = ca_params(&ca_key, files.title, now)?
                .self_signed(&ca_key)
                .map_err(generate)?;
            durable_file::write(dir, files.cert, made.pem().as_bytes(), PUBLIC)?;
            key = Some(ca_key);
        }
        let (cert, not_after) = read_ca(&cert_file, &key_file, key.as_ref(), now)?;
        if key.is_some() {
            durable_file::narrow(&key_file, PRIVATE, warnings)?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            files,
            cert,
            not_after,
            key,
        })
    }

    pub(crate) fn cert_file(&self) -> PathBuf {
        self.dir.join(self.files.cert)
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.dir.join(self.files.key)
    }

    pub(crate) fn issue(&self, request: &LeafRequest) -> Result<Issued, IssueError> {
        let mut params = request.params(SystemTime::now())?;
        params.not_after = params.not_after.min(OffsetDateTime::from(self.not_after));
        params.use_authority_key_identifier_extension = true;
        issue(&params, Some(&self.issuer()?))
    }

    /// See [`crate::DevCa::revocation_list`].
    pub(crate) fn revocation_list(
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
            path: self.key_file(),
        })?;
        Issuer::from_ca_cert_der(&self.cert, key).map_err(generate)
    }

    /// The names of a leaf on disk if it can be used for a while. What a crash of ours can leave behind cannot be used; what only
    /// somebody else can have done is an error.
    pub(crate) fn good_leaf(
        &self,
        (cert, key): (&str, &str),
        sides: &[Side],
        now: SystemTime,
    ) -> Result<Option<LeafNames>, IssueError> {
        let (cert_file, key_file) = (self.dir.join(cert), self.dir.join(key));
        if !cert_file.exists() || !key_file.exists() {
            return Ok(None);
        }
        let cert = SourceFile::read(&cert_file, Kind::Certificates)?;
        let key = SourceFile::read(&key_file, Kind::PrivateKey)?;
        // The side decides about warnings alone, which nobody wants here.
        let side = sides.first().copied().unwrap_or(Side::Server);
        let material = match key_material::load(&cert, &key, side, now, &mut Vec::new()) {
            Ok(material) => material,
            Err(TlsError::Read { path, source }) => {
                return Err(TlsError::Read { path, source }.into());
            }
            Err(_) => return Ok(None),
        };
        for side in sides {
            match self.verify(&material.certified.cert, *side, unix_time(now)) {
                Ok(()) => {}
                Err(webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }) => {
                    return Ok(None);
                }
                Err(_) => {
                    return Err(IssueError::Request(format!(
                        "{} was not issued by the CA in {}; move it away to get a new one",
                        cert_file.display(),
                        self.cert_file().display()
                    )));
                }
            }
        }
        // A CA near its own end cannot give more than it has; renewing every time would help nobody.
        let wanted =
            RENEW_BEFORE_END.min(self.not_after.duration_since(now).unwrap_or(Duration::ZERO));
        let left = material
            .not_after
            .duration_since(now)
            .unwrap_or(Duration::ZERO);
        if left + Duration::from_secs(1) < wanted {
            return Ok(None);
        }
        let leaf = material.certified.cert.first();
        Ok(leaf.and_then(|leaf| LeafNames::parse(leaf).ok()))
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
}

fn ca_params(key: &KeyPair, title: &str, now: SystemTime) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Part of the key's digest in the name: two development CAs on one machine are then "unknown issuer" to each other
    // and not "bad signature".
    let digest = hex(sha256(&key.subject_public_key_info()).as_ref());
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{title} {}", &digest[..8]));
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
