//! Errors as clients know them: etcd's codes and texts (behaviour §2). Clients match the text.

use crate::cluster::Trouble;
use crate::node::{Node, ProposeError};
use holdfast_auth::{AuthError, Denied};
use holdfast_consensus::Failure;
use holdfast_tenant::Refusal;
use tonic::{Code, Status};

pub(super) fn refused(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::Denied(reason) => return denied(*reason),
        Refusal::Auth(error) => auth_code(error),
        Refusal::EmptyKey
        | Refusal::KeyNotFound
        | Refusal::ValueProvided
        | Refusal::LeaseProvided
        | Refusal::TooManyOps
        | Refusal::DuplicateKey
        | Refusal::InvalidSortOption
        | Refusal::MemberUrlsInvalid
        | Refusal::Malformed(_) => Code::InvalidArgument,
        Refusal::Compacted | Refusal::FutureRevision | Refusal::LeaseTtlTooLarge => {
            Code::OutOfRange
        }
        Refusal::NoSpace
        | Refusal::TooManyLeases
        | Refusal::TooManyAlarms
        | Refusal::TooManyTokenKeys
        | Refusal::TooManyMembers => Code::ResourceExhausted,
        Refusal::Corrupt => Code::DataLoss,
        Refusal::LeaseNotFound | Refusal::MemberNotFound => Code::NotFound,
        Refusal::LeaseExists
        | Refusal::MemberExists
        | Refusal::PeerUrlExists
        | Refusal::NotLearner
        | Refusal::LearnerNotReady
        | Refusal::TooManyLearners
        | Refusal::NotEnoughStarted
        | Refusal::MemberInstance => Code::FailedPrecondition,
        Refusal::UnhealthyCluster => Code::Unavailable,
        Refusal::Storage(_) => Code::Internal,
    };
    Status::new(code, refusal.to_string())
}

pub(super) fn failed(failure: Failure) -> Status {
    let code = match failure {
        Failure::Overloaded | Failure::ChangePending | Failure::DiskFull => Code::ResourceExhausted,
        Failure::NotLeader => Code::FailedPrecondition,
        Failure::NoLeader | Failure::LeaderChanged | Failure::ConnectionLost | Failure::Stopped => {
            Code::Unavailable
        }
    };
    Status::new(code, failure.to_string())
}

/// The code of a refused change of users and roles (behaviour §2).
fn auth_code(error: &AuthError) -> Code {
    match error {
        AuthError::UserNameEmpty
        | AuthError::RoleNameEmpty
        | AuthError::PermissionNotGiven
        | AuthError::InvalidManagement
        | AuthError::LoginFailed
        | AuthError::NameTooLong
        | AuthError::BadName => Code::InvalidArgument,
        AuthError::NoRootUser
        | AuthError::RootWithoutRootRole
        | AuthError::UserExists
        | AuthError::UserNotFound
        | AuthError::RoleExists
        | AuthError::RoleNotFound
        | AuthError::RoleNotGranted
        | AuthError::PermissionNotGranted
        | AuthError::NotEnabled => Code::FailedPrecondition,
        AuthError::TooMany(_) => Code::ResourceExhausted,
    }
}

/// The status of a denied request, with etcd's codes (behaviour §2).
pub(super) fn denied(denied: Denied) -> Status {
    let code = match denied {
        Denied::NoPolicy | Denied::NotPermitted | Denied::Disagree => Code::PermissionDenied,
        Denied::Unidentified => Code::InvalidArgument,
        Denied::InvalidToken => Code::Unauthenticated,
    };
    Status::new(code, denied.to_string())
}

/// A strict rule's record was not taken, so the request was not carried out.
pub(super) fn audit_unavailable() -> Status {
    Status::unavailable("etcdserver: the audit log does not take the request's record")
}

/// Whether the member that was asked says that it does not lead: nothing was done.
pub(crate) fn is_not_leader(status: &Status) -> bool {
    let not_leader = failed(Failure::NotLeader);
    status.code() == not_leader.code() && status.message() == not_leader.message()
}

/// Why a request has no answer, as the client is told it.
pub(crate) fn unanswered(node: &Node, error: ProposeError) -> Status {
    match error {
        // It has waited for a leader as long as a request may.
        ProposeError::Failure(Failure::NoLeader) => timed_out(Trouble::LeaderLost),
        // Others go on. The code sends clients to them, and says of a write that nobody knows whether they have it.
        ProposeError::Failure(Failure::DiskFull) if node.tenants.members().len() > 1 => {
            Status::unavailable(Failure::DiskFull.to_string())
        }
        ProposeError::Failure(failure) => failed(failure),
        ProposeError::TimedOut => timed_out(node.trouble()),
        ProposeError::Refused(refusal) => refused(&refusal),
        ProposeError::TooLarge => too_large(),
    }
}

/// A request that had no answer in time.
pub(super) fn timed_out(trouble: Trouble) -> Status {
    Status::unavailable(match trouble {
        Trouble::None => "etcdserver: request timed out",
        Trouble::LeaderLost => {
            "etcdserver: request timed out, possibly due to previous leader failure"
        }
        Trouble::ConnectionLost => "etcdserver: request timed out, possibly due to connection lost",
    })
}

/// What a learner does not serve.
pub(super) fn not_for_learners() -> Status {
    Status::failed_precondition("etcdserver: rpc not supported for learner")
}

pub(super) fn too_large() -> Status {
    Status::invalid_argument("etcdserver: request is too large")
}

/// tonic reports a message beyond the limit in its own words and as OutOfRange; clients know grpc-go's.
pub(crate) fn message_too_large(text: &str) -> Option<Status> {
    let mut numbers = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty());
    if !text.contains("decoded message length too large") {
        return None;
    }
    let (found, limit) = (numbers.next()?, numbers.next()?);
    Some(Status::resource_exhausted(format!(
        "grpc: received message larger than max ({found} vs. {limit})"
    )))
}
