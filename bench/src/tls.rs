//! Dials a server: plain TCP, or TLS through holdfast-certs.

use holdfast_certs::{ClientTls, ClientTlsSettings, TlsError};
use holdfast_transport::Coalesce;
use std::{io, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// Dialling and handshake must end within this.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("`{0}` is not an endpoint: give http://HOST:PORT or https://HOST:PORT")]
    Endpoint(String),
    #[error("TLS of the client: {0}")]
    Settings(#[from] TlsError),
    #[error("connect to {address}: {source}")]
    Tcp { address: String, source: io::Error },
    #[error(transparent)]
    Tls(#[from] holdfast_certs::ConnectError),
    #[error("connect to {0}: no answer in time")]
    Deadline(String),
}

/// Both kinds of stream.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Files of a TLS client; all optional.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsFiles {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) skip_verify: bool,
    pub(crate) server_name: Option<String>,
}

/// Knows how to reach one server.
#[derive(Clone)]
pub(crate) struct Dialer {
    authority: String,
    tls: Option<ClientTls>,
}

impl Dialer {
    /// `endpoint` is `http://host:port`, `https://host:port` or `host:port`.
    pub(crate) fn new(endpoint: &str, files: &TlsFiles) -> Result<Self, ConnectError> {
        let (tls, authority) = if let Some(authority) = endpoint.strip_prefix("https://") {
            (true, authority)
        } else {
            (false, endpoint.strip_prefix("http://").unwrap_or(endpoint))
        };
        let authority = authority.trim_end_matches('/');
        let port = authority.rsplit_once(':').map(|(_, port)| port);
        if port.is_none_or(|port| port.parse::<u16>().is_err()) {
            return Err(ConnectError::Endpoint(endpoint.to_owned()));
        }
        let tls = if tls {
            Some(ClientTls::load(&ClientTlsSettings {
                ca_file: files.ca.clone(),
                cert_file: files.cert.clone(),
                key_file: files.key.clone(),
                insecure_skip_verify: files.skip_verify,
                server_name: files.server_name.clone(),
                ..ClientTlsSettings::default()
            })?)
        } else {
            None
        };
        Ok(Self {
            authority: authority.to_owned(),
            tls,
        })
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Scheme and authority, without a path.
    pub(crate) fn base(&self) -> String {
        let scheme = if self.is_tls() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }

    pub(crate) async fn dial(&self) -> Result<Box<dyn Transport>, ConnectError> {
        tokio::time::timeout(DEADLINE, self.connect())
            .await
            .map_err(|_| ConnectError::Deadline(self.authority.clone()))?
    }

    async fn connect(&self) -> Result<Box<dyn Transport>, ConnectError> {
        let failed = |source| ConnectError::Tcp {
            address: self.authority.clone(),
            source,
        };
        let stream = TcpStream::connect(&self.authority).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(Coalesce::new(stream)));
        };
        let host = self
            .authority
            .rsplit_once(':')
            .map_or("", |(host, _)| host)
            .trim_start_matches('[')
            .trim_end_matches(']');
        let stream = holdfast_certs::connect(tls, stream, host).await?;
        Ok(Box::new(Coalesce::new(stream)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let base = |endpoint| {
            Dialer::new(endpoint, &TlsFiles::default())
                .map(|dialer| dialer.base())
                .ok()
        };
        assert_eq!(base("http://h:1/").as_deref(), Some("http://h:1"));
        assert_eq!(base("[::1]:2379").as_deref(), Some("http://[::1]:2379"));
        for wrong in ["", "h", "http://h", "h:x", "http://h:1/path"] {
            assert_eq!(base(wrong), None, "{wrong}");
        }
    }
}
