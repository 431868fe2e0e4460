//! Every RPC that is served or known, as a value that costs nothing to count by.

/// How an RPC streams; the label `grpc_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unary,
    ServerStream,
    BidiStream,
}

impl Kind {
    /// As in the label `grpc_type`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

macro_rules! rpcs {
    ($($variant:ident = $kind:ident $service:literal $method:literal;)*) => {
        /// An RPC of etcd's API. Some are known and not served: those are counted too, as `Unimplemented`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub(crate) enum Rpc {
            $($variant,)*
        }

        impl Rpc {
            /// All of them; the position of each is its discriminant.
            pub(crate) const ALL: &'static [Rpc] = &[$(Rpc::$variant,)*];

            /// The HTTP/2 path, `/service/method`.
            pub(crate) fn path(self) -> &'static str {
                match self {
                    $(Rpc::$variant => concat!("/", $service, "/", $method),)*
                }
            }

            /// The RPC with this path.
            pub(crate) fn from_path(path: &str) -> Option<Rpc> {
                $(
                    const $variant: &str = concat!("/", $service, "/", $method);
                )*
                match path {
                    $($variant => Some(Rpc::$variant),)*
                    _ => None,
                }
            }

            /// The label `grpc_service`.
            pub(crate) fn service(self) -> &'static str {
                match self {
                    $(Rpc::$variant => $service,)*
                }
            }

            /// The label `grpc_method`.
            pub(crate) fn method(self) -> &'static str {
                match self {
                    $(Rpc::$variant => $method,)*
                }
            }

            /// How it streams.
            pub(crate) fn kind(self) -> Kind {
                match self {
                    $(Rpc::$variant => Kind::$kind,)*
                }
            }
        }
    };
}

#[expect(
    non_upper_case_globals,
    reason = "the macro names each path's constant after its variant"
)]
mod table {
    use super::Kind;

    rpcs! {
        Range = Unary "etcdserverpb.KV" "Range";
        RangeStream = ServerStream "etcdserverpb.KV" "RangeStream";
        Put = Unary "etcdserverpb.KV" "Put";
        DeleteRange = Unary "etcdserverpb.KV" "DeleteRange";
        Txn = Unary "etcdserverpb.KV" "Txn";
        Compact = Unary "etcdserverpb.KV" "Compact";
        Watch = BidiStream "etcdserverpb.Watch" "Watch";
        LeaseGrant = Unary "etcdserverpb.Lease" "LeaseGrant";
        LeaseRevoke = Unary "etcdserverpb.Lease" "LeaseRevoke";
        LeaseKeepAlive = BidiStream "etcdserverpb.Lease" "LeaseKeepAlive";
        LeaseTimeToLive = Unary "etcdserverpb.Lease" "LeaseTimeToLive";
        LeaseLeases = Unary "etcdserverpb.Lease" "LeaseLeases";
        MemberAdd = Unary "etcdserverpb.Cluster" "MemberAdd";
        MemberRemove = Unary "etcdserverpb.Cluster" "MemberRemove";
        MemberUpdate = Unary "etcdserverpb.Cluster" "MemberUpdate";
        MemberList = Unary "etcdserverpb.Cluster" "MemberList";
        MemberPromote = Unary "etcdserverpb.Cluster" "MemberPromote";
        Alarm = Unary "etcdserverpb.Maintenance" "Alarm";
        Status = Unary "etcdserverpb.Maintenance" "Status";
        Defragment = Unary "etcdserverpb.Maintenance" "Defragment";
        Hash = Unary "etcdserverpb.Maintenance" "Hash";
        HashKv = Unary "etcdserverpb.Maintenance" "HashKV";
        Snapshot = ServerStream "etcdserverpb.Maintenance" "Snapshot";
        MoveLeader = Unary "etcdserverpb.Maintenance" "MoveLeader";
        Downgrade = Unary "etcdserverpb.Maintenance" "Downgrade";
        AuthEnable = Unary "etcdserverpb.Auth" "AuthEnable";
        AuthDisable = Unary "etcdserverpb.Auth" "AuthDisable";
        AuthStatus = Unary "etcdserverpb.Auth" "AuthStatus";
        Authenticate = Unary "etcdserverpb.Auth" "Authenticate";
        UserAdd = Unary "etcdserverpb.Auth" "UserAdd";
        UserGet = Unary "etcdserverpb.Auth" "UserGet";
        UserList = Unary "etcdserverpb.Auth" "UserList";
        UserDelete = Unary "etcdserverpb.Auth" "UserDelete";
        UserChangePassword = Unary "etcdserverpb.Auth" "UserChangePassword";
        UserGrantRole = Unary "etcdserverpb.Auth" "UserGrantRole";
        UserRevokeRole = Unary "etcdserverpb.Auth" "UserRevokeRole";
        RoleAdd = Unary "etcdserverpb.Auth" "RoleAdd";
        RoleGet = Unary "etcdserverpb.Auth" "RoleGet";
        RoleList = Unary "etcdserverpb.Auth" "RoleList";
        RoleDelete = Unary "etcdserverpb.Auth" "RoleDelete";
        RoleGrantPermission = Unary "etcdserverpb.Auth" "RoleGrantPermission";
        RoleRevokePermission = Unary "etcdserverpb.Auth" "RoleRevokePermission";
        HealthCheck = Unary "grpc.health.v1.Health" "Check";
        HealthWatch = ServerStream "grpc.health.v1.Health" "Watch";
        RotateTokenKey = Unary "holdfast.admin.v1.Admin" "RotateTokenKey";
        ListTokenKeys = Unary "holdfast.admin.v1.Admin" "ListTokenKeys";
        Lock = Unary "v3lockpb.Lock" "Lock";
        Unlock = Unary "v3lockpb.Lock" "Unlock";
        Campaign = Unary "v3electionpb.Election" "Campaign";
        Proclaim = Unary "v3electionpb.Election" "Proclaim";
        Leader = Unary "v3electionpb.Election" "Leader";
        Observe = ServerStream "v3electionpb.Election" "Observe";
        Resign = Unary "v3electionpb.Election" "Resign";
    }
}

pub(crate) use table::Rpc;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_unique_and_found() {
        for (position, rpc) in Rpc::ALL.iter().enumerate() {
            assert_eq!(*rpc as usize, position);
            assert_eq!(Rpc::from_path(rpc.path()), Some(*rpc));
            assert_eq!(rpc.path(), format!("/{}/{}", rpc.service(), rpc.method()));
        }
        for path in [
            "",
            "/",
            "/etcdserverpb.KV/",
            "/etcdserverpb.KV/put",
            "etcdserverpb.KV/Put",
        ] {
            assert_eq!(Rpc::from_path(path), None, "{path:?}");
        }
    }

    #[test]
    fn every_rpc_with_a_policy_is_known() {
        for (path, _) in holdfast_auth::POLICIES {
            assert!(Rpc::from_path(path).is_some(), "{path}");
        }
    }
}
