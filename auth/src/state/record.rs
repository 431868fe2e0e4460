//! The records of users and roles among the small state records of the store.
//!
//! Keys: `s`; `u` and a user's name; `r` and a role's name. Values begin with a format byte (1); numbers are little-endian:
//!
//! * settings: enabled (u8, 0 or 1), auth revision (u64), the one at which it was last switched off (u64, 0 for never).
//! * user: id, epoch, credential (u64 each), password hash (u16 length and text, empty for none), roles (u16 count, then u16 length
//!   and name each, ascending).
//! * role: permissions (u16 count, then each: kind (u8: 1 read, 2 write, 3 both), key and range end (u32 length and bytes), ascending).

use super::AuthState;
use super::apply::check_name;
use crate::permission::{Permission, PermissionKind, Role};
use crate::{KeyRange, PasswordHash, ROOT, RecordChange, User, UserId, bounds};
use bytes::{BufMut, Bytes};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

const FORMAT: u8 = 1;
const SETTINGS: u8 = b's';
const USER: u8 = b'u';
const ROLE: u8 = b'r';

/// Revisions end where the wire's signed numbers do.
const MAX_REVISION: u64 = i64::MAX as u64;

/// Records that are not what [`AuthState::records`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The key is of no known kind.
    #[error("auth record of unknown kind")]
    Kind,
    /// Written by a newer version, or damaged.
    #[error("auth record of unknown format {0}")]
    Format(u8),
    /// Bytes are missing.
    #[error("auth record ends early")]
    Truncated,
    /// Bytes are left over.
    #[error("auth record has bytes left over")]
    Trailing,
    /// A name is empty, too long or not text.
    #[error("auth record with an impossible name")]
    Name,
    /// A field has a value that is never written.
    #[error("auth record with an impossible {0}")]
    Field(&'static str),
    /// More than is ever kept.
    #[error("auth records with too many {0}")]
    TooMany(&'static str),
    /// The same record or id twice.
    #[error("auth records with a {0} twice")]
    Twice(&'static str),
    /// The records do not fit together.
    #[error("auth records without {0}")]
    Without(&'static str),
}

impl AuthState {
    /// All records of this state, by key: what the sum of [`Applied::records`](crate::Applied::records) comes to.
    pub fn records(&self) -> impl Iterator<Item = (Bytes, Bytes)> {
        let roles = self
            .roles
            .iter()
            .map(|(name, role)| (key(ROLE, name), encode_role(role)));
        let settings = (key(SETTINGS, ""), encode_settings(self));
        let users = self
            .users
            .iter()
            .map(|(name, user)| (key(USER, name), encode_user(user)));
        roles.chain([settings]).chain(users)
    }

    /// Reads a state from its records, in any order. No records are a state in which nothing happened.
    ///
    /// # Errors
    /// [`RecordError`] for the first thing that cannot be.
    pub fn restore(
        records: impl Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<AuthState, RecordError> {
        let mut settings = None;
        let mut users = BTreeMap::new();
        let mut state = AuthState::new();
        for (key, value) in records {
            let (&kind, name) = key.split_first().ok_or(RecordError::Kind)?;
            let mut fields = Fields::new(&value)?;
            match kind {
                SETTINGS if name.is_empty() => {
                    if settings.replace(decode_settings(&mut fields)?).is_some() {
                        return Err(RecordError::Twice("record"));
                    }
                }
                USER => {
                    let name = decode_name(name)?;
                    let user = decode_user(Arc::clone(&name), &mut fields)?;
                    insert_once(&mut users, name, user, bounds::USERS, "users")?;
                }
                ROLE => {
                    let role = Arc::new(decode_role(&mut fields)?);
                    let name = decode_name(name)?;
                    insert_once(&mut state.roles, name, role, bounds::ROLES, "roles")?;
                }
                _ => return Err(RecordError::Kind),
            }
            fields.end()?;
        }
        match settings {
            Some(settings) => {
                (state.enabled, state.revision, state.tokens_since) = settings;
            }
            None if users.is_empty() && state.roles.is_empty() => return Ok(state),
            None => return Err(RecordError::Without("settings")),
        }
        for mut user in users.into_values() {
            if user.epoch > state.revision {
                return Err(RecordError::Field("epoch"));
            }
            if state.by_id.contains_key(&user.id) {
                return Err(RecordError::Twice("user id"));
            }
            user.held = state.held(&user.roles);
            let without_record = usize::from(user.is_root());
            if user.held.len() + without_record != user.roles.len() {
                return Err(RecordError::Without("a role that a user holds"));
            }
            state.put_user(user);
        }
        let root_is_root = state.users.get(ROOT).is_some_and(|root| root.is_root());
        if state.enabled && !root_is_root {
            return Err(RecordError::Without("the root that being enabled needs"));
        }
        Ok(state)
    }
}

fn insert_once<T>(
    map: &mut BTreeMap<Arc<str>, T>,
    name: Arc<str>,
    value: T,
    limit: usize,
    what: &'static str,
) -> Result<(), RecordError> {
    if map.insert(name, value).is_some() {
        return Err(RecordError::Twice("record"));
    }
    if map.len() > limit {
        return Err(RecordError::TooMany(what));
    }
    Ok(())
}

pub(super) fn put_settings(state: &AuthState) -> RecordChange {
    RecordChange::Put(key(SETTINGS, ""), encode_settings(state))
}

pub(super) fn put_user(user: &User) -> RecordChange {
    RecordChange::Put(key(USER, &user.name), encode_user(user))
}

pub(super) fn drop_user(name: &str) -> RecordChange {
    RecordChange::Drop(key(USER, name))
}

pub(super) fn put_role(name: &str, role: &Role) -> RecordChange {
    RecordChange::Put(key(ROLE, name), encode_role(role))
}

pub(super) fn drop_role(name: &str) -> RecordChange {
    RecordChange::Drop(key(ROLE, name))
}

fn key(kind: u8, name: &str) -> Bytes {
    let mut key = Vec::with_capacity(1 + name.len());
    key.push(kind);
    key.extend_from_slice(name.as_bytes());
    Bytes::from(key)
}

fn encode_settings(state: &AuthState) -> Bytes {
    let mut out = vec![FORMAT, u8::from(state.enabled)];
    out.put_u64_le(state.revision);
    out.put_u64_le(state.tokens_since);
    Bytes::from(out)
}

fn decode_settings(fields: &mut Fields<'_>) -> Result<(bool, u64, u64), RecordError> {
    let enabled = match fields.number()? {
        [0] => false,
        [1] => true,
        _ => return Err(RecordError::Field("switch")),
    };
    let revision = u64::from_le_bytes(fields.number()?);
    if !(1..=MAX_REVISION).contains(&revision) {
        return Err(RecordError::Field("revision"));
    }
    let tokens_since = u64::from_le_bytes(fields.number()?);
    if tokens_since > revision {
        return Err(RecordError::Field("epoch"));
    }
    Ok((enabled, revision, tokens_since))
}

fn encode_user(user: &User) -> Bytes {
    let mut out = vec![FORMAT];
    for number in [user.id.0, user.epoch, user.credential] {
        out.put_u64_le(number);
    }
    let password = user.password.as_ref().map_or("", PasswordHash::as_str);
    short_text(password, &mut out);
    // At most `bounds::ROLES_PER_USER`.
    out.put_u16_le(user.roles.len() as u16);
    for role in user.roles.iter() {
        short_text(role, &mut out);
    }
    Bytes::from(out)
}

/// The user without the records of its roles.
fn decode_user(name: Arc<str>, fields: &mut Fields<'_>) -> Result<User, RecordError> {
    let id = u64::from_le_bytes(fields.number()?);
    let epoch = u64::from_le_bytes(fields.number()?);
    let credential = u64::from_le_bytes(fields.number()?);
    // The first change makes revision 2.
    if !(2 <= id && id <= credential && credential <= epoch) {
        return Err(RecordError::Field("epoch"));
    }
    let password = match std::str::from_utf8(fields.short()?) {
        Ok("") => None,
        Ok(text) => {
            Some(PasswordHash::parse(text).map_err(|_| RecordError::Field("password hash"))?)
        }
        Err(_) => return Err(RecordError::Field("password hash")),
    };
    let count = usize::from(u16::from_le_bytes(fields.number()?));
    if count > bounds::ROLES_PER_USER {
        return Err(RecordError::TooMany("roles of a user"));
    }
    let mut roles = BTreeSet::new();
    for _ in 0..count {
        let role = decode_name(fields.short()?)?;
        if roles.last().is_some_and(|last| *last >= role) {
            return Err(RecordError::Field("order of roles"));
        }
        roles.insert(role);
    }
    Ok(User {
        id: UserId(id),
        name,
        password,
        roles: Arc::new(roles),
        epoch,
        credential,
        held: Arc::default(),
        grants: OnceLock::new(),
    })
}

fn encode_role(role: &Role) -> Bytes {
    let mut out = vec![FORMAT];
    // At most `bounds::PERMISSIONS_PER_ROLE`.
    out.put_u16_le(role.permissions().len() as u16);
    for permission in role.permissions() {
        out.put_u8(match permission.kind {
            PermissionKind::Read => 1,
            PermissionKind::Write => 2,
            PermissionKind::ReadWrite => 3,
        });
        let (key, end) = permission.keys.to_pair();
        for part in [key, end] {
            // At most `bounds::KEY_BYTES_PER_ROLE`.
            out.put_u32_le(part.len() as u32);
            out.extend_from_slice(&part);
        }
    }
    Bytes::from(out)
}

fn decode_role(fields: &mut Fields<'_>) -> Result<Role, RecordError> {
    let count = usize::from(u16::from_le_bytes(fields.number()?));
    if count > bounds::PERMISSIONS_PER_ROLE {
        return Err(RecordError::TooMany("permissions in a role"));
    }
    let mut permissions = Vec::new();
    let mut last = None;
    for _ in 0..count {
        let kind = match fields.number()? {
            [1] => PermissionKind::Read,
            [2] => PermissionKind::Write,
            [3] => PermissionKind::ReadWrite,
            _ => return Err(RecordError::Field("kind of permission")),
        };
        let pair = (fields.long()?, fields.long()?);
        if last.replace(pair).is_some_and(|last| last >= pair) {
            return Err(RecordError::Field("order of permissions"));
        }
        let keys = KeyRange::from_pair(
            Bytes::copy_from_slice(pair.0),
            Bytes::copy_from_slice(pair.1),
        );
        permissions.push(Permission { keys, kind });
    }
    Role::of(permissions).map_err(|_| RecordError::Field("permission"))
}

fn decode_name(bytes: &[u8]) -> Result<Arc<str>, RecordError> {
    let name = std::str::from_utf8(bytes).map_err(|_| RecordError::Name)?;
    if name.is_empty() || check_name(name).is_err() {
        return Err(RecordError::Name);
    }
    Ok(Arc::from(name))
}

/// Names and password hashes: bounded far below 64 KiB.
fn short_text(text: &str, out: &mut Vec<u8>) {
    out.put_u16_le(text.len() as u16);
    out.extend_from_slice(text.as_bytes());
}

/// The fields of a record's value, taken from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn new(value: &'a [u8]) -> Result<Fields<'a>, RecordError> {
        match value.split_first() {
            Some((&FORMAT, fields)) => Ok(Fields(fields)),
            Some((&format, _)) => Err(RecordError::Format(format)),
            None => Err(RecordError::Truncated),
        }
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (number, rest) = self.0.split_first_chunk().ok_or(RecordError::Truncated)?;
        self.0 = rest;
        Ok(*number)
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], RecordError> {
        let (bytes, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(RecordError::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn short(&mut self) -> Result<&'a [u8], RecordError> {
        let length = u16::from_le_bytes(self.number()?);
        self.bytes(usize::from(length))
    }

    fn long(&mut self) -> Result<&'a [u8], RecordError> {
        let length = u32::from_le_bytes(self.number()?);
        self.bytes(length as usize)
    }

    fn end(&self) -> Result<(), RecordError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(RecordError::Trailing)
        }
    }
}
