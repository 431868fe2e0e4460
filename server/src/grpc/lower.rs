//! Wire requests to domain requests: the one place where key ranges are read and where unknown enum values and missing oneofs end.

use bytes::Bytes;
use holdfast_auth::KeyRange;
use holdfast_proto::etcdserverpb as pb;
use holdfast_tenant::Refusal;
use holdfast_tenant::request::{
    Compare, DeleteRange, Op, Operand, Order, Put, Range, Relation, RevisionFilter, SortTarget, Txn,
};
use holdfast_tenant::validate_put;
use holdfast_tenant::watch::WatchRequest;

pub(super) fn range(wire: pb::RangeRequest) -> Result<Range, Refusal> {
    if wire.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    use pb::range_request::{SortOrder, SortTarget as WireTarget};
    let target = match WireTarget::try_from(wire.sort_target) {
        Ok(WireTarget::Key) => SortTarget::Key,
        Ok(WireTarget::Version) => SortTarget::Version,
        Ok(WireTarget::Create) => SortTarget::Create,
        Ok(WireTarget::Mod) => SortTarget::Mod,
        Ok(WireTarget::Value) => SortTarget::Value,
        Err(_) => return Err(Refusal::InvalidSortOption),
    };
    let order = match (SortOrder::try_from(wire.sort_order), target) {
        (Err(_), _) => return Err(Refusal::InvalidSortOption),
        (Ok(SortOrder::None | SortOrder::Ascend), SortTarget::Key) => Order::Natural,
        (Ok(SortOrder::None), target) => Order::SortedPrefix(target),
        (Ok(SortOrder::Ascend), target) => Order::Sorted {
            target,
            descending: false,
        },
        (Ok(SortOrder::Descend), target) => Order::Sorted {
            target,
            descending: true,
        },
    };
    Ok(Range {
        keys: KeyRange::from_pair(wire.key, wire.range_end),
        limit: u64::try_from(wire.limit).unwrap_or(0),
        revision: wire.revision,
        order,
        keys_only: wire.keys_only,
        count_only: wire.count_only,
        filter: RevisionFilter {
            min_mod: wire.min_mod_revision,
            max_mod: wire.max_mod_revision,
            min_create: wire.min_create_revision,
            max_create: wire.max_create_revision,
        },
    })
}

pub(super) fn put(wire: pb::PutRequest) -> Put {
    Put {
        key: wire.key,
        value: wire.value,
        lease: wire.lease,
        previous: wire.prev_kv,
        keep_value: wire.ignore_value,
        keep_lease: wire.ignore_lease,
    }
}

pub(super) fn delete(wire: pb::DeleteRangeRequest) -> Result<DeleteRange, Refusal> {
    if wire.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    Ok(DeleteRange {
        keys: KeyRange::from_pair(wire.key, wire.range_end),
        previous: wire.prev_kv,
    })
}

/// Lowers a transaction in the order in which etcd looks at it: its length, the compares, the steps of both arms, each with what is
/// inside it. A nested transaction may be as long as its parent leaves room for.
pub(super) fn txn(wire: pb::TxnRequest, max_ops: usize) -> Result<Txn, Refusal> {
    let longest = wire
        .compare
        .len()
        .max(wire.success.len())
        .max(wire.failure.len());
    // Depth is bounded by prost, which refuses messages nested deeper than 100 levels; the log's decoder has a bound of its own.
    if longest > max_ops {
        return Err(Refusal::TooManyOps);
    }
    let arm = |ops: Vec<pb::RequestOp>| {
        ops.into_iter()
            .map(|wire| op(wire, max_ops - longest))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(Txn {
        compares: wire
            .compare
            .into_iter()
            .map(compare)
            .collect::<Result<_, _>>()?,
        success: arm(wire.success)?,
        failure: arm(wire.failure)?,
    })
}

fn op(wire: pb::RequestOp, max_ops: usize) -> Result<Op, Refusal> {
    use pb::request_op::Request;
    Ok(match wire.request {
        Some(Request::RequestRange(wire)) => Op::Range(range(wire)?),
        Some(Request::RequestPut(wire)) => {
            let put = put(wire);
            validate_put(&put)?;
            Op::Put(put)
        }
        Some(Request::RequestDeleteRange(wire)) => Op::DeleteRange(delete(wire)?),
        Some(Request::RequestTxn(wire)) => Op::Txn(txn(wire, max_ops)?),
        None => return Err(Refusal::KeyNotFound),
    })
}

/// Whether a put stands in any arm at any depth: quota comes before everything else that can be wrong.
pub(super) fn has_put(wire: &pb::TxnRequest) -> bool {
    use pb::request_op::Request;
    wire.success
        .iter()
        .chain(&wire.failure)
        .any(|op| match &op.request {
            Some(Request::RequestPut(_)) => true,
            Some(Request::RequestTxn(txn)) => has_put(txn),
            _ => false,
        })
}

fn compare(wire: pb::Compare) -> Result<Compare, Refusal> {
    use pb::compare::{CompareResult, CompareTarget, TargetUnion};
    if wire.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    let relation = match CompareResult::try_from(wire.result) {
        Ok(CompareResult::Equal) => Relation::Equal,
        Ok(CompareResult::Greater) => Relation::Greater,
        Ok(CompareResult::Less) => Relation::Less,
        Ok(CompareResult::NotEqual) => Relation::NotEqual,
        Err(_) => return Err(Refusal::Malformed("unknown compare result")),
    };
    let target = CompareTarget::try_from(wire.target)
        .map_err(|_| Refusal::Malformed("unknown compare target"))?;
    // A union of another kind than the target counts as absent, which etcd reads as zero or as no value.
    let union = wire.target_union;
    let operand = match (target, union) {
        (CompareTarget::Version, Some(TargetUnion::Version(n))) => Operand::Version(n),
        (CompareTarget::Version, _) => Operand::Version(0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(n))) => Operand::Create(n),
        (CompareTarget::Create, _) => Operand::Create(0),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(n))) => Operand::Mod(n),
        (CompareTarget::Mod, _) => Operand::Mod(0),
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => Operand::Value(value),
        (CompareTarget::Value, _) => Operand::Value(Bytes::new()),
        (CompareTarget::Lease, Some(TargetUnion::Lease(n))) => Operand::Lease(n),
        (CompareTarget::Lease, _) => Operand::Lease(0),
    };
    Ok(Compare {
        keys: KeyRange::from_pair(wire.key, wire.range_end),
        relation,
        operand,
    })
}

pub(super) fn watch(wire: pb::WatchCreateRequest) -> WatchRequest {
    use pb::watch_create_request::FilterType;
    let has = |filter: FilterType| wire.filters.contains(&(filter as i32));
    let (no_put, no_delete) = (has(FilterType::Noput), has(FilterType::Nodelete));
    // Copied: a watch lives for long, and what was received shares its memory with the messages around it.
    let key = if wire.key.is_empty() {
        Bytes::from_static(&[0])
    } else {
        Bytes::copy_from_slice(&wire.key)
    };
    let end = Bytes::copy_from_slice(&wire.range_end);
    WatchRequest {
        id: wire.watch_id,
        keys: KeyRange::from_pair(key, end),
        start: wire.start_revision,
        progress: wire.progress_notify,
        no_put,
        no_delete,
        previous: wire.prev_kv,
        fragment: wire.fragment,
    }
}
