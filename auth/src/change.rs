//! Changes of users and roles, as the log carries them, and what comes of applying one.

use crate::{Demands, KeyRange, PasswordHash, Permission, Standing, User, UserId, Verb};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// One replicated change. Rules and errors are etcd's (behaviour §3.13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthChange {
    /// Put users and roles in force.
    Enable,
    /// Let everybody do everything.
    Disable,
    /// Create a user.
    UserAdd {
        /// Its name.
        name: String,
        /// `None`: cannot log in with a password.
        password: Option<PasswordHash>,
    },
    /// Remove a user.
    UserDelete {
        /// Its name.
        name: String,
    },
    /// Give a user another password, or none.
    UserChangePassword {
        /// The user.
        name: String,
        /// The new one.
        password: Option<PasswordHash>,
    },
    /// Give a user a role.
    UserGrantRole {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// Take a role from a user.
    UserRevokeRole {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// Create a role.
    RoleAdd {
        /// Its name.
        name: String,
    },
    /// Remove a role, from its holders too.
    RoleDelete {
        /// Its name.
        name: String,
    },
    /// Give a role a permission.
    RoleGrantPermission {
        /// The role.
        role: String,
        /// `None`: the request had none, which is an error of its own.
        permission: Option<Permission>,
    },
    /// Take a permission from a role.
    RoleRevokePermission {
        /// The role.
        role: String,
        /// Exactly the keys of the permission.
        keys: KeyRange,
    },
    /// A hash made anew from a password that was just verified, such as an imported bcrypt hash. Does nothing unless the user still
    /// has that password, and counts as no change of the user.
    UpgradePassword {
        /// Whose.
        user: UserId,
        /// [`User::credential`] of the verified password.
        credential: u64,
        /// The better hash.
        password: PasswordHash,
    },
}

impl Demands for AuthChange {
    fn standing(&self) -> Standing<'_> {
        match self {
            AuthChange::UserChangePassword { name, .. } => Standing::AdminOrUser(name),
            AuthChange::Enable
            | AuthChange::Disable
            | AuthChange::UserAdd { .. }
            | AuthChange::UserDelete { .. }
            | AuthChange::UserGrantRole { .. }
            | AuthChange::UserRevokeRole { .. }
            | AuthChange::RoleAdd { .. }
            | AuthChange::RoleDelete { .. }
            | AuthChange::RoleGrantPermission { .. }
            | AuthChange::RoleRevokePermission { .. }
            | AuthChange::UpgradePassword { .. } => Standing::Admin,
        }
    }

    fn demands(&self, _: &mut dyn FnMut(Verb, &KeyRange)) {}
}

/// What an applied change means for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Whose rights may be other than before.
    pub affected: Affected,
    /// What to write to the store.
    pub records: Vec<RecordChange>,
}

impl Applied {
    pub(crate) fn nothing() -> Applied {
        Applied {
            affected: Affected::Nobody,
            records: Vec::new(),
        }
    }
}

/// Whose streams must be looked at again after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affected {
    /// No caller can do more or less than before.
    Nobody,
    /// These callers, and no others.
    Some {
        /// Users as they are now, ordered by name; `None` for one that is gone.
        users: Vec<(UserId, Option<Arc<User>>)>,
        /// Callers whom another issuer vouches for and who hold any of these roles.
        roles: Vec<Arc<str>>,
    },
    /// Authentication was switched on or off.
    Everyone,
}

/// One change of the store. The first byte of a key is the kind of the record: `s` settings, `u` user, `r` role.
#[derive(Clone, PartialEq, Eq)]
pub enum RecordChange {
    /// Write the value under the key.
    Put(Bytes, Bytes),
    /// Remove the key.
    Drop(Bytes),
}

impl fmt::Debug for RecordChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A user's record holds the password's hash.
            RecordChange::Put(key, _) => f.debug_tuple("Put").field(key).finish_non_exhaustive(),
            RecordChange::Drop(key) => f.debug_tuple("Drop").field(key).finish(),
        }
    }
}

/// A refused change, or a login that cannot be. The texts are etcd's where etcd has the case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Enabling needs user `root`.
    #[error("etcdserver: root user does not exist")]
    NoRootUser,
    /// Enabling needs user `root` to hold role `root`.
    #[error("etcdserver: root user does not have root role")]
    RootWithoutRootRole,
    /// The name of a user to create is empty.
    #[error("etcdserver: user name is empty")]
    UserNameEmpty,
    /// There is a user of that name.
    #[error("etcdserver: user name already exists")]
    UserExists,
    /// There is no user of that name.
    #[error("etcdserver: user name not found")]
    UserNotFound,
    /// The name of a role to create is empty.
    #[error("etcdserver: role name is empty")]
    RoleNameEmpty,
    /// There is a role of that name.
    #[error("etcdserver: role name already exists")]
    RoleExists,
    /// There is no role of that name.
    #[error("etcdserver: role name not found")]
    RoleNotFound,
    /// The user does not hold the role.
    #[error("etcdserver: role is not granted to the user")]
    RoleNotGranted,
    /// The role has no permission on exactly these keys.
    #[error("etcdserver: permission is not granted to the role")]
    PermissionNotGranted,
    /// The request has no permission in it.
    #[error("etcdserver: permission not given")]
    PermissionNotGiven,
    /// The change would lock everybody out, or the permission's range is impossible.
    #[error("etcdserver: invalid auth management")]
    InvalidManagement,
    /// Nobody can log in while authentication is off.
    #[error("etcdserver: authentication is not enabled")]
    NotEnabled,
    /// No such user, or not its password; one error for both.
    #[error("etcdserver: authentication failed, invalid user ID or password")]
    LoginFailed,
    /// The name is longer than [`bounds::NAME_BYTES`](crate::bounds::NAME_BYTES).
    #[error("etcdserver: user or role name is longer than 256 bytes")]
    NameTooLong,
    /// The name has control characters, which do not belong in a log line.
    #[error("etcdserver: user or role name holds control characters")]
    BadName,
    /// A bound of [`bounds`](crate::bounds) is reached.
    #[error("etcdserver: too many {0}")]
    TooMany(&'static str),
}
