//! What a message touches, read out of the wire message key by key, and whether it is granted: a second opinion that shares nothing
//! with the server's reading and with the decision's ranges.

use holdfast_auth::PermissionKind::{self, Read, ReadWrite, Write};
use holdfast_auth::Verb;
use holdfast_proto::etcdserverpb as pb;

/// Role, kind, key and range end, as etcd has them.
pub(super) const GRANTS: &[(&str, PermissionKind, &str, &str)] = &[
    ("narrow", Read, "a", "c"),
    ("narrow", Read, "k", ""),
    ("narrow", Read, "k\0", ""),
    ("narrow", Write, "b", "d"),
    ("narrow", ReadWrite, "x/", "x0"),
    ("tail", Read, "c", "e"),
    ("tail", Write, "y", "\0"),
    ("tail", Read, "z", "\0"),
];

/// Keys from the first on and before the second; without a second, all from the first on.
type Interval = (Vec<u8>, Option<Vec<u8>>);

/// One thing that a message asks for.
#[derive(Debug)]
pub(super) struct Wish {
    verb: Verb,
    keys: Interval,
}

impl Wish {
    fn new(verb: Verb, key: &[u8], end: &[u8]) -> Wish {
        Wish {
            verb,
            keys: interval(key, end),
        }
    }

    pub(super) fn of_watch(wire: &pb::WatchCreateRequest) -> Wish {
        let key: &[u8] = if wire.key.is_empty() {
            b"\0"
        } else {
            &wire.key
        };
        Wish::new(Verb::Read, key, &wire.range_end)
    }
}

fn interval(key: &[u8], end: &[u8]) -> Interval {
    match (key, end) {
        // The first key of all is the one of no bytes.
        (b"" | b"\0", b"\0") => (Vec::new(), None),
        (_, b"\0") => (key.to_vec(), None),
        // Behind a key there is nothing before the key with a zero byte more.
        (_, b"") => (key.to_vec(), Some([key, b"\0"].concat())),
        _ => (key.to_vec(), Some(end.to_vec())),
    }
}

pub(super) fn of_range(wire: &pb::RangeRequest, wishes: &mut Vec<Wish>) {
    wishes.push(Wish::new(Verb::Read, &wire.key, &wire.range_end));
}

pub(super) fn of_put(wire: &pb::PutRequest, wishes: &mut Vec<Wish>) {
    wishes.push(Wish::new(Verb::Write, &wire.key, b""));
    if wire.prev_kv {
        wishes.push(Wish::new(Verb::Read, &wire.key, b""));
    }
}

pub(super) fn of_delete(wire: &pb::DeleteRangeRequest, wishes: &mut Vec<Wish>) {
    wishes.push(Wish::new(Verb::Write, &wire.key, &wire.range_end));
    if wire.prev_kv {
        wishes.push(Wish::new(Verb::Read, &wire.key, &wire.range_end));
    }
}

pub(super) fn of_txn(wire: &pb::TxnRequest, wishes: &mut Vec<Wish>) {
    use pb::request_op::Request;
    for compare in &wire.compare {
        wishes.push(Wish::new(Verb::Read, &compare.key, &compare.range_end));
    }
    for op in wire.success.iter().chain(&wire.failure) {
        match &op.request {
            Some(Request::RequestRange(wire)) => of_range(wire, wishes),
            Some(Request::RequestPut(wire)) => of_put(wire, wishes),
            Some(Request::RequestDeleteRange(wire)) => of_delete(wire, wishes),
            Some(Request::RequestTxn(wire)) => of_txn(wire, wishes),
            None => {}
        }
    }
}

/// What somebody may do.
pub(super) struct Rights {
    read: Vec<Interval>,
    write: Vec<Interval>,
}

impl Rights {
    pub(super) fn of(roles: &[&str]) -> Rights {
        let intervals = |other: PermissionKind| {
            GRANTS
                .iter()
                .filter(|(role, kind, ..)| roles.contains(role) && *kind != other)
                .map(|(_, _, key, end)| interval(key.as_bytes(), end.as_bytes()))
                .collect()
        };
        Rights {
            read: intervals(Write),
            write: intervals(Read),
        }
    }

    /// Whether each key that is asked for is granted. Going up from the first key, grants can stop to cover only where one of them
    /// ends, so it is enough to look at the first key and at those ends.
    pub(super) fn cover(&self, wish: &Wish) -> bool {
        let granted = match wish.verb {
            Verb::Read => &self.read,
            Verb::Write => &self.write,
        };
        let (first, end) = &wish.keys;
        let asked = |key: &[u8]| first[..] <= *key && end.as_ref().is_none_or(|end| *key < end[..]);
        if !asked(first) {
            // No key at all.
            return true;
        }
        let ends = granted.iter().filter_map(|(_, end)| end.as_deref());
        std::iter::once(&first[..])
            .chain(ends.filter(|key| asked(key)))
            .all(|key| {
                granted.iter().any(|(first, end)| {
                    first[..] <= *key && end.as_ref().is_none_or(|end| *key < end[..])
                })
            })
    }
}
