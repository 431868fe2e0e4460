//! The policy of every RPC and HTTP endpoint: deny by default, one row each. A test of the server walks the API's descriptors and
//! fails on an RPC without a row; the router refuses what has none.

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

/// What an HTTP endpoint asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpPolicy {
    /// Anybody who reached the port.
    Public,
    /// Any identified caller.
    Authenticated,
}

/// Full method path and policy, ordered by path.
pub const POLICIES: &[(&str, Policy)] = &[
    // `UserGet`, `RoleGet` and `UserChangePassword` say in their standing whom else they are for than administrators.
    ("/etcdserverpb.Auth/AuthDisable", Policy::TenantAdmin),
    ("/etcdserverpb.Auth/AuthEnable", Policy::TenantAdmin),
    ("/etcdserverpb.Auth/AuthStatus", Policy::Public),
    ("/etcdserverpb.Auth/Authenticate", Policy::Public),
    ("/etcdserverpb.Auth/RoleAdd", Policy::TenantAdmin),
    ("/etcdserverpb.Auth/RoleDelete", Policy::TenantAdmin),
    ("/etcdserverpb.Auth/RoleGet", Policy::Authenticated),
    (
        "/etcdserverpb.Auth/RoleGrantPermission",
        Policy::TenantAdmin,
    ),
    ("/etcdserverpb.Auth/RoleList", Policy::TenantAdmin),
    (
        "/etcdserverpb.Auth/RoleRevokePermission",
        Policy::TenantAdmin,
    ),
    ("/etcdserverpb.Auth/UserAdd", Policy::TenantAdmin),
    (
        "/etcdserverpb.Auth/UserChangePassword",
        Policy::Authenticated,
    ),
    ("/etcdserverpb.Auth/UserDelete", Policy::TenantAdmin),
    ("/etcdserverpb.Auth/UserGet", Policy::Authenticated),
    ("/etcdserverpb.Auth/UserGrantRole", Policy::TenantAdmin),
    ("/etcdserverpb.Auth/UserList", Policy::TenantAdmin),
    ("/etcdserverpb.Auth/UserRevokeRole", Policy::TenantAdmin),
    ("/etcdserverpb.Cluster/MemberAdd", Policy::PlatformAdmin),
    ("/etcdserverpb.Cluster/MemberList", Policy::Authenticated),
    ("/etcdserverpb.Cluster/MemberPromote", Policy::PlatformAdmin),
    ("/etcdserverpb.Cluster/MemberRemove", Policy::PlatformAdmin),
    ("/etcdserverpb.Cluster/MemberUpdate", Policy::PlatformAdmin),
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
    (
        "/holdfast.admin.v1.Admin/ListTokenKeys",
        Policy::PlatformAdmin,
    ),
    (
        "/holdfast.admin.v1.Admin/RotateTokenKey",
        Policy::PlatformAdmin,
    ),
];

/// Path and policy, ordered by path. A row is for its path and for what is below it: `/livez` is for `/livez/ping` too.
pub const HTTP_POLICIES: &[(&str, HttpPolicy)] = &[
    ("/debug/vars", HttpPolicy::Authenticated),
    ("/health", HttpPolicy::Public),
    ("/livez", HttpPolicy::Public),
    ("/metrics", HttpPolicy::Authenticated),
    ("/readyz", HttpPolicy::Public),
    ("/version", HttpPolicy::Public),
];

/// The policy of an RPC by its full path, or `None` for one that is not served.
pub fn policy(path: &str) -> Option<Policy> {
    POLICIES
        .binary_search_by_key(&path, |(path, _)| path)
        .ok()
        .map(|at| POLICIES[at].1)
}

/// The policy of an HTTP endpoint by the path of its URL, or `None` for one that is not served. The path is taken as it is: `..`,
/// doubled slashes and escapes are not undone, so that only a path that no server would read otherwise has a policy.
pub fn http_policy(path: &str) -> Option<HttpPolicy> {
    HTTP_POLICIES.iter().find_map(|(row, policy)| {
        let below = path.strip_prefix(row)?;
        let name = match below.strip_prefix('/') {
            Some(name) => name,
            None if below.is_empty() => "",
            None => return None,
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        name.bytes().all(plain).then_some(*policy)
    })
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
        assert!(POLICIES.is_sorted_by(|a, b| a.0 < b.0));
        assert!(HTTP_POLICIES.is_sorted_by(|a, b| a.0 < b.0));
    }

    /// etcd#20580: what is open over HTTP is this list.
    #[test]
    fn what_is_open_over_http_is_a_short_list() {
        let public = HTTP_POLICIES
            .iter()
            .filter(|(_, policy)| *policy == HttpPolicy::Public);
        let open: Vec<&str> = public.map(|(path, _)| *path).collect();
        assert_eq!(open, ["/health", "/livez", "/readyz", "/version"]);
    }

    #[test]
    fn an_http_row_is_for_its_path_and_below() {
        let public = Some(HttpPolicy::Public);
        for path in ["/version", "/livez", "/livez/", "/readyz/data_corruption"] {
            assert_eq!(http_policy(path), public, "{path}");
        }
        for path in ["/metrics", "/debug/vars"] {
            assert_eq!(http_policy(path), Some(HttpPolicy::Authenticated), "{path}");
        }
        for path in [
            "",
            "/",
            "/debug",
            "/debug/pprof",
            "/versions",
            "/livezz",
            "/livez/../metrics",
            "/livez//metrics",
            "/livez/%2e%2e",
            "//version",
        ] {
            assert_eq!(http_policy(path), None, "{path}");
        }
    }
}
