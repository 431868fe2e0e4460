//! Changes of who is in the cluster.

use super::{Bootstrap, Cluster, State};
use crate::{PATIENCE, Raw, raw::unary, soon};
use holdfast_proto::etcdserverpb as pb;
use std::{
    fs,
    time::{Duration, Instant},
};
use tonic::Status;

impl Raw {
    unary!(
        /// Cluster.MemberAdd.
        member_add_call, cluster.member_add, pb::MemberAddRequest, pb::MemberAddResponse
    );
    unary!(
        /// Cluster.MemberRemove.
        member_remove_call, cluster.member_remove, pb::MemberRemoveRequest, pb::MemberRemoveResponse
    );
    unary!(
        /// Cluster.MemberUpdate.
        member_update_call, cluster.member_update, pb::MemberUpdateRequest, pb::MemberUpdateResponse
    );
    unary!(
        /// Cluster.MemberPromote.
        member_promote_call, cluster.member_promote, pb::MemberPromoteRequest, pb::MemberPromoteResponse
    );
    unary!(
        /// Cluster.MemberList.
        member_list_call, cluster.member_list, pb::MemberListRequest, pb::MemberListResponse
    );
    unary!(
        /// Maintenance.MoveLeader.
        move_leader_call, maintenance.move_leader, pb::MoveLeaderRequest, pb::MoveLeaderResponse
    );

    /// Adds a member at these URLs.
    pub async fn member_add(
        &self,
        urls: &[&str],
        is_learner: bool,
    ) -> Result<pb::MemberAddResponse, Status> {
        self.member_add_call(pb::MemberAddRequest {
            peer_ur_ls: urls.iter().map(|url| (*url).to_owned()).collect(),
            is_learner,
        })
        .await
    }

    /// Removes a member.
    pub async fn member_remove(&self, id: u64) -> Result<pb::MemberRemoveResponse, Status> {
        self.member_remove_call(pb::MemberRemoveRequest { id })
            .await
    }

    /// Gives a member other URLs.
    pub async fn member_update(
        &self,
        id: u64,
        urls: &[&str],
    ) -> Result<pb::MemberUpdateResponse, Status> {
        self.member_update_call(pb::MemberUpdateRequest {
            id,
            peer_ur_ls: urls.iter().map(|url| (*url).to_owned()).collect(),
        })
        .await
    }

    /// Makes a learner a voter.
    pub async fn member_promote(&self, id: u64) -> Result<pb::MemberPromoteResponse, Status> {
        self.member_promote_call(pb::MemberPromoteRequest { id })
            .await
    }

    /// All members, as the cluster knows them.
    pub async fn member_list(&self) -> Result<Vec<pb::Member>, Status> {
        let request = pb::MemberListRequest { linearizable: true };
        Ok(self.member_list_call(request).await?.members)
    }

    /// Hands leadership to another member.
    pub async fn move_leader(&self, target_id: u64) -> Result<pb::MoveLeaderResponse, Status> {
        self.move_leader_call(pb::MoveLeaderRequest { target_id })
            .await
    }
}

/// What a cluster answers for some seconds after members were started or lost; a change is tried again then.
fn is_passing(status: &Status) -> bool {
    let texts = [
        "unhealthy cluster",
        "not enough started members",
        "request timed out",
        "no leader",
        "leader changed",
    ];
    texts.iter().any(|text| status.message().contains(text))
}

/// Asks until the cluster is ready for a change of its members.
pub(super) async fn when_ready<T>(what: &str, change: impl AsyncFn() -> Result<T, Status>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match change().await {
            Ok(answer) => return answer,
            Err(status) if is_passing(&status) && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(status) => panic!("{what}: {status}"),
        }
    }
}

impl Cluster {
    /// Adds a member, with its entry in the list alone: it is not started. Gives its index and id.
    pub async fn add_unstarted(&mut self, is_learner: bool) -> (usize, u64) {
        let by = self.raw(self.leader().await);
        let index = self.enlist();
        let url = self.members[index].peer_url();
        let added = when_ready("a member is added", async || {
            by.member_add(&[&url], is_learner).await
        });
        let id = added.await.member.expect("a member").id;
        self.bootstraps.push(self.joining());
        (index, id)
    }

    /// Adds a member and starts it. Gives its index and id.
    pub async fn add(&mut self, is_learner: bool) -> (usize, u64) {
        let (index, id) = self.add_unstarted(is_learner).await;
        // A learner says that it serves as any other does.
        self.restart(index);
        (index, id)
    }

    /// What one more member is told: all that there are now.
    fn joining(&self) -> Bootstrap {
        Bootstrap {
            cluster: self.urls(&self.all()),
            state: "existing",
        }
    }

    /// Makes a learner a voter as soon as it has caught up.
    pub async fn promote(&self, id: u64) {
        let by = self.raw(self.leader().await);
        let deadline = Instant::now() + PATIENCE;
        while let Err(status) = by.member_promote(id).await {
            let waits = status.message().contains("in sync with leader") || is_passing(&status);
            assert!(waits && Instant::now() < deadline, "promotion: {status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Removes a member and ends its process.
    pub async fn remove(&mut self, index: usize, id: u64) {
        let others: Vec<_> = self
            .running()
            .into_iter()
            .filter(|other| *other != index)
            .collect();
        let by = self.raw(others[0]);
        when_ready("a member is removed", async || by.member_remove(id).await).await;
        if self.members[index].process.is_started() {
            self.kill(index);
        }
        self.members[index].state = State::Removed;
    }

    /// Takes a member out, wipes its disk and takes it in again under a new id, as the advice for lost disks is.
    pub async fn replace(&mut self, index: usize) -> u64 {
        let id = self.id(index).await;
        self.kill(index);
        let by = self.raw(self.leader().await);
        when_ready("a member is removed", async || by.member_remove(id).await).await;
        self.wipe(index);
        let url = self.members[index].peer_url();
        let added = when_ready("a member is added", async || {
            by.member_add(&[&url], false).await
        });
        let id = added.await.member.expect("a member").id;
        self.bootstraps[index] = self.joining();
        self.restart(index);
        id
    }

    /// Removes the data of a member that is down.
    pub fn wipe(&self, index: usize) {
        fs::remove_dir_all(&self.members[index].data).expect("the data can be removed");
    }

    /// Hands leadership to a member and waits until all know it.
    pub async fn lead(&self, index: usize) {
        let id = self.id(index).await;
        soon("the leader moves", async {
            while self.leader().await != index {
                let leader = self.raw(self.leader().await);
                // It may have changed in between, which the loop sees.
                let _ = leader.move_leader(id).await;
            }
        })
        .await;
    }
}
