//! The development CA of the quick start: a CA, a certificate for this machine, one for the user `root`, and one for users who
//! log in with a password.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{
    dev_authority::{Authority, CaFiles},
    durable_file::{self, PRIVATE},
    error::{IssueError, Warning},
    issue::{Issued, LeafRequest},
    key_material::Side,
};

const CA: CaFiles = CaFiles {
    cert: "ca.crt",
    key: "ca.key",
    title: "Holdfast development CA",
};
const SERVER: (&str, &str) = ("server.crt", "server.key");
const CLIENT: (&str, &str) = ("client-root.crt", "client-root.key");
const ANYONE: (&str, &str) = ("client-anyone.crt", "client-anyone.key");

/// A CA in a directory of its own. For trying things out and for tests: its key lies unencrypted beside the certificates.
pub struct DevCa {
    authority: Authority,
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
        let mut warnings = Vec::new();
        let authority = Authority::open_or_create(
            dir,
            CA,
            || {
                [SERVER.0, CLIENT.0, ANYONE.0]
                    .map(|name| dir.join(name))
                    .into_iter()
                    .find(|leaf| leaf.exists())
            },
            &mut warnings,
        )?;
        let leaves = [SERVER.0, SERVER.1, CLIENT.0, CLIENT.1, ANYONE.0, ANYONE.1];
        durable_file::remove_leftovers(dir, &leaves)?;
        let ca = Self {
            authority,
            warnings,
        };
        ca.renew()?;
        ca.narrow_keys()
    }

    /// Where the files are.
    pub fn files(&self) -> DevCaFiles {
        let dir = &self.authority.dir;
        DevCaFiles {
            ca_cert: self.authority.cert_file(),
            ca_key: self.authority.key_file(),
            server_cert: dir.join(SERVER.0),
            server_key: dir.join(SERVER.1),
            client_cert: dir.join(CLIENT.0),
            client_key: dir.join(CLIENT.1),
            anyone_cert: dir.join(ANYONE.0),
            anyone_key: dir.join(ANYONE.1),
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
            let found = self.authority.good_leaf(leaf.files, &[leaf.side], now)?;
            if found.is_none() {
                let dir = &self.authority.dir;
                self.issue(&leaf.request)?
                    .write_as(dir, leaf.files.0, leaf.files.1)?;
                renewed.push(dir.join(leaf.files.0));
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
        self.authority.issue(request)
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
        self.authority
            .revocation_list(serials_hex, number, validity)
    }

    fn narrow_keys(mut self) -> Result<Self, IssueError> {
        for name in [SERVER.1, CLIENT.1, ANYONE.1] {
            let path = self.authority.dir.join(name);
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
            .field("dir", &self.authority.dir)
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
