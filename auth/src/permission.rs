//! Permissions, and the roles that are sets of them.

use crate::{AuthError, Grants, KeyRange, bounds};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// What a permission lets its holder do with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PermissionKind {
    /// See them.
    Read,
    /// Change them.
    Write,
    /// Both.
    ReadWrite,
}

/// A right on a range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// Which keys.
    pub keys: KeyRange,
    /// What may be done with them.
    pub kind: PermissionKind,
}

impl Permission {
    /// Reads the pair of an administrator's request by etcd's rules (behaviour §3.13).
    ///
    /// # Errors
    /// [`AuthError::InvalidManagement`] for an empty key, and for an end that leaves no key in the range.
    pub fn from_pair(
        key: Bytes,
        range_end: Bytes,
        kind: PermissionKind,
    ) -> Result<Permission, AuthError> {
        if key.is_empty() {
            return Err(AuthError::InvalidManagement);
        }
        let permission = Permission {
            keys: KeyRange::from_pair(key, range_end),
            kind,
        };
        permission.check()?;
        Ok(permission)
    }

    /// Whether this may stand in a role: it covers a key, and it is the one spelling of its range, so that each range stands once.
    pub(crate) fn check(&self) -> Result<(), AuthError> {
        let (key, end) = self.keys.to_pair();
        if key.is_empty() || self.keys.is_empty() || KeyRange::from_pair(key, end) != self.keys {
            return Err(AuthError::InvalidManagement);
        }
        Ok(())
    }
}

/// Permissions under a name. At most one for each pair of key and range end.
#[derive(Clone, Debug, Default)]
pub struct Role {
    /// By the pair, which is etcd's order.
    permissions: BTreeMap<(Bytes, Bytes), Permission>,
    /// Bytes of keys and range ends.
    key_bytes: usize,
    grants: OnceLock<Arc<Grants>>,
}

impl PartialEq for Role {
    fn eq(&self, other: &Role) -> bool {
        self.permissions == other.permissions
    }
}

impl Eq for Role {}

impl Role {
    /// The permissions, ordered by key and range end.
    pub fn permissions(&self) -> impl ExactSizeIterator<Item = &Permission> {
        self.permissions.values()
    }

    /// What the permissions cover together.
    pub fn grants(&self) -> &Grants {
        self.shared_grants()
    }

    pub(crate) fn shared_grants(&self) -> &Arc<Grants> {
        self.grants
            .get_or_init(|| Arc::new(Grants::of_permissions(self.permissions.values())))
    }

    /// A role of many permissions.
    pub(crate) fn of(permissions: Vec<Permission>) -> Result<Role, AuthError> {
        let mut role = Role::default();
        for permission in permissions {
            role.insert(permission)?;
        }
        Ok(role)
    }

    pub(crate) fn kind_of(&self, keys: &KeyRange) -> Option<PermissionKind> {
        self.permissions.get(&keys.to_pair()).map(|held| held.kind)
    }

    /// The role with one more permission, or with another kind for a range that it has.
    pub(crate) fn with(&self, permission: &Permission) -> Result<Role, AuthError> {
        let mut role = Role {
            permissions: self.permissions.clone(),
            key_bytes: self.key_bytes,
            grants: OnceLock::new(),
        };
        role.insert(permission.clone())?;
        Ok(role)
    }

    /// Only for a role whose grants nobody has asked for yet.
    fn insert(&mut self, permission: Permission) -> Result<(), AuthError> {
        permission.check()?;
        let pair = permission.keys.to_pair();
        let added = pair.0.len().saturating_add(pair.1.len());
        if self.permissions.insert(pair, permission).is_none() {
            self.key_bytes = self.key_bytes.saturating_add(added);
        }
        if self.permissions.len() > bounds::PERMISSIONS_PER_ROLE {
            return Err(AuthError::TooMany("permissions in a role"));
        }
        if self.key_bytes > bounds::KEY_BYTES_PER_ROLE {
            return Err(AuthError::TooMany("bytes of keys in a role"));
        }
        Ok(())
    }

    /// The role without the permission on exactly these keys; `None` if it has none.
    pub(crate) fn without(&self, keys: &KeyRange) -> Option<Role> {
        let pair = keys.to_pair();
        let mut permissions = self.permissions.clone();
        permissions.remove(&pair)?;
        Some(Role {
            permissions,
            key_bytes: self.key_bytes - pair.0.len() - pair.1.len(),
            grants: OnceLock::new(),
        })
    }
}
