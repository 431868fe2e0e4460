//! How a server under test is started.

use std::path::PathBuf;

/// What a test wants of its server beyond the flags that every wrapper gives.
#[derive(Clone, Default)]
pub struct ServerOptions {
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) binary: Option<PathBuf>,
    pub(crate) data: Option<PathBuf>,
}

impl ServerOptions {
    /// The plain server.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more argument, such as `--max-txn-ops=3`.
    pub fn flag(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// One more environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another binary than the one under test.
    pub fn binary(mut self, path: PathBuf) -> Self {
        self.binary = Some(path);
        self
    }

    /// A data directory of the test's own, which is left in place.
    pub fn data(mut self, path: PathBuf) -> Self {
        self.data = Some(path);
        self
    }
}
