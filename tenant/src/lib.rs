//! The replicated state machine: commands from the log become one virtual etcd per tenant.
//!
//! This crate must not know about wire types, the network, TLS or raft. It takes time as a parameter and does no IO of its own:
//! rows go to the store, which it is given. A command names its caller, and is refused where it stands in the log if the caller may
//! not do it there.

mod answer;
mod command;
mod committed;
mod hash;
mod lease_rules;
mod machine;
mod membership;
mod read;
pub mod request;
mod state;
mod token_key;
mod txn;
mod validate;
pub mod watch;

pub use answer::{
    Alarm, AlarmKind, Answer, DeleteAnswer, PutAnswer, RangeAnswer, Refusal, StepAnswer, TxnAnswer,
};
pub use command::{
    Command, DecodeError, MAX_TXN_DEPTH, SUBJECT_BYTES_MAX, caller_bytes, caller_of_bytes,
};
pub use hash::KvHash;
pub use lease_rules::{LeaseLife, LeaseUse};
pub use machine::{
    ApplyError, IncomingState, InstallFault, Machine, MachineOptions, Outcome, RestoreError,
};
pub use membership::{
    MEMBER_IDS_MAX, MEMBER_LEVEL, MEMBER_NAME_BYTES_MAX, MEMBER_URL_BYTES_MAX, MEMBER_URLS_MAX,
    MEMBER_VERSION_BYTES_MAX, MEMBERS_MAX, Member, MemberVersion, Membership, MembershipFault,
};
pub use state::{LEASE_COST_BYTES, ROW_OVERHEAD_BYTES, Tenant, Tenants, put_cost, txn_cost};
pub use token_key::{KID_BYTES_MAX, TokenKeyRecord};
pub use validate::{validate_put, validate_txn};
