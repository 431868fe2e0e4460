//! This member among the others: what is sent to them and what they ask for, how a cluster begins, and how its members change.

pub(crate) mod bootstrap;
mod changes;
mod corruption;
mod discovery;
mod handler;
mod leader;
mod links;
mod publish;

pub(crate) use bootstrap::texts;
pub(crate) use changes::ChangeError;
pub(crate) use corruption::watch_for_corruption;
pub(crate) use handler::Handler;
pub(crate) use leader::watch_leader;
pub(crate) use links::Links;
pub(crate) use publish::publish;

use crate::node::{Node, ProposeError};
use crate::peer::{PeerAddress, PeerNet, PeerVersion};
use holdfast_certs::PeerTls;
use holdfast_consensus::Failure;
use holdfast_tenant::{MEMBER_LEVEL, MachineOptions, MemberVersion, Membership};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What a node has to do with the other members.
pub(crate) struct Cluster {
    pub(crate) net: PeerNet,
    pub(crate) tls: Option<Arc<PeerTls>>,
    /// How a received state is read.
    pub(crate) machine_options: MachineOptions,
    /// Whom to speak with while there is no membership.
    contacts: Vec<PeerAddress>,
    /// Follows the membership.
    pub(crate) member_changes: watch::Receiver<Arc<Membership>>,
    /// Whether this member only learns, for the hot path.
    learner: AtomicBool,
    /// Another member says that this one was removed.
    removed: AtomicBool,
    /// When there was last no leader.
    leaderless: Mutex<Option<Instant>>,
    /// Set while there has been no leader for long.
    pub(crate) without_leader: watch::Sender<bool>,
    /// Told what ends this member: the others do not know it any more.
    pub(crate) banished: tokio::sync::mpsc::UnboundedSender<String>,
}

/// What may have kept a request from its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    LeaderLost,
    ConnectionLost,
}

impl Cluster {
    pub(crate) fn new(
        net: PeerNet,
        tls: Option<Arc<PeerTls>>,
        machine_options: MachineOptions,
        contacts: Vec<PeerAddress>,
        member_changes: watch::Receiver<Arc<Membership>>,
        banished: tokio::sync::mpsc::UnboundedSender<String>,
    ) -> Cluster {
        Cluster {
            net,
            tls,
            machine_options,
            contacts,
            member_changes,
            learner: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            leaderless: Mutex::new(None),
            without_leader: watch::Sender::new(false),
            banished,
        }
    }
}

impl Node {
    /// Whether this member has no vote, or is not yet told that it is one.
    pub(crate) fn is_learner(&self) -> bool {
        self.cluster.learner.load(Ordering::Relaxed)
    }

    /// How long a request may take.
    pub(crate) fn request_timeout(&self) -> Duration {
        crate::serve::request_limit(&self.config)
    }

    /// What may keep requests from their answers now.
    pub(crate) fn trouble(&self) -> Trouble {
        let leader = self.status.leader();
        let lately = self.request_timeout() + self.config.election_timeout;
        let was_lost = (*self.cluster.leaderless.lock()).is_some_and(|at| at.elapsed() < lately);
        if leader == 0 || was_lost {
            Trouble::LeaderLost
        } else if leader != self.identity.member && !self.cluster.net.connected().contains(&leader)
        {
            Trouble::ConnectionLost
        } else {
            Trouble::None
        }
    }

    /// The leader to ask; waits for one.
    ///
    /// # Errors
    /// When there is none in the time that a request has.
    pub(crate) async fn leader(&self) -> Result<u64, ProposeError> {
        let found = self.leader_within(self.request_timeout()).await;
        found.ok_or(ProposeError::Failure(Failure::NoLeader))
    }

    /// Whether there is a leader for a client that wants one. It takes a "no" for the end of its watch, and it comes at the moment at which
    /// the leader was lost; here that is noticed sooner than in etcd, so the next one is given the time that etcd takes to notice.
    pub(crate) async fn has_leader_soon(&self) -> bool {
        let patience = match *self.cluster.without_leader.borrow() {
            true => Duration::ZERO,
            false => self.config.election_timeout,
        };
        self.leader_within(patience).await.is_some()
    }

    /// Waits until another member than `leader` leads: who asked that one need not wait for it, it may hang.
    pub(crate) async fn another_leads(&self, leader: u64) {
        while matches!(self.status.leader(), now if now == 0 || now == leader) {
            tokio::time::sleep(LOOK_FOR_LEADER).await;
        }
    }

    async fn leader_within(&self, patience: Duration) -> Option<u64> {
        let begun = Instant::now();
        loop {
            match self.status.leader() {
                0 if begun.elapsed() >= patience => return None,
                0 => tokio::time::sleep(LOOK_FOR_LEADER).await,
                leader => return Some(leader),
            }
        }
    }

    /// Follows the members: dials new ones, cuts off those that are gone. Never ends, but with the node.
    pub(crate) async fn follow_members(&self) {
        let mut changes = self.cluster.member_changes.clone();
        loop {
            let members = changes.borrow_and_update().clone();
            self.take_members(&members);
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Acts on a membership at once.
    pub(crate) fn take_members(&self, members: &Membership) {
        let me = self.identity.member;
        let learner = members.get(me).is_none_or(|member| member.is_learner);
        self.cluster.learner.store(learner, Ordering::Relaxed);
        let others: Vec<PeerAddress> = members
            .iter()
            .filter(|member| member.id != me)
            .map(|member| PeerAddress {
                id: member.id,
                urls: member.peer_urls.clone(),
            })
            .collect();
        let others = if members.is_empty() {
            &self.cluster.contacts
        } else {
            &others
        };
        self.cluster.net.set_members(others);
        if members.is_removed(me) {
            let _ = self
                .cluster
                .banished
                .send("this member was removed from the cluster".to_owned());
        }
    }
}

/// How often a request looks for a leader.
const LOOK_FOR_LEADER: Duration = Duration::from_millis(10);

/// What this binary is, as other members are told.
pub(crate) fn version() -> MemberVersion {
    MemberVersion {
        level: MEMBER_LEVEL,
        text: crate::version::COMPATIBLE.to_owned(),
    }
}

pub(crate) fn peer_version() -> PeerVersion {
    let MemberVersion { level, text } = version();
    PeerVersion { level, text }
}
