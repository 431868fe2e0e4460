//! The raft driver: proposals in, committed commands out. The only crate that names raft.
//!
//! A [`Core`] is one member of one raft group as a synchronous, deterministic value: time comes in as ticks, files through
//! [`holdfast_storage::disk::Disk`], and one thread with a seed can run a whole cluster of them. A [`Group`] shares a core between
//! the threads that submit commands and a thread of its own; nothing in here is a process-wide singleton.
//!
//! This crate must not know what a command means, who sent it, or how answers travel.

mod conf_state;
mod core;
mod failure;
mod group;
mod log_storage;
mod machine;
mod message;
mod proposals;
mod raft_logger;
mod reads;
mod sense;
mod snapshots;
mod status;

pub use crate::core::{Completed, Core, CoreOptions, Io, Outbox, founding_voters};
pub use failure::{CoreError, Failure};
pub use group::{Completions, Group, GroupOptions, Peers, Submission, Ticket};
pub use machine::{Done, MemberChange, Members, Observer, Outgoing, Progress, StateMachine};
pub use message::MessageFault;
pub use status::Status;
