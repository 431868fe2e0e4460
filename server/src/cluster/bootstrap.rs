//! Who this member is: founded with others, added to a cluster that exists, or started again.

use crate::node::Identity;
use crate::peer::{self, CallError, Description, PeerAddress, Security};
use holdfast_config::{ClusterState, Config, ConfigError, InitialMember, ListenUrl, Profile};
use holdfast_storage::datadir::{self, DataDir, IdentityError};
use holdfast_tenant::Member;
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Why a member does not know who it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootstrapError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("members of the cluster cannot be found by DNS: {0}")]
    Discovery(#[from] super::discovery::DiscoveryError),
    #[error("no member of the cluster could be asked who belongs to it: {0}")]
    Unreachable(CallError),
    #[error(
        "the cluster has no member with the peer URLs {urls:?} that was added and has not started yet: add this member first (`etcdctl \
         member add`)"
    )]
    NotAdded { urls: Vec<String> },
    #[error(
        "member {member:x} of the cluster has these peer URLs and ran on another data directory: what it had is lost. Remove it from the \
         cluster, and add it again as a new one"
    )]
    Wiped { member: u64 },
    #[error(
        "the cluster has profile {theirs}, this member was started with profile {ours}; give --profile {theirs}"
    )]
    OtherProfile {
        ours: &'static str,
        theirs: &'static str,
    },
}

/// A member as it begins.
pub(crate) struct Bootstrap {
    pub(crate) identity: Identity,
    /// The members of a cluster that is founded now, or that was founded before members were stored.
    pub(crate) founding: Vec<Member>,
    /// What is to be written once the store has the founding members.
    pub(crate) to_write: Option<datadir::Identity>,
    /// Whom a joiner speaks with until it has the cluster's own list.
    pub(crate) contacts: Vec<PeerAddress>,
}

/// How long the members of a cluster are asked before a joiner gives up.
const ASK_MAX: Duration = Duration::from_secs(10);

/// Finds out who this member is. Asks others only to join their cluster.
///
/// # Errors
/// [`BootstrapError`].
pub(crate) fn bootstrap(
    config: &Config,
    data_dir: &DataDir,
    security: &Security,
) -> Result<Bootstrap, BootstrapError> {
    if let Some(stored) = data_dir.identity()? {
        return Ok(restart(config, stored));
    }
    let discovered;
    let members = match &config.discovery_srv {
        Some(discovery) => {
            discovered = super::discovery::members(config, discovery)?;
            &discovered
        }
        None => &config.initial_cluster,
    };
    let own = config.check_bootstrap(members)?;
    let begun = match config.initial_cluster_state {
        ClusterState::New => found(config, members, own),
        ClusterState::Existing => join(config, members, own, security)?,
    };
    let identity = &begun.identity;
    tracing::info!(
        cluster = format!("{:x}", identity.cluster),
        member = format!("{:x}", identity.member),
        profile = profile_name(identity.profile),
        members = members.len(),
        joins = begun.founding.is_empty(),
        "starting a new member"
    );
    Ok(begun)
}

fn restart(config: &Config, stored: datadir::Identity) -> Bootstrap {
    tracing::info!(
        cluster = format!("{:x}", stored.cluster_id),
        member = format!("{:x}", stored.member_id),
        profile = stored.profile.as_str(),
        "restarting member"
    );
    let is_old = stored.instance == 0;
    let identity = Identity {
        cluster: stored.cluster_id,
        member: stored.member_id,
        instance: if is_old {
            fresh_instance()
        } else {
            stored.instance
        },
        profile: match stored.profile {
            datadir::Profile::Strict => Profile::Strict,
            datadir::Profile::Etcd => Profile::Etcd,
        },
    };
    if !is_old {
        return Bootstrap {
            identity,
            founding: Vec::new(),
            to_write: None,
            contacts: Vec::new(),
        };
    }
    // From before there were clusters: a group of one, without stored members.
    let own = alone(config, &identity);
    Bootstrap {
        founding: vec![own],
        to_write: Some(datadir::Identity {
            instance: identity.instance,
            ..stored
        }),
        identity,
        contacts: Vec::new(),
    }
}

/// This member as the only one of a group.
pub(crate) fn alone(config: &Config, identity: &Identity) -> Member {
    Member {
        id: identity.member,
        name: config.name.clone(),
        peer_urls: texts(&config.initial_advertise_peer_urls),
        ..Member::default()
    }
}

fn found(config: &Config, members: &[InitialMember], own: &InitialMember) -> Bootstrap {
    let token = &config.initial_cluster_token;
    let founding: Vec<Member> = members
        .iter()
        .map(|member| Member {
            id: member_id(&member.peer_urls, token, None),
            name: member.name.clone(),
            peer_urls: texts(&member.peer_urls),
            ..Member::default()
        })
        .collect();
    let mut ids: Vec<u64> = founding.iter().map(|member| member.id).collect();
    ids.sort_unstable();
    let ids: Vec<[u8; 8]> = ids.iter().map(|id| id.to_be_bytes()).collect();
    let parts = ids.iter().map(<[u8; 8]>::as_slice);
    let cluster = digest_id(parts.chain([token.as_bytes()]));
    begin(
        config,
        cluster,
        member_id(&own.peer_urls, token, None),
        config.profile,
        founding,
    )
}

fn join(
    config: &Config,
    members: &[InitialMember],
    own: &InitialMember,
    security: &Security,
) -> Result<Bootstrap, BootstrapError> {
    let described = describe(members, &own.name, security)?;
    let member = added(&described, own)?;
    let theirs = if described.strict {
        Profile::Strict
    } else {
        Profile::Etcd
    };
    if theirs != config.profile {
        // It decides what commands do: all members must have the same.
        return Err(BootstrapError::OtherProfile {
            ours: profile_name(config.profile),
            theirs: profile_name(theirs),
        });
    }
    let mut begun = begin(
        config,
        described.cluster,
        member,
        config.profile,
        Vec::new(),
    );
    begun.contacts = contacts_of(&described, member);
    Ok(begun)
}

/// Whom a member speaks with that was started again before it had its first snapshot.
///
/// # Errors
/// When nobody answers.
pub(crate) fn contacts(
    config: &Config,
    identity: &Identity,
    security: &Security,
) -> Result<Vec<PeerAddress>, BootstrapError> {
    let discovered;
    let members = match &config.discovery_srv {
        Some(discovery) => {
            discovered = super::discovery::members(config, discovery)?;
            &discovered
        }
        None => &config.initial_cluster,
    };
    let described = describe(members, &config.name, security)?;
    Ok(contacts_of(&described, identity.member))
}

fn describe(
    members: &[InitialMember],
    own_name: &str,
    security: &Security,
) -> Result<Description, BootstrapError> {
    let others: Vec<String> = members
        .iter()
        .filter(|member| member.name != own_name)
        .flat_map(|member| texts(&member.peer_urls))
        .collect();
    peer::describe(&others, security, ASK_MAX).map_err(BootstrapError::Unreachable)
}

fn contacts_of(described: &Description, me: u64) -> Vec<PeerAddress> {
    described
        .members
        .iter()
        .filter(|member| member.id != me)
        .map(|member| PeerAddress {
            id: member.id,
            urls: member.peer_urls.clone(),
        })
        .collect()
}

/// The id under which this member was added.
fn added(described: &Description, own: &InitialMember) -> Result<u64, BootstrapError> {
    let mut urls = texts(&own.peer_urls);
    urls.sort();
    let known = described.members.iter().find(|member| {
        let mut theirs: Vec<String> = member
            .peer_urls
            .iter()
            .map(|url| ListenUrl::parse_peer(url).map_or_else(|_| url.clone(), |u| u.to_string()))
            .collect();
        theirs.sort();
        theirs == urls
    });
    match known {
        None => Err(BootstrapError::NotAdded { urls }),
        Some(member) if member.instance != 0 => Err(BootstrapError::Wiped { member: member.id }),
        Some(member) => Ok(member.id),
    }
}

fn begin(
    config: &Config,
    cluster: u64,
    member: u64,
    profile: Profile,
    founding: Vec<Member>,
) -> Bootstrap {
    let identity = Identity {
        cluster,
        member,
        instance: fresh_instance(),
        profile,
    };
    Bootstrap {
        to_write: Some(datadir::Identity {
            cluster_id: cluster,
            member_id: member,
            name: config.name.clone(),
            profile: match profile {
                Profile::Strict => datadir::Profile::Strict,
                Profile::Etcd => datadir::Profile::Etcd,
            },
            instance: identity.instance,
        }),
        founding,
        identity,
        contacts: Vec::new(),
    }
}

fn profile_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Strict => "strict",
        Profile::Etcd => "etcd",
    }
}

fn fresh_instance() -> u64 {
    rand::random::<u64>().max(1)
}

pub(crate) fn texts(urls: &[ListenUrl]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

/// A member's id. As in etcd it follows from its peer URLs and the token, so that all members of a new cluster find the same ones; one that
/// is added later has the time in it, so that it never has the id of an earlier one.
pub(crate) fn member_id(urls: &[ListenUrl], token: &str, added: Option<SystemTime>) -> u64 {
    let mut urls = texts(urls);
    urls.sort();
    let added = added.map(|at| {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_nanos().to_be_bytes()
    });
    digest_id(
        urls.iter()
            .map(String::as_bytes)
            .chain([token.as_bytes()])
            .chain(added.as_ref().map(<[u8; 16]>::as_slice)),
    )
}

/// The first eight bytes of a SHA-256 over length-prefixed parts; never 0, which raft takes for nobody.
fn digest_id<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first).max(1)
}
