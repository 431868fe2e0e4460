//! What requests are answered with, in domain terms.

use crate::membership::Membership;
use holdfast_auth::{AuthError, Denied};
use holdfast_storage::Row;
use std::sync::Arc;

/// The answer to a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeAnswer {
    /// The store's revision when the range was read.
    pub revision: i64,
    /// The key-values. Without their values and leases when only keys were asked for.
    pub rows: Vec<Row>,
    /// Whether the limit cut some off.
    pub more: bool,
    /// Keys in the interval, whatever the limit and the filters.
    pub count: u64,
}

/// The answer to a put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutAnswer {
    /// The revision that wrote it.
    pub revision: i64,
    /// What was there before, when asked for.
    pub previous: Option<Row>,
}

/// The answer to a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteAnswer {
    /// The store's revision after it.
    pub revision: i64,
    /// How many keys were deleted.
    pub deleted: u64,
    /// What was deleted, in key order, when asked for.
    pub previous: Vec<Row>,
}

/// The answer to a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnAnswer {
    /// The store's revision after it.
    pub revision: i64,
    /// Which arm was taken.
    pub succeeded: bool,
    /// One answer for each step of that arm.
    pub steps: Vec<StepAnswer>,
}

/// The answer to a step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepAnswer {
    /// To a range.
    Range(RangeAnswer),
    /// To a put.
    Put(PutAnswer),
    /// To a delete.
    Delete(DeleteAnswer),
    /// To a nested transaction.
    Txn(TxnAnswer),
}

/// Which resource an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlarmKind {
    /// The quota is used up.
    NoSpace,
    /// Members disagree.
    Corrupt,
}

/// An alarm that is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alarm {
    /// The member that raised it.
    pub member: u64,
    /// What about.
    pub kind: AlarmKind,
}

/// What an applied command answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a put.
    Put(PutAnswer),
    /// To a delete.
    Delete(DeleteAnswer),
    /// To a transaction.
    Txn(TxnAnswer),
    /// To a compaction: the store's revision.
    Compacted {
        /// The store's current revision.
        revision: i64,
    },
    /// To a lease grant.
    LeaseGranted {
        /// The lease's id.
        id: i64,
        /// The granted time, seconds.
        ttl: i64,
        /// The store's current revision.
        revision: i64,
    },
    /// To a lease revoke.
    LeaseRevoked {
        /// The store's revision after its keys were deleted.
        revision: i64,
    },
    /// To a lease checkpoint, a change of users and roles, a token key, or to an alarm's change: the alarms that the command changed.
    Done {
        /// Alarms that were raised or cleared.
        alarms: Vec<Alarm>,
        /// The store's current revision.
        revision: i64,
    },
    /// To a change of the membership: the membership after it.
    Members(Arc<Membership>),
}

/// Why a request was refused. The texts are etcd's; its clients match them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No key was given.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// `keep_value` or `keep_lease` on a missing key, or an empty step.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// A value was given with `keep_value`.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// A lease was given with `keep_lease`.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// A transaction is longer than `max-txn-ops`.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// A transaction changes a key twice.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// An unknown sort order or target.
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// An enum value or a oneof that the API does not define.
    #[error("etcdserver: invalid request: {0}")]
    Malformed(&'static str),
    /// The revision was compacted.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The revision does not exist yet.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// The quota is used up.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// Members disagree on the data.
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
    /// No such lease.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// The id is taken.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// More time than a lease may have.
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    /// The tenant holds as many leases as it may.
    #[error("etcdserver: too many requests")]
    TooManyLeases,
    /// The tenant has as many alarms raised as it may.
    #[error("etcdserver: too many requests")]
    TooManyAlarms,
    /// As many token keys are in use as are remembered.
    #[error("etcdserver: too many requests")]
    TooManyTokenKeys,
    /// The id is a member's.
    #[error("etcdserver: member ID already exist")]
    MemberExists,
    /// Another member has one of the peer URLs.
    #[error("etcdserver: Peer URLs already exists")]
    PeerUrlExists,
    /// No member has the id, or one had it that was removed.
    #[error("etcdserver: member not found")]
    MemberNotFound,
    /// No peer URLs were given, too many, or impossible ones.
    #[error("etcdserver: given member URLs are invalid")]
    MemberUrlsInvalid,
    /// Who is to be promoted votes already.
    #[error("etcdserver: can only promote a learner member")]
    NotLearner,
    /// Who is to be promoted lacks too much of the log. Only the leader can tell; applying never refuses for it.
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    /// As many learners as there may be.
    #[error("etcdserver: too many learner members in cluster")]
    TooManyLearners,
    /// The last voter is not removed; with strict checks, nor is one without whom no majority has started.
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// Members are not connected, of whom a change would need more. Only the leader can tell; applying never refuses for it.
    #[error("etcdserver: unhealthy cluster")]
    UnhealthyCluster,
    /// As many members as there may be, or as many ids as are remembered.
    #[error("etcdserver: too many requests")]
    TooManyMembers,
    /// The member runs on another data directory than the one that it first published.
    #[error("etcdserver: the member lost its data directory; remove it and add it again")]
    MemberInstance,
    /// The caller may not do this.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// A rule of users and roles forbids it.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The rows could not be read back.
    #[error("etcdserver: storage: {0}")]
    Storage(String),
}
