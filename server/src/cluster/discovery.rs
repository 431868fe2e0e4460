//! The members of a new cluster, as DNS has them.
//!
//! Each SRV record is a member by itself, and its target and port are its peer URL: ids follow from URLs, so that all members find the
//! same cluster whatever else they know of each other. What comes from DNS is not authenticated. It can keep a cluster from being founded,
//! but with TLS nobody else gets into it: a member's certificate must be of the peers' CA, and valid for the host of its URL.

use futures::future::join_all;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use holdfast_config::{
    ClusterState, Config, DiscoverySrv, Host, InitialMember, ListenUrl, Place, Scheme,
};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Why DNS does not say who the members are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiscoveryError {
    #[error("the system's resolver cannot be used: {0}")]
    Resolver(String),
    #[error("no runtime: {0}")]
    Runtime(#[from] std::io::Error),
    /// Neither name has a record.
    #[error("{0}; {1}")]
    NoRecords(Unknown, Unknown),
    #[error("a record of {name} {fault}")]
    Record { name: String, fault: String },
    #[error("{0}")]
    Records(String),
}

/// Why a name gives no members.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {reason}")]
pub(crate) struct Unknown {
    name: String,
    reason: String,
    /// The answer says that there are none; otherwise there was no such answer.
    is_certain: bool,
}

/// What a lookup may take, with all repetitions: far longer than a resolver that works needs. The names of both services are looked up at
/// once, and then, if need be, all addresses.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// As many as [`InitialMember::group`] takes: beyond that nothing more is looked up.
const RECORDS_MAX: usize = 64;

/// Leaves room for the port in the name that a member has for the time being, which has at most 255 bytes.
const HOST_BYTES_MAX: usize = 240;

/// How many aliases may lead to the records.
const ALIASES_MAX: usize = 4;

/// So many URLs are written into an error.
const SHOWN_MAX: usize = 8;

/// Asks for the SRV records of both schemes. A record that leads to one of this member's own peer URLs is this member; the others are called
/// by host and port until they tell their names.
///
/// # Errors
/// [`DiscoveryError`].
pub(crate) fn members(
    config: &Config,
    discovery: &DiscoverySrv,
) -> Result<Vec<InitialMember>, DiscoveryError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let resolver = Resolver::builder_tokio()
            .and_then(|builder| builder.build())
            .map_err(|error| DiscoveryError::Resolver(error.to_string()))?;
        let dns = Dns {
            resolver,
            answer_max: ANSWER_MAX,
        };
        dns.members(config, discovery).await
    })
}

struct Dns {
    resolver: TokioResolver,
    answer_max: Duration,
}

impl Dns {
    async fn members(
        &self,
        config: &Config,
        discovery: &DiscoverySrv,
    ) -> Result<Vec<InitialMember>, DiscoveryError> {
        let urls = self.urls(discovery).await?;
        let own = self.own(config, discovery, &urls).await?;
        let mut named = Vec::with_capacity(urls.len());
        for url in &urls {
            let name = if own.contains(&url) {
                config.name.clone()
            } else {
                // Nobody else is called so: another member's real name would be taken for an impostor's until it has published it.
                endpoint(url)
            };
            if !own.contains(&url) && name == config.name {
                return Err(DiscoveryError::Records(format!(
                    "this member is called {name:?}, which is where another one is reached; choose another --name"
                )));
            }
            named.push((name, url.clone()));
        }
        tracing::info!(
            members = shown(&urls, RECORDS_MAX),
            own = shown(own.iter().copied(), RECORDS_MAX),
            "found the members by DNS"
        );
        InitialMember::group(named).map_err(DiscoveryError::Records)
    }

    /// The URLs of all records, each once, in an order that says nothing about the answers'.
    async fn urls(&self, discovery: &DiscoverySrv) -> Result<BTreeSet<ListenUrl>, DiscoveryError> {
        let [(https, tls_name), (http, plain_name)] = discovery.records();
        let (tls, plain) = tokio::join!(
            self.service(https, &tls_name),
            self.service(http, &plain_name)
        );
        let urls = match (tls?, plain?) {
            (Ok(mut tls), Ok(plain)) => {
                let both = plain
                    .iter()
                    .find(|url| tls.iter().any(|other| other.place == url.place));
                if let Some(url) = both {
                    return Err(DiscoveryError::Records(format!(
                        "{tls_name} and {plain_name} both name {}: it can be reached with one scheme only, so delete one of the records",
                        endpoint(url)
                    )));
                }
                tls.extend(plain);
                tls
            }
            (Ok(urls), Err(unknown)) | (Err(unknown), Ok(urls)) => {
                if !unknown.is_certain {
                    tracing::warn!(
                        name = unknown.name,
                        reason = unknown.reason,
                        "DNS does not say whether there are more members under this name; going on without"
                    );
                }
                urls
            }
            (Err(tls), Err(plain)) => return Err(DiscoveryError::NoRecords(tls, plain)),
        };
        if urls.len() > RECORDS_MAX {
            return Err(DiscoveryError::Records(format!(
                "{} records are too many: a cluster has at most {RECORDS_MAX} members",
                urls.len()
            )));
        }
        Ok(urls)
    }

    /// The URLs of one service.
    async fn service(
        &self,
        scheme: Scheme,
        name: &str,
    ) -> Result<Result<BTreeSet<ListenUrl>, Unknown>, DiscoveryError> {
        let unknown = |reason, is_certain| Unknown {
            name: name.to_owned(),
            reason,
            is_certain,
        };
        let lookup = self.records(name);
        let answer = match tokio::time::timeout(self.answer_max, lookup).await {
            Err(_) => return Ok(Err(unknown(self.silence(), false))),
            Ok(Err(error)) => {
                return Ok(Err(unknown(reason(&error), error.is_no_records_found())));
            }
            Ok(Ok(answer)) => answer,
        };
        let mut urls = BTreeSet::new();
        for record in answer.answers() {
            // RFC 2782: a target of "." says that the service is not offered.
            if let RData::SRV(srv) = &record.data
                && !srv.target.is_root()
            {
                urls.insert(
                    peer_url(scheme, srv).map_err(|fault| DiscoveryError::Record {
                        name: name.to_owned(),
                        fault,
                    })?,
                );
            }
        }
        Ok(if urls.is_empty() {
            Err(unknown("DNS has no member there".to_owned(), true))
        } else {
            Ok(urls)
        })
    }

    /// The SRV records of a name, which may be an alias: the resolver takes a target for what to look up next when an alias led to it, so that
    /// aliases are followed here.
    async fn records(&self, name: &str) -> Result<Lookup, NetError> {
        let first = self.resolver.srv_lookup(name).await;
        if !matches!(first, Err(NetError::Dns(_))) {
            return first;
        }
        let mut name = Cow::Borrowed(name);
        for _ in 0..ALIASES_MAX {
            let Ok(alias) = self.resolver.lookup(name.as_ref(), RecordType::CNAME).await else {
                break;
            };
            let target = alias
                .answers()
                .iter()
                .find_map(|record| match &record.data {
                    RData::CNAME(target) => Some(target.to_ascii()),
                    _ => None,
                });
            let Some(target) = target else {
                break;
            };
            let next = self.resolver.srv_lookup(target.as_str()).await;
            if next.is_ok() {
                return next;
            }
            name = Cow::Owned(target);
        }
        first
    }

    /// Which of the URLs are this member's: those that it advertises, or else those that lead to an address that it advertises, with the same
    /// port and scheme.
    async fn own<'u>(
        &self,
        config: &Config,
        discovery: &DiscoverySrv,
        urls: &'u BTreeSet<ListenUrl>,
    ) -> Result<Vec<&'u ListenUrl>, DiscoveryError> {
        let advertised = &config.initial_advertise_peer_urls;
        let mut own: Vec<&ListenUrl> = urls.iter().filter(|url| advertised.contains(url)).collect();
        let mut failures = Vec::new();
        if own.is_empty() {
            (own, failures) = self.own_by_address(advertised, urls).await;
        }
        if own.is_empty() {
            let mut text = format!(
                "no record is this member, whose --initial-advertise-peer-urls are {}; there are {}",
                shown(advertised, SHOWN_MAX),
                shown(urls, SHOWN_MAX)
            );
            let other_scheme = urls
                .iter()
                .find(|url| advertised.iter().any(|own| own.place == url.place));
            if let Some(url) = other_scheme {
                let [(_, tls), (_, plain)] = discovery.records();
                text += &format!(
                    "; {url} has the wrong scheme: {tls} makes https URLs, {plain} http URLs"
                );
            }
            for failure in failures.iter().take(SHOWN_MAX) {
                text += &format!("; {failure}");
            }
            return Err(DiscoveryError::Records(text));
        }
        // A joiner's URLs are compared with those that it was added with.
        if own.len() > 1 && config.initial_cluster_state == ClusterState::New {
            return Err(DiscoveryError::Records(format!(
                "{} are all this member, and each record would be a member by itself to the others: leave one record for each member",
                shown(own, SHOWN_MAX)
            )));
        }
        Ok(own)
    }

    /// Those that have an address, a port and a scheme of one that is advertised, and which names could not be looked up.
    async fn own_by_address<'u>(
        &self,
        advertised: &[ListenUrl],
        urls: &'u BTreeSet<ListenUrl>,
    ) -> (Vec<&'u ListenUrl>, Vec<String>) {
        let is_like = |one: &ListenUrl, other: &ListenUrl| {
            one.scheme == other.scheme && one.port() == other.port()
        };
        let candidates: Vec<(&ListenUrl, &ListenUrl)> = urls
            .iter()
            .flat_map(|url| advertised.iter().map(move |own| (url, own)))
            .filter(|(url, own)| is_like(url, own))
            .collect();
        let hosts: BTreeSet<&Host> = candidates
            .iter()
            .flat_map(|(url, own)| [host(url), host(own)])
            .flatten()
            .collect();
        let lookups = hosts
            .into_iter()
            .map(async |host| (host, self.addresses(host).await));
        let mut addresses = BTreeMap::new();
        let mut failures = Vec::new();
        for (host, found) in join_all(lookups).await {
            match found {
                Ok(found) => {
                    addresses.insert(host, found);
                }
                Err(failure) => failures.push(failure),
            }
        }
        let addresses_of = |url| host(url).and_then(|host| addresses.get(host));
        let mut own: Vec<&ListenUrl> = candidates
            .into_iter()
            .filter(|(url, own)| {
                addresses_of(url)
                    .zip(addresses_of(own))
                    .is_some_and(|(theirs, ours)| !theirs.is_disjoint(ours))
            })
            .map(|(url, _)| url)
            .collect();
        own.dedup();
        (own, failures)
    }

    async fn addresses(&self, host: &Host) -> Result<BTreeSet<IpAddr>, String> {
        let name = match host {
            Host::Ip(ip) => return Ok(BTreeSet::from([ip.to_canonical()])),
            Host::Name(name) => name,
        };
        let lookup = self.resolver.lookup_ip(name.as_str());
        match tokio::time::timeout(self.answer_max, lookup).await {
            Err(_) => Err(format!("{name}: {}", self.silence())),
            Ok(Err(error)) => Err(format!("{name}: {}", reason(&error))),
            Ok(Ok(found)) => Ok(found.iter().map(|ip| ip.to_canonical()).collect()),
        }
    }

    fn silence(&self) -> String {
        format!("no answer within {:?}", self.answer_max)
    }
}

/// # Errors
/// What is wrong with the record.
fn peer_url(scheme: Scheme, srv: &SRV) -> Result<ListenUrl, String> {
    // Not as UTF-8, which would undo the ASCII form of international names. Whatever is no part of a host name is escaped.
    let target = srv.target.to_ascii();
    let host = target.strip_suffix('.').unwrap_or(&target);
    if host.len() > HOST_BYTES_MAX {
        return Err(format!("has a target of more than {HOST_BYTES_MAX} bytes"));
    }
    if srv.port == 0 {
        return Err(format!("has port 0 for {host:?}"));
    }
    let url = ListenUrl::parse_peer(&format!("{}://{host}:{}", scheme.as_str(), srv.port))
        .map_err(|reason| format!("makes no URL of a member: {reason}"))?;
    if url.is_wildcard() {
        return Err(format!(
            "has the target {host:?}, where nobody can connect to"
        ));
    }
    Ok(url)
}

fn host(url: &ListenUrl) -> Option<&Host> {
    match &url.place {
        Place::Tcp { host, .. } => Some(host),
        Place::Socket { .. } => None,
    }
}

/// `host:port`.
fn endpoint(url: &ListenUrl) -> String {
    let text = url.to_string();
    match text.split_once("://") {
        Some((_, endpoint)) => endpoint.to_owned(),
        None => text,
    }
}

/// The first of them, and how many there are beside.
fn shown<'u>(urls: impl IntoIterator<Item = &'u ListenUrl>, most: usize) -> String {
    let urls: Vec<String> = urls.into_iter().map(ToString::to_string).collect();
    let beside = urls.len().saturating_sub(most);
    let mut text = urls[..urls.len() - beside].join(", ");
    if beside > 0 {
        text += &format!(" and {beside} more");
    }
    text
}

/// Why a lookup failed, for an operator.
fn reason(error: &NetError) -> String {
    match error {
        NetError::Timeout => "no answer from a DNS server".to_owned(),
        NetError::NoConnections => "no DNS server can be reached".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the DNS server answers {code}"),
        _ if error.is_nx_domain() => "DNS has no such name".to_owned(),
        _ if error.is_no_records_found() => "DNS has no such record".to_owned(),
        _ => error.to_string(),
    }
}
