//! The audit log: who did what, with which outcome (`docs/audit.md` has the schema and what the chain proves).
//!
//! A request is recorded in three steps. A [`Plan`] – made once for a caller and an RPC, and cached – says what the rules can ask for.
//! [`Writer::begin`] is for strict rules only: it reports whether a sink took the record, and a request that no sink took is refused.
//! [`Writer::end`] formats one line into the worker's buffer; an audit thread collects the buffers every few milliseconds and hands them to
//! the sinks, each with a thread, a bounded queue and a deadline of its own. A sink that fails, fills up or hangs holds up nobody.
//!
//! [`read`] is the other end: it verifies, follows and searches files.
//!
//! Invariants: a record has no place for values or secrets; every buffer and queue is bounded; what is dropped is counted, and said in the log
//! itself; threads only, no runtime. It must not know RPCs, users, wire types or flags.

mod auditor;
mod bell;
mod block;
mod chain;
mod collect;
mod config;
mod hex;
pub mod keys;
mod line;
mod lines;
mod plan;
mod ranges;
pub mod read;
mod record;
mod rules;
mod sink;
mod stamp;
mod stats;
mod text;
#[cfg(test)]
mod trouble;
mod walk;
mod writer;

pub use auditor::Auditor;
pub use block::{NotTaken, OnTaken};
pub use chain::{Position, PositionError};
pub use config::{
    AuditorConfig, FileConfig, Notice, SinkConfig, StartError, SyncPolicy, SyslogTarget,
};
pub use keys::{KeyError, NodeKey, PublicKey};
pub use plan::Plan;
pub use ranges::{KeySpan, Keys};
pub use record::{AuthMethod, Code, End, Outcome, OutcomeClass, Record, Subject};
pub use rules::{Delivery, Level, Rules, RulesError};
pub use stats::{SinkStats, Stats};
pub use writer::Writer;
