//! What a command needs, found by going through it key by key.

use super::Model;
use super::auth::Who;
use holdfast_auth::{AuthChange, Caller, Denied, Verb};
use holdfast_tenant::request::{Op, Put, Txn};
use holdfast_tenant::{Command, LeaseUse};

impl Model {
    pub(super) fn permit(&self, caller: &Caller, command: &Command) -> Result<(), Denied> {
        if *caller == Caller::Server {
            return Ok(());
        }
        if matches!(command, Command::PublishTokenKey { .. }) {
            return Err(Denied::NotPermitted);
        }
        let who = self.auth.who(caller, false)?;
        let permitted = who.admin
            || match command {
                Command::Put(put) => self.may_put(&who, caller, put),
                Command::DeleteRange(delete) => {
                    who.may_all(Verb::Write, &delete.keys)
                        && (!delete.previous || who.may_all(Verb::Read, &delete.keys))
                }
                Command::Txn(txn) => self.may_txn(&who, caller, txn),
                Command::LeaseGrant { .. } => true,
                Command::LeaseRevoke { id } => self.may_lease(&who, caller, *id, LeaseUse::Revoke),
                Command::Auth(AuthChange::UserChangePassword { name, .. }) => {
                    who.name.as_ref() == Some(name)
                }
                Command::Auth(_)
                | Command::Compact { .. }
                | Command::LeaseCheckpoint(_)
                | Command::RaiseAlarm(_)
                | Command::ClearAlarm(_)
                | Command::PublishTokenKey { .. }
                | Command::MemberAdd { .. }
                | Command::MemberPromote { .. }
                | Command::MemberRemove { .. }
                | Command::MemberUpdate { .. }
                | Command::MemberPublish { .. } => false,
            };
        if permitted {
            Ok(())
        } else {
            Err(Denied::NotPermitted)
        }
    }

    fn may_put(&self, who: &Who, caller: &Caller, put: &Put) -> bool {
        who.may(Verb::Write, &put.key)
            && (!put.previous || who.may(Verb::Read, &put.key))
            && (put.lease == 0 || self.may_lease(who, caller, put.lease, LeaseUse::Attach))
    }

    fn may_txn(&self, who: &Who, caller: &Caller, txn: &Txn) -> bool {
        txn.compares
            .iter()
            .all(|compare| who.may_all(Verb::Read, &compare.keys))
            && txn.success.iter().chain(&txn.failure).all(|op| match op {
                Op::Range(range) => who.may_all(Verb::Read, &range.keys),
                Op::Put(put) => self.may_put(who, caller, put),
                Op::DeleteRange(delete) => {
                    who.may_all(Verb::Write, &delete.keys)
                        && (!delete.previous || who.may_all(Verb::Read, &delete.keys))
                }
                Op::Txn(inner) => self.may_txn(who, caller, inner),
            })
    }

    pub(crate) fn may_lease(&self, who: &Who, caller: &Caller, id: i64, usage: LeaseUse) -> bool {
        if who.admin || !self.leases.contains_key(&id) {
            return true;
        }
        let keys = self.attached(id);
        let all = |verb| keys.iter().all(|key| who.may(verb, key));
        let owner = caller.owner();
        let owns = owner.is_some() && self.owners.get(&id) == owner.as_ref();
        match (usage, self.lease_ownership) {
            (LeaseUse::TimeToLive { keys: false }, false) => true,
            (LeaseUse::TimeToLive { .. }, false) => all(Verb::Read),
            (_, false) => all(Verb::Write),
            (LeaseUse::TimeToLive { keys: true }, true) if owns => all(Verb::Read),
            (_, true) if owns => true,
            (LeaseUse::TimeToLive { .. }, true) => !keys.is_empty() && all(Verb::Read),
            (_, true) => !keys.is_empty() && all(Verb::Write),
        }
    }

    /// The leases that a caller may list, in the order of their ids.
    pub(crate) fn visible_leases(&self, caller: &Caller) -> Result<Vec<i64>, Denied> {
        let who = self.auth.who(caller, false)?;
        let mut visible = Vec::new();
        for id in self.leases.keys() {
            let keys = self.attached(*id);
            let readable = keys.iter().all(|key| who.may(Verb::Read, key));
            let owner = caller.owner();
            let owns = owner.is_some() && self.owners.get(id) == owner.as_ref();
            if !self.lease_ownership && !readable {
                return Err(Denied::NotPermitted);
            }
            if who.admin || !self.lease_ownership || owns || readable && !keys.is_empty() {
                visible.push(*id);
            }
        }
        Ok(visible)
    }
}
