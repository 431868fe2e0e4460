//! The profile of a cluster, and the settings whose defaults it decides.

use std::num::NonZeroUsize;

use crate::audit::{self, AuditSink};
use crate::config::Config;
use crate::error::ConfigError;
use crate::settings::Settings;
use crate::table::Key;
use crate::url::ListenUrl;

/// Rules of a cluster, stored when it is founded (design §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Password length, lease ownership, named peers and the like are enforced.
    Strict,
    /// As etcd behaves.
    #[default]
    Etcd,
}

/// Settings whose defaults depend on the profile. What was given counts in any profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileSettings {
    /// Found a new cluster with user `root` (role `root`, no password) and authentication on. Without meaning for a member that
    /// has data.
    pub initial_auth: bool,
    /// Client connections open at one time from one address; absent for no cap.
    pub max_connections_per_source: Option<NonZeroUsize>,
    /// The listeners for other members to open, TCP alone; empty for none. Profile `strict`, and so the quick start, has none unless
    /// told: nothing proves who speaks on a plaintext port of this machine.
    pub listen_peer_urls: Vec<ListenUrl>,
    /// Least length of a new password in bytes, 0 to 64.
    pub min_password_length: usize,
    /// Where audit records go, each once; empty for nowhere.
    pub audit_sinks: Vec<AuditSink>,
}

/// The same settings in each profile.
#[derive(Debug, Clone)]
pub(crate) struct ByProfile {
    strict: ProfileSettings,
    etcd: ProfileSettings,
}

impl Config {
    /// The settings whose defaults depend on the profile: that of the data directory, or [`Config::profile`] when a cluster is
    /// founded.
    #[must_use]
    pub fn for_profile(&self, profile: Profile) -> &ProfileSettings {
        match profile {
            Profile::Strict => &self.by_profile.strict,
            Profile::Etcd => &self.by_profile.etcd,
        }
    }

    /// What must hold only when a cluster is founded; not checked by [`crate::load`], which does not know whether there is data.
    ///
    /// # Errors
    ///
    /// Authentication would be on from the start and nobody could be root: root has no password then, and no listener for
    /// clients takes users from certificates.
    pub fn check_founding(&self) -> Result<(), ConfigError> {
        let by_certificate = self.client_tls.client_cert_auth
            && self.listen_client_urls.iter().any(|url| url.is_tls());
        if self.for_profile(self.profile).initial_auth && !by_certificate {
            let origin = self.settings.origin(Key::InitialAuth);
            return Err(ConfigError::Conflict(format!(
                "--initial-auth ({origin}) would lock everybody out: root is known by its certificate alone; give --client-cert-auth and \
                 an https:// URL for clients, or --initial-auth=false"
            )));
        }
        Ok(())
    }
}

/// Reads the settings with the defaults of each profile, and leaves those of `profile` in force.
pub(crate) fn build(settings: &mut Settings, profile: Profile) -> Result<ByProfile, ConfigError> {
    let mut under = |profile| {
        settings.use_profile(profile);
        Ok::<_, ConfigError>(ProfileSettings {
            initial_auth: settings.boolean(Key::InitialAuth)?,
            max_connections_per_source: NonZeroUsize::new(
                settings.number(Key::MaxConnectionsPerSource)?,
            ),
            listen_peer_urls: settings.urls(Key::ListenPeerUrls)?,
            min_password_length: settings.number(Key::MinPasswordLength)?,
            audit_sinks: audit::sinks(settings)?,
        })
    };
    let (strict, etcd) = (under(Profile::Strict)?, under(Profile::Etcd)?);
    settings.use_profile(profile);
    Ok(ByProfile { strict, etcd })
}
