//! Certificates of a cluster that uses mutual TLS for clients and between members.

use super::members::{MEMBERS, member_name};
use holdfast_certs::{DevCa, DevCaFiles, DevMemberFiles, DevPeerCa, IssueError};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Where the files are. Members have a CA of their own.
#[derive(Clone)]
pub(crate) struct Certificates {
    pub(crate) client: DevCaFiles,
    peer_ca: PathBuf,
    members: Vec<DevMemberFiles>,
}

impl Certificates {
    /// Finds or makes them in a directory.
    pub(crate) fn make(directory: &Path) -> Result<Self, IssueError> {
        let client = DevCa::open_or_create(directory)?.files();
        let peers = DevPeerCa::open_or_create(directory)?;
        let members = (0..MEMBERS)
            .map(|number| peers.member(&member_name(number), &[]))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            client,
            peer_ca: peers.ca_cert(),
            members,
        })
    }

    /// The flags of one member: certificates required from clients and from members.
    pub(crate) fn add_to(&self, command: &mut Command, member: usize) {
        command
            .arg("--cert-file")
            .arg(&self.client.server_cert)
            .arg("--key-file")
            .arg(&self.client.server_key)
            .arg("--trusted-ca-file")
            .arg(&self.client.ca_cert)
            .arg("--client-cert-auth");
        if let Some(files) = self.members.get(member) {
            command
                .arg("--peer-cert-file")
                .arg(&files.cert)
                .arg("--peer-key-file")
                .arg(&files.key)
                .arg("--peer-trusted-ca-file")
                .arg(&self.peer_ca)
                .arg("--peer-client-cert-auth");
        }
    }
}
