//! Searching.

use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use super::{Entry, Kind, ReadError, Text};
use crate::{
    Code,
    lines::{Lines, Shape},
    record::OutcomeClass,
    rules::Pattern,
};

/// What to look for; everything that is given must hold. Without anything, all requests.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Who asked.
    pub principal: Option<NamePattern>,
    /// What was called: `KV/Put`, `KV/*`.
    pub rpc: Option<NamePattern>,
    /// Whose data.
    pub tenant: Option<NamePattern>,
    /// How it ended. Begin records have no outcome, and match none.
    pub outcome: Option<OutcomeFilter>,
    /// A range of the request has keys that begin so. Records without keys, or with hashed ones, do not match.
    pub key_prefix: Option<Vec<u8>>,
    /// Not before.
    pub since: Option<TimePrefix>,
    /// Not after.
    pub until: Option<TimePrefix>,
}

impl Filter {
    /// Whether an entry is a request that is looked for.
    pub fn matches(&self, entry: &Entry) -> bool {
        let named = |pattern: &Option<NamePattern>, name: &Option<Text>| match pattern {
            None => true,
            Some(pattern) => pattern.matches(name.as_ref()),
        };
        entry.kind == Kind::Rpc
            && named(&self.principal, &entry.principal)
            && named(&self.rpc, &entry.rpc)
            && named(&self.tenant, &entry.tenant)
            && match self.outcome {
                None => true,
                Some(OutcomeFilter::Class(class)) => entry.class.as_deref() == Some(class.name()),
                Some(OutcomeFilter::Code(code)) => entry.outcome.as_deref() == Some(code.name()),
            }
            && match &self.key_prefix {
                None => true,
                Some(prefix) => entry.keys().any(|span| span.touches(prefix)),
            }
            && self
                .since
                .as_ref()
                .is_none_or(|since| entry.time.as_str() >= since.0.as_str())
            && self.until.as_ref().is_none_or(|until| {
                entry.time.as_str() <= until.0.as_str() || entry.time.starts_with(&until.0)
            })
    }
}

/// A name, or with a `*` at its end what names begin with. The empty name is for what has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(Pattern);

impl NamePattern {
    fn matches(&self, name: Option<&Text>) -> bool {
        match name {
            None => self.0.matches(""),
            Some(Text(bytes)) => std::str::from_utf8(bytes).is_ok_and(|text| self.0.matches(text)),
        }
    }
}

impl From<&str> for NamePattern {
    fn from(text: &str) -> Self {
        Self(Pattern::new(text))
    }
}

/// A class of outcomes or one status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeFilter {
    /// `ok`, `denied`, `failed`.
    Class(OutcomeClass),
    /// `PermissionDenied`, …
    Code(Code),
}

impl FromStr for OutcomeFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let classes = [OutcomeClass::Ok, OutcomeClass::Denied, OutcomeClass::Failed];
        if let Some(class) = classes.into_iter().find(|class| class.name() == text) {
            return Ok(Self::Class(class));
        }
        Code::from_name(text)
            .map(Self::Code)
            .ok_or(FilterError::Outcome)
    }
}

/// A time in UTC, or the beginning of one: `2026-11`, `2026-11-20T10`, `2026-11-20T10:15:00.5`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimePrefix(String);

impl FromStr for TimePrefix {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd.ddddddZ";
        // A time without a fraction is that second.
        let text = match text.strip_suffix('Z') {
            Some(short) if text.len() < SHAPE.len() => short,
            _ => text,
        };
        let fits = |(byte, expected): (u8, &u8)| match expected {
            b'd' => byte.is_ascii_digit(),
            _ => byte == *expected,
        };
        if (4..=SHAPE.len()).contains(&text.len()) && text.bytes().zip(SHAPE).all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(FilterError::Time)
        }
    }
}

impl fmt::Display for TimePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Neither a class nor a code.
    #[error(
        "an outcome is ok, denied, failed, or the name of a gRPC code such as PermissionDenied"
    )]
    Outcome,
    /// Not the beginning of a time.
    #[error("a time is 2026-11-20T10:15:00Z (UTC), or the beginning of one")]
    Time,
}

/// All requests in files that a filter matches.
pub fn grep(files: &[PathBuf], filter: Filter) -> Grep {
    Grep {
        files: files.iter().cloned().collect(),
        filter,
        open: None,
    }
}

/// The iterator of [`grep`]. After an error it goes on with the next file.
pub struct Grep {
    files: VecDeque<PathBuf>,
    filter: Filter,
    open: Option<(Arc<Path>, Lines<File>)>,
}

impl Iterator for Grep {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((path, lines)) = &mut self.open else {
                let path = self.files.pop_front()?;
                match super::open(&path) {
                    Ok(file) => self.open = Some((path.into(), Lines::new(file, 0))),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            match lines.next() {
                Ok(None) => self.open = None,
                Ok(Some(line)) if line.shape != Shape::Whole => {}
                Ok(Some(line)) => {
                    let text = line.bytes.strip_suffix(b"\n").unwrap_or(line.bytes);
                    if let Some(entry) = Entry::read(path, text)
                        && self.filter.matches(&entry)
                    {
                        return Some(Ok(entry));
                    }
                }
                Err(source) => {
                    let path = path.to_path_buf();
                    self.open = None;
                    return Some(Err(ReadError { path, source }));
                }
            }
        }
    }
}
