//! The members of a new cluster, as DNS has them.

use hickory_resolver::Resolver;
use hickory_resolver::proto::rr::RData;
use holdfast_config::{Config, DiscoverySrv, InitialMember, ListenUrl};
use std::time::Duration;

/// Why DNS does not say who the members are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiscoveryError {
    #[error("the system's resolver cannot be used: {0}")]
    Resolver(String),
    #[error("{names}: {reason}")]
    Lookup { names: String, reason: String },
    #[error("{0}")]
    Records(String),
    #[error("no runtime: {0}")]
    Runtime(#[from] std::io::Error),
    #[error("DNS did not answer in time")]
    TimedOut,
}

/// Far longer than a resolver that works needs with all its repetitions.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Asks for the SRV records of both schemes. A record that has one of this member's own peer URLs is this member; the others have no name
/// until they tell it.
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
    let found = runtime.block_on(async {
        tokio::time::timeout(ANSWER_MAX, lookup(discovery))
            .await
            .map_err(|_| DiscoveryError::TimedOut)?
    })?;
    let own: Vec<String> = super::bootstrap::texts(&config.initial_advertise_peer_urls);
    let mut others = 0usize;
    let named = found.into_iter().map(|url| {
        let name = if own.contains(&url.to_string()) {
            config.name.clone()
        } else {
            others += 1;
            // Each record is a member by itself, as in etcd.
            format!("{others}")
        };
        (name, url)
    });
    InitialMember::group(named).map_err(DiscoveryError::Records)
}

async fn lookup(discovery: &DiscoverySrv) -> Result<Vec<ListenUrl>, DiscoveryError> {
    let resolver = Resolver::builder_tokio()
        .and_then(|builder| builder.build())
        .map_err(|error| DiscoveryError::Resolver(error.to_string()))?;
    let mut urls = Vec::new();
    let mut failures = Vec::new();
    let records = discovery.records();
    for (scheme, name) in &records {
        match resolver.srv_lookup(name.as_str()).await {
            Ok(answer) => {
                for record in answer.answers() {
                    let RData::SRV(srv) = &record.data else {
                        continue;
                    };
                    let host = srv.target.to_utf8();
                    let text = format!(
                        "{}://{}:{}",
                        scheme.as_str(),
                        host.trim_end_matches('.'),
                        srv.port
                    );
                    let url = ListenUrl::parse_peer(&text).map_err(DiscoveryError::Records)?;
                    urls.push(url);
                }
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    if urls.is_empty() {
        return Err(DiscoveryError::Lookup {
            names: records.map(|(_, name)| name).join(", "),
            reason: failures.join("; "),
        });
    }
    // The order of an answer says nothing.
    urls.sort_by_key(ToString::to_string);
    Ok(urls)
}
