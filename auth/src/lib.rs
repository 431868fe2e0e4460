//! Who may do what: users, roles, key ranges, demands, the policy of every RPC and HTTP endpoint, and the decision.
//!
//! [`AuthState`] is one tenant's users and roles. It changes by [`AuthChange`]s, which come through the log, and answers for each
//! [`Caller`] what that caller may do. A request says what it touches ([`Demands`]); [`AuthState::authorize`] makes an [`Authorized`]
//! value of it, which nothing else can make of a client's request, and the state machine takes no other.
//!
//! * Deny by default: an RPC without a row in [`POLICIES`] is refused, and so is a demand that no grant covers.
//! * One type of range, [`KeyRange`], for the check and for carrying the request out.
//! * A change says whom it affects ([`Affected`]), so that open streams can be looked at again at the position in the log where it
//!   took effect.
//! * Nothing shows a password, a hash or a token: their `Debug` is empty.
//! * Everything is bounded ([`bounds`]), and bytes from a log or a store are checked.
//!
//! This crate is pure. It must not know about IO, wire types, storage, the network or TLS; time and randomness are passed in, and
//! nothing in it depends on the order of a hash map. The same changes in the same order give the same state on every member.

mod access;
pub mod bounds;
mod caller;
mod change;
mod demands;
mod hash_text;
mod keys;
pub mod password;
mod permission;
mod policy;
mod ranges;
mod state;
pub mod token;
mod user;

pub use access::{Access, Authorized, Denied};
pub use caller::{Caller, TokenEpochs};
pub use change::{Affected, Applied, AuthChange, AuthError, RecordChange};
pub use demands::{Demand, Demands, Standing, Verb};
pub use hash_text::{HashScheme, PasswordHash, PasswordHashError};
pub use keys::KeyRange;
pub use permission::{Permission, PermissionKind, Role};
pub use policy::{HTTP_POLICIES, HttpPolicy, POLICIES, Policy, http_policy, policy};
pub use ranges::Grants;
pub use state::{AuthState, RecordError};
pub use user::{ROOT, User, UserId};
