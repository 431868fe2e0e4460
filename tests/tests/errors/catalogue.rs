//! The catalogue of errors (behaviour §2).

use tonic::Code;

/// A row of the catalogue and what becomes of it here.
pub(crate) struct Row {
    pub(crate) code: Code,
    pub(crate) text: &'static str,
    pub(crate) how: How,
}

pub(crate) enum How {
    /// A case of the test produces it.
    Here,
    /// A sole healthy node never says it: it needs other members (`cluster_members.rs`, `cluster_errors.rs`), a lost leader, an overload, a
    /// stop in mid-call. Tokens here are of a state of
    /// their user and never of the whole, so that the revision of the auth store is never old.
    NotAlone,
}

use How::{Here, NotAlone};

const fn row(code: Code, text: &'static str, how: How) -> Row {
    Row { code, text, how }
}

/// Every row, in the order of the reference; texts are without the prefix `etcdserver: `.
pub(crate) const CATALOGUE: &[Row] = &[
    row(Code::InvalidArgument, "key is not provided", Here),
    row(Code::InvalidArgument, "key not found", Here),
    row(Code::InvalidArgument, "value is provided", Here),
    row(Code::InvalidArgument, "lease is provided", Here),
    row(
        Code::InvalidArgument,
        "too many operations in txn request",
        Here,
    ),
    row(
        Code::InvalidArgument,
        "duplicate key given in txn request",
        Here,
    ),
    row(Code::InvalidArgument, "invalid client api version", Here),
    row(Code::InvalidArgument, "invalid sort option", Here),
    row(
        Code::InvalidArgument,
        "given member URLs are invalid",
        NotAlone,
    ),
    row(Code::InvalidArgument, "request is too large", Here),
    row(Code::InvalidArgument, "user name is empty", Here),
    row(Code::InvalidArgument, "role name is empty", Here),
    row(
        Code::InvalidArgument,
        "authentication failed, invalid user ID or password",
        Here,
    ),
    row(Code::InvalidArgument, "permission not given", Here),
    row(Code::InvalidArgument, "invalid auth management", Here),
    row(
        Code::InvalidArgument,
        "revision of auth store is old",
        NotAlone,
    ),
    row(
        Code::InvalidArgument,
        "wrong downgrade target version format",
        Here,
    ),
    row(
        Code::InvalidArgument,
        "invalid downgrade target version",
        Here,
    ),
    row(
        Code::OutOfRange,
        "mvcc: required revision has been compacted",
        Here,
    ),
    row(
        Code::OutOfRange,
        "mvcc: required revision is a future revision",
        Here,
    ),
    row(Code::OutOfRange, "too large lease TTL", Here),
    row(
        Code::ResourceExhausted,
        "mvcc: database space exceeded",
        Here,
    ),
    row(Code::ResourceExhausted, "too many requests", NotAlone),
    row(Code::NotFound, "requested lease not found", Here),
    row(Code::NotFound, "member not found", NotAlone),
    row(Code::FailedPrecondition, "lease already exists", Here),
    row(
        Code::FailedPrecondition,
        "member ID already exist",
        NotAlone,
    ),
    row(
        Code::FailedPrecondition,
        "Peer URLs already exists",
        NotAlone,
    ),
    row(
        Code::FailedPrecondition,
        "re-configuration failed due to not enough started members",
        NotAlone,
    ),
    row(
        Code::FailedPrecondition,
        "can only promote a learner member",
        NotAlone,
    ),
    row(
        Code::FailedPrecondition,
        "can only promote a learner member which is in sync with leader",
        NotAlone,
    ),
    row(
        Code::FailedPrecondition,
        "too many learner members in cluster",
        NotAlone,
    ),
    row(Code::FailedPrecondition, "cluster ID mismatch", NotAlone),
    row(Code::FailedPrecondition, "root user does not exist", Here),
    row(
        Code::FailedPrecondition,
        "root user does not have root role",
        Here,
    ),
    row(Code::FailedPrecondition, "user name already exists", Here),
    row(Code::FailedPrecondition, "user name not found", Here),
    row(Code::FailedPrecondition, "role name already exists", Here),
    row(Code::FailedPrecondition, "role name not found", Here),
    row(
        Code::FailedPrecondition,
        "role is not granted to the user",
        Here,
    ),
    row(
        Code::FailedPrecondition,
        "permission is not granted to the role",
        Here,
    ),
    row(
        Code::FailedPrecondition,
        "authentication is not enabled",
        Here,
    ),
    row(Code::FailedPrecondition, "not leader", NotAlone),
    row(Code::FailedPrecondition, "not capable", NotAlone),
    row(
        Code::FailedPrecondition,
        "rpc not supported for learner",
        NotAlone,
    ),
    row(Code::FailedPrecondition, "bad leader transferee", Here),
    row(
        Code::FailedPrecondition,
        "cluster version not found during downgrade",
        NotAlone,
    ),
    row(
        Code::FailedPrecondition,
        "cluster has a downgrade job in progress",
        NotAlone,
    ),
    row(
        Code::FailedPrecondition,
        "no inflight downgrade job",
        NotAlone,
    ),
    row(Code::Cancelled, "watch canceled", NotAlone),
    row(Code::Cancelled, "request canceled", NotAlone),
    row(
        Code::DeadlineExceeded,
        "context deadline exceeded",
        NotAlone,
    ),
    row(Code::PermissionDenied, "permission denied", Here),
    row(Code::Unauthenticated, "invalid auth token", Here),
    row(Code::Unavailable, "no leader", NotAlone),
    row(Code::Unavailable, "leader changed", NotAlone),
    row(Code::Unavailable, "server stopped", NotAlone),
    row(Code::Unavailable, "request timed out", NotAlone),
    row(
        Code::Unavailable,
        "request timed out, possibly due to previous leader failure",
        NotAlone,
    ),
    row(
        Code::Unavailable,
        "request timed out, possibly due to connection lost",
        NotAlone,
    ),
    row(
        Code::Unavailable,
        "request timed out, waiting for the applied index took too long",
        NotAlone,
    ),
    row(Code::Unavailable, "unhealthy cluster", NotAlone),
    row(Code::DataLoss, "corrupt cluster", Here),
];
