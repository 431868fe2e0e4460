//! What the rules can ask for, worked out once for a caller and an RPC.

use std::{fmt, sync::Arc};

use aws_lc_rs::hmac;

use crate::{
    Delivery, KeySpan, Keys, Level,
    ranges::Wanted,
    record::{OutcomeClass, Subject},
    rules::Rules,
    text,
};

/// What is recorded of one caller's requests of one RPC. To be cached while [`crate::Auditor::generation`] is [`Plan::generation`].
#[derive(Clone)]
pub struct Plan {
    generation: u64,
    /// None: nothing.
    planned: Option<Arc<Planned>>,
}

struct Planned {
    /// The fields that are the same in all these records, rendered.
    fixed: Box<[u8]>,
    candidates: Box<[Candidate]>,
    wanted: Wanted,
    hash_key: hmac::Key,
}

/// A rule that matches the caller and the RPC, with the conditions that are still open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) outcome: Option<OutcomeClass>,
    /// Bit of the key prefix.
    pub(crate) prefix: Option<u64>,
    pub(crate) level: Level,
    pub(crate) delivery: Delivery,
}

impl Candidate {
    pub(crate) fn is_unconditional(&self) -> bool {
        self.outcome.is_none() && self.prefix.is_none()
    }

    fn matches_keys(&self, keys: &Keys) -> bool {
        self.prefix.is_none_or(|bit| keys.prefixes() & bit != 0)
    }
}

impl Plan {
    pub(crate) fn silent(generation: u64) -> Self {
        Self {
            generation,
            planned: None,
        }
    }

    /// `fixed` are the fields that every record of this node has.
    pub(crate) fn new(
        rules: &Rules,
        generation: u64,
        fixed: &[u8],
        hash_key: &hmac::Key,
        subject: &Subject<'_>,
        rpc: &str,
    ) -> Self {
        let (candidates, wanted) = rules.candidates(subject, rpc);
        if candidates.is_empty() {
            return Self::silent(generation);
        }
        let planned = Planned {
            fixed: render(fixed, subject, rpc),
            candidates: candidates.into(),
            wanted,
            hash_key: hash_key.clone(),
        };
        Self {
            generation,
            planned: Some(Arc::new(planned)),
        }
    }

    /// Nothing can come to be recorded.
    pub fn is_silent(&self) -> bool {
        self.planned.is_none()
    }

    /// Whether [`Plan::keys`] has anything to do; else [`Keys::none`] serves.
    pub fn wants_keys(&self) -> bool {
        let planned = self.planned.as_ref();
        planned.is_some_and(|planned| planned.wanted.is_anything())
    }

    /// What the rules want of a request's keys: bounded, and independent of the request.
    pub fn keys<'k>(&self, ranges: impl IntoIterator<Item = KeySpan<'k>>) -> Keys {
        match &self.planned {
            Some(planned) if planned.wanted.is_anything() => {
                Keys::render(&planned.wanted, &planned.hash_key, ranges)
            }
            _ => Keys::none(),
        }
    }

    /// Whether a sink must have taken a record of the request before it is carried out: [`crate::Writer::begin`].
    pub fn is_strict(&self, keys: &Keys) -> bool {
        self.at_begin(keys).is_some()
    }

    /// The generation of the rules that the plan was made from.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn fixed(&self) -> &[u8] {
        self.planned.as_ref().map_or(&[], |planned| &planned.fixed)
    }

    /// The level of a begin record, if there is to be one. Rules with an outcome cannot be strict, so they are passed over.
    pub(crate) fn at_begin(&self, keys: &Keys) -> Option<Level> {
        let candidates = &self.planned.as_ref()?.candidates;
        let deciding = candidates
            .iter()
            .find(|rule| rule.outcome.is_none() && rule.matches_keys(keys))?;
        (deciding.delivery == Delivery::Strict).then_some(deciding.level)
    }

    /// The level and delivery of an end record, if there is to be one.
    pub(crate) fn at_end(&self, keys: &Keys, class: OutcomeClass) -> Option<(Level, Delivery)> {
        let candidates = &self.planned.as_ref()?.candidates;
        let deciding = candidates.iter().find(|rule| {
            rule.outcome.is_none_or(|expected| expected == class) && rule.matches_keys(keys)
        })?;
        (deciding.level != Level::None).then_some((deciding.level, deciding.delivery))
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("generation", &self.generation)
            .field("is_silent", &self.is_silent())
            .finish_non_exhaustive()
    }
}

fn render(fixed: &[u8], subject: &Subject<'_>, rpc: &str) -> Box<[u8]> {
    let mut out = fixed.to_vec();
    out.extend_from_slice(br#","tenant":"#);
    text::name(&mut out, subject.tenant.as_bytes());
    out.extend_from_slice(br#","principal":"#);
    match subject.principal {
        Some(principal) => text::name(&mut out, principal.as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(br#","auth":""#);
    out.extend_from_slice(subject.auth.name().as_bytes());
    out.extend_from_slice(br#"","source":"#);
    match subject.source {
        Some(source) => {
            out.extend_from_slice(format!("\"{source}\"").as_bytes());
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(br#","rpc":"#);
    text::name(&mut out, rpc.as_bytes());
    out.into()
}
