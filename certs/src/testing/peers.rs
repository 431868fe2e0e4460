//! Members of a cluster for tests.

use std::path::{Path, PathBuf};

use super::{TestCa, TestLeaf};
use crate::{error::IssueError, issue::Issued, peer_settings::PeerTlsSettings};

/// A CA of members with the files of some: `peer-ca.crt`, and for each `member-<name>.crt` and `.key`.
#[derive(Debug)]
pub struct TestPeers {
    /// The CA, for what it should not have issued.
    pub ca: TestCa,
    dir: PathBuf,
}

impl TestPeers {
    /// A new CA, and a sound certificate for each of these members.
    ///
    /// # Errors
    ///
    /// The library cannot make them, or a file cannot be written.
    pub fn new(dir: &Path, names: &[&str]) -> Result<Self, IssueError> {
        let peers = Self {
            ca: TestCa::new("test peer CA")?,
            dir: dir.to_owned(),
        };
        peers.ca.write_cert(dir, "peer-ca")?;
        for name in names {
            peers.add(name, &TestLeaf::member(name))?;
        }
        Ok(peers)
    }

    /// Issues any certificate and writes it as that of the member `name`.
    ///
    /// # Errors
    ///
    /// As for [`TestCa::issue`], or a file cannot be written.
    pub fn add(&self, name: &str, leaf: &TestLeaf) -> Result<Issued, IssueError> {
        let issued = self.ca.issue(leaf)?;
        issued.write(&self.dir, &format!("member-{name}"))?;
        Ok(issued)
    }

    /// The certificate of the CA.
    #[must_use]
    pub fn ca_cert(&self) -> PathBuf {
        self.dir.join("peer-ca.crt")
    }

    /// Certificate and key of a member.
    #[must_use]
    pub fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        let path = |end| self.dir.join(format!("member-{name}.{end}"));
        (path("crt"), path("key"))
    }

    /// As profile `strict` has them, for the member `name`.
    #[must_use]
    pub fn settings(&self, name: &str) -> PeerTlsSettings {
        let (cert, key) = self.pair(name);
        PeerTlsSettings::named(cert, key, self.ca_cert(), name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PeerTls, Warning};

    #[test]
    fn the_files_of_a_member_are_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let peers = TestPeers::new(dir.path(), &["m1", "m2"]).unwrap();
        let load = |name: &str| PeerTls::load(peers.settings(name)).unwrap();
        for name in ["m1", "m2"] {
            assert_eq!(load(name).listener().report().warnings, []);
        }
        peers.add("m1", &TestLeaf::member("m2")).unwrap();
        assert!(matches!(
            load("m1").listener().report().warnings[..],
            [Warning::NamesAnotherMember { .. }]
        ));
    }
}
