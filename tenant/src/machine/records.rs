//! The keys of the state records (`docs/ARCHITECTURE.md`, "Files").

use crate::answer::Alarm;
use crate::state::alarm_bit;
use bytes::{BufMut, Bytes, BytesMut};
use holdfast_storage::TenantId;

pub(super) const REVISION: u8 = b'r';
pub(super) const COMPACTED: u8 = b'c';
pub(super) const LEASE: u8 = b'l';
pub(super) const ALARM: u8 = b'a';
/// Users and roles. What follows the tenant is the key that the record has in [`holdfast_auth::AuthState`].
pub(super) const AUTH: u8 = b'u';
/// A token key. It belongs to the whole group, so that no tenant follows but the key's id.
pub(super) const TOKEN_KEY: u8 = b'k';
/// A member; its id follows. Of the whole group, as are those that were removed.
pub(super) const MEMBER: u8 = b'm';
/// The id of a member that was removed.
pub(super) const REMOVED: u8 = b'd';
/// The last term of a group that one member was made the only one of; until an entry of a later term is applied. Of the whole group.
pub(super) const GIVEN_UP: u8 = b'f';

pub(super) fn record_key(kind: u8, tenant: TenantId, rest: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(5 + rest.len());
    key.put_u8(kind);
    key.put_u32(tenant.0);
    key.put_slice(rest);
    key.freeze()
}

pub(super) fn lease_key(tenant: TenantId, id: i64) -> Bytes {
    record_key(LEASE, tenant, &id.to_be_bytes())
}

pub(super) fn alarm_key(tenant: TenantId, alarm: Alarm) -> Bytes {
    let mut rest = alarm.member.to_be_bytes().to_vec();
    rest.push(alarm_bit(alarm.kind));
    record_key(ALARM, tenant, &rest)
}

pub(super) fn auth_key(tenant: TenantId, key: &[u8]) -> Bytes {
    record_key(AUTH, tenant, key)
}

pub(super) fn member_key(id: u64) -> Bytes {
    [&[MEMBER][..], &id.to_be_bytes()].concat().into()
}

pub(super) fn removed_key(id: u64) -> Bytes {
    [&[REMOVED][..], &id.to_be_bytes()].concat().into()
}

pub(super) fn token_key(kid: &str) -> Bytes {
    [&[TOKEN_KEY], kid.as_bytes()].concat().into()
}
