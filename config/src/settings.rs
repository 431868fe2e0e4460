//! The winner of every setting, with its origin.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::ConfigError;
use crate::profile::Profile;
use crate::table::{Key, Kind, Standing};
use crate::url::ListenUrl;
use crate::value::{parse_bool, parse_duration, parse_int, parse_list};

/// Where a value comes from. [`fmt::Display`] writes it as `--print-config` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The table of settings.
    Default,
    /// The quick start, which has defaults of its own.
    QuickStart,
    /// Profile `strict`, which has defaults of its own.
    ProfileStrict,
    /// The configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The key, with its section.
        key: &'static str,
    },
    /// An environment variable.
    Environment(String),
    /// A flag, by the name that was used.
    Flag(&'static str),
}

impl Origin {
    /// Later layers win over earlier ones.
    pub(crate) fn layer(&self) -> u8 {
        match self {
            Self::Default | Self::QuickStart | Self::ProfileStrict => 0,
            Self::File { .. } => 1,
            Self::Environment(_) => 2,
            Self::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::QuickStart => f.write_str("quick start"),
            Self::ProfileStrict => f.write_str("default of profile strict"),
            Self::File { path, key } => write!(f, "file {}, {key}", path.display()),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag(flag) => write!(f, "flag --{flag}"),
        }
    }
}

/// A value that one of the sources gave.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) value: String,
    pub(crate) origin: Origin,
    older: Option<&'static str>,
}

/// All settings; what was not given has its default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    given: BTreeMap<Key, Given>,
    /// Defaults that depend on other settings.
    derived: BTreeMap<Key, (String, Origin)>,
    /// Whose defaults apply.
    profile: Profile,
    file: bool,
    notices: Vec<String>,
}

impl Settings {
    /// Takes a value from a source. Sources must be offered in the order of precedence, the weakest first.
    pub(crate) fn offer(
        &mut self,
        key: Key,
        older: Option<&'static str>,
        value: &str,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let row = key.row();
        row.check(value)
            .map_err(|reason| ConfigError::InvalidValue {
                name: row.name,
                value: value.to_owned(),
                origin: origin.clone(),
                reason,
            })?;
        let mut value = match key {
            // Neither is used, and both may hold a password, which must not reach a log or --print-config.
            Key::DiscoveryPassword | Key::DiscoveryUser => "(not shown)".to_owned(),
            _ => canonical(row.kind, value),
        };
        let rival = self
            .given
            .get(&key)
            .filter(|rival| rival.origin.layer() == origin.layer());
        if let Some(rival) = rival {
            match (rival.older, older) {
                (None, Some(older)) => {
                    self.notices.push(format!(
                        "--{older} ({origin}) is ignored: --{} is given too",
                        row.name
                    ));
                    return Ok(());
                }
                (Some(older), None) => {
                    self.notices.push(format!(
                        "--{older} ({}) is ignored: --{} is given too",
                        rival.origin, row.name
                    ));
                }
                _ if matches!(origin, Origin::File { .. }) => {
                    return Err(ConfigError::Conflict(format!(
                        "--{} is given twice: {}; {origin}",
                        row.name, rival.origin
                    )));
                }
                // Gates add up when the flag is repeated, as in etcd; for any other flag the last one counts.
                _ if key == Key::FeatureGates => value = format!("{},{value}", rival.value),
                _ => {}
            }
        }
        self.given.insert(
            key,
            Given {
                value,
                origin,
                older,
            },
        );
        Ok(())
    }

    /// Sets a default that depends on other settings.
    pub(crate) fn derive(&mut self, key: Key, value: String, origin: Origin) {
        self.derived.insert(key, (value, origin));
    }

    /// Makes the defaults of `profile` apply.
    pub(crate) fn use_profile(&mut self, profile: Profile) {
        self.profile = profile;
    }

    /// Notes that a configuration file was read, even an empty one.
    pub(crate) fn note_file(&mut self) {
        self.file = true;
    }

    pub(crate) fn notice(&mut self, notice: String) {
        self.notices.push(notice);
    }

    pub(crate) fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Whether nothing that etcd knows was given.
    pub(crate) fn is_quick_start(&self) -> bool {
        let as_etcd = self
            .given
            .get(&Key::Profile)
            .is_some_and(|given| given.value == "etcd");
        !self.file && !as_etcd && !self.given.keys().any(|key| key.row().etcd)
    }

    pub(crate) fn given(&self, key: Key) -> Option<&Given> {
        self.given.get(&key)
    }

    pub(crate) fn is_given(&self, key: Key) -> bool {
        self.given.contains_key(&key)
    }

    /// What an operator should know of settings that were given and do nothing, or go by another name now.
    ///
    /// # Errors
    ///
    /// A setting that must not be ignored has a value that would have to be.
    pub(crate) fn standing_notices(&self) -> Result<Vec<String>, ConfigError> {
        let mut notices = Vec::new();
        for (
            key,
            Given {
                value,
                origin,
                older,
            },
        ) in &self.given
        {
            let name = key.row().name;
            if let Some(older) = older {
                notices.push(format!("--{older} is an older spelling of --{name}"));
            }
            match key.row().standing {
                Standing::Applies | Standing::Command { .. } => {}
                Standing::Gate(feature) => {
                    notices.push(format!(
                        "--{name} is an older spelling of --feature-gates={}={value}",
                        feature.name()
                    ));
                }
                Standing::Fixed(agreed, _) if agreed.contains(&value.as_str()) => {}
                Standing::Ignored(why) | Standing::Fixed(_, why) => {
                    notices.push(format!(
                        "--{name} ({origin}) is accepted and has no effect: {why}"
                    ));
                }
                Standing::Refused(harmless, _) if harmless.contains(&value.as_str()) => {}
                Standing::Refused(_, reason) => {
                    return Err(ConfigError::Unsupported {
                        name,
                        origin: origin.clone(),
                        reason,
                    });
                }
            }
        }
        Ok(notices)
    }

    /// The value as it would be written on the command line.
    pub(crate) fn text(&self, key: Key) -> &str {
        if let Some(given) = self.given.get(&key) {
            return &given.value;
        }
        if let Some((value, _)) = self.derived.get(&key) {
            return value;
        }
        self.strict_default(key).unwrap_or(key.row().default)
    }

    pub(crate) fn origin(&self, key: Key) -> Origin {
        if let Some(given) = self.given.get(&key) {
            return given.origin.clone();
        }
        if let Some((_, origin)) = self.derived.get(&key) {
            return origin.clone();
        }
        self.strict_default(key)
            .map_or(Origin::Default, |_| Origin::ProfileStrict)
    }

    fn strict_default(&self, key: Key) -> Option<&'static str> {
        (self.profile == Profile::Strict)
            .then_some(key.row().strict)
            .flatten()
    }

    pub(crate) fn boolean(&self, key: Key) -> Result<bool, ConfigError> {
        parse_bool(self.text(key)).map_err(|reason| self.invalid(key, reason))
    }

    pub(crate) fn number<T: TryFrom<i64>>(&self, key: Key) -> Result<T, ConfigError> {
        let number = parse_int(self.text(key)).map_err(|reason| self.invalid(key, reason))?;
        T::try_from(number)
            .map_err(|_| self.invalid(key, "the number does not fit on this machine".to_owned()))
    }

    /// Like [`Settings::number`] where zero means the default.
    pub(crate) fn number_or_default<T: TryFrom<i64>>(&self, key: Key) -> Result<T, ConfigError> {
        let default = || parse_int(key.row().default).map_err(|reason| self.invalid(key, reason));
        let number = match parse_int(self.text(key)).map_err(|reason| self.invalid(key, reason))? {
            0 => default()?,
            number => number,
        };
        T::try_from(number)
            .map_err(|_| self.invalid(key, "the number does not fit on this machine".to_owned()))
    }

    pub(crate) fn time(&self, key: Key) -> Result<Duration, ConfigError> {
        parse_duration(self.text(key)).map_err(|reason| self.invalid(key, reason))
    }

    /// Like [`Settings::time`] where zero means the default.
    pub(crate) fn time_or_default(&self, key: Key) -> Result<Duration, ConfigError> {
        let time = self.time(key)?;
        if !time.is_zero() {
            return Ok(time);
        }
        parse_duration(key.row().default).map_err(|reason| self.invalid(key, reason))
    }

    /// Like [`Settings::time`] where zero means never.
    pub(crate) fn time_or_never(&self, key: Key) -> Result<Option<Duration>, ConfigError> {
        Ok(Some(self.time(key)?).filter(|time| !time.is_zero()))
    }

    pub(crate) fn list(&self, key: Key) -> Vec<String> {
        parse_list(self.text(key))
    }

    pub(crate) fn path(&self, key: Key) -> Option<PathBuf> {
        Some(self.text(key))
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    }

    pub(crate) fn urls(&self, key: Key) -> Result<Vec<ListenUrl>, ConfigError> {
        let urls = key.row().urls(self.text(key));
        urls.map_err(|reason| self.invalid(key, reason))
    }

    /// The error for the value that `key` has.
    pub(crate) fn invalid(&self, key: Key, reason: String) -> ConfigError {
        ConfigError::InvalidValue {
            name: key.row().name,
            value: self.text(key).to_owned(),
            origin: self.origin(key),
            reason,
        }
    }
}

/// One spelling per value, so that values can be compared and are shown alike.
fn canonical(kind: Kind, value: &str) -> String {
    match kind {
        Kind::Bool => {
            parse_bool(value).map_or_else(|_| value.to_owned(), |value| value.to_string())
        }
        Kind::Int(..) => {
            parse_int(value).map_or_else(|_| value.to_owned(), |value| value.to_string())
        }
        _ => value.to_owned(),
    }
}
