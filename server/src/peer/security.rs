//! Connections between members, plain or with TLS, and how long their certificates are good.

use super::bounds::LOOK;
use super::hello::Known;
use holdfast_certs::{MemberClaim, PeerIdentity, PeerTls, Target, accept};
use holdfast_transport::Coalesce;
use hyper_util::rt::TokioIo;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How members are spoken with.
#[derive(Clone, Debug)]
pub(crate) struct Security {
    /// For `https` URLs and TLS listeners.
    pub(crate) tls: Option<Arc<PeerTls>>,
    /// Whether `http` URLs are dialled and plain listeners served. Not if certificates are to name members.
    pub(crate) plaintext: bool,
}

/// Both kinds of stream.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection after its handshake.
pub(super) struct Secured {
    pub(super) io: TokioIo<Box<dyn Io>>,
    pub(super) holder: Holder,
}

/// Who holds the certificate of a connection.
#[derive(Clone)]
pub(super) struct Holder {
    /// `None` for a plain connection.
    tls: Option<Arc<PeerTls>>,
    /// `None` on a plain connection, and where nobody is verified.
    identity: Option<Arc<PeerIdentity>>,
    /// What was in use when the certificate was judged.
    generation: u64,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecureError {
    #[error("{0}")]
    Url(#[from] holdfast_certs::TargetError),
    #[error("{0} is a unix socket: members are reached by TCP")]
    UnixSocket(String),
    #[error("{0} is plaintext, and members must use TLS here (https://)")]
    Plaintext(String),
    #[error("{0} needs TLS, which is not configured for members")]
    NoTls(String),
    #[error("cannot connect to {target}: {source}")]
    Io {
        target: String,
        source: std::io::Error,
    },
    #[error(transparent)]
    Connect(#[from] holdfast_certs::ConnectError),
    #[error(transparent)]
    Accept(#[from] holdfast_certs::HandshakeError),
    #[error("certificate of a connection: {0}")]
    Address(#[from] holdfast_certs::MemberRefused),
}

fn boxed(stream: impl Io + 'static) -> TokioIo<Box<dyn Io>> {
    TokioIo::new(Box::new(Coalesce::new(stream)))
}

impl Security {
    /// Connects to a member's URL. Without a deadline.
    pub(super) async fn dial(&self, url: &str) -> Result<Secured, SecureError> {
        let target = Target::parse(url, false)?;
        let tls = match (target.is_tls(), &self.tls, self.plaintext) {
            (true, Some(tls), _) => Some(tls.clone()),
            (true, None, _) => return Err(SecureError::NoTls(url.to_owned())),
            (false, _, true) => None,
            (false, _, false) => return Err(SecureError::Plaintext(url.to_owned())),
        };
        let Target::Tcp { host, port, .. } = &target else {
            return Err(SecureError::UnixSocket(url.to_owned()));
        };
        let failed = |source| SecureError::Io {
            target: target.to_string(),
            source,
        };
        let tcp = TcpStream::connect((host.as_str(), *port)).await;
        let tcp = tcp.map_err(failed)?;
        // Messages are small and waited for.
        tcp.set_nodelay(true).map_err(failed)?;
        let Some(tls) = tls else {
            return Ok(Secured::plain(tcp));
        };
        let generation = tls.listener().generation();
        let (stream, identity) = tls.connect(tcp, host).await?;
        Ok(Secured {
            io: boxed(stream),
            holder: Holder {
                tls: Some(tls),
                identity: identity.map(Arc::new),
                generation,
            },
        })
    }

    /// The handshake with a member that has connected. Without a deadline.
    ///
    /// `hosts` are those of all members' URLs.
    pub(super) async fn accept(
        &self,
        tcp: TcpStream,
        remote: SocketAddr,
        is_tls: bool,
        hosts: &[String],
    ) -> Result<Secured, SecureError> {
        let tls = match (is_tls, &self.tls) {
            (true, Some(tls)) => tls.clone(),
            (true, None) => return Err(SecureError::NoTls(remote.to_string())),
            (false, _) if self.plaintext => return Ok(Secured::plain(tcp)),
            (false, _) => return Err(SecureError::Plaintext(remote.to_string())),
        };
        let generation = tls.listener().generation();
        let (stream, identity) = accept(tls.listener(), tcp).await?;
        if let Some(identity) = &identity {
            let address = remote.ip().to_canonical();
            tls.check_address(identity, address, hosts).await?;
        }
        Ok(Secured {
            io: boxed(stream),
            holder: Holder {
                tls: Some(tls),
                identity: identity.map(Arc::new),
                generation,
            },
        })
    }
}

impl Secured {
    fn plain(tcp: TcpStream) -> Secured {
        Secured {
            io: boxed(tcp),
            holder: Holder {
                tls: None,
                identity: None,
                generation: 0,
            },
        }
    }
}

impl Holder {
    /// Whether the certificate is that of the member which calls itself `name`.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn may_speak_for(&self, name: &str, known: &Known) -> Result<(), String> {
        let Some(tls) = &self.tls else {
            return Ok(());
        };
        let claim = MemberClaim {
            name,
            known: known.name.as_deref(),
            named_elsewhere: known.named_elsewhere,
        };
        tls.check_member(self.identity.as_deref(), &claim)
            .map_err(|refused| refused.to_string())
    }

    /// Waits until the certificate is no longer good: by time, or by what a reload brought. Never for a connection without one.
    pub(super) async fn ended(mut self) -> String {
        let (Some(tls), Some(identity)) = (self.tls.take(), self.identity.take()) else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(LOOK).await;
            let now = SystemTime::now();
            let generation = tls.listener().generation();
            if generation == self.generation && now < identity.not_after {
                continue;
            }
            if let Err(invalid) = tls.still_valid(&identity, now) {
                return invalid.to_string();
            }
            if now >= identity.not_after {
                return "it has expired".to_owned();
            }
            self.generation = generation;
        }
    }
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holder")
            .field("tls", &self.tls.is_some())
            .field("verified", &self.identity.is_some())
            .finish()
    }
}
