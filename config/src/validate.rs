//! What only several settings together can violate.

use crate::audit::AuditSink;
use crate::bootstrap::MAX_URLS;
use crate::config::Config;
use crate::error::ConfigError;
use crate::feature::Feature;
use crate::security::TransportSecurity;
use crate::table::Key;
use crate::url::{ListenUrl, Scheme};

/// etcd's recommended most; beyond it one request can delay heartbeats.
const LARGE_REQUEST_BYTES: usize = 10 << 20;

/// A leader needs a few heartbeats within the election timeout, or one lost packet starts an election (etcd's rule).
const HEARTBEATS_PER_ELECTION: u32 = 5;

pub(crate) fn check(config: &mut Config) -> Result<(), ConfigError> {
    check_timing(config)?;
    check_presence(config)?;
    check_listeners(config)?;
    check_features(config)?;
    note_risks(config);
    Ok(())
}

fn check_timing(config: &Config) -> Result<(), ConfigError> {
    if config.election_timeout < config.heartbeat_interval * HEARTBEATS_PER_ELECTION {
        return Err(ConfigError::Conflict(format!(
            "--election-timeout ({} ms) must be at least {HEARTBEATS_PER_ELECTION} times --heartbeat-interval ({} ms)",
            config.election_timeout.as_millis(),
            config.heartbeat_interval.as_millis(),
        )));
    }
    Ok(())
}

fn check_presence(config: &Config) -> Result<(), ConfigError> {
    let settings = &config.settings;
    if settings.is_given(Key::ListenClientUrls) && !settings.is_given(Key::AdvertiseClientUrls) {
        let message =
            "--advertise-client-urls is required when --listen-client-urls is set explicitly";
        return Err(ConfigError::Conflict(message.to_owned()));
    }
    for (key, urls) in [
        (Key::ListenClientUrls, &config.listen_client_urls),
        (Key::AdvertiseClientUrls, &config.advertise_client_urls),
        (
            Key::InitialAdvertisePeerUrls,
            &config.initial_advertise_peer_urls,
        ),
    ] {
        if urls.is_empty() {
            return Err(settings.invalid(key, "at least one URL is needed".to_owned()));
        }
        // What is advertised is kept and told by every member.
        if key != Key::ListenClientUrls && urls.len() > MAX_URLS {
            return Err(settings.invalid(key, format!("there are more than {MAX_URLS} URLs")));
        }
    }
    Ok(())
}

fn check_listeners(config: &mut Config) -> Result<(), ConfigError> {
    let client = ("--cert-file, --key-file", &config.client_tls);
    let peer = ("--peer-cert-file, --peer-key-file", &config.peer_tls);
    let mut notices = Vec::new();
    for (key, urls, (flags, tls)) in [
        (Key::ListenClientUrls, &config.listen_client_urls, client),
        (
            Key::ListenClientHttpUrls,
            &config.listen_client_http_urls,
            client,
        ),
        (Key::ListenMetricsUrls, &config.listen_metrics_urls, client),
        (
            Key::ListenPeerUrls,
            &config.for_profile(config.profile).listen_peer_urls,
            peer,
        ),
    ] {
        for url in urls {
            if url.is_tls() && !tls.can_serve_tls() && !config.quick_start {
                return Err(no_certificate(key, url, flags));
            }
            if url.scheme == Scheme::Http && !url.is_local() && !config.allow_plaintext {
                return Err(ConfigError::Conflict(format!(
                    "--{} ({}): {url} would serve plaintext to other machines; use https:// with {flags}, or permit it with --allow-plaintext",
                    key.row().name,
                    config.settings.origin(key),
                )));
            }
        }
        // Metrics are commonly plaintext beside TLS for clients, so that is not worth a line.
        if key != Key::ListenMetricsUrls && wants_tls(tls) {
            let plain = urls.iter().filter(|url| !url.is_tls());
            notices.extend(plain.map(|url| {
                format!(
                    "--{}: {url} is served without TLS, although TLS is configured",
                    key.row().name
                )
            }));
        }
    }
    config.notices.extend(notices);
    Ok(())
}

fn no_certificate(key: Key, url: &ListenUrl, flags: &str) -> ConfigError {
    ConfigError::Conflict(match key {
        // The text tools look for (behaviour §6.2).
        Key::ListenMetricsUrls => {
            format!("client TLS key/cert ({flags}) must be provided for metrics secure url {url}")
        }
        _ => format!(
            "--{}: {url} needs a certificate: give {flags}",
            key.row().name
        ),
    })
}

fn wants_tls(tls: &TransportSecurity) -> bool {
    tls.can_serve_tls() || tls.requires_client_certificate()
}

fn check_features(config: &Config) -> Result<(), ConfigError> {
    let gates = &config.feature_gates;
    if gates.enabled(Feature::LeaseCheckpointPersist) && !gates.enabled(Feature::LeaseCheckpoint) {
        let message = "the feature gate LeaseCheckpointPersist needs LeaseCheckpoint";
        return Err(ConfigError::Conflict(message.to_owned()));
    }
    Ok(())
}

fn note_risks(config: &mut Config) {
    let wildcard = config
        .advertise_client_urls
        .iter()
        .chain(&config.initial_advertise_peer_urls)
        .find(|url| url.is_wildcard());
    let mut notices = Vec::new();
    if let Some(url) = wildcard {
        notices.push(format!(
            "{url} is advertised, but nobody can connect to that address"
        ));
    }
    if config.max_request_bytes > LARGE_REQUEST_BYTES {
        notices.push(format!(
            "--max-request-bytes ({}) is above 10 MiB: large requests delay all others",
            config.max_request_bytes
        ));
    }
    if config.unsafe_no_fsync {
        notices.push("--unsafe-no-fsync: a power cut loses acknowledged writes".to_owned());
    }
    if config.force_new_cluster {
        notices.push("--force-new-cluster: all other members are forgotten".to_owned());
    }
    if !config.pre_vote {
        notices.push(
            "--pre-vote=false: a member that was cut off may depose the leader when it comes back"
                .to_owned(),
        );
    }
    let sinks = &config.for_profile(config.profile).audit_sinks;
    if sinks.iter().any(AuditSink::is_remote) {
        notices.push(
            "--audit-log: syslog carries audit records to another machine without encryption"
                .to_owned(),
        );
    }
    if sinks.is_empty() && config.audit.rules_file.is_some() {
        notices.push("--audit-rules-file has no effect: --audit-log names no sink".to_owned());
    }
    config.notices.extend(notices);
}
