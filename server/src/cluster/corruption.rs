//! Whether all members have the same: sums of their keys and values are compared.

use crate::node::{Node, ProposeError};
use crate::peer::{HashAt, Hashes};
use holdfast_config::Feature;
use holdfast_tenant::{Alarm, AlarmKind, Command, Tenant};
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

/// How long another member may take for its sum.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Why a member must not start: it has other data than the cluster.
#[derive(Debug, thiserror::Error)]
#[error(
    "this member has other data than member {peer:x} at revision {revision}: its disk is damaged. Remove the member from the cluster, and \
     add it again as a new one"
)]
pub(crate) struct Corrupt {
    peer: u64,
    revision: i64,
}

impl Node {
    /// The sums of a tenant's state at a revision, 0 for the present one. Read off the runtimes, at most a few at a time.
    pub(super) async fn hashes_at(
        &self,
        tenant: Arc<Tenant>,
        revision: i64,
    ) -> Result<Hashes, Status> {
        // Nobody closes the semaphore.
        let _turn = self.hashes.acquire().await;
        let tenants = self.tenants.clone();
        let applied_index = self.status.applied();
        let hashed = tokio::task::spawn_blocking(move || {
            let hash = tenants.hash_kv(&tenant, revision);
            hash.map(|hash| (hash, tenant.auth_hash()))
        })
        .await
        .map_err(|_| Status::internal("a background computation failed"))?;
        let (hash, auth_hash) =
            hashed.map_err(|refusal| Status::failed_precondition(refusal.to_string()))?;
        Ok(Hashes {
            hash: hash.hash,
            hash_revision: hash.hash_revision,
            compact_revision: hash.compact_revision,
            auth_hash: u64::from(auth_hash),
            applied_index,
        })
    }

    /// Compares this member with all others; gives those that differ. Members that do not answer, or that have compacted to another
    /// revision, are no evidence.
    async fn compare(&self) -> Vec<(u64, i64)> {
        let tenant = self.default_tenant.clone();
        let Ok(own) = self.hashes_at(tenant.clone(), 0).await else {
            return Vec::new();
        };
        let at = HashAt {
            tenant: tenant.id.0,
            revision: own.hash_revision,
        };
        let members = self.tenants.members();
        let mut different = Vec::new();
        for member in members.iter().filter(|m| m.id != self.identity.member) {
            let theirs = match self.cluster.net.hash(member.id, at, ANSWER_MAX).await {
                Ok(theirs) => theirs,
                Err(error) => {
                    tracing::debug!(
                        member = format!("{:x}", member.id),
                        ?error,
                        "has no sum to compare"
                    );
                    continue;
                }
            };
            if theirs.compact_revision == own.compact_revision
                && theirs.hash_revision == own.hash_revision
                && theirs.hash != own.hash
            {
                different.push((member.id, own.hash_revision));
            }
        }
        different
    }

    /// Before this member serves: refuses to, if it has other data than another one.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub(crate) async fn check_own_data(&self) -> Result<(), Corrupt> {
        match self.compare().await.first() {
            Some((peer, revision)) => Err(Corrupt {
                peer: *peer,
                revision: *revision,
            }),
            None => Ok(()),
        }
    }
}

/// Compares all members with the leader from time to time, and raises the alarm CORRUPT. Never ends; at once when it is off.
pub(crate) async fn watch_for_corruption(node: &Node) {
    let config = &node.config;
    let by_gate = config
        .feature_gates
        .enabled(Feature::CompactHashCheck)
        .then_some(config.compact_hash_check_time);
    // Both compare the same here: what is compacted counts in no sum.
    let Some(every) = config.corrupt_check_time.into_iter().chain(by_gate).min() else {
        return;
    };
    let mut interval = tokio::time::interval(every);
    interval.tick().await;
    loop {
        interval.tick().await;
        if !node.status.leads() {
            continue;
        }
        let different = node.compare().await;
        let (all, bad) = (node.tenants.members().len(), different.len());
        for (member, revision) in different {
            // If most differ from the leader, it is the leader whose data is damaged.
            let suspect = if bad * 2 >= all {
                node.identity.member
            } else {
                member
            };
            tracing::error!(
                member = format!("{suspect:x}"),
                revision,
                "a member has other data than the others"
            );
            let command = Command::RaiseAlarm(Alarm {
                member: suspect,
                kind: AlarmKind::Corrupt,
            });
            match node.propose(&command).await {
                Ok(_) | Err(ProposeError::Refused(_)) => {}
                Err(error) => tracing::warn!(?error, "cannot raise the alarm CORRUPT"),
            }
        }
    }
}
