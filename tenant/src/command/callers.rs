//! Who a command is made by, and the changes of users and roles.

use super::codec::{
    blob, decode_keys, encode_keys, take_blob, take_count, take_u8, take_unsigned, unsigned,
};
use super::{DecodeError, RESERVE};
use crate::token_key::TokenKeyRecord;
use bytes::{Buf, BufMut, Bytes};
use holdfast_auth::{
    AuthChange, Caller, KeyRange, PasswordHash, Permission, PermissionKind, TokenEpochs, UserId,
    bounds,
};
use std::sync::Arc;

/// Longest subject of a caller whom another issuer vouches for, bytes. With its kind it is a lease's owner, which has at most 512.
pub const SUBJECT_BYTES_MAX: usize = 511;

const ANONYMOUS: u8 = 1;
const USER: u8 = 2;
const USER_WITH_TOKEN: u8 = 3;
const EXTERNAL: u8 = 4;

/// Writes a caller other than the server.
pub(super) fn encode_caller(caller: &Caller, out: &mut Vec<u8>) {
    match caller {
        Caller::User { id, token: None } => {
            out.put_u8(USER);
            unsigned(id.0, out);
        }
        Caller::User {
            id,
            token: Some(token),
        } => {
            out.put_u8(USER_WITH_TOKEN);
            unsigned(id.0, out);
            unsigned(token.epoch, out);
            unsigned(token.credential, out);
        }
        Caller::External { subject, roles } if is_bounded(subject, roles) => {
            out.put_u8(EXTERNAL);
            blob(subject.as_bytes(), out);
            unsigned(roles.len() as u64, out);
            for role in roles.iter() {
                blob(role.as_bytes(), out);
            }
        }
        // Whoever is beyond the bounds is nobody: a log that cannot be read would stop all members.
        Caller::External { .. } | Caller::Anonymous | Caller::Server => out.put_u8(ANONYMOUS),
    }
}

fn is_bounded(subject: &str, roles: &[Arc<str>]) -> bool {
    subject.len() <= SUBJECT_BYTES_MAX
        && roles.len() <= bounds::ROLES_PER_USER
        && roles.iter().all(|role| role.len() <= bounds::NAME_BYTES)
}

pub(super) fn decode_caller(body: &mut Bytes) -> Result<Caller, DecodeError> {
    Ok(match take_u8(body)? {
        ANONYMOUS => Caller::Anonymous,
        USER => Caller::User {
            id: UserId(take_unsigned(body)?),
            token: None,
        },
        USER_WITH_TOKEN => Caller::User {
            id: UserId(take_unsigned(body)?),
            token: Some(TokenEpochs {
                epoch: take_unsigned(body)?,
                credential: take_unsigned(body)?,
            }),
        },
        EXTERNAL => {
            let subject = Arc::from(take_text(body)?);
            let count = take_count(body)?;
            let mut roles: Vec<Arc<str>> = Vec::with_capacity(count.min(RESERVE));
            for _ in 0..count.min(bounds::ROLES_PER_USER + 1) {
                roles.push(Arc::from(take_text(body)?));
            }
            if !is_bounded(&subject, &roles) {
                return Err(DecodeError::Unknown("size of a caller"));
            }
            Caller::External {
                subject,
                roles: roles.into(),
            }
        }
        _ => return Err(DecodeError::Unknown("caller")),
    })
}

const ENABLE: u8 = 1;
const DISABLE: u8 = 2;
const USER_ADD: u8 = 3;
const USER_DELETE: u8 = 4;
const USER_CHANGE_PASSWORD: u8 = 5;
const USER_GRANT_ROLE: u8 = 6;
const USER_REVOKE_ROLE: u8 = 7;
const ROLE_ADD: u8 = 8;
const ROLE_DELETE: u8 = 9;
const ROLE_GRANT_PERMISSION: u8 = 10;
const ROLE_REVOKE_PERMISSION: u8 = 11;
const UPGRADE_PASSWORD: u8 = 12;

pub(super) fn encode_auth(change: &AuthChange, out: &mut Vec<u8>) {
    let mut named = |kind: u8, names: &[&str]| {
        out.put_u8(kind);
        names.iter().for_each(|name| blob(name.as_bytes(), out));
    };
    match change {
        AuthChange::Enable => named(ENABLE, &[]),
        AuthChange::Disable => named(DISABLE, &[]),
        AuthChange::UserAdd { name, password } => {
            named(USER_ADD, &[name, text_of(password.as_ref())]);
        }
        AuthChange::UserDelete { name } => named(USER_DELETE, &[name]),
        AuthChange::UserChangePassword { name, password } => {
            named(USER_CHANGE_PASSWORD, &[name, text_of(password.as_ref())]);
        }
        AuthChange::UserGrantRole { user, role } => named(USER_GRANT_ROLE, &[user, role]),
        AuthChange::UserRevokeRole { user, role } => named(USER_REVOKE_ROLE, &[user, role]),
        AuthChange::RoleAdd { name } => named(ROLE_ADD, &[name]),
        AuthChange::RoleDelete { name } => named(ROLE_DELETE, &[name]),
        AuthChange::RoleGrantPermission { role, permission } => {
            named(ROLE_GRANT_PERMISSION, &[role]);
            match permission {
                None => out.put_u8(0),
                Some(permission) => {
                    out.put_u8(match permission.kind {
                        PermissionKind::Read => 1,
                        PermissionKind::Write => 2,
                        PermissionKind::ReadWrite => 3,
                    });
                    encode_keys(&permission.keys, out);
                }
            }
        }
        AuthChange::RoleRevokePermission { role, keys } => {
            named(ROLE_REVOKE_PERMISSION, &[role]);
            encode_keys(keys, out);
        }
        AuthChange::UpgradePassword {
            user,
            credential,
            password,
        } => {
            named(UPGRADE_PASSWORD, &[text_of(Some(password))]);
            unsigned(user.0, out);
            unsigned(*credential, out);
        }
    }
}

/// Names and ranges are as they were asked for: it is the state's to refuse them, with an answer.
pub(super) fn decode_auth(body: &mut Bytes) -> Result<AuthChange, DecodeError> {
    Ok(match take_u8(body)? {
        ENABLE => AuthChange::Enable,
        DISABLE => AuthChange::Disable,
        USER_ADD => AuthChange::UserAdd {
            name: take_text(body)?,
            password: take_password(body)?,
        },
        USER_DELETE => AuthChange::UserDelete {
            name: take_text(body)?,
        },
        USER_CHANGE_PASSWORD => AuthChange::UserChangePassword {
            name: take_text(body)?,
            password: take_password(body)?,
        },
        USER_GRANT_ROLE => AuthChange::UserGrantRole {
            user: take_text(body)?,
            role: take_text(body)?,
        },
        USER_REVOKE_ROLE => AuthChange::UserRevokeRole {
            user: take_text(body)?,
            role: take_text(body)?,
        },
        ROLE_ADD => AuthChange::RoleAdd {
            name: take_text(body)?,
        },
        ROLE_DELETE => AuthChange::RoleDelete {
            name: take_text(body)?,
        },
        ROLE_GRANT_PERMISSION => AuthChange::RoleGrantPermission {
            role: take_text(body)?,
            permission: match take_u8(body)? {
                0 => None,
                kind => Some(Permission {
                    kind: match kind {
                        1 => PermissionKind::Read,
                        2 => PermissionKind::Write,
                        3 => PermissionKind::ReadWrite,
                        _ => return Err(DecodeError::Unknown("kind of permission")),
                    },
                    keys: take_kept_keys(body)?,
                }),
            },
        },
        ROLE_REVOKE_PERMISSION => AuthChange::RoleRevokePermission {
            role: take_text(body)?,
            keys: decode_keys(body)?,
        },
        UPGRADE_PASSWORD => AuthChange::UpgradePassword {
            password: take_password(body)?.ok_or(DecodeError::Unknown("password hash"))?,
            user: UserId(take_unsigned(body)?),
            credential: take_unsigned(body)?,
        },
        _ => return Err(DecodeError::Unknown("change of users or roles")),
    })
}

pub(super) fn encode_token_key(
    key: &TokenKeyRecord,
    retire_older_at: Option<u64>,
    out: &mut Vec<u8>,
) {
    blob(key.kid.as_bytes(), out);
    out.put_slice(&key.public_key);
    unsigned(key.made_at, out);
    unsigned(key.member, out);
    for time in [key.retires_at, retire_older_at] {
        match time {
            None => out.put_u8(0),
            Some(at) => {
                out.put_u8(1);
                unsigned(at, out);
            }
        }
    }
}

pub(super) fn decode_token_key(
    body: &mut Bytes,
) -> Result<(TokenKeyRecord, Option<u64>), DecodeError> {
    let kid = take_text(body)?;
    let mut public_key = [0; 32];
    if body.len() < public_key.len() {
        return Err(DecodeError::Truncated);
    }
    body.copy_to_slice(&mut public_key);
    let (made_at, member) = (take_unsigned(body)?, take_unsigned(body)?);
    let mut time = || match take_u8(body)? {
        0 => Ok(None),
        1 => take_unsigned(body).map(Some),
        _ => Err(DecodeError::Unknown("flag")),
    };
    let key = TokenKeyRecord {
        kid,
        public_key,
        made_at,
        member,
        retires_at: time()?,
    };
    Ok((key, time()?))
}

fn text_of(password: Option<&PasswordHash>) -> &str {
    password.map_or("", PasswordHash::as_str)
}

fn take_password(body: &mut Bytes) -> Result<Option<PasswordHash>, DecodeError> {
    let text = take_text(body)?;
    if text.is_empty() {
        return Ok(None);
    }
    // A hash that is not valid cannot have been encoded.
    let hash = PasswordHash::parse(&text).map_err(|_| DecodeError::Unknown("password hash"))?;
    Ok(Some(hash))
}

pub(super) fn take_text(body: &mut Bytes) -> Result<String, DecodeError> {
    let bytes = take_blob(body)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(DecodeError::Unknown("text")),
    }
}

/// A range that is kept for as long as a role has it: not as a slice of the raft entry, which would be kept with it.
fn take_kept_keys(body: &mut Bytes) -> Result<KeyRange, DecodeError> {
    let own = |bytes: Bytes| Bytes::copy_from_slice(&bytes);
    Ok(match decode_keys(body)? {
        KeyRange::Point(key) => KeyRange::Point(own(key)),
        KeyRange::Span { start, end } => KeyRange::Span {
            start: own(start),
            end: own(end),
        },
        KeyRange::From(start) => KeyRange::From(own(start)),
        KeyRange::All => KeyRange::All,
    })
}
