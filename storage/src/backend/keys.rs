//! The layout of keys in the two fjall keyspaces.
//!
//! Rows have a keyspace of their own because they arrive in revision order: tables then do not overlap and compaction moves
//! them instead of rewriting them. Everything small shares the other one, told apart by the first byte.

use crate::types::{Revision, TenantId};

/// Rows: `tenant u32 BE | main i64 BE | sub u32 BE`.
pub(super) const ROWS_KEYSPACE: &str = "rows";
/// The format version, the applied position and the state machine's small records.
pub(super) const META_KEYSPACE: &str = "meta";

/// Bytes of a row key.
pub(super) const ROW_KEY_LEN: usize = 16;

/// Key of the format version in the meta keyspace.
pub(super) const FORMAT_KEY: [u8; 1] = [0];
/// First byte of the applied records: `1 | batch number u64 BE -> index u64 BE | term u64 BE`. Each batch writes its own and
/// removes its predecessor's, so exactly one is there unless a batch in the middle of the history is missing.
pub(super) const APPLIED_PREFIX: u8 = 1;
/// First byte of the state machine's small records.
pub(super) const META_PREFIX: u8 = 2;

/// fjall's keys are at most 65,535 bytes, one of which is [`META_PREFIX`].
pub(super) const META_KEY_MAX_BYTES: usize = 65_534;

pub(super) fn row_key(tenant: TenantId, revision: Revision) -> [u8; ROW_KEY_LEN] {
    let mut key = [0; ROW_KEY_LEN];
    key[..4].copy_from_slice(&tenant.0.to_be_bytes());
    key[4..12].copy_from_slice(&revision.main.to_be_bytes());
    key[12..].copy_from_slice(&revision.sub.to_be_bytes());
    key
}

/// The tenant and revision a row key names; `None` if it is not one.
pub(super) fn parse_row_key(key: &[u8]) -> Option<(TenantId, Revision)> {
    let key: &[u8; ROW_KEY_LEN] = key.try_into().ok()?;
    let (tenant, rest) = key.split_first_chunk::<4>()?;
    let (main, sub) = rest.split_first_chunk::<8>()?;
    let main = i64::from_be_bytes(*main);
    if main < 0 {
        return None;
    }
    let sub = u32::from_be_bytes(sub.try_into().ok()?);
    Some((
        TenantId(u32::from_be_bytes(*tenant)),
        Revision { main, sub },
    ))
}

pub(super) fn applied_key(batch: u64) -> [u8; 9] {
    let mut key = [APPLIED_PREFIX; 9];
    key[1..].copy_from_slice(&batch.to_be_bytes());
    key
}

pub(super) fn meta_key(key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 1);
    full.push(META_PREFIX);
    full.extend_from_slice(key);
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_keys_sort_by_tenant_then_revision_and_parse_back() {
        let order = [
            (1, 0, 0),
            (1, 2, 0),
            (1, 2, 1),
            (1, 256, 0),
            (1, i64::MAX, u32::MAX),
            (2, 1, 0),
            (u32::MAX, 1, 0),
        ];
        let keys: Vec<_> = order
            .iter()
            .map(|&(t, main, sub)| row_key(TenantId(t), Revision { main, sub }))
            .collect();
        assert!(keys.is_sorted());
        for (key, &(t, main, sub)) in keys.iter().zip(&order) {
            assert_eq!(
                parse_row_key(key),
                Some((TenantId(t), Revision { main, sub }))
            );
        }
        assert_eq!(parse_row_key(&keys[0][..15]), None);
        assert_eq!(
            parse_row_key(&row_key(TenantId(1), Revision { main: -1, sub: 0 })),
            None
        );
    }
}
