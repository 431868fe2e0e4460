//! One call: who makes it, whether it may be made, and what the logs and counters say of it.

use super::{Connection, errors};
use crate::audit::Entry;
use crate::identity::Identified;
use crate::metrics::{Rpc, RpcKind};
use holdfast_auth::{Authorized, Demands, Denied, Policy, policy};
use holdfast_consensus::Failure;
use prost::Message;
use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};

/// The policy of an RPC that is served.
pub(super) fn policy_of(rpc: Rpc) -> Option<Policy> {
    static TABLE: LazyLock<Vec<Option<Policy>>> =
        LazyLock::new(|| Rpc::ALL.iter().map(|rpc| policy(rpc.path())).collect());
    TABLE.get(rpc as usize).copied().flatten()
}

/// A call that has begun.
pub(super) struct Call<'a> {
    connection: &'a Arc<Connection>,
    rpc: Rpc,
    begun: Instant,
    who: Result<Arc<Identified>, Denied>,
    wants_leader: bool,
    /// Whether a learner serves it, too.
    for_learners: bool,
    entry: Entry,
}

impl Connection {
    /// Begins a unary call.
    pub(super) fn begin<M: Message>(
        self: &Arc<Self>,
        rpc: Rpc,
        request: Request<M>,
    ) -> (Call<'_>, M) {
        let metrics = &self.node().metrics;
        metrics.started(rpc);
        metrics.messages_received(rpc, 1);
        let call = self.call(rpc, request.metadata());
        let wire = request.into_inner();
        call.entry.request_bytes(|| wire.encoded_len());
        (call, wire)
    }

    /// Begins a call that streams. Its end is counted by a [`super::StreamGuard`].
    pub(super) fn begin_stream<M>(self: &Arc<Self>, rpc: Rpc, request: &Request<M>) -> Call<'_> {
        self.node().metrics.started(rpc);
        self.call(rpc, request.metadata())
    }

    /// Whether a refusal may be for want of a grant that another member has answered and that has not come here yet. Then it must not
    /// stand before this member knows what the leader knows.
    pub(super) fn may_lag(&self) -> bool {
        !self.node().status.leads_alone() && !self.node().is_learner()
    }

    /// Whether nobody is known here by these headers, but may be by what another member has answered: a user that was just made, a password
    /// that was just changed.
    pub(crate) fn may_be_known_elsewhere(&self, headers: &http::HeaderMap) -> bool {
        let unknown = || {
            matches!(
                self.identify(headers),
                Err(Denied::InvalidToken | Denied::NotPermitted)
            )
        };
        self.may_lag() && unknown()
    }

    /// Waits for all that was answered anywhere so far.
    ///
    /// # Errors
    /// When that does not come in the time that a request has, and the request cannot be for what is known here alone.
    pub(crate) async fn catch_up(&self, rpc: Rpc) -> Result<(), Status> {
        if self.node().status.leader() == 0
            && matches!(rpc, Rpc::Status | Rpc::Range | Rpc::Snapshot | Rpc::HashKv)
        {
            return Ok(());
        }
        self.linearizable().await
    }

    fn call(self: &Arc<Self>, rpc: Rpc, metadata: &MetadataMap) -> Call<'_> {
        let who = self.identify(metadata.as_ref());
        if let Err(denied) = &who
            && policy_of(rpc) != Some(Policy::Public)
        {
            self.node().metrics.denied(*denied);
        }
        let entry = self.audit_entry(rpc, who.as_ref().ok());
        Call {
            connection: self,
            rpc,
            begun: Instant::now(),
            who,
            wants_leader: metadata
                .get("hasleader")
                .is_some_and(|value| value == "true"),
            for_learners: matches!(rpc, Rpc::Status | Rpc::Snapshot),
            entry,
        }
    }
}

impl Call<'_> {
    /// What the audit log is to say.
    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Whether the client asked for streams to end while there is no leader.
    pub(super) fn wants_leader(&self) -> bool {
        self.wants_leader
    }

    /// Says that the call reads this member's own state alone, as it is: a learner serves that, too.
    pub(super) fn reads_locally(&mut self) {
        self.for_learners = true;
    }

    /// Who calls.
    ///
    /// # Errors
    /// When nobody could be identified.
    pub(super) fn who(&self) -> Result<&Arc<Identified>, Status> {
        self.who.as_ref().map_err(|denied| errors::denied(*denied))
    }

    /// What every call must pass before anything of it is looked at.
    async fn check(&self) -> Result<(), Status> {
        self.check_member().await?;
        // What an unknown caller may call tells nothing and changes nothing, so it can be called with a token that has ended.
        if policy_of(self.rpc) != Some(Policy::Public) {
            self.who()?;
        }
        Ok(())
    }

    /// Whether this member may serve the call.
    async fn check_member(&self) -> Result<(), Status> {
        let node = self.connection.node();
        if !self.for_learners && node.is_learner() {
            return Err(errors::not_for_learners());
        }
        if self.wants_leader && !node.has_leader_soon().await {
            return Err(errors::failed(Failure::NoLeader));
        }
        Ok(())
    }

    /// Under a strict rule: waits until the audit log has taken a record of what is about to be done.
    async fn check_audit(&self) -> Result<(), Status> {
        if self.entry.is_strict() {
            let taken = self.connection.record_begin(&self.entry).await;
            taken.map_err(|()| errors::audit_unavailable())?;
        }
        Ok(())
    }

    /// Grants a request or refuses it whole. In between, a strict rule's record must have been taken by the audit log.
    ///
    /// # Errors
    /// The refusal, as the client is told it.
    pub(super) async fn authorize<T: Demands>(&self, request: T) -> Result<Authorized<T>, Status> {
        // What reads this member's state alone is judged by that.
        if !self.for_learners && self.connection.may_lag() && self.is_refused(&request) {
            self.connection.linearizable().await?;
        }
        let authorized = self.authorize_now(request)?;
        self.check_audit().await?;
        Ok(authorized)
    }

    fn is_refused(&self, request: &impl Demands) -> bool {
        let (Ok(who), Some(policy)) = (&self.who, policy_of(self.rpc)) else {
            return false;
        };
        let auth = self.connection.tenant.auth();
        let access = auth.access(&who.caller);
        access.and_then(|access| access.permits(policy, request)) == Err(Denied::NotPermitted)
    }

    fn authorize_now<T: Demands>(&self, request: T) -> Result<Authorized<T>, Status> {
        let nobody;
        let caller = match &self.who {
            Ok(who) => &who.caller,
            Err(denied) if policy_of(self.rpc) != Some(Policy::Public) => {
                return Err(errors::denied(*denied));
            }
            Err(_) => {
                nobody = holdfast_auth::Caller::Anonymous;
                &nobody
            }
        };
        self.entry.demands(&request);
        self.connection
            .tenant
            .auth()
            .authorize(caller, policy_of(self.rpc), request)
            .map_err(|denied| {
                self.connection.node().metrics.denied(denied);
                errors::denied(denied)
            })
    }

    /// Carries a unary call out and accounts for it.
    ///
    /// # Errors
    /// What `work` ends with, or why it was not begun.
    pub(super) async fn run<T>(
        &self,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let unfinished = Unfinished(Some(self));
        let result = match self.check().await {
            Ok(()) => work.await,
            Err(status) => Err(status),
        };
        unfinished.done();
        let code = result.as_ref().err().map_or(Code::Ok, Status::code);
        let took = self.begun.elapsed();
        let node = self.connection.node();
        node.metrics.handled(self.rpc, code, took);
        if code == Code::Ok {
            node.metrics.messages_sent(self.rpc, 1);
        }
        self.record(result.as_ref().err(), took);
        // A login waits for its turn on purpose, and a flood of them must not become one of warnings.
        let may_be_slow = self.rpc == Rpc::Authenticate;
        if took > node.config.warning_unary_request_duration && !may_be_slow {
            tracing::warn!(
                method = self.rpc.path(),
                took_ms = took.as_millis() as u64,
                remote = ?self.connection.peer,
                code = ?code,
                "request took long"
            );
        }
        result
    }

    /// Opens a stream: as [`Call::run`], but what goes well is not yet the end of it.
    ///
    /// # Errors
    /// What `open` ends with, or why it was not begun.
    pub(super) async fn open<T>(
        &self,
        open: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let unfinished = Unfinished(Some(self));
        let result = match self.check().await {
            Ok(()) => open.await,
            Err(status) => Err(status),
        };
        unfinished.done();
        self.record(result.as_ref().err(), self.begun.elapsed());
        result
    }

    /// Opens a stream whose requests are judged one by one.
    ///
    /// # Errors
    /// When this member only learns, when the client wants a leader and there is none, or when a strict rule's record was not taken.
    pub(super) async fn open_unidentified(&self) -> Result<(), Status> {
        self.check_member().await?;
        self.check_audit().await
    }

    fn record(&self, error: Option<&Status>, took: Duration) {
        let outcome = error.map(|status| (status.code(), status.message()));
        self.connection.record(&self.entry, outcome, took);
    }
}

/// A call that is under way. If its client gives it up, its future is dropped, and what it began may be carried out all the same: that is
/// counted and recorded, too.
struct Unfinished<'a, 'b>(Option<&'a Call<'b>>);

impl Unfinished<'_, '_> {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_, '_> {
    fn drop(&mut self) {
        let Some(call) = self.0 else { return };
        let status = Status::cancelled("the client gave up; the request may have been carried out");
        let took = call.begun.elapsed();
        if call.rpc.kind() == RpcKind::Unary {
            let metrics = &call.connection.node().metrics;
            metrics.handled(call.rpc, status.code(), took);
        }
        call.record(Some(&status), took);
    }
}
