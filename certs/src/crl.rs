//! Certificate revocation lists.

use std::time::SystemTime;

use rustls_pki_types::{CertificateRevocationListDer, pem::PemObject};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::{
    error::{TlsError, Warning},
    key_material::{pem_error, printable, system_time},
    source_file::SourceFile,
};

/// Most lists in one file: one per issuer, or per partition of an issuer.
const MAX_CRLS: usize = 256;

/// The lists of one file, the newest of an issuer first.
#[derive(Debug, Default)]
pub(crate) struct Crls {
    pub(crate) lists: Vec<CertRevocationList<'static>>,
    /// The issuers' names in DER, in the same order.
    pub(crate) issuers: Vec<Vec<u8>>,
    /// The earliest `nextUpdate` of all lists.
    pub(crate) next_update: Option<SystemTime>,
}

struct Parsed {
    list: CertRevocationList<'static>,
    issuer: Vec<u8>,
    this_update: i64,
}

impl Crls {
    /// Reads PEM or DER.
    ///
    /// # Errors
    ///
    /// No list, a damaged one, or one of a kind that could not be honoured (delta, indirect, partitioned by reason):
    /// to ignore it would be to accept what it revokes.
    pub(crate) fn load(
        file: &SourceFile,
        now: SystemTime,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, TlsError> {
        let mut parsed = Vec::new();
        let mut next_update = None;
        for (index, der) in split(file)?.iter().enumerate() {
            let bad = |reason: String| TlsError::BadCrl {
                path: file.path.clone(),
                number: index + 1,
                reason,
            };
            if index >= MAX_CRLS {
                return Err(bad(format!("more than {MAX_CRLS} lists")));
            }
            let Ok(([], facts)) = CertificateRevocationList::from_der(der) else {
                return Err(bad("it is not a DER revocation list".to_owned()));
            };
            let list = OwnedCertRevocationList::from_der(der)
                .map_err(|error| bad(format!("it cannot be used: {error}")))?;
            if let Some(due) = facts.next_update().map(system_time) {
                if due < now {
                    warnings.push(Warning::CrlExpired {
                        path: file.path.clone(),
                        issuer: printable(&facts.issuer().to_string()),
                        next_update: due,
                    });
                }
                next_update = Some(next_update.map_or(due, |known: SystemTime| known.min(due)));
            }
            parsed.push(Parsed {
                list: list.into(),
                issuer: facts.issuer().as_raw().to_vec(),
                this_update: facts.last_update().timestamp(),
            });
        }
        // Path building asks the first list that answers for an issuer and no other: let that be the newest.
        parsed.sort_by_key(|entry| std::cmp::Reverse(entry.this_update));
        let (lists, issuers) = parsed
            .into_iter()
            .map(|entry| (entry.list, entry.issuer))
            .unzip();
        Ok(Self {
            lists,
            issuers,
            next_update,
        })
    }
}

fn split(file: &SourceFile) -> Result<Vec<CertificateRevocationListDer<'_>>, TlsError> {
    let bytes = file.bytes.as_slice();
    let missing = || TlsError::Missing {
        path: file.path.clone(),
        wanted: "revocation list (PEM or DER)",
    };
    let mut found = CertificateRevocationListDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem_error(&file.path, &error))?;
    if !found.is_empty() {
        return Ok(found);
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        let Ok((after, list)) = CertificateRevocationList::from_der(rest) else {
            return Err(if found.is_empty() {
                missing()
            } else {
                TlsError::BadCrl {
                    path: file.path.clone(),
                    number: found.len() + 1,
                    reason: "it is not a DER revocation list".to_owned(),
                }
            });
        };
        if found.len() > MAX_CRLS {
            break; // the caller refuses the number
        }
        drop(list);
        // The parser returns a suffix of its input, so that the difference of the lengths is what it took.
        let (one, _) = rest.split_at(rest.len() - after.len());
        found.push(CertificateRevocationListDer::from(one));
        rest = after;
    }
    if found.is_empty() {
        return Err(missing());
    }
    Ok(found)
}
