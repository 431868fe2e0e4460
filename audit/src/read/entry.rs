//! A line as a reader wants it.

use std::{fmt, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, de::Error};

use crate::{KeySpan, text};

/// A line of the log: a request's, or one about the log itself. Headers, seals and checkpoints are none.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The file it stands in.
    pub file: Arc<Path>,
    /// The line without its end, as it is in the file. In a file that was tampered with it could hold anything: what cannot be printed is escaped.
    pub line: String,
    /// What sort of line it is.
    pub kind: Kind,
    /// RFC 3339, UTC.
    pub time: String,
    /// The node.
    pub node: Option<Text>,
    /// The tenant.
    pub tenant: Option<Text>,
    /// Who asked; none if nobody was identified.
    pub principal: Option<Text>,
    /// How that was proven.
    pub auth: Option<String>,
    /// Address and port of the caller.
    pub source: Option<String>,
    /// `KV/Put`.
    pub rpc: Option<Text>,
    /// `begin` or `end`.
    pub stage: Option<String>,
    /// Number of the request, 16 hexadecimal digits.
    pub id: Option<String>,
    /// Name of the status code.
    pub outcome: Option<String>,
    /// `ok`, `denied` or `failed`.
    pub class: Option<String>,
    /// The status's message.
    pub reason: Option<String>,
    /// Keys and ranges, as one or two ends.
    keys: Vec<Vec<Option<Text>>>,
}

/// Sorts of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request.
    Rpc,
    /// Something about the log: start, stop, rules, lost, resumed.
    Event,
    /// No line that this version writes: damaged, or cut off by a crash.
    Unknown,
}

/// A name or a key: bytes that are text as a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub Vec<u8>);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::new();
        text::name(&mut out, &self.0);
        f.write_str(&String::from_utf8_lossy(&out))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Plain(String),
            Base64 { b64: String },
        }
        match Written::deserialize(deserializer)? {
            Written::Plain(text) => Ok(Self(text.into_bytes())),
            Written::Base64 { b64 } => STANDARD.decode(b64).map(Self).map_err(D::Error::custom),
        }
    }
}

#[derive(Deserialize)]
struct Written {
    r#type: String,
    time: String,
    node: Option<Text>,
    tenant: Option<Text>,
    principal: Option<Text>,
    auth: Option<String>,
    source: Option<String>,
    rpc: Option<Text>,
    stage: Option<String>,
    id: Option<String>,
    outcome: Option<String>,
    class: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    keys: Vec<Vec<Option<Text>>>,
}

impl Entry {
    /// Reads a line without its end; none for those of the chain.
    pub(super) fn read(file: &Arc<Path>, line: &[u8]) -> Option<Self> {
        let chain = [
            br#"{"type":"seal","#.as_slice(),
            br#"{"type":"checkpoint","#,
            br#"{"type":"header","#,
        ];
        if chain.iter().any(|begin| line.starts_with(begin)) {
            return None;
        }
        let shown = printable(line);
        let Ok(written) = serde_json::from_slice::<Written>(line) else {
            return Some(Self::unknown(file, shown));
        };
        let kind = match written.r#type.as_str() {
            "rpc" => Kind::Rpc,
            "start" | "stop" | "rules" | "lost" | "resumed" => Kind::Event,
            _ => Kind::Unknown,
        };
        Some(Self {
            file: Arc::clone(file),
            line: shown,
            kind,
            time: written.time,
            node: written.node,
            tenant: written.tenant,
            principal: written.principal,
            auth: written.auth,
            source: written.source,
            rpc: written.rpc,
            stage: written.stage,
            id: written.id,
            outcome: written.outcome,
            class: written.class,
            reason: written.reason,
            keys: written.keys,
        })
    }

    fn unknown(file: &Arc<Path>, line: String) -> Self {
        Self {
            file: Arc::clone(file),
            line,
            kind: Kind::Unknown,
            time: String::new(),
            node: None,
            tenant: None,
            principal: None,
            auth: None,
            source: None,
            rpc: None,
            stage: None,
            id: None,
            outcome: None,
            class: None,
            reason: None,
            keys: Vec::new(),
        }
    }

    /// The keys and ranges that the record shows.
    pub fn keys(&self) -> impl Iterator<Item = KeySpan<'_>> {
        self.keys.iter().filter_map(|ends| match ends.as_slice() {
            [Some(key)] => Some(KeySpan::Point(&key.0)),
            [Some(start), Some(end)] => Some(KeySpan::Span(&start.0, &end.0)),
            [Some(start), None] => Some(KeySpan::From(&start.0)),
            _ => None,
        })
    }
}

fn printable(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    if line.chars().all(text::is_printable) {
        return line.into_owned();
    }
    line.chars()
        .flat_map(|character| {
            let escaped = (!text::is_printable(character)).then(|| character.escape_unicode());
            let plain = escaped.is_none().then_some(character);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}
