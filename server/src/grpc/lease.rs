//! The Lease service.

use super::kv::{refuse, unexpected};
use super::{Connection, Session, StreamGuard, boxed, errors};
use crate::metrics::Rpc;
use holdfast_auth::{Demands, KeyRange, Verb};
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::servers::etcdserverpb::lease_server::Lease;
use holdfast_tenant::{Answer, Command, LEASE_COST_BYTES, Refusal};
use std::pin::Pin;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};

/// The longest time a lease may have, seconds (etcd's).
const MAX_TTL_SECS: i64 = 9_000_000_000;

/// A lease that is looked at or renewed.
struct LeaseOf;

impl Demands for LeaseOf {
    fn demands(&self, _: &mut dyn FnMut(Verb, &KeyRange)) {}
}

#[tonic::async_trait]
impl Lease for Session {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        self.unary(
            Rpc::LeaseGrant,
            request,
            async |wire: pb::LeaseGrantRequest| {
                self.admit(LEASE_COST_BYTES).await?;
                if wire.ttl > MAX_TTL_SECS {
                    return Err(refuse(Refusal::LeaseTtlTooLarge));
                }
                if self.tenant.lease_count() >= self.node().config.max_leases {
                    return Err(refuse(Refusal::TooManyLeases));
                }
                let command = Command::LeaseGrant {
                    id: if wire.id == 0 {
                        self.fresh_lease_id()
                    } else {
                        wire.id
                    },
                    ttl: wire.ttl.max(self.minimum_ttl_secs()),
                };
                let command = self.authorize(Rpc::LeaseGrant, command)?;
                match self.commit(command).await? {
                    Answer::LeaseGranted { id, ttl, revision } => Ok(pb::LeaseGrantResponse {
                        header: Some(self.header_at(revision)),
                        id,
                        ttl,
                        error: String::new(),
                    }),
                    _ => Err(unexpected()),
                }
            },
        )
        .await
        .map(Response::new)
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        self.unary(
            Rpc::LeaseRevoke,
            request,
            async |wire: pb::LeaseRevokeRequest| {
                let command = Command::LeaseRevoke { id: wire.id };
                let command = self.authorize(Rpc::LeaseRevoke, command)?;
                match self.commit(command).await? {
                    Answer::LeaseRevoked { revision } => Ok(pb::LeaseRevokeResponse {
                        header: Some(self.header_at(revision)),
                    }),
                    _ => Err(unexpected()),
                }
            },
        )
        .await
        .map(Response::new)
    }

    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        self.streaming(Rpc::LeaseKeepAlive, &request)?;
        let guard = StreamGuard::new(self.0.clone(), Rpc::LeaseKeepAlive);
        let requests = request.into_inner();
        let connection = self.0.clone();
        let answers = futures::stream::unfold(Some((requests, connection, guard)), |state| {
            boxed(async move {
                let (mut requests, connection, mut guard) = state?;
                let wire = match requests.next().await {
                    Some(Ok(wire)) => wire,
                    Some(Err(status)) => {
                        let metrics = &connection.node().metrics;
                        metrics.stream_failed("receive", "lease-keepalive");
                        guard.code = status.code();
                        return Some((Err(status), None));
                    }
                    None => {
                        guard.code = Code::Ok;
                        return None;
                    }
                };
                match connection.keep_alive(wire.id).await {
                    Ok(answer) => Some((Ok(answer), Some((requests, connection, guard)))),
                    Err(status) => {
                        guard.code = status.code();
                        Some((Err(status), None))
                    }
                }
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        self.unary(
            Rpc::LeaseTimeToLive,
            request,
            async |wire: pb::LeaseTimeToLiveRequest| {
                self.authorize(Rpc::LeaseTimeToLive, LeaseOf)?;
                self.linearizable()?;
                let now = self.node().clock.now();
                let header = Some(self.header());
                Ok(
                    match self.tenant.lease_time_to_live(wire.id, wire.keys, now) {
                        Some((time, keys)) => pb::LeaseTimeToLiveResponse {
                            header,
                            id: wire.id,
                            ttl: time.remaining_secs(),
                            granted_ttl: time.granted_secs,
                            keys: keys.into_iter().map(Into::into).collect(),
                        },
                        // An unknown lease is an answer, not an error (behaviour §3.8).
                        None => pb::LeaseTimeToLiveResponse {
                            header,
                            id: wire.id,
                            ttl: -1,
                            granted_ttl: 0,
                            keys: Vec::new(),
                        },
                    },
                )
            },
        )
        .await
        .map(Response::new)
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        self.unary(
            Rpc::LeaseLeases,
            request,
            async |_: pb::LeaseLeasesRequest| {
                self.authorize(Rpc::LeaseLeases, LeaseOf)?;
                let leases = self.tenant.lease_ids();
                Ok(pb::LeaseLeasesResponse {
                    header: Some(self.header()),
                    leases: leases
                        .into_iter()
                        .map(|id| pb::LeaseStatus { id })
                        .collect(),
                })
            },
        )
        .await
        .map(Response::new)
    }
}

impl Connection {
    /// The least time of a lease: one and a half election time-outs, in whole seconds (behaviour §3.8).
    fn minimum_ttl_secs(&self) -> i64 {
        let millis = self.node().config.election_timeout.as_millis() * 3 / 2;
        i64::try_from(millis.div_ceil(1000)).unwrap_or(i64::MAX)
    }

    fn fresh_lease_id(&self) -> i64 {
        loop {
            let id = (rand::random::<u64>() >> 1) as i64;
            if id != 0 && !self.tenant.has_lease(id) {
                return id;
            }
        }
    }

    async fn keep_alive(&self, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
        self.authorize(Rpc::LeaseKeepAlive, LeaseOf)?;
        self.linearizable()?;
        let renewed = self.tenant.renew_lease(id, self.node().clock.now());
        if let Some((_, true)) = renewed {
            // A restart must not count from the time that was recorded before this renewal.
            self.worker
                .propose_internal(&self.tenant, &Command::LeaseCheckpoint(vec![(id, 0)]))
                .await
                .map_err(errors::unanswered)?;
        }
        let metrics = &self.node().metrics;
        metrics.lease_renewed();
        metrics.messages_received(Rpc::LeaseKeepAlive, 1);
        metrics.messages_sent(Rpc::LeaseKeepAlive, 1);
        Ok(pb::LeaseKeepAliveResponse {
            header: Some(self.header()),
            id,
            // An unknown or expired lease is answered with no time left, not with an error (behaviour §3.8).
            ttl: renewed.map_or(0, |(ttl, _)| ttl),
        })
    }
}
