//! One tenant's users and roles.

mod apply;
mod record;

pub use record::RecordError;

use crate::permission::Role;
use crate::{TokenEpochs, User, UserId};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// One tenant's users and roles, and whether they are in force. A value: two that applied the same changes are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthState {
    enabled: bool,
    revision: u64,
    /// The auth revision at which authentication was last switched off, 0 for never: tokens from before are void.
    tokens_since: u64,
    users: BTreeMap<Arc<str>, Arc<User>>,
    /// The same users. Never iterated over, so that its order cannot matter.
    by_id: HashMap<UserId, Arc<User>>,
    roles: BTreeMap<Arc<str>, Arc<Role>>,
}

impl Default for AuthState {
    fn default() -> AuthState {
        AuthState::new()
    }
}

impl AuthState {
    /// Off, with nobody in it, at auth revision 1.
    pub fn new() -> AuthState {
        AuthState {
            enabled: false,
            revision: 1,
            tokens_since: 0,
            users: BTreeMap::new(),
            by_id: HashMap::new(),
            roles: BTreeMap::new(),
        }
    }

    /// Whether users and roles are in force.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The auth revision: 1 and the number of changes since, as etcd counts them.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The user of this name.
    pub fn user(&self, name: &str) -> Option<&Arc<User>> {
        self.users.get(name)
    }

    /// The user of this id, unless it was deleted.
    pub fn user_by_id(&self, id: UserId) -> Option<&Arc<User>> {
        self.by_id.get(&id)
    }

    /// What a token given to this user now has to say. Switching authentication off voids every token, as in etcd, so that the epochs of
    /// users who have not changed since lie there.
    pub fn epochs(&self, user: &User) -> TokenEpochs {
        TokenEpochs {
            epoch: user.epoch.max(self.tokens_since),
            credential: user.credential.max(self.tokens_since),
        }
    }

    /// All users, by name.
    pub fn users(&self) -> impl ExactSizeIterator<Item = &Arc<User>> {
        self.users.values()
    }

    /// The role of this name. `root` needs no record to be held.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name).map(|role| &**role)
    }

    /// All roles with a record, by name.
    pub fn roles(&self) -> impl ExactSizeIterator<Item = (&str, &Role)> {
        self.roles.iter().map(|(name, role)| (&**name, &**role))
    }

    /// A role with the name as this state has it.
    pub(crate) fn role_entry(&self, name: &str) -> Option<(&str, &Role)> {
        let (name, role) = self.roles.get_key_value(name)?;
        Some((name, role))
    }
}
