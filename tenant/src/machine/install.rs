//! A received snapshot takes the place of the whole state, while readers go on.
//!
//! What takes time, reading the rows and building the index, comes first and touches nothing that is in use. Then, under
//! [`Tenants::applying`](crate::Tenants), the store is switched and after it the state of each tenant. In between readers have an index
//! that belongs to the store before: the rows that both have are the same, since a revision is written once, and who misses one waits for
//! the lock and finds it, or finds that it was compacted.

use super::restore::{RestoreError, StoredState};
use super::{Machine, MachineOptions};
use crate::membership::Membership;
use crate::state::{Tenant, TenantState, Tenants};
use crate::watch::{AuthNotice, Message, Rights};
use holdfast_storage::backend::{IncomingStore, ReplaceError};
use holdfast_storage::lease::Millis;
use holdfast_storage::{LogPosition, TenantId};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why a snapshot was not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallFault {
    /// It does not hold a whole state. Nothing has changed.
    #[error("the snapshot does not hold a whole state: {0}")]
    State(#[from] RestoreError),
    /// It has no members, so that nobody would know who votes. Nothing has changed.
    #[error("the snapshot has no members")]
    NoMembers,
    /// It is not ahead of what was applied. Nothing has changed.
    #[error("the snapshot is of index {found}, and {applied} is applied")]
    Old {
        /// The snapshot's index.
        found: u64,
        /// What was applied.
        applied: u64,
    },
    /// The store cannot be switched. The state is as it was; see [`ReplaceError`] for when the process must stop nevertheless.
    #[error("the store cannot be replaced: {0}")]
    Store(#[from] ReplaceError),
}

/// A received store with the state that is in it, not yet in use.
pub struct IncomingState {
    store: IncomingStore,
    position: LogPosition,
    state: StoredState,
}

impl IncomingState {
    /// Reads the state that a received store has. Takes about a second for a million rows, and needs nothing of the machine: it need not
    /// happen on the thread that drives it. `options` are the machine's.
    ///
    /// # Errors
    /// [`RestoreError`] if it is not a whole state.
    pub fn read(
        incoming: IncomingStore,
        options: &MachineOptions,
        now: Millis,
    ) -> Result<IncomingState, RestoreError> {
        let state = StoredState::read(&incoming.view(), options, now)?;
        Ok(IncomingState {
            position: incoming.info.position,
            store: incoming,
            state,
        })
    }

    /// The log position that the state is of.
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// The members as at that position.
    pub fn members(&self) -> &Membership {
        &self.state.members
    }
}

impl Machine {
    /// Replaces the whole state by that of a received snapshot: [`IncomingState::read`] and [`Machine::install_state`].
    ///
    /// # Errors
    /// [`InstallFault`].
    pub fn install(&mut self, incoming: IncomingStore, now: Millis) -> Result<(), InstallFault> {
        let incoming = IncomingState::read(incoming, &self.options, now)?;
        self.install_state(incoming)
    }

    /// Replaces the whole state by a received one; durable when it returns. Every [`Tenant`] stays valid and shows the new state, in which
    /// leases are not counted. The hub is told between what was applied before and what is applied after.
    ///
    /// # Errors
    /// [`InstallFault`]; see there what has changed.
    pub fn install_state(&mut self, incoming: IncomingState) -> Result<(), InstallFault> {
        let IncomingState {
            store,
            position,
            state,
        } = incoming;
        if position.index <= self.position.index {
            return Err(InstallFault::Old {
                found: position.index,
                applied: self.position.index,
            });
        }
        let tenants = self.tenants.clone();
        if state.members.is_empty() && !tenants.members().is_empty() {
            return Err(InstallFault::NoMembers);
        }
        let applying = tenants.applying.write();
        tenants.store.install(store)?;
        // From here on nothing can fail.
        let replaced = self.replace(&tenants, state);
        self.position = position;
        self.tenants.inbox.push_all(self.messages.drain(..));
        // After the inbox has it, as with what is applied.
        for (tenant, _) in &replaced {
            tenant.published.store(tenant.revision(), Ordering::Release);
        }
        drop(applying);
        // Only now: to free a large index takes its time.
        drop(replaced);
        Ok(())
    }

    /// Puts the state in place, and what the hub is to be told in [`Machine::messages`]. Gives the tenants with their states before.
    fn replace(
        &mut self,
        tenants: &Tenants,
        state: StoredState,
    ) -> Vec<(Arc<Tenant>, Option<TenantState>)> {
        *tenants.token_keys.write() = Arc::new(state.token_keys);
        *tenants.members.write() = Arc::new(state.members);
        self.given_up = state.given_up;
        let mut gone: Vec<TenantId> = tenants.by_id.read().keys().copied().collect();
        let mut replaced = Vec::new();
        for (id, state) in state.tenants {
            gone.retain(|other| *other != id);
            match tenants.get(id) {
                Some(tenant) => {
                    let before = tenant.replace(state);
                    self.messages.extend(news(&tenant, &before));
                    replaced.push((tenant, Some(before)));
                }
                None => {
                    let tenant = Arc::new(Tenant::new(id, state, &self.options));
                    tenants.by_id.write().insert(id, tenant.clone());
                    replaced.push((tenant, None));
                }
            }
        }
        for id in gone {
            let Some(tenant) = tenants.by_id.write().remove(&id) else {
                continue;
            };
            let before = tenant.replace(TenantState::empty(self.options.lease_checkpoint_interval));
            self.messages.push(Message::Auth(AuthNotice {
                tenant: id,
                revision: before.mvcc.revision(),
                rights: Rights::Unknown,
            }));
            replaced.push((tenant, Some(before)));
        }
        replaced
    }
}

/// What the hub is told of a tenant whose state was replaced: who may watch first, so that nobody is fed what came after the end of their
/// permission.
fn news(tenant: &Tenant, before: &TenantState) -> [Message; 2] {
    [
        Message::Auth(AuthNotice {
            tenant: tenant.id,
            revision: before.mvcc.revision(),
            rights: Rights::Replaced {
                before: before.auth.clone(),
                after: tenant.auth().clone(),
            },
        }),
        Message::Installed {
            tenant: tenant.id,
            revision: tenant.revision(),
        },
    ]
}
