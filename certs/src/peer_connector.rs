//! A connector for the HTTP client that speaks to one other member.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tower_service::Service;

use crate::{
    client::ConnectError,
    connector::{ClientIo, Socket},
    error::Invalid,
    identity::PeerIdentity,
    peer_tls::PeerTls,
    target::Target,
};

/// Makes connections to one member and remembers who answered. Clones are the same connector.
///
/// Connecting has no deadline of its own; the HTTP client's connect timeout covers resolving, connecting and handshake.
#[derive(Debug, Clone)]
pub struct PeerConnector(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tls: Option<Arc<PeerTls>>,
    target: Target,
    last: Mutex<Option<PeerIdentity>>,
}

impl PeerConnector {
    /// Goes to `target`, whatever the URI of a request says (see [`Target::dial_uri`]). `https` needs `tls`.
    pub fn new(tls: Option<Arc<PeerTls>>, target: Target) -> Self {
        Self(Arc::new(Shared {
            tls,
            target,
            last: Mutex::default(),
        }))
    }

    /// Who answered the connection made last: to be judged by [`PeerTls::check_member`] with what it claims. `None` before the
    /// first connection, without TLS and where members are not verified.
    pub fn identity(&self) -> Option<PeerIdentity> {
        self.0.last.lock().clone()
    }

    /// Judges the connection made last as [`PeerTls::still_valid`] does; `Ok` if there is nothing to judge.
    ///
    /// # Errors
    ///
    /// The reason why the connection has to be closed.
    pub fn still_valid(&self, now: SystemTime) -> Result<(), Invalid> {
        match (&self.0.tls, self.identity()) {
            (Some(tls), Some(peer)) => tls.still_valid(&peer, now),
            _ => Ok(()),
        }
    }

    async fn connect(&self) -> Result<ClientIo, ConnectError> {
        let target = &self.0.target;
        let tls = match (target.is_tls(), &self.0.tls) {
            (false, _) => None,
            (true, Some(tls)) => Some(tls),
            (true, None) => return Err(ConnectError::NoTls(target.to_string())),
        };
        let host = target.tls_host();
        let (io, identity) = match (Socket::open(target).await?, tls) {
            (Socket::Tcp(tcp), None) => (ClientIo::Tcp(tcp), None),
            (Socket::Unix(unix), None) => (ClientIo::Unix(unix), None),
            (Socket::Tcp(tcp), Some(tls)) => {
                let (stream, identity) = tls.connect(tcp, host).await?;
                (ClientIo::Tls(Box::new(stream)), identity)
            }
            (Socket::Unix(unix), Some(tls)) => {
                let (stream, identity) = tls.connect(unix, host).await?;
                (ClientIo::UnixTls(Box::new(stream)), identity)
            }
        };
        *self.0.last.lock() = identity;
        Ok(io)
    }
}

impl Service<Uri> for PeerConnector {
    type Response = TokioIo<ClientIo>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map(TokioIo::new) })
    }
}
