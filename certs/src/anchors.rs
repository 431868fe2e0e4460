//! The CAs of a listener or a client.

use std::time::SystemTime;

use rustls_pki_types::TrustAnchor;

use crate::{
    error::{TlsError, Warning},
    key_material::{certificates, check_validity, parse, printable, system_time},
    provider::{hex, sha256},
    source_file::SourceFile,
};

/// Most CAs in one set. The distribution bundles have some 150.
const MAX_ANCHORS: usize = 2048;

/// A set of trusted CAs.
#[derive(Debug, Default)]
pub(crate) struct Anchors {
    /// What path building takes.
    pub(crate) anchors: Vec<TrustAnchor<'static>>,
    /// What path building does not look at, in the same order.
    pub(crate) facts: Vec<AnchorFacts>,
}

/// What a trust anchor does not carry although the certificate did.
#[derive(Debug)]
pub(crate) struct AnchorFacts {
    pub(crate) subject: String,
    /// The subject as in the certificate, to match it with a revocation list.
    pub(crate) subject_der: Vec<u8>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// SHA-256 of the SubjectPublicKeyInfo, in hexadecimal.
    pub(crate) key_sha256: String,
}

impl Anchors {
    /// Adds all certificates of a PEM file.
    pub(crate) fn add(
        &mut self,
        file: &SourceFile,
        now: SystemTime,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), TlsError> {
        for (index, der) in certificates(file, "PEM CA certificate")?.iter().enumerate() {
            let bad = |reason: String| TlsError::BadCertificate {
                path: file.path.clone(),
                number: index + 1,
                reason,
            };
            if self.anchors.len() >= MAX_ANCHORS {
                return Err(bad(format!("more than {MAX_ANCHORS} CAs")));
            }
            let cert = parse(der).map_err(bad)?;
            let anchor = webpki::anchor_from_trusted_cert(der)
                .map_err(|error| bad(format!("cannot be used as a CA: {error}")))?;
            check_validity(&file.path, &cert, now, warnings);
            let subject = printable(&cert.subject().to_string());
            if !cert.is_ca() {
                warnings.push(Warning::NotACa {
                    path: file.path.clone(),
                    subject: subject.clone(),
                });
            }
            self.facts.push(AnchorFacts {
                subject,
                subject_der: cert.subject().as_raw().to_vec(),
                not_before: system_time(cert.validity().not_before),
                not_after: system_time(cert.validity().not_after),
                key_sha256: hex(sha256(cert.public_key().raw).as_ref()),
            });
            self.anchors.push(anchor.to_owned());
        }
        Ok(())
    }
}
