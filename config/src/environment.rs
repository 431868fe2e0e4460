//! `ETCD_*` variables for etcd's settings, `HOLDFAST_*` for ours. An empty variable counts as not given, as in etcd.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::error::ConfigError;
use crate::settings::{Origin, Settings};
use crate::spelling::nearest;
use crate::table::{Key, ROWS, Standing};

/// The variables that mean us.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    /// By name, so that the outcome does not depend on the order of the environment.
    known: BTreeMap<String, (Key, Option<&'static str>, String)>,
    unknown: Vec<String>,
}

impl Variables {
    pub(crate) fn value(&self, key: Key) -> Option<&str> {
        self.known
            .values()
            .find(|(known, ..)| *known == key)
            .map(|(.., value)| value.as_str())
    }
}

/// Picks our variables.
pub(crate) fn read(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Variables, ConfigError> {
    let by_name = by_name();
    let mut variables = Variables::default();
    for (name, value) in environment {
        let Some(name) = name
            .to_str()
            .filter(|name| name.starts_with("ETCD_") || name.starts_with("HOLDFAST_"))
        else {
            continue;
        };
        if value.is_empty() {
            continue;
        }
        if let Some((key, older)) = by_name.get(name) {
            let value = value.into_string().map_err(|_| ConfigError::NotUtf8 {
                name: name.to_owned(),
            })?;
            variables
                .known
                .insert(name.to_owned(), (*key, *older, value));
        } else if !is_tolerated(name) {
            variables.unknown.push(name.to_owned());
        }
    }
    variables.unknown.sort();
    Ok(variables)
}

/// Offers the known variables, and leaves a notice for each unknown one. Unknown ones are no error, as in etcd:
/// Kubernetes puts variables like `ETCD_SERVICE_HOST` into every container when a service has that name.
pub(crate) fn apply(variables: Variables, settings: &mut Settings) -> Result<(), ConfigError> {
    let by_name = by_name();
    for name in variables.unknown {
        let meant = other_family(&name).filter(|other| by_name.contains_key(other));
        let nearest =
            meant.unwrap_or_else(|| nearest(&name, by_name.keys().map(String::as_str)).to_owned());
        let name = name.escape_debug();
        settings.notice(format!("the environment variable {name} is not a setting and was ignored; the nearest known one is {nearest}"));
    }
    for (name, (key, older, value)) in variables.known {
        if !matches!(key.row().standing, Standing::Command { .. }) {
            settings.offer(key, older, &value, Origin::Environment(name))?;
        }
    }
    Ok(())
}

fn by_name() -> BTreeMap<String, (Key, Option<&'static str>)> {
    let variables = Key::ALL
        .iter()
        .zip(ROWS)
        .flat_map(|(key, row)| row.variables().map(|(name, older)| (name, (*key, older))));
    variables.collect()
}

/// The same name with the other prefix.
fn other_family(name: &str) -> Option<String> {
    match name.strip_prefix("HOLDFAST_") {
        Some(rest) => Some(format!("ETCD_{rest}")),
        None => name
            .strip_prefix("ETCD_")
            .map(|rest| format!("HOLDFAST_{rest}")),
    }
}

/// Variables that etcd's own tests and packages set beside its settings (behaviour §4.1).
fn is_tolerated(name: &str) -> bool {
    matches!(name, "ETCD_UNSUPPORTED_ARCH" | "ETCD_VERIFY") || name.starts_with("ETCD_LOG")
}
