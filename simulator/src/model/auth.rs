//! Users and roles, plainly.

use bytes::Bytes;
use holdfast_auth::{
    AuthChange, AuthError, Caller, Denied, KeyRange, Permission, PermissionKind, ROOT, Verb,
};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
struct ModelUser {
    id: u64,
    epoch: u64,
    credential: u64,
    roles: BTreeSet<String>,
}

/// Users and roles at one place in the log.
#[derive(Clone, Debug)]
pub(crate) struct ModelAuth {
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, ModelUser>,
    roles: BTreeMap<String, Vec<Permission>>,
}

/// What an identified caller may do.
pub(crate) enum Rights<'a> {
    All,
    Of(Vec<&'a Permission>),
}

impl Rights<'_> {
    pub(crate) fn is_admin(&self) -> bool {
        matches!(self, Rights::All)
    }

    /// Whether the permissions cover every key of the range together.
    pub(crate) fn allows(&self, verb: Verb, keys: &KeyRange) -> bool {
        let Rights::Of(permissions) = self else {
            return true;
        };
        if keys.is_empty() {
            return true;
        }
        let (mut from, until) = limits(keys);
        let mut spans: Vec<(Bytes, Option<Bytes>)> = permissions
            .iter()
            .filter(|permission| match verb {
                Verb::Read => permission.kind != PermissionKind::Write,
                Verb::Write => permission.kind != PermissionKind::Read,
            })
            .map(|permission| limits(&permission.keys))
            .collect();
        spans.sort();
        for (start, end) in spans {
            if start > from {
                return false;
            }
            match end {
                None => return true,
                Some(end) if end > from => from = end,
                Some(_) => {}
            }
            if until.as_ref().is_some_and(|until| from >= *until) {
                return true;
            }
        }
        false
    }
}

/// The first key, and the first one outside.
fn limits(keys: &KeyRange) -> (Bytes, Option<Bytes>) {
    match keys {
        KeyRange::Point(key) => (key.clone(), Some([key, &b"\0"[..]].concat().into())),
        KeyRange::Span { start, end } => (start.clone(), Some(end.clone())),
        KeyRange::From(start) => (start.clone(), None),
        KeyRange::All => (Bytes::new(), None),
    }
}

impl ModelAuth {
    pub(crate) fn new() -> ModelAuth {
        ModelAuth {
            enabled: false,
            revision: 1,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
        }
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Carries out what the simulator asks for; refuses as etcd does.
    pub(crate) fn apply(&mut self, change: &AuthChange) -> Result<(), AuthError> {
        match change {
            AuthChange::Enable if self.enabled => Ok(()),
            AuthChange::Enable => {
                let root = self.users.get(ROOT).ok_or(AuthError::NoRootUser)?;
                if !root.roles.contains(ROOT) {
                    return Err(AuthError::RootWithoutRootRole);
                }
                self.enabled = true;
                Ok(())
            }
            AuthChange::UserAdd { name, .. } => {
                if self.users.contains_key(name) {
                    return Err(AuthError::UserExists);
                }
                self.revision += 1;
                let user = ModelUser {
                    id: self.revision,
                    epoch: self.revision,
                    credential: self.revision,
                    roles: BTreeSet::new(),
                };
                self.users.insert(name.clone(), user);
                Ok(())
            }
            AuthChange::UserDelete { name } => {
                self.users.remove(name).ok_or(AuthError::UserNotFound)?;
                self.revision += 1;
                Ok(())
            }
            AuthChange::UserChangePassword { name, .. } => {
                let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
                self.revision += 1;
                user.epoch = self.revision;
                user.credential = self.revision;
                Ok(())
            }
            AuthChange::UserGrantRole { user, role } => {
                let user = self.users.get_mut(user).ok_or(AuthError::UserNotFound)?;
                if role != ROOT && !self.roles.contains_key(role) {
                    return Err(AuthError::RoleNotFound);
                }
                if user.roles.insert(role.clone()) {
                    self.revision += 1;
                    user.epoch = self.revision;
                }
                Ok(())
            }
            AuthChange::UserRevokeRole { user, role } => {
                let user = self.users.get_mut(user).ok_or(AuthError::UserNotFound)?;
                if !user.roles.remove(role) {
                    return Err(AuthError::RoleNotGranted);
                }
                self.revision += 1;
                user.epoch = self.revision;
                Ok(())
            }
            AuthChange::RoleAdd { name } => {
                if self.roles.contains_key(name) {
                    return Err(AuthError::RoleExists);
                }
                self.revision += 1;
                self.roles.insert(name.clone(), Vec::new());
                Ok(())
            }
            AuthChange::RoleGrantPermission { role, permission } => {
                let permission = permission.as_ref().ok_or(AuthError::PermissionNotGiven)?;
                let role = self.roles.get_mut(role).ok_or(AuthError::RoleNotFound)?;
                role.retain(|held| held.keys != permission.keys);
                role.push(permission.clone());
                self.revision += 1;
                Ok(())
            }
            AuthChange::RoleRevokePermission { role, keys } => {
                let role = self.roles.get_mut(role).ok_or(AuthError::RoleNotFound)?;
                let before = role.len();
                role.retain(|held| held.keys != *keys);
                if role.len() == before {
                    return Err(AuthError::PermissionNotGranted);
                }
                self.revision += 1;
                Ok(())
            }
            other => unreachable!("the simulator makes no {other:?}"),
        }
    }

    /// What a caller may do. For a stream that is open, a token is good as long as its password.
    pub(crate) fn rights(&self, caller: &Caller, stream: bool) -> Result<Rights<'_>, Denied> {
        if !self.enabled || *caller == Caller::Server {
            return Ok(Rights::All);
        }
        let Caller::User { id, token } = caller else {
            return Err(Denied::Unidentified);
        };
        let user = self.users.values().find(|user| user.id == id.0);
        let user = user.ok_or(Denied::NotPermitted)?;
        if let Some(token) = token
            && (token.credential != user.credential || (!stream && token.epoch != user.epoch))
        {
            return Err(Denied::InvalidToken);
        }
        if user.roles.contains(ROOT) {
            return Ok(Rights::All);
        }
        let roles = user.roles.iter().filter_map(|role| self.roles.get(role));
        Ok(Rights::Of(roles.flatten().collect()))
    }

    /// Whether a watch of these keys may go on.
    pub(crate) fn may_watch(&self, caller: &Caller, keys: &KeyRange) -> bool {
        self.rights(caller, true)
            .is_ok_and(|rights| rights.allows(Verb::Read, keys))
    }
}
