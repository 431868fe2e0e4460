//! Random programs.

use bytes::Bytes;
use holdfast_proto::etcdserverpb as pb;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Few keys, so that operations meet. At most twelve: up to there etcd's sort keeps the order of equal rows.
const KEYS: [&[u8]; 9] = [
    b"a", b"a\0", b"ab", b"b", b"ba", b"c", b"c\xff", b"d", b"\xff",
];
const ENDS: [&[u8]; 8] = [b"", b"", b"\0", b"b", b"c", b"c\xff\0", b"a", b"\xff"];
const VALUES: [&[u8]; 5] = [b"", b"x", b"y", b"yy", b"\xff\0"];
/// Leases of a program; the TTL is long, so that none expires under way.
pub(crate) const LEASES: [i64; 3] = [11, 22, 33];

/// One step of a program. Revisions inside requests are relative: see [`resolve`].
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Range(pb::RangeRequest),
    RangeStream(pb::RangeRequest),
    Txn(pb::TxnRequest),
    /// At a relative revision; always physical, so that HashKV does not depend on when rows go.
    Compact(i64),
    Grant(i64),
    Revoke(i64),
    TimeToLive(i64),
    Leases,
    Watch(pb::WatchCreateRequest),
    /// Cancels the watch of this number, modulo how many there are.
    Cancel(usize),
    HashKv,
}

/// Relative revisions in programs: 0 stays 0, `FAR + n` means "the current one plus n", others are taken as they are.
const FAR: i64 = 1 << 40;

/// The revision that a relative one means at the current revision.
pub(crate) fn resolve(relative: i64, current: i64) -> i64 {
    if relative > FAR / 2 {
        (relative - FAR + current).max(1)
    } else {
        relative
    }
}

/// The program of a seed.
pub(crate) fn program(seed: u64, steps: usize) -> Vec<Step> {
    let mut source = Source(StdRng::seed_from_u64(seed));
    (0..steps).map(|_| source.step()).collect()
}

struct Source(StdRng);

impl Source {
    fn step(&mut self) -> Step {
        match self.below(100) {
            0..30 => Step::Put(self.put()),
            30..40 => Step::Delete(self.delete()),
            40..58 => Step::Range(self.range()),
            58..61 => Step::RangeStream(self.range()),
            61..82 => Step::Txn(self.txn(0)),
            82..84 => Step::Compact(self.revision()),
            84..87 => Step::Grant(self.one_of(&LEASES)),
            87..88 => Step::Revoke(self.one_of(&LEASES)),
            88..90 => Step::TimeToLive(self.one_of(&LEASES)),
            90..91 => Step::Leases,
            91..96 => Step::Watch(self.watch()),
            96..97 => Step::Cancel(self.below(8)),
            _ => Step::HashKv,
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0.random_range(0..limit)
    }

    fn chance(&mut self, of_100: usize) -> bool {
        self.below(100) < of_100
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Now and then empty, to see the refusal.
    fn key(&mut self) -> Bytes {
        if self.chance(2) {
            return Bytes::new();
        }
        Bytes::from_static(self.one_of(&KEYS))
    }

    fn end(&mut self) -> Bytes {
        Bytes::from_static(self.one_of(&ENDS))
    }

    fn value(&mut self) -> Bytes {
        Bytes::from_static(self.one_of(&VALUES))
    }

    fn lease(&mut self) -> i64 {
        if self.chance(70) {
            0
        } else {
            self.one_of(&LEASES)
        }
    }

    fn revision(&mut self) -> i64 {
        match self.below(20) {
            0..10 => 0,
            10..17 => FAR - i64::try_from(self.below(12)).unwrap(),
            17..19 => FAR + 1,
            _ => -1,
        }
    }

    fn put(&mut self) -> pb::PutRequest {
        let (ignore_value, ignore_lease) = (self.chance(8), self.chance(8));
        pb::PutRequest {
            key: self.key(),
            value: if ignore_value && self.chance(80) {
                Bytes::new()
            } else {
                self.value()
            },
            lease: if ignore_lease && self.chance(80) {
                0
            } else {
                self.lease()
            },
            prev_kv: self.chance(40),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest {
            key: self.key(),
            range_end: self.end(),
            prev_kv: self.chance(50),
        }
    }

    fn range(&mut self) -> pb::RangeRequest {
        let mut request = pb::RangeRequest {
            key: self.key(),
            range_end: self.end(),
            revision: self.revision(),
            ..Default::default()
        };
        if self.chance(30) {
            request.limit = i64::try_from(self.below(5)).unwrap();
        }
        if self.chance(40) {
            request.sort_order = i32::try_from(self.below(3)).unwrap();
            request.sort_target = i32::try_from(self.below(5)).unwrap();
        }
        if self.chance(2) {
            request.sort_target = 9;
        }
        request.serializable = self.chance(30);
        request.keys_only = self.chance(20);
        request.count_only = self.chance(15);
        for filter in [
            &mut request.min_mod_revision,
            &mut request.max_mod_revision,
            &mut request.min_create_revision,
            &mut request.max_create_revision,
        ] {
            if self.chance(8) {
                *filter = FAR - i64::try_from(self.below(15)).unwrap();
            }
        }
        request
    }

    fn compare(&mut self) -> pb::Compare {
        use pb::compare::TargetUnion;
        let small = i64::try_from(self.below(4)).unwrap();
        let back = FAR - i64::try_from(self.below(10)).unwrap();
        let revision = if self.chance(40) { small } else { back };
        let target = self.below(5);
        let union = match target {
            0 => TargetUnion::Version(small),
            1 => TargetUnion::CreateRevision(revision),
            2 => TargetUnion::ModRevision(revision),
            3 => TargetUnion::Value(self.value()),
            _ => TargetUnion::Lease(self.lease()),
        };
        pb::Compare {
            result: i32::try_from(self.below(4)).unwrap(),
            target: i32::try_from(target).unwrap(),
            key: self.key(),
            range_end: if self.chance(25) {
                self.end()
            } else {
                Bytes::new()
            },
            target_union: if self.chance(95) { Some(union) } else { None },
        }
    }

    fn txn(&mut self, depth: usize) -> pb::TxnRequest {
        let compares = self.below(3);
        let (success, failure) = (self.below(4), self.below(3));
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: (0..success).map(|_| self.op(depth)).collect(),
            failure: (0..failure).map(|_| self.op(depth)).collect(),
        }
    }

    fn op(&mut self, depth: usize) -> pb::RequestOp {
        use pb::request_op::Request;
        let request = match self.below(20) {
            0..7 => Some(Request::RequestPut(self.put())),
            7..11 => Some(Request::RequestDeleteRange(self.delete())),
            11..17 => Some(Request::RequestRange(self.range())),
            17..19 if depth < 3 => Some(Request::RequestTxn(self.txn(depth + 1))),
            _ if self.chance(10) => None,
            _ => Some(Request::RequestRange(self.range())),
        };
        pb::RequestOp { request }
    }

    fn watch(&mut self) -> pb::WatchCreateRequest {
        let mut filters = Vec::new();
        if self.chance(15) {
            filters.push(i32::try_from(self.below(2)).unwrap());
        }
        pb::WatchCreateRequest {
            key: self.key(),
            range_end: self.end(),
            start_revision: self.revision(),
            prev_kv: self.chance(40),
            filters,
            fragment: self.chance(20),
            ..Default::default()
        }
    }
}

/// The request with its relative revisions resolved.
pub(crate) fn resolve_range(mut request: pb::RangeRequest, current: i64) -> pb::RangeRequest {
    for field in [
        &mut request.revision,
        &mut request.min_mod_revision,
        &mut request.max_mod_revision,
        &mut request.min_create_revision,
        &mut request.max_create_revision,
    ] {
        *field = resolve(*field, current);
    }
    request
}

/// The txn with its relative revisions resolved.
pub(crate) fn resolve_txn(mut txn: pb::TxnRequest, current: i64) -> pb::TxnRequest {
    use pb::{compare::TargetUnion, request_op::Request};
    for compare in &mut txn.compare {
        if let Some(TargetUnion::CreateRevision(revision) | TargetUnion::ModRevision(revision)) =
            &mut compare.target_union
        {
            *revision = resolve(*revision, current);
        }
    }
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::RequestRange(range)) => *range = resolve_range(range.clone(), current),
            Some(Request::RequestTxn(inner)) => *inner = resolve_txn(inner.clone(), current),
            _ => {}
        }
    }
    txn
}
