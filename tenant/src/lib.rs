//! The replicated state machine: commands from the log become one virtual etcd per tenant.
//!
//! This crate must not know about wire types, the network, TLS or raft. It takes time as a parameter and does no IO of its own:
//! rows go to the store, which it is given.

mod answer;
mod command;
mod hash;
mod machine;
mod read;
pub mod request;
mod state;
mod txn;
mod validate;
pub mod watch;

pub use answer::{
    Alarm, AlarmKind, Answer, DeleteAnswer, PutAnswer, RangeAnswer, Refusal, StepAnswer, TxnAnswer,
};
pub use command::{Command, DecodeError, MAX_TXN_DEPTH};
pub use hash::KvHash;
pub use machine::{ApplyError, Machine, MachineOptions, Outcome, RestoreError};
pub use state::{LEASE_COST_BYTES, ROW_OVERHEAD_BYTES, Tenant, Tenants, put_cost, txn_cost};
pub use validate::{validate_put, validate_txn};
