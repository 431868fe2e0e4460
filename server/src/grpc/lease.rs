//! The Lease service.

use super::kv::{refuse, unexpected};
use super::{Connection, Session, StreamGuard, boxed, errors};
use crate::identity::Identified;
use crate::metrics::Rpc;
use holdfast_auth::{Access, Caller, Demands, Denied, KeyRange, Verb};
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::servers::etcdserverpb::lease_server::Lease;
use holdfast_tenant::{Answer, Command, LEASE_COST_BYTES, LeaseUse, Refusal};
use std::pin::Pin;
use std::sync::Arc;
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
        let (call, wire) = self.begin(Rpc::LeaseGrant, request);
        call.run(async {
            let command = Command::LeaseGrant {
                id: if wire.id == 0 {
                    self.fresh_lease_id()
                } else {
                    wire.id
                },
                ttl: wire.ttl.max(self.minimum_ttl_secs()),
            };
            let command = call.authorize(command).await?;
            self.admit(LEASE_COST_BYTES).await?;
            if wire.ttl > MAX_TTL_SECS {
                return Err(refuse(Refusal::LeaseTtlTooLarge));
            }
            if self.tenant.lease_count() >= self.node().config.max_leases {
                return Err(refuse(Refusal::TooManyLeases));
            }
            match self.commit(&call, command).await? {
                Answer::LeaseGranted { id, ttl, revision } => Ok(pb::LeaseGrantResponse {
                    header: Some(self.header_at(revision)),
                    id,
                    ttl,
                    error: String::new(),
                }),
                _ => Err(unexpected()),
            }
        })
        .await
        .map(Response::new)
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let (call, wire) = self.begin(Rpc::LeaseRevoke, request);
        call.entry().object(&format!("{:x}", wire.id));
        call.run(async {
            let command = Command::LeaseRevoke { id: wire.id };
            let command = call.authorize(command).await?;
            match self.commit(&call, command).await? {
                Answer::LeaseRevoked { revision } => Ok(pb::LeaseRevokeResponse {
                    header: Some(self.header_at(revision)),
                }),
                _ => Err(unexpected()),
            }
        })
        .await
        .map(Response::new)
    }

    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let call = self.begin_stream(Rpc::LeaseKeepAlive, &request);
        let mut guard = StreamGuard::new(self.0.clone(), Rpc::LeaseKeepAlive);
        let opened = call.open(call.authorize(LeaseOf)).await;
        let who = match opened.and_then(|_| call.who().cloned()) {
            Ok(who) => who,
            Err(status) => {
                guard.code = status.code();
                return Err(status);
            }
        };
        let requests = request.into_inner();
        let connection = self.0.clone();
        let begin = Some((requests, connection, who, guard));
        let answers = futures::stream::unfold(begin, |state| {
            boxed(async move {
                let (mut requests, connection, who, mut guard) = state?;
                let next = tokio::select! {
                    next = requests.next() => next,
                    // A stream whose caller is gone ends without waiting for the next request.
                    denied = connection.revoked(&who) => {
                        let status = errors::denied(denied);
                        connection.record_refusal(Rpc::LeaseKeepAlive, &who, &status);
                        guard.code = status.code();
                        return Some((Err(status), None));
                    }
                };
                let wire = match next {
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
                match connection.keep_alive(&who.caller, wire.id).await {
                    Ok(answer) => Some((Ok(answer), Some((requests, connection, who, guard)))),
                    Err(status) => {
                        connection.record_refusal(Rpc::LeaseKeepAlive, &who, &status);
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
        let (call, wire) = self.begin(Rpc::LeaseTimeToLive, request);
        call.run(async {
            let authorized = call.authorize(LeaseOf).await?;
            self.linearizable()?;
            let now = self.node().clock.now();
            let caller = authorized.caller();
            let time = self.judged(caller, |access| {
                let (id, keys) = (wire.id, wire.keys);
                self.tenant
                    .lease_time_to_live_for(access, caller, id, keys, now)
            })?;
            let header = Some(self.header());
            Ok(match time {
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
            })
        })
        .await
        .map(Response::new)
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let (call, _) = self.begin(Rpc::LeaseLeases, request);
        call.run(async {
            let authorized = call.authorize(LeaseOf).await?;
            let caller = authorized.caller();
            let leases =
                self.judged(caller, |access| self.tenant.visible_leases(access, caller))?;
            Ok(pb::LeaseLeasesResponse {
                header: Some(self.header()),
                leases: leases
                    .into_iter()
                    .map(|id| pb::LeaseStatus { id })
                    .collect(),
            })
        })
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

    /// Reads leases by permissions that are as recent as what was read.
    fn judged<T>(
        &self,
        caller: &Caller,
        read: impl Fn(&Access<'_>) -> Result<T, Denied>,
    ) -> Result<T, Status> {
        loop {
            let auth = self.tenant.auth().clone();
            let result = auth.access(caller).and_then(|access| read(&access));
            // While this one is held, a change makes another.
            if Arc::ptr_eq(&auth, &self.tenant.auth()) {
                return result.map_err(errors::denied);
            }
        }
    }

    /// Whether the caller of a stream may use a lease now.
    fn may_use(&self, caller: &Caller, id: i64, purpose: LeaseUse) -> Result<(), Status> {
        let auth = self.tenant.auth().clone();
        auth.stream_access(caller)
            .and_then(|access| self.tenant.may_use_lease(&access, caller, id, purpose))
            .map_err(errors::denied)
    }

    /// Waits until the caller of a stream is nobody who may have one.
    async fn revoked(&self, who: &Identified) -> Denied {
        let mut changes = self.node().auth_changes.clone();
        // What was told before is in the state that is looked at next.
        changes.mark_unchanged();
        loop {
            if let Err(denied) = who.stream_access(&self.tenant.auth()) {
                return denied;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    // The state machine is gone: the node stops.
                    return std::future::pending().await;
                },
                () = who.ended() => {}
            }
        }
    }

    fn fresh_lease_id(&self) -> i64 {
        loop {
            let id = (rand::random::<u64>() >> 1) as i64;
            if id != 0 && !self.tenant.has_lease(id) {
                return id;
            }
        }
    }

    async fn keep_alive(
        &self,
        caller: &Caller,
        id: i64,
    ) -> Result<pb::LeaseKeepAliveResponse, Status> {
        self.linearizable()?;
        self.may_use(caller, id, LeaseUse::KeepAlive)?;
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
