//! Errors as clients know them: etcd's codes and texts (behaviour §2). Clients match the text.

use crate::node::ProposeError;
use holdfast_auth::Denied;
use holdfast_consensus::Failure;
use holdfast_tenant::Refusal;
use tonic::{Code, Status};

pub(super) fn refused(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::EmptyKey
        | Refusal::KeyNotFound
        | Refusal::ValueProvided
        | Refusal::LeaseProvided
        | Refusal::TooManyOps
        | Refusal::DuplicateKey
        | Refusal::InvalidSortOption
        | Refusal::Malformed(_) => Code::InvalidArgument,
        Refusal::Compacted | Refusal::FutureRevision | Refusal::LeaseTtlTooLarge => {
            Code::OutOfRange
        }
        Refusal::NoSpace | Refusal::TooManyLeases | Refusal::TooManyAlarms => {
            Code::ResourceExhausted
        }
        Refusal::Corrupt => Code::DataLoss,
        Refusal::LeaseNotFound => Code::NotFound,
        Refusal::LeaseExists => Code::FailedPrecondition,
        Refusal::Storage(_) => Code::Internal,
    };
    Status::new(code, refusal.to_string())
}

pub(super) fn failed(failure: Failure) -> Status {
    let code = match failure {
        Failure::Overloaded | Failure::DiskFull => Code::ResourceExhausted,
        Failure::NoLeader | Failure::LeaderChanged | Failure::Stopped => Code::Unavailable,
    };
    Status::new(code, failure.to_string())
}

pub(super) fn denied(denied: Denied) -> Status {
    let code = match denied {
        Denied::NoPolicy => Code::PermissionDenied,
        Denied::Unidentified => Code::InvalidArgument,
    };
    Status::new(code, denied.to_string())
}

pub(super) fn unanswered(error: ProposeError) -> Status {
    match error {
        ProposeError::Failure(failure) => failed(failure),
        ProposeError::TimedOut => Status::unavailable("etcdserver: request timed out"),
        ProposeError::Refused(refusal) => refused(&refusal),
        ProposeError::TooLarge => too_large(),
    }
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
