//! The flags that every command has, as typed values.

use std::time::Duration;

use super::{Read, bad_arguments};
use crate::Failure;

/// How to reach the cluster and how to print answers.
#[derive(Debug)]
pub struct Globals {
    pub(crate) endpoints: Vec<String>,
    pub(crate) dial_timeout: Duration,
    pub(crate) command_timeout: Duration,
    pub(crate) command_timeout_given: bool,
    pub(crate) keepalive_time: Duration,
    pub(crate) keepalive_timeout: Duration,
    pub(crate) max_request_bytes: usize,
    pub(crate) max_recv_bytes: usize,
    pub(crate) tls: TlsFiles,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) write_out: String,
    pub(crate) hex: bool,
    pub(crate) discovery_domain: String,
}

/// The TLS flags.
#[derive(Debug)]
pub struct TlsFiles {
    pub(crate) ca: Option<String>,
    pub(crate) cert: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) insecure_transport: bool,
    pub(crate) insecure_skip_verify: bool,
}

/// Who the user claims to be.
pub enum Credentials {
    /// A token that the user brought along.
    Token(String),
    /// A name and a password, to be exchanged for a token. Without a password it is asked for on the terminal.
    Password {
        /// The user's name.
        name: String,
        /// The password, if it was given.
        password: Option<String>,
    },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Credentials::Token(_) => f.write_str("Token(..)"),
            Credentials::Password { name, .. } => write!(f, "Password({name:?}, ..)"),
        }
    }
}

/// 2 MiB, as in etcd's client: what its server takes (1.5 MiB) and some room.
const DEFAULT_MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024;
/// etcd's client sets no limit but that of the protocol's length field in Go.
const DEFAULT_MAX_RECV_BYTES: usize = i32::MAX as usize;

impl Globals {
    pub(super) fn from_line(line: &Read) -> Result<Globals, Failure> {
        let endpoints = line.text("endpoints").split(',').map(str::trim);
        Ok(Globals {
            endpoints: endpoints.map(str::to_owned).collect(),
            dial_timeout: line.duration("dial-timeout"),
            command_timeout: line.duration("command-timeout"),
            command_timeout_given: line.is_given("command-timeout"),
            keepalive_time: line.duration("keepalive-time"),
            keepalive_timeout: line.duration("keepalive-timeout"),
            max_request_bytes: size(line, "max-request-bytes", DEFAULT_MAX_REQUEST_BYTES),
            max_recv_bytes: size(line, "max-recv-bytes", DEFAULT_MAX_RECV_BYTES),
            tls: TlsFiles::from_line(line)?,
            credentials: credentials(line),
            write_out: line.text("write-out").to_owned(),
            hex: line.flag("hex"),
            discovery_domain: line.text("discovery-srv").to_owned(),
        })
    }
}

impl Globals {
    /// What the flags' defaults are, with these endpoints and a user who is known by certificate.
    pub(crate) fn with_certificate(
        endpoints: Vec<String>,
        ca: String,
        cert: String,
        key: String,
    ) -> Globals {
        Globals {
            endpoints,
            dial_timeout: Duration::from_secs(2),
            command_timeout: Duration::from_secs(5),
            command_timeout_given: false,
            keepalive_time: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(6),
            max_request_bytes: DEFAULT_MAX_REQUEST_BYTES,
            max_recv_bytes: DEFAULT_MAX_RECV_BYTES,
            tls: TlsFiles {
                ca: Some(ca),
                cert: Some(cert),
                key: Some(key),
                insecure_transport: false,
                insecure_skip_verify: false,
            },
            credentials: None,
            write_out: "simple".to_owned(),
            hex: false,
            discovery_domain: String::new(),
        }
    }
}

impl TlsFiles {
    fn from_line(line: &Read) -> Result<TlsFiles, Failure> {
        let file = |name: &str| match line.text(name) {
            "" if line.is_given(name) => Err(bad_arguments(format!(
                "empty string is passed to --{name} option"
            ))),
            "" => Ok(None),
            path => Ok(Some(path.to_owned())),
        };
        let (cert, key) = (file("cert")?, file("key")?);
        if cert.is_some() != key.is_some() {
            return Err(bad_arguments(format!(
                "KeyFile and CertFile must both be present[key: {}, cert: {}]",
                line.text("key"),
                line.text("cert")
            )));
        }
        Ok(TlsFiles {
            ca: file("cacert")?,
            cert,
            key,
            insecure_transport: line.flag("insecure-transport"),
            insecure_skip_verify: line.flag("insecure-skip-tls-verify"),
        })
    }

    /// Whether an endpoint without a scheme is spoken to with TLS.
    pub(crate) fn is_default(&self) -> bool {
        self.ca.is_some() || self.cert.is_some() || !self.insecure_transport
    }
}

fn size(line: &Read, name: &str, default: usize) -> usize {
    match usize::try_from(line.int(name)) {
        Ok(size) if size > 0 => size,
        _ => default,
    }
}

fn credentials(line: &Read) -> Option<Credentials> {
    let (user, password) = (line.text("user"), line.text("password"));
    if line.is_given("auth-jwt-token") && !line.text("auth-jwt-token").is_empty() {
        return Some(Credentials::Token(line.text("auth-jwt-token").to_owned()));
    }
    if user.is_empty() {
        return None;
    }
    // A password of its own leaves the user name whole, colons included.
    let (name, password) = if password.is_empty() {
        match user.split_once(':') {
            Some((name, password)) => (name, Some(password)),
            None => (user, None),
        }
    } else {
        (user, Some(password))
    };
    Some(Credentials::Password {
        name: name.to_owned(),
        password: password.map(str::to_owned),
    })
}
