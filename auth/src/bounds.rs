//! How much one tenant's users and roles may be: all of it is held in memory by every member.

/// Users of a tenant.
pub const USERS: usize = 10_000;
/// Roles of a tenant.
pub const ROLES: usize = 10_000;
/// Permissions of a role.
pub const PERMISSIONS_PER_ROLE: usize = 1_000;
/// Bytes of keys and range ends in a role: its record is written whole on each change.
pub const KEY_BYTES_PER_ROLE: usize = 1 << 20;
/// Roles of a user, or of a caller whom another issuer vouches for.
pub const ROLES_PER_USER: usize = 1_000;
/// Bytes of a user's or role's name.
pub const NAME_BYTES: usize = 256;
