//! Who may watch what, and how a watch learns that it may no longer.

use holdfast_auth::{Affected, AuthState, Caller, Denied, KeyRange, Verb};
use holdfast_storage::TenantId;
use std::sync::Arc;

/// Users or roles have changed. The state machine puts it between what was applied before and what is applied after, so that the
/// hub ends the watches concerned between the same two transactions.
#[derive(Clone, Debug)]
pub struct AuthNotice {
    /// Whose.
    pub tenant: TenantId,
    /// The tenant's revision at the change. Nothing later is delivered to a watch that the change ends.
    pub revision: i64,
    /// What became of it.
    pub rights: Rights,
}

/// What an [`AuthNotice`] says.
#[derive(Clone, Debug)]
pub enum Rights {
    /// Some callers may do other things than before.
    Changed {
        /// Who they are.
        affected: Affected,
        /// The state after the change, whatever has changed since.
        state: Arc<AuthState>,
    },
    /// There were more changes than can wait for the hub. All watches of the tenant end, since any of them may have been concerned.
    Unknown,
}

impl AuthNotice {
    /// What the notice keeps in memory, in users and roles. The state is shared with other holders at best.
    pub(super) fn weight(&self) -> usize {
        match &self.rights {
            Rights::Changed { affected, state } => {
                let affected = match affected {
                    Affected::Some { users, .. } => users.len(),
                    Affected::Nobody | Affected::Everyone => 0,
                };
                1 + affected + state.users().len() + state.roles().len()
            }
            Rights::Unknown => 1,
        }
    }
}

/// Whether a caller may watch these keys. A token is good for a stream as long as the password is the one that it was got with.
pub(crate) fn may_watch(state: &AuthState, caller: &Caller, keys: &KeyRange) -> Result<(), Denied> {
    if state.stream_access(caller)?.allows(Verb::Read, keys) {
        Ok(())
    } else {
        Err(Denied::NotPermitted)
    }
}

/// Why a watch was refused or has ended, as etcd's clients parse it (behaviour §3.7).
pub fn denial_reason(denied: Denied) -> String {
    let code = match denied {
        Denied::NoPolicy | Denied::NotPermitted | Denied::Disagree => "PermissionDenied",
        Denied::Unidentified => "InvalidArgument",
        Denied::InvalidToken => "Unauthenticated",
    };
    format!("rpc error: code = {code} desc = {denied}")
}

/// Why all watches of a tenant have ended.
pub(super) const TOO_MANY_CHANGES: &str =
    "rpc error: code = ResourceExhausted desc = etcdserver: too many requests";
