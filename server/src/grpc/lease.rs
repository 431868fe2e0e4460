//! The Lease service.

use super::kv::{refuse, unexpected};
use super::{Connection, Session, StreamEnd, StreamGuard, boxed, errors};
use crate::identity::Identified;
use crate::metrics::Rpc;
use crate::node::Node;
use crate::peer::{CallError, KeepAlive, LeaseTimes, TimeToLive};
use holdfast_auth::{Access, Caller, Demands, Denied, KeyRange, Verb};
use holdfast_consensus::Failure;
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::servers::etcdserverpb::lease_server::Lease;
use holdfast_tenant::{Answer, Command, LEASE_COST_BYTES, LeaseUse, Refusal, Tenant, caller_bytes};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
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
        let lost = call.wants_leader().then(|| connection.leader_lost());
        let begin = Some((requests, connection, who, lost, guard));
        let answers = futures::stream::unfold(begin, |state| {
            boxed(async move {
                let (mut requests, connection, who, mut lost, mut guard) = state?;
                let next = tokio::select! {
                    next = requests.next() => next,
                    status = ended(&mut lost) => {
                        guard.code = status.code();
                        return Some((Err(status), None));
                    }
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
                let renewed = tokio::select! {
                    renewed = connection.keep_alive(&who.caller, wire.id) => renewed,
                    status = ended(&mut lost) => Err(status),
                };
                match renewed {
                    Ok(answer) => {
                        let next = (requests, connection, who, lost, guard);
                        Some((Ok(answer), Some(next)))
                    }
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
            self.linearizable().await?;
            let caller = authorized.caller();
            let now = self.node().clock.now();
            let (id, keys) = (wire.id, wire.keys);
            let here = self.judged(caller, |access| {
                self.tenant
                    .lease_time_to_live_for(access, caller, id, keys, now)
            })?;
            // Keys, and who may look, are the same everywhere; how long it lasts only the leader knows.
            let time = match here {
                Some((_, keys)) => self.life_of(caller, id).await?.map(|time| (time, keys)),
                None => None,
            };
            let header = Some(self.header());
            Ok(match time {
                Some((time, keys)) => pb::LeaseTimeToLiveResponse {
                    header,
                    id: wire.id,
                    ttl: time.remaining_secs,
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
        let ttl = self.renew(caller, id).await?;
        let metrics = &self.node().metrics;
        metrics.lease_renewed();
        metrics.messages_received(Rpc::LeaseKeepAlive, 1);
        metrics.messages_sent(Rpc::LeaseKeepAlive, 1);
        Ok(pb::LeaseKeepAliveResponse {
            header: Some(self.header()),
            id,
            // An unknown or expired lease is answered with no time left, not with an error (behaviour §3.8).
            ttl,
        })
    }

    /// Renews a lease where it is counted: at the leader.
    async fn renew(&self, caller: &Caller, id: i64) -> Result<i64, Status> {
        let node = self.node();
        let begun = Instant::now();
        loop {
            let leader = leader_of(node).await?;
            let renewed = if leader == node.identity.member {
                renew_leases(node, &self.tenant, caller, &[id]).await
            } else {
                let request = KeepAlive {
                    tenant: self.tenant.id.0,
                    caller: caller_bytes(caller).into(),
                    leases: vec![id],
                };
                let limit = node.request_timeout();
                let answer = node.cluster.net.keep_alive(leader, request, limit);
                tokio::select! {
                    answer = answer => answer.map_err(|error| self.not_asked(error)),
                    () = node.another_leads(leader) => Err(not_leader()),
                }
            };
            match renewed {
                Ok(ttls) => return Ok(ttls.first().copied().unwrap_or(0)),
                // Renewing twice does no harm, so the next leader is asked.
                Err(status)
                    if errors::is_not_leader(&status)
                        && begun.elapsed() < node.request_timeout() =>
                {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                Err(status) => return Err(status),
            }
        }
    }

    /// How long a lease lasts, as its leader counts.
    async fn life_of(&self, caller: &Caller, id: i64) -> Result<Option<LeaseTimes>, Status> {
        let node = self.node();
        let begun = Instant::now();
        loop {
            let leader = leader_of(node).await?;
            let answer = if leader == node.identity.member {
                let life = self
                    .tenant
                    .lease_time_to_live(id, false, node.clock.now())
                    .map(|(time, _)| LeaseTimes {
                        granted_secs: time.granted_secs,
                        remaining_secs: time.remaining_secs(),
                    });
                if node.status.leads() {
                    Ok(life)
                } else {
                    Err(not_leader())
                }
            } else {
                let request = TimeToLive {
                    tenant: self.tenant.id.0,
                    caller: caller_bytes(caller).into(),
                    lease: id,
                };
                let limit = node.request_timeout();
                let answer = node.cluster.net.time_to_live(leader, request, limit);
                tokio::select! {
                    answer = answer => answer.map_err(|error| self.not_asked(error)),
                    () = node.another_leads(leader) => Err(not_leader()),
                }
            };
            match answer {
                Err(status)
                    if errors::is_not_leader(&status)
                        && begun.elapsed() < node.request_timeout() =>
                {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                answer => return answer,
            }
        }
    }

    /// Why the leader could not be asked.
    fn not_asked(&self, error: CallError) -> Status {
        match error {
            CallError::Answered(status) => status,
            CallError::Deadline => errors::timed_out(self.node().trouble()),
            CallError::Refused(_)
            | CallError::NobodyListens(_)
            | CallError::Unreachable(_)
            | CallError::Malformed(_) => not_leader(),
        }
    }
}

/// Waits for what ends a stream, if anything does.
async fn ended(end: &mut Option<StreamEnd>) -> Status {
    match end {
        Some(end) => end.await,
        None => std::future::pending().await,
    }
}

/// How long to wait before the next leader is asked.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// The member that was asked does not lead, or cannot be reached.
fn not_leader() -> Status {
    errors::failed(Failure::NotLeader)
}

/// The leader to ask. Unlike a write, a lease's call says so when there is none (etcd's).
async fn leader_of(node: &Node) -> Result<u64, Status> {
    let leader = node.leader().await;
    leader.map_err(|_| errors::failed(Failure::NoLeader))
}

/// Renews leases as the leader; gives the seconds of each, 0 for one that there is not.
///
/// # Errors
/// The refusal, as a client is told it; `not leader` if this member does not lead, or cannot be sure to have led all the time.
pub(crate) async fn renew_leases(
    node: &Node,
    tenant: &Tenant,
    caller: &Caller,
    leases: &[i64],
) -> Result<Vec<i64>, Status> {
    // Everything committed before this is applied, the grants of these leases included.
    node.linearizable()
        .await
        .map_err(|error| errors::unanswered(node, error))?;
    let term = node.status.term();
    if !node.status.leads() {
        return Err(not_leader());
    }
    let mut ttls = Vec::with_capacity(leases.len());
    let mut cleared = Vec::new();
    {
        let auth = tenant.auth().clone();
        let access = auth.stream_access(caller).map_err(errors::denied)?;
        for &id in leases {
            tenant
                .may_use_lease(&access, caller, id, LeaseUse::KeepAlive)
                .map_err(errors::denied)?;
            let renewed = tenant
                .renew_lease(id, node.clock.now())
                .map_err(|_| not_leader())?;
            if let Some((_, true)) = renewed {
                cleared.push((id, 0));
            }
            // An unknown or expired lease is answered with no time left, not with an error (behaviour §3.8).
            ttls.push(renewed.map_or(0, |(ttl, _)| ttl));
        }
    }
    if !cleared.is_empty() {
        // The next leader must not count from the time that was recorded before this renewal.
        let command = Command::LeaseCheckpoint(cleared);
        node.propose_in_term(term, &command)
            .await
            .map_err(|error| errors::unanswered(node, error))?;
    }
    // Still the leader after the renewal: no other one has begun to count before it.
    node.linearizable()
        .await
        .map_err(|error| errors::unanswered(node, error))?;
    if !node.status.leads() || node.status.term() != term {
        return Err(not_leader());
    }
    Ok(ttls)
}
