//! Leases of one tenant (behaviour §3.8).
//!
//! What is replicated are a lease's existence, its owner, its TTL, its last checkpoint and the keys attached to it. When it expires is
//! known to the leader alone, which counts from its own monotonic clock; so keep-alives cost nothing but memory access, and
//! a new leader (or a restarted node) starts to count anew, from the last checkpoint if there is one.
//!
//! The caller brings the time, applies minimum and maximum TTL, chooses ids and proposes what [`LeaseTable::expired`] and
//! [`LeaseTable::due_checkpoints`] give.

mod attached;
mod record;
mod table;
#[cfg(test)]
mod tests;

pub use record::{Owner, RecordError};
pub use table::{AlreadyGranted, LeaseTable, NotPrimary, Renewal, TimeToLive};

/// A time on a monotonic clock of the caller's choice, or a span of it, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// Whole seconds as milliseconds; nothing for a negative number, the maximum where it does not fit.
    pub const fn from_secs(secs: i64) -> Millis {
        if secs <= 0 {
            Millis(0)
        } else {
            Millis(secs.unsigned_abs().saturating_mul(1000))
        }
    }

    pub(crate) const fn plus(self, span: Millis) -> Millis {
        Millis(self.0.saturating_add(span.0))
    }

    /// What is left from `earlier` until this time; nothing if it is past.
    pub(crate) const fn since(self, earlier: Millis) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}
