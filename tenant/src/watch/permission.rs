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
    /// The whole state was replaced by a later one. What happened between the two is not known.
    Replaced {
        /// The state that was in place, which is that at [`AuthNotice::revision`].
        before: Arc<AuthState>,
        /// The state that is in place now.
        after: Arc<AuthState>,
    },
    /// There were more changes than can wait for the hub. All watches of the tenant end, since any of them may have been concerned.
    Unknown,
}

impl AuthNotice {
    /// What the notice keeps in memory, in users and roles. The state is shared with other holders at best.
    pub(super) fn weight(&self) -> usize {
        let size = |state: &AuthState| state.users().len() + state.roles().len();
        match &self.rights {
            Rights::Changed { affected, state } => {
                let affected = match affected {
                    Affected::Some { users, .. } => users.len(),
                    Affected::Nobody | Affected::Everyone => 0,
                };
                1 + affected + size(state)
            }
            Rights::Replaced { before, after } => 1 + size(before) + size(after),
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

/// Whether a caller who is permitted to watch in `after` was so at every moment since `before`, as far as the two states prove it. If
/// not, the watch must end: a permission that was taken away and given back in between has ended it on the members that saw that, at the
/// revision where it was taken away, and none of the events that came later were to reach it.
///
/// Proven it is if the auth revision is the same (it counts everything but switching authentication on, which happened once then, and
/// brought the rights of `after` about), and for root's users that were not changed themselves: what they may do depends on nothing else
/// while authentication is on. Where that is not enough the watch ends once too often. It can be made again
/// where it ended, which asks the permissions of that time; and a member so far behind that it needs a snapshot is rare.
pub(super) fn was_permitted_throughout(
    before: &AuthState,
    after: &AuthState,
    caller: &Caller,
) -> bool {
    if before.revision() == after.revision() || *caller == Caller::Server {
        return true;
    }
    let Caller::User { id, .. } = caller else {
        return false;
    };
    match (before.user_by_id(*id), after.user_by_id(*id)) {
        (Some(then), Some(now)) => {
            then.epoch == now.epoch && then.is_root() && now.is_root() && before.is_enabled()
        }
        _ => false,
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

/// Why a watch has ended whose caller may have it again.
pub(super) const PERMISSION_UNSURE: &str =
    "rpc error: code = Unavailable desc = etcdserver: permissions may have changed, watch again";

/// Why all watches of a tenant have ended.
pub(super) const TOO_MANY_CHANGES: &str =
    "rpc error: code = ResourceExhausted desc = etcdserver: too many requests";
