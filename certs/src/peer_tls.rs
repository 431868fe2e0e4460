//! TLS between members: the listener for others and the connections to them, from one set of files.

use std::{fmt, net::IpAddr, sync::Arc, time::SystemTime};

use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    accept::tls_error,
    client::{ClientStream, ConnectError, server_name},
    error::{Invalid, TlsError},
    identity::PeerIdentity,
    member::{self, MemberClaim, MemberRefused},
    peer_settings::{PeerPolicy, PeerTlsSettings},
    server::{MembersPlan, Plan, ServerTls},
    trust::{Role, unix_time},
};

/// How a member talks TLS with others, in both directions; replaced as a whole when its files change.
///
/// The handshake refuses certificates that no member can have: of another CA, expired, revoked, for another purpose or for clients,
/// in profile `strict` also those that name no member. Whether the member is the one it claims to be is for [`Self::check_member`]
/// to say, once the claim is there.
pub struct PeerTls {
    listener: Arc<ServerTls>,
    policy: PeerPolicy,
}

impl PeerTls {
    /// Reads the files and builds the configuration. `listener().report()` has the warnings.
    ///
    /// # Errors
    ///
    /// A file that cannot be used, or settings that contradict each other.
    pub fn load(settings: PeerTlsSettings) -> Result<Self, TlsError> {
        let listener = settings.listener()?;
        let separate_pair = settings.separate_pair()?;
        let members = MembersPlan {
            policy: settings.policy.clone(),
            separate_pair,
        };
        let listener = ServerTls::load_plan(Plan {
            listener,
            members: Some(members),
        })?;
        Ok(Self {
            listener: Arc::new(listener),
            policy: settings.policy,
        })
    }

    /// For [`crate::accept`]. Its reload, generation and report are those of both directions. The identity that `accept` yields is
    /// `None` only with [`PeerPolicy::Unverified`].
    pub fn listener(&self) -> &Arc<ServerTls> {
        &self.listener
    }

    /// Performs the handshake with the member at `host` (of its URL, without port) over a connection that is open already. The
    /// identity is `None` only with [`PeerPolicy::Unverified`].
    ///
    /// There is no deadline in here. With TLS 1.3 the other side judges our certificate after this returns: a refusal shows as an
    /// error of the first read.
    ///
    /// # Errors
    ///
    /// Why there is no connection; [`ConnectError::Certificate`] if it is for the other's certificate.
    pub async fn connect<T>(
        &self,
        io: T,
        host: &str,
    ) -> Result<(ClientStream<T>, Option<PeerIdentity>), ConnectError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let name = server_name(host)?;
        let refused = |reason| ConnectError::Certificate {
            host: host.to_owned(),
            reason,
        };
        let broken = |reason: &str| ConnectError::Tls {
            host: host.to_owned(),
            reason: reason.to_owned(),
        };
        let loaded = self.listener.loaded();
        // Every load of a plan with members makes one.
        let config = loaded
            .outgoing
            .clone()
            .ok_or_else(|| broken("no configuration for connections to members"))?;
        let stream = tokio_rustls::TlsConnector::from(config)
            .connect(name.clone(), io)
            .await
            .map_err(|error| match tls_error(&error) {
                Some(rustls::Error::InvalidCertificate(reason)) => {
                    refused(Invalid::from_rustls(reason))
                }
                _ => ConnectError::handshake(host, error),
            })?;
        let connection = stream.get_ref().1;
        // The configuration rules it out; if it ever happened, the certificate below would be one of an earlier session.
        if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
            return Err(broken("a session was resumed"));
        }
        if connection.alpn_protocol() != Some(b"h2".as_slice()) {
            return Err(ConnectError::NoHttp2(host.to_owned()));
        }
        let identity = match &loaded.clients {
            None => None,
            Some(trust) => {
                let chain = connection
                    .peer_certificates()
                    .ok_or_else(|| broken("the server presented no certificate"))?;
                // Verified in the handshake already, by the same trust; here for the identity that comes out of it.
                let now = unix_time(SystemTime::now());
                Some(
                    trust
                        .verify(chain, Role::Server(&name), now)
                        .map_err(refused)?,
                )
            }
        };
        Ok((stream, identity))
    }

    /// Judges whether the holder of a verified certificate may speak for the member that it claims to be. For connections of either
    /// direction, once the claim is there.
    ///
    /// # Errors
    ///
    /// In profile `strict`: the certificate names another member, or none. Otherwise only that there is no certificate.
    pub fn check_member(
        &self,
        peer: Option<&PeerIdentity>,
        claim: &MemberClaim<'_>,
    ) -> Result<(), MemberRefused> {
        member::check_member(&self.policy, peer, claim)
    }

    /// Compares the certificate of an accepted connection with the address that it comes from, as etcd does unless
    /// `--peer-skip-client-san-verification` is given: one that has addresses or host names must have this one. Wildcards are tried
    /// with `member_hosts`, the hosts of all members' URLs. In profile `strict` the name is what counts, not the address.
    ///
    /// Host names are asked of the DNS, for 5 seconds at most.
    ///
    /// # Errors
    ///
    /// The certificate is for other addresses.
    pub async fn check_address(
        &self,
        peer: &PeerIdentity,
        remote: IpAddr,
        member_hosts: &[String],
    ) -> Result<(), MemberRefused> {
        match self.policy {
            PeerPolicy::AnyOfCa {
                skip_address_check: false,
                ..
            } => member::check_address(peer, remote, member_hosts).await,
            _ => Ok(()),
        }
    }

    /// Judges the holder of a live connection, whichever side made it, by what is in use now, at time `now`.
    ///
    /// # Errors
    ///
    /// The reason why the connection has to be closed.
    pub fn still_valid(&self, peer: &PeerIdentity, now: SystemTime) -> Result<(), Invalid> {
        self.listener.still_valid(peer, now)
    }
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTls")
            .field("policy", &self.policy)
            .field("listener", &self.listener)
            .finish()
    }
}
