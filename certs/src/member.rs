//! For which member a certificate speaks, and whether it may speak for the one it claims to be.

use std::{net::IpAddr, time::Duration};

use tokio::{net::lookup_host, task::JoinSet};

use crate::{
    error::Invalid,
    identity::{LeafNames, PeerIdentity},
    named_user::{IdentityError, plain_common_name, spiffe_id},
    peer_settings::PeerPolicy,
    trust::Role,
};

/// Most names of one certificate that are looked up: each is a question to somebody else's DNS server.
const MAX_LOOKUPS: usize = 16;
/// etcd's time for a whole handshake is 10 s; a member that waits for DNS should still be in time.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);

impl PeerIdentity {
    /// The member that the certificate names: `<name>` of a URI `spiffe://<trust domain>/member/<name>`, without a URI the common
    /// name; `None` if it names nobody. With a `trust_domain` only URIs of that one are accepted.
    ///
    /// # Errors
    ///
    /// The certificate has a URI that names no member, or several, or its common name pretends to be a URI. It then speaks for
    /// nobody: to fall back to the common name would be to let the issuer's mistake choose a member.
    pub fn named_member(
        &self,
        trust_domain: Option<&str>,
    ) -> Result<Option<String>, IdentityError> {
        named_member(&self.uri_sans, self.common_name.as_deref(), trust_domain)
    }
}

fn named_member(
    uris: &[String],
    common_name: Option<&str>,
    trust_domain: Option<&str>,
) -> Result<Option<String>, IdentityError> {
    let Some((uri, id)) = spiffe_id(uris, trust_domain)? else {
        return Ok(plain_common_name(common_name)?.map(str::to_owned));
    };
    match id.path.split_once('/') {
        Some(("member", name)) if !name.contains('/') => Ok(Some(name.to_owned())),
        _ => Err(IdentityError::NotAMember(uri.to_owned())),
    }
}

/// The part of the verdict on a member's certificate that needs no claim and so belongs into the handshake.
#[derive(Debug, Clone)]
pub(crate) struct MemberRules {
    /// Whether every certificate must name a member, and of which trust domain.
    named: Option<Option<String>>,
    /// Members present the certificate that they serve with, so that it allows both uses.
    one_pair: bool,
}

impl MemberRules {
    pub(crate) fn new(policy: &PeerPolicy, one_pair: bool) -> Self {
        let named = match policy {
            PeerPolicy::Named { trust_domain, .. } => Some(trust_domain.clone()),
            PeerPolicy::AnyOfCa { .. } | PeerPolicy::Unverified => None,
        };
        Self { named, one_pair }
    }

    /// Members and clients often have one CA; a client's certificate must not open the port that carries the log.
    pub(crate) fn check(&self, names: &LeafNames, role: Role<'_>) -> Result<(), Invalid> {
        if matches!(role, Role::Client) && self.one_pair && names.server_auth == Some(false) {
            return Err(Invalid::ForClients(
                "its extended key usage has clientAuth alone",
            ));
        }
        if let Ok(Some((_, id))) = spiffe_id(&names.uri_sans, None)
            && let ["tenant", _, "user", _] = id.path.split('/').collect::<Vec<_>>()[..]
        {
            return Err(Invalid::ForClients("its URI names a user"));
        }
        if let Some(trust_domain) = &self.named {
            self.name_of(names, trust_domain.as_deref())?;
        }
        Ok(())
    }

    fn name_of(&self, names: &LeafNames, trust_domain: Option<&str>) -> Result<String, Invalid> {
        named_member(&names.uri_sans, names.common_name.as_deref(), trust_domain)
            .map_err(|error| Invalid::NamesNoMember(error.to_string()))?
            .ok_or_else(|| Invalid::NamesNoMember("it has neither a URI nor a common name".into()))
    }

    /// What a certificate of ours says when it does not name the member `own_name`.
    pub(crate) fn misnamed(&self, names: &LeafNames, own_name: &str) -> Option<String> {
        let trust_domain = self.named.as_ref()?;
        match self.name_of(names, trust_domain.as_deref()) {
            Ok(name) if name == own_name => None,
            Ok(name) => Some(format!("names {name:?}")),
            Err(invalid) => Some(invalid.to_string()),
        }
    }
}

/// Which member somebody claims to be, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct MemberClaim<'a> {
    /// The name that it gives.
    pub name: &'a str,
    /// The name that the member table has for the id that it gives; `None` (or empty) if the id is unknown or the member has
    /// not published its name yet.
    pub known: Option<&'a str>,
    /// Whether another member of the table has this name. Looked at only while nothing is known: names need not be unique, but
    /// a member without one must not be taken by a certificate of another.
    pub named_elsewhere: bool,
}

/// Why a verified certificate may not speak for a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemberRefused {
    /// Members are verified and this one has no certificate.
    #[error("the member presented no certificate")]
    NoCertificate,
    /// The certificate names something that is no member.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate names nobody.
    #[error("the certificate names no member")]
    NamesNobody,
    /// The certificate is another member's.
    #[error("the certificate is of member {certificate:?}, not of {expected:?}")]
    NamesAnother {
        /// Whom the certificate names.
        certificate: String,
        /// Whom it should name.
        expected: String,
    },
    /// The name belongs to a member with another id.
    #[error("the certificate is of member {0:?}, which has another id")]
    NameTaken(String),
    /// etcd's rule: the certificate has addresses or host names, and the connection comes from elsewhere.
    #[error(
        "the certificate is for {names:?}, none of which is {remote}, where the connection comes from"
    )]
    Address {
        /// Where the connection comes from.
        remote: IpAddr,
        /// The first of the certificate's names.
        names: Vec<String>,
    },
}

impl MemberRefused {
    /// A short fixed word for metric labels and audit records.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Identity(error) => error.label(),
            Self::NamesNobody => "names_nobody",
            Self::NamesAnother { .. } => "names_another",
            Self::NameTaken(_) => "name_taken",
            Self::Address { .. } => "address",
        }
    }
}

pub(crate) fn check_member(
    policy: &PeerPolicy,
    peer: Option<&PeerIdentity>,
    claim: &MemberClaim<'_>,
) -> Result<(), MemberRefused> {
    let trust_domain = match policy {
        PeerPolicy::Unverified => return Ok(()),
        PeerPolicy::AnyOfCa { .. } => {
            return peer.map(|_| ()).ok_or(MemberRefused::NoCertificate);
        }
        PeerPolicy::Named { trust_domain, .. } => trust_domain.as_deref(),
    };
    let named = peer
        .ok_or(MemberRefused::NoCertificate)?
        .named_member(trust_domain)?
        .ok_or(MemberRefused::NamesNobody)?;
    let known = claim.known.filter(|known| !known.is_empty());
    for expected in [Some(claim.name), known].into_iter().flatten() {
        if named != expected {
            return Err(MemberRefused::NamesAnother {
                certificate: named,
                expected: expected.to_owned(),
            });
        }
    }
    if known.is_none() && claim.named_elsewhere {
        return Err(MemberRefused::NameTaken(named));
    }
    Ok(())
}

/// etcd's comparison of a certificate with the address that it is used from. Where etcd asks the DNS for the names of the address,
/// to try wildcards with, this tries the hosts that the members are known by.
pub(crate) async fn check_address(
    peer: &PeerIdentity,
    remote: IpAddr,
    member_hosts: &[String],
) -> Result<(), MemberRefused> {
    let remote = remote.to_canonical();
    let is_remote = |address: &IpAddr| address.to_canonical() == remote;
    if peer.ip_sans.is_empty() && peer.dns_sans.is_empty() || peer.ip_sans.iter().any(is_remote) {
        return Ok(());
    }
    let mut lookups = JoinSet::new();
    for host in hosts_to_ask(&peer.dns_sans, member_hosts) {
        lookups.spawn(async move {
            let found = lookup_host((host, 0)).await;
            found.map(|found| found.map(|at| at.ip().to_canonical()).collect::<Vec<_>>())
        });
    }
    let matches = async {
        while let Some(found) = lookups.join_next().await {
            if let Ok(Ok(addresses)) = found
                && addresses.contains(&remote)
            {
                return true;
            }
        }
        false
    };
    if tokio::time::timeout(LOOKUP_DEADLINE, matches)
        .await
        .unwrap_or(false)
    {
        return Ok(());
    }
    let addresses = peer.ip_sans.iter().map(ToString::to_string);
    Err(MemberRefused::Address {
        remote,
        names: addresses
            .chain(peer.dns_sans.iter().cloned())
            .take(MAX_LOOKUPS)
            .collect(),
    })
}

/// The certificate's own names, and for its wildcards the members' hosts that they cover.
fn hosts_to_ask(dns_sans: &[String], member_hosts: &[String]) -> Vec<String> {
    let suffixes: Vec<_> = dns_sans
        .iter()
        .filter_map(|name| name.strip_prefix('*').filter(|rest| rest.len() > 1))
        .filter(|rest| rest.starts_with('.'))
        .collect();
    let covered = |host: &&String| {
        host.parse::<IpAddr>().is_err()
            && suffixes.iter().any(|suffix| {
                host.len() > suffix.len()
                    && host
                        .get(host.len() - suffix.len()..)
                        .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            })
    };
    let plain = dns_sans.iter().filter(|name| !name.contains('*'));
    let mut hosts: Vec<String> = plain
        .chain(member_hosts.iter().filter(covered))
        .cloned()
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts.truncate(MAX_LOOKUPS);
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_uri(uri: &str) -> Result<Option<String>, IdentityError> {
        // The common name must never show through.
        named_member(&[uri.to_owned()], Some("m1"), None)
    }

    #[test]
    fn one_form_of_uri_names_a_member() {
        assert_eq!(
            of_uri("spiffe://holdfast/member/a.B_1-c").unwrap().unwrap(),
            "a.B_1-c"
        );
        for other in [
            "spiffe://holdfast/tenant/a/user/b",
            "spiffe://holdfast/member/a/b",
            "spiffe://holdfast/x/member/a",
            "spiffe://holdfast/member",
            "spiffe://holdfast/Member/a",
            "spiffe://holdfast/members/a",
        ] {
            assert_eq!(
                of_uri(other),
                Err(IdentityError::NotAMember(other.to_owned()))
            );
        }
        for damaged in [
            "spiffe://holdfast/member/",
            "spiffe://holdfast/member/..",
            "spiffe://holdfast/member/a%2fb",
            "https://holdfast/member/a",
        ] {
            assert!(matches!(
                of_uri(damaged),
                Err(IdentityError::NotSpiffe { .. })
            ));
        }
        let uri = "spiffe://a/member/m1".to_owned();
        let twice = [uri.clone(), uri.clone()];
        assert_eq!(
            named_member(&twice, Some("m1"), None),
            Err(IdentityError::SeveralUris)
        );
        assert!(named_member(&[uri], None, Some("b")).is_err());
    }

    #[test]
    fn without_a_uri_the_common_name_is_the_member() {
        let name = named_member(&[], Some("infra 1"), Some("td"));
        assert_eq!(name.unwrap().unwrap(), "infra 1");
        assert_eq!(named_member(&[], None, None), Ok(None));
        assert!(named_member(&[], Some("spiffe://td/member/a"), None).is_err());
    }

    #[test]
    fn wildcards_are_tried_with_the_hosts_of_members() {
        let list = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let sans = list(&["a.example", "*.etcd.svc", "*", "*.", "x*.example"]);
        let members = list(&[
            "m0.ETCD.svc",
            "a.b.etcd.svc",
            ".etcd.svc",
            "etcd.svc",
            "metcd.svc",
            "evil.example",
            "10.0.0.1",
            "é.svc",
        ]);
        assert_eq!(
            hosts_to_ask(&sans, &members),
            ["a.b.etcd.svc", "a.example", "m0.ETCD.svc"]
        );
        let many: Vec<_> = (0..100).map(|n| format!("h{n}.example")).collect();
        assert_eq!(hosts_to_ask(&many, &[]).len(), MAX_LOOKUPS);
    }
}
