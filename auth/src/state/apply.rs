//! Applying changes, by etcd's rules. Each function checks everything first and then changes, so that an error has changed nothing.

use super::AuthState;
use super::record;
use crate::permission::Role;
use crate::{
    Affected, Applied, AuthChange, AuthError, KeyRange, PasswordHash, Permission, ROOT,
    RecordChange, User, UserId, bounds,
};
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

type Outcome = Result<Applied, AuthError>;

impl AuthState {
    /// Carries a change out. The same changes in the same order give the same state everywhere.
    ///
    /// # Errors
    /// [`AuthError`] when a rule refuses the change; nothing has changed then.
    pub fn apply(&mut self, change: &AuthChange) -> Outcome {
        match change {
            AuthChange::Enable => self.enable(),
            AuthChange::Disable => Ok(self.disable()),
            AuthChange::UserAdd { name, password } => self.user_add(name, password),
            AuthChange::UserDelete { name } => self.user_delete(name),
            AuthChange::UserChangePassword { name, password } => {
                self.user_change_password(name, password)
            }
            AuthChange::UserGrantRole { user, role } => self.user_grant_role(user, role),
            AuthChange::UserRevokeRole { user, role } => self.user_revoke_role(user, role),
            AuthChange::RoleAdd { name } => self.role_add(name),
            AuthChange::RoleDelete { name } => self.role_delete(name),
            AuthChange::RoleGrantPermission { role, permission } => {
                self.role_grant(role, permission.as_ref())
            }
            AuthChange::RoleRevokePermission { role, keys } => self.role_revoke(role, keys),
            AuthChange::UpgradePassword {
                user,
                credential,
                password,
            } => Ok(self.upgrade_password(*user, *credential, password)),
        }
    }

    fn enable(&mut self) -> Outcome {
        if self.enabled {
            return Ok(Applied::nothing());
        }
        let root = self.users.get(ROOT).ok_or(AuthError::NoRootUser)?;
        if !root.is_root() {
            return Err(AuthError::RootWithoutRootRole);
        }
        self.enabled = true;
        Ok(self.applied(Affected::Everyone, Vec::new()))
    }

    fn disable(&mut self) -> Applied {
        if !self.enabled {
            return Applied::nothing();
        }
        self.enabled = false;
        self.tokens_since = self.advance();
        self.applied(Affected::Everyone, Vec::new())
    }

    fn user_add(&mut self, name: &str, password: &Option<PasswordHash>) -> Outcome {
        if name.is_empty() {
            return Err(AuthError::UserNameEmpty);
        }
        if self.users.contains_key(name) {
            return Err(AuthError::UserExists);
        }
        check_name(name)?;
        if self.users.len() >= bounds::USERS {
            return Err(AuthError::TooMany("users"));
        }
        let revision = self.advance();
        let user = self.put_user(User {
            id: UserId(revision),
            name: Arc::from(name),
            password: password.clone(),
            roles: Arc::default(),
            epoch: revision,
            credential: revision,
            held: Arc::default(),
            grants: OnceLock::new(),
        });
        let records = vec![record::put_user(&user)];
        // Nobody can have been this user before.
        Ok(self.applied(Affected::Nobody, records))
    }

    fn user_delete(&mut self, name: &str) -> Outcome {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let user = self.users.remove(name).ok_or(AuthError::UserNotFound)?;
        self.by_id.remove(&user.id);
        self.advance();
        let records = vec![record::drop_user(name)];
        Ok(self.applied(of_users(vec![(user.id, None)]), records))
    }

    fn user_change_password(&mut self, name: &str, password: &Option<PasswordHash>) -> Outcome {
        let user = self.users.get(name).ok_or(AuthError::UserNotFound)?;
        let mut changed = User::clone(user);
        let revision = self.advance();
        changed.password = password.clone();
        changed.epoch = revision;
        changed.credential = revision;
        Ok(self.user_changed(changed))
    }

    fn user_grant_role(&mut self, name: &str, role: &str) -> Outcome {
        let user = self.users.get(name).ok_or(AuthError::UserNotFound)?;
        let role = match self.roles.get_key_value(role) {
            Some((role, _)) => Arc::clone(role),
            None if role == ROOT => Arc::from(ROOT),
            None => return Err(AuthError::RoleNotFound),
        };
        if user.roles.contains(&role) {
            return Ok(Applied::nothing());
        }
        if user.roles.len() >= bounds::ROLES_PER_USER {
            return Err(AuthError::TooMany("roles of a user"));
        }
        let mut roles = BTreeSet::clone(&user.roles);
        roles.insert(role);
        let changed = self.with_roles(user, Arc::new(roles));
        self.advance();
        Ok(self.user_changed_now(changed))
    }

    fn user_revoke_role(&mut self, name: &str, role: &str) -> Outcome {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let user = self.users.get(name).ok_or(AuthError::UserNotFound)?;
        let mut roles = BTreeSet::clone(&user.roles);
        if !roles.remove(role) {
            return Err(AuthError::RoleNotGranted);
        }
        let changed = self.with_roles(user, Arc::new(roles));
        self.advance();
        Ok(self.user_changed_now(changed))
    }

    fn role_add(&mut self, name: &str) -> Outcome {
        if name.is_empty() {
            return Err(AuthError::RoleNameEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(AuthError::RoleExists);
        }
        check_name(name)?;
        if self.roles.len() >= bounds::ROLES {
            return Err(AuthError::TooMany("roles"));
        }
        let role = Arc::new(Role::default());
        let records = vec![record::put_role(name, &role)];
        self.roles.insert(Arc::from(name), role);
        self.advance();
        // It grants nothing yet, and only `root` can have been held without a record.
        Ok(self.applied(Affected::Nobody, records))
    }

    fn role_delete(&mut self, name: &str) -> Outcome {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let (name, _) = self
            .roles
            .remove_entry(name)
            .ok_or(AuthError::RoleNotFound)?;
        let revision = self.advance();
        let mut records = vec![record::drop_role(&name)];
        let mut users = Vec::new();
        for holder in self.holders(&name) {
            let mut roles = BTreeSet::clone(&holder.roles);
            roles.remove(&name);
            let mut changed = self.with_roles(&holder, Arc::new(roles));
            changed.epoch = revision;
            let user = self.put_user(changed);
            records.push(record::put_user(&user));
            users.push((user.id, Some(user)));
        }
        let affected = Affected::Some {
            users,
            roles: vec![name],
        };
        Ok(self.applied(affected, records))
    }

    fn role_grant(&mut self, name: &str, permission: Option<&Permission>) -> Outcome {
        let permission = permission.ok_or(AuthError::PermissionNotGiven)?;
        permission.check()?;
        let role = self.roles.get(name).ok_or(AuthError::RoleNotFound)?;
        let same = role.kind_of(&permission.keys) == Some(permission.kind);
        let changed = role.with(permission)?;
        self.advance();
        if same {
            // etcd counts it as a change, and it is none.
            return Ok(self.applied(Affected::Nobody, Vec::new()));
        }
        Ok(self.role_changed(name, changed))
    }

    fn role_revoke(&mut self, name: &str, keys: &KeyRange) -> Outcome {
        let role = self.roles.get(name).ok_or(AuthError::RoleNotFound)?;
        let changed = role.without(keys).ok_or(AuthError::PermissionNotGranted)?;
        self.advance();
        Ok(self.role_changed(name, changed))
    }

    fn upgrade_password(
        &mut self,
        id: UserId,
        credential: u64,
        password: &PasswordHash,
    ) -> Applied {
        let Some(user) = self.by_id.get(&id) else {
            return Applied::nothing();
        };
        if user.credential != credential || user.password.is_none() {
            return Applied::nothing();
        }
        let mut changed = User::clone(user);
        changed.password = Some(password.clone());
        let user = self.put_user(changed);
        Applied {
            affected: Affected::Nobody,
            records: vec![record::put_user(&user)],
        }
    }

    fn advance(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    /// An outcome with the settings' record, which holds the revision, before the others.
    fn applied(&self, affected: Affected, others: Vec<RecordChange>) -> Applied {
        let mut records = Vec::with_capacity(1 + others.len());
        records.push(record::put_settings(self));
        records.extend(others);
        Applied { affected, records }
    }

    /// The outcome of a change of a user's own that makes older tokens invalid.
    fn user_changed_now(&mut self, mut user: User) -> Applied {
        user.epoch = self.revision;
        self.user_changed(user)
    }

    fn user_changed(&mut self, user: User) -> Applied {
        let user = self.put_user(user);
        let records = vec![record::put_user(&user)];
        self.applied(of_users(vec![(user.id, Some(user))]), records)
    }

    /// The outcome of other permissions in a role: its holders get them, their tokens stay valid.
    fn role_changed(&mut self, name: &str, role: Role) -> Applied {
        let records = vec![record::put_role(name, &role)];
        let name = match self.roles.get_key_value(name) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(name),
        };
        self.roles.insert(Arc::clone(&name), Arc::new(role));
        if *name == *ROOT {
            // Whoever holds it may do everything anyway, and nobody holds it by another issuer's word.
            return self.applied(Affected::Nobody, records);
        }
        let mut users = Vec::new();
        for holder in self.holders(&name) {
            let changed = self.with_roles(&holder, Arc::clone(&holder.roles));
            let user = self.put_user(changed);
            users.push((user.id, Some(user)));
        }
        let affected = Affected::Some {
            users,
            roles: vec![name],
        };
        self.applied(affected, records)
    }

    fn holders(&self, role: &str) -> Vec<Arc<User>> {
        let holders = self.users.values().filter(|user| user.roles.contains(role));
        holders.cloned().collect()
    }

    /// The user with these roles as they are now; its grants are worked out anew.
    fn with_roles(&self, user: &User, roles: Arc<BTreeSet<Arc<str>>>) -> User {
        User {
            held: self.held(&roles),
            roles,
            grants: OnceLock::new(),
            name: Arc::clone(&user.name),
            password: user.password.clone(),
            ..*user
        }
    }

    /// The records of roles, without `root`, which needs none and is not read.
    pub(super) fn held(&self, roles: &BTreeSet<Arc<str>>) -> Arc<[Arc<Role>]> {
        roles
            .iter()
            .filter(|name| ***name != *ROOT)
            .filter_map(|name| self.roles.get(name).cloned())
            .collect()
    }

    pub(super) fn put_user(&mut self, user: User) -> Arc<User> {
        let user = Arc::new(user);
        self.by_id.insert(user.id, Arc::clone(&user));
        self.users.insert(Arc::clone(&user.name), Arc::clone(&user));
        user
    }
}

fn of_users(users: Vec<(UserId, Option<Arc<User>>)>) -> Affected {
    Affected::Some {
        users,
        roles: Vec::new(),
    }
}

/// Names reach logs, audit records and metrics.
pub(super) fn check_name(name: &str) -> Result<(), AuthError> {
    if name.len() > bounds::NAME_BYTES {
        return Err(AuthError::NameTooLong);
    }
    if name.chars().any(char::is_control) {
        return Err(AuthError::BadName);
    }
    Ok(())
}
