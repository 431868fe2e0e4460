//! Catch-up: the hub's rounds for watches that are behind, fed from the store.

use super::fan_out::{deliver, wants};
use super::{Hub, State};
use crate::watch::History;
use bytes::Bytes;
use holdfast_storage::{Row, TenantId};
use std::collections::HashMap;

/// Distinct revisions in one catch-up answer (etcd's bound).
const CATCH_UP_REVISIONS: usize = 1000;
/// Bytes of rows read in one catch-up round: bounds the memory of a round and the size of its answers.
const CATCH_UP_BYTES: usize = 2 << 20;
/// Watches served by one catch-up round (etcd's bound).
const CATCH_UP_WATCHES: usize = 512;

impl Hub {
    /// One round: the watch that has waited longest, and those next to it in history, are fed from there.
    pub(super) fn catch_up(&mut self) -> bool {
        let tenants: Vec<TenantId> = self
            .tenants
            .iter()
            .filter(|(_, watches)| !watches.behind.is_empty())
            .map(|(tenant, _)| *tenant)
            .collect();
        for tenant in &tenants {
            self.catch_up_tenant(*tenant);
        }
        tenants
            .iter()
            .any(|tenant| !self.tenants[tenant].behind.is_empty())
    }

    fn catch_up_tenant(&mut self, tenant: TenantId) {
        let Some(watches) = self.tenants.get_mut(&tenant) else {
            return;
        };
        let Some((_, first)) = watches.turns.first() else {
            return;
        };
        let from = self.watches[*first as usize]
            .as_ref()
            .map_or(i64::MIN, |watch| watch.next);
        let taken: Vec<(i64, u32)> = watches
            .behind
            .range((from, *first)..)
            .take(CATCH_UP_WATCHES)
            .copied()
            .collect();
        let mut chosen: Vec<u32> = Vec::with_capacity(taken.len());
        for behind in taken {
            let index = behind.1;
            watches.behind.remove(&behind);
            if let Some(watch) = &self.watches[index as usize] {
                watches.turns.remove(&(watch.turn, index));
            }
            chosen.push(index);
        }
        let from = chosen
            .iter()
            .filter_map(|index| self.watches[*index as usize].as_ref())
            .map(|watch| watch.next)
            .min()
            .unwrap_or(1);
        let (readable, unfed) = (watches.readable, watches.unfed);
        let fanned_out = watches.fanned_out;
        let read = read_history(&*self.history, tenant, from, readable);
        let compacted = self.history.compacted(tenant);
        let (rows, through) = match read {
            Ok(read) => read,
            Err(error) => {
                // The store cannot be read: end these watches, so that clients reconnect rather than miss events.
                tracing::error!(%error, "cannot read history for watches");
                for index in chosen {
                    self.end(index, 0, 0, String::new());
                }
                return;
            }
        };
        let mut cache: HashMap<(usize, bool), Bytes> = HashMap::new();
        for index in chosen {
            let Some(watch) = &mut self.watches[index as usize] else {
                continue;
            };
            if watch.next < compacted {
                self.end(index, 0, compacted, String::new());
                continue;
            }
            if !watch.sink.has_room() {
                watch.state = State::Stalled;
                continue;
            }
            if through < watch.next && watch.next <= fanned_out.max(unfed) {
                // What was read ends before it: it keeps its turn.
                if let Some(watches) = self.tenants.get_mut(&tenant) {
                    watches.behind.insert((watch.next, index));
                    watches.turns.insert((watch.turn, index));
                }
                continue;
            }
            let first = rows.partition_point(|row| row.revision.main < watch.next);
            let events: Vec<Bytes> = rows[first..]
                .iter()
                .enumerate()
                .filter(|(_, row)| {
                    watch.request.keys.contains(&row.key) && wants(&watch.request, row)
                })
                .map(|(offset, row)| {
                    let previous = watch.request.previous;
                    cache
                        .entry((first + offset, previous))
                        .or_insert_with(|| {
                            let replaced = previous
                                .then(|| replaced_by(&*self.history, tenant, row))
                                .flatten();
                            (self.encode)(row, replaced.as_ref())
                        })
                        .clone()
                })
                .collect();
            watch.next = watch.next.max(through + 1);
            if !events.is_empty() {
                deliver(watch, events, readable, self.limits.fragment_bytes);
            }
            // What comes after it is still on its way through the inbox.
            if watch.next > fanned_out.max(unfed) {
                watch.state = State::Current;
            } else {
                let next = watch.next;
                self.fall_behind(index, next);
            }
        }
    }
}

/// What a key was before the transaction of `row`; nothing for a creation (behaviour §3.7).
pub(super) fn replaced_by(history: &dyn History, tenant: TenantId, row: &Row) -> Option<Row> {
    if !row.tombstone && row.create_revision == row.revision.main {
        return None;
    }
    history.before(tenant, &row.key, row.revision.main)
}

/// Reads whole transactions from `from` on. Returns them and the last revision that they are complete for.
fn read_history(
    history: &dyn History,
    tenant: TenantId,
    from: i64,
    readable: i64,
) -> Result<(Vec<Row>, i64), String> {
    if from > readable {
        return Ok((Vec::new(), readable));
    }
    let mut rows: Vec<Row> = Vec::new();
    let (mut bytes, mut revisions, mut cut) = (0usize, 0usize, false);
    history.scan(tenant, from, readable, &mut |row| {
        let is_new = rows
            .last()
            .is_none_or(|last| last.revision.main != row.revision.main);
        if is_new {
            if revisions >= CATCH_UP_REVISIONS || bytes >= CATCH_UP_BYTES {
                cut = true;
                return false;
            }
            revisions += 1;
        }
        bytes += row.key.len() + row.value.len();
        rows.push(row);
        true
    })?;
    let through = match rows.last() {
        Some(last) if cut => last.revision.main,
        _ => readable,
    };
    Ok((rows, through))
}
