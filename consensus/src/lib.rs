//! The raft driver: proposals in, committed commands out. The only crate that names raft.
//!
//! A [`Core`] is one member of one raft group as a synchronous, deterministic value: time comes in as ticks, files through
//! [`holdfast_storage::disk::Disk`], and one thread with a seed can run a whole cluster of them. A [`Group`] shares a core between
//! the threads that submit commands and a thread of its own; nothing in here is a process-wide singleton.
//!
//! This crate must not know what a command means, who sent it, or how answers travel.

mod conf_state;
mod core;
mod group;
mod log_storage;
mod raft_logger;

pub use crate::core::{Core, CoreError, CoreOptions, Failure, Observer, StateMachine, Status};
pub use group::{Completions, Group, GroupOptions, Submission, Ticket};
