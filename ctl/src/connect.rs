//! From endpoints to an authenticated connection, and which failures move a request to the next endpoint.

use std::{
    cell::OnceCell,
    error::Error as StdError,
    fs::File,
    future::Future,
    io::{BufRead, BufReader, Write},
    time::Duration,
};

use holdfast_certs::{ClientTls, ClientTlsSettings, ConnectError, Target, TlsConnector};
use holdfast_proto::etcdserverpb::{
    AuthenticateRequest, auth_client::AuthClient, cluster_client::ClusterClient,
    kv_client::KvClient, lease_client::LeaseClient, maintenance_client::MaintenanceClient,
    watch_client::WatchClient,
};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use tokio::time::{Instant, sleep, timeout};
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::{
    Exit, Failure,
    cli::{Credentials, Globals},
    failure::DEADLINE,
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
    prompted: OnceCell<String>,
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
            prompted: OnceCell::new(),
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
                match self.limited(request(link)).await {
                    Ok(response) => return Ok(response.into_inner()),
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
        let token = match &globals.credentials {
            None => None,
            Some(Credentials::Token(token)) => Some(token.clone()),
            Some(Credentials::Password { name, password }) => {
                self.authenticate(&channel, name, password.as_deref())
                    .await?
            }
        };
        let token = token.map(|token| token.parse()).transpose().map_err(|_| {
            let text = "the token is not a header value";
            LinkError::Refused(Failure::new(Exit::BadArguments, text))
        })?;
        Ok(Link {
            channel,
            metadata: Metadata { token },
            max_request_bytes: globals.max_request_bytes,
            max_recv_bytes: globals.max_recv_bytes,
        })
    }

    /// Exchanges the password for a token; none if the server asks for no authentication.
    async fn authenticate(
        &self,
        channel: &Channel,
        name: &str,
        password: Option<&str>,
    ) -> Result<Option<String>, LinkError> {
        let password = self.password(password).map_err(LinkError::Refused)?;
        let request = AuthenticateRequest {
            name: name.to_owned(),
            password: password.to_owned(),
        };
        let mut client = AuthClient::new(channel.clone());
        let status = match self.limited(client.authenticate(request)).await {
            Ok(response) => return Ok(Some(response.into_inner().token)),
            Err(status) => status,
        };
        let failure = Failure::rpc(Exit::BadConnection, &status);
        match status.code() {
            // etcd's client goes on as nobody then, and so do scripts that always pass --user.
            Code::FailedPrecondition
                if status.message() == "etcdserver: authentication is not enabled" =>
            {
                Ok(None)
            }
            Code::Unavailable => Err(LinkError::Unreachable(failure)),
            // A wrong password is wrong everywhere: asking on would only bring a lock-out nearer.
            _ => Err(LinkError::Refused(failure)),
        }
    }

    fn password<'p>(&'p self, given: Option<&'p str>) -> Result<&'p str, Failure> {
        if let Some(password) = given {
            return Ok(password);
        }
        if let Some(password) = self.prompted.get() {
            return Ok(password);
        }
        let password = ask_password().map_err(|error| {
            Failure::new(Exit::Error, format!("cannot read the password: {error}"))
        })?;
        Ok(self.prompted.get_or_init(|| password))
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

/// Reads a line from the terminal without showing it.
fn ask_password() -> std::io::Result<String> {
    let terminal = File::options().read(true).write(true).open("/dev/tty")?;
    (&terminal).write_all(b"Password: ")?;
    let shown = tcgetattr(&terminal)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
    let mut line = String::new();
    let read = BufReader::new(&terminal).read_line(&mut line);
    tcsetattr(&terminal, OptionalActions::Flush, &shown)?;
    read?;
    (&terminal).write_all(b"\n")?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
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
    token: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Metadata {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        if let Some(token) = &self.token {
            metadata.insert("token", token.clone());
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
    services!(kv: KvClient, watch: WatchClient, lease: LeaseClient, cluster: ClusterClient, maintenance: MaintenanceClient);
}
