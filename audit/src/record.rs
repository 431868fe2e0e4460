//! What a record says.
//!
//! There is no place in it for values, passwords or tokens.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

/// Who makes a request, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Name of the tenant that the request is for.
    pub tenant: &'a str,
    /// The user's name, as far as it was proven; nobody if it was not.
    pub principal: Option<&'a str>,
    /// How the principal was proven.
    pub auth: AuthMethod,
    /// The other end of the connection; none for unix sockets.
    pub source: Option<SocketAddr>,
}

/// How a caller proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthMethod {
    /// Not at all.
    None,
    /// By a client certificate.
    Certificate,
    /// By a token of this cluster.
    Token,
    /// By a token of an external issuer.
    External,
}

impl AuthMethod {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Certificate => "certificate",
            Self::Token => "token",
            Self::External => "external",
        }
    }
}

/// A request, as it is known when it comes in.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When it came in (begin) or was answered (end).
    pub time: SystemTime,
    /// Number that ties the records of one request to each other and to the server's log.
    pub id: u64,
    /// Keys and ranges that it names: [`crate::Plan::keys`].
    pub keys: &'a crate::Keys,
    /// What it names besides keys: a user, a role, a lease, a member. Of longer text, the first 256 bytes are kept.
    pub object: Option<&'a str>,
    /// Size of the request message.
    pub request_bytes: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// What was answered.
    pub outcome: Outcome<'a>,
    /// Revision of the store in the answer, if it has one.
    pub revision: Option<i64>,
    /// From the request's arrival to its answer.
    pub duration: Duration,
}

/// What was answered. Of a longer reason, the first 256 bytes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The request was carried out.
    Ok,
    /// Refused because of who asked: not identified, or not permitted. (etcd has an `InvalidArgument` for callers without a name.)
    Denied {
        /// The status.
        code: Code,
        /// The status's message.
        reason: &'a str,
    },
    /// Refused or failed for any other reason.
    Failed {
        /// The status.
        code: Code,
        /// The status's message.
        reason: &'a str,
    },
}

impl Outcome<'_> {
    /// The class that rules speak of.
    pub fn class(&self) -> OutcomeClass {
        match self {
            Self::Ok => OutcomeClass::Ok,
            Self::Denied { .. } => OutcomeClass::Denied,
            Self::Failed { .. } => OutcomeClass::Failed,
        }
    }
}

/// Outcomes as rules and filters speak of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeClass {
    /// Carried out.
    Ok,
    /// Refused because of who asked.
    Denied,
    /// Refused or failed for any other reason.
    Failed,
}

impl OutcomeClass {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// A gRPC status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of the gRPC specification")]
pub enum Code {
    Ok,
    Canceled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Code {
    const ALL: [(Self, &'static str); 17] = [
        (Self::Ok, "OK"),
        (Self::Canceled, "Canceled"),
        (Self::Unknown, "Unknown"),
        (Self::InvalidArgument, "InvalidArgument"),
        (Self::DeadlineExceeded, "DeadlineExceeded"),
        (Self::NotFound, "NotFound"),
        (Self::AlreadyExists, "AlreadyExists"),
        (Self::PermissionDenied, "PermissionDenied"),
        (Self::ResourceExhausted, "ResourceExhausted"),
        (Self::FailedPrecondition, "FailedPrecondition"),
        (Self::Aborted, "Aborted"),
        (Self::OutOfRange, "OutOfRange"),
        (Self::Unimplemented, "Unimplemented"),
        (Self::Internal, "Internal"),
        (Self::Unavailable, "Unavailable"),
        (Self::DataLoss, "DataLoss"),
        (Self::Unauthenticated, "Unauthenticated"),
    ];

    /// The code of a number of the wire; `Unknown` for numbers that the specification does not have.
    pub fn from_number(number: i32) -> Self {
        usize::try_from(number)
            .ok()
            .and_then(|index| Self::ALL.get(index))
            .map_or(Self::Unknown, |(code, _)| *code)
    }

    /// As clients written in Go print it.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The code of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(code, _)| *code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_numbers_of_the_specification() {
        for (number, (code, name)) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, number);
            assert_eq!(Code::from_number(number as i32), code);
            assert_eq!(Code::from_name(name), Some(code));
        }
        assert_eq!(Code::from_number(17), Code::Unknown);
        assert_eq!(Code::from_number(-1), Code::Unknown);
    }
}
