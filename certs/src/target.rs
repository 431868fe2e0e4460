//! What an endpoint, as etcd's tools write it, means.

use std::{fmt, path::PathBuf, str::FromStr};

use http::{Uri, uri::Authority};

/// Where to connect and whether with TLS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A host name or address with a port.
    Tcp {
        /// Without brackets, if an IPv6 address.
        host: String,
        /// The port.
        port: u16,
        /// Whether to speak TLS.
        tls: bool,
    },
    /// A Unix socket.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Whether to speak TLS on it.
        tls: bool,
    },
}

/// An endpoint that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("endpoint {endpoint:?}: {reason}")]
pub struct TargetError {
    endpoint: String,
    reason: &'static str,
}

impl Target {
    /// Understands `http://`, `https://`, `unix://`, `unixs://` and `host:port`.
    ///
    /// As in etcd's client, `http` never uses TLS, `https` and `unixs` always do, and the others do when it is
    /// configured (`tls_configured`). Without a port, `http` means 80 and the rest 443.
    ///
    /// # Errors
    ///
    /// Anything else, including a user name or a path in a URL: neither could have an effect.
    pub fn parse(endpoint: &str, tls_configured: bool) -> Result<Self, TargetError> {
        let fail = |reason| {
            Err(TargetError {
                endpoint: endpoint.chars().take(200).collect(),
                reason,
            })
        };
        let (scheme, rest) = match endpoint.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None => match endpoint.strip_prefix("unix:") {
                Some(path) => ("unix", path),
                None => ("", endpoint),
            },
        };
        let tls = match scheme {
            "http" => false,
            "https" | "unixs" => true,
            "unix" | "" => tls_configured,
            _ => return fail("the scheme must be http, https, unix or unixs"),
        };
        if scheme.starts_with("unix") {
            if rest.is_empty() || rest.contains('\0') {
                return fail("it names no socket");
            }
            return Ok(Self::Unix {
                path: PathBuf::from(rest),
                tls,
            });
        }
        let Ok(authority) = Authority::from_str(rest.strip_suffix('/').unwrap_or(rest)) else {
            return fail("it must be host:port, nothing before and nothing behind");
        };
        if authority.as_str().contains('@') {
            return fail("a user name has no meaning here");
        }
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() {
            return fail("it names no host");
        }
        // Not `authority.port()`: that is `None` for a port out of range, too.
        let behind_host = authority.as_str().strip_prefix(authority.host());
        let port = match behind_host.map(|rest| rest.strip_prefix(':')) {
            Some(None) if scheme == "http" => 80,
            Some(None) => 443,
            Some(Some(port)) => match port.parse() {
                Ok(port) => port,
                Err(_) => return fail("the port is not a number up to 65535"),
            },
            None => return fail("it must be host:port, nothing before and nothing behind"),
        };
        Ok(Self::Tcp {
            host: host.to_owned(),
            port,
            tls,
        })
    }

    /// Whether the connection will be encrypted.
    pub fn is_tls(&self) -> bool {
        match self {
            Self::Tcp { tls, .. } | Self::Unix { tls, .. } => *tls,
        }
    }

    /// A URI to name this target to an HTTP client that connects through [`crate::TlsConnector`]. The scheme is always
    /// `http`, because an HTTP client that sees `https` wants to do TLS itself (tonic, when any crate in the build turns
    /// its TLS feature on). What the server is to see is [`Self::origin`].
    pub fn dial_uri(&self) -> Uri {
        self.uri("http")
    }

    /// The scheme and authority that requests should carry.
    pub fn origin(&self) -> Uri {
        self.uri(if self.is_tls() { "https" } else { "http" })
    }

    /// The host to verify a certificate against.
    pub(crate) fn tls_host(&self) -> &str {
        match self {
            Self::Tcp { host, .. } => host,
            // The path of a socket is not a name in a certificate; whoever listens there is on this machine.
            Self::Unix { .. } => "localhost",
        }
    }

    fn uri(&self, scheme: &str) -> Uri {
        let authority = match self {
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
            // gRPC's authority for Unix sockets.
            Self::Unix { .. } => "localhost".to_owned(),
        };
        Uri::builder()
            .scheme(scheme)
            .authority(authority)
            .path_and_query("/")
            .build()
            // The authority was parsed from one, or is constant; the default (`/`) would fail at the first request.
            .unwrap_or_default()
    }
}

impl TryFrom<&Uri> for Target {
    type Error = TargetError;

    /// `http` and `https` URIs; path and query are not looked at.
    fn try_from(uri: &Uri) -> Result<Self, TargetError> {
        match (uri.scheme_str(), uri.authority()) {
            (Some(scheme), Some(authority)) => {
                Self::parse(&format!("{scheme}://{authority}"), false)
            }
            _ => Err(TargetError {
                endpoint: uri.to_string().chars().take(200).collect(),
                reason: "it has no scheme or no host",
            }),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16, tls: bool) -> Target {
        Target::Tcp {
            host: host.to_owned(),
            port,
            tls,
        }
    }

    fn unix(path: &str, tls: bool) -> Target {
        Target::Unix {
            path: path.into(),
            tls,
        }
    }

    #[test]
    fn endpoints_as_etcdctl_takes_them() {
        let cases = [
            ("http://h:1", true, tcp("h", 1, false)),
            ("https://h:1/", false, tcp("h", 1, true)),
            ("h:2379", true, tcp("h", 2379, true)),
            ("h:2379", false, tcp("h", 2379, false)),
            ("127.0.0.1:2379", false, tcp("127.0.0.1", 2379, false)),
            ("https://[::1]:2379", false, tcp("::1", 2379, true)),
            ("http://h", false, tcp("h", 80, false)),
            ("https://h", false, tcp("h", 443, true)),
            ("unix:///run/x.sock", false, unix("/run/x.sock", false)),
            ("unix://localhost:m1", false, unix("localhost:m1", false)),
            ("unix:/run/x.sock", true, unix("/run/x.sock", true)),
            ("unixs:///run/x.sock", false, unix("/run/x.sock", true)),
        ];
        for (endpoint, tls_configured, expected) in cases {
            assert_eq!(
                Target::parse(endpoint, tls_configured),
                Ok(expected),
                "{endpoint}"
            );
        }
    }

    #[test]
    fn what_could_not_have_an_effect_is_refused() {
        for endpoint in [
            "",
            ":2379",
            "h:",
            "h:65536",
            "h:x",
            "ftp://h:1",
            "https://user:pw@h:1",
            "https://h:1/path",
            "https://",
            "unix://",
            "h h:1",
        ] {
            assert!(Target::parse(endpoint, false).is_err(), "{endpoint:?}");
        }
    }

    #[test]
    fn uris_name_the_target_and_read_back() {
        let target = tcp("::1", 2379, true);
        assert_eq!(target.dial_uri(), "http://[::1]:2379/");
        assert_eq!(target.origin(), "https://[::1]:2379/");
        assert_eq!(Target::try_from(&target.origin()), Ok(target));
        assert_eq!(unix("/x", false).dial_uri(), "http://localhost/");
    }
}
