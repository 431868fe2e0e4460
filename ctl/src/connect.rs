//! From endpoints to an authenticated connection, and which failures move a request to the next endpoint.

use std::{error::Error as StdError, future::Future, time::Duration};

use holdfast_certs::{ClientTls, ClientTlsSettings, ConnectError, Target, TlsConnector};
use holdfast_proto::{
    admin::admin_client::AdminClient,
    etcdserverpb::{
        auth_client::AuthClient, cluster_client::ClusterClient, kv_client::KvClient,
        lease_client::LeaseClient, maintenance_client::MaintenanceClient,
        watch_client::WatchClient,
    },
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{
    Code, Request, Response, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::{
    Exit, Failure,
    cli::Globals,
    failure::DEADLINE,
    login::{Login, Token, is_stale},
};

/// Pause between two rounds through the endpoints while none can be reached.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// What the server is told about the client's API level; it becomes a metric label there.
const CLIENT_API_VERSION: &str = "3.7.1";

/// Whether a request may be sent again after an endpoint has said that it is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It changes nothing.
    Safe,
    /// It may have been carried out although the answer was an error; only a connection that was never made is tried elsewhere.
    Unsafe,
}

/// The endpoints and the ways to prove who we are.
pub(crate) struct Client<'a> {
    globals: &'a Globals,
    tls: Option<ClientTls>,
    login: Login<'a>,
}

impl<'a> Client<'a> {
    /// Reads the TLS files. Nothing is connected yet.
    pub(crate) fn new(globals: &'a Globals) -> Result<Client<'a>, Failure> {
        if !globals.discovery_domain.is_empty() {
            return Err(Failure::new(
                Exit::BadFeature,
                "--discovery-srv is not supported; name the endpoints with --endpoints",
            ));
        }
        let files = &globals.tls;
        let bad = |text: String| Failure::new(Exit::BadArguments, text);
        let mut any_tls = false;
        for endpoint in &globals.endpoints {
            let target = Target::parse(endpoint, files.is_default());
            any_tls |= target.map_err(|error| bad(error.to_string()))?.is_tls();
        }
        // Files that are given are read even if no endpoint needs them: a wrong path should not go unnoticed.
        let tls = if any_tls || files.is_default() {
            let settings = ClientTlsSettings {
                ca_file: files.ca.as_ref().map(Into::into),
                cert_file: files.cert.as_ref().map(Into::into),
                key_file: files.key.as_ref().map(Into::into),
                insecure_skip_verify: files.insecure_skip_verify,
                ..ClientTlsSettings::default()
            };
            Some(ClientTls::load(&settings).map_err(|error| bad(error.to_string()))?)
        } else {
            None
        };
        Ok(Client {
            globals,
            tls,
            login: Login::new(globals.credentials.as_ref())?,
        })
    }

    /// The flags that this client was made from.
    pub(crate) fn globals(&self) -> &'a Globals {
        self.globals
    }

    /// Runs `request` at the first endpoint that can be reached, within the command timeout. While no endpoint can be, all are tried
    /// again until the dial timeout has passed, so that a server that is just starting is not missed.
    pub(crate) async fn call<T, R>(
        &self,
        retry: Retry,
        request: impl Fn(Link) -> R,
    ) -> Result<T, Failure>
    where
        R: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.globals.dial_timeout;
        loop {
            let mut last = None;
            for endpoint in &self.globals.endpoints {
                let link = match self.link(endpoint).await {
                    Ok(link) => link,
                    Err(LinkError::Unreachable(failure)) => {
                        last = Some(failure);
                        continue;
                    }
                    Err(LinkError::Refused(failure)) => return Err(failure),
                };
                match self.send(link, &request).await {
                    Ok(response) => return Ok(response),
                    Err(status) if retry == Retry::Safe && status.code() == Code::Unavailable => {
                        last = Some(Failure::rpc(Exit::Error, &status));
                    }
                    Err(status) => return Err(Failure::rpc(Exit::Error, &status)),
                }
            }
            if Instant::now() + ROUND_PAUSE >= deadline {
                return Err(last.unwrap_or_else(|| {
                    Failure::new(Exit::BadConnection, "no endpoints available")
                }));
            }
            sleep(ROUND_PAUSE).await;
        }
    }

    /// A connection to the first endpoint that can be reached, tried as in [`Client::call`].
    pub(crate) async fn any_link(&self) -> Result<Link, Failure> {
        self.call(Retry::Safe, |link| async { Ok(Response::new(link)) })
            .await
    }

    /// Runs `request` on a connection within the command timeout, as often as [`Client::with_token`] does.
    pub(crate) async fn send<T, R>(
        &self,
        link: Link,
        request: impl Fn(Link) -> R,
    ) -> Result<T, Status>
    where
        R: Future<Output = Result<Response<T>, Status>>,
    {
        let limited = |link| self.limited(request(link));
        self.with_token(link, limited)
            .await
            .map(Response::into_inner)
    }

    /// Runs `request` on a connection, and once more with a new token if the server did not take the one at hand: then nothing
    /// of the request was carried out.
    pub(crate) async fn with_token<T, R>(
        &self,
        link: Link,
        request: impl Fn(Link) -> R,
    ) -> Result<T, Status>
    where
        R: Future<Output = Result<T, Status>>,
    {
        match request(link.clone()).await {
            Err(status) if is_stale(&status) && self.can_renew() => {
                request(self.renewed(&link).await?).await
            }
            sent => sent,
        }
    }

    /// Whether a token that is not taken can be replaced.
    pub(crate) fn can_renew(&self) -> bool {
        self.login.has_password()
    }

    /// The same connection with a new token.
    pub(crate) async fn renewed(&self, link: &Link) -> Result<Link, Status> {
        let token = self
            .limited(
                self.login
                    .renew(&link.channel, link.metadata.token.as_ref()),
            )
            .await?;
        Ok(Link {
            metadata: Metadata { token },
            ..link.clone()
        })
    }

    /// Ends `request` with `DeadlineExceeded` after the command timeout.
    pub(crate) async fn limited<T>(
        &self,
        request: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        timeout(self.globals.command_timeout, request)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded(DEADLINE)))
    }

    /// Connects to one endpoint once, and authenticates if credentials were given.
    pub(crate) async fn link(&self, endpoint: &str) -> Result<Link, LinkError> {
        let globals = self.globals;
        let target = Target::parse(endpoint, globals.tls.is_default()).map_err(|error| {
            LinkError::Refused(Failure::new(Exit::BadArguments, error.to_string()))
        })?;
        let channel = Endpoint::from(target.dial_uri())
            .origin(target.origin())
            .connect_timeout(globals.dial_timeout)
            .http2_keep_alive_interval(globals.keepalive_time)
            .keep_alive_timeout(globals.keepalive_timeout)
            .keep_alive_while_idle(true)
            .connect_with_connector(TlsConnector::fixed(self.tls.clone(), target))
            .await
            .map_err(|error| {
                let text = connect_text(endpoint, &error);
                LinkError::Unreachable(Failure::new(Exit::BadConnection, text))
            })?;
        self.login.ask().map_err(LinkError::Refused)?;
        let token = self.limited(self.login.token(&channel)).await;
        let token = token.map_err(|status| {
            let failure = Failure::rpc(Exit::BadConnection, &status);
            match status.code() {
                Code::Unavailable => LinkError::Unreachable(failure),
                // A wrong password is wrong everywhere: asking on would only bring a lock-out nearer.
                _ => LinkError::Refused(failure),
            }
        })?;
        Ok(Link {
            channel,
            metadata: Metadata { token },
            max_request_bytes: globals.max_request_bytes,
            max_recv_bytes: globals.max_recv_bytes,
        })
    }
}

/// Why there is no connection to an endpoint.
#[derive(Debug)]
pub(crate) enum LinkError {
    /// Another endpoint, or the same one later, may do.
    Unreachable(Failure),
    /// No other endpoint would do.
    Refused(Failure),
}

impl From<LinkError> for Failure {
    fn from(error: LinkError) -> Failure {
        match error {
            LinkError::Unreachable(failure) | LinkError::Refused(failure) => failure,
        }
    }
}

/// The most telling part of a transport error, whose own text is only "transport error".
fn connect_text(endpoint: &str, error: &tonic::transport::Error) -> String {
    let mut cause: &dyn StdError = error;
    while let Some(source) = cause.source() {
        if let Some(own) = source.downcast_ref::<ConnectError>() {
            return own.to_string();
        }
        cause = source;
    }
    format!("cannot connect to {endpoint}: {cause}")
}

/// What every request carries.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    token: Option<Token>,
}

impl Interceptor for Metadata {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        if let Some(token) = &self.token {
            metadata.insert("token", token.value());
        }
        metadata.insert(
            "client-api-version",
            MetadataValue::from_static(CLIENT_API_VERSION),
        );
        Ok(request)
    }
}

type Service = InterceptedService<Channel, Metadata>;

/// A connection to one endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    channel: Channel,
    metadata: Metadata,
    max_request_bytes: usize,
    max_recv_bytes: usize,
}

macro_rules! services {
    ($($name:ident: $client:ident),*) => {$(
        pub(crate) fn $name(&self) -> $client<Service> {
            $client::with_interceptor(self.channel.clone(), self.metadata.clone())
                .max_encoding_message_size(self.max_request_bytes)
                .max_decoding_message_size(self.max_recv_bytes)
        }
    )*};
}

impl Link {
    services!(
        kv: KvClient,
        watch: WatchClient,
        lease: LeaseClient,
        cluster: ClusterClient,
        maintenance: MaintenanceClient,
        auth: AuthClient,
        admin: AdminClient
    );
}
