//! Which requests are recorded, with what, and how surely: an ordered list, of which the first rule that matches decides.

mod parse;

use std::{
    fmt,
    fs::File,
    io,
    io::Read,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;

use crate::{
    plan::Candidate,
    ranges::Wanted,
    record::{OutcomeClass, Subject},
};

/// More rules, or more patterns in one, are a mistake: each is looked at when a connection makes its first request of a kind.
const MAX_RULES: usize = 256;
const MAX_PATTERNS: usize = 64;
/// Each needs a bit.
const MAX_PREFIXES: usize = 64;
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing is recorded.
    None,
    /// Everything but keys.
    Metadata,
    /// Keys as HMACs under a secret of the node: equal keys can be recognised, and none guessed.
    KeysHashed,
    /// Keys as they are.
    Keys,
}

/// What becomes of a request whose record no sink takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// The record is lost, and counted.
    BestEffort,
    /// The request is refused.
    Strict,
}

/// An ordered list of rules, checked.
#[derive(Clone, Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    prefixes: Vec<Box<[u8]>>,
    /// SHA-256 of the text they were read from; none for the built-in ones.
    digest: Option<[u8; 32]>,
}

#[derive(Clone, Debug)]
struct Rule {
    /// Of each list, one must match; an empty list matches everything.
    rpcs: Vec<Pattern>,
    principals: Vec<Pattern>,
    tenants: Vec<Pattern>,
    outcome: Option<OutcomeClass>,
    /// Index into the prefixes.
    prefix: Option<usize>,
    level: Level,
    delivery: Delivery,
}

/// Exact text, or text that begins so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    Exact(Box<str>),
    Prefix(Box<str>),
}

impl Pattern {
    /// Text with a `*` at its end is a prefix.
    pub(crate) fn new(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.into()),
            None => Self::Exact(text.into()),
        }
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(expected) => **expected == *text,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
        }
    }
}

impl Default for Rules {
    /// Everything with metadata, best effort, but for what clients and monitors do by themselves all the time: keep-alives and health checks.
    fn default() -> Self {
        let rule = |rpcs: &[&str], level| Rule {
            rpcs: rpcs.iter().map(|rpc| Pattern::new(rpc)).collect(),
            principals: Vec::new(),
            tenants: Vec::new(),
            outcome: None,
            prefix: None,
            level,
            delivery: Delivery::BestEffort,
        };
        let quiet = rule(&["Lease/LeaseKeepAlive", "Health/*"], Level::None);
        // A refusal is worth a line even there.
        let refused = Rule {
            outcome: Some(OutcomeClass::Denied),
            level: Level::Metadata,
            ..quiet.clone()
        };
        Self {
            rules: vec![refused, quiet, rule(&[], Level::Metadata)],
            prefixes: Vec::new(),
            digest: None,
        }
    }
}

impl Rules {
    /// Reads rules from YAML or JSON (`docs/audit.md`, "Rules").
    ///
    /// # Errors
    ///
    /// The text is no YAML or JSON, has a field or value that rules do not have, has too many rules, or has one that cannot be kept.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let mut rules = parse::parse(text)?;
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        rules.digest = digest.as_ref().try_into().ok();
        Ok(rules)
    }

    /// Reads rules from a file.
    ///
    /// # Errors
    ///
    /// As [`Rules::parse`]; or the file cannot be read, or has more than 1 MiB.
    pub fn load(path: &Path) -> Result<Self, RulesError> {
        let read = || {
            let mut text = String::new();
            let file = File::open(path)?;
            file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
            if text.len() as u64 > MAX_FILE_BYTES {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "more than 1 MiB",
                ));
            }
            Ok(text)
        };
        let text = read().map_err(|source| RulesError::File {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    /// Patterns of RPCs that match nothing of `known` ("KV/Put", …): spelling mistakes, which would leave those calls unrecorded.
    pub fn unknown_rpcs(&self, known: &[&str]) -> Vec<String> {
        let all = self.rules.iter().flat_map(|rule| &rule.rpcs);
        all.filter(|pattern| !known.iter().any(|rpc| pattern.matches(rpc)))
            .map(Pattern::to_string)
            .collect()
    }

    /// Whether any rule refuses requests that are not recorded.
    pub fn has_strict(&self) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|rule| rule.delivery == Delivery::Strict)
    }

    pub(crate) fn digest(&self) -> Option<&[u8; 32]> {
        self.digest.as_ref()
    }

    /// The rules that can decide about a call, in order, and what they want of its keys.
    pub(crate) fn candidates(&self, subject: &Subject<'_>, rpc: &str) -> (Vec<Candidate>, Wanted) {
        // Names cannot be empty, so that the empty pattern can mean "nobody".
        let principal = subject.principal.unwrap_or("");
        let any = |patterns: &[Pattern], text: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(text))
        };
        let mut candidates = Vec::new();
        let mut wanted = Wanted::default();
        for rule in &self.rules {
            if !any(&rule.rpcs, rpc)
                || !any(&rule.principals, principal)
                || !any(&rule.tenants, subject.tenant)
            {
                continue;
            }
            let prefix = rule.prefix.and_then(|index| {
                let bit = 1_u64.checked_shl(u32::try_from(index).ok()?)?;
                Some((bit, self.prefixes.get(index)?.clone()))
            });
            let candidate = Candidate {
                outcome: rule.outcome,
                prefix: prefix.as_ref().map(|(bit, _)| *bit),
                level: rule.level,
                delivery: rule.delivery,
            };
            wanted.prefixes.extend(prefix);
            wanted.plain |= rule.level == Level::Keys;
            wanted.hashed |= rule.level == Level::KeysHashed;
            candidates.push(candidate);
            if candidate.is_unconditional() {
                break;
            }
        }
        if candidates.iter().all(|found| found.level == Level::None) {
            candidates.clear();
        }
        (candidates, wanted)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "{text}"),
            Self::Prefix(text) => write!(f, "{text}*"),
        }
    }
}

/// Why rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The file cannot be read.
    #[error("audit rules {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The text is not what rules look like; the message has the place.
    #[error("audit rules: {0}")]
    Text(String),
    /// One rule cannot be kept.
    #[error("audit rules: rule {number}: {reason}")]
    Rule {
        /// Its place in the list, from 1 on.
        number: usize,
        /// What is wrong.
        reason: String,
    },
}
