//! Users.

use crate::permission::Role;
use crate::{Grants, PasswordHash};
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

/// The name of the first user and of the role that may do everything.
pub const ROOT: &str = "root";

/// The auth revision at which a user was created. Revisions only rise, so a user made anew under an old name is somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub u64);

/// A user as of one auth revision.
#[derive(Clone, Debug)]
pub struct User {
    /// Who it is, whatever the name.
    pub id: UserId,
    /// The name.
    pub name: Arc<str>,
    /// `None`: cannot log in with a password.
    pub password: Option<PasswordHash>,
    /// The names of the roles. `root` may be among them without having a record.
    pub roles: Arc<BTreeSet<Arc<str>>>,
    /// Auth revision of the last change of the user itself: creation, password, a role granted, revoked or deleted. A token holds
    /// it, and is good for requests while it is the same.
    pub epoch: u64,
    /// Auth revision of the creation or the last change of the password. A stream opened with a token lasts while it is the same.
    pub credential: u64,
    /// The records of `roles`, without `root`.
    pub(crate) held: Arc<[Arc<Role>]>,
    pub(crate) grants: OnceLock<Arc<Grants>>,
}

impl PartialEq for User {
    fn eq(&self, other: &User) -> bool {
        self.id == other.id
            && self.name == other.name
            && self.password == other.password
            && self.roles == other.roles
            && self.epoch == other.epoch
            && self.credential == other.credential
            && self.held == other.held
    }
}

impl Eq for User {}

impl User {
    /// Whether the user holds role `root`.
    pub fn is_root(&self) -> bool {
        self.roles.contains(ROOT)
    }

    /// What the user's roles grant together. Worked out when first asked for.
    pub fn grants(&self) -> &Grants {
        self.grants.get_or_init(|| {
            if self.is_root() {
                return Arc::new(Grants::root());
            }
            match &self.held[..] {
                // Most users have one role: they share its grants.
                [role] => Arc::clone(role.shared_grants()),
                roles => Arc::new(Grants::union(roles.iter().map(|role| role.grants()))),
            }
        })
    }
}
