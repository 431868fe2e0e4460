//! How a cluster under test is started.

use crate::ServerOptions;
use std::path::PathBuf;

/// What a test wants of its cluster.
#[derive(Clone, Default)]
pub struct ClusterOptions {
    pub(super) server: ServerOptions,
    pub(super) tls: bool,
    pub(super) links: bool,
    pub(super) data: Vec<Option<PathBuf>>,
}

impl ClusterOptions {
    /// Plaintext, members connected directly.
    pub fn new() -> Self {
        Self::default()
    }

    /// TLS with client certificates for clients and for peers, under two CAs.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Everything between members goes through a [`super::Network`], which can fail.
    pub fn links(mut self) -> Self {
        self.links = true;
        self
    }

    /// One more argument for every member.
    pub fn flag(mut self, argument: impl Into<String>) -> Self {
        self.server = self.server.flag(argument);
        self
    }

    /// One more environment variable for every member.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.server = self.server.env(name, value);
        self
    }

    /// Another binary than the one under test.
    pub fn binary(mut self, path: PathBuf) -> Self {
        self.server = self.server.binary(path);
        self
    }

    /// A data directory of the test's own for a member.
    pub fn data(mut self, member: usize, path: PathBuf) -> Self {
        if self.data.len() <= member {
            self.data.resize(member + 1, None);
        }
        self.data[member] = Some(path);
        self
    }
}
