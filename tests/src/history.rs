//! A model of the store that is built from what clients can see: the events of every revision.

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_proto::mvccpb::{Event, KeyValue, event::EventType};
use prost::Message;
use std::collections::{BTreeMap, HashSet};

/// Every event of a store from its first revision on, in order.
#[derive(Clone, Debug, Default)]
pub struct History {
    events: Vec<Event>,
}

/// One row of the store: its revision key and the stored value, as etcd lays them out.
struct Row {
    main: i64,
    key: Bytes,
    tombstone: bool,
    stored: Vec<u8>,
    name: BytesMut,
}

impl History {
    /// Adds events, which must go on where the last ones ended: revisions never fall, and none is left out.
    ///
    /// # Panics
    /// When a revision is missing or repeated.
    pub fn extend(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            let at = mod_revision(&event);
            let last = self.last_revision();
            assert!(
                at == last || at == last + 1,
                "revision {at} follows revision {last}"
            );
            self.events.push(event);
        }
    }

    /// The last revision, or 1 for a store without one.
    pub fn last_revision(&self) -> i64 {
        self.events.last().map_or(1, mod_revision)
    }

    /// All events.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The events of one revision, in order.
    pub fn at(&self, revision: i64) -> &[Event] {
        let start = self
            .events
            .partition_point(|event| mod_revision(event) < revision);
        let end = self
            .events
            .partition_point(|event| mod_revision(event) <= revision);
        &self.events[start..end]
    }

    /// The keys and values that exist at `revision`.
    pub fn state_at(&self, revision: i64) -> BTreeMap<Bytes, KeyValue> {
        let mut state = BTreeMap::new();
        for event in &self.events {
            let kv = event.kv.clone().expect("an event has a key");
            if kv.mod_revision > revision {
                break;
            }
            if is_delete(event) {
                state.remove(&kv.key);
            } else {
                state.insert(kv.key.clone(), kv);
            }
        }
        state
    }

    /// What HashKV answers for `revision` on a store compacted at `compacted` (−1: never): CRC32-C over the bucket's name and the
    /// rows up to the revision (behaviour §3.10). Of the rows at or below the compacted revision, those count that are the
    /// newest of their key at `revision`; where no key exists at `revision`, those that the compaction left.
    pub fn hash_kv(&self, revision: i64, compacted: i64) -> u32 {
        let rows = self.rows();
        let left = newest(&rows, compacted);
        let live = newest(&rows, revision);
        let mut hash = crc32c::crc32c(b"key");
        for (index, row) in rows.iter().enumerate() {
            let kept = row.main > compacted
                || (left.contains(&index) && (live.is_empty() || live.contains(&index)));
            if row.main <= revision && kept {
                hash = crc32c::crc32c_append(hash, &row.name);
                hash = crc32c::crc32c_append(hash, &row.stored);
            }
        }
        hash
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::with_capacity(self.events.len());
        let mut sub = 0_i64;
        for event in &self.events {
            let kv = event.kv.as_ref().expect("an event has a key");
            let same = rows.last().is_some_and(|row| row.main == kv.mod_revision);
            sub = if same { sub + 1 } else { 0 };
            let tombstone = is_delete(event);
            let mut name = BytesMut::with_capacity(18);
            name.put_i64(kv.mod_revision);
            name.put_u8(b'_');
            name.put_i64(sub);
            let stored = if tombstone {
                name.put_u8(b't');
                KeyValue {
                    key: kv.key.clone(),
                    ..Default::default()
                }
                .encode_to_vec()
            } else {
                kv.encode_to_vec()
            };
            rows.push(Row {
                main: kv.mod_revision,
                key: kv.key.clone(),
                tombstone,
                stored,
                name,
            });
        }
        rows
    }
}

/// The indexes of the rows that are the newest of their key at `revision`, tombstones left out.
fn newest(rows: &[Row], revision: i64) -> HashSet<usize> {
    let mut seen = HashSet::new();
    let mut found = HashSet::new();
    for (index, row) in rows.iter().enumerate().rev() {
        if row.main <= revision && seen.insert(row.key.clone()) && !row.tombstone {
            found.insert(index);
        }
    }
    found
}

/// Whether an event is a deletion.
pub fn is_delete(event: &Event) -> bool {
    event.r#type == EventType::Delete as i32
}

/// The revision of an event.
pub fn mod_revision(event: &Event) -> i64 {
    event.kv.as_ref().expect("an event has a key").mod_revision
}
