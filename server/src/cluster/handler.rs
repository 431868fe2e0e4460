//! What other members ask of this one.

use super::ChangeError;
use crate::grpc;
use crate::node::{Node, ProposeError};
use crate::peer::{
    ChangeMembers, DescribedMember, Description, HashAt, Hashes, Hello, KeepAlive, Known,
    LeaseTimes, MembershipChange, PeerHandler, Refusal, Reply, SnapshotSink, TimeToLive,
};
use bytes::Bytes;
use holdfast_consensus::{Failure, MemberChange};
use holdfast_storage::TenantId;
use holdfast_storage::snapshot::Installer;
use holdfast_tenant::{Command, IncomingState, Tenant, caller_of_bytes};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tonic::Status;

/// See the module's text.
pub(crate) struct Handler {
    node: Arc<Node>,
}

impl Handler {
    pub(crate) fn new(node: Arc<Node>) -> Handler {
        Handler { node }
    }

    fn tenant(&self, id: u32) -> Result<Arc<Tenant>, Status> {
        let tenant = self.node.tenants.get(TenantId(id));
        tenant.ok_or_else(|| Status::not_found("no such tenant"))
    }

    /// Only the leader knows how long leases last.
    fn lead(&self) -> Result<(), Status> {
        if self.node.status.leads() {
            Ok(())
        } else {
            Err(Status::failed_precondition("etcdserver: not leader"))
        }
    }
}

impl PeerHandler for Handler {
    fn check(&self, hello: &Hello) -> Result<Known, Refusal> {
        let members = self.node.tenants.members();
        if members.is_removed(hello.from) {
            return Err(Refusal::Removed);
        }
        let known = members.get(hello.from);
        if known.is_none() && !members.is_empty() {
            return Err(Refusal::UnknownMember);
        }
        if known.is_some_and(|member| member.instance != 0 && member.instance != hello.instance) {
            return Err(Refusal::Wiped);
        }
        Ok(Known {
            name: known
                .filter(|member| member.has_published())
                .map(|member| member.name.clone()),
            named_elsewhere: members
                .iter()
                .any(|member| member.id != hello.from && member.name == hello.name),
        })
    }

    fn receive(&self, from: u64, messages: Vec<Bytes>) {
        self.node.group.deliver(from, messages);
    }

    fn connected(&self, peer: u64) {
        // The log has it from the stream itself.
        tracing::debug!(member = format!("{peer:x}"), "connected to a member");
    }

    fn lost(&self, peer: u64) {
        self.node.group.unreachable(peer);
    }

    fn gone(&self, peer: u64) {
        self.node.group.gone(peer);
    }

    fn refused(&self, peer: u64, refusal: Refusal) {
        // Said by one that belongs to the cluster, by its certificate: there is nothing that this member could do there.
        let cluster = &self.node.cluster;
        let end = match refusal {
            Refusal::Removed => {
                cluster.removed.store(true, Ordering::Relaxed);
                format!(
                    "this member was removed from the cluster, as member {peer:x} says. Delete its data directory; it can be added again as a \
                     new one"
                )
            }
            Refusal::Wiped => format!(
                "member {peer:x} refuses this one: {refusal}. Remove this member from the cluster, delete its data directory, and add it again \
                 as a new one"
            ),
            _ => return,
        };
        let _ = cluster.banished.send(end);
    }

    fn snapshot_sent(&self, to: u64, ok: bool) {
        self.node.group.snapshot_sent(to, ok);
    }

    fn begin_snapshot(&self, from: u64, message: Bytes) -> Result<Box<dyn SnapshotSink>, Status> {
        let node = &self.node;
        let wanted = node
            .group
            .wants(from, message.clone())
            .map_err(|fault| Status::invalid_argument(fault.to_string()))?;
        if !wanted {
            return Err(Status::failed_precondition(
                "the snapshot is not ahead of what this member has",
            ));
        }
        let installer = node
            .tenants
            .store()
            .incoming(Some(node.identity.cluster))
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Box::new(Sink {
            node: node.clone(),
            from,
            message,
            installer,
            begun: Instant::now(),
            bytes: 0,
        }))
    }

    fn keep_alive(&self, _from: u64, request: KeepAlive) -> Reply<'_, Vec<i64>> {
        Box::pin(async move {
            let tenant = self.tenant(request.tenant)?;
            let caller = caller_of_bytes(request.caller)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            self.lead()?;
            grpc::renew_leases(&self.node, &tenant, &caller, &request.leases).await
        })
    }

    fn time_to_live(&self, _from: u64, request: TimeToLive) -> Reply<'_, Option<LeaseTimes>> {
        Box::pin(async move {
            let tenant = self.tenant(request.tenant)?;
            let node = &self.node;
            let readable = node.linearizable().await;
            readable.map_err(|error| unanswered(node, error))?;
            self.lead()?;
            let now = self.node.clock.now();
            let life = tenant.lease_time_to_live(request.lease, false, now);
            Ok(life.map(|(time, _)| LeaseTimes {
                granted_secs: time.granted_secs,
                remaining_secs: time.remaining_secs(),
            }))
        })
    }

    fn change_members(&self, _from: u64, request: ChangeMembers) -> Reply<'_, u64> {
        Box::pin(async move {
            let mut bytes = request.command.clone();
            let decoded = Command::decode_next(&mut bytes)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            let Some((_, _, command)) =
                decoded.filter(|(.., command)| bytes.is_empty() && command.is_of_members())
            else {
                return Err(Status::invalid_argument("no change of members"));
            };
            let announced = match request.change {
                MembershipChange::Voter => MemberChange::Voter(request.member),
                MembershipChange::Learner => MemberChange::Learner(request.member),
                MembershipChange::Remove => MemberChange::Remove(request.member),
            };
            let Some(change) = super::changes::change_of(&command).filter(|c| *c == announced)
            else {
                return Err(Status::invalid_argument(
                    "the change is not that of the command",
                ));
            };
            self.node
                .lead_change(&command, change, request.command.to_vec())
                .await
                .map_err(|error| match error {
                    ChangeError::Answered(status) => status,
                    ChangeError::Propose(error) => grpc::unanswered(&self.node, error),
                })?;
            Ok(self.node.status.applied())
        })
    }

    fn hash(&self, _from: u64, request: HashAt) -> Reply<'_, Hashes> {
        Box::pin(async move {
            let tenant = self.tenant(request.tenant)?;
            self.node.hashes_at(tenant, request.revision).await
        })
    }

    fn describe(&self) -> Description {
        let node = &self.node;
        let members = node.tenants.members();
        Description {
            cluster: node.identity.cluster,
            member: node.identity.member,
            name: node.config.name.clone(),
            instance: node.identity.instance,
            version: super::peer_version(),
            strict: node.identity.profile == holdfast_config::Profile::Strict,
            leader: node.status.leader(),
            members: members
                .iter()
                .map(|member| DescribedMember {
                    id: member.id,
                    name: member.name.clone(),
                    peer_urls: member.peer_urls.clone(),
                    client_urls: member.client_urls.clone(),
                    is_learner: member.is_learner,
                    instance: member.instance,
                })
                .collect(),
        }
    }
}

fn unanswered(node: &Node, error: ProposeError) -> Status {
    match error {
        ProposeError::Failure(Failure::NotLeader) => {
            Status::failed_precondition("etcdserver: not leader")
        }
        error => grpc::unanswered(node, error),
    }
}

/// Takes a snapshot to its place beside the store.
struct Sink {
    node: Arc<Node>,
    from: u64,
    message: Bytes,
    installer: Installer,
    begun: Instant,
    bytes: u64,
}

/// Bytes of a snapshot that are taken in a second. Faster it would keep the disk, and on a shared machine the processor, from the members
/// that serve.
const RECEIVED_PER_SECOND: f64 = (32 << 20) as f64;

impl SnapshotSink for Sink {
    fn push(&mut self, piece: Bytes) -> Result<(), Status> {
        self.installer
            .push(&piece)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.bytes += piece.len() as u64;
        let due = Duration::from_secs_f64(self.bytes as f64 / RECEIVED_PER_SECOND);
        std::thread::sleep(due.saturating_sub(self.begun.elapsed()).min(PAUSE_MAX));
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), Status> {
        let begun = Instant::now();
        let incoming = self
            .installer
            .finish()
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let node = &self.node;
        // Off the thread that drives the log: that goes on while the index is built.
        let options = &node.cluster.machine_options;
        let state = IncomingState::read(incoming, options, node.clock.now())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let index = state.position().index;
        let read = begun.elapsed();
        let taken = node
            .group
            .deliver_snapshot(self.from, self.message, state)
            .map_err(|fault| Status::invalid_argument(fault.to_string()))?;
        if !taken {
            return Err(Status::failed_precondition(
                "the snapshot is not ahead of what this member has",
            ));
        }
        // Not sooner: whoever has a member's key can have a snapshot read without end.
        tracing::info!(
            index,
            took_ms = read.as_millis() as u64,
            "read a received snapshot"
        );
        // Not before it is in use is the sender told that this member has it.
        while node.status.applied() < index {
            if begun.elapsed() > INSTALL_MAX {
                return Err(Status::deadline_exceeded("the snapshot was not installed"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Longest pause between two pieces.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Longest that a received snapshot may take to come into use.
const INSTALL_MAX: Duration = Duration::from_secs(60);
