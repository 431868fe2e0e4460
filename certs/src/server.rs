//! The TLS configuration of a listener, and its reload.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{
    ClientConfig, ServerConfig, SupportedProtocolVersion,
    client::danger::ServerCertVerifier,
    crypto::CryptoProvider,
    server::NoServerSessionStorage,
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};

use rustls_pki_types::CertificateDer;

use crate::{
    anchors::Anchors,
    cipher_suites,
    client::{any_server, client_config},
    crl::Crls,
    error::{Invalid, TlsError, Warning},
    identity::{LeafNames, PeerIdentity},
    key_material::{self, Side},
    member::MemberRules,
    peer_settings::PeerPolicy,
    provider::provider,
    settings::{ClientAuth, ServerTlsSettings, TlsVersion},
    source_file::Stamp,
    sources::{Digest, Sources, stamps},
    trust::{Trust, Verifier},
};

/// The TLS configuration of a listener: built from settings, replaced when its files change.
///
/// Cheap to read from every thread. Hand it around in an `Arc`.
pub struct ServerTls {
    plan: Plan,
    loaded: ArcSwap<Loaded>,
    watch: Mutex<Watch>,
}

/// What to load.
pub(crate) struct Plan {
    pub(crate) listener: ServerTlsSettings,
    /// For a listener of other members.
    pub(crate) members: Option<MembersPlan>,
}

/// What a listener of other members has beyond one of clients.
pub(crate) struct MembersPlan {
    pub(crate) policy: PeerPolicy,
    /// Certificate and key for connections that we make, if not the same.
    pub(crate) separate_pair: Option<(PathBuf, PathBuf)>,
}

/// One consistent state: new connections take all of it or nothing of it.
pub(crate) struct Loaded {
    pub(crate) config: Arc<ServerConfig>,
    /// `None` when no client certificates are asked for.
    pub(crate) clients: Option<Arc<Trust>>,
    /// For connections to other members.
    pub(crate) outgoing: Option<Arc<ClientConfig>>,
    report: Reloaded,
}

struct Watch {
    stamps: Vec<Stamp>,
    /// Of the contents tried last, good or bad.
    digest: Digest,
    /// All stamps are old enough to be sure to change with the file.
    settled: bool,
    /// The message of the failed read that was reported last; reading is tried again at every poll.
    unreadable: Option<String>,
}

/// What is in use after a load.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// What an operator should know about the material.
    pub warnings: Vec<Warning>,
    /// Counts the loads of this listener, from 1. A connection accepted under an older number is due for
    /// [`ServerTls::still_valid`].
    pub generation: u64,
    /// End of validity of the server certificate.
    pub not_after: SystemTime,
    /// For members: that of the certificate for connections that we make, which may be the same.
    pub outgoing_not_after: Option<SystemTime>,
    /// That of the first CA to end of those whose certificates are accepted; `None` when none are asked for.
    pub ca_not_after: Option<SystemTime>,
    /// When the first of the revocation lists is due for replacement.
    pub crl_next_update: Option<SystemTime>,
}

/// The outcome of [`ServerTls::watch_poll`].
#[derive(Debug)]
pub enum Polled {
    /// Nothing new (or a failure that was reported already and persists).
    Unchanged,
    /// The files changed and are in use.
    Reloaded(Reloaded),
    /// The files changed and cannot be used; what was in use stays in use. Reported once per change.
    Failed(TlsError),
}

impl ServerTls {
    /// Reads the files and builds the configuration. [`Self::report`] has the warnings.
    ///
    /// # Errors
    ///
    /// A file that cannot be used, or settings that contradict each other.
    pub fn load(settings: ServerTlsSettings) -> Result<Self, TlsError> {
        Self::load_plan(Plan {
            listener: settings,
            members: None,
        })
    }

    pub(crate) fn load_plan(plan: Plan) -> Result<Self, TlsError> {
        check(&plan.listener)?;
        let now = SystemTime::now();
        let stamps = stamps(&plan);
        let sources = Sources::read(&plan)?;
        let loaded = build(&plan, &sources, 1, now)?;
        let watch = Watch {
            settled: stamps.iter().all(|stamp| stamp.is_settled(now)),
            stamps,
            digest: sources.digest(),
            unreadable: None,
        };
        Ok(Self {
            plan,
            loaded: ArcSwap::from_pointee(loaded),
            watch: Mutex::new(watch),
        })
    }

    /// The configuration for the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.loaded.load().config.clone()
    }

    /// What is in use: warnings, generation, ends of validity.
    pub fn report(&self) -> Reloaded {
        self.loaded.load().report.clone()
    }

    /// The number of the load in use; see [`Reloaded::generation`].
    pub fn generation(&self) -> u64 {
        self.loaded.load().report.generation
    }

    /// Whether client certificates are required.
    pub fn requires_client_certificate(&self) -> bool {
        self.loaded.load().clients.is_some()
    }

    pub(crate) fn loaded(&self) -> Arc<Loaded> {
        self.loaded.load_full()
    }

    /// Reads all files again and puts them in use, changed or not.
    ///
    /// # Errors
    ///
    /// A file cannot be used; what was in use stays in use.
    pub fn reload(&self) -> Result<Reloaded, TlsError> {
        let mut watch = self.watch.lock();
        let now = SystemTime::now();
        let stamps = stamps(&self.plan);
        let sources = Sources::read(&self.plan)?;
        watch.saw(stamps, sources.digest(), now);
        self.replace(&sources, now)
    }

    /// Looks whether a file changed, and if so reloads. Costs one `stat` per file when nothing changed; meant for a timer
    /// of about a second on a thread that may block.
    ///
    /// A set of files replaced one by one is seen half-way now and then: that poll reports a failure (for example a key
    /// that does not match), the next one succeeds.
    pub fn watch_poll(&self) -> Polled {
        let mut watch = self.watch.lock();
        let now = SystemTime::now();
        // Before reading: a file that changes while it is read then differs from its stamp at the next poll.
        let stamps = stamps(&self.plan);
        if watch.settled && watch.unreadable.is_none() && stamps == watch.stamps {
            return Polled::Unchanged;
        }
        let sources = match Sources::read(&self.plan) {
            Ok(sources) => sources,
            Err(error) if error.is_transient() => {
                let message = error.to_string();
                if watch.unreadable.as_ref() == Some(&message) {
                    return Polled::Unchanged;
                }
                watch.unreadable = Some(message);
                return Polled::Failed(error);
            }
            Err(error) => {
                let reported = stamps == watch.stamps;
                watch.stamps = stamps;
                if reported {
                    return Polled::Unchanged;
                }
                watch.digest = Digest::default();
                return Polled::Failed(error);
            }
        };
        let digest = sources.digest();
        // After an unreadable phase the load is done even of known contents, so that the end of the trouble is reported.
        let known = digest == watch.digest && watch.unreadable.is_none();
        watch.saw(stamps, digest, now);
        if known {
            return Polled::Unchanged;
        }
        match self.replace(&sources, now) {
            Ok(report) => Polled::Reloaded(report),
            Err(error) => Polled::Failed(error),
        }
    }

    /// Judges the holder of a live connection by what is in use now, at time `now`.
    ///
    /// # Errors
    ///
    /// The reason why the connection has to be closed.
    pub fn still_valid(&self, peer: &PeerIdentity, now: SystemTime) -> Result<(), Invalid> {
        match &self.loaded.load().clients {
            Some(clients) => clients.verify_again(peer, now),
            None => Err(Invalid::NoClientAuth),
        }
    }

    /// Only with the watch locked, so that generations are counted one by one.
    fn replace(&self, sources: &Sources, now: SystemTime) -> Result<Reloaded, TlsError> {
        let generation = self.generation() + 1;
        let loaded = build(&self.plan, sources, generation, now)?;
        let report = loaded.report.clone();
        self.loaded.store(Arc::new(loaded));
        Ok(report)
    }
}

impl fmt::Debug for ServerTls {
    /// The settings only: what is loaded holds private keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("settings", &self.plan.listener)
            .finish_non_exhaustive()
    }
}

impl Watch {
    fn saw(&mut self, stamps: Vec<Stamp>, digest: Digest, now: SystemTime) {
        self.settled = stamps.iter().all(|stamp| stamp.is_settled(now));
        self.stamps = stamps;
        self.digest = digest;
        self.unreadable = None;
    }
}

/// Refuses settings of which a part would silently have no effect: someone believes in the protection they name.
fn check(settings: &ServerTlsSettings) -> Result<(), TlsError> {
    let refuse = |reason: &str| Err(TlsError::Settings(reason.to_owned()));
    if settings.min_version > settings.max_version {
        return refuse("the oldest TLS version is newer than the newest");
    }
    if settings
        .alpn
        .iter()
        .any(|name| !(1..=255).contains(&name.len()))
    {
        return refuse("an application protocol name must have 1 to 255 bytes");
    }
    let lists_common_names = !settings.allowed_common_names.is_empty();
    let lists_hostnames = !settings.allowed_hostnames.is_empty();
    if lists_common_names && lists_hostnames {
        return refuse("allowed common names and allowed host names exclude each other");
    }
    match &settings.client_auth {
        ClientAuth::Required { ca_files } if ca_files.is_empty() => {
            refuse("client certificates are required but no CA file is given")
        }
        ClientAuth::Required { .. } => Ok(()),
        ClientAuth::None if lists_common_names || lists_hostnames => {
            refuse("names are allowed by list but client certificates are not required")
        }
        ClientAuth::None if settings.crl_file.is_some() => {
            refuse("a revocation list is given but client certificates are not required")
        }
        ClientAuth::None => Ok(()),
    }
}

fn versions(settings: &ServerTlsSettings) -> Vec<&'static SupportedProtocolVersion> {
    [(TlsVersion::Tls13, &TLS13), (TlsVersion::Tls12, &TLS12)]
        .into_iter()
        .filter(|(version, _)| (settings.min_version..=settings.max_version).contains(version))
        .map(|(_, supported)| supported)
        .collect()
}

fn build(
    plan: &Plan,
    sources: &Sources,
    generation: u64,
    now: SystemTime,
) -> Result<Loaded, TlsError> {
    let settings = &plan.listener;
    let mut warnings = Vec::new();
    let key = key_material::load(
        &sources.cert,
        &sources.key,
        Side::Server,
        now,
        &mut warnings,
    )?;
    let mut ca_not_after = None;
    let (clients, crl_next_update) = match &settings.client_auth {
        ClientAuth::None => (None, None),
        ClientAuth::Required { .. } => {
            let mut cas = Anchors::default();
            for file in &sources.cas {
                cas.add(file, now, &mut warnings)?;
            }
            let crls = sources
                .crl
                .as_ref()
                .map(|file| Crls::load(file, now, &mut warnings))
                .transpose()?;
            let next_update = crls.as_ref().and_then(|crls| crls.next_update);
            ca_not_after = cas.facts.iter().map(|ca| ca.not_after).min();
            let rules = plan.members.as_ref().map(MembersPlan::rules);
            let trust = Trust::new(settings, rules, cas, crls, &mut warnings)?;
            (Some(Arc::new(trust)), next_update)
        }
    };
    let provider = chosen_provider(settings, &mut warnings)?;
    let not_after = key.not_after;
    let mut outgoing_not_after = None;
    let outgoing = match &plan.members {
        None => None,
        Some(members) => {
            let (cert, own_key) = match &sources.outgoing {
                Some((cert, key)) => (cert, key),
                None => (&sources.cert, &sources.key),
            };
            let mut found = Vec::new();
            let key = key_material::load(cert, own_key, Side::Client, now, &mut found)?;
            outgoing_not_after = Some(key.not_after);
            for file in [&sources.cert, cert] {
                let chain = key_material::certificates(file, "PEM certificate")?;
                found.extend(members.misnamed(&file.path, &chain));
            }
            // The same pair may stand on both sides.
            for warning in found {
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
            let verifier: Arc<dyn ServerCertVerifier> = match &clients {
                Some(trust) => Arc::new(Verifier(trust.clone())),
                None => any_server(),
            };
            let key = SingleCertAndKey::from(key.certified);
            let versions = versions(settings);
            let config = client_config(
                provider.clone(),
                &versions,
                verifier,
                Some(key),
                &settings.alpn,
            )?;
            Some(Arc::new(config))
        }
    };
    let key = SingleCertAndKey::from(key.certified);
    let config = config(settings, provider, key, clients.as_ref())?;
    Ok(Loaded {
        config: Arc::new(config),
        clients,
        outgoing,
        report: Reloaded {
            warnings,
            generation,
            not_after,
            outgoing_not_after,
            ca_not_after,
            crl_next_update,
        },
    })
}

fn chosen_provider(
    settings: &ServerTlsSettings,
    warnings: &mut Vec<Warning>,
) -> Result<Arc<CryptoProvider>, TlsError> {
    let base = provider();
    let cipher_suites = cipher_suites::select(
        &base.cipher_suites,
        &settings.cipher_suites,
        settings.min_version == TlsVersion::Tls12,
        warnings,
    )?;
    Ok(Arc::new(CryptoProvider {
        cipher_suites,
        ..CryptoProvider::clone(&base)
    }))
}

/// The one place where a listener's configuration is made.
fn config(
    settings: &ServerTlsSettings,
    provider: Arc<CryptoProvider>,
    key: SingleCertAndKey,
    clients: Option<&Arc<Trust>>,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(settings))
        .map_err(|error| TlsError::Config(error.to_string()))?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(Arc::new(Verifier(clients.clone()))),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(key));
    config.alpn_protocols = settings
        .alpn
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    // A resumed session is not verified again: a certificate revoked since would still be let in.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

impl Plan {
    pub(crate) fn separate_pair(&self) -> Option<(&PathBuf, &PathBuf)> {
        let members = self.members.as_ref()?;
        members
            .separate_pair
            .as_ref()
            .map(|(cert, key)| (cert, key))
    }
}

impl MembersPlan {
    fn rules(&self) -> MemberRules {
        MemberRules::new(&self.policy, self.separate_pair.is_none())
    }

    /// Whether other members would refuse our own certificate for its name.
    fn misnamed(&self, path: &Path, chain: &[CertificateDer<'_>]) -> Option<Warning> {
        let PeerPolicy::Named { own_name, .. } = &self.policy else {
            return None;
        };
        let found = match LeafNames::parse(chain.first()?) {
            Ok(names) => self.rules().misnamed(&names, own_name)?,
            Err(invalid) => invalid.to_string(),
        };
        Some(Warning::NamesAnotherMember {
            path: path.to_owned(),
            member: own_name.clone(),
            found,
        })
    }
}

impl Reloaded {
    /// How long the server certificate is still valid; `None` once it has expired.
    pub fn remaining(&self, now: SystemTime) -> Option<Duration> {
        self.not_after.duration_since(now).ok()
    }
}
