//! Users and roles, as naive as it gets: whether a range is granted is asked of each of its keys, and of each permission.

use bytes::Bytes;
use holdfast_auth::{
    AuthChange, AuthError, Caller, Denied, KeyRange, Permission, PermissionKind, TokenEpochs,
    UserId, Verb,
};
use std::collections::{BTreeMap, BTreeSet};

/// Every key that a test names. What is granted can be another only at one of these, or right behind one.
const NAMED: [&[u8]; 11] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"aa",
    b"ab",
    b"ba",
    b"ca",
    b"\0",
    b"\xff\xff",
    b"b\0",
];

/// The keys to ask for in order to know of all keys.
pub(crate) fn all_keys() -> impl Iterator<Item = Bytes> {
    let behind = |key: &[u8]| Bytes::from([key, &[0]].concat());
    NAMED
        .into_iter()
        .flat_map(move |key| [Bytes::from_static(key), behind(key)])
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserModel {
    pub(crate) id: u64,
    pub(crate) epoch: u64,
    pub(crate) credential: u64,
    pub(crate) roles: BTreeSet<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct AuthModel {
    pub(crate) enabled: bool,
    pub(crate) revision: u64,
    /// Tokens from before it are void.
    pub(crate) tokens_since: u64,
    pub(crate) users: BTreeMap<String, UserModel>,
    pub(crate) roles: BTreeMap<String, Vec<Permission>>,
}

/// A caller who is somebody.
pub(crate) struct Who {
    pub(crate) admin: bool,
    pub(crate) name: Option<String>,
    permissions: Vec<Permission>,
}

impl Who {
    pub(crate) fn may(&self, verb: Verb, key: &[u8]) -> bool {
        self.admin
            || self.permissions.iter().any(|permission| {
                let kind = match permission.kind {
                    PermissionKind::Read => verb == Verb::Read,
                    PermissionKind::Write => verb == Verb::Write,
                    PermissionKind::ReadWrite => true,
                };
                kind && permission.keys.contains(key)
            })
    }

    pub(crate) fn may_all(&self, verb: Verb, keys: &KeyRange) -> bool {
        let mut inside = all_keys().filter(|key| keys.contains(key));
        self.admin || inside.all(|key| self.may(verb, &key))
    }
}

impl AuthModel {
    pub(crate) fn new() -> AuthModel {
        AuthModel {
            enabled: false,
            revision: 1,
            tokens_since: 0,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
        }
    }

    /// Who the caller is; `stream` if it only goes on with what it began.
    pub(crate) fn who(&self, caller: &Caller, stream: bool) -> Result<Who, Denied> {
        let mut who = Who {
            admin: true,
            name: None,
            permissions: Vec::new(),
        };
        if !self.enabled {
            return Ok(who);
        }
        let roles: BTreeSet<String> = match caller {
            Caller::Server => return Ok(who),
            Caller::Anonymous => return Err(Denied::Unidentified),
            Caller::User { id, token } => {
                let found = self.users.iter().find(|(_, user)| user.id == id.0);
                let (name, user) = found.ok_or(Denied::NotPermitted)?;
                let now = self.epochs(user);
                if let Some(token) = token
                    && (token.credential != now.credential || !stream && token.epoch != now.epoch)
                {
                    return Err(Denied::InvalidToken);
                }
                who.name = Some(name.clone());
                user.roles.clone()
            }
            Caller::External { subject, roles } => {
                if subject.is_empty() {
                    return Err(Denied::Unidentified);
                }
                let roles = roles.iter().filter(|role| &***role != "root");
                roles.map(|role| role.to_string()).collect()
            }
        };
        who.admin = roles.contains("root");
        let held = roles.iter().filter_map(|role| self.roles.get(role));
        who.permissions = held.flatten().cloned().collect();
        Ok(who)
    }

    pub(crate) fn may_watch(&self, caller: &Caller, keys: &KeyRange) -> Result<(), Denied> {
        if self.who(caller, true)?.may_all(Verb::Read, keys) {
            Ok(())
        } else {
            Err(Denied::NotPermitted)
        }
    }

    pub(crate) fn apply(&mut self, change: &AuthChange) -> Result<(), AuthError> {
        let next = self.revision + 1;
        match change {
            AuthChange::Enable => {
                let root = self.users.get("root").ok_or(AuthError::NoRootUser)?;
                if !root.roles.contains("root") {
                    return Err(AuthError::RootWithoutRootRole);
                }
                self.enabled = true;
                return Ok(());
            }
            AuthChange::Disable => {
                if !std::mem::take(&mut self.enabled) {
                    return Ok(());
                }
                self.tokens_since = next;
            }
            AuthChange::UserAdd { name, .. } => {
                if name.is_empty() {
                    return Err(AuthError::UserNameEmpty);
                }
                if self.users.contains_key(name) {
                    return Err(AuthError::UserExists);
                }
                let user = UserModel {
                    id: next,
                    epoch: next,
                    credential: next,
                    roles: BTreeSet::new(),
                };
                self.users.insert(name.clone(), user);
            }
            AuthChange::UserDelete { name } => {
                if self.enabled && name == "root" {
                    return Err(AuthError::InvalidManagement);
                }
                self.users.remove(name).ok_or(AuthError::UserNotFound)?;
            }
            AuthChange::UserChangePassword { name, .. } => {
                let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
                (user.epoch, user.credential) = (next, next);
            }
            AuthChange::UserGrantRole { user, role } => {
                let user = self.users.get_mut(user).ok_or(AuthError::UserNotFound)?;
                if !self.roles.contains_key(role) && role != "root" {
                    return Err(AuthError::RoleNotFound);
                }
                if !user.roles.insert(role.clone()) {
                    return Ok(());
                }
                user.epoch = next;
            }
            AuthChange::UserRevokeRole { user, role } => {
                if self.enabled && user == "root" && role == "root" {
                    return Err(AuthError::InvalidManagement);
                }
                let user = self.users.get_mut(user).ok_or(AuthError::UserNotFound)?;
                if !user.roles.remove(role) {
                    return Err(AuthError::RoleNotGranted);
                }
                user.epoch = next;
            }
            AuthChange::RoleAdd { name } => {
                if name.is_empty() {
                    return Err(AuthError::RoleNameEmpty);
                }
                if self.roles.contains_key(name) {
                    return Err(AuthError::RoleExists);
                }
                self.roles.insert(name.clone(), Vec::new());
            }
            AuthChange::RoleDelete { name } => {
                if self.enabled && name == "root" {
                    return Err(AuthError::InvalidManagement);
                }
                self.roles.remove(name).ok_or(AuthError::RoleNotFound)?;
                for user in self.users.values_mut() {
                    if user.roles.remove(name) {
                        user.epoch = next;
                    }
                }
            }
            AuthChange::RoleGrantPermission { role, permission } => {
                let permission = permission.as_ref().ok_or(AuthError::PermissionNotGiven)?;
                let (key, end) = permission.keys.to_pair();
                if permission.keys.is_empty() || KeyRange::from_pair(key, end) != permission.keys {
                    return Err(AuthError::InvalidManagement);
                }
                let role = self.roles.get_mut(role).ok_or(AuthError::RoleNotFound)?;
                role.retain(|held| held.keys != permission.keys);
                role.push(permission.clone());
            }
            AuthChange::RoleRevokePermission { role, keys } => {
                let role = self.roles.get_mut(role).ok_or(AuthError::RoleNotFound)?;
                let before = role.len();
                role.retain(|held| held.keys.to_pair() != keys.to_pair());
                if role.len() == before {
                    return Err(AuthError::PermissionNotGranted);
                }
            }
            AuthChange::UpgradePassword { .. } => return Ok(()),
        }
        self.revision = next;
        Ok(())
    }

    /// A caller as a connection would have it now.
    pub(crate) fn user(&self, name: &str, with_token: bool) -> Option<Caller> {
        let user = self.users.get(name)?;
        Some(Caller::User {
            id: UserId(user.id),
            token: with_token.then_some(self.epochs(user)),
        })
    }

    /// What a token for the user says now.
    pub(crate) fn epochs(&self, user: &UserModel) -> TokenEpochs {
        TokenEpochs {
            epoch: user.epoch.max(self.tokens_since),
            credential: user.credential.max(self.tokens_since),
        }
    }
}
