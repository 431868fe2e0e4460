//! Who may do what: principals, key ranges, demands, the policy of every RPC, and the decision.
//!
//! This crate must not know about IO, clocks, wire types or storage. A request that passed [`Gate::authorize`] is an
//! [`Authorized`] value, which nothing else can build; the state machine takes no other.

mod gate;
mod keys;
mod policy;

pub use gate::{Authorized, Demand, Demands, Denied, Gate, Principal, Verb};
pub use keys::KeyRange;
pub use policy::{POLICIES, Policy, policy};
