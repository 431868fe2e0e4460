//! What a command needs of its caller.

use super::Model;
use super::auth::Rights;
use holdfast_auth::{Caller, Denied, KeyRange, Verb};
use holdfast_tenant::Command;
use holdfast_tenant::request::{DeleteRange, Op, Put, Txn};

impl Model {
    pub(super) fn permit(&self, caller: &Caller, command: &Command) -> Result<(), Denied> {
        if *caller == Caller::Server || !self.auth.is_enabled() {
            return Ok(());
        }
        let rights = self.auth.rights(caller, false)?;
        let permitted = rights.is_admin()
            || match command {
                Command::Put(put) => self.may_put(&rights, put),
                Command::DeleteRange(delete) => may_delete(&rights, delete),
                Command::Txn(txn) => self.may_txn(&rights, txn),
                Command::LeaseGrant { .. } => true,
                Command::LeaseRevoke { id } => self.may_use_lease(&rights, *id),
                _ => false,
            };
        if permitted {
            Ok(())
        } else {
            Err(Denied::NotPermitted)
        }
    }

    fn may_put(&self, rights: &Rights<'_>, put: &Put) -> bool {
        let key = KeyRange::Point(put.key.clone());
        rights.allows(Verb::Write, &key)
            && (!put.previous || rights.allows(Verb::Read, &key))
            && (put.lease == 0 || self.may_use_lease(rights, put.lease))
    }

    fn may_txn(&self, rights: &Rights<'_>, txn: &Txn) -> bool {
        let compares = txn.compares.iter();
        compares
            .into_iter()
            .all(|compare| rights.allows(Verb::Read, &compare.keys))
            && txn.arms().all(|op| match op {
                Op::Range(range) => rights.allows(Verb::Read, &range.keys),
                Op::Put(put) => self.may_put(rights, put),
                Op::DeleteRange(delete) => may_delete(rights, delete),
                Op::Txn(inner) => self.may_txn(rights, inner),
            })
    }

    fn may_use_lease(&self, rights: &Rights<'_>, id: i64) -> bool {
        self.leases.get(&id).is_none_or(|keys| {
            keys.iter()
                .all(|key| rights.allows(Verb::Write, &KeyRange::Point(key.clone())))
        })
    }
}

fn may_delete(rights: &Rights<'_>, delete: &DeleteRange) -> bool {
    rights.allows(Verb::Write, &delete.keys)
        && (!delete.previous || rights.allows(Verb::Read, &delete.keys))
}
