//! Changes of the membership: checked and proposed by the leader, whoever is asked.

use crate::grpc;
use crate::node::{Node, ProposeError, applied};
use crate::peer::{CallError, ChangeMembers, MembershipChange};
use bytes::Bytes;
use holdfast_auth::Caller;
use holdfast_consensus::{Failure, MemberChange, Progress};
use holdfast_tenant::{Command, Membership, Refusal};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tonic::Status;

/// Why a change was not made, or is not known to be.
#[derive(Debug)]
pub(crate) enum ChangeError {
    Propose(ProposeError),
    /// The leader's own answer.
    Answered(Status),
}

impl From<ProposeError> for ChangeError {
    fn from(error: ProposeError) -> ChangeError {
        ChangeError::Propose(error)
    }
}

impl From<Refusal> for ChangeError {
    fn from(refusal: Refusal) -> ChangeError {
        ChangeError::Propose(ProposeError::Refused(refusal))
    }
}

/// What a learner must have of the leader's log to be promoted, in parts of ten (etcd's).
const READY_TENTHS: u64 = 9;
/// How often it is looked whether another change is through, or a transfer.
const LOOK: Duration = Duration::from_millis(20);
/// How often it is looked whether a change has come here.
const LOOK_SOON: Duration = Duration::from_millis(2);
/// How long a change may take from the leader to this member.
const FOLLOW_MAX: Duration = Duration::from_secs(1);
/// How long a leader that is to be removed waits for another one.
const TRANSFER_MAX: Duration = Duration::from_secs(3);

/// What raft has to do for a command; `None` for one that changes no votes.
pub(super) fn change_of(command: &Command) -> Option<MemberChange> {
    match command {
        Command::MemberAdd { id, is_learner, .. } => Some(if *is_learner {
            MemberChange::Learner(*id)
        } else {
            MemberChange::Voter(*id)
        }),
        Command::MemberPromote { id } => Some(MemberChange::Voter(*id)),
        Command::MemberRemove { id } => Some(MemberChange::Remove(*id)),
        _ => None,
    }
}

impl Node {
    /// Changes the membership, through whichever member leads, and gives it as it is afterwards.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub(crate) async fn change_members(
        &self,
        caller: &Caller,
        command: &Command,
    ) -> Result<Arc<Membership>, ChangeError> {
        let mut bytes = Vec::new();
        command.encode(self.default_tenant.id, caller, &mut bytes);
        let Some(change) = change_of(command) else {
            return Err(Refusal::Malformed("no change of members").into());
        };
        let (wire, member) = match change {
            MemberChange::Voter(id) => (MembershipChange::Voter, id),
            MemberChange::Learner(id) => (MembershipChange::Learner, id),
            MemberChange::Remove(id) => (MembershipChange::Remove, id),
        };
        if member == 0 {
            // No member has it, and so no call to the leader can name it.
            return Err(Refusal::MemberNotFound.into());
        }
        let begun = Instant::now();
        loop {
            let leader = self.leader().await?;
            if leader == self.identity.member {
                match self.lead_change(command, change, bytes.clone()).await {
                    // Leadership went elsewhere before anything was proposed.
                    Err(ChangeError::Propose(ProposeError::Failure(Failure::NotLeader)))
                        if begun.elapsed() < self.request_timeout() =>
                    {
                        tokio::time::sleep(LOOK).await;
                        continue;
                    }
                    other => other?,
                }
            } else {
                let request = ChangeMembers {
                    change: wire,
                    member,
                    command: Bytes::from(bytes.clone()),
                };
                let net = &self.cluster.net;
                let limit = self.request_timeout();
                match net.change_members(leader, request, limit).await {
                    Ok(index) => return Ok(self.members_after(command, index).await),
                    // Its own removal was done, and the leader speaks with it no more.
                    Err(CallError::Refused(_) | CallError::Unreachable(_))
                        if change == MemberChange::Remove(self.identity.member)
                            && self.learns_removal().await =>
                    {
                        return Ok(self.members_after(command, 0).await);
                    }
                    // Nothing was proposed: it does not lead any more, or there is nobody.
                    Err(CallError::Answered(status))
                        if grpc::is_not_leader(&status)
                            && begun.elapsed() < self.request_timeout() =>
                    {
                        tokio::time::sleep(LOOK).await;
                        continue;
                    }
                    Err(CallError::NobodyListens(_))
                        if begun.elapsed() < self.request_timeout() =>
                    {
                        tokio::time::sleep(LOOK).await;
                        continue;
                    }
                    Err(CallError::Answered(status)) => return Err(ChangeError::Answered(status)),
                    Err(CallError::Deadline) => return Err(ProposeError::TimedOut.into()),
                    Err(error) => {
                        tracing::warn!(?error, "cannot ask the leader for a change of members");
                        return Err(ProposeError::Failure(Failure::ConnectionLost).into());
                    }
                }
            }
            return Ok(self.tenants.members());
        }
    }

    /// The members after a change that another member made: once this one has it, too. It does not ask for more than that, since a change can
    /// leave the cluster without a majority until the new member has started.
    async fn members_after(&self, command: &Command, index: u64) -> Arc<Membership> {
        let begun = Instant::now();
        while self.status.applied() < index && begun.elapsed() < FOLLOW_MAX {
            tokio::time::sleep(LOOK_SOON).await;
        }
        let members = self.tenants.members();
        // A member that was taken out may never be told.
        match members.after(command) {
            Ok(after) => Arc::new(after),
            Err(_) => members,
        }
    }

    /// Whether this member is told, by and by, that it was removed.
    async fn learns_removal(&self) -> bool {
        let begun = Instant::now();
        let me = self.identity.member;
        while begun.elapsed() < FOLLOW_MAX {
            let told = self.cluster.removed.load(Ordering::Relaxed);
            if told || self.status.removed() || self.tenants.members().is_removed(me) {
                return true;
            }
            tokio::time::sleep(LOOK).await;
        }
        false
    }

    /// Makes a change as the leader.
    ///
    /// # Errors
    /// [`ChangeError`]; `NotLeader` when nothing was proposed since this member does not lead.
    pub(super) async fn lead_change(
        &self,
        command: &Command,
        change: MemberChange,
        bytes: Vec<u8>,
    ) -> Result<(), ChangeError> {
        self.linearizable().await?;
        let members = self.tenants.members();
        members.after(command)?;
        self.check_change(command, &members)?;
        if change == MemberChange::Remove(self.identity.member) {
            self.step_down(&members).await?;
            // The next leader proposes it.
            return Err(ProposeError::Failure(Failure::NotLeader).into());
        }
        let begun = Instant::now();
        loop {
            let (ticket, expected) = self.mailbox.expect(Instant::now());
            self.group
                .propose_change(change, bytes.clone(), ticket)
                .map_err(ProposeError::Failure)?;
            match applied(expected.await) {
                Err(ProposeError::Failure(Failure::ChangePending))
                    if begun.elapsed() < self.request_timeout() =>
                {
                    tokio::time::sleep(LOOK).await;
                }
                other => return Ok(other.map(drop)?),
            }
        }
    }

    /// What the leader knows of those that take part, itself included. Raft notices the end of a member only after an election time-out,
    /// the broken stream tells it at once.
    fn active(&self) -> Vec<Progress> {
        let connected = self.cluster.net.connected();
        let mut active = self.group.progress();
        active.retain(|p| p.active && (p.id == self.identity.member || connected.contains(&p.id)));
        active
    }

    /// etcd's checks before a change: that the cluster can bear it, and that a learner is ready.
    fn check_change(&self, command: &Command, members: &Membership) -> Result<(), Refusal> {
        let active = self.active();
        let is_active = |id: u64| active.iter().any(|p| p.id == id);
        let strict = self.config.strict_reconfig_check;
        match command {
            Command::MemberAdd { is_learner, .. } if strict => {
                if !is_learner && !members.may_add_voter() {
                    return Err(Refusal::NotEnoughStarted);
                }
                // The new one counts as one that does not answer. (A single member must be able to get others.)
                let voters = members.voters();
                let (all, answer) = (voters.len(), voters.into_iter().filter(|id| is_active(*id)));
                if all > 1 && answer.count() < all.div_ceil(2) + 1 {
                    return Err(Refusal::UnhealthyCluster);
                }
            }
            Command::MemberRemove { id } if strict => {
                if !members.may_remove(*id) {
                    return Err(Refusal::NotEnoughStarted);
                }
                let is_voter = members.get(*id).is_some_and(|member| !member.is_learner);
                let rest = members.voters().into_iter().filter(|voter| voter != id);
                let (active, all) = rest.fold((0, 0), |(active, all), voter| {
                    (active + usize::from(is_active(voter)), all + 1)
                });
                // To take out one that is gone must stay possible, one of those that work only while a majority is left.
                if is_voter && is_active(*id) && active < all / 2 + 1 {
                    return Err(Refusal::UnhealthyCluster);
                }
            }
            Command::MemberPromote { id } => {
                let matched = |id: u64| active.iter().find(|p| p.id == id).map_or(0, |p| p.matched);
                let (own, theirs) = (matched(self.identity.member), matched(*id));
                if theirs.saturating_mul(10) < own.saturating_mul(READY_TENTHS) {
                    return Err(Refusal::LearnerNotReady);
                }
                if strict && !members.may_promote(*id) {
                    return Err(Refusal::NotEnoughStarted);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Hands leadership to the voter that has most of the log.
    ///
    /// # Errors
    /// When nobody took it in time.
    async fn step_down(&self, members: &Membership) -> Result<(), ChangeError> {
        let Some(next) = self.successor(members) else {
            return Err(Refusal::NotEnoughStarted.into());
        };
        self.group
            .transfer_leader(next)
            .map_err(ProposeError::Failure)?;
        let begun = Instant::now();
        while self.status.leader() == self.identity.member || self.status.leader() == 0 {
            if begun.elapsed() > TRANSFER_MAX {
                return Err(ProposeError::TimedOut.into());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    fn successor(&self, members: &Membership) -> Option<u64> {
        let voters = members.voters();
        self.active()
            .into_iter()
            .filter(|p| p.id != self.identity.member && voters.contains(&p.id))
            .max_by_key(|p| p.matched)
            .map(|p| p.id)
    }

    /// Before a stop: hands leadership over, so that the others need not find out that this member is gone.
    pub(crate) async fn hand_over(&self, limit: Duration) {
        if !self.status.leads() {
            return;
        }
        let Some(next) = self.successor(&self.tenants.members()) else {
            return;
        };
        if self.group.transfer_leader(next).is_err() {
            return;
        }
        let begun = Instant::now();
        while self.status.leads() && begun.elapsed() < limit {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tracing::info!(
            to = format!("{next:x}"),
            done = !self.status.leads(),
            took_ms = begun.elapsed().as_millis() as u64,
            "handed leadership over"
        );
    }

    /// Hands leadership to a voter and waits until it has it.
    ///
    /// # Errors
    /// A text that etcd's clients know, as a status.
    pub(crate) async fn move_leader(&self, target: u64) -> Result<(), Status> {
        if self.status.leader() != self.identity.member {
            return Err(Status::failed_precondition("etcdserver: not leader"));
        }
        let members = self.tenants.members();
        if !members.voters().contains(&target) {
            return Err(Status::failed_precondition(
                "etcdserver: bad leader transferee",
            ));
        }
        if target == self.identity.member {
            return Ok(());
        }
        self.group
            .transfer_leader(target)
            .map_err(|_| Status::failed_precondition("etcdserver: not leader"))?;
        let begun = Instant::now();
        while self.status.leader() != target {
            if begun.elapsed() > self.config.election_timeout {
                return Err(Status::unknown(
                    "etcdserver: request timed out, leader transfer took too long",
                ));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}
