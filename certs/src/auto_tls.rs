//! The self-signed certificate behind etcd's `--auto-tls`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{
    durable_file,
    error::{IssueError, TlsError, Warning},
    issue::{LeafRequest, YEAR, issue},
    key_material::{self, Side},
    source_file::{Kind, SourceFile},
};

const CERT: &str = "cert.pem";
const KEY: &str = "key.pem";

/// A self-signed certificate on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SelfSigned {
    /// The certificate; clients pin it by giving it as their CA file.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// Whether it was made now, as opposed to found.
    pub created: bool,
    /// What an operator should know.
    pub warnings: Vec<Warning>,
}

/// Finds or makes `cert.pem` and `key.pem` in `dir` (etcd: `<data-dir>/fixtures/client`), valid for `hosts` and
/// `validity_years` years (etcd's `--self-signed-cert-validity`).
///
/// What is there is used again, also when etcd made it, unless it has expired or the pair does not belong together (a
/// crash between the two files). As in etcd, the hosts of a certificate that is used again are not compared.
///
/// # Errors
///
/// The directory cannot be used, a file in it is damaged, no host is given, or the validity is not 1 to 100 years.
pub fn self_signed(
    hosts: &[String],
    validity_years: u32,
    dir: &Path,
) -> Result<SelfSigned, IssueError> {
    let mut warnings = Vec::new();
    durable_file::private_dir(dir, &mut warnings)?;
    durable_file::remove_leftovers(dir, &[CERT, KEY])?;
    let (cert_file, key_file) = (dir.join(CERT), dir.join(KEY));
    let now = SystemTime::now();
    let created = !usable(&cert_file, &key_file, now)?;
    if created {
        let request = LeafRequest {
            // etcd uses the same pair as client certificate between members.
            client_auth: true,
            validity: YEAR.saturating_mul(validity_years),
            ..LeafRequest::server(hosts)
        };
        issue(&request.params(now)?, None)?.write_as(dir, CERT, KEY)?;
    }
    durable_file::narrow(&key_file, durable_file::PRIVATE, &mut warnings)?;
    Ok(SelfSigned {
        cert_file,
        key_file,
        created,
        warnings,
    })
}

fn usable(cert: &Path, key: &Path, now: SystemTime) -> Result<bool, IssueError> {
    if !cert.exists() || !key.exists() {
        return Ok(false);
    }
    let cert = SourceFile::read(cert, Kind::Certificates)?;
    let key = SourceFile::read(key, Kind::PrivateKey)?;
    match key_material::load(&cert, &key, Side::Server, now, &mut Vec::new()) {
        Ok(material) => Ok(material
            .not_after
            .duration_since(now)
            .unwrap_or(Duration::ZERO)
            > Duration::ZERO),
        Err(TlsError::KeyMismatch { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
