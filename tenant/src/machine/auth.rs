//! Permission at the position in the log where a command stands, changes of users and roles, and token keys.

use super::records::{auth_key, token_key};
use super::{Machine, Outcome, done};
use crate::answer::Refusal;
use crate::command::Command;
use crate::lease_rules::LeaseUse;
use crate::request::{Op, Put, Txn};
use crate::state::Tenant;
use crate::token_key::{TOKEN_KEYS_MAX, TokenKeyRecord};
use crate::watch::{AuthNotice, Message, Rights};
use holdfast_auth::{Access, Affected, AuthChange, Caller, Denied, Policy, RecordChange};
use holdfast_storage::planted::{Defect, is_planted};
use holdfast_storage::{Change, TenantId};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Whether the caller may do this now. The edge has asked the same, of a state that may have been older.
pub(super) fn permit(tenant: &Tenant, caller: &Caller, command: &Command) -> Result<(), Denied> {
    if command.is_of_members() && tenant.id != TenantId::DEFAULT {
        // A tenant's root is nobody outside of it.
        return Err(Denied::NotPermitted);
    }
    if *caller == Caller::Server || is_planted(Defect::StaleAuthAtApply) {
        return Ok(());
    }
    if matches!(
        command,
        Command::PublishTokenKey { .. } | Command::MemberPublish { .. }
    ) {
        // Whoever could publish a key could be anybody, in every tenant; whoever could publish a member could lock it out. Only the
        // server itself does.
        return Err(Denied::NotPermitted);
    }
    let auth = tenant.auth.read();
    if !auth.is_enabled() {
        return Ok(());
    }
    let access = auth.access(caller)?;
    access.permits(Policy::Authenticated, command)?;
    match command {
        Command::Put(put) => may_attach(tenant, &access, caller, put),
        Command::Txn(txn) => may_attach_all(tenant, &access, caller, txn),
        Command::LeaseRevoke { id } => tenant.may_use_lease(&access, caller, *id, LeaseUse::Revoke),
        _ => Ok(()),
    }
}

fn may_attach(
    tenant: &Tenant,
    access: &Access<'_>,
    caller: &Caller,
    put: &Put,
) -> Result<(), Denied> {
    if put.lease == 0 {
        return Ok(());
    }
    tenant.may_use_lease(access, caller, put.lease, LeaseUse::Attach)
}

/// Both arms, at any depth (CVE-2026-44283), all on the state before the transaction: no step makes another permitted.
fn may_attach_all(
    tenant: &Tenant,
    access: &Access<'_>,
    caller: &Caller,
    txn: &Txn,
) -> Result<(), Denied> {
    txn.arms().try_for_each(|op| match op {
        Op::Put(put) => may_attach(tenant, access, caller, put),
        Op::Txn(inner) => may_attach_all(tenant, access, caller, inner),
        Op::Range(_) | Op::DeleteRange(_) => Ok(()),
    })
}

impl Machine {
    pub(super) fn change_auth(&mut self, tenant: &Tenant, change: &AuthChange) -> Outcome {
        let mut auth = tenant.auth.write();
        let applied = Arc::make_mut(&mut auth)
            .apply(change)
            .map_err(Refusal::Auth)?;
        // Counted while the state is locked: a stream that is opened later asks the new state.
        let watched = tenant.watch_streams.load(Ordering::SeqCst) > 0;
        let state = auth.clone();
        drop(auth);
        self.changes
            .extend(applied.records.into_iter().map(|record| match record {
                RecordChange::Put(key, value) => Change::PutMeta(auth_key(tenant.id, &key), value),
                RecordChange::Drop(key) => Change::DropMeta(auth_key(tenant.id, &key)),
            }));
        if watched && applied.affected != Affected::Nobody {
            self.flush_transactions();
            self.messages.push(Message::Auth(AuthNotice {
                tenant: tenant.id,
                revision: tenant.revision(),
                rights: Rights::Changed {
                    affected: applied.affected,
                    state,
                },
            }));
        }
        Ok(done(tenant, Vec::new()))
    }

    /// Remembers a token key. With `retire_older_at`, the member's other keys retire then, unless they do sooner. Keys that had
    /// retired when the new one was made are forgotten.
    pub(super) fn publish_token_key(
        &mut self,
        tenant: &Tenant,
        key: &TokenKeyRecord,
        retire_older_at: Option<u64>,
    ) -> Outcome {
        if !key.has_valid_kid() {
            return Err(Refusal::Malformed("token key id"));
        }
        self.refuse_removed(key.member)?;
        let before = self.tenants.token_keys();
        let mut keys: Vec<TokenKeyRecord> = before
            .iter()
            .filter(|known| {
                known.kid == key.kid || known.retires_at.is_none_or(|at| at >= key.made_at)
            })
            .cloned()
            .collect();
        if let Some(at) = retire_older_at {
            for known in &mut keys {
                if known.member == key.member && known.kid != key.kid {
                    known.retires_at = Some(known.retires_at.map_or(at, |sooner| sooner.min(at)));
                }
            }
        }
        match keys.iter().find(|known| known.kid == key.kid) {
            Some(known) if known.public_key != key.public_key || known.member != key.member => {
                return Err(Refusal::Malformed("token key id, which is taken"));
            }
            Some(_) => {}
            None => {
                while keys.len() >= TOKEN_KEYS_MAX {
                    // The member's own key that would go first goes now: its overlap is cut short, but no rotation is ever refused.
                    let first = keys
                        .iter()
                        .filter(|known| known.member == key.member)
                        .min_by_key(|known| known.retires_at.unwrap_or(u64::MAX))
                        .map(|known| known.kid.clone())
                        .ok_or(Refusal::TooManyTokenKeys)?;
                    keys.retain(|known| known.kid != first);
                }
                keys.push(key.clone());
            }
        }
        for known in before.iter() {
            if !keys.iter().any(|kept| kept.kid == known.kid) {
                self.changes.push(Change::DropMeta(token_key(&known.kid)));
            }
        }
        for kept in &keys {
            if !before.contains(kept) {
                self.changes
                    .push(Change::PutMeta(token_key(&kept.kid), kept.encode()));
            }
        }
        // Restored in this order, too.
        keys.sort_by(|a, b| a.kid.cmp(&b.kid));
        *self.tenants.token_keys.write() = Arc::new(keys);
        Ok(done(tenant, Vec::new()))
    }
}
