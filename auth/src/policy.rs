//! The policy of every RPC: deny by default, one row each. A test of the server walks the API's descriptors and fails on an RPC
//! without a row; the router refuses what has none.

/// What an RPC asks of its caller before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Anybody who reached the port.
    Public,
    /// Any identified caller.
    Authenticated,
    /// An identified caller whose roles cover the keys that the request touches.
    KeyScoped,
    /// The root of the caller's tenant.
    TenantAdmin,
    /// The administrator of the whole cluster.
    PlatformAdmin,
}

/// Full method path and policy, ordered by path.
pub const POLICIES: &[(&str, Policy)] = &[
    ("/etcdserverpb.Cluster/MemberList", Policy::Authenticated),
    ("/etcdserverpb.KV/Compact", Policy::TenantAdmin),
    ("/etcdserverpb.KV/DeleteRange", Policy::KeyScoped),
    ("/etcdserverpb.KV/Put", Policy::KeyScoped),
    ("/etcdserverpb.KV/Range", Policy::KeyScoped),
    ("/etcdserverpb.KV/RangeStream", Policy::KeyScoped),
    ("/etcdserverpb.KV/Txn", Policy::KeyScoped),
    ("/etcdserverpb.Lease/LeaseGrant", Policy::Authenticated),
    ("/etcdserverpb.Lease/LeaseKeepAlive", Policy::KeyScoped),
    ("/etcdserverpb.Lease/LeaseLeases", Policy::KeyScoped),
    ("/etcdserverpb.Lease/LeaseRevoke", Policy::KeyScoped),
    ("/etcdserverpb.Lease/LeaseTimeToLive", Policy::KeyScoped),
    ("/etcdserverpb.Maintenance/Alarm", Policy::Authenticated),
    ("/etcdserverpb.Maintenance/Defragment", Policy::TenantAdmin),
    ("/etcdserverpb.Maintenance/Downgrade", Policy::PlatformAdmin),
    ("/etcdserverpb.Maintenance/Hash", Policy::TenantAdmin),
    ("/etcdserverpb.Maintenance/HashKV", Policy::TenantAdmin),
    (
        "/etcdserverpb.Maintenance/MoveLeader",
        Policy::PlatformAdmin,
    ),
    ("/etcdserverpb.Maintenance/Snapshot", Policy::TenantAdmin),
    ("/etcdserverpb.Maintenance/Status", Policy::Authenticated),
    ("/etcdserverpb.Watch/Watch", Policy::KeyScoped),
    ("/grpc.health.v1.Health/Check", Policy::Public),
    ("/grpc.health.v1.Health/Watch", Policy::Public),
];

/// The policy of an RPC by its full path, or `None` for one that is not served.
pub fn policy(path: &str) -> Option<Policy> {
    POLICIES
        .binary_search_by_key(&path, |(path, _)| path)
        .ok()
        .map(|at| POLICIES[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_ordered_so_that_every_row_is_found() {
        for (path, expected) in POLICIES {
            assert_eq!(policy(path), Some(*expected), "{path}");
        }
        assert_eq!(policy("/etcdserverpb.KV/Nothing"), None);
    }
}
