//! The gRPC services of etcd: lower the request, authorize it, carry it out, raise the answer.

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

pub(crate) use errors::message_too_large;
pub(crate) use raise::encode_event;

use crate::held::Held;
use crate::metrics::Rpc;
use crate::node::{Node, Worker};
use holdfast_auth::{Authorized, Demands, Gate, Principal, policy};
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::servers::etcdserverpb::{
    cluster_server::ClusterServer, kv_server::KvServer, lease_server::LeaseServer,
    maintenance_server::MaintenanceServer, watch_server::WatchServer,
};
use holdfast_proto::servers::health::health_server::HealthServer;
use holdfast_tenant::Tenant;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tonic::{Code, Request, Status};

/// A client's connection: who is at the other end, and which tenant it speaks to. Decided once, when it is accepted.
pub(crate) struct Connection {
    pub(crate) worker: Arc<Worker>,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) principal: Principal,
    pub(crate) gate: Gate,
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
    pub(crate) health: HealthServer<Session>,
}

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

    /// Grants a request or refuses it whole.
    fn authorize<T: Demands>(&self, rpc: Rpc, request: T) -> Result<Authorized<T>, Status> {
        self.gate
            .authorize(&self.principal, policy(rpc.path()), request)
            .map_err(errors::denied)
    }

    /// Runs a unary call: counts it, and refuses it without a leader if the client wants that.
    async fn unary<M, T>(
        &self,
        rpc: Rpc,
        request: Request<M>,
        call: impl AsyncFnOnce(M) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let begun = Instant::now();
        let metrics = &self.node().metrics;
        metrics.started(rpc);
        metrics.messages_received(rpc, 1);
        let result = match self.check_leader(&request) {
            Ok(()) => call(request.into_inner()).await,
            Err(status) => Err(status),
        };
        let code = result.as_ref().err().map_or(Code::Ok, Status::code);
        let took = begun.elapsed();
        metrics.handled(rpc, code, took);
        if code == Code::Ok {
            metrics.messages_sent(rpc, 1);
        }
        if took > self.node().config.warning_unary_request_duration {
            tracing::warn!(
                method = rpc.path(),
                took_ms = took.as_millis() as u64,
                remote = ?self.peer,
                code = ?code,
                "request took long"
            );
        }
        result
    }

    /// Begins a streaming call; the guard counts its end.
    fn streaming<M>(&self, rpc: Rpc, request: &Request<M>) -> Result<(), Status> {
        self.node().metrics.started(rpc);
        self.check_leader(request).inspect_err(|status| {
            self.node()
                .metrics
                .handled(rpc, status.code(), std::time::Duration::ZERO);
        })
    }

    fn check_leader<M>(&self, request: &Request<M>) -> Result<(), Status> {
        let wants_leader = request
            .metadata()
            .get("hasleader")
            .is_some_and(|value| value == "true");
        if wants_leader && self.node().status.leader() == 0 {
            return Err(Status::unavailable("etcdserver: no leader"));
        }
        Ok(())
    }

    /// Waits until reads are linearizable: at once on a member that leads alone.
    fn linearizable(&self) -> Result<(), Status> {
        self.node().can_read().map_err(errors::failed)
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
