//! The CA of the members of a development cluster. It is not the CA of clients: no certificate made for a client opens the port of
//! the members, whatever it says.

use std::{
    fmt, fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{
    dev_authority::{Authority, CaFiles},
    durable_file::{self, PRIVATE},
    error::{IssueError, Warning},
    identity::LeafNames,
    issue::{Issued, LeafRequest, YEAR},
    key_material::Side,
    named_user::SpiffeId,
};

const CA: CaFiles = CaFiles {
    cert: "peer-ca.crt",
    key: "peer-ca.key",
    title: "Holdfast development peer CA",
};
/// What the files of members begin with.
const MEMBER: &str = "member-";
/// Longest member name; with what stands around it the name of a file has 255 bytes at most.
const MAX_NAME_BYTES: usize = 200;

/// A CA for members in a directory, which may be that of a [`crate::DevCa`]. For trying things out and for tests: its key lies
/// unencrypted beside the certificates.
pub struct DevPeerCa {
    authority: Authority,
    warnings: Vec<Warning>,
}

/// Where the files of a member are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DevMemberFiles {
    /// The certificate, for both directions.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl DevPeerCa {
    /// Opens the CA in `dir` (`peer-ca.crt`, `peer-ca.key`) or makes it: once (ECDSA P-256, 10 years), then it is kept.
    ///
    /// # Errors
    ///
    /// The directory cannot be used; the CA is damaged or has expired, or is gone while its certificates are still there.
    pub fn open_or_create(dir: &Path) -> Result<Self, IssueError> {
        let mut warnings = Vec::new();
        let orphan = || {
            let entries = fs::read_dir(dir).ok()?.flatten();
            let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            names
                .find(|name| name.starts_with(MEMBER) && name.ends_with(".crt"))
                .map(|name| dir.join(name))
        };
        let authority = Authority::open_or_create(dir, CA, orphan, &mut warnings)?;
        Ok(Self {
            authority,
            warnings,
        })
    }

    /// The CA's certificate, for `--peer-trusted-ca-file`.
    pub fn ca_cert(&self) -> PathBuf {
        self.authority.cert_file()
    }

    /// What was found amiss and repaired at opening.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Finds the certificate of the member `name` (`member-<name>.crt`, `.key`), or makes it: if it is missing or damaged, ends
    /// within 30 days, or lacks one of `hosts`. It is for localhost, 127.0.0.1 and ::1 in any case.
    ///
    /// # Errors
    ///
    /// A name that cannot stand in a SPIFFE id (letters, digits, `.`, `-` and `_`), or a host that cannot stand in a certificate; a
    /// certificate that is not from this CA (somebody put it there, so it is not overwritten); the CA's key is needed and gone.
    pub fn member(&self, name: &str, hosts: &[&str]) -> Result<DevMemberFiles, IssueError> {
        let request = request(name, hosts)?;
        let names = [format!("{MEMBER}{name}.crt"), format!("{MEMBER}{name}.key")];
        let [cert, key] = names.each_ref().map(String::as_str);
        let dir = &self.authority.dir;
        durable_file::remove_leftovers(dir, &[cert, key])?;
        let sides = [Side::Server, Side::Client];
        let found = self
            .authority
            .good_leaf((cert, key), &sides, SystemTime::now())?;
        if !found.is_some_and(|found| covers(&found, &request)) {
            self.authority.issue(&request)?.write_as(dir, cert, key)?;
        }
        durable_file::narrow(&dir.join(key), PRIVATE, &mut Vec::new())?;
        let [cert, key] = names.map(|name| dir.join(name));
        Ok(DevMemberFiles { cert, key })
    }

    /// Issues a certificate as [`Self::member`] does. Nothing is written.
    ///
    /// # Errors
    ///
    /// The CA's key is gone, or a name is impossible.
    pub fn issue_member(&self, name: &str, hosts: &[&str]) -> Result<Issued, IssueError> {
        self.authority.issue(&request(name, hosts)?)
    }
}

impl fmt::Debug for DevPeerCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevPeerCa")
            .field("dir", &self.authority.dir)
            .finish_non_exhaustive()
    }
}

fn request(name: &str, hosts: &[&str]) -> Result<LeafRequest, IssueError> {
    let uri = format!("spiffe://holdfast/member/{name}");
    let is_one_segment = !name.contains('/') && SpiffeId::parse(&uri).is_ok();
    if !is_one_segment || name.len() > MAX_NAME_BYTES {
        return Err(IssueError::Request(format!(
            "member name {:?} must have 1 to {MAX_NAME_BYTES} letters, digits, '.', '-' and '_', and not be dots alone",
            name.chars().take(MAX_NAME_BYTES).collect::<String>()
        )));
    }
    let mut all = vec!["localhost", "127.0.0.1", "::1"];
    for host in hosts {
        if !all.contains(host) {
            all.push(host);
        }
    }
    Ok(LeafRequest {
        common_name: name.to_owned(),
        hosts: all.into_iter().map(str::to_owned).collect(),
        uris: vec![uri],
        server_auth: true,
        client_auth: true,
        validity: YEAR,
    })
}

fn covers(found: &LeafNames, request: &LeafRequest) -> bool {
    let has = |host: &String| match host.parse::<IpAddr>() {
        Ok(address) => found.ip_sans.contains(&address),
        Err(_) => found.dns_sans.contains(host),
    };
    found.uri_sans == request.uris && request.hosts.iter().all(has)
}
