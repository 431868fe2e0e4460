//! TLS for listeners: settings from the configuration, reload, and the end of connections whose certificate has ended.

use crate::metrics::Metrics;
use holdfast_certs::{
    ClientAuth, CrlExpiry, CrlUnknown, EkuPolicy, IssueError, PeerPolicy, PeerTls, PeerTlsSettings,
    Polled, Reloaded, ServerTls, ServerTlsSettings, TlsError, TlsVersion,
};
use holdfast_config::{CertificateFiles, Config, Host, Profile, TransportSecurity};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// Why a listener has no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsSetupError {
    #[error(transparent)]
    Load(#[from] TlsError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(
        "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
    )]
    MissingCertificate,
    #[error("profile strict needs --peer-trusted-ca-file beside the peer certificate")]
    MissingPeerCa,
}

/// A listener's TLS, shared by its connections.
pub(crate) struct ListenerTls {
    pub(crate) tls: ServerTls,
    /// Counts reloads, so that live connections look again at their certificate.
    pub(crate) reloads: watch::Sender<u64>,
}

impl ListenerTls {
    /// Loads the client listeners' TLS; `None` when no file and no self-signed certificate is configured. `profile` is the cluster's.
    pub(crate) fn load(
        config: &Config,
        profile: Profile,
    ) -> Result<Option<Arc<ListenerTls>>, TlsSetupError> {
        let security = &config.client_tls;
        let Some(CertificateFiles {
            cert_file,
            key_file,
        }) = certificate(config, security)?
        else {
            return Ok(None);
        };
        let mut settings = ServerTlsSettings::new(cert_file, key_file);
        if security.requires_client_certificate()
            && let Some(ca) = &security.trusted_ca_file
        {
            settings.client_auth = ClientAuth::Required {
                ca_files: vec![ca.clone()],
            };
            settings.crl_file.clone_from(&security.crl_file);
            settings
                .allowed_common_names
                .clone_from(&security.allowed_cn);
            settings
                .allowed_hostnames
                .clone_from(&security.allowed_hostname);
        }
        settings.min_version = version(security.min_version);
        settings.max_version = version(security.max_version);
        settings.cipher_suites = security
            .cipher_suites
            .iter()
            .map(ToString::to_string)
            .collect();
        if profile == Profile::Etcd {
            // As lenient as etcd where certificates made for it would fail otherwise.
            settings.client_eku = EkuPolicy::IfPresent;
            settings.crl_unknown = CrlUnknown::Accept;
            settings.crl_expiry = CrlExpiry::Ignore;
        }
        let tls = ServerTls::load(settings)?;
        for warning in &tls.report().warnings {
            tracing::warn!("{warning}");
        }
        Ok(Some(Arc::new(ListenerTls {
            tls,
            reloads: watch::Sender::new(0),
        })))
    }

    /// Looks whether files have changed and takes the new ones; a bad one changes nothing.
    pub(crate) fn poll(&self, metrics: &Metrics) {
        match self.tls.watch_poll() {
            Polled::Unchanged => {}
            Polled::Reloaded(report) => {
                for warning in &report.warnings {
                    tracing::warn!("{warning}");
                }
                tracing::info!(generation = report.generation, "reloaded TLS files");
                metrics.certificates_reloaded(true);
                metrics.certificate_expires(report.not_after);
                self.reloads.send_modify(|count| *count += 1);
            }
            Polled::Failed(error) => {
                tracing::error!(%error, "cannot reload TLS files; the ones in use stay");
                metrics.certificates_reloaded(false);
            }
        }
    }
}

/// TLS between members; `None` when nothing for it is configured. `profile` is the cluster's.
pub(crate) fn peer_tls(
    config: &Config,
    profile: Profile,
) -> Result<Option<Arc<PeerTls>>, TlsSetupError> {
    let security = &config.peer_tls;
    let files = match (&security.certificate, security.auto_tls) {
        (Some(files), auto) => {
            tell_if_ignored(auto, "--peer-auto-tls");
            files.clone()
        }
        (None, true) => {
            let hosts = config.for_profile(profile).listen_peer_urls.iter();
            let hosts: Vec<String> = hosts.filter_map(host).collect();
            self_signed(config, security, &hosts, "peer")?
        }
        (None, false) => return Ok(None),
    };
    let mut settings = match (&security.trusted_ca_file, profile) {
        (Some(ca), Profile::Strict) => PeerTlsSettings::named(
            files.cert_file,
            files.key_file,
            ca.clone(),
            config.name.clone(),
        ),
        (Some(ca), Profile::Etcd) => {
            PeerTlsSettings::any_of_ca(files.cert_file, files.key_file, ca.clone())
        }
        (None, Profile::Strict) => return Err(TlsSetupError::MissingPeerCa),
        (None, Profile::Etcd) => {
            tracing::warn!(
                "members are not verified: there is no --peer-trusted-ca-file, so whoever reaches the peer port may speak as one"
            );
            PeerTlsSettings::unverified(files.cert_file, files.key_file)
        }
    };
    if let PeerPolicy::AnyOfCa {
        allowed_common_names,
        allowed_hostnames,
        skip_address_check,
    } = &mut settings.policy
    {
        allowed_common_names.clone_from(&security.allowed_cn);
        allowed_hostnames.clone_from(&security.allowed_hostname);
        *skip_address_check = security.skip_client_san_verification;
    }
    if let Some(outgoing) = &security.outgoing_certificate {
        settings.client_cert_file = Some(outgoing.cert_file.clone());
        settings.client_key_file = Some(outgoing.key_file.clone());
    }
    settings.crl_file.clone_from(&security.crl_file);
    settings.min_version = version(security.min_version);
    settings.max_version = version(security.max_version);
    settings.cipher_suites = security
        .cipher_suites
        .iter()
        .map(ToString::to_string)
        .collect();
    let tls = PeerTls::load(settings)?;
    for warning in &tls.listener().report().warnings {
        tracing::warn!("{warning}");
    }
    Ok(Some(Arc::new(tls)))
}

/// Looks whether the files of the members' TLS have changed and takes the new ones; a bad one changes nothing.
pub(crate) fn poll_peers(tls: &PeerTls, metrics: &Metrics) {
    match tls.listener().watch_poll() {
        Polled::Unchanged => {}
        Polled::Reloaded(report) => {
            for warning in &report.warnings {
                tracing::warn!("{warning}");
            }
            tracing::info!(
                generation = report.generation,
                "reloaded TLS files for other members"
            );
            metrics.certificates_reloaded(true);
            peers_expire(&report, metrics);
        }
        Polled::Failed(error) => {
            tracing::error!(%error, "cannot reload TLS files for other members; the ones in use stay");
            metrics.certificates_reloaded(false);
        }
    }
}

/// Shows when the certificates between members end that are in use now.
pub(crate) fn peers_expire(report: &Reloaded, metrics: &Metrics) {
    let (client, ca) = (report.outgoing_not_after, report.ca_not_after);
    metrics
        .peers()
        .certificates_expire(report.not_after, client, ca);
}

fn version(version: holdfast_config::TlsVersion) -> TlsVersion {
    match version {
        holdfast_config::TlsVersion::Tls12 => TlsVersion::Tls12,
        holdfast_config::TlsVersion::Tls13 => TlsVersion::Tls13,
    }
}

fn tell_if_ignored(auto: bool, flag: &str) {
    if auto {
        tracing::warn!(flag, "a certificate is given, so none is made");
    }
}

fn certificate(
    config: &Config,
    security: &TransportSecurity,
) -> Result<Option<CertificateFiles>, TlsSetupError> {
    if let Some(files) = &security.certificate {
        tell_if_ignored(security.auto_tls, "--auto-tls");
        return Ok(Some(files.clone()));
    }
    if !security.auto_tls {
        return Ok(None);
    }
    let hosts: Vec<String> = config
        .listen_client_urls
        .iter()
        .chain(&config.listen_metrics_urls)
        .filter_map(host)
        .collect();
    self_signed(config, security, &hosts, "client").map(Some)
}

/// Finds or makes a self-signed certificate.
fn self_signed(
    config: &Config,
    security: &TransportSecurity,
    hosts: &[String],
    what: &str,
) -> Result<CertificateFiles, TlsSetupError> {
    let dir: PathBuf = config.data_dir.join("fixtures").join(what);
    let made = holdfast_certs::self_signed(hosts, security.self_signed_cert_validity_years, &dir)?;
    for warning in &made.warnings {
        tracing::warn!("{warning}");
    }
    Ok(CertificateFiles {
        cert_file: made.cert_file,
        key_file: made.key_file,
    })
}

fn host(url: &holdfast_config::ListenUrl) -> Option<String> {
    match &url.place {
        holdfast_config::Place::Tcp { host, .. } => Some(match host {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name.clone(),
        }),
        holdfast_config::Place::Socket { .. } => None,
    }
}

#[cfg(test)]
mod tests;
