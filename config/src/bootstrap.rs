//! Founding and joining a cluster: who its first members are, and what members of a cluster of several must have.

use crate::config::{ClusterState, Config};
use crate::error::ConfigError;
use crate::profile::Profile;
use crate::settings::Settings;
use crate::table::Key;
use crate::url::{ListenUrl, Scheme, is_host_name};

/// As long as a host name; names appear in every log line and metric of a cluster.
const MAX_NAME_BYTES: usize = 255;

/// Far above any cluster that raft serves well; bounds what every member keeps of the others.
const MAX_MEMBERS: usize = 64;

/// URLs that one member may advertise.
pub(crate) const MAX_URLS: usize = 32;

/// A label of a DNS name (RFC 1035 §2.3.4), from which the fixed part of the service's name is taken.
const MAX_LABEL_BYTES: usize = 63;

const STRICT_FILES: &str =
    "--peer-cert-file, --peer-key-file, --peer-client-cert-auth and --peer-trusted-ca-file";

/// A member named by `--initial-cluster`, or found by `--discovery-srv`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialMember {
    /// Its name, at most 255 bytes.
    pub name: String,
    /// How other members reach it; 1 to 32, each once.
    pub peer_urls: Vec<ListenUrl>,
}

impl InitialMember {
    /// The members of a list of names with one URL each, in the order of their first URL; a name that repeats has several URLs.
    ///
    /// # Errors
    ///
    /// A name that no member can have, a URL given twice, nobody at all, or more members (64) or URLs (32 each) than there can be.
    pub fn group(
        pairs: impl IntoIterator<Item = (String, ListenUrl)>,
    ) -> Result<Vec<Self>, String> {
        let mut members: Vec<Self> = Vec::new();
        for (name, url) in pairs {
            check_name(&name)?;
            if let Some(owner) = members
                .iter()
                .find(|member| member.peer_urls.contains(&url))
            {
                return Err(format!(
                    "{url} is given twice, for {} and {name}",
                    owner.name
                ));
            }
            let is_full = members.len() == MAX_MEMBERS;
            match members.iter_mut().find(|member| member.name == name) {
                Some(member) if member.peer_urls.len() == MAX_URLS => {
                    return Err(format!("{name} has more than {MAX_URLS} URLs"));
                }
                Some(member) => member.peer_urls.push(url),
                None if is_full => {
                    return Err(format!("there are more than {MAX_MEMBERS} members"));
                }
                None => members.push(Self {
                    name,
                    peer_urls: vec![url],
                }),
            }
        }
        if members.is_empty() {
            return Err("at least one member is needed".to_owned());
        }
        Ok(members)
    }
}

/// Where DNS names the members of a new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoverySrv {
    /// `--discovery-srv`: the domain, a valid host name without a dot at its end.
    pub domain: String,
    /// `--discovery-srv-name`: tells clusters of one domain apart.
    pub service_suffix: Option<String>,
}

impl DiscoverySrv {
    /// The names whose SRV records list the members, with the scheme of the URLs that each makes. As in etcd both are asked, and what
    /// they hold is put together.
    #[must_use]
    pub fn records(&self) -> [(Scheme, String); 2] {
        let suffix = match &self.service_suffix {
            Some(suffix) => format!("-{suffix}"),
            None => String::new(),
        };
        let name = |service| format!("_{service}{suffix}._tcp.{}", self.domain);
        [
            (Scheme::Https, name("etcd-server-ssl")),
            (Scheme::Http, name("etcd-server")),
        ]
    }
}

impl Config {
    /// What must hold only when a data directory is made; not checked by [`crate::load`], which does not know whether there is data.
    /// `members` are [`Config::initial_cluster`], or those that [`Config::discovery_srv`] found. Returns this member.
    ///
    /// The profile of a cluster that is joined is not known here: ask [`Config::check_peer_security`] again once it is.
    ///
    /// # Errors
    ///
    /// * This member is not among them.
    /// * A cluster is founded by a given list, and this member's URLs there are not those of `--initial-advertise-peer-urls`.
    /// * A cluster is joined, and no other member is among them.
    /// * There are other members, and nobody could reach this one or another, or [`Config::check_peer_security`] refuses.
    pub fn check_bootstrap<'m>(
        &self,
        members: &'m [InitialMember],
    ) -> Result<&'m InitialMember, ConfigError> {
        let is_discovered = self.discovery_srv.is_some();
        let source = if is_discovered {
            Key::DiscoverySrv
        } else {
            Key::InitialCluster
        };
        let named = |key: Key| format!("--{} ({})", key.row().name, self.settings.origin(key));
        let Some(own) = members.iter().find(|member| member.name == self.name) else {
            return Err(ConfigError::Conflict(format!(
                "{} has no member called {:?}, as {} calls this one",
                named(source),
                self.name,
                named(Key::Name),
            )));
        };
        // What discovery found is this member because the addresses agree, though the names in DNS may be others. Who joins was
        // announced with its URLs by `member add`.
        if !is_discovered && self.initial_cluster_state == ClusterState::New {
            self.check_advertised(own)?;
        }
        if members.len() == 1 && self.initial_cluster_state == ClusterState::New {
            return Ok(own);
        }
        if members.len() == 1 {
            return Err(ConfigError::Conflict(format!(
                "{} names no other member, so that there is no cluster to join",
                named(source)
            )));
        }
        let urls = || members.iter().flat_map(|member| &member.peer_urls);
        if self.for_profile(self.profile).listen_peer_urls.is_empty() {
            return Err(ConfigError::Conflict(format!(
                "--{} is needed: {} names other members, which could not reach this one",
                Key::ListenPeerUrls.row().name,
                named(source),
            )));
        }
        if let Some(url) = urls().find(|url| url.port() == Some(0)) {
            return Err(ConfigError::Conflict(format!(
                "{}: nobody can connect to port 0 of {url}",
                named(source)
            )));
        }
        self.check_peer_security(self.profile, urls())?;
        Ok(own)
    }

    /// Whether this member may speak to others: what must hold in a cluster of several, of this `profile`, whose members are at
    /// `peer_urls`. The listeners of this member are checked with them.
    ///
    /// Plaintext to another machine needs `--allow-plaintext`. In profile `strict` members know each other by certificates of
    /// `--peer-trusted-ca-file`; plaintext is possible on loopback alone, and only with `--allow-plaintext`, because any program
    /// there could speak as a member.
    ///
    /// # Errors
    ///
    /// The first URL that breaks the rule.
    pub fn check_peer_security<'u>(
        &self,
        profile: Profile,
        peer_urls: impl IntoIterator<Item = &'u ListenUrl>,
    ) -> Result<(), ConfigError> {
        let listeners = &self.for_profile(profile).listen_peer_urls;
        for url in listeners {
            self.check_peer_url(profile, url)?;
        }
        for url in peer_urls {
            self.check_peer_url(profile, url)?;
        }
        Ok(())
    }

    fn check_peer_url(&self, profile: Profile, url: &ListenUrl) -> Result<(), ConfigError> {
        let tls = &self.peer_tls;
        let certified = tls.certificate.is_some() && tls.trusted_ca_file.is_some();
        let local_plaintext = url.is_local() && self.allow_plaintext;
        let refused = |fault| Err(ConfigError::Conflict(format!("peer URL {url}: {fault}")));
        match profile {
            Profile::Strict if url.is_tls() && !certified => refused(format!(
                "in profile strict members know each other by certificates: give {STRICT_FILES}"
            )),
            Profile::Strict if !url.is_tls() && !local_plaintext => refused(format!(
                "in profile strict members know each other by certificates: use https:// with {STRICT_FILES}; plaintext is possible \
                 only on loopback, with --allow-plaintext"
            )),
            Profile::Etcd if !url.is_tls() && !url.is_local() && !self.allow_plaintext => refused(
                "members would send plaintext to other machines; use https://, or permit it with --allow-plaintext".to_owned(),
            ),
            Profile::Strict | Profile::Etcd => Ok(()),
        }
    }

    /// The two lists that say how this member is reached agree. etcd resolves names before it compares; here a name equals only
    /// itself, and `localhost` 127.0.0.1.
    fn check_advertised(&self, own: &InitialMember) -> Result<(), ConfigError> {
        let advertised = &self.initial_advertise_peer_urls;
        let missing = |from: &[ListenUrl], of: &[ListenUrl]| {
            of.iter()
                .find(|url| !from.iter().any(|known| known.is_same_endpoint(url)))
                .cloned()
        };
        let (url, present, absent) = if let Some(url) = missing(advertised, &own.peer_urls) {
            (url, Key::InitialCluster, Key::InitialAdvertisePeerUrls)
        } else if let Some(url) = missing(&own.peer_urls, advertised) {
            (url, Key::InitialAdvertisePeerUrls, Key::InitialCluster)
        } else {
            return Ok(());
        };
        Err(ConfigError::Conflict(format!(
            "--{} ({}) has {url} for {}, and --{} ({}) has not",
            present.row().name,
            self.settings.origin(present),
            self.name,
            absent.row().name,
            self.settings.origin(absent),
        )))
    }
}

/// Whether a member can have this name.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        Err("a member needs a name".to_owned())
    } else if name.len() > MAX_NAME_BYTES {
        Err(format!("a name has at most {MAX_NAME_BYTES} bytes"))
    } else if name.chars().any(char::is_control) {
        Err("a name has no control characters".to_owned())
    } else if name.contains(['=', ',']) {
        Err("a name has no = and no comma: --initial-cluster could not hold it".to_owned())
    } else {
        Ok(())
    }
}

/// The members of `--initial-cluster`; none exactly if DNS is to name them.
pub(crate) fn initial_cluster(settings: &Settings) -> Result<Vec<InitialMember>, ConfigError> {
    let key = Key::InitialCluster;
    let text = settings.text(key);
    let is_discovered = !settings.text(Key::DiscoverySrv).is_empty();
    if is_discovered && text.is_empty() {
        return Ok(Vec::new());
    }
    if is_discovered {
        return Err(ConfigError::Conflict(format!(
            "--{} ({}) and --{} ({}) both name the members: choose one",
            key.row().name,
            settings.origin(key),
            Key::DiscoverySrv.row().name,
            settings.origin(Key::DiscoverySrv),
        )));
    }
    let items = text.split(',').map(str::trim);
    let pairs: Result<Vec<_>, String> = items
        .filter(|item| !item.is_empty())
        .map(|item| {
            let (name, url) = item
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| format!("{item:?}: expected name=url"))?;
            Ok((name.to_owned(), ListenUrl::parse_peer(url)?))
        })
        .collect();
    pairs
        .and_then(InitialMember::group)
        .map_err(|reason| settings.invalid(key, reason))
}

/// The domain of `--discovery-srv`.
pub(crate) fn discovery_srv(settings: &mut Settings) -> Result<Option<DiscoverySrv>, ConfigError> {
    let suffix = settings.text(Key::DiscoverySrvName);
    let domain = settings.text(Key::DiscoverySrv);
    if domain.is_empty() {
        if !suffix.is_empty() {
            settings.notice(format!(
                "--{} has no effect: --{} is not given",
                Key::DiscoverySrvName.row().name,
                Key::DiscoverySrv.row().name,
            ));
        }
        return Ok(None);
    }
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    if !is_host_name(domain) {
        let reason = "expected a domain such as example.com".to_owned();
        return Err(settings.invalid(Key::DiscoverySrv, reason));
    }
    let longest = MAX_LABEL_BYTES - "_etcd-server-ssl-".len();
    let in_alphabet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if suffix.len() > longest || !suffix.bytes().all(in_alphabet) {
        let reason = format!("expected at most {longest} letters, digits, dashes and underscores");
        return Err(settings.invalid(Key::DiscoverySrvName, reason));
    }
    Ok(Some(DiscoverySrv {
        domain: domain.to_owned(),
        service_suffix: Some(suffix.to_owned()).filter(|suffix| !suffix.is_empty()),
    }))
}
