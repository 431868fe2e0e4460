//! Revocation: a change of users or roles ends the watches that are no longer permitted, before anything later is delivered.

use super::Hub;
use crate::watch::permission::{
    PERMISSION_UNSURE, TOO_MANY_CHANGES, denial_reason, may_watch, was_permitted_throughout,
};
use crate::watch::{AuthNotice, Rights};
use holdfast_auth::{Affected, Caller, UserId};
use holdfast_storage::planted::{Defect, is_planted};

/// By whom watches are found when users or roles change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// Without an identity.
    Nobody,
    /// Somebody whom another issuer vouches for.
    External,
    User(UserId),
}

impl Holder {
    pub(super) fn of(caller: &Caller) -> Holder {
        match caller {
            Caller::Server | Caller::Anonymous => Holder::Nobody,
            Caller::External { .. } => Holder::External,
            Caller::User { id, .. } => Holder::User(*id),
        }
    }
}

impl Hub {
    pub(super) fn revoke(&mut self, notice: &AuthNotice) {
        let Some(watches) = self.tenants.get(&notice.tenant) else {
            return;
        };
        if is_planted(Defect::RevocationForgotten) {
            return;
        }
        let of = |holder: Holder| {
            let held = watches.holders.range((holder, 0)..=(holder, u32::MAX));
            held.map(|(_, index)| *index)
        };
        let everyone = || watches.holders.iter().map(|(_, index)| *index).collect();
        let concerned: Vec<u32> = match &notice.rights {
            Rights::Unknown | Rights::Replaced { .. } => everyone(),
            Rights::Changed { affected, .. } => match affected {
                Affected::Nobody => return,
                Affected::Everyone => everyone(),
                Affected::Some { users, roles } => {
                    let users = users.iter().flat_map(|(id, _)| of(Holder::User(*id)));
                    let external = (!roles.is_empty()).then(|| of(Holder::External));
                    users.chain(external.into_iter().flatten()).collect()
                }
            },
        };
        for index in concerned {
            let Some(watch) = &self.watches[index as usize] else {
                continue;
            };
            let (caller, keys) = (&watch.caller, &watch.request.keys);
            let reason = match &notice.rights {
                Rights::Unknown => TOO_MANY_CHANGES.to_owned(),
                Rights::Changed { state, .. } => match may_watch(state, caller, keys) {
                    Ok(()) => continue,
                    Err(denied) => denial_reason(denied),
                },
                Rights::Replaced { before, after } => match may_watch(after, caller, keys) {
                    Ok(()) if was_permitted_throughout(before, after, caller) => continue,
                    Ok(()) => PERMISSION_UNSURE.to_owned(),
                    Err(denied) => denial_reason(denied),
                },
            };
            self.end(index, notice.revision, 0, reason);
        }
    }
}
