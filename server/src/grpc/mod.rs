//! The gRPC services of etcd: lower the request, authorize it, carry it out, raise the answer.

mod admin;
mod auth;
mod call;
mod cluster;
mod errors;
mod health;
mod kv;
mod lease;
mod lower;
mod maintenance;
mod pages;
mod quota;
mod raise;
mod snapshot;
mod watch;
mod watch_sink;
mod work;

pub(crate) use errors::{is_not_leader, message_too_large, unanswered};
pub(crate) use lease::renew_leases;
pub(crate) use raise::encode_event;

use crate::audit::Plans;
use crate::held::Held;
use crate::identity::{ConnectionIdentity, Identified};
use crate::metrics::Rpc;
use crate::node::{Node, ProposeError, Worker};
use holdfast_auth::Denied;
use holdfast_consensus::Failure;
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::servers::admin::admin_server::AdminServer;
use holdfast_proto::servers::etcdserverpb::{
    auth_server::AuthServer, cluster_server::ClusterServer, kv_server::KvServer,
    lease_server::LeaseServer, maintenance_server::MaintenanceServer, watch_server::WatchServer,
};
use holdfast_proto::servers::health::health_server::HealthServer;
use holdfast_tenant::Tenant;
use parking_lot::Mutex;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tonic::{Code, Status};

/// A client's connection: who is at the other end, and which tenant it speaks to. Decided once, when it is accepted.
pub(crate) struct Connection {
    pub(crate) worker: Arc<Worker>,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) identity: ConnectionIdentity,
    pub(crate) plans: Mutex<Plans>,
    pub(crate) peer: Option<SocketAddr>,
    /// What it makes the server hold.
    pub(crate) held: Arc<Held>,
}

/// A connection as the generated services hold it.
#[derive(Clone)]
pub(crate) struct Session(pub(super) Arc<Connection>);

impl std::ops::Deref for Session {
    type Target = Arc<Connection>;

    fn deref(&self) -> &Arc<Connection> {
        &self.0
    }
}

/// The services of one connection.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) connection: Arc<Connection>,
    pub(crate) kv: KvServer<Session>,
    pub(crate) watch: WatchServer<Session>,
    pub(crate) lease: LeaseServer<Session>,
    pub(crate) cluster: ClusterServer<Session>,
    pub(crate) maintenance: MaintenanceServer<Session>,
    pub(crate) auth: AuthServer<Session>,
    pub(crate) admin: AdminServer<Session>,
    pub(crate) health: HealthServer<Session>,
}

/// The name of the only tenant.
pub(crate) const TENANT: &str = "default";

/// What a gRPC message may be longer than `max-request-bytes` (behaviour §3.9). Watch answers beyond both are split for clients that ask
/// for it (§3.7).
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 512 << 10;

impl Services {
    pub(crate) fn new(connection: Arc<Connection>) -> Services {
        let max = connection.node().config.max_request_bytes + MESSAGE_OVERHEAD_BYTES;
        // The server's own answers are as long as the data is (etcd: no send limit).
        macro_rules! service {
            ($server:ident) => {
                $server::new(Session(connection.clone()))
                    .max_decoding_message_size(max)
                    .max_encoding_message_size(usize::MAX)
            };
        }
        Services {
            kv: service!(KvServer),
            watch: service!(WatchServer),
            lease: service!(LeaseServer),
            cluster: service!(ClusterServer),
            maintenance: service!(MaintenanceServer),
            auth: service!(AuthServer),
            admin: service!(AdminServer),
            health: service!(HealthServer),
            connection,
        }
    }
}

impl Connection {
    pub(crate) fn node(&self) -> &Node {
        &self.worker.node
    }

    /// A header with the tenant's current revision.
    fn header(&self) -> pb::ResponseHeader {
        self.header_at(self.tenant.revision())
    }

    fn header_at(&self, revision: i64) -> pb::ResponseHeader {
        let node = self.node();
        pb::ResponseHeader {
            cluster_id: node.identity.cluster,
            member_id: node.identity.member,
            revision,
            raft_term: node.status.term(),
        }
    }

    /// Finds who makes a request with these headers.
    ///
    /// # Errors
    /// See [`ConnectionIdentity::identify`].
    pub(crate) fn identify(&self, headers: &http::HeaderMap) -> Result<Arc<Identified>, Denied> {
        let auth = self.tenant.auth();
        self.identity
            .identify(&auth, TENANT, &self.node().tokens, headers)
    }

    /// Waits until reads are linearizable.
    async fn linearizable(&self) -> Result<(), Status> {
        let readable = self.worker.linearizable().await;
        readable.map_err(|error| self.unanswered(error))
    }

    /// Why a request has no answer, as the client is told it.
    fn unanswered(&self, error: ProposeError) -> Status {
        unanswered(self.node(), error)
    }
}

/// Why a stream that runs must end.
pub(super) type StreamEnd = std::pin::Pin<Box<dyn Future<Output = Status> + Send>>;

impl Connection {
    /// Resolves when a stream must end whose client asked for a leader: there has been none for long.
    fn leader_lost(&self) -> StreamEnd {
        let mut without_leader = self.node().cluster.without_leader.subscribe();
        Box::pin(async move {
            if without_leader.wait_for(|without| *without).await.is_err() {
                // The node is gone, and the stream with it.
                return std::future::pending().await;
            }
            errors::failed(Failure::NoLeader)
        })
    }
}

/// Counts the end of a stream, however it ends.
pub(super) struct StreamGuard {
    connection: Arc<Connection>,
    rpc: Rpc,
    begun: Instant,
    pub(super) code: Code,
}

impl StreamGuard {
    pub(super) fn new(connection: Arc<Connection>, rpc: Rpc) -> StreamGuard {
        StreamGuard {
            connection,
            rpc,
            begun: Instant::now(),
            // A stream that is dropped before its end was given up by the client.
            code: Code::Cancelled,
        }
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let metrics = &self.connection.node().metrics;
        metrics.handled(self.rpc, self.code, self.begun.elapsed());
    }
}

/// Runs `work` on a thread for long computations, off the connections' runtime.
pub(super) async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Status::internal("etcdserver: a background computation failed"))
}

/// Boxed futures keep the generated services' futures small.
pub(super) fn boxed<'a, T>(
    future: impl Future<Output = T> + Send + 'a,
) -> std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>> {
    Box::pin(future)
}
