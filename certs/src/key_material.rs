//! A certificate chain with its private key, as a server or a client presents it.

use std::{path::Path, sync::Arc, time::SystemTime};

use rustls::{InconsistentKeys, pki_types::pem::PemObject, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::{
    error::{TlsError, Warning},
    provider::provider,
    source_file::SourceFile,
};

/// Most certificates that one of our own files may hold.
const MAX_CHAIN: usize = 16;

/// On which side of a connection the certificate will stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

/// A usable key with its chain.
pub(crate) struct KeyMaterial {
    pub(crate) certified: Arc<CertifiedKey>,
    /// End of the leaf's validity.
    pub(crate) not_after: SystemTime,
}

/// Puts a chain and a key together.
///
/// Only what makes a handshake impossible is an error. What merely makes peers refuse us (expired, wrong usage) is a
/// warning: a server that is up and says so can be repaired by a reload, one that does not start cannot.
pub(crate) fn load(
    cert: &SourceFile,
    key: &SourceFile,
    side: Side,
    now: SystemTime,
    warnings: &mut Vec<Warning>,
) -> Result<KeyMaterial, TlsError> {
    let chain = certificates(cert, "PEM certificate")?;
    if chain.len() > MAX_CHAIN {
        return Err(TlsError::BadCertificate {
            path: cert.path.clone(),
            number: MAX_CHAIN + 1,
            reason: format!("more than {MAX_CHAIN} certificates in a chain"),
        });
    }
    let not_after = inspect_chain(&cert.path, &chain, side, now, warnings)?;
    let private_key = private_key(key)?;
    if key.mode & 0o007 != 0 {
        warnings.push(Warning::KeyWorldReadable {
            path: key.path.clone(),
            mode: key.mode & 0o777,
        });
    }
    let certified =
        CertifiedKey::from_der(chain, private_key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::KeyMismatch {
                    cert: cert.path.clone(),
                    key: key.path.clone(),
                }
            }
            rustls::Error::InvalidCertificate(reason) => TlsError::BadCertificate {
                path: cert.path.clone(),
                number: 1,
                reason: reason.to_string(),
            },
            other => TlsError::BadKey {
                path: key.path.clone(),
                reason: other.to_string(),
            },
        })?;
    Ok(KeyMaterial {
        certified: Arc::new(certified),
        not_after,
    })
}

/// All certificates in a PEM file; at least one.
pub(crate) fn certificates(
    file: &SourceFile,
    wanted: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(&file.bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem_error(&file.path, &error))?;
    if found.is_empty() {
        return Err(TlsError::Missing {
            path: file.path.clone(),
            wanted,
        });
    }
    Ok(found)
}

fn private_key(file: &SourceFile) -> Result<PrivateKeyDer<'static>, TlsError> {
    let has = |needle: &[u8]| file.bytes.windows(needle.len()).any(|part| part == needle);
    // The second form is OpenSSL's old one: an ordinary label with an encryption header inside.
    if has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::EncryptedKey {
            path: file.path.clone(),
        });
    }
    PrivateKeyDer::from_pem_slice(&file.bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::Missing {
            path: file.path.clone(),
            wanted: "PEM private key",
        },
        other => pem_error(&file.path, &other),
    })
}

/// Says what is wrong without quoting the file: it may be a private key.
pub(crate) fn pem_error(path: &Path, error: &pem::Error) -> TlsError {
    let reason = match error {
        pem::Error::MissingSectionEnd { end_marker } => format!(
            "it ends before {}; is it cut off?",
            String::from_utf8_lossy(end_marker).trim_end()
        ),
        pem::Error::IllegalSectionStart { .. } => "a -----BEGIN line is malformed".to_owned(),
        pem::Error::Base64Decode(_) => "a section is not base64".to_owned(),
        pem::Error::SectionTooLarge => "a section is too large".to_owned(),
        _ => "it cannot be read".to_owned(),
    };
    TlsError::Pem {
        path: path.to_owned(),
        reason,
    }
}

/// Parses one certificate and nothing behind it.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], cert)) => Ok(cert),
        Ok(_) => Err("bytes after the end of the certificate".to_owned()),
        Err(_) => Err("it is not a DER certificate".to_owned()),
    }
}

/// An X.509 time as the system's; times before 1970 become 1970.
pub(crate) fn system_time(at: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(at.timestamp()).unwrap_or(0);
    // X.509 ends in the year 9999, which fits; saturation only guards against a parser that allows more.
    SystemTime::UNIX_EPOCH
        .checked_add(std::time::Duration::from_secs(seconds))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Warns when a certificate is not valid now.
pub(crate) fn check_validity(
    path: &Path,
    cert: &X509Certificate<'_>,
    now: SystemTime,
    warnings: &mut Vec<Warning>,
) {
    let not_before = system_time(cert.validity().not_before);
    let not_after = system_time(cert.validity().not_after);
    if now < not_before {
        warnings.push(Warning::NotYetValid {
            path: path.to_owned(),
            subject: printable(&cert.subject().to_string()),
            not_before,
        });
    } else if now > not_after {
        warnings.push(Warning::Expired {
            path: path.to_owned(),
            subject: printable(&cert.subject().to_string()),
            not_after,
        });
    }
}

/// A foreign name cut and cleaned so that it can stand in a log line.
pub(crate) fn printable(name: &str) -> String {
    name.chars()
        .take(200)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn inspect_chain(
    path: &Path,
    chain: &[CertificateDer<'static>],
    side: Side,
    now: SystemTime,
    warnings: &mut Vec<Warning>,
) -> Result<SystemTime, TlsError> {
    let mut parsed = Vec::with_capacity(chain.len());
    for (index, der) in chain.iter().enumerate() {
        let cert = parse(der).map_err(|reason| TlsError::BadCertificate {
            path: path.to_owned(),
            number: index + 1,
            reason,
        })?;
        check_validity(path, &cert, now, warnings);
        parsed.push(cert);
    }
    let Some(leaf) = parsed.first() else {
        return Err(TlsError::Missing {
            path: path.to_owned(),
            wanted: "PEM certificate",
        });
    };
    if leaf.is_ca() {
        warnings.push(Warning::CaAsLeaf {
            path: path.to_owned(),
        });
    }
    if let Ok(Some(usage)) = leaf.extended_key_usage() {
        let (present, missing) = match side {
            Side::Server => (usage.value.server_auth, "serverAuth"),
            Side::Client => (usage.value.client_auth, "clientAuth"),
        };
        if !present && !usage.value.any {
            warnings.push(Warning::WrongPurpose {
                path: path.to_owned(),
                missing,
            });
        }
    }
    let misplaced = parsed
        .windows(2)
        .position(|pair| pair[0].issuer().as_raw() != pair[1].subject().as_raw());
    if let Some(index) = misplaced {
        warnings.push(Warning::ChainOrder {
            path: path.to_owned(),
            number: index + 2,
        });
    }
    Ok(system_time(leaf.validity().not_after))
}
