//! Revocation: a change of users or roles ends the watches that are no longer permitted, before anything later is delivered.

use super::Hub;
use crate::watch::permission::{TOO_MANY_CHANGES, denial_reason, may_watch};
use crate::watch::{AuthNotice, Rights};
use holdfast_auth::{Affected, AuthState, Caller, UserId};

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
        let of = |holder: Holder| {
            let held = watches.holders.range((holder, 0)..=(holder, u32::MAX));
            held.map(|(_, index)| *index)
        };
        let everyone = || watches.holders.iter().map(|(_, index)| *index).collect();
        let (concerned, state): (Vec<u32>, Option<&AuthState>) = match &notice.rights {
            Rights::Unknown => (everyone(), None),
            Rights::Changed { affected, state } => {
                let concerned = match affected {
                    Affected::Nobody => return,
                    Affected::Everyone => everyone(),
                    Affected::Some { users, roles } => {
                        let users = users.iter().flat_map(|(id, _)| of(Holder::User(*id)));
                        let external = (!roles.is_empty()).then(|| of(Holder::External));
                        users.chain(external.into_iter().flatten()).collect()
                    }
                };
                (concerned, Some(&**state))
            }
        };
        for index in concerned {
            let Some(watch) = &self.watches[index as usize] else {
                continue;
            };
            let reason = match state {
                Some(state) => match may_watch(state, &watch.caller, &watch.request.keys) {
                    Ok(()) => continue,
                    Err(denied) => denial_reason(denied),
                },
                None => TOO_MANY_CHANGES.to_owned(),
            };
            self.end(index, notice.revision, 0, reason);
        }
    }
}
