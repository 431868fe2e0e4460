//! URLs to listen on and to advertise.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use crate::value::parse_list;

/// How a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Plaintext over TCP.
    Http,
    /// TLS over TCP.
    Https,
    /// Plaintext over a unix socket.
    Unix,
    /// TLS over a unix socket.
    Unixs,
}

impl Scheme {
    /// The scheme as written in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Unix => "unix",
            Self::Unixs => "unixs",
        }
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Unixs)
    }
}

/// The host of a TCP URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// An address; `0.0.0.0` and `::` listen on all interfaces.
    Ip(IpAddr),
    /// A DNS name. In a URL to listen on this is always `localhost`.
    Name(String),
}

/// Where a URL points.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A TCP endpoint; port 0 lets the system choose.
    Tcp {
        /// The host.
        host: Host,
        /// The port.
        port: u16,
    },
    /// A unix socket. As in etcd the path is everything behind `unix://`, so it is relative unless a third slash follows.
    Socket {
        /// The socket's file.
        path: PathBuf,
    },
}

/// One validated URL of a `--listen-*`, `--advertise-*` or `--initial-*` list. [`fmt::Display`] writes it back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenUrl {
    /// How it speaks.
    pub scheme: Scheme,
    /// Where it is.
    pub place: Place,
}

impl ListenUrl {
    /// Whether TLS is spoken here.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.scheme.is_tls()
    }

    /// Whether only this machine can reach it: a unix socket, `localhost`, 127.0.0.0/8 or `::1`.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match &self.place {
            Place::Socket { .. } => true,
            Place::Tcp {
                host: Host::Ip(ip), ..
            } => ip.to_canonical().is_loopback(),
            Place::Tcp {
                host: Host::Name(name),
                ..
            } => name.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Whether it means every interface, which no client can dial.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        matches!(&self.place, Place::Tcp { host: Host::Ip(ip), .. } if ip.is_unspecified())
    }

    /// The socket's file, for the unix schemes.
    #[must_use]
    pub fn socket_path(&self) -> Option<&Path> {
        match &self.place {
            Place::Socket { path } => Some(path),
            Place::Tcp { .. } => None,
        }
    }

    /// The port, for the TCP schemes.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match &self.place {
            Place::Tcp { port, .. } => Some(*port),
            Place::Socket { .. } => None,
        }
    }

    /// One URL at which a member is reached by others: `http` or `https`, `host:port` complete, no path, query or user. Names are put
    /// into lower case and lose a dot at the end, so that all members, who make ids of these URLs, write them alike.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse_peer(text: &str) -> Result<Self, String> {
        let mut url = Self::parse(text)?;
        match &mut url.place {
            Place::Socket { .. } => Err(format!(
                "{text:?}: members reach each other at http:// or https:// only"
            )),
            Place::Tcp { host, .. } => {
                if let Host::Name(name) = host {
                    name.make_ascii_lowercase();
                    if name.ends_with('.') {
                        name.pop();
                    }
                }
                Ok(url)
            }
        }
    }

    /// A comma-separated list of URLs of members, in order, each URL once.
    pub(crate) fn parse_peer_list(text: &str) -> Result<Vec<Self>, String> {
        let mut urls = Vec::new();
        for item in parse_list(text) {
            let url = Self::parse_peer(&item)?;
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        Ok(urls)
    }

    /// A list of URLs to bind for other members, with the rules of [`ListenUrl::parse_listen_list`].
    pub(crate) fn parse_peer_listen_list(text: &str) -> Result<Vec<Self>, String> {
        Self::parse_listen_list(text)?;
        Self::parse_peer_list(text)
    }

    /// Whether both lead to the same endpoint, as far as that can be said without DNS: `localhost` is 127.0.0.1.
    pub(crate) fn is_same_endpoint(&self, other: &Self) -> bool {
        let address = |url: &Self| match &url.place {
            Place::Tcp {
                host: Host::Ip(ip), ..
            } => Some(ip.to_canonical()),
            Place::Tcp {
                host: Host::Name(name),
                ..
            } if name.eq_ignore_ascii_case("localhost") => Some(Ipv4Addr::LOCALHOST.into()),
            _ => None,
        };
        let same_host = match (address(self), address(other)) {
            (Some(one), Some(two)) => one == two && self.port() == other.port(),
            _ => self.place == other.place,
        };
        self.scheme == other.scheme && same_host
    }

    /// One URL. The rules are etcd's: one of four schemes, `host:port` complete, no path, query or user.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| format!("{text:?} is not a URL: expected scheme://host:port"))?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => {
                return Err(format!(
                    "{text:?}: the scheme must be http, https, unix or unixs"
                ));
            }
        };
        let place = match scheme {
            Scheme::Http | Scheme::Https => {
                parse_tcp(rest).map_err(|reason| format!("{text:?}: {reason}"))?
            }
            Scheme::Unix | Scheme::Unixs if rest.is_empty() || rest.contains('\0') => {
                return Err(format!("{text:?}: expected {}://path", scheme.as_str()));
            }
            Scheme::Unix | Scheme::Unixs => Place::Socket {
                path: PathBuf::from(rest),
            },
        };
        Ok(Self { scheme, place })
    }

    /// A comma-separated list, in order, each URL once.
    pub(crate) fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        parse_list(text)
            .iter()
            .map(|item| Self::parse(item))
            .collect()
    }

    /// A list of URLs to bind: hosts are addresses or `localhost`, because a name may resolve to another machine's interface.
    pub(crate) fn parse_listen_list(text: &str) -> Result<Vec<Self>, String> {
        let urls = Self::parse_list(text)?;
        for url in &urls {
            if let Place::Tcp {
                host: Host::Name(name),
                ..
            } = &url.place
                && name != "localhost"
            {
                return Err(format!(
                    "\"{url}\": expected an IP address or localhost to listen on, not a host name"
                ));
            }
        }
        Ok(urls)
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.as_str();
        match &self.place {
            Place::Socket { path } => write!(f, "{scheme}://{}", path.display()),
            Place::Tcp {
                host: Host::Ip(IpAddr::V6(ip)),
                port,
            } => write!(f, "{scheme}://[{ip}]:{port}"),
            Place::Tcp {
                host: Host::Ip(ip),
                port,
            } => write!(f, "{scheme}://{ip}:{port}"),
            Place::Tcp {
                host: Host::Name(name),
                port,
            } => write!(f, "{scheme}://{name}:{port}"),
        }
    }
}

/// `host:port`.
pub(crate) fn parse_tcp(authority: &str) -> Result<Place, String> {
    if authority.contains(['/', '?', '#', '@']) {
        return Err(
            "a URL here is scheme://host:port only, without user, path or query".to_owned(),
        );
    }
    let (host, port) = authority
        .rsplit_once(':')
        .ok_or("the port is missing: expected host:port")?;
    // `u16::from_str` would also take a leading plus.
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err("the port must be a number from 0 to 65535".to_owned());
    }
    let port = port
        .parse()
        .map_err(|_| "the port must be a number from 0 to 65535")?;
    let host = if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("a bracket is not closed")?;
        Host::Ip(IpAddr::V6(
            inner
                .parse()
                .map_err(|_| format!("{inner:?} is not an IPv6 address"))?,
        ))
    } else if host.contains(':') {
        return Err("an IPv6 address must be written in brackets".to_owned());
    } else if let Ok(ip) = host.parse() {
        Host::Ip(IpAddr::V4(ip))
    } else if is_host_name(host) {
        Host::Name(host.to_owned())
    } else if host.is_empty() {
        return Err("the host is missing: write 0.0.0.0 or [::] for all interfaces".to_owned());
    } else {
        return Err(format!("{host:?} is neither an IP address nor a host name"));
    };
    Ok(Place::Tcp { host, port })
}

/// Letters, digits, `-`, `_` and `.`; not all digits and dots, which would be a mistyped address.
pub(crate) fn is_host_name(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && host.bytes().any(|b| b.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, listen, local) in [
            ("http://localhost:2379", true, true),
            ("https://127.0.0.1:2379", true, true),
            ("https://[::1]:0", true, true),
            ("http://[::ffff:127.0.0.1]:1", true, true),
            ("http://0.0.0.0:2379", true, false),
            ("https://[::]:2379", true, false),
            ("unix:///run/etcd.sock", true, true),
            ("unixs://localhost:12345", true, true),
            ("https://node-1.example.com:2379", false, false),
        ] {
            let url = ListenUrl::parse(text).expect(text);
            assert_eq!(url.to_string(), text);
            assert_eq!(url.is_local(), local, "{text}");
            assert_eq!(ListenUrl::parse_listen_list(text).is_ok(), listen, "{text}");
        }
        for text in [
            "",
            "localhost:2379",
            "ftp://localhost:2379",
            "HTTP//x",
            "http://localhost",
            "http://localhost:",
            "http://localhost:+1",
            "http://localhost:65536",
            "http://:2379",
            "http://::1:2379",
            "http://[::1:2379",
            "http://[fe80::1%eth0]:1",
            "http://[1.2.3.4]:1",
            "http://1.2.3:2379",
            "http://a b:2379",
            "http://localhost:2379/",
            "http://localhost:2379/v3?x#y",
            "http://me@localhost:2379",
            "unix://",
        ] {
            assert!(ListenUrl::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn lists_keep_order_and_drop_repeats() {
        let urls = ListenUrl::parse_list("https://b:2, http://a:1,https://b:2,").expect("valid");
        assert_eq!(
            urls.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["https://b:2", "http://a:1"]
        );
    }
}
