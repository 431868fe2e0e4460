//! The wire types of the etcd v3 API, of our own administration API and of our peer protocol: messages, clients and servers,
//! generated from `proto/*.proto`.
//!
//! This crate must not know anything of ours: no domain types, no limits, no permissions. Its types stop at the edge of the
//! server and of the command line tools.

pub mod encoded;

/// Keys and the events that change them.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated code"
)]
pub mod mvccpb {
    include!(concat!(env!("OUT_DIR"), "/messages/mvccpb.rs"));
}

/// Users, roles and permissions.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated code"
)]
pub mod authpb {
    include!(concat!(env!("OUT_DIR"), "/messages/authpb.rs"));
}

/// The client API: KV, Watch, Lease, Cluster, Maintenance and Auth.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated code"
)]
pub mod etcdserverpb {
    include!(concat!(env!("OUT_DIR"), "/messages/etcdserverpb.rs"));
}

/// The lock recipe.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated code"
)]
pub mod v3lockpb {
    include!(concat!(env!("OUT_DIR"), "/messages/v3lockpb.rs"));
}

/// The election recipe.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated code"
)]
pub mod v3electionpb {
    include!(concat!(env!("OUT_DIR"), "/messages/v3electionpb.rs"));
}

/// The gRPC health protocol.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated code"
)]
pub mod health {
    include!(concat!(env!("OUT_DIR"), "/messages/grpc.health.v1.rs"));
}

/// Our own administration API.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated code"
)]
pub mod admin {
    include!(concat!(env!("OUT_DIR"), "/messages/holdfast.admin.v1.rs"));
}

/// What members say to each other. Messages alone: both ends frame them themselves.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated code"
)]
pub mod peer {
    include!(concat!(env!("OUT_DIR"), "/messages/holdfast.peer.v1.rs"));
}

/// The server side of every service. `WatchResponse` is that of [`encoded`].
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated code"
)]
pub mod servers {
    /// KV, Watch, Lease, Cluster, Maintenance and Auth.
    pub mod etcdserverpb {
        include!(concat!(env!("OUT_DIR"), "/servers/etcdserverpb.rs"));
    }
    /// The gRPC health protocol.
    pub mod health {
        include!(concat!(env!("OUT_DIR"), "/servers/grpc.health.v1.rs"));
    }
    /// Our own administration API.
    pub mod admin {
        include!(concat!(env!("OUT_DIR"), "/servers/holdfast.admin.v1.rs"));
    }
}

/// The descriptors of the peer protocol, as an encoded `google.protobuf.FileDescriptorSet`. Clients have no business with it.
pub const PEER_FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/peer_descriptors.bin"));

/// The descriptors of every service and message of the API, as an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
