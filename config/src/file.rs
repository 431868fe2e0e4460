//! The configuration file: YAML or JSON, keys as the flags are called, TLS nested in two sections.

mod node;

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::ConfigError;
use crate::settings::{Origin, Settings};
use crate::spelling::nearest;
use crate::table::{Key, Kind, ROWS, Row};
use node::Node;

/// A configuration is a few KiB; a larger file is not one, and is not worth parsing.
const MAX_FILE_BYTES: usize = 1 << 20;

/// Offers every key of the file. A key without a value, or with an empty one, counts as not given.
pub(crate) fn apply(path: &Path, bytes: &[u8], settings: &mut Settings) -> Result<(), ConfigError> {
    let malformed = |reason: String| ConfigError::MalformedFile {
        path: path.to_owned(),
        reason,
    };
    if bytes.len() > MAX_FILE_BYTES {
        return Err(malformed(format!(
            "{} bytes are more than the {MAX_FILE_BYTES} that a configuration may have",
            bytes.len()
        )));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| malformed(error.to_string()))?;
    let entries = match Node::parse(text).map_err(malformed)? {
        Node::Null => Vec::new(),
        Node::Section(entries) => entries,
        Node::Scalar { .. } | Node::List(_) => {
            return Err(malformed("expected keys with values".to_owned()));
        }
    };
    let known = known_keys();
    let is_section = |name: &str| {
        known.keys().any(|key| {
            key.split_once('/')
                .is_some_and(|(section, _)| section == name)
        })
    };
    let mut flat = Vec::new();
    for (key, node) in entries {
        if !is_section(&key) {
            flat.push((key, node));
            continue;
        }
        match node {
            Node::Null => {}
            Node::Section(nested) => flat.extend(
                nested
                    .into_iter()
                    .map(|(inner, node)| (format!("{key}/{inner}"), node)),
            ),
            Node::Scalar { .. } | Node::List(_) => {
                return Err(malformed(format!(
                    "{key:?} must be a section of keys with values"
                )));
            }
        }
    }

    for (name, node) in flat {
        let Some((file_key, (key, older))) = known.get_key_value(name.as_str()) else {
            return Err(misplaced(&name).map_or_else(
                || ConfigError::UnknownKey {
                    path: path.to_owned(),
                    nearest: nearest(&name, known.keys().copied()).to_owned(),
                    key: name.clone(),
                },
                malformed,
            ));
        };
        let Some(value) =
            value(key.row(), node).map_err(|reason| malformed(format!("{name:?} {reason}")))?
        else {
            continue;
        };
        settings.offer(
            *key,
            *older,
            &value,
            Origin::File {
                path: path.to_owned(),
                key: file_key,
            },
        )?;
    }
    Ok(())
}

/// The value as it would be written on the command line.
fn value(row: &Row, node: Node) -> Result<Option<String>, &'static str> {
    let value = match (row.kind, node) {
        (_, Node::Null) => return Ok(None),
        // etcd's file holds durations as integer nanoseconds.
        (
            Kind::Time(..),
            Node::Scalar {
                text,
                is_integer: true,
            },
        ) => format!("{text}ns"),
        (_, Node::Scalar { text, .. }) => text,
        (
            Kind::List | Kind::ListenUrls | Kind::DialUrls | Kind::PeerListenUrls | Kind::PeerUrls,
            Node::List(items),
        ) => {
            let items: Option<Vec<_>> = items.into_iter().map(Node::into_scalar).collect();
            items.ok_or("must be a list of plain values")?.join(",")
        }
        (_, Node::List(_)) => return Err("takes one value, not a list"),
        (_, Node::Section(_)) => return Err("takes a value, not a section"),
    };
    Ok(Some(value).filter(|value| !value.is_empty()))
}

fn known_keys() -> BTreeMap<&'static str, (Key, Option<&'static str>)> {
    let keys = Key::ALL
        .iter()
        .zip(ROWS)
        .flat_map(|(key, row)| row.keys().map(|(name, older)| (name, (*key, older))));
    keys.collect()
}

/// What to say of a name that is a flag but not a key at this place.
fn misplaced(name: &str) -> Option<String> {
    let (key, _) = Key::by_flag(name)?;
    Some(
        match key
            .row()
            .file_keys
            .first()
            .and_then(|path| path.split_once('/'))
        {
            Some((section, inner)) => format!(
                "{name:?} is called {inner:?} here and belongs into the section {section:?}"
            ),
            None => format!("{name:?} is a flag of the command line and cannot stand in the file"),
        },
    )
}
